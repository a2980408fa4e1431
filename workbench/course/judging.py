"""The verdict on one answer."""

import textwrap
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from workbench.course.answers import Open, Wrong
from workbench.course.exercise import Exercise

Status = Literal["right", "wrong", "open"]
_MARKS = {"right": "✓", "wrong": "✗", "open": "…"}
_WIDTH = 96


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        exercise: Name of the exercise.
        title: Its title.
        status: "open" where nothing is answered yet.
        message: The counterexample found, or what a right answer has shown.
    """

    exercise: str
    title: str
    status: Status
    message: str

    @property
    def passed(self) -> bool:
        """Whether the answer is right."""
        return self.status == "right"

    def __str__(self) -> str:
        word = {"right": "right", "wrong": "not yet", "open": "still open"}[self.status]
        head = f"{_MARKS[self.status]} {self.exercise} {self.title}: {word}"
        return "\n".join([head, *wrapped(self.message)])


def judge(exercise: Exercise, answer: Any, draw: np.random.Generator | None = None) -> Verdict:  # noqa: ANN401 - a student's answer
    """Run an exercise's check on fresh inputs.

    Args:
        exercise: The exercise.
        answer: A student's function or value.
        draw: Where inputs come from; fresh by default, so that no answer can know them.
    """
    draw = draw or np.random.default_rng()
    try:
        for _ in range(exercise.rounds):
            exercise.check(answer, draw)
    except Open as error:
        return Verdict(exercise.name, exercise.title, "open", str(error))
    except Wrong as error:
        return Verdict(exercise.name, exercise.title, "wrong", str(error))
    except Exception as error:  # an answer of a kind that no check foresaw
        message = f"the check cannot judge this answer ({type(error).__name__}: {error})."
        return Verdict(exercise.name, exercise.title, "wrong", message)
    return Verdict(exercise.name, exercise.title, "right", exercise.insight)


def wrapped(text: str) -> list[str]:
    """A message in indented lines that no notebook has to scroll."""
    return textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="  ")

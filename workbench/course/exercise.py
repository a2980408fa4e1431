"""What a lesson is made of: exercises with their checks, and the questions of a quiz."""

from collections.abc import Callable
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any

import numpy as np

from workbench.errors import WorkbenchError


class CourseError(WorkbenchError):
    """A lesson, exercise, notebook or answer that does not exist or cannot be used as asked."""


Check = Callable[[Any, np.random.Generator], None]
"""Judges one answer on inputs drawn from the generator; raises `Wrong` where it is not right."""


@dataclass(frozen=True)
class Exercise:
    """One task of a lesson.

    Attributes:
        name: Lesson and number, "1.2".
        title: What is to be written, in a few words.
        check: Judges the answer; called `rounds` times with one generator, so that it may draw
            one case and leave the repetition to the caller.
        hints: Three steps: the idea, the formula, nearly the code.
        insight: What a right answer has shown; printed with it.
        rounds: Fresh cases an answer must stand.
    """

    name: str
    title: str
    check: Check
    hints: tuple[str, str, str]
    insight: str = ""
    rounds: int = 5


@dataclass(frozen=True)
class Question:
    """One question of a quiz.

    Attributes:
        text: The question.
        options: The answers offered, shown as a, b, c, ...
        right: Letter of the right one.
        why: Why it is, and what makes the others tempting.
    """

    text: str
    options: tuple[str, ...]
    right: str
    why: str

    @property
    def letters(self) -> str:
        """The options' letters."""
        return ascii_lowercase[: len(self.options)]

    def __post_init__(self) -> None:
        if self.right not in tuple(self.letters):
            raise ValueError(f"The right answer is {self.right!r}; choose one of {self.letters}.")


@dataclass(frozen=True)
class Lesson:
    """One lesson of the course.

    Attributes:
        number: From 1.
        slug: Name of the notebook after the number.
        title: Title.
        minutes: How long it takes.
        aims: What a student can do afterwards.
        exercises: In order.
        quiz: The questions at the end.
    """

    number: int
    slug: str
    title: str
    minutes: int
    aims: tuple[str, ...]
    exercises: tuple[Exercise, ...]
    quiz: tuple[Question, ...]

    def __post_init__(self) -> None:
        names = [exercise.name for exercise in self.exercises]
        expected = [f"{self.number}.{place}" for place in range(1, len(names) + 1)]
        if names != expected:
            raise ValueError(f"The exercises are named {names}; name them {expected}.")

    @property
    def file(self) -> str:
        """Name of the student's notebook."""
        return f"{self.number}_{self.slug}.ipynb"

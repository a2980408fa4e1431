"""The four functions of a lesson's notebook: check, hint, quiz, progress."""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.course.book import ProgressBook, Record

if TYPE_CHECKING:
    import ipywidgets

    from workbench.course.exercise import Lesson, Question
    from workbench.course.judging import Verdict

listeners: "list[Callable[[Verdict], None]]" = []
"""Called with every verdict; how a notebook that is run again apart tells what came of it."""


def check(exercise: str, answer: Any = ...) -> bool:  # noqa: ANN401 - a student's answer
    """Judge an answer on fresh inputs, print what came of it, and take note.

    Args:
        exercise: Name of the exercise, "1.2".
        answer: Your function or value.

    Returns:
        Whether it is right.

    Raises:
        CourseError: there is no such exercise.
    """
    from workbench.course.catalogue import find_exercise
    from workbench.course.judging import judge

    verdict = judge(find_exercise(exercise), answer)
    print(verdict)
    if verdict.status == "wrong":
        print(f'  hint("{exercise}") goes one step further.')
    _kept(lambda: ProgressBook().note(verdict))
    for listener in listeners:
        listener(verdict)
    return verdict.passed


def hint(exercise: str) -> None:
    """Print the hints of an exercise so far, one more each time.

    Raises:
        CourseError: there is no such exercise.
    """
    from workbench.course.catalogue import find_exercise
    from workbench.course.judging import wrapped

    found = find_exercise(exercise)
    shown = _kept(lambda: ProgressBook().next_hint(exercise, len(found.hints))) or len(found.hints)
    for number, text in enumerate(found.hints[:shown], start=1):
        print(f"Hint {number} of {len(found.hints)}", *wrapped(text), sep="\n")


def quiz(lesson: int, answers: Sequence[str] | None = None) -> "ipywidgets.VBox | None":
    """The quiz of a lesson: as controls in a notebook, or answered at once.

    Args:
        lesson: The lesson's number.
        answers: One letter a question, as in "abcda"; without them, controls are shown.

    Raises:
        CourseError: there is no such lesson, or the answers do not fit its questions.
    """
    from workbench.course.catalogue import find_lesson

    found = find_lesson(lesson)
    if answers is None:
        return _controls(found)
    print("\n".join(mark_quiz(found, answers)))
    return None


def progress() -> "Progress":
    """What is done of every lesson."""
    from workbench.course.catalogue import all_lessons

    return Progress(ProgressBook().read(), all_lessons())


@dataclass(frozen=True)
class Progress:
    """What is done, as rows, as text, and as a table in a notebook."""

    record: Record
    lessons: "Sequence[Lesson]"

    def rows(self) -> list[dict[str, Any]]:
        """One row a lesson."""
        return [lesson_row(lesson, self.record) for lesson in self.lessons]

    def __str__(self) -> str:
        return "\n".join(
            f"{row['lesson']}  {row['title']}: {row['done']} of {row['exercises']} exercises, "
            f"quiz {_score(row)}"
            for row in self.rows()
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        body = [
            [row["lesson"], row["title"], f"{row['done']} of {row['exercises']}", _score(row)]
            for row in self.rows()
        ]
        head = _html_row("th", ["Lesson", "Title", "Exercises", "Quiz"])
        return f"<table>{head}{''.join(_html_row('td', each) for each in body)}</table>"


def lesson_row(lesson: "Lesson", record: Record) -> dict[str, Any]:
    """What is done of one lesson."""
    taken = record.quizzes.get(lesson.number)
    return {
        "lesson": lesson.number,
        "title": lesson.title,
        "minutes": lesson.minutes,
        "exercises": len(lesson.exercises),
        "done": sum(record.of(exercise.name).passed for exercise in lesson.exercises),
        "quiz_right": taken.right if taken else None,
        "quiz_of": len(lesson.quiz),
    }


def mark_quiz(lesson: "Lesson", answers: Sequence[str]) -> list[str]:
    """Mark the answers to a quiz, take note, and say of each why.

    Raises:
        CourseError: too few or too many answers, or one that is not offered.
    """
    from workbench.course.exercise import CourseError

    letters = [str(each).strip().lower() for each in answers]
    if len(letters) != len(lesson.quiz):
        raise CourseError(
            f"{len(letters)} answers to {len(lesson.quiz)} questions; give one letter each."
        )
    for place, (question, letter) in enumerate(zip(lesson.quiz, letters, strict=True), start=1):
        if letter not in tuple(question.letters):
            raise CourseError(
                f"Answer {place} is {letter!r}; choose one of {', '.join(question.letters)}."
            )
    marks = [_mark(*each) for each in zip(lesson.quiz, letters, strict=True)]
    right = sum(letter == each.right for each, letter in zip(lesson.quiz, letters, strict=True))
    _kept(lambda: ProgressBook().note_quiz(lesson.number, right, len(lesson.quiz)))
    numbered = [f"{place}. {mark}" for place, mark in enumerate(marks, start=1)]
    return [*numbered, f"{right} of {len(lesson.quiz)} right."]


def _mark(question: "Question", letter: str) -> str:
    if letter == question.right:
        return f"✓ {letter}. {question.why}"
    return f"✗ {letter}; right is {question.right}. {question.why}"


def _html_row(tag: str, values: Sequence[Any]) -> str:
    cells = (f'<{tag} style="text-align: left">{html.escape(str(v))}</{tag}>' for v in values)
    return f"<tr>{''.join(cells)}</tr>"


def _score(row: Mapping[str, Any]) -> str:
    return "open" if row["quiz_right"] is None else f"{row['quiz_right']} of {row['quiz_of']}"


def _controls(lesson: "Lesson") -> "ipywidgets.VBox":
    import ipywidgets

    asked = [_question(place, each) for place, each in enumerate(lesson.quiz, start=1)]
    choices = [choice for _, choice, _ in asked]
    done = ipywidgets.Button(description="Mark my answers")
    total = ipywidgets.HTML()

    def answer(_: object) -> None:
        open_ones = [str(place) for place, each in enumerate(choices, 1) if each.value is None]
        if open_ones:
            total.value = f"Still open: {', '.join(open_ones)}."
            return
        *marks, right = mark_quiz(lesson, [each.value for each in choices])
        for (_, _, note), mark in zip(asked, marks, strict=True):
            note.value = html.escape(mark.partition(" ")[2])
        total.value = f"<b>{right}</b>"

    done.on_click(answer)
    parts = [part for question in asked for part in question]
    return ipywidgets.VBox([*parts, done, total])


def _question(
    place: int, question: "Question"
) -> "tuple[ipywidgets.HTML, ipywidgets.RadioButtons, ipywidgets.HTML]":
    import ipywidgets

    text = ipywidgets.HTML(f"<b>{place}. {html.escape(question.text)}</b>")
    options = [
        (f"{letter}) {option}", letter)
        for letter, option in zip(question.letters, question.options, strict=True)
    ]
    layout = ipywidgets.Layout(width="auto")
    choice = ipywidgets.RadioButtons(options=options, value=None, layout=layout)
    return text, choice, ipywidgets.HTML()


def _kept(keep: Callable[[], Any]) -> Any:  # noqa: ANN401 - what `keep` returns
    """A progress file that cannot be written must not stop a lesson."""
    try:
        return keep()
    except OSError as error:
        print(f"  (Not kept in your progress: {error})")
        return None

"""check, hint, quiz and progress, as a notebook calls them."""

from pathlib import Path
from typing import Any

import pytest

from workbench.course import book as book_module
from workbench.course import check, hint, progress, quiz
from workbench.course.book import ProgressBook
from workbench.course.catalogue import all_lessons, find_exercise, find_lesson
from workbench.course.exercise import CourseError
from workbench.course.notebook import Progress

LETTERS = "".join(question.right for question in find_lesson(1).quiz)


def right(first: Any, second: Any) -> Any:
    return (first - second).sigmoid()


def test_a_check_says_what_came_of_it_and_keeps_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert check("1.1", lambda a, b: right(b, a)) is False
    out = " ".join(capsys.readouterr().out.split())
    assert "✗ 1.1" in out
    assert "turned the difference round" in out
    assert 'hint("1.1")' in out
    assert check("1.1", right) is True
    assert find_exercise("1.1").insight in " ".join(capsys.readouterr().out.split())
    assert ProgressBook().read().of("1.1").attempts == 2


def test_an_exercise_that_is_open_offers_no_hint_and_is_no_attempt(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert check("1.1") is False
    out = capsys.readouterr().out
    assert "… 1.1" in out
    assert "hint" not in out
    assert ProgressBook().read().of("1.1").attempts == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("1.9", "lesson 1 has 1.1, 1.2"),
        ("99.1", "There is no lesson 99"),
        ("one", 'as in "1.2"'),
        ("", 'as in "1.2"'),
        ("1", "lesson 1 has"),
    ],
)
def test_an_exercise_that_does_not_exist_is_refused_with_those_that_do(
    name: str, said: str
) -> None:
    for function in (check, hint):
        with pytest.raises(CourseError, match=said):
            function(name)


def test_hints_come_one_more_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for _ in range(4):
        hint("1.2")
        shown.append(capsys.readouterr().out.count("Hint "))
    assert shown == [1, 2, 3, 3]


def test_a_lesson_goes_on_where_progress_cannot_be_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "file"))
    assert check("1.1", right) is True
    hint("1.1")
    quiz(1, LETTERS)
    out = capsys.readouterr().out
    assert out.count("Not kept in your progress") == 3
    assert "Hint 3 of 3" in out


# The quiz ------------------------------------------------------------------------------


def test_a_quiz_is_marked_with_its_reasons_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    first = find_lesson(1).quiz[0]
    wrong = "a" if first.right != "a" else "b"
    assert quiz(1, wrong + LETTERS[1:].upper()) is None
    out = capsys.readouterr().out
    assert f"1. ✗ {wrong}; right is {first.right}. {first.why}" in out
    assert "4 of 5 right." in out
    assert progress().rows()[0]["quiz_right"] == 4


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ("ab", "2 answers to 5 questions"),
        ("abcaz", "Answer 5 is 'z'"),
        ([1] * 5, "Answer 1 is '1'"),
    ],
)
def test_answers_that_do_not_fit_the_quiz_are_refused_and_nothing_is_kept(
    answers: Any, said: str
) -> None:
    with pytest.raises(CourseError, match=said):
        quiz(1, answers)
    assert ProgressBook().read().quizzes == {}


def test_the_quiz_as_controls_marks_when_every_question_is_answered() -> None:
    box = quiz(1)
    assert box is not None
    *questions, button, total = box.children
    button.click()
    assert total.value == "Still open: 1, 2, 3, 4, 5."
    for choice, letter in zip(questions[1::3], LETTERS, strict=True):
        choice.value = letter
    button.click()
    assert total.value == "<b>5 of 5 right.</b>"
    assert all(note.value.startswith("✓") for note in questions[2::3])
    assert ProgressBook().read().quizzes[1].right == 5


def test_the_controls_show_text_as_text() -> None:
    for lesson in all_lessons():
        box = quiz(lesson.number)
        assert box is not None
        for question, shown in zip(lesson.quiz, box.children[::3], strict=False):
            assert ("<" in question.text) <= ("&lt;" in shown.value)


# Progress ------------------------------------------------------------------------------


def test_progress_counts_what_was_once_right(capsys: pytest.CaptureFixture[str]) -> None:
    check("1.1", right)
    check("1.1", lambda a, b: a)
    row = progress().rows()[0]
    assert (row["done"], row["exercises"], row["quiz_right"]) == (1, 5, None)
    assert str(progress()).startswith("1  What a preference says: 1 of 5 exercises, quiz open")


def test_progress_is_a_table_in_a_notebook_with_titles_escaped() -> None:
    lesson = find_lesson(1)
    object.__setattr__(shady := type(lesson)(**vars(lesson)), "title", "<script>")
    shown = Progress(ProgressBook().read(), [shady])._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert shown.count("<td") == 4


def test_a_lock_held_too_long_is_told_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(book_module, "_LOCK_SECONDS", 0.1)
    with ProgressBook()._changing():
        assert check("1.1", right) is True
    assert "cannot be locked" in capsys.readouterr().out

"""What is kept of a student's work."""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from threading import Thread

import pytest

from workbench.course import book as book_module
from workbench.course.book import ExerciseRecord, ProgressBook, QuizRecord, Record
from workbench.course.judging import Status, Verdict


def verdict(exercise: str, status: Status = "right") -> Verdict:
    return Verdict(exercise, "title", status, "message")


@pytest.fixture
def book(tmp_path: Path) -> ProgressBook:
    return ProgressBook(tmp_path)


def test_nothing_is_known_before_anything_was_done(book: ProgressBook) -> None:
    assert book.read() == Record()
    assert not book.path.exists()


def test_the_book_lies_in_the_users_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    assert ProgressBook().path == tmp_path / "course" / "progress.json"


def test_attempts_are_counted_and_what_was_once_right_stays_so(book: ProgressBook) -> None:
    for status in ("wrong", "right", "open", "wrong"):
        book.note(verdict("1.2", status))  # type: ignore[arg-type]
    assert book.read().of("1.2") == ExerciseRecord(passed=True, attempts=3)
    assert book.read().of("1.1") == ExerciseRecord()


def test_hints_go_one_step_further_each_time_and_end(book: ProgressBook) -> None:
    assert [book.next_hint("1.2", 3) for _ in range(5)] == [1, 2, 3, 3, 3]
    assert [book.next_hint("1.3", 3)] == [1]


def test_a_lesson_or_everything_is_forgotten_but_the_folder_stays(
    book: ProgressBook, tmp_path: Path
) -> None:
    book.note_folder(tmp_path)
    for name in ("1.1", "1.2", "10.1", "2.1"):
        book.note(verdict(name))
    book.note_quiz(1, 4, 5)
    book.forget(1)
    known = book.read()
    assert set(known.exercises) == {"10.1", "2.1"}
    assert known.quizzes == {}
    book.forget()
    assert book.read() == Record(folder=str(tmp_path))


def test_a_quiz_is_kept_as_it_was_answered_last(book: ProgressBook) -> None:
    book.note_quiz(3, 2, 5)
    book.note_quiz(3, 4, 5)
    assert ProgressBook(book.path.parent).read().quizzes == {3: QuizRecord(4, 5)}


@pytest.mark.parametrize(
    "spoilt",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"exercises": {}}',
        b'{"exercises": {"1.1": {"odd": 1}}, "quizzes": {}, "folder": ""}',
        b'{"exercises": {"1.1": {"attempts": "many"}}, "quizzes": {}, "folder": ""}',
        b'{"exercises": {"1.1": 3}, "quizzes": {}, "folder": ""}',
        b'{"exercises": {}, "quizzes": {"one": {"right": 1, "of": 5}}, "folder": ""}',
    ],
)
def test_a_spoilt_file_is_set_aside_whole_with_a_message(book: ProgressBook, spoilt: bytes) -> None:
    book.path.write_bytes(spoilt)
    with pytest.warns(UserWarning, match="set aside as progress.spoilt-"):
        book.note(verdict("1.1"))
    assert book.read().of("1.1").passed
    (aside,) = book.path.parent.glob("*.spoilt-*")
    assert aside.read_bytes() == spoilt


def test_a_write_that_fails_leaves_the_old_file_and_no_scrap(
    book: ProgressBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    book.note(verdict("1.1"))

    def full(*_: object) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        book.note(verdict("1.2"))
    monkeypatch.undo()
    assert set(book.read().exercises) == {"1.1"}
    assert {path.name for path in book.path.parent.iterdir()} == {"progress.json", "progress.lock"}


def attempt(folder: Path, worker: int) -> None:
    for turn in range(10):
        ProgressBook(folder).note(verdict(f"1.{worker}", "right" if turn == 9 else "wrong"))
        ProgressBook(folder).note(verdict("2.1", "wrong"))


def test_several_notebooks_at_once_lose_nothing(book: ProgressBook) -> None:
    folder = book.path.parent
    with ProcessPoolExecutor(3, mp_context=get_context("fork")) as workers:
        for job in [workers.submit(attempt, folder, worker) for worker in (1, 2, 3)]:
            job.result()
    known = book.read()
    assert known.of("2.1").attempts == 30
    assert [known.of(f"1.{worker}") for worker in (1, 2, 3)] == [ExerciseRecord(True, 10)] * 3


def interleaved(book: ProgressBook) -> set[str]:
    """What is known after a second notebook wrote while the first was in the middle of it."""
    other = Thread(target=lambda: ProgressBook(book.path.parent).note(verdict("2.1")))
    with book._changing() as change:
        other.start()
        other.join(0.5)
        change.exercise("1.1", passed=True)
    other.join()
    return set(book.read().exercises)


def test_a_second_notebook_waits_for_the_first(book: ProgressBook) -> None:
    assert interleaved(book) == {"1.1", "2.1"}


def test_without_the_lock_its_work_would_be_lost(
    book: ProgressBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book_module, "_alone", lambda path: nullcontext())
    assert interleaved(book) == {"1.1"}


def test_the_file_is_plain_json(book: ProgressBook) -> None:
    book.note(verdict("1.1"))
    assert json.loads(book.path.read_text())["exercises"]["1.1"]["passed"] is True

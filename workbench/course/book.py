"""What a student has done, in one small file that several notebooks may write at once."""

import json
import os
import sqlite3
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from workbench import paths
from workbench.course.judging import Verdict

_LOCK_SECONDS = 10.0


@dataclass(frozen=True)
class ExerciseRecord:
    """One exercise: whether it was ever right, after how many tries, and the hints read."""

    passed: bool = False
    attempts: int = 0
    hints: int = 0

    def __post_init__(self) -> None:
        if [type(each) for each in (self.passed, self.attempts, self.hints)] != [bool, int, int]:
            raise TypeError("An exercise's record has a flag and two counts.")


@dataclass(frozen=True)
class QuizRecord:
    """A quiz as it was answered last."""

    right: int
    of: int

    def __post_init__(self) -> None:
        if [type(self.right), type(self.of)] != [int, int]:
            raise TypeError("A quiz's record has two counts.")


@dataclass(frozen=True)
class Record:
    """All that is kept.

    Attributes:
        exercises: By name, "1.2".
        quizzes: By the lesson's number.
        folder: Where the student's notebooks were last put; empty if nowhere yet.
    """

    exercises: Mapping[str, ExerciseRecord] = field(default_factory=dict)
    quizzes: Mapping[int, QuizRecord] = field(default_factory=dict)
    folder: str = ""

    def of(self, exercise: str) -> ExerciseRecord:
        """What is known of an exercise."""
        return self.exercises.get(exercise, ExerciseRecord())

    def without(self, lesson: int) -> "Record":
        """The same, but nothing of one lesson."""
        exercises = {
            name: each
            for name, each in self.exercises.items()
            if name.partition(".")[0] != str(lesson)
        }
        quizzes = {number: each for number, each in self.quizzes.items() if number != lesson}
        return replace(self, exercises=exercises, quizzes=quizzes)


class ProgressBook:
    """Reads and changes the file; every change is whole, and none is lost to another notebook.

    Args:
        folder: Where the file lies; by default `course` in the user's data folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.path = (folder or paths.data_dir() / "course") / "progress.json"

    def read(self) -> Record:
        """What is known; nothing where there is no file.

        A spoilt file is set aside, with a warning that says where.
        """
        try:
            return _from_json(json.loads(self.path.read_bytes()))
        except FileNotFoundError:
            return Record()
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            self._set_aside(error)
            return Record()

    def note(self, verdict: Verdict) -> None:
        """Take note of a verdict; what was once right stays so, and an open one is no attempt.

        Raises:
            OSError: it cannot be written.
        """
        if verdict.status == "open":
            return
        with self._changing() as change:
            known = change.record.of(verdict.exercise)
            change.exercise(
                verdict.exercise,
                passed=known.passed or verdict.passed,
                attempts=known.attempts + 1,
            )

    def next_hint(self, exercise: str, steps: int) -> int:
        """How many of the hints to show now, one more each time.

        Raises:
            OSError: it cannot be written.
        """
        with self._changing() as change:
            shown = min(change.record.of(exercise).hints + 1, steps)
            change.exercise(exercise, hints=shown)
        return shown

    def note_quiz(self, lesson: int, right: int, of: int) -> None:
        """Take note of a quiz.

        Raises:
            OSError: it cannot be written.
        """
        with self._changing() as change:
            quizzes = {**change.record.quizzes, lesson: QuizRecord(right, of)}
            change.record = replace(change.record, quizzes=quizzes)

    def note_folder(self, folder: Path) -> None:
        """Take note of where the notebooks were put.

        Raises:
            OSError: it cannot be written.
        """
        with self._changing() as change:
            change.record = replace(change.record, folder=str(folder))

    def forget(self, lesson: int | None = None) -> None:
        """Forget one lesson, or all of them.

        Raises:
            OSError: it cannot be written.
        """
        with self._changing() as change:
            known = change.record
            change.record = known.without(lesson) if lesson else Record(folder=known.folder)

    @contextmanager
    def _changing(self) -> Iterator["_Change"]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(self.path.with_suffix(".lock")):
            change = _Change(self.read())
            yield change
            self._write(change.record)

    def _write(self, record: Record) -> None:
        fresh = self.path.with_suffix(f".{os.getpid()}")
        try:
            fresh.write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")
            os.replace(fresh, self.path)
        finally:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)

    def _set_aside(self, error: Exception) -> None:
        aside = self.path.with_suffix(f".spoilt-{time.time_ns()}")
        with suppress(OSError):
            os.replace(self.path, aside)
        warnings.warn(
            f"{self.path} could not be read ({type(error).__name__}); it was set aside as "
            f"{aside.name}, and progress starts afresh. Run your notebooks' checks again.",
            UserWarning,
            stacklevel=2,
        )


class _Change:
    """A record while it is being changed."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def exercise(self, name: str, **changes: Any) -> None:  # noqa: ANN401 - fields of the record
        known = replace(self.record.of(name), **changes)
        self.record = replace(self.record, exercises={**self.record.exercises, name: known})


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock that ends with its process; SQLite's is the one that every platform has.

    Raises:
        OSError: another notebook holds it too long.
    """
    try:
        with closing(sqlite3.connect(path, timeout=_LOCK_SECONDS, isolation_level=None)) as lock:
            lock.execute("BEGIN EXCLUSIVE")
            yield
    except sqlite3.Error as error:
        raise OSError(f"{path} cannot be locked ({error}).") from error


def _from_json(known: Mapping[str, Any]) -> Record:
    return Record(
        {str(name): ExerciseRecord(**each) for name, each in known["exercises"].items()},
        {int(number): QuizRecord(**each) for number, each in known["quizzes"].items()},
        str(known["folder"]),
    )

"""`workbench course`: list the lessons, start one, check a student's notebooks, forget progress.

Exit codes: 0 done (and, with `check`, every exercise is right), 1 an exercise is not right yet, or
the input was at fault.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
from cyclopts import Parameter

from workbench.app.printing import Json, print_json, print_rows

if TYPE_CHECKING:
    from workbench.course.exercise import Lesson
    from workbench.course.replay import Replay

app = cyclopts.App(name="course", help="Eight lessons in notebooks, with exercises that check you.")
Flag = Parameter(negative="")
Which = Annotated[str, Parameter(help="Number of the lesson, or all.")]
DEFAULT_FOLDER = Path("course")


@app.command(name="list")
def list_lessons(*, as_json: Json = False) -> None:
    """List the lessons, and what is done of each.

    Args:
        as_json: Print JSON.
    """
    from workbench.course import progress

    rows = progress().rows()
    if as_json:
        print_json(rows)
        return
    print_rows([_shown(row) for row in rows], "Lessons")


@app.command
def start(
    lesson: Which = "1",
    /,
    *,
    to: Path = DEFAULT_FOLDER,
    instructor: Annotated[bool, Flag] = False,
    force: Annotated[bool, Flag] = False,
    as_json: Json = False,
) -> None:
    """Put a lesson's notebook into a folder; one that is there already stays as it is.

    Args:
        lesson: Number of the lesson, or all.
        to: Folder for the notebooks.
        instructor: The version with the solutions, as a file of its own.
        force: Replace a notebook that is there; the old one is kept beside it, as .bak.
        as_json: Print JSON.
    """
    from workbench.course.material import start_lesson

    rows = []
    for each in _lessons(lesson):
        path, outcome = start_lesson(each, to, instructor=instructor, force=force)
        rows.append({"lesson": each.number, "file": str(path), "outcome": outcome})
    if not instructor:
        _remember(to)
    if as_json:
        print_json(rows)
        return
    print_rows(rows, f"Open them with: jupyter lab {to}")
    if any(row["outcome"] == "kept" for row in rows):
        print("A notebook that was there already was kept; --force replaces it.")


@app.command
def check(
    lesson: Which = "all",
    /,
    *,
    folder: Annotated[Path | None, Parameter(name="--in")] = None,
    as_json: Json = False,
) -> int:
    """Run the exercises of your notebooks again; exit with 1 while one is not right.

    Args:
        lesson: Number of the lesson, or all of those in the folder.
        folder: Folder of the notebooks; by default where `start` last put them.
        as_json: Print JSON.
    """
    from workbench.course.replay import replay_apart

    place = folder or _remembered()
    lessons = [each for each in _lessons(lesson) if lesson != "all" or (place / each.file).exists()]
    if not lessons:
        from workbench.course.exercise import CourseError

        raise CourseError(f"{place} has no lesson's notebook; say `workbench course start` first.")
    found = {each.number: replay_apart(each, place / each.file) for each in lessons}
    if as_json:
        print_json([_replay_json(number, each) for number, each in found.items()])
    else:
        for number, each in found.items():
            _print_replay(number, each)
    return 0 if all(each.passed for each in found.values()) else 1


@app.command
def reset(lesson: Which = "all", /, *, as_json: Json = False) -> None:
    """Forget what was done; notebooks stay as they are.

    Args:
        lesson: Number of the lesson, or all.
        as_json: Print JSON.
    """
    from workbench.course.book import ProgressBook

    numbers = [each.number for each in _lessons(lesson)]
    ProgressBook().forget(None if lesson == "all" else numbers[0])
    if as_json:
        print_json({"forgotten": numbers})
    else:
        print("Forgotten. `workbench course start LESSON --force` gives a fresh notebook.")


def _lessons(which: str) -> "list[Lesson]":
    from workbench.course.catalogue import all_lessons, find_lesson
    from workbench.course.exercise import CourseError

    if which == "all":
        return all_lessons()
    if not which.isdecimal():
        raise CourseError(f"{which!r} is no lesson; give its number, or all.")
    return [find_lesson(int(which))]


def _remember(folder: Path) -> None:
    from workbench.course.book import ProgressBook

    ProgressBook().note_folder(folder.resolve())


def _remembered() -> Path:
    from workbench.course.book import ProgressBook

    return Path(ProgressBook().read().folder or DEFAULT_FOLDER)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    taken = row["quiz_right"]
    return {
        "lesson": row["lesson"],
        "title": row["title"],
        "minutes": row["minutes"],
        "exercises": f"{row['done']} of {row['exercises']}",
        "quiz": "open" if taken is None else f"{taken} of {row['quiz_of']}",
    }


def _replay_json(number: int, found: "Replay") -> dict[str, Any]:
    return {"lesson": number, "passed": found.passed} | asdict(found)


def _print_replay(number: int, found: "Replay") -> None:
    rows = [
        {"exercise": f"{each.exercise} {each.title}", "is": each.status, "message": each.message}
        for each in found.verdicts
    ]
    print_rows(rows, f"Lesson {number}")
    if found.problems:
        print_rows([{"problem": each} for each in found.problems], "Cells that stopped")

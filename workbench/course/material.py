"""The lessons' notebooks: where they lie, a copy for a student, and the instructor's version.

Cells are told apart by their tags: `exercise:1.2` is the stub that a student fills, `check:1.2` has
it judged, `demo` shows the product and is left out when a notebook's answers are checked again, and
so is `quiz`.
"""

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from workbench.course.exercise import CourseError, Lesson

Notebook = dict[str, Any]
Outcome = Literal["written", "kept", "replaced"]
_MARKER = re.compile(r"^# %% exercise (\d+\.\d+)\n", re.MULTILINE)


def material_folder() -> Path:
    """Where the lessons' own notebooks lie: in the package as installed, or in a checkout.

    Raises:
        CourseError: in neither.
    """
    places = (
        Path(__file__).with_name("material"),
        Path(__file__).parents[2] / "notebooks" / "course",
    )
    for place in places:
        if place.is_dir():
            return place
    raise CourseError("The lessons' notebooks are missing; install the workbench again.")


def read_notebook(path: Path) -> Notebook:
    """A notebook as it lies on disk.

    Raises:
        CourseError: it is missing, or no notebook.
    """
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CourseError(
            f"{path} is not there; `workbench course start` puts a lesson's notebook into a folder."
        ) from None
    except (OSError, ValueError) as error:
        raise CourseError(f"{path} cannot be read ({error}); start the lesson again.") from error
    if not isinstance(found, dict) or not isinstance(found.get("cells"), list):
        raise CourseError(f"{path} is no notebook of version 4; start the lesson again.")
    return found


def lesson_notebook(lesson: Lesson) -> Notebook:
    """A lesson's notebook as a student gets it."""
    return read_notebook(material_folder() / lesson.file)


def solutions(lesson: Lesson) -> tuple[str, dict[str, str]]:
    """The model solutions: what stands before the first, and each one's code by its exercise.

    Raises:
        CourseError: the file is missing.
    """
    path = material_folder() / "instructor" / f"lesson_{lesson.number}.py"
    if not path.is_file():
        raise CourseError(f"There are no solutions to lesson {lesson.number} ({path.name}).")
    head, *parts = _MARKER.split(path.read_text(encoding="utf-8"))
    return head, {name: code.strip() for name, code in zip(parts[::2], parts[1::2], strict=True)}


def instructor_notebook(lesson: Lesson) -> Notebook:
    """The student's notebook with the model solutions in the stub cells.

    Raises:
        CourseError: an exercise without a stub cell, or without a solution.
    """
    notebook, (_, code) = lesson_notebook(lesson), solutions(lesson)
    stubs = {name: cell for cell in notebook["cells"] if (name := tagged(cell, "exercise"))}
    asked = {exercise.name for exercise in lesson.exercises}
    if not asked == set(stubs) == set(code):
        raise CourseError(
            f"Lesson {lesson.number} has exercises {_named(asked)}, stub cells {_named(stubs)} "
            f"and solutions {_named(code)}; they must be the same."
        )
    for name, cell in stubs.items():
        cell["source"] = code[name]
    title = notebook["cells"][0]
    title["source"] = f"{source(title)}\n\n**The instructor's version, with the solutions.**"
    return notebook


def start_lesson(
    lesson: Lesson, folder: Path, *, instructor: bool = False, force: bool = False
) -> tuple[Path, Outcome]:
    """Put a lesson's notebook into a folder; what a student wrote stays, unless forced.

    Args:
        lesson: The lesson.
        folder: Made where it is missing.
        instructor: The version with solutions, under a name of its own.
        force: Replace a notebook that is there; the old one is kept beside it, as `.bak`.

    Raises:
        CourseError: the folder cannot be written.
    """
    notebook = instructor_notebook(lesson) if instructor else lesson_notebook(lesson)
    name = lesson.file.replace(".ipynb", "_instructor.ipynb") if instructor else lesson.file
    path = folder / name
    there = path.exists()
    if there and not force:
        return path, "kept"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if there:
            os.replace(path, path.with_name(f"{name}.bak"))
        _write(path, notebook)
    except OSError as error:
        raise CourseError(
            f"{path} cannot be written ({error.strerror}); choose another folder with --to."
        ) from error
    return path, "replaced" if there else "written"


def tagged(cell: Mapping[str, Any], kind: str) -> str:
    """What a cell's tag `kind:NAME` names; `kind` itself for the plain tag; else nothing."""
    tags = cell.get("metadata", {}).get("tags", [])
    named = [tag.partition(":")[2] or kind for tag in tags if tag.partition(":")[0] == kind]
    return str(named[0]) if named else ""


def source(cell: Mapping[str, Any]) -> str:
    """A cell's text, which a notebook keeps whole or in lines."""
    found = cell["source"]
    return found if isinstance(found, str) else "".join(found)


def _write(path: Path, notebook: Notebook) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        fresh.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")
        os.replace(fresh, path)
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)


def _named(names: Mapping[str, Any] | set[str]) -> str:
    return ", ".join(sorted(names)) or "none"

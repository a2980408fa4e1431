"""The lessons' notebooks: as they lie in the repository, as a student gets them, run again."""

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from workbench.course import material
from workbench.course.catalogue import all_lessons, find_lesson
from workbench.course.exercise import CourseError, Lesson
from workbench.course.material import (
    instructor_notebook,
    lesson_notebook,
    material_folder,
    read_notebook,
    source,
    start_lesson,
    tagged,
)
from workbench.course.replay import replay, replay_apart

LESSONS = pytest.mark.parametrize("lesson", all_lessons(), ids=lambda lesson: lesson.slug)


@pytest.fixture
def first() -> Lesson:
    return find_lesson(1)


def fill(path: Path, name: str, code: str) -> None:
    """Do what a student does: write into a stub cell, and save."""
    notebook = read_notebook(path)
    for cell in notebook["cells"]:
        if tagged(cell, "exercise") == name:
            cell["source"] = code.splitlines(keepends=True)
    path.write_text(json.dumps(notebook))


# As they lie ---------------------------------------------------------------------------


@LESSONS
def test_a_notebook_is_valid_and_has_no_outputs(lesson: Lesson) -> None:
    notebook = nbformat.read(material_folder() / lesson.file, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@LESSONS
def test_a_notebook_checks_each_exercise_once_right_after_its_stub(lesson: Lesson) -> None:
    cells = lesson_notebook(lesson)["cells"]
    names = [exercise.name for exercise in lesson.exercises]
    stubs = [
        (place, name) for place, cell in enumerate(cells) if (name := tagged(cell, "exercise"))
    ]
    assert [name for _, name in stubs] == names
    checks = {name: place for place, cell in enumerate(cells) if (name := tagged(cell, "check"))}
    for place, name in stubs:
        assert checks[name] == place + 1
        assert re.search(rf'check\(\s*"{re.escape(name)}"', source(cells[place + 1]))


@LESSONS
def test_a_notebook_begins_with_its_title_and_shows_the_product_the_quiz_and_progress(
    lesson: Lesson,
) -> None:
    cells = lesson_notebook(lesson)["cells"]
    assert source(cells[0]).startswith(f"# {lesson.number}. {lesson.title}\n")
    assert f"{lesson.minutes} minutes" in source(cells[0])
    demos = "\n".join(source(cell) for cell in cells if tagged(cell, "demo"))
    assert "wb.open(" in demos
    assert [source(cell).strip() for cell in cells if tagged(cell, "quiz")] == [
        f"quiz({lesson.number})"
    ]
    assert "progress()" in "\n".join(map(source, cells))


@LESSONS
def test_exercises_use_nothing_that_a_demonstration_made(lesson: Lesson) -> None:
    """They are run again without the demonstrations."""
    found = list(replay(instructor_notebook(lesson)))
    assert [each for each in found if isinstance(each, str)] == []


# As a student gets them ----------------------------------------------------------------


def test_the_instructors_version_differs_in_the_stubs_and_the_title_alone(first: Lesson) -> None:
    pairs = zip(lesson_notebook(first)["cells"], instructor_notebook(first)["cells"], strict=True)
    changed = [a for a, b in pairs if a != b]
    assert [tagged(cell, "exercise") for cell in changed] == [
        "",
        *(e.name for e in first.exercises),
    ]


def test_an_exercise_without_a_solution_is_found(
    first: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, code = material.solutions(first)
    del code["1.3"]
    monkeypatch.setattr(material, "solutions", lambda lesson: (head, code))
    with pytest.raises(CourseError, match="they must be the same"):
        instructor_notebook(first)


def test_a_students_file_is_kept_unless_forced_and_then_beside(
    first: Lesson, tmp_path: Path
) -> None:
    path, outcome = start_lesson(first, tmp_path / "a" / "b")
    assert outcome == "written"
    assert read_notebook(path) == lesson_notebook(first)
    path.write_text("mine")
    assert start_lesson(first, path.parent) == (path, "kept")
    assert path.read_text() == "mine"
    assert start_lesson(first, path.parent, force=True) == (path, "replaced")
    assert read_notebook(path) == lesson_notebook(first)
    assert path.with_name(f"{path.name}.bak").read_text() == "mine"


def test_the_instructors_version_never_takes_a_students_name(first: Lesson, tmp_path: Path) -> None:
    student, _ = start_lesson(first, tmp_path)
    instructor, _ = start_lesson(first, tmp_path, instructor=True)
    assert instructor != student
    assert "sigmoid(first - second)" in instructor.read_text()
    assert "sigmoid(first - second)" not in student.read_text()


def test_a_folder_that_cannot_be_written_is_told(first: Lesson, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CourseError, match="choose another folder with --to"):
        start_lesson(first, tmp_path / "file")


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "course start"), ("{", "cannot be read"), ("[]", "no notebook"), ("{}", "no notebook")],
)
def test_what_is_no_notebook_is_told(content: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.ipynb"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CourseError, match=said):
        read_notebook(path)


def test_a_missing_course_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(material, "__file__", str(tmp_path / "a" / "b" / "c" / "material.py"))
    with pytest.raises(CourseError, match="install the workbench again"):
        material_folder()


# Run again -----------------------------------------------------------------------------

GAP = "def reward_gap(alpha):\n    return torch.logit(alpha)\n"


def statuses(found: Any) -> list[str]:
    return [verdict.status for verdict in found.verdicts]


def test_what_a_student_wrote_is_run_apart_and_judged(first: Lesson, tmp_path: Path) -> None:
    path, _ = start_lesson(first, tmp_path)
    fill(path, "1.1", "def preference(first, second):\n    return first / (first + second)\n")
    fill(path, "1.2", GAP)
    found = replay_apart(first, path)
    assert statuses(found) == ["wrong", "right", "open", "open", "open"]
    assert "strengths, without exp" in found.verdicts[0].message
    assert not found.passed
    assert found.problems == ()


def test_the_solutions_pass_apart(first: Lesson, tmp_path: Path) -> None:
    path, _ = start_lesson(first, tmp_path, instructor=True)
    assert replay_apart(first, path).passed


def test_a_cell_that_stops_is_told_and_the_others_are_judged(first: Lesson, tmp_path: Path) -> None:
    path, _ = start_lesson(first, tmp_path)
    fill(path, "1.1", "%load_ext something\ndef preference(first, second): ...")
    fill(path, "1.2", GAP)
    found = replay_apart(first, path)
    assert statuses(found)[:2] == ["open", "right"]
    assert found.verdicts[0].message == "its check was not reached."
    assert [re.search(r"^Cell \d+: (\w+)", each)[1] for each in found.problems] == [  # type: ignore[index]
        "SyntaxError",
        "NameError",
    ]


def test_a_loop_without_an_end_costs_only_what_comes_after_it(
    first: Lesson, tmp_path: Path
) -> None:
    path, _ = start_lesson(first, tmp_path)
    fill(path, "1.1", "def preference(first, second):\n    return torch.sigmoid(first - second)\n")
    fill(path, "1.2", "def reward_gap(alpha):\n    while True:\n        pass\n")
    found = replay_apart(first, path, limit=20)
    assert statuses(found) == ["right", "open", "open", "open", "open"]
    assert "a loop without an end" in found.problems[0]


def test_a_process_that_dies_is_told(first: Lesson, tmp_path: Path) -> None:
    path, _ = start_lesson(first, tmp_path)
    fill(path, "1.2", "import os\nos._exit(3)\n")
    found = replay_apart(first, path)
    assert statuses(found) == ["open"] * 5
    assert "ended with 3" in found.problems[0]

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workbench.app import cli, course_commands
from workbench.course.book import ProgressBook
from workbench.course.catalogue import all_lessons, find_lesson
from workbench.course.judging import Verdict
from workbench.course.material import instructor_notebook

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run(["course", *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def solve(number: int, folder: Path) -> None:
    """A student who has filled every cell."""
    lesson = find_lesson(number)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / lesson.file).write_text(json.dumps(instructor_notebook(lesson)))


@pytest.mark.parametrize("command", ["list", "start", "check", "reset"])
def test_every_command_has_help_and_every_option_says_what_it_does(command: str, run: Run) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    for parameter in course_commands.app[command].assemble_argument_collection(
        parse_docstring=True
    ):
        assert parameter.parameter.help, f"{command} {parameter.name}"
        assert parameter.name in out


def test_the_list_has_each_lesson_and_what_is_done_of_it(run: Run) -> None:
    ProgressBook().note(Verdict("2.1", "", "right", ""))
    ProgressBook().note_quiz(2, 4, 5)
    code, out, _ = run("list", "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["title"] for row in rows] == [lesson.title for lesson in all_lessons()]
    assert (rows[1]["done"], rows[1]["quiz_right"]) == (1, 4)
    assert (rows[0]["done"], rows[0]["quiz_right"]) == (0, None)
    shown = run("list")[1]
    assert "1 of 5" in shown
    assert "4 of 5" in shown


def test_start_puts_notebooks_into_the_folder_and_keeps_what_is_there(run: Run) -> None:
    assert run("start", "all", "--to", "mine")[0] == 0
    assert {path.name for path in Path("mine").iterdir()} == {each.file for each in all_lessons()}
    kept = Path("mine") / find_lesson(1).file
    kept.write_text("work")
    code, out, _ = run("start", "1", "--to", "mine")
    assert code == 0
    assert "was kept; --force replaces it" in out
    assert kept.read_text() == "work"
    rows = json.loads(run("start", "1", "--to", "mine", "--force", "--json")[1])
    assert rows == [{"lesson": 1, "file": str(kept), "outcome": "replaced"}]
    assert kept.read_text() != "work"


def test_check_fails_while_an_exercise_is_open_and_passes_when_none_is(run: Run) -> None:
    run("start", "1", "--to", "mine")
    code, out, _ = run("check", "--json")
    (found,) = json.loads(out)
    assert code == 1
    assert (found["lesson"], found["passed"]) == (1, False)
    assert {each["status"] for each in found["verdicts"]} == {"open"}
    solve(1, Path("mine"))
    code, out, _ = run("check", "1")
    assert code == 0
    assert "right" in out
    assert json.loads(run("list", "--json")[1])[0]["done"] == 5


def test_check_looks_where_start_put_the_notebooks_or_where_it_is_told(
    run: Run, tmp_path: Path
) -> None:
    solve(2, tmp_path / "elsewhere")
    assert run("check", "2", "--in", str(tmp_path / "elsewhere"))[0] == 0
    code, _, err = run("check", "2")
    assert code == 1
    assert "course start" in err


def test_check_of_an_empty_folder_says_what_to_do(run: Run) -> None:
    code, out, err = run("check")
    assert (code, out) == (1, "")
    assert "workbench course start" in err


def test_the_instructors_copy_does_not_become_the_students_folder(run: Run) -> None:
    run("start", "1", "--to", "mine")
    run("start", "1", "--instructor", "--to", "lecture")
    assert Path(ProgressBook().read().folder).name == "mine"
    assert [path.name for path in Path("lecture").iterdir()] == [
        "1_what_a_preference_says_instructor.ipynb"
    ]


def test_reset_forgets_a_lesson_and_touches_no_notebook(run: Run) -> None:
    solve(1, Path("course"))
    for name in ("1.1", "2.1"):
        ProgressBook().note(Verdict(name, "", "right", ""))
    assert run("reset", "1")[0] == 0
    assert set(ProgressBook().read().exercises) == {"2.1"}
    assert json.loads(run("reset", "--json")[1])["forgotten"] == [
        lesson.number for lesson in all_lessons()
    ]
    assert ProgressBook().read().exercises == {}
    assert (Path("course") / find_lesson(1).file).exists()


@pytest.mark.parametrize("command", ["start", "check", "reset"])
@pytest.mark.parametrize(
    ("lesson", "said"), [("99", "There is no lesson 99"), ("one", "'one' is no lesson")]
)
def test_a_lesson_that_does_not_exist_is_told(
    command: str, lesson: str, said: str, run: Run
) -> None:
    code, out, err = run(command, lesson)
    assert (code, out) == (1, "")
    assert said in err


def test_help_of_the_course_imports_nothing_heavy() -> None:
    code = (
        "import sys; from workbench.app.cli import run; run(['course', '--help']);"
        "heavy: Any = {'torch', 'numpy', 'ipywidgets', 'pandas'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    ).replace(": Any", "")
    done: Any = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")

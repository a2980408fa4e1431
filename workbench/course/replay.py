"""Check the answers in a student's notebook again, in a process of its own.

`python -m workbench.course.replay NOTEBOOK RESULTS` runs the cells and writes one JSON line for
each verdict as it falls, so that an endless loop costs only what comes after it.
"""

import json
import linecache
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workbench.course import notebook as functions
from workbench.course.exercise import Lesson
from workbench.course.judging import Verdict
from workbench.course.material import Notebook, read_notebook, source, tagged

TIME_LIMIT = 120.0
_LEFT_OUT = ("demo", "quiz")


@dataclass(frozen=True)
class Replay:
    """What came of a notebook's cells.

    Attributes:
        verdicts: The last of each exercise; "open" for those that were not reached.
        problems: What a cell raised, in words.
    """

    verdicts: tuple[Verdict, ...]
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every exercise is right."""
        return all(verdict.passed for verdict in self.verdicts)


def replay_apart(lesson: Lesson, path: Path, limit: float = TIME_LIMIT) -> Replay:
    """Run a student's notebook, all but its demonstrations, in a fresh process.

    Args:
        lesson: The lesson of which it is the notebook.
        path: The notebook.
        limit: Seconds after which it is stopped.

    Raises:
        CourseError: the notebook cannot be read.
    """
    read_notebook(path)
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.jsonl"
        command = [
            sys.executable,
            "-m",
            "workbench.course.replay",
            str(path.resolve()),
            str(results),
        ]
        problems = []
        try:
            done = subprocess.run(
                command, cwd=path.parent, env=os.environ | {"MPLBACKEND": "Agg"}, timeout=limit,
                capture_output=True, text=True, encoding="utf-8", errors="replace", check=False,
            )  # fmt: skip
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
                problems.append(f"The notebook's process ended with {done.returncode}: {last}")
        except subprocess.TimeoutExpired:
            problems.append(f"Stopped after {limit:g} s; is there a loop without an end?")
        lines = results.read_text("utf-8").splitlines() if results.exists() else []
    return _gathered(lesson, [json.loads(line) for line in lines], problems)


def replay(notebook: Notebook) -> Iterator[Verdict | str]:
    """Run a notebook's cells, all but its demonstrations, here; verdicts and problems as they come.

    A cell that fails is told, and the next one runs.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    found: list[Verdict] = []
    functions.listeners.append(found.append)
    try:
        for place, cell in enumerate(notebook["cells"], start=1):
            if cell["cell_type"] != "code" or any(tagged(cell, kind) for kind in _LEFT_OUT):
                continue
            problem = _run_cell(source(cell), f"<cell {place}>", namespace)
            yield from found
            found.clear()
            if problem:
                yield f"Cell {place}: {problem}"
    finally:
        functions.listeners.remove(found.append)


def _run_cell(code: str, name: str, namespace: dict[str, Any]) -> str:
    """Run one cell; what it raised, or nothing."""
    # A traceback then finds the line, as it does in a notebook.
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    try:
        exec(compile(code, name, "exec"), namespace)
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _gathered(lesson: Lesson, lines: list[dict[str, Any]], problems: list[str]) -> Replay:
    told = [line["problem"] for line in lines if "problem" in line]
    last = {line["exercise"]: Verdict(**line) for line in lines if "exercise" in line}
    verdicts = [
        last.get(each.name) or Verdict(each.name, each.title, "open", "its check was not reached.")
        for each in lesson.exercises
    ]
    return Replay(tuple(verdicts), (*told, *problems))


def _main(path: str, results: str) -> None:
    with Path(results).open("w", encoding="utf-8") as file:
        for found in replay(read_notebook(Path(path))):
            line = {"problem": found} if isinstance(found, str) else asdict(found)
            file.write(json.dumps(line) + "\n")
            file.flush()


if __name__ == "__main__":
    _main(*sys.argv[1:])

"""The notebooks, as they lie in the repository and run from top to bottom.

The course's are run here as a student first finds them; tests/course judges their exercises.
"""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from workbench.scoring.default_model import is_ready

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
COURSE = sorted((FOLDER / "course").glob("*.ipynb"))
NAMES = [
    "00_tour",
    "10_ranking",
    "20_differential_information",
    "30_fairness",
    "40_training",
    "50_your_own_data",
    "60_your_own_model",
    "70_write_a_study",
]
LIVE = "application/vnd.jupyter.widget-view+json"
LIMIT = 300
"""Seconds a cell may take on a loaded machine."""


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def name_of(path: Path) -> str:
    return path.stem


def execute(notebook: Any, monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[Any]:
    """Run a notebook in a kernel that keeps its sessions below `folder`; its outputs."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("WORKBENCH_DATA", str(folder / "data"))
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=LIMIT, kernel_name="python3", resources=place).execute()
    return [out for cell in notebook.cells for out in cell.get("outputs", ())]


def run_cleanly(path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[Any]:
    """The outputs of a notebook on the default model, none of which is an error."""
    if not is_ready():
        pytest.skip("the default model is not in the cache")
    outputs = execute(read(path), monkeypatch, folder)
    assert [out for out in outputs if out.output_type == "error"] == []
    return outputs


# As they lie ---------------------------------------------------------------------------


def test_the_notebooks_are_those_that_the_readme_lists() -> None:
    assert [each.stem for each in NOTEBOOKS] == NAMES
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert f"notebooks/{path.name}" in readme


@pytest.mark.parametrize("path", [*NOTEBOOKS, *COURSE], ids=name_of)
def test_a_notebook_is_valid_has_stable_ids_and_no_outputs(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z0-9.-]+", each) for each in ids), "ids are words, not drawn"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_a_notebook_begins_with_a_title_and_ends_with_where_to_go_next(path: Path) -> None:
    first, *_, last = read(path).cells
    assert first.source.startswith("# ")
    assert last.source.startswith("## Where to go next")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_what_a_notebook_points_to_is_there(path: Path) -> None:
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#:]+\.(?:ipynb|md))\)", text)
    named = re.findall(r"`((?:docs|workbench)/[\w/.]+)`", text)
    assert [each for each in links if not (FOLDER / each).is_file()] == []
    assert [each for each in named if not (ROOT / each).exists()] == []


# Run -----------------------------------------------------------------------------------


@pytest.mark.default_model
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_a_notebook_runs_from_top_to_bottom_and_shows_live_views_with_pictures(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outputs = run_cleanly(path, monkeypatch, tmp_path)
    shown = {kind for out in outputs for kind in out.get("data", {})}
    assert {LIVE, "image/png", "text/html"} <= shown


@pytest.mark.default_model
@pytest.mark.slow
@pytest.mark.parametrize("path", COURSE, ids=name_of)
def test_a_lesson_runs_from_top_to_bottom_before_its_exercises_are_solved(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outputs = run_cleanly(path, monkeypatch, tmp_path)
    printed = "".join(out.text for out in outputs if out.output_type == "stream")
    assert "still open" in printed


def test_a_notebook_with_a_cell_that_raises_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    notebook = read(NOTEBOOKS[0])
    notebook.cells[1].source = "raise RuntimeError('planted')"
    with pytest.raises(CellExecutionError, match="planted"):
        execute(notebook, monkeypatch, tmp_path)

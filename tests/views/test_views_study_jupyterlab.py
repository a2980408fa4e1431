"""`workbench.show` in a real JupyterLab, and what is left of it without a kernel."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_support import eventually
from jupyterlab_support import cell, printed, run_all, run_cell, run_command, running_lab

pytestmark = pytest.mark.browser
EXAMPLE = Path(__file__).parents[1] / "study"
CELLS = [
    "import os, sys, tempfile\n"
    "os.environ['WORKBENCH_DATA'] = tempfile.mkdtemp()\n"
    f"sys.path.insert(0, {str(EXAMPLE)!r})\n"
    "import example_study, workbench\n"
    "view = workbench.show(example_study.CoinStudy(), preset='smoke', run=True)",
    "view",
    "print(len(view.report.runs[0].result.tables['share']['share']), view.knobs['every'].value)",
]
VIEW, REPORT = 1, 2


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jupyterlab")


@pytest.fixture(scope="module")
def lab(home: Path, browser: Any) -> Iterator[str]:
    with running_lab(home, CELLS) as url:
        yield url


def test_a_study_lives_in_a_notebook_and_its_html_is_saved(page: Any, lab: str, home: Path) -> None:
    run_all(page, lab)
    view = cell(page, VIEW)
    view.locator(".js-plotly-plot").first.wait_for(timeout=120_000)
    view.get_by_text("The share approaches the bias.").first.wait_for()
    printed(page, REPORT).get_by_text("20 100").wait_for()

    # A measure knob: more points, of the same fit.
    slider = view.locator(".widget-slider [role=slider], .widget-slider .noUi-handle").first
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    traced = ".js-plotly-plot .scatterlayer .js-line"
    view.locator(traced).first.wait_for(state="attached")

    def moved() -> bool:
        run_cell(page, REPORT)
        page.wait_for_timeout(300)
        return not printed(page, REPORT).last.inner_text().startswith("20 100")

    eventually(moved, 60)
    assert page.page_errors == []

    run_command(page, "docmanager:save")
    path = home / "root" / "notebook.ipynb"

    def saved() -> Any:
        outputs = json.loads(path.read_text(encoding="utf-8"))["cells"][VIEW]["outputs"]
        return outputs and outputs[0]["data"]

    eventually(lambda: bool(saved()), 60)
    still = "".join(saved()["text/html"])
    assert "<svg" in still
    assert "The share approaches the bias." in still
    assert "<script" not in still

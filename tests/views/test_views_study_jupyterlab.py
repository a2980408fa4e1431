"""`workbench.show` in a real JupyterLab, and what is left of it without a kernel."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_support import eventually
from jupyterlab_support import (
    cell,
    outputs,
    printed,
    reopen_without_kernel,
    run_all,
    run_cell,
    running_lab,
    save,
)

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


def test_a_study_lives_in_a_notebook_and_its_picture_without_a_kernel(
    page: Any, lab: str, home: Path
) -> None:
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

    old = outputs(page, VIEW).nth(2).inner_html()
    eventually(lambda: not outputs(page, VIEW).nth(2).is_visible())
    eventually(lambda: outputs(page, VIEW).nth(1).locator("img").count() == 1)
    saved = save(page, home / "root" / "notebook.ipynb")
    live, picture, still = (each["data"] for each in saved["cells"][VIEW]["outputs"])
    assert "application/vnd.jupyter.widget-view+json" in live
    assert picture["image/png"]
    assert "The share approaches the bias." in "".join(still["text/html"])
    assert "<script" not in old

    reopen_without_kernel(page, lab, home)
    picture = outputs(page, VIEW).nth(1).locator("img")
    picture.wait_for()
    assert picture.evaluate("image => image.complete && image.naturalWidth") > 1000
    assert outputs(page, VIEW).nth(2).get_by_text("The share approaches the bias.").is_visible()
    assert not outputs(page, VIEW).first.is_visible()

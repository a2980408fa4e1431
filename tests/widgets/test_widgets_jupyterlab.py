"""The notebook shells in a real JupyterLab, driven with Chromium."""

from collections.abc import Iterator
from typing import Any

import pytest
from browser_support import eventually
from jupyterlab_support import cell, printed, run_all, run_cell, running_lab

pytestmark = pytest.mark.browser
CELLS = [
    "import numpy as np\n"
    "from workbench_widgets import LiveFigure, PairEditor, TokenStrip\n"
    "def spec(title):\n"
    "    axes = {'x': {'label': 'margin', 'unit': 'nats'}, 'y': {'label': 'loss'}}\n"
    "    layers = [{'kind': 'points', 'x': 'x', 'y': 'y'}]\n"
    "    return {'title': title, 'axes': axes, 'layers': layers}\n"
    "def columns(n):\n"
    "    return {'x': np.arange(n), 'y': np.arange(n) % 7}\n"
    "def editor(answer):\n"
    "    rows = [{'pair_id': f'p{i}', 'chosen': f'{answer} {i}', 'offset': i} for i in range(20)]\n"
    "    named = [{'name': 'chosen', 'title': 'Chosen', 'kind': 'text', 'editable': True}]\n"
    "    made = PairEditor(columns=named, rows=rows, total=20, matching=20, height=360)\n"
    "    made.on_edit(lambda edit: changes.append((answer, edit['pair_id'], edit['value'])))\n"
    "    return made\n"
    "changes = []",
    "figure = LiveFigure()\nfigure.update(spec('First'), columns(50))\nfigure",
    "other = LiveFigure()\nother.update(spec('Second'), columns(10))\nother",
    "tokens = [' the', '<img src=x onerror=hacked=1>']\n"
    "TokenStrip(rows=[{'title': 'Chosen', 'tokens': tokens, 'scores': [1.0, -2.0]}])",
    "left = editor('left')\nleft",
    "right = editor('right')\nright",
    "print(changes, figure.selected, other.selected)",
    "figure.update(columns=columns(80), generation=7)\nprint('updated')",
]
FIGURE, OTHER, STRIP, LEFT, RIGHT, REPORT, UPDATE = range(1, 8)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[str]:
    """The address of the notebook in a JupyterLab of its own."""
    with running_lab(tmp_path_factory.mktemp("jupyterlab"), CELLS) as url:
        yield url


@pytest.fixture
def notebook(page: Any, lab: str) -> Any:
    """The notebook after all its cells have run."""
    run_all(page, lab)
    printed(page, UPDATE).get_by_text("updated").wait_for()
    return page


def test_the_widgets_draw_and_an_edit_reaches_the_kernel_of_its_own_instance(
    notebook: Any,
) -> None:
    page = notebook
    cell(page, FIGURE).locator("[data-painted='7']").wait_for()
    assert "80 points" in cell(page, FIGURE).locator(".wb-canvas").get_attribute("aria-label")
    assert "10 points" in cell(page, OTHER).locator(".wb-canvas").get_attribute("aria-label")
    assert cell(page, STRIP).locator(".wb-token").all_inner_texts()[0] == "·the"
    assert cell(page, STRIP).locator("img").count() == 0
    assert page.evaluate("window.hacked") is None
    for place, answer in ((LEFT, "left"), (RIGHT, "right")):
        first = cell(page, place).locator(".wb-row[data-pair='p0'] [data-field=chosen]")
        assert first.inner_text() == f"{answer} 0"

    cell(page, RIGHT).locator(".wb-row[data-pair='p1'] [data-field=chosen]").dblclick()
    page.keyboard.type("written in the page")
    page.keyboard.press("Enter")
    cell(page, RIGHT).locator(".wb-status:text-is('')").wait_for(state="attached")
    run_cell(page, REPORT)
    printed(page, REPORT).get_by_text("[('right', 'p1', 'written in the page')] -1 -1").wait_for()


def test_a_selection_and_a_change_in_python_reach_one_figure_and_not_the_other(
    notebook: Any,
) -> None:
    page = notebook
    stage = cell(page, OTHER).locator(".wb-stage")
    stage.focus()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    run_cell(page, REPORT)
    printed(page, REPORT).get_by_text("[] -1 0").wait_for()
    before = cell(page, OTHER).locator("[data-painted]").get_attribute("data-painted")
    source = "other.update(spec('Third'), columns(30), generation=9)\nprint('changed')"
    page.evaluate(
        "([i, text]) => { const cells = jupyterapp.shell.currentWidget.content.widgets;"
        " cells[i].model.sharedModel.setSource(text); }",
        [UPDATE, source],
    )
    run_cell(page, UPDATE)
    cell(page, OTHER).locator("[data-painted='9']").wait_for()
    assert before != "9"
    assert cell(page, OTHER).locator(".wb-title").inner_text() == "Third"
    assert cell(page, FIGURE).locator(".wb-title").inner_text() == "First"


def test_keys_pressed_in_a_widget_do_not_reach_the_notebook(notebook: Any) -> None:
    page = notebook
    place = "jupyterapp.shell.currentWidget.content.activeCellIndex"
    cell(page, LEFT).locator(".wb-row[data-pair='p2'] [data-field=chosen]").click()
    cell(page, LEFT).locator(".wb-row[data-pair='p2'] .wb-cursor").wait_for()
    cells = page.locator(".jp-CodeCell").count()
    for key in ("b", "ArrowDown", "b", "ArrowDown", "d", "d"):
        page.keyboard.press(key)
    cell(page, LEFT).locator(".wb-id:text-is('p4')").wait_for()
    assert page.evaluate(place) == LEFT
    assert page.locator(".jp-CodeCell").count() == cells


def test_the_widgets_follow_the_theme_of_jupyterlab(notebook: Any) -> None:
    page = notebook
    assert page.locator("[data-theme=light]").count() == 5
    theme = "name => jupyterapp.commands.execute('apputils:change-theme', { theme: name })"
    page.evaluate(theme, "JupyterLab Dark")
    page.wait_for_function("document.querySelectorAll('[data-theme=dark]').length === 5")
    fits = "c => c.width === Math.round(c.clientWidth * devicePixelRatio) && c.width > 300"
    for place in (FIGURE, OTHER):
        eventually(lambda place=place: cell(page, place).locator(".wb-canvas").evaluate(fits))
    page.evaluate(theme, "JupyterLab Light")
    page.wait_for_function("document.querySelectorAll('[data-theme=light]').length === 5")

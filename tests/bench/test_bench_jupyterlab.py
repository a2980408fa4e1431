"""The bench in a real JupyterLab: edited, answering, kept apart, and opened without a kernel."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from browser_support import eventually
from jupyterlab_support import (
    cell,
    check_pictures,
    live,
    outputs,
    printed,
    reopen_without_kernel,
    run_all,
    run_cell,
    run_command,
    running_lab,
    save,
)
from tiny_models import MakeFolder

pytestmark = pytest.mark.browser
PAIRS, REWARDS, RANKING, DID, FAIRNESS, ATTRIBUTION, TRAIN = range(1, 8)
OTHER_PAIRS, OTHER_REWARDS, OTHER_RANKING, SLIDER, REPORT = range(8, 13)
VIEWS = range(1, 11)
NAMES = ("pairs", "rewards", "ranking", "did", "fairness", "attribution")


def cells(policy: Path, reference: Path) -> Sequence[str]:
    opened = (
        "import os, tempfile, ipywidgets\n"
        "os.environ['WORKBENCH_DATA'] = tempfile.mkdtemp()\n"
        "os.environ['WORKBENCH_CACHE'] = tempfile.mkdtemp()\n"
        "import pandas as pd\n"
        "import workbench as wb\n"
        "frame = pd.DataFrame({'pair_id': [f'p{i}' for i in range(12)],\n"
        "    'prompt': [f'which cat sat on mat {i // 2}' for i in range(12)],\n"
        "    'chosen': [f'the quick fox number {i}' for i in range(12)],\n"
        "    'rejected': [f'a lazy dog {i * i}' for i in range(12)],\n"
        "    'age': [20 + 3 * i for i in range(12)], 'side': ['left', 'right'] * 6})\n"
        f"models = dict(policy={str(policy)!r}, reference={str(reference)!r})\n"
        "bench, other = wb.open(frame, **models), wb.open(frame, **models)\n"
        "bench.wait(); other.wait()\n"
        "print('scored', bench.summary.scored, other.summary.scored)"
    )
    train = (
        "bench.train.start('dpo', policy='exact', steps=6, learning_rate=0.1)\n"
        "bench.train.wait(6)\n"
        "bench.train"
    )
    linked = (
        "slider = ipywidgets.FloatSlider(value=0.1, min=0.1, max=9)\n"
        "ipywidgets.link((slider, 'value'), (bench, 'beta'))\n"
        "slider"
    )
    report = (
        "print('report', bench.beta, other.beta, bench.selected, bench.data['p1'].chosen_text, '|',"
        " other.data['p1'].chosen_text, bench.train.status.step)"
    )
    shown = [f"bench.{name}" for name in NAMES]
    others = [f"other.{name}" for name in NAMES[:3]]
    return [opened, *shown, train, *others, linked, report]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jupyterlab")


@pytest.fixture(scope="module")
def lab(home: Path, browser: Any, make_folder: MakeFolder) -> Iterator[str]:
    with running_lab(home, cells(make_folder(seed=1), make_folder(seed=2))) as url:
        yield url


@pytest.fixture
def notebook(page: Any, lab: str) -> Any:
    """The notebook after all its cells have run."""
    # A workspace of its own, so that no layout of an earlier test is restored above it.
    run_all(page, lab.replace("/lab/tree/", f"/lab/workspaces/{uuid4().hex}/tree/"))
    printed(page, 0).get_by_text("scored 12 12").wait_for()
    printed(page, REPORT).get_by_text("report").wait_for()
    for place in VIEWS:
        live(page, place).wait_for()
    return page


def tile(page: Any, place: int, quantity: str = "margin") -> str:
    found = live(page, place).locator(f".tile[data-quantity={quantity}] .value").first
    text: str = found.inner_text()
    return text


def report(page: Any) -> str:
    run_cell(page, REPORT)
    page.wait_for_timeout(400)
    text: str = printed(page, REPORT).last.inner_text()
    return text


def test_every_view_lives_and_its_picture_is_hidden_beside_it(notebook: Any) -> None:
    page = notebook
    for place in VIEWS:
        assert outputs(page, place).first.is_visible()
        eventually(lambda place=place: not outputs(page, place).nth(1).is_visible())
        assert not outputs(page, place).nth(2).is_visible()
    for place in (REWARDS, RANKING, DID, FAIRNESS, TRAIN):
        figure = live(page, place).locator("[data-painted]").first
        figure.wait_for()
    live(page, ATTRIBUTION).locator(".wb-token").first.wait_for()
    assert live(page, REWARDS).locator(".wb-token").count() > 4
    assert page.page_errors == []


def test_an_edit_in_the_table_moves_the_numbers_of_its_own_bench(notebook: Any) -> None:
    page = notebook
    before, others = tile(page, REWARDS), tile(page, OTHER_REWARDS)
    field = live(page, PAIRS).locator(".wb-row[data-pair='p1'] [data-field=chosen]")
    field.dblclick()
    page.keyboard.type("please explain the weather")
    page.keyboard.press("Enter")
    for place in (PAIRS, REWARDS, RANKING, ATTRIBUTION):
        eventually(lambda place=place: tile(page, place) != before)
    assert tile(page, OTHER_REWARDS) == others
    assert "please explain the weather | the quick fox number 1" in report(page)
    theirs = live(page, OTHER_PAIRS).locator(".wb-row[data-pair='p1'] [data-field=chosen]")
    assert theirs.inner_text() == "the quick fox number 1"
    live(page, PAIRS).get_by_role("button", name="Undo").click()
    eventually(lambda: tile(page, REWARDS) == before)
    assert "the quick fox number 1 | the quick fox number 1" in report(page)


def test_beta_moves_every_view_of_one_bench_and_the_linked_slider(notebook: Any) -> None:
    page = notebook
    before, others = tile(page, FAIRNESS), tile(page, OTHER_RANKING)
    handle = live(page, REWARDS).locator(".noUi-handle").first
    handle.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    eventually(lambda: tile(page, FAIRNESS) != before)
    eventually(lambda: report(page).startswith("report 1.0 0.1"), 30)
    assert tile(page, OTHER_RANKING) == others
    assert "1.0" in cell(page, SLIDER).locator(".widget-readout").inner_text()
    for place in (PAIRS, RANKING, FAIRNESS):
        readout = live(page, place).locator(".widget-readout").first
        eventually(lambda readout=readout: readout.inner_text() == "1.0")


def test_a_selection_is_shared_by_the_views_of_a_bench(notebook: Any) -> None:
    page = notebook
    live(page, PAIRS).locator(".wb-row[data-pair='p4'] [data-field=prompt]").click()
    tokens = live(page, REWARDS).locator(".wb-token")
    eventually(lambda: "4" in "".join(tokens.all_inner_texts()))
    stage = live(page, RANKING).locator(".wb-stage").nth(1)
    stage.focus()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    eventually(lambda: " p4 " not in report(page), 30)
    assert live(page, OTHER_PAIRS).locator(".wb-id").first.inner_text() == "p0"


def test_training_is_moved_by_its_buttons(notebook: Any) -> None:
    page = notebook
    view = live(page, TRAIN)

    def press(name: str) -> None:
        view.locator(f".jupyter-button[title='{name}']").click()

    view.get_by_text("Paused · step 6").wait_for()
    press("Step")
    view.get_by_text("Paused · step 7").wait_for()
    press("Back")
    view.get_by_text("Paused · step 6").wait_for()
    press("Step")
    view.get_by_text("Paused · step 7").wait_for()
    view.locator("select").filter(has_text="branch 2").wait_for()
    press("Play")
    view.locator(".jupyter-button:has-text('Pause')").click()
    view.locator(".jupyter-button:has-text('Play')").wait_for()
    assert page.page_errors == []


def test_a_restarted_kernel_leaves_the_pictures_and_runs_again(notebook: Any) -> None:
    page = notebook
    page.evaluate("jupyterapp.shell.currentWidget.context.sessionContext.restartKernel()")
    check_pictures(page, VIEWS)
    run_command(page, "notebook:run-all-cells")
    for place in VIEWS:
        live(page, place).last.wait_for()
        eventually(lambda place=place: not outputs(page, place).nth(1).is_visible())


def test_reopened_without_a_kernel_each_view_shows_its_picture(
    notebook: Any, lab: str, home: Path
) -> None:
    page = notebook
    old = outputs(page, REWARDS).nth(2).inner_html()
    handle = live(page, REWARDS).locator(".noUi-handle").first
    handle.focus()
    page.keyboard.press("ArrowRight")
    # The pictures follow, so that what is saved is what was last seen.
    eventually(lambda: outputs(page, REWARDS).nth(2).inner_html() != old)
    shown = tile(page, REWARDS)
    saved = save(page, home / "root" / "notebook.ipynb")
    assert all(len(saved["cells"][place]["outputs"]) == 3 for place in VIEWS)

    reopen_without_kernel(page, lab, home)
    check_pictures(page, VIEWS)
    assert shown in outputs(page, REWARDS).nth(2).inner_text()
    assert page.get_by_text("model not found").filter(visible=True).count() == 0


def test_an_untrusted_notebook_shows_picture_and_numbers_too(
    notebook: Any, lab: str, home: Path
) -> None:
    page = notebook
    save(page, home / "root" / "notebook.ipynb")
    reopen_without_kernel(page, lab, home, trusted=False)
    for place in VIEWS:
        picture = outputs(page, place).nth(1).locator("img")
        picture.wait_for()
        assert picture.evaluate("image => image.complete && image.naturalWidth") > 1000
        assert "Reward margin, mean" in outputs(page, place).nth(2).inner_text()


def test_nbconvert_shows_the_pictures_and_values(notebook: Any, home: Path, tmp_path: Path) -> None:
    from nbconvert import HTMLExporter

    save(notebook, home / "root" / "notebook.ipynb")
    path = shutil.copy(home / "root" / "notebook.ipynb", tmp_path)
    page, _ = HTMLExporter(template_name="basic").from_filename(str(path))
    assert page.count("data:image/png;base64,") == len(VIEWS)
    assert page.count("Reward margin, mean") >= len(VIEWS)

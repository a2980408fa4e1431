"""The Studies page in a real browser: a study of our own, a broken one and a hostile one.

The catalogue holds test studies alone, so that no study of the product is needed here.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from browser_support import eventually
from study_support import load_example

from workbench.study import catalogue

pytestmark = pytest.mark.browser
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script> {{7*7}}'


COIN = load_example().CoinStudy


class CountingStudy(COIN):  # type: ignore[misc, valid-type]
    """The example, counting its fits; it waits in one of them until the test lets it go."""

    slug = "counting"
    title = "Counting coins"
    tags = ("exact", "coins")
    inputs: Mapping[str, Any] = {"weights <b>": {"face <i>": ["heads", "tails"], "weight": [1, 1]}}
    fits = 0
    entered, go_on = Event(), Event()

    def fit(self, params: Any, context: Any) -> Any:
        type(self).fits += 1
        if params.tosses == 77:
            type(self).entered.set()
            for _ in context.track(range(6000), "waiting for the test"):
                if type(self).go_on.wait(0.01):
                    break
        weight = float(context.table("weights <b>")["weight"][0])
        return super().fit(params, context) * weight


class HostileStudy(COIN):  # type: ignore[misc, valid-type]
    """A study whose every text would run if it were taken for markup."""

    slug = "hostile"
    title = question = not_shown = HOSTILE
    family = HOSTILE
    tags = (HOSTILE,)

    def measure(self, fitted: Any, params: Any) -> Any:
        from workbench.study.result import Claim, StudyResult

        shown = super().measure(fitted, params)
        claim = Claim(HOSTILE, "report", HOSTILE, 1.0, paper=HOSTILE, unit=HOSTILE)
        return StudyResult({**shown.tables, HOSTILE: {HOSTILE: [HOSTILE]}}, [*shown.claims, claim])

    def figures(self, result: Any) -> Any:
        from workbench.study import plot

        figure = plot.figure(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
        plot.line(figure, [1, 2], [1, 2], HOSTILE)
        plot.line(figure, [1, 2], [2, 1], HOSTILE, 1)
        return {HOSTILE: figure}


@pytest.fixture(autouse=True)
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A catalogue of two studies that load and one that does not."""
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    module = type(sys)("studies_of_the_test")
    module.CountingStudy, module.HostileStudy = CountingStudy, HostileStudy  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "studies_of_the_test", module)
    places = {
        "counting": "studies_of_the_test:CountingStudy",
        "hostile": "studies_of_the_test:HostileStudy",
        "broken": "studies_of_the_test:Missing",
    }
    monkeypatch.setattr(catalogue, "BUILT_IN", places)
    # Their code lies in this file, which no package holds.
    for kind in (CountingStudy, HostileStudy):
        monkeypatch.setattr(kind, "__module__", "example_study")
    CountingStudy.fits = 0
    CountingStudy.entered.clear()
    CountingStudy.go_on.clear()
    yield
    CountingStudy.go_on.set()


def gallery(page: Any, bench: Any) -> Any:
    page.goto(bench.url + "?page=Studies")
    page.locator("button.card").first.wait_for()
    return page


def opened(page: Any, bench: Any, slug: str = "counting") -> Any:
    """The page of a study, its smallest preset taken."""
    gallery(page, bench).locator(f"button.card[data-slug={slug}]").click()
    button(page, "Run").wait_for()
    button(page, "smoke").click()
    button(page, "✓ smoke").wait_for()
    return page


def button(page: Any, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


def ran(page: Any) -> Any:
    button(page, "Run").click()
    page.locator(".study-figure[data-drawn]").first.wait_for()
    return page


def points(page: Any) -> int:
    """How many points the first figure's line has."""
    return int(page.locator(".study-figure").first.evaluate("box => box.data[0].y.length"))


def set_field(page: Any, label: str, text: str) -> None:
    field = page.get_by_label(label, exact=True)
    field.fill(text)
    field.press("Enter")


def test_the_gallery_is_searched_filtered_and_walked_by_keys(page: Any, bench: Any) -> None:
    gallery(page, bench)
    cards = page.locator("button.card")
    assert cards.count() == 2
    page.get_by_text("2 of 2 studies").wait_for()
    page.locator("h3", has_text="could not be loaded").wait_for()
    page.keyboard.press("/")
    page.keyboard.type("bernoulli counting")
    page.get_by_text("1 of 2 studies").wait_for()
    page.keyboard.press("ArrowDown")
    assert cards.first.evaluate("card => card.getRootNode().activeElement === card")
    page.get_by_label("Search studies").fill("nothing like it")
    page.get_by_text("No study matches").wait_for()
    page.get_by_role("button", name="Show all studies").click()
    page.get_by_label("Tag", exact=True).select_option("coins")
    page.get_by_text("1 of 2 studies").wait_for()
    cards.first.focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Counting coins").wait_for()
    eventually(lambda: "study=counting" in page.evaluate("location.href"), 20)
    button(page, "All studies").click()
    cards.first.wait_for()
    eventually(lambda: "study=" not in page.evaluate("location.href"), 20)


def test_a_study_that_does_not_load_is_listed_with_its_reason(page: Any, bench: Any) -> None:
    gallery(page, bench)
    failure = page.locator(".failure")
    assert failure.count() == 1
    assert "broken" in failure.inner_text()
    assert "Missing" in failure.inner_text()
    page.goto(bench.url + "?page=Studies&study=broken")
    page.get_by_text("could not be loaded: studies_of_the_test:Missing").wait_for()
    page.goto(bench.url + "?page=Studies&study=no-such")
    page.get_by_text("There is no study 'no-such'").wait_for()


def test_a_run_draws_and_a_measure_knob_moves_the_figure_without_a_fit(
    page: Any, bench: Any
) -> None:
    opened(page, bench)
    page.get_by_text("This study has not run here yet").wait_for()
    ran(page)
    assert CountingStudy.fits == 1
    assert points(page) == 20
    slider = page.get_by_role("slider", name="every")
    slider.focus()
    page.keyboard.press("Home")
    eventually(lambda: points(page) == 2000, 30)
    assert CountingStudy.fits == 1
    claims = page.get_by_role("table").filter(has_text="The share approaches the bias.")
    assert "✓ holds" in claims.inner_text()
    assert "< 0.04" in claims.inner_text()
    page.get_by_text("1 of 1 gated claims hold (seed 0).").wait_for()
    assert page.page_errors == []


def test_a_fit_knob_waits_for_run_and_a_kept_fit_is_shown_at_once(page: Any, bench: Any) -> None:
    ran(opened(page, bench))
    set_field(page, "tosses [tosses]", "1000")
    page.get_by_text("have changed since this run").wait_for()
    assert CountingStudy.fits == 1
    button(page, "Run").click()
    eventually(lambda: points(page) == 10, 30)
    assert CountingStudy.fits == 2
    set_field(page, "tosses [tosses]", "3")
    page.get_by_text("tosses is '3'; give a value from 10 to 100000 tosses.").wait_for()
    page.reload()
    button(page, "Run").wait_for()
    button(page, "smoke").click()
    page.locator(".study-figure[data-drawn]").first.wait_for()
    assert CountingStudy.fits == 2


def test_a_run_shows_its_progress_and_is_cancelled(page: Any, bench: Any) -> None:
    opened(page, bench)
    set_field(page, "tosses [tosses]", "77")
    button(page, "Run").click()
    assert CountingStudy.entered.wait(60)
    page.get_by_text("waiting for the test").wait_for()
    page.get_by_role("progressbar").first.wait_for()
    button(page, "Cancel").click()
    button(page, "Cancel").wait_for(state="hidden")
    assert button(page, "Run").is_enabled()
    page.get_by_text("This study has not run here yet").wait_for()
    assert page.locator(".study-figure[data-drawn]").count() == 0


def test_claims_are_checked_over_seeds_with_their_controls_and_earn_a_badge(
    page: Any, bench: Any
) -> None:
    opened(page, bench)
    button(page, "default").click()
    button(page, "✓ default").wait_for()
    button(page, "Check claims over 5 seeds").click()
    page.get_by_text("1 of 1 gated claims hold (seeds 0, 1, 2, 3, 4).").wait_for()
    assert CountingStudy.fits == 5
    button(page, "Run the controls").click()
    page.get_by_text("✓ caught").wait_for()
    assert CountingStudy.fits == 5
    button(page, "All studies").click()
    page.locator("button.card[data-slug=counting] .badge.passed").wait_for()
    page.locator("button.card[data-slug=hostile] .badge.never-run").wait_for()


def test_a_table_is_edited_in_place_and_a_wrong_cell_is_refused(page: Any, bench: Any) -> None:
    ran(opened(page, bench))
    cell = page.get_by_label("weight, row 1", exact=True)
    cell.fill("many")
    cell.press("Enter")
    page.get_by_text("The cell is 'many'; give a whole number, or nothing.").wait_for()
    page.get_by_label("weight, row 1", exact=True).fill("2")
    page.get_by_label("weight, row 1", exact=True).press("Enter")
    page.get_by_text("have changed since this run").wait_for()
    button(page, "Run").click()
    eventually(lambda: CountingStudy.fits == 2, 30)
    page.get_by_text("0 of 1 gated claims hold").wait_for()
    button(page, "Back to the study's own").click()
    button(page, "Run").click()
    page.get_by_text("1 of 1 gated claims hold").wait_for()
    assert CountingStudy.fits == 2


def test_hostile_texts_of_a_study_are_shown_and_never_run(page: Any, bench: Any) -> None:
    gallery(page, bench)
    page.locator("button.card .title").filter(has_text=HOSTILE).wait_for()
    opened(page, bench, "hostile")
    ran(page)
    page.wait_for_timeout(500)
    page.get_by_role("heading").filter(has_text=HOSTILE).first.wait_for()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src=x]").count() == 0


def test_a_figure_is_saved_with_its_data_and_the_run(page: Any, bench: Any, tmp_path: Path) -> None:
    from workbench.views.study_figure import read_study_figure

    ran(opened(page, bench))
    page.get_by_label("Save this figure").locator("visible=true").first.click()
    with page.expect_download() as saved:
        page.get_by_text("Drawing (SVG)").first.click()
    target = tmp_path / saved.value.suggested_filename
    saved.value.save_as(target)
    figure, state = read_study_figure(target)
    assert target.name == "counting-share.svg"
    assert state["params"]["tosses"] == 2000
    assert len(figure.table()) == 20


def test_figures_take_the_theme_of_the_page(page: Any, bench: Any) -> None:
    ran(opened(page, bench))
    colour = "box => box.layout.paper_bgcolor"
    figure = page.locator(".study-figure").first
    light = figure.evaluate(colour)
    page.get_by_label("Toggle theme").click()
    eventually(lambda: figure.evaluate(colour) != light, 20)
    assert page.page_errors == []

"""The token strip in a real browser, and the sabotaged twin of the hostile text test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser_support import eventually

from workbench.views.widgets import TokenStrip

pytestmark = pytest.mark.browser
Serve = Callable[[Callable[[], Any]], str]
TOKENS = ["<img src=x onerror=window.hacked=1>", " the", "\n", "تعلم", " 🍂", "\0", "   "]
ROWS = [
    {"title": "Chosen <b>", "tokens": TOKENS, "scores": [2.0, -1.0, 0.5, None, -0.25, 0.0, 1.0],
     "total": 2.25, "unit": "nats"},
    {"title": "Rejected", "tokens": ["No", "."], "scores": [-2.0, 0.125]},
]  # fmt: skip


class CarelessStrip(TokenStrip):
    """The twin: the same widget, with markup where text belongs."""

    _esm = (
        Path(TokenStrip._esm)
        .read_text(encoding="utf-8")
        .replace("node.textContent = visibleToken(token);", "node.innerHTML = visibleToken(token);")
    )


def hostile_text_ran(page: Any, serve: Serve, shell: type[TokenStrip]) -> bool:
    page.goto(serve(lambda: shell(rows=ROWS)))
    page.wait_for_selector(".wb-token")
    page.wait_for_timeout(300)
    return page.evaluate("window.hacked") is not None


def test_hostile_tokens_are_only_text(page: Any, serve: Serve) -> None:
    assert not hostile_text_ran(page, serve, TokenStrip)
    shown = page.locator(".wb-token").all_inner_texts()
    assert shown[:4] == [TOKENS[0], "·the", "↵", "تعلم"]
    assert shown[5:7] == ["␀", "···"]


def test_the_check_sees_hostile_text_run_in_a_careless_widget(page: Any, serve: Serve) -> None:
    assert hostile_text_ran(page, serve, CarelessStrip)


def test_the_sign_is_drawn_as_well_as_coloured(page: Any, serve: Serve) -> None:
    page.goto(serve(lambda: TokenStrip(rows=ROWS, theme="dark")))
    tokens = page.locator(".wb-token")
    tokens.first.wait_for()
    assert page.locator(".wb-token-strip").get_attribute("data-theme") == "dark"
    assert tokens.nth(0).locator(".wb-over").count() == 1
    assert tokens.nth(1).locator(".wb-under").count() == 1
    assert tokens.nth(3).locator(".wb-sign").count() == 0
    assert "+2.000" in page.locator(".wb-scale").inner_text()


def test_the_keyboard_walks_and_selects(page: Any, serve: Serve) -> None:
    held: list[TokenStrip] = []

    def app() -> TokenStrip:
        held.append(TokenStrip(rows=ROWS))
        return held[-1]

    page.goto(serve(app))
    page.locator(".wb-token").first.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    assert "−1.000 nats" in page.locator(".wb-token-tip").inner_text()
    page.keyboard.press("Enter")
    eventually(lambda: held[-1].selected == {"row": 0, "index": 1})
    page.keyboard.press("ArrowDown")
    page.keyboard.press(" ")
    eventually(lambda: held[-1].selected == {"row": 1, "index": 1})


def test_the_legend_explains_colours_unit_and_marks(page: Any, serve: Serve) -> None:
    strip = {"title": "t", "tokens": ["a", "b", "c"], "scores": [None, 1.0, float("nan")]}
    strip |= {"kinds": ["prompt", "response", "response"], "unit": "nats"}
    page.goto(serve(lambda: TokenStrip(rows=[strip], scale=4.0)))
    legend = page.locator(".wb-scale")
    legend.wait_for()
    for words in ("−4.000", "+4.000 nats", "dotted = prompt", "hatched = no score"):
        assert words in legend.inner_text()
    assert legend.get_by_role("img", name="from −4.000 to +4.000 nats").count() == 1
    assert page.locator(".wb-token.wb-prompt").all_inner_texts() == ["a"]
    assert page.locator(".wb-token.wb-unscored").count() == 2


def test_hover_reads_the_value_with_its_unit(page: Any, serve: Serve) -> None:
    page.goto(serve(lambda: TokenStrip(rows=ROWS)))
    page.locator(".wb-token").nth(1).hover()
    tip = page.locator(".wb-token-tip")
    tip.get_by_text("−1.000 nats").wait_for()
    assert "token 2 of 7" in tip.inner_text()
    page.locator(".wb-token").nth(3).hover()
    tip.get_by_text("no score").wait_for()


def test_arrows_follow_the_reading_direction(page: Any, serve: Serve) -> None:
    tokens = ["كيف", " أتعلم", " البرمجة", "؟"]
    strip = {"title": "عربي", "tokens": tokens, "scores": [1.0, -1.0, 0.5, 0.0]}
    page.goto(serve(lambda: TokenStrip(rows=[strip])))
    page.locator(".wb-token").first.focus()
    places = [page.locator(".wb-token").nth(i).bounding_box()["x"] for i in range(4)]
    assert places == sorted(places, reverse=True)
    page.keyboard.press("ArrowLeft")
    page.locator(".wb-token-tip", has_text="token 2 of 4").wait_for()
    page.keyboard.press("End")
    page.locator(".wb-token-tip", has_text="token 4 of 4").wait_for()


def test_a_very_long_text_is_shown_in_part_and_says_so(page: Any, serve: Serve) -> None:
    strip = {
        "title": "long",
        "tokens": ["x" * 1_000_000, *["word "] * 5999],
        "scores": [1.0] * 6000,
    }
    page.goto(serve(lambda: TokenStrip(rows=[strip])))
    page.get_by_text("The first 5,000 of 6,000 tokens.").wait_for()
    assert page.locator(".wb-token").count() == 5000
    assert len(page.locator(".wb-token").first.inner_text()) < 300
    assert page.page_errors == []


def test_no_strip_says_what_to_do_and_an_empty_one_that_it_is(page: Any, serve: Serve) -> None:
    page.goto(serve(lambda: TokenStrip()))
    page.get_by_text("Select a pair to see its tokens.").wait_for()
    assert page.locator(".wb-scale").is_hidden()
    page.goto(serve(lambda: TokenStrip(rows=[{"title": "Rejected", "tokens": [], "scores": []}])))
    page.get_by_text("No tokens").wait_for()

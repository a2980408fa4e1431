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

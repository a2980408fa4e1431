"""The live figure in a real browser."""

from collections.abc import Callable
from typing import Any

import numpy as np
import panel as pn
import pytest
from browser_support import eventually

from workbench.views.widgets import LiveFigure

pytestmark = pytest.mark.browser
Serve = Callable[[Callable[[], Any]], str]
HOSTILE = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>\u202eRTL 🍂 \0"
SPEC = {
    "title": HOSTILE,
    "axes": {"x": {"label": HOSTILE, "unit": "nats"}, "y": {"label": "y"}},
    "layers": [
        {"kind": "points", "x": "x", "y": "y", "group": "g", "labels": [HOSTILE, "b"], "size": 8}
    ],
}


class Held:
    """The figure of the session that was opened last, and a way to change it from the test."""

    figure: LiveFigure
    document: Any

    def __init__(self, **traits: Any) -> None:
        self.traits = traits

    def app(self) -> LiveFigure:
        self.figure = LiveFigure(**self.traits)
        self.document = pn.state.curdoc
        return self.figure

    def run(self, act: Callable[[], object]) -> None:
        self.document.add_next_tick_callback(act)


def columns(n: int) -> dict[str, Any]:
    return {"x": np.arange(n) % 100, "y": np.arange(n) // 100, "g": np.arange(n) % 2}


def opened(page: Any, serve: Serve, n: int = 300, **traits: Any) -> Held:
    held = Held(**traits)
    page.goto(serve(held.app))
    page.wait_for_selector("[data-painted='0']")
    held.run(lambda: held.figure.update(SPEC, columns(n), generation=5))
    page.wait_for_selector("[data-painted='5']")
    return held


def ink(page: Any) -> int:
    """How many pixels of the canvas are not transparent."""
    script = """c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
      let n = 0; for (let i = 3; i < d.length; i += 4) if (d[i]) n++; return n; }"""
    return int(page.locator("canvas.wb-canvas").evaluate(script))


def test_the_painted_generation_follows_every_update(page: Any, serve: Serve) -> None:
    held = opened(page, serve)
    empty = LiveFigure()
    assert empty.generation == 0
    before = ink(page)
    held.run(lambda: held.figure.update(columns=columns(10_000), generation=6))
    page.wait_for_selector("[data-painted='6']")
    assert ink(page) > before
    assert page.page_errors == []


def test_hostile_labels_are_only_text(page: Any, serve: Serve) -> None:
    opened(page, serve)
    page.locator(".wb-stage").hover(position={"x": 400, "y": 120})
    page.locator(".wb-stage").focus()
    page.keyboard.press("ArrowRight")
    assert "<img" in page.locator(".wb-tooltip").inner_text()
    assert "<script>" in page.locator(".wb-title").inner_text()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src=x]").count() == 0


def test_the_keyboard_selects_and_the_server_marks(page: Any, serve: Serve) -> None:
    held = opened(page, serve)
    page.locator(".wb-stage").focus()
    for key in ("Home", "ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    eventually(lambda: held.figure.selection.get("generation") == 5)
    index = held.figure.selection["index"]
    assert 0 <= index < 300
    eventually(lambda: held.figure.selected == index)
    held.run(lambda: held.figure.param.update(selected=17))
    page.wait_for_timeout(100)
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    eventually(lambda: held.figure.selection["index"] not in (index, 17))


def test_a_click_selects_the_nearest_point(page: Any, serve: Serve) -> None:
    held = opened(page, serve, n=1)
    box = page.locator("canvas.wb-canvas").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2 + 15, box["y"] + (box["height"] - 34) / 2)
    eventually(lambda: held.figure.selection.get("index") == 0)


def test_zoom_and_legend_work_from_the_keyboard(page: Any, serve: Serve) -> None:
    opened(page, serve)
    label = page.locator("canvas.wb-canvas").get_attribute("aria-label")
    page.locator(".wb-stage").focus()
    page.keyboard.press("+")
    page.wait_for_timeout(150)
    assert page.locator("canvas.wb-canvas").get_attribute("aria-label") != label
    page.keyboard.press("0")
    page.wait_for_timeout(150)
    assert page.locator("canvas.wb-canvas").get_attribute("aria-label") == label
    before = ink(page)
    page.locator(".wb-entry").nth(1).press("Enter")
    page.wait_for_timeout(150)
    assert page.locator(".wb-entry").nth(1).get_attribute("aria-pressed") == "false"
    assert ink(page) < before


def test_dark_theme_empty_and_error_states(page: Any, serve: Serve) -> None:
    held = Held(theme="dark", spec={"empty": "Nothing is scored yet"})
    page.goto(serve(held.app))
    page.wait_for_selector("[data-painted='0']")
    assert page.locator(".wb-live-figure").get_attribute("data-theme") == "dark"
    canvas = page.locator("canvas.wb-canvas")
    assert canvas.get_attribute("aria-label") == "Nothing is scored yet"
    bad = {"layers": [{"kind": "points", "x": "absent", "y": "absent"}]}
    held.run(lambda: held.figure.update(bad, generation=1))
    page.wait_for_selector("[data-painted='1']")
    assert "absent" in canvas.get_attribute("aria-label")
    held.run(lambda: held.figure.update(SPEC, columns(50), generation=2))
    page.wait_for_selector("[data-painted='2']")
    assert "50 points" in canvas.get_attribute("aria-label")
    assert page.page_errors == []

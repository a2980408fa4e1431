"""The live figure in a real browser."""

from collections.abc import Callable
from typing import Any

import numpy as np
import panel as pn
import pytest
from browser_support import eventually, in_session

from workbench.views.widgets import LiveFigure

pytestmark = pytest.mark.browser
Serve = Callable[[Callable[[], Any]], str]
RED = (255, 0, 0)
RECORD = """window.texts = [];
  const proto = CanvasRenderingContext2D.prototype;
  const write = proto.fillText;
  proto.fillText = function (...a) { window.texts.push(a[0]); return write.apply(this, a); };"""
AXES = {"x": {"label": "margin", "unit": "nats"}, "y": {"label": "loss", "unit": "bits"}}
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
        in_session(self.document, act)


def columns(n: int) -> dict[str, Any]:
    return {"x": np.arange(n) % 100, "y": np.arange(n) // 100, "g": np.arange(n) % 2}


def opened(page: Any, serve: Serve, n: int = 300, **traits: Any) -> Held:
    held = Held(**traits)
    page.goto(serve(held.app))
    page.wait_for_selector("[data-painted='0']")
    held.run(lambda: held.figure.update(SPEC, columns(n), generation=5))
    page.wait_for_selector("[data-painted='5']")
    return held


def summary(page: Any) -> str:
    """What the figure says of itself: the shown ranges and the number of points."""
    return str(page.locator("canvas.wb-canvas").get_attribute("aria-label"))


def plot_point(page: Any, x: float, y: float) -> tuple[float, float]:
    """Where a share of the canvas's width and height lies on the page."""
    box = page.locator("canvas.wb-canvas").bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def pixels(page: Any, colour: tuple[int, int, int], left: float = 0, right: float = 1) -> int:
    """How many pixels have just this colour, between two shares of the canvas's width."""
    script = """(c, [rgb, left, right]) => {
      const [x, w] = [Math.round(left * c.width), Math.round((right - left) * c.width)];
      const d = c.getContext('2d').getImageData(x, 0, w, c.height).data; let n = 0;
      for (let i = 0; i < d.length; i += 4) {
        if (d[i + 3] === 255 && d[i] === rgb[0] && d[i + 1] === rgb[1] && d[i + 2] === rgb[2]) n++;
      } return n; }"""
    return int(page.locator("canvas.wb-canvas").evaluate(script, [list(colour), left, right]))


def drawn(page: Any, serve: Serve, spec: dict[str, Any], numbers: dict[str, Any]) -> Held:
    """A page with one figure of the given layers."""
    held = Held()
    page.add_init_script(RECORD)
    page.goto(serve(held.app))
    page.wait_for_selector("[data-painted='0']")
    held.run(lambda: held.figure.update(spec, numbers, generation=5))
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
    held.run(lambda: held.figure.update(selected=17, generation=6))
    page.wait_for_selector("[data-painted='6']")
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
    label = summary(page)
    page.locator(".wb-stage").focus()
    page.keyboard.press("+")
    eventually(lambda: summary(page) != label)
    page.keyboard.press("0")
    eventually(lambda: summary(page) == label)
    before = ink(page)
    page.locator(".wb-entry").nth(1).press("Enter")
    page.wait_for_selector(".wb-entry[aria-pressed=false] >> nth=0")
    eventually(lambda: ink(page) < before)


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


LAYERS = {
    "points": {"kind": "points", "x": "x", "y": "y", "size": 12},
    "line": {"kind": "line", "x": "x", "y": "y", "width": 4},
    "steps": {"kind": "line", "x": "steps", "y": "share", "width": 4},
    "bars": {"kind": "bars", "x0": "x", "x1": "x1", "height": "y"},
    "density": {"kind": "band", "x": "x", "y0": "zero", "y1": "y"},
    "rule": {"kind": "rule", "x": 4.5, "width": 4},
    "level": {"kind": "rule", "y": "level", "width": 4},
}
NUMBERS = {
    "x": np.arange(10.0), "x1": np.arange(1.0, 11.0), "y": 1.0 + np.arange(10.0) % 4,
    "zero": np.zeros(10), "level": np.array([2.5]), "steps": np.repeat(np.arange(10.0), 2)[1:],
    "share": np.repeat(np.arange(10.0), 2)[:-1],
}  # fmt: skip
CORNERS = {"kind": "line", "x": "x", "y": "y", "colours": ["#0000ff"], "width": 1}


@pytest.mark.parametrize("name", LAYERS)
def test_every_kind_of_layer_is_drawn_in_its_colour_and_hidden_by_its_entry(
    page: Any, serve: Serve, name: str
) -> None:
    layer = LAYERS[name] | {"colours": ["#ff0000"], "opacity": 1, "name": "the layer"}
    drawn(page, serve, {"axes": AXES, "layers": [CORNERS, layer]}, NUMBERS)
    assert pixels(page, RED) > 100
    page.locator(".wb-entry", has_text="the layer").click()
    eventually(lambda: pixels(page, RED) == 0)


def test_a_line_has_a_gap_where_numbers_are_missing(page: Any, serve: Serve) -> None:
    y = np.ones(300)
    y[100:200] = np.nan
    line = {"kind": "line", "x": "x", "y": "y", "colours": ["#ff0000"], "width": 4}
    held = drawn(page, serve, {"axes": AXES, "layers": [line]}, {"x": np.arange(300), "y": y})
    assert "100 of them not drawn" in summary(page)
    assert pixels(page, RED, 0.2, 0.3) > 100
    assert pixels(page, RED, 0.5, 0.6) == 0
    held.run(lambda: held.figure.update(columns={"x": np.arange(300), "y": np.ones(300)}))
    eventually(lambda: pixels(page, RED, 0.5, 0.6) > 100)
    assert "not drawn" not in summary(page)


def test_axes_write_their_titles_with_units_and_the_names_of_places(
    page: Any, serve: Serve
) -> None:
    names = ["Asian", "Black", "Hispanic or Latino " * 20, "White"]
    axes = AXES | {"x": {"label": "group " * 200, "unit": "of four", "names": names}}
    numbers = {"x": np.repeat([1, 2, 3, 4], 5), "y": np.arange(20.0)}
    points = {"kind": "points", "x": "x", "y": "y"}
    drawn(page, serve, {"axes": axes, "layers": [points]}, numbers)
    texts = page.evaluate("window.texts")
    assert "loss (bits)" in texts
    assert {"Asian", "Black", "White"} <= set(texts)
    assert any(text.startswith("Hispanic") and text.endswith("…") for text in texts)
    assert any(text.startswith("group group") and text.endswith("…") for text in texts)
    assert "2.5" not in texts


def test_hover_reads_the_value_of_a_bar_and_a_click_on_it_selects_nothing(
    page: Any, serve: Serve
) -> None:
    below = {"kind": "bars", "x0": "a", "x1": "b", "height": "low", "name": "below"}
    above = {"kind": "bars", "x0": "a", "x1": "b", "height": "high", "y0": "low", "name": "above"}
    numbers = {"a": np.array([0.0]), "b": np.array([1.0]), "low": np.array([300.0])}
    numbers["high"] = np.array([200.0])
    held = drawn(page, serve, {"axes": AXES, "layers": [below, above]}, numbers)
    assert float(summary(page).split(" to ")[1].split(" ")[0]) >= 500
    page.mouse.move(*plot_point(page, 0.5, 0.6))
    page.locator(".wb-tooltip", has_text="below").get_by_text("300 bits").wait_for()
    page.mouse.move(*plot_point(page, 0.5, 0.2))
    page.locator(".wb-tooltip", has_text="above").get_by_text("200 bits").wait_for()
    page.mouse.click(*plot_point(page, 0.5, 0.2))
    page.locator(".wb-stage").focus()
    page.keyboard.press("+")
    eventually(lambda: held.figure.selected == -1 and held.figure.selection == {})


def test_hover_reads_a_point_with_its_units(page: Any, serve: Serve) -> None:
    spec = {"axes": AXES, "layers": [{"kind": "points", "x": "x", "y": "y"}]}
    drawn(page, serve, spec, {"x": np.array([1.25]), "y": np.array([-0.5])})
    page.mouse.move(*plot_point(page, 0.518, 0.44))
    tooltip = page.locator(".wb-tooltip")
    tooltip.get_by_text("1.25 nats").wait_for()
    assert "−0.5 bits" in tooltip.inner_text()
    assert page.locator("[role=status]").inner_text() == ""


def test_the_selection_follows_the_keyboard_and_is_read_aloud(page: Any, serve: Serve) -> None:
    spec = {"axes": AXES, "layers": [{"kind": "points", "x": "x", "y": "y"}]}
    order = np.array([30.0, 10.0, np.nan, 20.0])
    held = drawn(page, serve, spec, {"x": order, "y": np.arange(4.0)})
    page.locator(".wb-stage").focus()
    for key, row in (("End", 0), ("ArrowLeft", 3), ("Home", 1), ("ArrowRight", 3)):
        page.keyboard.press(key)
        eventually(lambda row=row: held.figure.selection.get("index") == row)
        assert f"margin {formatted(order[row])} nats" in page.locator("[role=status]").inner_text()
    assert held.figure.selection == {"generation": 5, "index": 3, "layer": 0}


def formatted(value: float) -> str:
    return f"{value:.0f}"


def test_wheel_drag_box_and_double_click_zoom(page: Any, serve: Serve) -> None:
    opened(page, serve)
    everything = summary(page)
    page.locator(".wb-stage").focus()
    page.mouse.move(*plot_point(page, 0.5, 0.5))
    page.mouse.wheel(0, -400)
    eventually(lambda: summary(page) != everything)
    zoomed = summary(page)
    page.mouse.down()
    page.mouse.move(*plot_point(page, 0.7, 0.5), steps=4)
    page.mouse.up()
    eventually(lambda: summary(page) != zoomed)
    page.mouse.dblclick(*plot_point(page, 0.6, 0.9))
    eventually(lambda: summary(page) == everything)
    page.mouse.move(*plot_point(page, 0.3, 0.3))
    page.keyboard.down("Shift")
    page.mouse.down()
    page.mouse.move(*plot_point(page, 0.6, 0.6), steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    eventually(lambda: summary(page) != everything)


def test_new_numbers_keep_the_zoom_and_other_axes_forget_it(page: Any, serve: Serve) -> None:
    held = opened(page, serve)
    page.locator(".wb-stage").focus()
    everything = summary(page)
    page.keyboard.press("+")
    eventually(lambda: summary(page) != everything)
    zoomed = summary(page)
    held.run(lambda: held.figure.update(columns=columns(300), generation=6))
    page.wait_for_selector("[data-painted='6']")
    assert summary(page) == zoomed
    other = SPEC | {"axes": AXES}
    held.run(lambda: held.figure.update(other, generation=7))
    page.wait_for_selector("[data-painted='7']")
    ranges = [part.split("from ")[1] for part in everything.split(" against ")]
    assert all(each.split(" against")[0].rstrip() in summary(page) for each in ranges)


def test_one_hundred_thousand_points_are_all_drawn_once_a_moving_view_rests(
    page: Any, serve: Serve
) -> None:
    n = 100_000
    spec = {"axes": AXES, "layers": [{"kind": "points", "x": "x", "y": "y", "size": 3}]}
    drawn(page, serve, spec, {"x": np.arange(n) % 1000, "y": np.arange(n) // 1000})
    assert f"{n} points" in summary(page)
    picture = "c => c.toDataURL()"
    canvas = page.locator("canvas.wb-canvas")
    whole = canvas.evaluate(picture)
    page.locator(".wb-stage").focus()
    page.keyboard.press("-")
    eventually(lambda: canvas.evaluate(picture) != whole, seconds=30)
    page.keyboard.press("0")
    eventually(lambda: canvas.evaluate(picture) == whole, seconds=30)
    page.keyboard.press("End")
    page.locator("[role=status]", has_text="margin 999").wait_for(state="attached")


def test_the_canvas_follows_the_size_of_its_place(page: Any, serve: Serve) -> None:
    opened(page, serve)
    canvas = page.locator("canvas.wb-canvas")
    fits = "c => c.width === c.parentElement.clientWidth && c.width"
    wide = canvas.evaluate(fits)
    page.set_viewport_size({"width": 700, "height": 800})
    eventually(lambda: 0 < canvas.evaluate(fits) < wide)


def test_a_fine_screen_gets_a_fine_canvas(browser: Any, serve: Serve) -> None:
    context = browser.new_context(device_scale_factor=2)
    try:
        page = context.new_page()
        opened(page, serve)
        size = page.locator("canvas.wb-canvas").evaluate("c => [c.width, c.clientWidth]")
        assert size[0] == 2 * size[1]
    finally:
        context.close()


def test_the_automatic_theme_follows_the_page_around_it(page: Any, serve: Serve) -> None:
    opened(page, serve, theme="auto")
    page.wait_for_selector(".wb-live-figure[data-theme=light]")
    page.evaluate("document.body.dataset.jpThemeLight = 'false'")
    page.wait_for_selector(".wb-live-figure[data-theme=dark]")

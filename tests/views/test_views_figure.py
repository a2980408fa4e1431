import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from workbench.views.draw_plotly import escaped
from workbench.views.figure import (
    Axis,
    Band,
    Bars,
    Detail,
    Figure,
    FigureError,
    Line,
    Points,
    Rule,
    plain,
)

HOSTILE = [
    "<script>alert(1)</script>",
    r"$\frac{1}{0}$ and $x$",
    "%{x} %{customdata[0]}",
    "\u202eright to left \u05e9\u05dc\u05d5\u05dd",
    "🙂 emoji 漢字",
    "a\0b\x1bc",
    "\ud800 alone",
    "</script><img src=x onerror=alert(1)>",
    "x" * 10_000,
    "=HYPERLINK(1)",
    "",
]


def full_figure(text: str = "name") -> Figure:
    """One layer of each kind, with the given text wherever a text can stand."""
    x = np.array([1.0, 2.0, 4.0])
    group, labels = np.array([0, -1, 1]), (text, f"{text} 2")
    return Figure(
        text,
        Axis(text, text, "log"),
        Axis("y", "nats", range=(None, 9.0)),
        (
            Points(
                x=x, y=x / 3, group=group, labels=labels, rows=[7, 3, 5],
                also=([8, 9], [0, 2]), details=(Detail(text, x * 0.1, text),), name=text,
            ),
            Line(x=x, y=[0.1, math.nan, 3], dash="dot", name=text, colours=("bad",)),
            Bars(x0=x, x1=x + 1, height=x, y0=x / 7, group=group, labels=labels),
            Band(x=x, y0=x - 1, y1=x + 1, opacity=0.3, name=text),
            Rule(at=2.5, along="y", name=text, dash="dash", include=True),
        ),
        empty=text,
        note=text,
    )  # fmt: skip


def same(a: Figure, b: Figure) -> bool:
    """Whether two figures are the same value and hold the same numbers, bit for bit."""
    return a.to_json() == b.to_json() and a.table().equals(b.table())


def live_column(figure: Figure, name: str) -> np.ndarray:
    payload = figure.to_live()
    place = payload.columns[name]
    return np.frombuffer(payload.buffer, place["dtype"], place["length"], place["offset"])


@pytest.mark.parametrize("text", HOSTILE)
def test_json_gives_the_same_figure_back(text: str) -> None:
    figure = full_figure(text)
    again = Figure.from_json(figure.to_json())
    assert same(figure, again)
    assert again.title == text


def test_a_figure_with_one_number_changed_is_not_the_same() -> None:
    figure = full_figure()
    text = figure.to_json()
    sabotaged = Figure.from_json(text.replace("0.3333333333333333", "0.33333333333333337"))
    assert not same(figure, sabotaged)


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.float64, st.integers(0, 8), elements=st.floats(allow_nan=True)))
def test_every_float_survives_json(values: np.ndarray) -> None:
    figure = Figure("t", Axis("x"), Axis("y"), (Line(x=values, y=values[::-1]),))
    again = Figure.from_json(figure.to_json())
    assert (
        again.layers[0].columns["x"].tobytes()
        == np.where(np.isnan(values), np.nan, values).tobytes()
    )
    assert json.loads(figure.to_json())


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", '{"title": 1}', '{"layers": 3}', "[" * 100_000, '"\\ud800"'],
)
def test_what_is_no_figure_is_refused(text: str) -> None:
    with pytest.raises(FigureError, match="not a figure of the workbench"):
        Figure.from_json(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "picture"),
        ("x", [1, 2, "three"]),
        ("x", [[1], [2], [3]]),
        ("group", [0, 9, 1]),
        ("group", [0.5, 0, 1]),
        ("colours", ["url(http://x)"]),
        ("labels", "ab"),
        ("size", "big"),
        ("unknown", 1),
        ("rows", [1]),
    ],
)
def test_a_damaged_layer_is_refused(name: str, value: object) -> None:
    held = json.loads(full_figure().to_json())
    held["layers"][0][name] = value
    with pytest.raises(FigureError):
        Figure.from_json(json.dumps(held))


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(FigureError, match="differ in length"):
        Points(x=[1, 2], y=[1])
    with pytest.raises(FigureError, match="shape"):
        Line(x=[[1.0]], y=[[1.0]])
    with pytest.raises(FigureError, match="no label"):
        Points(x=[1], y=[1], group=[0])
    with pytest.raises(FigureError, match="dash"):
        Line(x=[1], y=[1], dash="wavy")  # type: ignore[arg-type]
    with pytest.raises(FigureError, match="rule lies along"):
        Rule(at=1, along="z")  # type: ignore[arg-type]
    with pytest.raises(FigureError, match="scale"):
        Axis("x", scale="cubic")  # type: ignore[arg-type]
    with pytest.raises(FigureError, match="two numbers"):
        Axis("x", range=(1.0, math.nan))
    with pytest.raises(FigureError, match="give a text"):
        Axis(3)  # type: ignore[arg-type]


def test_a_picked_point_gives_its_row_and_a_row_its_point() -> None:
    figure = full_figure()
    assert [figure.row_at(0, index) for index in (0, 1, 2)] == [7, 3, 5]
    assert [figure.point_of(row) for row in (7, 3, 5)] == [0, 1, 2]
    assert [figure.point_of(row) for row in (8, 9)] == [0, 2]
    assert figure.point_of(4) is None
    for layer, index in ((1, 0), (0, 3), (0, -1), (9, 0), (-1, 0)):
        assert figure.row_at(layer, index) is None


def test_the_live_figure_gets_the_numbers_that_the_figure_holds() -> None:
    figure = full_figure("a")
    spec = figure.to_live().spec
    kinds = [layer["kind"] for layer in spec["layers"]]
    assert kinds == ["points", "line", "bars", "band", "rule"]
    for place, layer in enumerate(figure.layers):
        for name, values in layer.columns.items():
            shown = live_column(figure, f"{place}.{name}")
            np.testing.assert_array_equal(shown, values.astype(np.float32))
    assert live_column(figure, "0.group").tolist() == [0, -1, 1]
    assert spec["layers"][1]["colours"] == [{"light": "#bf4c00", "dark": "#f0803c"}]
    assert spec["layers"][0]["tooltip"] == [{"label": "a", "column": "0.detail0", "unit": "a"}]
    assert spec["axes"]["x"]["scale"] == "log"
    assert spec["subtitle"] == "a"


def test_only_points_with_rows_can_be_picked_where_there_are_any() -> None:
    bare, tied = Points(x=[1], y=[1]), Points(x=[1], y=[1], rows=[4])
    x, y = Axis("x"), Axis("y")
    both = Figure("t", x, y, (bare, tied)).to_live().spec["layers"]
    assert [layer["pickable"] for layer in both] == [False, True]
    assert Figure("t", x, y, (bare,)).to_live().spec["layers"][0]["pickable"]


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_reach_the_page_as_valid_text(text: str) -> None:
    spec = full_figure(text).to_live().spec
    sent = json.dumps(spec, ensure_ascii=False).encode()
    assert b"\\u0000" not in sent
    assert len(spec["title"]) <= 2000


@pytest.mark.parametrize("text", HOSTILE)
def test_plotly_gets_no_tag_no_tex_and_no_template(text: str) -> None:
    shown = escaped(text)
    assert not set("<>$%") & set(shown)
    drawn = full_figure(text).to_plotly().to_plotly_json()
    assert "<script" not in json.dumps(drawn, default=str)
    assert "<img" not in json.dumps(drawn, default=str)


def test_plotly_without_escaping_would_hold_the_script() -> None:
    assert "<script" in plain(HOSTILE[0])
    assert "$" in plain(HOSTILE[1])


def test_an_empty_figure_says_so_everywhere() -> None:
    figure = Figure.blank("Nothing <b>yet</b>")
    assert figure.is_blank
    assert figure.to_live().spec["empty"] == "Nothing <b>yet</b>"
    assert list(figure.table().columns) == ["layer", "group", "row"]
    message = figure.to_plotly().layout.annotations[0].text
    assert message == "Nothing &lt;b&gt;yet&lt;/b&gt;"


def test_what_is_not_finite_leaves_the_range_alone() -> None:
    line = Line(x=[1, 2, math.nan, math.inf], y=[0, 10, 5, -math.inf])
    figure = Figure("t", Axis("x"), Axis("y"), (line,))
    assert figure.domain("y") == pytest.approx((-0.4, 10.4))
    only = Figure("t", Axis("x"), Axis("y"), (Line(x=[math.nan], y=[1]),))
    assert only.is_blank


def test_a_log_axis_passes_over_what_has_no_logarithm() -> None:
    points = Points(x=[-1, 0, 0.01, 100], y=[1, 2, 3, 4])
    figure = Figure("t", Axis("x", scale="log"), Axis("y"), (points,))
    assert figure.domain("x") == pytest.approx((-2.16, 2.16))
    assert np.isnan(figure.to_plotly().data[0].x).tolist() == [True, True, False, False]
    assert len(figure.table()) == 4
    below = Figure("t", Axis("x", scale="log"), Axis("y"), (Points(x=[-1], y=[1]),))
    assert below.is_blank


def test_one_point_has_room_around_it() -> None:
    figure = Figure("t", Axis("x"), Axis("y"), (Points(x=[5.0], y=[0.0]),))
    assert figure.domain("x") == pytest.approx((4.5, 5.5))
    assert figure.domain("y") == pytest.approx((-0.5, 0.5))


def test_bars_stand_on_zero_and_stacks_reach_their_sum() -> None:
    bars = Bars(x0=[0, 0], x1=[1, 1], height=[3, 4], y0=[0, 3])
    figure = Figure("t", Axis("x"), Axis("y"), (bars,))
    assert figure.domain("y") == pytest.approx((0, 7.28))


def test_only_rules_that_ask_for_it_widen_the_axis() -> None:
    line = Line(x=[0, 1], y=[0, 1])
    for include, top in ((False, 1.04), (True, 5.2)):
        layers = (line, Rule(at=5, along="y", include=include))
        figure = Figure("t", Axis("x"), Axis("y"), layers)
        assert (figure.domain("y") or (0, 0))[1] == pytest.approx(top)


def test_the_table_names_axes_groups_and_rows() -> None:
    table = full_figure("g").table()
    assert isinstance(table, pd.DataFrame)
    points = table[table["row"].notna()]
    assert points["row"].tolist() == [7, 3, 5]
    assert points["group"].tolist() == ["g", "not known", "g 2"]
    assert points["g (g)"].tolist() == [1, 2, 4]
    assert len(table) == 13
    assert table.columns.is_unique


def test_two_axes_of_one_name_stay_apart_in_the_table() -> None:
    figure = Figure("t", Axis("v"), Axis("v"), (Points(x=[1], y=[2]),))
    assert figure.table()[["v [x]", "v [y]"]].to_numpy().tolist() == [[1, 2]]


def test_details_of_one_name_stay_apart_in_the_table() -> None:
    details = (Detail("x", [3.0]), Detail("x", [4.0]))
    figure = Figure("t", Axis("x"), Axis("y"), (Points(x=[1], y=[2], details=details),))
    assert figure.table().columns.is_unique
    assert figure.table().iloc[0, 3:].tolist() == [1, 2, 3, 4]

import json

import pytest

from workbench import palette
from workbench.study import plot


def every_mark() -> plot.Figure:
    figure = plot.figure("Title", "x [a]", "y [b]", "The paper's Fig. 1.", log_y=True)
    plot.line(figure, [1, 2], [1, 2], "line", 0)
    plot.points(figure, [1, 2], [1, 2], "points", 1)
    plot.bars(figure, [1, 2], [1, 2], "bars", 2)
    plot.band(figure, [1, 2], [0, 1], [2, 3], "band", 3)
    plot.heatmap(figure, [1, 2], [1, 2], [[0, 1], [1, 2]], "map")
    plot.rule(figure, x=1.5)
    plot.rule(figure, y=1.5, label="expected")
    return figure


def test_a_figure_has_titles_scales_and_its_caption() -> None:
    figure = every_mark()
    assert figure.layout.title.text == "Title"
    assert figure.layout.xaxis.title.text == "x [a]"
    assert figure.layout.yaxis.type == "log"
    assert plot.caption(figure) == "The paper's Fig. 1."
    assert len(figure.data) == 5
    assert len(figure.layout.shapes) == 2


@pytest.mark.parametrize("dark", [False, True])
def test_dressing_leaves_no_colour_of_the_other_theme(dark: bool) -> None:
    text = json.dumps(plot.dress(every_mark(), dark).to_plotly_json(), default=list)
    own, other = palette.theme(dark), palette.theme(not dark)
    for token in range(4):
        assert own.series[token] in text
        assert other.series[token] not in text
    assert own.background in text
    assert other.background not in text
    assert other.muted not in text


def test_dressing_back_gives_the_same_figure() -> None:
    figure = every_mark()
    before = figure.to_json()
    assert plot.dress(plot.dress(figure, dark=True)).to_json() == before


def test_series_beyond_the_palette_begin_again() -> None:
    figure = plot.figure("T", "x", "y", "c")
    plot.line(figure, [1], [1], "first", 0)
    plot.line(figure, [1], [1], "eighth", len(palette.SERIES))
    assert figure.data[0].line.color == figure.data[1].line.color


def test_a_figure_from_elsewhere_has_no_caption() -> None:
    import plotly.graph_objects as go

    assert plot.caption(go.Figure()) == ""

"""Plotly figures for studies: one look, colours by token, and a caption with the paper's figure.

Each trace remembers its colour's token, so that `dress` can redraw a figure for a dark page.
`table` gives the numbers of any figure.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workbench import palette
from workbench.study.base import Figure
from workbench.study.result import Table

Numbers = Sequence[Any]
_SYMBOLS = ("circle", "triangle-up", "square", "diamond", "cross", "triangle-down")
_DASHES = ("solid", "dash", "dot")
_FONT = "system-ui, -apple-system, Segoe UI, Roboto, Noto Sans, sans-serif"


def figure(
    title: str, x: str, y: str, caption: str, *, log_x: bool = False, log_y: bool = False
) -> Figure:
    """An empty figure in the light theme.

    Args:
        title: What it shows.
        x: Title of the horizontal axis, with its unit.
        y: Title of the vertical axis, with its unit.
        caption: Describes the paper's figure that this one stands for, and how the two differ.
        log_x: Whether the horizontal axis is logarithmic.
        log_y: Whether the vertical axis is logarithmic.
    """
    import plotly.graph_objects as go

    # In one go: Plotly checks every later change anew, which a slider would feel.
    layout = _looks(dark=False) | {
        "title": {"text": title, "x": 0.01},
        "meta": {"caption": caption},
    }
    for name, text, log in (("xaxis", x, log_x), ("yaxis", y, log_y)):
        scale = {"type": "log" if log else "linear", "exponentformat": "power"}
        layout[name] = _axis(dark=False) | scale | {"title": {"text": text, "standoff": 12}}
    return go.Figure(layout=layout)


def line(
    figure: Figure, x: Numbers, y: Numbers, name: str, series: int = 0, dash: str = ""
) -> None:
    """Add a line; `series` chooses its colour, and its dash where none is given."""
    token = _series(series)
    # The palette keeps its first five apart for every reader; from there on the dash must.
    style = {"color": palette.colour(token), "dash": dash or _DASHES[series // 5 % 3], "width": 2}
    figure.add_scatter(x=x, y=y, name=name, mode="lines", line=style, meta={"token": token})


def points(
    figure: Figure,
    x: Numbers,
    y: Numbers,
    name: str,
    series: int = 0,
    labels: Sequence[str] | None = None,
) -> None:
    """Add points; `series` chooses colour and symbol, `labels` what one hovers over."""
    token = _series(series)
    symbol = _SYMBOLS[series % len(_SYMBOLS)]
    marker = {"color": palette.colour(token), "size": 7, "symbol": symbol}
    figure.add_scatter(
        x=x, y=y, name=name, mode="markers", marker=marker, text=labels, meta={"token": token}
    )


def bars(figure: Figure, x: Numbers, y: Numbers, name: str, series: int = 0) -> None:
    """Add bars, of numbers or of categories; several series stand side by side."""
    token = _series(series)
    marker = {"color": palette.colour(token)}
    figure.add_bar(x=x, y=y, name=name, marker=marker, meta={"token": token})
    if any(isinstance(each, str) for each in x):
        # `figure` makes the axis linear, on which words have no place.
        figure.update_xaxes(type="category")


def band(
    figure: Figure, x: Numbers, low: Numbers, high: Numbers, name: str, series: int = 0
) -> None:
    """Add the area between two lines, for example an interval around a line."""
    token = _series(series)
    figure.add_scatter(
        x=[*x, *reversed(x)],
        y=[*high, *reversed(low)],
        name=name,
        mode="none",
        fill="toself",
        fillcolor=palette.colour(token),
        opacity=0.2,
        hoverinfo="skip",
        meta={"token": token},
    )


def heatmap(
    figure: Figure, x: Numbers, y: Numbers, z: Sequence[Numbers], name: str, middle: float = 0.0
) -> None:
    """Add a map of colours, rows of z along y, diverging from `middle`."""
    figure.add_heatmap(x=x, y=y, z=z, name=name, zmid=middle, colorbar_title_text=name)
    figure.update_traces(colorscale=_scale(dark=False), selector={"type": "heatmap"})


def rule(
    figure: Figure, *, x: float | None = None, y: float | None = None, label: str = ""
) -> None:
    """Add a dashed line across the figure at x or at y, for what is expected there."""
    token = "muted"
    style = {"color": palette.colour(token), "dash": "dash", "width": 1.5}
    if x is not None:
        figure.add_vline(x=x, line=style, annotation_text=label)
        _place_label(figure, "x", x, label)
    if y is not None:
        figure.add_hline(y=y, line=style, annotation_text=label)
        _place_label(figure, "y", y, label)


def _place_label(figure: Figure, name: str, at: float, label: str) -> None:
    """Plotly wants a label's place on a logarithmic axis as a power of ten, a rule's not."""
    if label and figure.layout[f"{name}axis"].type == "log" and at > 0:
        figure.layout.annotations[-1][name] = math.log10(at)


def caption(figure: Figure) -> str:
    """The caption that a figure was made with; "" for one that was made otherwise."""
    meta = figure.layout.meta
    return str(meta.get("caption", "")) if isinstance(meta, Mapping) else ""


def dress(figure: Figure, dark: bool = False) -> Figure:
    """Give a figure the colours of the light or the dark theme, in place."""
    shown, axis = palette.theme(dark), _axis(dark)
    figure.update_layout(_looks(dark))
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    figure.update_shapes(line_color=shown.muted)
    for trace in figure.data:
        _recolour(trace, dark)
    return figure


def _looks(dark: bool) -> dict[str, Any]:
    shown = palette.theme(dark)
    return {
        "template": "none",
        "paper_bgcolor": shown.background,
        "plot_bgcolor": shown.background,
        "font": {"color": shown.text, "family": _FONT, "size": 13},
        "colorway": list(shown.series),
        "hoverlabel": {"bgcolor": shown.panel, "font": {"color": shown.text}},
        "legend": {"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0},
        "margin": {"l": 70, "r": 24, "t": 60, "b": 60},
    }


def _axis(dark: bool) -> dict[str, Any]:
    shown = palette.theme(dark)
    look: dict[str, Any] = {"gridcolor": shown.grid, "zeroline": False, "showline": True}
    return look | {"linecolor": shown.muted, "tickcolor": shown.muted, "automargin": True}


def values_of(data: Any) -> list[Any]:  # noqa: ANN401 - what plotly takes for a column
    """A column of a trace as a list, rows of a matrix below one another."""
    if isinstance(data, Mapping):
        # Plotly packs arrays as bytes when it writes JSON.
        raw = np.frombuffer(base64.b64decode(data["bdata"]), dtype=np.dtype(data["dtype"]))
        return list(raw.tolist())
    return [] if data is None else list(np.asarray(data, dtype=object).reshape(-1).tolist())


def table(figure: Figure) -> Table:
    """All numbers of a figure: one mark a row, the traces below one another.

    Columns are the trace's name, `x`, `y`, `z` (of a map) and `text` (what one hovers over).
    """
    rows: dict[str, list[Any]] = {name: [] for name in ("trace", "x", "y", "z", "text")}
    for trace in figure.data:
        marks = _marks(trace)
        length = max((len(each) for each in marks.values()), default=0)
        rows["trace"] += [trace.name or ""] * length
        for name in ("x", "y", "z", "text"):
            found = marks.get(name, [])
            rows[name] += found + [None] * (length - len(found))
    return rows


def _marks(trace: Any) -> dict[str, list[Any]]:  # noqa: ANN401 - plotly has no types
    columns = {name: values_of(getattr(trace, name, None)) for name in ("x", "y", "text")}
    if trace.type != "heatmap":
        return columns
    across, down = columns["x"], columns["y"]
    return {
        "x": across * len(down),
        "y": [each for each in down for _ in across],
        "z": values_of(trace.z),
    }


def _recolour(trace: Any, dark: bool) -> None:  # noqa: ANN401 - plotly has no types
    if trace.type == "heatmap":
        trace.colorscale = _scale(dark)
    token = trace.meta.get("token") if isinstance(trace.meta, Mapping) else None
    if token is None:
        return
    shade = palette.colour(token, dark)
    if trace.type == "bar":
        trace.marker.color = shade
    elif trace.mode == "lines":
        trace.line.color = shade
    elif trace.mode == "markers":
        trace.marker.color = shade
    else:
        trace.fillcolor = shade


def _series(place: int) -> str:
    return palette.SERIES[place % len(palette.SERIES)]


def _scale(dark: bool) -> list[tuple[float, str]]:
    shown = palette.theme(dark)
    return [(0.0, shown.low), (0.5, shown.background), (1.0, shown.high)]

"""A figure in Plotly, for notebooks and for HTML files that stay interactive.

Plotly reads texts as a small HTML and, between dollar signs, as TeX; `escaped` takes both away.
"""

from typing import Any

import numpy as np

from workbench import palette
from workbench.views.figure import (
    Axis,
    Band,
    Bars,
    Figure,
    Layer,
    Line,
    Members,
    Numbers,
    Points,
    Rule,
    plain,
    shapes,
)

_SYMBOLS = ("circle", "triangle-up", "square", "diamond", "cross", "triangle-down")
_DASHES = {"": "solid", "dash": "dash", "dot": "dot", "dashdot": "dashdot"}
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;", "%": "&#37;", "\n": " "}
_FONT = "system-ui, -apple-system, Segoe UI, Roboto, Noto Sans, sans-serif"
_LABEL = 200


def escaped(text: str, limit: int = _LABEL) -> str:
    """A text that Plotly shows as it is: no tags, no TeX, no template."""
    return "".join(_ENTITIES.get(sign, sign) for sign in plain(text, limit))


def plotly_figure(figure: Figure, dark: bool) -> Any:  # noqa: ANN401 - plotly has no types
    """The figure as a `plotly.graph_objects.Figure`."""
    import plotly.graph_objects as go

    traces = [trace for layer in figure.layers for trace in _traces(figure, layer, dark)]
    drawn = go.Figure(data=[] if figure.is_blank else traces, layout=_layout(figure, dark))
    seen: set[str] = set()
    for trace in drawn.data:
        trace.showlegend = bool(trace.name) and trace.name not in seen
        seen.add(trace.name)
    if figure.is_blank:
        return drawn
    for layer in figure.layers:
        if isinstance(layer, Rule) and np.isfinite(layer.at):
            _add_rule(drawn, layer, dark)
    return drawn


def _layout(figure: Figure, dark: bool) -> dict[str, Any]:
    shown = palette.theme(dark)
    title = f"<b>{escaped(figure.title)}</b>"
    note = escaped(figure.note, 600)
    return {
        "title": {
            "text": title + (f"<br><sup>{note}</sup>" if note else ""),
            "x": 0.01,
            "xanchor": "left",
        },
        "paper_bgcolor": shown.background,
        "plot_bgcolor": shown.background,
        "font": {"color": shown.text, "family": _FONT, "size": 13},
        "colorway": list(shown.series),
        "barmode": "overlay",
        "hoverlabel": {"bgcolor": shown.panel, "font": {"color": shown.text}},
        "legend": {"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0},
        "margin": {"l": 70, "r": 24, "t": 76, "b": 60},
        "xaxis": _axis(figure, "x", dark),
        "yaxis": _axis(figure, "y", dark),
        "annotations": [_message(figure, dark)] if figure.is_blank else [],
    }


def _axis(figure: Figure, name: str, dark: bool) -> dict[str, Any]:
    axis, shown, domain = figure.axis(name), palette.theme(dark), figure.domain(name)
    found: dict[str, Any] = {
        "title": {"text": escaped(axis.title)},
        "type": axis.scale,
        "gridcolor": shown.grid,
        "linecolor": shown.muted,
        "tickcolor": shown.muted,
        "zeroline": False,
        "showline": True,
        "range": None if domain is None else list(domain),
        "showticklabels": not figure.is_blank,
        "showgrid": not figure.is_blank,
        "minorloglabels": "none" if axis.scale == "log" else None,
    }
    if axis.names:
        found["tickvals"] = list(range(1, len(axis.names) + 1))
        found["ticktext"] = [escaped(each, 40) for each in axis.names]
    return {key: value for key, value in found.items() if value is not None}


def _message(figure: Figure, dark: bool) -> dict[str, Any]:
    place = {"xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5}
    colour = palette.theme(dark).muted
    return place | {"text": escaped(figure.empty), "showarrow": False, "font": {"color": colour}}


def _traces(figure: Figure, layer: Layer, dark: bool) -> list[dict[str, Any]]:
    if isinstance(layer, Rule):
        return _rule_entry(layer, dark)
    traces = []
    for code, label, members in layer.parts():
        own: dict[str, Any] = {"name": escaped(label), "legendgroup": escaped(label)}
        own["opacity"] = layer.opacity if layer.opacity is not None else _opacity(layer)
        traces.append(own | _marks(figure, layer, code, members, dark))
    return traces


def _opacity(layer: Layer) -> float:
    """The live figure's: many points are drawn fainter."""
    if isinstance(layer, Points):
        return 0.55 if len(layer) > 2000 else 0.85
    return {"bars": 0.75, "band": 0.2}.get(layer.kind, 1.0)


def _marks(
    figure: Figure,
    layer: Layer,
    code: int,
    members: Members,
    dark: bool,
) -> dict[str, Any]:
    shade = palette.colour(layer.token(code), dark)
    if isinstance(layer, Points):
        return _points(figure, layer, code, members, shade)
    if isinstance(layer, Line):
        # The gap: a group that comes back later must not be joined to where it stopped.
        x, y = (_gapped(values, members) for values in (layer.x, layer.y))
        line = {"color": shade, "width": layer.width, "dash": _DASHES[layer.dash]}
        return _scatter(figure.x, x, figure.y, y) | {"mode": "lines", "line": line}
    if isinstance(layer, Bars):
        return _bars(layer, members, shade)
    return _band(figure, layer, members, shade)


def _gapped(values: Numbers, members: Members) -> Numbers:
    return np.where(members, values, np.nan)


def _scatter(x_axis: Axis, x: Numbers, y_axis: Axis, y: Numbers) -> dict[str, Any]:
    drawn = {"x": x_axis.shown(x), "y": y_axis.shown(y)}
    hover = f"{escaped(x_axis.label)} %{{x:.5g}}<br>{escaped(y_axis.label)} %{{y:.5g}}"
    return drawn | {"type": "scatter", "hovertemplate": hover, "connectgaps": False}


def _points(
    figure: Figure,
    layer: Points,
    code: int,
    members: Members,
    shade: str,
) -> dict[str, Any]:
    symbol = _SYMBOLS[code % len(_SYMBOLS)] if shapes(layer) and code >= 0 else "circle"
    drawn = _scatter(figure.x, layer.x[members], figure.y, layer.y[members])
    drawn |= {"mode": "markers", "marker": {"color": shade, "size": layer.size, "symbol": symbol}}
    if layer.details:
        lines = [
            f"{escaped(each.label)} %{{customdata[{place}]:.5g}} {escaped(each.unit)}"
            for place, each in enumerate(layer.details)
        ]
        drawn["hovertemplate"] = "<br>".join(lines)
        drawn["customdata"] = np.stack([each.values[members] for each in layer.details], axis=1)
    return drawn


def _bars(layer: Bars, members: Members, shade: str) -> dict[str, Any]:
    members = members & np.isfinite(layer.x0 + layer.x1 + layer.height)
    x0, x1 = layer.x0[members], layer.x1[members]
    base = None if layer.y0 is None else layer.y0[members]
    return {
        "type": "bar",
        "x": (x0 + x1) / 2,
        "width": np.abs(x1 - x0),
        "y": layer.height[members],
        "base": base,
        "marker": {"color": shade, "line": {"width": 0}},
        "customdata": np.stack([x0, x1, layer.height[members]], axis=1),
        "hovertemplate": "%{customdata[0]:.4g} to %{customdata[1]:.4g}: %{customdata[2]:.4g}",
    }


def _band(figure: Figure, layer: Layer, members: Members, shade: str) -> dict[str, Any]:
    if not isinstance(layer, Band):
        raise TypeError(f"no drawing for a layer of kind {layer.kind!r}")
    x = np.concatenate([layer.x[members], layer.x[members][::-1]])
    y = np.concatenate([layer.y0[members], layer.y1[members][::-1]])
    style = {"mode": "none", "fill": "toself", "fillcolor": shade, "hoverinfo": "skip"}
    drawn = _scatter(figure.x, x, figure.y, y) | style
    del drawn["hovertemplate"]
    return drawn


def _rule_line(layer: Rule, dark: bool) -> dict[str, Any]:
    shade = palette.colour(layer.token(0) if layer.colours else "text", dark)
    return {"color": shade, "width": layer.width, "dash": _DASHES[layer.dash]}


def _rule_entry(layer: Rule, dark: bool) -> list[dict[str, Any]]:
    """A rule is a shape, which has no legend: an empty line stands for it there."""
    if not layer.name or not np.isfinite(layer.at):
        return []
    name = escaped(layer.name)
    line = {"type": "scatter", "mode": "lines", "line": _rule_line(layer, dark)}
    return [line | {"x": [None], "y": [None], "name": name, "legendgroup": name}]


def _add_rule(drawn: Any, layer: Rule, dark: bool) -> None:  # noqa: ANN401
    place = {"x": layer.at} if layer.along == "x" else {"y": layer.at}
    add = drawn.add_vline if layer.along == "x" else drawn.add_hline
    add(**place, line=_rule_line(layer, dark), opacity=layer.opacity or 0.8)

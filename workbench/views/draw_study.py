"""A study's Plotly figure drawn by matplotlib, trace by trace, for files to print.

What `workbench.study.plot` makes is drawn: lines, points, bars, bands and maps, with error bars,
rules and their labels. Any other kind of trace is refused by name.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench import palette
from workbench.study.plot import values_of
from workbench.views.draw_matplotlib import (
    draw_axes,
    draw_legend,
    draw_texts,
    drawable,
    plain_powers,
)
from workbench.views.export import ExportError
from workbench.views.figure import Axis, Figure
from workbench.views.study_figure import StudyFigure, words_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

_SIZE = (7.6, 5.2)
_PIXEL = 0.75
"""Points in a pixel of the page."""
_LABEL = 60
_BAR_SHARE = 0.8
"""Of the room between two bars, as Plotly has it."""
_DASHES: Mapping[str, Any] = {
    "dash": (0, (5, 3)),
    "dot": (0, (1, 2.5)),
    "dashdot": (0, (6, 2.5, 1, 2.5)),
}
_MARKERS = {
    "circle": "o", "triangle-up": "^", "square": "s", "diamond": "D", "cross": "P",
    "triangle-down": "v", "x": "X", "star": "*",
}  # fmt: skip


def study_canvas(figure: StudyFigure, dark: bool) -> "Canvas":
    """The figure as a `matplotlib.figure.Figure`; call it inside `draw_matplotlib.style()`.

    Raises:
        ExportError: a kind of trace that cannot be drawn.
    """
    from matplotlib.figure import Figure as Canvas

    drawn, shown = figure.to_plotly(dark), palette.theme(dark)
    canvas = Canvas(figsize=_SIZE, facecolor=shown.background, layout="constrained")
    axes = canvas.add_subplot(facecolor=shown.background)
    frame = _frame(figure, drawn.layout)
    draw_texts(canvas, axes, frame, dark)
    draw_axes(axes, frame, dark)
    _Drawing(axes, drawn, dark).draw()
    draw_legend(canvas, axes, dark)
    return canvas


def _frame(figure: StudyFigure, layout: Any) -> Figure:  # noqa: ANN401 - plotly has no types
    x, y = (Axis(words_of(axis.title.text)) for axis in (layout.xaxis, layout.yaxis))
    return Figure(figure.title, x, y, note=figure.caption)


class _Drawing:
    """One figure while it is drawn."""

    def __init__(self, axes: "Axes", figure: Any, dark: bool) -> None:  # noqa: ANN401
        self.axes = axes
        self.figure = figure
        self.theme = palette.theme(dark)
        self.bars = [trace for trace in figure.data if trace.type == "bar"]
        self.places = {name: _categories(figure.data, name) for name in "xy"}

    def draw(self) -> None:
        for name in "xy":
            self._scale(name)
        for place, trace in enumerate(self.figure.data):
            draw = _TRACES.get(trace.type)
            if draw is None:
                raise ExportError(
                    f"A trace of kind {trace.type!r} cannot be drawn; use one of "
                    f"{', '.join(_TRACES)} (see workbench.study.plot)."
                )
            draw(self, trace, {"zorder": 2 + 0.01 * place, "label": self._name(trace)})
        self._rules()
        for name in "xy":
            self._finish(name)

    # Axes

    def _axis(self, name: str) -> Any:  # noqa: ANN401 - plotly has no types
        return self.figure.layout[f"{name}axis"]

    def _scale(self, name: str) -> None:
        if self._axis(name).type == "log":
            getattr(self.axes, f"set_{name}scale")("log", nonpositive="mask")
            plain_powers(getattr(self.axes, f"{name}axis"))

    def _finish(self, name: str) -> None:
        """Names of categories, and the range where the figure fixes one."""
        axis = self._axis(name)
        if names := self.places[name]:
            shown = [drawable(each, 40) for each in names]
            lean = {"rotation": 30, "ha": "right"} if name == "x" and len(names) > 6 else {}
            getattr(self.axes, f"set_{name}ticks")(range(len(names)), shown, **lean)
        if axis.range is not None and None not in axis.range:
            ends = [10.0**end for end in axis.range] if axis.type == "log" else list(axis.range)
            getattr(self.axes, f"set_{name}lim")(*ends)
        elif axis.autorange == "reversed":
            getattr(self.axes, f"invert_{name}axis")()

    def numbers(self, name: str, data: Any) -> Any:  # noqa: ANN401 - an array of float64
        """A column as places on an axis; names of categories have places 0, 1, 2, ..."""
        values = values_of(data)
        if names := self.places[name]:
            values = [names.index(str(each)) for each in values]
        return np.array([np.nan if each is None else each for each in values], dtype=float)

    # Traces

    def scatter(self, trace: Any, look: dict[str, Any]) -> None:  # noqa: ANN401
        x, y = self.numbers("x", trace.x), self.numbers("y", trace.y)
        look["alpha"] = 1.0 if trace.opacity is None else trace.opacity
        if trace.fill in ("toself", "tozeroy"):
            self._area(trace, x, y, dict(look))
        mode = trace.mode or "lines+markers"
        if "lines" in mode or "markers" in mode:
            self._marks(trace, x, y, mode, look)
        if "text" in mode:
            for at, up, words in zip(x, y, values_of(trace.text), strict=False):
                self._say(at, up, str(words))

    def _area(self, trace: Any, x: Any, y: Any, look: dict[str, Any]) -> None:  # noqa: ANN401
        colour = trace.fillcolor or trace.line.color
        if trace.fill == "tozeroy":
            self.axes.fill_between(x, y, 0, color=colour, linewidth=0, **look)
        else:
            self.axes.fill(x, y, color=colour, linewidth=0, **look)

    def _marks(self, trace: Any, x: Any, y: Any, mode: str, look: dict[str, Any]) -> None:  # noqa: ANN401
        lines, markers = "lines" in mode, "markers" in mode
        colour = (trace.line.color if lines else None) or trace.marker.color
        if markers and not isinstance(colour, str | None):
            self._shaded(trace, x, y, look)
            return
        symbol = _MARKERS.get(str(trace.marker.symbol or "circle"), "o")
        self.axes.plot(
            x, y, color=colour, linewidth=(trace.line.width or 2) * _PIXEL,
            linestyle=_DASHES.get(trace.line.dash, "-") if lines else "none",
            marker=symbol if markers else "none", markeredgewidth=0,
            markersize=_size(trace) * _PIXEL, **look,
        )  # fmt: skip
        self._errors(trace, x, y, colour, look["zorder"])

    def _shaded(self, trace: Any, x: Any, y: Any, look: dict[str, Any]) -> None:  # noqa: ANN401
        """Points coloured one by one, by colours or by numbers."""
        shades = values_of(trace.marker.color)
        named: dict[str, Any] = {"color": shades} if isinstance(shades[0], str) else {"c": shades}
        self.axes.scatter(x, y, s=(_size(trace) * _PIXEL) ** 2, linewidths=0, **named, **look)

    def _errors(self, trace: Any, x: Any, y: Any, colour: Any, depth: float) -> None:  # noqa: ANN401
        for name, error in (("xerr", trace.error_x), ("yerr", trace.error_y)):
            found = values_of(error.array)
            if not found:
                continue
            below = values_of(error.arrayminus) or found
            spread: dict[str, Any] = {name: np.array([below, found], dtype=float)}
            self.axes.errorbar(
                x, y, **spread, fmt="none", ecolor=colour, elinewidth=1, capsize=2,
                zorder=depth,
            )  # fmt: skip

    def bar(self, trace: Any, look: dict[str, Any]) -> None:  # noqa: ANN401
        sideways = trace.orientation == "h"
        at = self.numbers("y", trace.y) if sideways else self.numbers("x", trace.x)
        length = self.numbers("x", trace.x) if sideways else self.numbers("y", trace.y)
        stacked = self.figure.layout.barmode in ("overlay", "stack", "relative")
        count = 1 if stacked else len(self.bars)
        place = 0 if stacked else next(i for i, each in enumerate(self.bars) if each is trace)
        width = self._room(at, trace) / count
        at = at + (place - (count - 1) / 2) * width
        draw = self.axes.barh if sideways else self.axes.bar
        look["alpha"] = 1.0 if trace.opacity is None else trace.opacity
        colour = trace.marker.color
        draw(
            at,
            length,
            width,
            color=colour if isinstance(colour, str) else values_of(colour) or None,
            **look,
        )
        x, y = (length, at) if sideways else (at, length)
        self._errors(trace, x, y, self.theme.text, look["zorder"] + 0.005)

    def _room(self, at: Any, trace: Any) -> float:  # noqa: ANN401
        if isinstance(trace.width, int | float):
            return float(trace.width)
        steps = np.diff(np.unique(at[np.isfinite(at)]))
        return float(steps.min() if len(steps) else 1.0) * _BAR_SHARE

    def heatmap(self, trace: Any, look: dict[str, Any]) -> None:  # noqa: ANN401
        from matplotlib.colors import LinearSegmentedColormap

        x, y = self.numbers("x", trace.x), self.numbers("y", trace.y)
        z = np.array(values_of(trace.z), dtype=float).reshape(len(y), len(x))
        scale = [(float(at), colour) for at, colour in trace.colorscale]
        colours = LinearSegmentedColormap.from_list("study", scale)
        low, high = _limits(trace, z)
        drawn = self.axes.pcolormesh(
            x, y, z, cmap=colours, vmin=low, vmax=high, shading="nearest", zorder=look["zorder"]
        )
        canvas = self.axes.figure
        bar = canvas.colorbar(drawn, ax=self.axes, label=look["label"].strip("_"))
        bar.ax.tick_params(colors=self.theme.muted, labelsize=9)
        bar.ax.yaxis.label.set_color(self.theme.text)

    # What lies above the traces

    def _rules(self) -> None:
        for shape in self.figure.layout.shapes:
            look = {
                "color": shape.line.color or self.theme.muted,
                "linewidth": (shape.line.width or 1.5) * _PIXEL,
                "linestyle": _DASHES.get(shape.line.dash, "-"),
                "zorder": 1.5,
            }
            if shape.x0 == shape.x1 and shape.yref != "y":
                self.axes.axvline(self.numbers("x", [shape.x0])[0], **look)
            elif shape.y0 == shape.y1 and shape.xref != "x":
                self.axes.axhline(self.numbers("y", [shape.y0])[0], **look)
            elif shape.type == "line":
                x, y = (
                    self.numbers("x", [shape.x0, shape.x1]),
                    self.numbers("y", [shape.y0, shape.y1]),
                )
                self.axes.plot(x, y, **look)
        for note in self.figure.layout.annotations:
            self._annotate(note)

    def _annotate(self, note: Any) -> None:  # noqa: ANN401 - plotly has no types
        """A label; that of a rule lies at the edge of the figure in one direction."""
        from matplotlib.transforms import blended_transform_factory

        inside = {"x": note.xref in (None, "x"), "y": note.yref in (None, "y")}
        x, y = (self._place(name, getattr(note, name), inside[name]) for name in "xy")
        across, up = (self.axes.transData if inside[name] else self.axes.transAxes for name in "xy")
        written = self.axes.text(
            x, y, drawable(words_of(note.text), _LABEL), color=self.theme.muted, fontsize=8.5,
            ha="left" if inside["x"] else "right", va="bottom" if inside["y"] else "top",
            transform=blended_transform_factory(across, up),
        )  # fmt: skip
        # A label outside the axes must not squeeze them.
        written.set_in_layout(False)

    def _place(self, name: str, value: Any, inside: bool) -> float:  # noqa: ANN401
        if not inside:
            return float(value)
        found = float(self.numbers(name, [value])[0])
        # Plotly gives a label's place on a logarithmic axis as a power of ten.
        return 10.0**found if self._axis(name).type == "log" else found

    def _say(self, at: float, up: float, words: str) -> None:
        shown = drawable(words_of(words), _LABEL)
        self.axes.text(at, up, shown, color=self.theme.text, fontsize=8, ha="center", va="bottom")

    def _name(self, trace: Any) -> str:  # noqa: ANN401 - plotly has no types
        """What the legend says; matplotlib leaves out names that begin with a dash."""
        if trace.showlegend is False or not trace.name:
            return ""
        return drawable(words_of(trace.name), _LABEL)


_TRACES: Mapping[str, Any] = {
    "scatter": _Drawing.scatter,
    "scattergl": _Drawing.scatter,
    "bar": _Drawing.bar,
    "heatmap": _Drawing.heatmap,
}


def _categories(traces: Sequence[Any], name: str) -> list[str]:
    """The names on an axis, in order; none where it has numbers."""
    values = [each for trace in traces for each in values_of(getattr(trace, name, None))]
    if not any(isinstance(each, str) for each in values):
        return []
    return list(dict.fromkeys(str(each) for each in values))


def _size(trace: Any) -> float:  # noqa: ANN401 - plotly has no types
    size = trace.marker.size
    return float(size) if isinstance(size, int | float) else 6.0


def _limits(trace: Any, z: Any) -> tuple[float, float]:  # noqa: ANN401
    """Lowest and highest value of a map's colours, as far from its middle on both sides."""
    low = float(np.nanmin(z)) if trace.zmin is None else float(trace.zmin)
    high = float(np.nanmax(z)) if trace.zmax is None else float(trace.zmax)
    if trace.zmid is None or trace.zmin is not None:
        return low, high
    reach = max(abs(low - trace.zmid), abs(high - trace.zmid)) or 1.0
    return trace.zmid - reach, trace.zmid + reach

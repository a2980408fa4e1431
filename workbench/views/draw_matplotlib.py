"""A figure in matplotlib, for files to print: drawn through its objects, never through pyplot.

User texts are never parsed as TeX (`parse_math` is off), and letters that no font at hand has are
replaced by a box, so that drawing never warns.
"""

import textwrap
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench import palette
from workbench.views.figure import (
    Band,
    Bars,
    Figure,
    Layer,
    Line,
    Members,
    Points,
    Rule,
    plain,
    shapes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis as MplAxis
    from matplotlib.figure import Figure as Canvas

_SIZE = (7.6, 4.9)
_MARKERS = ("o", "^", "s", "D", "P", "v")
_DASHES: dict[str, Any] = {
    "": "-",
    "dash": (0, (5, 3)),
    "dot": (0, (1, 2.5)),
    "dashdot": (0, (6, 2.5, 1, 2.5)),
}
_PIXEL = 0.75
"""Points in a pixel of the page."""
_WIDE = 108
_LABEL = 48
_MISSING = "□"
_MAIN_FONT = "DejaVu Sans"
_FALLBACKS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Noto Sans JP",
    "Noto Sans Arabic",
    "Noto Sans Hebrew",
    "Noto Sans Devanagari",
    "Noto Sans Symbols2",
    "Noto Emoji",
    "Segoe UI Symbol",
    "Microsoft YaHei",
    "Hiragino Sans GB",
    "PingFang SC",
    "Arial Unicode MS",
)


def matplotlib_figure(figure: Figure, dark: bool) -> "Canvas":
    """The figure as a `matplotlib.figure.Figure`; call it inside `style()`."""
    from matplotlib.figure import Figure as Canvas

    shown = palette.theme(dark)
    canvas = Canvas(figsize=_SIZE, facecolor=shown.background, layout="constrained")
    axes = canvas.add_subplot(facecolor=shown.background)
    draw_texts(canvas, axes, figure, dark)
    draw_axes(axes, figure, dark)
    if figure.is_blank:
        _draw_message(axes, figure, dark)
        return canvas
    for depth, layer in enumerate(figure.layers):
        _draw(axes, figure, layer, dark, depth)
    _fix_domains(axes, figure)
    if not figure.x.names:
        draw_legend(canvas, axes, dark)
    return canvas


def style() -> Any:  # noqa: ANN401 - matplotlib types each key by name
    """The settings that a drawing needs, for `matplotlib.rc_context`."""
    return {
        "font.family": list(_fonts()),
        "font.size": 10,
        "svg.hashsalt": "preference-workbench",
        "svg.fonttype": "none",
        "pdf.fonttype": 42,
        "path.simplify": False,
        "text.parse_math": False,
        "text.usetex": False,
        "axes.unicode_minus": True,
    }


def drawable(text: str, limit: int) -> str:
    """A text of one line in letters that the fonts have."""
    known = _letters()
    line = " ".join(plain(text, limit).split())
    return "".join(sign if ord(sign) in known else _MISSING for sign in line)


@cache
def _fonts() -> tuple[str, ...]:
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return _MAIN_FONT, *(name for name in _FALLBACKS if name in installed)


@cache
def _letters() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    found: set[int] = set()
    for name in _fonts():
        path = findfont(FontProperties(family=[name]))
        found |= set(get_font(path).get_charmap())
    return frozenset(found)


def draw_texts(canvas: "Canvas", axes: "Axes", figure: Figure, dark: bool) -> None:
    """Title, note and axis titles."""
    shown = palette.theme(dark)
    canvas.get_layout_engine().set(w_pad=0.12, h_pad=0.05)  # type: ignore[union-attr, call-arg]
    title = "\n".join(textwrap.wrap(drawable(figure.title, 160), 70))
    canvas.suptitle(title, x=0.016, ha="left", fontsize=13, fontweight="bold", color=shown.text)
    note = "\n".join(textwrap.wrap(drawable(figure.note, 400), _WIDE))
    axes.set_title(note, loc="left", x=0.0, fontsize=9, color=shown.muted, linespacing=1.3)
    axes.set_xlabel(drawable(figure.x.title, 90), color=shown.text)
    axes.set_ylabel(drawable(figure.y.title, 60), color=shown.text)


def draw_axes(axes: "Axes", figure: Figure, dark: bool) -> None:
    """Scales, grid and spines."""
    shown = palette.theme(dark)
    for name, axis in (("x", figure.x), ("y", figure.y)):
        if axis.scale == "log" and not figure.is_blank:
            getattr(axes, f"set_{name}scale")("log", nonpositive="mask")
            plain_powers(getattr(axes, f"{name}axis"))
    axes.grid(True, color=shown.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=shown.muted, labelsize=9)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(shown.muted)


def plain_powers(axis: "MplAxis") -> None:
    """Ticks as 0.01 and 100: the usual ones are TeX, which is off."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _draw_message(axes: "Axes", figure: Figure, dark: bool) -> None:
    shown = palette.theme(dark)
    words = "\n".join(textwrap.wrap(drawable(figure.empty, 300), 60))
    axes.text(
        0.5, 0.5, words, color=shown.muted, fontsize=11,
        ha="center", va="center", transform=axes.transAxes,
    )  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])


def _fix_domains(axes: "Axes", figure: Figure) -> None:
    for name in ("x", "y"):
        axis, domain = figure.axis(name), figure.domain(name)
        if domain is not None:
            ends = tuple(10.0**end for end in domain) if axis.scale == "log" else domain
            getattr(axes, f"set_{name}lim")(*ends)
        if axis.names:
            places = np.arange(1, len(axis.names) + 1)
            names = ["\n".join(textwrap.wrap(drawable(each, 40), 18)) for each in axis.names]
            getattr(axes, f"set_{name}ticks")(places, names)
            _lean(axes, len(names))


def _lean(axes: "Axes", count: int) -> None:
    """Many names do not fit side by side."""
    if count > 6:
        axes.tick_params(axis="x", labelrotation=35)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")
            label.set_rotation_mode("anchor")


def draw_legend(canvas: "Canvas", axes: "Axes", dark: bool) -> None:
    """The names that were given to what is drawn, each once."""
    handles, labels = axes.get_legend_handles_labels()
    # The first layer of a name stands for it, as on the page.
    named = [(label, handle) for handle, label in zip(handles, labels, strict=True) if label]
    entries = dict(reversed(named))
    entries = {label: entries[label] for label, _ in named}
    if not entries:
        return
    widths = [len(label) + 7 for label in entries]
    columns = len(entries) if sum(widths) <= _WIDE + 7 else max(1, _WIDE // max(widths))
    canvas.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower left",
        ncols=columns,
        frameon=False,
        fontsize=9,
        labelcolor=palette.theme(dark).text,
        handlelength=1.8,
        markerscale=1.3,
    )


def _draw(axes: "Axes", figure: Figure, layer: Layer, dark: bool, depth: int) -> None:
    if isinstance(layer, Rule):
        _draw_rule(axes, layer, dark, depth)
        return
    for code, label, members in layer.parts():
        look = {
            "color": palette.colour(layer.token(code), dark),
            "alpha": layer.opacity,
            "label": drawable(label, _LABEL),
            "zorder": 2 + 0.01 * depth,
        }
        _DRAWN[layer.kind](axes, figure, layer, code, members, look)


def _draw_points(
    axes: "Axes",
    figure: Figure,
    layer: Points,
    code: int,
    members: Members,
    look: dict[str, Any],
) -> None:
    marker = _MARKERS[code % len(_MARKERS)] if shapes(layer) and code >= 0 else "o"
    look["alpha"] = look["alpha"] or (0.5 if len(layer) > 2000 else 0.8)
    x, y = figure.x.shown(layer.x[members]), figure.y.shown(layer.y[members])
    axes.plot(
        x, y, linestyle="none", marker=marker, markersize=layer.size * _PIXEL,
        markeredgewidth=0, **look,
    )  # fmt: skip


def _draw_line(
    axes: "Axes",
    figure: Figure,
    layer: Line,
    code: int,
    members: Members,
    look: dict[str, Any],
) -> None:
    x = np.where(members, figure.x.shown(layer.x), np.nan)
    y = np.where(members, figure.y.shown(layer.y), np.nan)
    axes.plot(x, y, linewidth=layer.width * _PIXEL, linestyle=_DASHES[layer.dash], **look)


def _draw_bars(
    axes: "Axes",
    figure: Figure,
    layer: Bars,
    code: int,
    members: Members,
    look: dict[str, Any],
) -> None:
    look["alpha"] = look["alpha"] or 0.75
    left, right = layer.x0[members], layer.x1[members]
    base = None if layer.y0 is None else layer.y0[members]
    axes.bar(
        left, layer.height[members], right - left, bottom=base, align="edge",
        edgecolor=axes.get_facecolor(), linewidth=0.5, **look,
    )  # fmt: skip


def _draw_band(
    axes: "Axes",
    figure: Figure,
    layer: Band,
    code: int,
    members: Members,
    look: dict[str, Any],
) -> None:
    look["alpha"] = look["alpha"] or 0.2
    low, high = figure.y.shown(layer.y0[members]), figure.y.shown(layer.y1[members])
    axes.fill_between(figure.x.shown(layer.x[members]), low, high, linewidth=0, **look)


def _draw_rule(axes: "Axes", layer: Rule, dark: bool, depth: int) -> None:
    if not np.isfinite(layer.at):
        return
    draw = axes.axvline if layer.along == "x" else axes.axhline
    draw(
        layer.at,
        color=palette.colour(layer.token(0) if layer.colours else "text", dark),
        linewidth=layer.width * _PIXEL,
        linestyle=_DASHES[layer.dash],
        alpha=layer.opacity or 0.8,
        label=drawable(layer.name, _LABEL),
        zorder=1.5 + 0.01 * depth,
    )


_DRAWN: dict[str, Any] = {
    "points": _draw_points,
    "line": _draw_line,
    "bars": _draw_bars,
    "band": _draw_band,
}

"""A figure as a value: axes and layers of numbers, drawn by the page, by Plotly or by matplotlib.

Every renderer starts from the same arrays, so what is exported is what was on the screen. Texts
are kept as they came; each renderer makes them harmless for its own language (`plain` is what all
share). Colours are tokens of `workbench.palette`.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from workbench_widgets.live_figure.frame import pack_columns

from workbench import palette
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Canvas

Numbers = NDArray[np.float64]
Codes = NDArray[np.int64]
Members = NDArray[np.bool_]
Scale = Literal["linear", "log"]
Dash = Literal["", "dash", "dot", "dashdot"]

NO_DATA = "No data yet"
UNKNOWN = "not known"
"""The name of group code -1, drawn in the muted colour."""
SHAPES = ("circle", "triangle", "square", "diamond", "cross", "inverted")
_DASHES = ("", "dash", "dot", "dashdot")
_PADDING = 0.04
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class FigureError(WorkbenchError):
    """A figure whose parts do not fit together, or a stored one that cannot be read."""


@dataclass(frozen=True)
class LivePayload:
    """What the live figure takes: `spec`, and columns of numbers in one binary buffer."""

    spec: dict[str, Any]
    columns: dict[str, dict[str, Any]]
    buffer: bytes


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        label: What it measures.
        unit: In which unit.
        scale: On a "log" axis values of 0 and less are not drawn.
        range: Lowest and highest value shown; None leaves an end to the data.
        names: Names of the places 1, 2, 3, ... where the axis lists groups.
    """

    label: str
    unit: str = ""
    scale: Scale = "linear"
    range: tuple[float | None, float | None] | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse an unknown scale or a range that is none."""
        _text_fields(self, "label", "unit")
        if self.scale not in ("linear", "log"):
            raise FigureError(f"axis scale is {self.scale!r}; use 'linear' or 'log'")
        object.__setattr__(self, "names", _texts("names", self.names))
        if self.range is not None:
            object.__setattr__(self, "range", _range(self.range))

    @property
    def title(self) -> str:
        """Label and unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def shown(self, values: Numbers) -> Numbers:
        """The values that can be drawn on this axis, NaN in place of the others."""
        drawn = np.isfinite(values) & ((values > 0) | (self.scale == "linear"))
        return np.where(drawn, values, np.nan)


@dataclass(frozen=True, eq=False)
class Detail:
    """One more value of every point, for the tooltip and the table."""

    label: str
    values: Numbers
    unit: str = ""

    def __post_init__(self) -> None:
        """Make the values an array of float64."""
        _text_fields(self, "label", "unit")
        _arrays(self, "values")

    @property
    def title(self) -> str:
        """Label and unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """What all layers share.

    Attributes:
        group: Code of each mark, an index into `labels`, or -1 for not known.
        labels: Names of the groups.
        colours: A palette token for each group (or one for all); by default the series in order.
        name: Name of the whole layer in the legend, empty for none.
        opacity: In [0, 1]; None leaves it to the renderer.
    """

    kind: ClassVar[str] = ""
    axes: ClassVar[dict[str, str]] = {}
    """Column to the axis that it lies on."""

    group: Codes | None = None
    labels: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    name: str = ""
    opacity: float | None = None

    def __post_init__(self) -> None:
        """Make arrays of the columns and check that they fit together."""
        _text_fields(self, "name")
        _arrays(self, *self.axes)
        object.__setattr__(self, "labels", _texts("labels", self.labels))
        object.__setattr__(self, "colours", _texts("colours", self.colours))
        _integers(self, "group")
        _check_layer(self)

    @property
    def columns(self) -> dict[str, Numbers]:
        """The columns that are given, by name."""
        found = {name: getattr(self, name) for name in self.axes}
        return {name: values for name, values in found.items() if values is not None}

    def __len__(self) -> int:
        return max((len(values) for values in self.columns.values()), default=0)

    def token(self, code: int) -> str:
        """The colour token of a group."""
        if code < 0:
            return "muted"
        tokens = self.colours or palette.SERIES
        return tokens[code % len(tokens)]

    def parts(self) -> Iterator[tuple[int, str, Members]]:
        """Code, legend label and members of each group that has any; one part without groups."""
        if self.group is None:
            yield 0, self.name, np.ones(len(self), dtype=bool)
            return
        codes = np.unique(self.group).tolist()
        for code in sorted(codes, key=lambda code: (code < 0, code)):
            yield code, self.label(code), self.group == code

    def label(self, code: int) -> str:
        """The name of a group."""
        return self.labels[code] if code >= 0 else UNKNOWN


@dataclass(frozen=True, eq=False, kw_only=True)
class Points(Layer):
    """Points, which a reader can pick.

    Attributes:
        x: Places, shape (points,); `y` alike. NaN where a point has none.
        rows: Place of each point's pair in the preference set, shape (points,).
        also: Further pairs that a point stands for, as (rows, points), each of shape (more,).
        details: More values of each point.
        size: Diameter in pixels.
    """

    kind: ClassVar[str] = "points"
    axes: ClassVar[dict[str, str]] = {"x": "x", "y": "y"}

    x: Numbers
    y: Numbers
    rows: Codes | None = None
    also: tuple[Codes, Codes] | None = None
    details: tuple[Detail, ...] = ()
    size: float = 6.0

    def __post_init__(self) -> None:
        """Make arrays of the columns and check that they fit together."""
        super().__post_init__()
        _integers(self, "rows")
        object.__setattr__(self, "details", tuple(self.details))
        if self.also is not None:
            object.__setattr__(self, "also", tuple(_whole("also", part) for part in self.also))
        given = {"rows": self.rows} | {each.label: each.values for each in self.details}
        for name, values in given.items():
            if values is not None and len(values) != len(self.x):
                raise FigureError(f"{name} has {len(values)} values for {len(self.x)} points")

    def point_of(self, row: int) -> int | None:
        """The point that stands for a row of the preference set."""
        if self.rows is None:
            return None
        found = np.flatnonzero(self.rows == row)
        if not len(found) and self.also is not None:
            found = self.also[1][self.also[0] == row]
        return int(found[0]) if len(found) else None


@dataclass(frozen=True, eq=False, kw_only=True)
class Line(Layer):
    """A line through `x` and `y`, broken at NaN and where the group changes; `width` in pixels."""

    kind: ClassVar[str] = "line"
    axes: ClassVar[dict[str, str]] = {"x": "x", "y": "y"}

    x: Numbers
    y: Numbers
    width: float = 2.0
    dash: Dash = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Bars(Layer):
    """Bars from `x0` to `x1`, of `height`, standing on `y0` (0 where it is None)."""

    kind: ClassVar[str] = "bars"
    axes: ClassVar[dict[str, str]] = {"x0": "x", "x1": "x", "height": "y", "y0": "y"}

    x0: Numbers
    x1: Numbers
    height: Numbers
    y0: Numbers | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Band(Layer):
    """The area between `y0` and `y1` over `x`."""

    kind: ClassVar[str] = "band"
    axes: ClassVar[dict[str, str]] = {"x": "x", "y0": "y", "y1": "y"}

    x: Numbers
    y0: Numbers
    y1: Numbers


@dataclass(frozen=True, eq=False, kw_only=True)
class Rule(Layer):
    """A straight rule across the figure at one value of one axis.

    Attributes:
        at: The value; `along` says of which axis.
        include: Whether the axis must be wide enough to show it.
    """

    kind: ClassVar[str] = "rule"

    at: float
    along: Literal["x", "y"] = "x"
    width: float = 1.5
    dash: Dash = ""
    include: bool = False

    @property
    def columns(self) -> dict[str, Numbers]:
        """The value, as a column."""
        return {self.along: np.array([self.at], dtype=np.float64)}

    def __len__(self) -> int:
        return 1


_KINDS: dict[str, type[Layer]] = {each.kind: each for each in (Points, Line, Bars, Band, Rule)}


@dataclass(frozen=True, eq=False)
class Figure:
    """A title, two axes and layers that are drawn in their order.

    Attributes:
        note: What the reader should know beside the title: sizes, summary values, what is left
            out. Shown as subtitle.
        empty: What to say where there is nothing to draw.
    """

    title: str
    x: Axis
    y: Axis
    layers: tuple[Layer, ...] = ()
    empty: str = NO_DATA
    note: str = ""

    def __post_init__(self) -> None:
        """Make a tuple of the layers."""
        _text_fields(self, "title", "empty", "note")
        object.__setattr__(self, "layers", tuple(self.layers))

    @classmethod
    def blank(cls, empty: str = NO_DATA, title: str = "") -> "Figure":
        """A figure with nothing in it yet."""
        return cls(title, Axis("x"), Axis("y"), empty=empty)

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing to draw."""
        return self.domain("x") is None or self.domain("y") is None

    def axis(self, name: str) -> Axis:
        """The axis "x" or "y"."""
        return self.x if name == "x" else self.y

    def domain(self, name: str) -> tuple[float, float] | None:
        """What an axis shows, in powers of ten on a log axis; None where no value can be drawn.

        The rule is the live figure's, so that a file shows what the page showed.
        """
        axis = self.axis(name)
        found = [axis.shown(values) for values in self._extents(name)]
        values = np.concatenate(found) if found else np.empty(0)
        values = values[~np.isnan(values)]
        if not len(values):
            return None
        ends = (float(values.min()), float(values.max()))
        low, high = (math.log10(end) for end in ends) if axis.scale == "log" else ends
        bars = any(isinstance(layer, Bars) for layer in self.layers)
        return _fixed(axis, _padded(low, high, keep_low=name == "y" and low == 0 and bars))

    def row_at(self, layer: int, index: int) -> int | None:
        """The row of the preference set that a picked mark stands for, None where for none."""
        found = self.layers[layer] if 0 <= layer < len(self.layers) else None
        if not isinstance(found, Points) or found.rows is None:
            return None
        return int(found.rows[index]) if 0 <= index < len(found.rows) else None

    def point_of(self, row: int) -> int | None:
        """The point to mark for a selected row, None where it has none."""
        places = (each.point_of(row) for each in self.layers if isinstance(each, Points))
        return next((place for place in places if place is not None), None)

    def to_live(self) -> LivePayload:
        """The specification and binary columns of the live figure."""
        numbers: dict[str, Any] = {}
        selectable = any(isinstance(each, Points) and each.rows is not None for each in self.layers)
        spec = {
            "title": plain(self.title),
            "subtitle": plain(self.note),
            "axes": {"x": _live_axis(self.x), "y": _live_axis(self.y)},
            "layers": [
                _live_layer(layer, place, selectable, numbers)
                for place, layer in enumerate(self.layers)
            ],
            "empty": plain(self.empty),
        }
        packed = pack_columns(numbers)
        return LivePayload(spec, packed.columns, packed.buffer)

    def to_plotly(self, dark: bool = False) -> Any:  # noqa: ANN401 - plotly has no types
        """The figure as a `plotly.graph_objects.Figure`."""
        from workbench.views.draw_plotly import plotly_figure

        return plotly_figure(self, dark)

    def to_matplotlib(self, dark: bool = False) -> "Canvas":
        """The figure as a `matplotlib.figure.Figure`, for use inside `draw_matplotlib.style`."""
        from workbench.views.draw_matplotlib import matplotlib_figure

        return matplotlib_figure(self, dark)

    def table(self) -> "pd.DataFrame":
        """All numbers of the figure, one mark a row, the layers below one another."""
        import pandas as pd

        frames = [_layer_frame(self, layer) for layer in self.layers]
        filled = [frame for frame in frames if len(frame)]
        if not filled:
            return pd.DataFrame(columns=["layer", "group", "row"])
        return pd.concat(filled, ignore_index=True)

    def to_json(self) -> str:
        """The figure as JSON text; numbers come back bit for bit."""
        layers = [{"kind": each.kind} | _encoded(each) for each in self.layers]
        return json.dumps(_encoded(self) | {"layers": layers}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Figure":
        """Read back `to_json`.

        Raises:
            FigureError: the text is not JSON, or not that of a figure.
        """
        try:
            return _decoded_figure(json.loads(text))
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
            raise FigureError(f"this is not a figure of the workbench: {error}") from error

    def _extents(self, name: str) -> Iterator[Numbers]:
        for layer in self.layers:
            if isinstance(layer, Rule):
                if layer.include and layer.along == name:
                    yield layer.columns[name]
                continue
            for column, axis in layer.axes.items():
                if axis == name and column in layer.columns:
                    yield layer.columns[column]
            if isinstance(layer, Bars) and name == "y" and len(layer):
                yield layer.height + layer.y0 if layer.y0 is not None else np.zeros(1)


def plain(text: str, limit: int = 2000) -> str:
    """A text without control characters and lone surrogates, cut after `limit` characters."""
    cut = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return _CONTROL.sub("\ufffd", cut)


def shapes(layer: Layer) -> bool:
    """Whether the groups of a layer have shapes of their own."""
    return 2 <= len(layer.labels) <= len(SHAPES)


# ------------------------------------------------------------------ the live figure


def _live_axis(axis: Axis) -> dict[str, Any]:
    found: dict[str, Any] = {
        "label": plain(axis.label),
        "unit": plain(axis.unit),
        "scale": axis.scale,
        "range": None if axis.range is None else list(axis.range),
    }
    if axis.names:
        found["names"] = [plain(name) for name in axis.names]
    return found


def _live_layer(
    layer: Layer, place: int, selectable: bool, numbers: dict[str, Any]
) -> dict[str, Any]:
    """The layer's part of the specification; its columns are added to `numbers`."""
    spec: dict[str, Any] = {"kind": layer.kind, "name": plain(layer.name)}
    for name, values in layer.columns.items():
        numbers[f"{place}.{name}"] = values
        spec[name] = f"{place}.{name}"
    if layer.group is not None:
        numbers[f"{place}.group"] = layer.group
        spec |= {"group": f"{place}.group", "labels": [plain(each) for each in layer.labels]}
    count = max(len(layer.labels), 1)
    if layer.colours or layer.kind != "rule":
        spec["colours"] = [palette.both(layer.token(code)) for code in range(count)]
    style = {name: getattr(layer, name, None) for name in _STYLE}
    spec |= {name: value for name, value in style.items() if value not in (None, "")}
    if isinstance(layer, Points):
        spec |= {"pickable": layer.rows is not None or not selectable}
        if layer.details:
            spec["tooltip"] = _tooltip(layer, place, numbers)
    return spec


_STYLE = ("opacity", "size", "width", "dash", "include")


def _tooltip(layer: Points, place: int, numbers: dict[str, Any]) -> list[dict[str, str]]:
    lines = []
    for at, each in enumerate(layer.details):
        numbers[f"{place}.detail{at}"] = each.values
        lines.append(
            {
                "label": plain(each.label),
                "column": f"{place}.detail{at}",
                "unit": plain(each.unit),
            }
        )
    return lines


# ------------------------------------------------------------------ the table


def _layer_frame(figure: Figure, layer: Layer) -> "pd.DataFrame":
    import pandas as pd

    count = len(layer)
    columns: dict[str, Any] = {"layer": np.full(count, plain(layer.name or layer.kind), object)}
    names = np.array([*(plain(label) for label in layer.labels), UNKNOWN], dtype=object)
    columns["group"] = np.full(count, "", object) if layer.group is None else names[layer.group]
    rows = layer.rows if isinstance(layer, Points) else None
    columns["row"] = pd.array([None] * count if rows is None else rows, dtype="Int64")
    for name, values in layer.columns.items():
        columns[_column_title(figure, layer, name)] = values
    for each in layer.details if isinstance(layer, Points) else ():
        title = plain(each.title)
        while title in columns:
            title += " ′"
        columns[title] = each.values
    return pd.DataFrame(columns)


_ENDS = {"x0": " from", "x1": " to", "y0": " from", "y1": " to"}


def _column_title(figure: Figure, layer: Layer, name: str) -> str:
    axis = layer.axes.get(name, name)
    same = figure.x.title == figure.y.title
    mark = f" [{axis}]" if same or figure.axis(axis).title in ("layer", "group", "row") else ""
    return f"{plain(figure.axis(axis).title)}{mark}{_ENDS.get(name, '')}"


# ------------------------------------------------------------------ ranges


def _padded(low: float, high: float, keep_low: bool) -> tuple[float, float]:
    span = high - low
    if span <= abs(high) * 1e-12:
        half = abs(high) * 0.1 or 0.5
        return low - half, high + half
    return (low if keep_low else low - _PADDING * span), high + _PADDING * span


def _fixed(axis: Axis, domain: tuple[float, float]) -> tuple[float, float]:
    """The domain with the ends that the axis prescribes."""
    ends = axis.range or (None, None)
    if axis.scale == "log":
        ends = tuple(math.log10(end) if end and end > 0 else None for end in ends)  # type: ignore[assignment]
    low, high = (own if end is None else end for own, end in zip(domain, ends, strict=True))
    return (low, high) if high > low else _padded(low, low, keep_low=False)


def _range(given: object) -> tuple[float | None, float | None]:
    ends = tuple(given) if isinstance(given, tuple | list) else ()
    if len(ends) != 2 or not all(end is None or _is_finite(end) for end in ends):
        raise FigureError(f"axis range is {given!r}; give two numbers, or None for an end")
    return tuple(None if end is None else float(end) for end in ends)  # type: ignore[return-value]


def _is_finite(value: object) -> bool:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return number and math.isfinite(value)  # type: ignore[arg-type]


# ------------------------------------------------------------------ checks


def _text_fields(owner: object, *names: str) -> None:
    for name in names:
        if not isinstance(getattr(owner, name), str):
            raise FigureError(f"{name} is {getattr(owner, name)!r}; give a text")


def _texts(name: str, given: object) -> tuple[str, ...]:
    if not isinstance(given, tuple | list) or not all(isinstance(each, str) for each in given):
        raise FigureError(f"{name} must be a sequence of texts, not {str(given)[:80]}")
    return tuple(given)


def _arrays(owner: object, *names: str) -> None:
    for name in names:
        values = getattr(owner, name)
        if values is None and name == "y0":
            continue
        array = np.asarray(values, dtype=np.float64)
        if array.ndim != 1:
            raise FigureError(f"{name} has shape {array.shape}; give one value a mark")
        object.__setattr__(owner, name, array)


def _integers(owner: object, name: str) -> None:
    values = getattr(owner, name)
    if values is not None:
        object.__setattr__(owner, name, _whole(name, values))


def _whole(name: str, values: object) -> Codes:
    array = np.asarray(values)
    if array.ndim != 1 or (len(array) and array.dtype.kind not in "iu"):
        raise FigureError(f"{name} must be whole numbers, one a mark")
    return array.astype(np.int64)


def _check_layer(layer: Layer) -> None:
    lengths = {name: len(values) for name, values in layer.columns.items()}
    if layer.group is not None:
        lengths["group"] = len(layer.group)
        if len(layer.group) and not -1 <= layer.group.min() <= layer.group.max() < len(
            layer.labels
        ):
            raise FigureError("a group code has no label")
    if len(set(lengths.values())) > 1:
        raise FigureError(f"the columns of a layer differ in length: {lengths}")
    unknown = set(layer.colours) - palette.TOKENS
    if unknown:
        raise FigureError(f"{sorted(unknown)[0][:80]!r} is not a colour token")
    if getattr(layer, "dash", "") not in _DASHES:
        raise FigureError(f"dash must be one of {', '.join(_DASHES[1:])}, or empty")
    if getattr(layer, "along", "x") not in ("x", "y"):
        raise FigureError("a rule lies along 'x' or 'y'")
    for name in ("opacity", "size", "width", "at"):
        value = getattr(layer, name, None)
        if value is not None and not (_is_finite(value) or name == "at"):
            raise FigureError(f"{name} is {value!r}; give a number")


# ------------------------------------------------------------------ JSON


def _encoded(owner: Any) -> dict[str, Any]:  # noqa: ANN401 - any of the dataclasses above
    return {each.name: _value(getattr(owner, each.name)) for each in fields(owner)}


def _value(value: object) -> object:
    if isinstance(value, np.ndarray):
        return _array_value(value)
    if isinstance(value, Axis | Detail):
        return _encoded(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, tuple):
        return [_value(each) for each in value if not isinstance(each, Layer)]
    return value


def _array_value(array: NDArray[Any]) -> list[Any]:
    if array.dtype.kind != "f" or np.isfinite(array).all():
        found: list[Any] = array.tolist()
        return found
    return [each if math.isfinite(each) else str(each) for each in array.tolist()]


def _decoded_figure(found: Mapping[str, Any]) -> Figure:
    known = dict(found)
    layers = tuple(_decoded_layer(dict(each)) for each in known.pop("layers"))
    x, y = _decoded_axis(known.pop("x")), _decoded_axis(known.pop("y"))
    return Figure(x=x, y=y, layers=layers, **known)


def _decoded_axis(found: Mapping[str, Any]) -> Axis:
    known = dict(found)
    known["names"] = tuple(known.get("names", ()))
    return Axis(**known)


def _decoded_layer(found: dict[str, Any]) -> Layer:
    kind = _KINDS[found.pop("kind")]
    readers: dict[str, Callable[[Any], Any]] = {
        "group": _read_codes,
        "rows": _read_codes,
        "at": float,
        "also": lambda pair: (_read_codes(pair[0]), _read_codes(pair[1])),
        "details": lambda parts: tuple(
            Detail(each["label"], _read_numbers(each["values"]), each["unit"]) for each in parts
        ),
    }
    readers |= dict.fromkeys(kind.axes, _read_numbers)
    for name, value in found.items():
        if value is not None and name in readers:
            found[name] = readers[name](value)
    return kind(**found)


def _read_numbers(values: list[Any]) -> Numbers:
    return np.array([float(each) for each in values], dtype=np.float64)


def _read_codes(values: list[Any]) -> Codes:
    if any(type(each) is not int for each in values):
        raise FigureError("a code that is not a whole number")
    return np.array(values, dtype=np.int64)

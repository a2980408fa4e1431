"""Parts that live views are made of: figures with a shared selection, controls, small lists."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
from workbench_widgets import LiveFigure

from workbench.bench.view import notes_html
from workbench.views.choices import BETAS
from workbench.views.figure import Figure, LivePayload

if TYPE_CHECKING:
    from workbench.bench.bench import Bench

NO_GROUPS = "no groups"
_STYLE = {"description_width": "initial"}


class Plot:
    """A live figure whose points select pairs.

    Args:
        bench: Whose selection it shares.
        make: Draws it from the bench as it is.
        height: Pixels.
    """

    def __init__(self, bench: "Bench", make: Callable[[], Figure], height: int = 300) -> None:
        self._bench, self._make = bench, make
        self.figure = Figure.blank()
        self._sent: LivePayload | None = None
        self.live = LiveFigure(height=height)
        self.live.layout = widgets.Layout(flex="1 1 360px", min_width="0", margin="4px")
        self.live.observe(self._picked, "selection")

    def refresh(self) -> None:
        """Draw again; what is the same is not sent again."""
        self.figure = self._make()
        live = self.figure.to_live()
        if live == self._sent:
            self.live.selected = self._marked()
            return
        self._sent = live
        self.live.update(live.spec, live.columns, live.buffer, selected=self._marked())

    def _marked(self) -> int:
        row = self._bench.selected_row
        place = None if row is None else self.figure.point_of(row)
        return -1 if place is None else place

    def _picked(self, change: Any) -> None:  # noqa: ANN401 - traitlets is untyped
        picked = change["new"]
        with self._bench.lock:
            if picked.get("generation") != self.live.generation:
                return
            row = self.figure.row_at(int(picked.get("layer", 0)), int(picked["index"]))
            pairs = self._bench.session.snapshot().pairs.pairs
        if row is not None and row < len(pairs):
            pair_id = pairs[row].pair_id
            self._bench.attempt(lambda: setattr(self._bench, "selected", pair_id))


def side_by_side(*parts: Any) -> Any:  # noqa: ANN401 - ipywidgets has no types
    """Parts that share the width, below one another where it is narrow."""
    return widgets.HBox(parts, layout={"flex_flow": "row wrap", "width": "100%"})


def tools(*parts: Any) -> Any:  # noqa: ANN401
    """Controls in a line that wraps."""
    layout = {"flex_flow": "row wrap", "align_items": "center", "width": "100%"}
    return widgets.HBox(parts, layout=layout)


def beta_slider(bench: "Bench") -> Any:  # noqa: ANN401
    """The slider of beta, bound to the bench both ways."""
    slider = widgets.SelectionSlider(
        options=_with(BETAS, bench.beta), value=bench.beta, description="β",
        tooltip="Scale of the implicit reward β·log(π/π_ref). Dragging it calls no model.",
        layout={"width": "300px"}, style=_STYLE,
    )  # fmt: skip
    return bound(bench, "beta", slider)


def switch(bench: "Bench", setting: str, label: str, about: str = "") -> Any:  # noqa: ANN401
    """A checkbox for a setting."""
    box = widgets.Checkbox(
        value=getattr(bench.settings, setting), description=label, tooltip=about, indent=False,
        layout={"width": "auto", "margin": "2px 12px"},
    )  # fmt: skip
    return bound(bench, setting, box)


def choice(
    bench: "Bench", setting: str, label: str, options: Mapping[str, str] | Sequence[str]
) -> Any:  # noqa: ANN401
    """A list of choices for a setting."""
    shown = list(options.items()) if isinstance(options, Mapping) else list(options)
    value = getattr(bench.settings, setting)
    return bound(bench, setting, dropdown(label, shown, value))


def dropdown(label: str, options: Sequence[Any], value: object) -> Any:  # noqa: ANN401
    """A list of choices whose label is shown in full."""
    return widgets.Dropdown(
        options=options, value=value, description=label, style=_STYLE,
        layout={"width": "auto", "max_width": "340px"},
    )  # fmt: skip


def bound(bench: "Bench", setting: str, widget: Any) -> Any:  # noqa: ANN401
    """Bind a control to a setting both ways; a value that it does not offer is added."""

    def follow(change: Any) -> None:  # noqa: ANN401 - traitlets is untyped
        value = getattr(change["new"], setting)
        if widget.value != value:
            if isinstance(widget, widgets.SelectionSlider):
                widget.options = _with(widget.options, value)
            widget.value = value

    def lead(change: Any) -> None:  # noqa: ANN401
        value = change["new"]
        if getattr(bench.settings, setting) != value:
            bench.attempt(lambda: bench.change(**{setting: value}))

    widget.observe(lead, "value")
    bench.observe(follow, "settings")
    return widget


def grouping(bench: "Bench") -> Any:  # noqa: ANN401
    """The choice of the attribute that colours the figures, shared by all views."""
    names = [NO_GROUPS, *bench.data.attribute_names()]
    shown = bench.group_by if bench.group_by in names else NO_GROUPS
    box = dropdown("group by", names, shown)

    def follow(change: Any) -> None:  # noqa: ANN401
        wanted = change["new"] or NO_GROUPS
        if wanted in box.options:
            box.value = wanted

    def lead(change: Any) -> None:  # noqa: ANN401
        bench.group_by = "" if change["new"] == NO_GROUPS else change["new"]

    box.observe(lead, "value")
    bench.observe(follow, "group_by")
    return box


def offer(box: Any, options: Sequence[Any], value: object = None) -> None:  # noqa: ANN401
    """Let a list offer other options; the value stays where it is among them."""
    if tuple(box.options) == tuple(options):
        return
    kept = box.value
    wanted = kept if kept in options else value
    box.options = options
    if wanted is not None and wanted in options:
        box.value = wanted


def words(text: str = "") -> Any:  # noqa: ANN401
    """A line of words, shown as text."""
    return widgets.HTML(notes_html(text))


def _with(options: Sequence[float], value: float) -> list[float]:
    return sorted({*options, value})

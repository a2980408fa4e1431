"""The widgets of `workbench_widgets` as Panel components, reading the same files.

What the reader writes travels at once: the traits named in `_priority_changes` skip Panel's 50 ms
wait, which would also join two quick edits and lose the first.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import param
import workbench_widgets
from panel.custom import AnyWidgetComponent
from workbench_widgets.live_figure.frame import pack_columns
from workbench_widgets.pair_editor import FIRST_QUERY

from workbench.errors import WorkbenchError

_FOLDER = Path(workbench_widgets.__file__).parent
Request = Mapping[str, Any]


def _css(widget: str) -> str:
    """The style as text: a linked file would arrive after the first paint has read its colours."""
    return (_FOLDER / widget / "widget.css").read_text(encoding="utf-8")


class LiveFigure(AnyWidgetComponent):
    """A figure that repaints from binary columns: points, lines, bars, bands and rules."""

    _esm: ClassVar[Path | str] = _FOLDER / "live_figure" / "widget.js"
    _stylesheets: ClassVar[list[str]] = [_css("live_figure")]
    _priority_changes: ClassVar[list[str]] = ["selection", "selected"]

    spec = param.Dict(default={}, doc="What to draw; see widget.js for its fields.")
    columns = param.Dict(default={}, doc="Column name to {dtype, offset, length}.")
    buffer = param.Bytes(default=b"", doc="All columns, little-endian.")
    generation = param.Integer(default=0, doc="Grows with every update.")
    selection = param.Dict(default={}, doc="Written by the reader: {generation, index, layer}.")
    selected = param.Integer(default=-1, doc="The marked row, -1 for none.")
    theme: Any = param.Selector(default="auto", objects=["auto", "light", "dark"])

    def __init__(self, **params: Any) -> None:  # noqa: ANN401 - Panel's parameters
        super().__init__(**{"sizing_mode": "stretch_width", "height": 320, **params})  # type: ignore[no-untyped-call]

    def update(
        self,
        spec: Mapping[str, Any] | None = None,
        columns: Mapping[str, Any] | None = None,
        buffer: bytes | None = None,
        generation: int | None = None,
        selected: int | None = None,
    ) -> None:
        """Show new numbers, a new specification or both, in one message.

        Args:
            spec: What to draw; kept where None.
            columns: Name to array of numbers, or, where `buffer` is given, name to
                {dtype, offset, length}; kept where None.
            buffer: The columns' bytes, where the caller has packed them.
            generation: A number that grows with every update; one more than now where None.
            selected: The row to mark, -1 for none; kept where None.

        Raises:
            ValueError: A column is not a one-dimensional array of numbers.
        """
        if columns is not None and buffer is None:
            packed = pack_columns(columns)
            columns, buffer = packed.columns, packed.buffer
        following = self.generation + 1 if generation is None else generation
        changes: dict[str, Any] = {"generation": following}
        if columns is not None:
            changes |= {"columns": dict(columns), "buffer": buffer}
        if spec is not None:
            changes["spec"] = dict(spec)
        if selected is not None:
            changes["selected"] = selected
        self.param.update(**changes)

    def on_selection(self, act: Callable[[int], None]) -> None:
        """Call `act` with the row that the reader picked, unless its numbers are gone by then."""

        def picked(event: Any) -> None:  # noqa: ANN401 - param's event is untyped
            if event.new.get("generation") == self.generation:
                act(int(event.new["index"]))

        self.param.watch(picked, "selection")


class PairEditor(AnyWidgetComponent):
    """A table of preference pairs that edits by pair id, with an editor of the selected pair."""

    _esm: ClassVar[Path | str] = _FOLDER / "pair_editor" / "widget.js"
    _stylesheets: ClassVar[list[str]] = [_css("pair_editor")]
    _priority_changes: ClassVar[list[str]] = ["query", "edit", "command", "selected", "checked"]

    columns = param.List(
        default=[], doc="{name, title, kind, editable, width, options, help, unit}."
    )
    total = param.Integer(default=0, doc="Pairs in the set.")
    matching = param.Integer(default=0, doc="Pairs that pass the filter.")
    rows = param.List(
        default=[], doc="The window: {pair_id, offset, truncated, was, <field>: value}."
    )
    offset = param.Integer(default=0, doc="Position of the first of `rows`.")
    detail = param.Dict(default={}, doc="The selected pair in full, as a row.")
    query = param.Dict(
        default=FIRST_QUERY, doc="{text, filters, sort, offset, limit}, by the reader."
    )
    edit = param.Dict(default={}, doc="{seq, pair_id, field, value}, by the reader.")
    command = param.Dict(default={}, doc="{seq, name, pair_ids}, by the reader.")
    acknowledged = param.Integer(default=0, doc="The last `seq` that is done or refused.")
    rejected_edit = param.Dict(default={}, doc="{seq, message} of the last refusal.")
    selected = param.String(default="", doc="Pair id, empty for none.")
    checked = param.List(default=[], item_type=str, doc="Pair ids.")
    can_undo = param.Boolean(default=False)
    can_redo = param.Boolean(default=False)
    busy = param.Boolean(default=False)
    theme: Any = param.Selector(default="auto", objects=["auto", "light", "dark"])

    def __init__(self, **params: Any) -> None:  # noqa: ANN401 - Panel's parameters
        super().__init__(**{"sizing_mode": "stretch_width", "height": 620, **params})  # type: ignore[no-untyped-call]

    def show_rows(
        self, rows: list[dict[str, Any]], *, offset: int, matching: int, total: int, **more: object
    ) -> None:
        """Show a window of rows in one message; `more` are further traits (detail, can_undo)."""
        self.param.update(rows=rows, offset=offset, matching=matching, total=total, **more)

    def acknowledge(self, seq: int, refused: str = "") -> None:
        """Say that the edit or command `seq` is done, or why it was refused."""
        # Two messages in this order: the page settles an edit when it sees `acknowledged`.
        if refused:
            self.rejected_edit = {"seq": seq, "message": refused}
        self.acknowledged = seq

    def on_edit(self, act: Callable[[Request], None]) -> None:
        """Call `act` with every edit, then acknowledge it; its WorkbenchError refuses it."""
        self.param.watch(lambda event: self._answer(act, event.new), "edit")

    def on_command(self, act: Callable[[Request], None]) -> None:
        """Call `act` with every command, then acknowledge it; its WorkbenchError refuses it."""
        self.param.watch(lambda event: self._answer(act, event.new), "command")

    def on_query(self, act: Callable[[Request], None]) -> None:
        """Call `act` with {text, filters, sort, offset, limit} whenever other rows are wanted."""
        self.param.watch(lambda event: act(event.new), "query")

    def _answer(self, act: Callable[[Request], None], request: Request) -> None:
        refused = ""
        try:
            act(request)
        except (WorkbenchError, ValueError) as error:
            refused = str(error) or "this change was refused"
        self.acknowledge(int(request["seq"]), refused)


class TokenStrip(AnyWidgetComponent):
    """Tokens of one or more texts, each coloured by a signed score."""

    _esm: ClassVar[Path | str] = _FOLDER / "token_strip" / "widget.js"
    _stylesheets: ClassVar[list[str]] = [_css("token_strip")]
    _priority_changes: ClassVar[list[str]] = ["selected"]

    rows = param.List(default=[], doc="{title, tokens, scores, kinds, total, unit} of each text.")
    scale = param.Number(default=0.0, doc="Score of the fullest colour; 0: the largest shown.")
    selected = param.Dict(default={}, doc="Written by the reader: {row, index}.")
    theme: Any = param.Selector(default="auto", objects=["auto", "light", "dark"])

    def __init__(self, **params: Any) -> None:  # noqa: ANN401 - Panel's parameters
        super().__init__(**{"sizing_mode": "stretch_width", **params})  # type: ignore[no-untyped-call]

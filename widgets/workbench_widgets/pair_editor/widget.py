"""The notebook shell of the pair editor."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from workbench_widgets.pair_editor import FIRST_QUERY

_HERE = Path(__file__).parent


class PairEditor(anywidget.AnyWidget):
    """A table of preference pairs that edits by pair id, with an editor of the selected pair.

    The reader writes `query` (which rows to show), `edit`, `command`, `selected` and `checked`;
    the program answers with `rows`, `total`, `matching` and `acknowledge`. A row is {pair_id,
    offset, <field>: value}; `truncated` names fields that it holds in part (they are edited in
    full, from `detail`), `was` the earlier values of fields that have changed. A column is {name,
    title, kind, editable, width, options, help, unit}; those with options can be filtered.
    """

    _esm = _HERE / "widget.js"
    _css = _HERE / "widget.css"

    columns = traitlets.List(traitlets.Dict()).tag(sync=True)
    total = traitlets.Int(0).tag(sync=True)
    matching = traitlets.Int(0).tag(sync=True)
    rows = traitlets.List(traitlets.Dict()).tag(sync=True)
    offset = traitlets.Int(0).tag(sync=True)
    detail = traitlets.Dict().tag(sync=True)
    query = traitlets.Dict(default_value=FIRST_QUERY).tag(sync=True)
    edit = traitlets.Dict().tag(sync=True)
    command = traitlets.Dict().tag(sync=True)
    acknowledged = traitlets.Int(0).tag(sync=True)
    rejected_edit = traitlets.Dict().tag(sync=True)
    selected = traitlets.Unicode("").tag(sync=True)
    checked = traitlets.List(traitlets.Unicode()).tag(sync=True)
    can_undo = traitlets.Bool(False).tag(sync=True)
    can_redo = traitlets.Bool(False).tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)
    theme = traitlets.Enum(["auto", "light", "dark"], "auto").tag(sync=True)
    height = traitlets.Int(620).tag(sync=True)

    def acknowledge(self, seq: int, refused: str = "") -> None:
        """Say that the edit or command `seq` is done, or why it was refused."""
        # Two messages in this order: the page settles an edit when it sees `acknowledged`.
        if refused:
            self.rejected_edit = {"seq": seq, "message": refused}
        self.acknowledged = seq

    def on_edit(self, act: Callable[[Mapping[str, Any]], None]) -> None:
        """Call `act` with every edit {seq, pair_id, field, value}; a ValueError refuses it."""
        self.observe(lambda change: self._answer(act, change["new"]), names="edit")

    def on_command(self, act: Callable[[Mapping[str, Any]], None]) -> None:
        """Call `act` with every command {seq, name, pair_ids}; a ValueError refuses it."""
        self.observe(lambda change: self._answer(act, change["new"]), names="command")

    def on_query(self, act: Callable[[Mapping[str, Any]], None]) -> None:
        """Call `act` with {text, filters, sort, offset, limit} whenever other rows are wanted."""
        self.observe(lambda change: act(change["new"]), names="query")

    def _answer(self, act: Callable[[Mapping[str, Any]], None], request: dict[str, Any]) -> None:
        refused = ""
        try:
            act(request)
        except ValueError as error:
            refused = str(error) or "this change was refused"
        self.acknowledge(int(request["seq"]), refused)

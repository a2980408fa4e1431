"""The pairs themselves: a table to edit, and below it what changes the set as a whole."""

from collections.abc import Mapping, Sequence
from typing import Any

import panel as pn

from workbench.app.pages.pair_tools import OpenSet, PairTools
from workbench.app.state import PageState
from workbench.data import edits
from workbench.errors import DataError
from workbench.views.pair_commands import bulk_edits, typed
from workbench.views.table import PairTable, Query
from workbench.views.widgets import PairEditor


class PairsPage:
    """The table and what changes it as a whole.

    Args:
        state: The page's state.
        open_set: What to do with an imported set.
    """

    def __init__(self, state: PageState, open_set: OpenSet) -> None:
        self._state = state
        self._table = PairTable(state.tables)
        self._query = Query()
        self.editor = PairEditor(height=640)
        self.editor.on_query(self._asked)
        self.editor.on_edit(self._edited)
        self.editor.on_command(self._commanded)
        self.editor.param.watch(self._selected, "selected")
        self.tools = PairTools(state, open_set)
        self.view = pn.Column(self.editor, self.tools.view, sizing_mode="stretch_width")

    def refresh(self) -> None:
        """Show the window again, with the values as they are now."""
        store = self._state.session.store
        self.editor.param.update(
            columns=self._table.columns(),
            theme=self._state.theme,
            can_undo=store.can_undo,
            can_redo=store.can_redo,
        )
        self._show()
        self.tools.refresh()

    def mark(self) -> None:
        """Another pair was selected."""
        self.editor.param.update(selected=self._state.selected, detail=self._detail())

    def answered(self) -> None:
        """This page asks no slow questions."""

    def _show(self) -> None:
        settings = self._state.settings
        matching = self._table.matching(self._query, settings)
        self.editor.show_rows(
            self._table.window(self._query, settings),
            offset=self._query.offset,
            matching=len(matching),
            total=len(self._state.tables.snapshot.pairs),
            selected=self._state.selected,
            detail=self._detail(),
        )

    def _detail(self) -> dict[str, Any]:
        row = self._state.selected_row
        return {} if row is None else self._table.detail(row, self._state.settings)

    def _selected(self, event: Any) -> None:  # noqa: ANN401 - param's event is untyped
        self._state.selected = event.new

    def _asked(self, raw: Mapping[str, Any]) -> None:
        self._query = Query.read(raw)
        self._show()

    def _edited(self, request: Mapping[str, Any]) -> None:
        pair_id, field = str(request["pair_id"]), str(request["field"])
        value = typed(self._state.tables.snapshot.pairs, field, request.get("value"))
        self._apply([edits.SetField(pair_id, field, value)], f"Edit {field}")

    def _commanded(self, request: Mapping[str, Any]) -> None:
        name = str(request["name"])
        if name in ("undo", "redo"):
            getattr(self._state.session, name)()
        elif name in ("check_all", "check_none"):
            self._check(every=name == "check_all")
        else:
            self._bulk(name, [str(pair_id) for pair_id in request.get("pair_ids") or []])
        self._state.poll()

    def _check(self, every: bool) -> None:
        pairs = self._state.tables.snapshot.pairs.pairs
        found = self._table.matching(self._query, self._state.settings) if every else []
        self.editor.checked = [pairs[place].pair_id for place in found]

    def _bulk(self, name: str, pair_ids: Sequence[str]) -> None:
        pairs = self._state.tables.snapshot.pairs
        known = [pairs[pair_id] for pair_id in pair_ids if pair_id in pairs]
        made = bulk_edits(name, known, pairs)
        if not made:
            raise DataError("No pair is selected; click a row or check some first.")
        self._apply(made, edits.describe(made))
        added = [edit.pair.pair_id for edit in made if isinstance(edit, edits.AddPair)]
        if added:
            self._state.selected = added[0]

    def _apply(self, made: Sequence[edits.Edit], label: str) -> None:
        self._state.session.apply(made, label)
        self._state.poll()

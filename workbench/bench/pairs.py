"""The pairs in a notebook: a table to edit in place, with undo and redo."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from workbench_widgets import PairEditor

from workbench.bench.parts import beta_slider, tools
from workbench.bench.view import BenchView
from workbench.data import edits
from workbench.errors import DataError, WorkbenchError
from workbench.views import figures
from workbench.views.figure import Figure
from workbench.views.listings import shortened
from workbench.views.markup import number, table_html
from workbench.views.pair_commands import bulk_edits, typed
from workbench.views.table import LIVE, PairTable, Query

if TYPE_CHECKING:
    import pandas as pd

    from workbench.bench.bench import Bench

_LISTED = 20
_CHARS = 90
_HEIGHT = 520
Request = Mapping[str, Any]


class PairsView(BenchView):
    """The pairs with what the models make of each."""

    title: ClassVar[str] = "Pairs"

    def __init__(self, bench: "Bench") -> None:
        super().__init__(bench)
        self._table = PairTable(bench.tables)

    def frame(self) -> "pd.DataFrame":
        """One row a pair, indexed by its id: texts, evidence, attributes and live values.

        Live values (margin, rewards, loss, c and whether it is ranked right) are NaN where a pair
        is not scored.
        """
        with self.bench.lock:
            frame = self.bench.tables.snapshot.pairs.to_frame().set_index("pair_id")
            for name, values in self.tensors().items():
                frame[name] = values.numpy()
        return frame

    def tensors(self) -> dict[str, torch.Tensor]:
        """The live values of every pair, shape (pairs,), NaN where not scored."""
        with self.bench.lock:
            tables, settings = self.bench.tables, self.bench.settings
            found = {}
            for column in LIVE:
                rows, values = column.values(tables, settings)
                whole = torch.full((len(tables.snapshot.pairs),), torch.nan, dtype=torch.float64)
                whole[rows] = values.double()
                found[column.name] = whole
        return found

    def drawings(self) -> dict[str, Figure]:
        """The distribution of the margins."""
        table = self.bench.tables.rewards(self.bench.settings)
        return {"Reward margins": figures.margin_histogram(table)}

    def listing(self) -> str:
        """The first pairs."""
        settings = self.bench.settings
        rows = self._table.window(Query(limit=_LISTED), settings)
        total = len(self.bench.tables.snapshot.pairs)
        more = [f"… and {total - len(rows)} more pairs"] if total > len(rows) else []
        head = ["Pair", "Prompt", "Chosen", "Rejected", "Margin", "Ranked"]
        table = table_html(head, [_cells(row) for row in rows], more)
        return f"<div class='texts'>{table}</div>"

    # The live view

    def _body(self) -> list[Any]:
        self.editor = PairEditor(height=_HEIGHT)
        self.editor.on_query(lambda request: self._show())
        self.editor.on_edit(self._refusing(self._edited))
        self.editor.on_command(self._refusing(self._commanded))
        self.editor.observe(lambda change: self._picked(change["new"]), "selected")
        return [tools(beta_slider(self.bench)), self.editor]

    def _refresh(self) -> None:
        store = self.bench.session.store
        self._show(
            columns=self._table.columns(), can_undo=store.can_undo, can_redo=store.can_redo,
            selected=self.bench.selected,
        )  # fmt: skip

    def _show(self, **more: object) -> None:
        """The window that the table asked for, in one message."""
        bench, editor = self.bench, self.editor
        with bench.lock:
            query, settings = Query.read(editor.query), bench.settings
            matching = self._table.matching(query, settings)
            row = bench.selected_row
            shown = {
                "rows": self._table.window(query, settings),
                "offset": query.offset,
                "matching": len(matching),
                "total": len(bench.tables.snapshot.pairs),
                "detail": {} if row is None else self._table.detail(row, settings),
                **more,
            }
            with editor.hold_sync():
                for name, value in shown.items():
                    if getattr(editor, name) != value:
                        setattr(editor, name, value)

    def _picked(self, pair_id: str) -> None:
        if pair_id != self.bench.selected and pair_id in self.bench.data:
            self.bench.selected = pair_id

    def _refusing(self, act: Callable[[Request], None]) -> Callable[[Request], None]:
        """The editor shows a ValueError beside the field."""

        def attempt(request: Request) -> None:
            try:
                act(request)
            except WorkbenchError as error:
                raise ValueError(str(error)) from error
            # Before it is acknowledged: the page then takes the row's own value again.
            self.paint()

        return attempt

    def _edited(self, request: Request) -> None:
        pair_id, field = str(request["pair_id"]), str(request["field"])
        value = typed(self.bench.data, field, request.get("value"))
        self.bench.apply([edits.SetField(pair_id, field, value)], f"Edit {field}")

    def _commanded(self, request: Request) -> None:
        name = str(request["name"])
        if name in ("undo", "redo"):
            getattr(self.bench, name)()
        elif name in ("check_all", "check_none"):
            self._check(every=name == "check_all")
        else:
            self._bulk(name, [str(pair_id) for pair_id in request.get("pair_ids") or []])

    def _check(self, every: bool) -> None:
        with self.bench.lock:
            pairs = self.bench.tables.snapshot.pairs.pairs
            query = Query.read(self.editor.query)
            found = self._table.matching(query, self.bench.settings) if every else []
            self.editor.checked = [pairs[place].pair_id for place in found]

    def _bulk(self, name: str, pair_ids: Sequence[str]) -> None:
        pairs = self.bench.data
        made = bulk_edits(name, [pairs[each] for each in pair_ids if each in pairs], pairs)
        if not made:
            raise DataError("No pair is selected; click a row or check some first.")
        self.bench.apply(made)
        added = [edit.pair.pair_id for edit in made if isinstance(edit, edits.AddPair)]
        if added:
            self.bench.selected = added[0]


def _cells(row: Mapping[str, Any]) -> list[str]:
    texts = [shortened(str(row[name]), _CHARS) for name in ("prompt", "chosen", "rejected")]
    ranked = {None: "–", 1.0: "right", 0.0: "wrong"}.get(row["correct"], "tied")
    margin = "–" if row["margin"] is None else number(row["margin"], 3)
    return [str(row["pair_id"]), *texts, margin, ranked]

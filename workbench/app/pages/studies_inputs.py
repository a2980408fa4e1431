"""Editors of a study's inputs: a table written in place, a set of pairs taken from Pairs."""

import html
from collections.abc import Callable, Mapping
from typing import Any

import panel as pn
import panel_material_ui as pmui

from workbench.app.pages.studies_parts import Grid
from workbench.app.panes import tools
from workbench.app.state import PageState
from workbench.data.pairs import PreferenceSet
from workbench.errors import WorkbenchError
from workbench.study.base import Study
from workbench.study.context import Input
from workbench.study.inputs import table_from_csv, with_cell
from workbench.study.result import Table
from workbench.views.markup import TABLE_CSS, table_html

_ROWS = 25
_PAIRS = 12
_CHARS = 160
_PAIRS_CSS = """
div { overflow: auto; max-height: 300px; }
th, td { text-align: left; white-space: normal; vertical-align: top; min-width: 14ch; }
"""


class InputEditors:
    """One editor an input; those that were edited take the place of the study's own.

    Args:
        state: The page's state.
        study: Whose inputs they are.
        changed: Called after an edit.
    """

    def __init__(
        self, state: PageState, study: Study[Any, Any], changed: Callable[[], None]
    ) -> None:
        self._editors = {
            name: _editor(state, name, own, changed) for name, own in study.inputs.items()
        }
        self.view = pn.Column(
            *(each.view for each in self._editors.values()), sizing_mode="stretch_width", margin=0
        )

    def edited(self) -> Mapping[str, Input]:
        """The inputs that differ from the study's own, by name."""
        found = {name: each.edited for name, each in self._editors.items()}
        return {name: value for name, value in found.items() if value is not None}

    def dress(self, theme: str) -> None:
        """Take the colours of a theme."""
        for each in self._editors.values():
            each.dress(theme)


class TableEditor:
    """A table of plain columns, cell by cell."""

    def __init__(self, name: str, own: Table, theme: str, changed: Callable[[], None]) -> None:
        self._own = {column: list(values) for column, values in own.items()}
        self._now: Table = self._own
        self._changed = changed
        self._offset = 0
        self.grid = Grid(theme=theme, margin=(4, 10))
        self.grid.param.watch(lambda event: self._asked(event.new), "request")
        self._back = pmui.Button(label="Back to the study's own", size="small", variant="outlined")
        self._back.on_click(lambda event: self._put(self._own))
        self._file = pmui.FileInput(accept=".csv", label="Load a CSV file", size="small")
        self._file.param.watch(lambda event: self._loaded(event.new), "value")
        self.view = pn.Column(
            _heading(name),
            tools(self._file, self._back),
            self.grid,
            sizing_mode="stretch_width",
            margin=0,
        )
        self._show("")

    @property
    def edited(self) -> Table | None:
        """The table, or None where it is as the study gave it."""
        return None if self._now == self._own else self._now

    def dress(self, theme: str) -> None:
        """Take the colours of a theme."""
        self.grid.theme = theme

    def _asked(self, request: Mapping[str, Any]) -> None:
        try:
            if request["name"] == "go":
                self._offset = max(0, min(int(request["offset"]), self._length - 1))
                self._show("")
            else:
                self._put(self._after(request))
        except WorkbenchError as error:
            self._show(str(error))

    def _loaded(self, content: bytes | None) -> None:
        if not content:
            return
        name = (self._file.filename or "the file")[:80]
        try:
            self._offset = 0
            self._put(table_from_csv(content, self._own, name))
        except WorkbenchError as error:
            self._show(str(error))

    def _after(self, request: Mapping[str, Any]) -> Table:
        row = int(request.get("row", 0))
        if request["name"] == "edit":
            return with_cell(self._now, str(request["column"]), row, str(request["text"]))
        if request["name"] == "delete":
            return {name: [*v[:row], *v[row + 1 :]] for name, v in self._now.items()}
        self._offset = max(0, self._length + 1 - _ROWS)
        return {
            name: [*values, values[-1] if values else None] for name, values in self._now.items()
        }

    @property
    def _length(self) -> int:
        return max((len(values) for values in self._now.values()), default=0)

    def _put(self, table: Table) -> None:
        self._now = table
        self._show("")
        self._changed()

    def _show(self, refusal: str) -> None:
        shown = [values[self._offset : self._offset + _ROWS] for values in self._now.values()]
        self._back.disabled = self.edited is None
        self.grid.page = {
            "names": list(self._now), "rows": [list(row) for row in zip(*shown, strict=True)],
            "offset": self._offset, "size": _ROWS, "total": self._length, "refusal": refusal,
        }  # fmt: skip


class PairsEditor:
    """A set of pairs: the study's own, or those of the Pairs page, where they are edited."""

    def __init__(
        self, state: PageState, name: str, own: PreferenceSet, changed: Callable[[], None]
    ) -> None:
        self._state = state
        self._own = own
        self._changed = changed
        self.edited: PreferenceSet | None = None
        take = pmui.Button(
            label="Take the pairs of the Pairs page", size="small", variant="outlined"
        )
        self._back = pmui.Button(label="Back to the study's own", size="small", variant="outlined")
        take.on_click(lambda event: self._put(state.session.store.pairs()))
        self._back.on_click(lambda event: self._put(None))
        self._words = pn.pane.HTML(
            "", stylesheets=[TABLE_CSS, _PAIRS_CSS], sizing_mode="stretch_width", margin=(4, 10)
        )
        self.view = pn.Column(
            _heading(name), tools(take, self._back), self._words, sizing_mode="stretch_width",
            margin=0,
        )  # fmt: skip
        self._show()

    def dress(self, theme: str) -> None:
        """The table has the page's own colours."""

    def _put(self, pairs: PreferenceSet | None) -> None:
        self.edited = None if pairs == self._own else pairs
        self._show()
        self._changed()

    def _show(self) -> None:
        self._back.disabled = self.edited is None
        pairs = self._own if self.edited is None else self.edited
        whose = "the study's own" if self.edited is None else "of the Pairs page"
        rows = [
            [_cut(text) for text in (pair.prompt_text, pair.chosen_text, pair.rejected_text)]
            for pair in pairs.pairs[:_PAIRS]
        ]
        more = f"; the first {_PAIRS} are shown" if len(pairs) > _PAIRS else ""
        notes = [
            f"{len(pairs)} pairs, {whose}{more}. Edit pairs on the Pairs page, then take them."
        ]
        found = table_html(["Prompt", "Chosen", "Rejected"], rows, notes)
        self._words.object = f"<div>{found}</div>"


def _editor(
    state: PageState, name: str, own: Input, changed: Callable[[], None]
) -> TableEditor | PairsEditor:
    if isinstance(own, PreferenceSet):
        return PairsEditor(state, name, own, changed)
    return TableEditor(name, own, state.theme, changed)


def _heading(name: str) -> Any:  # noqa: ANN401 - a Panel component
    return pn.pane.HTML(
        f"<b>Input: {html.escape(name.replace('_', ' '))}</b>", margin=(8, 10, 0, 10)
    )


def _cut(text: str) -> str:
    return text if len(text) <= _CHARS else f"{text[:_CHARS]}…"

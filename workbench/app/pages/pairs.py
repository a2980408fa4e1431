"""The pairs themselves: a table to edit, import and export, label noise, and the history."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import panel as pn
import panel_material_ui as pmui

from workbench.app.panes import table_html, table_pane, text, tools
from workbench.app.server import MAX_UPLOAD_BYTES
from workbench.app.state import PageState
from workbench.data import edits
from workbench.data.formats import Form, import_pairs, write_pairs
from workbench.data.pairs import PreferencePair, PreferenceSet, build_pair
from workbench.errors import DataError
from workbench.views.table import PairTable, Query, columns, full_row
from workbench.views.widgets import PairEditor

OpenSet = Callable[[PreferenceSet], None]
_FORMS = get_args(Form)
_SUFFIXES = ("jsonl", "json", "csv", "parquet")
_HISTORY = 30
_CHARS = 60


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
        self.tools = Tools(state, open_set)
        self.view = pn.Column(self.editor, self.tools.view, sizing_mode="stretch_width")

    def refresh(self) -> None:
        """Show the window again, with the values as they are now."""
        store = self._state.session.store
        self.editor.param.update(
            columns=columns(self._state.tables.snapshot.pairs),
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
        return {} if row is None else full_row(self._state.tables.snapshot.pairs.pairs[row])

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


def bulk_edits(
    name: str, pairs: Sequence[PreferencePair], whole: PreferenceSet
) -> list[edits.Edit]:
    """The edits of a command of the table on some pairs.

    Raises:
        DataError: no such command.
    """
    if name == "add":
        return [new_pair(whole, after=pairs[-1].pair_id if pairs else None)]
    if name == "delete":
        return [edits.DeletePair(pair.pair_id) for pair in pairs]
    if name == "duplicate":
        return edits.duplicate(*pairs, taken=whole)
    if name in ("swap", "flip"):
        return (edits.swap if name == "swap" else edits.flip_label)(*pairs)
    raise DataError(f"There is no command {name[:40]!r}.")


def new_pair(pairs: PreferenceSet, after: str | None) -> edits.AddPair:
    """A pair to be written by the user, in the same prompt as the pair it follows."""
    number = len(pairs) + 1
    while f"new-{number}" in pairs:
        number += 1
    prompt = pairs[after].prompt_text if after else "What should I ask?"
    fields = {"pair_id": f"new-{number}", "prompt": prompt, "chosen": "The better answer.",
              "rejected": "The worse answer."}  # fmt: skip
    return edits.AddPair(build_pair(fields), after)


def typed(pairs: PreferenceSet, field: str, value: object) -> Any:  # noqa: ANN401
    """A value as its field wants it: the browser sends text, and empty means not known."""
    if not isinstance(value, str) or field in ("prompt", "chosen", "rejected"):
        return value
    if not value.strip():
        return None
    numeric = field in ("alpha", "chosen_score", "rejected_score", "strength")
    name = field.removeprefix("attributes.")
    if field.startswith("attributes.") and name in pairs.attribute_names():
        kept = [each for each in pairs.attribute_column(name) if each is not None]
        numeric = bool(kept) and all(
            isinstance(v, int | float) and not isinstance(v, bool) for v in kept
        )
        if kept and all(isinstance(each, bool) for each in kept):
            return {"true": True, "false": False}.get(value.casefold(), value)
    if not numeric:
        return value
    try:
        return float(value)
    except ValueError as error:
        raise DataError(f"{field} is {value[:40]!r}; give a number, or nothing.") from error


class Tools:
    """Import and export, label noise, versions and history, folded away below the table."""

    def __init__(self, state: PageState, open_set: OpenSet) -> None:
        self._state = state
        self._open_set = open_set
        self.upload = pmui.FileInput(
            accept=",".join(f".{s}" for s in _SUFFIXES), label="Import a file"
        )
        self.form = pmui.Select(label="Form", options=list(_FORMS), value=_FORMS[0], size="small")
        self.suffix = pmui.Select(label="File", options=list(_SUFFIXES), size="small")
        self.export = pmui.Button(label="Export", variant="outlined")
        self.share = pmui.FloatSlider(
            label="Share of labels to flip", start=0, end=0.5, step=0.01, value=0.1
        )
        self.seed = pmui.IntInput(label="Seed", value=0, start=0, size="small", width=120)
        self.inject = pmui.Button(label="Inject label noise", variant="outlined")
        self.version = pmui.TextInput(label="Name this version", size="small")
        self.tag = pmui.Button(label="Keep", variant="outlined")
        self.versions = pmui.Select(label="Go back to", options=[], size="small")
        self.restore = pmui.Button(label="Restore", variant="outlined")
        self.history = table_pane()
        self.report = text("")
        self._bind()
        self.view = self._layout()

    def refresh(self) -> None:
        """Show the history as it is."""
        store = self._state.session.store
        names = [tag.name for tag in store.versions()]
        if self.versions.options != names:
            self.versions.options = names
        head = ["Change", "Revision", "When", "What changed"]
        self.history.object = table_html(head, [_change(c) for c in store.history(_HISTORY)])

    def _layout(self) -> Any:  # noqa: ANN401 - a Panel layout
        files = tools(self.upload, self.form, self.suffix, self.export)
        versions = tools(self.version, self.tag, self.versions, self.restore)
        return pmui.Accordion(
            ("Import and export", pn.Column(files, self.report, sizing_mode="stretch_width")),
            ("Label noise", tools(self.share, self.seed, self.inject)),
            (
                "Versions and history",
                pn.Column(versions, self.history, sizing_mode="stretch_width"),
            ),
            active=[],
            title_variant="body1",
            margin=(10, 10),
            sizing_mode="stretch_width",
        )

    def _bind(self) -> None:
        self.upload.param.watch(lambda event: self._imported(), "value")
        self.export.on_click(lambda event: self._state.attempt(self._exported))
        self.inject.on_click(lambda event: self._state.attempt(self._noise))
        self.tag.on_click(lambda event: self._state.attempt(self._tagged))
        self.restore.on_click(lambda event: self._state.attempt(self._restored))

    def _noise(self) -> None:
        pairs = self._state.session.store.pairs()
        made = edits.inject_label_noise(pairs, self.share.value, self.seed.value)
        if made:
            label = f"Flip {self.share.value:.0%} of the labels (seed {self.seed.value})"
            self._state.session.apply(made, label)

    def _tagged(self) -> None:
        self._state.session.store.tag(self.version.value)
        self.version.value = ""
        self.refresh()

    def _restored(self) -> None:
        if self.versions.value:
            self._state.session.restore(self.versions.value)

    def _imported(self) -> None:
        content, name = self.upload.value, self.upload.filename
        if not content or not name:
            return
        if len(content) > MAX_UPLOAD_BYTES:
            self.report.object = f"The file has {len(content) / 1e6:.0f} MB; at most 512 are taken."
            return
        report = self._state.attempt(self._take, content, name)
        if not report:
            self.report.object = "The file was not imported; see the message above."

    def _take(self, content: bytes, name: str) -> None:
        suffix = Path(name).suffix.lower()
        with tempfile.TemporaryDirectory() as folder:
            # The name is the browser's word: only its suffix is used for the file on this machine.
            path = Path(folder) / f"upload{suffix if suffix[1:] in _SUFFIXES else '.unknown'}"
            path.write_bytes(content)
            report = import_pairs(path)
        kept, problems = report.pairs, report.problems
        if problems:
            shown = "; ".join(str(problem) for problem in problems[:3])
            self._state.message = f"{len(problems)} rows were left out: {shown}"
        self._open_set(PreferenceSet(Path(name).stem[:80] or "upload", kept))

    def _exported(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"pairs.{self.suffix.value}"
            write_pairs(self._state.session.store.pairs(), path, form=self.form.value)
            self._state.download(path.name, path.read_bytes())


def _change(change: Any) -> list[str]:  # noqa: ANN401 - a store's Change
    label = change.label + (" (undone)" if change.undone else "")
    first = change.changes[0] if change.changes else None
    shown = (
        ""
        if first is None
        else f"{first.pair_id} {first.field}: {_cut(first.before)} → {_cut(first.after)}"
    )
    more = f" and {len(change.changes) - 1} more" if len(change.changes) > 1 else ""
    return [label, str(change.revision), str(change.time)[:19], shown + more]


def _cut(value: object) -> str:
    words = "" if value is None else str(value)
    return words if len(words) <= _CHARS else words[:_CHARS] + "…"

"""What changes a set as a whole: files in and out, label noise, versions and history."""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import panel as pn
import panel_material_ui as pmui

from workbench.app.panes import table_pane, text, tools
from workbench.app.server import MAX_UPLOAD_BYTES
from workbench.app.state import PageState
from workbench.data import edits
from workbench.data.formats import Form, ImportReport, import_pairs, write_pairs
from workbench.data.pairs import PreferenceSet
from workbench.errors import DataError
from workbench.views.markup import table_html

OpenSet = Callable[[PreferenceSet], None]
_FORMS = get_args(Form)
_SUFFIXES = ("jsonl", "json", "csv", "parquet")
_HISTORY = 30
_PROBLEMS = 8
_CHARS = 60


class PairTools:
    """The tools, folded away below the table."""

    def __init__(self, state: PageState, open_set: OpenSet) -> None:
        self._versions = _Versions(state)
        self.view = pmui.Accordion(
            ("Import and export", _Files(state, open_set).view),
            ("Label noise", _Noise(state).view),
            ("Versions and history", self._versions.view),
            active=[],
            title_variant="body1",
            margin=10,
            sizing_mode="stretch_width",
        )

    def refresh(self) -> None:
        """Show the history as it is."""
        self._versions.refresh()


class _Files:
    """Import of a file as a set of its own, and export in any form."""

    def __init__(self, state: PageState, open_set: OpenSet) -> None:
        self._state = state
        self._open_set = open_set
        self._read: PreferenceSet | None = None
        accepted = ",".join(f".{suffix}" for suffix in _SUFFIXES)
        rules = state.session.rules
        self._most = rules.upload_bytes if rules is not None else MAX_UPLOAD_BYTES
        self._upload = pmui.FileInput(
            accept=accepted, label="Import a file", max_file_size=self._most
        )
        self._form = pmui.Select(label="Form", options=list(_FORMS), value=_FORMS[0], size="small")
        self._suffix = pmui.Select(label="File", options=list(_SUFFIXES), size="small", width=120)
        self._export = pmui.Button(label="Export", variant="outlined")
        self._problems = table_pane()
        self._go_on = pmui.Button(label="Open the good rows", variant="outlined", visible=False)
        self._upload.param.watch(lambda event: self._uploaded(event.new), "value")
        self._go_on.on_click(lambda event: self._open())
        self._export.on_click(state.doing(self._write))
        self.view = pn.Column(
            tools(self._upload, self._form, self._suffix, self._export),
            self._problems,
            self._go_on,
            sizing_mode="stretch_width",
        )

    def _uploaded(self, content: bytes | None) -> None:
        self._problems.object, self._go_on.visible = "", False
        if content:
            self._state.attempt(self._take, content, self._upload.filename or "upload")

    def _take(self, content: bytes, name: str) -> None:
        report = read_upload(content, name, self._most)
        self._read = report.pairs
        if not report.problems:
            self._open()
            return
        first = report.problems[:_PROBLEMS]
        shown = [[str(dataclasses.replace(problem, file=name[:80]))] for problem in first]
        more = len(report.problems) - len(shown)
        notes = [f"… and {more} more"] if more else []
        self._problems.object = table_html([f"Not read from {name[:80]}"], shown, notes)
        count = len(report.pairs)
        self._go_on.param.update(label=f"Open the {count} good rows", visible=bool(count))

    def _open(self) -> None:
        if self._read is not None:
            self._open_set(self._read)

    def _write(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"pairs.{self._suffix.value}"
            write_pairs(self._state.session.store.pairs(), path, form=self._form.value)
            self._state.download(path.name, path.read_bytes())


class _Noise:
    """Flips a share of the labels, seeded and in one step that can be undone."""

    def __init__(self, state: PageState) -> None:
        self._state = state
        self._share = pmui.FloatSlider(
            label="Share of labels to flip", start=0, end=0.5, step=0.01, value=0.1
        )
        self._seed = pmui.IntInput(label="Seed", value=0, start=0, size="small", width=120)
        self._inject = pmui.Button(label="Inject label noise", variant="outlined")
        self._inject.on_click(state.doing(self._flip))
        self.view = tools(self._share, self._seed, self._inject)

    def _flip(self) -> None:
        share, seed = float(self._share.value), int(self._seed.value or 0)
        made = edits.inject_label_noise(self._state.session.store.pairs(), share, seed)
        if made:
            self._state.session.apply(made, f"Flip {share:.0%} of the labels (seed {seed})")


class _Versions:
    """Names for the set as it is, return to a named one, and what was changed when."""

    def __init__(self, state: PageState) -> None:
        self._state = state
        self._name = pmui.TextInput(label="Name this version", size="small")
        self._keep = pmui.Button(label="Keep", variant="outlined")
        self._known = pmui.Select(label="Go back to", options=[], size="small")
        self._restore = pmui.Button(label="Restore", variant="outlined")
        self._history = table_pane()
        self._keep.on_click(state.doing(self._kept))
        self._restore.on_click(state.doing(self._restored))
        self.view = pn.Column(
            tools(self._name, self._keep, self._known, self._restore),
            self._history,
            text("Every change is on the disk when it is shown; undo and redo are changes too."),
            sizing_mode="stretch_width",
        )

    def refresh(self) -> None:
        """Show versions and history as they are."""
        store = self._state.session.store
        names = [tag.name for tag in store.versions()]
        if self._known.options != names:
            self._known.options = names
        head = ["Change", "Revision", "When", "What changed"]
        self._history.object = table_html(head, [_change(c) for c in store.history(_HISTORY)])

    def _kept(self) -> None:
        self._state.session.store.tag(self._name.value)
        self._name.value = ""
        self.refresh()

    def _restored(self) -> None:
        if self._known.value:
            self._state.session.restore(self._known.value)


def read_upload(content: bytes, name: str, most: int = MAX_UPLOAD_BYTES) -> ImportReport:
    """Read an uploaded file; of its name only the suffix is used on this machine.

    Raises:
        DataError: too large, of another kind, or with nothing to read in it.
    """
    if len(content) > most:
        size, allowed = len(content) / 1e6, most / 1e6
        raise DataError(
            f"{name[:80]} has {size:.1f} MB; at most {allowed:.0f} are taken. Take a part of it, "
            "or open it from the command line on your own machine: workbench serve FILE."
        )
    suffix = Path(name).suffix.lower()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"upload{suffix if suffix[1:] in _SUFFIXES else '.unknown'}"
        path.write_bytes(content)
        return import_pairs(path, name=Path(name).stem[:80] or "upload")


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

"""The journalled store of one preference set: every edit kept, undone, compared, named.

The state is the newest checkpoint plus the changes after it. Several threads, connections and
processes may edit one file: an edit is applied to the newest state, whoever made it, so the last
writer wins field by field, and the history shows both.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from workbench.data.edits import (
    Edit,
    FieldChange,
    apply_edits,
    changes_between,
    describe,
    edit_of,
    replay,
)
from workbench.data.journal import DAMAGE, ChangeKind, Entry, Journal, Tag, clean_label, damaged
from workbench.data.pairs import Json, PreferenceSet, shorten
from workbench.errors import DataError

CHECKPOINT_AFTER = 20_000
"""Field changes after which the next opening writes the whole set anew."""

KEPT_VERSIONS = 4
"""Old versions kept in memory after `at`; they share their pairs, so each costs one tuple."""


@dataclass(frozen=True)
class Change:
    """One line of the history.

    Attributes:
        kind: `edit`, `undo` or `redo`; a restored version is an edit.
        time: When it was made, UTC.
        changes: Every field changed, with the values before and after.
        undone: An edit that is not in force now.
    """

    revision: int
    kind: ChangeKind
    label: str
    author: str
    time: datetime
    changes: tuple[FieldChange, ...]
    undone: bool

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The changes as edits."""
        return tuple(edit_of(change) for change in self.changes)


@dataclass(frozen=True)
class _State:
    """A revision: its pairs, and the edits that undo and redo would take, newest last."""

    pairs: PreferenceSet
    revision: int
    undo: tuple[int, ...]
    redo: tuple[int, ...]

    def after(self, entries: Sequence[Entry], pairs: PreferenceSet | None = None) -> "_State":
        """The state after some entries; `pairs` where their result is known already."""
        if pairs is None:
            pairs = replay(self.pairs, (c for entry in entries for c in entry.changes))
        outline = [(entry.revision, entry.kind) for entry in entries]
        undo, redo = _stacks(outline, list(self.undo), list(self.redo))
        revision = entries[-1].revision if entries else self.revision
        return _State(pairs, revision, undo, redo)


class PairStore:
    """A preference set that remembers everything that was ever done to it.

    Make one with `create`, `open` or `in_memory`. All methods may be called from any thread.
    """

    def __init__(self, journal: Journal, path: Path | None) -> None:
        self._journal = journal
        self._path = path
        self._lock = threading.RLock()
        self._touched: dict[int, frozenset[str]] = {}
        self._versions: OrderedDict[int, PreferenceSet] = OrderedDict()
        self._base_revision, pairs = journal.checkpoint_before(journal.revision())
        self._base = PreferenceSet(journal.name(), pairs)
        outline = journal.outline(self._base_revision)
        entries = journal.entries(self._base_revision)
        try:
            self._state = _State(self._base, self._base_revision, *_stacks(outline, [], []))
            self._absorb(entries)
        except DAMAGE as error:  # changes that do not fit the state that they were made on
            raise damaged(journal.place) from error
        self._checkpoint()

    @classmethod
    def create(cls, path: str | Path, pairs: PreferenceSet) -> "PairStore":
        """Write a set to a new file.

        Raises:
            DataError: the file exists or cannot be written.
        """
        return cls(Journal.create(Path(path), pairs), Path(path))

    @classmethod
    def open(cls, path: str | Path) -> "PairStore":
        """Open a file made by `create`.

        Raises:
            DataError: no such file, a damaged one, or one of another kind.
        """
        return cls(Journal.open(Path(path)), Path(path))

    @classmethod
    def in_memory(cls, pairs: PreferenceSet) -> "PairStore":
        """A store without a file; `save_copy` writes one."""
        return cls(Journal.in_memory(pairs), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Nothing needs saving: every edit is on the disk when it returns."""
        with self._lock:
            self._journal.close()

    @property
    def path(self) -> Path | None:
        """The file, or None for a store in memory."""
        return self._path

    @property
    def revision(self) -> int:
        """Number of the state that `pairs` shows; `refresh` moves it to the file's newest."""
        return self._state.revision

    @property
    def can_undo(self) -> bool:
        """Whether an edit is left to take back."""
        return bool(self._state.undo)

    @property
    def can_redo(self) -> bool:
        """Whether an undone edit can be made again."""
        return bool(self._state.redo)

    def pairs(self) -> PreferenceSet:
        """The current set; the same object until the revision changes."""
        return self._state.pairs

    def refresh(self) -> bool:
        """Take over what others wrote to the file; True where there was something."""
        with self._lock:
            if self._journal.revision() == self._state.revision:
                return False
            self._absorb(self._journal.entries(self._state.revision))
            return True

    def apply(self, edits: Sequence[Edit], label: str = "", author: str = "") -> int:
        """Make some edits, all or none, as one step of the history.

        Returns:
            The revision, durable on the disk. Edits that change nothing make no new one.

        Raises:
            DataError: an edit that does not fit, or a file that cannot be written; the state is
                then as before.
        """
        label, author = clean_label(label or describe(edits)), clean_label(author)

        def plan(state: _State) -> _Step:
            applied = apply_edits(state.pairs, edits)
            return _Step("edit", None, label, author, applied.changes, applied.pairs)

        revision = self._commit(plan)
        return self.revision if revision is None else revision

    def undo(self, author: str = "") -> int | None:
        """Take back the newest edit in force; None where there is none."""
        author = clean_label(author)

        def plan(state: _State) -> _Step | None:
            if not state.undo:
                return None
            target = self._entry(state.undo[-1])
            inverse = [change.inverted() for change in reversed(target.changes)]
            pairs = replay(state.pairs, inverse)
            return _Step("undo", target.revision, f"Undo: {target.label}", author, inverse, pairs)

        return self._commit(plan)

    def redo(self, author: str = "") -> int | None:
        """Make the last undone edit again; None where there is none."""
        author = clean_label(author)

        def plan(state: _State) -> _Step | None:
            if not state.redo:
                return None
            target = self._entry(state.redo[-1])
            pairs = replay(state.pairs, target.changes)
            label = f"Redo: {target.label}"
            return _Step("redo", target.revision, label, author, target.changes, pairs)

        return self._commit(plan)

    def history(self, limit: int = 100) -> list[Change]:
        """The newest changes, newest first, undos and redos among them."""
        with self._lock:
            state = self._state
            entries = self._journal.entries(max(0, state.revision - limit), state.revision)
        in_force = set(state.undo)
        return [
            Change(
                entry.revision,
                entry.kind,
                entry.label,
                entry.author,
                entry.time,
                entry.changes,
                undone=entry.kind == "edit" and entry.revision not in in_force,
            )
            for entry in reversed(entries)
        ]

    def diff(self, a: int | str, b: int | str) -> list[FieldChange]:
        """The fields in which two revisions or named versions differ."""
        return changes_between(self.at(a), self.at(b))

    def tag(self, name: str) -> int:
        """Name the current revision, and return it.

        Raises:
            DataError: an empty name or one that is taken.
        """
        name = clean_label(name)
        with self._lock, self._journal.writing():
            state = self._newest()
            if not name.strip():
                raise DataError("The version has no name; give it one.")
            if any(tag.name == name for tag in self._journal.tags()):
                raise DataError(f"A version {shorten(name)} exists already; choose another name.")
            self._journal.add_tag(name, state.revision)
            return state.revision

    def versions(self) -> list[Tag]:
        """The named versions, oldest first."""
        with self._lock:
            return self._journal.tags()

    def at(self, version: int | str) -> PreferenceSet:
        """The set as it was at a revision or a named version.

        Raises:
            DataError: no such revision or name.
        """
        with self._lock:
            revision = self._resolve(version)
            if revision == self._state.revision:
                return self._state.pairs
            if revision not in self._versions:
                self._versions[revision] = self._rebuild(revision)
                if len(self._versions) > KEPT_VERSIONS:
                    self._versions.popitem(last=False)
            return self._versions[revision]

    def restore(self, version: int | str, author: str = "") -> int:
        """Go back to a revision or named version, as an edit that can itself be undone."""
        target, author = self.at(version), clean_label(author)
        name = f"revision {version}" if isinstance(version, int) else shorten(version)

        def plan(state: _State) -> _Step:
            changes = changes_between(state.pairs, target)
            pairs = replay(state.pairs, changes)
            return _Step("edit", None, f"Restore {name}", author, changes, pairs)

        revision = self._commit(plan)
        return self.revision if revision is None else revision

    def changed_since(self, revision: int) -> set[str] | None:
        """Ids of the pairs edited, added or deleted after a revision; None for an unknown one."""
        with self._lock:
            if not 0 <= revision <= self._state.revision:
                return None
            wanted = range(revision + 1, self._state.revision + 1)
            if any(number not in self._touched for number in wanted):
                self._note(self._journal.entries(revision, self._state.revision))
            return {pair_id for number in wanted for pair_id in self._touched[number]}

    def export_state(self) -> dict[str, Json]:
        """What a saved session needs to find and check this state again, as JSON."""
        with self._lock:
            return {
                "name": self.pairs().name,
                "path": None if self._path is None else str(self._path),
                "revision": self.revision,
                "pairs": len(self.pairs()),
                "digest": self.pairs().digest,
                "versions": {tag.name: tag.revision for tag in self._journal.tags()},
            }

    def save_copy(self, path: str | Path) -> None:
        """Write the store with its whole history to a new file.

        Raises:
            DataError: the file exists or cannot be written.
        """
        with self._lock:
            self._journal.copy_to(Path(path))

    def _commit(self, plan: Callable[[_State], "_Step | None"]) -> int | None:
        """Plan a step on the newest state and write it; None where there is nothing to write.

        The new state is shown only when the file has it: a failed commit leaves the old one.
        """
        with self._lock:
            with self._journal.writing():
                state = self._newest()
                step = plan(state)
                if step is None or not step.changes:
                    return None
                entry = self._journal.append(
                    step.kind, step.target, step.label, step.author, step.changes
                )
            self._state = state.after([entry], step.pairs)
            self._note([entry])
            return entry.revision

    def _newest(self) -> _State:
        """The state with everything that others wrote, inside a write transaction."""
        self._absorb(self._journal.entries(self._state.revision))
        return self._state

    def _absorb(self, entries: Sequence[Entry]) -> None:
        if entries:
            self._state = self._state.after(entries)
            self._note(entries)

    def _note(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._touched[entry.revision] = frozenset(c.pair_id for c in entry.changes)

    def _entry(self, revision: int) -> Entry:
        return self._journal.entries(revision - 1, revision)[0]

    def _resolve(self, version: int | str) -> int:
        if isinstance(version, str):
            tags = {tag.name: tag.revision for tag in self._journal.tags()}
            if version not in tags:
                known = ", ".join(map(shorten, tags)) or "none"
                raise DataError(f"There is no version {shorten(version)}; named are: {known}.")
            version = tags[version]
            if version > self._state.revision:
                self.refresh()
        if not 0 <= version <= self._state.revision:
            raise DataError(f"There is no revision {version}; the newest is {self.revision}.")
        return version

    def _rebuild(self, revision: int) -> PreferenceSet:
        # From the base in memory where it is early enough, so that untouched pairs are shared.
        start, base = self._base_revision, self._base
        if revision < start:
            start, pairs = self._journal.checkpoint_before(revision)
            base = PreferenceSet(self._base.name, pairs)
        entries = self._journal.entries(start, revision)
        return replay(base, (change for entry in entries for change in entry.changes))

    def _checkpoint(self) -> None:
        if self._journal.changes_since(self._base_revision) <= CHECKPOINT_AFTER:
            return
        # Only the next opening profits: a full disk or a read-only file must not prevent this one.
        with suppress(DataError), self._journal.writing():
            self._journal.add_checkpoint(self._state.revision, self._state.pairs)


@dataclass(frozen=True)
class _Step:
    """A change that is planned and not yet written."""

    kind: ChangeKind
    target: int | None
    label: str
    author: str
    changes: Sequence[FieldChange]
    pairs: PreferenceSet


def _stacks(
    outline: Iterable[tuple[int, ChangeKind]], undo: list[int], redo: list[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What undo and redo would take after some entries, given what they would have before."""
    for revision, kind in outline:
        if kind == "undo":
            redo.append(undo.pop())
        elif kind == "redo":
            undo.append(redo.pop())
        else:
            undo.append(revision)
            redo.clear()
    return tuple(undo), tuple(redo)

"""The SQLite file behind a pair store: checkpoints of the pairs, and every change since.

Rows are only ever added. A change is committed, and on the disk, before `append` returns
(write-ahead log, `synchronous=FULL`), so a process killed at any moment loses nothing that was
acknowledged.
"""

import json
import os
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from workbench.data.edits import FieldChange, change_from_json, change_to_json
from workbench.data.pairs import PreferencePair, PreferenceSet, build_pair, shorten
from workbench.errors import DataError

ChangeKind = Literal["edit", "undo", "redo"]

APPLICATION_ID = 0x50574A31
FORMAT_VERSION = 1
PAIRS_PER_PART = 1_000
BUSY_SECONDS = 10.0

_SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT_VERSION};
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE checkpoint (
    revision INTEGER, part INTEGER, parts INTEGER NOT NULL, pairs BLOB NOT NULL,
    PRIMARY KEY (revision, part)
);
CREATE TABLE change (
    revision INTEGER PRIMARY KEY, kind TEXT NOT NULL, target INTEGER, label TEXT NOT NULL,
    author TEXT NOT NULL, time TEXT NOT NULL, size INTEGER NOT NULL, changes BLOB NOT NULL
);
CREATE TABLE tag (name TEXT PRIMARY KEY, revision INTEGER NOT NULL, time TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Entry:
    """One row of the journal.

    Attributes:
        revision: 1 for the first change; revision 0 is the set as it was created.
        kind: What made it. An undo or redo is a change of its own.
        target: The revision that an undo took back or a redo made again.
        time: When it was committed, UTC.
        changes: Every field that it changed, with the values before and after.
    """

    revision: int
    kind: ChangeKind
    target: int | None
    label: str
    author: str
    time: datetime
    changes: tuple[FieldChange, ...]


@dataclass(frozen=True)
class Tag:
    """A named version."""

    name: str
    revision: int
    time: datetime


class Journal:
    """Reads and appends; every failure of SQLite becomes a DataError that names file and cure."""

    def __init__(self, connection: sqlite3.Connection, place: str) -> None:
        self.place = place
        self._connection = connection

    @classmethod
    def create(cls, path: Path, pairs: PreferenceSet) -> "Journal":
        """Write a new file under a temporary name, and give it its own when it is whole.

        Raises:
            DataError: the file exists, or cannot be written.
        """
        if path.exists():
            raise DataError(f"{path} exists already; open it, or choose another name.")
        partial = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.unlink(missing_ok=True)
            journal = cls(_connect(partial, "rwc"), str(path))
            try:
                journal._initialise(pairs)
            finally:
                journal.close()
            os.replace(partial, path)
        except OSError as error:
            raise DataError(
                f"{path} cannot be written ({error.strerror}); choose another place."
            ) from error
        except sqlite3.Error as error:
            raise translate(error, str(path)) from error
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
        return cls.open(path)

    @classmethod
    def in_memory(cls, pairs: PreferenceSet) -> "Journal":
        """A journal that ends with the process."""
        journal = cls(_connect(None, "memory"), "the store in memory")
        journal._initialise(pairs)
        return journal

    @classmethod
    def open(cls, path: Path) -> "Journal":
        """Open a file for writing, or for reading where it cannot be written.

        Raises:
            DataError: no such file, or not a whole file of ours.
        """
        if not path.is_file():
            raise DataError(f"{path} is not a file; create the store first, or check the name.")
        error: sqlite3.Error | None = None
        # A write-ahead log cannot be set up on read-only storage; `immutable` does without.
        for mode in ("rw", "ro", "ro&immutable=1"):
            journal = cls(_connect(path, mode), str(path))
            try:
                journal._prepare(writable=mode == "rw")
            except sqlite3.Error as problem:
                journal.close()
                error = error or problem
            except DataError:
                journal.close()
                raise
            else:
                return journal
        assert error is not None
        raise translate(error, str(path)) from error

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._connection.close()

    def name(self) -> str:
        """The set's name."""
        with self._reading():
            row = self._connection.execute("SELECT value FROM meta WHERE key = 'name'").fetchone()
            return str(json.loads(row[0]))

    def revision(self) -> int:
        """The latest revision in the file, whoever wrote it."""
        with self._reading():
            row = self._connection.execute("SELECT max(revision) FROM change").fetchone()
            return int(row[0] or 0)

    def checkpoint_before(self, revision: int) -> tuple[int, list[PreferencePair]]:
        """The latest whole set at or before a revision, with its own revision."""
        with self._reading():
            found = self._connection.execute(
                "SELECT max(revision) FROM checkpoint WHERE revision <= ?", (revision,)
            ).fetchone()
            rows = self._connection.execute(
                "SELECT pairs, parts FROM checkpoint WHERE revision = ? ORDER BY part", (found[0],)
            ).fetchall()
            if len(rows) != rows[0][1]:
                raise ValueError(f"{len(rows)} of {rows[0][1]} parts")
            return int(found[0]), [pair for blob, _ in rows for pair in _unpack_pairs(blob)]

    def changes_since(self, revision: int) -> int:
        """Number of field changes recorded after a revision."""
        with self._reading():
            row = self._connection.execute(
                "SELECT coalesce(sum(size), 0) FROM change WHERE revision > ?", (revision,)
            ).fetchone()
            return int(row[0])

    def entries(self, after: int, until: int | None = None) -> list[Entry]:
        """Rows with `after < revision <= until`, oldest first; without `until`, to the end."""
        with self._reading():
            rows = self._connection.execute(
                f"SELECT {_ENTRY_COLUMNS} FROM change "
                "WHERE revision > ? AND revision <= ? ORDER BY revision",
                (after, _LARGEST if until is None else until),
            )
            entries = [_entry(row) for row in rows]
            for number, entry in enumerate(entries, start=after + 1):
                if entry.revision != number:
                    raise ValueError(f"revision {number} is missing")
            return entries

    def outline(self, until: int) -> list[tuple[int, ChangeKind]]:
        """Revision and kind of every row up to a revision, oldest first."""
        with self._reading():
            return self._connection.execute(
                "SELECT revision, kind FROM change WHERE revision <= ? ORDER BY revision",
                (until,),
            ).fetchall()

    def tags(self) -> list[Tag]:
        """All named versions, oldest first."""
        with self._reading():
            rows = self._connection.execute("SELECT name, revision, time FROM tag ORDER BY rowid")
            return [Tag(name, rev, datetime.fromisoformat(time)) for name, rev, time in rows]

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A write transaction: nobody else writes meanwhile; committed to the disk at its end."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # After a full disk SQLite has rolled back by itself.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise translate(error, self.place) from error

    def append(
        self,
        kind: ChangeKind,
        target: int | None,
        label: str,
        author: str,
        changes: Sequence[FieldChange],
    ) -> Entry:
        """Add a row, inside `writing`."""
        now = datetime.now(UTC)
        payload = _pack([change_to_json(change) for change in changes])
        revision = self._connection.execute(
            "INSERT INTO change (revision, kind, target, label, author, time, size, changes) "
            "SELECT coalesce(max(revision), 0) + 1, ?, ?, ?, ?, ?, ?, ? FROM change "
            "RETURNING revision",
            (kind, target, label, author, now.isoformat(), len(changes), payload),
        ).fetchone()[0]
        return Entry(revision, kind, target, label, author, now, tuple(changes))

    def add_tag(self, name: str, revision: int) -> None:
        """Name a revision, inside `writing`."""
        self._connection.execute(
            "INSERT INTO tag VALUES (?, ?, ?)", (name, revision, datetime.now(UTC).isoformat())
        )

    def add_checkpoint(self, revision: int, pairs: PreferenceSet) -> None:
        """Store a whole set, inside `writing`."""
        blobs = _pack_parts(pairs.pairs)
        self._connection.executemany(
            "INSERT OR IGNORE INTO checkpoint VALUES (?, ?, ?, ?)",
            ((revision, part, len(blobs), blob) for part, blob in enumerate(blobs)),
        )

    def copy_to(self, path: Path) -> None:
        """Write the whole journal to a new file.

        Raises:
            DataError: the file exists, or cannot be written.
        """
        if path.exists():
            raise DataError(f"{path} exists already; choose another name.")
        try:
            with self._reading():
                self._connection.execute("VACUUM INTO ?", (str(path),))
        except DataError as error:
            raise DataError(f"The copy {path} was not written. {error}") from error

    def _initialise(self, pairs: PreferenceSet) -> None:
        self._connection.executescript(_SCHEMA)
        with self.writing():
            # As JSON, so that a name with any character is kept.
            self._connection.execute(
                "INSERT INTO meta VALUES ('name', ?)", (json.dumps(pairs.name),)
            )
            self.add_checkpoint(0, pairs)

    def _prepare(self, *, writable: bool) -> None:
        run = self._connection.execute
        if run("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise DataError(
                f"{self.place} is not a preference store; import it with `read_pairs`, or choose "
                "another file."
            )
        version = run("PRAGMA user_version").fetchone()[0]
        if version != FORMAT_VERSION:
            raise DataError(
                f"{self.place} has format {version}, this program reads {FORMAT_VERSION}; "
                "update the workbench."
            )
        if writable:
            run("PRAGMA journal_mode = WAL")
            run("PRAGMA synchronous = FULL")
        run("SELECT max(revision) FROM change").fetchone()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise translate(error, self.place) from error
        except DAMAGE as error:
            raise damaged(self.place) from error


def translate(error: sqlite3.Error, place: str) -> DataError:
    """What a failure of SQLite means to the person whose file it is, and what to do."""
    text = str(error).lower()
    for sign, message in _MEANINGS:
        if sign in text:
            return DataError(f"{place}: {message} Nothing was changed.")
    known = isinstance(error, sqlite3.OperationalError | sqlite3.ProgrammingError)
    if known and "no such" not in text:
        return DataError(f"{place}: {error}. Nothing was changed; close the store and open it.")
    return damaged(place)


_ENTRY_COLUMNS = "revision, kind, target, label, author, time, changes"
_LARGEST = 2**63 - 1
_MEANINGS = (
    ("disk is full", "the disk is full. Free some space and try again."),
    ("disk i/o error", "the disk failed to read or write. Check it, or copy the file elsewhere."),
    ("readonly", "the file can only be read. Copy it to a folder that you can write to."),
    ("locked", "another program is writing to the file. Wait a moment and try again."),
    ("unable to open", "the file cannot be opened. Check that its folder exists and is yours."),
    ("too big", "the change is too large for one step. Make it in several steps."),
)
# What reading altered or half-written contents may raise.
DAMAGE = (zlib.error, ValueError, LookupError, TypeError, DataError)


def damaged(place: str) -> DataError:
    """What to say of a file whose contents do not hold together."""
    return DataError(
        f"{place} is damaged: it is not a whole preference store. Open a copy of it, or import "
        "your last export."
    )


def _connect(path: Path | None, mode: str) -> sqlite3.Connection:
    uri = "file::memory:" if path is None else f"{path.resolve().as_uri()}?mode={mode}"
    return sqlite3.connect(
        uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )


def _pack(value: object) -> bytes:
    return zlib.compress(json.dumps(value, ensure_ascii=False, allow_nan=False).encode(), 1)


def _unpack(blob: bytes) -> list[dict[str, object]]:
    records: list[dict[str, object]] = json.loads(zlib.decompress(blob))
    return records


def _pack_parts(pairs: Sequence[PreferencePair]) -> list[bytes]:
    """Compressed slices of the pairs; an empty set has one, too."""
    starts = range(0, max(len(pairs), 1), PAIRS_PER_PART)
    return [_pack([pair.to_json() for pair in pairs[n : n + PAIRS_PER_PART]]) for n in starts]


def _unpack_pairs(blob: bytes) -> list[PreferencePair]:
    return [build_pair(record) for record in _unpack(blob)]


def _entry(row: tuple[int, ChangeKind, int | None, str, str, str, bytes]) -> Entry:
    revision, kind, target, label, author, time, blob = row
    changes = tuple(change_from_json(record) for record in _unpack(blob))
    return Entry(revision, kind, target, label, author, datetime.fromisoformat(time), changes)


def clean_label(text: str, limit: int = 500) -> str:
    """A label, author or version name that fits one line of the history.

    Raises:
        DataError: characters that cannot be stored, or more than `limit` of them.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{shorten(text)} has unpaired surrogates; remove them.") from error
    if len(text) > limit:
        raise DataError(f"{shorten(text)} has {len(text):,} characters; use at most {limit}.")
    return text

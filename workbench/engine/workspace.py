"""Sessions on disk: each a folder with its journal and the names of its models."""

import json
import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from workbench import paths
from workbench.data.pairs import PreferenceSet
from workbench.data.store import PairStore
from workbench.defaults import DEFAULT_POLICY, DEFAULT_REFERENCE
from workbench.engine.jobs import JobRunner
from workbench.engine.neighbours import Watch
from workbench.engine.pool import LoadScorer, ModelPool, load_scorer
from workbench.engine.session import Hub, Session
from workbench.errors import DataError
from workbench.scoring.store import ScoreStore

_STEP_BACK = 5
_SESSION_ID = re.compile(r"[A-Za-z0-9_-]{8,40}")


@dataclass(frozen=True)
class SessionCard:
    """What is written beside a session's journal."""

    title: str
    policy: str = DEFAULT_POLICY
    reference: str = DEFAULT_REFERENCE
    owner: str = ""
    """Whose session it is, where several people share a server."""


class Sessions(Protocol):
    """The sessions that somebody may see, make and change."""

    def create(self, pairs: PreferenceSet, policy: str = ..., reference: str = ...) -> Session:
        """Start a session on a copy of `pairs`."""
        ...

    def session(self, session_id: str) -> Session:
        """A session by its id."""
        ...

    def sessions(self) -> list[tuple[str, SessionCard]]:
        """All of them, the last used first."""
        ...

    def check_source(self, name: str) -> None:
        """Raise `DataError` where a set of this name must not be opened."""
        ...

    def use_models(
        self, session: Session, *, policy: str | None = None, reference: str | None = None
    ) -> None:
        """Change a session's models for good."""
        ...


class Workspace:
    """Creates, finds and reopens sessions; one object for a process.

    Another process may have the same session open: what it writes is seen here within a second.

    Args:
        folder: Where sessions live; the user's data folder when not given.
        scores: File of the score store; in the user's cache when not given.
        load: How a model's name becomes a scorer (tests give a counting one).
        crowd: Whether many people share the process: slow questions then have a worker of their
            own, and both workers stand back behind the pages.
    """

    def __init__(
        self,
        folder: Path | None = None,
        scores: Path | None = None,
        load: LoadScorer = load_scorer,
        crowd: bool = False,
    ) -> None:
        self.folder = folder or paths.data_dir() / "sessions"
        store = ScoreStore(scores or paths.cache_dir() / "scores.sqlite")
        runner = JobRunner(niceness=_STEP_BACK if crowd else 0)
        slow = JobRunner("workbench-slow", 2 * _STEP_BACK) if crowd else None
        self.hub = Hub(store, ModelPool(load), runner, slow)
        self._open: dict[str, Session] = {}
        self._lock = threading.Lock()
        self._cards = threading.Lock()
        self._stamps: dict[str, int] = {}
        self._watch = Watch(self._look)

    def create(
        self,
        pairs: PreferenceSet,
        policy: str = DEFAULT_POLICY,
        reference: str = DEFAULT_REFERENCE,
        owner: str = "",
    ) -> Session:
        """Start a session on a copy of `pairs`, kept from now on in its own journal.

        Raises:
            DataError: the folder cannot be written.
        """
        session_id = secrets.token_urlsafe(9)
        folder = self.folder / session_id
        try:
            with _writing(folder):
                folder.mkdir(parents=True)
                _write_card(folder, SessionCard(pairs.name, policy, reference, owner))
            store = PairStore.create(folder / "pairs.sqlite", pairs)
        except DataError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        with self._lock:
            session = self._open[session_id] = Session(
                session_id, store, self.hub, policy, reference
            )
            self._stamps[session_id] = _stamp(folder)
        self._watch.start()
        return session

    def session(self, session_id: str) -> Session:
        """A session by its id, from memory or from disk.

        Raises:
            DataError: no such session.
        """
        if not _SESSION_ID.fullmatch(session_id):
            raise DataError(
                f"{session_id[:60]!r} is not a session's name; start from the first page."
            )
        with self._lock:
            if session_id not in self._open:
                self._open[session_id] = self._reopen(session_id)
            session = self._open[session_id]
        self._watch.start()
        return session

    def sessions(self) -> list[tuple[str, SessionCard]]:
        """All sessions on disk, the last used first."""
        found = [
            p for p in self.folder.glob("*/session.json") if _SESSION_ID.fullmatch(p.parent.name)
        ]
        found.sort(key=lambda path: path.parent.stat().st_mtime, reverse=True)
        return [(path.parent.name, _read_card(path.parent)) for path in found]

    def use_models(
        self, session: Session, *, policy: str | None = None, reference: str | None = None
    ) -> None:
        """Change a session's models, now and for when it is opened again.

        Raises:
            DataError: the choice cannot be written; it holds until the session is closed.
        """
        folder = self.folder / session.session_id
        with self._cards:
            session.use_models(policy=policy, reference=reference)
            card = _read_card(folder)
            with _writing(folder):
                _write_card(folder, SessionCard(card.title, owner=card.owner, **session.models))
            self._stamps[session.session_id] = _stamp(folder)

    def check_source(self, name: str) -> None:
        """Every set may be opened by whoever started the program."""

    def card(self, session_id: str) -> SessionCard | None:
        """What is written beside a session; None where there is none of this name."""
        folder = self.folder / session_id
        known = _SESSION_ID.fullmatch(session_id) and (folder / "pairs.sqlite").is_file()
        return _read_card(folder) if known else None

    def is_open(self, session_id: str) -> bool:
        """Whether a session is in memory."""
        return session_id in self._open

    def close_session(self, session_id: str) -> None:
        """Let go of a session; its journal stays, and the next visit opens it again."""
        with self._lock:
            session = self._open.pop(session_id, None)
        if session is not None:
            session.close()

    def close(self) -> None:
        """Stop the worker and close every journal."""
        self._watch.stop()
        self.hub.close()
        for session in self._open.values():
            session.close()
        self._open.clear()

    def _reopen(self, session_id: str) -> Session:
        folder = self.folder / session_id
        if not (folder / "pairs.sqlite").is_file():
            raise DataError(
                f"There is no session {session_id!r} here (any more); start from the first page."
            )
        # The stamp first: what is written meanwhile then shows as newer.
        self._stamps[session_id] = _stamp(folder)
        card = _read_card(folder)
        store = PairStore.open(folder / "pairs.sqlite")
        return Session(session_id, store, self.hub, card.policy, card.reference)

    def _look(self) -> None:
        """Take over what other processes did to the sessions that are open."""
        with self._lock:
            sessions = list(self._open.values())
        for session in sessions:
            # A journal that cannot be read now, or was closed meanwhile, is no one else's concern.
            with suppress(DataError):
                session.refresh()
                self._follow_card(session)

    def _follow_card(self, session: Session) -> None:
        folder = self.folder / session.session_id
        with self._cards:
            stamp = _stamp(folder)
            if stamp == self._stamps.get(session.session_id):
                return
            self._stamps[session.session_id] = stamp
            card = _whole_card(folder)
            if card and session.models != {"policy": card.policy, "reference": card.reference}:
                session.use_models(policy=card.policy, reference=card.reference)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written ({error.strerror}); free some space or set "
            "WORKBENCH_DATA to a folder that you may write."
        ) from error


def _write_card(folder: Path, card: SessionCard) -> None:
    fresh = folder / "session.json.new"
    fresh.write_text(json.dumps(asdict(card)), encoding="utf-8")
    os.replace(fresh, folder / "session.json")


def _read_card(folder: Path) -> SessionCard:
    """The card, or a plain one where it is missing or spoilt: the journal is what matters."""
    return _whole_card(folder) or SessionCard(folder.name)


def _whole_card(folder: Path) -> SessionCard | None:
    try:
        found = json.loads((folder / "session.json").read_text(encoding="utf-8"))
        card = SessionCard(**found)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return card if all(isinstance(value, str) for value in asdict(card).values()) else None


def _stamp(folder: Path) -> int:
    """Changes when the card is written anew; 0 where there is none."""
    try:
        found = (folder / "session.json").stat()
    except OSError:
        return 0
    return hash((found.st_mtime_ns, found.st_ino))

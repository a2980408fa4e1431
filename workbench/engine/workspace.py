"""Sessions on disk: each a folder with its journal and the names of its models."""

import json
import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from workbench import paths
from workbench.data.pairs import PreferenceSet
from workbench.data.store import PairStore
from workbench.defaults import DEFAULT_POLICY, DEFAULT_REFERENCE
from workbench.engine.jobs import JobRunner
from workbench.engine.pool import LoadScorer, ModelPool, load_scorer
from workbench.engine.session import Hub, Session
from workbench.errors import DataError
from workbench.scoring.store import ScoreStore

_SESSION_ID = re.compile(r"[A-Za-z0-9_-]{8,40}")


@dataclass(frozen=True)
class SessionCard:
    """What is written beside a session's journal."""

    title: str
    policy: str = DEFAULT_POLICY
    reference: str = DEFAULT_REFERENCE


class Workspace:
    """Creates, finds and reopens sessions; one object for a process.

    Args:
        folder: Where sessions live; the user's data folder when not given.
        scores: File of the score store; in the user's cache when not given.
        load: How a model's name becomes a scorer (tests give a counting one).
    """

    def __init__(
        self,
        folder: Path | None = None,
        scores: Path | None = None,
        load: LoadScorer = load_scorer,
    ) -> None:
        self.folder = folder or paths.data_dir() / "sessions"
        store = ScoreStore(scores or paths.cache_dir() / "scores.sqlite")
        self.hub = Hub(store, ModelPool(load), JobRunner())
        self._open: dict[str, Session] = {}
        self._lock = threading.Lock()

    def create(
        self,
        pairs: PreferenceSet,
        policy: str = DEFAULT_POLICY,
        reference: str = DEFAULT_REFERENCE,
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
                _write_card(folder, SessionCard(pairs.name, policy, reference))
            store = PairStore.create(folder / "pairs.sqlite", pairs)
        except DataError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        with self._lock:
            session = self._open[session_id] = Session(
                session_id, store, self.hub, policy, reference
            )
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
            return self._open[session_id]

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
        session.use_models(policy=policy, reference=reference)
        folder = self.folder / session.session_id
        card = _read_card(folder)
        with _writing(folder):
            _write_card(folder, SessionCard(card.title, **session.models))

    def close(self) -> None:
        """Stop the worker and close every journal."""
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
        card = _read_card(folder)
        store = PairStore.open(folder / "pairs.sqlite")
        return Session(session_id, store, self.hub, card.policy, card.reference)


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
    try:
        found = json.loads((folder / "session.json").read_text(encoding="utf-8"))
        card = SessionCard(**found)
    except (OSError, ValueError, TypeError, RecursionError):
        return SessionCard(folder.name)
    whole = all(isinstance(value, str) for value in asdict(card).values())
    return card if whole else SessionCard(folder.name)

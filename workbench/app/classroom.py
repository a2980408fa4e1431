"""A classroom on one server: who sits where, by which token, and what each may do.

The roster is a file: the same link opens the same session after a restart. Tokens are random and
say nothing; whoever has a student's link is that student, whoever has the instructor's sees all.
"""

import json
import os
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from workbench.data.edits import AddPair, Edit
from workbench.data.pairs import PreferenceSet
from workbench.data.sources import list_sources
from workbench.engine.session import Session
from workbench.engine.workspace import SessionCard, Workspace
from workbench.errors import DataError, ModelError, TrainingError

INSTRUCTOR, DOOR = "@instructor", "@door"
"""Visitors who are no students; a student's name cannot begin so."""
MOST_NAME = 40


@dataclass(frozen=True)
class Limits:
    """What a classroom allows, so that two cores are enough for all.

    Attributes:
        seats: Students at most, those who enter by the class's link included.
        sessions: Sets that one student may have open in the course of time.
        pairs: Pairs of one set.
        edits_a_minute: Edits of one student.
        upload_bytes: Size of a file that a student may open.
        training: Whether students may train, one at a time; the instructor always may.
    """

    seats: int = 60
    sessions: int = 8
    pairs: int = 500
    edits_a_minute: int = 60
    upload_bytes: int = 4 * 1024 * 1024
    training: bool = False


@dataclass(frozen=True)
class Seat:
    """A student's place: the session that the link opens is empty until the first visit."""

    name: str
    token: str
    session: str = ""


class Roster(Mapping[str, str]):
    """The tokens and whose they are, kept in a file; a mapping for the guard, token -> visitor.

    Args:
        path: The file, made where missing; readable by its owner alone.

    Raises:
        DataError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._staff = {secrets.token_urlsafe(18): INSTRUCTOR, secrets.token_urlsafe(18): DOOR}
        self._seats: dict[str, Seat] = {}
        if path.exists():
            self._read()
        else:
            self._write()
        self._keys = self._known()

    def __getitem__(self, token: str) -> str:
        return self._keys[token]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def seats(self) -> tuple[Seat, ...]:
        """All students' places, in the order of their making."""
        return tuple(self._seats.values())

    def seat(self, name: str) -> Seat:
        """The place of a student."""
        return self._seats[name]

    def token_of(self, staff: str) -> str:
        """The instructor's token, or that of the door."""
        return next(token for token, who in self._staff.items() if who == staff)

    def staffed(self, instructor: str) -> None:
        """Let the instructor's token be this one, chosen by hand."""
        with self._lock:
            self._staff = {instructor: INSTRUCTOR, self.token_of(DOOR): DOOR}
            self._write()

    def add(self, name: str, most: int) -> Seat:
        """A place for a new student.

        Raises:
            DataError: a name that cannot be one or is taken, or no place left.
        """
        name = checked_name(name)
        with self._lock:
            if name.casefold() in {known.casefold() for known in self._seats}:
                raise DataError(
                    f"The name {name!r} is taken. If you are this person, open the link that you "
                    "were given; if not, write your name in another way."
                )
            if len(self._seats) >= most:
                raise DataError(
                    f"The classroom has {most} places and all are taken; ask your instructor."
                )
            seat = self._seats[name] = Seat(name, secrets.token_urlsafe(18))
            self._write()
        return seat

    def invite(self, names: Sequence[str], most: int) -> None:
        """Give each of these a place who has none yet."""
        for name in map(checked_name, names):
            if name not in self._seats:
                self.add(name, most)

    def move(self, name: str, session: str) -> None:
        """Let a student's link open another session."""
        with self._lock:
            self._seats[name] = replace(self._seats[name], session=session)
            self._write()

    def _known(self) -> dict[str, str]:
        return self._staff | {seat.token: seat.name for seat in self._seats.values()}

    def _read(self) -> None:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            self._staff = {found["instructor"]: INSTRUCTOR, found["door"]: DOOR}
            seats = [Seat(**each) for each in found["seats"]]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{self._path} is no roster of a classroom ({type(error).__name__}); take it "
                "back from a copy, or remove it: all links are then made anew."
            ) from error
        self._seats = {seat.name: seat for seat in seats}

    def _write(self) -> None:
        self._keys = self._known()
        content = {
            "instructor": self.token_of(INSTRUCTOR),
            "door": self.token_of(DOOR),
            "seats": [asdict(seat) for seat in self._seats.values()],
        }
        try:
            write_private(self._path, json.dumps(content, indent=1))
        except OSError as error:
            raise DataError(
                f"{self._path} cannot be written ({error.strerror}); free some space or set "
                "WORKBENCH_DATA to a folder that you may write."
            ) from error


def checked_name(name: str) -> str:
    """A student's name without the spaces around it.

    Raises:
        DataError: it is empty, too long, or has signs that no name has.
    """
    name = re.sub(r"\s+", " ", name).strip()
    if not name or len(name) > MOST_NAME or name.startswith("@") or not name.isprintable():
        raise DataError(
            f"{name[:MOST_NAME]!r} cannot be a name here; give 1 to {MOST_NAME} letters."
        )
    return name


def students(asked: str) -> list[str]:
    """The names behind `--students`: so many, a list with commas, or a file with one a line.

    Raises:
        DataError: none, or a name that cannot be one.
    """
    if asked.isdigit():
        return [f"Student {number:02d}" for number in range(1, int(asked) + 1)]
    path = Path(asked).expanduser()
    if path.is_file():
        asked = path.read_text(encoding="utf-8-sig").replace("\n", ",")
    return list(dict.fromkeys(checked_name(name) for name in asked.split(",") if name.strip()))


def write_private(path: Path, content: str) -> None:
    """Write a file that its owner alone may read, all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


class OwnSessions:
    """The sessions of one visitor; every other is refused. It stands before the workspace.

    Args:
        workspace: Where all sessions live.
        roster: Whose link opens which.
        owner: The visitor.
        models: Those that students may use.
        rules: What students may do in a session.
    """

    def __init__(
        self,
        workspace: Workspace,
        roster: Roster,
        owner: str,
        models: frozenset[str],
        rules: "StudentRules",
    ) -> None:
        self._workspace = workspace
        self._roster = roster
        self._owner = owner
        self._models = models
        self._rules = rules

    def create(self, pairs: PreferenceSet, policy: str = "", reference: str = "") -> Session:
        """Start a session of the visitor's own; a student's link opens it from now on.

        Raises:
            DataError: too many pairs, or too many sessions already.
        """
        limits = self._rules.limits
        if not self._staff:
            self._rules.check_size(len(pairs))
            if len(self.sessions()) >= limits.sessions:
                raise DataError(
                    f"In this classroom a student may open {limits.sessions} sets, and you have "
                    "done so; go back to an earlier one by the menu of sets."
                )
        session = self._workspace.create(pairs, policy, reference, self._owner)
        if not self._staff:
            self._roster.move(self._owner, session.session_id)
        return self._ruled(session, self._owner)

    def session(self, session_id: str) -> Session:
        """One of the visitor's own sessions; any for the instructor.

        Raises:
            DataError: it is another's, or there is none of this name.
        """
        card = self._workspace.card(session_id)
        if card is not None and not self._staff and card.owner != self._owner:
            raise DataError(
                "This session is another student's. Your own link opens yours: use the address "
                "that you were given."
            )
        return self._ruled(self._workspace.session(session_id), card.owner if card else "")

    def check_source(self, name: str) -> None:
        """Refuse what is no bundled set: a student must not read this machine's files by name.

        Raises:
            DataError: a file, a folder, or a name that is no set's.
        """
        known = {source.name for source in list_sources()}
        if not self._staff and name not in known:
            raise DataError(
                f"{name[:60]!r} is not offered in this classroom; choose a set from the menu, or "
                "open a file of your own on Pairs."
            )

    def sessions(self) -> list[tuple[str, SessionCard]]:
        """The visitor's own, the last used first."""
        return [each for each in self._workspace.sessions() if each[1].owner == self._owner]

    def use_models(
        self, session: Session, *, policy: str | None = None, reference: str | None = None
    ) -> None:
        """Change a session's models.

        Raises:
            ModelError: a model that students of this classroom may not load.
        """
        for model in (policy, reference):
            if model and not self._staff and model not in self._models:
                raise ModelError(
                    f"{model[:60]!r} is not used in this classroom, whose models are shared by "
                    f"all; choose {' or '.join(sorted(self._models))}."
                )
        self._workspace.use_models(session, policy=policy, reference=reference)

    @property
    def _staff(self) -> bool:
        return self._owner == INSTRUCTOR

    def _ruled(self, session: Session, owner: str) -> Session:
        session.rules = None if owner == INSTRUCTOR else self._rules
        return session


class StudentRules:
    """What students may do in a session: sizes, pace, and training one at a time."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._edits: dict[str, deque[float]] = {}
        self._trainer: Session | None = None

    @property
    def upload_bytes(self) -> int:
        """Size of a file that a student may open."""
        return self.limits.upload_bytes

    def check_size(self, pairs: int) -> None:
        """Refuse a set that is too large."""
        if pairs > self.limits.pairs:
            raise DataError(
                f"The set has {pairs} pairs; in this classroom {self.limits.pairs} are the most, "
                "because all share one machine. Take a part of it."
            )

    def check_edits(self, session: Session, edits: Sequence[Edit]) -> None:
        """Refuse edits that make a set too large, or that come too fast."""
        if added := sum(isinstance(edit, AddPair) for edit in edits):
            self.check_size(len(session.store.pairs()) + added)
        now = time.monotonic()
        recent = self._edits.setdefault(session.session_id, deque())
        while recent and now - recent[0] > 60:
            recent.popleft()
        if len(recent) >= self.limits.edits_a_minute:
            raise DataError(
                f"You made {len(recent)} edits within a minute, the most in this classroom; "
                f"go on in {61 - (now - recent[0]):.0f} s."
            )
        recent.append(now)

    def check_training(self, session: Session) -> None:
        """Refuse training where it is not allowed, or while another student trains."""
        if not self.limits.training:
            raise TrainingError(
                "Training is switched off in this classroom, because its steps would keep "
                "everybody's scores waiting. Train on your own machine, or ask your instructor."
            )
        other = self._trainer
        if other is not None and other is not session and other.training.status.phase in (
            "preparing", "playing",
        ):  # fmt: skip
            raise TrainingError(
                "Another student's training is running, and this classroom has room for one at a "
                "time; try again in a moment."
            )
        self._trainer = session

    def forget(self, session: Session) -> None:
        """Let go of a session that was closed."""
        self._edits.pop(session.session_id, None)
        if self._trainer is session:
            self._trainer = None

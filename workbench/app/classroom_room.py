"""What goes on in a classroom: who is where, and what all students' sessions say together."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from workbench.app.classroom import INSTRUCTOR, Limits, OwnSessions, Roster, Seat, StudentRules
from workbench.app.state import PageState
from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.engine.live import Summary
from workbench.engine.session import Session
from workbench.engine.workspace import Workspace
from workbench.errors import DataError

IDLE_SECONDS = 120.0
"""A session that no page shows is closed after this long; its journal stays."""
QUANTITIES = {
    "mean_margin": "Reward margin, mean",
    "mean_chosen_reward": "Implicit reward of chosen answers, mean",
    "ranking_accuracy": "Ranking accuracy",
    "did_entropy": "DID entropy, nats",
    "dependence": "Distance correlation",
}


@dataclass(eq=False)
class Visit:
    """One open page.

    Attributes:
        name: Whose it is.
        state: What it shows.
        context: Bokeh's, which knows whether a browser is connected; None in tests.
    """

    name: str
    state: PageState
    context: Any = None

    @property
    def connected(self) -> bool:
        """Whether a browser listens."""
        session = getattr(self.context, "session", None)
        return session is None or bool(session.connection_count)


@dataclass(frozen=True)
class StudentRow:
    """What is known of one student.

    Attributes:
        session: Id of the session; "" before the first visit.
        here: Whether a page of theirs is connected.
        page: The page that is shown, or was shown last; "" before the first visit.
        action: The newest change, in words.
        when: Of that change; None where there is none.
        edits: Changes made, undos included.
        summary: The five quantities under the student's settings; None while not known.
    """

    name: str
    session: str = ""
    here: bool = False
    page: str = ""
    action: str = ""
    when: datetime | None = None
    edits: int = 0
    summary: Summary | None = None


@dataclass(frozen=True)
class PairRow:
    """What the class made of one pair of the set that all began with.

    Attributes:
        edited: Students who changed anything of it.
        flipped: Students in whose set the answers stand the other way round.
        kept: Students in whose set the pair is.
    """

    pair_id: str
    prompt: str
    edited: int
    flipped: int
    kept: int

    @property
    def share(self) -> float:
        """The class's rater share: of those who have the pair, how many prefer its first answer."""
        return (self.kept - self.flipped) / self.kept if self.kept else float("nan")


class Classroom:
    """All students' sessions on one server.

    Args:
        workspace: Where their sessions live.
        roster: Who they are.
        pairs: The set that each begins with.
        models: Policy and reference.
        limits: What is allowed.
    """

    def __init__(
        self,
        workspace: Workspace,
        roster: Roster,
        pairs: PreferenceSet,
        models: tuple[str, str],
        limits: Limits,
    ) -> None:
        self.workspace = workspace
        self.roster = roster
        self.pairs = pairs
        self.models = models
        self.limits = limits
        self.rules = StudentRules(limits)
        self._visits: list[Visit] = []
        self._left: dict[str, float] = {}
        self._last: dict[str, StudentRow] = {}
        self._opinions: dict[str, tuple[int, Mapping[str, str] | None]] = {}

    def sessions_of(self, name: str) -> OwnSessions:
        """The sessions that a visitor may see."""
        return OwnSessions(self.workspace, self.roster, name, frozenset(self.models), self.rules)

    def session_of(self, name: str, asked: str = "") -> Session:
        """The session that a visitor's address names, or that the link opens; a new one at first.

        Raises:
            DataError: the session asked for is another's.
        """
        own = self.sessions_of(name)
        kept = "" if name == INSTRUCTOR else self.roster.seat(name).session
        if asked:
            return own.session(asked)
        if kept and self.workspace.card(kept) is not None:
            return own.session(kept)
        return own.create(self.pairs, *self.models)

    def entered(self, visit: Visit) -> None:
        """A page was opened."""
        self._visits.append(visit)
        self._left.pop(visit.state.session.session_id, None)

    def left(self, visit: Visit) -> None:
        """A page is gone."""
        if visit in self._visits:
            self._visits.remove(visit)
            self._last[visit.name] = self._row(visit.name, visit.state)
        if not self._shown(visit.state.session):
            self._left[visit.state.session.session_id] = time.monotonic()

    def close_idle(self, idle: float = IDLE_SECONDS) -> int:
        """Close the sessions that no page has shown for so many seconds and that do nothing.

        Returns how many.
        """
        now = time.monotonic()
        over = [session_id for session_id, since in self._left.items() if now - since >= idle]
        closed = [session_id for session_id in over if self._closed(session_id)]
        for session_id in closed:
            del self._left[session_id]
        return len(closed)

    def _closed(self, session_id: str) -> bool:
        """Close a session unless it works; whether it is closed now."""
        if self.workspace.is_open(session_id):
            session = self.workspace.session(session_id)
            if session.status().state == "working":
                return False
            self.rules.forget(session)
            self.workspace.close_session(session_id)
        return True

    # What the instructor sees ------------------------------------------------------------

    def students(self) -> list[StudentRow]:
        """Every student of the roster."""
        return [self._student(seat) for seat in self.roster.seats]

    def opinions(self) -> list[PairRow]:
        """What the students made of each pair of the common set, those most changed first."""
        opinions = [self._opinion(seat) for seat in self.roster.seats if seat.session]
        found = [each for each in opinions if each is not None]
        edited = Counter(pair_id for each in found for pair_id in each)
        flipped = Counter(p for each in found for p, what in each.items() if what == "flipped")
        deleted = Counter(p for each in found for p, what in each.items() if what == "deleted")
        rows = [
            PairRow(
                pair.pair_id,
                pair.prompt_text,
                edited[pair.pair_id],
                flipped[pair.pair_id],
                len(found) - deleted[pair.pair_id],
            )
            for pair in self.pairs.pairs
        ]
        return sorted(rows, key=lambda row: -row.edited)

    def _student(self, seat: Seat) -> StudentRow:
        visits = [visit for visit in self._visits if visit.name == seat.name]
        here = [visit for visit in visits if visit.connected]
        if visits:
            self._last[seat.name] = self._row(seat.name, (here or visits)[-1].state, bool(here))
        known = self._last.get(seat.name)
        return known if known is not None else StudentRow(seat.name, seat.session)

    def _row(self, name: str, state: PageState, here: bool = False) -> StudentRow:
        session = state.session
        newest = session.store.history(1)
        return StudentRow(
            name=name,
            session=session.session_id,
            here=here,
            page=state.page,
            action=newest[0].label if newest else "",
            when=newest[0].time.astimezone(UTC) if newest else None,
            edits=session.store.revision,
            summary=state.tables.summary(state.settings),
        )

    def _opinion(self, seat: Seat) -> Mapping[str, str] | None:
        """What a student did to the common set; None while it is not known, or another is open."""
        known = self._opinions.get(seat.session)
        if known is not None and not self.workspace.is_open(seat.session):
            return known[1]
        try:
            session = self.workspace.session(seat.session)
        except DataError:
            return None
        if not self._shown(session):
            self._left.setdefault(seat.session, time.monotonic())
        if known is None or known[0] != session.store.revision:
            known = session.store.revision, deviations(self.pairs, session.store.pairs())
            self._opinions[seat.session] = known
        return known[1]

    def _shown(self, session: Session) -> bool:
        return any(visit.state.session is session for visit in self._visits)


def deviations(before: PreferenceSet, now: PreferenceSet) -> dict[str, str] | None:
    """What happened to each changed pair of a set, by id: edited, flipped or deleted.

    None where no pair of `before` is left: that is another set.
    """
    if not any(pair.pair_id in now for pair in before.pairs):
        return None
    standing = {pair.pair_id: pair for pair in now.pairs}
    return {
        pair.pair_id: _what_happened(pair, standing.get(pair.pair_id))
        for pair in before.pairs
        if standing.get(pair.pair_id) != pair
    }


def _what_happened(before: PreferencePair, now: PreferencePair | None) -> str:
    if now is None:
        return "deleted"
    crossed = now.chosen == before.rejected and now.rejected == before.chosen
    return "flipped" if crossed else "edited"


def distribution(rows: Sequence[StudentRow], quantity: str) -> list[tuple[str, float]]:
    """A quantity of every student of whom it is known, smallest first."""
    known = [(row.name, float(getattr(row.summary, quantity))) for row in rows if row.summary]
    return sorted((each for each in known if each[1] == each[1]), key=lambda each: each[1])

"""The scoring of one session on the shared worker, in turns and together with others' edits.

A session's edited pairs come first, in order of arrival among all sessions; then the rest, one
chunk a turn, so that no session waits for another's whole set. Where several sessions wait for
edited pairs under one model, their answers stand in one forward pass.
"""

import threading
import time
from collections.abc import Callable, Container, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.engine.board import ROLES, by_prompt
from workbench.engine.jobs import Job
from workbench.errors import Cancelled
from workbench.scoring.logprobs import Progress, Request, Scorer, SequenceScore
from workbench.scoring.store import fetch_scores

if TYPE_CHECKING:
    from workbench.engine.session import Session

URGENT, SCORING = 3, 5
"""Priorities of a scoring job on the worker: while edited pairs wait, and after."""
CHUNK = 16
"""Pairs of a turn at most."""
CHUNK_CHARS = 2000
"""Texts of a turn, about one row of the scorer: what another session's edit waits for at most."""
TOGETHER = 8
"""Answers of other sessions' edits that are scored along, about as many as one row holds."""


@dataclass(frozen=True)
class _Edited:
    """A session whose edited pairs wait for their scores."""

    session: "Session"
    job: Job
    pair_ids: tuple[str, ...]

    def missing(self, model: str) -> list[Request]:
        """What the session wants from a model for its edited pairs; nothing once it gave up."""
        if self.job.cancelled() or model not in self.session.models.values():
            return []
        pairs = self.session.store.pairs()
        wanted = [pairs[pair_id] for pair_id in self.pair_ids if pair_id in pairs]
        return self.session.board.missing(model, wanted)


class Waiting:
    """The sessions whose edited pairs wait, in order of arrival. Thread-safe."""

    def __init__(self) -> None:
        self._edited: dict[str, _Edited] = {}
        self._lock = threading.Lock()

    def add(self, session: "Session", job: Job, pair_ids: Sequence[str]) -> None:
        """Note that a session waits; one that waits already keeps its place."""
        with self._lock:
            self._edited[session.session_id] = _Edited(session, job, tuple(pair_ids))

    def remove(self, session: "Session", job: Job | None = None) -> None:
        """Forget a session; given a job, only while it is the one that is waited for."""
        with self._lock:
            known = self._edited.get(session.session_id)
            if known is not None and job in (None, known.job):
                del self._edited[session.session_id]

    def others(self, session: "Session") -> list[_Edited]:
        """Those who wait beside a session, the first first."""
        with self._lock:
            self._edited = {name: each for name, each in self._edited.items() if each.job.active}
            return [each for each in self._edited.values() if each.session is not session]


class ScoringRun:
    """One pass of the worker over what a session has not scored."""

    def __init__(self, session: "Session", job: Job) -> None:
        self._session = session
        self._job = job
        self._done = 0
        self._total = 0
        self._started = 0.0

    def run(self, first: Sequence[str]) -> Generator[None, None, None]:
        """Score what is missing, edited pairs first; gives its turn at each `yield`."""
        try:
            yield from self._turns(first)
        finally:
            self._session.hub.waiting.remove(self._session, self._job)

    def _turns(self, first: Sequence[str]) -> Generator[None, None, None]:
        models = list(dict.fromkeys(self._session.models[role] for role in ROLES))
        scorers = {model: self._session.scorer(model, self._job) for model in models}
        self._session.hub.pool.check_comparable(list(scorers.values()))
        board, whole = self._session.board, self._session.store.pairs()
        for model, scorer in scorers.items():
            self._recall(model, scorer, whole)
        edited, rest = _parted(by_prompt(board.unscored(whole), first), set(first))
        self._total = sum(board.count_missing(model, whole) for model in models)
        self._started = time.monotonic()
        for chunk in _chunks(edited):
            for model, scorer in scorers.items():
                self._score(model, scorer, chunk, self._session.hub.waiting.others(self._session))
            yield
        self._session.hub.waiting.remove(self._session, self._job)
        self._job.priority = SCORING
        for chunk in _chunks(rest):
            for model, scorer in scorers.items():
                self._score(model, scorer, chunk)
                yield

    def _recall(self, model: str, scorer: Scorer, pairs: PreferenceSet) -> None:
        """Take from the store at once what an earlier session scored.

        Once for each model: what is new later is looked up with its chunk.
        """
        if model in self._session.recalled:
            return
        board = self._session.board
        requests = board.missing(model, board.unscored(pairs))
        if found := self._session.hub.scores.lookup(scorer, requests):
            self._session.take(model, found)
        self._session.recalled.add(model)

    def _score(
        self,
        model: str,
        scorer: Scorer,
        pairs: Sequence[PreferencePair],
        others: Sequence[_Edited] = (),
    ) -> None:
        """Score what `pairs` lack under a model, and with it what others wait for."""
        self._job.check()
        own = self._session.board.missing(model, pairs)
        if not own:
            return
        batch = _Pass(model)
        batch.add(self._session, self._job, own)
        for each in others:
            if len(batch) < len(own) + TOGETHER:
                batch.add(each.session, each.job, each.missing(model)[:TOGETHER])
        try:
            batch.run(scorer, self._report)
        except Exception as error:
            if isinstance(error, Cancelled) or not batch.shared:
                raise
            # It may be another's text that cannot be scored; theirs to hear of.
            self._score(model, scorer, pairs)
            return
        self._done += len(own)
        self._report(0)

    def _report(self, inside: int, note: str = "") -> None:
        done = self._done + inside
        spent = time.monotonic() - self._started
        eta = spent / done * (self._total - done) if done else None
        words = f"scoring answers ({note})" if note else "scoring answers"
        self._job.report(done, self._total, words, eta)


class _Pass:
    """Answers that one or several sessions want from a model, scored in one go."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._takers: dict[Request, list[Session]] = {}
        self._jobs: list[Job] = []

    def __len__(self) -> int:
        return len(self._takers)

    @property
    def shared(self) -> bool:
        """Whether several sessions take part."""
        return len(self._jobs) > 1

    def add(self, session: "Session", job: Job, requests: Sequence[Request]) -> None:
        """Score these too, and give them to a session."""
        for request in requests:
            self._takers.setdefault(request, []).append(session)
        if requests:
            self._jobs.append(job)

    def run(self, scorer: Scorer, report: Callable[[int, str], None]) -> None:
        """Score; each session gets its scores as they come, and one that gave up does not count.

        Raises:
            Cancelled: all who take part gave up.
        """
        requests = list(self._takers)

        def progressed(progress: Progress) -> None:
            # The report of one who gave up would end the pass for the others.
            if not self.shared:
                report(progress.done, progress.note)

        fetch_scores(
            next(iter(self._takers.values()))[0].hub.scores,
            scorer,
            requests,
            on_progress=progressed,
            # Batch by batch, so that a cancelled job has shown all that it scored.
            on_partial=lambda part: self._give({requests[i]: score for i, score in part}),
            cancelled=lambda: all(job.cancelled() for job in self._jobs),
        )

    def _give(self, scores: dict[Request, SequenceScore]) -> None:
        theirs: dict[Session, dict[Request, SequenceScore]] = {}
        for request, score in scores.items():
            for session in self._takers[request]:
                theirs.setdefault(session, {})[request] = score
        for session, found in theirs.items():
            session.take(self._model, found)


def _parted(
    pairs: Sequence[PreferencePair], first: Container[str]
) -> tuple[Sequence[PreferencePair], Sequence[PreferencePair]]:
    """The edited pairs, which come first, apart from the rest, so that they show at once."""
    edited = sum(pair.pair_id in first for pair in pairs)
    return pairs[:edited], pairs[edited:]


def _chunks(pairs: Sequence[PreferencePair]) -> list[list[PreferencePair]]:
    """Parts of up to `CHUNK` pairs and `CHUNK_CHARS` characters, or one pair that is longer."""
    chunks: list[list[PreferencePair]] = []
    room = 0
    for pair in pairs:
        size = sum(map(len, (pair.prompt_text, pair.chosen_text, pair.rejected_text)))
        if not chunks or size > room or len(chunks[-1]) == CHUNK:
            chunks.append([])
            room = CHUNK_CHARS
        chunks[-1].append(pair)
        room -= size
    return chunks

"""One session: preference pairs and two models in, scores and their progress out.

A session is shared by every page that is open on it; what belongs to one page (settings,
selection) is not here. Text edits and new models are scored on the worker; everything else
is arithmetic on a `Snapshot`.
"""

import logging
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from workbench.data.edits import Edit
from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.data.store import PairStore
from workbench.engine.board import Role, ScoreBoard, requests_of
from workbench.engine.jobs import Job, JobRunner
from workbench.engine.pool import ModelPool
from workbench.engine.scoring_run import SCORING, URGENT, ScoringRun, Waiting
from workbench.engine.threads import one_thread
from workbench.engine.values import Candidates, PairScores, candidates_of
from workbench.scoring.logprobs import Request, Scorer, SequenceScore
from workbench.scoring.store import ScoreStore, fetch_scores

if TYPE_CHECKING:
    from workbench.engine.training import TrainingDesk

_KEPT_RESULTS = 64
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """Pairs and scores at one moment; equal `version` means equal content."""

    version: tuple[int, int]
    pairs: PreferenceSet
    scores: PairScores
    candidates: Candidates
    flags: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class ScoringStatus:
    """What the scoring job is doing, in words and numbers.

    Attributes:
        state: idle (all scored), working, failed or cancelled.
        done: Answers scored by a model since the job began, of `total`.
        note: What is going on, for example "fetching the default model".
        error: The failure's message; empty otherwise.
    """

    state: str
    done: int = 0
    total: int = 0
    note: str = ""
    eta_seconds: float | None = None
    error: str = ""


class Hub:
    """What all sessions of a process share: the worker, the loaded models, the score store.

    Args:
        scores: What models said before.
        pool: The loaded models.
        runner: The worker.
        slow: Another worker for slow questions and studies, where one person's must not keep
            others' edits waiting; the same worker when not given.
    """

    def __init__(
        self, scores: ScoreStore, pool: ModelPool, runner: JobRunner, slow: JobRunner | None = None
    ) -> None:
        self.scores = scores
        self.pool = pool
        self.runner = runner
        self.slow = slow or runner
        self.waiting = Waiting()

    def close(self) -> None:
        """Stop the workers and close the score store."""
        self.runner.close()
        if self.slow is not self.runner:
            self.slow.close()
        self.scores.close()


class Rules(Protocol):
    """What a session's user may do where others share the machine."""

    @property
    def upload_bytes(self) -> int:
        """Size of a file that may be opened."""
        ...

    def check_edits(self, session: "Session", edits: Sequence[Edit]) -> None:
        """Raise `DataError` where these edits are too many."""
        ...

    def check_training(self, session: "Session") -> None:
        """Raise `TrainingError` where training must not begin or go on now."""
        ...


class Session:
    """Preference pairs under two models, kept scored.

    Args:
        session_id: Name of the session in addresses and job channels.
        store: The journal of the pairs.
        hub: Worker, models and score store.
        policy: Model whose preferences are looked at.
        reference: Model it is compared with.

    Attributes:
        rules: What its user may do; None for everything.
    """

    def __init__(
        self, session_id: str, store: PairStore, hub: Hub, policy: str, reference: str
    ) -> None:
        self.session_id = session_id
        self.store = store
        self.hub = hub
        self.board = ScoreBoard(policy, reference)
        self._snapshot: Snapshot | None = None
        self._candidates: tuple[Any, Candidates] | None = None
        self._results: dict[Hashable, Any] = {}
        self._asked: set[str] = set()
        self.recalled: set[str] = set()
        self._urgent: dict[str, None] = {}
        self._training: TrainingDesk | None = None
        self.rules: Rules | None = None
        self._listeners: list[Callable[[], None]] = []
        self._lock = threading.RLock()

    # What is there -------------------------------------------------------------------

    @property
    def models(self) -> dict[Role, str]:
        """The names of policy and reference."""
        return self.board.models

    @property
    def version(self) -> tuple[int, int]:
        """Changes whenever pairs or scores do."""
        return self.store.revision, self.board.version

    def snapshot(self) -> Snapshot:
        """Pairs and scores as they stand now; the same object until something changes."""
        with self._lock:
            if self._snapshot is None or self._snapshot.version != self.version:
                # The version first: what changes meanwhile then shows as a newer one.
                version, pairs = self.version, self.store.pairs()
                with one_thread():
                    self._snapshot = Snapshot(
                        version,
                        pairs,
                        self.board.columns(pairs),
                        self._candidates_of(pairs),
                        self.board.flagged(pairs),
                    )
            return self._snapshot

    def status(self) -> ScoringStatus:
        """What the scoring job is doing now."""
        job = self.hub.runner.newest(self._channel("scores"))
        if job is None or job.status == "done":
            return ScoringStatus("idle")
        now = job.progress
        if job.status == "failed":
            error = str(job.error) or type(job.error).__name__
            return ScoringStatus("failed", now.done, now.total, error=error)
        state = "cancelled" if job.status == "cancelled" or job.cancelled() else "working"
        return ScoringStatus(state, now.done, now.total, now.note, now.eta_seconds)

    @property
    def training(self) -> "TrainingDesk":
        """Live training on the session's pairs; made when first asked for."""
        from workbench.engine.training import TrainingDesk

        with self._lock:
            if self._training is None:
                self._training = TrainingDesk(self)
            return self._training

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` (on any thread) after each change; returns how to stop that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    # What changes it -----------------------------------------------------------------

    def apply(self, edits: Sequence[Edit], label: str, author: str = "") -> int:
        """Write edits to the journal and score what they made new.

        Raises:
            DataError: an edit that does not fit the pairs, or that the rules refuse; nothing is
                changed then.
        """
        if self.rules is not None:
            self.rules.check_edits(self, edits)
        revision = self.store.apply(edits, label, author)
        self._changed([edit_target(edit) for edit in edits])
        return revision

    def undo(self) -> bool:
        """Take back the last change; False if there is none."""
        return self._moved(self.store.undo())

    def redo(self) -> bool:
        """Bring back the change last undone; False if there is none."""
        return self._moved(self.store.redo())

    def restore(self, version: int | str) -> None:
        """Return to an older revision or a named version, as one change that can be undone."""
        self.store.restore(version)
        self._changed([])

    def refresh(self) -> bool:
        """Take over what another process wrote to the journal, and score it; True if it did."""
        before = self.store.revision
        if not self.store.refresh():
            return False
        self._changed(sorted(self.store.changed_since(before) or ()))
        return True

    def use_models(self, *, policy: str | None = None, reference: str | None = None) -> None:
        """Put other models in place and score the pairs by them."""
        now = self.models
        self.board.use(policy=policy or now["policy"], reference=reference or now["reference"])
        self._results.clear()
        self._changed([])

    def score(self, first: Sequence[str] = ()) -> Job | None:
        """Score what is missing: pairs named `first`, those named before, then all others.

        Returns None when nothing is missing and no model is still to be loaded.
        """
        loaded = all(self.hub.pool.ready(model) for model in self.models.values())
        if loaded and not self.board.unscored(self.store.pairs()):
            self._urgent.clear()
            self.hub.waiting.remove(self)
            self.hub.runner.forget(self._channel("scores"))
            return None
        # A person waits for the scores of an edit, not for what was asked before it.
        for kind in list(self._asked):
            self.hub.slow.cancel(self._channel(kind))
        # A newer job supersedes this one; what it had not scored yet is not forgotten.
        missing = {pair.pair_id for pair in self.board.unscored(self.store.pairs())}
        before = [pair_id for pair_id in self._urgent if pair_id in missing]
        self._urgent = dict.fromkeys([*first, *before])
        urgent = list(self._urgent)
        if not before:
            self.hub.waiting.remove(self)
        job = self.hub.runner.submit(
            "scoring",
            self._channel("scores"),
            lambda job: ScoringRun(self, job).run(urgent),
            on_done=self._scored,
            priority=URGENT if urgent else SCORING,
            keep_place=bool(before),
        )
        if urgent:
            self.hub.waiting.add(self, job, urgent)
        return job

    def cancel(self) -> None:
        """Stop scoring; what is scored stays."""
        self.hub.runner.cancel(self._channel("scores"))

    # Slow questions about one pair or set ---------------------------------------------

    def ask(self, kind: str, key: Hashable, work: Callable[[Job], Any]) -> Any:  # noqa: ANN401
        """The answer to a slow question if it is known, else None while the worker finds it.

        A newer question of the same kind supersedes the older one. A failure is answered by
        the exception itself, so that the page can show it.
        """
        if (kind, key) in self._results:
            return self._results[kind, key]
        job = self.hub.slow.newest(self._channel(kind))
        if job is not None and job.active and job.name == repr(key) and not job.cancelled():
            return None
        self._asked.add(kind)
        self.hub.slow.submit(
            repr(key), self._channel(kind), work, on_done=lambda job: self._answered(kind, key, job)
        )
        return None

    def progress(self, kind: str) -> Job | None:
        """The newest job of a kind of slow question."""
        return self.hub.slow.newest(self._channel(kind))

    def scorer(self, model: str, job: Job) -> Scorer:
        """A model ready to score, loaded if need be; for jobs on the worker."""
        return self.hub.pool.scorer(model, job.report, job.cancelled)

    def sequence_scores(self, pair: PreferencePair) -> dict[Role, list[SequenceScore]] | None:
        """Per-token log-probabilities of chosen and rejected, or None while they are missing."""
        requests = requests_of(pair)
        scores: dict[Role, list[SequenceScore]] = {}
        for role, model in self.models.items():
            scorer = self.hub.pool.ready(model)
            if scorer is None or self.board.missing(model, [pair]):
                return None
            scores[role] = fetch_scores(self.hub.scores, scorer, requests)
        return scores

    def close(self) -> None:
        """Stop this session's jobs; its journal stays on disk."""
        if self._training is not None:
            self._training.close()
        self.hub.waiting.remove(self)
        self.hub.runner.forget(self._channel("scores"))
        for kind in self._asked:
            self.hub.slow.forget(self._channel(kind))
        self.store.close()

    # Inside ---------------------------------------------------------------------------

    def take(self, model: str, scores: dict[Request, SequenceScore]) -> None:
        """Take in scores from the worker and say so."""
        self.board.put(model, scores)
        self._announce()

    def _channel(self, kind: str) -> str:
        return f"{self.session_id}/{kind}"

    def _candidates_of(self, pairs: PreferenceSet) -> Candidates:
        answers = self.board.answers(pairs)
        if self._candidates is None or self._candidates[0] is not answers:
            self._candidates = answers, candidates_of(pairs.prompt_groups(), *answers.T)
        return self._candidates[1]

    def _scored(self, job: Job) -> None:
        if job.status == "done":
            self._urgent.clear()
        self._announce()

    def _moved(self, revision: int | None) -> bool:
        if revision is None:
            return False
        self._changed([])
        return True

    def _changed(self, first: Sequence[str]) -> None:
        self.score(first)
        self._announce()

    def _answered(self, kind: str, key: Hashable, job: Job) -> None:
        if job.status in ("done", "failed"):
            self._results[kind, key] = job.result if job.status == "done" else job.error
            while len(self._results) > _KEPT_RESULTS:
                self._results.pop(next(iter(self._results)))
        self._announce()

    def _announce(self) -> None:
        for listener in list(self._listeners):
            try:
                listener()
            except Exception:
                # One page's trouble must neither fail the edit nor keep it from the others.
                _log.exception("a listener of session %s failed", self.session_id)


def edit_target(edit: Edit) -> str:
    """The id of the pair that an edit changes."""
    pair = getattr(edit, "pair", None)
    return str(pair.pair_id if pair is not None else edit.pair_id)  # type: ignore[union-attr]

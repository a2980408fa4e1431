"""Live training on a session's pairs: play, pause, step, rewind, branch, compare.

One `TrainingDesk` for each session, shared by every page that is open on it. Steps run on the
session's one worker, one slice at a time, so that a pause is answered within one step and the
scoring of an edited pair gets its turn between two steps. A page polls `version`, which grows with
every change, and reads `status` and `branches`; nothing here waits for the worker except `rewind`,
`branch` and `use`, which wait for the step in progress at most.
"""

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from workbench.data.pairs import PreferencePair, PreferenceSet, Text, plain
from workbench.engine.jobs import Job, JobProgress
from workbench.engine.training_setup import (
    TrainingSetup,
    check_setup,
    make_policy,
    setup_from_json,
    setup_to_json,
    split,
)
from workbench.errors import Cancelled, TrainingError
from workbench.training.capabilities import SavedPolicy, WritingPolicy
from workbench.training.history import CHUNK, PairEvaluation, StepRecord, evaluate
from workbench.training.plan import TrainingPlan
from workbench.training.reading import weights_of
from workbench.training.snapshots import RunStore, Snapshot, SnapshotRing
from workbench.training.trainer import Trainer

if TYPE_CHECKING:
    from workbench.engine.session import Session

__all__ = ["Branch", "Point", "Sample", "TrainingDesk", "TrainingSetup", "TrainingStatus"]

Phase = Literal["empty", "preparing", "ready", "playing", "paused", "failed", "done"]
SLICE = 0.2
"""Seconds of quick steps after which others of the worker get their turn."""
SAVE_EVERY = 5.0
"""Seconds between two writings to the disk while steps are taken."""
MOST_HELD_OUT = 64
"""Held-out pairs that are looked at while training; the rest is only left out of it."""
PRIORITY = 20
"""Of a slice, behind all that a person waits for."""
_EVALUATION, _SAMPLE = "training evaluation", "training sample"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingStatus:
    """What the desk is doing.

    Attributes:
        phase: empty (no run), preparing (reading model and pairs), ready (at step 0), playing,
            paused, failed (`error` says why; the last good step is in place), done (it stopped
            by itself; `note` says why).
        step: Steps behind the weights that are in place, of the active branch.
        note: What is going on, in words.
        done: Of `total`, while preparing or playing up to a given step; 0 of 0 elsewhere.
        error: The failure's message.
        train_pairs: Pairs that are trained on.
        held_out_pairs: Pairs that are only measured.
        left_out: Why a pair is not trained on, by its id.
    """

    phase: Phase = "empty"
    step: int = 0
    note: str = ""
    done: int = 0
    total: int = 0
    error: str = ""
    train_pairs: int = 0
    held_out_pairs: int = 0
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Branch:
    """One line of steps.

    Attributes:
        branch_id: Stable name, "b1" for the first.
        name: For a person.
        parent: Id of the branch that it left; None for the first.
        forked_at: Step at which it left; 0 for the first.
        plan: As it is now.
        records: Of its own steps, which begin after `forked_at`; those before are the parent's.
        kept: Steps whose weights are kept, in order, `forked_at` among them: what can be
            rewound to, evaluated, sampled and saved.
        step: Its newest step.
    """

    branch_id: str
    name: str
    parent: str | None
    forked_at: int
    plan: TrainingPlan
    records: tuple[StepRecord, ...]
    kept: tuple[int, ...]
    step: int


@dataclass(frozen=True)
class Point:
    """A step of a branch."""

    branch_id: str
    step: int

    @property
    def key(self) -> tuple[str, int]:
        """As the snapshots are kept by."""
        return self.branch_id, self.step


@dataclass(frozen=True)
class Sample:
    """What a policy writes to a prompt at one step, and what its starting weights wrote."""

    prompt: str
    before: str
    after: str


class TrainingDesk:
    """Trains on a session's pairs as they are, whoever edits them meanwhile.

    Args:
        session: Its pairs are trained on; its worker does the work. Runs are kept in its folder.
    """

    def __init__(self, session: "Session") -> None:
        self.session = session
        path = session.store.path
        self._store = None if path is None else RunStore(path.parent / "training")
        self._lock = threading.RLock()  # the fields below, never held for long
        self._hands = threading.RLock()  # policy and trainer, held for a step; taken first
        self._version = 0
        self._runs = 0
        self._forget()

    def _forget(self) -> None:
        """Be as without a run."""
        self._setup: TrainingSetup | None = None
        self._began = 0
        self._trainer: Trainer | None = None
        self._seen: PreferenceSet | None = None
        self._held_out: frozenset[str] = frozenset()
        self._lines: dict[str, _Line] = {}
        self._ring = SnapshotRing()
        self._place = Point("", 0)
        self._plan = TrainingPlan()
        self._pending: TrainingPlan | None = None
        self._playing = False
        self._until: int | None = None
        self._from = 0
        self._error = self._note = ""
        self._finished = False
        self._saved = time.monotonic()
        self._views: tuple[int, tuple[Branch, ...]] = -1, ()

    # What is there -------------------------------------------------------------------

    @property
    def version(self) -> int:
        """Grows with every change of what the properties below give."""
        return self._version

    @property
    def setup(self) -> TrainingSetup | None:
        """What the run began with; None without a run."""
        return self._setup

    @property
    def status(self) -> TrainingStatus:
        """What the desk is doing."""
        with self._lock:
            phase = self._phase()
            trainer, step = self._trainer, self._place.step
            done, total, note = 0, 0, self._note
            if phase == "preparing":
                job = self._newest()
                now = job.progress if job else JobProgress()
                done, total, note = now.done, now.total, now.note or "preparing"
            elif phase == "playing" and self._until is not None:
                done, total = step - self._from, self._until - self._from
            return TrainingStatus(
                phase=phase,
                step=step,
                note=note,
                done=done,
                total=total,
                error=self._error,
                train_pairs=len(trainer.pairs) if trainer else 0,
                held_out_pairs=len(trainer.held_out) if trainer else 0,
                left_out=dict(trainer.left_out) if trainer else {},
            )

    @property
    def branches(self) -> tuple[Branch, ...]:
        """All branches in the order of their making."""
        with self._lock:
            if self._views[0] != self._version:
                self._views = self._version, tuple(map(self._view, self._lines.values()))
            return self._views[1]

    @property
    def active(self) -> Branch | None:
        """The branch whose weights are in place; None without a run."""
        return next((b for b in self.branches if b.branch_id == self._place.branch_id), None)

    def history(self, branch_id: str) -> tuple[StepRecord, ...]:
        """The records of a branch from step 1, those of its ancestors first.

        Raises:
            TrainingError: no such branch.
        """
        with self._lock:
            line = self._line(branch_id)
            before: tuple[StepRecord, ...] = ()
            if line.parent is not None:
                before = tuple(r for r in self.history(line.parent) if r.step <= line.forked_at)
            return (*before, *line.records)

    @property
    def held_out(self) -> frozenset[str]:
        """Ids of the pairs that are never trained on."""
        return self._held_out

    # A run ----------------------------------------------------------------------------

    def start(self, setup: TrainingSetup) -> None:
        """Begin a new run at step 0 in place of the present one; model and pairs are read.

        The phase is "preparing", then "ready" (or "failed").

        Raises:
            TrainingError: a setup that cannot work, a session whose rules do not let it train
                now, or a folder that cannot be written; the present run stays but in the last case.
        """
        check_setup(setup)
        self._ask_leave()
        self._halt()
        with self._hands, self._lock:
            if self._store is not None:
                self._store.clear()
            self._forget()
            self._runs += 1
            self._setup, self._plan = setup, setup.plan
            self._began = self.session.store.revision
            self._lines["b1"] = _Line("b1", "run", None, 0, setup.plan)
            self._place = Point("b1", 0)
            self._go()

    def play(self, until: int | None = None) -> None:
        """Take steps until paused, or up to step `until`.

        Raises:
            TrainingError: no run, or the session's rules do not let it train now.
        """
        self._require()
        self._ask_leave()
        with self._lock:
            if until is not None and until <= self._place.step:
                raise TrainingError(
                    f"Step {until} is behind step {self._place.step}; rewind to it, or give a "
                    "later one."
                )
            self._error, self._note, self._finished = "", "", False
            self._until, self._from, self._playing = until, self._place.step, True
            self._go()

    def pause(self) -> None:
        """Stop before the next step; one that has not changed the weights yet is dropped."""
        with self._lock:
            if self._playing:
                self._playing = False
                self._changed()

    def step(self) -> None:
        """Take one step.

        Raises:
            TrainingError: no run.
        """
        self.play(until=self._place.step + 1)

    def stop(self) -> None:
        """End the run and forget it, on the disk too; the phase is "empty" then."""
        self._halt()
        with self._hands, self._lock:
            if self._store is not None:
                self._store.clear()
            self._forget()
            self._changed()

    def change(self, **fields: Any) -> None:  # noqa: ANN401 - fields of a plan, hyperparameters
        """Change the plan from the next step on, which is marked: `change(beta=0.5)`.

        While a step is in progress the check against the pairs waits for the next one; if the
        plan does not fit them, the run stops there and says so, and the plan is as before.

        Args:
            fields: Fields of `TrainingPlan`, or the objective's hyperparameters by name.

        Raises:
            TrainingError: no run, or something that does not fit; nothing is changed then.
        """
        self._require()
        with self._lock:
            plan = self._plan.replaced(**fields)
            self._plan = self._pending = plan
            self._finished = False
            self._changed()
        if self._hands.acquire(blocking=False):
            try:
                self._follow_plan()
            finally:
                self._hands.release()

    # Time travel ----------------------------------------------------------------------

    def rewind(self, step: int, branch_id: str | None = None) -> None:
        """Put the weights of a kept step in place; a run that plays is paused.

        Nothing is lost: steps taken from there while later ones exist make a new branch.

        Args:
            step: One of the branch's `kept`.
            branch_id: The active branch if left out.

        Raises:
            TrainingError: no run, no such branch, or the step is not kept.
        """
        self._require()
        place = Point(branch_id or self._place.branch_id, step)
        self._line(place.branch_id)
        self._ring.get(*place.key)
        self._interrupt()
        with self._hands, self._lock:
            self._put(place)
            self._error = self._note = ""
            self._finished = False
            self._changed()

    def branch(self, name: str = "") -> str:
        """Begin a new branch at the weights in place and make it the active one; returns its id.

        Raises:
            TrainingError: no run, or one whose first step is still being prepared.
        """
        self._require()
        self._interrupt()
        with self._hands, self._lock:
            snapshot = self._ring.get(*self._place.key)
            self._fork(snapshot, name)
            self._changed()
            return self._place.branch_id

    def use(self, branch_id: str) -> None:
        """Put a branch's newest step in place.

        Raises:
            TrainingError: no such branch.
        """
        self._require()
        self.rewind(self._line(branch_id).step, branch_id)

    def rename(self, branch_id: str, name: str) -> None:
        """Give a branch another name.

        Raises:
            TrainingError: no such branch.
        """
        with self._lock:
            self._line(branch_id).name = name
            self._changed()

    # Looking closely --------------------------------------------------------------------

    def evaluate(self, branch_id: str, step: int) -> PairEvaluation | Exception | None:
        """What a kept step makes of every pair, held-out ones included.

        None while the worker finds it (`evaluating` tells how far), the exception where it
        failed. The pairs are those of the session now, the reference is what training began with.
        Ask for two steps by `compare`: a second question of this kind supersedes the first.
        """
        found = self._ask_about([Point(branch_id, step)])
        return found[0] if isinstance(found, tuple) else found

    def compare(
        self, first: Point, second: Point
    ) -> tuple[PairEvaluation, PairEvaluation] | Exception | None:
        """Two kept steps pair by pair, of one branch or two; None while the worker finds it."""
        found = self._ask_about([first, second])
        return (found[0], found[1]) if isinstance(found, tuple) else found

    @property
    def evaluating(self) -> tuple[int, int, str]:
        """(done, total, note) of the newest evaluation or sample; total 0 when idle."""
        for kind in (_EVALUATION, _SAMPLE):
            job = self.session.progress(kind)
            if job is not None and job.active:
                return job.progress.done, max(job.progress.total, 1), job.progress.note
        return 0, 0, ""

    def sample(
        self,
        branch_id: str,
        step: int,
        prompts: Sequence[Text],
        *,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
    ) -> tuple[Sample, ...] | Exception | None:
        """What a kept step writes to prompts beside what step 0 wrote; None until it is known."""
        point = Point(branch_id, step)
        key = (self._runs, point, tuple(prompts), max_new_tokens, temperature)
        return cast(
            tuple[Sample, ...] | Exception | None,
            self.session.ask(
                _SAMPLE,
                key,
                lambda job: self._samples(job, point, prompts, max_new_tokens, temperature),
            ),
        )

    # Out and in -------------------------------------------------------------------------

    def save_policy(self, branch_id: str, step: int, folder: Path) -> str:
        """Write a kept step as an adapter folder; returns the name for the model picker.

        A run that trains the blocks' own weights writes a whole model folder.

        Raises:
            TrainingError: no such step, not a language model, or the folder cannot be written.
        """
        snapshot = self._ring.get(branch_id, step)
        self._interrupt()
        with self._hands:
            trainer = self._loaded()
            if not isinstance(trainer.policy, SavedPolicy):
                raise TrainingError(
                    f"{trainer.policy.name} has no form in which it could be used elsewhere; "
                    "only language models are saved."
                )
            with weights_of(trainer.policy, snapshot.weights):
                return trainer.policy.save(folder)

    @property
    def resumable(self) -> bool:
        """Whether an earlier process left a run here that `resume` would take up."""
        return self._setup is None and self._store is not None and self._store.exists

    def resume(self) -> None:
        """Take up the run that an earlier process left, paused at its last stored step.

        Branches and records are there when this returns; the model is read by the worker.

        Raises:
            TrainingError: there is none, or its files cannot be read.
        """
        if not self.resumable or self._store is None:
            raise TrainingError("No run was left here that could be resumed; start one.")
        run, snapshots = self._store.read()
        with self._hands, self._lock:
            self._forget()
            self._runs += 1
            try:
                self._recall(run, snapshots)
            except (KeyError, TypeError, ValueError, TrainingError) as error:
                self._forget()
                raise TrainingError(
                    f"The stored run cannot be read ({error}); start a new one."
                ) from error
            self._go()

    def close(self) -> None:
        """Stop working and store where the run is; called when the session ends."""
        self._halt()
        self._save()

    # On the worker ------------------------------------------------------------------------

    def _slice(self, job: Job) -> None:
        """Get ready if need be, and take a step or some quick ones; the rest comes later."""
        try:
            self._prepare(job)
            until = time.monotonic() + SLICE
            while self._playing and time.monotonic() < until:
                self._take_step(job)
        except Cancelled:
            raise
        except Exception as error:
            # Whatever went wrong belongs on the page, and the last good step in place.
            job.check()
            self._fail(error)

    def _prepare(self, job: Job) -> None:
        """Load the policy, read the pairs, and put the present place's weights in, once."""
        setup = self._setup
        if setup is None or self._trainer is not None:
            return
        job.report(0, 0, "loading the policy")
        policy = make_policy(setup, self.session, self._began, job)
        job.report(0, 0, "reading the pairs")
        pairs = self.session.store.pairs()
        train, held = self._parts(pairs)
        trainer = Trainer(policy, train, setup.plan, held)
        policy.prepare(
            trainer.held_out,
            on_pair=lambda done, total: self._tell(job, done, total, "reading held-out pairs"),
            cancelled=job.cancelled,
        )
        with self._hands, self._lock:
            job.check()
            self._trainer, self._seen = trainer, pairs
            if not self._ring.steps(self._place.branch_id):
                self._ring.add(self._place.branch_id, trainer.snapshot())
            pending = self._pending
            self._put(self._place)
            if pending is not None:
                self._plan = self._pending = pending
            self._changed()
        self._save()

    def _take_step(self, job: Job) -> None:
        with self._hands:
            job.check()
            trainer = self._loaded()
            self._follow_pairs()
            self._follow_plan()
            try:
                record = trainer.step(lambda: job.cancelled() or not self._playing)
            except Cancelled:
                job.check()
                return
            snapshot = trainer.snapshot()
            with self._lock:
                self._took(record, snapshot, trainer.finished)
            if time.monotonic() - self._saved > SAVE_EVERY:
                self._save()

    def _took(self, record: StepRecord, snapshot: Snapshot, finished: str) -> None:
        """Write down a step; one that leaves a line's middle begins a new branch."""
        line = self._lines[self._place.branch_id]
        if line.step > record.step - 1:
            self._fork(self._ring.get(line.branch_id, record.step - 1))
            line = self._lines[self._place.branch_id]
        line.records.append(record)
        line.step, line.plan = record.step, snapshot.plan
        self._ring.add(line.branch_id, snapshot)
        self._place = Point(line.branch_id, record.step)
        if finished:
            self._finished, self._note = True, finished
        if finished or (self._until is not None and record.step >= self._until):
            self._playing = False
        self._changed()

    def _follow_pairs(self) -> None:
        """Train on the session's pairs as they are now."""
        pairs = self.session.store.pairs()
        if pairs is not self._seen:
            self._loaded().use_pairs(*self._parts(pairs))
            self._seen = pairs

    def _follow_plan(self) -> None:
        """Put a changed plan in place; if it does not fit, keep the one before.

        Raises:
            TrainingError: it does not fit.
        """
        trainer = self._trainer
        with self._lock:
            plan, self._pending = self._pending, None
        if plan is None or trainer is None or plan == trainer.plan:
            return
        try:
            trainer.change(plan)
        except TrainingError:
            with self._lock:
                self._plan = trainer.plan
                self._changed()
            raise

    def _parts(self, pairs: PreferenceSet) -> tuple[list[PreferencePair], list[PreferencePair]]:
        """Pairs to train on, and those of held-out prompts that are looked at now and then."""
        setup = self._setup or TrainingSetup()
        train, held = split(pairs, setup.held_out, setup.plan.seed)
        self._held_out = frozenset(pair.pair_id for pair in held)
        return train, held[:MOST_HELD_OUT]

    def _fail(self, error: Exception) -> None:
        _log.debug("training of session %s failed", self.session.session_id, exc_info=error)
        with self._hands, self._lock:
            self._playing = False
            self._error = str(error) or type(error).__name__
            if self._trainer is not None:
                with suppress(TrainingError):
                    self._put(self._place)
            self._changed()

    def _after(self, job: Job) -> None:
        """The end of a slice: go on, or store where the run is."""
        with self._lock:
            if self._playing and self._setup is not None:
                self._go(again=True)
                return
        self._save()
        self._changed()

    # For slow questions of others, on the worker --------------------------------------------

    @contextmanager
    def borrowed(self, job: Job) -> Iterator[Trainer]:
        """The trainer, for one pair or so: steps and rewinds wait until it is given back.

        Whoever changes its weights puts them back.

        Raises:
            TrainingError: no run.
        """
        self._require()
        self._prepare(job)
        with self._hands:
            yield self._loaded()

    def kept(self, point: Point) -> Snapshot:
        """Where training stood at a kept step.

        Raises:
            TrainingError: the step is not kept.
        """
        return self._ring.get(*point.key)

    # Inside -------------------------------------------------------------------------------

    def _ask_about(self, points: Sequence[Point]) -> tuple[PairEvaluation, ...] | Exception | None:
        pairs = self.session.store.pairs()
        key = (self._runs, tuple(points), self.session.store.revision)
        return cast(
            tuple[PairEvaluation, ...] | Exception | None,
            self.session.ask(_EVALUATION, key, lambda job: self._evaluated(job, points, pairs)),
        )

    def _evaluated(
        self, job: Job, points: Sequence[Point], pairs: PreferenceSet
    ) -> tuple[PairEvaluation, ...]:
        """Evaluate on the worker, a few pairs at a time, so that a rewind need not wait."""
        self._prepare(job)
        snapshots = [self._ring.get(*point.key) for point in points]
        found: list[list[PairEvaluation]] = [[] for _ in points]
        for start in range(0, len(pairs), CHUNK):
            job.report(start, len(pairs), "scoring pairs")
            part = pairs.pairs[start : start + CHUNK]
            policy = self._loaded().policy
            policy.prepare(part, cancelled=job.cancelled)
            for place, snapshot in enumerate(snapshots):
                with self._hands, weights_of(policy, snapshot.weights):
                    found[place].append(evaluate(policy, part, snapshot.plan.beta))
        return tuple(PairEvaluation.joined(parts) for parts in found)

    def _samples(
        self,
        job: Job,
        point: Point,
        prompts: Sequence[Text],
        max_new_tokens: int,
        temperature: float,
    ) -> tuple[Sample, ...]:
        self._prepare(job)
        snapshot, policy = self._ring.get(*point.key), self._loaded().policy
        if not isinstance(policy, WritingPolicy):
            raise TrainingError(f"{policy.name} writes no texts.")
        found = []
        for done, prompt in enumerate(prompts):
            job.report(done, len(prompts), "writing answers")
            options: dict[str, Any] = {
                "max_new_tokens": max_new_tokens,
                "temperature": temperature,
                "seed": 0,
                "cancelled": job.cancelled,
            }
            with self._hands, weights_of(policy, snapshot.weights):
                before = policy.write(prompt, reference=True, **options)
                after = policy.write(prompt, reference=False, **options)
            found.append(Sample(plain(prompt), before, after))
        return tuple(found)

    def _put(self, place: Point) -> None:
        """Put a kept step in place; what was to change in the plan is forgotten."""
        snapshot = self._ring.get(*place.key)
        if self._trainer is not None:
            self._trainer.restore(snapshot)
        self._place, self._plan, self._pending = place, snapshot.plan, None

    def _fork(self, snapshot: Snapshot, name: str = "") -> None:
        """A new branch at a step of the active one."""
        old, number = self._place.branch_id, len(self._lines) + 1
        new = f"b{number}"
        self._lines[new] = _Line(new, name or f"branch {number}", old, snapshot.step, snapshot.plan)
        self._ring.pin(old, snapshot.step)
        self._ring.add(new, snapshot)
        self._place = Point(new, snapshot.step)

    def _phase(self) -> Phase:
        if self._setup is None:
            return "empty"
        if self._error:
            return "failed"
        job = self._newest()
        if self._trainer is None and job is not None and job.active:
            return "preparing"
        if self._playing:
            return "playing"
        if self._finished:
            return "done"
        return "paused" if self._place.step else "ready"

    def _view(self, line: "_Line") -> Branch:
        here = line.branch_id == self._place.branch_id
        return Branch(
            branch_id=line.branch_id,
            name=line.name,
            parent=line.parent,
            forked_at=line.forked_at,
            plan=self._plan if here else line.plan,
            records=tuple(line.records),
            kept=self._ring.steps(line.branch_id),
            step=line.step,
        )

    def _line(self, branch_id: str) -> "_Line":
        line = self._lines.get(branch_id)
        if line is None:
            raise TrainingError(
                f"There is no branch {branch_id[:60]!r}; there are "
                f"{', '.join(self._lines) or 'none'}."
            )
        return line

    def _require(self) -> None:
        if self._setup is None:
            raise TrainingError("There is no training run; start one.")

    def _ask_leave(self) -> None:
        if self.session.rules is not None:
            self.session.rules.check_training(self.session)

    def _loaded(self) -> Trainer:
        if self._trainer is None:
            raise TrainingError("The policy is still being loaded; try again in a moment.")
        return self._trainer

    def _channel(self) -> str:
        return f"{self.session.session_id}/training"

    def _newest(self) -> Job | None:
        return self.session.hub.runner.newest(self._channel())

    def _go(self, again: bool = False) -> None:
        """Queue a slice unless one is queued or running, whose end then goes on by itself."""
        job = self._newest()
        if again or job is None or not job.active or job.cancelled():
            self.session.hub.runner.submit(
                "training", self._channel(), self._slice, on_done=self._after, priority=PRIORITY
            )
        self._changed()

    def _interrupt(self) -> None:
        """Let a step or a sample in progress give way."""
        self.pause()
        job = self.session.progress(_SAMPLE)
        if job is not None:
            job.cancel()

    def _halt(self) -> None:
        self._interrupt()
        self.session.hub.runner.forget(self._channel())

    def _tell(self, job: Job, done: int, total: int, note: str) -> None:
        job.report(done, total, note)
        self._changed()

    def _changed(self) -> None:
        self._version += 1

    def _save(self) -> None:
        """Store the run; trouble with the disk is told and does not stop the training."""
        with self._hands, self._lock:
            kept = self._ring.pinned
            if self._store is None or self._setup is None or not kept:
                return
            kept[self._place.key] = self._ring.get(*self._place.key)
            run = {
                "setup": setup_to_json(self._setup),
                "began": self._began,
                "branches": [line.to_json() for line in self._lines.values()],
                "place": [self._place.branch_id, self._place.step],
            }
            try:
                self._store.write(run, kept)
            except TrainingError as error:
                self._note = str(error)
            self._saved = time.monotonic()

    def _recall(
        self, run: Mapping[str, Any], snapshots: Mapping[tuple[str, int], Snapshot]
    ) -> None:
        self._setup = setup_from_json(run["setup"])
        self._began = int(run["began"])
        lines = [_Line.from_json(record) for record in run["branches"]]
        self._lines = {line.branch_id: line for line in lines}
        for key, snapshot in snapshots.items():
            self._ring.add(key[0], snapshot)
        for line in lines:
            if line.parent is not None:
                self._ring.pin(line.parent, line.forked_at)
        branch, step = run["place"]
        self._put(Point(self._line(str(branch)).branch_id, int(step)))


@dataclass
class _Line:
    """A branch as it grows."""

    branch_id: str
    name: str
    parent: str | None
    forked_at: int
    plan: TrainingPlan
    records: list[StepRecord] = field(default_factory=list)
    step: int = -1

    def __post_init__(self) -> None:
        self.step = max(self.step, self.forked_at)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "id": self.branch_id,
            "name": self.name,
            "parent": self.parent,
            "forked_at": self.forked_at,
            "plan": self.plan.to_json(),
            "records": [record.to_json() for record in self.records],
            "step": self.step,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "_Line":
        """Read back `to_json`."""
        parent = found["parent"]
        return cls(
            branch_id=str(found["id"]),
            name=str(found["name"]),
            parent=None if parent is None else str(parent),
            forked_at=int(found["forked_at"]),
            plan=TrainingPlan.from_json(found["plan"]),
            records=[StepRecord.from_json(record) for record in found["records"]],
            step=int(found["step"]),
        )

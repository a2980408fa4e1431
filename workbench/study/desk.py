"""A study at work for a page or a notebook: fits as jobs, measurements at once.

The fits of the last run stay in memory, so that moving a measure knob only measures again, on the
thread that asks. Everything slow is a job of one channel on a `workbench.engine.jobs.JobRunner`:
a newer run supersedes an older one, and what was fitted is kept in the run store.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from workbench.engine.jobs import Job, JobRunner
from workbench.engine.threads import one_thread
from workbench.errors import WorkbenchError
from workbench.study.base import Study
from workbench.study.context import Input
from workbench.study.knobs import knob_values, with_knobs
from workbench.study.runner import (
    Conditions,
    SeedFit,
    StudyReport,
    check_controls,
    fit_seeds,
    measure_fits,
)
from workbench.study.runs import RunStore, input_digest
from workbench.study.verdicts import VerdictBook

_STEPS = 1000
_PRIORITY = 20
"""After what a person edits, which waits for numbers that are half a second away."""


@dataclass(frozen=True)
class Order:
    """What to run.

    Attributes:
        params: The knobs.
        seeds: The seeds, at least one.
        inputs: Inputs that replace the study's own, by name.
        device: Where torch computes.
    """

    params: Any
    seeds: tuple[int, ...] = (0,)
    inputs: Mapping[str, Input] = field(default_factory=dict)
    device: str = "cpu"

    @property
    def fit(self) -> tuple[object, ...]:
        """What the fits follow from; equal for orders that differ in measure knobs alone."""
        knobs = tuple(knob_values(self.params, "fit").items())
        inputs = tuple(sorted((name, input_digest(each)) for name, each in self.inputs.items()))
        return knobs, self.seeds, inputs, self.device


@dataclass(frozen=True)
class Finished:
    """The last run: what was ordered, the fits in memory, and what was read off them."""

    order: Order
    fits: tuple[SeedFit, ...]
    report: StudyReport


class StudyDesk:
    """Runs one study for one page or notebook.

    Args:
        study: The study.
        runner: The worker.
        channel: Names this desk's jobs; no other desk may use it.
        store: Where fits are kept.
        told: Called on the worker's thread whenever a job reports or ends.

    Attributes:
        finished: The last run that came to its end, None before.
        problem: Why the last run, or the last measurement, failed; "" where it did not.
        version: Grows whenever `finished` or `problem` changes.
    """

    def __init__(
        self,
        study: Study[Any, Any],
        runner: JobRunner,
        channel: str,
        store: RunStore,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        self.study = study
        self.finished: Finished | None = None
        self.problem = ""
        self.version = 0
        self._runner = runner
        self._channel = channel
        self._store = store
        self._told = told
        self._book = VerdictBook(store.root)

    @property
    def job(self) -> Job | None:
        """The newest run."""
        return self._runner.newest(self._channel)

    @property
    def busy(self) -> bool:
        """Whether a run waits or is under way."""
        return self.job is not None and self.job.active and not self.job.cancelled()

    @property
    def badge(self) -> str:
        """The study's verdict so far; see `workbench.study.verdicts`."""
        return self._book.badge(self.study)

    def is_fitted(self, order: Order) -> bool:
        """Whether the fits in memory are those of an order."""
        return self.finished is not None and self.finished.order.fit == order.fit

    def is_kept(self, order: Order) -> bool:
        """Whether the run store has every fit of an order, so that a run only reads them."""
        conditions = self._conditions(order)
        keys = (conditions.key(self.study, order.params, seed) for seed in order.seeds)
        return all(self._store.holds(key) for key in keys)

    def run(self, order: Order, controls: bool = False) -> Job:
        """Fit what is not fitted yet, measure and judge, as a job.

        Args:
            order: What to run.
            controls: Also run every sabotaged variant.

        Raises:
            StudyError: a knob out of range, or no seeds.
        """
        order = replace(order, params=with_knobs(order.params, {}))
        self._conditions(order)
        return self._runner.submit(
            self.study.title,
            self._channel,
            lambda job: self._performed(order, controls, job),
            on_done=self._ended,
            priority=_PRIORITY,
        )

    def measure(self, params: object) -> bool:
        """Measure the fits in memory under other measure knobs, at once.

        Returns whether it was done: False where there are no fits of these fit knobs, or where
        measuring failed (`problem` says how). Controls of an earlier run are dropped.

        Raises:
            StudyError: a knob out of range.
        """
        params = with_knobs(params, {})
        held = self.finished
        if held is None or not self.is_fitted(replace(held.order, params=params)):
            return False
        try:
            with one_thread():
                report = measure_fits(self.study, params, held.fits, held.order.inputs)
        except Exception as error:
            # A third party's measurement may fail in any way; the page goes on.
            self._say(_words(error))
            return False
        self.finished = Finished(replace(held.order, params=params), held.fits, report)
        self._say("")
        return True

    def cancel(self) -> None:
        """Stop the run; what was finished before stays."""
        self._runner.cancel(self._channel)

    def close(self) -> None:
        """Stop the run and let go of the worker."""
        self._runner.forget(self._channel)

    def _performed(self, order: Order, controls: bool, job: Job) -> Finished:
        def report(share: float, note: str) -> None:
            job.report(round(_STEPS * share), _STEPS, note)
            self._told()

        held = self.finished
        known = held is not None and self.is_fitted(order)
        seeds, variants = len(order.seeds), len(self.study.controls) if controls else 0
        start = 0 if known else seeds
        under = replace(self._conditions(order), on_progress=report, cancelled=job.cancelled)
        total = start + seeds * variants
        made = fit_seeds(self.study, order.params, under, 0, total)
        fits = held.fits if known and held else tuple(made)
        found = measure_fits(self.study, order.params, fits, order.inputs)
        if controls:
            checked = check_controls(self.study, order.params, under, start, total)
            found = replace(found, controls=checked)
        self._book.note(found)
        return Finished(order, fits, found)

    def _ended(self, job: Job) -> None:
        if job.status == "done":
            self.finished = job.result
            # The job is the channel's newest for as long as the page is open.
            job.result = None
        self._say(_words(job.error) if job.error is not None else "")
        self._told()

    def _say(self, problem: str) -> None:
        self.problem = problem
        self.version += 1

    def _conditions(self, order: Order) -> Conditions:
        return Conditions(order.seeds, order.device, order.inputs, self._store)


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, WorkbenchError) else f"{type(error).__name__}: {error}"

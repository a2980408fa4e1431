"""Long work on one worker thread: progress, cancel, and stale jobs dropped by generation.

One worker, because two model passes at once are slower than one after the other on the same
cores. A *channel* names work of which only the newest matters (the scores of one session, the
attribution of its selection): submitting to a channel supersedes what it still had running.

Work that is a generator is done in turns: at each `yield` whoever waits with the same or a lower
priority number goes first, so that a long job of one session does not keep the others waiting.
"""

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Literal

from workbench.engine.threads import all_threads, step_back
from workbench.errors import Cancelled

Status = Literal["queued", "running", "done", "failed", "cancelled"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobProgress:
    """How far a job is; `total` 0 means not known yet."""

    done: int = 0
    total: int = 0
    note: str = ""
    eta_seconds: float | None = None


@dataclass
class Job:
    """One piece of long work, owned by the worker and watched by the user interface.

    Its work may change `priority`, which holds from its next turn on.
    """

    name: str
    channel: str
    generation: int
    work: Callable[["Job"], Any]
    on_done: Callable[["Job"], None] | None = None
    priority: int = 10
    place: int = 0
    status: Status = "queued"
    progress: JobProgress = field(default_factory=JobProgress)
    result: Any = None
    error: Exception | None = None
    submitted: float = field(default_factory=time.monotonic)
    _turns: Generator[None, None, Any] | None = None
    _cancel: threading.Event = field(default_factory=threading.Event)
    _finished: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Ask the work to stop; it does so at its next check."""
        self._cancel.set()

    def cancelled(self) -> bool:
        """Whether somebody asked the job to stop."""
        return self._cancel.is_set()

    def check(self) -> None:
        """Raise `Cancelled` if somebody asked the job to stop."""
        if self.cancelled():
            raise Cancelled(f"{self.name} was cancelled")

    def report(
        self, done: int, total: int, note: str = "", eta_seconds: float | None = None
    ) -> None:
        """Say how far the work is, and stop here if it was cancelled."""
        self.progress = JobProgress(done, total, note, eta_seconds)
        self.check()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end; False if the timeout came first."""
        return self._finished.wait(timeout)

    @property
    def active(self) -> bool:
        """Whether the job still waits or runs."""
        return self.status in ("queued", "running")


class JobRunner:
    """A worker thread with a priority queue; lower priorities run first, equal ones in turn.

    Args:
        name: Of the thread.
        niceness: How far it stands back behind the program's other threads, 0 to 19.
    """

    def __init__(self, name: str = "workbench-worker", niceness: int = 0) -> None:
        self._niceness = niceness
        self._queue: list[tuple[int, int, int, Job]] = []
        self._newest: dict[str, Job] = {}
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(
        self,
        name: str,
        channel: str,
        work: Callable[[Job], Any],
        *,
        on_done: Callable[[Job], None] | None = None,
        priority: int = 10,
        keep_place: bool = True,
    ) -> Job:
        """Queue `work`, superseding what its channel still had queued or running.

        What supersedes a job that still waits takes its place among those of its priority, unless
        `keep_place` says that nobody waits for that any more.
        `on_done` is called on the worker thread at the job's end, unless the job was
        superseded: the result of a stale generation never reaches anybody.
        """
        with self._changed:
            previous = self._newest.get(channel)
            generation = previous.generation + 1 if previous else 1
            job = Job(name, channel, generation, work, on_done, priority, next(self._order))
            if previous is not None:
                if keep_place and previous.status == "queued" and previous.priority == priority:
                    job.place = previous.place
                previous.cancel()
            self._newest[channel] = job
            self._put(job)
        return job

    def newest(self, channel: str) -> Job | None:
        """The last job submitted to a channel."""
        return self._newest.get(channel)

    def cancel(self, channel: str) -> None:
        """Cancel what a channel has queued or running."""
        job = self._newest.get(channel)
        if job is not None:
            job.cancel()

    def forget(self, channel: str) -> None:
        """Cancel a channel and drop its last result, for example when its session ends."""
        with self._changed:
            job = self._newest.pop(channel, None)
        if job is not None:
            job.cancel()

    def close(self) -> None:
        """Cancel everything and end the thread."""
        with self._changed:
            self._closed = True
            for job in self._newest.values():
                job.cancel()
            self._changed.notify()
        self._thread.join(timeout=10)

    def _put(self, job: Job) -> None:
        heapq.heappush(self._queue, (job.priority, job.place, next(self._order), job))
        self._changed.notify()

    def _run(self) -> None:
        step_back(self._niceness)
        all_threads()
        while (job := self._next()) is not None:
            self._perform(job)

    def _next(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._queue))
            return None if self._closed else heapq.heappop(self._queue)[-1]

    def _perform(self, job: Job) -> None:
        job.status = "running"
        try:
            job.check()
            if not _done_in(job):
                self._again(job)
                return
            job.status = "done"
        except Cancelled:
            job.status = "cancelled"
        except Exception as error:
            # Whatever went wrong belongs on the page, and the worker must live on.
            _log.debug("job %s failed", job.name, exc_info=True)
            job.error, job.status = error, "failed"
        self._finish(job)

    def _again(self, job: Job) -> None:
        """Queue a job's next turn, behind all that wait with its priority."""
        with self._changed:
            job.place = next(self._order)
            self._put(job)

    def _finish(self, job: Job) -> None:
        stale = self._newest.get(job.channel) is not job
        try:
            if job.on_done is not None and not stale:
                job.on_done(job)
        except Exception:
            _log.exception("the end of job %s could not be announced", job.name)
        finally:
            job._finished.set()


def _done_in(job: Job) -> bool:
    """Do a job's work, or its next turn; whether that was the end of it."""
    if job._turns is None:
        made = job.work(job)
        if not isinstance(made, Generator):
            job.result = made
            return True
        job._turns = made
    try:
        next(job._turns)
    except StopIteration as end:
        job.result = end.value
        return True
    return False

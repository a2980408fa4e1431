import threading
from collections.abc import Iterator

import pytest

from workbench.engine.jobs import Job, JobRunner

WAIT = 10.0


@pytest.fixture
def runner() -> Iterator[JobRunner]:
    runner = JobRunner()
    yield runner
    runner.close()


def test_a_job_ends_with_its_result(runner: JobRunner) -> None:
    job = runner.submit("add", "a", lambda job: 1 + 1)
    assert job.wait(WAIT)
    assert (job.status, job.result, job.active) == ("done", 2, False)


def test_a_failure_is_kept_and_the_worker_lives_on(runner: JobRunner) -> None:
    def fail(job: Job) -> None:
        raise OSError("disk full")

    first = runner.submit("fail", "a", fail)
    second = runner.submit("next", "b", lambda job: "fine")
    assert second.wait(WAIT)
    assert first.status == "failed"
    assert str(first.error) == "disk full"
    assert second.result == "fine"


def test_a_newer_job_supersedes_the_running_one_and_its_result_is_dropped(
    runner: JobRunner,
) -> None:
    started, announced = threading.Event(), []

    def slow(job: Job) -> str:
        started.set()
        while not job.cancelled():
            threading.Event().wait(0.001)
        return "stale"  # ignores the wish to stop: its result must be dropped all the same

    first = runner.submit("slow", "a", slow, on_done=lambda job: announced.append(job.result))
    assert started.wait(WAIT)
    second = runner.submit(
        "new", "a", lambda job: "fresh", on_done=lambda job: announced.append(job.result)
    )
    assert second.wait(WAIT)
    assert first.wait(WAIT)
    assert announced == ["fresh"]
    assert (first.generation, second.generation) == (1, 2)
    assert runner.newest("a") is second


def test_channels_do_not_disturb_each_other(runner: JobRunner) -> None:
    jobs = [runner.submit(str(i), f"channel {i}", lambda job, i=i: i) for i in range(20)]
    assert all(job.wait(WAIT) for job in jobs)
    assert [job.result for job in jobs] == list(range(20))


def test_lower_priority_numbers_run_first(runner: JobRunner) -> None:
    gate, order = threading.Event(), []
    runner.submit("gate", "gate", lambda job: gate.wait(WAIT))
    jobs = [
        runner.submit(name, name, lambda job, name=name: order.append(name), priority=priority)
        for name, priority in (("late", 10), ("early", 1), ("middle", 5))
    ]
    gate.set()
    assert all(job.wait(WAIT) for job in jobs)
    assert order == ["early", "middle", "late"]


def test_cancel_stops_at_the_next_report(runner: JobRunner) -> None:
    started = threading.Event()

    def work(job: Job) -> None:
        started.set()
        for step in range(10**9):
            job.report(step, 10**9)

    job = runner.submit("long", "a", work)
    assert started.wait(WAIT)
    runner.cancel("a")
    assert job.wait(WAIT)
    assert job.status == "cancelled"


def test_a_job_cancelled_while_queued_never_runs(runner: JobRunner) -> None:
    gate, ran = threading.Event(), []
    runner.submit("gate", "gate", lambda job: gate.wait(WAIT))
    job = runner.submit("never", "a", lambda job: ran.append(1))
    job.cancel()
    gate.set()
    assert job.wait(WAIT)
    assert not ran


def test_forgetting_a_channel_drops_its_result(runner: JobRunner) -> None:
    announced: list[object] = []
    gate = threading.Event()
    runner.submit("gate", "gate", lambda job: gate.wait(WAIT))
    job = runner.submit(
        "work", "a", lambda job: 1, on_done=lambda job: announced.append(job.result)
    )
    runner.forget("a")
    gate.set()
    assert job.wait(WAIT)
    assert runner.newest("a") is None
    assert not announced


def test_a_failing_listener_does_not_kill_the_worker(runner: JobRunner) -> None:
    def complain(job: Job) -> None:
        raise RuntimeError("the page is gone")

    assert runner.submit("a", "a", lambda job: 1, on_done=complain).wait(WAIT)
    assert runner.submit("b", "b", lambda job: 2).wait(WAIT)


def test_close_cancels_what_runs() -> None:
    runner = JobRunner()
    started = threading.Event()

    def work(job: Job) -> None:
        started.set()
        while True:
            job.check()

    job = runner.submit("endless", "a", work)
    assert started.wait(WAIT)
    runner.close()
    assert job.status == "cancelled"

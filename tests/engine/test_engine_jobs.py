import threading
from collections.abc import Callable, Generator, Iterator

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


Steps = Callable[[Job], Generator[None, None, str]]


@pytest.fixture
def order() -> list[str]:
    return []


@pytest.fixture
def turns(order: list[str]) -> Callable[[str, int], Steps]:
    """Work of so many turns that notes each."""

    def make(name: str, count: int) -> Steps:
        def work(job: Job) -> Generator[None, None, str]:
            for number in range(count):
                order.append(f"{name}{number}")
                yield
            return name

        return work

    return make


class TestTurns:
    def test_equal_jobs_take_turns_and_end_with_their_results(
        self, runner: JobRunner, order: list[str], turns: Callable[[str, int], Steps]
    ) -> None:
        gate = threading.Event()
        runner.submit("gate", "gate", lambda job: gate.wait(WAIT))
        jobs = [runner.submit(name, name, turns(name, 3)) for name in "abc"]
        gate.set()
        assert all(job.wait(WAIT) for job in jobs)
        assert order == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]
        assert [job.result for job in jobs] == ["a", "b", "c"]

    def test_what_is_more_urgent_goes_between_two_turns(
        self, runner: JobRunner, order: list[str]
    ) -> None:
        halfway = threading.Event()
        gate = threading.Event()

        def long(job: Job) -> Generator[None, None, None]:
            order.append("first half")
            halfway.set()
            gate.wait(WAIT)
            yield
            order.append("second half")

        slow = runner.submit("long", "a", long, priority=5)
        assert halfway.wait(WAIT)
        quick = runner.submit("quick", "b", lambda job: order.append("quick"), priority=3)
        assert slow.active
        gate.set()
        assert quick.wait(WAIT)
        assert slow.wait(WAIT)
        assert order == ["first half", "quick", "second half"]

    def test_a_job_may_step_back_for_its_later_turns(
        self, runner: JobRunner, order: list[str], turns: Callable[[str, int], Steps]
    ) -> None:
        gate = threading.Event()
        runner.submit("gate", "gate", lambda job: gate.wait(WAIT))

        def work(job: Job) -> Generator[None, None, None]:
            order.append("urgent part")
            job.priority = 9
            yield
            order.append("the rest")

        jobs = [
            runner.submit("w", "w", work, priority=3),
            runner.submit("b", "b", turns("b", 2), priority=5),
        ]
        gate.set()
        assert all(job.wait(WAIT) for job in jobs)
        assert order == ["urgent part", "b0", "b1", "the rest"]

    def test_a_job_cancelled_between_turns_ends_there(
        self, runner: JobRunner, order: list[str], turns: Callable[[str, int], Steps]
    ) -> None:
        def work(job: Job) -> Generator[None, None, None]:
            order.append("once")
            job.cancel()
            yield
            order.append("never")

        job = runner.submit("w", "w", work)
        assert job.wait(WAIT)
        assert (job.status, order) == ("cancelled", ["once"])

    def test_a_failure_in_a_later_turn_is_the_jobs(self, runner: JobRunner) -> None:
        def work(job: Job) -> Generator[None, None, None]:
            yield
            raise OSError("disk full")

        job = runner.submit("w", "w", work)
        assert job.wait(WAIT)
        assert (job.status, str(job.error)) == ("failed", "disk full")

    @pytest.mark.parametrize(("keep", "expected"), [(True, ["a", "b"]), (False, ["b", "a"])])
    def test_a_superseding_job_takes_the_place_of_one_that_waits(
        self, runner: JobRunner, order: list[str], keep: bool, expected: list[str]
    ) -> None:
        gate = threading.Event()
        runner.submit("gate", "gate", lambda job: gate.wait(WAIT))
        runner.submit("a", "a", lambda job: order.append("stale"))
        second = runner.submit("b", "b", lambda job: order.append("b"))
        first = runner.submit("a", "a", lambda job: order.append("a"), keep_place=keep)
        gate.set()
        assert first.wait(WAIT)
        assert second.wait(WAIT)
        assert order == expected
        assert first.generation == 2

"""A desk with a real worker and a study that counts its fits."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import Any

import pytest

from workbench.engine.jobs import JobRunner
from workbench.study.desk import Order, StudyDesk
from workbench.study.errors import StudyError
from workbench.study.runs import RunStore

PATIENCE = 60
MakeDesk = Callable[..., StudyDesk]


@pytest.fixture
def runner() -> Iterator[JobRunner]:
    made = JobRunner("test-worker")
    yield made
    made.close()


@pytest.fixture
def counting(example: ModuleType) -> Any:
    class Counting(example.CoinStudy):  # type: ignore[misc, name-defined]
        fits = 0

        def fit(self, params: Any, context: Any) -> Any:
            type(self).fits += 1
            return super().fit(params, context)

    return Counting()


@pytest.fixture
def desk_of(runner: JobRunner, tmp_path: Path) -> MakeDesk:
    return lambda study, **more: StudyDesk(study, runner, "desk", RunStore(tmp_path), **more)


def smoke(study: Any, **changes: Any) -> Order:
    return Order(replace(study.presets["smoke"], **changes))


def test_a_measure_knob_is_measured_at_once_and_nothing_is_fitted(
    counting: Any, desk_of: MakeDesk
) -> None:
    desk = desk_of(counting)
    assert desk.run(smoke(counting)).wait(PATIENCE)
    first = desk.finished
    assert first is not None
    assert type(counting).fits == 1
    assert desk.measure(replace(first.order.params, every=10))
    assert desk.finished is not None
    assert len(desk.finished.report.runs[0].result.tables["share"]["share"]) == 200
    assert desk.finished.report.runs[0].fit == first.report.runs[0].fit
    assert type(counting).fits == 1


def test_a_fit_knob_is_not_measured_on_the_fits_of_another(
    counting: Any, desk_of: MakeDesk
) -> None:
    desk = desk_of(counting)
    order = smoke(counting)
    assert not desk.measure(order.params)
    desk.run(order).wait(PATIENCE)
    assert not desk.measure(replace(order.params, bias=0.4))
    assert desk.finished is not None
    assert desk.finished.order == order


def test_seeds_that_are_fitted_and_kept_are_fitted_once(counting: Any, desk_of: MakeDesk) -> None:
    desk, order = desk_of(counting), smoke(counting)
    assert not desk.is_kept(order)
    desk.run(order).wait(PATIENCE)
    assert desk.is_kept(order)
    more = replace(order, seeds=(0, 1, 2))
    assert not desk.is_kept(more)
    desk.run(more).wait(PATIENCE)
    assert type(counting).fits == 3
    assert desk.finished is not None
    assert [run.seed for run in desk.finished.report.runs] == [0, 1, 2]


def test_controls_reuse_the_fits_in_memory(counting: Any, desk_of: MakeDesk) -> None:
    desk, order = desk_of(counting), smoke(counting)
    desk.run(order).wait(PATIENCE)
    desk.run(order, controls=True).wait(PATIENCE)
    assert desk.finished is not None
    assert [control.caught for control in desk.finished.report.controls] == [True]
    # One more fit, that of the sabotaged variant, which is another class.
    assert type(counting).fits == 1


def test_progress_is_reported_in_rising_shares(example: ModuleType, desk_of: MakeDesk) -> None:
    seen: list[int] = []
    study = example.CoinStudy()
    desk = desk_of(study, told=lambda: seen.append(desk.job.progress.done if desk.job else -1))
    desk.run(replace(smoke(study), seeds=(0, 1)), controls=True).wait(PATIENCE)
    assert seen == sorted(seen)
    assert seen[-1] == 1000
    assert len(seen) > 20


def test_cancelling_stops_the_run_and_keeps_what_was_finished(
    example: ModuleType, desk_of: MakeDesk
) -> None:
    entered, go_on = Event(), Event()

    class Slow(example.CoinStudy):  # type: ignore[misc, name-defined]
        def fit(self, params: Any, context: Any) -> Any:
            if params.bias == 0.5:
                entered.set()
                assert go_on.wait(PATIENCE)
            return super().fit(params, context)

    study = Slow()
    desk = desk_of(study)
    desk.run(smoke(study)).wait(PATIENCE)
    before = desk.finished
    job = desk.run(smoke(study, bias=0.5))
    assert entered.wait(PATIENCE)
    assert desk.busy
    desk.cancel()
    assert not desk.busy
    go_on.set()
    assert job.wait(PATIENCE)
    assert job.status == "cancelled"
    assert desk.finished is before
    assert desk.problem == ""


def test_a_newer_run_supersedes_an_older_one(example: ModuleType, desk_of: MakeDesk) -> None:
    study = example.CoinStudy()
    desk = desk_of(study)
    desk.run(Order(replace(study.presets["full"], bias=0.9)))
    desk.run(smoke(study)).wait(PATIENCE)
    assert desk.finished is not None
    assert desk.finished.order == smoke(study)


@pytest.mark.parametrize("where", ["fit", "measure"])
def test_a_failure_is_told_and_harms_nothing(
    where: str, example: ModuleType, desk_of: MakeDesk
) -> None:
    class Broken(example.CoinStudy):  # type: ignore[misc, name-defined]
        def fit(self, params: Any, context: Any) -> Any:
            return super().fit(params, context) if where != "fit" else 1 / 0

        def measure(self, fitted: Any, params: Any) -> Any:
            return 1 / 0

    study = Broken()
    desk = desk_of(study)
    desk.run(smoke(study)).wait(PATIENCE)
    assert desk.problem == "ZeroDivisionError: division by zero"
    assert desk.finished is None
    assert desk.version == 1


def test_a_measurement_that_fails_later_leaves_the_last_one(
    example: ModuleType, desk_of: MakeDesk
) -> None:
    class Fragile(example.CoinStudy):  # type: ignore[misc, name-defined]
        def measure(self, fitted: Any, params: Any) -> Any:
            if params.every == 7:
                raise RuntimeError("not seven")
            return super().measure(fitted, params)

    study = Fragile()
    desk, order = desk_of(study), smoke(study)
    desk.run(order).wait(PATIENCE)
    assert not desk.measure(replace(order.params, every=7))
    assert desk.problem == "RuntimeError: not seven"
    assert desk.finished is not None
    assert desk.finished.order == order
    assert desk.measure(replace(order.params, every=8))
    assert desk.problem == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"tosses": 3}, "from 10 to 100000"), ({}, "at least one")],
)
def test_what_cannot_be_run_is_refused_before_a_job_is_made(
    changes: dict[str, Any], message: str, example: ModuleType, desk_of: MakeDesk
) -> None:
    study = example.CoinStudy()
    order = smoke(study, **changes) if changes else replace(smoke(study), seeds=())
    desk = desk_of(study)
    with pytest.raises(StudyError, match=message):
        desk.run(order)
    assert desk.job is None


def test_the_inputs_of_an_order_reach_the_fit_and_the_report(
    example: ModuleType, desk_of: MakeDesk
) -> None:
    class Weighed(example.CoinStudy):  # type: ignore[misc, name-defined]
        inputs = {"votes": {"n": [1]}}  # noqa: RUF012

        def fit(self, params: Any, context: Any) -> Any:
            return super().fit(params, context) * 0 + context.table("votes")["n"][0]

    study = Weighed()
    desk, mine = desk_of(study), {"votes": {"n": [5]}}
    desk.run(smoke(study)).wait(PATIENCE)
    own = desk.finished
    desk.run(replace(smoke(study), inputs=mine)).wait(PATIENCE)
    assert own is not None
    assert desk.finished is not None
    assert desk.finished.report.inputs == mine
    assert own.report.runs[0].result.tables != desk.finished.report.runs[0].result.tables

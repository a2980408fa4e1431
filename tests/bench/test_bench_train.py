"""Training by a bench: play, pause, step, rewind, branch, and what the notebook reads of it."""

from collections.abc import Callable
from typing import Any

import pytest
from browser_support import eventually

from workbench.bench import Bench, BenchError
from workbench.errors import TrainingError

WAIT = 30.0


@pytest.fixture
def trained(bench: Bench) -> Bench:
    bench.train.start("dpo", policy="exact", steps=5, learning_rate=0.1)
    bench.train.wait(5, WAIT)
    return bench


def test_a_run_has_a_row_of_history_a_step(trained: Bench) -> None:
    history = trained.train.history()
    assert history.index.tolist() == [1, 2, 3, 4, 5]
    assert history["loss"].iloc[0] == pytest.approx(0.6931, abs=1e-4)
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    assert trained.train.tensors()["loss"].tolist() == history["loss"].tolist()


def test_without_a_run_the_history_is_empty(bench: Bench) -> None:
    assert len(bench.train.history()) == 0
    assert "loss" in bench.train.frame()


def test_start_takes_setup_plan_and_hyperparameters_by_name(bench: Bench) -> None:
    bench.train.start("simpo", policy="exact", batch_size=4, gamma=0.2)
    setup = bench.train.desk.setup
    assert setup is not None
    assert (setup.policy, setup.plan.objective, setup.plan.batch_size) == ("exact", "simpo", 4)
    assert setup.plan.settings["gamma"] == 0.2
    assert setup.plan.attributes == bench.settings.attributes
    for given, words in (({"nosuch": 1}, "nosuch"), ({"learning_rate": -1}, "learning_rate")):
        with pytest.raises(TrainingError, match=words):
            bench.train.start(**given)


def test_a_rewound_run_goes_on_as_a_branch(trained: Bench) -> None:
    train = trained.train
    train.rewind(2)
    assert train.status.step == 2
    train.change(beta=0.5)
    train.play(2)
    train.wait(4, WAIT)
    assert [each.forked_at for each in train.desk.branches] == [0, 2]
    assert train.history().index.tolist() == [1, 2, 3, 4]
    assert train.history()["event"].loc[3] == "beta 0.1 -> 0.5"
    assert len(train.history("b1")) == 5
    train.use("b1")
    assert train.status.step == 5


def test_a_named_branch_step_and_stop(trained: Bench) -> None:
    train = trained.train
    made = train.branch("mine")
    assert train.desk.active is not None
    assert train.desk.active.name == "mine"
    train.step()
    train.wait(6, WAIT)
    assert train.desk.active.branch_id == made
    train.stop()
    assert train.status.phase == "empty"


def test_waiting_for_what_will_not_come_is_refused(trained: Bench) -> None:
    with pytest.raises(BenchError, match=r"stands at step 5 and takes none; call play\(\) first"):
        trained.train.wait(9)
    trained.train.play()
    with pytest.raises(BenchError, match=r"goes on until it is paused; name a step"):
        eventually(lambda: trained.train.wait() is None and False)
    trained.train.pause()
    with pytest.raises(TrainingError, match="Step 99999 is not kept"):
        trained.train.rewind(99999)


def test_a_failure_is_raised_by_wait(bench: Bench) -> None:
    bench.train.start("dpo", policy="language-model", model="default", steps=1)
    with pytest.raises(TrainingError):
        bench.train.wait(1, WAIT)


def held(bench: Bench) -> Any:
    bench.train.widget  # noqa: B018 - builds it
    return bench.train._panel


def test_the_panel_follows_a_run_that_was_started_in_python(bench: Bench) -> None:
    panel = held(bench)
    bench.train.start("simpo", policy="exact", steps=4)
    bench.train.wait(4, WAIT)
    eventually(lambda: panel._slider.value == 4)
    eventually(lambda: panel._fields["objective"].value == "simpo")
    eventually(lambda: "gamma" in panel._knobs)
    eventually(lambda: not panel._plots[0].figure.is_blank)
    eventually(lambda: "Paused" in panel._words.value)


def press(panel: Any, name: str) -> None:
    panel._buttons[name].click()


def test_buttons_fields_and_slider_move_the_run(bench: Bench) -> None:
    panel, train = held(bench), bench.train
    panel._fields["policy"].value = "exact"
    panel._fields["objective"].value = "simpo"
    press(panel, "step")
    train.wait(1, WAIT)
    assert train.desk.setup is not None
    assert train.desk.setup.policy == "exact"
    assert train.desk.active is not None
    assert train.desk.active.plan.objective == "simpo"
    press(panel, "play")
    eventually(lambda: train.status.step > 3)
    eventually(lambda: panel._buttons["play"].description == "Pause")
    press(panel, "play")
    eventually(lambda: train.status.phase == "paused")
    eventually(lambda: panel._slider.value == train.status.step)
    panel._slider.value = 1
    assert train.status.step == 1
    panel._fields["learning_rate"].value = 0.25
    assert train.desk.active.plan.learning_rate == 0.25
    press(panel, "branch")
    eventually(lambda: len(panel._branches.options) == 2)
    panel._branches.value = "b1"
    assert train.desk.active.branch_id == "b1"
    press(panel, "back")
    press(panel, "new")
    eventually(lambda: train.status.phase == "ready")
    assert train.status.step == 0


def test_what_a_run_cannot_take_up_is_told(bench: Bench) -> None:
    panel = held(bench)
    bench.train.start("dpo", policy="exact", steps=1)
    bench.train.wait(1, WAIT)
    eventually(lambda: panel._slider.value == 1)
    panel._fields["learning_rate"].value = -1.0
    assert "learning_rate is -1" in bench.message
    eventually(lambda: "learning_rate is -1" in bench.train._notice.value)


def test_a_run_left_by_another_kernel_is_taken_up(
    trained: Bench, opened: Callable[..., Bench]
) -> None:
    name = trained.session_id
    trained.close()
    again = opened(session=name)
    assert again.train.desk.resumable
    again.train.play(1)
    again.train.wait(6, WAIT)
    assert again.train.history().index.tolist() == [1, 2, 3, 4, 5, 6]

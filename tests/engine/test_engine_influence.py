import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from workbench.engine.influence import KIND, MOMENTS, influences
from workbench.engine.session import Session
from workbench.engine.training import TrainingDesk, TrainingSetup
from workbench.errors import TrainingError
from workbench.training.influence import Influences, Moment, margin_influences, plan_loss
from workbench.training.plan import TrainingPlan

WAIT = 60.0


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.01)


def trained(session: Session, steps: int = 3, **plan: Any) -> TrainingDesk:
    """An exact policy that has taken some steps on the session's pairs, and waits."""
    desk = session.training
    setup = TrainingSetup(
        policy="exact", held_out=0.0, plan=TrainingPlan(batch_size=4, learning_rate=0.1, **plan)
    )
    desk.start(setup)
    until(lambda: desk.status.phase == "ready")
    desk.play(steps)
    until(lambda: desk.status.step == steps and desk.status.phase != "playing")
    return desk


def answered(session: Session, row: int = 0, over: Any = "now") -> Influences | Exception:
    assert influences(session, row, over) is None
    job = session.progress(KIND)
    assert job is not None
    assert job.wait(WAIT)
    found = influences(session, row, over)
    assert found is not None
    return found


def weights(desk: TrainingDesk) -> dict[str, torch.Tensor]:
    trainer = desk._trainer
    assert trainer is not None
    return trainer.policy.state()


def test_without_training_there_is_nothing_to_ask(start: Callable[..., Session]) -> None:
    session = start()
    assert influences(session, 0) is None
    assert session.progress(KIND) is None


def test_the_answer_is_that_of_the_trainer_s_own_weights(start: Callable[..., Session]) -> None:
    session = start()
    desk = trained(session)
    before = weights(desk)
    found = answered(session)
    assert isinstance(found, Influences)
    trainer = desk._trainer
    assert trainer is not None
    pairs = list(session.store.pairs())
    loss = plan_loss(trainer.policy, trainer.plan, pairs)
    expected = margin_influences(trainer.policy, trainer.pairs, pairs[0], loss)
    torch.testing.assert_close(found.scores, expected.scores)
    assert dict(found.helpful())["p0"] > 0
    # Of another prompt's pairs a table learns nothing.
    assert {name for name, _ in found.helpful() + found.harmful()} <= {"p0", "p1"}
    assert all(torch.equal(weights(desk)[k], before[k]) for k in before)


def test_over_a_run_the_kept_steps_count_by_their_learning_rates(
    start: Callable[..., Session],
) -> None:
    session = start()
    desk = trained(session, steps=4)
    found = answered(session, over="run")
    assert isinstance(found, Influences)
    assert desk.active is not None
    kept = desk.active.kept
    assert found.moments == min(len(kept), MOMENTS) > 1
    trainer, pairs = desk._trainer, list(session.store.pairs())
    assert trainer is not None
    loss = plan_loss(trainer.policy, trainer.plan, pairs)
    moments = [Moment(desk._ring.get("b1", step).weights, 0.1) for step in kept]
    expected = margin_influences(trainer.policy, trainer.pairs, pairs[0], loss, moments)
    torch.testing.assert_close(found.scores, expected.scores)


def test_the_answer_is_kept_until_something_changes(start: Callable[..., Session]) -> None:
    session = start()
    desk = trained(session)
    found = answered(session)
    assert influences(session, 0) is found
    other = answered(session, row=2)
    assert isinstance(other, Influences)
    assert other.target == "p2"
    assert influences(session, 0) is found
    desk.step()
    until(lambda: desk.status.step == 4 and desk.status.phase != "playing")
    newer = answered(session)
    assert newer is not found


def test_a_pair_that_cannot_be_trained_on_is_answered_by_the_reason(
    start: Callable[..., Session], pairs_of: Callable[..., Any]
) -> None:
    pairs = pairs_of()
    same = pairs.pairs[0].with_fields(pair_id="same", rejected=pairs.pairs[0].chosen)
    session = start(type(pairs)("with one more", [*pairs, same]))
    trained(session)
    found = answered(session, row=8)
    assert isinstance(found, TrainingError | Influences)
    if isinstance(found, TrainingError):
        assert "same" in str(found)


@pytest.mark.parametrize("objective", ["kto", "bco", "ipo"])
def test_objectives_with_state_or_partners_are_asked_as_they_train(
    objective: str, start: Callable[..., Session]
) -> None:
    session = start()
    trained(session, objective=objective)
    found = answered(session)
    assert isinstance(found, Influences)
    assert bool(found.scores.isfinite().all())

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from workbench.errors import TrainingError
from workbench.objectives.logps import PairLogps
from workbench.training.exact import SoftmaxPolicy
from workbench.training.history import (
    PairEvaluation,
    StepRecord,
    Transitions,
    evaluate,
    measures,
)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def four_pairs() -> PairLogps:
    """Right and right, wrong and right, right and wrong, wrong and wrong; reference first."""
    return PairLogps(
        policy_chosen=column(-1, -1, -3, -4),
        policy_rejected=column(-2, -2, -2, -2),
        reference_chosen=column(-1, -3, -1, -3),
        reference_rejected=column(-2, -2, -2, -2),
    )


def test_measures_of_a_batch_by_hand() -> None:
    logps = four_pairs()
    found = measures(logps, logps, beta=0.5)
    # Margins in nats: 0, 2, -2, -1.
    assert found["reward_margin"] == pytest.approx(0.5 * -1 / 4)
    assert found["chosen_reward"] == pytest.approx(0.5 * -1 / 4)
    assert found["rejected_reward"] == 0
    assert found["reward_accuracy"] == 0.25
    assert found["ranking_accuracy"] == 0.5
    assert found["transitions"] == (0.25, 0.25, 0.25, 0.25)
    assert found["chosen_shift"] == pytest.approx(-0.25)

    def entropy(ratio: float) -> float:
        q = math.exp(ratio) / (1 + math.exp(ratio))
        return -q * math.log(q) - (1 - q) * math.log(1 - q)

    expected = (math.log(2) + 2 * entropy(2) + entropy(1)) / 4
    assert found["did_entropy"] == pytest.approx(expected)


def test_shifts_look_at_the_first_weights_and_rewards_at_a_reference_that_moved() -> None:
    start = four_pairs()
    now = PairLogps(*start.given().values())
    moved = PairLogps(
        start.policy_chosen, start.policy_rejected, start.policy_chosen, start.policy_rejected
    )
    found = measures(moved, now, beta=1.0)
    assert found["chosen_reward"] == found["reward_margin"] == 0
    assert found["chosen_shift"] == pytest.approx(-0.25)


def test_a_record_survives_json_and_leaves_out_what_was_not_measured() -> None:
    record = StepRecord(
        3, 0.6, grad_norm=1.5, transitions=Transitions(0.5, 0.5, 0.0, 0.0), event="x"
    )
    written = json.loads(json.dumps(record.to_json(), allow_nan=False))
    assert "kl" not in written
    assert repr(StepRecord.from_json(written)) == repr(record)
    bare = StepRecord(1, 0.7)
    assert repr(StepRecord.from_json(bare.to_json())) == repr(bare)


@pytest.mark.parametrize("record", [None, 3, {"step": 1}, {"step": 1, "loss": 1, "colour": 2}])
def test_records_of_something_else_are_refused(record: object) -> None:
    with pytest.raises(TrainingError):
        StepRecord.from_json(record)


def test_an_evaluation_scores_every_pair_in_order_whatever_the_chunks(pairs_of: Any) -> None:
    pairs = pairs_of(7).pairs
    policy = SoftmaxPolicy.of_pairs(pairs)
    with torch.no_grad():
        policy.parameters()[0].copy_(torch.randn(policy.parameters()[0].shape).double())
    whole, parts = evaluate(policy, pairs, 0.3, chunk=100), evaluate(policy, pairs, 0.3, chunk=2)
    assert whole.pair_ids == parts.pair_ids == tuple(pair.pair_id for pair in pairs)
    assert torch.equal(whole.margin, parts.margin)
    assert torch.allclose(whole.margin, 0.3 * policy.pair_logps(pairs).margin)
    joined = PairEvaluation.joined(
        [evaluate(policy, pairs[:3], 0.3), evaluate(policy, pairs[3:], 0.3)]
    )
    assert joined.pair_ids == whole.pair_ids
    assert torch.equal(joined.policy_rejected, whole.policy_rejected)
    mean, error = whole.mean("margin")
    assert mean == pytest.approx(float(whole.margin.mean()))
    assert error == pytest.approx(float(whole.margin.std()) / math.sqrt(7))

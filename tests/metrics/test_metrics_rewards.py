import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.metrics.rewards import (
    implicit_reward,
    length_normalised_implicit_reward,
    reward_accuracy,
    reward_margin,
)

# The four pairs of the numerical oracle (core 4.3): log-ratios a and r of both answers.
POLICY_CHOSEN = torch.tensor([-10.0, -25, -7, -40])
POLICY_REJECTED = torch.tensor([-12.0, -20, -7, -65])
REFERENCE_CHOSEN = torch.tensor([-11.0, -24, -7, -55])
REFERENCE_REJECTED = torch.tensor([-11.0, -26, -7, -45])
logps = st.lists(st.floats(-1e4, 0), min_size=4, max_size=4).map(
    lambda v: torch.tensor(v, dtype=torch.float64)
)


def test_rewards_margins_and_accuracies_of_four_worked_pairs() -> None:
    chosen = implicit_reward(POLICY_CHOSEN, REFERENCE_CHOSEN, 0.1)
    rejected = implicit_reward(POLICY_REJECTED, REFERENCE_REJECTED, 0.1)
    torch.testing.assert_close(chosen, torch.tensor([0.1, -0.1, 0, 1.5], dtype=torch.float64))
    torch.testing.assert_close(rejected, torch.tensor([-0.1, 0.6, 0, -2], dtype=torch.float64))
    margin = reward_margin(chosen, rejected)
    torch.testing.assert_close(margin, torch.tensor([0.2, -0.7, 0, 3.5], dtype=torch.float64))
    assert reward_accuracy(chosen, rejected).tolist() == [1, 0, 0, 1]


def test_length_normalised_reward_is_per_token_and_missing_for_an_empty_answer() -> None:
    found = length_normalised_implicit_reward(
        torch.tensor([-10.0, 0]), torch.tensor([-14.0, 0]), torch.tensor([4, 0]), 0.5
    )
    assert found[0] == 0.5
    assert math.isnan(found[1])


@given(logps, logps, st.floats(1e-6, 1e3))
def test_policy_equal_to_reference_earns_nothing_and_ranks_nothing(
    chosen: torch.Tensor, rejected: torch.Tensor, beta: float
) -> None:
    first, second = implicit_reward(chosen, chosen, beta), implicit_reward(rejected, rejected, beta)
    assert reward_margin(first, second).tolist() == [0] * 4
    assert reward_accuracy(first, second).tolist() == [0] * 4


@given(logps, logps, logps, logps)
def test_swapping_the_answers_negates_the_margin(
    a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor
) -> None:
    first, second = implicit_reward(a, b, 0.1), implicit_reward(c, d, 0.1)
    assert torch.equal(reward_margin(first, second), -reward_margin(second, first))
    both = reward_accuracy(first, second) + reward_accuracy(second, first)
    assert torch.equal(both, (first != second).double())


def test_a_missing_score_is_not_a_wrong_answer() -> None:
    missing = torch.tensor([math.nan])
    assert reward_accuracy(missing, torch.zeros(1)).isnan().all()


def test_integers_and_float32_are_reported_in_float64() -> None:
    found = implicit_reward(torch.tensor([-3]), torch.tensor([-4]), 0.1)
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(0.1, rel=1e-15)


@pytest.mark.parametrize("beta", [0.0, -1.0, math.nan, math.inf])
def test_beta_must_be_positive(beta: float) -> None:
    with pytest.raises(ValueError, match=r"beta is .*give a number above 0"):
        implicit_reward(torch.zeros(1), torch.zeros(1), beta)

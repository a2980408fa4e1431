import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from workbench.objectives.dpo import dpo_loss, sigmoid_loss

SCORES = torch.tensor(
    [[-10, -25, -7, -40], [-12, -20, -7, -65], [-11, -24, -7, -55], [-11, -26, -7, -45]],
    dtype=torch.float64,
)
"""Policy chosen and rejected, reference chosen and rejected (core 4.3)."""
SIGMOID = [0.5981388694, 1.1031860489, 0.6931471806, 0.0297504183]
HALF_GAMMA = [0.5981388694, 1.0374879505, 0.6931471806, 0.0485873516]


def loss_is_right(loss: Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]) -> bool:
    expected = torch.tensor(SIGMOID, dtype=torch.float64)
    return torch.allclose(loss(*SCORES, 0.1), expected, atol=6e-11, rtol=0)


def test_dpo_loss_matches_what_trl_computes() -> None:
    assert loss_is_right(dpo_loss)


def test_sabotaged_losses_are_found_out() -> None:
    assert not loss_is_right(lambda a, b, c, d, beta: dpo_loss(a, b, d, c, beta))
    assert not loss_is_right(lambda a, b, c, d, beta: dpo_loss(a, b, 0 * c, 0 * d, beta))


def test_half_the_reference() -> None:
    m, c = SCORES[0] - SCORES[1], SCORES[3] - SCORES[2]
    expected = torch.tensor(HALF_GAMMA, dtype=torch.float64)
    torch.testing.assert_close(sigmoid_loss(m, c, 0.1, 0.5), expected, atol=6e-11, rtol=0)


@given(st.floats(-50, 50), st.floats(-50, 50), st.floats(1e-3, 5), st.floats(0, 2))
def test_gradient_of_the_loss(m: float, c: float, beta: float, gamma: float) -> None:
    """dL/dm = -beta sigmoid(-beta (m + gamma c)), dL/dc = gamma times that."""
    ratio = torch.tensor([m], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([c], dtype=torch.float64, requires_grad=True)
    loss = sigmoid_loss(ratio, reference, beta, gamma)
    by_m, by_c = torch.autograd.grad(loss.sum(), (ratio, reference))
    expected = -beta * torch.sigmoid(-beta * (ratio.detach() + gamma * reference.detach()))
    torch.testing.assert_close(by_m, expected, rtol=1e-9, atol=1e-300)
    torch.testing.assert_close(by_c, gamma * expected, rtol=1e-9, atol=1e-300)


@given(st.lists(st.floats(-1e6, 0), min_size=4, max_size=4), st.floats(-1e3, 1e3))
def test_a_constant_of_the_prompt_changes_nothing(values: list[float], constant: float) -> None:
    pc, pr, rc, rr = torch.tensor(values, dtype=torch.float64)[:, None]
    shifted = dpo_loss(pc + constant, pr + constant, rc, rr, 0.1)
    torch.testing.assert_close(shifted, dpo_loss(pc, pr, rc, rr, 0.1), rtol=1e-6, atol=1e-6)


def test_policy_equal_to_reference_loses_log_two() -> None:
    assert dpo_loss(*SCORES[[0, 1, 0, 1]], 0.1).tolist() == [math.log(2)] * 4


def test_no_overflow_and_the_right_tails() -> None:
    m = torch.tensor([-1e8, 1e8, math.nan], dtype=torch.float64)
    found = sigmoid_loss(m, torch.zeros_like(m), 1.0)
    assert found[:2].tolist() == [1e8, 0]
    assert found[2].isnan()


def test_the_precision_of_the_scores_is_kept() -> None:
    assert dpo_loss(*SCORES.float(), 0.1).dtype == torch.float32


@pytest.mark.parametrize("beta", [0.0, -1.0, math.nan])
def test_beta_must_be_positive(beta: float) -> None:
    with pytest.raises(ValueError, match=r"beta is .*above 0"):
        sigmoid_loss(torch.zeros(1), torch.zeros(1), beta)

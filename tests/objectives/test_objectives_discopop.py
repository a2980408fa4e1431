import math

import pytest
import torch

from workbench.objectives.discopop import discopop_loss
from workbench.objectives.logps import PairLogps


def pairs(margins: list[float]) -> PairLogps:
    margin = torch.tensor(margins, dtype=torch.float64)
    zero = torch.zeros_like(margin)
    return PairLogps(margin, zero, zero, zero)


def test_both_tails_are_finite() -> None:
    """Far left it is the logistic loss, though exp(-z) alone is infinite; far right it is 0."""
    assert discopop_loss(pairs([-1e4, 1e4]), 1.0, 0.05).tolist() == [1e4, 0.0]


def test_at_zero_it_is_the_mean_of_both_losses() -> None:
    found = float(discopop_loss(pairs([0.0]), 0.1, 0.05))
    assert found == pytest.approx((math.log(2) + 1) / 2)


def test_it_is_not_convex() -> None:
    """Around zero the exponential loss, the higher of the two, takes over: a bump."""
    left, middle, right = discopop_loss(pairs([-0.2, 0.1, 1.0]), 1.0, 0.05).tolist()
    assert middle > left > right

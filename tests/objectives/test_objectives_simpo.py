import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.objectives.logps import PairLogps
from workbench.objectives.simpo import alphapo_loss, simpo_loss

ONE = torch.ones(1, dtype=torch.float64)


def pair(p_chosen: float, p_rejected: float, n: int = 1) -> PairLogps:
    """An answer of n tokens with these geometric-mean probabilities."""
    return PairLogps(
        ONE * n * math.log(p_chosen),
        ONE * n * math.log(p_rejected),
        n_chosen=n * ONE,
        n_rejected=n * ONE,
    )


def test_simpo_by_hand() -> None:
    """Odds p_w / p_l = 4, beta = 1, gamma = log 2: -log sigmoid(log 2) = log 1.5."""
    assert float(simpo_loss(pair(0.8, 0.2), 1.0, math.log(2))) == pytest.approx(math.log(1.5))


def test_alphapo_by_hand() -> None:
    """Alpha = 1 has the reward 1 - 1/p: here -1 and -3."""
    expected = math.log1p(math.exp(-2))
    assert float(alphapo_loss(pair(0.5, 0.25), 1.0, 0.0, 1.0)) == pytest.approx(expected)


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.integers(1, 50))
def test_longer_answers_of_the_same_quality_lose_the_same(p: float, q: float, n: int) -> None:
    torch.testing.assert_close(
        simpo_loss(pair(p, q, n), 2.0, 0.5), simpo_loss(pair(p, q), 2.0, 0.5)
    )


def test_sums_in_place_of_means_would_not_pass() -> None:
    summed = PairLogps(ONE * -8, ONE * -4, n_chosen=ONE, n_rejected=ONE)
    meant = PairLogps(ONE * -8, ONE * -4, n_chosen=8 * ONE, n_rejected=4 * ONE)
    assert not torch.allclose(simpo_loss(summed, 2.0, 0.5), simpo_loss(meant, 2.0, 0.5))

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from workbench.metrics import prediction as pred

RATES = torch.tensor([0.0, 0.1, 0.7, 3.0])
COUNTS = torch.tensor([0, 1, 0, 5])


def naive_rps(rate: float, count: int) -> float:
    return sum((stats.poisson.cdf(k, rate) - (k >= count)) ** 2 for k in range(11))


Score = Callable[[Tensor, Tensor], Tensor]


def is_the_ranked_probability_score(score: Score) -> bool:
    expected = [naive_rps(r, c) for r, c in zip(RATES.tolist(), COUNTS.tolist(), strict=True)]
    return torch.allclose(score(RATES, COUNTS), torch.tensor(expected).double(), atol=1e-6)


def test_the_ranked_probability_score_is_scipys_sum() -> None:
    assert is_the_ranked_probability_score(pred.poisson_ranked_probability_score)


def test_sabotaged_scores_are_found_out() -> None:
    right = pred.poisson_ranked_probability_score
    assert not is_the_ranked_probability_score(lambda r, c: right(r, c, largest=3))
    assert not is_the_ranked_probability_score(lambda r, c: right(r, c + 1))


@given(st.floats(0.01, 5))
def test_the_true_rate_has_the_least_expected_score(rate: float) -> None:
    counts = torch.arange(40)
    weight = torch.from_numpy(stats.poisson.pmf(counts.numpy(), rate))

    def expected(score: Score, guess: float) -> float:
        return float(weight @ score(torch.full((40,), guess).double(), counts))

    for score in (pred.poisson_ranked_probability_score, pred.poisson_deviance):
        least = expected(score, rate)
        assert least <= min(expected(score, rate * 0.8), expected(score, rate * 1.25)) + 1e-9


def test_the_brier_score_is_a_squared_difference() -> None:
    found = pred.brier_score(torch.tensor([0.25, 1]), torch.tensor([1, 0]))
    assert found.tolist() == [0.5625, 1]


def test_the_deviance_is_twice_the_lost_log_likelihood() -> None:
    found = pred.poisson_deviance(RATES[1:], COUNTS[1:])
    ours = stats.poisson.logpmf(COUNTS[1:].numpy(), RATES[1:].numpy())
    best = stats.poisson.logpmf(COUNTS[1:].numpy(), COUNTS[1:].numpy())
    torch.testing.assert_close(found, torch.from_numpy(2 * (best - ours)), atol=1e-6, rtol=0)
    assert pred.poisson_deviance(torch.zeros(1), torch.zeros(1)).item() == 0
    assert pred.poisson_deviance(torch.zeros(1), torch.ones(1)).item() == math.inf


def test_accuracy_counts_the_threshold_itself_as_positive() -> None:
    found = pred.binary_accuracy(torch.tensor([0.5, 0.4, 0.9, 0.1]), torch.tensor([1, 1, 0, 0]))
    assert found.tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize(
    "score",
    [
        pred.poisson_ranked_probability_score,
        pred.brier_score,
        pred.poisson_deviance,
        pred.binary_accuracy,
    ],
)
def test_what_is_missing_stays_missing(score: Score) -> None:
    nan, one = torch.tensor([math.nan]), torch.tensor([1.0])
    assert score(nan, one).isnan().all()
    assert score(one, nan).isnan().all()

import math

import pytest
import torch
from scipy import stats

from workbench.metrics.dependence import distance_correlation
from workbench.metrics.intervals import (
    bootstrap_interval,
    bootstrap_interval_of,
    standard_error,
    wilson_interval,
)

VALUES = torch.randn(60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_standard_error_is_scipys_and_missing_below_two_values() -> None:
    assert standard_error(VALUES).item() == pytest.approx(stats.sem(VALUES.numpy()))
    assert standard_error(VALUES[:1]).isnan()


@pytest.mark.parametrize(("successes", "n"), [(0, 20), (7, 20), (20, 20), (1, 1)])
def test_wilsons_interval_is_scipys(successes: int, n: int) -> None:
    found = wilson_interval(successes, n)
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert found.estimate == successes / n
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_bootstrap_is_seeded_and_close_to_scipys() -> None:
    found = bootstrap_interval(VALUES, seed=3)
    assert found == bootstrap_interval(VALUES, seed=3)
    assert found != bootstrap_interval(VALUES, seed=4)
    assert found.estimate == pytest.approx(VALUES.mean().item())
    expected = stats.bootstrap(
        (VALUES.numpy(),), lambda v, axis: v.mean(axis), method="percentile", rng=0
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.03)


def test_the_bootstrap_covers_the_true_mean_as_often_as_it_says() -> None:
    samples = torch.randn(200, 50, generator=torch.Generator().manual_seed(1))
    intervals = [bootstrap_interval(s, draws=200, level=0.9) for s in samples]
    covered = sum(each.low <= 0 <= each.high for each in intervals)
    assert 0.8 < covered / 200 < 0.97


def test_any_statistic_of_the_rows_can_be_drawn_again() -> None:
    y = VALUES + VALUES.flip(0)
    found = bootstrap_interval_of(
        lambda rows: distance_correlation(VALUES[rows], y[rows]).item(), 60, draws=100
    )
    assert found.low < found.estimate < found.high
    assert found.estimate == distance_correlation(VALUES, y).item()


def test_a_missing_value_leaves_no_interval() -> None:
    found = bootstrap_interval(torch.tensor([1.0, math.nan]), draws=50)
    assert math.isnan(found.estimate)
    assert math.isnan(found.low)


def test_what_has_no_interval_is_refused() -> None:
    for level in (0, 1, 95):
        with pytest.raises(ValueError, match=f"level is {level}"):
            wilson_interval(1, 2, level)
        with pytest.raises(ValueError, match=f"level is {level}"):
            bootstrap_interval(VALUES, level=level)
    with pytest.raises(ValueError, match="no values"):
        bootstrap_interval(VALUES[:0])
    with pytest.raises(ValueError, match="3 successes of 2"):
        wilson_interval(3, 2)
    with pytest.raises(ValueError, match="0 successes of 0"):
        wilson_interval(0, 0)

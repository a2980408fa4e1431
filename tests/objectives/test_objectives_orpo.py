import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.objectives.logps import PairLogps
from workbench.objectives.orpo import log1mexp, log_odds, odds_ratio_loss, orpo_loss


@given(st.floats(-700, -1e-12))
def test_log1mexp_has_no_cancellation(x: float) -> None:
    expected = math.log(-math.expm1(x)) if x > -0.7 else math.log1p(-math.exp(x))
    found = log1mexp(torch.tensor([x], dtype=torch.float64))
    assert float(found) == pytest.approx(expected, rel=1e-13)


def test_even_odds_are_zero_and_a_certain_answer_has_finite_ones() -> None:
    found = log_odds(torch.tensor([math.log(0.5), math.log(0.9), 0.0], dtype=torch.float64))
    assert float(found[0]) == pytest.approx(0, abs=1e-15)
    assert float(found[1]) == pytest.approx(math.log(9))
    assert 36 < found[2] < 37


def test_the_odds_ratio_by_hand() -> None:
    """p_w = 0.8, p_l = 0.5 with one token each: odds 4 and 1, so -log sigmoid(log 4) = log 1.25."""
    logp = [torch.tensor([math.log(p)], dtype=torch.float64) for p in (0.8, 0.5)]
    pairs = PairLogps(*logp, n_chosen=torch.ones(1), n_rejected=torch.ones(1))
    assert float(odds_ratio_loss(pairs, 1.0)) == pytest.approx(math.log(1.25))
    assert float(orpo_loss(pairs, 1.0)) == pytest.approx(math.log(1.25) - math.log(0.8))


def test_the_prompt_counts_in_the_likelihood_where_it_is_given(table_pairs: PairLogps) -> None:
    odds = odds_ratio_loss(table_pairs, 0.1).mean()
    with_prompt = orpo_loss(table_pairs, 0.1).mean() - odds
    assert float(with_prompt) == pytest.approx((82 + 51) / (39 + 18))
    without = replace(table_pairs, policy_prompt=None)
    assert float(orpo_loss(without, 0.1).mean() - odds) == pytest.approx(82 / 39)


def test_a_prompt_without_its_length_is_refused(table_pairs: PairLogps) -> None:
    with pytest.raises(ValueError, match="needs n_prompt"):
        orpo_loss(replace(table_pairs, n_prompt=None), 0.1)

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.objectives.bco import RewardShift, bco_loss, density_ratio_weight
from workbench.objectives.catalogue import OBJECTIVES
from workbench.objectives.logps import PairLogps


def test_the_shift_is_the_mean_of_the_batches_means(table_pairs: PairLogps) -> None:
    """a = (1, -1, 0, 15), r = (-1, 6, 0, -20): their mean is 0; with a + 8, it is 4."""
    first = RewardShift().after(table_pairs, 0.1)
    assert (first.mean, first.batches) == (0.0, 1)
    raised = replace(table_pairs, policy_chosen=table_pairs.policy_chosen + 8)
    second = first.after(raised, 0.1)
    assert second.batches == 2
    assert second.mean == pytest.approx(0.2)


def test_the_shift_is_a_threshold_on_both_rewards(table_pairs: PairLogps) -> None:
    found = bco_loss(table_pairs, 0.1, RewardShift(0.2, 2))
    by_hand = [
        math.log1p(math.exp(-(0.1 * a - 0.2))) + math.log1p(math.exp(0.1 * r - 0.2))
        for a, r in zip([1, -1, 0, 15], [-1, 6, 0, -20], strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(by_hand, dtype=torch.float64))


def test_weights_count_the_rejected_answers_alone(table_pairs: PairLogps) -> None:
    p = table_pairs
    plain, doubled = (
        bco_loss(replace(p, rejected_weight=torch.full((4,), w)), 0.1) for w in (1, 2)
    )
    rejected = -torch.nn.functional.logsigmoid(-0.1 * p.rejected_log_ratio)
    torch.testing.assert_close(doubled - plain, rejected)
    torch.testing.assert_close(plain, bco_loss(p, 0.1))


def test_missing_rewards_do_not_move_the_shift(table_pairs: PairLogps) -> None:
    missing = torch.full((4,), math.nan, dtype=torch.float64)
    start = RewardShift(0.3, 5)
    gone = replace(table_pairs, policy_chosen=missing, policy_rejected=missing)
    assert start.after(gone, 0.1) is start
    half = replace(table_pairs, policy_chosen=missing)
    assert RewardShift().after(half, 0.1).mean == pytest.approx(0.1 * (-15 / 4))


def test_the_state_goes_in_and_out_by_the_catalogue(table_pairs: PairLogps) -> None:
    bco = OBJECTIVES["bco"]
    raised = replace(table_pairs, policy_chosen=table_pairs.policy_chosen + 8)
    state = bco.advance(raised)
    assert state is not None
    assert (state.mean, state.batches) == (pytest.approx(0.4), 1)
    again = bco.advance(raised, state, beta=0.2)
    assert again is not None
    assert again.mean == pytest.approx((0.4 + 0.8) / 2)
    torch.testing.assert_close(bco.losses(raised, state), bco_loss(raised, 0.1, state))
    torch.testing.assert_close(bco.losses(raised), bco_loss(raised, 0.1))  # nothing is remembered
    assert OBJECTIVES["dpo"].advance(table_pairs) is None


def test_the_weight_is_the_odds_of_the_prompt_cut_at_both_ends() -> None:
    found = density_ratio_weight(torch.tensor([0.0, 0.1, 0.5, 0.8, 1.0], dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([0.5, 0.5, 1, 4, 10], dtype=torch.float64))
    assert density_ratio_weight(torch.tensor([math.nan])).isnan().all()


@given(st.floats(0, 1))
def test_the_weight_has_no_gradient(p: float) -> None:
    probability = torch.tensor([p], requires_grad=True)
    assert not density_ratio_weight(probability).requires_grad


def test_weights_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"from -0.5 to 0.5; give values in \[0, 1\]"):
        density_ratio_weight(torch.tensor([-0.5, 0.5]))
    with pytest.raises(ValueError, match=r"cut to 2.0 and 1.0"):
        density_ratio_weight(torch.tensor([0.5]), 2.0, 1.0)

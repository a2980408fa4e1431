"""Likelihoods: alone (SFT), and as a part of CPO and TPO."""

from dataclasses import replace

import pytest
import torch

from workbench.objectives.catalogue import OBJECTIVES
from workbench.objectives.logps import PairLogps
from workbench.objectives.sft import sft_loss


def test_the_mean_is_taken_over_the_tokens_of_the_batch(table_pairs: PairLogps) -> None:
    assert float(sft_loss(table_pairs).mean()) == pytest.approx((10 + 25 + 7 + 40) / 39)


def test_a_mean_of_the_answers_means_would_differ(table_pairs: PairLogps) -> None:
    mean_of_means = -table_pairs.chosen_per_token.mean()
    assert float(mean_of_means) != pytest.approx(float(sft_loss(table_pairs).mean()))


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_cpo_adds_the_chosen_likelihood(scale: float, table_pairs: PairLogps) -> None:
    cpo = OBJECTIVES["cpo"].losses
    added = cpo(table_pairs, sft_weight=scale) - cpo(table_pairs, sft_weight=0.0)
    torch.testing.assert_close(added, scale * sft_loss(table_pairs))


@pytest.mark.parametrize("name", ["tpo", "tpo_l"])
def test_tpo_adds_the_gold_likelihood(name: str, table_pairs: PairLogps) -> None:
    tpo = OBJECTIVES[name].losses
    added = tpo(table_pairs) - tpo(table_pairs, gold_weight=0.0)
    assert float(added.mean()) == pytest.approx((9 + 21 + 6 + 33) / (4 + 11 + 3 + 19))


def test_the_rejected_answers_are_not_read(table_pairs: PairLogps) -> None:
    other = replace(table_pairs, policy_rejected=table_pairs.policy_rejected - 100)
    torch.testing.assert_close(sft_loss(other), sft_loss(table_pairs))

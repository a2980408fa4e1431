import math

import pytest
import torch

from workbench.objectives.wpo import log_collision_probability, wpo_answer_weight, wpo_pair_weight


def test_the_collision_probability_by_hand() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]]).log() + 7
    found = log_collision_probability(logits).exp()
    torch.testing.assert_close(found, torch.tensor([0.375, 1 / 3]))


def test_an_answer_of_typical_tokens_weighs_one() -> None:
    """A uniform policy gives every token the collision probability itself."""
    collision = torch.full((1, 3), math.log(1 / 4))
    weight = wpo_answer_weight(collision, collision, torch.ones(1, 3).bool())
    torch.testing.assert_close(weight, torch.ones(1))


def test_the_weight_is_the_geometric_mean_of_the_ratios() -> None:
    logps = torch.tensor([[0.5, 0.125, 0.9]]).log()
    collision = torch.tensor([[0.25, 0.25, 0.25]]).log()
    weight = wpo_answer_weight(logps, collision, torch.tensor([[True, True, False]]))
    assert float(weight) == pytest.approx(1.0)  # 2 and 1/2; the third is padding


def test_weights_have_no_gradient_and_multiply() -> None:
    logps = torch.tensor([[-1.0]], requires_grad=True)
    weight = wpo_answer_weight(logps, torch.tensor([[-3.0]]), torch.ones(1, 1).bool())
    assert not weight.requires_grad
    assert float(wpo_pair_weight(weight, weight)) == pytest.approx(math.exp(4))  # not cut at 1


def test_an_answer_without_tokens_has_no_weight() -> None:
    assert wpo_answer_weight(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 2).bool()).isnan()

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import logsigmoid

from workbench.objectives.listwise import lambda_loss, plackett_luce_loss


def tensor(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_plackett_luce_by_hand() -> None:
    """Weights 2, 1, 1 in the order of the ranking: 2/4 * 1/2."""
    scores = tensor([0.0, math.log(2), 0.0])
    found = plackett_luce_loss(scores, tensor([2.0, 3.0, 1.0]))
    assert float(found) == pytest.approx(-math.log(2 / 4 * 1 / 2))


@given(st.lists(st.floats(-20, 20), min_size=4, max_size=4))
def test_plackett_luce_is_a_distribution_over_rankings(scores: list[float]) -> None:
    total = sum(
        math.exp(-float(plackett_luce_loss(tensor(scores), tensor(list(order)))))
        for order in itertools.permutations([1.0, 2.0, 3.0, 4.0])
    )
    assert total == pytest.approx(1)


@given(st.floats(-30, 30), st.floats(-30, 30))
def test_two_answers_are_a_pair(better: float, worse: float) -> None:
    expected = -logsigmoid(tensor([better - worse])[0])
    scores, ratings = tensor([worse, better]), tensor([0.0, 1.0])
    torch.testing.assert_close(plackett_luce_loss(scores, ratings), expected)
    torch.testing.assert_close(lambda_loss(scores, ratings, weighted=False), expected)


def test_lambda_loss_by_hand() -> None:
    """Ranks by score are 2, 1, 3; gains 2^v are 2, 1, 1; the last two answers tie."""
    scores, ratings = tensor([0.0, 1.0, -1.0]), tensor([1.0, 0.0, 0.0])
    discount = [1 / math.log(1 + rank) for rank in (2, 1, 3)]
    by_hand = abs(discount[0] - discount[1]) * math.log1p(math.exp(1))
    by_hand += abs(discount[0] - discount[2]) * math.log1p(math.exp(-1))
    assert float(lambda_loss(scores, ratings)) == pytest.approx(by_hand)


def test_the_weights_are_constants_for_the_gradient() -> None:
    scores, ratings = tensor([0.3, 1.0, -1.0]).requires_grad_(), tensor([1.0, 0.0, 0.5])
    assert torch.autograd.gradcheck(lambda s: lambda_loss(s, ratings), (scores,))
    assert torch.autograd.gradcheck(lambda s: plackett_luce_loss(s, ratings), (scores,))


@given(st.floats(-100, 100))
def test_a_constant_of_the_prompt_changes_nothing(constant: float) -> None:
    scores, ratings = tensor([0.3, 1.0, -1.0], [2.0, 0.0, 1.0]), tensor([1, 0, 0.5], [3, 1, 2])
    for loss in (plackett_luce_loss, lambda_loss):
        torch.testing.assert_close(loss(scores + constant, ratings), loss(scores, ratings))


def test_a_missing_score_makes_its_list_missing() -> None:
    scores, ratings = tensor([0.3, math.nan, -1.0], [2, 0, 1]), tensor([1, 0, 0.5], [3, 1, 2])
    for loss in (plackett_luce_loss, lambda_loss):
        assert loss(scores, ratings).isnan().tolist() == [True, False]


def test_what_makes_no_ranking_is_refused() -> None:
    with pytest.raises(ValueError, match="same rating; a ranking without ties"):
        plackett_luce_loss(tensor([1, 2, 3]), tensor([1, 1, 2]))
    with pytest.raises(ValueError, match=r"\(1, 3\) and ratings \(1, 2\)"):
        lambda_loss(tensor([1, 2, 3]), tensor([1, 2]))

import math

import pytest
import torch

from workbench.objectives.ld_dpo import length_desensitised_logps

CHOSEN = torch.tensor([[-1.0, -2.0, -4.0, -8.0], [-1.0, math.nan, 0.0, 0.0]])
REJECTED = torch.tensor([[-3.0, -5.0, 99.0, 99.0], [-2.0, -3.0, -5.0, -7.0]])
CHOSEN_MASK = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]]).bool()
REJECTED_MASK = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]).bool()
BOTH = (CHOSEN, REJECTED, CHOSEN_MASK, REJECTED_MASK)


@pytest.mark.parametrize(
    ("ld_alpha", "chosen", "rejected"),
    [(1.0, [-15, -1], [-8, -17]), (0.0, [-3, -1], [-8, -2]), (0.5, [-9, -1], [-8, -9.5])],
)
def test_tokens_beyond_the_shorter_answer_count_less(
    ld_alpha: float, chosen: list[float], rejected: list[float]
) -> None:
    found = length_desensitised_logps(*BOTH, ld_alpha)
    assert [side.tolist() for side in found] == [chosen, rejected]


def test_padding_may_stand_on_the_left() -> None:
    flipped = [x.flip(1) for x in (CHOSEN_MASK, REJECTED_MASK)]
    mirrored = [torch.where(mask, -1.0, 7.0) for mask in flipped]
    chosen, rejected = length_desensitised_logps(*mirrored, *flipped, 0.5)
    assert chosen.tolist() == [-3, -1]
    assert rejected.tolist() == [-2, -2.5]


def test_a_missing_token_of_the_answer_makes_the_sum_missing() -> None:
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    chosen, _ = length_desensitised_logps(CHOSEN, REJECTED, mask, REJECTED_MASK, 0.5)
    assert chosen.isnan().tolist() == [False, True]


def test_alpha_is_a_share() -> None:
    with pytest.raises(ValueError, match=r"ld_alpha is 1.5; give a number from 0 to 1"):
        length_desensitised_logps(*BOTH, 1.5)

import math
from dataclasses import replace

import pytest
import torch

from workbench.objectives.kto import kto_loss, kto_reference_point
from workbench.objectives.logps import PairLogps


def test_the_reference_point_is_a_mean_that_is_not_negative() -> None:
    assert kto_reference_point(torch.tensor([1.0, 3.0])) == 2
    assert kto_reference_point(torch.tensor([1.0, -3.0])) == 0
    assert kto_reference_point(torch.tensor([1.0, math.nan])).isnan()


def test_no_gradient_flows_through_the_reference_point() -> None:
    assert not kto_reference_point(torch.ones(2, requires_grad=True)).requires_grad


def test_weights_count_good_and_bad_apart(table_pairs: PairLogps) -> None:
    both, good = kto_loss(table_pairs, 0.1, 1.0, 1.0), kto_loss(table_pairs, 0.1, 1.0, 0.0)
    bad = kto_loss(table_pairs, 0.1, 0.0, 1.0)
    torch.testing.assert_close(both, good + bad)
    torch.testing.assert_close(kto_loss(table_pairs, 0.1, 4 / 3, 1.0), 4 / 3 * good + bad)


def test_an_answer_at_the_reference_point_loses_half(table_pairs: PairLogps) -> None:
    """Pair 3 has a = r = 0."""
    at_zero = replace(table_pairs, mismatched=torch.zeros(4, dtype=torch.float64))
    assert kto_loss(at_zero, 0.1, 1.0, 1.0)[2] == pytest.approx(0.5)

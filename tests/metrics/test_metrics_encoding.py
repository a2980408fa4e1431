import math

import pytest
import torch

from workbench.metrics.dependence import distance_covariance_sq
from workbench.metrics.encoding import encode_attribute


def mean_distance(values: torch.Tensor) -> float:
    points = values.reshape(len(values), -1)
    return float(torch.cdist(points, points).sum()) / (len(values) * (len(values) - 1))


def test_two_levels_become_zero_and_one_in_sorted_order() -> None:
    assert encode_attribute(["male", "female", "male"], "binary").tolist() == [1, 0, 1]
    assert encode_attribute([True, False], "binary").tolist() == [1, 0]
    assert encode_attribute(["x", "x"], "binary").tolist() == [0, 0]


def test_levels_become_one_hot_a_root_of_two_apart() -> None:
    found = encode_attribute(["b", "a", "c"], "categorical")
    assert found.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert mean_distance(found) == pytest.approx(math.sqrt(2))
    assert mean_distance(encode_attribute(["b", "a", "c"], "categorical", True)) == pytest.approx(1)


def test_numbers_are_scaled_to_the_unit_interval() -> None:
    assert encode_attribute([20, 30.0, "60"], "continuous").tolist() == [0, 0.25, 1]
    assert encode_attribute([7, 7], "continuous").tolist() == [0, 0]
    equalised = encode_attribute([20, 30, 60, 61], "continuous", equalise=True)
    assert mean_distance(equalised) == pytest.approx(1)


def test_large_numbers_keep_their_differences() -> None:
    found = encode_attribute([1_700_000_000, 1_700_000_001, 1_700_000_004], "continuous")
    torch.testing.assert_close(found, torch.tensor([0, 0.25, 1], dtype=torch.float64))


def test_equalised_codes_need_no_more_than_their_units() -> None:
    outcome, levels = torch.arange(6), ["a", "b", "c"] * 2
    plain, equal = (encode_attribute(levels, "categorical", e) for e in (False, True))
    ratio = distance_covariance_sq(outcome, plain) / distance_covariance_sq(outcome, equal)
    assert ratio.item() == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ([], "binary", "no values"),
        (["a", None], "categorical", "row 1 is missing"),
        ([1.0, math.nan], "categorical", "row 1 is missing"),
        (["a", "b", "c"], "binary", "has 3 values: a, b, c"),
        ([1, "old"], "continuous", "Row 1 .*'old', which is no number"),
        ([1, math.inf], "continuous", "Row 1 .*inf"),
        ([1, 2], "ordinal", "'ordinal'; choose binary, categorical or continuous"),
    ],
)
def test_what_cannot_be_encoded_is_refused_with_the_reason(
    values: list[object], kind: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        encode_attribute(values, kind)  # type: ignore[arg-type]

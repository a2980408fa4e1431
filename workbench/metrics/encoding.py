"""Protected attributes as numbers, as the code of Lee et al. (arXiv 2509.08163) has them."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.metrics.pairwise import Points

AttributeKind = Literal["binary", "categorical", "continuous"]


def encode_attribute(
    values: Sequence[object], kind: AttributeKind, equalise: bool = False
) -> Float[Tensor, "n *e"]:
    """An attribute as numbers whose Euclidean distances say how far two values are apart.

    Binary becomes 0/1 (first value in sorted order is 0), categorical one-hot in sorted order,
    continuous is scaled to [0, 1] (a constant to 0).

    Args:
        values: One value a row, none missing.
        kind: How to read them.
        equalise: Divide one-hot by sqrt(2) (distance 1 between levels) and continuous by its
            mean pairwise distance, so that no attribute dominates by its units.

    Raises:
        ValueError: no value, a missing one, a binary with more than two, a continuous one that
            is no finite number, or an unknown kind.
    """
    _check_values(values)
    if kind == "continuous":
        return _continuous(values, equalise)
    if kind == "categorical":
        codes, levels = _codes(values)
        one_hot = torch.nn.functional.one_hot(codes, len(levels)).double()
        return one_hot / math.sqrt(2) if equalise else one_hot
    if kind == "binary":
        codes, levels = _codes(values)
        if len(levels) > 2:
            raise ValueError(
                f"A binary attribute has {len(levels)} values: {', '.join(levels[:5])}; "
                "call it categorical."
            )
        return codes.double()
    raise ValueError(f"The kind is {kind!r}; choose binary, categorical or continuous.")


def _check_values(values: Sequence[object]) -> None:
    if len(values) == 0:
        raise ValueError("The attribute has no values; give one a row.")
    for row, value in enumerate(values):
        if value is None or (isinstance(value, float) and math.isnan(value)):
            raise ValueError(f"The value of row {row} is missing; leave such rows out first.")


def _codes(values: Sequence[object]) -> tuple[Tensor, list[str]]:
    """The place of each value among the sorted levels, and the levels."""
    texts = [str(value) for value in values]
    levels = sorted(set(texts))
    place = {level: code for code, level in enumerate(levels)}
    return torch.tensor([place[text] for text in texts]), levels


def _continuous(values: Sequence[object], equalise: bool) -> Tensor:
    numbers = torch.tensor(
        [_number(row, value) for row, value in enumerate(values)], dtype=torch.float64
    )
    low, spread = numbers.min(), numbers.max() - numbers.min()
    if spread == 0:
        return torch.zeros_like(numbers)
    scaled = (numbers - low) / spread
    n = len(numbers)
    return scaled * (n * (n - 1)) / Points(scaled).total if equalise else scaled


def _number(row: int, value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Row {row} of a continuous attribute is {value!r}, which is no number; "
            "mend it or call the attribute categorical."
        ) from error
    if not math.isfinite(number):
        raise ValueError(f"Row {row} of a continuous attribute is {number}; leave it out first.")
    return number

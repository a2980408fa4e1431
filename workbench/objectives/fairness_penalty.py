"""Dependence of rewards on protected attributes as a penalty (Lee et al., arXiv 2509.08163).

The loss of a mini-batch is its mean objective + lambda * penalty, a U-statistic: unbiased on each
batch, and therefore negative at times. It is not cut at 0, which would bias it upwards. What
the attributes contribute is computed once a batch, without gradient; the rewards enter by
|y_i - y_j|, twice differentiable almost everywhere. `workbench.metrics.dependence` has the same
statistics for audits of any size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from workbench.metrics.checks import check_positive
from workbench.metrics.dependence import concatenated

Dependence = Literal["dcov", "ccdcov", "jdcov"]


@dataclass(frozen=True, eq=False)
class AttributeKernel:
    """What a batch's attributes contribute to the penalty; no gradient.

    Attributes:
        matrix: Weight of each pair of rows, shape (m, m).
        joint: Whether the outcome enters as c - A~ (JdCov) or as A~ alone.
        c: Weight of lower against higher orders of interaction; JdCov only.
        variables: How many variables JdCov joins, the outcome included.
    """

    matrix: Tensor
    joint: bool
    c: float
    variables: int


def attribute_kernel(
    attributes: Sequence[Shaped[Tensor, "m ..."]], dependence: Dependence, c: float = 1.0
) -> AttributeKernel:
    """Prepare a batch's attributes.

    Args:
        attributes: One tensor an attribute as `encode_attribute` gives them, (m,) or (m, d).
        dependence: `dcov` sums dCov^2 with each attribute, `ccdcov` takes their concatenation
            (parity on all intersections), `jdcov` joint independence, attributes included.
        c: JdCov's weight of lower orders, > 0.

    Raises:
        ValueError: no attribute, lengths that differ, fewer than 4 rows, a value that is not
            finite, or an unknown dependence.
    """
    check_positive(c, "c")
    both = concatenated(attributes)
    if dependence == "ccdcov":
        return AttributeKernel(_u_centred(_distances(both)), False, c, 2)
    centred = torch.stack([_u_centred(_distances(attribute)) for attribute in attributes])
    if dependence == "dcov":
        return AttributeKernel(centred.sum(dim=0), False, c, 2)
    if dependence == "jdcov":
        return AttributeKernel((c - centred).prod(dim=0), True, c, 1 + len(attributes))
    raise ValueError(f"The dependence is {dependence!r}; choose dcov, ccdcov or jdcov.")


def fairness_penalty(
    outcome: Float[Tensor, " m"], kernel: AttributeKernel, weight: float = 1.0
) -> Float[Tensor, ""]:
    """Lambda times dCov^2, CCdCov^2 or JdCov^2 of a batch's outcome and attributes (U-statistic).

    Args:
        outcome: Implicit rewards or margins of the batch, shape (m,), m >= 4, better >= 128.
        kernel: The same rows' attributes, from `attribute_kernel`.
        weight: lambda, >= 0.

    A missing outcome (NaN) gives NaN.

    Raises:
        ValueError: the outcome is not one number a row of the kernel, or lambda is negative.
    """
    m = len(kernel.matrix)
    if outcome.shape != (m,):
        raise ValueError(
            f"The outcome has shape {tuple(outcome.shape)} and the attributes {m} rows; "
            "give one number a row."
        )
    if not weight >= 0:
        raise ValueError(f"The penalty's weight is {weight}; give 0 or more.")
    matrix = kernel.matrix.to(outcome)
    distances = _distances(outcome)
    if not kernel.joint:
        return weight * (distances * matrix).sum() / (m * (m - 3))
    product = ((kernel.c - _u_centred(distances)) * matrix).sum()
    return weight * (product - m**2 * kernel.c**kernel.variables) / (m * (m - 3))


def _distances(x: Tensor) -> Tensor:
    """|x_i - x_j| of one number a row, twice differentiable; Euclidean of several."""
    if x.ndim == 1:
        return (x[:, None] - x[None, :]).abs()
    return torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")


def _u_centred(distances: Tensor) -> Tensor:
    """Székely & Rizzo's U-centring: rows sum to zero, and so does the diagonal."""
    m = len(distances)
    if m < 4:
        raise ValueError(f"The batch has {m} rows; a U-statistic needs at least 4.")
    rows = distances.sum(dim=1) / (m - 2)
    whole = distances.sum() / ((m - 1) * (m - 2))
    centred = distances - rows[:, None] - rows[None, :] + whole
    return centred * (1 - torch.eye(m, dtype=distances.dtype, device=distances.device))

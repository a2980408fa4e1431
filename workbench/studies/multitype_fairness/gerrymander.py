"""What single-attribute metrics miss, and identities that hold for every model.

Two fair, independent coins are the attributes. An outcome that follows their exclusive or has the
same distribution at either value of each, and another in every second cell.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.metrics import dependence
from workbench.objectives.fairness_penalty import attribute_kernel, fairness_penalty

PER_CELL = 25
"""Rows of each of the four cells; the statistics of the specification are at 100 rows."""
Audit = Callable[[Tensor, list[Tensor]], Tensor]


def coins() -> list[Tensor]:
    """Both attributes, 0 or 1, shape (100,) each."""
    first = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64).repeat(PER_CELL)
    second = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64).repeat(PER_CELL)
    return [first, second]


def gerrymandered(gap: float = 1.0) -> Tensor:
    """Outcome of every row: `gap` where the coins differ, else 0."""
    first, second = coins()
    return gap * (first != second).double()


def single_sum(outcome: Tensor, attributes: list[Tensor]) -> Tensor:
    """The sum of each attribute's own dCov^2 (V): what an audit one by one adds up to."""
    found = [dependence.distance_covariance_sq(outcome, each) for each in attributes]
    return torch.stack(found).sum()


def parity_gap(shift: float, generator: torch.Generator, audit: Audit) -> float:
    """An audit of outcomes alike in every cell, of unequal sizes, but for a shift of one."""
    values = torch.randn(20, generator=generator, dtype=torch.float64)
    repeats, outcome, first, second = (3, 1, 2, 5), list[Tensor](), list[Tensor](), list[Tensor]()
    for place, times in enumerate(repeats):
        outcome.append(values.repeat(times) + shift * (place == 0))
        first.append(torch.full((20 * times,), float(place // 2), dtype=torch.float64))
        second.append(torch.full((20 * times,), float(place % 2), dtype=torch.float64))
    return float(audit(torch.cat(outcome), [torch.cat(first), torch.cat(second)]))


def batch_penalties(batches: int, rows: int, generator: torch.Generator) -> Tensor:
    """CCdCov penalties of batches whose outcome is independent of both attributes."""
    found = []
    for _ in range(batches):
        first, second, outcome = torch.randn(3, rows, generator=generator, dtype=torch.float64)
        found.append(fairness_penalty(outcome, attribute_kernel([first, second], "ccdcov")))
    return torch.stack(found)


@dataclass(frozen=True)
class Identities:
    """What the identities are checked with; sabotaged variants replace a part.

    Attributes:
        outcome: The gerrymandered outcome.
        concatenated: CCdCov (V).
        joint: JdCov (V).
        u_statistics: dCov^2, CCdCov and JdCov as U-statistics.
        shift: By how much one cell's outcomes are shifted where all should be alike.
        clamped: Whether penalties are cut at 0, as they must not be.
    """

    outcome: Callable[[float], Tensor] = gerrymandered
    concatenated: Audit = dependence.concatenated_distance_covariance_sq
    joint: Audit = lambda outcome, attributes: dependence.joint_distance_covariance_sq(
        [outcome, *attributes]
    )
    u_statistics: tuple[Audit, Audit, Audit] = (
        lambda outcome, attributes: dependence.u_distance_covariance_sq(outcome, attributes[0]),
        dependence.u_concatenated_distance_covariance_sq,
        lambda outcome, attributes: dependence.u_joint_distance_covariance_sq(
            [outcome, *attributes]
        ),
    )
    shift: float = 0.0
    clamped: bool = False


def v_statistics() -> tuple[Audit, Audit, Audit]:
    """The plug-in statistics in the order of `Identities.u_statistics`."""
    plain = Identities()
    single: Audit = lambda outcome, attributes: dependence.distance_covariance_sq(  # noqa: E731
        outcome, attributes[0]
    )
    return single, plain.concatenated, plain.joint


def joint_with_usual_sign(outcome: Tensor, attributes: list[Tensor]) -> Tensor:
    """JdCov (V, c = 1) of doubly centred distances without the minus: odd orders count against."""
    product = torch.ones((), dtype=torch.float64)
    for values in (outcome, *attributes):
        distances = (values[:, None] - values[None, :]).abs()
        rows = distances.mean(dim=1)
        product = product * (1 + distances - rows[:, None] - rows[None, :] + distances.mean())
    return product.mean() - 1

"""How sure one may be of a mean or a share."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence limits."""

    estimate: float
    low: float
    high: float


def standard_error(values: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Standard error of the mean (ddof 1); NaN for fewer than two values."""
    if values.numel() < 2:
        return torch.full((), math.nan, dtype=torch.float64)
    return values.to(torch.float64).std() / math.sqrt(values.numel())


def wilson_interval(successes: float, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share (1927); honest for shares near 0 and 1 too.

    Raises:
        ValueError: n < 1, successes outside [0, n], or a level outside (0, 1).
    """
    _check_level(level)
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: there must be between 0 and n >= 1.")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, max(centre - half, 0.0), min(centre + half, 1.0))


def bootstrap_interval(
    values: Float[Tensor, " n"], *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of the mean (Efron 1979); NaN if a value is missing.

    Raises:
        ValueError: no values, or a level outside (0, 1).
    """
    values = values.double()
    return bootstrap_interval_of(
        lambda rows: float(values[rows].mean()), len(values), level=level, draws=draws, seed=seed
    )


def bootstrap_interval_of(
    statistic: Callable[[Int[Tensor, " n"]], float],
    n: int,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of any statistic of n rows.

    Not for a test of independence: near zero, where a distance covariance is degenerate, the
    bootstrap does not hold; use `dependence.permutation_p_value`.

    Args:
        statistic: The statistic as a function of the rows drawn, with replacement.
        n: Number of rows.
        level: Share of the interval.
        draws: Number of resamples.
        seed: Of the resampling.

    Raises:
        ValueError: no rows, or a level outside (0, 1).
    """
    if n < 1:
        raise ValueError("There are no values to draw from.")
    _check_level(level)
    generator = torch.Generator().manual_seed(seed)
    found = [statistic(torch.randint(n, (n,), generator=generator)) for _ in range(draws)]
    tail = torch.tensor([0.5 - level / 2, 0.5 + level / 2], dtype=torch.float64)
    low, high = torch.tensor(found, dtype=torch.float64).quantile(tail).tolist()
    return Interval(statistic(torch.arange(n)), low, high)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"The level is {level}; give a number between 0 and 1, for example 0.95.")

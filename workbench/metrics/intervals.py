"""How sure one may be of a mean or a share."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from jaxtyping import Float
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
        ValueError: n < 1, or successes outside [0, n].
    """
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
    """Percentile bootstrap interval of the mean (Efron 1979).

    Raises:
        ValueError: no values.
    """
    if values.numel() == 0:
        raise ValueError("There are no values to draw from.")
    values = values.to(torch.float64)
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(values), (draws, len(values)), generator=generator)
    tail = torch.tensor([0.5 - level / 2, 0.5 + level / 2], dtype=torch.float64)
    low, high = values[picks].mean(dim=1).quantile(tail).tolist()
    return Interval(float(values.mean()), low, high)

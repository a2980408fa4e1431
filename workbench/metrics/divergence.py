"""How far apart an outcome's distributions lie between groups (Lee et al., arXiv 2509.08163)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

PAPER_BANDWIDTH = 0.15
"""The fixed bandwidth of the paper's code; it dwarfs outcomes of a smaller scale."""
_POINTS = 1000
_FLOOR = 1e-10


@dataclass(frozen=True)
class GroupDensities:
    """Kernel density estimates of each group on one grid.

    Attributes:
        grid: Outcome values, shape (points,).
        densities: One row a group, each integrating to about 1; shape (groups, points).
        sizes: Members of each group, shape (groups,).
        bandwidth: Standard deviation of the Gaussian kernel, in outcome units.
    """

    grid: Tensor
    densities: Tensor
    sizes: Tensor
    bandwidth: float


def group_densities(
    values: Float[Tensor, " n"],
    groups: Int[Tensor, " n"],
    *,
    bandwidth: float | None = None,
    points: int = _POINTS,
    padding: float = 3.0,
) -> GroupDensities:
    """Gaussian kernel densities of the outcome within each group.

    Args:
        values: The outcome.
        groups: Group of each value, 0..k-1, each with at least one member.
        bandwidth: Kernel width; by default Silverman's rule on the values less their group's
            mean, so that it follows the outcome's scale. `PAPER_BANDWIDTH` is the paper's.
        points: Size of the grid.
        padding: How many bandwidths the grid reaches beyond the data; 0 is the paper's grid.

    Raises:
        ValueError: nothing to estimate from, a value that is not finite, or a bandwidth <= 0.
    """
    values = _checked(values, groups)
    sizes = torch.bincount(groups).to(torch.float64)
    width = _silverman(values, groups) if bandwidth is None else bandwidth
    if not width > 0:
        raise ValueError(f"The bandwidth is {width}; give a number above 0.")
    low, high = float(values.min()) - padding * width, float(values.max()) + padding * width
    grid = torch.linspace(low, high, points, dtype=torch.float64)
    rows = [_density(grid, values[groups == k], width) for k in range(len(sizes))]
    return GroupDensities(grid, torch.stack(rows), sizes, width)


def generalised_jensen_shannon(
    values: Float[Tensor, " n"],
    groups: Int[Tensor, " n"],
    *,
    bandwidth: float | None = None,
    weights: Literal["share", "equal"] = "share",
    points: int = _POINTS,
    padding: float = 3.0,
) -> Float[Tensor, ""]:
    """H(sum_k pi_k f_k) - sum_k pi_k H(f_k) in bits, f_k the groups' densities on one grid.

    Lies in [0, H(pi)]; 0 for a single group or a constant outcome. With `PAPER_BANDWIDTH` and
    padding 0 it is the paper's code.

    Args:
        values: The outcome.
        groups: Group of each value, 0..k-1.
        bandwidth: Kernel width, see `group_densities`.
        weights: pi is each group's share, or the same for all.
        points: Size of the grid.
        padding: How many bandwidths the grid reaches beyond the data.
    """
    values = _checked(values, groups)
    if bool((values == values[0]).all()) or int(groups.max()) == 0:
        return torch.zeros((), dtype=torch.float64)
    found = group_densities(values, groups, bandwidth=bandwidth, points=points, padding=padding)
    mass = (found.densities / found.densities.sum(dim=1, keepdim=True)).clamp(min=_FLOOR)
    share = found.sizes / found.sizes.sum()
    pi = share if weights == "share" else torch.full_like(share, 1 / len(share))
    mixture = pi @ mass
    return (_entropy_bits(mixture) - pi @ _entropy_bits(mass)).clamp(min=0.0)


def unfairness(values: Float[Tensor, " n"], groups: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """UF: variance of the (unweighted) group means over the variance of all values, both ddof 1.

    0 where all values are equal or there is one group.
    """
    values = _checked(values, groups)
    sizes = torch.bincount(groups)
    if len(sizes) < 2 or float(values.var()) == 0:
        return torch.zeros((), dtype=torch.float64)
    return _group_means(values, groups).var() / values.var()


def _silverman(values: Tensor, groups: Tensor) -> float:
    """0.9 min(sd, IQR / 1.34) n^(-1/5) of the spread within groups (Silverman 1986, 3.31)."""
    inside = values - _group_means(values, groups)[groups]
    spread = float(inside.std(unbiased=False))
    quarter, three = inside.quantile(torch.tensor([0.25, 0.75], dtype=torch.float64)).tolist()
    robust = (three - quarter) / 1.34
    scale = min(spread, robust) if robust > 0 else spread
    if scale <= 0:
        scale = float(values.std(unbiased=False)) or 1.0
    return 0.9 * scale * float(len(values) ** -0.2)


def _density(grid: Tensor, values: Tensor, width: float) -> Tensor:
    kernel = torch.exp(-0.5 * ((grid[:, None] - values) / width) ** 2)
    return kernel.mean(dim=1) / (width * math.sqrt(2 * math.pi))


def _group_means(values: Tensor, groups: Tensor) -> Tensor:
    sums = torch.zeros(int(groups.max()) + 1, dtype=torch.float64).index_add(0, groups, values)
    sizes: Tensor = torch.bincount(groups)
    return sums.div(sizes)


def _entropy_bits(mass: Tensor) -> Tensor:
    bits: Tensor = -torch.special.xlogy(mass, mass).sum(dim=-1) / math.log(2)
    return bits


def _checked(values: Tensor, groups: Tensor) -> Tensor:
    if len(values) == 0 or len(values) != len(groups):
        raise ValueError(f"There are {len(values)} values and {len(groups)} groups; give pairs.")
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"{int((~torch.isfinite(values)).sum())} values are not finite.")
    if int(groups.min()) < 0 or bool((torch.bincount(groups) == 0).any()):
        raise ValueError("Groups must be numbered 0, 1, 2, ... without gaps.")
    return values.detach().to(torch.float64)

"""How far apart an outcome's distributions lie between groups (Lee et al., arXiv 2509.08163)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from workbench.metrics.checks import check_positive

Weights = Literal["share", "equal"]
PAPER_BANDWIDTH = 0.15
"""The fixed bandwidth of the paper's code; it dwarfs outcomes of a smaller scale."""
_POINTS = 1000
_FLOOR = 1e-10
_CHUNK = 4_000


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
    values: Shaped[Tensor, " n"],
    groups: Int[Tensor, " n"],
    *,
    bandwidth: float | None = None,
    points: int = _POINTS,
    padding: float = 3.0,
    grid: Float[Tensor, " points"] | None = None,
) -> GroupDensities:
    """Gaussian kernel densities of the outcome within each group.

    Args:
        values: The outcome.
        groups: Group of each value, 0..k-1, each with at least one member.
        bandwidth: Kernel width; by default Silverman's rule on the values less their group's
            mean, so that it follows the outcome's scale. `PAPER_BANDWIDTH` is the paper's.
        points: Size of the grid.
        padding: How many bandwidths the grid reaches beyond the data; 0 is the paper's grid.
        grid: A grid of one's own, evenly spaced, so that several models share it.

    Raises:
        ValueError: nothing to estimate from, a value that is not finite, or a bandwidth <= 0.
    """
    values = _checked(values, groups)
    sizes = torch.bincount(groups).double()
    width = _silverman(values, groups) if bandwidth is None else bandwidth
    check_positive(width, "The bandwidth")
    if grid is None:
        low, high = float(values.min()) - padding * width, float(values.max()) + padding * width
        grid = torch.linspace(low, high, points, dtype=torch.float64)
    grid = grid.double()
    rows = [_density(grid, values[groups == k], width) for k in range(len(sizes))]
    return GroupDensities(grid, torch.stack(rows), sizes, width)


def generalised_jensen_shannon(
    values: Shaped[Tensor, " n"],
    groups: Int[Tensor, " n"],
    *,
    bandwidth: float | None = None,
    weights: Weights = "share",
    points: int = _POINTS,
    padding: float = 3.0,
    grid: Float[Tensor, " points"] | None = None,
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
        grid: A grid of one's own, see `group_densities`.
    """
    values = _checked(values, groups)
    if bool((values == values[0]).all()) or int(groups.max()) == 0:
        return torch.zeros((), dtype=torch.float64)
    found = group_densities(
        values, groups, bandwidth=bandwidth, points=points, padding=padding, grid=grid
    )
    # A group wholly outside a grid of one's own has no mass there; the floor makes it uniform.
    mass = found.densities / found.densities.sum(dim=1, keepdim=True).clamp(min=_FLOOR)
    return jensen_shannon(mass.clamp(min=_FLOOR), _weights(found.sizes, weights))


def binned_jensen_shannon(
    values: Shaped[Tensor, " n"],
    groups: Int[Tensor, " n"],
    *,
    bins: int = 20,
    weights: Weights = "share",
) -> Float[Tensor, ""]:
    """The same in bits over the quantile bins of all values together, without any bandwidth.

    No increasing transformation of the outcome changes it. Biased upwards by about
    (groups - 1)(bins - 1) / (2 n log 2) bits.
    """
    values = _checked(values, groups)
    sizes = torch.bincount(groups)
    edges = values.sort().values[torch.arange(1, bins) * len(values) // bins]
    place = torch.searchsorted(edges, values, right=True)
    counts = torch.bincount(groups * bins + place, minlength=len(sizes) * bins)
    mass = counts.reshape(len(sizes), bins).double() / sizes[:, None]
    return jensen_shannon(mass, _weights(sizes.double(), weights))


def jensen_shannon(
    mass: Float[Tensor, "groups points"], weights: Float[Tensor, " groups"]
) -> Float[Tensor, ""]:
    """H(sum_k pi_k f_k) - sum_k pi_k H(f_k) in bits, of distributions f_k given as rows (Lin 1991).

    Lies in [0, H(pi)].
    """
    return (_entropy_bits(weights @ mass) - weights @ _entropy_bits(mass)).clamp(min=0.0)


def unfairness(values: Shaped[Tensor, " n"], groups: Int[Tensor, " n"]) -> Float[Tensor, ""]:
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
    # In chunks, so that no points x n matrix stands in memory.
    total = torch.zeros_like(grid)
    for part in torch.split(values, _CHUNK):
        total += torch.exp(-0.5 * ((grid[:, None] - part) / width) ** 2).sum(dim=1)
    return total / (len(values) * width * math.sqrt(2 * math.pi))


def _weights(sizes: Tensor, weights: Weights) -> Tensor:
    if weights == "share":
        return sizes / sizes.sum()
    if weights == "equal":
        return torch.full_like(sizes, 1 / len(sizes))
    raise ValueError(f"weights is {weights!r}; choose share or equal.")


def _group_means(values: Tensor, groups: Tensor) -> Tensor:
    sums = torch.zeros(int(groups.max()) + 1, dtype=torch.float64).index_add(0, groups, values)
    return sums / torch.bincount(groups)


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

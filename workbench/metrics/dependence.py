"""Distance covariance and its relatives: dependence of any kind, zero only for independence.

V-statistics (`distance_covariance_sq`) are the plain, non-negative plug-in; U-statistics (`u_...`)
are unbiased and may be negative. Székely & Rizzo (2014, arXiv 1310.2926) give both; the fast
univariate sums follow Huo & Székely (2016) and Chaudhuri & Hu (2019); joint distance covariance
is Chakraborty & Zhang (2019); the concatenated form is Lee et al. (arXiv 2509.08163).

A variable is a tensor of shape (n,) or (n, d); the distance is Euclidean. Everything is computed
in float64. What these numbers do not say: a small sample with zero dCov is not independent, and
the size of dCov depends on the units (use the correlation, or `equalise`).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

AttributeKind = Literal["binary", "categorical", "continuous"]
BLOCK_ELEMENTS = 4_000_000
"""Largest number of pairwise distances held at once (32 MB)."""
_MATRIX_LIMIT = 4_000
_LEAF_BITS = 5
_LEAF = 1 << _LEAF_BITS
_Array = np.ndarray[Any, Any]


def distance_covariance_sq(x: Float[Tensor, "n *d"], y: Float[Tensor, "n *e"]) -> Float[Tensor, ""]:
    """Squared distance covariance, V-statistic; >= 0, in units of x times units of y.

    O(n log n) where both are univariate, or one is univariate and the other one-hot.

    Raises:
        ValueError: lengths differ, fewer than two rows, or a value that is not finite.
    """
    s = _sums(x, y)
    v = s.product / s.n**2 - 2 * s.rows / s.n**3 + s.total_x * s.total_y / s.n**4
    return v.clamp(min=0.0)


def u_distance_covariance_sq(
    x: Float[Tensor, "n *d"], y: Float[Tensor, "n *e"]
) -> Float[Tensor, ""]:
    """Squared distance covariance, U-statistic: unbiased, negative at times.

    Raises:
        ValueError: as for the V-statistic, or fewer than four rows.
    """
    s = _sums(x, y)
    _at_least_four(s.n)
    n = s.n
    whole = s.total_x * s.total_y / (n * (n - 1) * (n - 2) * (n - 3))
    return s.product / (n * (n - 3)) - 2 * s.rows / (n * (n - 2) * (n - 3)) + whole


def distance_correlation(x: Float[Tensor, "n *d"], y: Float[Tensor, "n *e"]) -> Float[Tensor, ""]:
    """Distance correlation (not squared), in [0, 1]; 0 where either side is constant."""
    scale = (distance_covariance_sq(x, x) * distance_covariance_sq(y, y)).sqrt()
    if scale <= _tiny(x, y):
        return torch.zeros((), dtype=torch.float64)
    return (distance_covariance_sq(x, y) / scale).sqrt().clamp(max=1.0)


def bias_corrected_distance_correlation_sq(
    x: Float[Tensor, "n *d"], y: Float[Tensor, "n *e"]
) -> Float[Tensor, ""]:
    """Bias-corrected squared distance correlation; 0 where either side is constant."""
    scale = u_distance_covariance_sq(x, x) * u_distance_covariance_sq(y, y)
    if scale <= _tiny(x, y) ** 2:
        return torch.zeros((), dtype=torch.float64)
    return u_distance_covariance_sq(x, y) / scale.sqrt()


def joint_distance_covariance_sq(
    variables: Sequence[Float[Tensor, "n *d"]], c: float = 1.0
) -> Float[Tensor, ""]:
    """JdCov, V-statistic: mean of prod_i (U_i + c) - c^d; zero iff mutually independent.

    It counts dependence among all the variables, attributes among themselves included.

    Args:
        variables: Two or more variables over the same n rows.
        c: Weight of lower against higher orders of interaction; smaller stresses the higher.
    """
    spaces = _spaces(variables, c)
    n = spaces[0].n
    return _product_sum(spaces, c, unbiased=False) / n**2 - c ** len(spaces)


def u_joint_distance_covariance_sq(
    variables: Sequence[Float[Tensor, "n *d"]], c: float = 1.0
) -> Float[Tensor, ""]:
    """JdCov, U-statistic; for two variables equal to `u_distance_covariance_sq` at every c."""
    spaces = _spaces(variables, c)
    n = spaces[0].n
    _at_least_four(n)
    return _product_sum(spaces, c, unbiased=True) / (n * (n - 3)) - c ** len(spaces) * n / (n - 3)


def concatenated_distance_covariance_sq(
    outcome: Float[Tensor, "n *d"], attributes: Sequence[Float[Tensor, "n *e"]]
) -> Float[Tensor, ""]:
    """CCdCov: dCov^2 of the outcome and the concatenated attribute vector, V-statistic.

    Zero in the population iff the outcome is independent of the attributes *jointly*, that is,
    demographic parity on every intersection; dependence among the attributes does not enter.
    """
    return distance_covariance_sq(outcome, concatenated(attributes))


def u_concatenated_distance_covariance_sq(
    outcome: Float[Tensor, "n *d"], attributes: Sequence[Float[Tensor, "n *e"]]
) -> Float[Tensor, ""]:
    """CCdCov as a U-statistic, the form that the paper penalises."""
    return u_distance_covariance_sq(outcome, concatenated(attributes))


def concatenated(attributes: Sequence[Float[Tensor, "n *e"]]) -> Float[Tensor, "n e"]:
    """Attributes side by side in one matrix, one row a sample."""
    if not attributes:
        raise ValueError("No attribute was given; choose at least one.")
    return torch.cat([_matrix(attribute) for attribute in attributes], dim=1)


def encode_attribute(
    values: Sequence[object], kind: AttributeKind, equalise: bool = False
) -> Float[Tensor, "n *e"]:
    """An attribute as numbers, as the paper's code does it.

    Binary becomes 0/1 (first value in sorted order is 0), categorical one-hot in sorted order,
    continuous is scaled to [0, 1] (a constant to 0).

    Args:
        values: One value a row, none missing.
        kind: How to read them.
        equalise: Divide one-hot by sqrt(2) (distance 1 between levels) and continuous by its
            mean pairwise distance, so that no attribute dominates by its units.

    Raises:
        ValueError: a missing value, a binary with more than two values, or a non-number where a
            continuous attribute should have one.
    """
    if any(value is None for value in values):
        raise ValueError("A value is missing; leave such rows out first.")
    if kind == "continuous":
        return _continuous(values, equalise)
    levels = sorted({str(value) for value in values})
    if kind == "binary" and len(levels) > 2:
        raise ValueError(f"A binary attribute has {len(levels)} values: {', '.join(levels[:5])}.")
    codes = torch.tensor([levels.index(str(value)) for value in values], dtype=torch.long)
    if kind == "binary":
        return codes.to(torch.float64)
    one_hot = torch.nn.functional.one_hot(codes, len(levels)).to(torch.float64)
    return one_hot / math.sqrt(2) if equalise else one_hot


@dataclass(frozen=True)
class PermutationTest:
    """A statistic, and the share of permutations that reach it."""

    statistic: float
    p_value: float
    permutations: int


def permutation_p_value(
    x: Float[Tensor, "n *d"],
    y: Float[Tensor, "n *e"],
    *,
    permutations: int = 999,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> PermutationTest:
    """Test independence by permuting x: p = (1 + #{permuted >= observed}) / (permutations + 1).

    The statistic is dCov^2 (V). `on_progress(done, total)` may raise to stop.
    """
    if permutations < 1:
        raise ValueError(f"permutations is {permutations}; give 1 or more, for example 999.")
    statistic = _permuted_statistic(x, y)
    generator = torch.Generator().manual_seed(seed)
    n = len(x)
    observed = statistic(torch.arange(n))
    # Equal up to rounding counts as reached, or ties would make p too small.
    bound, reached = observed * (1 - 1e-12), 0
    for done in range(permutations):
        reached += statistic(torch.randperm(n, generator=generator)) >= bound
        if on_progress is not None:
            on_progress(done + 1, permutations)
    return PermutationTest(observed, (1 + reached) / (permutations + 1), permutations)


@dataclass(frozen=True)
class _Sums:
    """What both statistics are made of: sum a_ij b_ij, sum a_i. b_i., a.., b.."""

    n: int
    product: Tensor
    rows: Tensor
    total_x: Tensor
    total_y: Tensor


@dataclass(frozen=True)
class _Space:
    """One variable with its pairwise distances, which are never all held at once."""

    points: Tensor

    @property
    def n(self) -> int:
        return len(self.points)

    @property
    def univariate(self) -> bool:
        return self.points.shape[1] == 1

    @cached_property
    def order(self) -> Tensor:
        """The rows of a univariate variable by size, shape (n,)."""
        # numpy's sort is twice as quick as torch's here, and equal values may come in any order.
        return torch.from_numpy(np.argsort(self.points[:, 0].numpy()))

    @cached_property
    def row_sums(self) -> Tensor:
        """sum_j ||x_i - x_j||, shape (n,)."""
        if self.univariate:
            return _univariate_row_sums(self.points[:, 0], self.order)
        if self.levels is not None:
            return self._level_distance * (self.n - self._level_sizes[self.levels])
        return torch.cat([self.block(rows).sum(dim=1) for rows in _row_blocks(self.n)])

    @cached_property
    def total(self) -> Tensor:
        return self.row_sums.sum()

    @cached_property
    def levels(self) -> Tensor | None:
        """The level of each row if the points are one-hot (times one constant), else None."""
        nonzero = self.points != 0
        if not bool((nonzero.sum(dim=1) == 1).all()):
            return None
        height = self.points[nonzero]
        return nonzero.int().argmax(dim=1) if bool((height == height[0]).all()) else None

    @property
    def _level_distance(self) -> Tensor:
        return self.points[0].abs().max() * math.sqrt(2)

    @cached_property
    def _level_sizes(self) -> Tensor:
        assert self.levels is not None
        return torch.bincount(self.levels, minlength=self.points.shape[1]).to(torch.float64)

    def block(self, rows: slice) -> Tensor:
        """Distances from some rows to all, shape (rows, n)."""
        if self.univariate:
            return (self.points[rows] - self.points[:, 0]).abs()
        # The default would use a matrix product, whose cancellation gives a point a distance
        # from itself.
        return torch.cdist(
            self.points[rows], self.points, compute_mode="donot_use_mm_for_euclid_dist"
        )

    def level_product(self, other: "_Space") -> Tensor:
        """Sum a_ij b_ij for one-hot `other`: all pairs, less those within a level."""
        assert other.levels is not None
        x = self.points[:, 0]
        present = [k for k, size in enumerate(other._level_sizes.tolist()) if size]
        within = [_Space(x[other.levels == k, None]).total for k in present]
        return other._level_distance * (self.total - torch.stack(within).sum())

    def centred(self, rows: slice, unbiased: bool) -> Tensor:
        """Chakraborty and Zhang's U (minus the doubly centred distance), shape (rows, n)."""
        n = self.n
        row, whole = (n - 2, (n - 1) * (n - 2)) if unbiased else (n, n * n)
        sums = self.row_sums / row
        u = sums[rows, None] + sums[None, :] - self.block(rows) - self.total / whole
        if unbiased:
            local = torch.arange(u.shape[0])
            u[local, torch.arange(n)[rows]] = 0.0
        return u


def _sums(x: Tensor, y: Tensor) -> _Sums:
    a, b = _Space(_matrix(x)), _Space(_matrix(y))
    if a.n != b.n:
        raise ValueError(f"The variables have {a.n} and {b.n} rows; they must be paired.")
    if a.n < 2:
        raise ValueError(f"There are {a.n} rows; distance covariance needs at least 2.")
    rows = (a.row_sums * b.row_sums).sum()
    return _Sums(a.n, _product(a, b, same=x is y), rows, a.total, b.total)


def _product(a: _Space, b: _Space, same: bool) -> Tensor:
    """Sum over all i, j of a_ij b_ij, by the quickest exact way."""
    if same:
        centred = a.points - a.points.mean(dim=0)
        return 2 * a.n * (centred**2).sum()
    if a.univariate and b.univariate:
        return _univariate_product(a, b)
    for one, other in ((a, b), (b, a)):
        if one.univariate and other.levels is not None:
            return one.level_product(other)
    blocks = [(a.block(rows) * b.block(rows)).sum() for rows in _row_blocks(a.n)]
    return torch.stack(blocks).sum()


def _univariate_row_sums(x: Tensor, order: Tensor) -> Tensor:
    """sum_j |x_i - x_j| from one sort: (2k - n) x_(k) + total - 2 prefix_k."""
    n = len(x)
    ordered = x[order] - x.mean()
    prefix = ordered.cumsum(0)
    k = torch.arange(1, n + 1, dtype=torch.float64)
    sums = torch.empty_like(x)
    sums[order] = (2 * k - n) * ordered + prefix[-1] - 2 * prefix
    return sums


def _univariate_product(a: _Space, b: _Space) -> Tensor:
    """Sum over all i, j of |x_i - x_j| |y_i - y_j| in O(n log n).

    Over pairs with x_j <= x_i, |x_i - x_j| |y_i - y_j| is (x_i - x_j)(y_i - y_j) taken twice
    where y_j <= y_i, less the same once everywhere. The unrestricted sum is two moments.
    """
    x, y = (space.points[:, 0] - space.points.mean() for space in (a, b))
    every = len(x) * (x @ y)  # sum over pairs of (x_i - x_j)(y_i - y_j), both means being zero
    place_by_x = torch.empty_like(a.order)
    place_by_x[a.order] = torch.arange(a.n)
    by_y = place_by_x[b.order].numpy()
    return 2 * (2 * _sum_below(x[a.order].numpy(), y[a.order].numpy(), by_y) - every)


def _sum_below(x: _Array, y: _Array, by_y: _Array) -> float:
    """Sum of (x_i - x_j)(y_i - y_j) over pairs with x_j <= x_i and y_j <= y_i.

    Rows are sorted by x; `by_y` lists them in the order of y. A merge sort turned upside down:
    rows start in the order of y, and each level splits every segment into the earlier and the
    later half by x, both still in the order of y. A row of the later half has below it the first
    so many rows of the earlier half, so prefix sums answer.
    """
    n = len(x)
    levels = max((n - 1).bit_length() - _LEAF_BITS, 0)
    size = _LEAF << levels
    # Padding is zero, stands last by x and first by y: it then adds nothing anywhere.
    x, y = np.pad(x, (0, size - n)), np.pad(y, (0, size - n))
    place = np.concatenate([np.arange(n, size), by_y])
    total = _leaf_sum(x, y, n)
    for level in range(levels + _LEAF_BITS - 1, _LEAF_BITS - 1, -1):
        width = 1 << level
        half = ((place >> level) & 1).astype(bool)
        at = np.flatnonzero(half).reshape(-1, width)
        early, later = place.take(np.flatnonzero(~half)).reshape(-1, width), place.take(at)
        below = at - (np.arange(width) + 2 * width * np.arange(len(at))[:, None])
        total += _merged(x[early], y[early], x[later], y[later], below)
        place = np.concatenate([early, later], axis=1).ravel()
    return total


def _merged(x_early: _Array, y_early: _Array, x: _Array, y: _Array, count: _Array) -> float:
    """What each later row makes with the first `count` earlier rows of its segment."""
    segments, width = x.shape
    place = count + (width + 1) * np.arange(segments)[:, None]
    sums = np.zeros((3, segments, width + 1))
    for prefix, values in zip(sums, (x_early, y_early, x_early * y_early), strict=True):
        values.cumsum(axis=1, out=prefix[:, 1:])
    sum_x, sum_y, sum_xy = sums.reshape(3, -1)
    y_part = count * y - sum_y[place]
    return float(np.vdot(x, y_part) - np.vdot(y, sum_x[place]) + sum_xy[place].sum())


def _leaf_sum(x: _Array, y: _Array, n: int) -> float:
    """The pairs inside each leaf of rows that are neighbours by x, directly."""
    leaves = -(-n // _LEAF)
    x, y = (values[: leaves * _LEAF].reshape(leaves, _LEAF) for values in (x, y))
    real = n - (leaves - 1) * _LEAF
    by_x, by_y = (values[:, :, None] - values[:, None, :] for values in (x, y))
    by_x[-1, real:], by_x[-1, :, real:] = 0, 0
    return float(np.vdot(np.maximum(by_x, 0, out=by_x), np.maximum(by_y, 0, out=by_y)))


def _spaces(variables: Sequence[Tensor], c: float) -> list[_Space]:
    if len(variables) < 2:
        raise ValueError(
            f"{len(variables)} variables were given; joint dependence needs 2 or more."
        )
    if not c > 0:
        raise ValueError(f"c is {c}; give a number above 0 (the authors use 1).")
    spaces = [_Space(_matrix(variable)) for variable in variables]
    sizes = {space.n for space in spaces}
    if len(sizes) > 1:
        raise ValueError(f"The variables have {sorted(sizes)} rows; they must be paired.")
    return spaces


def _product_sum(spaces: Sequence[_Space], c: float, unbiased: bool) -> Tensor:
    """Sum over k, l of prod_i (U_i(k, l) + c), block by block."""
    total = torch.zeros((), dtype=torch.float64)
    for rows in _row_blocks(spaces[0].n, len(spaces)):
        product = spaces[0].centred(rows, unbiased) + c
        for space in spaces[1:]:
            product *= space.centred(rows, unbiased) + c
        total += product.sum()
    return total


def _row_blocks(n: int, matrices: int = 2) -> Iterator[slice]:
    step = max(1, BLOCK_ELEMENTS // (n * matrices))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def _permuted_statistic(x: Tensor, y: Tensor) -> Callable[[Tensor], float]:
    """The statistic as a function of the order of x's rows."""
    points, other = _matrix(x), _Space(_matrix(y))
    n = len(points)
    quick = points.shape[1] == 1 and (other.univariate or other.levels is not None)
    if quick or n > _MATRIX_LIMIT:
        return lambda order: float(distance_covariance_sq(points[order], other.points))
    _sums(x, y)
    # Projection identity: with b centred, a need not be.
    centred, distances = -other.centred(slice(0, n), False), _Space(points).block(slice(0, n))
    return lambda order: float((distances[order][:, order] * centred).sum()) / n**2


def _matrix(x: Tensor) -> Tensor:
    """A variable as float64 of shape (n, d), checked."""
    points = x.detach().to(torch.float64)
    points = points[:, None] if points.ndim == 1 else points
    if points.ndim != 2:
        raise ValueError(f"A variable has shape {tuple(x.shape)}; give (n,) or (n, d).")
    if not bool(torch.isfinite(points).all()):
        bad = int((~torch.isfinite(points)).any(dim=1).sum())
        raise ValueError(f"{bad} rows are not finite; leave them out first.")
    return points


def _continuous(values: Sequence[object], equalise: bool) -> Tensor:
    try:
        numbers = torch.tensor([float(value) for value in values], dtype=torch.float64)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"A continuous attribute has a value that is no number: {error}."
        ) from error
    spread = numbers.max() - numbers.min()
    scaled = (numbers - numbers.min()) / spread if spread > 0 else torch.zeros_like(numbers)
    n = len(numbers)
    mean = _Space(scaled[:, None]).total / max(n * (n - 1), 1)
    return scaled / mean if equalise and mean > 0 else scaled


def _at_least_four(n: int) -> None:
    if n < 4:
        raise ValueError(f"There are {n} rows; the unbiased statistic needs at least 4.")


def _tiny(x: Tensor, y: Tensor) -> float:
    """Rounding noise of dCov^2 on this scale: below it a variance is zero."""
    scale = float(x.detach().abs().max()) * float(y.detach().abs().max())
    return 1e-14 * scale

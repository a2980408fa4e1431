"""Sums over all pairs of samples, which every distance covariance is made of.

Distances are Euclidean, values float64 on the CPU. One-dimensional samples take O(n log n) by
sorting (Huo & Székely 2016; Chaudhuri & Hu 2019), and so does one against a one-hot variable;
all others go through blocks of the distance matrix, of which `BLOCK_ELEMENTS` are held at once.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

BLOCK_ELEMENTS = 4_000_000
"""Largest number of pairwise distances held at once (32 MB)."""
_LEAF = 16
_LEAF_ROWS = 2_000
_Array = np.ndarray[Any, Any]


class Points:
    """The samples of one variable, shape (n, d), with the sums of their distances."""

    def __init__(self, values: Tensor) -> None:
        self.points = checked_points(values)
        self.n, self.dimension = self.points.shape

    @property
    def univariate(self) -> bool:
        """Whether a sample is a single number."""
        return self.dimension == 1

    @cached_property
    def centred(self) -> Tensor:
        """The samples less their mean, which no distance notices, shape (n, d)."""
        return self.points - self.points.mean(dim=0)

    @cached_property
    def order(self) -> Tensor:
        """The rows of a univariate variable by size, shape (n,)."""
        # numpy's sort is several times as quick as torch's, and ties may come in any order.
        return torch.from_numpy(np.argsort(self.points[:, 0].numpy()))

    @cached_property
    def row_sums(self) -> Tensor:
        """sum_j ||x_i - x_j||, shape (n,)."""
        if self.univariate:
            return _univariate_row_sums(self.centred[:, 0], self.order)
        if self.levels is not None:
            return self.level_distance * (self.n - torch.bincount(self.levels)[self.levels])
        return _blocked(self, None).rows_a

    @cached_property
    def total(self) -> Tensor:
        """sum_ij ||x_i - x_j||."""
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
    def level_distance(self) -> Tensor:
        """The distance between two levels of one-hot points."""
        return self.points[0].abs().max() * math.sqrt(2)

    def block(self, rows: slice, first: int = 0) -> Tensor:
        """Distances from some rows to the rows from `first` on, shape (rows, n - first)."""
        if self.univariate:
            x = self.centred[:, 0]
            return (x[rows, None] - x[first:]).abs_()
        # The default would use a matrix product, whose cancellation gives a point a distance
        # from itself.
        return torch.cdist(
            self.centred[rows], self.centred[first:], compute_mode="donot_use_mm_for_euclid_dist"
        )


@dataclass(frozen=True)
class PairSums:
    """sum a_ij b_ij, sum a_i. b_i., a.. and b.. of two variables' distances a and b."""

    n: int
    product: Tensor
    rows: Tensor
    total_a: Tensor
    total_b: Tensor


def pair_sums(a: Points, b: Points) -> PairSums:
    """The four sums of two variables over the same rows, by the quickest exact way.

    Raises:
        ValueError: the variables differ in length.
    """
    check_paired(a, b)
    product = _product(a, b)
    return PairSums(a.n, product, a.row_sums @ b.row_sums, a.total, b.total)


def level_totals(a: Points, levels: Tensor) -> Tensor:
    """Sum of ||x_i - x_j|| over the pairs within each level 0..k-1, shape (k,)."""
    sizes = torch.bincount(levels)
    if not a.univariate:
        parts = [a.points[levels == k] for k in range(len(sizes))]
        zero = torch.zeros((), dtype=torch.float64)
        return torch.stack([Points(part).total if len(part) else zero for part in parts])
    x = a.centred[:, 0]
    order = torch.from_numpy(np.lexsort((x.numpy(), levels.numpy())))
    level = levels[order]
    place = torch.arange(a.n) - (sizes.cumsum(0) - sizes)[level]
    weight = 2.0 * (2 * place + 1 - sizes[level])
    return torch.zeros(len(sizes), dtype=torch.float64).index_add(0, level, weight * x[order])


def row_blocks(n: int, matrices: int = 2) -> Iterator[slice]:
    """Slices of the rows such that so many blocks of distances fit in `BLOCK_ELEMENTS`."""
    step = max(1, BLOCK_ELEMENTS // (n * matrices))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def check_paired(*variables: Points) -> None:
    """Raise ValueError unless all variables have the same number of rows."""
    sizes = [variable.n for variable in variables]
    if len(set(sizes)) > 1:
        raise ValueError(
            f"The variables have {', '.join(map(str, sizes))} rows; give one row a sample in each."
        )


def checked_points(values: Tensor) -> Tensor:
    """A variable as float64 of shape (n, d) on the CPU; ValueError if that cannot be."""
    points = values.detach().to("cpu", torch.float64)
    points = points[:, None] if points.ndim == 1 else points
    if points.ndim != 2 or points.shape[1] == 0:
        raise ValueError(f"A variable has shape {tuple(values.shape)}; give (n,) or (n, d).")
    if points.shape[0] == 0:
        raise ValueError("A variable has no rows; give at least 2.")
    bad = ~torch.isfinite(points)
    if bool(bad.any()):
        row, column = bad.nonzero()[0].tolist()
        raise ValueError(
            f"Row {row} holds {float(points[row, column])} ({int(bad.any(dim=1).sum())} rows are "
            "not finite); leave such rows out first."
        )
    return points


def _product(a: Points, b: Points) -> Tensor:
    """Sum over all i, j of a_ij b_ij."""
    if a is b:
        return 2 * a.n * (a.centred**2).sum()
    if a.univariate and b.univariate:
        return torch.tensor(_univariate_product(a, b), dtype=torch.float64)
    for one, other in ((a, b), (b, a)):
        if one.univariate and other.levels is not None:
            within = level_totals(one, other.levels)
            return other.level_distance * (one.total - within.sum())
    found = _blocked(a, b)
    a.row_sums, b.row_sums = found.rows_a, found.rows_b
    return found.product


@dataclass(frozen=True)
class _Blocked:
    rows_a: Tensor
    rows_b: Tensor
    product: Tensor


def _blocked(a: Points, b: Points | None) -> _Blocked:
    """Row sums of both variables and the sum of products, in one pass over the upper triangle."""
    # All results are written into place: small tensors kept between large ones would pin the
    # freed blocks, and the memory would grow to the whole matrix.
    rows = torch.zeros(2, a.n, dtype=torch.float64)
    product = torch.zeros((), dtype=torch.float64)
    for block in row_blocks(a.n):
        inside = block.stop - block.start
        left = a.block(block, block.start)
        _add_row_sums(rows[0], left, block)
        if b is not None:
            right = b.block(block, block.start)
            _add_row_sums(rows[1], right, block)
            left *= right
            product += 2 * left.sum() - left[:, :inside].sum()
    return _Blocked(rows[0], rows[1], product)


def _add_row_sums(sums: Tensor, distances: Tensor, block: slice) -> None:
    sums[block] += distances.sum(dim=1)
    sums[block.stop :] += distances[:, block.stop - block.start :].sum(dim=0)


def _univariate_row_sums(x: Tensor, order: Tensor) -> Tensor:
    """sum_j |x_i - x_j| from one sort: (2k - n) x_(k) + total - 2 prefix_k."""
    n = len(x)
    ordered = x[order]
    prefix = ordered.cumsum(0)
    k = torch.arange(1, n + 1, dtype=torch.float64)
    sums = torch.empty_like(x)
    sums[order] = (2 * k - n) * ordered + prefix[-1] - 2 * prefix
    return sums


def _univariate_product(a: Points, b: Points) -> float:
    """Sum over all i, j of |x_i - x_j| |y_i - y_j| in O(n log n).

    Over pairs with x_j <= x_i, |x_i - x_j| |y_i - y_j| is (x_i - x_j)(y_i - y_j) taken twice
    where y_j <= y_i, less the same once everywhere. The unrestricted sum is two moments.
    """
    x, y = a.centred[:, 0].numpy(), b.centred[:, 0].numpy()
    every = a.n * float(x @ y)  # sum over pairs of (x_i - x_j)(y_i - y_j), both means being zero
    by_x = a.order.numpy()
    place_by_x = np.empty_like(by_x)
    place_by_x[by_x] = np.arange(a.n)
    return 2 * (2 * _sum_below(x[by_x], y[by_x], place_by_x[b.order.numpy()]) - every)


def _sum_below(x: _Array, y: _Array, by_y: _Array) -> float:
    """Sum of (x_i - x_j)(y_i - y_j) over pairs with x_j <= x_i and y_j <= y_i.

    Rows are sorted by x; `by_y` lists them in the order of y. A merge sort turned upside down:
    rows start in the order of y, and each level splits every segment into the earlier and the
    later half by x, both still in the order of y. A row of the later half has below it the first
    so many rows of the earlier half, so prefix sums answer. Segments of a leaf's length are left
    to `_leaf_sum`.
    """
    n = len(x)
    levels = (-(-n // _LEAF) - 1).bit_length()
    leaf = -(-n // (1 << levels))
    size = leaf << levels
    # Padding is zero, stands last by x and first by y: it then adds nothing anywhere.
    x, y = (np.concatenate([values, np.zeros(size - n)]) for values in (x, y))
    place = np.concatenate([np.arange(n, size), by_y])
    segment = place // leaf
    total = _leaf_sum(x.reshape(-1, leaf), y.reshape(-1, leaf), n)
    sums = np.empty(3 * (size // 2 + (1 << levels)))
    for level in range(levels - 1, -1, -1):
        late = (segment >> level) & 1 == 1
        at, rest = np.flatnonzero(late), np.flatnonzero(~late)
        early, later = place[rest], place[at]
        total += _merged(x, y, early, later, at, leaf << level, sums)
        if level:
            regroup = np.concatenate([a.reshape(-1, leaf << level) for a in (rest, at)], 1).ravel()
            place, segment = place[regroup], segment[regroup]
    return total


def _merged(
    x: _Array, y: _Array, early: _Array, later: _Array, at: _Array, width: int, scratch: _Array
) -> float:
    """What each later row makes with the earlier rows of its segment that stand before it."""
    segments = len(early) // width
    number = np.arange(segments)[:, None]
    count = at.reshape(segments, width) - (np.arange(width) + 2 * width * number)
    sums = scratch[: 3 * segments * (width + 1)].reshape(3, segments, width + 1)
    sums[:, :, 0] = 0.0
    x_early, y_early = (v[early].reshape(segments, width) for v in (x, y))
    for prefix, values in zip(sums, (x_early, y_early, x_early * y_early), strict=True):
        values.cumsum(axis=1, out=prefix[:, 1:])
    sum_x, sum_y, sum_xy = (s.ravel() for s in sums)
    place = (count + (width + 1) * number).ravel()
    x_later, y_later = x[later], y[later]
    y_part = count.ravel() * y_later - sum_y[place]
    return float(x_later @ y_part - y_later @ sum_x[place] + sum_xy[place].sum())


def _leaf_sum(x: _Array, y: _Array, n: int) -> float:
    """The pairs inside each leaf of rows that are neighbours by x, directly; `n` rows are real."""
    leaf = x.shape[1]
    real = np.arange(x.size).reshape(x.shape) < n
    total = 0.0
    for start in range(0, len(x), _LEAF_ROWS):
        part = slice(start, start + _LEAF_ROWS)
        by_x = x[part, :, None] - x[part, None, :]
        by_y = y[part, :, None] - y[part, None, :]
        if n < (start + _LEAF_ROWS) * leaf:
            by_x *= real[part, :, None] & real[part, None, :]
        total += float(np.vdot(np.maximum(by_x, 0, out=by_x), np.maximum(by_y, 0, out=by_y)))
    return total

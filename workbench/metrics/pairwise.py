"""Sums over all pairs of samples, which every distance covariance is made of.

Distances are Euclidean, values float64 on the CPU. One-dimensional samples take O(n log n) by
sorting (Huo & Székely 2016; Chaudhuri & Hu 2019), and so does one against a one-hot variable;
all others go through blocks of the distance matrix, of which `BLOCK_ELEMENTS` are held at once.

The work is numpy's and scipy's, without BLAS: where training keeps the cores busy, the threads
that torch and BLAS start for some ten thousand numbers cost ten times what they do.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK_ELEMENTS = 1_000_000
"""Largest number of pairwise distances held at once (8 MB, near the size of a cache)."""
_LEAF = 16
_LEAF_ROWS = 2_000
Array = NDArray[Any]


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
    def centred(self) -> Array:
        """The samples less their mean, which no distance notices, shape (n, d)."""
        # By way of the first sample, so that a constant becomes exactly 0.
        shifted: Array = self.points.numpy() - self.points[0].numpy()
        shifted -= shifted.mean(axis=0)
        return shifted

    @property
    def line(self) -> Array:
        """A univariate variable less its mean, shape (n,)."""
        line: Array = self.centred[:, 0]
        return line

    @cached_property
    def order(self) -> Array:
        """The rows of a univariate variable by size, shape (n,)."""
        # Ties may come in any order; numpy's unstable sort is several times as quick as a stable.
        return np.argsort(self.line)

    @cached_property
    def row_sums(self) -> Array:
        """sum_j ||x_i - x_j||, shape (n,)."""
        if self.univariate:
            return _univariate_row_sums(self.line, self.order)
        if self.levels is not None:
            sizes = np.bincount(self.levels)
            apart: Array = self.level_distance * (self.n - sizes[self.levels])
            return apart
        rows: Array = _blocked(self, None)[0][0]
        return rows

    @cached_property
    def total(self) -> float:
        """sum_ij ||x_i - x_j||."""
        return float(self.row_sums.sum())

    @cached_property
    def levels(self) -> Array | None:
        """The level of each row if the points are one-hot (times one constant), else None."""
        points = self.points.numpy()
        nonzero = points != 0
        if not (nonzero.sum(axis=1) == 1).all():
            return None
        height = points[nonzero]
        return nonzero.argmax(axis=1) if (height == height[0]).all() else None

    @property
    def level_distance(self) -> float:
        """The distance between two levels of one-hot points."""
        return float(self.points[0].abs().max()) * math.sqrt(2)

    def permuted(self, rows: Array) -> "Points":
        """The same samples in another order, without sorting or summing them anew."""
        moved = Points(self.points[rows])
        moved.row_sums = self.row_sums[rows]
        if self.univariate:
            place = np.empty_like(rows)
            place[rows] = np.arange(self.n)
            moved.order = place[self.order]
        return moved

    def block(self, rows: slice, first: int = 0) -> Array:
        """Distances from some rows to the rows from `first` on, shape (rows, n - first)."""
        if self.univariate:
            distances: Array = self.line[rows, None] - self.line[first:]
            np.abs(distances, out=distances)
            return distances
        from scipy.spatial.distance import cdist  # 0.2 s to import, and seldom needed

        points = self.centred
        found: Array = cdist(points[rows], points[first:])
        return found


@dataclass(frozen=True)
class PairSums:
    """sum a_ij b_ij, sum a_i. b_i., a.. and b.. of two variables' distances a and b."""

    n: int
    product: float
    rows: float
    total_a: float
    total_b: float


def pair_sums(a: Points, b: Points) -> PairSums:
    """The four sums of two variables over the same rows, by the quickest exact way.

    Raises:
        ValueError: the variables differ in length.
    """
    check_paired(a, b)
    product = _product(a, b)
    return PairSums(a.n, product, float((a.row_sums * b.row_sums).sum()), a.total, b.total)


def level_totals(a: Points, levels: Array) -> Array:
    """Sum of ||x_i - x_j|| over the pairs within each level 0..k-1, shape (k,)."""
    sizes = np.bincount(levels)
    if not a.univariate:
        parts = [a.points[levels == k] for k in range(len(sizes))]
        return np.array([Points(part).total if len(part) else 0.0 for part in parts])
    order = np.lexsort((a.line, levels))
    level = levels[order]
    place = np.arange(a.n) - (sizes.cumsum() - sizes)[level]
    weight = 2.0 * (2 * place + 1 - sizes[level])
    totals: Array = np.bincount(level, weight * a.line[order])
    return totals


def row_blocks(n: int) -> Iterator[slice]:
    """Slices of the rows such that two blocks of distances fit in `BLOCK_ELEMENTS`."""
    step = max(1, BLOCK_ELEMENTS // (2 * n))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def both_triangles(block: Array) -> float:
    """Sum over all pairs (i, j) and (j, i), given rows of the upper triangle from their own on."""
    return float(2 * block.sum() - block[:, : len(block)].sum())


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
    finite = np.isfinite(points.numpy())
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise ValueError(
            f"Row {row} holds {float(points[row, column])} ({(~finite).any(axis=1).sum()} rows are "
            "not finite); leave such rows out first."
        )
    return points


def _product(a: Points, b: Points) -> float:
    """Sum over all i, j of a_ij b_ij."""
    if a is b:
        return float(2 * a.n * np.square(a.centred).sum())
    if a.univariate and b.univariate:
        return _univariate_product(a, b)
    for one, other in ((a, b), (b, a)):
        if one.univariate and other.levels is not None:
            within = level_totals(one, other.levels)
            return other.level_distance * (one.total - float(within.sum()))
    (a.row_sums, b.row_sums), product = _blocked(a, b)
    return product


def _blocked(a: Points, b: Points | None) -> tuple[Array, float]:
    """Row sums of each variable and the sum of products, in one pass over the upper triangle."""
    rows, product = np.zeros((2, a.n)), 0.0
    for block in row_blocks(a.n):
        left = a.block(block, block.start)
        _add_row_sums(rows[0], left, block)
        if b is not None:
            right = b.block(block, block.start)
            _add_row_sums(rows[1], right, block)
            left *= right
            product += both_triangles(left)
    return rows, product


def _add_row_sums(sums: Array, distances: Array, block: slice) -> None:
    sums[block] += distances.sum(axis=1)
    sums[block.stop :] += distances[:, block.stop - block.start :].sum(axis=0)


def _univariate_row_sums(x: Array, order: Array) -> Array:
    """sum_j |x_i - x_j| from one sort: (2k - n) x_(k) + total - 2 prefix_k."""
    n = len(x)
    ordered = x[order]
    prefix = ordered.cumsum()
    sums = np.empty_like(x)
    sums[order] = np.arange(2 - n, n + 1, 2) * ordered + prefix[-1] - 2 * prefix
    return sums


def _univariate_product(a: Points, b: Points) -> float:
    """Sum over all i, j of |x_i - x_j| |y_i - y_j| in O(n log n).

    Over pairs with x_j <= x_i, |x_i - x_j| |y_i - y_j| is (x_i - x_j)(y_i - y_j) taken twice
    where y_j <= y_i, less the same once everywhere. The unrestricted sum is two moments.
    """
    every = a.n * float((a.line * b.line).sum())  # over pairs; both means are zero
    place = np.empty_like(a.order)
    place[a.order] = np.arange(a.n)
    return 2 * (2 * _sum_below(a.line[a.order], b.line[a.order], place[b.order]) - every)


def _sum_below(x: Array, y: Array, by_y: Array) -> float:
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
    x: Array, y: Array, early: Array, later: Array, at: Array, width: int, scratch: Array
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
    return float(_dot(x_later, y_part) - _dot(y_later, sum_x[place]) + sum_xy[place].sum())


def _dot(a: Array, b: Array) -> float:
    return float(np.einsum("i,i->", a, b))


def _leaf_sum(x: Array, y: Array, n: int) -> float:
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
        np.maximum(by_x, 0, out=by_x)
        np.maximum(by_y, 0, out=by_y)
        total += _dot(by_x.ravel(), by_y.ravel())
    return total

"""Distance covariance and its relatives: dependence of any kind, zero only for independence.

V-statistics (`distance_covariance_sq`) are the plain, non-negative plug-in; U-statistics (`u_...`)
are unbiased and may be negative. Székely & Rizzo (2014, arXiv 1310.2926) give both; joint distance
covariance is Chakraborty & Zhang (2019); the concatenated form is Lee et al. (arXiv 2509.08163).

A variable is a tensor of shape (n,) or (n, d); the distance is Euclidean. Everything is computed
in float64 by `workbench.metrics.pairwise`, O(n log n) where both variables are univariate or one
is one-hot, and never with a whole distance matrix in memory. What these numbers do not say: a
small sample with zero dCov is not independent, and the size of dCov depends on the units (use the
correlation, or `equalise` in `encode_attribute`).

All functions raise ValueError for lengths that differ, a value that is not finite, and too few
rows: 2 for V-statistics, 4 for U-statistics.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from workbench.metrics.checks import check_positive
from workbench.metrics.encoding import encode_attribute as encode_attribute
from workbench.metrics.pairwise import (
    Array,
    Points,
    both_triangles,
    check_paired,
    level_totals,
    pair_sums,
    row_blocks,
)

Statistic = Callable[[Points, Points], float]
_MATRIX_LIMIT = 4_000


def distance_covariance_sq(
    x: Shaped[Tensor, "n *d"], y: Shaped[Tensor, "n *e"]
) -> Float[Tensor, ""]:
    """Squared distance covariance, V-statistic; >= 0, in units of x times units of y."""
    return _tensor(_v_statistic(*_pair(x, y)))


def u_distance_covariance_sq(
    x: Shaped[Tensor, "n *d"], y: Shaped[Tensor, "n *e"]
) -> Float[Tensor, ""]:
    """Squared distance covariance, U-statistic: unbiased, negative at times."""
    return _tensor(_u_statistic(*_pair(x, y)))


def distance_correlation(x: Shaped[Tensor, "n *d"], y: Shaped[Tensor, "n *e"]) -> Float[Tensor, ""]:
    """Distance correlation (not squared), in [0, 1]; 0 where either side is constant."""
    return _tensor(min(math.sqrt(_correlation(_v_statistic, *_pair(x, y))), 1.0))


def bias_corrected_distance_correlation_sq(
    x: Shaped[Tensor, "n *d"], y: Shaped[Tensor, "n *e"]
) -> Float[Tensor, ""]:
    """Bias-corrected squared distance correlation; 0 where either side is constant.

    Negative at times, at most 1; 0 too where all distances of a side are equal.
    """
    return _tensor(_correlation(_u_statistic, *_pair(x, y)))


def joint_distance_covariance_sq(
    variables: Sequence[Shaped[Tensor, "n *d"]], c: float = 1.0
) -> Float[Tensor, ""]:
    """JdCov, V-statistic: mean of prod_i (U_i + c) - c^d; zero iff mutually independent.

    U_i is *minus* the doubly centred distance: with the other sign the terms of odd order would
    count negatively. JdCov counts dependence among all the variables, attributes among
    themselves included. Quadratic in n.

    Args:
        variables: Two or more variables over the same n rows.
        c: Weight of lower against higher orders of interaction; smaller stresses the higher.
    """
    spaces = _spaces(variables, c, least=2)
    mean = _product_sum(spaces, c, unbiased=False) / spaces[0].n ** 2
    return _tensor(mean - c ** len(spaces))


def u_joint_distance_covariance_sq(
    variables: Sequence[Shaped[Tensor, "n *d"]], c: float = 1.0
) -> Float[Tensor, ""]:
    """JdCov, U-statistic; for two variables equal to `u_distance_covariance_sq` at every c."""
    spaces = _spaces(variables, c, least=4)
    n = spaces[0].n
    mean = _product_sum(spaces, c, unbiased=True) / (n * (n - 3))
    return _tensor(mean - c ** len(spaces) * n / (n - 3))


def concatenated_distance_covariance_sq(
    outcome: Shaped[Tensor, "n *d"], attributes: Sequence[Shaped[Tensor, "n *e"]]
) -> Float[Tensor, ""]:
    """CCdCov: dCov^2 of the outcome and the concatenated attribute vector, V-statistic.

    Zero in the population iff the outcome is independent of the attributes *jointly*, that is,
    demographic parity on every intersection; dependence among the attributes does not enter.
    """
    return distance_covariance_sq(outcome, concatenated(attributes))


def u_concatenated_distance_covariance_sq(
    outcome: Shaped[Tensor, "n *d"], attributes: Sequence[Shaped[Tensor, "n *e"]]
) -> Float[Tensor, ""]:
    """CCdCov as a U-statistic, the form that the paper penalises."""
    return u_distance_covariance_sq(outcome, concatenated(attributes))


def concatenated(attributes: Sequence[Shaped[Tensor, "n *e"]]) -> Float[Tensor, "n e"]:
    """Attributes side by side in one matrix, one row a sample."""
    if not attributes:
        raise ValueError("No attribute was given; choose at least one.")
    columns = [Points(attribute) for attribute in attributes]
    check_paired(*columns)
    return torch.cat([column.points for column in columns], dim=1)


def energy_distance(x: Shaped[Tensor, "n *d"], y: Shaped[Tensor, "m *d"]) -> Float[Tensor, ""]:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| of two samples, V-form; zero iff equally distributed."""
    both, sizes = Points(torch.cat([x, y])), np.array([len(x), len(y)])
    within = level_totals(both, np.repeat([0, 1], sizes))
    return _tensor((both.total - within.sum()) / sizes.prod() - (within / sizes**2).sum())


def group_energy_distances(
    outcome: Shaped[Tensor, "n *d"], groups: Int[Tensor, " n"]
) -> Float[Tensor, " k"]:
    """The energy distance of each group 0..k-1 from all samples together; 0 for an empty group."""
    y = Points(outcome)
    if len(groups) != y.n:
        raise ValueError(f"There are {y.n} outcomes and {len(groups)} groups; give pairs.")
    level = groups.numpy()
    sizes = np.bincount(level)
    counted = np.maximum(sizes, 1)
    to_all = np.bincount(level, y.row_sums) / (counted * y.n)
    distances = 2 * to_all - level_totals(y, level) / counted**2 - y.total / y.n**2
    return torch.from_numpy(np.where(sizes > 0, distances, 0.0))


def categorical_distance_covariance_sq(
    outcome: Shaped[Tensor, "n *d"], groups: Int[Tensor, " n"]
) -> Float[Tensor, ""]:
    """dCov^2 (V) of an outcome and a category under the discrete metric: sum_k p_k^2 E(Y_k, Y).

    The closed form: which group contributes how much can be read off its terms. One-hot coding
    puts levels sqrt(2) apart and gives sqrt(2) times this.
    """
    distances = group_energy_distances(outcome, groups)
    share = torch.bincount(groups).double() / len(groups)
    return share**2 @ distances


@dataclass(frozen=True)
class PermutationTest:
    """A statistic, and the share of permutations that reach it."""

    statistic: float
    p_value: float
    permutations: int


def permutation_p_value(
    x: Shaped[Tensor, "n *d"],
    y: Shaped[Tensor, "n *e"],
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
    statistic = _permuted_statistic(*_pair(x, y))
    generator = np.random.default_rng(seed)
    n = len(x)
    observed = statistic(np.arange(n))
    # Equal up to rounding counts as reached, or ties would make p too small.
    bound, reached = observed - 1e-12 * abs(observed), 0
    for done in range(1, permutations + 1):
        reached += statistic(generator.permutation(n)) >= bound
        if on_progress is not None:
            on_progress(done, permutations)
    return PermutationTest(observed, (1 + reached) / (permutations + 1), permutations)


def chi_square_p_value(x: Shaped[Tensor, "n *d"], y: Shaped[Tensor, "n *e"]) -> float:
    """Test independence without permutations: n dCor^2_U + 1 against chi^2 of one degree.

    Valid for every n and slightly conservative (Shen, Panda & Vogelstein 2022, arXiv 1912.12150).
    """
    z = len(x) * float(bias_corrected_distance_correlation_sq(x, y)) + 1
    return math.erfc(math.sqrt(max(z, 0.0) / 2))


def _pair(x: Tensor, y: Tensor) -> tuple[Points, Points]:
    a = Points(x)
    b = a if y is x else Points(y)
    check_paired(a, b)
    return a, b


def _v_statistic(a: Points, b: Points) -> float:
    _check_rows(a.n, 2)
    s, n = pair_sums(a, b), a.n
    return max(s.product / n**2 - 2 * s.rows / n**3 + s.total_a * s.total_b / n**4, 0.0)


def _u_statistic(a: Points, b: Points) -> float:
    _check_rows(a.n, 4)
    s, n = pair_sums(a, b), a.n
    whole = s.total_a * s.total_b / (n * (n - 1) * (n - 2) * (n - 3))
    return s.product / (n * (n - 3)) - 2 * s.rows / (n * (n - 2) * (n - 3)) + whole


def _correlation(statistic: Statistic, a: Points, b: Points) -> float:
    """A covariance over the root of the product of both variances; 0 if a variance is."""
    variances = [_variance(statistic, side) for side in (a, b)]
    return statistic(a, b) / math.sqrt(math.prod(variances)) if min(variances) > 0 else 0.0


def _variance(statistic: Statistic, a: Points) -> float:
    """dCov^2 of a variable with itself; 0 where only rounding keeps it from that."""
    mean_square = 2 * np.square(a.centred).sum() / a.n
    variance = statistic(a, a)
    return variance if variance > 1e-13 * mean_square else 0.0


def _spaces(variables: Sequence[Tensor], c: float, least: int) -> list[Points]:
    if len(variables) < 2:
        raise ValueError(
            f"{len(variables)} variables were given; joint dependence needs 2 or more."
        )
    check_positive(c, "c")
    spaces = [Points(variable) for variable in variables]
    check_paired(*spaces)
    _check_rows(spaces[0].n, least)
    return spaces


def _product_sum(spaces: Sequence[Points], c: float, unbiased: bool) -> float:
    """Sum over k, l of prod_i (U_i(k, l) + c), block by block of the upper triangle."""
    total = 0.0
    for rows in row_blocks(spaces[0].n):
        product = _centred(spaces[0], rows, unbiased) + c
        for space in spaces[1:]:
            product *= _centred(space, rows, unbiased) + c
        total += both_triangles(product)
    return total


def _centred(space: Points, rows: slice, unbiased: bool) -> Array:
    """Chakraborty and Zhang's U from some rows to those from the first of them on.

    U(k, l) = E|x_k - X'| + E|X - x_l| - |x_k - x_l| - E|X - X'|; the U-statistic's is 0 for k = l.
    """
    n, first = space.n, rows.start
    row, whole = (n - 2, (n - 1) * (n - 2)) if unbiased else (n, n * n)
    means = space.row_sums / row
    u = (means[first:] - space.total / whole) - space.block(rows, first)
    u += means[rows, None]
    if unbiased:
        np.fill_diagonal(u, 0.0)
    return u


def _permuted_statistic(a: Points, b: Points) -> Callable[[Array], float]:
    """The V-statistic as a function of the order of a's rows."""
    n = a.n
    if (a.univariate and (b.univariate or b.levels is not None)) or n > _MATRIX_LIMIT:
        return lambda order: _v_statistic(a.permuted(order), b)
    _check_rows(n, 2)
    # Projection identity: with b centred, a need not be. The upper triangle counts twice, which
    # the diagonal's zero distances bear.
    weight = np.triu(_centred(b, slice(0, n), unbiased=False)) / (-(n**2) / 2)

    def statistic(order: Array) -> float:
        moved, total = a.permuted(order), 0.0
        for rows in row_blocks(n):
            total += np.einsum("ij,ij->", moved.block(rows, rows.start), weight[rows, rows.start :])
        return total

    return statistic


def _tensor(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _check_rows(n: int, least: int) -> None:
    if n < least:
        raise ValueError(f"There are {n} rows; the statistic needs at least {least}.")

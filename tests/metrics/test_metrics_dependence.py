import math
from collections.abc import Callable, Sequence

import dcor
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from workbench.metrics import dependence as dep
from workbench.metrics import pairwise

Array = NDArray[np.float64]
XOR_ONE = torch.tensor([0.0, 0, 1, 1]).double().repeat(25)
XOR_TWO = torch.tensor([0.0, 1, 0, 1]).double().repeat(25)
XOR = (XOR_ONE != XOR_TWO).double()


def distances(x: Tensor) -> Array:
    points = x.double().numpy().reshape(len(x), -1)
    return np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))


def v_centred(a: Array) -> Array:
    return a - a.mean(0) - a.mean(1)[:, None] + a.mean()


def u_centred(a: Array) -> Array:
    n = len(a)
    u = a - a.sum(0) / (n - 2) - a.sum(1)[:, None] / (n - 2) + a.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(u, 0)
    return u


def naive_v(x: Tensor, y: Tensor) -> float:
    return float((v_centred(distances(x)) * v_centred(distances(y))).mean())


def naive_u(x: Tensor, y: Tensor) -> float:
    n = len(x)
    return float((u_centred(distances(x)) * u_centred(distances(y))).sum() / (n * (n - 3)))


def naive_joint(variables: Sequence[Tensor], c: float) -> float:
    product = np.prod([c - v_centred(distances(x)) for x in variables], axis=0)
    return float(product.mean() - c ** len(variables))


def naive_u_joint(variables: Sequence[Tensor], c: float, sign: int = 1) -> float:
    n = len(variables[0])
    product = np.prod([c - sign * u_centred(distances(x)) for x in variables], axis=0)
    return float(product.sum() / (n * (n - 3)) - n / (n - 3) * c ** len(variables))


def normals(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


# Coarse values give ties, fine ones give none.
numbers = st.one_of(st.integers(-3, 3).map(float), st.floats(-100, 100))


@st.composite
def variables(draw: st.DrawFn, count: int = 2, least: int = 4, most: int = 40) -> list[Tensor]:
    """Paired variables of one or more dimensions; every other one is one-hot."""
    n = draw(st.integers(least, most))
    found = []
    for _ in range(count):
        d = draw(st.integers(0, 3))
        if d == 0:
            codes = torch.tensor(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
            found.append(torch.nn.functional.one_hot(codes, 4).double())
            continue
        flat = draw(st.lists(numbers, min_size=n * d, max_size=n * d))
        found.append(torch.tensor(flat, dtype=torch.float64).reshape(n, d))
    return found


def near(found: Tensor, expected: float, *scale: Tensor) -> bool:
    """Equal up to rounding at the scale of the variables' spread."""
    size = math.prod(float((v - v.mean(0)).abs().max()) + 1e-12 for v in scale)
    return abs(float(found) - expected) <= 1e-10 * max(size, 1e-3)


def test_the_worked_examples_of_five_points() -> None:
    x = torch.arange(1, 6)
    assert dep.distance_covariance_sq(x, x**2).item() == pytest.approx(7.296)
    assert dep.distance_correlation(x, x**2).item() == pytest.approx(0.9869160440, abs=6e-11)
    assert dep.u_distance_covariance_sq(x, x**2).item() == pytest.approx(6.4)
    corrected = dep.bias_corrected_distance_correlation_sq(x, x**2).item()
    assert corrected == pytest.approx(0.9931270663, abs=6e-11)
    x = torch.arange(-2, 3)
    assert dep.distance_covariance_sq(x, x**2).item() == pytest.approx(0.448)
    assert dep.distance_correlation(x, x**2).item() == pytest.approx(0.5159234569, abs=6e-11)
    assert dep.u_distance_covariance_sq(x, x**2).item() == pytest.approx(-0.8)


@given(variables())
def test_both_statistics_equal_their_definition(pair: list[Tensor]) -> None:
    assert near(dep.distance_covariance_sq(*pair), naive_v(*pair), *pair)
    assert near(dep.u_distance_covariance_sq(*pair), naive_u(*pair), *pair)


@given(variables())
def test_the_projection_identity_holds(pair: list[Tensor]) -> None:
    """Centring one side is enough."""
    a, b = map(distances, pair)
    n = len(a)
    assert near(dep.distance_covariance_sq(*pair), float((a * v_centred(b)).mean()), *pair)
    u = float((a * u_centred(b)).sum() / (n * (n - 3)))
    assert near(dep.u_distance_covariance_sq(*pair), u, *pair)


@pytest.mark.parametrize("n", [5, 16, 17, 33, 257, 1000])
@pytest.mark.parametrize("rounded", [False, True])
def test_the_fast_path_agrees_with_dcor(n: int, rounded: bool) -> None:
    x, y = normals(2, n, seed=n)
    y = y + x**2
    if rounded:
        x, y = x.round(), (2 * y).round()
    a, b = x.numpy(), y.numpy()
    close = {"rel": 1e-10, "abs": 1e-10}
    found = dep.distance_covariance_sq(x, y).item()
    assert found == pytest.approx(dcor.distance_covariance_sqr(a, b), **close)
    found = dep.u_distance_covariance_sq(x, y).item()
    assert found == pytest.approx(dcor.u_distance_covariance_sqr(a, b), **close)
    found = dep.distance_correlation(x, y).item()
    assert found == pytest.approx(dcor.distance_correlation(a, b), **close)
    found = dep.bias_corrected_distance_correlation_sq(x, y).item()
    assert found == pytest.approx(dcor.u_distance_correlation_sqr(a, b), **close)


def test_multivariate_values_agree_with_dcor() -> None:
    x, y = normals(60, 3), normals(60, 2, seed=1).exp()
    found = dep.distance_correlation(x, y).item()
    assert found == pytest.approx(dcor.distance_correlation(x.numpy(), y.numpy()))
    energy = dep.energy_distance(x, x[:20] * 2).item()
    assert energy == pytest.approx(dcor.energy_distance(x.numpy(), x[:20].numpy() * 2))


@given(variables())
def test_symmetry_and_bounds(pair: list[Tensor]) -> None:
    x, y = pair
    assert dep.distance_covariance_sq(x, y) >= 0
    assert dep.distance_covariance_sq(x, x) >= 0
    assert 0 <= dep.distance_correlation(x, y) <= 1
    assert dep.bias_corrected_distance_correlation_sq(x, y) <= 1 + 1e-6
    assert near(dep.distance_covariance_sq(y, x), dep.distance_covariance_sq(x, y).item(), *pair)


@given(variables(), st.floats(0.01, 100), st.floats(-1e3, 1e3))
def test_scale_and_shift_laws(pair: list[Tensor], scale: float, shift: float) -> None:
    x, y = pair
    once = dep.distance_covariance_sq(x, y).item()
    assert near(dep.distance_covariance_sq(x + shift, y), once, x + shift, y)
    assert near(dep.distance_covariance_sq(-scale * x, y), scale * once, scale * x, y)


def test_rotations_do_not_matter() -> None:
    x, y = normals(50, 3), normals(50, seed=1)
    q, _ = torch.linalg.qr(normals(3, 3, seed=2))
    torch.testing.assert_close(
        dep.distance_covariance_sq(x @ q, y), dep.distance_covariance_sq(x, y)
    )


@pytest.mark.parametrize("offset", [0.1, 1e9])
@pytest.mark.parametrize("n", [4, 7, 100])
def test_a_constant_depends_on_nothing(offset: float, n: int) -> None:
    x, y = torch.full((n,), offset), normals(n)
    for found in (
        dep.distance_covariance_sq(x, y),
        dep.distance_correlation(x, y),
        dep.bias_corrected_distance_correlation_sq(x, y),
    ):
        assert found.item() == pytest.approx(0, abs=1e-15)
    assert dep.distance_correlation(x, x) == 0


def test_a_large_offset_costs_no_precision() -> None:
    x, y = normals(2, 200)
    found = dep.distance_correlation(1e6 * 2**20 + x, y)
    torch.testing.assert_close(found, dep.distance_correlation(x, y), atol=1e-4, rtol=0)
    assert dep.distance_correlation(1e6 * 2**20 + x, x).item() == pytest.approx(1, abs=1e-6)


def test_equidistant_points_have_no_unbiased_variance() -> None:
    assert dep.bias_corrected_distance_correlation_sq(torch.eye(6), normals(6)) == 0


def test_one_outlier_is_no_constant() -> None:
    x = torch.zeros(10_000)
    x[0] = 1
    assert dep.distance_correlation(x, x).item() == pytest.approx(1)


Joint = Callable[[Sequence[Tensor], float], float]


def shows_the_gerrymandering(joint: Joint) -> bool:
    """Two fair coins and their exclusive or at n = 100, unbiased.

    0.1197... at c = 1; each of the three pairs has dCov^2 = -0.0026... and the weight c.
    """
    return all(
        abs(joint([XOR, XOR_ONE, XOR_TWO], c) - 0.1197279469 + 3 * (c - 1) * 0.0026033531) < 6e-10
        for c in (0.5, 1, 3)
    )


def test_the_exclusive_or_shows_only_jointly() -> None:
    assert dep.distance_covariance_sq(XOR, XOR_ONE).item() == pytest.approx(0, abs=1e-15)
    assert dep.u_distance_covariance_sq(XOR, XOR_TWO).item() == pytest.approx(
        -0.0026033531, abs=6e-11
    )
    both = [XOR_ONE, XOR_TWO]
    assert dep.concatenated_distance_covariance_sq(XOR, both).item() == pytest.approx(
        (2 - math.sqrt(2)) / 8
    )
    assert dep.u_concatenated_distance_covariance_sq(XOR, both).item() == pytest.approx(
        0.0710437412, abs=6e-11
    )
    for c in (0.5, 1.0, 3.0):
        assert dep.joint_distance_covariance_sq([XOR, *both], c).item() == pytest.approx(1 / 8)
    assert shows_the_gerrymandering(lambda v, c: dep.u_joint_distance_covariance_sq(v, c).item())


def test_sabotaged_joint_covariances_are_found_out() -> None:
    def usual_sign(v: Sequence[Tensor], c: float) -> float:
        return naive_u_joint(v, c, sign=-1)

    def without_c_to_the_d(v: Sequence[Tensor], c: float) -> float:
        n = len(v[0])
        return naive_u_joint(v, c) + n / (n - 3) * (c ** len(v) - 1)

    assert shows_the_gerrymandering(naive_u_joint)
    assert not shows_the_gerrymandering(usual_sign)
    assert not shows_the_gerrymandering(without_c_to_the_d)
    flipped = float(
        np.prod([1 + v_centred(distances(x)) for x in (XOR, XOR_ONE, XOR_TWO)], axis=0).mean() - 1
    )
    assert flipped == pytest.approx(-0.125)


@given(variables(3, most=20), st.floats(0.1, 5))
def test_joint_covariance_equals_its_definition(three: list[Tensor], c: float) -> None:
    scale = [v.abs() + c for v in three]
    spread = [*three, torch.tensor([c, 10 * c]), *scale]
    assert near(dep.joint_distance_covariance_sq(three, c), naive_joint(three, c), *spread)
    assert near(dep.u_joint_distance_covariance_sq(three, c), naive_u_joint(three, c), *spread)


@given(variables(3, most=12), st.permutations(range(3)))
def test_the_order_of_the_variables_does_not_matter(three: list[Tensor], order: list[int]) -> None:
    moved = dep.u_joint_distance_covariance_sq([three[i] for i in order])
    torch.testing.assert_close(
        moved, dep.u_joint_distance_covariance_sq(three), rtol=1e-9, atol=1e-6
    )


@pytest.mark.parametrize("c", [0.2, 1.0, 4.0])
def test_joint_covariance_of_two_is_distance_covariance(c: float) -> None:
    x, y = normals(40), normals(40, 2, seed=1)
    for joint, plain in (
        (dep.joint_distance_covariance_sq, dep.distance_covariance_sq),
        (dep.u_joint_distance_covariance_sq, dep.u_distance_covariance_sq),
    ):
        torch.testing.assert_close(joint([x, y], c), plain(x, y), atol=1e-12, rtol=0)


def test_joint_covariance_expands_in_orders_of_interaction() -> None:
    three = list(normals(3, 30))
    x, y, z = three
    pairs = sum(dep.distance_covariance_sq(*p) for p in ((x, y), (x, z), (y, z)))
    triple = dep.joint_distance_covariance_sq(three, 1.0) - pairs
    found = dep.joint_distance_covariance_sq(three, 2.5)
    torch.testing.assert_close(found, 2.5 * pairs + triple)


def test_concatenation_counts_a_copied_attribute_but_keeps_the_zero_set() -> None:
    once = dep.concatenated_distance_covariance_sq(XOR, [XOR_ONE, XOR_TWO])
    twice = dep.concatenated_distance_covariance_sq(XOR, [XOR_ONE, XOR_TWO, XOR_TWO])
    assert abs(float(once - twice)) > 1e-3
    independent = dep.concatenated_distance_covariance_sq(XOR, [XOR_ONE, XOR_ONE])
    assert independent.item() == pytest.approx(0, abs=1e-15)


@given(st.lists(st.tuples(numbers, st.integers(0, 4)), min_size=2, max_size=40))
def test_the_closed_form_of_a_category(rows: list[tuple[float, int]]) -> None:
    outcome = torch.tensor([value for value, _ in rows], dtype=torch.float64)
    groups = torch.tensor([group for _, group in rows])
    one_hot = torch.nn.functional.one_hot(groups, 5).double()
    found = math.sqrt(2) * dep.categorical_distance_covariance_sq(outcome, groups)
    assert near(found, naive_v(outcome, one_hot), outcome)
    assert (dep.group_energy_distances(outcome, groups) >= -1e-9).all()


def test_the_closed_form_of_a_binary_attribute() -> None:
    """dCov^2 = 2 p^2 q^2 E(Y1, Y0)."""
    y, z = normals(50), torch.arange(50) % 5 // 4
    energy = dep.energy_distance(y[z == 1], y[z == 0])
    torch.testing.assert_close(dep.distance_covariance_sq(y, z), 2 * 0.2**2 * 0.8**2 * energy)


def test_the_closed_form_holds_for_outcomes_of_more_dimensions() -> None:
    y, groups = normals(30, 2), torch.tensor([0, 2, 3] * 10)
    one_hot = torch.nn.functional.one_hot(groups).double()
    found = dep.categorical_distance_covariance_sq(y, groups)
    torch.testing.assert_close(math.sqrt(2) * found, dep.distance_covariance_sq(y, one_hot))


def test_no_group_differs_where_all_are_alike() -> None:
    y, groups = normals(20).repeat(3), torch.arange(3).repeat_interleave(20)
    assert dep.group_energy_distances(y, groups).abs().max() < 1e-12


def test_blocks_agree_with_whole_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, z = normals(90, 3), normals(90, 2, seed=1), normals(90, seed=2)
    whole = [
        dep.distance_covariance_sq(x, y),
        dep.u_distance_covariance_sq(z, y),
        dep.joint_distance_covariance_sq([x, y, z]),
        dep.u_joint_distance_covariance_sq([x, y, z]),
    ]
    monkeypatch.setattr(pairwise, "BLOCK_ELEMENTS", 90 * 2 * 7)
    blocked = [
        dep.distance_covariance_sq(x, y),
        dep.u_distance_covariance_sq(z, y),
        dep.joint_distance_covariance_sq([x, y, z]),
        dep.u_joint_distance_covariance_sq([x, y, z]),
    ]
    torch.testing.assert_close(torch.stack(blocked), torch.stack(whole), atol=1e-12, rtol=1e-10)


def test_univariate_sums_never_touch_a_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a block of distances was computed")

    monkeypatch.setattr(pairwise.Points, "block", refuse)
    x, y = normals(2, 500)
    hot = torch.nn.functional.one_hot(torch.arange(500) % 7)
    dep.distance_correlation(x, y)
    dep.distance_correlation(x, hot)
    dep.permutation_p_value(x, hot, permutations=3)
    with pytest.raises(AssertionError, match="block of distances"):
        dep.distance_covariance_sq(x, hot + normals(500, 7))


def test_the_unbiased_statistic_is_unbiased_and_the_plain_one_is_not() -> None:
    """Independent normals, m = 8: V has mean 4 / (pi m) at first order, U has none."""
    draws = normals(2000, 2, 8, seed=3)
    u = torch.stack([dep.u_distance_covariance_sq(x, y) for x, y in draws])
    v = torch.stack([dep.distance_covariance_sq(x, y) for x, y in draws])
    assert abs(u.mean()) < 4 * u.std() / math.sqrt(len(u))
    assert 1.05 < 8 * v.mean() < 1.3


Test = Callable[[Tensor, Tensor], float]


def false_alarms(test: Test, n: int = 30) -> float:
    """Share of independent samples that a test at 10 % calls dependent."""
    draws = normals(200, 2, n, seed=7)
    return float(np.mean([test(x, y) <= 0.1 for x, y in draws]))


def test_the_permutation_test_keeps_its_level() -> None:
    assert false_alarms(lambda x, y: dep.permutation_p_value(x, y, permutations=19).p_value) < 0.19


def test_the_chi_square_test_keeps_its_level() -> None:
    assert false_alarms(dep.chi_square_p_value) < 0.17


def test_the_permutation_test_is_seeded_and_never_says_zero() -> None:
    x = normals(40)
    found = dep.permutation_p_value(x, x**2, permutations=99, seed=4)
    assert found == dep.permutation_p_value(x, x**2, permutations=99, seed=4)
    assert found.p_value == 1 / 100
    assert found.statistic == pytest.approx(dep.distance_covariance_sq(x, x**2).item())
    y = normals(40, seed=9)
    a, b = (dep.permutation_p_value(x, y, permutations=99, seed=seed) for seed in (0, 1))
    assert a.p_value != b.p_value


def test_rows_all_alike_reach_the_observed_value_every_time() -> None:
    for constant in (torch.ones(6), torch.ones(6, 2)):
        assert dep.permutation_p_value(constant, normals(6), permutations=9).p_value == 1


def brute_permutations(x: Tensor, y: Tensor, permutations: int) -> float:
    """The same test by the definition, on the same stream of permutations."""
    rng = np.random.default_rng(0)
    observed = naive_v(x, y)
    found = [naive_v(x[rng.permutation(len(x))], y) for _ in range(permutations)]
    return float((1 + np.sum(np.array(found) >= observed - 1e-12)) / (permutations + 1))


@pytest.mark.parametrize("limit", [4000, 10])
@pytest.mark.parametrize("shapes", [((20,), (20,)), ((20,), (20, 2)), ((20, 2), (20,))])
def test_permuting_sums_equals_permuting_rows(
    shapes: tuple[tuple[int, ...], ...], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dep, "_MATRIX_LIMIT", limit)
    x, y = normals(*shapes[0]), normals(*shapes[1], seed=1)
    found = dep.permutation_p_value(x, y, permutations=50)
    assert found.p_value == brute_permutations(x, y, 50)


def test_progress_is_told_and_may_stop() -> None:
    told: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dep.permutation_p_value(XOR, XOR_ONE, permutations=9, on_progress=stop)
    assert told == [(1, 9), (2, 9), (3, 9)]


def test_the_chi_square_p_value_is_scipys() -> None:
    x, y = normals(2, 50)
    y = y + x / 3
    z = 50 * dcor.u_distance_correlation_sqr(x.numpy(), y.numpy()) + 1
    assert dep.chi_square_p_value(x, y) == pytest.approx(stats.chi2.sf(z, 1))
    assert dep.chi_square_p_value(torch.arange(-2, 3), torch.arange(-2, 3) ** 2) == 1


def test_integers_and_halves_are_computed_in_float64() -> None:
    found = dep.distance_covariance_sq(torch.arange(1, 6).half(), torch.arange(1, 6) ** 2)
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(7.296)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dep.distance_covariance_sq(XOR, XOR[:9]), "100, 9 rows"),
        (lambda: dep.distance_covariance_sq(XOR[:1], XOR[:1]), "1 rows.*at least 2"),
        (lambda: dep.u_distance_covariance_sq(XOR[:3], XOR[:3]), "3 rows.*at least 4"),
        (lambda: dep.u_joint_distance_covariance_sq([XOR[:3]] * 2), "3 rows.*at least 4"),
        (lambda: dep.permutation_p_value(torch.ones(1, 2), torch.ones(1)), "at least 2"),
        (lambda: dep.distance_covariance_sq(XOR, XOR / XOR), "Row 0 holds nan .50 rows"),
        (lambda: dep.distance_covariance_sq(XOR, XOR[None]), "100, 1 rows"),
        (lambda: dep.distance_covariance_sq(XOR, XOR.reshape(5, 5, 4)), r"shape \(5, 5, 4\)"),
        (lambda: dep.distance_covariance_sq(XOR[:0], XOR[:0]), "no rows"),
        (lambda: dep.joint_distance_covariance_sq([XOR]), "1 variables.*2 or more"),
        (lambda: dep.joint_distance_covariance_sq([XOR, XOR[:9]]), "100, 9 rows"),
        (lambda: dep.joint_distance_covariance_sq([XOR, XOR], c=0), "c is 0; give"),
        (lambda: dep.concatenated([]), "No attribute"),
        (lambda: dep.concatenated([XOR, XOR[:9]]), "100, 9 rows"),
        (lambda: dep.permutation_p_value(XOR, XOR, permutations=0), "permutations is 0"),
        (lambda: dep.group_energy_distances(XOR, torch.zeros(9).long()), "100 outcomes and 9"),
    ],
)
def test_what_cannot_be_computed_is_refused_with_the_reason(
    call: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call()

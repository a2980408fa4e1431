import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from workbench.metrics import divergence as div

samples = st.lists(st.tuples(st.floats(-50, 50), st.integers(0, 3)), min_size=2, max_size=60).map(
    lambda rows: (torch.tensor([v for v, _ in rows]).double(), dense([g for _, g in rows]))
)


def dense(groups: list[int]) -> Tensor:
    names = sorted(set(groups))
    return torch.tensor([names.index(group) for group in groups])


def normals(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def papers_code(values: Tensor, groups: Tensor) -> float:
    """The generalised divergence written out as the paper's code does it."""
    x, total = values.numpy(), len(values)
    grid = torch.linspace(x.min(), x.max(), 1000).double().numpy()
    masses, shares = [], []
    for k in range(int(groups.max()) + 1):
        inside = x[groups == k]
        f = stats.norm.pdf((grid[:, None] - inside) / 0.15).mean(1)
        masses.append((f / f.sum()).clip(1e-10))
        shares.append(len(inside) / total)
    mixture = sum(p * f for p, f in zip(shares, masses, strict=True))
    inner = [p * stats.entropy(f, base=2) for p, f in zip(shares, masses, strict=True)]
    return float(stats.entropy(mixture, base=2) - sum(inner))


def test_the_papers_bandwidth_and_grid_give_the_papers_numbers() -> None:
    values, groups = normals(80), torch.arange(80) % 3
    values += groups / 2
    found = div.generalised_jensen_shannon(
        values, groups, bandwidth=div.PAPER_BANDWIDTH, padding=0
    ).item()
    assert found == pytest.approx(papers_code(values, groups), abs=1e-6)


@given(samples)
def test_the_divergence_lies_between_zero_and_the_entropy_of_the_weights(
    sample: tuple[Tensor, Tensor],
) -> None:
    values, groups = sample
    share = torch.bincount(groups) / len(groups)
    bound = stats.entropy(share.numpy(), base=2)
    for measure in (div.generalised_jensen_shannon, div.binned_jensen_shannon):
        assert 0 <= measure(values, groups) <= bound + 1e-6
        assert measure(values, groups, weights="equal") <= math.log2(len(share)) + 1e-6


def test_identical_groups_do_not_diverge_and_separate_ones_do_fully() -> None:
    same, groups = normals(50).repeat(2), torch.arange(100) // 50
    apart = same + 1000 * groups
    for measure in (div.generalised_jensen_shannon, div.binned_jensen_shannon):
        assert measure(same, groups).item() == pytest.approx(0, abs=1e-12)
        assert measure(apart, groups).item() == pytest.approx(1, abs=1e-4)


def test_one_group_and_a_constant_outcome_do_not_diverge() -> None:
    one = torch.zeros(9).long()
    for measure in (div.generalised_jensen_shannon, div.binned_jensen_shannon, div.unfairness):
        assert measure(normals(9), one) == 0
        assert measure(torch.ones(9), torch.arange(9) % 2) == pytest.approx(0, abs=1e-15)


def test_the_default_follows_the_scale_where_the_papers_bandwidth_does_not() -> None:
    values, groups = normals(200), torch.arange(200) % 2
    values += groups
    plain, small = (div.generalised_jensen_shannon(values * s, groups) for s in (1, 1e-3))
    torch.testing.assert_close(small, plain)
    dwarfed = div.generalised_jensen_shannon(
        values * 1e-3, groups, bandwidth=div.PAPER_BANDWIDTH, padding=0
    )
    assert dwarfed < plain / 100


def test_equal_weights_count_a_small_group_as_much_as_a_large_one() -> None:
    values = torch.cat([normals(90), normals(10) + 8])
    groups = (torch.arange(100) >= 90).long()
    by_share = div.generalised_jensen_shannon(values, groups)
    assert div.generalised_jensen_shannon(values, groups, weights="equal") > 1.8 * by_share


def test_a_fixed_grid_is_kept() -> None:
    grid = torch.linspace(-5, 5, 200)
    groups = torch.arange(40) % 2
    found = div.group_densities(normals(40), groups, grid=grid)
    torch.testing.assert_close(found.grid, grid.double())
    outside = div.generalised_jensen_shannon(normals(40) + 1e6, groups, bandwidth=1, grid=grid)
    assert outside == 0


def test_densities_are_scipys() -> None:
    values, groups = normals(9000, seed=2), torch.zeros(9000).long()
    found = div.group_densities(values, groups, bandwidth=0.3, points=50)
    expected = stats.gaussian_kde(values.numpy(), 0.3 / float(values.std()))(found.grid.numpy())
    torch.testing.assert_close(found.densities[0], torch.from_numpy(expected))
    assert torch.trapezoid(found.densities[0], found.grid).item() == pytest.approx(1, abs=1e-3)


def test_silverman_reads_the_spread_within_groups() -> None:
    values, groups = normals(1000), torch.arange(1000) % 2
    near, far = (div.group_densities(values + s * groups, groups).bandwidth for s in (0, 100))
    assert near == pytest.approx(far)
    spread = float((values - div._group_means(values, groups)[groups]).std())
    assert near == pytest.approx(0.9 * spread * 1000**-0.2, rel=0.1)


@pytest.mark.parametrize(
    ("values", "scale"),
    [([0.0, 0, 0, 0, 0, 0, 0, 7], math.sqrt(49 * 7 / 64)), ([0.0, 1], None)],
)
def test_silverman_without_quartiles_or_spread(values: list[float], scale: float | None) -> None:
    """Most values alike: the standard deviation; one value a group: the spread of all."""
    groups = torch.zeros(8).long() if scale else torch.arange(2)
    found = div.group_densities(torch.tensor(values), groups).bandwidth
    expected = scale or 0.5
    assert found == pytest.approx(0.9 * expected * len(values) ** -0.2)


def test_bins_ignore_increasing_transformations() -> None:
    values, groups = normals(300), torch.arange(300) % 3
    values += groups / 3
    plain = div.binned_jensen_shannon(values, groups)
    assert plain > 0.02
    assert div.binned_jensen_shannon(values.exp(), groups) == plain


def test_unfairness_is_the_share_of_variance_between_unweighted_means() -> None:
    values = torch.tensor([1.0, 3, 10, 10, 10])
    groups = torch.tensor([0, 0, 1, 1, 1])
    expected = torch.tensor([2.0, 10]).var() / values.var()
    assert div.unfairness(values, groups).item() == pytest.approx(expected.item())


@pytest.mark.parametrize(
    ("values", "groups", "message"),
    [
        ([], [], "0 values and 0 groups"),
        ([1.0], [0, 1], "1 values and 2 groups"),
        ([1.0, math.nan], [0, 1], "1 values are not finite"),
        ([1.0, 2.0], [0, 2], "without gaps"),
        ([1.0, 2.0], [0, -1], "without gaps"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    values: list[float], groups: list[int], message: str
) -> None:
    for measure in (
        div.generalised_jensen_shannon,
        div.binned_jensen_shannon,
        div.unfairness,
        div.group_densities,
    ):
        with pytest.raises(ValueError, match=message):
            measure(torch.tensor(values), torch.tensor(groups, dtype=torch.long))


def test_a_bandwidth_and_weights_that_do_not_exist_are_refused() -> None:
    values, groups = normals(6), torch.arange(6) % 2
    with pytest.raises(ValueError, match="bandwidth is 0"):
        div.group_densities(values, groups, bandwidth=0)
    with pytest.raises(ValueError, match="'uniform'; choose share or equal"):
        div.generalised_jensen_shannon(values, groups, weights="uniform")  # type: ignore[arg-type]

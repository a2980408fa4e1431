"""What holds for every metric, after scikit-learn's table of metrics and their invariances.

One table lists all metrics as functions of two columns; sets say which invariance each has. A
metric outside a set is shown not to have it, and a public function outside the table is found.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor

from workbench.metrics import (
    dependence,
    divergence,
    encoding,
    information,
    intervals,
    prediction,
    ranking,
    rewards,
)

Call = Callable[[Tensor, Tensor], Tensor]
N = 24


def normals(seed: int) -> Tensor:
    return torch.randn(N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def logps(seed: int) -> Tensor:
    return 4 * normals(seed) - 20


def shares(seed: int) -> Tensor:
    return 0.02 + 0.96 * torch.rand(N, generator=torch.Generator().manual_seed(seed)).double()


def groups(seed: int) -> Tensor:
    return torch.randperm(N, generator=torch.Generator().manual_seed(seed)) % 3


def counts(seed: int) -> Tensor:
    return torch.randint(0, 4, (N,), generator=torch.Generator().manual_seed(seed))


def outcomes(seed: int) -> Tensor:
    return counts(seed) % 2


@dataclass(frozen=True)
class Metric:
    """A metric of two columns and what makes an example of each."""

    call: Call
    first: Callable[[int], Tensor]
    second: Callable[[int], Tensor]

    def columns(self) -> tuple[Tensor, Tensor]:
        return self.first(1), self.second(2)


def pairs(call: Call) -> Metric:
    return Metric(call, logps, logps)


def shared(call: Call) -> Metric:
    return Metric(call, normals, shares)


def grouped(call: Call) -> Metric:
    return Metric(call, normals, groups)


def dependent(call: Call) -> Metric:
    return Metric(call, normals, lambda seed: normals(seed) + normals(1) ** 2)


LENGTHS = 5 + torch.arange(N)
METRICS: dict[str, Metric] = {
    "implicit_reward": pairs(partial(rewards.implicit_reward, beta=0.1)),
    "reward_margin": pairs(rewards.reward_margin),
    "reward_accuracy": pairs(rewards.reward_accuracy),
    "ranking_accuracy": pairs(ranking.ranking_accuracy),
    "reference_log_ratio": pairs(ranking.reference_log_ratio),
    "alignment_gap": pairs(ranking.alignment_gap),
    "tied_ranking_accuracy": pairs(
        lambda a, b: ranking.tied_ranking_accuracy(a, b, torch.full_like(a, 0.5), 2.0)
    ),
    "exact_match_ranking": pairs(
        lambda a, b: ranking.exact_match_ranking(
            torch.stack([a, b], 1), torch.tensor([[1, 2]]).expand(len(a), 2)
        )
    ),
    "paper_code_idealized_ranking_accuracy": pairs(
        lambda a, b: ranking.paper_code_idealized_ranking_accuracy(
            a, b, torch.full_like(a, 0.6), 1.0
        )
    ),
    "idealized_ranking_accuracy": shared(partial(ranking.idealized_ranking_accuracy, beta=1.0)),
    "idealized_ranking_accuracy_curve": shared(
        lambda c, a: ranking.idealized_ranking_accuracy_curve(c, a, torch.tensor([1.0]))[0]
    ),
    "idealized_log_ratio": shared(partial(ranking.idealized_log_ratio, beta=1.0)),
    "flip_beta": shared(ranking.flip_beta),
    "brier_score": Metric(prediction.brier_score, shares, outcomes),
    "binary_accuracy": Metric(prediction.binary_accuracy, shares, outcomes),
    "poisson_deviance": Metric(prediction.poisson_deviance, shares, counts),
    "poisson_ranked_probability_score": Metric(
        prediction.poisson_ranked_probability_score, shares, counts
    ),
    "distance_covariance_sq": dependent(dependence.distance_covariance_sq),
    "u_distance_covariance_sq": dependent(dependence.u_distance_covariance_sq),
    "distance_correlation": dependent(dependence.distance_correlation),
    "bias_corrected_distance_correlation_sq": dependent(
        dependence.bias_corrected_distance_correlation_sq
    ),
    "joint_distance_covariance_sq": dependent(
        lambda x, y: dependence.joint_distance_covariance_sq([x, y, x + y])
    ),
    "u_joint_distance_covariance_sq": dependent(
        lambda x, y: dependence.u_joint_distance_covariance_sq([x, y, x + y])
    ),
    "concatenated_distance_covariance_sq": dependent(
        lambda x, y: dependence.concatenated_distance_covariance_sq(x, [y, y**2])
    ),
    "u_concatenated_distance_covariance_sq": dependent(
        lambda x, y: dependence.u_concatenated_distance_covariance_sq(x, [y, y**2])
    ),
    "energy_distance": dependent(dependence.energy_distance),
    "categorical_distance_covariance_sq": grouped(dependence.categorical_distance_covariance_sq),
    "group_energy_distances": grouped(lambda y, g: dependence.group_energy_distances(y, g).sum()),
    "generalised_jensen_shannon": grouped(divergence.generalised_jensen_shannon),
    "binned_jensen_shannon": grouped(partial(divergence.binned_jensen_shannon, bins=6)),
    "unfairness": grouped(divergence.unfairness),
    "did_log_density": pairs(information.did_log_density),
    "did_entropy": pairs(information.did_entropy),
    "did_reference_correlation": pairs(information.did_reference_correlation),
    "optimal_rejected_log_density": pairs(
        partial(information.optimal_rejected_log_density, beta=0.5)
    ),
    "dpo_optimum_log_density": pairs(partial(information.dpo_optimum_log_density, beta=2.0)),
    "mixture_log_density": pairs(information.mixture_log_density),
    "snis_entropy": pairs(lambda a, b: information.snis_entropy(a, a - b)),
    "did_entropy_by_group": pairs(
        lambda a, b: information.did_entropy_by_group(
            a - b, torch.zeros(len(a), dtype=torch.long), 1
        ).entropy[0]
    ),
    "entropy_change_by_group": pairs(
        lambda a, b: information.entropy_change_by_group(
            a, b, torch.zeros(len(a), dtype=torch.long), 1
        )[0]
    ),
    "token_did_entropy": pairs(
        lambda a, b: information.token_did_entropy(a[None], b[None]).kl_to_uniform[0]
    ),
}
ELSEWHERE = {
    # Of other arguments than two columns, and tested with their own oracles.
    "length_normalised_implicit_reward",
    "length_normalised_ranking_accuracy",
    "clip_rater_share",
    "flip_threshold",
    "flip_gradient_scale",
    "flip_difficulty",
    "ipo_sufficient_loss",
    "concatenated",
    "encode_attribute",
    "permutation_p_value",
    "chi_square_p_value",
    "group_densities",
    "jensen_shannon",
    "power_law_beta",
    "first_of_each",
    "markov_did_entropy",
    "sampled_did_entropy",
    "generalised_pareto_shape",
    "standard_error",
    "wilson_interval",
    "bootstrap_interval",
    "bootstrap_interval_of",
}

PER_ROW = {
    "implicit_reward",
    "reward_margin",
    "reward_accuracy",
    "ranking_accuracy",
    "reference_log_ratio",
    "alignment_gap",
    "tied_ranking_accuracy",
    "exact_match_ranking",
    "paper_code_idealized_ranking_accuracy",
    "idealized_ranking_accuracy",
    "idealized_log_ratio",
    "flip_beta",
    "brier_score",
    "binary_accuracy",
    "poisson_deviance",
    "poisson_ranked_probability_score",
    "did_log_density",
    "optimal_rejected_log_density",
    "dpo_optimum_log_density",
    "mixture_log_density",
}
SYMMETRIC = {
    "brier_score",
    "tied_ranking_accuracy",
    "distance_covariance_sq",
    "u_distance_covariance_sq",
    "distance_correlation",
    "bias_corrected_distance_correlation_sq",
    "joint_distance_covariance_sq",
    "u_joint_distance_covariance_sq",
    "energy_distance",
    "mixture_log_density",
}
ANTISYMMETRIC = {
    "implicit_reward",
    "reward_margin",
    "reference_log_ratio",
    "alignment_gap",
    "entropy_change_by_group",
}
# A prompt's constant added to both columns.
COMMON_SHIFT_INVARIANT = {
    *("implicit_reward", "reward_margin", "reward_accuracy", "ranking_accuracy"),
    *("reference_log_ratio", "alignment_gap", "tied_ranking_accuracy", "exact_match_ranking"),
    *("distance_covariance_sq", "u_distance_covariance_sq", "distance_correlation"),
    *("bias_corrected_distance_correlation_sq", "joint_distance_covariance_sq"),
    *("u_joint_distance_covariance_sq", "energy_distance", "did_log_density", "did_entropy"),
    *("did_reference_correlation", "optimal_rejected_log_density", "dpo_optimum_log_density"),
    *("did_entropy_by_group", "entropy_change_by_group", "token_did_entropy"),
}
# A constant added to the first column alone.
SHIFT_INVARIANT = {
    *("distance_covariance_sq", "u_distance_covariance_sq", "distance_correlation"),
    *("bias_corrected_distance_correlation_sq", "joint_distance_covariance_sq"),
    *("u_joint_distance_covariance_sq", "concatenated_distance_covariance_sq"),
    *("u_concatenated_distance_covariance_sq", "categorical_distance_covariance_sq"),
    *("group_energy_distances", "generalised_jensen_shannon", "binned_jensen_shannon"),
    *("unfairness", "did_log_density", "did_entropy", "did_reference_correlation"),
    *("optimal_rejected_log_density", "did_entropy_by_group", "entropy_change_by_group"),
    "dpo_optimum_log_density",
    *("snis_entropy", "token_did_entropy"),
}
# Degree of homogeneity: f(s x, s y) = s^degree f(x, y).
DEGREE = {
    **dict.fromkeys(("implicit_reward", "reward_margin", "reference_log_ratio"), 1),
    **dict.fromkeys(("alignment_gap", "energy_distance"), 1),
    **dict.fromkeys(("reward_accuracy", "ranking_accuracy", "exact_match_ranking"), 0),
    **dict.fromkeys(("distance_correlation", "bias_corrected_distance_correlation_sq"), 0),
    **dict.fromkeys(("distance_covariance_sq", "u_distance_covariance_sq"), 2),
    "paper_code_idealized_ranking_accuracy": 0,
}
REFUSES_MISSING = {
    name for name, metric in METRICS.items() if metric.first is normals and name != "flip_beta"
} - {"idealized_ranking_accuracy", "idealized_ranking_accuracy_curve", "idealized_log_ratio"}
# Copying every row changes no mean; entropies and U-statistics know how many rows there are.
COPIES_CHANGE = {
    *("u_distance_covariance_sq", "bias_corrected_distance_correlation_sq"),
    *("u_joint_distance_covariance_sq", "u_concatenated_distance_covariance_sq"),
    *("generalised_jensen_shannon", "unfairness"),
    *("did_log_density", "did_entropy", "did_entropy_by_group"),
    *("optimal_rejected_log_density", "dpo_optimum_log_density"),
}
NON_NEGATIVE = {
    name
    for name in METRICS
    if "accuracy" in name or name.endswith(("_score", "_deviance", "_shannon", "_ranking"))
} | {"distance_covariance_sq", "distance_correlation", "energy_distance", "did_entropy",
     "concatenated_distance_covariance_sq", "categorical_distance_covariance_sq",
     "unfairness", "token_did_entropy", "did_entropy_by_group", "flip_beta"}  # fmt: skip

everywhere = pytest.mark.parametrize("name", METRICS)


def close(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, rtol=1e-7, atol=1e-9)


def test_every_public_function_is_in_the_table_or_excused() -> None:
    modules = (
        dependence, divergence, encoding, information, intervals, prediction, ranking, rewards,
    )  # fmt: skip
    public = {
        name
        for module in modules
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }
    assert public == set(METRICS) | ELSEWHERE
    listed = SYMMETRIC | ANTISYMMETRIC | COMMON_SHIFT_INVARIANT | SHIFT_INVARIANT | PER_ROW
    assert (listed | set(DEGREE) | REFUSES_MISSING | COPIES_CHANGE | NON_NEGATIVE) <= set(METRICS)


@everywhere
def test_results_are_float64_whatever_comes_in_and_inputs_are_left_alone(name: str) -> None:
    metric = METRICS[name]
    columns = metric.columns()
    kept = [column.clone() for column in columns]
    assert metric.call(*columns).dtype == torch.float64
    assert all(torch.equal(a, b) for a, b in zip(columns, kept, strict=True))
    single = [c.float() if c.is_floating_point() else c for c in columns]
    found = metric.call(*single)
    assert found.dtype == torch.float64
    doubled = [c.double() if c.is_floating_point() else c for c in single]
    torch.testing.assert_close(found, metric.call(*doubled), rtol=1e-5, atol=1e-6)


@everywhere
def test_the_order_of_the_rows_does_not_matter(name: str) -> None:
    metric = METRICS[name]
    a, b = metric.columns()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(5))
    found, moved = metric.call(a, b), metric.call(a[order], b[order])
    assert found.shape == ((N,) if name in PER_ROW else ())
    assert close(moved, found[order] if name in PER_ROW else found)


@everywhere
def test_swapping_the_columns(name: str) -> None:
    metric = METRICS[name]
    if metric.second in (groups, shares):
        pytest.skip("its columns are of different kinds")
    a, b = metric.columns()
    found, swapped = metric.call(a, b), metric.call(b, a)
    assert close(swapped, found) == (name in SYMMETRIC)
    assert close(swapped, -found) == (name in ANTISYMMETRIC)


@everywhere
def test_adding_a_constant_to_both_columns(name: str) -> None:
    metric = METRICS[name]
    a, b = metric.columns()
    if metric.second is not logps and metric.first is not normals:
        pytest.skip("its columns are probabilities")
    if metric.second in (groups, shares):
        pytest.skip("its columns are of different kinds")
    same = close(metric.call(a + 7.5, b + 7.5), metric.call(a, b))
    assert same == (name in COMMON_SHIFT_INVARIANT)


@everywhere
def test_adding_a_constant_to_the_first_column(name: str) -> None:
    metric = METRICS[name]
    a, b = metric.columns()
    if metric.first is shares:
        pytest.skip("its first column is a probability")
    same = close(metric.call(a + 7.5, b), metric.call(a, b))
    assert same == (name in SHIFT_INVARIANT)


@pytest.mark.parametrize("name", DEGREE)
def test_scaling_both_columns(name: str) -> None:
    metric = METRICS[name]
    a, b = metric.columns()
    assert close(metric.call(3 * a, 3 * b), 3.0 ** DEGREE[name] * metric.call(a, b))


@everywhere
def test_a_missing_score_is_refused_or_stays_missing(name: str) -> None:
    metric = METRICS[name]
    a, b = metric.columns()
    a[3] = math.nan
    if name in REFUSES_MISSING:
        with pytest.raises(ValueError, match="not finite"):
            metric.call(a, b)
        return
    found = metric.call(a, b)
    if name in PER_ROW and not name.endswith("_log_density"):
        assert found.isnan().nonzero().flatten().tolist() == [3]
    else:
        assert found.isnan().any()


@everywhere
def test_copying_every_row(name: str) -> None:
    metric = METRICS[name]
    a, b = metric.columns()
    once, twice = metric.call(a, b), metric.call(a.repeat(2), b.repeat(2))
    assert close(twice.mean(), once.mean()) == (name not in COPIES_CHANGE)


@everywhere
def test_signs_and_bounds(name: str) -> None:
    found = METRICS[name].call(*METRICS[name].columns())
    if name in NON_NEGATIVE:
        assert (found >= 0).all()
    if "accuracy" in name or "correlation" in name:
        assert (found.abs() <= 1).all()


def test_a_sabotaged_metric_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """>= for > in the ranking's twin: ties between equal scores are what tells them apart."""
    tie = torch.zeros(1)
    assert ranking.ranking_accuracy(tie, tie).item() == 1
    assert rewards.reward_accuracy(tie, tie).item() == 0

    def sloppy(a: Tensor, b: Tensor) -> Tensor:
        return (a > b).double()

    monkeypatch.setitem(METRICS, "ranking_accuracy", pairs(sloppy))
    with pytest.raises(AssertionError):
        test_a_missing_score_is_refused_or_stays_missing("ranking_accuracy")
    monkeypatch.setitem(METRICS, "distance_covariance_sq", dependent(lambda a, b: (a @ b).abs()))
    with pytest.raises(AssertionError):
        test_adding_a_constant_to_both_columns("distance_covariance_sq")

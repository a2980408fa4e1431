"""Numbers worked out in the papers or by other programs."""

import math
from collections.abc import Callable

import dcor
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from workbench.metrics import dependence, divergence, information, intervals, ranking, rewards
from workbench.objectives.dpo import dpo_loss, sigmoid_loss

F64 = torch.float64
LW, LL = (
    torch.tensor([-10.0, -25, -7, -40], dtype=F64),
    torch.tensor([-12.0, -20, -7, -65], dtype=F64),
)
RW, RL = (
    torch.tensor([-11.0, -24, -7, -55], dtype=F64),
    torch.tensor([-11.0, -26, -7, -45], dtype=F64),
)


def test_dpo_on_the_hand_worked_pairs() -> None:
    expected = torch.tensor([0.5981388694, 1.1031860489, 0.6931471806, 0.0297504183], dtype=F64)
    torch.testing.assert_close(dpo_loss(LW, LL, RW, RL, 0.1), expected, rtol=0, atol=1e-9)


def test_dpo_gamma_on_the_hand_worked_pairs() -> None:
    expected = torch.tensor([0.5981388694, 1.0374879505, 0.6931471806, 0.0485873516], dtype=F64)
    found = sigmoid_loss(LW - LL, RL - RW, 0.1, gamma=0.5)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_reward_and_ranking_accuracy_are_different_things() -> None:
    chosen, rejected = (rewards.implicit_reward(p, r, 0.1) for p, r in ((LW, RW), (LL, RL)))
    assert rewards.reward_accuracy(chosen, rejected).tolist() == [1, 0, 0, 1]
    assert ranking.ranking_accuracy(LW, LL).tolist() == [1, 0, 1, 1]
    assert ranking.ranking_accuracy(RW, RL).tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize(
    ("c", "loss"),
    [(-10, 1.3132616875), (0, 0.6931471806), (1, 0.6443966601), (5, 0.4740769842),
     (10, 0.3132616875), (20, 0.1269280110), (100, 4.5399e-5), (457.6, 1.3387e-20)],
)  # fmt: skip
def test_flip_threshold(c: float, loss: float) -> None:
    found = float(ranking.flip_threshold(torch.tensor([c], dtype=F64), 0.1)[0])
    assert found == pytest.approx(loss, rel=1e-4 if loss < 1e-3 else 1e-9)


def flip_violations(threshold: Callable[[Tensor, float], Tensor]) -> int:
    """Pairs on which rank and loss threshold disagree, away from ties."""
    generator = torch.Generator().manual_seed(0)
    lw, ll, rw, rl = 30 * torch.randn(4, 10_000, generator=generator, dtype=F64)
    right = ranking.ranking_accuracy(lw, ll) > 0.5
    below = dpo_loss(lw, ll, rw, rl, 0.1) <= threshold(rl - rw, 0.1)
    return int(((right != below) & ((lw - ll).abs() > 1e-9)).sum())


def test_theorem_4_1_has_no_violation_and_its_sabotaged_twin_has() -> None:
    assert flip_violations(ranking.flip_threshold) == 0
    assert flip_violations(lambda c, beta: ranking.flip_threshold(-c, beta)) > 1000


@given(
    st.lists(st.tuples(st.floats(-300, 300), st.floats(0.01, 0.99)), min_size=1, max_size=30),
    st.lists(st.floats(1e-3, 100), min_size=1, max_size=10),
)
def test_the_curve_is_the_mean_at_every_beta(
    pairs: list[tuple[float, float]], betas: list[float]
) -> None:
    c, alpha = torch.tensor(pairs, dtype=F64).T
    curve = ranking.idealized_ranking_accuracy_curve(c, alpha, torch.tensor(betas, dtype=F64))
    for beta, found in zip(betas, curve.tolist(), strict=True):
        exact = float(ranking.idealized_ranking_accuracy(c, alpha, beta).mean())
        on_edge = int(((torch.logit(alpha) - beta * c).abs() < 1e-9).sum())
        assert abs(found - exact) <= on_edge / len(pairs) + 1e-12


def test_did_of_the_worked_example() -> None:
    reference = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=F64).log()
    policy = reference.flip(0)
    q = information.did_log_density(policy, reference).exp()
    expected = torch.tensor([0.0389610390, 0.1038961039, 0.2337662338, 0.6233766234], dtype=F64)
    torch.testing.assert_close(q, expected, rtol=0, atol=1e-9)
    assert float(information.did_entropy(policy, reference)) == pytest.approx(
        0.9960689366, abs=1e-9
    )
    rejected = information.optimal_rejected_log_density(policy, reference, 1.0).exp()
    worked = torch.tensor([0.7245283019, 0.2037735849, 0.0603773585, 0.0113207547], dtype=F64)
    torch.testing.assert_close(rejected, worked, rtol=0, atol=1e-9)


def test_did_by_group_equals_did_of_each_group() -> None:
    generator = torch.Generator().manual_seed(1)
    ratio = 5 * torch.randn(9, generator=generator, dtype=F64)
    group = torch.tensor([0, 1, 0, 2, 1, 0, 2, 2, 3])
    found = information.did_entropy_by_group(ratio, group, 4)
    for k in range(4):
        mine = ratio[group == k]
        expected = information.did_entropy(mine, torch.zeros_like(mine))
        assert float(found.entropy[k]) == pytest.approx(float(expected), abs=1e-12)
    assert found.size.tolist() == [3, 2, 3, 1]
    assert math.isnan(found.efficiency[3])


def test_sampled_did_refuses_a_degenerate_sample() -> None:
    policy = torch.linspace(-400, -10, 64, dtype=F64)
    found = information.sampled_did_entropy(policy, policy - 30, policy)
    assert not found.reliable
    assert math.isnan(found.estimate)
    assert "effective draws" in found.reason


def test_distance_covariance_of_the_worked_examples() -> None:
    x = torch.arange(1, 6, dtype=F64)
    assert float(dependence.distance_covariance_sq(x, x**2)) == pytest.approx(7.296)
    assert float(dependence.distance_correlation(x, x**2)) == pytest.approx(0.9869160440)
    assert float(dependence.u_distance_covariance_sq(x, x**2)) == pytest.approx(6.4)
    x = torch.arange(-2, 3, dtype=F64)
    assert float(dependence.distance_covariance_sq(x, x**2)) == pytest.approx(0.448)
    assert float(dependence.u_distance_covariance_sq(x, x**2)) == pytest.approx(-0.8)


def test_gerrymandering_shows_only_jointly() -> None:
    one = torch.tensor([0.0, 0, 1, 1], dtype=F64).repeat(25)
    two = torch.tensor([0.0, 1, 0, 1], dtype=F64).repeat(25)
    outcome = (one != two).to(F64)
    assert float(dependence.distance_covariance_sq(outcome, one)) == pytest.approx(0, abs=1e-12)
    joint = dependence.concatenated_distance_covariance_sq(outcome, [one, two])
    assert float(joint) == pytest.approx((2 - math.sqrt(2)) / 8)
    for c in (0.5, 1.0, 3.0):
        found = dependence.joint_distance_covariance_sq([outcome, one, two], c=c)
        assert float(found) == pytest.approx(1 / 8)
    u = dependence.u_joint_distance_covariance_sq([outcome, one, two])
    assert float(u) == pytest.approx(0.1197279469, abs=1e-9)


@pytest.mark.parametrize("n", [4, 31, 32, 33, 65, 300])
@pytest.mark.parametrize("tied", [False, True])
def test_the_fast_path_agrees_with_dcor(n: int, tied: bool) -> None:
    generator = torch.Generator().manual_seed(n)
    x, y = torch.randn(2, n, generator=generator, dtype=F64)
    if tied:
        x, y = x.round(), (2 * y).round()
    expected = dcor.distance_covariance_sqr(x.numpy(), y.numpy(), method="naive")
    assert float(dependence.distance_covariance_sq(x, y)) == pytest.approx(expected, abs=1e-10)
    unbiased = dcor.u_distance_covariance_sqr(x.numpy(), y.numpy(), method="naive")
    assert float(dependence.u_distance_covariance_sq(x, y)) == pytest.approx(unbiased, abs=1e-10)


def test_multivariate_and_one_hot_agree_with_dcor() -> None:
    generator = torch.Generator().manual_seed(3)
    x, y = (
        torch.randn(50, generator=generator, dtype=F64),
        torch.randn(50, 3, generator=generator, dtype=F64),
    )
    hot = torch.nn.functional.one_hot(torch.arange(50) % 3).to(F64)
    for other in (y, hot):
        expected = dcor.distance_covariance_sqr(x.numpy()[:, None], np.asarray(other))
        assert float(dependence.distance_covariance_sq(x, other)) == pytest.approx(
            expected, abs=1e-10
        )


def test_constants_and_bad_input() -> None:
    x = torch.arange(6, dtype=F64)
    assert float(dependence.distance_correlation(x, torch.ones(6))) == 0
    with pytest.raises(ValueError, match="at least 4"):
        dependence.u_distance_covariance_sq(x[:3], x[:3])
    with pytest.raises(ValueError, match="not finite"):
        dependence.distance_covariance_sq(x, x / 0)


def test_permutation_finds_dependence_and_only_that() -> None:
    generator = torch.Generator().manual_seed(5)
    x, noise = torch.randn(2, 60, generator=generator, dtype=F64)
    assert dependence.permutation_p_value(x, x**2, permutations=199).p_value == pytest.approx(0.005)
    assert dependence.permutation_p_value(x, noise, permutations=199).p_value > 0.01


def test_jensen_shannon_lies_between_zero_and_the_entropy_of_the_shares() -> None:
    values = torch.cat([torch.zeros(50), torch.full((50,), 1000.0)]).to(F64)
    values += torch.arange(100) % 7 * 0.01
    groups = torch.arange(100) // 50
    assert float(divergence.generalised_jensen_shannon(values, groups)) == pytest.approx(
        1.0, abs=1e-3
    )
    assert float(divergence.generalised_jensen_shannon(values, torch.arange(100) % 2)) < 0.2
    assert (
        float(divergence.generalised_jensen_shannon(values, torch.zeros(100, dtype=torch.long)))
        == 0
    )


def test_wilson_holds_its_share_inside() -> None:
    found = intervals.wilson_interval(0, 20)
    assert (found.estimate, found.low) == (0, 0)
    assert 0.1 < found.high < 0.2

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from workbench.metrics import dependence
from workbench.objectives.fairness_penalty import Dependence, attribute_kernel, fairness_penalty

KINDS: tuple[Dependence, ...] = ("dcov", "ccdcov", "jdcov")


def batch(seed: int, m: int = 24) -> tuple[Tensor, list[Tensor]]:
    """Rewards and three attributes: continuous, binary, one-hot."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(m, generator=generator, dtype=torch.float64)
    age = torch.rand(m, generator=generator, dtype=torch.float64)
    sex = (torch.rand(m, generator=generator) < 0.4).double()
    race = torch.randint(3, (m,), generator=generator)
    return y + age, [age, sex, torch.nn.functional.one_hot(race, 3).double()]


def penalty(y: Tensor, attributes: list[Tensor], kind: Dependence, c: float = 1.0) -> Tensor:
    return fairness_penalty(y, attribute_kernel(attributes, kind, c))


@given(st.integers(0, 10_000), st.floats(0.2, 3))
def test_the_penalty_is_the_metric_of_the_audits(seed: int, c: float) -> None:
    y, attributes = batch(seed)
    close = {"rtol": 1e-9, "atol": 1e-12}
    marginal = sum(dependence.u_distance_covariance_sq(y, z) for z in attributes)
    torch.testing.assert_close(penalty(y, attributes, "dcov"), marginal, **close)
    whole = dependence.u_concatenated_distance_covariance_sq(y, attributes)
    torch.testing.assert_close(penalty(y, attributes, "ccdcov"), whole, **close)
    joint = dependence.u_joint_distance_covariance_sq([y, *attributes], c)
    torch.testing.assert_close(penalty(y, attributes, "jdcov", c), joint, **close)


def test_numbers_by_hand() -> None:
    """x = 1..5 and x^2 have dCov^2_U = 6.4; at m = 5 and x = -2..2, -0.8 (core 3.6)."""
    x = torch.arange(1, 6).double()
    assert float(penalty(x**2, [x], "dcov")) == pytest.approx(6.4)
    centred = x - 3
    assert float(penalty(centred**2, [centred], "ccdcov")) == pytest.approx(-0.8)
    assert float(penalty(centred**2, [centred], "jdcov", 0.3)) == pytest.approx(-0.8)


def test_only_intersections_show_gerrymandering() -> None:
    """Y = Z1 xor Z2, 25 of each cell (core 3.6)."""
    z1 = torch.tensor([0.0, 0, 1, 1] * 25, dtype=torch.float64)
    z2 = torch.tensor([0.0, 1, 0, 1] * 25, dtype=torch.float64)
    y = (z1 - z2).abs()
    assert float(penalty(y, [z1], "dcov")) == pytest.approx(-0.0026033531, abs=1e-10)
    assert float(penalty(y, [z1, z2], "ccdcov")) == pytest.approx(0.0710437412, abs=1e-10)
    assert float(penalty(y, [z1, z2], "jdcov")) == pytest.approx(0.1197279469, abs=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind: Dependence) -> None:
    y, attributes = batch(3, m=9)
    kernel = attribute_kernel(attributes, kind)
    inputs = (y.requires_grad_(),)
    assert torch.autograd.gradcheck(lambda v: fairness_penalty(v, kernel), inputs)
    assert torch.autograd.gradgradcheck(lambda v: fairness_penalty(v, kernel), inputs)


def test_the_gradient_is_the_signed_sum_of_the_kernel() -> None:
    """2 sum_j sign(y_i - y_j) B~_ij / (m (m - 3)) (core 3.5)."""
    y, attributes = batch(4)
    kernel = attribute_kernel(attributes, "ccdcov")
    y.requires_grad_()
    (found,) = torch.autograd.grad(fairness_penalty(y, kernel), y)
    signs = (y[:, None] - y[None, :]).sign()
    expected = 2 * (signs * kernel.matrix).sum(dim=1) / (24 * 21)
    torch.testing.assert_close(found, expected.detach())


@pytest.mark.parametrize("kind", KINDS)
def test_tied_rewards_have_a_gradient(kind: Dependence) -> None:
    _, attributes = batch(5)
    y = torch.zeros(24, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(penalty(y, attributes, kind), y)
    assert gradient.isfinite().all()


def test_the_penalty_has_no_bias_where_the_plug_in_has() -> None:
    """Independent normals, batches of 8: U is 0 on average, V is about 1.27 / 8."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 800, 8, generator=generator, dtype=torch.float64)
    u = torch.stack([penalty(a, [b], "dcov") for a, b in zip(x, y, strict=True)])
    assert abs(float(u.mean())) < 3 * float(u.std()) / math.sqrt(800)
    assert (u < 0).any()  # and is not cut at 0
    v = dependence.distance_covariance_sq(x[0], y[0])
    assert float(v) > 0.05


def test_descent_on_the_penalty_removes_dependence() -> None:
    y, attributes = batch(6, m=64)
    kernel = attribute_kernel(attributes[:1], "dcov")
    start = float(fairness_penalty(y, kernel))
    for _ in range(200):
        y.requires_grad_()
        (gradient,) = torch.autograd.grad(fairness_penalty(y, kernel), y)
        y = (y - 2 * gradient).detach()
    assert float(fairness_penalty(y, kernel)) < start / 5


def test_lambda_multiplies_and_the_precision_is_kept() -> None:
    y, attributes = batch(7)
    kernel = attribute_kernel(attributes, "jdcov")
    torch.testing.assert_close(fairness_penalty(y, kernel, 40.0), 40 * fairness_penalty(y, kernel))
    single = fairness_penalty(y.float(), kernel)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), fairness_penalty(y, kernel), rtol=1e-3, atol=1e-5)
    assert not kernel.matrix.requires_grad


def test_a_missing_reward_gives_a_missing_penalty() -> None:
    y, attributes = batch(8)
    y[3] = math.nan
    assert all(penalty(y, attributes, kind).isnan() for kind in KINDS)


def test_what_makes_no_sense_is_refused() -> None:
    y, attributes = batch(9)
    kernel = attribute_kernel(attributes, "ccdcov")
    with pytest.raises(ValueError, match=r"\(23,\) and the attributes 24 rows"):
        fairness_penalty(y[1:], kernel)
    with pytest.raises(ValueError, match=r"weight is -1.0; give 0 or more"):
        fairness_penalty(y, kernel, -1.0)
    with pytest.raises(ValueError, match="batch has 3 rows; a U-statistic needs at least 4"):
        attribute_kernel([torch.rand(3)], "dcov")
    with pytest.raises(ValueError, match="No attribute"):
        attribute_kernel([], "dcov")
    with pytest.raises(ValueError, match=r"c is 0.0"):
        attribute_kernel(attributes, "jdcov", 0.0)
    unknown: Any = "hsic"
    with pytest.raises(ValueError, match="'hsic'; choose dcov, ccdcov or jdcov"):
        attribute_kernel(attributes, unknown)

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.objectives.catalogue import OBJECTIVES
from workbench.objectives.f_divergence import alpha_score, jensen_shannon_score, with_divergence
from workbench.objectives.logps import PairLogps


@given(st.floats(-20, 20))
def test_scores_are_the_derivatives_of_their_f(log_ratio: float) -> None:
    """f' at u: 1 - 1/u, log(2u / (1 + u)), (u^(alpha - 1) - 1) / (alpha - 1); all 0 at u = 1."""
    t, u = torch.tensor([log_ratio], dtype=torch.float64), math.exp(log_ratio)
    assert float(alpha_score(t, 0.0)) == pytest.approx(1 - 1 / u, rel=1e-12, abs=1e-12)
    assert float(jensen_shannon_score(t)) == pytest.approx(math.log(2 * u / (1 + u)), abs=1e-12)
    assert float(alpha_score(t, 0.5)) == pytest.approx((u**-0.5 - 1) / -0.5, rel=1e-12, abs=1e-12)
    assert alpha_score(t, 1.0) is t
    torch.testing.assert_close(alpha_score(t, 1 + 1e-9), t, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("divergence", ["reverse_kl", "forward_kl", "js", "alpha"])
def test_no_divergence_moves_the_policy_that_is_its_reference(divergence: Any) -> None:
    zero = torch.full((3,), -5.0, dtype=torch.float64)
    found = with_divergence(PairLogps(zero, zero, zero, zero), divergence)
    assert found.chosen_log_ratio.tolist() == [0, 0, 0]


def test_reverse_kl_changes_nothing(table_pairs: PairLogps) -> None:
    found = with_divergence(table_pairs, "reverse_kl")
    for name, objective in OBJECTIVES.items():
        if objective.f_divergences:
            same = objective.losses(found), objective.losses(table_pairs)
            torch.testing.assert_close(*same, msg=name)


def test_alpha_at_its_ends_is_the_other_two(table_pairs: PairLogps) -> None:
    for coefficient, divergence in ((0.0, "forward_kl"), (1.0, "reverse_kl")):
        expected: Any = divergence
        torch.testing.assert_close(
            with_divergence(table_pairs, "alpha", coefficient).margin,
            with_divergence(table_pairs, expected).margin,
        )


@pytest.mark.parametrize(
    ("dtype", "limit"),
    [(torch.float64, 700.0), (torch.float32, 80.0), (torch.bfloat16, 80.0), (torch.float16, 11.0)],
)
def test_the_exponent_is_cut_before_it_overflows(dtype: torch.dtype, limit: float) -> None:
    found = alpha_score(torch.tensor([-1e4, -1e4], dtype=dtype), 0.0)
    assert found.dtype == dtype
    assert found.isfinite().all()
    assert float(found[0]) == pytest.approx(-math.exp(limit), rel=0.02)


def test_two_overflows_would_have_made_a_number_that_is_none() -> None:
    far = torch.tensor([-1e4], dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    assert ((1 - torch.exp(-far)) - (1 - torch.exp(-far))).isnan().all()
    assert with_divergence(PairLogps(far, far, zero, zero), "forward_kl").margin.tolist() == [0]


def test_a_missing_score_stays_missing(table_pairs: PairLogps) -> None:
    missing = replace(table_pairs, policy_chosen=torch.full((4,), math.nan, dtype=torch.float64))
    for divergence in ("forward_kl", "js", "alpha"):
        kind: Any = divergence
        assert with_divergence(missing, kind).margin.isnan().all()


def test_gradients_are_those_of_finite_differences() -> None:
    t = torch.tensor([-3.0, -0.2, 0.0, 0.4, 5.0], dtype=torch.float64, requires_grad=True)
    for score in (
        jensen_shannon_score,
        lambda x: alpha_score(x, 0.3),
        lambda x: alpha_score(x, 0.0),
    ):
        assert torch.autograd.gradcheck(score, (t,))


def test_an_unknown_divergence_is_refused(table_pairs: PairLogps) -> None:
    kind: Any = "hellinger"
    with pytest.raises(ValueError, match=r"'hellinger'; choose one of reverse_kl, forward_kl"):
        with_divergence(table_pairs, kind)

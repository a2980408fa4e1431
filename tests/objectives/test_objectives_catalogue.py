"""What holds of every objective, or of a named set of them: a new one is covered by its entry."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from workbench.objectives.catalogue import MODIFIERS, OBJECTIVES
from workbench.objectives.logps import PairLogps

ALL = sorted(OBJECTIVES)
OF_THE_MARGIN = {"dpo", "cdpo", "robust_dpo", "hinge", "ipo", "exo", "discopop"}
"""Functions of d alone: a constant of the prompt in both models' scores changes nothing."""
OF_BOTH_RATIOS = {"nca", "bco_pair", "bco", "sppo_hard", "apo_zero", "apo_down", "kto"}
FALLING = {
    *("dpo", "dpo_gamma", "dpo_norm", "hinge", "bco_pair", "bco", "aot", "aot_unpaired"),
    *("apo_zero", "kto", "simpo", "alphapo", "orpo", "cpo", "tpo", "tpo_l", "sft"),
}
"""Never rises as the chosen answer gains what the rejected one loses."""


def losses(name: str, pairs: PairLogps, **settings: float) -> Tensor:
    return OBJECTIVES[name].losses(pairs, **settings)


def moved(pairs: PairLogps, chosen: float, rejected: float) -> PairLogps:
    return replace(
        pairs,
        policy_chosen=pairs.policy_chosen + chosen,
        policy_rejected=pairs.policy_rejected + rejected,
    )


def test_the_order_of_the_catalogue_is_that_of_the_picker() -> None:
    assert list(OBJECTIVES)[:4] == ["dpo", "dpo_gamma", "dpo_norm", "cdpo"]
    assert len(OBJECTIVES) == 26
    assert all(name == entry.name for name, entry in (OBJECTIVES | MODIFIERS).items())


@pytest.mark.parametrize("name", [*ALL, *MODIFIERS])
def test_every_entry_says_what_it_is(name: str) -> None:
    entry = (OBJECTIVES | MODIFIERS)[name]
    assert entry.title
    assert entry.summary.endswith(".")
    assert entry.formula
    assert entry.source.paper
    assert entry.source.equation
    for knob in entry.hyperparameters:
        assert knob.low <= knob.default <= knob.high
        assert knob.help
        assert knob.low > 0 or not knob.logarithmic


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("end", ["low", "high"])
def test_every_end_of_every_slider_is_valid(name: str, end: str, table_pairs: PairLogps) -> None:
    for knob in OBJECTIVES[name].hyperparameters:
        found = losses(name, table_pairs, **{knob.name: getattr(knob, end)})
        assert found.isfinite().all(), knob.name


@pytest.mark.parametrize("name", ALL)
def test_what_an_objective_needs_is_what_it_reads(name: str, table_pairs: PairLogps) -> None:
    objective, read = OBJECTIVES[name], {"policy_chosen", "policy_rejected"}
    optional = {"policy_prompt", "n_prompt", "rejected_weight"}
    enough = {
        field: value
        for field, value in table_pairs.given().items()
        if field in read | set(objective.needs)
    }
    assert len(objective.losses(PairLogps(**enough))) == 4
    for field in objective.needs:
        less = PairLogps(**{name: value for name, value in enough.items() if name != field})
        with pytest.raises(ValueError, match=f"needs {field}"):
            objective.losses(less)
    assert not optional & set(objective.needs)
    assert objective.needs_reference == ("reference_chosen" in objective.needs)


@pytest.mark.parametrize("name", ALL)
def test_one_loss_a_pair_in_the_precision_of_the_scores(name: str, table_pairs: PairLogps) -> None:
    single = PairLogps(**{k: v.float() for k, v in table_pairs.given().items()})
    found = losses(name, single)
    assert found.shape == (4,)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), losses(name, table_pairs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_token_counts_may_be_integers(name: str, table_pairs: PairLogps) -> None:
    counts = {k: v.long() for k, v in table_pairs.given().items() if k.startswith("n_")}
    found = losses(name, replace(table_pairs, **counts))
    torch.testing.assert_close(found, losses(name, table_pairs))


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_those_of_finite_differences(name: str, table_pairs: PairLogps) -> None:
    def of(chosen: Tensor, rejected: Tensor) -> Tensor:
        return losses(name, replace(table_pairs, policy_chosen=chosen, policy_rejected=rejected))

    # Off the kinks and the ties of the table.
    inputs = (table_pairs.policy_chosen - 0.3, table_pairs.policy_rejected - 0.45)
    assert torch.autograd.gradcheck(of, tuple(x.clone().requires_grad_() for x in inputs))


@pytest.mark.parametrize("name", ALL)
def test_a_missing_score_gives_a_missing_loss(name: str, table_pairs: PairLogps) -> None:
    score = table_pairs.policy_chosen.clone()
    score[2] = math.nan
    found = losses(name, replace(table_pairs, policy_chosen=score))
    assert found[2].isnan()
    whole_batch = name in {"aot", "aot_unpaired"}
    assert found[[0, 1, 3]].isnan().tolist() == [whole_batch] * 3


@pytest.mark.parametrize("name", ALL)
def test_extreme_margins_give_numbers_and_gradients(name: str, table_pairs: PairLogps) -> None:
    far = torch.tensor([-1e-9, -1e4, -1e5, -1.0], dtype=torch.float64, requires_grad=True)
    pairs = replace(table_pairs, policy_chosen=far, policy_rejected=far.detach().flip(0))
    # At alpha > 0 AlphaPO's reward is the inverse of a probability and may well be infinite.
    found = losses(name, pairs, **({"alpha": 0.0} if name == "alphapo" else {}))
    assert found.isfinite().all()
    (gradient,) = torch.autograd.grad(found.sum(), far)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ALL)
def test_a_batch_twice_over_has_the_same_mean(name: str, table_pairs: PairLogps) -> None:
    twice = PairLogps(**{k: torch.cat([v, v]) for k, v in table_pairs.given().items()})
    torch.testing.assert_close(losses(name, twice).mean(), losses(name, table_pairs).mean())


@pytest.mark.parametrize("name", ALL)
def test_batch_level_is_said_where_the_batch_matters(name: str, table_pairs: PairLogps) -> None:
    objective = OBJECTIVES[name]
    alone = [
        objective.losses(PairLogps(**{k: v[i : i + 1] for k, v in table_pairs.given().items()}))
        for i in range(4)
    ]
    same = torch.allclose(torch.cat(alone), objective.losses(table_pairs), rtol=1e-12, atol=0)
    assert same != objective.batch_level


@pytest.mark.parametrize("name", [n for n in ALL if "beta" in OBJECTIVES[n].defaults])
@pytest.mark.parametrize("beta", [0.0, -0.1, math.nan, math.inf])
def test_beta_must_be_positive(name: str, beta: float, table_pairs: PairLogps) -> None:
    with pytest.raises(ValueError, match=rf"beta is {beta}.*above 0"):
        losses(name, table_pairs, beta=beta)


@pytest.mark.parametrize("name", [n for n in ALL if "label_smoothing" in OBJECTIVES[n].defaults])
@pytest.mark.parametrize("smoothing", [-0.1, 0.5, math.nan])
def test_label_smoothing_must_be_below_a_half(
    name: str, smoothing: float, table_pairs: PairLogps
) -> None:
    with pytest.raises(ValueError, match=rf"label_smoothing is {smoothing}.*below 0.5"):
        losses(name, table_pairs, label_smoothing=smoothing)


def test_exo_needs_some_label_smoothing(table_pairs: PairLogps) -> None:
    with pytest.raises(ValueError, match=r"label_smoothing is 0.0.*above 0 and"):
        losses("exo", table_pairs, label_smoothing=0.0)


def test_an_unknown_hyperparameter_is_refused(table_pairs: PairLogps) -> None:
    with pytest.raises(ValueError, match=r"DPO has no hyperparameter 'tau'; it has beta"):
        losses("dpo", table_pairs, tau=1.0)
    with pytest.raises(ValueError, match="it has none"):
        losses("sft", table_pairs, beta=1.0)


def test_discopop_needs_a_positive_tau(table_pairs: PairLogps) -> None:
    with pytest.raises(ValueError, match="tau is 0"):
        losses("discopop", table_pairs, tau=0.0)


@settings(max_examples=20)
@given(constant=st.floats(-50, 50))
@pytest.mark.parametrize("name", sorted(OF_THE_MARGIN))
def test_a_constant_of_the_prompt_changes_nothing(
    name: str, constant: float, table_pairs: PairLogps
) -> None:
    shifted = moved(table_pairs, constant, constant)
    torch.testing.assert_close(
        losses(name, shifted), losses(name, table_pairs), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("name", sorted(OF_BOTH_RATIOS))
def test_a_constant_of_the_prompt_does_change_what_reads_both_ratios(
    name: str, table_pairs: PairLogps
) -> None:
    found = losses(name, moved(table_pairs, 5.0, 5.0))
    assert not torch.allclose(found, losses(name, table_pairs))


@settings(max_examples=20)
@given(gain=st.floats(0, 20))
@pytest.mark.parametrize("name", sorted(FALLING))
def test_the_loss_never_rises_with_the_margin(
    name: str, gain: float, table_pairs: PairLogps
) -> None:
    low = moved(table_pairs, -25.0, -25.0)
    assert (losses(name, moved(low, gain, -gain)) <= losses(name, low) + 1e-12).all()


def test_a_rising_loss_would_be_found(table_pairs: PairLogps) -> None:
    """IPO punishes too large a margin, so it must fail what FALLING promises."""
    assert (losses("ipo", moved(table_pairs, 20.0, -20.0)) > losses("ipo", table_pairs)).any()


def swap(pairs: PairLogps) -> PairLogps:
    return PairLogps(
        pairs.policy_rejected,
        pairs.policy_chosen,
        pairs.reference_rejected,
        pairs.reference_chosen,
        pairs.n_rejected,
        pairs.n_chosen,
    )


BY_SWAP: dict[str, Callable[[PairLogps], Tensor]] = {
    "dpo": lambda p: -0.1 * p.margin,
    "dpo_norm": lambda p: -0.1 * p.margin_per_token,
    "cdpo": lambda p: -0.8 * 0.1 * p.margin,
    "robust_dpo": lambda p: -0.1 * p.margin / 0.8,
    "ipo": lambda p: -20 * p.margin,
    "ipo_norm": lambda p: -20 * p.margin_per_token,
    "sppo_hard": lambda p: -20 * p.margin,
    "bco_pair": lambda p: -0.1 * p.margin,
}
"""The loss of a pair minus that of the pair with its labels swapped, in closed form."""


@given(
    values=st.lists(st.floats(-60, 0), min_size=4, max_size=4),
    n=st.tuples(*[st.integers(1, 9)] * 2),
)
@pytest.mark.parametrize("name", sorted(BY_SWAP))
def test_what_a_swapped_label_changes(name: str, values: list[float], n: tuple[int, int]) -> None:
    numbers = torch.tensor([*values, *n], dtype=torch.float64)[:, None]
    pairs = PairLogps(*numbers)
    change = losses(name, pairs) - losses(name, swap(pairs))
    torch.testing.assert_close(change, BY_SWAP[name](pairs), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "limit", "twin"),
    [
        ("cdpo", {"label_smoothing": 0.0}, "dpo"),
        ("robust_dpo", {"label_smoothing": 0.0}, "dpo"),
        ("dpo_gamma", {"gamma": 1.0}, "dpo"),
        ("alphapo", {"alpha": 0.0}, "simpo"),
        ("bco", {}, "bco_pair"),
    ],
)
def test_limits_meet(name: str, limit: dict[str, float], twin: str, table_pairs: PairLogps) -> None:
    torch.testing.assert_close(losses(name, table_pairs, **limit), losses(twin, table_pairs))


def test_more_limits_meet(table_pairs: PairLogps) -> None:
    p = table_pairs
    reference_free = losses("dpo_gamma", p, gamma=0.0)
    torch.testing.assert_close(losses("cpo", p, sft_weight=0.0), reference_free)
    torch.testing.assert_close(
        losses("tpo_l", p, gold_weight=0.0), losses("simpo", p, beta=0.01, gamma=0.5)
    )
    ones = replace(p, n_chosen=torch.ones(4), n_rejected=torch.ones(4))
    torch.testing.assert_close(losses("dpo_norm", ones), losses("dpo", p))
    torch.testing.assert_close(losses("ipo_norm", ones), losses("ipo", p))
    alone = PairLogps(**{k: v[:1] for k, v in p.given().items()})
    torch.testing.assert_close(losses("aot", alone), losses("dpo", alone))
    torch.testing.assert_close(losses("aot_unpaired", alone), losses("dpo", alone))
    almost = losses("alphapo", p, alpha=1e-9)
    torch.testing.assert_close(almost, losses("simpo", p), rtol=1e-7, atol=1e-7)


def stationary(name: str, margin: float) -> bool:
    """Whether the loss of a pair at this margin d has no slope."""
    chosen = torch.tensor([margin - 30.0], dtype=torch.float64, requires_grad=True)
    rest = torch.full((1,), -30.0, dtype=torch.float64)
    pair = PairLogps(chosen, rest, rest, rest, torch.ones(1), torch.ones(1))
    (slope,) = torch.autograd.grad(losses(name, pair).sum(), chosen)
    return abs(float(slope)) < 1e-12


def test_losses_are_least_where_they_should_be() -> None:
    assert stationary("ipo", 1 / 0.2)
    assert stationary("ipo_norm", 1 / 0.2)
    assert stationary("cdpo", math.log(0.9 / 0.1) / 0.1)
    assert stationary("exo", math.log(0.999 / 0.001) / 0.1)
    assert not stationary("ipo", 1 / 0.1)
    assert not stationary("dpo", 1 / 0.2)


@given(st.lists(st.floats(-60, 0), min_size=4, max_size=4), st.floats(0.01, 2))
def test_bco_bounds_dpo_from_above(values: list[float], beta: float) -> None:
    pairs = PairLogps(*torch.tensor(values, dtype=torch.float64)[:, None])
    assert losses("bco_pair", pairs, beta=beta) > losses("dpo", pairs, beta=beta) - 1e-12


@given(st.floats(-40, 40), st.floats(0.01, 0.45))
def test_robust_dpo_is_unbiased_under_flipped_labels(margin: float, eps: float) -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    right = PairLogps(zero + margin, zero, zero, zero)
    noisy = (1 - eps) * losses("robust_dpo", right, label_smoothing=eps)
    noisy = noisy + eps * losses("robust_dpo", swap_scores(right), label_smoothing=eps)
    torch.testing.assert_close(noisy, losses("dpo", right), rtol=1e-9, atol=1e-9)


def swap_scores(pairs: PairLogps) -> PairLogps:
    return replace(pairs, policy_chosen=pairs.policy_rejected, policy_rejected=pairs.policy_chosen)


def test_without_its_divisor_robust_dpo_would_be_biased() -> None:
    zero, eps = torch.zeros(1, dtype=torch.float64), 0.1
    right = PairLogps(zero + 3, zero, zero, zero)
    noisy = 0.9 * losses("robust_dpo", right) + 0.1 * losses("robust_dpo", swap_scores(right))
    assert not torch.allclose((1 - 2 * eps) * noisy, losses("dpo", right))


def test_f_divergences_go_with_functions_of_the_margin() -> None:
    """The prompt's constant cancels only in a difference of scores."""
    allowed = {name for name, objective in OBJECTIVES.items() if objective.f_divergences}
    assert allowed == OF_THE_MARGIN | {"dpo_norm", "ipo_norm"}

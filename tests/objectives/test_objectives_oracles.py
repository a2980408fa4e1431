"""Numbers from outside: the table of core 4.3, and TRL's own code where it is installed."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from trl_block import dpo_losses

from workbench.objectives.catalogue import OBJECTIVES
from workbench.objectives.cpo import cpo_preference_loss
from workbench.objectives.f_divergence import with_divergence
from workbench.objectives.kto import kto_desirable_loss, kto_undesirable_loss
from workbench.objectives.logps import PairLogps
from workbench.objectives.orpo import odds_ratio_loss

Loss = Callable[[PairLogps], Tensor]


def named(name: str, **settings: float) -> Loss:
    return lambda logps: OBJECTIVES[name].losses(logps, **settings)


def dpo_of(divergence: Any, coefficient: float = 0.5) -> Loss:
    return lambda p: OBJECTIVES["dpo"].losses(with_divergence(p, divergence, coefficient))


Z = torch.tensor(0.7, dtype=torch.float64)
TABLE: Mapping[str, tuple[Loss, list[float]]] = {
    "sigmoid": (named("dpo"), [0.5981388694, 1.1031860489, 0.6931471806, 0.0297504183]),
    "cDPO": (named("cdpo"), [0.6181388694, 1.0331860489, 0.6931471806, 0.3797504183]),
    "robust": (named("robust_dpo"), [0.5731388694, 1.1906860489, 0.6931471806, -0.4077495817]),
    "hinge": (named("hinge"), [0.8, 1.7, 1, 0]),
    "ipo, means": (named("ipo_norm"), [21.4677777778, 33.2544444444, 25, 12.8402777778]),
    "ipo, sums": (named("ipo"), [9, 144, 25, 900]),
    "exo": (named("exo"), [2.4220146207, 3.9805549804, 2.7612307091, 0.0711096642]),
    "nca": (named("nca"), [1.3387933201, 1.5853389654, 1.3862943611, 1.1155839225]),
    "bco_pair": (named("bco_pair"), [1.2887933201, 1.7818846106, 1.3862943611, 0.3283412890]),
    "bco at rest": (named("bco"), [1.2887933201, 1.7818846106, 1.3862943611, 0.3283412890]),
    "sppo_hard": (named("sppo_hard"), [32, 157, 50, 325]),
    "aot": (named("aot"), [0.4740769842, 0.6931471806, 0.5981388694, 0.0955454646]),
    "aot_unpaired": (
        named("aot_unpaired"),
        [0.1393867583, 0.6443966601, 0.6443966601, 0.3411538747],
    ),
    "apo_zero": (named("apo_zero"), [0.9500416250, 1.1706354937, 1, 0.3016284458]),
    "apo_down": (named("apo_down"), [0.9751451902, 1.1432085847, 1, 0.8468867069]),
    "discopop": (named("discopop"), [0.8147631411, 1.1031868060, 0.8465735903, 0.0301973834]),
    "sigmoid_norm": (named("dpo_norm"), [0.6749818934, 0.7322150562, 0.6931471806, 0.6248204328]),
    "forward KL": (dpo_of("forward_kl"), [0.5825167135, 0.8381286229, 0.6931471806, 0]),
    "JS": (dpo_of("js"), [0.6443966601, 0.7608326448, 0.6931471806, 0.1269280147]),
    "alpha": (dpo_of("alpha"), [0.5943491230, 0.8657694542, 0.6931471806, 0]),
    "CPO, preference": (
        lambda p: cpo_preference_loss(p, 0.1),
        [0.5981388694, 0.9740769842, 0.6931471806, 0.0788897343],
    ),
    "SimPO": (named("simpo"), [0.9740769842, 1.3541768565, 0.9740769842, 0.7799487248]),
    "AlphaPO at 0": (
        named("alphapo", alpha=0.0),
        [0.9740769842, 1.3541768565, 0.9740769842, 0.7799487248],
    ),
    "ORPO, odds ratio": (
        lambda p: odds_ratio_loss(p, 0.1),
        [0.0693147181, 0.0858283873, 0.0693147181, 0.0602466963],
    ),
    "TPO": (
        named("tpo", gold_weight=0.0),
        [0.6831971797, 0.7184596480, 0.6931471806, 0.5759394199],
    ),
    "TPO-L": (
        named("tpo_l", gold_weight=0.0),
        [0.9740769842, 0.9758069443, 0.9740769842, 0.9730398784],
    ),
    "DPO^gamma": (named("dpo_gamma"), [0.5981388694, 1.0374879505, 0.6931471806, 0.0485873516]),
    "KTO, good": (
        lambda p: kto_desirable_loss(p.chosen_log_ratio, Z, 0.1),
        [0.4925005624, 0.5423979408, 0.5174928577, 0.1930986842],
    ),
    "KTO, bad": (
        lambda p: kto_undesirable_loss(p.rejected_log_ratio, Z, 0.1),
        [0.4576020592, 0.6294831120, 0.4825071423, 0.1120470386],
    ),
    "KTO": (
        named("kto"),  # the mismatched ratios' mean is 0.7
        [0.4750513108, 0.5859405264, 0.5, 0.1525728614],
    ),
}


def agrees(loss: Loss, row: str, pairs: PairLogps) -> bool:
    expected = torch.tensor(TABLE[row][1], dtype=torch.float64)
    return torch.allclose(loss(pairs), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("row", TABLE)
def test_the_oracle_table(row: str, table_pairs: PairLogps) -> None:
    assert agrees(TABLE[row][0], row, table_pairs)


def test_means_of_the_transport_losses(table_pairs: PairLogps) -> None:
    assert float(TABLE["aot"][0](table_pairs).mean()) == pytest.approx(0.4652271247, abs=1e-10)
    found = float(TABLE["aot_unpaired"][0](table_pairs).mean())
    assert found == pytest.approx(0.4423334883, abs=1e-10)


def wrong_sign_of_c(p: PairLogps) -> PairLogps:
    return replace(p, reference_chosen=p.reference_rejected, reference_rejected=p.reference_chosen)


def sums_for_means(p: PairLogps) -> PairLogps:
    return replace(p, n_chosen=torch.ones(4), n_rejected=torch.ones(4))


def swapped(p: PairLogps) -> PairLogps:
    return replace(
        p,
        policy_chosen=p.policy_rejected,
        policy_rejected=p.policy_chosen,
        reference_chosen=p.reference_rejected,
        reference_rejected=p.reference_chosen,
        n_chosen=p.n_rejected,
        n_rejected=p.n_chosen,
    )


REFERENCE_FREE = {"CPO, preference", "SimPO", "AlphaPO at 0", "ORPO, odds ratio", "TPO", "TPO-L"}
PER_TOKEN = {"ipo, means", "sigmoid_norm", "SimPO", "AlphaPO at 0", "ORPO, odds ratio", "TPO-L"}
SABOTAGE: list[tuple[str, Callable[[PairLogps], PairLogps]]] = [
    *((row, wrong_sign_of_c) for row in TABLE if row not in REFERENCE_FREE),
    *((row, sums_for_means) for row in sorted(PER_TOKEN)),
    *((row, swapped) for row in TABLE),
]


@pytest.mark.parametrize(("row", "sabotage"), SABOTAGE)
def test_sabotaged_inputs_are_found_out(
    row: str, sabotage: Callable[[PairLogps], PairLogps], table_pairs: PairLogps
) -> None:
    loss = TABLE[row][0]
    assert not agrees(lambda p: loss(sabotage(p)), row, table_pairs)


def test_a_robust_loss_without_its_divisor_is_found_out(table_pairs: PairLogps) -> None:
    loss = TABLE["robust"][0]
    assert not agrees(lambda p: 0.8 * loss(p), "robust", table_pairs)


TRL_NAMES = {
    "sigmoid": ("sigmoid", 0.0),
    "robust": ("robust", 0.1),
    "hinge": ("hinge", 0.0),
    "ipo, means": ("ipo", 0.0),
    "exo": ("exo_pair", 1e-3),
    "nca": ("nca_pair", 0.0),
    "bco_pair": ("bco_pair", 0.0),
    "sppo_hard": ("sppo_hard", 0.0),
    "aot": ("aot", 0.0),
    "aot_unpaired": ("aot_unpaired", 0.0),
    "apo_zero": ("apo_zero", 0.0),
    "apo_down": ("apo_down", 0.0),
    "discopop": ("discopop", 0.0),
    "sigmoid_norm": ("sigmoid_norm", 0.0),
}
TRL_DIVERGENCES = {"forward KL": "forward_kl", "JS": "js_divergence", "alpha": "alpha_divergence"}


def trl_losses(
    pairs: PairLogps, loss_type: str, smoothing: float, divergence: str = "reverse_kl"
) -> Tensor:
    """Run the loss block of the installed TRL (0.29 or later), cut out of its trainer."""
    config = SimpleNamespace(
        f_divergence_type=divergence,
        f_alpha_divergence_coef=0.5,
        beta=0.1,
        label_smoothing=smoothing,
        loss_type=[loss_type],
        discopop_tau=0.05,
    )
    return dpo_losses(pairs, config)[0]


@pytest.mark.parametrize("row", TRL_NAMES)
def test_trl_computes_the_same_loss(row: str, table_pairs: PairLogps) -> None:
    expected = trl_losses(table_pairs, *TRL_NAMES[row])
    torch.testing.assert_close(TABLE[row][0](table_pairs), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("row", TRL_DIVERGENCES)
def test_trl_computes_the_same_divergence(row: str, table_pairs: PairLogps) -> None:
    expected = trl_losses(table_pairs, "sigmoid", 0.0, TRL_DIVERGENCES[row])
    # TRL's alpha-divergence passes through float32.
    torch.testing.assert_close(TABLE[row][0](table_pairs), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("loss_type", "beta", "alpha", "ours"),
    [
        ("sigmoid", 0.1, 0.0, named("cpo", sft_weight=0.0)),
        ("simpo", 2.0, 0.0, named("simpo")),
        ("simpo", 2.0, 0.25, named("alphapo")),
        ("simpo", 2.0, -0.5, named("alphapo", alpha=-0.5)),
    ],
)
def test_trl_computes_the_same_loss_without_a_reference(
    loss_type: str, beta: float, alpha: float, ours: Loss, table_pairs: PairLogps
) -> None:
    trainer = pytest.importorskip("trl.experimental.cpo").CPOTrainer
    settings = SimpleNamespace(
        alpha=alpha,
        beta=beta,
        loss_type=loss_type,
        label_smoothing=0.0,
        simpo_gamma=0.5,
        accelerator=SimpleNamespace(device="cpu"),
    )
    pairs = table_pairs
    scores = (pairs.policy_chosen, pairs.policy_rejected)
    if loss_type == "simpo":
        scores = (pairs.chosen_per_token, pairs.rejected_per_token)
    expected = trainer.cpo_loss(settings, *scores)[0]
    torch.testing.assert_close(ours(pairs), expected, rtol=0, atol=1e-9)


def test_trl_computes_the_same_odds_ratio(table_pairs: PairLogps) -> None:
    trainer = pytest.importorskip("trl.experimental.orpo").ORPOTrainer
    settings = SimpleNamespace(beta=0.1, accelerator=SimpleNamespace(device="cpu"))
    scores = (table_pairs.chosen_per_token, table_pairs.rejected_per_token)
    expected = -trainer.odds_ratio_loss(settings, *scores)[0]
    # TRL computes it in float32.
    torch.testing.assert_close(
        odds_ratio_loss(table_pairs, 0.1).float(), expected, atol=1e-6, rtol=0
    )

"""Contrastive preference optimisation (Xu et al., arXiv 2401.08417, Eq. 3)."""

from jaxtyping import Float
from torch import Tensor

from workbench.metrics.checks import check_positive
from workbench.objectives.dpo import smoothed_sigmoid_loss
from workbench.objectives.logps import PairLogps
from workbench.objectives.sft import sft_loss


def cpo_preference_loss(
    logps: PairLogps, beta: float, label_smoothing: float = 0.0
) -> Float[Tensor, " pairs"]:
    """-log sigmoid(beta m), per pair: DPO with a uniform reference."""
    check_positive(beta, "beta")
    return smoothed_sigmoid_loss(beta * logps.policy_log_ratio, label_smoothing)


def cpo_loss(
    logps: PairLogps, beta: float, sft_weight: float, label_smoothing: float = 0.0
) -> Float[Tensor, " pairs"]:
    """-log sigmoid(beta m) + weight * negative log-likelihood of the chosen answer, per pair."""
    return cpo_preference_loss(logps, beta, label_smoothing) + sft_weight * sft_loss(logps)

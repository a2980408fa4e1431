"""Triple preference optimisation (Saeidi et al., arXiv 2405.16681).

A reference-free contrast of chosen and rejected, and the likelihood of a third, gold answer.
"""

from jaxtyping import Float
from torch import Tensor

from workbench.objectives.cpo import cpo_preference_loss
from workbench.objectives.logps import PairLogps
from workbench.objectives.sft import negative_log_likelihood
from workbench.objectives.simpo import simpo_loss


def tpo_loss(logps: PairLogps, beta: float, gold_weight: float) -> Float[Tensor, " pairs"]:
    """-log sigmoid(beta m) + weight * negative log-likelihood of the gold answer, per pair."""
    return cpo_preference_loss(logps, beta) + gold_weight * _gold(logps)


def tpo_l_loss(
    logps: PairLogps, beta: float, gamma: float, gold_weight: float
) -> Float[Tensor, " pairs"]:
    """TPO-L: SimPO's contrast (means a token, margin gamma) with the gold answer's likelihood."""
    return simpo_loss(logps, beta, gamma) + gold_weight * _gold(logps)


def _gold(logps: PairLogps) -> Tensor:
    return negative_log_likelihood(logps.require("policy_gold"), logps.require("n_gold"))

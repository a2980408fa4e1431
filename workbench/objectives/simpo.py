"""SimPO (Meng et al., arXiv 2405.14734, Eq. 6) and AlphaPO (Gupta et al., arXiv 2501.03884).

Without a reference: the reward is a function of the mean log-probability of a token.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.metrics.checks import check_positive
from workbench.objectives.dpo import smoothed_sigmoid_loss
from workbench.objectives.logps import PairLogps


def simpo_loss(
    logps: PairLogps, beta: float, gamma: float, label_smoothing: float = 0.0
) -> Float[Tensor, " pairs"]:
    """-log sigmoid(beta (log pi(y_w|x) / n_w - log pi(y_l|x) / n_l) - gamma), per pair.

    Args:
        logps: Means, not sums, enter: both lengths are needed.
        beta: Scale of the reward, > 0; larger than DPO's, as it multiplies means.
        gamma: Margin by which the chosen reward should lead, in units of the reward.
        label_smoothing: Share of wrong labels, [0, 0.5); 0 is the paper's loss.
    """
    return alphapo_loss(logps, beta, gamma, 0.0, label_smoothing)


def alphapo_loss(
    logps: PairLogps, beta: float, gamma: float, alpha: float, label_smoothing: float = 0.0
) -> Float[Tensor, " pairs"]:
    """SimPO with the reward (1 - p^-alpha) / alpha, p = exp(log pi(y|x) / n); alpha = 0 is log p.

    alpha > 0 stretches rewards of improbable answers, alpha < 0 flattens them.
    """
    check_positive(beta, "beta")
    chosen = _shaped_reward(logps.chosen_per_token, alpha)
    rejected = _shaped_reward(logps.rejected_per_token, alpha)
    return smoothed_sigmoid_loss(beta * (chosen - rejected) - gamma, label_smoothing)


def _shaped_reward(mean_logp: Tensor, alpha: float) -> Tensor:
    return mean_logp if alpha == 0 else -torch.expm1(-alpha * mean_logp) / alpha

"""The objective that a language model discovered (Lu et al., arXiv 2406.08414, Eq. 5)."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from workbench.metrics.checks import check_positive
from workbench.objectives.logps import PairLogps


def discopop_loss(logps: PairLogps, beta: float, tau: float) -> Float[Tensor, " pairs"]:
    """(1 - s) * (-log sigmoid(z)) + s * exp(-z) with z = beta d, s = sigmoid(z / tau), per pair.

    Not convex: log-sigmoid and exponential loss, mixed by the margin itself.

    Raises:
        ValueError: beta or tau is not positive.
    """
    check_positive(beta, "beta")
    check_positive(tau, "tau")
    z = beta * logps.margin
    # The product in log space: exp(-z) alone overflows where s vanishes.
    exponential = torch.exp(logsigmoid(z / tau) - z)
    return exponential - torch.sigmoid(-z / tau) * logsigmoid(z)

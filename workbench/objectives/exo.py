"""Efficient exact optimisation (Ji et al., arXiv 2402.00856, Eq. 16) on pairs."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from workbench.metrics.checks import check_positive
from workbench.objectives.checks import check_label_smoothing
from workbench.objectives.logps import PairLogps


def exo_loss(logps: PairLogps, beta: float, label_smoothing: float) -> Float[Tensor, " pairs"]:
    """Reverse KL of q = sigmoid(beta d) from the smoothed label (1 - eps, eps), per pair.

    q (log q - log(1 - eps)) + (1 - q) (log(1 - q) - log eps): least, and zero, at q = 1 - eps.

    Raises:
        ValueError: beta is not positive, or eps not in (0, 0.5); at eps = 0 it is infinite.
    """
    check_positive(beta, "beta")
    check_label_smoothing(label_smoothing, positive=True)
    z = beta * logps.margin
    chosen = torch.sigmoid(z) * (logsigmoid(z) - math.log1p(-label_smoothing))
    return chosen + torch.sigmoid(-z) * (logsigmoid(-z) - math.log(label_smoothing))

"""Anchored preference optimisation (D'Oosterlinck et al., arXiv 2408.06266)."""

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.metrics.checks import check_positive
from workbench.objectives.logps import PairLogps


def apo_zero_loss(logps: PairLogps, beta: float) -> Float[Tensor, " pairs"]:
    """1 - sigmoid(beta a) + sigmoid(beta r), per pair (Eq. 7): chosen up, rejected down.

    For answers that are better than what the policy writes.
    """
    check_positive(beta, "beta")
    chosen, rejected = beta * logps.chosen_log_ratio, beta * logps.rejected_log_ratio
    return torch.sigmoid(-chosen) + torch.sigmoid(rejected)


def apo_down_loss(logps: PairLogps, beta: float) -> Float[Tensor, " pairs"]:
    """sigmoid(beta a) + 1 - sigmoid(beta d), per pair (Eq. 8): both down, rejected more.

    For answers that are worse than what the policy writes.
    """
    check_positive(beta, "beta")
    return torch.sigmoid(beta * logps.chosen_log_ratio) + torch.sigmoid(-beta * logps.margin)

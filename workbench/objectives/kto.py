"""Kahneman-Tversky optimisation of good and bad answers (arXiv 2402.01306, Eq. 7)."""

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.metrics.checks import check_positive
from workbench.objectives.logps import PairLogps


def kto_reference_point(mismatched: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """z0 = max(0, mean log-ratio of answers to other prompts): a KL estimate, no gradient.

    Args:
        mismatched: log pi(y'|x) - log pi_ref(y'|x) of answers y' that belong to other
            prompts; a missing one (NaN) makes the point, and so the batch, missing.
    """
    return mismatched.detach().mean().clamp(min=0)


def kto_desirable_loss(
    log_ratio: Float[Tensor, " n"], reference_point: Float[Tensor, ""], beta: float
) -> Float[Tensor, " n"]:
    """1 - sigmoid(beta (a - z0)) of each good answer."""
    check_positive(beta, "beta")
    return torch.sigmoid(-beta * (log_ratio - reference_point))


def kto_undesirable_loss(
    log_ratio: Float[Tensor, " n"], reference_point: Float[Tensor, ""], beta: float
) -> Float[Tensor, " n"]:
    """1 - sigmoid(beta (z0 - r)) of each bad answer."""
    check_positive(beta, "beta")
    return torch.sigmoid(-beta * (reference_point - log_ratio))


def kto_loss(
    logps: PairLogps, beta: float, desirable_weight: float, undesirable_weight: float
) -> Float[Tensor, " pairs"]:
    """The mean of a pair's good and bad answer's losses, weighted: its mean is KTO's expectation.

    Needs `mismatched`, from which the reference point of the batch follows.
    """
    z = kto_reference_point(logps.require("mismatched"))
    good = desirable_weight * kto_desirable_loss(logps.chosen_log_ratio, z, beta)
    return (good + undesirable_weight * kto_undesirable_loss(logps.rejected_log_ratio, z, beta)) / 2

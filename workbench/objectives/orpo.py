"""Odds ratio preference optimisation (Hong et al., arXiv 2403.07691, Eq. 6 and 7)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from workbench.metrics.checks import check_positive
from workbench.objectives.logps import PairLogps
from workbench.objectives.sft import negative_log_likelihood


def orpo_loss(logps: PairLogps, beta: float) -> Float[Tensor, " pairs"]:
    """Negative log-likelihood plus beta times the odds-ratio loss, per pair; beta is its lambda.

    The likelihood counts the prompt's tokens too where `policy_prompt` is given, as the authors
    and TRL do; without it the chosen answer's alone.
    """
    return _likelihood(logps) + odds_ratio_loss(logps, beta)


def odds_ratio_loss(logps: PairLogps, beta: float) -> Float[Tensor, " pairs"]:
    """-beta log sigmoid(log odds(y_w|x) - log odds(y_l|x)), odds = p / (1 - p), per pair.

    log p is the mean log-probability of a token.
    """
    check_positive(beta, "beta")
    gap = log_odds(logps.chosen_per_token) - log_odds(logps.rejected_per_token)
    return -beta * logsigmoid(gap)


def log_odds(logp: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """log p - log(1 - p) from log p <= 0; a certain answer counts as one rounding step below."""
    logp = logp.clamp(max=-torch.finfo(logp.dtype).eps)
    return logp - log1mexp(logp)


def log1mexp(x: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """log(1 - e^x) for x < 0 without cancellation (Mächler 2012)."""
    return torch.where(x > -math.log(2), torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x)))


def _likelihood(logps: PairLogps) -> Tensor:
    logp, n = logps.policy_chosen, logps.require("n_chosen")
    if logps.policy_prompt is not None:
        logp, n = logp + logps.policy_prompt, n + logps.require("n_prompt")
    return negative_log_likelihood(logp, n)

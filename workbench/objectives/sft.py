"""Supervised fine-tuning on the chosen answers, alone or as a part of other objectives."""

from jaxtyping import Float, Shaped
from torch import Tensor

from workbench.objectives.logps import PairLogps


def negative_log_likelihood(
    logp: Float[Tensor, " n"], n_tokens: Shaped[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """-log pi(y|x) over the batch's mean length: each answer's share of the token mean, nats.

    The mean over the batch is the mean over all its tokens, which TRL repeats in every row.
    """
    return -logp / n_tokens.to(logp.dtype).mean()


def sft_loss(logps: PairLogps) -> Float[Tensor, " pairs"]:
    """Negative log-likelihood of the chosen answers a token; the rejected ones are not read."""
    return negative_log_likelihood(logps.policy_chosen, logps.require("n_chosen"))

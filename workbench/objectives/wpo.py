"""Weighted preference optimisation (Zhou et al., arXiv 2406.11827, Eq. 2).

Pairs count by how likely the present policy is to write them, as if they were on-policy.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def log_collision_probability(logits: Float[Tensor, "*n vocabulary"]) -> Float[Tensor, "*n"]:
    """log sum_v p_v^2: what a token sampled from the policy scores on average."""
    return torch.logsumexp(2 * torch.log_softmax(logits, dim=-1), dim=-1)


def wpo_answer_weight(
    token_logps: Float[Tensor, "n tokens"],
    log_collision: Float[Tensor, "n tokens"],
    mask: Bool[Tensor, "n tokens"],
) -> Float[Tensor, " n"]:
    """exp(mean_t [log p(y_t) - log sum_v p_v^2]) of each answer, without gradient.

    Args:
        token_logps: The policy's log-probabilities of the answers' tokens, nats.
        log_collision: `log_collision_probability` at the same positions.
        mask: True at tokens of the answer; one without tokens has the weight NaN.
    """
    gap = (token_logps - log_collision).detach().masked_fill(~mask, 0.0)
    return torch.exp(gap.sum(dim=1) / mask.sum(dim=1))


def wpo_pair_weight(
    chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"]
) -> Float[Tensor, " pairs"]:
    """w_w * w_l, by which the pair's loss is multiplied; not cut at 1, as in TRL from 0.29 on."""
    return chosen * rejected

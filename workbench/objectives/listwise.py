"""More than two ranked answers to a prompt: Plackett-Luce and LambdaLoss on implicit rewards."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid


def plackett_luce_loss(
    scores: Float[Tensor, "lists answers"], ratings: Float[Tensor, "lists answers"]
) -> Float[Tensor, " lists"]:
    """-sum_k [s_(k) - logsumexp(s_(k), ..., s_(M))], answers sorted by rating, best first.

    DPO for rankings (Rafailov et al., arXiv 2305.18290, appendix A.3); with two answers it is
    DPO's loss of s_1 - s_2.

    Args:
        scores: Implicit rewards s = beta log pi/pi_ref (or any other), M answers a prompt.
        ratings: The ranking to learn, higher is better; it must be strict.

    Raises:
        ValueError: shapes differ, or two answers of a list have the same rating.
    """
    _check_shapes(scores, ratings)
    ranked = ratings.sort(dim=-1, descending=True)
    if (ranked.values.diff(dim=-1) == 0).any():
        raise ValueError(
            "Two answers of a list have the same rating; a ranking without ties is needed "
            "(lambda_loss takes ties)."
        )
    ordered = scores.gather(-1, ranked.indices)
    remaining = ordered.flip(-1).logcumsumexp(dim=-1).flip(-1)
    return (remaining - ordered).sum(dim=-1)


def lambda_loss(
    scores: Float[Tensor, "lists answers"],
    ratings: Float[Tensor, "lists answers"],
    weighted: bool = True,
) -> Float[Tensor, " lists"]:
    """-sum over pairs with v_i > v_j of lambda_ij log sigmoid(s_i - s_j), LiPO's lambda form.

    lambda_ij = |2^v_i - 2^v_j| * |1 / log(1 + k_i) - 1 / log(1 + k_j)|, where k is an answer's
    rank (from 1) by its present score, a constant for the gradient (Liu et al., arXiv 2402.01878;
    also the list loss of preference trees, arXiv 2410.12854).

    Args:
        scores: Implicit rewards, M answers a prompt.
        ratings: v, usually in [0, 1]; answers of equal rating are not compared.
        weighted: False sets every lambda to 1: the plain sum over pairs.
    """
    _check_shapes(scores, ratings)
    gap = scores[..., :, None] - scores[..., None, :]
    weight = _lambda_weights(scores, ratings) if weighted else torch.ones_like(gap)
    better = ratings[..., :, None] > ratings[..., None, :]
    missing = (scores + ratings).isnan().any(dim=-1)
    losses = (-weight * logsigmoid(gap)).masked_fill(~better, 0.0).sum(dim=(-2, -1))
    return losses.masked_fill(missing, torch.nan)


def _lambda_weights(scores: Tensor, ratings: Tensor) -> Tensor:
    rank = scores.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1) + 1
    discount = 1 / torch.log1p(rank.to(scores.dtype))
    gain = torch.exp2(ratings)
    gains = (gain[..., :, None] - gain[..., None, :]).abs()
    return gains * (discount[..., :, None] - discount[..., None, :]).abs()


def _check_shapes(scores: Tensor, ratings: Tensor) -> None:
    if scores.ndim != 2 or scores.shape != ratings.shape:
        raise ValueError(
            f"scores have shape {tuple(scores.shape)} and ratings {tuple(ratings.shape)}; "
            "give both as (lists, answers)."
        )

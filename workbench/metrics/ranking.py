"""Ranking accuracy and its ideal, after Chen et al. (arXiv 2405.19534).

Throughout, `c` is the reference's log-ratio log pi_ref(y_l|x) - log pi_ref(y_w|x): positive where
the reference ranks the pair wrongly.
"""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

TiePolicy = Literal["correct", "wrong", "half"]
_TIE_VALUE = {"correct": 1.0, "wrong": 0.0, "half": 0.5}


def ranking_accuracy(
    chosen_logp: Float[Tensor, " n"],
    rejected_logp: Float[Tensor, " n"],
    *,
    tie_policy: TiePolicy = "correct",
    tolerance: float = 0.0,
) -> Float[Tensor, " n"]:
    """1 where the model itself ranks the chosen answer first (Definition 2.3), per pair.

    Args:
        chosen_logp: Summed log-probabilities of the chosen answers, nats.
        rejected_logp: The same of the rejected answers.
        tie_policy: What a tie counts; the definition's `>=` makes it correct.
        tolerance: Largest difference in nats that is a tie.
    """
    return _ranked(chosen_logp - rejected_logp, tie_policy, tolerance)


def length_normalised_ranking_accuracy(
    chosen_logp: Float[Tensor, " n"],
    rejected_logp: Float[Tensor, " n"],
    n_chosen: Float[Tensor, " n"],
    n_rejected: Float[Tensor, " n"],
    *,
    tie_policy: TiePolicy = "correct",
    tolerance: float = 0.0,
) -> Float[Tensor, " n"]:
    """The ranking accuracy of geometric-mean token probabilities, per pair.

    Args:
        chosen_logp: Summed log-probabilities of the chosen answers, nats.
        rejected_logp: The same of the rejected answers.
        n_chosen: Tokens of the chosen answers.
        n_rejected: Tokens of the rejected answers.
        tie_policy: What a tie counts.
        tolerance: Largest difference of per-token probabilities (not logs) that is a tie.
    """
    chosen, rejected = chosen_logp / n_chosen, rejected_logp / n_rejected
    if tolerance == 0:
        return _ranked(chosen - rejected, tie_policy, 0.0)
    return _ranked(chosen.exp() - rejected.exp(), tie_policy, tolerance)


def reference_log_ratio(
    reference_chosen: Float[Tensor, " n"], reference_rejected: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """c = log pi_ref(y_l|x) - log pi_ref(y_w|x), nats; positive where the reference is wrong."""
    return reference_rejected - reference_chosen


def clip_rater_share(alpha: Float[Tensor, " n"], epsilon: float = 1e-3) -> Float[Tensor, " n"]:
    """Keep unanimous votes away from 0 and 1, where the optimum lies at infinity.

    Raises:
        ValueError: epsilon outside (0, 1/2), or a share outside [0, 1].
    """
    if not 0 < epsilon < 0.5:
        raise ValueError(f"epsilon is {epsilon}; give a number between 0 and 0.5.")
    outside = (alpha < 0) | (alpha > 1)
    if bool(outside.any()):
        raise ValueError(f"A rater share is {float(alpha[outside][0])}; shares lie in [0, 1].")
    return alpha.clamp(epsilon, 1 - epsilon)


def idealized_ranking_accuracy(
    c: Float[Tensor, " n"], alpha: Float[Tensor, " n"], beta: float
) -> Float[Tensor, " n"]:
    """1 where perfect DPO or RLHF ranks the pair correctly (Corollary 3.3), per pair.

    The paper's product of probability ratios in logs: logit(alpha) > beta * c, strictly.

    Args:
        c: The reference's log-ratio, nats.
        alpha: Share of raters who prefer the chosen answer, in (0, 1); see `clip_rater_share`.
        beta: Inverse temperature, > 0.
    """
    return (torch.logit(alpha) > beta * c).to(c.dtype)


def idealized_ranking_accuracy_curve(
    c: Float[Tensor, " n"], alpha: Float[Tensor, " n"], betas: Float[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """Mean idealized accuracy at each beta; exact, in O((n + b) log n).

    A pair is correct at beta iff beta * c < logit(alpha): on one side of logit(alpha) / c, on
    which side the signs of c and logit(alpha) say. NaN for no pairs.
    """
    if c.numel() == 0:
        return torch.full_like(betas, math.nan)
    logit = torch.logit(alpha)
    always = ((c <= 0) & (logit > 0)) | ((c < 0) & (logit == 0))
    off = _switch_points(c, logit, (c > 0) & (logit > 0))
    on = _switch_points(c, logit, (c < 0) & (logit < 0))
    count = always.sum() + len(off) - torch.searchsorted(off, betas, right=True)
    return (count + torch.searchsorted(on, betas, right=False)).to(betas.dtype) / c.numel()


def paper_code_idealized_ranking_accuracy(
    reference_chosen: Float[Tensor, " n"],
    reference_rejected: Float[Tensor, " n"],
    alpha: Float[Tensor, " n"],
    beta: float,
) -> Float[Tensor, " n"]:
    """The idealized accuracy as the paper's released code computes it, per pair.

    It multiplies the vote ratio by logp_w / logp_l, a ratio of two negative log-likelihoods, and
    not by exp(logp_w - logp_l) as Eq. 3 says, and counts a pair as correct above 1.05 (a dead
    band of 0.05 about a tie). The printed tables follow this; `idealized_ranking_accuracy`
    follows the equation.
    """
    log_votes = torch.logit(alpha) / beta
    log_ratio = torch.log(-reference_chosen) - torch.log(-reference_rejected)
    return (log_votes + log_ratio > math.log1p(0.05)).to(alpha.dtype)


def alignment_gap(idealized: Float[Tensor, ""], achieved: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Idealized ranking accuracy (median over beta) minus the achieved one."""
    return idealized - achieved


def flip_threshold(c: Float[Tensor, " n"], beta: float, gamma: float = 1.0) -> Float[Tensor, " n"]:
    """The loss at and below which a pair is ranked correctly: softplus(-beta * gamma * c).

    Theorem 4.1: ranked correctly iff the pair's loss is at most this, whatever the policy.
    """
    return softplus(-beta * gamma * c, threshold=50)


def flip_difficulty(c: Float[Tensor, " n"], beta: float) -> Float[Tensor, " n"]:
    """How far the loss must fall from log 2, where policy = reference, before the pair flips.

    log 2 - softplus(-beta * c) where the reference is wrong, 0 elsewhere; at most log 2.
    """
    return (math.log(2) - flip_threshold(c, beta)).clamp(min=0)


def flip_beta(c: Float[Tensor, " n"], alpha: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The beta above which a pair stops being idealized-correct: logit(alpha) / c.

    Infinite where no beta switches it off (c <= 0); 0 where it is never correct.
    """
    at = torch.logit(alpha) / c
    never = torch.full_like(at, math.inf)
    return torch.where(c > 0, at.clamp(min=0), never)


def idealized_log_ratio(
    c: Float[Tensor, " n"], alpha: Float[Tensor, " n"], beta: float
) -> Float[Tensor, " n"]:
    """The ideal policy's log-ratio of chosen to rejected, logit(alpha)/beta - c (Theorem 3.1)."""
    return torch.logit(alpha) / beta - c


def exact_match_ranking(
    logp: Float[Tensor, "n k"], target_rank: Float[Tensor, "n k"]
) -> Bool[Tensor, " n"]:
    """Whether the model orders all k answers exactly as the target does (Definition A.8).

    Args:
        logp: Log-probabilities of each prompt's k answers.
        target_rank: Their wanted ranks, smaller is better; equal ranks leave the order open.
    """
    better = target_rank[:, :, None] < target_rank[:, None, :]
    agrees = logp[:, :, None] > logp[:, None, :]
    return (agrees | ~better).all(dim=(1, 2))


def _ranked(difference: Tensor, tie_policy: TiePolicy, tolerance: float) -> Tensor:
    if tie_policy not in _TIE_VALUE:
        raise ValueError(f"tie_policy is {tie_policy!r}; choose one of {', '.join(_TIE_VALUE)}.")
    strict = (difference > tolerance).to(difference.dtype)
    tie = difference.abs() <= tolerance
    ranked = torch.where(tie, torch.full_like(strict, _TIE_VALUE[tie_policy]), strict)
    return torch.where(difference.isnan(), difference, ranked)


def _switch_points(c: Tensor, logit: Tensor, which: Tensor) -> Tensor:
    return (logit[which] / c[which]).sort().values

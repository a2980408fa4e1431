"""Ranking accuracy and its ideal, after Chen et al. (arXiv 2405.19534).

Throughout, `c` is the reference's log-ratio log pi_ref(y_l|x) - log pi_ref(y_w|x): positive where
the reference ranks the pair wrongly. Values are per pair and in float64; a pair of which a score is
missing (NaN) has a missing value, not a wrong one. Nothing leaves log space.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import softplus

from workbench.metrics.checks import check_positive, indicator, per_token

TiePolicy = Literal["correct", "wrong", "half"]
_TIE_VALUE = {"correct": 1.0, "wrong": 0.0, "half": 0.5}


def ranking_accuracy(
    chosen_logp: Shaped[Tensor, " n"],
    rejected_logp: Shaped[Tensor, " n"],
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
    return _ranked(chosen_logp.double() - rejected_logp.double(), tie_policy, tolerance)


def length_normalised_ranking_accuracy(
    chosen_logp: Shaped[Tensor, " n"],
    rejected_logp: Shaped[Tensor, " n"],
    n_chosen: Shaped[Tensor, " n"],
    n_rejected: Shaped[Tensor, " n"],
    *,
    tie_policy: TiePolicy = "correct",
    tolerance: float = 0.0,
) -> Float[Tensor, " n"]:
    """The ranking accuracy of geometric-mean token probabilities, per pair.

    Missing where an answer has no tokens.

    Args:
        chosen_logp: Summed log-probabilities of the chosen answers, nats.
        rejected_logp: The same of the rejected answers.
        n_chosen: Tokens of the chosen answers.
        n_rejected: Tokens of the rejected answers.
        tie_policy: What a tie counts.
        tolerance: Largest difference of per-token probabilities (not logs) that is a tie.
    """
    chosen, rejected = per_token(chosen_logp, n_chosen), per_token(rejected_logp, n_rejected)
    if tolerance == 0:
        return _ranked(chosen - rejected, tie_policy, 0.0)
    return _ranked(chosen.exp() - rejected.exp(), tie_policy, tolerance)


def tied_ranking_accuracy(
    chosen_logp: Shaped[Tensor, " n"],
    rejected_logp: Shaped[Tensor, " n"],
    alpha: Shaped[Tensor, " n"],
    tolerance: float = 0.01,
) -> Float[Tensor, " n"]:
    """Ranking accuracy on data with ties (Definition C.1), per pair.

    Where the raters are split evenly the model must be too, elsewhere it must be strictly right.
    The definition compares probabilities, of which every pair of sequences differs by less than
    any tolerance; like the paper's code this compares log-probabilities.

    Args:
        chosen_logp: Log-probabilities of the chosen answers, nats (a sum, or a mean a token).
        rejected_logp: The same of the rejected answers.
        alpha: Share of raters who prefer the chosen answer.
        tolerance: The difference in nats below which the model is split evenly.
    """
    difference = chosen_logp.double() - rejected_logp.double()
    correct = torch.where(alpha == 0.5, difference.abs() < tolerance, difference > 0)
    return indicator(correct, difference, alpha)


def reference_log_ratio(
    reference_chosen: Shaped[Tensor, " n"], reference_rejected: Shaped[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """c = log pi_ref(y_l|x) - log pi_ref(y_w|x), nats; positive where the reference is wrong."""
    return reference_rejected.double() - reference_chosen.double()


def clip_rater_share(alpha: Shaped[Tensor, " n"], epsilon: float = 1e-3) -> Float[Tensor, " n"]:
    """Keep unanimous votes away from 0 and 1, where the optimum lies at infinity.

    Raises:
        ValueError: epsilon outside (0, 1/2), or a share outside [0, 1].
    """
    if not 0 < epsilon < 0.5:
        raise ValueError(f"epsilon is {epsilon}; give a number between 0 and 0.5.")
    outside = (alpha < 0) | (alpha > 1)
    if bool(outside.any()):
        raise ValueError(f"A rater share is {float(alpha[outside][0])}; shares lie in [0, 1].")
    return alpha.double().clamp(epsilon, 1 - epsilon)


def idealized_ranking_accuracy(
    c: Shaped[Tensor, " n"], alpha: Shaped[Tensor, " n"], beta: float
) -> Float[Tensor, " n"]:
    """1 where perfect DPO or RLHF ranks the pair correctly (Corollary 3.3), per pair.

    The paper's product of probability ratios in logs: logit(alpha) > beta * c, strictly.

    Args:
        c: The reference's log-ratio, nats.
        alpha: Share of raters who prefer the chosen answer, in (0, 1); see `clip_rater_share`.
        beta: Inverse temperature, > 0.

    Raises:
        ValueError: beta is not positive and finite.
    """
    check_positive(beta, "beta")
    # Divided, not multiplied: beta * c would underflow for a tiny c.
    return indicator(torch.logit(alpha.double()) / beta > c.double(), c, alpha)


def idealized_ranking_accuracy_curve(
    c: Shaped[Tensor, " n"], alpha: Shaped[Tensor, " n"], betas: Shaped[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """Mean idealized accuracy at each beta; exact, in O((n + b) log n).

    A pair is correct at beta iff beta * c < logit(alpha): on one side of logit(alpha) / c, on
    which side the signs of c and logit(alpha) say. NaN for no pairs, or if one is missing.

    Raises:
        ValueError: a beta is not positive and finite.
    """
    for beta in betas.tolist():
        check_positive(beta, "beta")
    c, logit, betas = c.double(), torch.logit(alpha.double()), betas.double()
    if c.numel() == 0 or bool((c + logit).isnan().any()):
        return torch.full_like(betas, math.nan)
    always = ((c <= 0) & (logit > 0)) | ((c < 0) & (logit == 0))
    off = _switch_points(c, logit, (c > 0) & (logit > 0))
    on = _switch_points(c, logit, (c < 0) & (logit < 0))
    count = always.sum() + len(off) - torch.searchsorted(off, betas, right=True)
    return (count + torch.searchsorted(on, betas, right=False)).double() / c.numel()


def paper_code_idealized_ranking_accuracy(
    reference_chosen: Shaped[Tensor, " n"],
    reference_rejected: Shaped[Tensor, " n"],
    alpha: Shaped[Tensor, " n"],
    beta: float,
) -> Float[Tensor, " n"]:
    """The idealized accuracy as the paper's released code computes it, per pair.

    It multiplies the vote ratio by logp_w / logp_l, a ratio of two negative log-likelihoods, and
    not by exp(logp_w - logp_l) as Eq. 3 says, and counts a pair as correct above 1.05 (a dead
    band of 0.05 about a tie). The printed tables follow this; `idealized_ranking_accuracy`
    follows the equation.
    """
    check_positive(beta, "beta")
    log_votes = torch.logit(alpha.double()) / beta
    log_ratio = torch.log(-reference_chosen.double()) - torch.log(-reference_rejected.double())
    score = log_votes + log_ratio
    return indicator(score > math.log1p(0.05), score)


def alignment_gap(
    idealized: Shaped[Tensor, "*n"], achieved: Shaped[Tensor, "*n"]
) -> Float[Tensor, "*n"]:
    """Idealized ranking accuracy (median over beta) minus the achieved one."""
    return idealized.double() - achieved.double()


def flip_threshold(c: Shaped[Tensor, " n"], beta: float, gamma: float = 1.0) -> Float[Tensor, " n"]:
    """The loss at and below which a pair is ranked correctly: softplus(-beta * gamma * c).

    Theorem 4.1: ranked correctly iff the pair's loss is at most this, whatever the policy.
    """
    check_positive(beta, "beta")
    return softplus(-beta * (gamma * c.double()), threshold=50)


def flip_gradient_scale(c: Shaped[Tensor, " n"], beta: float) -> Float[Tensor, " n"]:
    """How strongly DPO still pushes a pair at the point of flipping: beta * sigmoid(-beta * c).

    It vanishes exponentially in beta * c, which is why DPO rarely flips a ranking.
    """
    check_positive(beta, "beta")
    return beta * torch.sigmoid(-beta * c.double())


def ipo_sufficient_loss(c: Shaped[Tensor, " n"], tau: float) -> Float[Tensor, " n"]:
    """The IPO loss at and below which a pair is surely ranked correctly (Proposition A.7).

    (1 / (2 tau) - c)^2 where the reference is wrong by at most 1 / (2 tau); sufficient, not
    necessary. Elsewhere -inf: there even a loss of zero ranks the pair wrongly.

    Args:
        c: The reference's log-ratio, nats.
        tau: IPO's regularisation, > 0.
    """
    check_positive(tau, "tau")
    room = 1 / (2 * tau) - c.double()
    return torch.where(room < 0, -math.inf, room**2)


def flip_difficulty(c: Shaped[Tensor, " n"], beta: float) -> Float[Tensor, " n"]:
    """How far the loss must fall from log 2, where policy = reference, before the pair flips.

    log 2 - softplus(-beta * c) where the reference is wrong, 0 elsewhere; at most log 2.
    """
    return (math.log(2) - flip_threshold(c, beta)).clamp(min=0)


def flip_beta(c: Shaped[Tensor, " n"], alpha: Shaped[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The beta above which a pair stops being idealized-correct: logit(alpha) / c.

    Infinite where no beta switches it off; 0 where it is correct at no beta.
    """
    c, logit = c.double(), torch.logit(alpha.double())
    at = torch.where(c == 0, torch.where(logit > 0, math.inf, 0.0), (logit / c).clamp(min=0))
    return torch.where(c < 0, math.inf, at).masked_fill((c + logit).isnan(), math.nan)


def idealized_log_ratio(
    c: Shaped[Tensor, " n"], alpha: Shaped[Tensor, " n"], beta: float
) -> Float[Tensor, " n"]:
    """The ideal policy's log-ratio of chosen to rejected, logit(alpha)/beta - c (Theorem 3.1)."""
    check_positive(beta, "beta")
    return torch.logit(alpha.double()) / beta - c.double()


def exact_match_ranking(
    logp: Shaped[Tensor, "n k"], target_rank: Shaped[Tensor, "n k"]
) -> Float[Tensor, " n"]:
    """1 where the model orders all k answers exactly as the target does (Definition A.8).

    Args:
        logp: Log-probabilities of each prompt's k answers.
        target_rank: Their wanted ranks, smaller is better; equal ranks leave the order open.
    """
    better = target_rank[:, :, None] < target_rank[:, None, :]
    agrees = logp[:, :, None] > logp[:, None, :]
    return indicator((agrees | ~better).all(dim=(1, 2)), logp.sum(dim=1))


def _ranked(difference: Tensor, tie_policy: TiePolicy, tolerance: float) -> Tensor:
    if tie_policy not in _TIE_VALUE:
        raise ValueError(f"tie_policy is {tie_policy!r}; choose one of {', '.join(_TIE_VALUE)}.")
    value = (difference > tolerance).double()
    value[difference.abs() <= tolerance] = _TIE_VALUE[tie_policy]
    return indicator(value, difference)


def _switch_points(c: Tensor, logit: Tensor, which: Tensor) -> Tensor:
    return (logit[which] / c[which]).sort().values

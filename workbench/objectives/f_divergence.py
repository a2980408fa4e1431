"""Other divergences than reverse KL to hold the policy: f-DPO (Wang et al., arXiv 2309.16240).

The implicit reward becomes beta f'(pi / pi_ref). Constants of f' cancel only in differences, so
the result serves objectives of the margin d or its normalised form (`Objective.f_divergences`).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from workbench.objectives.logps import PairLogps

Divergence = Literal["reverse_kl", "forward_kl", "js", "alpha"]
_EXPONENT_LIMIT = {torch.float16: 11.0, torch.float64: 700.0}


def with_divergence(
    logps: PairLogps, divergence: Divergence, coefficient: float = 0.5
) -> PairLogps:
    """The batch with f'(pi / pi_ref) in place of both log-ratios: a and r become the scores.

    Args:
        logps: With both references.
        divergence: Which f; `reverse_kl` changes nothing.
        coefficient: alpha of the alpha-divergence; 1 is reverse KL, 0 forward KL.

    Returns:
        A batch whose policy values are the scores and whose reference values are 0. Only d, a and
        r of it have a meaning: take likelihoods (`sft`) from the batch that came in.

    Raises:
        ValueError: the divergence is not known.
    """
    score = _score(divergence, coefficient)
    zero = torch.zeros_like(logps.policy_chosen)
    return replace(
        logps,
        policy_chosen=score(logps.chosen_log_ratio),
        policy_rejected=score(logps.rejected_log_ratio),
        reference_chosen=zero,
        reference_rejected=zero,
    )


def alpha_score(log_ratio: Float[Tensor, " n"], coefficient: float) -> Float[Tensor, " n"]:
    """(u^(alpha - 1) - 1) / (alpha - 1) of the ratio u = pi / pi_ref; log u at alpha = 1.

    The exponent (alpha - 1) log u is cut where e^x would overflow: at 700 in float64, 80 in
    float32 and bfloat16, 11 in float16. Beyond that there is no gradient.
    """
    power = coefficient - 1
    if power == 0:
        return log_ratio
    limit = _EXPONENT_LIMIT.get(log_ratio.dtype, 80.0)
    return torch.expm1((power * log_ratio).clamp(max=limit)) / power


def jensen_shannon_score(log_ratio: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """log(2 u / (1 + u)) = log 2 + log sigmoid(log u): bounded above by log 2."""
    return logsigmoid(log_ratio) - logsigmoid(torch.zeros_like(log_ratio))


def _score(divergence: Divergence, coefficient: float) -> Callable[[Tensor], Tensor]:
    scores: dict[str, Callable[[Tensor], Tensor]] = {
        "reverse_kl": lambda t: alpha_score(t, 1.0),
        "forward_kl": lambda t: alpha_score(t, 0.0),
        "js": jensen_shannon_score,
        "alpha": lambda t: alpha_score(t, coefficient),
    }
    if divergence not in scores:
        raise ValueError(f"The divergence is {divergence!r}; choose one of {', '.join(scores)}.")
    return scores[divergence]

"""Alignment via optimal transport (Melnyk et al., arXiv 2406.05882).

Stochastic dominance of one distribution over another, of which a batch is a sample: values are
sorted and compared quantile by quantile. A column of the result is a quantile, not a pair, and
one missing score makes the whole batch missing.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.metrics.checks import check_positive
from workbench.objectives.dpo import smoothed_sigmoid_loss
from workbench.objectives.logps import PairLogps


def aot_loss(
    logps: PairLogps, beta: float, label_smoothing: float = 0.0
) -> Float[Tensor, " quantiles"]:
    """The policy's log-ratios m should dominate the reference's, -c: the paired form."""
    check_positive(beta, "beta")
    gap = _quantile_gap(logps.policy_log_ratio, -logps.reference_log_ratio)
    return smoothed_sigmoid_loss(beta * gap, label_smoothing)


def aot_unpaired_loss(
    logps: PairLogps, beta: float, label_smoothing: float = 0.0
) -> Float[Tensor, " quantiles"]:
    """The chosen answers' log-ratios a should dominate the rejected ones' r."""
    check_positive(beta, "beta")
    gap = _quantile_gap(logps.chosen_log_ratio, logps.rejected_log_ratio)
    return smoothed_sigmoid_loss(beta * gap, label_smoothing)


def _quantile_gap(upper: Tensor, lower: Tensor) -> Tensor:
    gap = upper.sort().values - lower.sort().values
    return gap.masked_fill(gap.isnan().any(), torch.nan)

"""Self-play preference optimisation (Wu et al., arXiv 2405.00675, Eq. 4.7), hard labels."""

from jaxtyping import Float
from torch import Tensor

from workbench.metrics.checks import check_positive
from workbench.objectives.logps import PairLogps


def sppo_hard_loss(logps: PairLogps, beta: float) -> Float[Tensor, " pairs"]:
    """(a - 1 / (2 beta))^2 + (r + 1 / (2 beta))^2, per pair: the win rates are 1 and 0."""
    check_positive(beta, "beta")
    target = 1 / (2 * beta)
    return (logps.chosen_log_ratio - target) ** 2 + (logps.rejected_log_ratio + target) ** 2

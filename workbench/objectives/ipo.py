"""Identity preference optimisation (Azar et al., arXiv 2310.12036, Eq. 17); beta is its tau."""

from jaxtyping import Float
from torch import Tensor

from workbench.metrics.checks import check_positive
from workbench.objectives.logps import PairLogps


def ipo_loss(logps: PairLogps, beta: float) -> Float[Tensor, " pairs"]:
    """(d - 1 / (2 beta))^2 with summed log-probabilities: the paper's own form."""
    check_positive(beta, "beta")
    return (logps.margin - 1 / (2 * beta)) ** 2


def length_normalised_ipo_loss(logps: PairLogps, beta: float) -> Float[Tensor, " pairs"]:
    """(a / n_w - r / n_l - 1 / (2 beta))^2: what TRL computes under the name `ipo`."""
    check_positive(beta, "beta")
    return (logps.margin_per_token - 1 / (2 * beta)) ** 2

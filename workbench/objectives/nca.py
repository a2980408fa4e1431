"""Noise contrastive alignment (Chen et al., arXiv 2402.05369) on pairs."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from workbench.metrics.checks import check_positive
from workbench.objectives.logps import PairLogps


def nca_loss(logps: PairLogps, beta: float) -> Float[Tensor, " pairs"]:
    """-log sigmoid(beta a) - log sigmoid(-beta a) / 2 - log sigmoid(-beta r) / 2, per pair.

    It holds the chosen answer's own likelihood up, where DPO sees only the difference.
    """
    check_positive(beta, "beta")
    chosen, rejected = beta * logps.chosen_log_ratio, beta * logps.rejected_log_ratio
    return -logsigmoid(chosen) - (logsigmoid(-chosen) + logsigmoid(-rejected)) / 2

"""The hinge of SLiC-HF (Zhao et al., arXiv 2305.10425) on DPO's margin, after RSO."""

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.metrics.checks import check_positive
from workbench.objectives.logps import PairLogps


def hinge_loss(logps: PairLogps, beta: float) -> Float[Tensor, " pairs"]:
    """max(0, 1 - beta d), per pair; Liu et al. (arXiv 2309.06657) put the reference into SLiC.

    Zero, and without gradient, as soon as beta d reaches 1.
    """
    check_positive(beta, "beta")
    return torch.relu(1 - beta * logps.margin)

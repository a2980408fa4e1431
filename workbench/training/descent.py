"""One step down a gradient, and the guard before it; shared by every trainer."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.errors import TrainingError


def descend(
    loss: float,
    gradients: Sequence[Tensor],
    weights: Sequence[torch.nn.Parameter],
    optimiser: torch.optim.Optimizer,
    max_norm: float,
    step: int,
) -> float:
    """Move weights by one step of the optimiser; returns the gradient's length before its cut.

    Args:
        loss: Whose gradient it is; checked and named in the message only.
        gradients: One a weight, in the same order.
        weights: What the optimiser moves.
        optimiser: With its learning rate set.
        max_norm: A longer gradient is cut to this Euclidean length; infinity cuts none.
        step: Number of the step, for the message.

    Raises:
        TrainingError: the loss or the gradient is not finite; nothing was changed.
    """
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient.contiguous()  # one that was expanded cannot be cut in place
    norm = float(torch.nn.utils.clip_grad_norm_(weights, max_norm))
    finite = math.isfinite(norm) and math.isfinite(loss)
    if finite:
        optimiser.step()
    optimiser.zero_grad()
    if not finite:
        raise TrainingError(
            f"Training diverged at step {step}: the loss is {loss}, its gradient {norm} long. "
            "Take a lower learning rate or a smaller beta."
        )
    return norm

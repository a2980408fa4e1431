"""DPO with projected gradient: our reading of DPO-PG in Won et al. (arXiv 2505.23761).

The paper's text could not be read; this is a reconstruction from what is said of it: the update
keeps the likelihood of the chosen answers from falling, to first order.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Shaped
from torch import Tensor


def projected_gradient(
    loss_gradient: Sequence[Shaped[Tensor, "..."]],
    chosen_gradient: Sequence[Shaped[Tensor, "..."]],
) -> list[Tensor]:
    """The loss's gradient without the part whose descent lowers log pi(y_w|x).

    With g the loss's gradient and h that of log pi(y_w|x): g if <g, h> <= 0, for then descent
    along -g raises the chosen answer; else g - <g, h> / |h|^2 h, which leaves it as it is.

    Args:
        loss_gradient: g, one tensor a weight.
        chosen_gradient: h, of the same shapes in the same order.

    Returns:
        What the optimiser descends along, of the shapes of g.

    Raises:
        ValueError: the two differ in their number of tensors.
    """
    if len(loss_gradient) != len(chosen_gradient):
        raise ValueError(
            f"There are {len(loss_gradient)} gradients of the loss and {len(chosen_gradient)} of "
            "the chosen likelihood; give both over the same weights."
        )
    overlap = _inner(loss_gradient, chosen_gradient).clamp(min=0)
    norm = _inner(chosen_gradient, chosen_gradient)
    share = torch.where(norm > 0, overlap / norm, 0.0)
    return [g - share.to(g.dtype) * h for g, h in zip(loss_gradient, chosen_gradient, strict=True)]


def _inner(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """<left, right> over all the tensors, in float64."""
    products = [(a.double() * b.double()).sum() for a, b in zip(left, right, strict=True)]
    return torch.stack(products).sum()

"""Length-desensitised DPO (Liu et al., arXiv 2409.06411)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.objectives.checks import check_within


def length_desensitised_logps(
    chosen: Float[Tensor, "pairs tokens"],
    rejected: Float[Tensor, "pairs tokens"],
    chosen_mask: Bool[Tensor, "pairs tokens"],
    rejected_mask: Bool[Tensor, "pairs tokens"],
    ld_alpha: float,
) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
    """Summed log-probabilities that count tokens beyond the shorter answer's length by `ld_alpha`.

    Apply it to the policy's and the reference's token log-probabilities alike.

    Args:
        chosen: Token log-probabilities of the chosen answers, nats; padding anywhere.
        rejected: The same of the rejected ones.
        chosen_mask: True at tokens of the answer.
        rejected_mask: The same of the rejected ones.
        ld_alpha: Weight of the excess tokens: 1 is DPO, 0 cuts both to the same length.

    Returns:
        The sums of chosen and rejected, shape (pairs,) each.

    Raises:
        ValueError: ld_alpha is outside [0, 1].
    """
    check_within(ld_alpha, "ld_alpha", 0.0, 1.0)
    shared = torch.minimum(chosen_mask.sum(dim=1), rejected_mask.sum(dim=1))[:, None]
    return (
        _discounted(chosen, chosen_mask, shared, ld_alpha),
        _discounted(rejected, rejected_mask, shared, ld_alpha),
    )


def _discounted(logps: Tensor, mask: Tensor, shared: Tensor, ld_alpha: float) -> Tensor:
    weight = torch.where(mask.cumsum(dim=1) <= shared, 1.0, ld_alpha).to(logps.dtype)
    return (logps * weight).masked_fill(~mask, 0.0).sum(dim=1)

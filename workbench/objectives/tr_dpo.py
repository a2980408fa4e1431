"""Trust-region DPO (Gorbatovski et al., arXiv 2404.09656): the reference follows the policy."""

from collections.abc import Mapping

from torch import Tensor

from workbench.objectives.checks import check_within


def sync_is_due(step: int, every: int) -> bool:
    """Whether the reference moves after `step` optimiser steps (counted from 1).

    Raises:
        ValueError: every is less than 1.
    """
    if every < 1:
        raise ValueError(f"The reference is to move every {every} steps; give 1 or more.")
    return step > 0 and step % every == 0


def synchronised_reference(
    reference: Mapping[str, Tensor], policy: Mapping[str, Tensor], mixup: float
) -> dict[str, Tensor]:
    """mixup * policy + (1 - mixup) * reference of every weight, as new tensors without gradient.

    Args:
        reference: The reference's weights by name.
        policy: The policy's weights; those that the reference lacks are ignored.
        mixup: Share of the policy in [0, 1]; 1 is the paper's hard update, less a soft one.

    Raises:
        ValueError: mixup is outside [0, 1], or the policy lacks a weight of the reference.
    """
    check_within(mixup, "mixup", 0.0, 1.0)
    missing = sorted(reference.keys() - policy.keys())
    if missing:
        raise ValueError(
            f"The policy lacks {len(missing)} weights of the reference, first {missing[0]!r}; "
            "both must be the same model."
        )
    return {
        name: mixup * policy[name].detach() + (1 - mixup) * weight.detach()
        for name, weight in reference.items()
    }

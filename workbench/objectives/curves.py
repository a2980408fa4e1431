"""The curve of an objective over the margin, for a picker's plot."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.objectives.bco import RewardShift
from workbench.objectives.logps import PairLogps
from workbench.objectives.objective import Objective


def _one(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


TYPICAL_PAIR = PairLogps(
    policy_chosen=_one(-40.0),
    policy_rejected=_one(-40.0),
    reference_chosen=_one(-40.0),
    reference_rejected=_one(-40.0),
    n_chosen=_one(20.0),
    n_rejected=_one(20.0),
    policy_gold=_one(-40.0),
    n_gold=_one(20.0),
    mismatched=_one(0.0),
)
"""A pair of 20 tokens each on which the policy and the reference are undecided."""


@dataclass(frozen=True, eq=False)
class MarginCurve:
    """Loss and gradient over the margin, all of shape (points,).

    Attributes:
        margin: d = a - r with a reference, m = log pi(y_w|x) - log pi(y_l|x) without; nats.
        loss: Loss of the pair alone.
        gradient: Its derivative by the margin.
    """

    margin: Tensor
    loss: Tensor
    gradient: Tensor


def margin_curve(
    objective: Objective,
    margins: Float[Tensor, " points"],
    around: PairLogps = TYPICAL_PAIR,
    shift: RewardShift | None = None,
    **given: float,
) -> MarginCurve:
    """Loss and gradient of one pair as its margin moves and all else stays.

    The margin is moved evenly: the chosen answer's log-probability rises by as much as the
    rejected one's falls.

    Args:
        objective: From the catalogue.
        margins: Where to evaluate, nats.
        around: One pair, the rest of what the objective reads.
        shift: State of a stateful objective.
        given: Hyperparameters; defaults for the others.

    Raises:
        ValueError: `around` is not one pair, or what the objective itself refuses.
    """
    if len(around) != 1:
        raise ValueError(f"The curve is that of one pair and {len(around)} were given; choose one.")
    points = margins.detach().double().requires_grad_()
    # Copies of one pair leave a batch's means alone, but not its quantiles.
    batches = torch.split(points, 1) if objective.by_quantile else (points,)
    moved = [_moved(around, batch, objective.needs_reference) for batch in batches]
    loss = torch.cat([objective.losses(batch, shift, **given) for batch in moved])
    (gradient,) = torch.autograd.grad(loss.sum(), points)
    return MarginCurve(points.detach(), loss.detach(), gradient)


def _moved(around: PairLogps, margins: Tensor, with_reference: bool) -> PairLogps:
    """Copies of one pair at the given margins."""
    fields = {name: value.double().expand(len(margins)) for name, value in around.given().items()}
    pair = PairLogps(**fields)
    half = (margins - (pair.margin if with_reference else pair.policy_log_ratio)) / 2
    return replace(
        pair,
        policy_chosen=pair.policy_chosen + half,
        policy_rejected=pair.policy_rejected - half,
    )

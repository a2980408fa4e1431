"""Binary classifier optimisation (Jung et al., arXiv 2404.04656).

A classifier of good and bad answers whose logit is the implicit reward, less a running shift.
The shift is a value that the caller keeps: `RewardShift.after` gives the next one.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from workbench.metrics.checks import check_positive
from workbench.objectives.logps import PairLogps


@dataclass(frozen=True)
class RewardShift:
    """Mean implicit reward so far, delta: the average of the batches' means.

    Attributes:
        mean: delta, in nats times beta.
        batches: How many batches it averages.
    """

    mean: float = 0.0
    batches: int = 0

    def after(self, logps: PairLogps, beta: float) -> "RewardShift":
        """The shift with one more batch counted; missing rewards do not count."""
        check_positive(beta, "beta")
        ratios = torch.cat([logps.chosen_log_ratio, logps.rejected_log_ratio]).detach()
        ratios = ratios[ratios.isfinite()].double()
        if len(ratios) == 0:
            return self
        batches = self.batches + 1
        mean = self.mean + (beta * float(ratios.mean()) - self.mean) / batches
        return RewardShift(mean, batches)


def bco_pair_loss(logps: PairLogps, beta: float) -> Float[Tensor, " pairs"]:
    """-log sigmoid(beta a) - log sigmoid(-beta r), per pair: BCO without shift and weights.

    An upper bound of DPO's loss, as sigmoid(s) sigmoid(t) < sigmoid(s + t).
    """
    check_positive(beta, "beta")
    return -logsigmoid(beta * logps.chosen_log_ratio) - logsigmoid(-beta * logps.rejected_log_ratio)


def bco_loss(
    logps: PairLogps, beta: float, shift: RewardShift | None = None
) -> Float[Tensor, " pairs"]:
    """-log sigmoid(beta a - delta) - w log sigmoid(-(beta r - delta)), per pair.

    Args:
        logps: With `rejected_weight` w where prompts of good and bad answers differ, else w = 1.
        beta: Inverse temperature, > 0.
        shift: The running mean reward delta, after this batch in training; none is delta = 0.

    TRL's trainer averages the two terms where the paper adds them: its loss is half of this.
    """
    check_positive(beta, "beta")
    delta = 0.0 if shift is None else shift.mean
    chosen = -logsigmoid(beta * logps.chosen_log_ratio - delta)
    rejected = -logsigmoid(delta - beta * logps.rejected_log_ratio)
    weight = logps.rejected_weight
    return chosen + (rejected if weight is None else weight * rejected)


def density_ratio_weight(
    chosen_probability: Float[Tensor, " n"], low: float = 0.5, high: float = 10.0
) -> Float[Tensor, " n"]:
    """p(chosen|x) / p(rejected|x) of a prompt, cut to [low, high], without gradient.

    Args:
        chosen_probability: A prompt classifier's probability that x has a good answer, [0, 1].
        low: Least weight, > 0.
        high: Greatest weight.

    Raises:
        ValueError: a probability outside [0, 1], or low and high not in order.
    """
    if not 0 < low <= high:
        raise ValueError(f"The weights are cut to {low} and {high}; give 0 < low <= high.")
    p = chosen_probability.detach()
    if ((p < 0) | (p > 1)).any():
        raise ValueError(
            f"chosen_probability runs from {p.min():g} to {p.max():g}; give values in [0, 1]."
        )
    return (p / (1 - p)).clamp(low, high)

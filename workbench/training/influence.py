"""Which pairs moved a pair's margin: inner products of gradients on the trained weights.

A step of gradient descent on pair i at learning rate eta changes the margin m of another pair by
-eta <grad loss_i, grad m>, to first order. Summed over weights that training went through, each
with its learning rate, this is TracIn (Pruthi et al. 2020, arXiv 2002.08484, section 3) with the
selected margin in place of a test loss. The gradients are exact and over the trained weights alone:
for a language model those of the adapter. Of AdamW and RMSProp, which rescale every weight's step,
and of the fairness penalty, which is a batch's, nothing is in here.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.data.pairs import PreferencePair
from workbench.errors import TrainingError, stop_if
from workbench.objectives.bco import RewardShift
from workbench.training.capabilities import unusable
from workbench.training.plan import TrainingPlan
from workbench.training.policy import TrainablePolicy
from workbench.training.reading import Reader, weights_of

PairLoss = Callable[[PreferencePair], Tensor]
"""The loss of one prepared pair by itself, shape (1,), differentiable."""


@dataclass(frozen=True)
class Moment:
    """Weights that training went through.

    Attributes:
        weights: What the policy's `state` gave.
        learning_rate: By which its influence counts, usually that of its step.
    """

    weights: Mapping[str, Tensor]
    learning_rate: float = 1.0


@dataclass(frozen=True, eq=False)
class Influences:
    """How a descent step on each pair moves the selected pair's margin.

    Attributes:
        target: Id of the selected pair.
        pair_ids: The pairs asked about that can be trained on, in their order.
        scores: Change of the margin log(pi / pi_ref) of chosen minus rejected, nats, to first
            order; per unit of learning rate at the present weights, or summed over the moments
            times their learning rates. Float64, shape (pairs,).
        moments: How many weights were looked at.
        left_out: Why a pair has no score, by its id.
    """

    target: str
    pair_ids: tuple[str, ...]
    scores: Tensor
    moments: int
    left_out: Mapping[str, str]

    def helpful(self, k: int = 20) -> list[tuple[str, float]]:
        """The k pairs that raise the margin most, the strongest first."""
        return self._ranked(k, self.scores)

    def harmful(self, k: int = 20) -> list[tuple[str, float]]:
        """The k pairs that lower the margin most, the strongest first."""
        return self._ranked(k, -self.scores)

    def _ranked(self, k: int, strength: Tensor) -> list[tuple[str, float]]:
        order = strength.argsort(descending=True, stable=True)[:k].tolist()
        return [(self.pair_ids[i], float(self.scores[i])) for i in order if strength[i] > 0]


def plan_loss(
    policy: TrainablePolicy,
    plan: TrainingPlan,
    pairs: Sequence[PreferencePair],
    reference: Mapping[str, Tensor] | None = None,
    shift: RewardShift | None = None,
) -> PairLoss:
    """A plan's loss of one pair, with its modifiers; what needs a batch sees a batch of one.

    Args:
        policy: Whose weights are in place.
        plan: Objective and modifiers.
        pairs: All that are trained on, whose answers KTO puts under other prompts.
        reference: Weights of a reference that has moved; none where it has not.
        shift: State of an objective that has one.

    Raises:
        TrainingError: the objective needs what the pairs or the policy do not have.
    """
    reader = Reader(policy, plan, reference or {})
    reader.follow(pairs)

    def loss(pair: PreferencePair) -> Tensor:
        reading = reader.read([pair])
        losses = plan.entry.losses(reading.seen, shift, **plan.hyperparameters)
        return losses if reading.weight is None else losses * reading.weight

    return loss


def margin_influences(
    policy: TrainablePolicy,
    pairs: Sequence[PreferencePair],
    target: PreferencePair,
    loss: PairLoss,
    moments: Sequence[Moment] = (),
    *,
    holding: Callable[[], AbstractContextManager[object]] = nullcontext,
    on_pair: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Influences:
    """How a descent step on each pair moves the margin of `target`.

    One forward and one backward pass for each pair and moment; of the gradients only the target's
    is kept while the others come and go. Between two of them the policy has its own weights.

    Args:
        policy: Its weights are in place again at the end.
        pairs: Whose influence is asked for; `target` may be one of them.
        target: The pair whose margin is explained.
        loss: Of one pair, for example from `plan_loss`.
        moments: Weights that training went through; none means the present ones, once.
        holding: Entered around each gradient; outside of it others may use the policy.
        on_pair: Called with (done, total) gradients.
        cancelled: Asked before each of them.

    Raises:
        TrainingError: the target cannot be read by the policy.
        Cancelled: asked to stop.
    """
    left_out = unusable(policy, [target, *pairs])
    if target.pair_id in left_out:
        raise TrainingError(
            f"Pair {target.pair_id!r} cannot be trained on ({left_out[target.pair_id]}); select "
            "another one."
        )
    usable = [pair for pair in pairs if pair.pair_id not in left_out]
    looked = moments or (Moment(policy.state()),)
    done, scores = 0, torch.zeros(len(usable), dtype=torch.float64)

    def gradient(moment: Moment, pair: PreferencePair, of: PairLoss) -> list[Tensor | None]:
        stop_if(cancelled, "the attribution of learning")
        with holding(), weights_of(policy, moment.weights):
            policy.prepare([pair], cancelled=cancelled)
            return _gradient(of(pair), policy.parameters())

    for moment in looked:
        towards = gradient(moment, target, lambda pair: policy.pair_logps([pair]).margin)
        for place, pair in enumerate(usable):
            own = gradient(moment, pair, loss)
            scores[place] -= moment.learning_rate * _inner(own, towards)
            done += 1
            if on_pair is not None:
                on_pair(done, len(usable) * len(looked))
    ids = tuple(pair.pair_id for pair in usable)
    return Influences(target.pair_id, ids, scores, len(looked), left_out)


def _gradient(value: Tensor, weights: Sequence[torch.nn.Parameter]) -> list[Tensor | None]:
    """Of a value of one element, by weight; None where it does not depend on one."""
    if not value.requires_grad:
        return [None for _ in weights]
    return list(torch.autograd.grad(value.sum(), weights, allow_unused=True))


def _inner(left: Sequence[Tensor | None], right: Sequence[Tensor | None]) -> float:
    """Sum of the products of two gradients, in float64."""
    products = (
        float((a.double() * b.double()).sum())
        for a, b in zip(left, right, strict=True)
        if a is not None and b is not None
    )
    return sum(products)

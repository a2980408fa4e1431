"""How a policy is to be trained: objective, modifiers, optimiser, penalty, and when to stop."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import TrainingError
from workbench.objectives.bco import RewardShift
from workbench.objectives.catalogue import OBJECTIVES
from workbench.objectives.f_divergence import Divergence
from workbench.objectives.logps import PairLogps
from workbench.objectives.objective import Objective

Optimiser = Literal["adamw", "rmsprop", "sgd"]
Penalty = Literal["none", "dcov", "ccdcov", "jdcov"]
PenaltyOn = Literal["margin", "reward"]


@dataclass(frozen=True)
class TrainingPlan:
    """All that decides a step besides the weights and the pairs; immutable, checked when made.

    Attributes:
        objective: Name in `workbench.objectives.catalogue.OBJECTIVES`.
        hyperparameters: The objective's own, for example beta; its defaults where left out.
        learning_rate: Of every step after the warm-up, > 0.
        warm_up: Steps in which the learning rate rises linearly; 0 for none.
        optimiser: adamw (betas .9 and .999), rmsprop (smoothing .99) or sgd (no momentum).
        weight_decay: Of adamw, decoupled; of the other two as part of the gradient.
        batch_size: Pairs a step; all pairs where there are fewer.
        max_grad_norm: Longer gradients are cut to this Euclidean length; infinity cuts none.
        seed: Of the order of the pairs, of new weights, and of which prompts are held out.
        divergence: What holds the policy to the reference; objectives of the margin only.
        divergence_alpha: Of the alpha-divergence; 1 is reverse KL.
        ld_alpha: LD-DPO's weight of the tokens beyond the shorter answer's length; 1 is off.
        wpo: Whether a pair's loss counts by how likely the policy is to write its answers.
        sync_every: TR-DPO: steps after which the reference moves to the policy; 0 for never.
        sync_mixup: Share of the policy in the reference that moved; 1 is the hard update.
        projected_gradient: Whether the part of the gradient is dropped whose descent lowers the
            chosen answers' likelihood.
        penalty: Which dependence on the attributes is added to the loss.
        penalty_on: Of the reward margin, or of the chosen answer's implicit reward.
        penalty_weight: lambda, >= 0.
        attributes: Protected attributes, whose dependence is also measured without a penalty.
        evaluate_every: Steps between two looks at the held-out pairs; 0 for never.
        patience: Looks without a lower held-out loss after which training ends; 0 for never.
        loss_limit: A loss this many times the first one (at least 1) counts as divergence.
    """

    objective: str = "dpo"
    hyperparameters: Mapping[str, float] = field(default_factory=dict)
    learning_rate: float = 5e-4
    warm_up: int = 0
    optimiser: Optimiser = "adamw"
    weight_decay: float = 0.0
    batch_size: int = 8
    max_grad_norm: float = 1.0
    seed: int = 0
    divergence: Divergence = "reverse_kl"
    divergence_alpha: float = 0.5
    ld_alpha: float = 1.0
    wpo: bool = False
    sync_every: int = 0
    sync_mixup: float = 0.6
    projected_gradient: bool = False
    penalty: Penalty = "none"
    penalty_on: PenaltyOn = "margin"
    penalty_weight: float = 1.0
    attributes: tuple[str, ...] = ()
    evaluate_every: int = 10
    patience: int = 0
    loss_limit: float = 50.0

    def __post_init__(self) -> None:
        _check_names(self)
        _check_numbers(self)
        _check_together(self)

    @property
    def entry(self) -> Objective:
        """The objective's description and call."""
        return OBJECTIVES[self.objective]

    @property
    def settings(self) -> dict[str, float]:
        """Every hyperparameter of the objective."""
        return self.entry.settings(self.hyperparameters)

    @property
    def beta(self) -> float:
        """What log-ratios are multiplied by to be implicit rewards; 1 without a beta."""
        return self.settings.get("beta", 1.0)

    def losses(self, logps: PairLogps, shift: RewardShift | None = None) -> Float[Tensor, " pairs"]:
        """The objective of each pair; see `Objective.losses`."""
        given: dict[str, Any] = dict(self.hyperparameters)
        return self.entry.losses(logps, shift, **given)

    @property
    def reads_tokens(self) -> bool:
        """Whether sums over an answer's tokens are not enough."""
        return self.ld_alpha < 1 or self.wpo

    def replaced(self, **changes: Any) -> "TrainingPlan":  # noqa: ANN401 - the fields' own types
        """A copy with fields or hyperparameters changed, checked like a new one.

        Another objective begins with its own defaults, plus what is given here.

        Raises:
            TrainingError: a name or value that does not fit.
        """
        own = {f.name for f in fields(self)}
        new = {name: value for name, value in changes.items() if name in own}
        fresh = new.get("objective", self.objective) != self.objective
        before = {} if fresh or "hyperparameters" in new else self.hyperparameters
        given = {name: value for name, value in changes.items() if name not in own}
        hyper = {**before, **new.pop("hyperparameters", {}), **given}
        return dataclasses.replace(self, **new, hyperparameters=hyper)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values; an infinite limit is null."""
        found = dataclasses.asdict(self)
        found["hyperparameters"] = dict(self.hyperparameters)
        found["attributes"] = list(self.attributes)
        if self.max_grad_norm == math.inf:
            found["max_grad_norm"] = None
        return found

    @classmethod
    def from_json(cls, record: object) -> "TrainingPlan":
        """Read back `to_json`.

        Raises:
            TrainingError: not such a record, or a field that is unknown or does not fit.
        """
        if not isinstance(record, dict):
            raise TrainingError(f"The plan is {str(record)[:60]!r}, not an object with fields.")
        unknown = sorted(record.keys() - {f.name for f in fields(cls)})
        if unknown:
            raise TrainingError(f"A plan has no field {str(unknown[0])[:60]!r}.")
        found: dict[str, Any] = dict(record)
        if found.get("max_grad_norm", 0) is None:
            found["max_grad_norm"] = math.inf
        try:
            found["attributes"] = tuple(found.get("attributes", ()))
            return cls(**found)
        except (TypeError, AttributeError) as error:
            raise TrainingError(f"The plan cannot be read ({error}).") from error


def changes_in_words(before: TrainingPlan, after: TrainingPlan) -> str:
    """What differs between two plans, for the time axis: "beta 0.1 -> 0.5"; empty for nothing."""
    old, new = _spread(before), _spread(after)
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if before.objective != after.objective:
        names = [name for name in names if name in {f.name for f in fields(after)}]
    return ", ".join(f"{name} {_word(old.get(name))} -> {_word(new.get(name))}" for name in names)


def _spread(plan: TrainingPlan) -> dict[str, Any]:
    record = {f.name: getattr(plan, f.name) for f in fields(plan) if f.name != "hyperparameters"}
    return {**record, **plan.settings}


def _word(value: object) -> str:
    if isinstance(value, tuple):
        return "+".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


_CHOICES = {
    "optimiser": get_args(Optimiser),
    "divergence": get_args(Divergence),
    "penalty": get_args(Penalty),
    "penalty_on": get_args(PenaltyOn),
}
_PROBE = PairLogps(**{f.name: -torch.ones(2) for f in fields(PairLogps)})
"""A batch on which an objective says whether its hyperparameters are in range."""
_POSITIVE = ("learning_rate", "batch_size", "loss_limit")
_NOT_NEGATIVE = ("warm_up", "weight_decay", "sync_every", "penalty_weight", "evaluate_every")


def _check_names(plan: TrainingPlan) -> None:
    if plan.objective not in OBJECTIVES:
        raise TrainingError(
            f"There is no objective {str(plan.objective)[:60]!r}; choose one of "
            f"{', '.join(OBJECTIVES)}."
        )
    for name, value in plan.hyperparameters.items():
        if not _is_number(value):
            raise TrainingError(f"{name} is {value!r}; give a finite number.")
    try:
        plan.losses(_PROBE)
    except ValueError as error:
        raise TrainingError(str(error)) from error
    for name, allowed in _CHOICES.items():
        if getattr(plan, name) not in allowed:
            found = getattr(plan, name)
            raise TrainingError(f"{name} is {found!r}; choose one of {', '.join(allowed)}.")


def _check_numbers(plan: TrainingPlan) -> None:
    for name in (f.name for f in fields(plan) if f.type in (int, float)):
        value = getattr(plan, name)
        whole = name in _WHOLE
        unlimited = name == "max_grad_norm" and value == math.inf
        if not (unlimited or _is_number(value)) or (whole and value != int(value)):
            kind = "whole" if whole else "finite"
            raise TrainingError(f"{name} is {value!r}; give a {kind} number.")
    for name in (*_POSITIVE, "max_grad_norm"):
        if not getattr(plan, name) > 0:
            raise TrainingError(f"{name} is {getattr(plan, name)}; give a number above 0.")
    for name in (*_NOT_NEGATIVE, "patience"):
        if getattr(plan, name) < 0:
            raise TrainingError(f"{name} is {getattr(plan, name)}; give 0 or more.")
    for name in ("ld_alpha", "sync_mixup"):
        if not 0 <= getattr(plan, name) <= 1:
            raise TrainingError(f"{name} is {getattr(plan, name)}; give a share from 0 to 1.")


_WHOLE = {f.name for f in fields(TrainingPlan) if f.type is int}


def _check_together(plan: TrainingPlan) -> None:
    """Modifiers that the objective has nothing for are refused rather than passed over."""
    entry = plan.entry
    if plan.divergence != "reverse_kl" and not entry.f_divergences:
        raise TrainingError(
            f"{entry.title} is no function of the margin, which another divergence than "
            "reverse_kl would change; choose an objective such as dpo, or reverse_kl."
        )
    if plan.sync_every and not entry.needs_reference:
        raise TrainingError(
            f"{entry.title} reads no reference, so there is none to move; set sync_every to 0."
        )
    if plan.wpo and entry.by_quantile:
        raise TrainingError(
            f"{entry.title} has a loss for each quantile of the batch and none for a pair, which "
            "WPO could weigh; switch WPO off."
        )
    if plan.penalty != "none" and not plan.attributes:
        raise TrainingError("The penalty needs attributes; name at least one.")
    if plan.penalty != "none" and plan.batch_size < 4:
        raise TrainingError(
            f"batch_size is {plan.batch_size}; the penalty is a U-statistic, which needs at "
            "least 4 pairs."
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

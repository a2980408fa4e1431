"""What training did at each step, and what a policy makes of each pair."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from workbench.data.pairs import PreferencePair
from workbench.errors import TrainingError, stop_if
from workbench.metrics.information import did_entropy_by_group
from workbench.metrics.intervals import standard_error
from workbench.metrics.ranking import ranking_accuracy
from workbench.metrics.rewards import reward_accuracy
from workbench.objectives.logps import PairLogps
from workbench.training.policy import TrainablePolicy

NAN = math.nan
CHUNK = 8


class Transitions(NamedTuple):
    """Shares of pairs by how reference and policy rank them; they add up to 1."""

    kept_correct: float = NAN
    gained: float = NAN
    lost: float = NAN
    kept_wrong: float = NAN


UNKNOWN = Transitions()


@dataclass(frozen=True)
class StepRecord:
    """One step: measures of its batch *before* its update; NaN where not measured.

    Attributes:
        step: From 1.
        loss: Mean objective of the batch, with the modifiers, without the penalty.
        penalty: lambda times the dependence, as added to the loss; 0 without a penalty.
        grad_norm: Euclidean, before it was cut.
        learning_rate: Of this step.
        seconds: Wall time of this step.
        chosen_reward: Mean beta (log pi - log pi_ref) of the chosen answers, nats times beta.
        rejected_reward: The same of the rejected answers.
        reward_margin: Chosen minus rejected reward.
        reward_accuracy: Share of pairs with chosen above rejected reward, TRL's
            `rewards/accuracies`; compares with the reference.
        ranking_accuracy: Share of pairs whose chosen answer the policy itself finds at least as
            likely; does not look at the reference.
        chosen_shift: Mean log pi - log pi_0 of the chosen answers, nats, against the weights that
            training began with: below 0 is log-likelihood displacement.
        rejected_shift: The same of the rejected answers.
        did_entropy: Mean entropy of the DID q ~ pi / pi_0 over each pair's two answers, nats, at
            most log 2.
        kl: KL(pi || pi_0): exact where the policy knows it, else NaN.
        dependence: The plan's dependence (dCov^2 without a penalty) of margin or reward on the
            attributes, U-statistic of the batch.
        transitions: Against the ranking by the weights that training began with.
        held_out_loss: Mean objective over the held-out pairs; the next three likewise.
        held_out_margin: Reward margin.
        held_out_accuracy: Reward accuracy.
        held_out_ranking: Ranking accuracy.
        event: What changed just before this step, for example "edited 3 pairs" or
            "beta 0.1 -> 0.5"; empty for nothing.
    """

    step: int
    loss: float
    penalty: float = 0.0
    grad_norm: float = NAN
    learning_rate: float = NAN
    seconds: float = NAN
    chosen_reward: float = NAN
    rejected_reward: float = NAN
    reward_margin: float = NAN
    reward_accuracy: float = NAN
    ranking_accuracy: float = NAN
    chosen_shift: float = NAN
    rejected_shift: float = NAN
    did_entropy: float = NAN
    kl: float = NAN
    dependence: float = NAN
    transitions: Transitions = UNKNOWN
    held_out_loss: float = NAN
    held_out_margin: float = NAN
    held_out_accuracy: float = NAN
    held_out_ranking: float = NAN
    event: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values, without those that are not finite."""
        record = {**asdict(self), "transitions": list(self.transitions)}
        if any(map(math.isnan, self.transitions)):
            record.pop("transitions")
        return {k: v for k, v in record.items() if not isinstance(v, float) or math.isfinite(v)}

    @classmethod
    def from_json(cls, record: object) -> "StepRecord":
        """Read back `to_json`.

        Raises:
            TrainingError: not such a record.
        """
        try:
            found = dict(record)  # type: ignore[call-overload]
            if "transitions" in found:
                found["transitions"] = Transitions(*map(float, found["transitions"]))
            return cls(**found)
        except (TypeError, ValueError) as error:
            raise TrainingError(f"A step's record cannot be read ({error}).") from error


@dataclass(frozen=True, eq=False)
class PairEvaluation:
    """What a policy makes of each pair; every tensor of shape (pairs,), float64.

    Attributes:
        pair_ids: Of the pairs that could be read, in the order of the tensors.
        beta: Of the implicit rewards.
        policy_chosen: log pi(y_w|x), summed, nats; the next three alike.
        n_chosen: Tokens of the chosen answer.
        left_out: Why a pair could not be read, by its id.
    """

    pair_ids: tuple[str, ...]
    beta: float
    policy_chosen: Tensor
    policy_rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    n_chosen: Tensor
    n_rejected: Tensor
    left_out: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pair_ids)

    @property
    def chosen_reward(self) -> Tensor:
        """beta (log pi - log pi_ref) of the chosen answers."""
        return self.beta * (self.policy_chosen - self.reference_chosen)

    @property
    def rejected_reward(self) -> Tensor:
        """beta (log pi - log pi_ref) of the rejected answers."""
        return self.beta * (self.policy_rejected - self.reference_rejected)

    @property
    def margin(self) -> Tensor:
        """Chosen minus rejected reward."""
        return self.chosen_reward - self.rejected_reward

    @property
    def reward_correct(self) -> Tensor:
        """1 where the chosen answer has the higher reward."""
        return reward_accuracy(self.chosen_reward, self.rejected_reward)

    @property
    def ranked_correct(self) -> Tensor:
        """1 where the policy finds the chosen answer at least as likely."""
        return ranking_accuracy(self.policy_chosen, self.policy_rejected)

    @property
    def reference_ranked_correct(self) -> Tensor:
        """1 where the reference finds the chosen answer at least as likely."""
        return ranking_accuracy(self.reference_chosen, self.reference_rejected)

    @classmethod
    def joined(cls, parts: Sequence["PairEvaluation"]) -> "PairEvaluation":
        """Several evaluations of one policy as one; at least one part."""
        names = [f.name for f in fields(cls) if f.type is Tensor]
        columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        ids = tuple(name for part in parts for name in part.pair_ids)
        left_out = {name: why for part in parts for name, why in part.left_out.items()}
        return cls(ids, parts[0].beta, **columns, left_out=left_out)

    def mean(self, name: str) -> tuple[float, float]:
        """Mean of one of the values above over the pairs, and its standard error."""
        values = getattr(self, name)
        return float(values.mean()), float(standard_error(values))


def evaluate(
    policy: TrainablePolicy,
    pairs: Sequence[PreferencePair],
    beta: float = 1.0,
    *,
    chunk: int = CHUNK,
    on_pair: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> PairEvaluation:
    """Score pairs under the policy as it is now; nothing is trained.

    Args:
        policy: With its weights in place.
        pairs: Those that cannot be read are left out, with the reason.
        beta: Of the implicit rewards.
        chunk: Pairs at once.
        on_pair: Called with (done, total).
        cancelled: Asked before each chunk.

    Raises:
        Cancelled: asked to stop.
    """
    left_out = policy.prepare(pairs, cancelled=cancelled)
    usable = [pair for pair in pairs if pair.pair_id not in left_out]
    parts = []
    for start in range(0, len(usable), chunk):
        stop_if(cancelled, "the evaluation")
        with torch.no_grad():
            parts.append(policy.pair_logps(usable[start : start + chunk]))
        if on_pair is not None:
            on_pair(min(start + chunk, len(usable)), len(usable))
    names = [f.name for f in fields(PairEvaluation) if f.type is Tensor]
    columns = {name: _column(parts, name) for name in names}
    return PairEvaluation(tuple(p.pair_id for p in usable), beta, **columns, left_out=left_out)


def measures(logps: PairLogps, start: PairLogps, beta: float) -> dict[str, Any]:
    """The measures of a `StepRecord` that follow from a batch's log-probabilities.

    Args:
        logps: Against the reference as it is now, which TR-DPO may have moved.
        start: Against the weights that training began with.
        beta: Of the implicit rewards.
    """
    with torch.no_grad():
        chosen, rejected = beta * logps.chosen_log_ratio, beta * logps.rejected_log_ratio
        shifts = torch.cat([start.chosen_log_ratio, start.rejected_log_ratio])
        places = torch.arange(len(logps)).repeat(2)
        ranked = ranking_accuracy(logps.policy_chosen, logps.policy_rejected)
        found = {
            "chosen_reward": chosen.mean(),
            "rejected_reward": rejected.mean(),
            "reward_margin": (chosen - rejected).mean(),
            "reward_accuracy": reward_accuracy(chosen, rejected).mean(),
            "ranking_accuracy": ranked.mean(),
            "chosen_shift": start.chosen_log_ratio.mean(),
            "rejected_shift": start.rejected_log_ratio.mean(),
            "did_entropy": did_entropy_by_group(shifts.cpu(), places, len(logps)).entropy.mean(),
        }
        before = ranking_accuracy(
            start.require("reference_chosen"), start.require("reference_rejected")
        )
        shares = _transitions(before, ranked)
    return {**{name: float(value) for name, value in found.items()}, "transitions": shares}


def _transitions(before: Tensor, after: Tensor) -> Transitions:
    was, now = before > 0.5, after > 0.5
    parts = (was & now, ~was & now, was & ~now, ~was & ~now)
    return Transitions(*(float(part.double().mean()) for part in parts))


def _column(parts: Sequence[PairLogps], name: str) -> Tensor:
    found = [part.require(name).double().cpu() for part in parts]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)

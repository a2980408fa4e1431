"""The flat training loop of one branch: no threads, no user interface.

    trainer = Trainer(policy, pairs, TrainingPlan(objective="dpo"))
    record = trainer.step()

A step is taken whole or not at all: cancelled, diverged or failed, it leaves weights, optimiser and
random state as they were. From a snapshot the same pairs give the same steps, on a CPU to the bit.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.errors import TrainingError, stop_if
from workbench.metrics.encoding import encode_attribute
from workbench.metrics.ranking import ranking_accuracy
from workbench.metrics.rewards import reward_accuracy
from workbench.objectives.bco import RewardShift
from workbench.objectives.fairness_penalty import (
    AttributeKernel,
    attribute_kernel,
    fairness_penalty,
)
from workbench.objectives.logps import PairLogps
from workbench.objectives.projected_gradient import projected_gradient
from workbench.objectives.tr_dpo import sync_is_due, synchronised_reference
from workbench.training.capabilities import DivergingPolicy, unusable
from workbench.training.descent import descend
from workbench.training.history import CHUNK, NAN, StepRecord, measures
from workbench.training.plan import TrainingPlan, changes_in_words
from workbench.training.policy import TrainablePolicy
from workbench.training.reading import Reader, Reading
from workbench.training.snapshots import PassOrder, Snapshot

IsCancelled = Callable[[], bool]
LEAST_ROWS = 4
"""Pairs with known attributes that the dependence, a U-statistic, needs of a batch."""


class Trainer:
    """Trains a policy on preference pairs, step by step.

    Args:
        policy: As it was made: its weights are what training begins with.
        pairs: Trained on; those that cannot be are in `left_out`.
        plan: Objective, modifiers, optimiser.
        held_out: Measured every so many steps and never trained on.

    Attributes:
        steps: Taken so far.
        left_out: Why a pair is not used, by its id.
        finished: Why training should end after the last step, by the plan's patience; else empty.

    Raises:
        TrainingError: no pair can be trained on, or the plan asks for what is not there.
    """

    def __init__(
        self,
        policy: TrainablePolicy,
        pairs: Sequence[PreferencePair],
        plan: TrainingPlan,
        held_out: Sequence[PreferencePair] = (),
    ) -> None:
        self.policy = policy
        self.plan = plan
        self.steps = 0
        self.left_out: dict[str, str] = {}
        self.finished = ""
        self._begun_with = policy.state()
        self._weights = policy.parameters()
        self._optimiser = _optimiser(plan, self._weights)
        self._order = PassOrder.seeded(plan.seed)
        self._reference: Mapping[str, Tensor] = {}
        self._shift = plan.entry.shift
        self._first_loss, self._best_loss, self._waited = NAN, math.inf, 0
        self._events: list[str] = []
        self._pairs: dict[str, PreferencePair] = {}
        self._held_out: list[PreferencePair] = []
        self._codes: list[dict[str, Tensor]] = []
        self._reader = Reader(policy, plan, self._reference)
        self.use_pairs(pairs, held_out)
        self._events.clear()

    @property
    def pairs(self) -> tuple[PreferencePair, ...]:
        """The pairs that are trained on."""
        return tuple(self._pairs.values())

    @property
    def held_out(self) -> tuple[PreferencePair, ...]:
        """The pairs that are only measured."""
        return tuple(self._held_out)

    @property
    def pairs_digest(self) -> str:
        """Of the pairs that are trained on and their order."""
        return PreferenceSet.trusted("", self._pairs.values()).digest

    # What changes it -----------------------------------------------------------------

    def use_pairs(
        self, pairs: Sequence[PreferencePair], held_out: Sequence[PreferencePair] = ()
    ) -> None:
        """Train on other pairs from the next step on, whose record says what changed.

        Raises:
            TrainingError: none can be trained on, or the plan needs what they do not have; the
                pairs before stay in use then.
        """
        left_out = unusable(self.policy, [*pairs, *held_out])
        usable = {p.pair_id: p for p in pairs if p.pair_id not in left_out}
        if not usable:
            why = f" (first: {next(iter(left_out.values()))})" if left_out else ""
            raise TrainingError(
                f"None of {len(pairs)} pairs can be trained on{why}; add pairs or mend them."
            )
        codes = _attribute_codes(list(usable.values()), self.plan.attributes)
        measured = [p for p in held_out if p.pair_id not in left_out]
        self._reader.follow([*usable.values(), *measured])
        words = _pairs_in_words(self._pairs, usable)
        self._pairs, self._codes, self.left_out = usable, codes, left_out
        self._held_out = measured
        self._note(words)

    def change(self, plan: TrainingPlan) -> None:
        """Follow another plan from the next step on, whose record says what changed.

        Raises:
            TrainingError: the plan asks for what policy or pairs do not have; the plan before
                stays in use then.
        """
        before = self.plan
        codes = _attribute_codes(self.pairs, plan.attributes)
        reader = Reader(self.policy, plan, self._reference)
        reader.follow([*self.pairs, *self.held_out])
        self.plan, self._reader, self._codes = plan, reader, codes
        if plan.optimiser != before.optimiser:
            self._optimiser = _optimiser(plan, self._weights)
        for group in self._optimiser.param_groups:
            group["weight_decay"] = plan.weight_decay
        if plan.seed != before.seed:
            self._order = PassOrder.seeded(plan.seed)
        if (plan.objective, plan.settings) != (before.objective, before.settings):
            self._first_loss, self._best_loss, self._waited = NAN, math.inf, 0
            self._shift = plan.entry.shift
        self.finished = ""
        self._note(changes_in_words(before, plan))

    def snapshot(self) -> Snapshot:
        """Where training stands, as copies."""
        return Snapshot(
            step=self.steps,
            plan=self.plan,
            weights=self.policy.state(),
            optimiser=_optimiser_state(self._optimiser),
            order=self._order,
            reference=self._reference,
            shift=self._shift,
            first_loss=self._first_loss,
            best_loss=self._best_loss,
            waited=self._waited,
            pairs=self.pairs_digest,
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Go back, or forth, to a snapshot; the pairs stay those in use.

        Raises:
            TrainingError: a snapshot of another policy, or whose plan the pairs do not serve.
        """
        codes = _attribute_codes(self.pairs, snapshot.plan.attributes)
        reader = Reader(self.policy, snapshot.plan, snapshot.reference)
        reader.follow([*self.pairs, *self.held_out])
        optimiser = _optimiser(snapshot.plan, self._weights)
        _load_optimiser(optimiser, snapshot.optimiser, self._weights)
        self.policy.load_state(snapshot.weights)
        self.plan, self._reader, self._codes = snapshot.plan, reader, codes
        self.steps, self._optimiser, self._order = snapshot.step, optimiser, snapshot.order
        self._reference, self._shift = snapshot.reference, snapshot.shift
        self._first_loss, self._best_loss = snapshot.first_loss, snapshot.best_loss
        self._waited, self.finished = snapshot.waited, ""
        self._events.clear()
        if snapshot.pairs != self.pairs_digest:
            self._note(f"other pairs than at step {snapshot.step}")

    # A step --------------------------------------------------------------------------

    def step(self, cancelled: IsCancelled | None = None) -> StepRecord:
        """Take one step.

        Args:
            cancelled: Asked several times before the weights change.

        Raises:
            Cancelled: asked to stop; nothing was changed.
            TrainingError: the loss diverged, and nothing was changed; or the update gave weights
                that are no numbers, and a snapshot is to be restored.
        """
        started, number = time.perf_counter(), self.steps + 1
        self.finished = ""
        names, order = self._order.take(self._pairs, self.plan.batch_size)
        batch = [self._pairs[name] for name in names]
        self.policy.prepare(batch, cancelled=cancelled)
        looked = self._look(number, batch, cancelled)
        stop_if(cancelled, "the step")
        reading = self._reader.read(batch)
        shift = self.plan.entry.advance(reading.seen, self._shift, **self.plan.hyperparameters)
        loss = self._losses(reading, shift).mean()
        penalty, dependence = self._penalty(reading, names)
        self._guard(float(loss.detach()), number)
        stop_if(cancelled, "the step")
        gradients = self._gradients(loss + penalty, reading)
        stop_if(cancelled, "the step")
        rate = self._set_learning_rate(number)
        norm = descend(
            float((loss + penalty).detach()),
            gradients,
            self._weights,
            self._optimiser,
            self.plan.max_grad_norm,
            number,
        )
        self._check_weights(number)
        self._order, self._shift = order, shift
        if math.isnan(self._first_loss):
            self._first_loss = float(loss.detach())
        self._synchronise(number)
        self._wait(looked.get("held_out_loss", NAN))
        self.steps, event = number, "; ".join(self._events)
        self._events.clear()
        return StepRecord(
            step=number,
            loss=float(loss.detach()),
            penalty=float(penalty.detach()),
            grad_norm=norm,
            learning_rate=rate,
            seconds=time.perf_counter() - started,
            dependence=dependence,
            event=event,
            **measures(reading.now, reading.start, self.plan.beta),
            **looked,
        )

    def _losses(self, reading: Reading, shift: RewardShift | None) -> Tensor:
        losses = self.plan.losses(reading.seen, shift)
        return losses if reading.weight is None else losses * reading.weight

    def _gradients(self, loss: Tensor, reading: Reading) -> Sequence[Tensor]:
        if not self.plan.projected_gradient:
            return _gradient(loss, self._weights)
        downhill = _gradient(loss, self._weights, keep=True)
        chosen = _gradient(reading.start.policy_chosen.mean(), self._weights)
        return projected_gradient(downhill, chosen)

    def _penalty(self, reading: Reading, names: Sequence[str]) -> tuple[Tensor, float]:
        """What is added to the loss, and the dependence without its weight; 0 and NaN for none."""
        plan, now = self.plan, reading.now
        kernel, rows = self._kernel(names)
        if kernel is None:
            return torch.zeros((), dtype=torch.float64, device=now.policy_chosen.device), NAN
        outcome = plan.beta * (now.margin if plan.penalty_on == "margin" else now.chosen_log_ratio)
        dependence = fairness_penalty(outcome[rows], kernel)
        weight = 0.0 if plan.penalty == "none" else plan.penalty_weight
        return weight * dependence, float(dependence.detach())

    def _kernel(self, names: Sequence[str]) -> tuple[AttributeKernel | None, list[int]]:
        """The attributes of a batch, and the rows that have all of them."""
        rows = [row for row, name in enumerate(names) if all(name in c for c in self._codes)]
        if not self._codes or len(rows) < LEAST_ROWS:
            return None, rows
        columns = [torch.stack([codes[names[row]] for row in rows]) for codes in self._codes]
        kind = "dcov" if self.plan.penalty == "none" else self.plan.penalty
        return attribute_kernel(columns, kind), rows

    def _look(
        self, number: int, batch: Sequence[PreferencePair], cancelled: IsCancelled | None
    ) -> dict[str, Any]:
        """What is measured only now and then: the held-out pairs, and the divergence."""
        every = self.plan.evaluate_every
        if not every or (number - 1) % every:
            return {}
        found: dict[str, float] = {}
        if isinstance(self.policy, DivergingPolicy):
            found["kl"] = self.policy.kl(batch)
        parts = []
        for start in range(0, len(self._held_out), CHUNK):
            stop_if(cancelled, "the step")
            parts.append(self._held_out_part(self._held_out[start : start + CHUNK], cancelled))
        if parts:
            names = ("loss", "margin", "accuracy", "ranking")
            means = torch.cat(parts, dim=1).mean(dim=1).tolist()
            found |= {f"held_out_{name}": mean for name, mean in zip(names, means, strict=True)}
        return found

    def _held_out_part(
        self, pairs: Sequence[PreferencePair], cancelled: IsCancelled | None
    ) -> Tensor:
        """Loss, margin, reward accuracy and ranking accuracy of some pairs, shape (4, pairs)."""
        self.policy.prepare(pairs, cancelled=cancelled)
        with torch.no_grad():
            reading = self._reader.read(pairs)
            now: PairLogps = reading.now
            chosen, rejected = (
                self.plan.beta * ratio for ratio in (now.chosen_log_ratio, now.rejected_log_ratio)
            )
            columns = (
                self._losses(reading, self._shift),
                chosen - rejected,
                reward_accuracy(chosen, rejected),
                ranking_accuracy(now.policy_chosen, now.policy_rejected),
            )
            return torch.stack([column.double().cpu() for column in columns])

    def _guard(self, loss: float, number: int) -> None:
        if math.isnan(self._first_loss):
            return
        if loss > self.plan.loss_limit * max(1.0, abs(self._first_loss)):
            raise TrainingError(
                f"Training diverged at step {number}: the loss is {loss:.4g}, more than "
                f"{self.plan.loss_limit:g} times the first one. Take a lower learning rate or a "
                "smaller beta, and go back to a step before the loss rose."
            )

    def _check_weights(self, number: int) -> None:
        if not all(bool(weight.isfinite().all()) for weight in self._weights):
            raise TrainingError(
                f"Training diverged at step {number}: its update gave weights that are no numbers. "
                "Take a lower learning rate, and go back to the step before."
            )

    def _set_learning_rate(self, number: int) -> float:
        warm_up = self.plan.warm_up
        rate = self.plan.learning_rate * (min(number / warm_up, 1.0) if warm_up else 1.0)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        return rate

    def _synchronise(self, number: int) -> None:
        plan = self.plan
        if plan.sync_every and sync_is_due(number, int(plan.sync_every)):
            before = self._reference or self._begun_with
            self._reference = synchronised_reference(before, self.policy.state(), plan.sync_mixup)
            self._reader = Reader(self.policy, plan, self._reference)
            self._reader.follow([*self.pairs, *self.held_out])

    def _wait(self, loss: float) -> None:
        """Count the looks at the held-out pairs since their loss was the lowest."""
        if math.isnan(loss):
            return
        if loss < self._best_loss:
            self._best_loss, self._waited = loss, 0
            return
        self._waited += 1
        if self.plan.patience and self._waited >= self.plan.patience:
            self.finished = (
                f"the held-out loss has not fallen for {self._waited} looks "
                f"({self._waited * self.plan.evaluate_every} steps)"
            )

    def _note(self, words: str) -> None:
        if words:
            self._events.append(words)


def _optimiser(plan: TrainingPlan, weights: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
    options: dict[str, Any] = {"lr": plan.learning_rate, "weight_decay": plan.weight_decay}
    kinds: dict[str, Any] = {
        "adamw": torch.optim.AdamW,
        "rmsprop": torch.optim.RMSprop,
        "sgd": torch.optim.SGD,
    }
    optimiser: torch.optim.Optimizer = kinds[plan.optimiser](list(weights), **options)
    return optimiser


def _optimiser_state(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimiser.state_dict()["state"]
    return {
        f"{number}/{name}": torch.as_tensor(value).detach().cpu().clone()
        for number, values in state.items()
        for name, value in values.items()
        if value is not None
    }


def _load_optimiser(
    optimiser: torch.optim.Optimizer,
    found: Mapping[str, Tensor],
    weights: Sequence[torch.nn.Parameter],
) -> None:
    """Put a state back.

    Raises:
        TrainingError: it is not that of these weights.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in found.items():
        number, _, name = key.partition("/")
        fits = number.isdigit() and int(number) < len(weights)
        if not fits or value.shape not in ((), weights[int(number)].shape):
            raise TrainingError(
                f"The optimiser's state {key[:60]!r} does not fit this policy's weights; it "
                "belongs to another run."
            )
        state.setdefault(int(number), {})[name] = value.clone()
    optimiser.load_state_dict(
        {"state": state, "param_groups": optimiser.state_dict()["param_groups"]}
    )


def _gradient(
    of: Tensor, weights: Sequence[torch.nn.Parameter], keep: bool = False
) -> list[Tensor]:
    """The gradient over all weights; 0 for those that have no part in it."""
    found = torch.autograd.grad(of, weights, retain_graph=keep, allow_unused=True)
    return [
        torch.zeros_like(weight) if part is None else part
        for weight, part in zip(weights, found, strict=True)
    ]


def _attribute_codes(
    pairs: Sequence[PreferencePair], names: Sequence[str]
) -> list[dict[str, Tensor]]:
    """Each attribute as numbers, by the id of the pairs that have it; scaled over all of them.

    Raises:
        TrainingError: an attribute that no pair has, or that cannot be read.
    """
    everything = PreferenceSet.trusted("", pairs)
    found = []
    for name in names:
        known = [p for p in pairs if p.attributes.get(name) is not None]
        if not known:
            have = ", ".join(everything.attribute_names()) or "none"
            raise TrainingError(f"No pair has the attribute {name[:60]!r}; known are: {have}.")
        try:
            codes = encode_attribute(
                [p.attributes[name] for p in known], everything.attribute_kind(name)
            )
        except ValueError as error:
            raise TrainingError(f"Attribute {name[:60]!r}: {error}") from error
        found.append({pair.pair_id: row for pair, row in zip(known, codes, strict=True)})
    return found


def _pairs_in_words(
    before: Mapping[str, PreferencePair], after: Mapping[str, PreferencePair]
) -> str:
    both = before.keys() & after.keys()
    counts = {
        "edited": sum(before[name].digest != after[name].digest for name in both),
        "added": len(after.keys() - before.keys()),
        "removed": len(before.keys() - after.keys()),
    }
    return ", ".join(f"{verb} {n} pair{'s' * (n > 1)}" for verb, n in counts.items() if n)

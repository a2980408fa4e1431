"""Two learners in a world of known true reward: a table of logits and a tiny transformer.

Both start at a reference, are trained by DPO^gamma for several gamma, and are read now and then:
the log-probability of every answer to every prompt, from which the ranking of every pair, the loss
and the exact win rate follow.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from workbench.data.pairs import PreferencePair
from workbench.data.worlds import World, WorldShape, draw_pairs, draw_world
from workbench.metrics.ranking import clip_rater_share
from workbench.study.context import StudyContext
from workbench.training.exact import SoftmaxPolicy, fit_population
from workbench.training.plan import TrainingPlan
from workbench.training.policy import TrainablePolicy
from workbench.training.tiny_transformer import TinySize, TinyTransformerPolicy
from workbench.training.trainer import Trainer

TABLE, TINY = "table", "tiny transformer"
Share = Callable[[World], Tensor]


@dataclass(frozen=True)
class Sizes:
    """How large the world and the training are.

    Attributes:
        shape: Of the world.
        pairs: Trained on; `held_out` are only measured.
        raters: Who judge each pair.
        beta: Of the loss.
        gammas: Weights of the reference, one run each, in rising order.
        steps: Of each run.
        batch_size: Pairs a step.
        rates: Learning rate by learner.
        imitation: Supervised steps before, of the transformer.
        records: How often a run is read, besides its beginning.
    """

    shape: WorldShape
    pairs: int
    held_out: int
    raters: int
    beta: float
    gammas: tuple[float, ...]
    steps: int
    batch_size: int
    rates: Mapping[str, float]
    imitation: int
    records: int = 24


@dataclass(frozen=True)
class PairScores:
    """What a model makes of pairs; every tensor of shape (pairs,), float64.

    Attributes:
        chosen: log pi(y_w|x), nats; `rejected` likewise.
        n_chosen: Tokens of the chosen answer; `n_rejected` likewise.
        alpha: Share of raters who prefer the chosen answer; NaN where it is not known.
    """

    chosen: Tensor
    rejected: Tensor
    n_chosen: Tensor
    n_rejected: Tensor
    alpha: Tensor

    @property
    def c(self) -> Tensor:
        """log pi(y_l|x) - log pi(y_w|x); of a reference positive where it is wrong."""
        return self.rejected - self.chosen

    def clipped(self, epsilon: float) -> "PairScores":
        """The same, a unanimous vote leaving the share epsilon to the other side."""
        return replace(self, alpha=clip_rater_share(self.alpha, epsilon))

    def swapped(self) -> "PairScores":
        """The same with chosen and rejected exchanged."""
        return PairScores(
            self.rejected, self.chosen, self.n_rejected, self.n_chosen, 1 - self.alpha
        )


@dataclass(frozen=True)
class WorldPairs:
    """Pairs of a world by place, each tensor of shape (pairs,).

    Attributes:
        row: Number of the prompt.
        chosen: Number of the chosen answer among the prompt's; `rejected` likewise.
        alpha: Share of raters who prefer the chosen answer.
    """

    row: Tensor
    chosen: Tensor
    rejected: Tensor
    alpha: Tensor

    def scores(self, logp: Tensor, length: Tensor) -> PairScores:
        """Scores from log pi and the tokens of every answer, both of shape (prompts, answers)."""
        chosen, rejected = (self.row, self.chosen), (self.row, self.rejected)
        return PairScores(
            logp[chosen], logp[rejected], length[chosen], length[rejected], self.alpha
        )

    def log_ratio(self, logp: Tensor) -> Tensor:
        """m from log pi of shape (..., prompts, answers); shape (..., pairs)."""
        return logp[..., self.row, self.chosen] - logp[..., self.row, self.rejected]


@dataclass(frozen=True)
class Run:
    """One policy on its way.

    Attributes:
        gamma: Weight of the reference in the loss.
        steps: Steps taken at each record, shape (records,).
        logp: log pi of every answer, shape (records, prompts, answers); the first is pi_ref's.
        distance: ||theta - theta_ref||^2, shape (records,).
    """

    gamma: float
    steps: Tensor
    logp: Tensor
    distance: Tensor


@dataclass(frozen=True)
class Learner:
    """A kind of policy, and its runs by gamma.

    Attributes:
        name: `TABLE` or `TINY`.
        length: Tokens of every answer, shape (prompts, answers).
        runs: In rising order of gamma.
    """

    name: str
    length: Tensor
    runs: tuple[Run, ...]

    @property
    def reference(self) -> Tensor:
        """log pi_ref of every answer."""
        return self.runs[0].logp[0]

    def run(self, gamma: float) -> Run:
        """The run whose gamma is nearest."""
        return min(self.runs, key=lambda run: abs(run.gamma - gamma))


@dataclass(frozen=True)
class Worlds:
    """What was found in the world.

    Attributes:
        reward: True reward, shape (prompts, answers).
        texts: Every prompt with its answers.
        pairs: Trained on; `held_out` only measured.
        learners: Table and tiny transformer.
        population: log pi that minimises DPO's expected loss, shape (prompts, answers).
        optimum: What Theorem 3.1 says that it is.
    """

    reward: Tensor
    texts: tuple[tuple[str, tuple[str, ...]], ...]
    pairs: WorldPairs
    held_out: WorldPairs
    learners: tuple[Learner, ...]
    population: Tensor
    optimum: Tensor

    def learner(self, name: str) -> Learner:
        """The learner of that name."""
        return next(each for each in self.learners if each.name == name)


class WorldPolicy(TrainablePolicy, Protocol):
    """A policy that can score every answer of a world."""

    def world_logps(self, world: World) -> Tensor:
        """log pi of every answer, shape (prompts, answers)."""
        ...


def run_worlds(sizes: Sizes, share: Share, context: StudyContext) -> Worlds:
    """Draw a world and its pairs, and train both learners in it.

    Args:
        sizes: How large all is.
        share: Rater shares that the population's loss is taken under.
        context: Seed, progress, cancelling.
    """
    context.report(0.0, "the world is drawn")
    world = draw_world(sizes.shape, context.seed)
    both = draw_pairs(world, sizes.pairs + sizes.held_out, context.seed, raters=sizes.raters).pairs
    trained, held_out = both[: sizes.pairs], both[sizes.pairs :]
    policies: dict[str, WorldPolicy] = {
        TABLE: SoftmaxPolicy.of_world(world),
        TINY: _imitator(world, sizes, context.part(0.0, 0.25)),
    }
    learners = [
        _learn(name, policy, world, trained, sizes, context.part(0.25 + n * 0.25, 0.5 + n * 0.5))
        for n, (name, policy) in enumerate(policies.items())
    ]
    return Worlds(
        world.reward,
        tuple(zip(world.prompts, world.answers, strict=True)),
        _placed(world, trained),
        _placed(world, held_out),
        tuple(learners),
        fit_population(world, sizes.beta, share(world)),
        world.optimum(sizes.beta),
    )


def rater_shares(pairs: Sequence[PreferencePair]) -> Tensor:
    """Each pair's share of raters, shape (pairs,); NaN where it is not known."""
    found = [math.nan if (share := pair.rater_share) is None else share for pair in pairs]
    return torch.tensor(found, dtype=torch.float64)


def _imitator(world: World, sizes: Sizes, context: StudyContext) -> TinyTransformerPolicy:
    policy = TinyTransformerPolicy.of_world(world, TinySize(longest=24), context.seed)
    policy.imitate_world(
        world,
        steps=sizes.imitation,
        on_step=lambda done, of: context.report(done / of, "the transformer learns the reference"),
    )
    return policy


def _learn(
    name: str,
    policy: WorldPolicy,
    world: World,
    pairs: Sequence[PreferencePair],
    sizes: Sizes,
    context: StudyContext,
) -> Learner:
    start, runs = policy.state(), []
    for place, gamma in enumerate(sizes.gammas):
        policy.load_state(start)
        plan = TrainingPlan(
            objective="dpo_gamma",
            hyperparameters={"beta": sizes.beta, "gamma": gamma},
            learning_rate=sizes.rates[name],
            warm_up=sizes.steps // 4,
            optimiser="rmsprop",
            batch_size=sizes.batch_size,
            seed=context.seed,
            evaluate_every=0,
        )
        part = context.part(place / len(sizes.gammas), (place + 1) / len(sizes.gammas))
        runs.append(_train(name, policy, world, pairs, plan, sizes, part))
    return Learner(name, _lengths(policy, world), tuple(runs))


def _train(
    name: str,
    policy: WorldPolicy,
    world: World,
    pairs: Sequence[PreferencePair],
    plan: TrainingPlan,
    sizes: Sizes,
    context: StudyContext,
) -> Run:
    trainer, start = Trainer(policy, pairs, plan), policy.state()
    gamma, last = plan.settings["gamma"], sizes.steps
    recorded = {round(last * (n / sizes.records) ** 1.5) for n in range(sizes.records + 1)}
    steps, logps, distances = [], [], []
    for step in context.track(range(last + 1), f"{name}, γ = {gamma:g}"):
        if step in recorded:
            steps.append(step)
            logps.append(policy.world_logps(world))
            distances.append(_squared_distance(policy.state(), start))
        if step < last:
            trainer.step(context.cancelled)
    return Run(gamma, torch.tensor(steps), torch.stack(logps), torch.tensor(distances))


def _squared_distance(now: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> float:
    return sum(float((now[name] - start[name]).double().square().sum()) for name in start)


def _lengths(policy: WorldPolicy, world: World) -> Tensor:
    """Tokens of every answer, as the policy counts them; shape (prompts, answers)."""
    keys = [(p, a) for p, row in zip(world.prompts, world.answers, strict=True) for a in row]
    pairs = [
        PreferencePair(pair_id=str(n), prompt=prompt, chosen=answer, rejected=answer)
        for n, (prompt, answer) in enumerate(keys)
    ]
    with torch.no_grad():
        found = policy.pair_logps(pairs).require("n_chosen")
    return found.double().view(len(world.prompts), -1)


def _placed(world: World, pairs: Sequence[PreferencePair]) -> WorldPairs:
    rows = {prompt: row for row, prompt in enumerate(world.prompts)}
    places = [
        (
            row,
            world.answers[row].index(pair.chosen_text),
            world.answers[row].index(pair.rejected_text),
        )
        for pair in pairs
        for row in [rows[pair.prompt_text]]
    ]
    row, chosen, rejected = torch.tensor(places).view(-1, 3).unbind(dim=1)
    return WorldPairs(row, chosen, rejected, rater_shares(pairs))

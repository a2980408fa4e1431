"""An exact world of one prompt: free-logit policies trained by expected preference losses.

Answers are chosen from the reference and rejected from pi_l. Every expectation is over all
|Y|^2 pairs, in float64, so that nothing but the optimiser stands between a loss and its optimum.
Sizes and optimiser are ours; the paper's could not be read.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.metrics.information import optimal_rejected_log_density
from workbench.objectives.cpo import cpo_preference_loss
from workbench.objectives.dpo import dpo_gamma_loss
from workbench.objectives.ipo import ipo_loss
from workbench.objectives.logps import PairLogps
from workbench.objectives.orpo import orpo_loss
from workbench.objectives.simpo import simpo_loss
from workbench.objectives.slic import hinge_loss
from workbench.study.context import StudyContext

Objective = Callable[[PairLogps, float], Tensor]
OBJECTIVES: Mapping[str, Objective] = {
    "DPO": dpo_gamma_loss,
    "SimPO": lambda logps, beta: simpo_loss(logps, beta, gamma=0.5),
    "CPO": cpo_preference_loss,
    "ORPO": orpo_loss,
    "IPO": ipo_loss,
    "hinge": hinge_loss,
}
"""Losses by name; an answer counts as one token, so that means are sums."""
CLOSED_FORM = "closed form"
REJECTED: Mapping[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    CLOSED_FORM: optimal_rejected_log_density,
    "doubled beta": lambda target, ref, beta: optimal_rejected_log_density(target, ref, 2 * beta),
    "reference": lambda target, ref, beta: ref,
    "uniform": lambda target, ref, beta: torch.log_softmax(torch.zeros_like(ref), dim=-1),
}
"""log pi_l by name, from log pi*, log pi_ref and beta."""


@dataclass(frozen=True)
class World:
    """One prompt's distributions, as log-densities over the answers, shape (answers,).

    Attributes:
        reference: log pi_ref, from which answers are chosen.
        target: log pi*, the policy to be reached.
        rejected: log pi_l, from which answers are rejected.
        beta: Inverse temperature.
    """

    reference: Tensor
    target: Tensor
    rejected: Tensor
    beta: float


@dataclass(frozen=True)
class Trained:
    """Policies on their way.

    Attributes:
        world: Where they were trained.
        steps: Steps at which they were recorded, shape (records,).
        by_objective: log pi of each objective's policy, shape (records, answers).
        by_rejected: log pi of DPO under each rejected distribution, the same shape.
        rejected: Each rejected distribution, log pi_l, shape (answers,).
        updates: Log-weights of updates drawn at random, shape (updates, answers).
    """

    world: World
    steps: Tensor
    by_objective: dict[str, Tensor]
    by_rejected: dict[str, Tensor]
    rejected: dict[str, Tensor]
    updates: Tensor


def draw_world(
    answers: int,
    reference_spread: float,
    target_spread: float,
    beta: float,
    rejected: str,
    context: StudyContext,
) -> World:
    """Draw pi_ref and pi* as softmax of normal logits, and derive pi_l."""
    reference = _draw(answers, reference_spread, context.generator("reference"))
    target = _draw(answers, target_spread, context.generator("target"))
    return World(reference, target, REJECTED[rejected](target, reference, beta), beta)


def draw_updates(answers: int, context: StudyContext) -> Float[Tensor, "updates answers"]:
    """Normal log-weights of many sizes, from hardly an update to one that decides."""
    size = torch.linspace(0.1, 5, 60, dtype=torch.float64)[:, None]
    draws = torch.randn(
        len(size), answers, generator=context.generator("updates"), dtype=torch.float64
    )
    return size * draws


def expected_loss(
    logp: Float[Tensor, "policies answers"],
    rejected: Float[Tensor, "policies answers"],
    world: World,
    objective: Objective,
) -> Float[Tensor, " policies"]:
    """Each policy's expected loss over y_w ~ pi_ref and y_l ~ pi_l, every pair weighed.

    Args:
        logp: log pi of each policy.
        rejected: log pi_l that each is trained under.
        world: Reference and beta.
        objective: The loss.
    """
    policies, n = logp.shape
    reference = world.reference.expand(policies, n)
    ones = torch.ones(policies * n * n, dtype=logp.dtype)
    pairs = PairLogps(
        policy_chosen=logp.repeat_interleave(n, dim=1).flatten(),
        policy_rejected=logp.repeat(1, n).flatten(),
        reference_chosen=reference.repeat_interleave(n, dim=1).flatten(),
        reference_rejected=reference.repeat(1, n).flatten(),
        n_chosen=ones,
        n_rejected=ones,
    )
    weight = (reference[:, :, None] + rejected[:, None, :]).exp().flatten()
    return (weight * objective(pairs, world.beta)).view(policies, -1).sum(dim=1)


def train(
    world: World,
    runs: Mapping[str, tuple[Objective, Tensor]],
    steps: int,
    learning_rate: float,
    context: StudyContext,
    records: int = 40,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Train one policy a run from pi_ref by Adam with a cosine schedule.

    Args:
        world: Reference and beta.
        runs: Objective and log pi_l by name.
        steps: Number of steps.
        learning_rate: Adam's first step size.
        context: Progress and cancelling.
        records: How many times log pi is kept at most, closer together at the start.

    Returns:
        The steps kept, and by name log pi at each, shape (records, answers).
    """
    logits = world.reference.repeat(len(runs), 1).requires_grad_()
    rejected = torch.stack([density for _, density in runs.values()])
    objectives = [objective for objective, _ in runs.values()]
    rows = {each: [n for n, own in enumerate(objectives) if own is each] for each in objectives}
    optimiser = torch.optim.Adam([logits], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    recorded = {math.ceil(steps * (place / records) ** 2) for place in range(1, records + 1)}
    kept: dict[int, Tensor] = {0: _logp(logits)}
    for step in context.track(range(1, steps + 1), f"{len(runs)} policies"):
        logp = torch.log_softmax(logits, dim=-1)
        losses = [expected_loss(logp[n], rejected[n], world, each) for each, n in rows.items()]
        optimiser.zero_grad()
        # The sum's gradient is each policy's own, and Adam treats each logit by itself.
        torch.cat(losses).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step in recorded:
            kept[step] = _logp(logits)
    history = torch.stack(list(kept.values()), dim=1)
    return torch.tensor(list(kept)), dict(zip(runs, history, strict=True))


def bayes_log_loss(world: World) -> Float[Tensor, ""]:
    """Log-loss of who knows both distributions and guesses which of two answers was chosen."""
    ratio = world.reference - world.rejected
    weight = (world.reference[:, None] + world.rejected).exp()
    return -(weight * torch.nn.functional.logsigmoid(ratio[:, None] - ratio)).sum()


def divergence(left: Float[Tensor, " n"], right: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """KL(left || right) of log-densities, nats."""
    return left.exp() @ (left - right)


def entropy(logp: Float[Tensor, "*b n"]) -> Float[Tensor, "*b"]:
    """Shannon entropy of log-densities without zeros, nats."""
    return -(logp.exp() * logp).sum(dim=-1)


def _draw(answers: int, spread: float, generator: torch.Generator) -> Tensor:
    logits = torch.randn(answers, generator=generator, dtype=torch.float64)
    return torch.log_softmax(spread * logits, dim=-1)


def _logp(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits.detach(), dim=-1)

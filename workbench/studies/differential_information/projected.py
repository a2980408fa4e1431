"""DPO by plain gradient descent, with and without the projection of its gradient.

The projection is *our reading* of DPO-PG: where descent on the loss would lower the likelihood of
the chosen answers, that part of the gradient is taken out. Descent is plain, because a step that
Adam rescales is no longer orthogonal to what was projected out.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.objectives.dpo import dpo_loss
from workbench.objectives.projected_gradient import projected_gradient
from workbench.studies.differential_information.measures import js
from workbench.studies.differential_information.world import OBJECTIVES, World, expected_loss
from workbench.study.context import StudyContext
from workbench.study.result import Claim

Pass = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From log pi, shape (answers,), to the loss and the mean log pi of the chosen answers."""
Projection = Callable[[Tensor, Tensor], Tensor]
"""From the gradients of the loss and of the chosen likelihood to what is descended along."""
_RATE = 1.25
"""Step size times beta^2, the loss's curvature being proportional to that."""
_RECORDS = 40


def project(loss: Tensor, chosen: Tensor) -> Tensor:
    """The loss's gradient without what lowers the likelihood of chosen answers."""
    return projected_gradient([loss], [chosen])[0]


@dataclass(frozen=True)
class Descents:
    """Policies on their way down the gradient.

    Attributes:
        world: Where they descend.
        steps: Steps at which they were recorded, shape (records,).
        paths: log pi by name, shape (records, answers).
    """

    world: World
    steps: Tensor
    paths: dict[str, Tensor]


def descend_all(
    world: World, steps: int, batch: int, projection: Projection, context: StudyContext
) -> Descents:
    """DPO and DPO-PG from pi_ref, by exact expectations and by batches of sampled pairs.

    Args:
        world: Its distributions.
        steps: Number of steps.
        batch: Pairs a step where they are sampled; both methods see the same ones.
        projection: What DPO-PG does to its gradient.
        context: Seed, progress and cancelling.
    """
    passes: Mapping[str, Callable[[], Pass]] = {
        "exact": lambda: _exact(world),
        "batches": lambda: _sampled(world, batch, context),
    }
    whole: Mapping[str, Projection] = {"DPO": lambda loss, chosen: loss, "DPO-PG": projection}
    runs = {
        f"{name}, {kind}": (make, change)
        for kind, make in passes.items()
        for name, change in whole.items()
    }
    paths: dict[str, Tensor] = {}
    for place, (name, (make, change)) in enumerate(runs.items()):
        part = context.part(place / len(runs), (place + 1) / len(runs))
        recorded, paths[name] = _descend(world, make(), change, steps, name, part)
    return Descents(world, recorded, paths)


def tables(found: Descents) -> dict[str, dict[str, Any]]:
    """Displacement of chosen answers and distance to the target, by method and step."""
    world = found.world
    columns: dict[str, list[Any]] = {"method": [], "step": [], "chosen": [], "js": []}
    for name, path in found.paths.items():
        for step, logp in zip(found.steps.tolist(), path, strict=True):
            columns["method"].append(name)
            columns["step"].append(step)
            columns["chosen"].append(_displacement(logp, world))
            columns["js"].append(js(logp, world.target))
    return {"projected": columns}


def claims(found: Descents) -> tuple[Claim, ...]:
    """What the projection costs and keeps, each against DPO's own number."""
    world = found.world
    last = {name: path[-1] for name, path in found.paths.items()}
    moved = {name: _displacement(logp, world) for name, logp in last.items()}
    away = {name: js(logp, world.target) for name, logp in last.items()}
    start = js(world.reference, world.target)
    source = "DPO-PG is our reading; the paper's text could not be read"
    return (
        Claim(
            "projection-keeps-chosen",
            "effect",
            "In expectation DPO-PG displaces chosen answers by a small share of what DPO does.",
            _share(moved["DPO-PG, exact"], moved["DPO, exact"]),
            "<",
            0.2,
            paper=source,
        ),
        Claim(
            "projection-stays-away",
            "effect",
            "It then stays away from the target: JS as a share of the reference's own.",
            _share(away["DPO-PG, exact"], start),
            ">",
            0.5,
            paper=source,
        ),
        Claim(
            "projection-in-batches",
            "report",
            "In batches, whose chosen answers differ, DPO-PG displaces by this share of DPO's.",
            _share(moved["DPO-PG, batches"], moved["DPO, batches"]),
        ),
        Claim(
            "projection-distance-in-batches",
            "report",
            "In batches DPO-PG ends at this share of the reference's JS to the target.",
            _share(away["DPO-PG, batches"], start),
        ),
    )


def _displacement(logp: Tensor, world: World) -> float:
    """Mean change of log-probability of chosen answers, nats."""
    return float(world.reference.exp() @ (logp - world.reference))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _exact(world: World) -> Pass:
    def run(logp: Tensor) -> tuple[Tensor, Tensor]:
        loss = expected_loss(logp[None], world.rejected[None], world, OBJECTIVES["DPO"])
        return loss.sum(), world.reference.exp() @ logp

    return run


def _sampled(world: World, batch: int, context: StudyContext) -> Pass:
    generator, reference = context.generator("batches"), world.reference
    chosen_from, rejected_from = reference.exp(), world.rejected.exp()

    def run(logp: Tensor) -> tuple[Tensor, Tensor]:
        w = torch.multinomial(chosen_from, batch, replacement=True, generator=generator)
        r = torch.multinomial(rejected_from, batch, replacement=True, generator=generator)
        loss = dpo_loss(logp[w], logp[r], reference[w], reference[r], world.beta)
        return loss.mean(), logp[w].mean()

    return run


def _descend(
    world: World,
    run: Pass,
    change: Projection,
    steps: int,
    name: str,
    context: StudyContext,
) -> tuple[Tensor, Tensor]:
    """Steps that were recorded, and log pi at each, shape (records, answers)."""
    logits = world.reference.clone().requires_grad_()
    every = math.ceil(steps / _RECORDS)
    kept = {0: world.reference}
    for step in context.track(range(1, steps + 1), name):
        loss, chosen = run(torch.log_softmax(logits, dim=-1))
        (down,) = torch.autograd.grad(loss, logits, retain_graph=True)
        (up,) = torch.autograd.grad(chosen, logits)
        with torch.no_grad():
            logits -= _RATE / world.beta**2 * change(down, up)
        if step % every == 0 or step == steps:
            kept[step] = torch.log_softmax(logits.detach(), dim=-1)
    return torch.tensor(list(kept)), torch.stack(list(kept.values()))

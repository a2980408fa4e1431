"""The tables of the exact world."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from workbench.metrics.information import (
    did_entropy,
    did_reference_correlation,
    dpo_optimum_log_density,
)
from workbench.studies.differential_information.measures import (
    EXAMPLE,
    example_power,
    js,
    pair_betas,
)
from workbench.studies.differential_information.world import Trained, World, entropy

Columns = dict[str, Any]
_OCTAVES = torch.arange(-3.125, 3.25, 0.25, dtype=torch.float64)
"""Edges of the histogram of log2(beta_pair / beta)."""


def tables(fitted: Trained, pairs: int, sharpest: float) -> dict[str, Columns]:
    """Every table of the exact world.

    Args:
        fitted: What was trained.
        pairs: Pairs shown with their log-margins.
        sharpest: Largest |s| of q ∝ pi_ref^s.
    """
    world, policy = fitted.world, fitted.by_objective["DPO"]
    return {
        "distance": _distances(fitted.by_objective, "objective", fitted),
        "wrong_rejected": _distances(fitted.by_rejected, "rejected", fitted),
        "distributions": _distributions(fitted),
        "power_law": _power_law(fitted),
        "margins": _margins(world, policy[-1], pairs),
        "displacement": _displacement(fitted.steps, policy, world),
        "predicted": _predicted(fitted),
        "entropy": _powers(sharpest),
        "drawn_targets": _drawn(fitted),
    }


def _distances(paths: Mapping[str, Tensor], group: str, fitted: Trained) -> Columns:
    rows = [
        (name, step, js(policy, fitted.world.target))
        for name, path in paths.items()
        for step, policy in zip(fitted.steps.tolist(), path, strict=True)
    ]
    names, steps, distances = zip(*rows, strict=True)
    return {group: list(names), "step": list(steps), "js": list(distances)}


def _distributions(fitted: Trained) -> Columns:
    """pi_ref, pi* and every pi_l, answers in the order in which pi* favours them."""
    world = fitted.world
    order = (world.target - world.reference).argsort()
    rejected = {f"pi_l, {name}": logp for name, logp in fitted.rejected.items()}
    columns = {"reference": world.reference, "target": world.target, **rejected}
    shown = {name: logp.exp()[order] for name, logp in columns.items()}
    return {"rank": torch.arange(1, len(order) + 1), **shown}


def _power_law(fitted: Trained) -> Columns:
    """Histogram of log2(beta_pair / beta) under each pi_l, in shares of all pairs.

    Values beyond the ends are counted in the last bins. Pairs without a beta > 0 are in no bin;
    `without` has their share.
    """
    world = fitted.world
    middles = (_OCTAVES[:-1] + _OCTAVES[1:]) / 2
    columns: Columns = {"octaves": [], "rejected": [], "share": [], "without": []}
    for name, logp in fitted.rejected.items():
        octaves = (pair_betas(world.reference, logp, world.target) / world.beta).log2()
        found = octaves[~octaves.isnan()].clamp(float(middles[0]), float(middles[-1]))
        counts = torch.histogram(found, _OCTAVES).hist
        columns["octaves"] += middles.tolist()
        columns["rejected"] += [name] * len(middles)
        columns["share"] += (counts / len(octaves)).tolist()
        columns["without"] += [float(octaves.isnan().double().mean())] * len(middles)
    return columns


def _margins(world: World, trained: Tensor, pairs: int) -> Columns:
    """Log-margins of at most `pairs` pairs, each in the order that the target prefers."""
    first, second = torch.triu_indices(len(trained), len(trained), offset=1)
    shown = torch.linspace(0, len(first) - 1, min(pairs, len(first))).round().long()
    first, second = first[shown], second[shown]
    sign = torch.sign(world.target[first] - world.target[second])
    densities = {
        "target": world.target,
        "rejected": world.rejected,
        "reference": world.reference,
        "trained": trained,
    }
    return {name: sign * (logp[first] - logp[second]) for name, logp in densities.items()}


def _displacement(steps: Tensor, path: Tensor, world: World) -> Columns:
    change = path - world.reference
    return {
        "step": steps,
        "chosen": change @ world.reference.exp(),
        "rejected": change @ world.rejected.exp(),
    }


def _predicted(fitted: Trained) -> Columns:
    """Mean change of log-probability under DPO: of the closed-form optimum, and as trained.

    The optimum for answers rejected from pi_l is pi_ref (pi_ref / pi_l)^(1/beta), whatever pi_l.
    """
    world, reference = fitted.world, fitted.world.reference
    columns: Columns = {"rejected": [], "answers": [], "predicted": [], "measured": []}
    for name, logp in fitted.rejected.items():
        optimum = dpo_optimum_log_density(reference, logp, world.beta)
        for answers, density in (("chosen", reference), ("rejected", logp)):
            columns["rejected"].append(name)
            columns["answers"].append(answers)
            columns["predicted"].append(float(density.exp() @ (optimum - reference)))
            trained = fitted.by_rejected[name][-1]
            columns["measured"].append(float(density.exp() @ (trained - reference)))
    return columns


def _powers(sharpest: float) -> Columns:
    """The example under q ∝ pi_ref^s: entropies, and how q goes with the reference."""
    places = torch.linspace(-sharpest, sharpest, 49, dtype=torch.float64).tolist()
    found = [example_power(s) for s in places]
    policies = [torch.log_softmax((1 + s) * EXAMPLE, dim=-1) for s in places]
    return {
        "s": [round(s, 6) for s in places],
        "did_entropy": [each for each, _ in found],
        "efficiency": [each / math.log(len(EXAMPLE)) for each, _ in found],
        "entropy_change": [change for _, change in found],
        "correlation": [float(did_reference_correlation(each, EXAMPLE)) for each in policies],
    }


def _drawn(fitted: Trained) -> Columns:
    """Entropies of updates drawn at random in the world, pi ∝ pi_ref q with q = softmax(t z)."""
    reference, updates = fitted.world.reference, fitted.updates
    policies = torch.log_softmax(reference + updates, dim=-1)
    found = did_entropy(policies, reference.expand_as(policies))
    return {
        "did_entropy": found,
        "efficiency": found / math.log(len(reference)),
        "entropy_change": entropy(policies) - entropy(reference),
        "correlation": [float(did_reference_correlation(each, reference)) for each in policies],
    }

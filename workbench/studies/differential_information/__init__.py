"""Differential information in an exact world (Won et al., arXiv 2505.23761)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.engine.threads import one_thread
from workbench.metrics.divergence import jensen_shannon
from workbench.metrics.information import (
    did_entropy,
    dpo_optimum_log_density,
    power_law_beta,
)
from workbench.studies.differential_information.mechanism import (
    CLOSED_FORM,
    OBJECTIVES,
    REJECTED,
    Objective,
    Trained,
    World,
    bayes_log_loss,
    divergence,
    draw_world,
    entropy,
    expected_loss,
    train,
)
from workbench.study.base import Control, Figures, Paper, Study
from workbench.study.context import StudyContext
from workbench.study.knobs import knob
from workbench.study.result import Claim, StudyResult

PAPER = Paper(
    title=(
        "Differential Information Distribution: A Bayesian Perspective on Direct Preference "
        "Optimization"
    ),
    authors=("Yunjae Won", "Hyunji Lee", "Hyeonbin Hwang", "Minjoon Seo"),
    year=2025,
    venue="arXiv",
    arxiv="2505.23761",
    bibtex="""@misc{won2025differential,
  title = {Differential Information Distribution: A Bayesian Perspective on Direct Preference \
Optimization},
  author = {Won, Yunjae and Lee, Hyunji and Hwang, Hyeonbin and Seo, Minjoon},
  year = {2025},
  eprint = {2505.23761},
  archivePrefix = {arXiv},
}""",
)
# The three-answer reference of the counterexamples: s = -1 makes it uniform, s = -3 upside down.
_EXAMPLE = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64).log()


@dataclass(frozen=True)
class Params:
    """Knobs of the exact world."""

    answers: int = knob(32, low=4, high=128, unit="answers", help="|Y|, answers to the one prompt")
    reference_spread: float = knob(
        1.0, low=0.1, high=3, unit="nats", help="Standard deviation of the reference's logits"
    )
    target_spread: float = knob(
        1.0, low=0.1, high=3, unit="nats", help="Standard deviation of the target's logits"
    )
    beta: float = knob(0.5, low=0.1, high=2, help="Inverse temperature of the losses")
    rejected: str = knob(
        CLOSED_FORM, choices=tuple(REJECTED), help="What rejected answers are drawn from"
    )
    steps: int = knob(1000, low=10, high=5000, unit="steps", help="Gradient steps")
    learning_rate: float = knob(0.2, low=0.001, high=1, help="Adam's first step size")
    sharpest: float = knob(
        3.0, stage="measure", low=1, high=6, help="Largest |s| in the figure of q ∝ pi_ref^s"
    )
    pairs: int = knob(
        400, stage="measure", low=10, high=4000, unit="pairs", help="Pairs shown with log-margins"
    )


class DifferentialInformation(Study[Params, Trained]):
    """Which reward recovers the target, what happens to likelihoods, and what H(q) says."""

    slug = "differential-information"
    title = "Differential information, exactly"
    family = "theory of DPO"
    tags = ("DPO", "DID", "log-likelihood displacement", "synthetic", "core")
    paper = PAPER
    question = (
        "When preferences encode the differential information from a reference to a target, is "
        "the log-ratio the only reward that reaches the target, and must chosen answers then lose "
        "likelihood?"
    )
    not_shown = (
        "No language model, no sampled pairs and no benchmark: one prompt with a handful of "
        "answers, and exact expectations. The theory takes the reference for the distribution of "
        "chosen answers, which an instruction-tuned reference is not. The paper's sizes and "
        "optimiser could not be read; ours are given."
    )
    params_type = Params
    presets = {  # noqa: RUF012 - declared once, as the other attributes
        "smoke": Params(answers=8, steps=200),
        "default": Params(),
        "full": Params(answers=64, steps=3000),
    }
    objectives: Mapping[str, Objective] = OBJECTIVES
    rejected: Mapping[str, Any] = REJECTED

    def fit(self, params: Params, context: StudyContext) -> Trained:
        """Train every objective under pi_l, and DPO under every other pi_l."""
        world = draw_world(
            params.answers,
            params.reference_spread,
            params.target_spread,
            params.beta,
            params.rejected,
            context,
        )
        densities = {
            name: make(world.target, world.reference, world.beta)
            for name, make in self.rejected.items()
        }
        by_objective = {name: (loss, world.rejected) for name, loss in self.objectives.items()}
        by_rejected = {name: (self.objectives["DPO"], logp) for name, logp in densities.items()}
        runs = {**by_objective, **{f"DPO, {name}": run for name, run in by_rejected.items()}}
        with one_thread():
            steps, found = train(world, runs, params.steps, params.learning_rate, context)
        return Trained(
            world,
            steps,
            {name: found[name] for name in by_objective},
            {name: found[f"DPO, {name}"] for name in by_rejected},
        )

    def measure(self, fitted: Trained, params: Params) -> StudyResult:
        """Distances to the target, margins, displacement, and the entropy scatter."""
        world, policy = fitted.world, fitted.by_objective["DPO"]
        tables = {
            "distance": _distances(fitted.by_objective, "objective", fitted),
            "wrong_rejected": _distances(fitted.by_rejected, "rejected", fitted),
            "margins": _margins(world, policy[-1], params.pairs),
            "displacement": _displacement(fitted.steps, policy, world),
            "entropy": _scatter(world.reference, params.sharpest),
        }
        return StudyResult(tables, (*_identities(world), *_effects(fitted), *self._cautions()))

    def figures(self, result: StudyResult) -> Figures:
        """Five figures, the distances to the target first."""
        from workbench.studies.differential_information.figures import draw

        return draw(result)

    @property
    def controls(self) -> Mapping[str, Control]:
        """Wrong rejected distributions, losses without their reference, a sign that is lost."""
        return {
            "uniform-rejected": Control(
                "reaches-target",
                "Answers rejected uniformly encode pi_ref itself, not the target.",
                {"rejected": "uniform"},
            ),
            "doubled-beta": Control(
                "optimum-is-target",
                "Rejected answers made for twice the beta put the optimum elsewhere.",
                {"rejected": "doubled beta"},
            ),
            "reference-rejected": Control(
                "displacement-chosen",
                "Pairs from one distribution carry no information, so that nothing moves.",
                {"rejected": "reference"},
            ),
            "uniform-margins": Control(
                "power-law",
                "Uniform rejected answers obey no power law with this target.",
                {"rejected": "uniform"},
            ),
            "without-reference": Control(
                "displacement-rejected",
                "DPO without its reference is CPO, whose optimum is another.",
                study=_WithoutReference(),
            ),
            "all-with-reference": Control(
                "others-stay-away",
                "If every loss is DPO's, none stays away.",
                study=_AllDpo(),
            ),
            "one-rejected": Control(
                "wrong-rejected-floor",
                "If every rejected distribution is the closed form, none has a floor.",
                study=_OneRejected(),
            ),
            "sign-lost": Control(
                "upside-down-sharpens",
                "With |s| for s, an update that turns the reference over looks like sharpening it.",
                study=_SignLost(),
            ),
        }

    def _power(self, s: float) -> tuple[float, float]:
        """H(q) and H(pi) - H(pi_ref) of the example for q ∝ pi_ref^s."""
        return _did_and_change(_EXAMPLE, s)

    def _cautions(self) -> tuple[Claim, ...]:
        (_, smoothed), (low, turned) = self._power(-1.0), self._power(-3.0)
        statement = "q ∝ pi_ref^{} makes (.7, .2, .1) {}: H(pi) - H(pi_ref), with H(q) = {:.4f}."
        return (
            Claim(
                "minus-one-smooths",
                "unit",
                statement.format("-1", "uniform", self._power(-1.0)[0]),
                smoothed,
                "=",
                math.log(3) - float(entropy(_EXAMPLE)),
                1e-9,
                "nats",
            ),
            Claim(
                "upside-down-sharpens",
                "unit",
                statement.format("-3", "sharper, upside down", low),
                turned,
                "=",
                -0.2272,
                5e-5,
                "nats",
            ),
        )


class _WithoutReference(DifferentialInformation):
    objectives = {**OBJECTIVES, "DPO": OBJECTIVES["CPO"]}  # noqa: RUF012


class _AllDpo(DifferentialInformation):
    objectives = dict.fromkeys(OBJECTIVES, OBJECTIVES["DPO"])


class _OneRejected(DifferentialInformation):
    rejected = dict.fromkeys(REJECTED, REJECTED[CLOSED_FORM])


class _SignLost(DifferentialInformation):
    def _power(self, s: float) -> tuple[float, float]:
        return _did_and_change(_EXAMPLE, abs(s))


def _identities(world: World) -> tuple[Claim, ...]:
    """What holds exactly at pi*, without any training."""
    ref, rejected, target, beta = world.reference, world.rejected, world.target, world.beta
    upper = torch.triu_indices(len(ref), len(ref), offset=1)
    margins = [each[upper[0]] - each[upper[1]] for each in (rejected, ref, target)]
    optimum = dpo_optimum_log_density(ref, rejected, beta)
    reward = beta * (target - ref)
    return (
        Claim(
            "power-law",
            "unit",
            "One beta, the loss's, fits every pair's log-margins: largest relative deviation.",
            float((power_law_beta(*margins) / beta - 1).abs().max()),
            "<",
            1e-6,
        ),
        Claim(
            "optimum-is-target",
            "unit",
            "The optimum of DPO's expected loss is the target: largest difference of log pi.",
            float((optimum - target).abs().max()),
            "<",
            1e-9,
            unit="nats",
        ),
        Claim(
            "loss-is-bayes",
            "unit",
            "At the target DPO's expected loss is the Bayes log-loss.",
            float(expected_loss(target[None], rejected[None], world, OBJECTIVES["DPO"])),
            "=",
            float(bayes_log_loss(world)),
            1e-9,
            "nats",
        ),
        Claim(
            "margin-is-jeffreys",
            "unit",
            "At the target the expected reward margin is Jeffreys' divergence of pi_ref and pi_l.",
            float(ref.exp() @ reward - rejected.exp() @ reward),
            "=",
            float(divergence(ref, rejected) + divergence(rejected, ref)),
            1e-9,
            "nats",
        ),
    )


def _effects(fitted: Trained) -> tuple[Claim, ...]:
    """What training must find."""
    world = fitted.world
    final = {name: _js(path[-1], world.target) for name, path in fitted.by_objective.items()}
    others = min(value for name, value in final.items() if name != "DPO")
    wrong = [
        _js(path[-1], world.target)
        for name, path in fitted.by_rejected.items()
        if name != CLOSED_FORM
    ]
    return (
        Claim(
            "reaches-target",
            "effect",
            "Trained on the log-ratio reward, the policy reaches the target: JS.",
            final["DPO"],
            "<",
            1e-4,
            unit="bits",
        ),
        Claim(
            "others-stay-away",
            "effect",
            "Under every other loss it does not: smallest JS.",
            others,
            ">",
            0.005,
            unit="bits",
        ),
        Claim(
            "wrong-rejected-floor",
            "effect",
            "Nor does DPO where answers are rejected from another distribution: smallest JS.",
            min(wrong),
            ">",
            0.005,
            unit="bits",
        ),
        *_displaced(fitted),
        Claim(
            "did-entropy",
            "report",
            "H(q) of the target against the reference, at most log |Y|.",
            float(did_entropy(world.target, world.reference)),
            unit="nats",
        ),
    )


def _displaced(fitted: Trained) -> tuple[Claim, ...]:
    world = fitted.world
    ref, rejected, target = world.reference, world.rejected, world.target
    change = fitted.by_objective["DPO"][-1] - ref
    chosen = -float(divergence(ref, target))
    return (
        Claim(
            "displacement-chosen",
            "effect",
            "Chosen answers lose KL(pi_ref || pi*) of log-probability on average.",
            float(ref.exp() @ change),
            "=",
            chosen,
            0.005,
            "nats",
            "negative for chosen answers drawn from the reference (Theorem 4.1, sign only)",
        ),
        Claim(
            "displacement-rejected",
            "effect",
            "Rejected answers lose Jeffreys' divergence of pi_ref and pi_l over beta more.",
            float(rejected.exp() @ change),
            "=",
            chosen - float(divergence(ref, rejected) + divergence(rejected, ref)) / world.beta,
            0.02,
            "nats",
        ),
    )


def _js(policy: Tensor, target: Tensor) -> float:
    halves = torch.full((2,), 0.5, dtype=torch.float64)
    return float(jensen_shannon(torch.stack([policy.exp(), target.exp()]), halves))


def _distances(paths: Mapping[str, Tensor], group: str, fitted: Trained) -> dict[str, list[Any]]:
    rows = [
        (name, step, _js(policy, fitted.world.target))
        for name, path in paths.items()
        for step, policy in zip(fitted.steps.tolist(), path, strict=True)
    ]
    names, steps, distances = zip(*rows, strict=True)
    return {group: list(names), "step": list(steps), "js": list(distances)}


def _margins(world: World, trained: Tensor, pairs: int) -> dict[str, Tensor]:
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


def _displacement(steps: Tensor, path: Tensor, world: World) -> dict[str, Tensor]:
    change = path - world.reference
    return {
        "step": steps,
        "chosen": change @ world.reference.exp(),
        "rejected": change @ world.rejected.exp(),
    }


def _scatter(reference: Tensor, sharpest: float) -> dict[str, list[float]]:
    places = torch.linspace(-sharpest, sharpest, 49, dtype=torch.float64).tolist()
    found = [_did_and_change(reference, s) for s in places]
    return {
        "s": [round(s, 6) for s in places],
        "did_entropy": [entropy for entropy, _ in found],
        "entropy_change": [change for _, change in found],
    }


def _did_and_change(reference: Tensor, s: float) -> tuple[float, float]:
    """H(q) and H(pi) - H(pi_ref) for q ∝ pi_ref^s and pi ∝ pi_ref q."""
    policy = torch.log_softmax((1 + s) * reference, dim=-1)
    change = float(entropy(policy) - entropy(reference))
    return float(did_entropy(policy, reference)), change

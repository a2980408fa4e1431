"""What the trained exact world shows, as claims."""

import math

from workbench.metrics.information import did_entropy, dpo_optimum_log_density
from workbench.studies.differential_information.measures import (
    EXAMPLE,
    Power,
    jeffreys,
    js,
    pair_betas,
)
from workbench.studies.differential_information.world import (
    CLOSED_FORM,
    OBJECTIVES,
    Trained,
    World,
    bayes_log_loss,
    divergence,
    entropy,
    expected_loss,
)
from workbench.study.result import Claim


def claims(fitted: Trained, power: Power) -> tuple[Claim, ...]:
    """Every claim of the exact world.

    Args:
        fitted: What was trained.
        power: For the example of the cautions.
    """
    return (*_identities(fitted.world), *_effects(fitted), *_cautions(power))


def _identities(world: World) -> tuple[Claim, ...]:
    """What holds exactly at pi*, without any training."""
    ref, rejected, target, beta = world.reference, world.rejected, world.target, world.beta
    betas = pair_betas(ref, rejected, target)
    optimum = dpo_optimum_log_density(ref, rejected, beta)
    reward = beta * (target - ref)
    return (
        Claim(
            "power-law",
            "unit",
            "One beta, the loss's, fits every pair's log-margins: largest relative deviation.",
            float((betas / beta - 1).abs().max()),
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
            jeffreys(ref, rejected),
            1e-9,
            "nats",
        ),
    )


def _effects(fitted: Trained) -> tuple[Claim, ...]:
    """What training must find."""
    world = fitted.world
    final = {name: js(path[-1], world.target) for name, path in fitted.by_objective.items()}
    others = min(value for name, value in final.items() if name != "DPO")
    wrong = [
        js(path[-1], world.target)
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
            chosen - jeffreys(ref, rejected) / world.beta,
            0.02,
            "nats",
        ),
    )


def _cautions(power: Power) -> tuple[Claim, ...]:
    (even, smoothed), (low, turned) = power(-1.0), power(-3.0)
    statement = "q ∝ pi_ref^{} makes (.7, .2, .1) {}: H(pi) - H(pi_ref), with H(q) = {:.4f}."
    return (
        Claim(
            "minus-one-smooths",
            "unit",
            statement.format("-1", "uniform", even),
            smoothed,
            "=",
            math.log(3) - float(entropy(EXAMPLE)),
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

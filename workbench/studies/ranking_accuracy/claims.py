"""What the study claims, each read off the fitted runs."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.metrics.ranking import idealized_ranking_accuracy
from workbench.studies.ranking_accuracy.mechanism import TABLE, TINY, Learner, PairScores, Run
from workbench.studies.ranking_accuracy.tables import (
    CURVE,
    Course,
    Fitted,
    Source,
    released_ideals,
)
from workbench.studies.ranking_accuracy.votes import BETAS, EXPECTED, Ideal
from workbench.study.result import Claim

Threshold = Callable[[Tensor, float, float], Tensor]
"""Loss at which a pair flips, from c, beta and gamma."""
Courses = Sequence[tuple[Learner, Run, Course]]
_TIE = 1e-9


def identities(
    fitted: Fitted,
    found: Courses,
    ideals: Sequence[PairScores],
    formulas: dict[str, Ideal],
    threshold: Threshold,
) -> Iterator[Claim]:
    """What holds exactly, whatever was learnt."""
    yield Claim(
        "flip-curve",
        "unit",
        "A pair is ranked right exactly where its loss is at most softplus(-beta gamma c): "
        "exceptions, over every pair, run and step (ties within 1e-9 nats left out).",
        float(sum(_violations(read, run.gamma, fitted.beta, threshold) for _, run, read in found)),
        "<",
        0.5,
        unit="pairs",
        paper="Theorem 4.1",
    )
    yield Claim(
        "ideal-optimum",
        "unit",
        "The minimiser of DPO's expected loss is pi_ref (alpha / (1 - alpha))^(1 / beta): largest "
        "difference of log pi.",
        float((fitted.worlds.population - fitted.worlds.optimum).abs().max()),
        "<",
        1e-5,
        unit="nats",
        paper="Theorem 3.1",
    )
    yield Claim(
        "ideal-falls",
        "unit",
        "R* never rises with beta: its largest rise on any set of pairs.",
        max(_largest_rise(pairs) for pairs in ideals),
        "<",
        1e-12,
    )
    for name, statement in (
        ("eq3", "Eq. 3 gives the R* of an independent simulation: largest difference."),
        ("code", "So does the formula of the released code, by its own: largest difference."),
    ):
        measured = [float(formulas[name](fitted.simulated, beta).mean()) for beta in BETAS]
        away = [abs(a - b) for a, b in zip(measured, EXPECTED[name], strict=True)]
        yield Claim(f"formula-{name}", "unit", statement, max(away), "<", 0.03)


def effects(found: Courses, near: float) -> Iterator[Claim]:
    """What training does."""
    tiny = [(run, read) for learner, run, read in found if learner.name == TINY]
    dpo = min(tiny, key=lambda each: abs(each[0].gamma - 1))[1]
    free, none = min(tiny, key=lambda each: each[0].gamma)
    yield Claim(
        "loss-falls",
        "effect",
        "DPO lowers the held-out loss of the transformer: its least value, log 2 at the start.",
        float(dpo.held_out_loss.mean(dim=-1).min()),
        "<",
        0.65,
        unit="nats",
    )
    yield Claim(
        "few-flip",
        "effect",
        "At that step few pairs that the reference ranks wrongly have flipped: share.",
        float(dpo.flipped[dpo.best]),
        "<",
        0.35,
        paper="under 10 %",
    )
    yield Claim(
        "small-gamma-ranks",
        "effect",
        "Without the reference (gamma 0) more pairs are ranked right in the end than with it "
        "(gamma 1): difference of R.",
        float(none.ranking[-1] - dpo.ranking[-1]),
        ">",
        0.1,
        paper="R rises to about 90 %",
    )
    yield Claim(
        "small-gamma-loses",
        "effect",
        "And the answers get worse: difference of win rates.",
        float(none.win_rate[-1] - dpo.win_rate[-1]),
        "<",
        -0.1,
        paper="falling win rate",
    )
    yield from _correlations(found, near)
    yield Claim(
        "outside",
        "report",
        "Where the win rate goes: the transformer's probability of answers outside the world "
        f"(gamma {free.gamma:g}, last step).",
        float(none.outside[-1]),
    )


def reports(found: Sequence[Source]) -> Iterator[Claim]:
    """The paper's numbers beside ours."""
    for source in found:
        kind, slug = source.names[1], source.slug
        achieved = float(source.right.double().mean())
        ideal = float(torch.stack([_ideal(source.before, beta) for beta in BETAS]).median())
        yield Claim(
            f"accuracy-{slug}",
            "report",
            f"Ranking accuracy R of {kind}.",
            achieved,
            paper="40 to 42 % on Alpaca Farm, 46 % on HH-RLHF",
        )
        yield Claim(
            f"gap-{slug}",
            "report",
            f"Alignment gap of {kind}: median R* over beta less R.",
            ideal - achieved,
            paper="19 to 59 points",
        )
        yield Claim(
            f"code-ideal-{slug}",
            "report",
            f"Median R* of {kind} by the released code's formula, as the paper prints it.",
            float(released_ideals(source.before).median()),
            paper="91 to 99 % on Alpaca Farm",
        )


def correlation(left: Tensor, right: Tensor) -> float:
    """Pearson's; NaN where one does not vary or there are fewer than three."""
    if len(left) < 3:
        return math.nan
    return float(torch.corrcoef(torch.stack([left, right]))[0, 1])


def near_the_reference(distance: Tensor, near: float) -> Tensor:
    """Which checkpoints have moved at most the share `near` of the largest squared distance."""
    return distance <= near * distance.max()


def _correlations(found: Courses, near: float) -> Iterator[Claim]:
    tiny, table = (_checkpoints(found, name) for name in (TINY, TABLE))
    close = near_the_reference(tiny.distance, near)
    dpo = close & (tiny.gamma == 1)
    yield Claim(
        "near-together",
        "effect",
        "Near the reference DPO raises accuracy and win rate together: correlation over the "
        "transformer's checkpoints whose weights moved little.",
        correlation(tiny.ranking[dpo], tiny.win_rate[dpo]),
        ">",
        0.3,
        paper="positively correlated while ||theta - theta_ref||^2 is small",
    )
    yield Claim(
        "far-apart",
        "effect",
        "Far from it they go apart: correlation over the transformer's other checkpoints of all "
        "gammas.",
        correlation(tiny.ranking[~close], tiny.win_rate[~close]),
        "<",
        -0.5,
        paper="anti-correlated later",
    )
    yield Claim(
        "table-together",
        "effect",
        "Where nothing but the world's answers can be written they rise together at any distance: "
        "correlation over all checkpoints of the table.",
        correlation(table.ranking, table.win_rate),
        ">",
        0.5,
    )


@dataclass(frozen=True)
class _Checkpoints:
    """Every record of every run of a learner, shape (records of all runs,) each."""

    gamma: Tensor
    distance: Tensor
    ranking: Tensor
    win_rate: Tensor


def _checkpoints(found: Courses, name: str) -> _Checkpoints:
    rows = [
        (torch.full_like(read.win_rate, run.gamma), run.distance, read.ranking, read.win_rate)
        for learner, run, read in found
        if learner.name == name
    ]
    return _Checkpoints(*(torch.cat(column) for column in zip(*rows, strict=True)))


def _violations(read: Course, gamma: float, beta: float, threshold: Threshold) -> int:
    """Pairs whose ranking and whose loss against the threshold disagree."""
    sides = (read.c, read.m, read.loss), (read.held_out_c, read.held_out_m, read.held_out_loss)
    return sum(
        int((((m >= 0) != (loss <= threshold(c, beta, gamma))) & (m.abs() > _TIE)).sum())
        for c, m, loss in sides
    )


def _largest_rise(pairs: PairScores) -> float:
    curve = torch.stack([_ideal(pairs, beta) for beta in CURVE.tolist()])
    return float(curve.diff().max().clamp(min=0.0))


def _ideal(pairs: PairScores, beta: float) -> Tensor:
    known = ~pairs.alpha.isnan()
    return idealized_ranking_accuracy(pairs.c[known], pairs.alpha[known], beta).mean()

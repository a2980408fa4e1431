"""What is read off the runs: accuracies, transitions, courses, hardest and easiest pairs."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.metrics.ranking import (
    idealized_ranking_accuracy_curve,
    length_normalised_ranking_accuracy,
    paper_code_idealized_ranking_accuracy,
    ranking_accuracy,
)
from workbench.objectives.dpo import sigmoid_loss
from workbench.studies.ranking_accuracy.language_model import LanguageScores
from workbench.studies.ranking_accuracy.mechanism import Learner, PairScores, Run, Worlds
from workbench.studies.ranking_accuracy.votes import BETAS, EXPECTED, FORMULAS
from workbench.training.exact import outside_mass, win_rate

GROUPS = ("right, stays right", "wrong, now right", "right, now wrong", "wrong, stays wrong")
"""Pairs by how the reference ranks them and how the policy does."""
CURVE = torch.logspace(-2, 1, 61, dtype=torch.float64)
"""Betas of R*'s curve: the ends are those of the paper's grid."""
Columns = dict[str, Any]


@dataclass(frozen=True)
class Fitted:
    """All that a fit finds.

    Attributes:
        beta: Of the losses in the world.
        worlds: The world's learners.
        language: Language models on real pairs; None where they are left out.
        simulated: Pairs for the two formulas of R*.
    """

    beta: float
    worlds: Worlds
    language: LanguageScores | None
    simulated: PairScores


@dataclass(frozen=True)
class Course:
    """A run read at every record; the last dimension of pairwise values is the pair's.

    Attributes:
        c: Reference's log-ratio of the training pairs; `held_out_c` of the held-out ones.
        m: The policy's log-ratio, shape (records, pairs); `held_out_m` likewise.
        loss: DPO^gamma's loss of each training pair; `held_out_loss` likewise.
        win_rate: Against the reference, shape (records,).
        outside: Probability of answers outside the world, shape (records,).
    """

    c: Tensor
    m: Tensor
    loss: Tensor
    held_out_c: Tensor
    held_out_m: Tensor
    held_out_loss: Tensor
    win_rate: Tensor
    outside: Tensor

    @property
    def best(self) -> int:
        """The record of the lowest held-out loss, which the paper's analyses use."""
        return int(self.held_out_loss.mean(dim=-1).argmin())

    @property
    def ranking(self) -> Tensor:
        """Ranking accuracy of the training pairs at every record."""
        return _right(self.m).double().mean(dim=-1)

    @property
    def held_out_ranking(self) -> Tensor:
        """Ranking accuracy of the held-out pairs at every record."""
        return _right(self.held_out_m).double().mean(dim=-1)

    @property
    def flipped(self) -> Tensor:
        """Share of the pairs that the reference ranks wrongly and the policy does not."""
        wrong = self.c > 0
        return (_right(self.m) & wrong).sum(dim=-1).double() / wrong.sum().clamp(min=1)


@dataclass(frozen=True)
class Source:
    """A reference and what was made of it, on one set of pairs.

    Attributes:
        slug: Short name, for claims.
        name: Of data and reference, for a person.
        before: The reference's scores; `after` those of the tuned policy.
        names: Of reference and policy.
        loss: DPO's loss of each pair under the policy.
        texts: (prompt, chosen, rejected) of each.
    """

    slug: str
    name: str
    before: PairScores
    after: PairScores
    names: tuple[str, str]
    loss: Tensor
    texts: tuple[tuple[str, str, str], ...]

    @property
    def right(self) -> Tensor:
        """Which pairs the policy ranks rightly."""
        return _right(-self.after.c)


def course(worlds: Worlds, learner: Learner, run: Run, beta: float) -> Course:
    """Read a run."""
    pairs, unseen, reference = worlds.pairs, worlds.held_out, learner.reference
    c, held_out_c = -pairs.log_ratio(reference), -unseen.log_ratio(reference)
    m, held_out_m = pairs.log_ratio(run.logp), unseen.log_ratio(run.logp)
    return Course(
        c,
        m,
        sigmoid_loss(m, c, beta, run.gamma),
        held_out_c,
        held_out_m,
        sigmoid_loss(held_out_m, held_out_c, beta, run.gamma),
        win_rate(run.logp, reference, worlds.reward).mean(dim=-1),
        outside_mass(run.logp).mean(dim=-1),
    )


def courses(fitted: Fitted) -> Iterator[tuple[Learner, Run, Course]]:
    """Every run of every learner."""
    for learner in fitted.worlds.learners:
        for run in learner.runs:
            yield learner, run, course(fitted.worlds, learner, run, fitted.beta)


def sources(fitted: Fitted, epsilon: float, language_beta: float) -> list[Source]:
    """The references and their DPO policies: both learners, then the language models."""
    found = [_world_source(fitted, learner, epsilon) for learner in fitted.worlds.learners]
    if fitted.language is not None:
        found.append(_language_source(fitted.language, epsilon, language_beta))
    return found


def accuracy_table(found: Sequence[Source]) -> Columns:
    """R and R~ of every model on its data, beside R*, R~* and the released code's R*.

    The ideal ones are the reference's, at the least, the median and the most of the paper's betas.
    """
    rows = []
    for source in found:
        ideal = [_ideals(each) for each in (source.before, _per_token(source.before))]
        ideal.append(released_ideals(source.before))
        for name, scores in zip(source.names, (source.before, source.after), strict=True):
            rows.append(
                (name, source.name, len(scores.chosen), *_accuracies(scores), *_spread(ideal))
            )
    names = ["model", "data", "pairs", "ranking", "per_token"]
    for kind in ("ideal", "ideal_per_token", "released_code"):
        names += [f"{kind}_{which}" for which in ("least", "median", "most")]
    table = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    gap = [a - b for a, b in zip(table["ideal_median"], table["ranking"], strict=True)]
    return {**table, "gap": gap}


def idealized_table(found: Sequence[Source]) -> Columns:
    """R* of every source's reference over beta, and what the policy achieves."""
    table: Columns = {"source": [], "beta": [], "ideal": [], "achieved": []}
    for source in found:
        curve = ideal_curve(source.before)
        achieved = _accuracies(source.after)[0]
        table["source"] += [source.name] * len(CURVE)
        table["beta"] += CURVE.tolist()
        table["ideal"] += curve.tolist()
        table["achieved"] += [achieved] * len(CURVE)
    return table


def ideal_curve(pairs: PairScores) -> Tensor:
    """Mean R* at every beta of `CURVE`; pairs of unknown alpha are left out."""
    known = ~pairs.alpha.isnan()
    return idealized_ranking_accuracy_curve(pairs.c[known], pairs.alpha[known], CURVE)


def released_ideals(pairs: PairScores) -> Tensor:
    """Mean R* at each of the paper's betas by the released code's formula."""
    known = ~pairs.alpha.isnan()
    chosen, rejected, alpha = pairs.chosen[known], pairs.rejected[known], pairs.alpha[known]
    means = [
        paper_code_idealized_ranking_accuracy(chosen, rejected, alpha, beta).mean()
        for beta in BETAS
    ]
    return torch.stack(means)


def transition_table(learner: Learner, run: Run, found: Course, beta: float) -> Columns:
    """Share, loss and margin of the four groups over steps; None where a group is empty.

    `best` is the step of the lowest held-out loss.
    """
    margin = beta * (found.m + found.c)
    was, now = (found.c <= 0).expand_as(found.m), _right(found.m)
    masks = (was & now, ~was & now, was & ~now, ~was & ~now)
    table: Columns = {name: [] for name in ("group", "step", "share", "loss", "margin")}
    for group, mask in zip(GROUPS, masks, strict=True):
        table["group"] += [group] * len(run.steps)
        table["step"] += run.steps.tolist()
        table["share"] += mask.double().mean(dim=-1).tolist()
        table["loss"] += _masked_means(found.loss, mask)
        table["margin"] += _masked_means(margin, mask)
    shown = {"policy": learner.name, "best": int(run.steps[found.best])}
    return {**{name: [value] * len(table["step"]) for name, value in shown.items()}, **table}


def course_table(found: Sequence[tuple[Learner, Run, Course]]) -> Columns:
    """Accuracies, win rate and distance of every run at every record."""
    table: Columns = {}
    for learner, run, read in found:
        columns = {
            "policy": [learner.name] * len(run.steps),
            "gamma": [run.gamma] * len(run.steps),
            "step": run.steps.tolist(),
            "ranking": read.ranking.tolist(),
            "held_out_ranking": read.held_out_ranking.tolist(),
            "win_rate": read.win_rate.tolist(),
            "distance": run.distance.tolist(),
            "outside": read.outside.tolist(),
            "loss": read.loss.mean(dim=-1).tolist(),
            "held_out_loss": read.held_out_loss.mean(dim=-1).tolist(),
        }
        for name, values in columns.items():
            table.setdefault(name, []).extend(values)
    return table


def flip_table(source: Source, threshold: Tensor) -> Columns:
    """Loss, c and ranking of each pair, with the loss at which it flips."""
    return {
        "c": source.before.c,
        "loss": source.loss,
        "flips_at": threshold,
        "right": source.right,
        "pair": [_label(*texts) for texts in source.texts],
    }


def extreme_pairs(found: Sequence[Source], count: int = 5) -> Columns:
    """The pairs that are hardest and easiest to rank rightly, by c."""
    names = ("source", "kind", "c", "alpha", "loss", "right", "prompt", "chosen", "rejected")
    rows: list[tuple[Any, ...]] = []
    for source in found:
        order = source.before.c.argsort(descending=True).tolist()
        for kind, places in (("hardest", order[:count]), ("easiest", order[-count:])):
            for place in places:
                c, alpha = float(source.before.c[place]), float(source.before.alpha[place])
                loss, right = float(source.loss[place]), bool(source.right[place])
                rows.append((source.name, kind, c, alpha, loss, right, *source.texts[place]))
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def votes_table(pairs: PairScores) -> Columns:
    """R* over the paper's betas by the equation and by the released code."""
    table: Columns = {name: [] for name in ("formula", "beta", "ideal", "expected")}
    for name, formula in FORMULAS.items():
        table["formula"] += [name] * len(BETAS)
        table["beta"] += BETAS
        table["ideal"] += [float(formula(pairs, beta).mean()) for beta in BETAS]
        table["expected"] += EXPECTED[name]
    return table


def _world_source(fitted: Fitted, learner: Learner, epsilon: float) -> Source:
    worlds, run = fitted.worlds, learner.run(1.0)
    read = course(worlds, learner, run, fitted.beta)
    before = worlds.pairs.scores(learner.reference, learner.length).clipped(epsilon)
    after = worlds.pairs.scores(run.logp[read.best], learner.length).clipped(epsilon)
    places = zip(worlds.pairs.row, worlds.pairs.chosen, worlds.pairs.rejected, strict=True)
    texts = tuple(_texts(worlds, *map(int, place)) for place in places)
    short = learner.name.removeprefix("tiny ")
    names = (short, f"{short} + DPO")
    return Source(
        short, f"world, {learner.name}", before, after, names, read.loss[read.best], texts
    )


def _language_source(language: LanguageScores, epsilon: float, beta: float) -> Source:
    before = language.pairs.clipped(epsilon)
    lengths = before.n_chosen, before.n_rejected
    after = PairScores(language.policy_chosen, language.policy_rejected, *lengths, before.alpha)
    names = (language.reference_name, language.policy_name)
    loss = sigmoid_loss(-after.c, before.c, beta)
    name = f"{language.data}, language model"
    return Source("language-model", name, before, after, names, loss, language.texts)


def _texts(worlds: Worlds, row: int, chosen: int, rejected: int) -> tuple[str, str, str]:
    prompt, answers = worlds.texts[row]
    return prompt, answers[chosen], answers[rejected]


def _right(m: Tensor) -> Tensor:
    return m >= 0


def _accuracies(scores: PairScores) -> tuple[float, float]:
    plain = ranking_accuracy(scores.chosen, scores.rejected)
    per_token = length_normalised_ranking_accuracy(
        scores.chosen, scores.rejected, scores.n_chosen, scores.n_rejected
    )
    return float(plain.mean()), float(per_token.mean())


def _per_token(pairs: PairScores) -> PairScores:
    ones = torch.ones_like(pairs.chosen)
    chosen, rejected = pairs.chosen / pairs.n_chosen, pairs.rejected / pairs.n_rejected
    return PairScores(chosen, rejected, ones, ones, pairs.alpha)


def _ideals(pairs: PairScores) -> Tensor:
    known = ~pairs.alpha.isnan()
    betas = torch.tensor(BETAS, dtype=torch.float64)
    return idealized_ranking_accuracy_curve(pairs.c[known], pairs.alpha[known], betas)


def _spread(ideals: Sequence[Tensor]) -> list[float]:
    return [float(part) for each in ideals for part in (each.min(), each.median(), each.max())]


def _masked_means(values: Tensor, mask: Tensor) -> list[float | None]:
    """Mean of each record's values within its mask."""
    sums, counts = torch.where(mask, values, 0.0).sum(dim=-1), mask.sum(dim=-1)
    means = (sums / counts).tolist()
    return [None if math.isnan(mean) else mean for mean in means]


def _label(prompt: str, chosen: str, rejected: str, most: int = 60) -> str:
    parts = [
        text if len(text) <= most else text[: most - 1] + "…" for text in (prompt, chosen, rejected)
    ]
    return f"{parts[0]}<br>chosen: {parts[1]}<br>rejected: {parts[2]}"

"""Figures of live training: curves over steps with branches overlaid, and branches compared.

Colour tells branches apart and dashes quantities; a lone branch colours its quantities. What was
not measured at a step is left out and the line goes on. What the user changed stands as a rule
over the step at which it took effect.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from workbench.engine.training import Branch
from workbench.objectives.curves import margin_curve
from workbench.objectives.objective import Objective
from workbench.palette import SERIES
from workbench.training.history import PairEvaluation, StepRecord
from workbench.views.figure import (
    Axis,
    Band,
    Codes,
    Dash,
    Detail,
    Figure,
    Layer,
    Line,
    Numbers,
    Points,
    Rule,
    Scale,
)

REWARD_UNIT = "β·nats"
NOT_TRAINED = "Play trains; Step takes a single step."
NOT_MEASURED = "Not measured at any step so far."
TRANSITIONS = ("stays right", "becomes right", "becomes wrong", "stays wrong")
_TRANSITION_COLOURS = ("good", "series2", "warn", "bad")
_STATISTICS = {"none": "dCov²", "dcov": "dCov²", "ccdcov": "CCdCov²", "jdcov": "JdCov²"}
_MOST_POINTS = 1500
_SMOOTHED = 10
_STEPS = Axis("Step", "updates")
_CURVE_SPAN = 60.0
_CURVE_POINTS = 121


@dataclass(frozen=True)
class Quantity:
    """One field of the step records as a line: its name, and its colour in a lone branch."""

    field: str
    name: str
    colour: str = "series0"
    dash: Dash = ""


@dataclass(frozen=True)
class View:
    """The branches to draw, all of a desk's, in the order in which they were made.

    Attributes:
        branches: From the training desk.
        active: Id of the branch that is trained and drawn boldly.
        at: Step that the policy stands at, ruled where it is not the last.
    """

    branches: Sequence[Branch] = ()
    active: str = ""
    at: int | None = None

    def branch(self, branch_id: str | None) -> Branch | None:
        """A branch by its id."""
        return next((each for each in self.branches if each.branch_id == branch_id), None)

    def colour(self, branch: Branch) -> str:
        """A branch's colour token, the same as long as it lives."""
        return branch_colour(self.branches.index(branch))

    def history(self, branch: Branch) -> list[StepRecord]:
        """The records of a branch from the first step, those of its ancestors first."""
        parent = self.branch(branch.parent)
        before = self.history(parent) if parent is not None else []
        return [each for each in before if each.step <= branch.forked_at] + list(branch.records)

    def joined(self, branch: Branch) -> list[StepRecord]:
        """A branch's own records, with the one that it left from, so that its line begins there."""
        earlier = len(branch.records) + 1
        return self.history(branch)[-earlier:]


def branch_colour(place: int) -> str:
    """The colour token of the branch that was made as the `place`-th, from 0."""
    return SERIES[place % len(SERIES)]


# ------------------------------------------------------------------ curves over steps


def loss(view: View) -> Figure:
    """The objective, on the batch and held out, and the fairness penalty where there is one."""
    quantities = [
        Quantity("loss", "batch"),
        Quantity("held_out_loss", "held out", "series1", "dash"),
    ]
    if any(record.penalty for each in view.branches for record in each.records):
        quantities.append(Quantity("penalty", "fairness penalty", "series3", "dot"))
    axis = Axis("Loss", "mean a pair")
    return _curves(view, "Loss", axis, *quantities, smooth=True, named=True)


def rewards(view: View) -> Figure:
    """Mean implicit reward of the chosen and of the rejected answers."""
    chosen = Quantity("chosen_reward", "chosen", "good")
    rejected = Quantity("rejected_reward", "rejected", "bad", "dash")
    return _curves(
        view, "Implicit rewards", Axis("Reward, mean", REWARD_UNIT), chosen, rejected, smooth=True
    )


def margin(view: View) -> Figure:
    """Mean reward margin, on the batch and held out."""
    return _curves(
        view, "Reward margin", Axis("Margin, mean", REWARD_UNIT),
        Quantity("reward_margin", "batch"),
        Quantity("held_out_margin", "held out", "series1", "dash"),
        smooth=True,
    )  # fmt: skip


def accuracy(view: View) -> Figure:
    """Reward accuracy, against the reference, beside ranking accuracy, without it."""
    quantities = [
        Quantity("reward_accuracy", "reward"),
        Quantity("ranking_accuracy", "ranking", "series1", "dash"),
        Quantity("held_out_accuracy", "reward, held out", "series2", "dot"),
        Quantity("held_out_ranking", "ranking, held out", "series3", "dashdot"),
    ]
    axis = Axis("Accuracy", "share", range=(0.0, 1.0))
    return _curves(view, "Reward and ranking accuracy", axis, *quantities, smooth=True)


def displacement(view: View) -> Figure:
    """How far the log-likelihood of both answers has moved since training began."""
    chosen = Quantity("chosen_shift", "chosen", "good")
    rejected = Quantity("rejected_shift", "rejected", "bad", "dash")
    axis = Axis("log π/π₀, mean", "nats")
    return _curves(view, "Log-likelihood displacement", axis, chosen, rejected, smooth=True)


def did_entropy(view: View) -> Figure:
    """Mean DID entropy over each pair's two answers; log 2 is the most there can be."""
    axis = Axis("DID entropy H, mean", "nats")
    made = _curves(view, "DID entropy", axis, Quantity("did_entropy", "H"), smooth=True)
    bound = Rule(at=math.log(2), along="y", colours=("muted",), dash="dash", name="log 2, the most")
    return made if made.is_blank else replace(made, layers=(bound, *made.layers))


def kl(view: View) -> Figure:
    """Kullback-Leibler divergence of the policy from where it began."""
    made = _curves(view, "KL from the start", Axis("KL(π ‖ π₀)", "nats"), Quantity("kl", "KL"))
    if view.branches and made.is_blank:
        return replace(made, empty="Only policies whose answers can be counted know it exactly.")
    return made


def dependence(view: View) -> Figure:
    """Dependence of the batch's margins or rewards on the protected attributes."""
    active = view.branch(view.active)
    statistic = _STATISTICS[active.plan.penalty if active else "none"]
    axis = Axis(f"{statistic}, U-statistic", REWARD_UNIT)
    made = _curves(
        view, "Dependence on the attributes", axis, Quantity("dependence", "batch"), smooth=True
    )
    if made.is_blank and any(each.records for each in view.branches):
        return replace(made, empty="Name protected attributes in the setup to measure it.")
    return made if made.is_blank else replace(made, layers=(_zero("y"), *made.layers))


def gradient_norm(view: View) -> Figure:
    """Euclidean norm of the gradient before it is cut."""
    norms = [record.grad_norm for each in view.branches for record in each.records]
    scale: Scale = "log" if all(norm > 0 or math.isnan(norm) for norm in norms) else "linear"
    axis = Axis("Gradient norm", "Euclidean", scale)
    return _curves(view, "Gradient norm", axis, Quantity("grad_norm", "norm"))


def transitions(view: View) -> Figure:
    """Shares of pairs by how the policy and its start rank them, stacked over steps.

    The four cases of the flip analysis of Chen et al. 2024 (arXiv 2405.19534), of the active
    branch; each value is the mean of the last steps, as a batch has few pairs.
    """
    branch = view.branch(view.active)
    steps, shares = _measured(view.history(branch) if branch else [], "transitions")
    layers = _bands(steps, np.stack([_smoothed(each) for each in shares.T])) if len(steps) else ()
    return Figure(
        "Ranking, before and now",
        _STEPS,
        Axis("Pairs", "share", range=(0.0, 1.0)),
        (*layers, *(_marks(view) if layers else ())),
        empty=_emptiness(view),
        note=f"mean of {_SMOOTHED} batches" if layers else "",
    )


FIRST_CURVES = {
    "Training loss": loss,
    "Implicit rewards in training": rewards,
    "Accuracy in training": accuracy,
    "Displacement in training": displacement,
    "Dependence in training": dependence,
    "Transitions in training": transitions,
}
"""The curves that a page of training shows at once, by their names."""
FURTHER_CURVES = {
    "Margin in training": margin,
    "DID entropy in training": did_entropy,
    "KL in training": kl,
    "Gradient norm": gradient_norm,
}
"""Those for a closer look."""


def _bands(steps: Numbers, shares: Numbers) -> tuple[Layer, ...]:
    """Shares of shape (4, steps) on top of one another."""
    if len(steps) == 1:
        steps, shares = np.r_[steps - 1, steps], np.repeat(shares, 2, axis=1)
    top = np.cumsum(shares, axis=0)
    return tuple(
        Band(x=steps, y0=top[place] - shares[place], y1=top[place], name=name,
             colours=(_TRANSITION_COLOURS[place],), opacity=0.75)
        for place, name in enumerate(TRANSITIONS)
    )  # fmt: skip


def _curves(
    view: View,
    title: str,
    axis: Axis,
    *quantities: Quantity,
    smooth: bool = False,
    named: bool = False,
) -> Figure:
    """Lines of some quantities; the active branch is drawn last and boldest.

    Args:
        view: The branches.
        title: Of the figure.
        axis: Of the values.
        quantities: To be drawn.
        smooth: Whether a long noisy line is also shown as the mean of its last steps.
        named: Whether it says what rules and bold lines are; once on a page is enough.
    """
    smooth = smooth and any(len(each.records) > 2 * _SMOOTHED for each in view.branches)
    order = sorted(view.branches, key=lambda branch: branch.branch_id == view.active)
    layers = [
        layer
        for branch in order
        for each in quantities
        for layer in _lines(view, branch, each, smooth)
    ]
    several = len(view.branches) > 1 and len(quantities) > 1
    return Figure(
        title,
        _STEPS,
        axis,
        (
            *(_marks(view, named) if layers else ()),
            *layers,
            *(_dash_key(quantities, layers) if several else ()),
        ),
        empty=_emptiness(view),
        note=f"bold: mean of {_SMOOTHED} steps" if smooth and layers and named else "",
    )


def _lines(view: View, branch: Branch, quantity: Quantity, smooth: bool) -> list[Line]:
    """A quantity of a branch; what a batch makes noisy also as the mean of its last steps."""
    x, y = _measured(view.joined(branch), quantity.field)
    if not len(x):
        return []
    lone, active = len(view.branches) == 1, branch.branch_id == view.active
    line = Line(
        x=x, y=y, dash=quantity.dash, width=2.25 if active else 1.5,
        name=quantity.name if lone else "" if quantity.dash else branch.name,
        colours=(quantity.colour if lone else view.colour(branch),),
        opacity=1.0 if active else 0.75,
    )  # fmt: skip
    if not smooth or quantity.field.startswith("held_out"):
        return [line]
    return [replace(line, opacity=0.25, width=1.0, name="", dash=""), replace(line, y=_smoothed(y))]


def _dash_key(quantities: Sequence[Quantity], layers: Sequence[Line]) -> list[Line]:
    """Legend entries that say what each dash stands for, where colours stand for branches."""
    used = {layer.dash for layer in layers}
    nothing = np.empty(0)
    return [
        Line(x=nothing, y=nothing, name=each.name, dash=each.dash, colours=("muted",))
        for each in quantities
        if each.dash in used
    ]


def _measured(records: Sequence[StepRecord], field: str) -> tuple[Numbers, Numbers]:
    """Steps and values where the field was measured, thinned to what a screen can show."""
    steps = np.array([record.step for record in records], dtype=np.float64)
    values = np.array([getattr(record, field) for record in records], dtype=np.float64)
    kept = np.flatnonzero(np.isfinite(values if values.ndim == 1 else values.sum(axis=-1)))
    if len(kept) > _MOST_POINTS:
        kept = np.union1d(kept[:: math.ceil(len(kept) / _MOST_POINTS)], kept[-1:])
    return steps[kept], values[kept]


def _smoothed(values: Numbers) -> Numbers:
    """The mean of each value and of up to nine before it."""
    sums = np.cumsum(np.r_[0.0, values])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - _SMOOTHED, 0)
    means: Numbers = (sums[end] - sums[start]) / (end - start)
    return means


def _marks(view: View, named: bool = False) -> list[Rule]:
    """Rules where the active branch was changed or edited, and where the policy stands."""
    branch = view.branch(view.active)
    if branch is None:
        return []
    changed = [record.step for record in view.history(branch) if record.event]
    rules = [
        Rule(
            at=float(step),
            colours=("muted",),
            dash="dot",
            name="edit, change" if named and not place else "",
        )
        for place, step in enumerate(changed)
    ]
    if view.at is not None and view.at != branch.step:
        name = f"now: step {view.at}" if named else ""
        rules.append(Rule(at=float(view.at), colours=("text",), name=name))
    return rules


def _zero(along: str) -> Rule:
    return Rule(at=0.0, along="x" if along == "x" else "y", colours=("muted",), width=1.0)


def _emptiness(view: View) -> str:
    trained = any(branch.records for branch in view.branches)
    return NOT_MEASURED if trained else NOT_TRAINED


# ------------------------------------------------------------------ calibration of lambda


@dataclass(frozen=True)
class Calibrated:
    """What one branch's lambda has come to, over all pairs that carry the attribute.

    Attributes:
        name: Of the branch.
        weight: lambda; 0 where there is no penalty.
        seed: Of the plan.
        colour: The branch's token.
        jensen_shannon: Of the margin between the attribute's groups, bits.
        correlation: Distance correlation of the margin and the attribute.
        accuracy: Reward accuracy over held-out pairs, or over all where none are held out.
    """

    name: str
    weight: float
    seed: int
    colour: str
    jensen_shannon: float
    correlation: float
    accuracy: float


MEASURES = {
    "jensen_shannon": ("Jensen-Shannon between groups", "bits"),
    "correlation": ("Distance correlation", "0 to 1"),
}


def unfairness_against_weight(found: Sequence[Calibrated], measure: str) -> Figure:
    """The dependence that is left at the end of each branch against its lambda."""
    return _calibration(
        "What λ buys", found,
        Axis("Weight λ of the fairness penalty", "loss a unit"), [each.weight for each in found],
        Axis(*MEASURES[measure]), [getattr(each, measure) for each in found],
    )  # fmt: skip


def accuracy_against_unfairness(found: Sequence[Calibrated], measure: str) -> Figure:
    """The price of fairness: accuracy against dependence, one point a branch."""
    return _calibration(
        "What it costs", found,
        Axis(*MEASURES[measure]), [getattr(each, measure) for each in found],
        Axis("Reward accuracy", "share of pairs"), [each.accuracy for each in found],
    )  # fmt: skip


def _calibration(
    title: str,
    found: Sequence[Calibrated],
    x_axis: Axis,
    x: Sequence[float],
    y_axis: Axis,
    y: Sequence[float],
) -> Figure:
    """A point for each branch, joined in the order of lambda."""
    order = sorted(range(len(found)), key=lambda place: found[place].weight)
    path = Line(
        x=np.array([x[place] for place in order], dtype=np.float64),
        y=np.array([y[place] for place in order], dtype=np.float64),
        colours=("muted",), dash="dot", width=1.5,
    )  # fmt: skip
    points = Points(
        x=np.array(x, dtype=np.float64), y=np.array(y, dtype=np.float64),
        group=np.arange(len(found)), colours=tuple(each.colour for each in found) or ("series0",),
        labels=tuple(f"{each.name}: λ {each.weight:g}, seed {each.seed}" for each in found),
        details=(
            Detail("λ", np.array([each.weight for each in found], dtype=np.float64)),
            Detail(x_axis.label, np.array(x, dtype=np.float64), x_axis.unit),
            Detail(y_axis.label, np.array(y, dtype=np.float64), y_axis.unit),
        ),
        size=11, opacity=1.0,
    )  # fmt: skip
    return Figure(
        title, x_axis, y_axis, (path, points),
        empty="Train branches with different λ, then measure them.",
        note="one point a branch, at its newest kept step; dotted: in the order of λ",
    )  # fmt: skip


# ------------------------------------------------------------------ two moments compared


def margins_compared(
    first: PairEvaluation, second: PairEvaluation, names: tuple[str, str], rows: Codes
) -> Figure:
    """Each pair's reward margin at two moments; above the diagonal it has grown.

    Args:
        first: One moment.
        second: The other, of the same pairs in the same order.
        names: What to call the moments.
        rows: Places of the pairs in the preference set, shape (pairs,).
    """
    values = _array(first.margin), _array(second.margin)
    codes = _ranking_codes(first, second)
    return _compared("Reward margin", "margin", REWARD_UNIT, values, codes, names, rows)


def log_ratios_compared(
    first: PairEvaluation, second: PairEvaluation, names: tuple[str, str], rows: Codes
) -> Figure:
    """Each pair's log pi(y_w|x) - log pi(y_l|x) at two moments; its sign is the ranking.

    The reference has no part in it, so that step 0 is a moment like any other. The arguments are
    those of `margins_compared`.
    """
    x, y = (_array(each.policy_chosen - each.policy_rejected) for each in (first, second))
    codes = _ranking_codes(first, second)
    made = _compared("Policy's log-ratio", "log-ratio", "nats", (x, y), codes, names, rows)
    return made if made.is_blank else replace(made, layers=(_zero("x"), _zero("y"), *made.layers))


def _compared(
    title: str,
    label: str,
    unit: str,
    values: tuple[Numbers, Numbers],
    codes: Codes,
    names: tuple[str, str],
    rows: Codes,
) -> Figure:
    x, y = values
    details = (
        Detail(names[0], x, unit), Detail(names[1], y, unit), Detail("change", y - x, unit)
    )  # fmt: skip
    points = Points(
        x=x, y=y, rows=rows, group=codes, labels=TRANSITIONS, colours=_TRANSITION_COLOURS,
        details=details,
    )  # fmt: skip
    return Figure(
        f"{title}, pair by pair",
        Axis(f"{label.capitalize()} at {names[0]}", unit),
        Axis(f"{label.capitalize()} at {names[1]}", unit),
        (*_diagonal(x, y), points),
        empty="No pair could be read at both moments.",
        note=f"{len(x)} pairs; {int((y > x).sum())} have grown",
    )


def _ranking_codes(first: PairEvaluation, second: PairEvaluation) -> Codes:
    """Which of `TRANSITIONS` each pair has gone through."""
    before, after = (_array(each.ranked_correct) > 0.5 for each in (first, second))
    return np.where(before, np.where(after, 0, 2), np.where(after, 1, 3))


def largest_movers(first: PairEvaluation, second: PairEvaluation, count: int) -> list[int]:
    """Places of the pairs whose margin changed most between two moments, the largest first."""
    change = np.abs(_array(second.margin) - _array(first.margin))
    order = np.argsort(-np.nan_to_num(change, nan=-1.0), kind="stable")
    return [int(place) for place in order[:count] if np.isfinite(change[place])]


def _diagonal(x: Numbers, y: Numbers) -> tuple[Layer, ...]:
    both = np.concatenate([x, y])
    both = both[np.isfinite(both)]
    if not len(both):
        return ()
    ends = np.array([both.min(), both.max()])
    return (Line(x=ends, y=ends, name="no change", colours=("muted",), dash="dash", width=1.5),)


def _array(values: Any) -> Numbers:  # noqa: ANN401 - an array or a tensor
    return np.asarray(values, dtype=np.float64)


# ------------------------------------------------------------------ the objective


def objective_loss(objective: Objective, settings: dict[str, float]) -> Figure:
    """The loss of one pair of 20 tokens an answer as its margin moves.

    Raises:
        ValueError: a hyperparameter that the objective refuses.
    """
    x, values, _ = _objective_curve(objective, settings)
    return _objective_figure(objective, x, values, Axis("Loss", "a pair"), "series0")


def objective_slope(objective: Objective, settings: dict[str, float]) -> Figure:
    """The loss's derivative by the margin: how hard a pair pulls.

    Raises:
        ValueError: a hyperparameter that the objective refuses.
    """
    x, _, slope = _objective_curve(objective, settings)
    return _objective_figure(objective, x, slope, Axis("Gradient", "loss a nat"), "series1")


def _objective_curve(
    objective: Objective, settings: dict[str, float]
) -> tuple[Numbers, Numbers, Numbers]:
    margins = torch.linspace(-_CURVE_SPAN, _CURVE_SPAN, _CURVE_POINTS, dtype=torch.float64)
    found = margin_curve(objective, margins, **settings)  # type: ignore[arg-type]
    return _array(found.margin), _array(found.loss), _array(found.gradient)


def _objective_figure(
    objective: Objective, x: Numbers, y: Numbers, axis: Axis, colour: str
) -> Figure:
    symbol = "d = a − r" if objective.needs_reference else "m"
    line = Line(x=x, y=y, colours=(colour,), width=2.5)
    return Figure("", Axis(f"Margin {symbol}", "nats"), axis, (_zero("x"), _zero("y"), line))

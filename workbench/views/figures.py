"""From the engine's tables to figures: pure functions, one for each figure of the app.

`groups` are one label (or None where not known) for each row of the table. What is not finite
cannot be drawn: it is left out and the figure's note says how much. Intervals are 95 %.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.engine.fairness import GroupSummary
from workbench.engine.questions import TokenDidPair
from workbench.engine.settings import PAPER_BETAS, Settings
from workbench.engine.values import DidTable, IdealizedCurve, RankingTable, RewardTable
from workbench.objectives.dpo import sigmoid_loss
from workbench.palette import SERIES
from workbench.views.figure import (
    UNKNOWN,
    Axis,
    Band,
    Bars,
    Codes,
    Detail,
    Figure,
    Layer,
    Line,
    Members,
    Numbers,
    Points,
    Rule,
)

Groups = Sequence[str | None] | None

REWARD_UNIT = "β·nats"
NOTHING_SCORED = "No pair is scored yet."
_Z = 1.959964
_MOST_GROUPS = 6
_OTHERS = "all others"
_MOST_BINS = 60
_CURVE_POINTS = 201
_BAND_BINS = 10
_BAND_MEMBERS = 8


# ------------------------------------------------------------------ rewards


def margin_histogram(
    table: RewardTable, groups: Groups = None, *, unit: str = REWARD_UNIT
) -> Figure:
    """Distribution of the reward margins; zero is always an edge between two bins.

    Without groups, bars below zero (pairs that the rewards rank wrongly) have a colour of their
    own; with groups, bars are stacked.
    """
    kept, margin = _kept(table.margin)
    edges = _edges(margin)
    parts = _sides(margin) if groups is None else _groups(groups, kept)
    layers: list[Layer] = [_stacked(margin, edges, parts)] if len(margin) else []
    return Figure(
        "Reward margins",
        Axis("Reward margin, chosen − rejected", unit),
        Axis("Pairs", "count", range=(0.0, _tallest(margin, edges))),
        (*layers, _zero("x")),
        empty=NOTHING_SCORED,
        note=_note(_margin_words(margin), _left_out(kept)),
    )


def margin_ecdf(table: RewardTable, groups: Groups = None, *, unit: str = REWARD_UNIT) -> Figure:
    """Share of pairs with a margin of at most x, as a step for each group; each pair is a point."""
    kept, margin = _kept(table.margin)
    parts = _groups(groups, kept)
    order = np.lexsort((margin, parts.codes))
    ordered, codes = margin[order], parts.codes[order]
    share = _shares(codes)
    layers = (
        _steps(ordered, share, codes, parts),
        Points(
            x=ordered, y=share, group=codes, labels=parts.labels, colours=parts.colours,
            rows=_numpy_rows(table.rows)[kept][order], size=4,
        ),
    )  # fmt: skip
    return Figure(
        "Reward margins, cumulated",
        Axis("Reward margin, chosen − rejected", unit),
        Axis("Pairs with at most this margin", "share"),
        (*layers, _zero("x")),
        empty=NOTHING_SCORED,
        note=_note(_margin_words(margin), _left_out(kept)),
    )


def chosen_against_rejected(
    table: RewardTable, groups: Groups = None, *, unit: str = REWARD_UNIT
) -> Figure:
    """Implicit rewards of both answers of each pair; above the diagonal is ranked right."""
    kept, rejected, chosen = _kept(table.rejected, table.chosen)
    parts = _ranked(chosen > rejected) if groups is None else _groups(groups, kept)
    margin = Detail("margin", chosen - rejected, unit)
    points = _pairs(rejected, chosen, table.rows, kept, parts, margin, names=("rejected", "chosen"))
    return Figure(
        "Implicit rewards",
        Axis("Reward of the rejected answer", unit),
        Axis("Reward of the chosen answer", unit),
        (*_diagonal(rejected, chosen, "equal rewards"), points),
        empty=NOTHING_SCORED,
        note=_note(_accuracy_words(chosen - rejected), _left_out(kept)),
    )


def margin_against_length(
    table: RewardTable, groups: Groups = None, *, unit: str = REWARD_UNIT
) -> Figure:
    """Reward margin against how much longer the chosen answer is: a slope is a length bias."""
    kept, length, margin = _kept(table.length_difference, table.margin)
    parts = _groups(groups, kept)
    points = _pairs(length, margin, table.rows, kept, parts, names=("length difference", "margin"))
    fit = _fit(length, margin)
    line = fit.layer() if fit else ()
    words = f"slope {_short(fit.slope)} a token, correlation r = {fit.r:.2f}" if fit else ""
    return Figure(
        "Margin against length",
        Axis("Length of chosen − rejected", "tokens"),
        Axis("Reward margin", unit),
        (_zero("x"), _zero("y"), points, *line),
        empty=NOTHING_SCORED,
        note=_note(_pairs_word(len(margin)), words, _left_out(kept)),
    )


# ------------------------------------------------------------------ ranking


def idealized_accuracy(ranking: RankingTable, curve: IdealizedCurve, settings: Settings) -> Figure:
    """R*(beta), the ranking accuracy of the policy that minimises the DPO loss, beside R.

    Source: Chen et al. 2024, Theorem 3.1 and Eq. 3; the grid of beta is that paper's.
    """
    kept, betas, accuracy = _kept(curve.betas, curve.accuracy)
    _, grid_beta, grid = _kept(np.array(PAPER_BETAS), curve.grid)
    x = Axis("β", "inverse temperature", "log")
    y = Axis("Ranking accuracy", "share of pairs")
    if not len(ranking.rows) or not len(betas):
        return Figure("Idealized ranking accuracy", x, y, empty=NOTHING_SCORED)
    achieved, reference = _mean(ranking.correct), _mean(ranking.reference_correct)
    return Figure(
        "Idealized ranking accuracy",
        x,
        y,
        (
            *_rule(achieved, "y", "R, policy", "series0", width=2.5, include=True),
            *_rule(reference, "y", "R, reference", "muted", dash="dash", width=2.0, include=True),
            *_rule(settings.beta, "x", f"β = {settings.beta:g}", "text", dash="dot"),
            Line(x=betas, y=accuracy, name="R*, ideal", colours=("series1",), width=2.5),
            Points(x=grid_beta, y=grid, name="R*, paper's grid", colours=("series1",), size=8),
        ),
        empty=NOTHING_SCORED,
        note=_note(_grid_words(grid), _gap_words(grid, achieved), _left_out(kept)),
    )  # fmt: skip


def loss_against_log_ratio(ranking: RankingTable, settings: Settings) -> Figure:
    """Loss of each pair against the reference's log-ratio c, with the exact flip curve.

    A pair is ranked right exactly where its loss lies below -log sigmoid(-beta * gamma * c): the
    worse the reference ranks it, the lower the loss must fall. Source: Chen et al. 2024, Thm 4.1.
    """
    kept, c, loss = _kept(ranking.reference_log_ratio, ranking.loss)
    correct = np.asarray(ranking.correct, dtype=np.float64)[kept]
    parts = _ranked(correct > 0.5, tied=correct == 0.5)
    m = Detail("policy log-ratio", np.asarray(ranking.policy_log_ratio)[kept], _nats(settings))
    points = _pairs(c, loss, ranking.rows, kept, parts, m, names=("c", "loss"))
    flipped = _note(_share_words(correct[c > 0], "where the reference is wrong"))
    return Figure(
        "Loss against the reference's log-ratio",
        Axis("c = log π_ref(rejected) − log π_ref(chosen)", _nats(settings)),
        Axis("DPO loss", "nats", range=_headroom(loss)),
        (_zero("x"), points, *_flip_curve(c, settings)),
        empty=NOTHING_SCORED,
        note=_note(
            _pairs_word(len(loss)),
            f"right below the curve, at β = {settings.beta:g}, γ = {settings.gamma:g}",
            flipped,
            _left_out(kept),
        ),
    )


# ------------------------------------------------------------------ differential information


def did_by_prompt(did: DidTable) -> Figure:
    """DID entropy of each prompt, sorted within candidate sets of equal size, under log |S|."""
    kept, entropy, size = _kept(did.entropy, did.size)
    order = np.lexsort((entropy, size))
    entropy, size, place = entropy[order], size[order], np.arange(1.0, len(order) + 1)
    points = Points(
        x=place, y=entropy, name="DID entropy", colours=("series0",),
        rows=_numpy_rows(did.prompt_rows)[kept][order], also=_members(did, kept, order),
        details=_did_details(did, kept, order),
    )  # fmt: skip
    bound = Line(
        x=np.repeat(place, 2) + np.tile([-0.5, 0.5], len(place)), y=np.repeat(np.log(size), 2),
        name="log |S|, the most there can be", colours=("muted",), dash="dash",
    )  # fmt: skip
    return Figure(
        "DID entropy by prompt",
        Axis("Prompts by |S|, then by entropy", "rank"),
        Axis("DID entropy H", "nats", range=(0.0, None)),
        (bound, points),
        empty="No prompt has two scored answers yet.",
        note=_note(_sizes_words(size), _mean_words("mean H", entropy, "nats"), _left_out(kept)),
    )


def entropy_against_change(did: DidTable) -> Figure:
    """DID entropy against the change of the policy's own entropy over the same candidates."""
    kept, change, entropy = _kept(did.policy_entropy_change, did.entropy)
    size = np.asarray(did.size, dtype=np.int64)[kept]
    parts = _by_size(size)
    everything = np.arange(len(change))
    points = Points(
        x=change, y=entropy, group=parts.codes, labels=parts.labels,
        rows=_numpy_rows(did.prompt_rows)[kept], also=_members(did, kept, everything),
        details=(
            Detail("H", entropy, "nats"),
            Detail("change", change, "nats"),
            *_did_details(did, kept, everything)[1:],
        ),
    )  # fmt: skip
    return Figure(
        "DID entropy against change of entropy",
        Axis("Change of policy entropy over the candidates", "nats"),
        Axis("DID entropy H", "nats"),
        (_zero("x"), points),
        empty="No prompt has two scored answers yet.",
        note=_note(
            _many(len(size), "prompt"),
            _mean_words("mean change", change, "nats"),
            "left of 0: surer than the reference",
            _left_out(kept),
        ),
    )


_MOVES = (
    "chosen rises",
    "chosen falls, margin grows",
    "chosen falls, margin shrinks",
)


def displacement(did: DidTable, *, unit: str = "nats") -> Figure:
    """What training did to the log-likelihood of both answers of each pair.

    Likelihood displacement is the margin growing (above the diagonal) while the chosen answer
    becomes less likely (below the horizontal rule).
    """
    kept, chosen, rejected = _kept(did.chosen_shift, did.rejected_shift)
    codes = np.where(chosen >= 0, 0, np.where(chosen > rejected, 1, 2))
    parts = _Parts(codes, _MOVES, ("good", "series4", "bad"))
    names = ("rejected", "chosen")
    points = _pairs(rejected, chosen, did.rows, kept, parts, names=names, unit=unit)
    displaced = int((codes == 1).sum())
    words = f"{displaced} displaced: the margin grows while the chosen answer becomes less likely"
    return Figure(
        "Displacement of the log-likelihood",
        Axis("Rejected, log π − log π_ref", unit),
        Axis("Chosen, log π − log π_ref", unit),
        (*_diagonal(rejected, chosen, "equal shift"), _zero("x"), _zero("y"), points),
        empty=NOTHING_SCORED,
        note=_note(_pairs_word(len(chosen)), words if len(chosen) else "", _left_out(kept)),
    )


def token_series(series: Mapping[str, Any], title: str, unit: str, label: str = "") -> Figure:
    """A value at each token position, one line for each name of `series`."""
    layers: list[Layer] = []
    missing = 0
    for place, (name, values) in enumerate(series.items()):
        numbers = np.asarray(values, dtype=np.float64)
        position = np.arange(1.0, len(numbers) + 1)
        missing += int((~np.isfinite(numbers)).sum())
        look = {"name": name, "colours": (f"series{place % 7}",)}
        shown = np.where(np.isfinite(numbers), numbers, np.nan)
        layers.append(Line(x=position, y=shown, dash="dash" if place % 2 else "", **look))  # type: ignore[arg-type]
        layers.append(Points(x=position, y=shown, size=5, **look))  # type: ignore[arg-type]
    return Figure(
        title,
        Axis("Token of the answer", "position"),
        Axis(label or title, unit),
        tuple(layers),
        empty="Select a pair to see its tokens.",
        note=f"{_many(missing, 'token')} without a finite value left out" if missing else "",
    )


def token_did(answer: TokenDidPair | Exception | None) -> Figure:
    """DID by token of both answers of a pair; nothing while it is not known."""
    series = {}
    if isinstance(answer, TokenDidPair):
        series = {"chosen": answer.chosen, "rejected": answer.rejected}
    title = "Differential information by token: log V − H(q_t)"
    return token_series(series, title, "nats", "log V − H(q_t)")


# ------------------------------------------------------------------ fairness


def group_densities(
    grid: Any,  # noqa: ANN401 - an array or tensor, or None while there is none
    densities: Any,  # noqa: ANN401
    labels: Sequence[str],
    outcome_label: str,
    *,
    unit: str = REWARD_UNIT,
) -> Figure:
    """Kernel densities of the outcome by group; `densities` has one row a group."""
    curves = np.zeros((0, 0)) if densities is None else np.asarray(densities, dtype=np.float64)
    x = np.empty(0) if grid is None else np.asarray(grid, dtype=np.float64)
    layers: list[Layer] = []
    for place, (label, curve) in enumerate(zip(labels, curves, strict=True)):
        look = {"name": label, "colours": (f"series{place % 7}",)}
        dash = ("", "dash", "dot", "dashdot")[place % 4]
        layers.append(Line(x=x, y=curve, dash=dash, **look))  # type: ignore[arg-type]
        if len(curves) <= 4:
            floor = np.zeros(len(x))
            layers.append(Band(x=x, y0=floor, y1=curve, opacity=0.12, **look))  # type: ignore[arg-type]
    return Figure(
        f"Density of the {outcome_label} by group",
        Axis(_sentence(outcome_label), unit),
        Axis("Density", f"per {unit}", range=(0.0, None)),
        (*layers, _zero("x")),
        empty="Choose an attribute with at least two known values.",
        note="Gaussian kernel" if layers else "",
    )


def outcome_against_attribute(
    outcome: Any,  # noqa: ANN401 - arrays or tensors, shape (used,)
    values: Any,  # noqa: ANN401
    label: str,
    rows: Any,  # noqa: ANN401
    outcome_label: str,
    *,
    unit: str = REWARD_UNIT,
) -> Figure:
    """The outcome against a continuous attribute, with means over equally large slices."""
    kept, y, x = _kept(outcome, values)
    points = _pairs(x, y, rows, kept, _groups(None, kept), names=(label, "outcome"), unit=unit)
    return Figure(
        f"{_sentence(outcome_label)} against {label}",
        Axis(label, "attribute value"),
        Axis(_sentence(outcome_label), unit),
        (_zero("y"), points, *_slices(x, y)),
        empty="No pair has both a score and this attribute.",
        note=_note(_pairs_word(len(y)), _left_out(kept)),
    )


def group_means(
    summaries: Sequence[GroupSummary],
    scale: float,
    outcome_label: str,
    *,
    unit: str = REWARD_UNIT,
) -> Figure:
    """Mean outcome of each group with its 95 % t interval; `scale` multiplies both."""
    known = [each for each in summaries if math.isfinite(each.mean)]
    mean = scale * np.array([each.mean for each in known], dtype=np.float64)
    half = abs(scale) * np.array([_half_width(each) for each in known], dtype=np.float64)
    names = tuple(f"{place}  {each.label}" for place, each in enumerate(known, start=1))
    small = [each.label for each in known if each.small]
    outside = len(summaries) - len(known)
    return Figure(
        f"Mean {outcome_label} by group",
        Axis("Group", "number", range=(0.4, len(known) + 0.6), names=names),
        Axis(f"{_sentence(outcome_label)}, mean", unit),
        (_zero("y"), *(_means(mean, half, names, known) if known else ())),
        empty="Choose an attribute to compare its groups.",
        note=_note(
            "bars: 95 % t intervals" if known else "",
            f"⚠ fewer than 10 pairs: {_listed(small)}" if small else "",
            f"{_many(outside, 'group')} without a finite mean left out" if outside else "",
        ),
    )


# ------------------------------------------------------------------ groups


@dataclass(frozen=True)
class _Parts:
    """Group codes of the marks drawn, with names and colours."""

    codes: Codes
    labels: tuple[str, ...]
    colours: tuple[str, ...] = ()


def _groups(groups: Groups, kept: Members) -> _Parts:
    """Codes of the kept rows; the largest groups keep their names, the rest is `_OTHERS`."""
    if groups is None:
        return _Parts(np.zeros(int(kept.sum()), dtype=np.int64), ("",), ("series0",))
    if len(groups) != len(kept):
        raise ValueError(f"{len(groups)} group labels for {len(kept)} pairs: give one for each")
    import pandas as pd

    found, names = pd.factorize(np.array(groups, dtype=object)[kept])
    codes = found.astype(np.int64)
    sizes = np.bincount(codes[codes >= 0], minlength=len(names))
    order = sorted(range(len(names)), key=lambda code: _natural(str(names[code])))
    if len(order) > _MOST_GROUPS:
        largest = set(np.argsort(-sizes, kind="stable")[: _MOST_GROUPS - 1].tolist())
        order = [code for code in order if code in largest]
    labels = [str(names[code]) for code in order]
    if len(names) > len(order):
        labels.append(_OTHERS)
    place = np.full(len(names) + 1, len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    place[-1] = len(labels)
    colours = SERIES[: len(labels)]
    if (codes < 0).any():
        return _Parts(place[codes], (*labels, UNKNOWN), (*colours, "muted"))
    return _Parts(place[codes], tuple(labels), colours)


def _natural(label: str) -> tuple[int, float, str]:
    """Numbers (and bands that begin with one) by size before words by letter."""
    try:
        return 0, float(label.split(" ")[0]), label
    except ValueError:
        return 1, 0.0, label


def _sides(margin: Numbers) -> _Parts:
    codes = np.where(margin < 0, 1, 0)
    return _Parts(codes, ("chosen ahead", "rejected ahead"), ("good", "bad"))


def _ranked(right: Members, tied: Members | None = None) -> _Parts:
    codes = np.where(right, 0, 1)
    labels, colours = ("ranked right", "ranked wrong"), ("good", "bad")
    if tied is None or not tied.any():
        return _Parts(codes, labels, colours)
    return _Parts(np.where(tied, 2, codes), (*labels, "tied"), (*colours, "muted"))


def _by_size(size: Codes) -> _Parts:
    sizes = np.unique(size)
    named = sizes[: _MOST_GROUPS - 1]
    labels = [f"|S| = {each}" for each in named.tolist()]
    if len(sizes) > len(named):
        labels.append(f"|S| > {named[-1]}")
    return _Parts(np.searchsorted(named, size), tuple(labels))


def _members(did: DidTable, kept: Members, order: NDArray[Any]) -> tuple[Codes, Codes]:
    """The pairs of each prompt and the point that stands for them."""
    rows, prompt = _numpy_rows(did.rows), np.asarray(did.prompt_of_pair, dtype=np.int64)
    first = _numpy_rows(did.prompt_rows)[kept][order]
    most = max((int(each.max()) for each in (rows, first) if len(each)), default=-1)
    prompt_of_row = np.full(most + 2, -1, dtype=np.int64)
    prompt_of_row[rows] = prompt
    point_of_prompt = np.full(int(prompt.max(initial=-1)) + 2, -1, dtype=np.int64)
    point_of_prompt[prompt_of_row[first]] = np.arange(len(first))
    point_of_prompt[-1] = -1
    point = point_of_prompt[prompt]
    return rows[point >= 0], point[point >= 0]


# ------------------------------------------------------------------ layers


def _pairs(
    x: Numbers,
    y: Numbers,
    rows: Any,  # noqa: ANN401
    kept: Members,
    parts: _Parts,
    *details: Detail,
    names: tuple[str, str],
    unit: str = "",
) -> Points:
    """One point for each pair, which the reader can pick."""
    own = (Detail(names[0], x), Detail(names[1], y, unit))
    return Points(
        x=x, y=y, group=parts.codes, labels=parts.labels, colours=parts.colours,
        rows=_numpy_rows(rows)[kept], details=(*own, *details),
    )  # fmt: skip


def _zero(along: str) -> Rule:
    return Rule(at=0.0, along="x" if along == "x" else "y", colours=("muted",), width=1.0)


def _rule(at: float, along: str, name: str, token: str, **style: Any) -> tuple[Layer, ...]:  # noqa: ANN401
    if not math.isfinite(at):
        return ()
    side = "x" if along == "x" else "y"
    return (Rule(at=at, along=side, name=name, colours=(token,), **style),)  # type: ignore[arg-type]


def _diagonal(x: Numbers, y: Numbers, name: str) -> tuple[Layer, ...]:
    if not len(x):
        return ()
    ends = np.array([min(x.min(), y.min()), max(x.max(), y.max())])
    return (Line(x=ends, y=ends, name=name, colours=("muted",), dash="dash", width=1.5),)


def _stacked(values: Numbers, edges: Numbers, parts: _Parts) -> Bars:
    """Counts of each group in each bin, one group on top of the other; empty bars left out."""
    bins = len(edges) - 1
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, bins - 1)
    counts = np.bincount(parts.codes * bins + place, minlength=len(parts.labels) * bins)
    height = counts.reshape(-1, bins).astype(np.float64)
    base = np.cumsum(height, axis=0) - height
    group, at = np.nonzero(height)
    return Bars(
        x0=edges[at], x1=edges[at + 1], height=height[group, at], y0=base[group, at],
        group=group, labels=parts.labels, colours=parts.colours, opacity=0.9,
    )  # fmt: skip


def _tallest(values: Numbers, edges: Numbers) -> float | None:
    """Top of a stacked histogram's axis."""
    return 1.05 * float(np.histogram(values, edges)[0].max()) if len(values) else None


def _edges(values: Numbers) -> Numbers:
    """Bins of Freedman and Diaconis's width, at most 60, aligned so that zero is an edge."""
    if not len(values):
        return np.array([0.0, 1.0])
    span = float(np.ptp(values)) or abs(float(values[0])) or 1.0
    low, high = np.quantile(values, [0.25, 0.75])
    width = 2 * float(high - low) / len(values) ** (1 / 3)
    width = max(width, span / _MOST_BINS) if width > 0 else span / 10
    first, last = math.floor(values.min() / width), math.floor(values.max() / width) + 1
    return np.arange(first, last + 1) * width


def _shares(codes: Codes) -> Numbers:
    """Rank of each value within its group over the group's size; values sorted by group."""
    if not len(codes):
        return np.empty(0)
    _, start, count = np.unique(codes, return_index=True, return_counts=True)
    within = np.arange(len(codes)) - np.repeat(start, count)
    return (within + 1) / np.repeat(count, count)


def _steps(values: Numbers, share: Numbers, codes: Codes, parts: _Parts) -> Line:
    """The steps of a cumulated distribution, from zero at the first value of each group."""
    first = np.r_[True, codes[1:] != codes[:-1]] if len(codes) else np.empty(0, dtype=bool)
    before = np.where(first, 0.0, np.r_[0.0, share[:-1]]) if len(codes) else share
    return Line(
        x=np.repeat(values, 2), y=np.stack([before, share], axis=1).ravel(),
        group=np.repeat(codes, 2), labels=parts.labels, colours=parts.colours,
    )  # fmt: skip


def _flip_curve(c: Numbers, settings: Settings) -> tuple[Layer, ...]:
    if not len(c):
        return ()
    margin = 0.04 * (float(np.ptp(c)) or 1.0)
    x = torch.linspace(
        float(c.min()) - margin, float(c.max()) + margin, _CURVE_POINTS, dtype=torch.float64
    )
    y = sigmoid_loss(torch.zeros_like(x), x, settings.beta, settings.gamma)
    name = "flip curve, −log σ(−βγc)"
    return (Line(x=x.numpy(), y=y.numpy(), name=name, colours=("text",), width=2.0),)


def _headroom(loss: Numbers) -> tuple[float, float] | None:
    """The loss axis holds the points and the curve where c is 0, not the curve's far left end."""
    top = 1.2 * max(float(loss.max(initial=0.0)), 2 * math.log(2))
    return (-0.03 * top, top) if len(loss) else None


def _slices(x: Numbers, y: Numbers) -> tuple[Layer, ...]:
    """Mean of y with its 95 % interval over slices of x with equally many pairs."""
    bins = min(_BAND_BINS, len(x) // _BAND_MEMBERS)
    if bins < 2:
        return ()
    order = np.argsort(x, kind="stable")
    start = np.linspace(0, len(x), bins + 1).astype(int)[:-1]
    count = np.diff(np.r_[start, len(x)])
    centre, mean, square = (
        np.add.reduceat(each[order], start) / count for each in (x, y, np.square(y))
    )
    spread = np.sqrt(np.maximum(square - mean**2, 0) * count / (count - 1))
    half = _Z * spread / np.sqrt(count)
    look: dict[str, Any] = {"name": "mean of a slice, 95 %", "colours": ("series1",)}
    return (
        Line(x=centre, y=mean, width=2.5, **look),
        Band(x=centre, y0=mean - half, y1=mean + half, opacity=0.2, **look),
    )


def _means(
    mean: Numbers, half: Numbers, names: tuple[str, ...], known: Sequence[GroupSummary]
) -> tuple[Layer, ...]:
    codes = np.arange(len(mean))
    place = codes.astype(np.float64) + 1
    nothing = np.full(len(mean), np.nan)
    groups: dict[str, Any] = {"labels": names}
    ends = np.stack([mean - half, mean + half, nothing], axis=1).ravel()
    sizes = np.array([each.n for each in known], dtype=np.float64)
    details = (
        Detail("mean", mean),
        Detail("lower end", mean - half),
        Detail("upper end", mean + half),
        Detail("pairs", sizes),
    )
    return (
        Line(x=np.repeat(place, 3), y=ends, group=np.repeat(codes, 3), width=2.5, **groups),
        Points(x=place, y=mean, group=codes, size=11, opacity=1.0, details=details, **groups),
    )


def _half_width(group: GroupSummary) -> float:
    """Half of the 95 % t interval of a group's mean; NaN for a group of one."""
    if group.n < 2:
        return math.nan
    from scipy.special import stdtrit

    return float(stdtrit(group.n - 1, 0.975)) * group.standard_deviation / math.sqrt(group.n)


@dataclass(frozen=True)
class _Fit:
    """A least-squares line."""

    ends: Numbers
    slope: float
    intercept: float
    r: float

    def layer(self) -> tuple[Layer, ...]:
        """The line as a layer."""
        y = self.intercept + self.slope * self.ends
        look: dict[str, Any] = {"name": "least-squares line", "colours": ("series1",)}
        return (Line(x=self.ends, y=y, width=2.5, **look),)


def _fit(x: Numbers, y: Numbers) -> _Fit | None:
    """None where the values do not suffice for a line."""
    if len(x) < 3 or not np.ptp(x) or not np.ptp(y):
        return None
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    r = float(dx @ dy / math.sqrt((dx @ dx) * (dy @ dy)))
    ends = np.array([x.min(), x.max()])
    return _Fit(ends, slope, float(y.mean() - slope * x.mean()), r)


def _did_details(did: DidTable, kept: Members, order: NDArray[Any]) -> tuple[Detail, ...]:
    columns = (
        ("H", did.entropy, "nats"),
        ("candidates |S|", did.size, ""),
        ("H / log |S|", did.efficiency, ""),
        ("effective number", did.effective_number, ""),
    )
    return tuple(
        Detail(label, np.asarray(values, dtype=np.float64)[kept][order], unit)
        for label, values, unit in columns
    )


# ------------------------------------------------------------------ numbers and words


def _kept(*columns: Any) -> tuple[Any, ...]:  # noqa: ANN401 - a mask, then the columns
    """Which rows are finite in all columns, and the columns at those rows as float64."""
    arrays = [np.asarray(each, dtype=np.float64) for each in columns]
    kept = np.isfinite(arrays[0])
    for each in arrays[1:]:
        kept = kept & np.isfinite(each)
    return kept, *(each[kept] for each in arrays)


def _numpy_rows(rows: Any) -> Codes:  # noqa: ANN401 - an array or tensor of whole numbers
    return np.asarray(rows, dtype=np.int64)


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else math.nan


def _nats(settings: Settings) -> str:
    return "nats a token" if settings.length_normalised else "nats"


def _note(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _left_out(kept: Members) -> str:
    missing = int((~kept).sum())
    return f"{missing:,} without a finite value left out" if missing else ""


def _many(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def _pairs_word(count: int) -> str:
    return _many(count, "pair") if count else ""


def _margin_words(margin: Numbers) -> str:
    mean = _mean_words("mean", margin, "")
    return _note(_accuracy_words(margin), mean)


def _accuracy_words(margin: Numbers) -> str:
    if not len(margin):
        return ""
    return f"{_pairs_word(len(margin))}; reward accuracy {100 * (margin > 0).mean():.1f} %"


def _mean_words(name: str, values: Numbers, unit: str) -> str:
    return f"{name} {_short(float(values.mean()))} {unit}".strip() if len(values) else ""


def _share_words(values: Numbers, of: str) -> str:
    return f"right for {100 * (values > 0.5).mean():.1f} % {of}" if len(values) else ""


def _sizes_words(size: Numbers) -> str:
    if not len(size):
        return ""
    low, high = int(size.min()), int(size.max())
    sizes = f"|S| = {low}" if low == high else f"|S| from {low} to {high}"
    return f"{_many(len(size), 'prompt')}, {sizes}"


def _grid_words(grid: Numbers) -> str:
    if not len(grid):
        return ""
    low, median, high = (100 * float(each) for each in (grid.min(), np.median(grid), grid.max()))
    betas = ", ".join(f"{beta:g}" for beta in PAPER_BETAS)
    return f"R* over β ∈ {{{betas}}}: min {low:.1f} / median {median:.1f} / max {high:.1f} %"


def _gap_words(grid: Numbers, achieved: float) -> str:
    if not len(grid) or not math.isfinite(achieved):
        return ""
    gap = 100 * (float(np.median(grid)) - achieved)
    return f"R {100 * achieved:.1f} %; gap {_short(gap, 3)} pp"


def _short(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}g}".replace("-", "−")


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (" …" if len(names) > 4 else "")

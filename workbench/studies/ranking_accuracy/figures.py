"""The study's figures, from its tables alone."""

from collections.abc import Callable, Sequence

from workbench.study import plot
from workbench.study.base import Figure, Figures
from workbench.study.result import Cell, StudyResult, Table, rows_where

_FLOOR = 1e-6
"""What is smaller is drawn here: a logarithmic axis has no 0."""


def draw(result: StudyResult) -> Figures:
    """All figures, the paper's main one first."""
    tables = result.tables
    found = {
        "accuracy": _accuracy(tables["accuracy"]),
        "idealized": _idealized(tables["idealized"]),
        "transitions": _transitions(tables["transitions"], "share", _SHARES),
        "group-loss": _transitions(tables["transitions"], "loss", _LOSSES),
        "group-margin": _transitions(tables["transitions"], "margin", _MARGINS),
        "flip-curve": _flips(tables["flips"], _WORLD_FLIPS),
        "course": _course(tables["course"], tables["transitions"]),
        "gamma": _gamma(tables["ends"]),
        "distance": _distance(tables["checkpoints"]),
        "trade-off": _trade_off(tables["checkpoints"]),
        "pairs": _pairs(tables["pairs"]),
        "formulas": _formulas(tables["formulas"]),
    }
    if "language_flips" in tables:
        found["language-flip-curve"] = _flips(tables["language_flips"], _LANGUAGE_FLIPS)
    return found


_SHARES = (
    "Few wrongly ranked pairs flip before the held-out loss turns",
    "Share of the training pairs",
    "After Fig. 2, 5 to 7: shares of the training pairs by how the reference ranks them and how "
    "the policy does. The paper trains GPT-2, Pythia 2.8B and Llama 2 7B on HH-RLHF, where "
    "under 10 % flip; here a small learner trains in a world of its own.",
)
_LOSSES = (
    "The loss falls, also where the ranking stays wrong",
    "Mean DPO loss [nats]",
    "After Fig. 2, 5 to 7: mean loss of each group of training pairs. A line is missing where its "
    "group is empty.",
)
_MARGINS = (
    "The margin rises, also where the ranking stays wrong",
    "Mean reward margin, beta (m + c)",
    "After Fig. 2, 5 to 7: mean reward margin of each group of training pairs, in the units of "
    "the loss's argument. A line is missing where its group is empty.",
)
_WORLD_FLIPS = (
    "A pair is ranked right exactly on and below the curve",
    "After Fig. 3 and 8: DPO loss of each training pair against the reference's log-ratio, at the "
    "step of the lowest held-out loss. The curve is softplus(-beta c); by Theorem 4.1 nothing "
    "right lies above it and nothing wrong on or below.",
)
_LANGUAGE_FLIPS = (
    "The same curve for a language model on the input's pairs",
    "After Fig. 3: DPO loss of each pair of the input under the tuned language model, whose "
    "reference it started from. The paper's models have 124 million to 7 billion weights.",
)


def _accuracy(table: Table) -> Figure:
    figure = plot.figure(
        "Models rank about as many pairs rightly as a coin",
        "Model",
        "Share of pairs ranked right",
        "After Fig. 1 and Table 1: ranking accuracy R and its length-normalised form of each model "
        "on its pairs, before and after DPO, with the reference's ideal one at the median of the "
        "paper's betas, by Eq. 3 and as the released code has it. The paper has 14 models on 8 "
        "data sets, most between 40 and 55 %.",
    )
    names = {
        "ranking": "R",
        "per_token": "R per token",
        "ideal_median": "R*, Eq. 3",
        "released_code_median": "R*, released code",
    }
    for place, (column, name) in enumerate(names.items()):
        plot.points(figure, table["model"], table[column], name, place, _strings(table["data"]))
    figure.update_traces(marker_size=11)
    figure.update_yaxes(range=[0, 1.04])
    plot.rule(figure, y=0.5)
    return figure


def _idealized(table: Table) -> Figure:
    figure = plot.figure(
        "The ideal ranking accuracy falls as beta rises",
        "beta",
        "Share of pairs ranked right",
        "After Table 1, which gives the least, median and most of R* over five betas: R* at every "
        "beta (Corollary 3.3), and dotted what the trained policy achieves.",
        log_x=True,
    )
    for place, name in enumerate(dict.fromkeys(table["source"])):
        rows = rows_where(table, {"source": name})
        plot.line(figure, rows["beta"], rows["ideal"], f"R*, {name}", place)
        ends = [rows["beta"][0], rows["beta"][-1]]
        achieved = [rows["achieved"][0]] * 2
        plot.line(figure, ends, achieved, f"R achieved, {name}", place, dash="dot")
    figure.update_yaxes(range=[0, 1.04])
    return figure


def _transitions(table: Table, column: str, texts: tuple[str, str, str]) -> Figure:
    title, y, caption = texts
    shown = f" Shown: {table['policy'][0]}."
    figure = plot.figure(title, "Step", y, caption + shown)
    for place, group in enumerate(dict.fromkeys(table["group"])):
        rows = rows_where(table, {"group": group})
        plot.line(figure, rows["step"], rows[column], str(group), place)
        _mark_lone(figure, rows["step"], rows[column], place)
    plot.rule(figure, x=_number(table["best"][0]), label="\u00a0lowest held-out loss")
    return figure


def _mark_lone(figure: Figure, x: list[Cell], y: list[Cell], place: int) -> None:
    """Draw as points what has no neighbour to draw a line to."""
    padded = [None, *y, None]
    lone = [n for n in range(len(y)) if y[n] is not None and padded[n] is padded[n + 2] is None]
    if lone:
        plot.points(figure, [x[n] for n in lone], [y[n] for n in lone], "", place)
        figure.data[-1].showlegend = False


def _flips(table: Table, texts: tuple[str, str]) -> Figure:
    title, caption = texts
    figure = plot.figure(
        title, "Reference's log-ratio c [nats]", "DPO loss of the pair [nats]", caption
    )
    for place, (right, name) in enumerate(((True, "ranked right"), (False, "ranked wrongly"))):
        rows = rows_where(table, {"right": right})
        plot.points(figure, rows["c"], rows["loss"], name, place, _strings(rows["pair"]))
    curve = sorted(zip(map(_number, table["c"]), map(_number, table["flips_at"]), strict=True))
    plot.line(
        figure, [c for c, _ in curve], [at for _, at in curve], "softplus(−beta c)", 2, "dash"
    )
    # The curve climbs like −beta c to the left, where every pair lies far below it.
    top = 1.4 * max(map(_number, table["loss"]))
    figure.update_yaxes(range=[-0.04 * top, top])
    return figure


def _course(table: Table, shown: Table) -> Figure:
    policy = shown["policy"][0]
    figure = plot.figure(
        "The ranking accuracy goes on rising where the win rate does not",
        "Step",
        "Share",
        "After Fig. 9: ranking accuracy and win rate against the reference over DPO training "
        f"(gamma 1), of the {policy}. The paper asks GPT-4 for the winner; here the true reward "
        "decides, over all answers.",
    )
    rows = rows_where(table, {"policy": policy, "gamma": 1.0})
    for place, (column, name) in enumerate(_MEASURES.items()):
        plot.line(figure, rows["step"], rows[column], name, place)
    plot.rule(figure, y=0.5)
    return figure


_MEASURES = {
    "ranking": "R, training pairs",
    "held_out_ranking": "R, held-out pairs",
    "win_rate": "win rate",
}


def _gamma(table: Table) -> Figure:
    figure = plot.figure(
        "Less weight on the reference ranks more pairs right",
        "gamma",
        "Share at the last step",
        "After Fig. 10: DPO^gamma at the end of training; gamma 1 is DPO, gamma 0 leaves the "
        "reference out. The transformer may write something that is no answer of its world, which "
        "loses; the table cannot.",
    )
    for policy in dict.fromkeys(table["policy"]):
        rows = rows_where(table, {"policy": policy})
        dash = "solid" if policy == table["policy"][-1] else "dot"
        for place, (column, name) in enumerate(_MEASURES.items()):
            plot.line(figure, rows["gamma"], rows[column], f"{name}, {policy}", place, dash)
    return figure


def _distance(table: Table) -> Figure:
    figure = plot.figure(
        "Near the reference both rise, far from it they part",
        "||theta − theta_ref||²",
        "Share",
        "After Fig. 4, 11 and 12: every checkpoint of every gamma by the squared distance of its "
        f"weights from the reference's, of the {table['policy'][0]}. The first, at distance 0, is "
        "left out of the logarithmic axis.",
        log_x=True,
    )
    far = [place for place, value in enumerate(table["distance"]) if _number(value) > 0]
    x = [max(_number(table["distance"][place]), _FLOOR) for place in far]
    labels = [f"gamma {table['gamma'][n]}, step {table['step'][n]}" for n in far]
    for place, column in ((0, "ranking"), (2, "win_rate")):
        y = [table[column][n] for n in far]
        plot.points(figure, x, y, _MEASURES[column], place, labels)
    return figure


def _trade_off(table: Table) -> Figure:
    figure = plot.figure(
        "The correlation of accuracy and win rate turns its sign",
        "R of the training pairs",
        "Win rate",
        "After Fig. 4, 11 and 12: the same checkpoints, ranking accuracy against win rate, by "
        "whether the weights are near the reference's.",
    )
    for place, (near, name) in enumerate(((True, "near the reference"), (False, "far from it"))):
        rows = rows_where(table, {"near": near})
        labels = [f"gamma {g}, step {s}" for g, s in zip(rows["gamma"], rows["step"], strict=True)]
        plot.points(figure, rows["ranking"], rows["win_rate"], name, place, labels)
    plot.rule(figure, y=0.5)
    return figure


def _pairs(table: Table) -> Figure:
    source = table["source"][-1]
    rows = rows_where(table, {"source": source})
    figure = plot.figure(
        "The hardest and the easiest pairs",
        "Place by the reference's log-ratio, hardest first; those between are left out",
        "Reference's log-ratio c [nats]",
        "After Tables 7 and 8, which list the pairs whose c is largest and smallest (457.6 nats "
        f"and 423.4 the hardest): {source}; their texts are in the table of pairs.",
    )
    for place, (right, name) in enumerate(((True, "ranked right"), (False, "ranked wrongly"))):
        chosen = [n for n, found in enumerate(rows["right"]) if found is right]
        labels = [_pair_label(rows, n) for n in chosen]
        plot.points(
            figure, [n + 1 for n in chosen], [rows["c"][n] for n in chosen], name, place, labels
        )
    figure.update_traces(marker_size=11)
    plot.rule(figure, y=0.0)
    return figure


def _formulas(table: Table) -> Figure:
    figure = plot.figure(
        "The printed R* does not follow from Eq. 3",
        "beta",
        "Mean R* of simulated pairs",
        "Beside Table 1: the released code multiplies the vote ratio by a quotient of two "
        "log-likelihoods where Eq. 3 has the ratio of two likelihoods. The quotient lies near 1 "
        "and points the other way, so the code's R* follows the votes; Eq. 3 falls to the "
        "reference's accuracy. Marks are an independent simulation.",
        log_x=True,
    )
    names = {"eq3": "Eq. 3", "code": "released code", "eq3_per_token": "Eq. 3 per token"}
    for place, (formula, name) in enumerate(names.items()):
        rows = rows_where(table, {"formula": formula})
        plot.line(figure, rows["beta"], rows["ideal"], name, place)
        plot.points(figure, rows["beta"], rows["expected"], f"{name}, expected", place)
    figure.update_yaxes(range=[0.4, 1.04])
    return figure


def _pair_label(rows: Table, place: int) -> str:
    cut: Callable[[Cell], str] = lambda text: str(text)[:80]  # noqa: E731
    parts = [f"{name}: {cut(rows[name][place])}" for name in ("prompt", "chosen", "rejected")]
    return "<br>".join([f"{rows['kind'][place]}, loss {_number(rows['loss'][place]):.3g}", *parts])


def _number(value: Cell) -> float:
    return float(value or 0.0)


def _strings(values: Sequence[Cell]) -> list[str]:
    return [str(value) for value in values]

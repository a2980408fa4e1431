"""The figures, from the tables alone: calibration, cells, gerrymandering, scores, decisions."""

from collections.abc import Sequence

from workbench.studies.multitype_fairness.claims import ALL_CELLS
from workbench.study import plot
from workbench.study.base import Figure, Figures
from workbench.study.result import Cell, StudyResult, Table, rows_where

_FLOOR = 1e-6
"""Smaller divergences are drawn here: a logarithmic axis has no 0."""
_REGULARISERS = ("CCdCov", "JdCov")
_SHOWN = 4
_LETTERS = {"none": "a", "CCdCov": "b", "JdCov": "c"}
_TITLES = {"none": "no regularisation", "CCdCov": "CCdCov", "JdCov": "JdCov"}
_ACCURACIES = {
    "rps": ("rps", "Ranked probability score"),
    "deviance": ("deviance", "Mean Poisson deviance"),
    "log-loss": ("log_loss", "Mean log-loss [nats]"),
}


def draw(result: StudyResult) -> Figures:
    """All figures, the paper's calibration of lambda first."""
    tables = result.tables
    return {
        "js-by-lambda": _js_by_lambda(tables["motor"]),
        **{
            f"{name}-against-js": _trade_off(tables["motor"], tables["chosen"], *about)
            for name, about in _ACCURACIES.items()
        },
        **{
            f"densities-{name.lower()}": _densities(tables["densities"], tables["chosen"], name)
            for name in _LETTERS
        },
        **{
            f"distributions-{name.lower()}": _distributions(
                tables["distributions"], tables["chosen"], name
            )
            for name in _LETTERS
        },
        "claim-frequency": _frequency(tables["frequencies"]),
        "gender-share": _gender_share(tables["frequencies"]),
        "gerrymander-groups": _gerrymander(tables["gerrymander"]),
        "gerrymander-statistics": _statistics(tables["statistics"]),
        "scores": _scores(tables["scores"], _source(tables["parts"], "scores")),
        "decisions": _decisions(tables["decisions"], _source(tables["parts"], "decisions")),
        "decision-cells": _decision_cells(
            tables["decision_cells"], _source(tables["parts"], "decisions")
        ),
        "decision-ages": _decision_ages(
            tables["decision_ages"], _source(tables["parts"], "decisions")
        ),
    }


def _js_by_lambda(table: Table) -> Figure:
    figure = plot.figure(
        "Divergence between cells falls with lambda",
        "lambda",
        "Jensen-Shannon divergence [bits]",
        "The paper's calibration, left panel: mean validation divergence between the 20 cells of "
        "gender and region against lambda, from 0 to 150 over 10 seeds. Solid, ours: one seed, "
        "audited on rows that no network saw, with a logarithmic axis. Dotted, the paper's values "
        "on its own data.",
        log_y=True,
    )
    start = rows_where(table, {"regulariser": "none"})
    for place, name in enumerate(_REGULARISERS):
        own = rows_where(table, {"regulariser": name})
        weights = [*start["lambda"], *own["lambda"]]
        plot.line(figure, weights, _floored([*start["js"], *own["js"]]), name, place)
        theirs = [*start["paper_js"], *own["paper_js"]]
        known = [(x, y) for x, y in zip(weights, theirs, strict=True) if y is not None]
        xs, ys = [x for x, _ in known], [y for _, y in known]
        plot.line(figure, xs, ys, f"{name}, paper", place, dash="dot")
    return figure


def _trade_off(table: Table, chosen: Table, column: str, title: str) -> Figure:
    figure = plot.figure(
        f"What fairness costs: {title[0].lower()}{title[1:]}",
        title,
        "Jensen-Shannon divergence [bits]",
        "The paper's calibration, right panel: divergence against the ranked probability score, "
        "a point a lambda, the chosen ones marked (CCdCov 40, JdCov 30). Ours also against the "
        "deviance and the log-loss, on a logarithmic axis; what is hovered over says lambda.",
        log_y=True,
    )
    for place, name in enumerate((*_REGULARISERS, "none")):
        own = rows_where(table, {"regulariser": name})
        labels = [f"lambda = {_short(each)}" for each in own["lambda"]]
        plot.points(figure, own[column], _floored(own["js"]), name, place, labels)
    for place, name in enumerate(_REGULARISERS):
        row = rows_where(chosen, {"regulariser": name})
        plot.points(figure, row[column], _floored(row["js"]), f"{name}, chosen", place)
        figure.data[-1].marker.update(size=15, symbol="x-thin-open", line={"width": 3})
    return figure


def _densities(table: Table, chosen: Table, name: str) -> Figure:
    figure = plot.figure(
        f"Densities by cell: {_TITLES[name]}{_weight(chosen, name)}",
        "Expected claims",
        "Density",
        f"The paper's result panel ({_LETTERS[name]}), upper row: kernel densities (bandwidth "
        "0.05) of the expected claims in each of 20 cells, region by colour and gender by dash, "
        "the whole portfolio dashed. Ours has bandwidth 0.02, and colours the two cells of highest "
        "and of lowest mean without regularisation, the same in all three; the others are grey.",
    )
    _cells(figure, table, name, "density")
    return figure


def _distributions(table: Table, chosen: Table, name: str) -> Figure:
    figure = plot.figure(
        f"Distribution by cell: {_TITLES[name]}{_weight(chosen, name)}",
        "Expected claims",
        "Share of the cell at or below",
        f"The paper's result panel ({_LETTERS[name]}), lower row: empirical distribution "
        "functions in each of 20 cells. Ours are read off at 60 quantiles, and colour the two "
        "cells of highest and of lowest mean without regularisation; the others are grey.",
    )
    _cells(figure, table, name, "share")
    # The last hundredth reaches several times as far, and shows nothing.
    figure.update_xaxes(range=[0, _high(table["outcome"], table["share"])])
    return figure


def _cells(figure: Figure, table: Table, name: str, y: str) -> None:
    """A line a cell: the extreme ones in colours, the others grey behind them, all together."""
    shown = rows_where(table, {"regulariser": name})
    rows = {str(cell): rows_where(shown, {"cell": cell}) for cell in dict.fromkeys(shown["cell"])}
    order = _by_mean(rows_where(table, {"regulariser": "none"}), y)
    extreme = [*order[: _SHOWN // 2], *order[-_SHOWN // 2 :]]
    for place, cell in enumerate(each for each in order if each not in extreme):
        plot.line(figure, rows[cell]["outcome"], rows[cell][y], "other cells")
        figure.data[-1].update(showlegend=place == 0, meta={"token": "muted"}, opacity=0.45)
        figure.data[-1].line.update(width=1)
    for place, cell in enumerate(extreme):
        plot.line(figure, rows[cell]["outcome"], rows[cell][y], cell, place)
    whole = rows[ALL_CELLS]
    plot.line(figure, whole["outcome"], whole[y], ALL_CELLS, 4, dash="dash")
    plot.dress(figure)


def _by_mean(table: Table, y: str) -> list[str]:
    """Cells by their mean outcome, of a density or of quantiles."""
    means = {}
    for cell in dict.fromkeys(table["cell"]):
        rows = rows_where(table, {"cell": cell})
        outcome = [float(each or 0) for each in rows["outcome"]]
        weights = [float(each or 0) if y == "density" else 1.0 for each in rows[y]]
        total = sum(a * b for a, b in zip(outcome, weights, strict=True))
        means[str(cell)] = total / max(sum(weights), 1e-12)
    return sorted((cell for cell in means if cell != ALL_CELLS), key=lambda cell: means[cell])


def _high(outcomes: Sequence[Cell], shares: Sequence[Cell]) -> float:
    """The largest outcome below which 97 % of some cell lie."""
    rows = zip(outcomes, shares, strict=True)
    return max(float(outcome or 0) for outcome, share in rows if float(share or 0) <= 0.97)


def _frequency(table: Table) -> Figure:
    figure = plot.figure(
        "Claim frequency by region and gender",
        "Region, in order of the men's frequency",
        "Claims a year",
        "The paper's first exploratory figure: mean claim frequency in the ten regions, both "
        "genders side by side, region R the highest. Ours are claims by years at risk, not the "
        "mean of each policy's own frequency, on the portfolio at hand.",
    )
    order = _regions(table)
    for place, gender in enumerate(_genders(table)):
        plot.bars(figure, order, _by_region(table, gender, "frequency", order), gender, place)
    return figure


def _gender_share(table: Table) -> Figure:
    figure = plot.figure(
        "Gender share by region",
        "Region",
        "Share of the region's policies",
        "The paper's second exploratory figure: share of men and women in each region, stacked, "
        "with the overall share of men as a line (chi-square test of independence: p = 0.60). "
        "Ours is the portfolio at hand, side by side.",
    )
    order = sorted(_regions(table))
    genders = _genders(table)
    counts = {each: _by_region(table, each, "policies", order) for each in genders}
    sizes = [sum(row) for row in zip(*counts.values(), strict=True)]
    for place, gender in enumerate(genders):
        shares = [a / max(b, 1) for a, b in zip(counts[gender], sizes, strict=True)]
        plot.bars(figure, order, shares, gender, place)
    overall = sum(counts[genders[-1]]) / max(sum(sizes), 1)
    plot.rule(figure, y=overall, label=f"{genders[-1]} overall: {overall:.3f}")
    return figure


def _gerrymander(table: Table) -> Figure:
    figure = plot.figure(
        "Gerrymandered: alike in every margin, unlike in the cells",
        "Group",
        "Mean outcome",
        "After the paper's account of fairness gerrymandering, as we read it: two attributes A "
        "and B, and an outcome that favours the cells where they differ.",
    )
    for place, kind in enumerate(("margin", "cell")):
        rows = rows_where(table, {"kind": kind})
        plot.bars(figure, rows["group"], rows["mean"], kind, place)
    figure.update_layout(barmode="overlay")
    return figure


def _statistics(table: Table) -> Figure:
    figure = plot.figure(
        "What each statistic sees of it",
        "Statistic",
        "Value",
        "Ours: both single-attribute statistics of the gerrymandered outcome are 0; the "
        "concatenated and the joint one are not. At a gap of 1 they are (2 − √2)/8 and 1/8.",
    )
    plot.bars(figure, table["statistic"], table["value"], "V-statistic at 100 rows")
    return figure


def _scores(table: Table, source: str) -> Figure:
    figure = plot.figure(
        f"Scores ({source}): which penalty reaches the cells",
        "Penalty",
        "Jensen-Shannon divergence [bits]",
        "After the paper's COMPAS application, whose figures could not be read: divergence of the "
        "scores between cells of gender, race and age band under each penalty at one lambda, for "
        "logistic regression and a small network, which see the attributes unless scores_see is "
        f"off. Rows here: {source}.",
    )
    for place, model in enumerate(dict.fromkeys(table["model"])):
        rows = rows_where(table, {"model": model})
        plot.bars(figure, rows["regulariser"], rows["js"], str(model), place)
    return figure


def _decisions(table: Table, source: str) -> Figure:
    figure = plot.figure(
        f"Decisions ({source}): dependence on the person",
        "Attribute",
        "Distance correlation",
        "Ours, not in the paper: distance correlation of a language model's yes/no margins with "
        "each attribute, within templates, before and after the correction by CCdCov. Every "
        "person was corrected by a fit to others. Chance alone gives about 0.1 here.",
    )
    for place, column in enumerate(("before", "after")):
        plot.bars(figure, table["attribute"], table[f"dcor_{column}"], column, place)
    return figure


def _decision_cells(table: Table, source: str) -> Figure:
    figure = plot.figure(
        f"Decisions ({source}): mean margin by gender and race",
        "Mean margin [deviations]",
        "Gender, race",
        "Ours, not in the paper: mean yes/no margin of each cell, less its template's mean, in "
        "standard deviations, before and after the correction.",
    )
    for place, column in enumerate(("before", "after")):
        plot.points(figure, table[column], table["cell"], column, place)
    figure.update_yaxes(type="category")
    plot.rule(figure, x=0.0)
    return figure


def _decision_ages(table: Table, source: str) -> Figure:
    figure = plot.figure(
        f"Decisions ({source}): mean margin by age",
        "Age [years]",
        "Mean margin [deviations]",
        "Ours, not in the paper: mean yes/no margin of each decade of age, less its template's "
        "mean, in standard deviations, before and after the correction.",
    )
    for place, column in enumerate(("before", "after")):
        plot.line(figure, table["age"], table[column], column, place)
    plot.rule(figure, y=0.0)
    return figure


def _source(parts: Table, part: str) -> str:
    return str(rows_where(parts, {"part": part})["source"][0])


def _weight(chosen: Table, name: str) -> str:
    return (
        ""
        if name == "none"
        else f", lambda = {_short(rows_where(chosen, {'regulariser': name})['lambda'][0])}"
    )


def _short(value: Cell) -> str:
    return f"{float(value or 0):g}"


def _floored(values: Sequence[Cell]) -> list[float]:
    return [max(float(each or 0), _FLOOR) for each in values]


def _genders(table: Table) -> list[str]:
    return sorted({str(each) for each in table["gender"]})


def _regions(table: Table) -> list[str]:
    """Regions, the highest frequency of the last gender (men) first."""
    last = rows_where(table, {"gender": _genders(table)[-1]})
    rows = zip(last["frequency"], last["region"], strict=True)
    return [str(region) for _, region in sorted(rows, key=lambda row: -float(row[0] or 0))]


def _by_region(table: Table, gender: str, column: str, order: Sequence[str]) -> list[float]:
    rows = rows_where(table, {"gender": gender})
    found = dict(zip(rows["region"], rows[column], strict=True))
    return [float(found.get(region) or 0) for region in order]

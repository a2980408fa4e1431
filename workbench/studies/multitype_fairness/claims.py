"""What is read off the fitted networks: tables, and claims with the paper's numbers beside ours."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.metrics import dependence
from workbench.metrics.divergence import group_densities
from workbench.metrics.intervals import standard_error
from workbench.studies.multitype_fairness import gerrymander, paper
from workbench.studies.multitype_fairness.gerrymander import Identities
from workbench.studies.multitype_fairness.mechanism import Audited
from workbench.study.result import Cell, Claim

ALL_CELLS = "all cells"
_POINTS = 100
_ECDF_POINTS = 60
_BANDWIDTH = 0.02
_DENSITY_ROWS = 6000
"""Rows that the figure of densities takes, so that a slider need not wait."""
_TABLE = ("rps", "deviance", "log_loss", "ccdcov", "jdcov", "js", "js_adaptive", "uf")


@dataclass(frozen=True)
class Decided:
    """A language model's decisions before and after the correction.

    Attributes:
        source: Which model.
        note: What one should know of them; "" for nothing.
        weights: Each lambda, 0 first.
        margins: Margins within templates at each lambda, in deviations of the first; (k, n).
        attributes: Protected attributes by name, encoded.
        cells: Gender and race of each row, shape (n,).
        cell_names: Name of each cell.
        age: Age in years, shape (n,).
    """

    source: str
    note: str
    weights: list[float]
    margins: Tensor
    attributes: dict[str, Tensor]
    cells: Tensor
    cell_names: tuple[str, ...]
    age: Tensor


@dataclass(frozen=True)
class Fitted:
    """Everything that was trained.

    Attributes:
        motor: The portfolio's networks.
        frequencies: Claim frequency of each gender and region.
        scores: Recidivism scores by model, "logistic" and "MLP".
        decisions: The language model's decisions.
        penalties: Penalties of batches whose outcome depends on nothing.
        parity: CCdCov of outcomes that are alike in every cell.
    """

    motor: Audited
    frequencies: dict[str, list[Cell]]
    scores: dict[str, Audited]
    decisions: Decided
    penalties: Tensor
    parity: float


def nearest(audited: Audited, regulariser: str, weight: float) -> int:
    """Place of the network of that regulariser whose lambda is nearest."""
    rows = [
        (abs(float(each or 0) - weight), place)
        for place, (name, each) in enumerate(
            zip(audited.table["regulariser"], audited.table["lambda"], strict=True)
        )
        if name == regulariser
    ]
    return min(rows)[1]


def value(audited: Audited, column: str, place: int) -> float:
    """One number of an audited network."""
    return float(audited.table[column][place] or 0.0)


def motor_table(audited: Audited) -> dict[str, list[Cell]]:
    """Every network of the portfolio, the paper's validation numbers beside it."""
    keys = [
        (str(name), float(weight or 0))
        for name, weight in zip(audited.table["regulariser"], audited.table["lambda"], strict=True)
    ]
    blank = (None,) * len(paper.COLUMNS)
    theirs = [paper.VALIDATION.get(key, blank) for key in keys]
    columns = {name: audited.table[name] for name in ("regulariser", "lambda", *_TABLE)}
    return columns | {
        f"paper_{name}": [row[place] for row in theirs] for place, name in enumerate(paper.COLUMNS)
    }


def chosen_table(audited: Audited, chosen: Mapping[str, int]) -> dict[str, list[Cell]]:
    """The three networks that are compared, the paper's test numbers beside them."""
    columns: dict[str, list[Cell]] = {"regulariser": list(chosen)}
    for name in ("lambda", *_TABLE):
        columns[name] = [audited.table[name][place] for place in chosen.values()]
    for place, name in enumerate(paper.COLUMNS):
        columns[f"paper_{name}"] = [paper.TEST[each][place] for each in chosen]
    columns["paper_deviance"] = [paper.TEST_DEVIANCE[each] for each in chosen]
    return columns


def densities(audited: Audited, chosen: Mapping[str, int]) -> dict[str, list[Cell]]:
    """Kernel densities of the outcome by cell, on one grid for all three networks."""
    rows: list[tuple[Cell, ...]] = []
    shown = audited.outcome[list(chosen.values()), :_DENSITY_ROWS].double()
    grid = torch.linspace(0.0, float(shown.quantile(0.995)), _POINTS, dtype=torch.float64)
    names, cells = _occurring(audited, _DENSITY_ROWS)
    for name, outcome in zip(chosen, shown, strict=True):
        found = group_densities(outcome, cells, bandwidth=_BANDWIDTH, grid=grid)
        shares = found.sizes / found.sizes.sum()
        lines = [*found.densities, shares @ found.densities]
        for cell, line in zip([*names, ALL_CELLS], lines, strict=True):
            rows += [(name, cell, x, y) for x, y in zip(grid.tolist(), line.tolist(), strict=True)]
    return _columns(rows, ("regulariser", "cell", "outcome", "density"))


def distributions(audited: Audited, chosen: Mapping[str, int]) -> dict[str, list[Cell]]:
    """Empirical distribution functions of the outcome by cell."""
    rows: list[tuple[Cell, ...]] = []
    shares = torch.linspace(0, 1, _ECDF_POINTS, dtype=torch.float64)
    names, cells = _occurring(audited)
    for name, place in chosen.items():
        outcome = audited.outcome[place].double()
        groups = [outcome[cells == code] for code in range(len(names))]
        for cell, values in zip([*names, ALL_CELLS], [*groups, outcome], strict=True):
            places = values.quantile(shares).tolist()
            rows += [(name, cell, x, y) for x, y in zip(places, shares.tolist(), strict=True)]
    return _columns(rows, ("regulariser", "cell", "outcome", "share"))


def scores_table(scores: Mapping[str, Audited]) -> dict[str, list[Cell]]:
    """Every network of the recidivism scores, both models below one another."""
    names = ("regulariser", "lambda", "accuracy", "rps", "log_loss", "js", "uf", "ccdcov", "jdcov")
    columns: dict[str, list[Cell]] = {
        "model": [model for model, each in scores.items() for _ in each.table["js"]]
    }
    for name in names:
        columns[name] = [cell for each in scores.values() for cell in each.table[name]]
    return columns


def decisions_table(decided: Decided, place: int) -> dict[str, list[Cell]]:
    """Distance correlation with each attribute before and after, with a test of each."""
    joint = dependence.concatenated(list(decided.attributes.values()))
    both = {**decided.attributes, "all jointly": joint}
    before, after = decided.margins[0], decided.margins[place]
    return {
        "attribute": list(both),
        "dcor_before": [float(dependence.distance_correlation(before, z)) for z in both.values()],
        "dcor_after": [float(dependence.distance_correlation(after, z)) for z in both.values()],
        "p_before": [dependence.chi_square_p_value(before, z) for z in both.values()],
        "p_after": [dependence.chi_square_p_value(after, z) for z in both.values()],
    }


def decision_cells(decided: Decided, place: int) -> dict[str, list[Cell]]:
    """Mean margin of each gender and race before and after."""
    k = len(decided.cell_names)
    n = torch.bincount(decided.cells, minlength=k)
    means = [
        (torch.bincount(decided.cells, margin, minlength=k) / n).tolist()
        for margin in (decided.margins[0], decided.margins[place])
    ]
    return {
        "cell": list(decided.cell_names),
        "people": list(n.tolist()),
        "before": list(means[0]),
        "after": list(means[1]),
    }


def decision_ages(decided: Decided, place: int) -> dict[str, list[Cell]]:
    """Mean margin of each ten years of age before and after; from 70 on in one."""
    decade = (decided.age.clamp(max=79) / 10).floor().long()
    found = sorted(set(decade.tolist()))
    columns: dict[str, list[Cell]] = {"age": [10 * each + 5 for each in found]}
    for name, margin in (("before", decided.margins[0]), ("after", decided.margins[place])):
        columns[name] = [float(margin[decade == each].mean()) for each in found]
    return columns


def gerrymander_table(identities: Identities, gap: float) -> dict[str, list[Cell]]:
    """Mean outcome of each margin and each cell."""
    outcome, (first, second) = identities.outcome(gap), gerrymander.coins()
    groups = {
        "A = 0": first == 0,
        "A = 1": first == 1,
        "B = 0": second == 0,
        "B = 1": second == 1,
    }
    cells = {f"A = {a}, B = {b}": (first == a) & (second == b) for a in (0, 1) for b in (0, 1)}
    return {
        "group": [*groups, *cells],
        "kind": [*("margin" for _ in groups), *("cell" for _ in cells)],
        "mean": [float(outcome[rows].mean()) for rows in (groups | cells).values()],
    }


def statistics_table(identities: Identities, gap: float) -> dict[str, list[Cell]]:
    """Each statistic of the gerrymandered outcome, with its exact value in the population."""
    outcome, attributes = identities.outcome(gap), gerrymander.coins()
    found = {
        "dCov², A alone": dependence.distance_covariance_sq(outcome, attributes[0]),
        "dCov², B alone": dependence.distance_covariance_sq(outcome, attributes[1]),
        "CCdCov²": identities.concatenated(outcome, attributes),
        "JdCov²": identities.joint(outcome, attributes),
    }
    exact = (0.0, 0.0, (2 - math.sqrt(2)) / 8 * gap, gap / 8)
    return {
        "statistic": list(found),
        "value": [float(each) for each in found.values()],
        "population": list(exact),
    }


def identity_claims(identities: Identities, fitted: Fitted) -> tuple[Claim, ...]:
    """What holds exactly, or without bias, for every model."""
    outcome, coins = identities.outcome(1.0), gerrymander.coins()
    oracle = (-0.0026033531, 0.0710437412, 0.1197279469)
    found = [float(each(outcome, coins)) for each in identities.u_statistics]
    penalties = fitted.penalties.clamp(min=0) if identities.clamped else fitted.penalties
    single = float(gerrymander.single_sum(outcome, coins))
    return (
        Claim(
            "xor-single",
            "unit",
            "An outcome that follows the exclusive or of two coins has no dCov² with either.",
            single,
            "<",
            1e-12,
        ),
        Claim(
            "xor-ccdcov",
            "unit",
            "CCdCov² sees it: (2 − √2)/8.",
            float(identities.concatenated(outcome, coins)),
            "=",
            (2 - math.sqrt(2)) / 8,
            1e-12,
        ),
        Claim(
            "xor-jdcov",
            "unit",
            "JdCov² sees it, by its term of third order alone: 1/8.",
            float(identities.joint(outcome, coins)),
            "=",
            0.125,
            1e-12,
        ),
        Claim(
            "xor-u-statistics",
            "unit",
            "dCov², CCdCov² and JdCov² as U-statistics at 100 rows: largest deviation from the "
            "values worked out by hand.",
            max(abs(a - b) for a, b in zip(found, oracle, strict=True)),
            "<",
            1e-9,
        ),
        Claim(
            "parity-zero",
            "unit",
            "CCdCov² is 0 where the outcome is alike in every cell, whatever the cells' sizes.",
            fitted.parity,
            "<",
            1e-12,
        ),
        Claim(
            "penalty-unbiased",
            "effect",
            "Of outcomes that depend on nothing, the penalty's mean over 400 batches is 0: its "
            "distance from that in standard errors.",
            abs(float(penalties.mean() / standard_error(penalties))),
            "<",
            4.0,
            unit="standard errors",
        ),
    )


def motor_claims(audited: Audited, chosen: Mapping[str, int]) -> tuple[Claim, ...]:
    """What the penalty buys on the portfolio, and what it costs."""
    none, ccdcov, jdcov = chosen.values()
    js = {name: value(audited, "js", place) for name, place in chosen.items()}
    rise = _percent(value(audited, "rps", ccdcov), value(audited, "rps", none))
    rise_joint = _percent(value(audited, "rps", jdcov), value(audited, "rps", none))
    ratio, dearer = _at_equal_weight(audited)
    return (
        Claim(
            "js-falls",
            "effect",
            "At its chosen lambda CCdCov divides the Jensen-Shannon divergence between cells by "
            "more than 10.",
            js["none"] / max(js["CCdCov"], 1e-12),
            ">",
            10.0,
            paper="17.6 (0.0289 to 0.0016 bits, validation), 15.5 (test)",
        ),
        Claim(
            "rps-holds",
            "effect",
            "The ranked probability score rises by less than 2 %.",
            rise,
            "<",
            2.0,
            unit="%",
            paper="1.36 % (validation), 0.54 % (test)",
        ),
        Claim(
            "jdcov-stronger",
            "effect",
            "At equal lambda JdCov leaves less of the divergence than CCdCov: mean ratio.",
            ratio,
            "<",
            0.97,
            paper="0.74 (geometric mean over lambda 10 to 150)",
        ),
        Claim(
            "jdcov-dearer",
            "report",
            "And its ranked probability score is higher, on average over lambda by.",
            dearer,
            unit="%",
            paper="0.33 %",
        ),
        Claim(
            "js-floor",
            "report",
            "What sampling alone leaves: the divergence once cells are dealt at random.",
            audited.floor,
            unit="bits",
        ),
        Claim(
            "jdcov-rise",
            "report",
            "Rise of the ranked probability score at JdCov's chosen lambda.",
            rise_joint,
            unit="%",
            paper="0.96 % (test)",
        ),
        Claim(
            "jdcov-floor",
            "report",
            "JdCov² at the largest lambda: what attributes share among themselves does not vanish.",
            value(audited, "jdcov", _last(audited, "JdCov")),
            paper="3.0e-4 (validation, lambda 150)",
        ),
    )


def scores_claims(scores: Mapping[str, Audited]) -> tuple[Claim, ...]:
    """Whether joint regularisation reaches the gap between cells, and single ones do not."""
    mlp = scores["MLP"]
    js = {
        str(name): float(each or 0)
        for name, each in zip(mlp.table["regulariser"], mlp.table["js"], strict=True)
    }
    alone = min(each for name, each in js.items() if name.endswith("alone"))
    accuracy = {
        str(name): float(each or 0)
        for name, each in zip(mlp.table["regulariser"], mlp.table["accuracy"], strict=True)
    }
    return (
        Claim(
            "intersection-falls",
            "effect",
            f"On {mlp.source}, CCdCov divides the divergence between gender x race x age cells by.",
            js["none"] / max(js["CCdCov"], 1e-12),
            ">",
            4.0,
            paper="not readable",
        ),
        Claim(
            "single-leaves-it",
            "effect",
            "What the best penalty on a single attribute leaves of it, over what CCdCov leaves.",
            alone / max(js["CCdCov"], 1e-12),
            ">",
            2.0,
            paper="not readable",
        ),
        Claim(
            "sum-of-single",
            "report",
            "The same for the sum of the three single penalties.",
            js["sum of single ones"] / max(js["CCdCov"], 1e-12),
        ),
        Claim(
            "scores-accuracy",
            "report",
            "Accuracy that CCdCov costs.",
            100 * (accuracy["none"] - accuracy["CCdCov"]),
            unit="points",
            paper="not readable",
        ),
    )


def decision_claims(decided: Decided, place: int) -> tuple[Claim, ...]:
    """How far the language model's decisions depend on the person, before and after."""
    attributes = list(decided.attributes.values())
    before, after = (
        float(dependence.u_concatenated_distance_covariance_sq(margin, attributes))
        for margin in (decided.margins[0], decided.margins[place])
    )
    joint = dependence.concatenated(attributes)
    kept = torch.corrcoef(decided.margins[[0, place]])[0, 1]
    return (
        Claim(
            "decisions-depend",
            "report",
            f"Distance correlation of the {decided.source}'s margins with age, gender and race "
            "jointly, within templates.",
            float(dependence.distance_correlation(decided.margins[0], joint)),
        ),
        Claim(
            "decisions-corrected",
            "effect",
            "Share of the margins' CCdCov² with the person that the correction leaves, on people "
            "it was not fitted to.",
            after / before,
            "<",
            0.5,
        ),
        Claim(
            "decisions-kept",
            "report",
            "Correlation of the margins before and after.",
            float(kept),
        ),
    )


def parts_table(fitted: Fitted) -> dict[str, list[Cell]]:
    """Where each part's rows come from, and what to do where they are not the real ones."""
    scores = fitted.scores["MLP"]
    rows = [
        ("motor", fitted.motor.source, len(fitted.motor.cells), fitted.motor.note),
        ("scores", scores.source, len(scores.cells), scores.note),
        ("decisions", fitted.decisions.source, len(fitted.decisions.age), fitted.decisions.note),
    ]
    return _columns(rows, ("part", "source", "audited_rows", "note"))


def _at_equal_weight(audited: Audited) -> tuple[float, float]:
    """Geometric mean of JdCov's JS over CCdCov's, and mean rise of its RPS in percent."""
    logs, rises = list[float](), list[float]()
    for name, weight in zip(audited.table["regulariser"], audited.table["lambda"], strict=True):
        if name != "CCdCov":
            continue
        pair = [nearest(audited, each, float(weight or 0)) for each in ("JdCov", "CCdCov")]
        joint, ours = (max(value(audited, "js", place), 1e-12) for place in pair)
        logs.append(math.log(joint / ours))
        rises.append(_percent(*(value(audited, "rps", place) for place in pair)))
    return math.exp(sum(logs) / len(logs)), sum(rises) / len(rises)


def _last(audited: Audited, regulariser: str) -> int:
    names = audited.table["regulariser"]
    return max(place for place, name in enumerate(names) if name == regulariser)


def _percent(new: float, old: float) -> float:
    return 100 * (new / old - 1)


def _occurring(audited: Audited, rows: int | None = None) -> tuple[list[str], Tensor]:
    """Names of the cells that occur in the first rows, and each row's among them."""
    found, cells = torch.unique(audited.cells[:rows], return_inverse=True)
    return [audited.cell_names[code] for code in found.tolist()], cells


def _columns(rows: Sequence[tuple[Cell, ...]], names: Sequence[str]) -> dict[str, list[Cell]]:
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}

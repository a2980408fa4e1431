"""The five figures of the exact world, from its tables."""

from workbench.study import plot
from workbench.study.base import Figure, Figures
from workbench.study.result import Cell, StudyResult, Table

_FLOOR = 1e-16
"""What is smaller, or exactly 0, is drawn here: a logarithmic axis has no 0."""
_READING = "The paper's figure could not be read in full; sizes and steps are ours."


def draw(result: StudyResult) -> Figures:
    """All figures, the paper's main one first."""
    return {
        "distance": _distance(result.tables["distance"]),
        "wrong-rejected": _wrong_rejected(result.tables["wrong_rejected"]),
        "margins": _margins(result.tables["margins"]),
        "displacement": _displacement(result),
        "entropy": _entropy(result.tables["entropy"]),
    }


def _distance(table: Table) -> Figure:
    figure = plot.figure(
        "Only the log-ratio reward reaches the target",
        "Step",
        "JS(policy, target) [bits]",
        "After Fig. 1 (right): Jensen-Shannon divergence to the target policy under each "
        f"preference loss. {_READING}",
        log_y=True,
    )
    _lines(figure, table, "objective", "js")
    return figure


def _wrong_rejected(table: Table) -> Figure:
    figure = plot.figure(
        "DPO needs the right distribution of rejected answers",
        "Step",
        "JS(policy, target) [bits]",
        "Not in the paper as far as we know: DPO alone, rejected answers drawn from the closed "
        "form and from distributions that break it.",
        log_y=True,
    )
    _lines(figure, table, "rejected", "js")
    return figure


def _margins(table: Table) -> Figure:
    figure = plot.figure(
        "One beta orders the log-margins of every pair",
        "Log-margin of the policy less the reference's [nats]",
        "Log-margin of the reference less pi_l's [nats]",
        "After the log-margin ordered policies: the power law holds where all pairs lie on one "
        "rising line through 0, whose slope is beta. " + _READING,
    )
    for place, (column, name) in enumerate({"target": "target", "trained": "DPO"}.items()):
        ahead = _difference(table[column], table["reference"])
        behind = _difference(table["reference"], table["rejected"])
        plot.points(figure, ahead, behind, name, place)
    return figure


def _difference(left: list[Cell], right: list[Cell]) -> list[float]:
    return [float(a or 0) - float(b or 0) for a, b in zip(left, right, strict=True)]


def _displacement(result: StudyResult) -> Figure:
    figure = plot.figure(
        "Chosen answers lose likelihood, by the predicted amount",
        "Step",
        "Mean change of log-probability [nats]",
        "After the log-likelihood displacement of section 4; dashed, the closed-form values of "
        "the optimum. " + _READING,
    )
    table = result.tables["displacement"]
    for place, side in enumerate(("chosen", "rejected")):
        plot.line(figure, table["step"], table[side], side, place)
        plot.rule(figure, y=result.claim(f"displacement-{side}").expected, label=side)
    return figure


def _entropy(table: Table) -> Figure:
    figure = plot.figure(
        "DID entropy alone does not say whether the policy sharpens",
        "H(q) [nats]",
        "H(policy) − H(reference) [nats]",
        "Ours, a caution beside the paper's reading of DID entropy: q proportional to pi_ref^s "
        "for many s, and the policy that follows; one H(q) belongs to both signs.",
    )
    plot.line(figure, table["did_entropy"], table["entropy_change"], "q ∝ pi_ref^s")
    labels = [f"s = {value}" for value in table["s"]]
    plot.points(figure, table["did_entropy"], table["entropy_change"], "s", 1, labels)
    plot.rule(figure, y=0.0)
    return figure


def _lines(figure: Figure, table: Table, group: str, value: str) -> None:
    for place, name in enumerate(dict.fromkeys(table[group])):
        plot.line(
            figure,
            _where(table, group, name, "step"),
            [max(float(each or 0), _FLOOR) for each in _where(table, group, name, value)],
            str(name),
            place,
        )


def _where(table: Table, group: str, name: Cell, column: str) -> list[Cell]:
    return [v for v, of in zip(table[column], table[group], strict=True) if of == name]

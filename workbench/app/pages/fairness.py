"""Dependence of the outcome on protected attributes, singly and jointly."""

import math

import panel as pn
import panel_material_ui as pmui
import torch

from workbench.app.panes import FigurePane, number, side_by_side, table_html, table_pane, tools
from workbench.app.state import PageState
from workbench.engine.fairness import (
    SMALL_GROUP,
    AttributeDependence,
    FairnessTable,
    JointDependence,
    group_labels,
    summaries,
)
from workbench.engine.questions import permutation
from workbench.metrics.divergence import group_densities
from workbench.views import figures
from workbench.views.figure import Figure

PERMUTATIONS = 999
_OUTCOMES = {
    "reward margin": "margin",
    "reward of the chosen answer": "chosen_reward",
    "reward of the rejected answer": "rejected_reward",
}


class FairnessPage:
    """Attributes to choose, dependence of each and of all, densities and means by group."""

    def __init__(self, state: PageState) -> None:
        self._state = state
        settings = state.settings
        self.attributes = pmui.MultiChoice(label="Protected attributes", options=[], width=380)
        self.outcome = pmui.Select(
            label="Outcome", options=_OUTCOMES, value=settings.outcome, size="small", width=240
        )
        self.equalise = pmui.Switch(label="Equalise attribute scales", value=settings.equalise)
        self.show = pmui.Select(label="Show groups of", options=[], size="small", width=220)
        self.test = pmui.Button(label=f"Permutation test ({PERMUTATIONS})", variant="outlined")
        self.table = table_pane()
        self.joint = table_pane()
        self._density = FigurePane(state, "Outcome density by group", self._draw_density)
        self._means = FigurePane(state, "Outcome by group", self._draw_means)
        self._tested: object = None
        self._bind()
        self.view = pn.Column(
            tools(self.attributes, self.outcome, self.show, self.equalise),
            self.table,
            side_by_side(self._density.view, self._means.view),
            self.joint,
            self.test,
            sizing_mode="stretch_width",
        )

    def refresh(self) -> None:
        """Draw everything."""
        names = list(self._state.tables.snapshot.pairs.attribute_names())
        if self.attributes.options != names:
            self.attributes.options = names
        chosen = [name for name in self._state.settings.attributes if name in names]
        self.attributes.value = chosen
        table = self._table()
        if self.show.options != chosen:
            self.show.options = chosen
            self.show.value = _clearest(table)
        self.table.object = _dependences(table, self._state.settings.beta)
        self.joint.object = self._joint(table)
        for pane in (self._density, self._means):
            pane.refresh()

    def mark(self) -> None:
        """Show the selected pair."""
        for pane in (self._density, self._means):
            pane.mark()

    def answered(self) -> None:
        """The permutations, or the joint statistics of a large set, have come further."""
        self.joint.object = self._joint(self._table())

    def _bind(self) -> None:
        self.attributes.param.watch(
            lambda event: self._state.change(attributes=tuple(event.new)), "value"
        )
        self.outcome.param.watch(lambda event: self._state.change(outcome=event.new), "value")
        self.equalise.param.watch(lambda event: self._state.change(equalise=event.new), "value")
        self.show.param.watch(lambda event: self._redraw(), "value")
        self.test.on_click(lambda event: self._ask())

    def _redraw(self) -> None:
        for pane in (self._density, self._means):
            pane.refresh()

    def _table(self) -> FairnessTable:
        return self._state.tables.fairness(self._state.settings)

    def _ask(self) -> None:
        self._tested = self._question()
        self.joint.object = self._joint(self._table())

    def _question(self) -> object:
        settings = self._state.settings
        return self._state.session.version, settings.replaced(beta=1.0)

    def _joint(self, table: FairnessTable) -> str:
        if not table.columns:
            return ""
        found = self._state.tables.joint(self._state.settings)
        rows = _joint_rows(found, self._state.settings.beta)
        return table_html(["All attributes jointly", "Value"], [*rows, self._p_value(table)])

    def _p_value(self, table: FairnessTable) -> list[str]:
        name = "Permutation p of dCov² with all attributes"
        if self._tested != self._question():
            return [name, "not tested"]
        answer = permutation(self._state.session, table, self._state.settings, PERMUTATIONS, seed=0)
        if answer is None:
            job = self._state.session.progress("permutation")
            done = job.progress.done if job else 0
            return [name, f"testing, {done} of {PERMUTATIONS}"]
        if isinstance(answer, Exception):
            return [name, f"not to be had: {answer}"]
        return [name, f"{answer.p_value:.4f} ({answer.permutations} permutations, seed 0)"]

    def _labels(self, table: FairnessTable) -> list[str | None] | None:
        column = next((c for c in table.columns if c.name == self.show.value), None)
        return None if column is None else group_labels(column)

    def _draw_density(self) -> Figure:
        table, beta = self._table(), self._state.settings.beta
        labels = self._labels(table)
        known = [row for row, label in enumerate(labels or []) if label is not None]
        if labels is None or len(known) < 2:
            return figures.group_densities(None, None, [], self._outcome_label())
        names = sorted({label for label in labels if label is not None})
        codes = torch.tensor([names.index(str(labels[row])) for row in known])
        found = group_densities(table.outcome[known] * beta, codes)
        sizes = [int(size) for size in found.sizes.tolist()]
        shown = [f"{name} (n = {size})" for name, size in zip(names, sizes, strict=True)]
        return figures.group_densities(found.grid, found.densities, shown, self._outcome_label())

    def _draw_means(self) -> Figure:
        table, beta = self._table(), self._state.settings.beta
        column = next((c for c in table.columns if c.name == self.show.value), None)
        if column is not None and column.kind == "continuous":
            values = [math.nan if v is None else float(v) for v in column.values]
            return figures.outcome_against_attribute(
                table.outcome * beta, values, column.name, table.rows, self._outcome_label()
            )
        groups = summaries(table.outcome, group_labels(column)) if column else ()
        return figures.group_means(groups, beta, self._outcome_label())

    def _outcome_label(self) -> str:
        return next(k for k, v in _OUTCOMES.items() if v == self._state.settings.outcome)


def _clearest(table: FairnessTable) -> str | None:
    """The attribute with the fewest groups, whose densities are the easiest to read."""
    varying = [each for each in table.dependences if len(each.groups) > 1] or table.dependences
    return min(varying, key=lambda each: len(each.groups)).name if varying else None


def _dependences(table: FairnessTable, beta: float) -> str:
    head = ["Attribute", "kind", "n", "dCor", "dCov² (V)", "dCov² (U)", "Jensen–Shannon, bits"]
    if not table.dependences:
        note = "Choose one or more attributes to see how the outcome depends on them."
        return table_html(head, [], [note])
    rows = [_dependence_row(each, beta) for each in table.dependences]
    return table_html(head, rows, _warnings(table))


def _dependence_row(found: AttributeDependence, beta: float) -> list[str]:
    values = (
        found.distance_correlation,
        beta * found.distance_covariance_sq,
        beta * found.u_distance_covariance_sq,
        found.jensen_shannon,
    )
    return [found.name, found.kind, str(found.n), *(number(value) for value in values)]


def _warnings(table: FairnessTable) -> list[str]:
    notes = [f"{each.name}: {each.note}" for each in table.dependences if each.note]
    for each in table.dependences:
        small = [group.label for group in each.groups if group.small]
        if small:
            shown = ", ".join(small[:4]) + (" …" if len(small) > 4 else "")
            notes.append(
                f"⚠ {each.name}: {len(small)} groups have fewer than {SMALL_GROUP} pairs "
                f"({shown}); their densities and means say little."
            )
    return notes


def _joint_rows(found: JointDependence | Exception | None, beta: float) -> list[list[str]]:
    if isinstance(found, Exception):
        return [["CCdCov² and JdCov²", f"not to be had: {found}"]]
    if found is None:
        return [["CCdCov² and JdCov²", "need two attributes that vary (or are being computed)"]]
    return [
        ["Pairs for which all are known", _taken(found)],
        ["CCdCov² (U): outcome against all attributes", number(beta * found.concatenated)],
        ["JdCov² (U, c = 1): mutual dependence of all", number(found.joint(beta))],
        ["   of which among the attributes themselves", number(found.joint_base)],
        [f"Jensen–Shannon over the {len(found.cells)} intersections, bits",
         number(found.jensen_shannon)],
        ["Smallest intersection", _smallest(found)],
    ]  # fmt: skip


def _taken(found: JointDependence) -> str:
    if found.n == found.n_known:
        return str(found.n)
    return f"{found.n_known}, of which a random {found.n} are taken"


def _smallest(found: JointDependence) -> str:
    cell = min(found.cells, key=lambda each: each.n)
    return f"{cell.label}: {cell.n} pairs" + (" ⚠" if cell.small else "")

"""Dependence of the outcome on protected attributes, singly and jointly."""

import panel as pn
import panel_material_ui as pmui

from workbench.app.panes import FigurePane, side_by_side, table_pane, tools
from workbench.app.state import PageState
from workbench.engine.fairness import FairnessTable
from workbench.engine.questions import permutation
from workbench.views.choices import OUTCOMES
from workbench.views.fairness_figures import clearest, outcome_by_group, outcome_densities
from workbench.views.figure import Figure
from workbench.views.listings import dependence_listing, joint_rows, permutation_row
from workbench.views.markup import table_html

PERMUTATIONS = 999


class FairnessPage:
    """Attributes to choose, dependence of each and of all, densities and means by group."""

    def __init__(self, state: PageState) -> None:
        self._state = state
        settings = state.settings
        self.attributes = pmui.MultiChoice(label="Protected attributes", options=[], width=380)
        self.outcome = pmui.Select(
            label="Outcome", options=OUTCOMES, value=settings.outcome, size="small", width=240
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
            self.show.value = clearest(table)
        self.table.object = dependence_listing(table, self._state.settings.beta).html
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
        rows = joint_rows(found, self._state.settings.beta)
        return table_html(["All attributes jointly", "Value"], [*rows, self._p_value(table)])

    def _p_value(self, table: FairnessTable) -> list[str]:
        state, asked = self._state, self._tested == self._question()
        answer = (
            permutation(state.session, table, state.settings, PERMUTATIONS, seed=0)
            if asked
            else None
        )
        return permutation_row(answer, state.session.progress("permutation"), PERMUTATIONS, asked)

    def _draw_density(self) -> Figure:
        return outcome_densities(self._table(), self.show.value or "", self._state.settings)

    def _draw_means(self) -> Figure:
        return outcome_by_group(self._table(), self.show.value or "", self._state.settings)

"""Implicit rewards and margins: their distribution, their length bias, and token by token."""

from typing import Any

import panel as pn
import panel_material_ui as pmui

from workbench.app.panes import FigurePane, side_by_side, text, tools
from workbench.app.state import PageState
from workbench.engine.fairness import attribute_columns, group_labels
from workbench.views import figures
from workbench.views.figure import Figure
from workbench.views.tokens import token_rewards
from workbench.views.widgets import TokenStrip

NO_GROUPS = "no groups"


class RewardsPage:
    """Margins by group, chosen against rejected, margin against length, and the token strips."""

    def __init__(self, state: PageState) -> None:
        self._state = state
        self.group = pmui.Select(label="Group by", options=[NO_GROUPS], size="small", width=220)
        self.form = pmui.RadioButtonGroup(
            label="", options=["Histogram", "ECDF"], value="Histogram", size="small",
            description="How the margins' distribution is drawn", margin=(0, 10),
        )  # fmt: skip
        self._figures = [
            FigurePane(state, "Reward margins", self._distribution),
            FigurePane(state, "Chosen against rejected reward", self._scatter),
            FigurePane(state, "Margin against length", self._length),
        ]
        self.strip = TokenStrip()
        self.strip_note = text("")
        self.group.param.watch(lambda event: setattr(state, "group_by", _name(event.new)), "value")
        self.form.param.watch(lambda event: self._figures[0].refresh(), "value")
        first, second, third = (pane.view for pane in self._figures)
        strips = pn.Column(
            text("Implicit reward of each token of the selected pair, β·(log π − log π_ref)",
                 "subtitle2"),
            self.strip,
            self.strip_note,
            sizing_mode="stretch_width",
        )  # fmt: skip
        self.view = pn.Column(
            tools(self.group, self.form),
            side_by_side(first, second),
            side_by_side(third, strips),
            sizing_mode="stretch_width",
        )

    def refresh(self) -> None:
        """Draw everything."""
        names = [NO_GROUPS, *self._state.tables.snapshot.pairs.attribute_names()]
        if self.group.options != names:
            self.group.options = names
        self.group.value = self._state.group_by if self._state.group_by in names else NO_GROUPS
        for pane in self._figures:
            pane.refresh()
        self._tokens()

    def mark(self) -> None:
        """Show the selected pair."""
        for pane in self._figures:
            pane.mark()
        self._tokens()

    def answered(self) -> None:
        """This page asks no slow questions."""

    def _distribution(self) -> Figure:
        draw = figures.margin_histogram if self.form.value == "Histogram" else figures.margin_ecdf
        return draw(self._table(), self._groups())

    def _scatter(self) -> Figure:
        return figures.chosen_against_rejected(self._table(), self._groups())

    def _length(self) -> Figure:
        return figures.margin_against_length(self._table(), self._groups())

    def _table(self) -> Any:  # noqa: ANN401 - a RewardTable
        return self._state.tables.rewards(self._state.settings)

    def _groups(self) -> list[str | None] | None:
        pairs = self._state.tables.snapshot.pairs
        columns = attribute_columns(pairs, [self._state.group_by], self._table().rows)
        return group_labels(columns[0]) if columns else None

    def _tokens(self) -> None:
        row = self._state.selected_row
        if row is None:
            self.strip.param.update(rows=[], theme=self._state.theme)
            self.strip_note.object = "Click a point, or a row of the table on Pairs."
            return
        rows = token_rewards(self._state.session, row, self._state.settings.beta)
        self.strip.param.update(rows=rows or [], theme=self._state.theme)
        self.strip_note.object = "" if rows else "The selected pair is still being scored."


def _name(choice: str) -> str:
    return "" if choice == NO_GROUPS else choice

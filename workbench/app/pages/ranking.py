"""Ranking accuracy: what the policy ranks, what it ideally would, and why pairs do not flip."""

from typing import Any

import panel as pn
import panel_material_ui as pmui

from workbench.app.panes import FigurePane, side_by_side, table_pane, text
from workbench.app.state import PageState
from workbench.engine.values import RankingTable
from workbench.views import figures
from workbench.views.figure import Figure
from workbench.views.listings import ranking_listing
from workbench.views.markup import number

_LISTED = 6
_CHARS = 70


class RankingPage:
    """R, reference R and R* over beta; loss against the reference's log-ratio; hard pairs."""

    def __init__(self, state: PageState) -> None:
        self._state = state
        self._curve = FigurePane(state, "Idealized ranking accuracy", self._draw_curve, 360)
        self._flip = FigurePane(state, "Loss against log-ratio", self._draw_flip, 360)
        self.table = table_pane()
        self.hard = pmui.MenuList(items=[], dense=True, sizing_mode="stretch_width")
        self.easy = pmui.MenuList(items=[], dense=True, sizing_mode="stretch_width")
        for menu in (self.hard, self.easy):
            menu.on_click(self._pick)
        self.view = pn.Column(
            side_by_side(self._curve.view, self._flip.view),
            self.table,
            side_by_side(
                _listed("Hardest to flip: largest c", self.hard),
                _listed("Easiest: smallest c", self.easy),
            ),
            sizing_mode="stretch_width",
        )

    def refresh(self) -> None:
        """Draw everything."""
        self._curve.refresh()
        self._flip.refresh()
        table = self._table()
        self.table.object = ranking_listing(table).html
        order = table.reference_log_ratio.argsort(descending=True).tolist()
        self.hard.items = [self._item(table, place) for place in order[:_LISTED]]
        self.easy.items = [self._item(table, place) for place in order[::-1][:_LISTED]]

    def mark(self) -> None:
        """Show the selected pair."""
        self._curve.mark()
        self._flip.mark()

    def answered(self) -> None:
        """This page asks no slow questions."""

    def _table(self) -> RankingTable:
        return self._state.tables.ranking(self._state.settings)

    def _draw_curve(self) -> Figure:
        settings = self._state.settings
        return figures.idealized_accuracy(
            self._table(), self._state.tables.curve(settings), settings
        )

    def _draw_flip(self) -> Figure:
        return figures.loss_against_log_ratio(self._table(), self._state.settings)

    def _item(self, table: RankingTable, place: int) -> dict[str, Any]:
        row = int(table.rows[place])
        pair = self._state.tables.snapshot.pairs.pairs[row]
        c, loss = float(table.reference_log_ratio[place]), float(table.loss[place])
        ranked = "ranked right" if table.correct[place] > 0.5 else "ranked wrong"
        return {
            "label": f"c = {number(c)} nats · loss {number(loss)} · {ranked}",
            "secondary": pair.prompt_text[:_CHARS],
            "icon": None,
            "pair": pair.pair_id,
        }

    def _pick(self, item: Any) -> None:  # noqa: ANN401 - the menu gives the item back
        if isinstance(item, dict) and "pair" in item:
            self._state.selected = item["pair"]


def _listed(title: str, menu: Any) -> Any:  # noqa: ANN401 - Panel components
    return pn.Column(text(title, "subtitle2"), menu, sizing_mode="stretch_width")

"""Differential information: entropy by prompt and by token, beside the change of entropy."""

from typing import Any

import panel as pn

from workbench.app.panes import FigurePane, side_by_side, text
from workbench.app.state import PageState
from workbench.engine.questions import token_did
from workbench.views import figures
from workbench.views.figure import Figure
from workbench.views.words import DID_CAUTION, token_did_words


class DidPage:
    """Entropy by prompt, against the change of policy entropy, displacement, and by token."""

    def __init__(self, state: PageState) -> None:
        self._state = state
        self._figures = [
            FigurePane(state, "DID entropy by prompt", self._by_prompt),
            FigurePane(state, "DID entropy against change of entropy", self._change),
            FigurePane(state, "Log-likelihood displacement", self._displacement),
        ]
        self._tokens = FigurePane(state, "DID by token", self._draw_tokens)
        self.note = text("")
        first, second, third = (pane.view for pane in self._figures)
        tokens = pn.Column(self._tokens.view, self.note, sizing_mode="stretch_width")
        self.view = pn.Column(
            side_by_side(first, second),
            text(DID_CAUTION),
            side_by_side(third, tokens),
            sizing_mode="stretch_width",
        )

    def refresh(self) -> None:
        """Draw everything."""
        for pane in self._figures:
            pane.refresh()
        self._tokens.refresh()

    def mark(self) -> None:
        """Show the selected pair."""
        for pane in self._figures:
            pane.mark()
        self._tokens.refresh()

    def answered(self) -> None:
        """The tokens of the selected pair have come."""
        self._tokens.refresh()

    def _table(self) -> Any:  # noqa: ANN401 - a DidTable
        return self._state.tables.did(self._state.settings)

    def _by_prompt(self) -> Figure:
        return figures.did_by_prompt(self._table())

    def _change(self) -> Figure:
        return figures.entropy_against_change(self._table())

    def _displacement(self) -> Figure:
        return figures.displacement(self._table())

    def _draw_tokens(self) -> Figure:
        answer = self._answer()
        self.note.object = token_did_words(answer, self._state.selected_row is not None)
        return figures.token_did(answer)

    def _answer(self) -> Any:  # noqa: ANN401 - a TokenDidPair, an exception, or None
        row = self._state.selected_row
        return None if row is None else token_did(self._state.session, row)

"""Implicit rewards and margins in a notebook."""

from typing import TYPE_CHECKING, Any, ClassVar

import ipywidgets as widgets
import torch
from workbench_widgets import TokenStrip

from workbench.bench.parts import Plot, beta_slider, grouping, side_by_side, switch, tools, words
from workbench.bench.tables import columns_of, frame_of
from workbench.bench.view import BenchView, asking, notes_html, put
from workbench.engine.values import RewardTable
from workbench.views import figures
from workbench.views.figure import Figure
from workbench.views.listings import reward_listing
from workbench.views.tokens import strip_html, token_rewards

if TYPE_CHECKING:
    import pandas as pd

_UNSELECTED = "Click a point, or set bench.selected, to see a pair's tokens."
_UNSCORED = "The selected pair is still being scored."


class RewardsView(BenchView):
    """Margins by group, chosen against rejected, margin against length, and tokens."""

    title: ClassVar[str] = "Rewards"

    def frame(self) -> "pd.DataFrame":
        """One row a usable pair, indexed by its id: rewards, margin, accuracy, and lengths.

        Units: β·nats (or nats a token with `length_normalised`), lengths in tokens.
        """
        with self.bench.lock:
            return frame_of(self.bench.tables.snapshot.pairs, self._table())

    def tensors(self) -> dict[str, torch.Tensor]:
        """The columns of `frame`, shape (used,), and `rows`, the pairs' places in the set."""
        with self.bench.lock:
            return columns_of(self._table())

    def drawings(self) -> dict[str, Figure]:
        """All figures of the page."""
        table, groups = self._table(), self._groups()
        return {
            "Reward margins": figures.margin_histogram(table, groups),
            "Reward margins, cumulated": figures.margin_ecdf(table, groups),
            "Chosen against rejected reward": figures.chosen_against_rejected(table, groups),
            "Margin against length": figures.margin_against_length(table, groups),
        }

    def listing(self) -> str:
        """Means, quantiles, and the selected pair's tokens."""
        rows = self._tokens()
        return reward_listing(self._table()).html + (strip_html(rows) if rows else "")

    # The live view

    def _body(self) -> list[Any]:
        self._form = widgets.ToggleButtons(
            options=["Histogram", "ECDF"], style={"button_width": "90px"}
        )
        self._plots: list[Plot] = [Plot(self.bench, each) for each in (
            self._distribution,
            lambda: figures.chosen_against_rejected(self._table(), self._groups()),
            lambda: figures.margin_against_length(self._table(), self._groups()),
        )]  # fmt: skip
        self._form.observe(asking(self._redraw), "value")
        self._strip_of_tokens, self._note = TokenStrip(), words()
        tokens = widgets.VBox(
            [words("Implicit reward of each token of the selected pair, β·(log π − log π_ref)"),
             self._strip_of_tokens, self._note],
            layout={"flex": "1 1 360px", "min_width": "0", "margin": "4px"},
        )  # fmt: skip
        controls = tools(
            beta_slider(self.bench), switch(self.bench, "length_normalised", "per token"),
            grouping(self.bench), self._form,
        )  # fmt: skip
        first, second, third = (plot.live for plot in self._plots)
        return [controls, side_by_side(first, second), side_by_side(third, tokens)]

    def _refresh(self) -> None:
        for plot in self._plots:
            plot.refresh()
        rows = self._tokens()
        self._strip_of_tokens.rows = rows or []
        missing = _UNSELECTED if self.bench.selected_row is None else _UNSCORED
        put(self._note, notes_html("" if rows else missing))

    def _redraw(self) -> None:
        with self.bench.lock:
            self._plots[0].refresh()

    def _distribution(self) -> Figure:
        draw = figures.margin_ecdf if self._form.value == "ECDF" else figures.margin_histogram
        return draw(self._table(), self._groups())

    def _table(self) -> RewardTable:
        return self.bench.tables.rewards(self.bench.settings)

    def _groups(self) -> list[str | None] | None:
        columns = self.bench.tables.attributes([self.bench.group_by])
        return columns[0].labels if columns else None

    def _tokens(self) -> list[dict[str, Any]] | None:
        row, bench = self.bench.selected_row, self.bench
        return None if row is None else token_rewards(bench.session, row, bench.settings.beta)

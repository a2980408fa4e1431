"""Ranking accuracy in a notebook: what is ranked right, what would be, and what is hard to flip."""

from typing import TYPE_CHECKING, Any, ClassVar

import ipywidgets as widgets
import torch

from workbench.bench.parts import Plot, beta_slider, choice, side_by_side, switch, tools
from workbench.bench.tables import columns_of, frame_of
from workbench.bench.view import BenchView, put
from workbench.engine.values import BETA_CURVE, RankingTable
from workbench.views import figures
from workbench.views.choices import SHARES, TIES
from workbench.views.figure import Figure
from workbench.views.listings import flip_listing, ranking_listing

if TYPE_CHECKING:
    import pandas as pd


class RankingView(BenchView):
    """R, reference R and R* over beta; loss against the reference's log-ratio; hard pairs."""

    title: ClassVar[str] = "Ranking"

    def frame(self) -> "pd.DataFrame":
        """One row a usable pair, indexed by its id; nats, and shares in [0, 1]."""
        with self.bench.lock:
            return frame_of(self.bench.tables.snapshot.pairs, self._table())

    def curve(self) -> "pd.DataFrame":
        """Idealized ranking accuracy R* over beta: columns beta and accuracy."""
        import pandas as pd

        with self.bench.lock:
            curve = self.bench.tables.curve(self.bench.settings)
        return pd.DataFrame({"beta": curve.betas.numpy(), "accuracy": curve.accuracy.numpy()})

    def tensors(self) -> dict[str, torch.Tensor]:
        """Columns of `frame`, shape (used,); `curve` over `betas`, `grid` over the paper's."""
        with self.bench.lock:
            return {**columns_of(self._table()), "betas": BETA_CURVE.clone()}

    def drawings(self) -> dict[str, Figure]:
        """Both figures of the page."""
        return {
            "Idealized ranking accuracy": self._curve(),
            "Loss against log-ratio": self._flip(),
        }

    def listing(self) -> str:
        """The accuracies, and the pairs that are hardest to flip."""
        pairs = self.bench.tables.snapshot.pairs
        return ranking_listing(self._table()).html + flip_listing(self._table(), pairs).html

    # The live view

    def _body(self) -> list[Any]:
        self._plots = [Plot(self.bench, self._curve, 360), Plot(self.bench, self._flip, 360)]
        self._numbers = widgets.HTML()
        self._hard = widgets.HTML()
        controls = tools(
            beta_slider(self.bench), switch(self.bench, "length_normalised", "per token"),
            choice(self.bench, "tie_policy", "a tie", TIES),
            choice(self.bench, "share_source", "α from", SHARES),
            switch(self.bench, "paper_code", "R* by the paper's code"),
        )  # fmt: skip
        return [controls, side_by_side(*(p.live for p in self._plots)), self._numbers, self._hard]

    def _refresh(self) -> None:
        for plot in self._plots:
            plot.refresh()
        put(self._numbers, ranking_listing(self._table()).html)
        put(self._hard, flip_listing(self._table(), self.bench.tables.snapshot.pairs).html)

    def _table(self) -> RankingTable:
        return self.bench.tables.ranking(self.bench.settings)

    def _curve(self) -> Figure:
        settings, tables = self.bench.settings, self.bench.tables
        return figures.idealized_accuracy(self._table(), tables.curve(settings), settings)

    def _flip(self) -> Figure:
        return figures.loss_against_log_ratio(self._table(), self.bench.settings)

"""Differential information in a notebook."""

from typing import TYPE_CHECKING, Any, ClassVar

import ipywidgets as widgets
import torch

from workbench.bench.parts import Plot, beta_slider, side_by_side, switch, tools
from workbench.bench.tables import columns_of, indexed
from workbench.bench.view import BenchView, notes_html, put
from workbench.engine.questions import token_did
from workbench.engine.values import DidTable
from workbench.views import figures
from workbench.views.figure import Figure
from workbench.views.listings import did_listing
from workbench.views.words import DID_CAUTION, token_did_words

if TYPE_CHECKING:
    import pandas as pd

_KIND = "tokens"
_PROMPTS = ("size", "entropy", "efficiency", "effective_number", "policy_entropy_change")


class DidView(BenchView):
    """Entropy by prompt, against the change of policy entropy, displacement, and by token."""

    title: ClassVar[str] = "Differential information"
    kinds: ClassVar[tuple[str, ...]] = (_KIND,)

    def frame(self) -> "pd.DataFrame":
        """One row a prompt with at least two scored answers, indexed by its first pair's id.

        Columns: the prompt, |S| (size), DID entropy (nats), efficiency H/log |S|, effective
        number of answers, and the change of the policy's entropy over the same answers (nats).
        """
        with self.bench.lock:
            table, pairs = self._table(), self.bench.tables.snapshot.pairs
        columns = {name: getattr(table, name) for name in _PROMPTS}
        frame = indexed(pairs, table.prompt_rows, columns)
        prompts = [pairs.pairs[row].prompt_text for row in table.prompt_rows.tolist()]
        frame.insert(0, "prompt", prompts)
        return frame

    def displacement(self) -> "pd.DataFrame":
        """One row a pair, indexed by its id: log π − log π_ref of both answers, nats."""
        with self.bench.lock:
            table, pairs = self._table(), self.bench.tables.snapshot.pairs
        names = ("chosen_shift", "rejected_shift")
        return indexed(pairs, table.rows, {name: getattr(table, name) for name in names})

    def by_token(self, pair_id: str | None = None) -> "pd.DataFrame":
        """log V − H(q_t) at each token of both answers of a pair (the selected one), nats.

        Waits for the models where it is not known yet.

        Raises:
            DataError: no such pair.
            WorkbenchError: the models cannot say.
        """
        import pandas as pd

        row = self.bench.row_of(pair_id)
        found = self.bench.ask(_KIND, lambda: token_did(self.bench.session, row))
        sides = {"chosen": found.chosen, "rejected": found.rejected}
        rows = [(side, at, each) for side, known in sides.items() for at, each in enumerate(known)]
        return pd.DataFrame(rows, columns=["answer", "token", "information"])

    def tensors(self) -> dict[str, torch.Tensor]:
        """All arrays: of shape (prompts,) or (used,); see `workbench.engine.values.DidTable`."""
        with self.bench.lock:
            return columns_of(self._table())

    def drawings(self) -> dict[str, Figure]:
        """All figures of the page, the tokens where they are known already."""
        table = self._table()
        found = {
            "DID entropy by prompt": figures.did_by_prompt(table),
            "DID entropy against change of entropy": figures.entropy_against_change(table),
            "Log-likelihood displacement": figures.displacement(table),
        }
        if self._built:
            found["DID by token"] = self._tokens()
        return found

    def listing(self) -> str:
        """Means, and how to read them."""
        return did_listing(self._table()).html + notes_html(DID_CAUTION)

    # The live view

    def _body(self) -> list[Any]:
        self._plots = [Plot(self.bench, each) for each in (
            lambda: figures.did_by_prompt(self._table()),
            lambda: figures.entropy_against_change(self._table()),
            lambda: figures.displacement(self._table()),
            self._tokens,
        )]  # fmt: skip
        self._note = widgets.HTML()
        first, second, third, tokens = (plot.live for plot in self._plots)
        right = widgets.VBox([tokens, self._note], layout={"flex": "1 1 360px", "min_width": "0"})
        tokens.layout.flex = "0 0 auto"
        controls = tools(
            beta_slider(self.bench), switch(self.bench, "length_normalised", "per token")
        )
        caution = widgets.HTML(notes_html(DID_CAUTION))
        return [controls, side_by_side(first, second), caution, side_by_side(third, right)]

    def _refresh(self) -> None:
        for plot in self._plots:
            plot.refresh()
        put(self._note, notes_html(token_did_words(self._answer(), self._selected)))

    @property
    def _selected(self) -> bool:
        return self.bench.selected_row is not None

    def _table(self) -> DidTable:
        return self.bench.tables.did(self.bench.settings)

    def _tokens(self) -> Figure:
        return figures.token_did(self._answer())

    def _answer(self) -> Any:  # noqa: ANN401 - a TokenDidPair, an exception, or None
        row = self.bench.selected_row
        return None if row is None else token_did(self.bench.session, row)

"""Which tokens the selected pair's margin comes from, in a notebook."""

from typing import TYPE_CHECKING, Any, ClassVar

import ipywidgets as widgets
import torch
from workbench_widgets import TokenStrip

from workbench.bench.parts import beta_slider, dropdown, tools, words
from workbench.bench.view import BenchView, notes_html, put
from workbench.engine.questions import attribution
from workbench.scoring.attribution import METHODS, MarginAttribution
from workbench.views import figures
from workbench.views.figure import Figure
from workbench.views.tokens import attributed, attribution_note, margin_words, strip_html

if TYPE_CHECKING:
    import pandas as pd

    from workbench.bench.bench import Bench

_KIND = "attribution"
_STEPS = (8, 16, 32, 64)
_UNSELECTED = "Set bench.selected, or click a row or a point, to explain a pair's margin."
_WORKING = "Attributing the margin: one pass of both models for every step…"


class AttributionView(BenchView):
    """The tokens that raise or lower the selected pair's margin, by captum.

    Attributes:
        method: A key of `workbench.scoring.attribution.METHODS`.
        steps: Of the integral, for integrated gradients.
    """

    title: ClassVar[str] = "Attribution"
    kinds: ClassVar[tuple[str, ...]] = (_KIND,)

    def __init__(self, bench: "Bench") -> None:
        super().__init__(bench)
        self.method: Any = next(iter(METHODS))
        self.steps = 16

    def of(self, pair_id: str | None = None) -> MarginAttribution:
        """The attribution of a pair's margin at beta = 1; waits for it.

        Args:
            pair_id: The selected pair if left out.

        Raises:
            DataError: no such pair.
            WorkbenchError: the models cannot be explained.
        """
        row = self.bench.row_of(pair_id)
        session = self.bench.session
        found: MarginAttribution = self.bench.ask(
            _KIND, lambda: attribution(session, row, self.method, self.steps)
        )
        return found

    def frame(self, pair_id: str | None = None) -> "pd.DataFrame":
        """One row a token: answer, token, score (β·nats), and whether it is the answer's."""
        import pandas as pd

        found, beta = self.of(pair_id), self.bench.settings.beta
        rows = [
            (name, token, beta * score, inside)
            for name, side in (("chosen", found.chosen), ("rejected", found.rejected))
            for token, score, inside in zip(side.tokens, side.scores, side.is_response, strict=True)
        ]
        return pd.DataFrame(rows, columns=["answer", "token", "score", "is_response"])

    def tensors(self, pair_id: str | None = None) -> dict[str, torch.Tensor]:
        """`chosen` and `rejected`: the score of each token of prompt and answer, β·nats."""
        found, beta = self.of(pair_id), self.bench.settings.beta
        sides = {"chosen": found.chosen, "rejected": found.rejected}
        return {
            name: beta * torch.tensor(side.scores, dtype=torch.float64)
            for name, side in sides.items()
        }

    def figures(self) -> dict[str, Any]:
        """The scores by token as a Plotly figure; waits for them."""
        self.of()
        return super().figures()

    def drawings(self) -> dict[str, Figure]:
        """The scores by token, as far as they are known."""
        found, beta = self._answer(), self.bench.settings.beta
        series = {}
        if isinstance(found, MarginAttribution):
            series = {
                name: [beta * score for score, inside in zip(side.scores, side.is_response,
                                                             strict=True) if inside]
                for name, side in (("chosen", found.chosen), ("rejected", found.rejected))
            }  # fmt: skip
        title = "Attribution of the margin to the answers' tokens"
        return {"Attribution": figures.token_series(series, title, "β·nats", "Score")}

    def listing(self) -> str:
        """The tokens, coloured, and how far the scores can be trusted."""
        found, beta = self._answer(), self.bench.settings.beta
        if not isinstance(found, MarginAttribution):
            return notes_html(self._said(found))
        head = notes_html(margin_words(found, beta))
        return (
            head + strip_html(attributed(found, beta)) + notes_html(attribution_note(found, beta))
        )

    # The live view

    def _body(self) -> list[Any]:
        methods = [(words, name) for name, words in METHODS.items()]
        self._method = dropdown("method", methods, self.method)
        self._steps = dropdown("steps of the integral", list(_STEPS), self.steps)
        self._method.observe(lambda change: self._choose(), "value")
        self._steps.observe(lambda change: self._choose(), "value")
        self._head, self._tokens, self._below = words(), TokenStrip(), widgets.HTML()
        self._bar = widgets.FloatProgress(min=0, max=1, layout={"width": "320px"})
        controls = tools(beta_slider(self.bench), self._method, self._steps)
        return [controls, self._head, self._bar, self._tokens, self._below]

    def _choose(self) -> None:
        self.method, self.steps = self._method.value, self._steps.value
        self.bench.repaint()

    def _now(self) -> object:
        return super()._now(), self.method, self.steps

    def _refresh(self) -> None:
        put(self._method, self.method)
        self._steps.disabled = self.method != "integrated_gradients"
        found, beta = self._answer(), self.bench.settings.beta
        known = isinstance(found, MarginAttribution)
        self._tokens.rows = attributed(found, beta) if known else []
        self._tokens.layout.display = "" if known else "none"
        put(self._head, notes_html(margin_words(found, beta) if known else ""))
        put(self._below, notes_html(attribution_note(found, beta) if known else self._said(found)))
        waiting = found is None and self.bench.selected_row is not None
        self._bar.layout.display = "" if waiting else "none"
        job = self.bench.session.progress(_KIND)
        if waiting and job is not None and job.progress.total:
            self._bar.value = job.progress.done / job.progress.total

    def _said(self, found: object) -> str:
        if isinstance(found, Exception):
            return f"The margin cannot be attributed: {found}"
        return _UNSELECTED if self.bench.selected_row is None else _WORKING

    def _answer(self) -> Any:  # noqa: ANN401 - a MarginAttribution, an exception, or None
        row = self.bench.selected_row
        if row is None:
            return None
        return attribution(self.bench.session, row, self.method, self.steps)

"""Attribution of the selected pair's margin to tokens, by captum."""

from typing import Any

import panel as pn
import panel_material_ui as pmui

from workbench.app.panes import number, text, tools
from workbench.app.state import PageState
from workbench.engine.questions import attribution
from workbench.scoring.attribution import METHODS, MarginAttribution, SideAttribution
from workbench.views.widgets import TokenStrip

_STEPS = (8, 16, 32, 64)


class AttributionPage:
    """Which tokens the margin comes from, chosen and rejected side by side."""

    def __init__(self, state: PageState) -> None:
        self._state = state
        self.method = pmui.Select(
            label="Method", options={v: k for k, v in METHODS.items()}, size="small", width=320
        )
        self.steps = pmui.Select(
            label="Steps of the integral", options=list(_STEPS), value=16, size="small", width=160
        )
        self.progress = pmui.LinearProgress(
            value=0, variant="determinate", visible=False, sizing_mode="stretch_width", margin=10
        )
        self.head = text("", "subtitle1")
        self.strip = TokenStrip()
        self.note = text("")
        for widget in (self.method, self.steps):
            widget.param.watch(lambda event: self.refresh(), "value")
        self.view = pn.Column(
            tools(self.method, self.steps),
            self.head,
            self.progress,
            self.strip,
            self.note,
            sizing_mode="stretch_width",
        )

    def refresh(self) -> None:
        """Show the attribution, or how far it is."""
        row = self._state.selected_row
        self.steps.disabled = self.method.value != "integrated_gradients"
        if row is None:
            self._say(
                "Click a row of the table on Pairs, or a point of a figure, to explain its margin."
            )
            return
        found = attribution(self._state.session, row, self.method.value, int(self.steps.value))
        if found is None:
            self._working()
        elif isinstance(found, Exception):
            self._say(f"The margin cannot be attributed: {found}")
        else:
            self._show(found)

    def mark(self) -> None:
        """Another pair was selected."""
        self.refresh()

    def answered(self) -> None:
        """The attribution is there, or has come further."""
        self.refresh()

    def _say(self, words: str) -> None:
        self.head.object = ""
        self.strip.param.update(rows=[], theme=self._state.theme)
        self.progress.visible = False
        self.note.object = words

    def _working(self) -> None:
        job = self._state.session.progress("attribution")
        done, total = (job.progress.done, job.progress.total) if job else (0, 0)
        self._say("Attributing the margin: one pass of both models for every step…")
        self.progress.param.update(
            visible=True,
            value=int(100 * done / total) if total else 0,
            variant="determinate" if total else "indeterminate",
        )

    def _show(self, found: MarginAttribution) -> None:
        beta = self._state.settings.beta
        self.progress.visible = False
        self.head.object = (
            f"Margin {number(beta * found.margin)} = chosen {number(beta * found.chosen.value)} "
            f"− rejected {number(beta * found.rejected.value)}"
        )
        rows = [_strip("Chosen (raises the margin)", found.chosen, beta),
                _strip("Rejected (lowers the margin)", found.rejected, beta)]  # fmt: skip
        self.strip.param.update(rows=rows, theme=self._state.theme)
        self.note.object = _note(found, beta)


def _strip(title: str, side: SideAttribution, beta: float) -> dict[str, Any]:
    return {
        "title": title,
        "tokens": list(side.tokens),
        "scores": [beta * score for score in side.scores],
        "kinds": ["response" if inside else "prompt" for inside in side.is_response],
        "total": beta * sum(side.scores),
        "unit": "β·nats",
    }


def _note(found: MarginAttribution, beta: float) -> str:
    if found.method == "feature_ablation":
        return (
            "Each word is replaced by the vocabulary's mean embedding, and what that does to the "
            "reward is its score, spread over its tokens. These scores need not add up."
        )
    errors = " and ".join(
        f"{number(beta * side.completeness_error)} ({name})"
        for name, side in (("chosen", found.chosen), ("rejected", found.rejected))
    )
    return (
        f"Completeness error: {errors}, the sum of the scores minus the reward's difference from a "
        "neutral text. Use more steps if it is not small beside the margin."
    )

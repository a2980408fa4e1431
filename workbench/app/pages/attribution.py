"""Where the selected pair's margin comes from: its tokens, by captum, and the pairs learnt from."""

from typing import Any

import panel as pn
import panel_material_ui as pmui

from workbench.app.panes import text, tools
from workbench.app.state import PageState
from workbench.engine.influence import KIND, influences
from workbench.engine.questions import attribution
from workbench.scoring.attribution import METHODS, MarginAttribution
from workbench.training.influence import Influences
from workbench.views.markup import number
from workbench.views.tokens import attributed, attribution_note, margin_words
from workbench.views.widgets import TokenStrip

_STEPS = (8, 16, 32, 64)
_SHOWN = 20
_PROMPT_CHARS = 90
_OVER = {"the weights in place": "now", "the kept steps of the branch": "run"}


class AttributionPage:
    """Which tokens the margin comes from, and which pairs training learnt it from."""

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
        self.learnt = LearntFrom(state)
        for widget in (self.method, self.steps):
            widget.param.watch(lambda event: self.refresh(), "value")
        self.view = pn.Column(
            tools(self.method, self.steps),
            self.head,
            self.progress,
            self.strip,
            self.note,
            self.learnt.view,
            sizing_mode="stretch_width",
        )

    def refresh(self) -> None:
        """Show both attributions, or how far they are."""
        self.learnt.refresh()
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
        self.head.object = margin_words(found, beta)
        self.strip.param.update(rows=attributed(found, beta), theme=self._state.theme)
        self.note.object = attribution_note(found, beta)


class LearntFrom:
    """The training pairs whose steps raise or lower the selected margin most; a click selects."""

    def __init__(self, state: PageState) -> None:
        self._state = state
        self._asked: tuple[str, str] | None = None
        self.over = pmui.Select(label="Looked at", options=_OVER, size="small", width=260)
        self.find = pmui.Button(label="Find the pairs", size="small", variant="outlined")
        self.progress = pmui.LinearProgress(
            value=0, variant="determinate", visible=False, sizing_mode="stretch_width", margin=10
        )
        self.note = text("")
        self.helpful, self.harmful = _pair_list(self._select), _pair_list(self._select)
        self.lists = pn.Row(
            pn.Column(text("Raise the margin", "subtitle2"), self.helpful, min_width=300,
                      sizing_mode="stretch_width"),
            pn.Column(text("Lower the margin", "subtitle2"), self.harmful, min_width=300,
                      sizing_mode="stretch_width"),
            visible=False,
            sizing_mode="stretch_width",
        )  # fmt: skip
        self.find.on_click(lambda event: self._ask())
        self.view = pn.Column(
            text("Which pairs moved this margin", "h6"),
            tools(self.over, self.find),
            self.progress,
            self.note,
            self.lists,
            sizing_mode="stretch_width",
        )

    def refresh(self) -> None:
        """Show the pairs, how far the search is, or why there is none."""
        session, row = self._state.session, self._state.selected_row
        status = session.training.status
        able = row is not None and session.training.active is not None
        self.find.disabled = not able or status.phase == "playing"
        if not able or row is None:
            self._say("" if row is None else _NOTHING_TRAINED)
        elif status.phase == "playing":
            self._say("Training is on: pause it on Train to ask which pairs moved this margin.")
        elif self._asked != self._question():
            self._say("A plain descent step on each training pair, taken by itself, is compared.")
        else:
            self._show(influences(session, row, self.over.value))

    def _question(self) -> tuple[str, str]:
        return self._state.selected, self.over.value

    def _ask(self) -> None:
        self._asked = self._question()
        self.refresh()

    def _show(self, found: Influences | Exception | None) -> None:
        if found is None:
            self._working()
        elif isinstance(found, Exception):
            self._say(f"The pairs cannot be found: {found}")
        else:
            self._say(_learning_note(found, self.over.value))
            self.lists.visible = True
            self.helpful.items = self._items(found.helpful(_SHOWN))
            self.harmful.items = self._items(found.harmful(_SHOWN))

    def _say(self, words: str) -> None:
        self.progress.visible = self.lists.visible = False
        self.note.object = words

    def _working(self) -> None:
        job = self._state.session.progress(KIND)
        done, total = (job.progress.done, job.progress.total) if job else (0, 0)
        self._say("Comparing gradients: one pass forth and back for every pair…")
        kind = "determinate" if total else "indeterminate"
        share = int(100 * done / total) if total else 0
        self.progress.param.update(visible=True, value=share, variant=kind)

    def _items(self, ranked: list[tuple[str, float]]) -> list[dict[str, Any]]:
        pairs = self._state.session.snapshot().pairs
        return [
            {
                "label": f"{number(score, 3)}  {pair_id}",
                "secondary": _beginning(pairs[pair_id].prompt_text),
                "icon": None,
                "pair_id": pair_id,
            }
            for pair_id, score in ranked
            if pair_id in pairs
        ]

    def _select(self, item: dict[str, Any]) -> None:
        self._state.selected = item["pair_id"]


_NOTHING_TRAINED = (
    "Nothing is trained here yet: start a run on Train, and this shows which pairs moved the "
    "selected pair's margin."
)


def _pair_list(select: Any) -> Any:  # noqa: ANN401 - a Panel widget
    return pmui.MenuList(
        items=[], dense=True, highlight=False, on_click=select, sizing_mode="stretch_width"
    )


def _beginning(prompt: str) -> str:
    words = " ".join(prompt.split())
    return words if len(words) <= _PROMPT_CHARS else words[: _PROMPT_CHARS - 1] + "…"


def _learning_note(found: Influences, over: str) -> str:
    unit = (
        f"summed over {found.moments} kept steps with their learning rates (TracIn)"
        if over == "run"
        else "for each unit of learning rate, at the weights in place"
    )
    return (
        f"Change of log π/π_ref of chosen minus rejected in nats (β = 1), to first order, by a "
        f"plain descent step on the pair alone; {unit}; {len(found.pair_ids)} pairs compared. "
        "AdamW and RMSProp rescale each weight's step, which is not in here."
    )

"""One study: question, knobs and inputs, figures, claims and tables, and where it comes from."""

import html
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import panel as pn
import panel_material_ui as pmui

from workbench.app.pages.studies_inputs import InputEditors
from workbench.app.pages.studies_knobs import KnobControls
from workbench.app.pages.studies_parts import CopyText
from workbench.app.pages.studies_results import Results
from workbench.app.state import PageState
from workbench.study.base import Study, preset
from workbench.study.desk import Finished, Order, StudyDesk
from workbench.study.errors import StudyError
from workbench.study.knobs import Stage, knob_values, with_knobs
from workbench.study.runs import RunStore
from workbench.study.verdicts import CHECK_SEEDS
from workbench.study.words import SIGNS, authors_of, source_of
from workbench.views.markup import FONT

_SIDE = 320
_CSS = f"""
:host {{ font-family: {FONT}; }}
h2 {{ font-size: 23px; line-height: 1.25; margin: 2px 0 4px; }}
h3 {{ font-size: 13px; letter-spacing: .04em; text-transform: uppercase; opacity: .75;
  margin: 12px 0 2px; }}
p {{ font-size: 14px; line-height: 1.5; margin: 4px 0; max-width: 92ch; overflow-wrap: anywhere; }}
.muted {{ opacity: .75; font-size: 13px; }}
.badge {{ font-size: 13px; font-weight: 600; margin-left: 12px; white-space: nowrap; }}
.bad {{ font-weight: 600; }}
a {{ color: inherit; }}
"""


class StudyView:
    """A study at work.

    Args:
        state: The page's state.
        study: The study.
        store: Where its fits are kept.
        leave: Goes back to the gallery.
    """

    def __init__(
        self,
        state: PageState,
        study: Study[Any, Any],
        store: RunStore,
        leave: Callable[[], None],
    ) -> None:
        session = state.session
        channel = f"{session.session_id}/study/{secrets.token_hex(8)}"
        self.study = study
        self.desk = StudyDesk(study, session.hub.slow, channel, store)
        self._state = state
        self._seen = 0
        self._theme = state.theme
        self.knobs = KnobControls(study, self._moved)
        self.inputs = InputEditors(state, study, self._say)
        self.results = Results(state, study)
        self.actions = Actions(self.run, self.check, self.run_controls, self.desk.cancel)
        self.seed = pmui.TextInput(
            label="Seed", value="0", size="small", margin=(5, 10),
            description="Everything that is drawn at random follows from it.",
        )  # fmt: skip
        self.seed.param.watch(lambda event: self._moved("fit"), "value")
        self.presets = {name: self._preset(name) for name in study.presets}
        self._head = _words("")
        self._notice = _words("", margin=(4, 10))
        self.view = self._layout(leave)
        self.knobs.put(preset(study))
        self._say()
        self._recall()

    # What the reader does

    def run(self) -> None:
        """Run with one seed."""
        self._order(seeds=1)

    def check(self) -> None:
        """Run over several seeds, so that the claims can be judged."""
        self._order(seeds=CHECK_SEEDS)

    def run_controls(self) -> None:
        """Run every sabotaged variant, over the seeds of the run that is shown."""
        held = self.desk.finished
        self._order(seeds=len(held.order.seeds) if held and self._is_current(held) else 1,
                    controls=True)  # fmt: skip

    def _order(self, seeds: int, controls: bool = False) -> None:
        try:
            self.desk.run(self._asked(seeds), controls)
        except StudyError as error:
            self._say(str(error))
            return
        self._say()
        self.tick()

    def _preset(self, name: str) -> Any:  # noqa: ANN401 - a Panel widget
        button = pmui.Button(label=name, size="small", variant="outlined", margin=(2, 4))
        button.on_click(lambda event: self._take_preset(name))
        return button

    def _take_preset(self, name: str) -> None:
        self.knobs.put(preset(self.study, name))
        self._moved("measure")
        self._recall()

    def _moved(self, stage: Stage) -> None:
        """A measure knob is heard at once; for a fit knob the reader is told to run."""
        try:
            params = self.knobs.params()
        except StudyError as error:
            self._say(str(error))
            return
        held = self.desk.finished
        if stage == "measure" and held is not None and not self.desk.busy:
            # What is shown keeps its fit knobs until it is run again.
            self.desk.measure(with_knobs(held.order.params, knob_values(params, "measure")))
            self._arrived()
        self._say()

    # What the worker does

    def tick(self) -> None:
        """Show how far the run is, or what it found."""
        self.actions.show(self.desk)
        if self.desk.version != self._seen:
            if self.desk.finished is not None:
                self._measure_again(self.desk.finished)
            self._arrived()
            self._say()

    def dress(self) -> None:
        """Take the colours of the page."""
        if self._theme != self._state.theme:
            self._theme = self._state.theme
            self.inputs.dress(self._theme)
            self.results.dress()

    def close(self) -> None:
        """Stop what runs."""
        self.desk.close()

    def _recall(self) -> None:
        """Show a run that is kept already; nothing is fitted for it."""
        try:
            order = self._asked(seeds=1)
        except StudyError:
            return
        if self.desk.is_kept(order) and not self.desk.is_fitted(order):
            self.desk.run(order)

    def _measure_again(self, held: Finished) -> None:
        """The sliders may have moved while the run was under way."""
        try:
            wanted = knob_values(self.knobs.params(), "measure")
        except StudyError:
            return
        if knob_values(held.order.params, "measure") != wanted:
            self.desk.measure(with_knobs(held.order.params, wanted))

    def _arrived(self) -> None:
        self._seen = self.desk.version
        if self.desk.finished is not None and not self.desk.problem:
            self.results.show(self.desk.finished.report)
        self._head.object = _head(self.study, self.desk.badge)

    # What is said

    def _asked(self, seeds: int) -> Order:
        first = _seed(self.seed.value)
        wanted = tuple(range(first, first + seeds))
        return Order(self.knobs.params(), wanted, self.inputs.edited())

    def _is_current(self, held: Finished) -> bool:
        """Whether what is shown is what a press of Run would show."""
        try:
            asked = self._asked(seeds=1)
        except StudyError:
            return False
        same = replace(asked, seeds=held.order.seeds).fit == held.order.fit
        return same and asked.seeds[0] == held.order.seeds[0]

    def _say(self, problem: str = "") -> None:
        """The notice above the figures, and which preset is on."""
        self._notice.object = self._notice_html(problem or self.desk.problem)
        try:
            now = self.knobs.params()
        except StudyError:
            now = None
        for name, button in self.presets.items():
            button.label = f"✓ {name}" if now == preset(self.study, name) else name

    def _notice_html(self, problem: str) -> str:
        held = self.desk.finished
        if problem:
            return f"<p class='bad' role='alert'>⚠ {html.escape(problem)}</p>"
        if held is None and not self.desk.busy:
            return (
                "<p class='muted'>This study has not run here yet. Press <b>Run</b>; the smoke "
                "preset takes seconds, the default one up to a minute on two cores.</p>"
            )
        if held is not None and not self.desk.busy and not self._is_current(held):
            return (
                "<p class='muted' role='status'>Knobs or inputs have changed since this run; press "
                "<b>Run</b> to fit again.</p>"
            )
        return ""

    def _layout(self, leave: Callable[[], None]) -> Any:  # noqa: ANN401 - a Panel layout
        back = pmui.Button(
            label="All studies", icon="arrow_back", size="small", variant="text", margin=(4, 6)
        )
        back.on_click(lambda event: leave())
        self._head.object = _head(self.study, self.desk.badge)
        edits = [_words("<h3>Inputs</h3>"), self.inputs.view] if self.study.inputs else []
        main = pn.Column(
            self._notice, self.results.view, *edits, *_about(self.study),
            sizing_mode="stretch_width", margin=0, min_width=360,
        )  # fmt: skip
        return pn.Column(
            back, self._head, pn.Row(self._side(), main, sizing_mode="stretch_width", margin=0),
            sizing_mode="stretch_width", margin=0,
        )  # fmt: skip

    def _side(self) -> Any:  # noqa: ANN401 - a Panel layout
        measure = self.knobs.of("measure")
        live = [_words("<h3>Measured live</h3>"), *measure] if measure else []
        return pn.Column(
            _words("<h3>Presets</h3>"),
            pmui.FlexBox(*self.presets.values(), gap="4px", margin=(2, 6)),
            self.actions.view,
            *live,
            _words("<h3>Fitted by Run</h3>"),
            _pairs([*self.knobs.of("fit"), self.seed]),
            width=_SIDE,
            margin=(0, 8, 0, 0),
        )


class Actions:
    """The buttons that run something, and how far it is."""

    def __init__(
        self,
        run: Callable[[], None],
        check: Callable[[], None],
        controls: Callable[[], None],
        cancel: Callable[[], None],
    ) -> None:
        self.run = _button("Run", run, variant="contained")
        self.check = _button(f"Check claims over {CHECK_SEEDS} seeds", check)
        self.controls = _button("Run the controls", controls)
        self.cancel = _button("Cancel", cancel, color="error")
        self._bar = pmui.LinearProgress(sizing_mode="stretch_width", margin=(8, 10), value=0)
        self._note = _words("")
        self._busy = pn.Column(
            self._bar, self._note, self.cancel, visible=False, sizing_mode="stretch_width", margin=0
        )
        self._idle = pn.Column(
            self.run, self.check, self.controls, sizing_mode="stretch_width", margin=0
        )
        self.view = pn.Column(self._idle, self._busy, sizing_mode="stretch_width", margin=(6, 0))

    def show(self, desk: StudyDesk) -> None:
        """Follow the desk's job."""
        busy = desk.busy
        if self._busy.visible != busy:
            self._busy.visible = busy
            for button in (self.run, self.check, self.controls):
                button.disabled = busy
        if busy and desk.job is not None:
            now = desk.job.progress
            share = int(100 * now.done / now.total) if now.total else 0
            kind = "determinate" if share else "indeterminate"
            self._bar.param.update(value=share, variant=kind)
            words = f"{share} % · {now.note or 'working'}"
            if desk.job.status == "queued":
                words = "waiting for the worker"
            self._note.object = f"<p class='muted' role='status'>{html.escape(words)}</p>"


def _head(study: Study[Any, Any], badge: str) -> str:
    paper = study.paper
    link = (
        f" <a href='{html.escape(paper.url)}' target='_blank' rel='noopener noreferrer'>"
        f"arXiv:{html.escape(paper.arxiv)}</a>"
        if paper.arxiv
        else ""
    )
    tags = " · ".join(dict.fromkeys((study.family, *study.tags)))
    return (
        f"<h2>{html.escape(study.title)}<span class='badge'>{SIGNS[badge]} {badge}</span>"
        f"</h2><p>{html.escape(study.question)}</p>"
        f"<p class='muted'>{html.escape(paper.citation)}{link}</p>"
        f"<p class='muted'>{html.escape(tags)}</p>"
    )


def _about(study: Study[Any, Any]) -> Sequence[Any]:
    """What it does not show, where it comes from, and how to cite it."""
    shown = (
        f"<h3>What this miniature does not show</h3><p>{html.escape(study.not_shown)}</p>"
        f"<h3>Source and citation</h3><p>Source: <code>{html.escape(source_of(study))}</code>. "
        f"{html.escape(authors_of(study))}.</p>"
    )
    copy = CopyText(words=study.paper.bibtex, label="Copy BibTeX", margin=(0, 10, 16, 10))
    return _words(shown), copy


def _pairs(widgets: Sequence[Any]) -> Any:  # noqa: ANN401 - Panel components
    """Two fields in a line: there may be a dozen."""
    for widget in widgets:
        widget.param.update(sizing_mode=None, width=_SIDE // 2 - 16, margin=(5, 4))
    return pmui.FlexBox(
        *widgets, gap="0px", align_items="center", margin=(0, 6), sizing_mode="stretch_width"
    )


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise StudyError(f"The seed is {text[:40]!r}; give a whole number.") from error


def _button(label: str, act: Callable[[], None], **look: Any) -> Any:  # noqa: ANN401
    button = pmui.Button(
        label=label, size="small", margin=(4, 10), sizing_mode="stretch_width",
        **{"variant": "outlined", **look},
    )  # fmt: skip
    button.on_click(lambda event: act())
    return button


def _words(markup: str, margin: Any = (0, 10)) -> Any:  # noqa: ANN401 - a Panel pane
    """Our own markup around texts that are escaped."""
    return pn.pane.HTML(markup, stylesheets=[_CSS], sizing_mode="stretch_width", margin=margin)

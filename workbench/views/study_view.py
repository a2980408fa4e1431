"""A study in a notebook: knobs, figures and claims that live with the kernel, and stay without it.

    import workbench
    view = workbench.show("differential-information", preset="smoke", run=True)

In JupyterLab the view is made of ipywidgets and Plotly's own FigureWidget, so that it needs no
network. Beside it the main figure and a page of plain HTML are saved with the notebook, which is
what a reader sees where no kernel runs.
"""

import html
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import ipywidgets as widgets

from workbench.engine.jobs import JobRunner
from workbench.study.base import Study, preset
from workbench.study.catalogue import load_study
from workbench.study.desk import Order, StudyDesk
from workbench.study.errors import StudyError
from workbench.study.knobs import (
    Knob,
    knob_values,
    knobs_of,
    slider_values,
    with_knobs,
    written,
)
from workbench.study.runner import StudyReport
from workbench.study.runs import RunStore
from workbench.study.words import (
    CLAIM_HEAD,
    CONTROL_HEAD,
    claim_cells,
    control_cells,
    source_of,
    summary_of,
)
from workbench.views.notebook import NotebookOutput, Still
from workbench.views.study_figure import StudyFigure

_WIDE = {"width": "300px"}
_STYLE = (
    "<style>.wb-study table{border-collapse:collapse;font-size:13px}"
    ".wb-study th,.wb-study td{text-align:left;vertical-align:top;padding:3px 10px;"
    "border-bottom:1px solid rgba(128,128,128,.35)}</style>"
)


def show(
    study: str | Study[Any, Any],
    *,
    preset: str = "default",
    seed: int = 0,
    run: bool = False,
    store: RunStore | None = None,
) -> "StudyView":
    """Show a study in a notebook, live.

    Args:
        study: A study, or the slug of one of the catalogue.
        preset: Whose knobs to begin with.
        seed: Everything that is drawn at random follows from it.
        run: Whether to run it at once, and wait for the end.
        store: Where fits are kept; by default the user's own run store.

    Raises:
        StudyError: there is no such study or preset, or the run fails.
    """
    found = load_study(study) if isinstance(study, str) else study
    view = StudyView(found, preset, seed, store or RunStore())
    if run:
        view.run(wait=True)
    return view


class StudyView:
    """A study at work in a notebook.

    Args:
        study: The study.
        name: The preset to begin with.
        seed: The seed to begin with.
        store: Where fits are kept.

    Attributes:
        desk: Runs the study; `desk.finished` is the last run.
        widget: The live view.
    """

    def __init__(self, study: Study[Any, Any], name: str, seed: int, store: RunStore) -> None:
        self.study = study
        channel = f"notebook/{secrets.token_hex(8)}"
        self.desk = StudyDesk(study, _runner(), channel, store, told=self._told)
        self.knobs = {knob.name: _control(knob) for knob in knobs_of(study.params_type).values()}
        self.seed = widgets.IntText(value=seed, description="seed", layout=_WIDE)
        self._run = _button("Run", lambda: self.run())
        self._cancel = _button("Cancel", self.desk.cancel)
        self._bar = widgets.FloatProgress(min=0, max=1, layout=_WIDE)
        self._note = widgets.HTML()
        self._figures = widgets.VBox()
        self._words = widgets.HTML(_head(study))
        self._claims = widgets.HTML()
        self._shown = ""
        self._put(preset(study, name))
        self._listen()
        self.widget = self._layout()
        self._output = NotebookOutput(study.title, self.widget, self._still)
        self._follow()
        self._recall()

    def run(self, wait: bool = False) -> None:
        """Fit with the knobs as they stand, and measure.

        Args:
            wait: Whether to return only at the end, and raise what went wrong.

        Raises:
            StudyError: with `wait`, a knob is out of range or the run fails.
        """
        try:
            job = self.desk.run(self._order())
        except StudyError as error:
            if wait:
                raise
            self._say(str(error))
            return
        self._follow()
        if wait:
            job.wait()
            if self.desk.problem:
                raise StudyError(self.desk.problem)

    @property
    def report(self) -> StudyReport | None:
        """What the last run found; None before the first."""
        return self.desk.finished.report if self.desk.finished else None

    def to_html(self) -> str:
        """The study as it stands as plain HTML: its main figure, question and claims."""
        return self._output.page()

    def show(self) -> None:
        """Display the study in the cell that is being run."""
        self._output.show()

    def _ipython_display_(self) -> None:
        self.show()

    def _repr_mimebundle_(self, **options: Any) -> Mapping[str, Any]:  # noqa: ANN401 - IPython's
        """Live where a kernel runs, plain HTML where not."""
        return self._output.bundle()

    def _still(self) -> Still:
        head, report = f"{_STYLE}{_head(self.study)}", self.report
        if report is None:
            return Still(None, f"{head}<p>This study has not run yet.</p>")
        figure = StudyFigure(next(iter(self.study.figures(report.runs[0].result).values())))
        words = f"<p>{html.escape(figure.caption)}</p>{_claims_html(report)}"
        return Still(figure, f"{head}<div class='wb-study'>{words}</div>")

    # Controls

    def _layout(self) -> Any:  # noqa: ANN401 - ipywidgets has no types
        stages: dict[str, list[Any]] = {"measure": [], "fit": []}
        for knob in knobs_of(self.study.params_type).values():
            stages[knob.stage].append(self.knobs[knob.name])
        live = [_title("Measured live"), *stages["measure"]] if stages["measure"] else []
        side = [
            *live, _title("Fitted by Run"), *stages["fit"], self.seed,
            widgets.HBox([self._run, self._cancel]), self._bar, self._note,
        ]  # fmt: skip
        main = widgets.VBox(
            [self._figures, self._claims], layout={"flex": "1 1 0", "min_width": "0"}
        )
        return widgets.VBox([self._words, widgets.HBox([widgets.VBox(side), main])])

    def _listen(self) -> None:
        for knob in knobs_of(self.study.params_type).values():
            if knob.stage == "measure":
                self.knobs[knob.name].observe(lambda change: self._measure(), "value")

    def _put(self, params: object) -> None:
        knobs = knobs_of(self.study.params_type)
        for name, value in knob_values(params).items():
            control = self.knobs[name]
            if isinstance(control, widgets.SelectionSlider) and value not in control.options:
                control.options = sorted({*control.options, value})
            as_text = isinstance(control, widgets.Text) and knobs[name].kind is not str
            control.value = written(value) if as_text else value

    def _params(self) -> Any:  # noqa: ANN401 - the study's own parameters
        values = {name: control.value for name, control in self.knobs.items()}
        return with_knobs(self.study.params_type(), values)

    def _order(self) -> Order:
        return Order(self._params(), (int(self.seed.value),))

    def _recall(self) -> None:
        """Show a run that is kept already."""
        if self.desk.is_kept(self._order()):
            self.run()

    def _measure(self) -> None:
        held = self.desk.finished
        if held is None:
            return
        try:
            measured = knob_values(self._params(), "measure")
        except StudyError as error:
            self._say(str(error))
            return
        self.desk.measure(with_knobs(held.order.params, measured))
        self._show()

    # What the worker does

    def _told(self) -> None:
        """On the worker's thread: the job reports, or has ended."""
        self._follow()
        if not self.desk.busy:
            self._show()

    def _follow(self) -> None:
        busy, job = self.desk.busy, self.desk.job
        self._run.disabled, self._cancel.disabled = busy, not busy
        if job is not None and busy:
            now = job.progress
            self._bar.value = now.done / now.total if now.total else 0.0
            self._say(now.note)
        elif job is not None and job.status == "cancelled":
            self._say("cancelled")

    def _show(self) -> None:
        report = self.report
        self._say(self.desk.problem)
        if report is None or self.desk.problem:
            return
        self._bar.value = 1.0
        drawn = self.study.figures(report.runs[0].result)
        self._figures.children = [part for each in drawn.values() for part in _figure(each)]
        self._claims.value = _STYLE + f"<div class='wb-study'>{_claims_html(report)}</div>"
        self._output.refresh_soon()

    def _say(self, words: str) -> None:
        self._note.value = html.escape(words)


@cache
def _runner() -> JobRunner:
    """One worker for all views of a kernel, as in the application."""
    return JobRunner("workbench-notebook")


def _figure(figure: Any) -> Sequence[Any]:  # noqa: ANN401 - plotly has no types
    import plotly.graph_objects as go

    caption = widgets.HTML(f"<p>{html.escape(StudyFigure(figure).caption)}</p>")
    return go.FigureWidget(figure), caption


def _control(knob: Knob) -> Any:  # noqa: ANN401 - ipywidgets has no types
    unit = f" [{knob.unit}]" if knob.unit else ""
    about = {
        "description": f"{knob.name.replace('_', ' ')}{unit}",
        "tooltip": knob.help,
        "layout": _WIDE,
        "style": {"description_width": "130px"},
    }
    if knob.kind is bool:
        return widgets.Checkbox(value=knob.default, **about)
    if knob.choices:
        return widgets.Dropdown(options=list(knob.choices), value=knob.default, **about)
    if knob.kind is str:
        return widgets.Text(value=knob.default, continuous_update=False, **about)
    if knob.stage == "measure":
        options = sorted({*slider_values(knob), knob.default})
        return widgets.SelectionSlider(options=options, value=knob.default, **about)
    return widgets.Text(value=written(knob.default), continuous_update=False, **about)


def _head(study: Study[Any, Any]) -> str:
    lines = (study.question, study.paper.citation)
    shown = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    about = f"Not shown: {study.not_shown} Source: {source_of(study)}"
    return f"<h3>{html.escape(study.title)}</h3>{shown}<p><small>{html.escape(about)}</small></p>"


def _claims_html(report: StudyReport) -> str:
    claims = _table(CLAIM_HEAD, [claim_cells(each) for each in report.verdicts])
    controls = [control_cells(each) for each in report.controls]
    more = _table(CONTROL_HEAD, controls) if controls else ""
    return f"{claims}<p>{html.escape(summary_of(report))}</p>{more}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    import pandas as pd

    found: str = pd.DataFrame(rows, columns=list(head)).to_html(index=False, escape=True, border=0)
    return found


def _title(words: str) -> Any:  # noqa: ANN401 - ipywidgets has no types
    return widgets.HTML(f"<b>{words}</b>")


def _button(label: str, act: Callable[[], None]) -> Any:  # noqa: ANN401 - ipywidgets has no types
    button = widgets.Button(description=label)
    button.on_click(lambda _: act())
    return button

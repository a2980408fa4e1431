"""What a run found: figures, claims, controls and tables."""

import html
from typing import Any

import panel as pn
import panel_material_ui as pmui

from workbench.app.pages.studies_parts import PlotlyFigure
from workbench.app.panes import export_menu, tools
from workbench.app.state import PageState
from workbench.study.base import Study
from workbench.study.output import report_state, table_csv
from workbench.study.result import Cell
from workbench.study.runner import StudyReport
from workbench.study.words import (
    CLAIM_HEAD,
    CONTROL_HEAD,
    claim_cells,
    control_cells,
    summary_of,
)
from workbench.views.export import figure_bytes
from workbench.views.markup import FONT, TABLE_CSS, table_html
from workbench.views.study_figure import StudyFigure

_MAIN, _OTHER = 470, 410
_ROWS = 100
_CAPTION_CSS = f"p {{ font: 13px/1.5 {FONT}; opacity: .8; margin: 0 0 10px; max-width: 96ch; }}"
_HEADING_CSS = f"""h3 {{ font: 600 13px {FONT}; letter-spacing: .04em;
  text-transform: uppercase; opacity: .75; margin: 4px 0; }}"""
_TABLE_CSS = """
div { overflow: auto; max-height: 380px; }
th { position: sticky; top: 0; background: var(--panel-background-color, transparent); }
"""
_CLAIMS_CSS = """
th, td { text-align: left; white-space: normal; vertical-align: top; }
th:first-child { min-width: 220px; }
td:nth-child(3) { white-space: nowrap; }
div { overflow-x: auto; }
td:nth-child(6) { white-space: nowrap; font-weight: 600; }
"""


class Results:
    """Everything that follows from a report; nothing is shown before the first one."""

    def __init__(self, state: PageState, study: Study[Any, Any]) -> None:
        self._state = state
        self._study = study
        self._report: StudyReport | None = None
        self._figures: dict[str, FigureView] = {}
        self._place = pn.Column(sizing_mode="stretch_width", margin=0)
        self.claims = _table(_CLAIMS_CSS)
        self.controls = _table(_CLAIMS_CSS)
        self.tables = Tables(state)
        self._controls = pn.Column(
            heading("Controls: sabotaged variants, each of which must fail its claim"),
            self.controls, sizing_mode="stretch_width", margin=0, visible=False,
        )  # fmt: skip
        self.view = pn.Column(
            self._place, heading("Claims"), self.claims, self._controls, heading("Tables"),
            self.tables.view, visible=False,
            sizing_mode="stretch_width", margin=0,
        )  # fmt: skip

    def show(self, report: StudyReport) -> None:
        """Show a report."""
        self._report = report
        self._draw(report)
        claims = [claim_cells(each) for each in report.verdicts]
        self.claims.object = _boxed(table_html([*CLAIM_HEAD], claims, [summary_of(report)]))
        self._controls.visible = bool(report.controls)
        controls = [control_cells(each) for each in report.controls]
        self.controls.object = _boxed(table_html([*CONTROL_HEAD], controls))
        self.tables.show(report)
        self.view.visible = True

    def dress(self) -> None:
        """Take the colours of the page."""
        if self._report is not None:
            self._draw(self._report)

    def _draw(self, report: StudyReport) -> None:
        drawn = self._study.figures(report.runs[0].result)
        if list(drawn) != list(self._figures):
            self._figures = {
                name: FigureView(self._state, self._study, name, _OTHER if place else _MAIN)
                for place, name in enumerate(drawn)
            }
            self._place.objects = _arranged(list(self._figures.values()))
        for name, figure in drawn.items():
            self._figures[name].show(StudyFigure(figure), report)


class FigureView:
    """One figure with its caption, which can be saved with its data and the run's state."""

    def __init__(self, state: PageState, study: Study[Any, Any], name: str, tall: int) -> None:
        self._state = state
        self._study = study
        self._name = name
        self._shown: tuple[StudyFigure, StudyReport] | None = None
        self.plot = PlotlyFigure(tall=tall)
        self.caption = pn.pane.HTML("", stylesheets=[_CAPTION_CSS], sizing_mode="stretch_width")
        framed = pn.Column(
            self.plot, export_menu(self.save), sizing_mode="stretch_width", margin=0,
            styles={"position": "relative"},
        )  # fmt: skip
        self.view = pn.Column(framed, self.caption, sizing_mode="stretch_width", min_width=320,
                              margin=(4, 10))  # fmt: skip

    def show(self, figure: StudyFigure, report: StudyReport) -> None:
        """Draw a figure in the page's colours."""
        self._shown = figure, report
        self.plot.draw(figure.to_page(self._state.dark))
        self.caption.object = f"<p>{html.escape(figure.caption)}</p>"

    def save(self, form: str) -> None:
        """Hand the figure to the browser as a file."""
        if self._shown is not None:
            self._state.attempt(self._download, form, *self._shown)

    def _download(self, form: str, figure: StudyFigure, report: StudyReport) -> None:
        kept = report_state(report) | {"figure": self._name}
        content = figure_bytes(figure, form, kept, self._state.dark)
        self._state.download(f"{self._study.slug}-{self._name}.{form}", content)


class Tables:
    """The tables of a run, one at a time, and each as a file."""

    def __init__(self, state: PageState) -> None:
        self._state = state
        self._report: StudyReport | None = None
        self.choice = pmui.Select(label="Table", options=[], size="small", width=260)
        save = pmui.Button(label="Save as CSV", icon="download", size="small", variant="outlined")
        save.on_click(state.doing(self._save))
        self.choice.param.watch(lambda event: self._draw(), "value")
        self._table = _table(_TABLE_CSS)
        self.view = pn.Column(
            tools(self.choice, save), self._table, sizing_mode="stretch_width", margin=0
        )

    def show(self, report: StudyReport) -> None:
        """Show the table that is chosen, of another report."""
        self._report = report
        names = list(report.runs[0].result.tables)
        if self.choice.options != names:
            self.choice.options = names
            self.choice.value = names[0] if names else None
        self._draw()

    def _draw(self) -> None:
        if self._report is None or self.choice.value is None:
            self._table.object = ""
            return
        run = self._report.runs[0]
        columns = run.result.tables[self.choice.value]
        rows = list(zip(*columns.values(), strict=True))
        shown = [[_cell(cell) for cell in row] for row in rows[:_ROWS]]
        words = f"{len(rows)} rows, seed {run.seed}"
        more = f"; the first {_ROWS} are shown, all are in the file." if len(rows) > _ROWS else "."
        self._table.object = _boxed(table_html(list(columns), shown, [words + more]))

    def _save(self) -> None:
        if self._report is not None and self.choice.value is not None:
            content = table_csv(self._report.runs, self.choice.value)
            self._state.download(f"{self._report.study.slug}-{self.choice.value}.csv", content)


def heading(words: str) -> Any:  # noqa: ANN401 - a Panel pane
    """The title of a section, in words of ours."""
    return pn.pane.HTML(f"<h3>{words}</h3>", stylesheets=[_HEADING_CSS], margin=(8, 10, 0, 10))


def _arranged(figures: list[FigureView]) -> list[Any]:
    """The main figure over the whole width, the others two in a line."""
    main, others = figures[:1], [each.view for each in figures[1:]]
    lines = [
        pn.Row(*others[place : place + 2], sizing_mode="stretch_width", margin=0)
        for place in range(0, len(others), 2)
    ]
    return [*(each.view for each in main), *lines]


def _table(css: str) -> Any:  # noqa: ANN401 - a Panel pane
    return pn.pane.HTML(
        "", stylesheets=[TABLE_CSS, css], sizing_mode="stretch_width", margin=(6, 10)
    )


def _boxed(markup: str) -> str:
    """In a box that scrolls where a table is wider or longer than its place."""
    return f"<div>{markup}</div>"


def _cell(cell: Cell) -> str:
    if cell is None:
        return "–"
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell)

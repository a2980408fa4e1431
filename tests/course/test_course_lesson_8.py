"""What a student may hand in as pairs, and what a report's figure must carry."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest

from workbench.course.answers import Open, Wrong
from workbench.course.catalogue import find_exercise
from workbench.course.judging import judge
from workbench.course.lesson_8 import Report, as_set
from workbench.data.pairs import PreferenceSet
from workbench.data.sources import open_source
from workbench.views.export import export_figure
from workbench.views.study_figure import StudyFigure

ROWS = [
    {"prompt": f"Question {n // 2}?", "chosen": f"Answer {n}.", "rejected": "No answer."}
    for n in range(24)
]


def test_missing_cells_of_a_frame_are_left_out() -> None:
    frame = pd.DataFrame([{**row, "votes_chosen": n if n % 2 else None}
                          for n, row in enumerate(ROWS)])  # fmt: skip
    pairs = as_set(frame, "mine").pairs
    assert pairs[0].votes_chosen is None
    assert pairs[1].votes_chosen == 1


def test_a_name_stands_for_its_source() -> None:
    assert as_set("teaching", "mine") == open_source("teaching")


def test_a_file_that_is_not_there_is_told() -> None:
    with pytest.raises(Wrong, match="nor a file that exists"):
        as_set("nowhere.jsonl", "mine")


def test_dots_are_no_answer() -> None:
    with pytest.raises(Open):
        as_set(..., "mine")


def report(folder: Path, form: str) -> Report:
    pairs = PreferenceSet("mine", as_set(ROWS, "mine"))
    train, held_out = list(pairs)[:12], list(pairs)[12:]
    values = [float(n % 2) for n in range(12)]
    settings = {"seed": 0}
    state = {"settings": settings, "held_out": PreferenceSet("held out", held_out).digest}
    figure = StudyFigure(go.Figure(go.Bar(x=[0, 1], y=[6, 6]), {"title": "Values"}))
    return Report(
        question="Is every second value one, as it should be here?",
        trained_on=train,
        held_out=held_out,
        values=values,
        estimate=0.5,
        standard_error=0.0,
        settings=settings,
        limits="These values were made up, so they say nothing of any model.",
        figure=export_figure(figure, folder / f"values.{form}", state),
    )


@pytest.mark.parametrize("form", ["png", "svg", "pdf", "html", "json"])
def test_a_report_passes_with_a_figure_of_every_form(tmp_path: Path, form: str) -> None:
    verdict = judge(find_exercise("8.5"), report(tmp_path, form))
    assert verdict.passed, verdict


def test_a_figure_of_other_pairs_is_refused(tmp_path: Path) -> None:
    given = report(tmp_path, "json")
    turned = replace(given, held_out=list(reversed(given.held_out)))
    verdict = judge(find_exercise("8.5"), turned)
    assert verdict.status == "wrong"
    assert "held-out digest" in verdict.message


def test_a_figure_that_is_not_there_is_refused(tmp_path: Path) -> None:
    verdict = judge(find_exercise("8.5"), replace(report(tmp_path, "json"), figure="gone.svg"))
    assert verdict.status == "wrong"
    assert "cannot be read" in verdict.message

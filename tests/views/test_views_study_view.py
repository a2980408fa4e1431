"""A study in a notebook, without a browser: the widgets' own values are what the page shows."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from study_support import load_example

import workbench
from workbench.study.errors import StudyError
from workbench.study.runs import RunStore
from workbench.views.study_view import StudyView, show

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def study() -> Any:
    class Counting(load_example().CoinStudy):  # type: ignore[misc, name-defined]
        fits = 0

        def fit(self, params: Any, context: Any) -> Any:
            type(self).fits += 1
            return super().fit(params, context)

    return Counting()


@pytest.fixture
def view(study: Any, tmp_path: Path) -> StudyView:
    return show(study, preset="smoke", run=True, store=RunStore(tmp_path))


def shown_points(view: StudyView) -> int:
    return len(view._figures.children[0].data[0].y)


def test_a_run_shows_figures_and_claims(view: StudyView) -> None:
    assert shown_points(view) == 20
    assert "✓ holds" in view._claims.value
    assert view.report is not None
    assert view.report.runs[0].seed == 0


def test_a_measure_knob_moves_the_figure_without_a_fit(view: StudyView, study: Any) -> None:
    view.knobs["every"].value = 10
    assert shown_points(view) == 200
    assert type(study).fits == 1


def test_a_fit_knob_waits_for_run(view: StudyView, study: Any) -> None:
    view.knobs["tosses"].value = "1000"
    assert shown_points(view) == 20
    view.run(wait=True)
    assert shown_points(view) == 10
    assert type(study).fits == 2


def test_a_knob_out_of_range_is_told(view: StudyView) -> None:
    view.knobs["tosses"].value = "3"
    view.run()
    assert "from 10 to 100000" in view._note.value
    with pytest.raises(StudyError, match="from 10 to 100000"):
        view.run(wait=True)


def test_a_kept_run_is_shown_without_a_fit(view: StudyView, study: Any, tmp_path: Path) -> None:
    again = show(study, preset="smoke", store=RunStore(tmp_path))
    assert again.desk.job is not None
    assert again.desk.job.wait(60)
    assert shown_points(again) == 20
    assert type(study).fits == 1


def test_a_failed_run_is_told_and_raised(tmp_path: Path) -> None:
    class Broken(load_example().CoinStudy):  # type: ignore[misc, name-defined]
        def fit(self, params: Any, context: Any) -> Any:
            raise RuntimeError(HOSTILE)

    with pytest.raises(StudyError, match="RuntimeError"):
        show(Broken(), run=True, store=RunStore(tmp_path))


def test_without_a_kernel_there_is_html_with_figure_and_claims(view: StudyView) -> None:
    bundle = view._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    page = bundle["text/html"]
    assert page.count("<svg") == 1
    assert "The share approaches the bias." in page
    assert "<script" not in page
    assert "src=" not in page
    assert 'href="http' not in page


def test_before_the_first_run_the_html_says_so(study: Any, tmp_path: Path) -> None:
    assert "has not run yet" in show(study, store=RunStore(tmp_path)).to_html()


def test_hostile_texts_are_escaped(tmp_path: Path) -> None:
    class Hostile(load_example().CoinStudy):  # type: ignore[misc, name-defined]
        title = question = not_shown = HOSTILE

        def figures(self, result: Any) -> Any:
            from workbench.study import plot

            figure = plot.figure(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
            plot.line(figure, [1, 2], [1, 2], HOSTILE)
            return {"a": figure}

    view = show(Hostile(), preset="smoke", run=True, store=RunStore(tmp_path))
    assert "<img" not in view.to_html()
    assert "<img" not in view._words.value
    assert "<img" not in view._figures.children[1].value


def test_show_is_the_packages_own_and_read_only_when_asked_for() -> None:
    assert workbench.show is show
    code = (
        "import sys, workbench, workbench.study.runner;"
        "assert not {'ipywidgets', 'plotly', 'panel'} & set(sys.modules);"
        "assert callable(workbench.show); assert 'panel' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'shew'"):
        workbench.shew  # noqa: B018


def test_an_unknown_study_or_preset_is_answered(study: Any) -> None:
    with pytest.raises(StudyError, match="There is no study"):
        show("no-such-study")
    with pytest.raises(StudyError, match="There is no preset"):
        show(study, preset="huge")

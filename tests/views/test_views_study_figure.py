"""Study figures as files: drawn without a browser, read back to the same numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image
from study_support import load_example

from workbench.study import plot
from workbench.study.catalogue import BUILT_IN, load_study
from workbench.study.contract import try_study
from workbench.study.knobs import with_knobs
from workbench.study.output import report_state, write_report
from workbench.study.runner import Conditions, run
from workbench.views.draw_matplotlib import style
from workbench.views.export import ExportError, figure_bytes, read_export
from workbench.views.study_figure import StudyFigure, figure_files, read_study_figure

FORMS = ("png", "svg", "pdf", "html")


def every_mark(log: bool = False) -> Any:
    figure = plot.figure("Title & <b>more</b>", "x [a]", "y [b]", "Caption.", log_x=log, log_y=log)
    plot.line(figure, [1, 2, 3], [1, 2, None], "line", 0)
    plot.points(figure, [1, 2], np.array([1.5, 2.5]), "points", 1, ["first", "second"])
    plot.bars(figure, [1, 2], [1, 2], "bars", 2)
    plot.bars(figure, [1, 2], [2, 1], "more bars", 3)
    plot.band(figure, [1, 2], [1, 1], [2, 3], "band", 4)
    plot.rule(figure, x=1.5, label="half")
    plot.rule(figure, y=100.0, label="expected")
    figure.add_scatter(x=[1, 2], y=[1, 2], mode="lines+markers+text", name="all",
                       text=["a", "b"], error_y={"array": [0.1, 0.2]})  # fmt: skip
    return figure


def canvas_of(figure: Any, dark: bool = False) -> Any:
    import matplotlib

    with matplotlib.rc_context(style()):
        canvas = StudyFigure(figure).to_matplotlib(dark)
        canvas.draw_without_rendering()
    return canvas


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("log", [False, True])
def test_a_file_is_read_back_to_the_same_table_and_state(
    form: str, log: bool, tmp_path: Path
) -> None:
    figure, state = StudyFigure(every_mark(log)), {"study": "coin", "params": {"n": 3}}
    path = tmp_path / f"figure.{form}"
    path.write_bytes(figure_bytes(figure, form, state))
    back, found = read_study_figure(path)
    assert found == state
    assert back.table().equals(figure.table())
    assert back.caption == "Caption."
    assert json.loads(back.to_json()) == json.loads(figure.to_json())
    if form != "html":  # where Plotly orders the keys by their history
        assert figure_bytes(back, form, found) == path.read_bytes()


def test_the_table_has_every_mark_of_every_trace() -> None:
    figure = plot.figure("T", "x", "y", "c")
    plot.points(figure, ["a", "b"], [1, 2], "points", labels=["p", "q"])
    plot.heatmap(figure, [1, 2, 3], [5, 6], [[0, 1, 2], [3, 4, None]], "map")
    table = StudyFigure(figure).table()
    assert list(table["trace"]) == ["points"] * 2 + ["map"] * 6
    assert list(table["text"][:2]) == ["p", "q"]
    assert list(table["x"][2:]) == [1, 2, 3] * 2
    assert list(table["y"][2:]) == [5] * 3 + [6] * 3
    assert list(table["z"][2:7]) == [0, 1, 2, 3, 4]


def test_arrays_that_plotly_packs_are_unpacked_again() -> None:
    x = np.linspace(0, 1, 7)
    figure = StudyFigure(go.Figure(go.Scatter(x=x, y=x.astype(np.float32), name="a")))
    back = StudyFigure.from_json(figure.to_json())
    assert "bdata" in figure.to_json()
    assert list(back.table()["x"]) == x.tolist()
    assert list(back.table()["y"]) == x.astype(np.float32).tolist()


def test_lines_bars_bands_and_rules_lie_where_the_numbers_say() -> None:
    axes = canvas_of(every_mark()).axes[0]
    first = axes.lines[0]
    assert first.get_xdata().tolist() == [1, 2, 3]
    assert np.isnan(first.get_ydata()[2])
    assert [bar.get_height() for bar in axes.patches if bar.get_label() != "band"][:2] == [1, 2]
    left, right = (axes.containers[place].patches[0] for place in (0, 1))
    assert left.get_x() + left.get_width() == pytest.approx(right.get_x())
    assert left.get_width() * 2 == pytest.approx(0.8)
    upright = [line for line in axes.lines if list(line.get_xdata()) == [1.5, 1.5]]
    assert len(upright) == 1
    assert {text.get_text() for text in axes.texts} >= {"half", "expected", "a", "b"}


def test_a_label_of_a_rule_on_a_logarithmic_axis_lies_beside_it() -> None:
    figure = every_mark(log=True)
    (label,) = (note for note in figure.layout.annotations if note.text == "expected")
    assert label.y == pytest.approx(2.0)
    axes = canvas_of(figure).axes[0]
    (written,) = (text for text in axes.texts if text.get_text() == "expected")
    assert written.get_position()[1] == pytest.approx(100.0)
    assert axes.get_xscale() == axes.get_yscale() == "log"


def test_categories_stand_in_the_order_of_the_figure() -> None:
    figure = plot.figure("T", "x", "y", "c")
    plot.bars(figure, ["b", "a", "c"], [1, 2, 3], "bars")
    plot.bars(figure, ["c", "b"], [1, 2], "others", 1)
    axes = canvas_of(figure).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["b", "a", "c"]
    assert len(axes.patches) == 5


def test_a_map_is_drawn_about_its_middle() -> None:
    figure = plot.figure("T", "x", "y", "c")
    plot.heatmap(figure, ["u", "v"], ["s", "t"], [[-1, 0], [0, 3]], "share")
    canvas = canvas_of(figure)
    (mesh,) = canvas.axes[0].collections
    assert mesh.get_clim() == (-3, 3)
    assert len(canvas.axes) == 2
    assert canvas.axes[1].get_ylabel() == "share"


@pytest.mark.parametrize("dark", [False, True])
def test_a_file_is_in_the_colours_of_its_theme(dark: bool, tmp_path: Path) -> None:
    from workbench import palette

    path = tmp_path / "figure.png"
    path.write_bytes(figure_bytes(StudyFigure(every_mark()), "png", {}, dark))
    corner = Image.open(path).convert("RGB").getpixel((2, 2))
    assert "#{:02x}{:02x}{:02x}".format(*corner) == palette.theme(dark).background  # type: ignore[misc]


def test_exporting_leaves_the_figure_as_it_was() -> None:
    figure = every_mark()
    before = figure.to_json()
    figure_bytes(StudyFigure(figure), "png", {}, dark=True)
    assert figure.to_json() == before


def test_a_kind_of_trace_that_cannot_be_drawn_is_named() -> None:
    figure = StudyFigure(go.Figure(go.Pie(values=[1, 2])))
    with pytest.raises(ExportError, match="'pie' cannot be drawn"):
        figure_bytes(figure, "pdf", {})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"data": 3, "layout": {}}', '{"data": []}'])
def test_what_is_no_figure_is_refused(text: str) -> None:
    with pytest.raises(ExportError, match="no figure of a study"):
        StudyFigure.from_json(text)


def test_a_figure_of_the_other_kind_is_refused_by_both_readers(tmp_path: Path) -> None:
    from workbench.views.figure import Figure

    study, other = tmp_path / "study.svg", tmp_path / "other.svg"
    study.write_bytes(figure_bytes(StudyFigure(every_mark()), "svg", {}))
    other.write_bytes(figure_bytes(Figure.blank(), "svg", {}))
    with pytest.raises(ExportError, match="damaged"):
        read_export(study)
    with pytest.raises(ExportError, match="no figure of a study"):
        read_study_figure(other)


def test_a_runs_folder_has_every_figure_in_every_form_from_which_it_is_run_again(
    tmp_path: Path,
) -> None:
    study = load_example().CoinStudy()
    report = run(study, study.presets["smoke"], Conditions(seeds=(3,)))
    write_report(report, tmp_path, draw=figure_files)
    drawn = StudyFigure(study.figures(report.runs[0].result)["share"]).table()
    for form in FORMS:
        back, state = read_study_figure(tmp_path / f"figures/share.{form}")
        assert state == report_state(report) | {"figure": "share"}
        assert back.table().equals(drawn)
        params = with_knobs(study.params_type(), state["params"])
        again = run(study, params, Conditions(seeds=(state["seed"],)))
        remade = study.figures(again.runs[0].result)[state["figure"]]
        assert StudyFigure(remade).table().equals(drawn)
    page = (tmp_path / "figures/share.html").read_text()
    assert 'src="plotly.min.js"' in page
    assert len(page) < 1_000_000


@pytest.mark.parametrize("slug", list(BUILT_IN))
def test_every_figure_of_every_study_can_be_printed(slug: str, tmp_path: Path) -> None:
    trial = try_study(load_study(slug))
    for name, figure in trial.study.figures(trial.result).items():
        path = tmp_path / f"{name}.svg"
        path.write_bytes(figure_bytes(StudyFigure(figure), "svg", {}))
        assert read_study_figure(path)[0].table().equals(StudyFigure(figure).table())

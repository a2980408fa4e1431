import csv
import io
import json
import re
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workbench.data.cells import decode_value, restore
from workbench.views.export import (
    FORMS,
    ExportError,
    export_figure,
    figure_bytes,
    read_export,
)
from workbench.views.figure import Axis, Bars, Detail, Figure, Line, Points, Rule

KEEPING = [form for form in FORMS if form != "csv"]
STATE = {"beta": 0.1, "name": "</script><b>ß 漢 \u202e🙂", "seeds": [1, 2], "none": None}
HOSTILE = [
    "<script>alert(1)</script> & ]]>",
    r"$\frac{1}{0}$, $x",
    "\u202e \u05e9\u05dc\u05d5\u05dd 🙂 漢字 \U0001f600",
    "a\0b\x1b\ud800",
    "x" * 10_000,
    "(\\)) endobj",
]


def drawn(text: str = "margin") -> Figure:
    x = np.array([0.1, 0.2, np.nan, 4.0])
    details = (Detail(text, x, text),)
    points = Points(
        x=x, y=x * 3, group=[0, 1, -1, 0], labels=(text, "b"), rows=[3, 1, 2, 0], details=details
    )
    layers = (
        points,
        Line(x=x, y=x, name=text, dash="dash"),
        Bars(x0=x, x1=x + 1, height=x),
        Rule(at=0.5, name=text),
    )
    return Figure(text, Axis(text, text), Axis("y", "nats"), layers, note=text, empty=text)


def same(a: Figure, b: Figure) -> bool:
    return a.to_json() == b.to_json() and a.table().equals(b.table())


@pytest.mark.parametrize("form", KEEPING)
def test_a_file_gives_back_the_figure_and_the_state(form: str, tmp_path: Path) -> None:
    figure = drawn()
    path = export_figure(figure, tmp_path / f"figure.{form}", STATE, dark=True)
    again, state = read_export(path)
    assert same(figure, again)
    assert state == STATE
    # Redrawing what was read gives the very same file.
    assert figure_bytes(again, form, state, dark=True) == path.read_bytes()


@pytest.mark.parametrize("form", KEEPING)
def test_a_file_of_other_numbers_is_told_apart(form: str, tmp_path: Path) -> None:
    path = export_figure(drawn(), tmp_path / f"figure.{form}", STATE)
    sabotaged = drawn()
    sabotaged.layers[0].columns["y"][0] += 1e-16
    again, _ = read_export(path)
    assert not same(sabotaged, again)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_figure_gives_the_same_bytes_on_any_thread(form: str) -> None:
    made: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: made.append(figure_bytes(drawn(), form, STATE)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 2
    assert len(set(made)) == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_drawn_and_kept_and_runs_nowhere(text: str, tmp_path: Path) -> None:
    figure = drawn(text)
    for form in KEEPING:
        path = export_figure(figure, tmp_path / f"figure.{form}", {"text": text})
        again, state = read_export(path)
        assert same(figure, again)
        assert state == {"text": text}
        content = path.read_bytes()
        if form in ("svg", "html", "json"):
            assert b"<script>alert" not in content
            assert b"\0" not in content


def test_an_svg_is_well_formed_xml() -> None:
    from xml.etree import ElementTree

    for text in HOSTILE:
        root = ElementTree.fromstring(figure_bytes(drawn(text), "svg", {"t": text}))
        assert root.tag.endswith("svg")
        assert not [node for node in root.iter() if node.tag.endswith("script")]


def test_dollars_are_words_not_formulas() -> None:
    shown = figure_bytes(drawn("$x^2$ and $y$"), "svg", {}).decode()
    assert "$x^2$ and $y$" in re.sub(r"<metadata.*?</metadata>", "", shown, flags=re.DOTALL)


def test_html_asks_for_nothing_outside() -> None:
    page = figure_bytes(drawn(), "html", STATE).decode()
    sources = re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=[\"']([^\"']+)", page)
    assert sources == []
    assert page.count('<script type="application/json"') == 1


def test_csv_holds_the_table_and_the_state_in_cells_that_run_nowhere() -> None:
    figure = drawn("=HYPERLINK(1)")
    text = figure_bytes(figure, "csv", STATE).decode()
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0][-1] == "workbench_state"
    assert json.loads(restore(rows[1][-1])) == STATE
    assert {row[-1] for row in rows[2:]} == {""}
    for cell in (cell for row in rows for cell in row):
        number = re.fullmatch(r"-?[\d.]+(e[+-]?\d+)?", cell)
        assert number or not cell.startswith(("=", "+", "-", "@", "\t"))
    table = figure.table()
    assert len(rows) == len(table) + 1
    column = rows[0].index("y (nats)")
    read = [float(row[column]) if row[column] else np.nan for row in rows[1:]]
    np.testing.assert_array_equal(read, table["y (nats)"].to_numpy())
    assert decode_value(restore(rows[1][1])) == "=HYPERLINK(1)"


def test_the_csv_of_an_empty_figure_still_holds_the_state() -> None:
    rows = list(csv.reader(io.StringIO(figure_bytes(Figure.blank(), "csv", STATE).decode())))
    assert json.loads(rows[1][-1]) == STATE


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", ["svg", "html"])
@pytest.mark.parametrize("name", ["blank", "log", "one", "nan"])
def test_odd_figures_are_drawn(form: str, name: str, tmp_path: Path) -> None:
    x, log = Axis("x"), Axis("x", scale="log")
    figure = {
        "blank": Figure.blank("Nothing here"),
        "log": Figure("t", log, Axis("y"), (Points(x=[-1, 0, 1, 10], y=[1, 2, 3, 4]),)),
        "one": Figure("t", x, Axis("y"), (Points(x=[2.0], y=[3.0]),)),
        "nan": Figure("t", x, Axis("y"), (Line(x=[np.nan, 1], y=[1, np.inf]),)),
    }[name]
    again, _ = read_export(export_figure(figure, tmp_path / f"f.{form}", {}))
    assert same(figure, again)


def test_a_png_is_an_image_of_the_theme_and_not_blank() -> None:
    from PIL import Image

    for dark, background in ((False, (255, 255, 255)), (True, (22, 27, 34))):
        image = Image.open(io.BytesIO(figure_bytes(drawn(), "png", {}, dark))).convert("RGB")
        assert image.getpixel((2, 2)) == background
        assert len(image.getcolors(1_000_000) or []) > 50


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("png", b"\x89PNG\r\n\x1a\n\0\0\0\5zTXt"),
        ("png", b"no image"),
        ("svg", b"<svg></svg>"),
        ("pdf", b"%PDF-1.4 preference-workbench-figure:AAAA"),
        ("pdf", b"%PDF-1.4 preference-workbench-figure:A"),
        ("html", b"<html>"),
        ("json", b'{"form": "preference-workbench-figure"}'),
        ("json", b'{"form": "preference-workbench-figure", "version": 9}'),
        ("json", b"\xff\xfe"),
        ("json", b"[" * 100_000),
    ],
)
def test_foreign_and_damaged_files_are_refused(form: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"other.{form}"
    path.write_bytes(content)
    with pytest.raises(ExportError, match=r"other\."):
        read_export(path)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    for form in ("png", "svg", "pdf", "html", "json"):
        whole = figure_bytes(drawn(), form, STATE)
        path = tmp_path / f"cut.{form}"
        path.write_bytes(whole[:200])
        with pytest.raises(ExportError):
            read_export(path)


def test_a_chunk_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.views.export._LARGEST", 1000)
    body = b"zTXtpreference-workbench-figure\0\0" + zlib.compress(b"0" * 100_000)
    raw = b"\x89PNG\r\n\x1a\n" + (len(body) - 4).to_bytes(4, "big") + body + b"\0\0\0\0"
    path = tmp_path / "bomb.png"
    path.write_bytes(raw)
    with pytest.raises(ExportError, match="holds no figure"):
        read_export(path)


@pytest.mark.parametrize("name", ["figure", "figure.exe", "figure.PNG.bak"])
def test_an_unknown_suffix_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="use one of"):
        export_figure(drawn(), tmp_path / name, {})


@pytest.mark.parametrize("state", [{"x": float("nan")}, {"x": object()}, {"x": {1}}])
def test_a_state_that_is_no_json_is_refused(state: dict[str, Any]) -> None:
    for form in FORMS:
        with pytest.raises(ExportError, match="state"):
            figure_bytes(drawn(), form, state)


def test_what_cannot_be_done_says_why(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="not a form"):
        figure_bytes(drawn(), "gif", {})
    with pytest.raises(ExportError, match="cannot be written"):
        export_figure(drawn(), tmp_path / "no" / "folder.json", {})
    with pytest.raises(ExportError, match="cannot be read"):
        read_export(tmp_path / "absent.png")
    with pytest.raises(ExportError, match="not its looks"):
        read_export(export_figure(drawn(), tmp_path / "f.csv", {}))


def test_pyplot_is_never_loaded() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from workbench.views.export import figure_bytes;"
        "from workbench.views.figure import Figure;"
        "figure_bytes(Figure.blank(), 'png', {}); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

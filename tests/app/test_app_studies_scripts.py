"""The pure functions of the Studies page's scripts, run by node."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import workbench.app.pages

FOLDER = Path(next(iter(workbench.app.pages.__path__)))
LOAD = """
import { readFileSync } from "node:fs";
const code = readFileSync(process.argv[1], "utf-8");
const script = await import("data:text/javascript," + encodeURIComponent(code));
const answer = (found) => console.log(JSON.stringify(found));
"""
CARDS = [
    {"slug": "a-one", "title": "First", "paper": "On Order", "authors": "Ada, 1843",
     "family": "ranking", "tags": ["core", "exact"], "badge": "passed", "question": "Why?"},
    {"slug": "b-two", "title": "Second", "paper": "On Chance", "authors": "Bo et al., 2020",
     "family": "fairness", "tags": ["core"], "badge": "failed", "question": "How ÄRGERLICH?"},
]  # fmt: skip


def ran(script: str, code: str) -> Any:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed; the browser tests run the same script")
    done = subprocess.run(
        [node, "--input-type=module", "-e", LOAD + code, str(FOLDER / script)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("wanted", "slugs"),
    [
        ({}, ["a-one", "b-two"]),
        ({"words": "ORDER ada"}, ["a-one"]),
        ({"words": "on core"}, ["a-one", "b-two"]),
        ({"words": "order chance"}, []),
        ({"words": "ärgerlich"}, ["b-two"]),
        ({"family": "ranking"}, ["a-one"]),
        ({"tag": "exact"}, ["a-one"]),
        ({"badge": "failed"}, ["b-two"]),
        ({"words": "first", "badge": "failed"}, []),
    ],
)
def test_cards_match_every_word_and_every_filter(wanted: dict[str, str], slugs: list[str]) -> None:
    asked = {"words": "", "family": "", "tag": "", "badge": ""} | wanted
    code = f"answer(script.matching({json.dumps(CARDS)}, {json.dumps(asked)}).map((c) => c.slug))"
    assert ran("studies_gallery.js", code) == slugs


def test_a_title_is_broken_between_words_and_loses_none() -> None:
    title = "What must be rejected so that DPO finds the target"
    lines = ran("studies_figure.js", f"answer(script.wrapped({json.dumps(title)}, 24))")
    assert " ".join(lines) == title
    assert max(map(len, lines)) <= 24
    assert len(lines) == 3
    assert ran("studies_figure.js", 'answer(script.wrapped("", 9))') == [""]


def test_a_narrow_figure_keeps_title_axis_and_legend_apart() -> None:
    layout = {
        "title": {"text": "A title that is far too long for a narrow figure of this width"},
        "xaxis": {"title": {"text": "An axis title that is far too long for it as well"}},
        "yaxis": {"title": {"text": "y"}},
    }
    data = [{"name": f"a series with a long name {i}"} for i in range(5)]
    asked = f"{json.dumps(data)}, {json.dumps(layout)}"
    code = f"answer([900, 320].map((wide) => script.fitted({asked}, wide, 400)))"
    wide, narrow = ran("studies_figure.js", code)
    assert narrow["margin"]["t"] > wide["margin"]["t"]
    assert narrow["margin"]["b"] > wide["margin"]["b"] > 0
    assert "<br>" in narrow["title"]["text"]
    assert "<br>" in narrow["xaxis"]["title"]["text"]
    for shown in (wide, narrow):
        inside = 400 - shown["margin"]["t"] - shown["margin"]["b"]
        assert inside > 0
        assert -shown["legend"]["y"] * max(60, inside) >= 42

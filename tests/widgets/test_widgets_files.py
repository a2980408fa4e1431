"""The widgets' files, packed columns and the two shells, without a browser."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import workbench_widgets
from hypothesis import given
from hypothesis import strategies as st
from workbench_widgets.live_figure.frame import pack_columns

from workbench.views import widgets as panel_shells

FOLDER = Path(workbench_widgets.__file__).parent
NAMES = ["live_figure", "pair_editor", "token_strip"]
SHELLS = ["LiveFigure", "PairEditor", "TokenStrip"]


@pytest.mark.parametrize("name", NAMES)
def test_no_widget_writes_markup_or_names_another_machine(name: str) -> None:
    script = (FOLDER / name / "widget.js").read_text(encoding="utf-8")
    style = (FOLDER / name / "widget.css").read_text(encoding="utf-8")
    for forbidden in (".innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert forbidden not in script
    for forbidden in ("http://", "https://", "@import", "url("):
        assert forbidden not in script + style


@pytest.mark.parametrize("name", NAMES)
def test_the_script_passes_its_own_tests(name: str) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed; the browser tests run the same script")
    test = FOLDER / name / "widget.test.mjs"
    result = subprocess.run(
        [node, "--test", str(test)], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_both_shells_offer_the_same_traits_and_defaults(shell: str) -> None:
    notebook = getattr(workbench_widgets, shell)()
    served = getattr(panel_shells, shell)()
    declared = vars(getattr(workbench_widgets, shell))
    own = [name for name in declared if name in notebook.traits(sync=True) and name[0] != "_"]
    assert len(own) >= 4
    for trait in own:
        assert getattr(served, trait) == getattr(notebook, trait), trait


@pytest.mark.parametrize("shell", SHELLS)
def test_an_unknown_name_is_an_attribute_error(shell: str) -> None:
    assert shell in workbench_widgets.__all__
    with pytest.raises(AttributeError, match="Nonesuch"):
        _ = workbench_widgets.Nonesuch


@given(st.lists(st.floats(-1e6, 1e6, width=32)), st.lists(st.integers(-(2**31), 2**31 - 1)))
def test_packed_columns_read_back(floats: list[float], integers: list[int]) -> None:
    packed = pack_columns(
        {"f": np.array(floats, dtype=np.float64), "i": np.array(integers, dtype=np.int64)}
    )
    for name, expected in (("f", floats), ("i", integers)):
        place = packed.columns[name]
        assert place["offset"] % 8 == 0
        found = np.frombuffer(packed.buffer, place["dtype"], place["length"], place["offset"])
        assert found.tolist() == expected


@pytest.mark.parametrize(("bad", "word"), [(np.zeros((2, 2)), "shape"), (["a"], "numbers")])
def test_a_column_that_cannot_be_packed_is_refused_by_name(bad: Any, word: str) -> None:
    with pytest.raises(ValueError, match=f"'margin'.*{word}"):
        pack_columns({"margin": bad})


@pytest.mark.parametrize("shell", [workbench_widgets.LiveFigure, panel_shells.LiveFigure])
def test_update_counts_generations_and_keeps_what_it_is_not_given(shell: Any) -> None:
    figure = shell()
    figure.update({"title": "t"}, {"x": np.arange(3.0)})
    figure.update(columns={"x": np.arange(4.0)}, selected=2)
    assert (figure.generation, figure.spec["title"], figure.selected) == (2, "t", 2)
    assert figure.columns["x"]["length"] == 4
    figure.update(generation=9)
    assert figure.generation == 9


@pytest.mark.parametrize("shell", [workbench_widgets.PairEditor, panel_shells.PairEditor])
def test_a_refused_edit_is_answered_and_the_next_one_goes_on(shell: Any) -> None:
    editor = shell()
    seen = []

    def act(edit: Any) -> None:
        seen.append(edit["pair_id"])
        if edit["value"] is None:
            raise ValueError("alpha is missing")

    editor.on_edit(act)
    editor.edit = {"seq": 1, "pair_id": "a", "field": "alpha", "value": None}
    assert editor.rejected_edit == {"seq": 1, "message": "alpha is missing"}
    editor.edit = {"seq": 2, "pair_id": "b", "field": "alpha", "value": 1}
    assert (editor.acknowledged, seen) == (2, ["a", "b"])


def test_a_selection_of_an_older_generation_is_ignored() -> None:
    figure = panel_shells.LiveFigure()
    picked: list[int] = []
    figure.on_selection(picked.append)
    figure.update(columns={"x": np.arange(3.0)})
    figure.selection = {"generation": 0, "index": 1, "layer": 0}
    figure.selection = {"generation": 1, "index": 2, "layer": 0}
    assert picked == [2]

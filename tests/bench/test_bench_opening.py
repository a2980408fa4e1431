"""What can be opened as a bench, and what is said about what cannot."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_models import Models, some_pairs

from workbench.bench import Bench, BenchError, open_bench
from workbench.bench.opening import pairs_of
from workbench.data.formats import RowError, write_pairs
from workbench.defaults import DEFAULT_POLICY, DEFAULT_REFERENCE
from workbench.engine.settings import SettingsError
from workbench.errors import DataError, ModelError

Opened = Callable[..., Bench]


def test_the_package_offers_open_and_stays_light_until_it_is_asked_for() -> None:
    code = (
        "import sys, workbench; assert 'open' in workbench.__all__;"
        "heavy = {'torch', 'ipywidgets', 'panel', 'pandas'} & set(sys.modules);"
        "assert not heavy, heavy;"
        "from workbench.bench import open_bench; assert workbench.open is open_bench;"
        "assert 'panel' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_named_set_a_file_and_pairs_are_opened(opened: Opened, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    write_pairs(some_pairs(4), path)
    assert len(opened(path).data) == 4
    assert len(opened(str(path)).data) == 4
    assert opened(some_pairs(6)).data == some_pairs(6)
    assert opened(list(some_pairs(6))).data.ids() == some_pairs(6).ids()
    assert len(opened("teaching", wait=False).data) > 100


def test_models_are_the_default_ones_unless_named(opened: Opened) -> None:
    assert opened().models == {"policy": DEFAULT_POLICY, "reference": DEFAULT_REFERENCE}
    named = opened(policy="default", reference="default")
    assert named.models == {"policy": "default", "reference": "default"}


def test_a_data_frame_gives_pairs_and_its_other_columns_are_attributes(opened: Opened) -> None:
    frame = pd.DataFrame(
        {
            "prompt": ["a", "b", "c"], "chosen": ["x", "y", "z"], "rejected": ["1", "2", "3"],
            "age": np.array([20, 31, 44]), "weight": [60.5, np.nan, 80.0],
            "who": pd.array(["f", None, "m"], dtype="string"), "alpha": [0.5, 0.75, None],
            "attributes.given": [True, False, True],
        }
    )  # fmt: skip
    bench = opened(frame)
    first, second, third = bench.data
    assert first.attributes == {"age": 20, "weight": 60.5, "who": "f", "given": True}
    assert second.attributes == {"age": 31, "weight": None, "who": None, "given": False}
    assert (first.alpha, third.alpha) == (0.5, None)
    assert bench.settings.attributes == ("age", "weight", "who", "given")
    assert len(bench.rewards.frame()) == 3


def test_a_data_frame_that_cannot_be_read_names_row_column_found_and_expected(
    opened: Opened,
) -> None:
    frame = pd.DataFrame({"prompt": ["a", "b"], "chosen": ["x", 3], "rejected": ["y", "z"]})
    with pytest.raises(RowError, match=r"row 2, column 'chosen': found 3; expected a string"):
        opened(frame)
    with pytest.raises(RowError, match="no such column"):
        opened(frame.drop(columns="chosen"))


def test_what_holds_no_pairs_is_refused_with_what_to_give() -> None:
    with pytest.raises(BenchError, match=r"A int holds no preference pairs; give .*teaching"):
        pairs_of(3)
    with pytest.raises(BenchError, match="Item 2 is a str"):
        pairs_of([{"prompt": "a", "chosen": "b", "rejected": "c"}, "pair"])
    with pytest.raises(DataError, match=r"neither a known set \(teaching"):
        pairs_of("no-such-set")


def test_mappings_and_pairs_may_be_mixed() -> None:
    pair = next(iter(some_pairs(1)))
    found = pairs_of([pair, {"prompt": "a", "chosen": "b", "rejected": "c"}])
    assert [each.prompt_text for each in found] == ["question 0", "a"]
    assert found.pairs[0].attributes == pair.attributes


def test_a_session_is_opened_again_with_its_edits_and_models(opened: Opened) -> None:
    first = opened(policy="default", reference="default")
    first.edit("p1", chosen="another answer")
    again = opened(session=first.session_id)
    assert again.data["p1"].chosen_text == "another answer"
    assert again.models["policy"] == "default"


def test_a_session_on_disk_is_opened_by_another_process(
    opened: Opened, models: Models, tmp_path: Path
) -> None:
    from workbench.engine.workspace import Workspace

    first = opened()
    first.edit("p1", chosen="another answer")
    first.close()
    other = Workspace(tmp_path / "sessions", tmp_path / "scores.sqlite", models.load)
    with open_bench(session=first.session_id, within=other) as again:
        assert again.data["p1"].chosen_text == "another answer"
    other.close()


def test_neither_and_both_of_source_and_session_are_refused(opened: Opened) -> None:
    bench = opened()
    with pytest.raises(BenchError, match="given both a source and a session"):
        opened(some_pairs(), session=bench.session_id)
    with pytest.raises(BenchError, match="given neither"):
        open_bench(within=bench.workspace)
    with pytest.raises(DataError, match="There is no session 'nosuchsession'"):
        opened(session="nosuchsession")


def test_settings_and_models_that_do_not_fit_are_refused_before_anything_is_written(
    opened: Opened, tmp_path: Path
) -> None:
    for more, error, words in (
        ({"beta": -1}, SettingsError, "beta is -1"),
        ({"betta": 1}, BenchError, "There is no setting 'betta'"),
        ({"policy": object()}, BenchError, "A model is given as object"),
        ({"reference": "hub:"}, ModelError, "hub:"),
    ):
        with pytest.raises(error, match=words):
            opened(**more)
    assert not list((tmp_path / "sessions").glob("*/session.json"))

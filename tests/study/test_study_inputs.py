import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.study.errors import StudyError
from workbench.study.inputs import (
    column_kind,
    input_bytes,
    input_from,
    read_input,
    table_from_csv,
    with_cell,
)
from workbench.study.runs import input_digest

CELLS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(st.dictionaries(st.text(), st.lists(CELLS, min_size=2, max_size=2), min_size=1))
def test_a_table_comes_back_with_the_same_digest(table: dict[str, Any]) -> None:
    back = input_from(input_bytes(table))
    assert input_digest(back) == input_digest(table)
    assert list(back) == list(table)  # type: ignore[arg-type]


def test_pairs_come_back_with_every_field() -> None:
    pair = PreferencePair(
        pair_id="a\x00", prompt="p", chosen="c", rejected="r", alpha=0.75,
        attributes={"age": 3, "g": None}, metadata={"deep": [{"x": 1.5}]},
    )  # fmt: skip
    pairs = PreferenceSet("mine", [pair])
    back = input_from(input_bytes(pairs))
    assert isinstance(back, PreferenceSet)
    assert back == pairs
    assert back.name == "mine"
    assert input_digest(back) == input_digest(pairs)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"of": {"pairs": 3}, "mapping": ""}'])
def test_what_is_no_input_is_refused(content: bytes) -> None:
    with pytest.raises(StudyError):
        input_from(content)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2], int),
        ([1, 2.5], float),
        ([1, None], int),
        ([True, False], bool),
        (["a", None], str),
        ([1, "a"], str),
        ([None], None),
        ([], None),
    ],
)
def test_the_kind_of_a_column_is_that_of_its_cells(values: list[Any], kind: type | None) -> None:
    assert column_kind(values) is kind


def test_a_cell_is_read_in_the_kind_of_its_column() -> None:
    table = {"n": [1, 2], "x": [0.5, math.pi], "on": [True, False], "word": ["a", "b"]}
    assert with_cell(table, "n", 1, " 7 ")["n"] == [1, 7]
    assert with_cell(table, "x", 0, "3")["x"][0] == 3.0
    assert with_cell(table, "on", 0, "FALSE")["on"][0] is False
    assert with_cell(table, "word", 0, "<b>")["word"][0] == "<b>"
    assert with_cell(table, "n", 0, "")["n"][0] is None
    assert table["n"] == [1, 2]


@pytest.mark.parametrize(
    ("column", "row", "text", "message"),
    [
        ("n", 0, "many", "give a whole number"),
        ("n", 0, "1.5", "give a whole number"),
        ("x", 0, "nan", "give a number"),
        ("x", 0, "1e999", "give a number"),
        ("on", 0, "maybe", "true or false"),
        ("zz", 0, "1", "no cell 'zz'"),
        ("n", 2, "1", "in row 3"),
        ("n", -1, "1", "in row 0"),
    ],
)
def test_a_cell_that_does_not_fit_is_refused(
    column: str, row: int, text: str, message: str
) -> None:
    table = {"n": [1, 2], "x": [0.5, 1.5], "on": [True, False]}
    with pytest.raises(StudyError, match=message):
        with_cell(table, column, row, text)


@pytest.fixture
def study(example: ModuleType) -> Any:
    pair = PreferencePair(pair_id="a", prompt="p", chosen="c", rejected="r")

    class Fed(example.CoinStudy):  # type: ignore[misc, name-defined]
        inputs = {"votes": {"n": [1, 2], "who": ["a", "b"]}, "pairs": PreferenceSet("s", [pair])}  # noqa: RUF012

    return Fed()


def test_a_table_is_read_from_a_csv_with_the_studys_columns(study: Any, tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    path.write_text("n,who\n5,x\n,y\n7,007\n")
    assert read_input(study, "votes", path) == {"n": [5, None, 7], "who": ["x", "y", "007"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("who,n\na,1\n", "has the columns who, n; give n, who"),
        ("n,who\nmany,a\n", "row 1, column 'n'"),
        ("", "cannot be read as a table"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    text: str, message: str, study: Any, tmp_path: Path
) -> None:
    path = tmp_path / "votes.csv"
    path.write_text(text)
    with pytest.raises(StudyError, match=message):
        read_input(study, "votes", path)


def test_an_empty_table_takes_its_kinds_from_the_file(tmp_path: Path) -> None:
    own: dict[str, list[Any]] = {"n": [], "x": [], "word": [], "none": []}
    content = b"n,x,word,none\n1,1,007,\n,2.5,b,\n"
    assert table_from_csv(content, own, "mine.csv") == {
        "n": [1, None], "x": [1.0, 2.5], "word": ["007", "b"], "none": [None, None],
    }  # fmt: skip
    empty = {name: [None] for name in own}
    assert with_cell(empty, "n", 0, "3")["n"] == [3]
    assert with_cell(empty, "x", 0, "2.5")["x"] == [2.5]
    assert with_cell(empty, "n", 0, "0")["n"] == [0]
    assert with_cell(empty, "word", 0, "b")["word"] == ["b"]


def test_pairs_are_read_in_any_form_and_an_unknown_input_is_named(
    study: Any, tmp_path: Path
) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    found = read_input(study, "pairs", path)
    assert isinstance(found, PreferenceSet)
    assert found.pairs[0].chosen_text == "b"
    with pytest.raises(StudyError, match="it has votes, pairs"):
        read_input(study, "vote", path)
    with pytest.raises(StudyError, match="cannot be read"):
        read_input(study, "votes", tmp_path / "nothing.csv")

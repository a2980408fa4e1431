import csv
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.data import Message, PreferencePair, PreferenceSet
from workbench.data import files as files_module
from workbench.data import formats as formats_module
from workbench.data.cells import (
    decode_number,
    decode_text,
    decode_value,
    encode_text,
    encode_value,
    neutralise,
    restore,
)
from workbench.data.formats import (
    RowError,
    from_dataset,
    import_pairs,
    import_rows,
    read_pairs,
    read_rows,
    to_dataset,
    to_rows,
    write_pairs,
)
from workbench.data.pairs import build_pair
from workbench.errors import DataError

MakePair = Callable[..., PreferencePair]
MakeSet = Callable[..., PreferenceSet]

SUFFIXES = ["jsonl", "json", "csv", "parquet"]
HOSTILE = [
    "",
    " ",
    "=1+1",
    "'=1+1",
    "-1",
    "+x",
    "@SUM(A1)",
    "\tx",
    "\r",
    "\r\n",
    "a\nb",
    "\0",
    'say "hi", you',
    '"quoted"',
    '"\\"twice\\""',
    "null",
    "true",
    "1",
    "1.0",
    "007",
    "NaN",
    "[1]",
    "[NaN]",
    "{}",
    '[{"role": "user", "content": "x"}]',
    '"[{\\"role\\": \\"user\\"}]"',
    "<script>alert(1)</script>",
    "\u202eright to left",
    "\U0001f600",
    "\u2028",
    "\ufeffmark",
    "broken JSON",
]

texts = st.one_of(
    st.sampled_from(HOSTILE), st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
)
finite = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), finite, texts)
jsons = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
names = st.one_of(
    texts,
    st.sampled_from(["prompt", "label", "alpha", "pair_id", "attributes", "metadata.x", "score"]),
)


def conversation(roles: list[str]) -> st.SearchStrategy[tuple[Message, ...]]:
    return st.lists(texts, min_size=len(roles), max_size=len(roles)).map(
        lambda drawn: tuple(
            Message.model_validate({"role": role, "content": text})
            for role, text in zip(roles, drawn, strict=True)
        )
    )


strings = st.fixed_dictionaries({"prompt": texts, "chosen": texts, "rejected": texts})
talks = st.fixed_dictionaries(
    {
        "prompt": conversation(["system", "user"]) | conversation(["user", "assistant", "user"]),
        "chosen": conversation(["assistant"]) | conversation(["assistant", "user", "assistant"]),
        "rejected": conversation(["assistant"]),
    }
)
evidence = st.fixed_dictionaries(
    {},
    optional={
        "alpha": st.floats(0, 1),
        "votes_chosen": st.integers(0, 9),
        "votes_rejected": st.integers(0, 9),
        "chosen_score": finite,
        "rejected_score": finite,
        "strength": finite,
        "attributes": st.dictionaries(names, scalars, max_size=3),
        "metadata": st.dictionaries(names, jsons, max_size=3),
    },
)


def sets_of(content: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[PreferenceSet]:
    records = st.lists(st.tuples(content, evidence), min_size=1, max_size=3)
    identifiers = st.lists(texts.filter(bool), min_size=3, max_size=3, unique=True)
    return st.tuples(records, identifiers).map(
        lambda drawn: PreferenceSet(
            "demo",
            [
                build_pair({"pair_id": name, **text, **rest})
                for (text, rest), name in zip(drawn[0], drawn[1], strict=False)
            ],
        )
    )


many = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

Write = Callable[[PreferenceSet, Path, Any], None]


def check_round_trip(pairs: PreferenceSet, path: Path, form: Any, write: Write) -> None:
    write(pairs, path, form)
    again = read_pairs(path)
    assert [p.to_json() for p in again] == [p.to_json() for p in pairs]
    # JSON's equality takes 1, 1.0 and True for the same; the digest does not.
    assert again.digest == pairs.digest


@pytest.mark.parametrize("suffix", SUFFIXES)
@many
@given(pairs=sets_of(strings | talks))
def test_native_files_lose_nothing(pairs: PreferenceSet, suffix: str, tmp_path: Path) -> None:
    check_round_trip(pairs, tmp_path / f"a.{suffix}", "native", write_pairs)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("form", ["explicit-standard", "implicit-standard", "unpaired"])
@settings(many, max_examples=25)
@given(pairs=sets_of(strings))
def test_standard_forms_come_back(
    pairs: PreferenceSet, form: str, suffix: str, tmp_path: Path
) -> None:
    check_round_trip(pairs, tmp_path / f"a.{suffix}", form, write_pairs)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("form", ["explicit-conversational", "implicit-conversational", "unpaired"])
@settings(many, max_examples=25)
@given(pairs=sets_of(talks))
def test_conversational_forms_come_back(
    pairs: PreferenceSet, form: str, suffix: str, tmp_path: Path
) -> None:
    check_round_trip(pairs, tmp_path / f"a.{suffix}", form, write_pairs)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_hostile_text_in_every_place(suffix: str, tmp_path: Path) -> None:
    pairs = [
        build_pair(
            {
                "pair_id": text or "empty",
                "prompt": text,
                "chosen": text,
                "rejected": text,
                "attributes": {text: text, "g": text},
                "metadata": {text: text, "m": [text], "n": {text: text}},
            }
        )
        for text in HOSTILE
    ]
    check_round_trip(PreferenceSet("demo", pairs), tmp_path / f"a.{suffix}", "native", write_pairs)


def test_sabotaged_writer_fails_the_round_trip(tmp_path: Path, make_set: MakeSet) -> None:
    def forgets_to_neutralise_and_quote(pairs: PreferenceSet, path: Path, form: Any) -> None:
        with path.open("w", newline="") as file:
            rows = to_rows(pairs, form)
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    pairs = make_set(1, metadata={"version": "1", "cell": "'=x"})
    check_round_trip(pairs, tmp_path / "a.csv", "native", write_pairs)
    with pytest.raises(AssertionError):
        check_round_trip(pairs, tmp_path / "b.csv", "native", forgets_to_neutralise_and_quote)


@many
@given(text=texts, value=jsons)
def test_cells_are_reversible(text: str, value: Any) -> None:
    assert restore(neutralise(text)) == text
    assert decode_text(encode_text(text)) == text
    again = decode_value(encode_value(value))
    assert json.dumps(again) == json.dumps(value)
    assert encode_value(value) != ""


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-x", "@SUM(A1)", "\t=1", "\r=1", "-1+2"])
def test_no_cell_of_an_export_begins_like_a_formula(text: str, tmp_path: Path) -> None:
    pair = build_pair(
        {
            "pair_id": text,
            "prompt": text,
            "chosen": text,
            "rejected": text,
            "strength": -1.5,
            "attributes": {"a": text},
            "metadata": {text: text},
        }
    )
    write_pairs(PreferenceSet("demo", [pair]), tmp_path / "a.csv")
    content = (tmp_path / "a.csv").read_bytes().decode()
    rows = list(csv.reader(io.StringIO(content, newline="")))
    for cell in (cell for row in rows for cell in row if cell != "-1.5"):
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert read_pairs(tmp_path / "a.csv").pairs == (pair,)


def test_other_peoples_csv_keeps_its_apostrophes_and_spellings(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(
        b"\xef\xbb\xbfprompt,chosen,rejected,alpha,version,zip,flag,note,n\n"
        b'\'-tis,"a\nb",,0.70,1.10,007,true,,3\n'
    )
    (pair,) = read_pairs(path)
    assert (pair.prompt, pair.chosen, pair.rejected, pair.alpha) == ("'-tis", "a\nb", "", 0.7)
    assert dict(pair.metadata) == {"version": "1.10", "zip": "007", "flag": True, "n": 3}


@pytest.mark.parametrize(
    ("cell", "value"), [(" 3 ", 3), ("0.5", 0.5), ("1e2", 100.0), ("1_0", "1_0"), ("x", "x")]
)
def test_numbers_in_usual_spellings(cell: str, value: object) -> None:
    assert decode_number(cell) == value


def test_a_number_too_long_for_python_stays_text() -> None:
    assert decode_value("9" * 5000) == "9" * 5000


def test_unknown_columns_survive_a_round_trip_by_name(tmp_path: Path) -> None:
    row = {"prompt": "p", "chosen": "c", "rejected": "r", "source": "s", "n": 3, "label": "x"}
    pairs = read_rows([row])
    assert dict(pairs.pairs[0].metadata) == {"source": "s", "n": 3, "label": "x"}
    for suffix in SUFFIXES:
        write_pairs(pairs, tmp_path / f"a.{suffix}", "explicit-standard")
        assert read_pairs(tmp_path / f"a.{suffix}").pairs == pairs.pairs
    (exported,) = to_rows(pairs, "explicit-standard")
    assert (exported["source"], exported["metadata.label"]) == ("s", "x")


def test_columns_may_be_named_as_attributes() -> None:
    row = {"prompt": "p", "chosen": "c", "rejected": "r", "age": 30, "attributes.sex": "f"}
    (pair,) = read_rows([row], attributes=["age"])
    assert dict(pair.attributes) == {"age": 30, "sex": "f"}
    assert not pair.metadata


def test_mapping_columns() -> None:
    row = {"prompt": "p", "chosen": "c", "rejected": "r"}
    (pair,) = read_rows([{**row, "attributes": None, "metadata": "free text", "alpha": None}])
    assert dict(pair.metadata) == {"metadata": "free text"}
    with pytest.raises(RowError, match="'age', which another column gives too"):
        read_rows([{**row, "attributes": {"age": 1}, "attributes.age": 2}])


ONE = [{"role": "user", "content": "q"}]
GOOD = [{"role": "assistant", "content": "good"}]
BAD = [{"role": "assistant", "content": "bad"}]


def texts_of(pair: PreferencePair) -> tuple[str, str, str]:
    return pair.prompt_text, pair.chosen_text, pair.rejected_text


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "q", "chosen": "good", "rejected": "bad"}, ("q", "good", "bad")),
        ({"prompt": ONE, "chosen": GOOD, "rejected": BAD}, ("q", "good", "bad")),
        ({"chosen": ONE + GOOD, "rejected": ONE + BAD}, ("q", "good", "bad")),
        ({"prompt": "q", "chosen": ONE + GOOD, "rejected": ONE + BAD}, ("q", "good", "bad")),
        ({"prompt": ONE, "chosen": ONE + GOOD, "rejected": ONE + BAD}, ("q", "good", "bad")),
        ({"prompt": ONE, "chosen": GOOD[0], "rejected": BAD[0]}, ("q", "good", "bad")),
        (
            {"prompt": (Message(role="user", content="q"),), "chosen": GOOD, "rejected": BAD},
            ("q", "good", "bad"),
        ),
        (
            {
                "conversations": [{"from": "human", "value": "q"}],
                "chosen": {"from": "gpt", "value": "good"},
                "rejected": {"from": "gpt", "value": "bad"},
            },
            ("q", "good", "bad"),
        ),
        (
            {"chosen": "The sky is blue.", "rejected": "The sky is black."},
            ("The sky is", " blue.", " black."),
        ),
        (
            {
                "chosen": "\n\nHuman: Hi\n\nAssistant: Hi you",
                "rejected": "\n\nHuman: Hi\n\nAssistant: Hi",
            },
            ("\n\nHuman: Hi\n\nAssistant:", " Hi you", " Hi"),
        ),
        ({"chosen": "Q: x\nyes", "rejected": "Q: x\nno"}, ("Q: x\n", "yes", "no")),
        ({"chosen": "same", "rejected": "same"}, ("same", "", "")),
        ({"chosen": "yes", "rejected": "no"}, ("", "yes", "no")),
        ({"chosen": "a b", "rejected": "a b c"}, ("a b", "", " c")),
        ({"chosen": "ab", "rejected": "abc"}, ("", "ab", "abc")),
        (
            {"chosen": ONE + GOOD + ONE + GOOD, "rejected": ONE + GOOD + ONE + BAD},
            ("user: q\n\nassistant: good\n\nuser: q", "good", "bad"),
        ),
        ({"chosen": ONE + GOOD, "rejected": ONE + GOOD}, ("q", "good", "good")),
    ],
)
def test_forms_are_recognised_by_columns_and_types(
    row: dict[str, object], expected: tuple[str, str, str]
) -> None:
    (pair,) = read_rows([row])
    assert texts_of(pair) == expected
    assert not pair.metadata


@given(prompt=texts, chosen=texts, rejected=texts)
def test_an_implicit_prompt_loses_no_character(prompt: str, chosen: str, rejected: str) -> None:
    row = {"chosen": prompt + chosen, "rejected": prompt + rejected}
    (pair,) = read_rows([row])
    assert pair.prompt_text + pair.chosen_text == row["chosen"]
    assert pair.prompt_text + pair.rejected_text == row["rejected"]


def test_a_prompt_that_differs_from_the_conversations_own_is_kept() -> None:
    row = {"prompt": "other", "chosen": ONE + GOOD, "rejected": ONE + BAD, "conversations": 1}
    (pair,) = read_rows([row])
    assert dict(pair.metadata) == {"prompt": "other", "conversations": 1}


def test_a_foreign_prompt_length_that_does_not_fit_is_metadata() -> None:
    for length in (99, -1, True, "x", 3):
        row = {"chosen": "a b", "rejected": "a c", "workbench.prompt_length": length}
        (pair,) = read_rows([row])
        assert pair.metadata["workbench.prompt_length"] == length
        assert pair.prompt == "a"
    (pair,) = read_rows([{"chosen": "a b", "rejected": "a c", "workbench.prompt_length": 2}])
    assert (pair.prompt, dict(pair.metadata)) == ("a ", {})


def test_ids_come_from_the_content_and_stay() -> None:
    rows = [{"prompt": str(n), "chosen": "c", "rejected": "r"} for n in (1, 2, 1)]
    ids = read_rows(rows).ids()
    assert len(set(ids)) == 3
    assert ids[2] == f"{ids[0]}-2"
    assert set(read_rows([rows[1], rows[0]]).ids()) == set(ids[:2])
    assert read_rows([{**rows[0], "pair_id": 7}]).ids() == ["7"]


def test_votes_that_a_table_holds_as_floats() -> None:
    (pair,) = read_rows([{"prompt": "", "chosen": "", "rejected": "", "votes_chosen": 3.0}])
    assert (pair.votes_chosen, type(pair.votes_chosen)) == (3, int)


def test_writing_other_forms(make_pair: MakePair) -> None:
    talk = make_pair("a", prompt=ONE, chosen=GOOD, rejected=BAD, chosen_score=2.0)
    pairs = PreferenceSet("demo", [talk, make_pair("b")])
    standard = to_rows(pairs, "explicit-standard")
    assert [standard[0][name] for name in ("prompt", "chosen", "rejected")] == ["q", "good", "bad"]
    implicit = to_rows(pairs, "implicit-conversational")
    assert implicit[0]["chosen"] == ONE + GOOD
    assert implicit[1]["rejected"] == [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "No idea."},
    ]
    assert to_rows(pairs, "implicit-standard")[1]["chosen"] == "Why?Because b."
    half = to_rows(pairs, "unpaired")
    assert [row["label"] for row in half] == [True, False, True, False]
    assert (half[0]["completion"], half[0]["score"]) == (GOOD, 2.0)
    with pytest.raises(DataError, match="There is no form 'trl'; choose one of native"):
        to_rows(pairs, "trl")  # type: ignore[arg-type]


def test_unpaired_rows_are_paired_within_their_prompt() -> None:
    def row(prompt: str, completion: str, label: object, **rest: object) -> dict[str, object]:
        return {"prompt": prompt, "completion": completion, "label": label, **rest}

    report = import_rows(
        [
            row("p", "good 1", True, score=4, source="a", attributes={"g": 1}),
            row("q", "lonely", 1),
            row("p", "bad 1", False, score=1, source="b"),
            row("p", "bad 2", "false"),
            row("r", "wrong label", "perhaps"),
            {"prompt": "s", "completion": "no label"},
            row("t", "good", True, alpha=7),
            row("t", "bad", False),
        ]
    )
    (pair,) = report.pairs
    assert texts_of(pair) == ("p", "good 1", "bad 1")
    assert (pair.chosen_score, pair.rejected_score) == (4, 1)
    assert dict(pair.metadata) == {"source": "a", "rejected.source": "b"}
    assert dict(pair.attributes) == {"g": 1}
    assert [(p.row, p.column) for p in report.problems] == [
        (2, "label"),
        (4, "label"),
        (5, "label"),
        (6, "label"),
        (7, "alpha"),
    ]
    assert "labelled true without its counterpart" in str(report.problems[0])
    assert "labelled true to the same prompt" in report.problems[1].expected


def place(content: bytes, tmp_path: Path, suffix: str) -> tuple[int | None, str | None, str, str]:
    path = tmp_path / f"data.{suffix}"
    path.write_bytes(content)
    with pytest.raises(RowError) as caught:
        read_pairs(path)
    error = caught.value
    assert f"data.{suffix}" in str(error) == str(error.problem)
    assert error.file == f"data.{suffix}"
    return error.row, error.column, error.found, error.expected


LINE = b'{"prompt": "p", "chosen": "c", "rejected": "r"}\n'


@pytest.mark.parametrize(
    ("content", "row", "column", "found", "expected"),
    [
        (LINE + b'{"prompt": "p", "cho', 2, None, "broken JSON", "one whole JSON object"),
        (LINE + b"\n" + b'{"prompt": "\xff"}', 3, None, "byte 0xff", "UTF-8"),
        (b'{"prompt": 1, "prompt": 2}', 1, "prompt", "more than once", "each key once"),
        (b'{"m": [{"a": 1, "a": 2}]}', 1, "a", "more than once", "each key once"),
        (LINE[:-2] + b', "alpha": NaN}', 1, "alpha", "nan", "a share between 0 and 1"),
        (LINE[:-2] + b', "alpha": 1e999}', 1, "alpha", "inf", "a share between 0 and 1"),
        (LINE[:-2] + b', "alpha": "0.5"}', 1, "alpha", "'0.5'", "a share between 0 and 1"),
        (LINE[:-2] + b', "m": NaN}', 1, "metadata", "nan", "finite numbers"),
        (LINE[:-2] + b', "pair_id": true}', 1, "pair_id", "True", "a string"),
        (LINE[:-2] + b', "n": ' + b"9" * 5000 + b"}", 1, None, "broken JSON", "one whole JSON"),
        (b'{"prompt": "p", "chosen": 5, "rejected": "r"}', 1, "chosen", "5", "a string or a list"),
        (b'{"prompt": "p", "chosen": "c"}', 1, "rejected", "no such column", "prompt, chosen"),
        (b'{"chosen": "c", "rejected": null}', 1, "rejected", "nothing", "a string"),
        (b'{"a": "\\ud800"}', 1, "chosen", "no such column (there are: 'a')", "prompt"),
        (b"[1]", 1, None, "[1]", "a JSON object"),
        (b"[" * 200_000, 1, None, "nested too deeply", "one whole JSON object"),
        (b"", None, None, "no rows", "at least one pair"),
        (
            b'{"pair_id": "a", "prompt": "p", "chosen": "c", "rejected": "r"}\n' * 2,
            2,
            "pair_id",
            "'a' a second time",
            "an id of its own",
        ),
        (
            b'{"prompt": [{"role": "x", "content": ""}], "chosen": "c", "rejected": "r"}',
            1,
            "prompt.0.role",
            "'x'",
            "system|user|assistant|tool",
        ),
        (b'{"prompt": [5], "chosen": "c", "rejected": "r"}', 1, "prompt.0", "5", "a message"),
        (b'{"prompt": [], "chosen": "c", "rejected": "r"}', 1, "prompt", "[]", "a list of"),
        (
            b'{"chosen": "c", "rejected": [{"role": "assistant", "content": ""}]}',
            1,
            "rejected",
            "assistant",
            "the same form as chosen",
        ),
        (
            b'{"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}],'
            b'"rejected": [{"role": "user", "content": "b"},'
            b'{"role": "assistant", "content": ""}]}',
            1,
            "chosen",
            "user",
            "messages that both answers begin with",
        ),
    ],
)
def test_wrong_json_lines_are_named(
    content: bytes, row: int, column: str, found: str, expected: str, tmp_path: Path
) -> None:
    at = place(content, tmp_path, "jsonl")
    assert at[:2] == (row, column)
    assert found in at[2]
    assert expected in at[3]


@pytest.mark.parametrize(
    ("content", "row", "found"),
    [
        (b'[{"prompt": "p"},\n {"cho', 2, "broken JSON"),
        (b'{"prompt": "p"}', None, "{'prompt': 'p'}"),
        (b'[\n"\xff"]', 2, "byte 0xff"),
        (b"[" * 200_000, None, "nested too deeply"),
        (b"[5]", 1, "5"),
        (b'[{"a": 1, "a": 2}]', 1, "more than once"),
        (b"[]", None, "no rows"),
    ],
)
def test_wrong_json_is_named(content: bytes, row: int, found: str, tmp_path: Path) -> None:
    at = place(content, tmp_path, "json")
    assert at[0] == row
    assert found in at[2]


@pytest.mark.parametrize(
    ("content", "row", "column", "found"),
    [
        (b"", None, None, "no columns"),
        (b"prompt,chosen,prompt\n", 1, "prompt", "the column more than once"),
        (b"prompt,ch\xffosen\n", 1, "number 2", "byte 0xff"),
        (b'prompt,"cho"sen\n', None, None, "broken CSV"),
        (b"prompt,chosen,rejected\na,b\n", 2, None, "2 cells"),
        (b"prompt,chosen,rejected\n\na,b,\xfe\n", 3, "rejected", "byte 0xfe"),
        (b'prompt,chosen,rejected\na,"b\nb",c\na,"b"x,c\n', 4, None, "broken CSV"),
        (b'prompt,chosen,rejected\na,b,"c', 2, None, "broken CSV"),
        (b"prompt,chosen,rejected,alpha\na,b,c,nan\n", 2, "alpha", "nan"),
        (b"prompt,chosen,rejected,alpha\na,b,c,much\n", 2, "alpha", "'much'"),
        (b"question,answer\na,b\n", 2, "chosen", "there are: 'question', 'answer'"),
    ],
)
def test_wrong_csv_is_named(
    content: bytes, row: int, column: str, found: str, tmp_path: Path
) -> None:
    at = place(content, tmp_path, "csv")
    assert at[:2] == (row, column)
    assert found in at[2]


def test_an_import_keeps_the_good_rows(tmp_path: Path) -> None:
    lines = tmp_path / "a.jsonl"
    lines.write_bytes(LINE + b'{"prompt": \n' + b'"\xff"\n' + LINE.replace(b'"p"', b'"q"'))
    report = import_pairs(lines, name="mine")
    assert [pair.prompt for pair in report.pairs] == ["p", "q"]
    assert [problem.row for problem in report.problems] == [2, 3]
    assert report.pairs.name == "mine"
    table = tmp_path / "a.csv"
    table.write_bytes(b'prompt,chosen,rejected\na,b,c\na,"b"x,c\n\xff,b,c\nd,e\nf,g,h\n')
    report = import_pairs(table)
    assert [pair.prompt for pair in report.pairs] == ["a", "f"]
    assert [problem.row for problem in report.problems] == [3, 4, 5]


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    for suffix, content in (("jsonl", LINE), ("json", b"[" + LINE + b"]")):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(b"\xef\xbb\xbf" + content)
        assert len(read_pairs(path)) == 1


def test_parquet_of_others(tmp_path: Path) -> None:
    import datetime as dt
    from decimal import Decimal

    import pyarrow as pa
    import pyarrow.parquet as pq

    when, cost = dt.datetime(2020, 1, 2), Decimal("1.5")
    table = pa.table(
        {
            "prompt": [ONE, ONE],
            "chosen": [GOOD, GOOD],
            "rejected": [BAD, BAD],
            "when": [when, None],
            "cost": [cost, None],
            "votes_chosen": [3.0, None],
            "tags": [["a"], []],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    first, second = read_pairs(tmp_path / "a.parquet")
    assert dict(first.metadata) == {"when": "2020-01-02T00:00:00", "cost": 1.5, "tags": ["a"]}
    assert first.votes_chosen == 3
    assert dict(second.metadata) == {"tags": []}

    pq.write_table(table.append_column("raw", [[b"\xff", b""]]), tmp_path / "b.parquet")
    with pytest.raises(RowError, match=r"b\.parquet, row 1, column 'metadata\.raw'"):
        read_pairs(tmp_path / "b.parquet")
    pq.write_table(table.append_column("cost", [[1, 2]]), tmp_path / "c.parquet")
    with pytest.raises(RowError, match="column 'cost': found the column more than once"):
        read_pairs(tmp_path / "c.parquet")
    (tmp_path / "d.parquet").write_bytes(b"PAR1 and nothing else PAR1")
    with pytest.raises(RowError, match="expected a Parquet file"):
        read_pairs(tmp_path / "d.parquet")


def test_datasets_both_ways(make_set: MakeSet) -> None:
    pytest.importorskip("datasets", reason="the extra `hub` is not installed")
    pairs = make_set(3, alpha=0.5, attributes={"age": 3, "sex": "f"}, metadata={"topic": "t"})
    for form in ("explicit-standard", "implicit-standard", "unpaired", "native"):
        again = from_dataset(to_dataset(pairs, form))
        assert again.pairs == pairs.pairs
    talks = make_set(3, prompt=ONE, chosen=GOOD, rejected=BAD)
    dataset = to_dataset(talks, "explicit-conversational")
    assert dataset[0]["chosen"] == GOOD
    assert from_dataset(dataset.select([2, 0]), name="x").ids() == ["p2", "p0"]


def test_files_that_cannot_be_read_or_written(
    tmp_path: Path, make_set: MakeSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        RowError, match=r"a\.txt: found the suffix '\.txt'; expected one of \.jsonl"
    ):
        read_pairs(tmp_path / "a.txt")
    with pytest.raises(RowError, match=r"a\.csv: found No such file"):
        read_pairs(tmp_path / "a.csv")
    with pytest.raises(DataError, match="cannot be written"):
        write_pairs(make_set(), tmp_path / "no folder" / "a.csv")
    with pytest.raises(RowError, match="expected one of"):
        write_pairs(make_set(), tmp_path / "a.txt")
    write_pairs(make_set(), tmp_path / "a.csv")
    monkeypatch.setattr(files_module, "MAX_FILE_BYTES", 10)
    with pytest.raises(RowError, match=r"a\.csv: found .* MiB; expected at most .* split it"):
        read_pairs(tmp_path / "a.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, make_set: MakeSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    write_pairs(make_set(2), path)
    before = path.read_bytes()

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match=r"No space left on device.*free space"):
        write_pairs(make_set(3), path)
    assert path.read_bytes() == before


def test_too_many_rows(make_set: MakeSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats_module, "MAX_ROWS", 2)
    report = import_rows(to_rows(make_set(5), "native"))
    assert len(report.pairs) == 2
    assert "found more than 2 rows; expected fewer; split it" in str(report.problems[0])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_megabyte_in_any_place(tmp_path: Path, suffix: str) -> None:
    long = "é" * 1_000_000
    texts = {"prompt": "p", "chosen": "c", "rejected": "r"}
    places: list[dict[str, Any]] = [
        {"prompt": long},
        {"chosen": long},
        {"rejected": long},
        {"pair_id": long[:500]},
        {"attributes": {"group": long}},
        {"attributes": {long: "group"}},
        {"metadata": {"note": [long]}},
        {"metadata": {long: 1}},
    ]
    for number, fields in enumerate(places):
        pairs = PreferenceSet("demo", [build_pair({"pair_id": "a", **texts, **fields})])
        check_round_trip(pairs, tmp_path / f"{number}.{suffix}", "native", write_pairs)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_message_stays_short_whatever_the_file_holds(suffix: str, tmp_path: Path) -> None:
    long = "<b>" * 400_000
    if suffix == "csv":
        content = f"{long},chosen\na,b\n"
    else:
        row = json.dumps({long: "p", "chosen": 5, "rejected": long})
        content = row if suffix == "jsonl" else f"[{row}]"
    path = tmp_path / f"a.{suffix}"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        read_pairs(path)
    assert len(str(caught.value)) < 1_000


HOSTILE_NAMES = [
    "<script>alert(1)<",
    "\u202egpj",
    "\U0001f600 a b",
    "-rf *",
    "%2e%2e%2f",
    "a\nb",
    "é" * 100,
]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_of_any_name_are_written_and_read(
    suffix: str, tmp_path: Path, make_set: MakeSet
) -> None:
    for name in HOSTILE_NAMES:
        path = tmp_path / f"{name}.{suffix}"
        write_pairs(make_set(2), path)
        assert read_pairs(path).name == name
        path.write_bytes(b"\xff\n")
        with pytest.raises(DataError):
            read_pairs(path)
    assert len(list(tmp_path.iterdir())) == len(HOSTILE_NAMES)


def test_an_export_through_a_link_leaves_what_the_link_points_at(
    tmp_path: Path, make_set: MakeSet
) -> None:
    treasure, link = tmp_path / "treasure.jsonl", tmp_path / "link.jsonl"
    treasure.write_text("not ours")
    link.symlink_to(treasure)
    write_pairs(make_set(), link)
    assert treasure.read_text() == "not ours"
    assert not link.is_symlink()
    assert len(read_pairs(link)) == 5


def test_a_place_is_refused_before_long_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_place = files_module.check_place
    check_place(tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "folder.csv").mkdir()
    for path, message in (
        (tmp_path / "a.txt", "expected one of .jsonl"),
        (tmp_path / "none" / "a.csv", "is not a folder; create it"),
        (tmp_path / "folder.csv", "choose another place"),
    ):
        with pytest.raises(DataError, match=re.escape(message)):
            check_place(path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(DataError, match=r"a\.csv cannot be written; choose another place"):
        check_place(tmp_path / "a.csv")


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(
    tmp_path: Path, make_set: MakeSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.parquet"
    texts = [f"{n} " + "a" * 10_000 for n in range(1_000)]
    rows = [{"prompt": text, "chosen": "c", "rejected": "r"} for text in texts]
    files_module.write_file(path, rows)
    monkeypatch.setattr(files_module, "MAX_FILE_BYTES", 2_000_000)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(RowError, match=r"bomb\.parquet: found .* MiB when unpacked.*split it"):
        read_pairs(path)


WRITER = """
import sys
from pathlib import Path
from workbench.data.pairs import PreferenceSet, build_pair
from workbench.data.formats import write_pairs
texts = {"prompt": "p" * 500, "chosen": "c" * 500, "rejected": "r" * 500}
sets = [PreferenceSet("s", [build_pair({"pair_id": str(n), **texts, "metadata": {"turn": turn}})
        for n in range(2_000)]) for turn in range(2)]
turn = 0
while True:
    write_pairs(sets[turn % 2], Path(sys.argv[1]), form="native")
    turn += 1
    print(turn, flush=True)
"""


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_kill_in_the_middle_of_an_export_leaves_a_whole_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    for pause in (0.0, 0.013, 0.029):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(pause)
            os.kill(child.pid, signal.SIGKILL)
        pairs = read_pairs(path)
        assert len(pairs) == 2_000
        assert len({pair.metadata["turn"] for pair in pairs}) == 1


def test_numbers_come_back_bit_for_bit(tmp_path: Path, make_set: MakeSet) -> None:
    values = [0.1 + 0.2, 5e-324, sys.float_info.max, -0.0, math.pi]
    pairs = make_set(1, attributes={str(n): v for n, v in enumerate(values)})
    for suffix in SUFFIXES:
        check_round_trip(pairs, tmp_path / f"a.{suffix}", "native", write_pairs)

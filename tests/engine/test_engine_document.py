"""The state file: everything comes back, and nothing hostile comes in."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.engine.document import FORMAT, MOST_CHARACTERS, StateDocument, StateError
from workbench.engine.settings import Settings

names = st.text(max_size=30)
documents = st.builds(
    StateDocument,
    settings=st.builds(
        Settings,
        beta=st.floats(1e-6, 1e6),
        gamma=st.floats(0, 10),
        length_normalised=st.booleans(),
        tie_policy=st.sampled_from(["correct", "wrong", "half"]),
        share_source=st.sampled_from(["raters", "scores", "constant"]),
        share_constant=st.floats(0, 1),
        attributes=st.lists(names).map(tuple),
        outcome=st.sampled_from(["margin", "chosen_reward", "rejected_reward"]),
    ),
    policy=names,
    reference=names,
    page=names,
    selected=names,
    group_by=names,
)


def text(**changes: Any) -> str:
    return json.dumps({"format": FORMAT, "version": 1, **changes})


@given(documents)
def test_a_document_comes_back_as_it_was(document: StateDocument) -> None:
    assert StateDocument.from_json(document.to_json()) == document


def test_fields_left_out_have_their_defaults() -> None:
    assert StateDocument.from_json(text()) == StateDocument()
    assert StateDocument.from_json(text(settings={"beta": 2})).settings == Settings(beta=2.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[1, 2]", "the state file is .*object with named fields"),
        ("{}", "format is None, not 'preference-workbench state'; choose a file"),
        (json.dumps({"format": FORMAT}), "version is None; this program reads 1"),
        (json.dumps({"format": FORMAT, "version": 2}), "version is 2; .*update the workbench"),
        (json.dumps({"format": FORMAT, "version": True}), "version is True"),
        (json.dumps({"format": FORMAT, "version": 1.0}), "version is 1.0"),
        (text(settings=[]), r"settings is \[\]; it should be an object"),
        (text(settings={"beta": "0.1"}), "settings.beta is '0.1'; it should be a number"),
        (text(settings={"beta": True}), "settings.beta is True; it should be a number"),
        (text(settings={"beta": None}), "settings.beta is None"),
        (text(settings={"beta": 0}), "beta is 0.0; give a number above 0"),
        (text(settings={"beta": -1}), "beta is -1.0"),
        (text(settings={"beta": 10**400}), "settings.beta is a number too large"),
        (text(settings={"length_normalised": 1}), "length_normalised is 1; .*true or false"),
        (text(settings={"attributes": "age"}), "attributes is 'age'; .*a list of texts"),
        (text(settings={"attributes": [1]}), "attributes is 1; it should be a text"),
        (text(settings={"tie_policy": "<b>"}), "tie_policy is '<b>'; choose one of correct"),
        (text(settings={"__class__": 1}), "no field settings.__class__; remove it"),
        (text(page=3), "page is 3; it should be a text"),
        (text(policy={"a": 1}), "policy is {'a': 1}"),
        (text(pickle="gASV"), "There is no field pickle"),
        (text(selected="x" * 10_001), "selected has 10,001 characters; use at most 10,000"),
        (text(selected="\ud800"), "selected is .*not valid Unicode"),
        (text(settings={"attributes": ["\udfff"]}), "attributes is .*not valid Unicode"),
        ('{"a": 1, "a": 2}', "'a' is given more than once"),
        (text()[:-1] + ', "settings": {"beta": 1, "beta": 2}}', "'beta' is given more than once"),
        (text()[:-1] + ', "settings": {"beta": NaN}}', "A value is NaN; give a finite number"),
        (text()[:-1] + ', "settings": {"beta": -Infinity}}', "A value is -Infinity"),
        (text()[:-1] + ', "settings": {"beta": 1e999}}', "beta is inf; give a number above 0"),
        (text()[:-1] + ', "settings": {"beta": 1' + "0" * 5000 + "}}", "not JSON that can be read"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        (" " * (MOST_CHARACTERS + 1), "a state at most"),
    ],
)  # fmt: skip
def test_what_is_no_state_file_is_refused_with_the_field_and_the_cure(
    content: str, message: str
) -> None:
    with pytest.raises(StateError, match=message) as refusal:
        StateDocument.from_json(content)
    words = str(refusal.value)
    assert len(words) < 500
    words.encode()


KEYS = ["format", "version", "settings", "beta", "page", "policy", "x"]
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
any_json = st.recursive(
    leaves,
    lambda each: (
        st.lists(each, max_size=3) | st.dictionaries(st.sampled_from(KEYS), each, max_size=4)
    ),
    max_leaves=12,
)


@given(any_json)
def test_any_other_json_is_read_or_refused_and_nothing_else(value: Any) -> None:
    wrapped = {"format": FORMAT, "version": 1, "settings": value, "page": value}
    for content in (value, wrapped):
        try:
            StateDocument.from_json(json.dumps(content))
        except StateError:
            continue

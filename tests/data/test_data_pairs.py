import pickle
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data import PreferencePair, PreferenceSet, plain
from workbench.data.pairs import build_pair, shorten
from workbench.errors import DataError

USER = {"role": "user", "content": "Why?"}
ANSWER = {"role": "assistant", "content": "Because."}
OTHER = {"role": "assistant", "content": "No idea."}
SYSTEM = {"role": "system", "content": "Be brief."}
TOOL = {"role": "tool", "content": "42"}
TEXTS = {"prompt": "Why?", "chosen": "Because.", "rejected": "No idea."}


def pair_of(**fields: object) -> PreferencePair:
    return build_pair({"pair_id": "p", **TEXTS, **fields})


@pytest.mark.parametrize(
    ("fields", "place", "expected"),
    [
        ({"alpha": float("nan")}, "alpha is nan", "a share between 0 and 1"),
        ({"alpha": 1.5}, "alpha is 1.5", "a share between 0 and 1"),
        ({"alpha": True}, "alpha is True", "a share between 0 and 1"),
        ({"alpha": "0.5"}, "alpha is '0.5'", "a share between 0 and 1"),
        ({"votes_chosen": -1}, "votes_chosen is -1", "a whole number of 0 or more"),
        ({"votes_rejected": 1.5}, "votes_rejected is 1.5", "a whole number"),
        ({"votes_chosen": True}, "votes_chosen is True", "a whole number"),
        ({"chosen_score": float("inf")}, "chosen_score is inf", "a finite number"),
        ({"prompt": 5}, "prompt is 5", "a string, or a list of messages"),
        ({"prompt": None}, "prompt is None", "a string, or a list of messages"),
        ({"prompt": b"x"}, "prompt is b'x'", "a string, or a list of messages"),
        ({"prompt": []}, "prompt is []", "a string, or a list of messages"),
        ({"prompt": "a\ud800"}, "prompt is 'a\\ud800'", "unpaired surrogates"),
        ({"prompt": "x" * 4_000_001}, "prompt is", "at most 4,000,000 characters"),
        ({"prompt": [{**USER, "role": "king"}]}, "prompt.0.role is 'king'", "system|user|assist"),
        ({"prompt": [{**USER, "content": 5}]}, "prompt.0.content is 5", "content: string"),
        ({"prompt": [{**USER, "content": "\udc00"}]}, "prompt.0.content", "unpaired surrogates"),
        ({"prompt": [{**USER, "name": "x"}]}, "prompt.0.name is 'x'", "no such key"),
        ({"attributes": {"a": [1]}}, "attributes.a is [1]", "a truth value, a finite number"),
        ({"attributes": {"a": float("nan")}}, "attributes.a is nan", "a finite number"),
        ({"attributes": {"a": "\ud800"}}, "attributes.a", "unpaired surrogates"),
        ({"attributes": {"\ud800": 1}}, "attributes.", "unpaired surrogates"),
        ({"attributes": 5}, "attributes is 5", "a truth value"),
        ({"metadata": {"a": float("nan")}}, "metadata is {'a': nan}", "JSON with finite numbers"),
        ({"metadata": {"a": ["\ud800"]}}, "metadata is", "valid Unicode"),
        ({"metadata": {"a": {1}}}, "metadata.a is {1}", "JSON"),
        ({"pair_id": ""}, "pair_id is ''", "a string of 1 to 500 characters"),
        ({"pair_id": "x" * 501}, "pair_id is", "a string of 1 to 500 characters"),
        ({"colour": "red"}, "colour is 'red'", "no such key"),
    ],
)
def test_wrong_fields_are_named_with_value_and_cure(
    fields: dict[str, object], place: str, expected: str
) -> None:
    with pytest.raises(DataError) as caught:
        pair_of(**fields)
    assert place in str(caught.value)
    assert expected in str(caught.value)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(DataError, match="rejected is missing; expected a value"):
        build_pair({"pair_id": "p", "prompt": "", "chosen": ""})


def test_deeply_nested_metadata_is_refused_with_a_message() -> None:
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(DataError, match="metadata"):
        pair_of(metadata={"deep": deep})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prompt": [USER, SYSTEM, USER]}, "system only as the first message"),
        ({"prompt": [USER, ANSWER]}, "ends with a user or tool message"),
        ({"prompt": [SYSTEM]}, "ends with a user or tool message"),
        ({"prompt": [USER, TOOL]}, "tool message only after an assistant or tool"),
        ({"prompt": [TOOL]}, "tool message only after an assistant or tool"),
        ({"chosen": [USER, ANSWER], "rejected": [OTHER]}, "begins and ends with an assistant"),
        ({"chosen": [ANSWER, USER], "rejected": [OTHER]}, "begins and ends with an assistant"),
        ({"chosen": [ANSWER, SYSTEM, ANSWER], "rejected": [OTHER]}, "without system"),
        ({"chosen": [ANSWER]}, "both answers as strings, or both as conversations"),
    ],
)
def test_role_orders_that_make_no_sense_are_refused(
    fields: dict[str, object], expected: str
) -> None:
    with pytest.raises(DataError, match=expected):
        pair_of(**fields)


@pytest.mark.parametrize(
    "prompt", [[USER], [SYSTEM, USER], [USER, USER], [USER, ANSWER, TOOL], [USER, ANSWER, USER]]
)
def test_role_orders_that_occur_are_kept(prompt: list[dict[str, str]]) -> None:
    pair = pair_of(prompt=prompt, chosen=[ANSWER, USER, ANSWER], rejected=[OTHER])
    assert [message.role for message in pair.prompt] == [m["role"] for m in prompt]  # type: ignore[union-attr]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_valid_text_is_kept_character_for_character(text: str) -> None:
    pair = pair_of(prompt=text, attributes={"group": text}, metadata={text: text})
    again = build_pair(pair.to_json())
    assert (again.prompt, again.attributes["group"], again.metadata[text]) == (text, text, text)
    assert again == pair
    assert again.digest == pair.digest


def test_display_text_of_conversations() -> None:
    pair = pair_of(prompt=[SYSTEM, USER], chosen=[ANSWER], rejected=[OTHER])
    assert pair.prompt_text == "system: Be brief.\n\nuser: Why?"
    assert (pair.chosen_text, pair.rejected_text) == ("Because.", "No idea.")
    assert plain("as it is") == "as it is"


def test_pairs_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        pair_of().prompt = "other"


@pytest.mark.parametrize(
    ("fields", "share"),
    [
        ({}, None),
        ({"alpha": 0.25}, 0.25),
        ({"alpha": 0.25, "votes_chosen": 9, "votes_rejected": 1}, 0.25),
        ({"votes_chosen": 3, "votes_rejected": 1}, 0.75),
        ({"votes_chosen": 0, "votes_rejected": 0}, None),
        ({"votes_chosen": 3}, None),
    ],
)
def test_rater_share(fields: dict[str, object], share: float | None) -> None:
    assert pair_of(**fields).rater_share == share


def test_content_key_knows_prompt_and_answer_only() -> None:
    pair, labelled = pair_of(), pair_of(pair_id="q", alpha=0.3, metadata={"x": 1})
    assert pair.content_key("chosen") == labelled.content_key("chosen")
    assert pair.content_key("chosen") != pair.content_key("rejected")
    swapped = pair_of(chosen=TEXTS["rejected"], rejected=TEXTS["chosen"])
    assert swapped.content_key("rejected") == pair.content_key("chosen")
    assert pair_of(prompt="Why not?").content_key("chosen") != pair.content_key("chosen")
    # A string is not the same as a conversation that holds it.
    assert pair_of(prompt=[USER]).content_key("chosen") != pair.content_key("chosen")


def check_digest_sees(digest_of: Callable[[PreferencePair], object]) -> None:
    variants = [
        pair_of(),
        pair_of(pair_id="q"),
        pair_of(prompt="x"),
        pair_of(alpha=0.5),
        pair_of(attributes={"a": 1}),
        pair_of(attributes={"a": True}),
        pair_of(attributes={"a": "1"}),
        pair_of(attributes={"a": None}),
        pair_of(metadata={"a": 1}),
    ]
    assert len({digest_of(pair) for pair in variants}) == len(variants)


def test_digest_sees_every_field() -> None:
    check_digest_sees(lambda pair: pair.digest)
    one = pair_of(metadata={"a": 1, "b": 2})
    assert one.digest == pair_of(metadata={"b": 2, "a": 1}).digest


def test_sabotaged_digest_fails() -> None:
    with pytest.raises(AssertionError):
        check_digest_sees(lambda pair: pair.content_key("chosen"))


def test_set_access_and_errors() -> None:
    pairs = PreferenceSet("demo", [pair_of(pair_id="a"), pair_of(pair_id="b")])
    assert (len(pairs), [p.pair_id for p in pairs], pairs.ids()) == (2, ["a", "b"], ["a", "b"])
    assert pairs["b"].pair_id == "b"
    assert pairs.index("b") == 1
    assert "b" in pairs
    assert 5 not in pairs
    assert pairs.get("c") is None
    assert repr(pairs) == "PreferenceSet('demo', 2 pairs)"
    with pytest.raises(DataError, match="no pair 'c'"):
        pairs["c"]
    with pytest.raises(DataError, match="pair_id 'a' occurs more than once"):
        PreferenceSet("demo", [pair_of(pair_id="b"), pair_of(pair_id="a"), pair_of(pair_id="a")])


def test_equality_digest_and_pickle() -> None:
    one = PreferenceSet("one", [pair_of(pair_id="a"), pair_of(pair_id="b")])
    same = PreferenceSet("other name", reversed(list(reversed(one.pairs))))
    turned = PreferenceSet("one", reversed(one.pairs))
    assert one == same
    assert (one.digest, hash(one)) == (same.digest, hash(same))
    assert one != turned
    assert one.digest != turned.digest
    assert one != 5
    assert pickle.loads(pickle.dumps(one)) == one


def test_prompt_groups_number_equal_prompts() -> None:
    prompts = ["a", "b", "a", [USER], [USER]]
    answers = [{}, {}, {}, *[{"chosen": [ANSWER], "rejected": [OTHER]}] * 2]
    pairs = PreferenceSet(
        "demo",
        [
            pair_of(pair_id=str(n), prompt=p, **a)
            for n, (p, a) in enumerate(zip(prompts, answers, strict=True))
        ],
    )
    groups = pairs.prompt_groups()
    assert groups == [0, 1, 0, 2, 2]
    groups.append(9)
    assert pairs.prompt_groups() == [0, 1, 0, 2, 2]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([True, False, True], "binary"),
        ([True, True], "binary"),
        (["man", "woman", None], "binary"),
        ([0, 1, None], "binary"),
        ([0, 1, 2], "categorical"),
        (["a", "b", "c"], "categorical"),
        (["a"], "categorical"),
        ([None], "categorical"),
        (list(range(10)), "categorical"),
        (list(range(11)), "continuous"),
        ([n / 7 for n in range(11)] + [None], "continuous"),
        ([*range(11), "unknown"], "categorical"),
        ([*range(11), True], "categorical"),
    ],
)
def test_attribute_kinds(values: list[object], kind: str) -> None:
    pairs = PreferenceSet(
        "demo", [pair_of(pair_id=str(n), attributes={"a": v}) for n, v in enumerate(values)]
    )
    assert pairs.attribute_kind("a") == kind
    assert pairs.attribute_column("a") == tuple(values)


def test_attributes_missing_from_some_pairs() -> None:
    pairs = PreferenceSet(
        "demo",
        [pair_of(pair_id="a", attributes={"x": 1}), pair_of(pair_id="b", attributes={"y": 2})],
    )
    assert pairs.attribute_names() == ("x", "y")
    assert pairs.attribute_column("y") == (None, 2)
    with pytest.raises(DataError, match="No pair has the attribute 'z'; known are: 'x', 'y'"):
        pairs.attribute_column("z")


def check_replaced(replace: Callable[[PreferenceSet, PreferencePair], PreferenceSet]) -> None:
    before = PreferenceSet(
        "demo", [pair_of(pair_id=str(n), attributes={"g": n % 2}) for n in range(4)]
    )
    before.prompt_groups(), before.attribute_names(), before.index("0")
    for change in ({"prompt": "new"}, {"attributes": {"h": 1}}, {"chosen": "new"}):
        after = replace(before, before["2"].with_fields(**change))
        fresh = PreferenceSet("demo", after.pairs)
        assert after.prompt_groups() == fresh.prompt_groups()
        assert after.attribute_names() == fresh.attribute_names()
        assert after.attribute_column("g") == fresh.attribute_column("g")
        assert after.digest == fresh.digest != before.digest
        assert after["3"] is before["3"]


def test_replaced_shares_only_what_still_holds() -> None:
    check_replaced(lambda pairs, pair: pairs.replaced(pair))


def test_sabotaged_replaced_fails() -> None:
    def shares_everything(pairs: PreferenceSet, pair: PreferencePair) -> PreferenceSet:
        changed = pairs.replaced(pair)
        stale = {k: v for k, v in pairs.__dict__.items() if k.startswith("_")}
        changed.__dict__.update(stale)
        return changed

    with pytest.raises(AssertionError):
        check_replaced(shares_everything)


def test_replaced_refuses_an_unknown_pair() -> None:
    with pytest.raises(DataError, match="no pair 'q'"):
        PreferenceSet("demo", [pair_of()]).replaced(pair_of(pair_id="q"))


def test_frame_has_one_column_a_field() -> None:
    pairs = PreferenceSet(
        "demo",
        [
            pair_of(pair_id="a", prompt=[USER], alpha=0.5, attributes={"g": "x"}),
            pair_of(pair_id="b", metadata={"topic": "t"}),
        ],
    )
    frame = pairs.to_frame()
    assert list(frame["pair_id"]) == ["a", "b"]
    assert list(frame["prompt"]) == ["Why?", "Why?"]
    assert frame["alpha"][0] == 0.5
    assert frame["attributes.g"][0] == "x"
    assert frame["metadata.topic"][1] == "t"


def test_shorten_hides_direction_marks_and_length() -> None:
    assert shorten("a\u202eb") == "'a\\u202eb'"
    assert len(shorten("x" * 10**6)) == 80
    assert len(shorten(list(range(10**6)))) <= 80


def test_importing_the_data_package_is_light() -> None:
    code = (
        "import sys, workbench.data, workbench.data.store, workbench.data.sources;"
        "print([m for m in ('torch','transformers','panel','pandas','pyarrow','datasets')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

import json
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data import Message, PreferencePair, PreferenceSet
from workbench.data.edits import (
    ABSENT,
    AddPair,
    DeletePair,
    Edit,
    FieldChange,
    FieldPath,
    SetField,
    apply_edits,
    change_from_json,
    change_to_json,
    changes_between,
    describe,
    duplicate,
    edit_of,
    flip_label,
    inject_label_noise,
    replay,
    swap,
)
from workbench.data.pairs import build_pair
from workbench.errors import DataError

MakePair = Callable[..., PreferencePair]
MakeSet = Callable[..., PreferenceSet]


@pytest.mark.parametrize(
    ("path", "field", "key"),
    [
        ("alpha", "alpha", None),
        ("attributes.gender", "attributes", "gender"),
        ("metadata.a.b", "metadata", "a.b"),
    ],
)
def test_field_paths(path: str, field: str, key: str | None) -> None:
    assert FieldPath.parse(path) == FieldPath(field, key)


@pytest.mark.parametrize(
    "path", ["pair_id", "attributes", "attributes.", "alpha.x", "__class__", "", "<b>"]
)
def test_unknown_fields_are_refused(path: str, make_set: MakeSet) -> None:
    with pytest.raises(DataError, match="There is no field"):
        apply_edits(make_set(), [SetField("p0", path, 1)])


def test_set_field_changes_one_field_of_one_pair(make_set: MakeSet) -> None:
    before = make_set()
    after = apply_edits(before, [SetField("p1", "alpha", 0.25)])
    assert after.pairs["p1"].alpha == 0.25
    assert [c.pair_id for c in after.changes] == ["p1"]
    assert all(after.pairs[i] is before[i] for i in ("p0", "p2", "p3", "p4"))
    assert before["p1"].alpha is None


def test_wrong_values_name_pair_field_and_value(make_set: MakeSet) -> None:
    with pytest.raises(DataError, match=r"Pair 'p1': alpha is 2; expected a share between 0 and 1"):
        apply_edits(make_set(), [SetField("p0", "alpha", 0.5), SetField("p1", "alpha", 2)])


def test_unknown_pairs_are_refused(make_set: MakeSet) -> None:
    for edit in (SetField("q", "alpha", 1), DeletePair("q"), AddPair(make_set()["p0"], "q")):
        with pytest.raises(DataError, match=r"no pair 'q'|exists already"):
            apply_edits(make_set(), [edit])


def test_equal_values_change_nothing(make_set: MakeSet) -> None:
    before = make_set(alpha=0.5, metadata={"a": [1, {"b": 1}]})
    edits = [SetField("p0", "alpha", 0.5), SetField("p0", "metadata.a", [1, {"b": 1}])]
    after = apply_edits(before, edits)
    assert after.changes == ()
    assert after.pairs is before


@pytest.mark.parametrize(
    ("old", "new"), [(1, True), (1, 1.0), ([1], [True]), ({"a": 1}, {"a": 1.0}), (None, 0)]
)
def test_values_of_another_type_are_a_change(old: object, new: object, make_set: MakeSet) -> None:
    after = apply_edits(make_set(metadata={"k": old}), [SetField("p0", "metadata.k", new)])
    assert len(after.changes) == 1
    assert type(after.pairs["p0"].metadata["k"]) is type(new)


def test_absent_removes_a_key_and_nothing_else(make_set: MakeSet) -> None:
    before = make_set(metadata={"a": 1, "b": None}, attributes={"g": "x"})
    edits = [SetField("p0", "metadata.a", ABSENT), SetField("p0", "attributes.g", ABSENT)]
    after = apply_edits(before, [*edits, SetField("p0", "metadata.none", ABSENT)])
    assert dict(after.pairs["p0"].metadata) == {"b": None}
    assert dict(after.pairs["p0"].attributes) == {}
    assert len(after.changes) == 2
    with pytest.raises(DataError, match="chosen cannot be removed"):
        apply_edits(before, [SetField("p0", "chosen", ABSENT)])
    assert repr(ABSENT) == "ABSENT"


def test_a_plain_string_keeps_the_roles_of_a_conversation(make_pair: MakePair) -> None:
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    answer = [{"role": "assistant", "content": "a"}]
    pair = make_pair("p", prompt=prompt, chosen=answer, rejected=answer)
    edits = [SetField("p", "prompt", "new u"), SetField("p", "chosen", "new a")]
    after = apply_edits(PreferenceSet("s", [pair]), edits).pairs["p"]
    assert after.prompt == (
        Message(role="system", content="s"),
        Message(role="user", content="new u"),
    )
    assert after.chosen == (Message(role="assistant", content="new a"),)
    assert after.rejected == pair.rejected


def test_add_and_delete(make_pair: MakePair, make_set: MakeSet) -> None:
    edits: list[Edit] = [
        AddPair(make_pair("first")),
        AddPair(make_pair("mid"), after="p1"),
        AddPair(make_pair("mid2"), after="mid"),
        DeletePair("p3"),
        SetField("mid", "alpha", 0.5),
        DeletePair("mid2"),
        AddPair(make_pair("p3"), after="p4"),
    ]
    after = apply_edits(make_set(), edits)
    assert after.pairs.ids() == ["first", "p0", "p1", "mid", "p2", "p4", "p3"]
    assert after.pairs["mid"].alpha == 0.5
    assert [p.pair_id for p in after.pairs] == after.pairs.ids()
    with pytest.raises(DataError, match="'p0' exists already"):
        apply_edits(make_set(), [AddPair(make_pair("p0"))])
    with pytest.raises(DataError, match="no pair 'p0'"):
        apply_edits(make_set(), [DeletePair("p0"), SetField("p0", "alpha", 1)])


def evidence(pair: PreferencePair) -> list[object]:
    return [
        (pair.chosen, pair.chosen_score, pair.votes_chosen, pair.rater_share, pair.strength),
        (pair.rejected, pair.rejected_score, pair.votes_rejected),
    ]


FULL = {
    "alpha": 0.9,
    "votes_chosen": 3,
    "votes_rejected": 1,
    "chosen_score": 4.0,
    "rejected_score": 2.0,
    "strength": 1.5,
}


def test_swap_tells_the_same_facts_the_other_way(make_set: MakeSet) -> None:
    before = make_set(1, **FULL)
    once = apply_edits(before, swap(*before)).pairs
    pair, old = once["p0"], before["p0"]
    assert (pair.chosen, pair.rejected) == (old.rejected, old.chosen)
    assert (pair.alpha, pair.votes_chosen, pair.votes_rejected) == (0.1, 1, 3)
    assert (pair.chosen_score, pair.rejected_score, pair.strength) == (2.0, 4.0, -1.5)
    assert apply_edits(once, swap(*once)).pairs == before


@given(st.floats(0, 1).map(lambda x: round(x, 6)))
def test_swapping_twice_gives_alpha_back(alpha: float) -> None:
    texts = {"prompt": "p", "chosen": "c", "rejected": "r"}
    before = PreferenceSet("s", [build_pair({"pair_id": "p", "alpha": alpha, **texts})])
    once = apply_edits(before, swap(*before)).pairs
    assert apply_edits(once, swap(*once)).pairs["p"].alpha == alpha


def test_flip_label_leaves_the_votes(make_set: MakeSet) -> None:
    before = make_set(1, **FULL)
    after = apply_edits(before, flip_label(*before)).pairs["p0"]
    old = before["p0"]
    assert (after.chosen, after.rejected) == (old.rejected, old.chosen)
    assert (after.chosen_score, after.rejected_score) == (2.0, 4.0)
    assert (after.alpha, after.votes_chosen, after.votes_rejected, after.strength) == (
        0.9,
        3,
        1,
        1.5,
    )


def test_identical_answers_swap_to_nothing(make_set: MakeSet) -> None:
    pairs = make_set(1, chosen="same", rejected="same")
    assert swap(*pairs) == []


def test_duplicate_finds_free_names(make_set: MakeSet, make_pair: MakePair) -> None:
    pairs = make_set(2)
    pairs = apply_edits(pairs, duplicate(pairs["p0"], taken=pairs)).pairs
    pairs = apply_edits(pairs, duplicate(*pairs, taken=pairs)).pairs
    assert pairs.ids() == ["p0", "p0-copy-2", "p0-copy", "p0-copy-copy", "p1", "p1-copy"]
    assert pairs["p0-copy"].chosen == pairs["p0"].chosen
    long = make_pair("x" * 500)
    (edit,) = duplicate(long)
    assert isinstance(edit, AddPair)
    assert len(edit.pair.pair_id) <= 500


def test_label_noise_is_seeded_counted_and_noted(make_set: MakeSet) -> None:
    before = make_set(40)
    after = apply_edits(before, inject_label_noise(before, 0.25, seed=1)).pairs
    flipped = {pair.pair_id for pair in after if pair.metadata.get("noise_flipped")}
    changed = {pair.pair_id for pair in after if pair.chosen != before[pair.pair_id].chosen}
    assert flipped == changed
    assert len(flipped) == 10
    assert inject_label_noise(before, 0.25, seed=1) == inject_label_noise(before, 0.25, seed=1)
    assert inject_label_noise(before, 0.25, seed=1) != inject_label_noise(before, 0.25, seed=2)
    back = apply_edits(after, inject_label_noise(after, 0.25, seed=1)).pairs
    assert {pair.metadata.get("noise_flipped") for pair in back} == {None, False}
    assert [pair.chosen for pair in back] == [pair.chosen for pair in before]
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(DataError, match="share of noisy labels"):
            inject_label_noise(before, share, seed=0)


def test_describe(make_set: MakeSet) -> None:
    pairs = make_set(2)
    assert describe([SetField("p0", "alpha", 1)]) == "Set alpha of p0"
    assert describe(swap(*pairs)) == "Set 2 fields of 2 pairs"
    assert describe([AddPair(pairs["p0"]), DeletePair("p1")]) == "Add p0; delete p1"
    assert describe([]) == "Nothing"


def random_edits(pairs: PreferenceSet, seed: int, count: int) -> list[Edit]:
    """Edits that fit a set, each in the state that those before it leave."""
    rng, edits = random.Random(seed), list[Edit]()
    for number in range(count):
        ids = pairs.ids()
        kind = rng.randrange(6)
        if kind == 0 and len(ids) > 1:
            edit: Edit = DeletePair(rng.choice(ids))
        elif kind == 1 or not ids:
            source = pairs.pairs[0]
            after = rng.choice([None, *ids])
            edit = AddPair(source.with_fields(pair_id=f"n{seed}-{number}"), after)
        else:
            field, value = rng.choice(
                [
                    ("chosen", f"text {number}"),
                    ("alpha", rng.choice([None, 0.5, rng.random()])),
                    ("attributes.g", rng.choice([1, 1.0, True, "1", None, ABSENT])),
                    ("metadata.m", rng.choice([[1, {"x": None}], "s", ABSENT])),
                ]
            )
            edit = SetField(rng.choice(ids), field, value)
        pairs = apply_edits(pairs, [edit]).pairs
        edits.append(edit)
    return edits


Invert = Callable[[Sequence[FieldChange]], list[FieldChange]]


def check_inverse(pairs: PreferenceSet, edits: Sequence[Edit], invert: Invert) -> None:
    applied = apply_edits(pairs, edits)
    kept = [change_from_json(json.loads(json.dumps(change_to_json(c)))) for c in applied.changes]
    assert replay(pairs, kept).digest == applied.pairs.digest
    back = replay(applied.pairs, invert(kept))
    assert back.ids() == pairs.ids()
    assert back.digest == pairs.digest


def invert_all(changes: Sequence[FieldChange]) -> list[FieldChange]:
    return [change.inverted() for change in reversed(changes)]


@pytest.mark.parametrize("seed", range(25))
def test_any_edits_together_equal_one_by_one_and_can_be_taken_back(
    seed: int, make_set: MakeSet
) -> None:
    pairs = make_set(6, attributes={"g": 1})
    edits = random_edits(pairs, seed, 30)
    together = apply_edits(pairs, edits).pairs
    one_by_one = pairs
    for edit in edits:
        one_by_one = apply_edits(one_by_one, [edit]).pairs
    assert together.ids() == one_by_one.ids()
    assert together.digest == one_by_one.digest
    check_inverse(pairs, edits, invert_all)
    difference = changes_between(pairs, together)
    assert replay(pairs, difference).ids() == together.ids()
    assert replay(pairs, difference).digest == together.digest


def test_sabotaged_inverse_fails(make_set: MakeSet) -> None:
    pairs = make_set(6)
    edits: list[Edit] = [
        AddPair(pairs["p0"].with_fields(pair_id="x"), after="p2"),
        AddPair(pairs["p0"].with_fields(pair_id="y"), after="x"),
        DeletePair("x"),
    ]
    check_inverse(pairs, edits, invert_all)
    with pytest.raises((AssertionError, DataError)):
        check_inverse(pairs, edits, lambda changes: [c.inverted() for c in changes])


def test_conversations_become_strings_and_come_back(make_pair: MakePair) -> None:
    talk = (Message(role="user", content="u"),)
    answer = (Message(role="assistant", content="a"),)
    one = PreferenceSet("s", [make_pair("p", prompt=talk, chosen=answer, rejected=answer)])
    other = PreferenceSet("s", [make_pair("p")])
    for before, after in ((one, other), (other, one)):
        changes = changes_between(before, after)
        kept = [change_from_json(json.loads(json.dumps(change_to_json(c)))) for c in changes]
        assert replay(before, kept) == after
        assert replay(after, invert_all(kept)) == before


def test_reordered_sets_have_a_difference(make_set: MakeSet) -> None:
    before = make_set(4)
    after = PreferenceSet("s", [before.pairs[n] for n in (2, 0, 3, 1)])
    assert replay(before, changes_between(before, after)).ids() == ["p2", "p0", "p3", "p1"]
    assert changes_between(before, before) == []


def test_changes_as_edits(make_set: MakeSet) -> None:
    pairs = make_set(2)
    edits: list[Edit] = [SetField("p0", "alpha", 0.5), DeletePair("p1"), AddPair(pairs["p1"], "p0")]
    assert [edit_of(change) for change in apply_edits(pairs, edits).changes] == edits

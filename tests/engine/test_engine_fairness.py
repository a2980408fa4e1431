"""Dependence on attributes: the scaling in beta, what cannot be measured, and groups."""

import math
import re
import statistics
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.data.edits import SetField, apply_edits
from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.engine.fairness import (
    AttributeColumn,
    AttributeColumns,
    FairnessTable,
    attribute_columns,
    fairness_table,
    group_labels,
    joint_dependence,
    label_of,
    permutation_test,
    summaries,
    unit_outcome,
)
from workbench.engine.settings import Settings
from workbench.engine.values import PairScores
from workbench.metrics import dependence, divergence

N = 60


def a_set(n: int = N, **columns: Any) -> PreferenceSet:
    """Pairs with the given attribute columns; a None in a column is a missing value."""
    return PreferenceSet(
        "s",
        [
            PreferencePair(
                pair_id=f"p{i}",
                prompt="q",
                chosen="a",
                rejected="b",
                attributes={name: values[i] for name, values in columns.items()},
            )
            for i in range(n)
        ],
    )


def scores(n: int = N, seed: int = 0, scale: float = 1.0) -> PairScores:
    generator = torch.Generator().manual_seed(seed)
    four = -50 * scale * torch.rand(4, n, generator=generator, dtype=torch.float64)
    lengths = torch.randint(3, 9, (2, n), generator=generator).double()
    return PairScores(*four, *lengths)


AGE = [18 + (7 * i) % 50 for i in range(N)]
GENDER = ["fm"[i % 2] for i in range(N)]
RACE = ["abc"[(i * i) % 3] for i in range(N)]
ALL = Settings(attributes=("age", "gender", "race"))


def the_table(settings: Settings = ALL, given_scores: PairScores | None = None) -> FairnessTable:
    pairs = a_set(age=AGE, gender=GENDER, race=RACE)
    return fairness_table(given_scores or scores(), pairs, settings)


@pytest.mark.parametrize("beta", [0.01, 0.3, 7.0])
@pytest.mark.parametrize("equalise", [False, True])
@pytest.mark.parametrize("outcome", ["margin", "chosen_reward", "rejected_reward"])
def test_what_is_computed_at_beta_one_scales_to_any_beta(
    beta: float, equalise: bool, outcome: Any
) -> None:
    """The oracle is the metric on the outcome multiplied by beta before anything else."""
    settings = ALL.replaced(equalise=equalise, outcome=outcome)
    table = the_table(settings)
    at_beta = beta * table.outcome
    encoded = [column.encoded(equalise) for column in table.columns]
    for found, attribute in zip(table.dependences, encoded, strict=True):
        v = float(dependence.distance_covariance_sq(at_beta, attribute))
        u = float(dependence.u_distance_covariance_sq(at_beta, attribute))
        correlation = float(dependence.distance_correlation(at_beta, attribute))
        codes = found.column.grouping.codes
        js = float(divergence.generalised_jensen_shannon(at_beta, codes))
        assert beta * found.distance_covariance_sq == pytest.approx(v, rel=1e-9)
        assert beta * found.u_distance_covariance_sq == pytest.approx(u, rel=1e-7, abs=1e-12)
        assert found.distance_correlation == pytest.approx(correlation, rel=1e-9)
        assert found.jensen_shannon == pytest.approx(js, rel=1e-6)
    joint = joint_dependence(table, settings)
    assert joint is not None
    whole = float(dependence.u_joint_distance_covariance_sq([at_beta, *encoded]))
    together = float(dependence.u_concatenated_distance_covariance_sq(at_beta, encoded))
    assert joint.joint(beta) == pytest.approx(whole, rel=1e-7, abs=1e-10)
    assert beta * joint.concatenated == pytest.approx(together, rel=1e-7, abs=1e-12)


def test_a_joint_dependence_scaled_as_a_whole_by_beta_would_be_found_out() -> None:
    """Only the terms with the outcome scale: the attributes' own dependence does not."""
    joint, table = joint_dependence(the_table(), ALL), the_table()
    assert joint is not None
    encoded = [column.encoded(False) for column in table.columns]
    whole = float(dependence.u_joint_distance_covariance_sq([5 * table.outcome, *encoded]))
    assert 5 * joint.joint(1.0) != pytest.approx(whole, rel=1e-3)


def test_the_base_of_the_joint_dependence_is_what_the_attributes_share_without_any_outcome() -> (
    None
):
    table = the_table()
    joint = joint_dependence(table, ALL)
    assert joint is not None
    other = joint_dependence(the_table(given_scores=scores(seed=9)), ALL)
    assert other is not None
    assert joint.joint_base == pytest.approx(other.joint_base, rel=1e-9)
    constant = torch.zeros(N, dtype=torch.float64)
    encoded = [column.encoded(False) for column in table.columns]
    assert joint.joint_base == pytest.approx(
        float(dependence.u_joint_distance_covariance_sq([constant, *encoded]))
    )


def test_of_very_many_pairs_the_joint_statistics_take_a_sample_and_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = joint_dependence(the_table(), ALL)
    monkeypatch.setattr("workbench.engine.fairness.JOINT_MOST", 40)
    one, two = (joint_dependence(the_table(), ALL) for _ in range(2))
    assert whole is not None
    assert one is not None
    assert (whole.n, whole.n_known, one.n, one.n_known) == (N, N, 40, N)
    assert str(one) == str(two)
    assert sum(cell.n for cell in one.cells) == 40


def test_outcomes_are_differences_of_log_ratios_and_length_normalised_by_their_own_lengths() -> (
    None
):
    given_scores, live = scores(), Settings()
    chosen = given_scores.policy_chosen - given_scores.reference_chosen
    rejected = given_scores.policy_rejected - given_scores.reference_rejected
    assert torch.equal(unit_outcome(given_scores, live), chosen - rejected)
    assert torch.equal(unit_outcome(given_scores, live.replaced(outcome="chosen_reward")), chosen)
    mean = unit_outcome(given_scores, live.replaced(length_normalised=True))
    expected = chosen / given_scores.n_chosen - rejected / given_scores.n_rejected
    assert torch.allclose(mean, expected)


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (["same"] * N, "All pairs have the same value"),
        ([5] * N, "All pairs have the same value"),
        ([True] * N, "All pairs have the same value"),
        ([3.0, 3] * (N // 2), "All pairs have the same value"),
        ([None] * (N - 3) + ["a", "b", "a"], "3 pairs know this attribute; .* at least 4"),
        ([None] * (N - 1) + [1.5], "1 pairs know this attribute"),
        ([10**400 + i for i in range(N)], "too large for a number"),
    ],
)
def test_what_cannot_be_measured_says_why_and_is_nan_never_zero(
    values: list[Any], note: str
) -> None:
    (found,) = fairness_table(scores(), a_set(x=values), Settings(attributes=("x",))).dependences
    assert re.search(note, found.note)
    assert found.note[-1] == "."
    measures = (
        found.distance_covariance_sq, found.u_distance_covariance_sq,
        found.distance_correlation, found.jensen_shannon,
    )  # fmt: skip
    assert all(math.isnan(each) for each in measures)
    assert sum(group.n for group in found.groups) == found.n


def test_an_attribute_that_nobody_has_any_more_is_passed_over() -> None:
    table = fairness_table(scores(), a_set(age=AGE), Settings(attributes=("gone", "age")))
    assert [each.name for each in table.dependences] == ["age"]
    none = fairness_table(scores(), a_set(age=AGE), Settings(attributes=("gone",)))
    assert (none.strongest, none.cells, joint_dependence(none, Settings())) == (None, [], None)


def test_missing_values_leave_the_pair_out_of_that_attribute_alone() -> None:
    gaps = [None if i % 4 == 0 else value for i, value in enumerate(AGE)]
    pairs = a_set(age=gaps, gender=GENDER)
    settings = Settings(attributes=("age", "gender"))
    table = fairness_table(scores(), pairs, settings)
    assert [each.n for each in table.dependences] == [45, 60]
    rows = [i for i in range(N) if i % 4]
    alone = fairness_table(scores(), pairs, settings).outcome[rows]
    encoded = dependence.encode_attribute([float(gaps[i]) for i in rows], "continuous")
    assert table.dependences[0].distance_covariance_sq == pytest.approx(
        float(dependence.distance_covariance_sq(alone, encoded))
    )
    joint = joint_dependence(table, settings)
    assert joint is not None
    assert joint.n == 45
    assert sum(cell.n for cell in joint.cells) == 45


def test_whole_numbers_are_one_group_however_written_and_truth_values_are_not_numbers() -> None:
    assert [label_of(v) for v in (3, 3.0, -0.0, 2.5, True, "3", 1e300)] == [
        "3", "3", "0", "2.5", "True", "3", "1e+300",
    ]  # fmt: skip
    mixed = [(1, 1.0, 2, 2.0)[i % 4] for i in range(N)]
    (found,) = fairness_table(scores(), a_set(x=mixed), Settings(attributes=("x",))).dependences
    assert [(group.label, group.n) for group in found.groups] == [("1", 30), ("2", 30)]
    assert found.distance_correlation > 0


def test_mixed_types_and_hostile_words_are_groups_like_any_other() -> None:
    words = ["<script>alert(1)</script>", "\0", "🦊", "a × b", True, 7, 2.5]
    values = [words[i % 7] for i in range(N)]
    (found,) = fairness_table(scores(), a_set(x=values), Settings(attributes=("x",))).dependences
    assert found.kind == "categorical"
    assert {group.label for group in found.groups} == {label_of(word) for word in words}
    assert math.isfinite(found.distance_correlation)


def test_only_groups_of_fewer_than_ten_are_marked_small() -> None:
    values = ["few"] * 9 + ["ten"] * 10 + ["many"] * (N - 19)
    (found,) = fairness_table(scores(), a_set(x=values), Settings(attributes=("x",))).dependences
    assert {group.label: group.small for group in found.groups} == {
        "few": True, "ten": False, "many": False,
    }  # fmt: skip


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.sampled_from(["a", "b", "10", "9", None]))))
def test_a_group_is_summed_up_by_its_own_members(rows: list[tuple[float, str | None]]) -> None:
    outcome = torch.tensor([value for value, _ in rows], dtype=torch.float64)
    found = summaries(outcome, [label for _, label in rows])
    labels = [label for label in ("9", "10", "a", "b") if label in {each for _, each in rows}]
    assert [group.label for group in found] == labels
    for group in found:
        members = [value for value, label in rows if label == group.label]
        assert group.n == len(members)
        assert group.mean == pytest.approx(statistics.fmean(members), abs=1e-9)
        if group.n > 1:
            spread = statistics.stdev(members)
            assert group.standard_deviation == pytest.approx(spread, rel=1e-6, abs=1e-6)
        else:
            assert math.isnan(group.standard_deviation)


def test_the_bands_of_a_continuous_attribute_are_its_quarters() -> None:
    column = AttributeColumn("age", "continuous", (*range(40), None))
    labels = group_labels(column)
    assert labels[-1] is None
    counts = [labels.count(group) for group in column.grouping.names]
    assert counts == [10, 10, 10, 10]
    assert labels[0] == "0 to 9.75"
    assert labels[39] == column.grouping.names[-1]


def test_columns_are_read_anew_only_where_rows_or_values_changed() -> None:
    pairs, columns, rows = a_set(age=AGE, gender=GENDER), AttributeColumns(), torch.arange(N)
    first = columns.of(pairs, ("age", "gender"), rows)
    texts = apply_edits(pairs, [SetField("p1", "chosen", "new")]).pairs
    assert all(
        a is b for a, b in zip(first, columns.of(texts, ("age", "gender"), rows), strict=True)
    )
    aged = apply_edits(texts, [SetField("p1", "attributes.age", 99)]).pairs
    age, gender = columns.of(aged, ("age", "gender"), rows)
    assert (age.values[1], gender is first[1]) == (99, True)
    fewer = columns.of(aged, ("gender",), rows[1:])
    assert fewer[0].values == tuple(GENDER[1:])
    typed = a_set(age=[float(age) for age in AGE])
    assert type(columns.of(typed, ("age",), rows)[0].values[1]) is float


def test_an_unknown_row_is_no_part_of_the_columns() -> None:
    given_scores = scores()
    given_scores.policy_chosen[5] = math.nan
    pairs = a_set(age=AGE)
    (column,) = attribute_columns(pairs, ["age"], given_scores.rows)
    assert len(column.values) == N - 1
    assert column.values[5] == AGE[6]


def test_the_strongest_attribute_is_the_one_that_the_outcome_follows() -> None:
    given_scores = scores()
    follows = unit_outcome(given_scores, Settings()).tolist()
    pairs = a_set(noise=AGE, follows=follows)
    table = fairness_table(given_scores, pairs, Settings(attributes=("noise", "follows")))
    assert table.strongest is not None
    assert table.strongest.name == "follows"
    assert table.strongest.distance_correlation == pytest.approx(1.0)


def test_a_permutation_test_finds_a_dependence_and_repeats_itself() -> None:
    given_scores = scores()
    follows = unit_outcome(given_scores, Settings()).tolist()
    settings = Settings(attributes=("follows",))
    table = fairness_table(given_scores, a_set(follows=follows), settings)
    first, second = (permutation_test(table, settings, 99, seed=4) for _ in range(2))
    assert first == second
    assert first.p_value == pytest.approx(0.01)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_fewer_than_four_pairs_give_notes_and_no_exception(n: int) -> None:
    pairs = a_set(n, age=AGE, gender=GENDER)
    settings = Settings(attributes=("age", "gender") if n else ())
    table = fairness_table(scores(n), pairs, settings)
    assert all(each.note for each in table.dependences)
    assert joint_dependence(table, settings) is None
    with pytest.raises(ValueError, match="at least one attribute that at least 4 pairs have"):
        permutation_test(table, settings, 9, seed=0)

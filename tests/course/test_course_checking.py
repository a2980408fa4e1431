"""What becomes of an answer: `ask`, `numbers`, `agree`, and the verdict."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.course.answers import Open, Wrong, agree, ask, number, numbers, shown, two
from workbench.course.exercise import Exercise, Lesson, Question
from workbench.course.judging import judge


def doubled(answer: Any, draw: np.random.Generator) -> None:
    x = torch.tensor(draw.normal(0, 1, 3))
    slips = {"forgot to double": x, "took the square": x**2}
    agree(numbers(ask(answer, x), (3,)), 2 * x, {"x": x}, slips)


def exercise(check: Any = doubled, rounds: int = 5) -> Exercise:
    return Exercise("1.1", "Double it", check, ("a", "b", "c"), "Twice is twice.", rounds)


@pytest.mark.parametrize(
    "value",
    [
        [1, 2.5],
        (np.float32(1), np.float64(2.5)),
        np.array([1, 2.5], dtype=np.float16),
        torch.tensor([1, 2.5], dtype=torch.bfloat16),
        torch.tensor([1.0, 2.5], requires_grad=True),
        [torch.tensor(1.0, requires_grad=True), torch.tensor([2.5]).sum()],
        pd.Series([1, 2.5], index=["a", "b"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_numbers_are_read_in_every_form_an_answer_may_have(value: Any) -> None:
    found = numbers(value, (2,))
    assert found.dtype == np.float64
    assert found.tolist() == [1, 2.5]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("1.5", "a str .*numbers are asked for"),
        ({"a": 1}, "a dict .*numbers are asked for"),
        ([1, [2, 3]], "a list"),
        (object(), "a object"),
        (1 + 2j, "a complex"),
        ([1, 2, 3], r"shape \(3,\); shape \(2,\) is asked for"),
        (1.0, r"one number; shape \(2,\) is asked for"),
    ],
)
def test_what_is_no_row_of_numbers_is_refused_by_its_kind_or_shape(value: Any, said: str) -> None:
    with pytest.raises(Wrong, match=said) as raised:
        numbers(value, (2,))
    assert not isinstance(raised.value, Open)


def test_one_number_may_come_in_a_tensor_of_one() -> None:
    assert number(torch.tensor([[3.0]])) == 3
    with pytest.raises(Wrong, match="one number is asked for"):
        number([1.0, 2.0])


@pytest.mark.parametrize("value", [None, ...])
def test_what_was_not_answered_is_open(value: Any) -> None:
    for look in (numbers, number, ask):
        with pytest.raises(Open):
            look(value)
    with pytest.raises(Open):
        ask(lambda: value)


def test_a_function_that_raises_is_told_with_its_own_line() -> None:
    def divides(x: float) -> float:
        return helper(x)

    def helper(x: float) -> float:
        return x / 0

    with pytest.raises(Wrong, match=r"divides raised ZeroDivisionError .*line \d+: return x / 0"):
        ask(divides, 1.0)


def test_a_library_function_that_raises_is_told_without_a_line() -> None:
    with pytest.raises(Wrong, match="sqrt raised ValueError"):
        ask(math.sqrt, -1)


def test_a_result_in_place_of_a_function_is_explained() -> None:
    with pytest.raises(Wrong, match="pass the function itself"):
        ask(3.0, 1.0)


def test_an_answer_cannot_change_the_inputs_it_is_judged_by() -> None:
    def spoils(x: torch.Tensor) -> torch.Tensor:
        x.zero_()
        return x

    assert judge(exercise(), spoils).status == "wrong"


def test_the_counterexample_shows_the_place_that_failed() -> None:
    x = np.array([1.0, 2.0, 3.0])
    said = r"for x = 2, beta = 0\.5: the margin: expected 4, found 5\."
    with pytest.raises(Wrong, match=said):
        agree(np.array([2.0, 5, 6]), 2 * x, {"x": x, "beta": 0.5}, name="the margin")


def test_every_slip_that_fits_is_named_and_no_other() -> None:
    one, slips = np.array([1.0]), {"stayed": 1.0, "squared": np.array([1.0]), "halved": 0.5}
    with pytest.raises(Wrong, match=r"you stayed; or squared\.$"):
        agree(one, 2 * one, {"x": one}, slips)


@given(st.lists(st.floats(1e-6, 1e6) | st.floats(-1e6, -1e-6) | st.just(0.0), min_size=1))
def test_single_precision_is_precise_enough(values: list[float]) -> None:
    exact = np.array(values)
    agree(exact.astype(np.float32), exact, {"x": exact})


@given(st.floats(1e-3, 1e3), st.sampled_from([1e-3, -1e-3]))
def test_a_thousandth_off_is_wrong(value: float, off: float) -> None:
    with pytest.raises(Wrong):
        agree(value * (1 + off), value, {"x": value})


def test_infinities_and_missing_values_agree_only_with_their_like() -> None:
    odd = np.array([math.inf, -math.inf, math.nan])
    agree(odd, odd, {"x": odd})
    with pytest.raises(Wrong, match="expected inf, found nan"):
        agree(odd[::-1], odd, {"x": 1})


def test_two_parts_are_unpacked_and_three_are_refused() -> None:
    assert two((1, 2), "both") == (1, 2)
    for found in ((1, 2, 3), 5):
        with pytest.raises(Wrong, match="return both, as two values"):
            two(found, "both")


def test_long_values_are_cut_when_shown() -> None:
    assert shown(torch.arange(9)) == "[0, 1, 2, 3, 4, 5, ...]"
    assert shown(np.array([[1 / 3], [2]])) == "[[0.333333], [2]]"
    assert shown("word") == "word"


# The verdict ---------------------------------------------------------------------------


def test_a_right_answer_is_told_what_it_has_shown() -> None:
    verdict = judge(exercise(), lambda x: 2 * x)
    assert verdict.passed
    assert str(verdict) == "✓ 1.1 Double it: right\n  Twice is twice."


def test_a_wrong_answer_is_told_its_slip() -> None:
    verdict = judge(exercise(), lambda x: x)
    assert verdict.status == "wrong"
    assert str(verdict).startswith("✗ 1.1 Double it: not yet\n  for x = ")
    assert verdict.message.endswith("It looks as if you forgot to double.")
    assert max(map(len, str(verdict).splitlines())) <= 96


def test_a_stub_is_open_and_not_wrong() -> None:
    assert judge(exercise(), lambda x: ...).status == "open"


def test_an_answer_that_breaks_the_check_itself_is_wrong_and_stops_nothing() -> None:
    verdict = judge(exercise(lambda answer, draw: answer.foo), 3)
    assert verdict.status == "wrong"
    assert "cannot judge this answer (AttributeError" in verdict.message


def test_inputs_are_fresh_each_time_and_each_round() -> None:
    seen: list[float] = []
    remember = exercise(lambda answer, draw: seen.append(draw.normal()), rounds=3)
    for _ in range(2):
        judge(remember, 0)
    assert len(set(seen)) == 6


def test_one_wrong_round_of_many_is_enough() -> None:
    calls = iter(range(100))
    answer = lambda x: x if next(calls) == 4 else 2 * x  # noqa: E731 - a student's
    assert judge(exercise(rounds=5), answer).status == "wrong"


# Lessons -------------------------------------------------------------------------------


def test_exercises_are_numbered_by_their_lesson() -> None:
    with pytest.raises(ValueError, match=r"name them \['2\.1'\]"):
        Lesson(2, "slug", "Title", 60, (), (exercise(),), ())


def test_the_right_option_must_be_offered() -> None:
    with pytest.raises(ValueError, match="choose one of ab"):
        Question("?", ("yes", "no"), "c", "because")

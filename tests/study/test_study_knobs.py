from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.study.errors import StudyError
from workbench.study.knobs import (
    Knob,
    knob,
    knob_values,
    knobs_of,
    slider_values,
    with_knobs,
    written,
)


@dataclass(frozen=True)
class Params:
    steps: int = knob(50, low=1, high=500, unit="steps", help="Gradient steps")
    beta: float = knob(0.1, stage="measure", low=0.01, high=10, help="Inverse temperature")
    centred: bool = knob(False, help="Whether to centre")
    loss: str = knob("dpo", choices=("dpo", "ipo"), help="The loss")
    size: int = knob(32, choices=(32, 64), stage="measure", help="A size")
    note: str = knob("", help="A free text")


def test_text_sets_every_kind_of_knob() -> None:
    texts = {"steps": "7", "beta": "2", "centred": "yes", "loss": "ipo", "size": "64", "note": "7"}
    found = with_knobs(Params(), texts)
    assert found == Params(7, 2.0, True, "ipo", 64, "7")
    assert isinstance(found.beta, float)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", "many", "steps is 'many'; give a whole number steps."),
        ("steps", 1.5, "give a whole number"),
        ("steps", True, "give a whole number"),
        ("steps", 0, "steps is 0; give a value from 1 to 500 steps."),
        ("beta", "nan", "give a value from 0.01 to 10"),
        ("beta", "inf", "give a value from 0.01 to 10"),
        ("beta", False, "give a number"),
        ("centred", "maybe", "give true or false"),
        ("centred", 1, "give true or false"),
        ("loss", "kto", "choose one of dpo, ipo"),
        ("size", 33, "choose one of 32, 64"),
        ("note", 3, "give a text"),
        ("stepps", 1, "did you mean steps?"),
        ("zzz", 1, "the knobs are steps, beta"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused(name: str, value: object, message: str) -> None:
    with pytest.raises(StudyError, match=message.replace("?", r"\?")):
        with_knobs(Params(), {name: value})


@given(st.integers(1, 500), st.floats(0.01, 10), st.booleans())
def test_what_is_shown_of_a_knob_can_be_read_back(steps: int, beta: float, centred: bool) -> None:
    params = Params(steps, beta, centred)
    texts = {name: str(value) for name, value in knob_values(params).items()}
    assert with_knobs(Params(), texts) == params


def test_the_stages_part_the_knobs() -> None:
    assert list(knob_values(Params(), "measure")) == ["beta", "size"]
    assert list(knob_values(Params(), "fit")) == ["steps", "centred", "loss", "note"]


def test_parameters_made_out_of_range_are_found_when_they_are_used() -> None:
    with pytest.raises(StudyError, match="steps is 0"):
        with_knobs(replace(Params(), steps=0), {"beta": 1})


def ill_formed(kind: object, value: object) -> type:
    return dataclass(frozen=True)(type("P", (), {"a": value, "__annotations__": {"a": kind}}))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (ill_formed(int, 3), "a is no knob"),
        (ill_formed(int, field(default=3)), "a is no knob"),
        (ill_formed(list, knob(3, low=0, high=9, help="x")), "bool, int, float or str"),
        (ill_formed(int, knob(3, help="x")), "a has no range"),
        (ill_formed(int, knob(3, low=5, high=5, help="x")), "low is not below"),
        (ill_formed(int, knob(3, low=5, high=9, help="x")), "a is 3; give a value from 5 to 9"),
        (ill_formed(int, knob(3, low=0, high=9, help=" ")), "a has no help"),
        (
            ill_formed(int, knob(3, low=0, high=9, help="x", stage="later")),  # type: ignore[arg-type]
            "choose fit or measure",
        ),
        (dataclass(type("P", (), {})), "frozen=True"),
        (int, "frozen=True"),
    ],
)
def test_an_ill_formed_declaration_is_refused(params: type, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        knobs_of(params)


def number(**changes: object) -> Knob:
    about: dict[str, object] = {"low": 0.0, "high": 1.0, "kind": float, "default": 0.5}
    return Knob(name="a", stage="measure", help="x", **(about | changes))  # type: ignore[arg-type]


@given(
    st.just(0.0) | st.floats(-1e6, -1e-3) | st.floats(1e-3, 1e6),
    st.floats(1e-3, 1e6),
    st.booleans(),
)
def test_a_slider_runs_from_end_to_end_in_few_allowed_steps(
    low: float, width: float, whole: bool
) -> None:
    if whole:
        low, width = float(int(low)), float(int(width) + 1)
    knob = number(low=low, high=low + width, kind=int if whole else float, default=low)
    found = slider_values(knob)
    assert found == sorted(set(found))
    assert (found[0], found[-1]) == (knob.kind(low), knob.kind(low + width))
    assert len(found) <= 140
    assert all(knob.read(value) == value for value in found)


def test_a_slider_over_powers_of_ten_steps_by_ratios() -> None:
    found = slider_values(number(low=0.01, high=10.0))
    ratios = [float(b) / float(a) for a, b in pairwise(found)]
    assert max(ratios) <= 1.34
    assert {0.01, 0.1, 1.0, 10.0} <= set(found)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_written_so_that_it_is_read_back(value: float) -> None:
    assert float(written(value)) == value
    assert written(0.1) == "0.1"
    assert written(1e-5) == "1e-05"

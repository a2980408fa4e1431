import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.engine.settings import Settings, SettingsError

settings = st.builds(
    Settings,
    beta=st.floats(1e-6, 1e6),
    gamma=st.floats(0, 10),
    length_normalised=st.booleans(),
    tie_policy=st.sampled_from(["correct", "wrong", "half"]),
    share_source=st.sampled_from(["raters", "scores", "constant"]),
    share_constant=st.floats(0, 1),
    attributes=st.lists(st.text()).map(tuple),
    outcome=st.sampled_from(["margin", "chosen_reward", "rejected_reward"]),
)


@given(settings)
def test_the_address_keeps_every_setting(value: Settings) -> None:
    assert Settings.from_query(value.to_query()) == value


def test_defaults_leave_the_address_empty() -> None:
    assert Settings().to_query() == {}


@pytest.mark.parametrize("beta", [0, -1, math.nan, math.inf])
def test_beta_must_be_positive_and_finite(beta: float) -> None:
    with pytest.raises(SettingsError, match=r"beta is .*give a number above 0"):
        Settings(beta=beta)


@pytest.mark.parametrize(
    ("field", "value"),
    [("gamma", -0.1), ("gamma", math.nan), ("share_constant", 1.5), ("tie_policy", "maybe"),
     ("share_epsilon", 0.5), ("outcome", "<script>"), ("share_source", "")],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(SettingsError, match=field):
        Settings(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "<script>",
        "[1, 2]",
        '"0.1"',
        "NaN",
        "null",
        "true",
        "1e999",
        "[" * 100_000,
        "1" * 400,
        "9" * 5000,
    ],
)
def test_hostile_addresses_are_refused_with_the_parameter_named(text: str) -> None:
    with pytest.raises(SettingsError, match="beta"):
        Settings.from_query({"beta": text})


def test_text_that_no_address_could_carry_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"attributes is .*not valid Unicode"):
        Settings.from_query({"attributes": '["\\ud800"]'})


def test_parameters_that_are_no_settings_are_passed_over() -> None:
    assert Settings.from_query({"session": "x", "page": "DID", "utm": "1"}) == Settings()


def test_a_whole_number_in_the_address_is_a_number() -> None:
    assert Settings.from_query({"beta": "2"}).beta == 2.0


def test_settings_are_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().beta = 3.0  # type: ignore[misc]

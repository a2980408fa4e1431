"""Knobs: the fields of a study's parameters, each with its stage, range, unit and explanation.

    @dataclass(frozen=True)
    class Params:
        steps: int = knob(50, stage="fit", low=1, high=500, unit="steps", help="Gradient steps")
        beta: float = knob(0.1, stage="measure", low=0.01, high=10, help="Inverse temperature")

A *fit* knob changes what is fitted, so moving it fits again; a *measure* knob only changes what is
read off the fitted value. A page, the command line and a notebook all build their controls from
`knobs_of`, and all set them by `with_knobs`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from workbench.study.errors import StudyError

Stage = Literal["fit", "measure"]
KnobValue = bool | int | float | str
ParamsT = TypeVar("ParamsT")

_KEY = "knob"
_MANTISSAS = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
_STEPS = 60
_SWITCH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class Knob:
    """One parameter that a person may set.

    Attributes:
        name: Its field's name.
        kind: bool, int, float or str.
        default: Its value when nobody sets it.
        stage: "fit" where a change fits again, "measure" where it only measures again.
        help: One line of explanation.
        low: Least value of a number, else None.
        high: Greatest value of a number, else None.
        choices: The values that are allowed, where they are few; else empty.
        unit: Unit of a number.
    """

    name: str
    kind: type[KnobValue]
    default: KnobValue
    stage: Stage
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[KnobValue, ...] = ()
    unit: str = ""

    def read(self, value: object) -> KnobValue:
        """The value in the knob's own type, from itself or from text.

        Raises:
            StudyError: it is of another type, or not allowed.
        """
        found = self._typed(value)
        if self.choices and found not in self.choices:
            raise self._refused(value, f"choose one of {', '.join(map(str, self.choices))}")
        if not self._in_range(found):
            raise self._refused(value, f"give a value from {self.low:g} to {self.high:g}")
        return found

    def _typed(self, value: object) -> KnobValue:
        if isinstance(value, str) and self.kind is not str:
            value = self._parsed(value.strip())
        if isinstance(value, bool) == (self.kind is bool):
            if isinstance(value, self.kind):
                return value
            if self.kind is float and isinstance(value, int):
                return float(value)
        raise self._refused(value, f"give {_NAMES[self.kind]}")

    def _parsed(self, text: str) -> object:
        if self.kind is bool:
            return _SWITCH.get(text.lower(), text)
        try:
            return self.kind(text)
        except ValueError:
            return text

    def _in_range(self, value: KnobValue) -> bool:
        if self.low is None or self.high is None or isinstance(value, str):
            return True
        return math.isfinite(value) and self.low <= value <= self.high

    def _refused(self, value: object, advice: str) -> StudyError:
        unit = f" {self.unit}" if self.unit else ""
        return StudyError(f"{self.name} is {value!r}; {advice}{unit}.")


_NAMES: Mapping[type[KnobValue], str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
}


def knob(
    default: KnobValue,
    *,
    help: str,
    stage: Stage = "fit",
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[KnobValue] = (),
    unit: str = "",
) -> Any:  # noqa: ANN401 - as dataclasses.field, so that the field keeps its own type
    """A dataclass field that is a knob; see `Knob` for the arguments.

    A number needs `low` and `high`, or `choices`.
    """
    about = {
        "stage": stage,
        "help": help,
        "low": low,
        "high": high,
        "choices": tuple(choices),
        "unit": unit,
    }
    return field(default=default, metadata={_KEY: about})


def knobs_of(params_type: type) -> Mapping[str, Knob]:
    """The knobs of a class of parameters, by name, in order.

    Raises:
        StudyError: it is no frozen dataclass, or a field is no well-formed knob.
    """
    if not is_dataclass(params_type) or not _is_frozen(params_type):
        raise StudyError(f"{params_type.__name__} must be a dataclass with frozen=True.")
    hints = get_type_hints(params_type)
    return {each.name: _knob(each, hints[each.name]) for each in fields(params_type)}


def knob_values(params: object, stage: Stage | None = None) -> dict[str, KnobValue]:
    """The values of all knobs, or of those of one stage."""
    knobs = knobs_of(type(params))
    return {name: getattr(params, name) for name in knobs if stage in (None, knobs[name].stage)}


def with_knobs(params: ParamsT, settings: Mapping[str, object]) -> ParamsT:
    """Parameters with some knobs set, from values or from text, all of them checked.

    Raises:
        StudyError: an unknown knob (the nearest is named), or a value that is not allowed.
    """
    knobs = knobs_of(type(params))
    for name in settings:
        if name not in knobs:
            raise StudyError(_unknown(name, list(knobs)))
    values = knob_values(params) | dict(settings)
    changed = {name: knobs[name].read(value) for name, value in values.items()}
    return replace(params, **changed)  # type: ignore[type-var]  # knobs_of has seen a dataclass


def slider_values(knob: Knob) -> list[KnobValue]:
    """The places of a number's slider, from lowest to highest: round, and its ends.

    By equal ratios where the range spans two powers of ten or more, else by equal steps.
    """
    low, high = float(knob.low or 0), float(knob.high or 0)
    if low > 0 and high / low >= 100:
        found = _ratios(low, high)
    else:
        step = _round_step((high - low) / _STEPS, whole=knob.kind is int)
        found = [low, *(round(step * k, 12) for k in _between(low, high, step)), high]
    return sorted({knob.kind(each) for each in found})


def written(value: KnobValue) -> str:
    """The shortest text that is read back as the same value."""
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _ratios(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = (float(f"{m}e{decade}") for decade in decades for m in _MANTISSAS)
    return [low, *(each for each in marks if low < each < high), high]


def _between(low: float, high: float, step: float) -> range:
    return range(math.ceil(low / step), math.floor(high / step) + 1)


def _round_step(step: float, whole: bool) -> float:
    decade = 10.0 ** math.floor(math.log10(step))
    rounded = next(m * decade for m in (1, 2, 5, 10) if m * decade >= step * (1 - 1e-9))
    return max(1.0, rounded) if whole else rounded


def _is_frozen(kind: type) -> bool:
    return bool(kind.__dataclass_params__.frozen)  # type: ignore[attr-defined]


def _knob(each: Any, kind: object) -> Knob:  # noqa: ANN401 - dataclasses.Field
    about = each.metadata.get(_KEY)
    if about is None or each.default is MISSING:
        raise StudyError(f"{each.name} is no knob; declare it as {each.name}: ... = knob(...).")
    if not isinstance(kind, type) or kind not in _NAMES:
        raise StudyError(f"{each.name} is a {kind}; a knob is a bool, int, float or str.")
    found = Knob(name=each.name, kind=kind, default=each.default, **about)
    _check(found)
    found.read(found.default)
    return found


def _check(knob: Knob) -> None:
    if not knob.help.strip():
        raise StudyError(f"{knob.name} has no help; say in one line what it does.")
    if knob.stage not in get_args(Stage):
        raise StudyError(f"{knob.name} has stage {knob.stage!r}; choose fit or measure.")
    if knob.kind in (int, float) and not knob.choices:
        if knob.low is None or knob.high is None:
            raise StudyError(f"{knob.name} has no range; give low and high, or choices.")
        if not knob.low < knob.high:
            raise StudyError(f"{knob.name} runs from {knob.low} to {knob.high}; low is not below.")


def _unknown(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the knobs are {', '.join(known)}."
    return f"There is no knob {name!r}; {hint}"

"""The hyperparameters that every page shares, as one immutable value.

None of them enters a score's key: changing a setting is pure arithmetic on cached scores.
"""

import dataclasses
import json
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, get_args

from workbench.errors import WorkbenchError

TiePolicy = Literal["correct", "wrong", "half"]
ShareSource = Literal["raters", "scores", "constant"]
Outcome = Literal["margin", "chosen_reward", "rejected_reward"]

PAPER_BETAS = (0.01, 0.1, 1.0, 5.0, 10.0)


class SettingsError(WorkbenchError):
    """A hyperparameter outside its range."""


@dataclass(frozen=True)
class Settings:
    """Hyperparameters of objective and metrics.

    Attributes:
        beta: Inverse temperature of the implicit reward, > 0.
        gamma: Weight of the reference log-ratio in DPO^gamma; 1 is DPO, 0 is reference-free.
        length_normalised: Divide every log-probability by its number of response tokens.
        tie_policy: What an exact tie counts in the ranking accuracy.
        share_source: Where the rater share alpha of a pair comes from.
        share_constant: The alpha of a pair for which the source says nothing, in [0, 1].
        share_epsilon: Unanimous votes are clipped to [epsilon, 1 - epsilon].
        paper_code: Use the formula of the ranking paper's code for the idealized accuracy.
        attributes: Protected attributes whose dependence with the outcome is measured.
        outcome: The quantity whose dependence on the attributes is measured.
        equalise: Scale every attribute to a mean pairwise distance of comparable size.
    """

    beta: float = 0.1
    gamma: float = 1.0
    length_normalised: bool = False
    tie_policy: TiePolicy = "correct"
    share_source: ShareSource = "raters"
    share_constant: float = 0.75
    share_epsilon: float = 1e-3
    paper_code: bool = False
    attributes: tuple[str, ...] = ()
    outcome: Outcome = "margin"
    equalise: bool = False

    def __post_init__(self) -> None:
        """Refuse values outside their range, naming the field, the value and the cure."""
        _check("beta", self.beta, 0.0, math.inf, "a number above 0, for example 0.1")
        _check("share_epsilon", self.share_epsilon, 0.0, 0.5, "a number between 0 and 0.5")
        if not (math.isfinite(self.gamma) and self.gamma >= 0):
            raise SettingsError(f"gamma is {self.gamma!r}; give a number of 0 or more (1 is DPO).")
        if not 0 <= self.share_constant <= 1:
            raise SettingsError(
                f"share_constant is {self.share_constant!r}; give a share in [0, 1]."
            )
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                found = getattr(self, name)
                raise SettingsError(f"{name} is {found!r}; choose one of {', '.join(allowed)}.")

    def replaced(self, **changes: Any) -> Self:  # noqa: ANN401 - the fields' own types apply
        """A copy with some fields changed, checked like a new one."""
        return dataclasses.replace(self, **changes)

    def to_query(self) -> dict[str, str]:
        """The fields that differ from their defaults, as URL parameters."""
        default = type(self)()
        changed = [
            f.name for f in fields(self) if getattr(self, f.name) != getattr(default, f.name)
        ]
        return {name: json.dumps(getattr(self, name)) for name in changed}

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> Self:
        """Read back `to_query`; parameters that are no settings are passed over.

        Raises:
            SettingsError: a value that is not JSON, of the wrong type or out of range.
        """
        known = {f.name: getattr(cls(), f.name) for f in fields(cls)}
        found = {name: _parsed(name, query[name]) for name in known if name in query}
        return cls(**{name: typed(name, value, known[name]) for name, value in found.items()})


_CHOICES: dict[str, tuple[str, ...]] = {
    "tie_policy": get_args(TiePolicy),
    "share_source": get_args(ShareSource),
    "outcome": get_args(Outcome),
}


def _check(name: str, value: float, low: float, high: float, cure: str) -> None:
    if not low < value < high:
        raise SettingsError(f"{name} is {value!r}; give {cure}.")


def typed(name: str, value: object, default: object) -> Any:  # noqa: ANN401 - the default's type
    """A value read from JSON as the type of its field's default; whole numbers may be floats.

    Raises:
        SettingsError: another type, a number beyond a float, or text that is not valid Unicode.
    """
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(typed(name, each, "") for each in value)
    if isinstance(default, float) and type(value) is int:
        try:
            return float(value)
        except OverflowError as error:
            raise SettingsError(f"{name} is a number too large; give a smaller one.") from error
    if type(value) is not type(default):
        wanted = _TYPE_WORDS[type(default)]
        raise SettingsError(f"{name} is {_shown(value)}; it should be {wanted}.")
    if isinstance(value, str) and not _valid(value):
        raise SettingsError(f"{name} is {_shown(value)}; remove what is not valid Unicode from it.")
    return value


_TYPE_WORDS = {str: "a text", float: "a number", bool: "true or false", tuple: "a list of texts"}


def _parsed(name: str, text: str) -> object:
    try:
        return json.loads(text)
    # ValueError covers a whole number of thousands of digits, too.
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f"{name}={text[:80]!r} in the address is not JSON; remove it."
        ) from error


def _shown(value: object) -> str:
    text = ascii(value[:80]) if isinstance(value, str) else reprlib.repr(value)
    return text[:80]


def _valid(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

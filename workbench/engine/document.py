"""The state of a page as a file that a person keeps, sends and opens again."""

import dataclasses
import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from workbench.defaults import DEFAULT_POLICY, DEFAULT_REFERENCE
from workbench.engine.settings import Settings, SettingsError, typed
from workbench.errors import WorkbenchError

FORMAT = "preference-workbench state"
VERSION = 1
MOST_CHARACTERS = 1_000_000
_LONGEST_TEXT = 10_000


class StateError(WorkbenchError):
    """A state file that cannot be read."""


@dataclass(frozen=True)
class StateDocument:
    """What a page shows, without the pairs themselves.

    Attributes:
        settings: The hyperparameters.
        policy: Name of the model whose preferences are looked at.
        reference: Name of the model it is compared with.
        page: Name of the page; empty for the first.
        selected: Id of the selected pair; empty for none.
        group_by: Attribute that colours the figures; empty for none.
    """

    settings: Settings = field(default_factory=Settings)
    policy: str = DEFAULT_POLICY
    reference: str = DEFAULT_REFERENCE
    page: str = ""
    selected: str = ""
    group_by: str = ""

    def to_json(self) -> str:
        """The document as indented JSON, every field written out."""
        content = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read back `to_json`; fields that are left out have their defaults.

        Raises:
            StateError: not JSON, not such a document, a later version, or a field that is
                unknown, given twice, of the wrong type or out of range; the message names it.
        """
        record = _record("the state file", _parse(text))
        kind, version = record.pop("format", None), record.pop("version", None)
        if kind != FORMAT:
            raise StateError(
                f"format is {reprlib.repr(kind)}, not {FORMAT!r}; choose a file that the "
                "workbench saved."
            )
        if type(version) is not int or version != VERSION:
            raise StateError(
                f"version is {reprlib.repr(version)}; this program reads {VERSION}. Save the state "
                "again, or update the workbench."
            )
        settings = _record("settings", record.pop("settings", {}))
        try:
            fields = _typed(record, {f.name: "" for f in dataclasses.fields(cls)[1:]}, "")
            found = _typed(settings, dataclasses.asdict(Settings()), "settings.")
            return cls(Settings(**found), **fields)
        except SettingsError as error:
            raise StateError(f"The state file cannot be used: {error}") from error


def _parse(text: str) -> object:
    if len(text) > MOST_CHARACTERS:
        raise StateError(
            f"The file has {len(text):,} characters, a state at most {MOST_CHARACTERS:,}; "
            "choose a file that the workbench saved."
        )
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    # ValueError covers a whole number of thousands of digits, RecursionError deep nesting.
    except (ValueError, RecursionError) as error:
        words = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise StateError(
            f"The state file is not JSON that can be read ({words}); choose a file that the "
            "workbench saved."
        ) from error


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    record: dict[str, object] = {}
    for key, value in pairs:
        if key in record:
            raise StateError(f"{reprlib.repr(key)} is given more than once; remove all but one.")
        record[key] = value
    return record


def _refuse_constant(name: str) -> object:
    raise StateError(f"A value is {name}; give a finite number.")


def _record(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise StateError(
            f"{name} is {reprlib.repr(value)}; it should be an object with named fields."
        )
    return value


def _typed(
    record: Mapping[str, object], defaults: Mapping[str, object], prefix: str
) -> dict[str, Any]:
    """The fields as their types.

    Raises:
        StateError: an unknown field, or a text that is too long.
        SettingsError: a wrong type.
    """
    for name, value in record.items():
        if name not in defaults:
            found, known = prefix + ascii(name[:80])[1:-1], ", ".join(defaults)
            raise StateError(f"There is no field {found}; remove it. Known are: {known}.")
        if isinstance(value, str) and len(value) > _LONGEST_TEXT:
            raise StateError(
                f"{prefix}{name} has {len(value):,} characters; use at most {_LONGEST_TEXT:,}."
            )
    return {name: typed(prefix + name, value, defaults[name]) for name, value in record.items()}

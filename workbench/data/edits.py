"""Edits of a preference set, as values: what the journal keeps and what undo turns round.

An edit names a pair by its id and a field by its path, never a row by its number.
"""

import json
import random
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any, Final, Literal

from workbench.data.pairs import (
    MAPPING_FIELDS,
    SCALAR_FIELDS,
    TEXT_FIELDS,
    Json,
    Message,
    PreferencePair,
    PreferenceSet,
    Text,
    build_pair,
    shorten,
    text_to_json,
)
from workbench.errors import DataError


class _Absent(Enum):
    ABSENT = "absent"

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent.ABSENT
"""The value of an attribute or metadata key that a pair does not have; setting it removes it."""

Absent = Literal[_Absent.ABSENT]


@dataclass(frozen=True)
class FieldPath:
    """A parsed field: `chosen` has no key, `attributes.gender` has the key `gender`."""

    field: str
    key: str | None

    @classmethod
    def parse(cls, path: str) -> "FieldPath":
        """Read `alpha`, `attributes.NAME` or `metadata.NAME`; a NAME may itself contain dots.

        Raises:
            DataError: no such field.
        """
        if path in SCALAR_FIELDS:
            return cls(path, None)
        field, dot, key = path.partition(".")
        if field in MAPPING_FIELDS and dot and key:
            return cls(field, key)
        raise DataError(
            f"There is no field {shorten(path)}; the fields are {', '.join(SCALAR_FIELDS)}, "
            "attributes.NAME and metadata.NAME."
        )

    def get(self, pair: PreferencePair) -> object:
        """The value in a pair; ABSENT for a key that it does not have."""
        value = getattr(pair, self.field)
        return value if self.key is None else value.get(self.key, ABSENT)


@dataclass(frozen=True)
class SetField:
    """Give one field of one pair a new value.

    A string for a text that is a conversation replaces the content of its last message. ABSENT
    (for `attributes.NAME` and `metadata.NAME`) removes the key.
    """

    pair_id: str
    field: str
    value: object


@dataclass(frozen=True)
class AddPair:
    """Put a new pair after another one; None puts it first."""

    pair: PreferencePair
    after: str | None = None


@dataclass(frozen=True)
class DeletePair:
    """Take a pair out of the set."""

    pair_id: str


Edit = SetField | AddPair | DeletePair


@dataclass(frozen=True)
class FieldChange:
    """What an edit did to one field; field `pair` stands for a whole pair added or deleted.

    Attributes:
        before: The earlier value, ABSENT where there was none; `after` likewise.
        previous_id: For field `pair`: the pair after which it stands or stood, None for first.
    """

    pair_id: str
    field: str
    before: object
    after: object
    previous_id: str | None = None

    def inverted(self) -> "FieldChange":
        """The change that takes this one back."""
        return FieldChange(self.pair_id, self.field, self.after, self.before, self.previous_id)


@dataclass(frozen=True)
class Applied:
    """The set after some edits, and what really changed (an edit to an equal value does not)."""

    pairs: PreferenceSet
    changes: tuple[FieldChange, ...]


def apply_edits(pairs: PreferenceSet, edits: Sequence[Edit]) -> Applied:
    """Apply edits in order; either all of them hold or none.

    Raises:
        DataError: an unknown pair or field, a value that does not fit, an id used twice.
    """
    draft = _Draft(pairs)
    for edit in edits:
        match edit:
            case SetField():
                draft.set(edit)
            case AddPair():
                draft.add(edit.pair, edit.after)
            case DeletePair():
                draft.delete(edit.pair_id)
    return Applied(draft.result(), tuple(draft.changes))


def replay(pairs: PreferenceSet, changes: Iterable[FieldChange]) -> PreferenceSet:
    """Apply recorded changes, as they stand in the journal, to the state they were made on."""
    draft = _Draft(pairs)
    for change in changes:
        if change.field != "pair":
            draft.set(SetField(change.pair_id, change.field, change.after), exact=True)
        elif isinstance(change.after, PreferencePair):
            draft.add(change.after, change.previous_id)
        else:
            draft.delete(change.pair_id)
    return draft.result()


def changes_between(before: PreferenceSet, after: PreferenceSet) -> list[FieldChange]:
    """The changes that turn one set into the other, including the order of pairs."""
    common = [p.pair_id for p in after.pairs if p.pair_id in before]
    moved = common != [p.pair_id for p in before.pairs if p.pair_id in after]
    kept = set() if moved else set(common)
    changes = [
        FieldChange(pair.pair_id, "pair", pair, ABSENT, _previous(before, place))
        for place, pair in reversed(list(enumerate(before.pairs)))
        if pair.pair_id not in kept
    ]
    for place, pair in enumerate(after.pairs):
        if pair.pair_id in kept:
            changes += field_changes(before[pair.pair_id], pair)
        else:
            changes.append(FieldChange(pair.pair_id, "pair", ABSENT, pair, _previous(after, place)))
    return changes


def field_changes(before: PreferencePair, after: PreferencePair) -> list[FieldChange]:
    """The fields in which two states of one pair differ."""
    if before is after:
        return []
    paths = [FieldPath(name, None) for name in SCALAR_FIELDS]
    for name in MAPPING_FIELDS:
        keys = dict.fromkeys([*getattr(before, name), *getattr(after, name)])
        paths += [FieldPath(name, key) for key in keys]
    found = ((path, path.get(before), path.get(after)) for path in paths)
    return [
        FieldChange(before.pair_id, _spell(path), old, new)
        for path, old, new in found
        if not _same(old, new)
    ]


def swap(*pairs: PreferencePair) -> list[Edit]:
    """Exchange the two answers with all their evidence: the same facts, told the other way.

    Texts, scores and votes change sides, alpha becomes 1 - alpha, the strength its negative.
    """
    edits: list[Edit] = []
    for pair in pairs:
        edits += _exchange(pair, "chosen", "rejected")
        edits += _exchange(pair, "chosen_score", "rejected_score")
        edits += _exchange(pair, "votes_chosen", "votes_rejected")
        if pair.alpha is not None:
            edits.append(SetField(pair.pair_id, "alpha", _complement(pair.alpha)))
        if pair.strength is not None:
            edits.append(SetField(pair.pair_id, "strength", -pair.strength))
    return edits


def flip_label(*pairs: PreferencePair) -> list[Edit]:
    """Say that the raters preferred the other answer: texts and their scores change sides.

    Alpha, votes and strength stay, and so now speak for the other answer.
    """
    edits: list[Edit] = []
    for pair in pairs:
        edits += _exchange(pair, "chosen", "rejected")
        edits += _exchange(pair, "chosen_score", "rejected_score")
    return edits


def duplicate(*pairs: PreferencePair, taken: Container[str] = ()) -> list[Edit]:
    """Put a copy after each pair, named `ID-copy`, or `ID-copy-2`, ... where that is taken.

    Args:
        pairs: What to copy.
        taken: The ids in use; pass the preference set itself.
    """
    edits: list[Edit] = []
    new: set[str] = set()
    for pair in pairs:
        # Room for the suffix: an id has at most 500 characters.
        stem, number = f"{pair.pair_id[:480]}-copy", 2
        name = stem
        while name in taken or name in new:
            name, number = f"{stem}-{number}", number + 1
        new.add(name)
        edits.append(AddPair(pair.with_fields(pair_id=name), after=pair.pair_id))
    return edits


def inject_label_noise(pairs: PreferenceSet, share: float, seed: int) -> list[Edit]:
    """Flip the labels of a random share of the pairs, and note it in `metadata.noise_flipped`.

    A pair flipped before is flipped back and noted as false. The number of pairs is
    `round(share * len(pairs))`; equal seeds choose equal pairs.

    Raises:
        DataError: a share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise DataError(f"The share of noisy labels is {share!r}; give a number from 0 to 1.")
    count = round(share * len(pairs))
    places = sorted(random.Random(seed).sample(range(len(pairs)), count))
    edits: list[Edit] = []
    for place in places:
        pair = pairs.pairs[place]
        edits += flip_label(pair)
        flipped = not pair.metadata.get("noise_flipped")
        edits.append(SetField(pair.pair_id, "metadata.noise_flipped", flipped))
    return edits


def describe(edits: Sequence[Edit]) -> str:
    """A short line for the history: `Set alpha of p7`, `Set 3 fields of 2 pairs; delete p9`."""
    sets = [edit for edit in edits if isinstance(edit, SetField)]
    added = [edit.pair.pair_id for edit in edits if isinstance(edit, AddPair)]
    deleted = [edit.pair_id for edit in edits if isinstance(edit, DeletePair)]
    parts = []
    if sets:
        fields = list(dict.fromkeys(edit.field for edit in sets))
        what = fields[0][:60] if len(fields) == 1 else f"{len(fields)} fields"
        parts.append(f"set {what} of {_some([edit.pair_id for edit in sets])}")
    if added:
        parts.append(f"add {_some(added)}")
    if deleted:
        parts.append(f"delete {_some(deleted)}")
    line = "; ".join(parts) or "nothing"
    return line[0].upper() + line[1:]


def change_to_json(change: FieldChange) -> dict[str, Json]:
    """A change as the journal keeps it; an absent value is an absent key."""
    record: dict[str, Json] = {"id": change.pair_id, "field": change.field}
    if change.before is not ABSENT:
        record["before"] = _value_to_json(change.before)
    if change.after is not ABSENT:
        record["after"] = _value_to_json(change.after)
    if change.previous_id is not None:
        record["previous"] = change.previous_id
    return record


def change_from_json(record: Mapping[str, Any]) -> FieldChange:
    """Read back `change_to_json`."""
    field = record["field"]
    return FieldChange(
        record["id"],
        field,
        _value_from_json(field, record["before"]) if "before" in record else ABSENT,
        _value_from_json(field, record["after"]) if "after" in record else ABSENT,
        record.get("previous"),
    )


def edit_of(change: FieldChange) -> Edit:
    """The edit that makes a recorded change."""
    if change.field != "pair":
        return SetField(change.pair_id, change.field, change.after)
    if isinstance(change.after, PreferencePair):
        return AddPair(change.after, change.previous_id)
    return DeletePair(change.pair_id)


class _Draft:
    """A set being edited: field edits are collected and each pair is built and checked once.

    Pairs are put in and taken out of one list. Where a pair stands is looked up in a window
    round its old place that is no wider than the number of such edits, so thousands of them on
    100,000 pairs stay quick.
    """

    def __init__(self, pairs: PreferenceSet) -> None:
        self.changes: list[FieldChange] = []
        self._base = pairs
        self._fields: dict[str, dict[str, Any]] = {}
        self._changed: dict[str, PreferencePair | None] = {}
        self._ids: list[str] = []
        self._rows: list[PreferencePair] = []
        self._hints: dict[str, int] = {}
        self._added = self._deleted = 0

    def set(self, edit: SetField, *, exact: bool = False) -> None:
        path = FieldPath.parse(edit.field)
        pair = self._pair(edit.pair_id)
        fields = self._fields.setdefault(edit.pair_id, {})
        current = fields.get(path.field, getattr(pair, path.field))
        if path.key is None:
            fields[path.field] = edit.value if exact else _as_field(edit, current)
        elif edit.value is ABSENT:
            fields[path.field] = {k: v for k, v in current.items() if k != path.key}
        else:
            fields[path.field] = {**current, path.key: edit.value}

    def add(self, pair: PreferencePair, after: str | None) -> None:
        self._open()
        if self._find(pair.pair_id) is not None:
            raise DataError(
                f"Pair {shorten(pair.pair_id)} exists already; give the new pair another id."
            )
        place = 0 if after is None else self._place(after) + 1
        self._hints[pair.pair_id] = 0 if after is None else self._hint(after) + 1
        self._ids.insert(place, pair.pair_id)
        self._rows.insert(place, pair)
        self._changed[pair.pair_id] = pair
        self._added += 1
        self.changes.append(FieldChange(pair.pair_id, "pair", ABSENT, pair, after))

    def delete(self, pair_id: str) -> None:
        self._open()
        pair, place = self._pair(pair_id), self._place(pair_id)
        del self._ids[place], self._rows[place]
        self._changed[pair_id] = None
        self._deleted += 1
        previous = self._ids[place - 1] if place else None
        self.changes.append(FieldChange(pair_id, "pair", pair, ABSENT, previous))

    def result(self) -> PreferenceSet:
        self._flush()
        changed = [pair for pair in self._changed.values() if pair is not None]
        if not self._ids and not self._deleted:
            return self._base.replaced(*changed) if changed else self._base
        for pair in changed:
            self._rows[self._place(pair.pair_id)] = pair
        return PreferenceSet.trusted(self._base.name, self._rows, self._ids)

    def _flush(self) -> None:
        for pair_id, fields in self._fields.items():
            before = self._pair(pair_id)
            after = before.with_fields(**fields)
            if changes := field_changes(before, after):
                self.changes += changes
                self._changed[pair_id] = after
        self._fields.clear()

    def _open(self) -> None:
        self._flush()
        if not self._added + self._deleted:
            self._rows = list(self._base.pairs)
            self._ids = self._base.ids()

    def _find(self, pair_id: str) -> PreferencePair | None:
        if pair_id in self._changed:
            return self._changed[pair_id]
        return self._base.get(pair_id)

    def _pair(self, pair_id: str) -> PreferencePair:
        if (pair := self._find(pair_id)) is None:
            raise DataError(
                f"Set {shorten(self._base.name)} has no pair {shorten(pair_id)}; it may have been "
                "deleted. Reload the table."
            )
        return pair

    def _hint(self, pair_id: str) -> int:
        return self._hints[pair_id] if pair_id in self._hints else self._base.index(pair_id)

    def _place(self, pair_id: str) -> int:
        self._pair(pair_id)
        hint = self._hint(pair_id)
        low = max(0, hint - self._deleted)
        return self._ids.index(pair_id, low, hint + self._added + 1)


def _as_field(edit: SetField, current: object) -> object:
    if edit.value is ABSENT:
        raise DataError(
            f"Pair {shorten(edit.pair_id)}: {edit.field} cannot be removed; set it to None, or "
            "to an empty text."
        )
    if edit.field in TEXT_FIELDS and isinstance(edit.value, str) and isinstance(current, tuple):
        return (*current[:-1], Message(role=current[-1].role, content=edit.value))
    return edit.value


def _exchange(pair: PreferencePair, one: str, other: str) -> list[Edit]:
    first, second = getattr(pair, one), getattr(pair, other)
    if _same(first, second):
        return []
    return [
        SetField(pair.pair_id, one, second),
        SetField(pair.pair_id, other, first),
    ]


def _complement(share: float) -> float:
    """1 - share in decimal, so that 0.9 gives 0.1 and a second swap gives 0.9 again."""
    return float(1 - Decimal(repr(share)))


def _previous(pairs: PreferenceSet, place: int) -> str | None:
    return pairs.pairs[place - 1].pair_id if place else None


def _spell(path: FieldPath) -> str:
    return path.field if path.key is None else f"{path.field}.{path.key}"


def _same(one: object, other: object) -> bool:
    """Equal in type as well: True is not 1, and 1 not 1.0, inside containers too."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and one == other


def _some(names: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(names))
    return distinct[0][:60] if len(distinct) == 1 else f"{len(distinct)} pairs"


def _value_to_json(value: object) -> Json:
    if isinstance(value, PreferencePair):
        return value.to_json()
    if isinstance(value, tuple):
        return text_to_json(value)
    plain: Json = json.loads(json.dumps(value))
    return plain


def _value_from_json(field: str, value: Any) -> object:  # noqa: ANN401 - JSON
    if field == "pair":
        return build_pair(value)
    if field in TEXT_FIELDS and isinstance(value, list):
        text: Text = tuple(Message(**message) for message in value)
        return text
    return value

"""The pair table: which pairs a query finds, in which order, and what a row shows."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from workbench.data.pairs import AttributeValue, PreferencePair, PreferenceSet
from workbench.engine.fairness import label_of
from workbench.engine.live import LiveTables
from workbench.engine.settings import Settings

Values = tuple[AttributeValue, ...]
TEXTS = ("prompt", "chosen", "rejected")
MAX_WINDOW = 200
_CELL_CHARS = 400
"""Longer texts are cut in the table (never in the detail editor)."""
_MAX_OPTIONS = 40
"""Categories with more values have no list to choose from."""


@dataclass(frozen=True)
class Query:
    """What the user looks for.

    Attributes:
        text: Every word must occur somewhere in the pair's texts, id or attributes.
        filters: Column name to the value it must have.
        sort: Column and direction, or None for the set's own order.
        offset: First row of the window.
        limit: Rows of the window, at most `MAX_WINDOW`.
    """

    text: str = ""
    filters: Mapping[str, str] = field(default_factory=dict)
    sort: tuple[str, str] | None = None
    offset: int = 0
    limit: int = 50

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> "Query":
        """Read what the browser sent, passing over whatever is of the wrong kind."""
        sort = raw.get("sort")
        filters = raw.get("filters")
        return cls(
            text=str(raw.get("text") or ""),
            filters={str(k): str(v) for k, v in filters.items()}
            if isinstance(filters, dict)
            else {},
            sort=(str(sort[0]), str(sort[1]))
            if isinstance(sort, list | tuple) and len(sort) == 2
            else None,
            offset=_whole(raw.get("offset"), 0),
            limit=min(_whole(raw.get("limit"), 50), MAX_WINDOW),
        )


@dataclass(frozen=True)
class LiveColumn:
    """A column of values that follow the settings."""

    name: str
    title: str
    values: Callable[[LiveTables, Settings], tuple[Tensor, Tensor]]


def _reward(name: str) -> Callable[[LiveTables, Settings], tuple[Tensor, Tensor]]:
    def values(tables: LiveTables, settings: Settings) -> tuple[Tensor, Tensor]:
        table = tables.rewards(settings)
        return table.rows, getattr(table, name)

    return values


def _ranking(name: str) -> Callable[[LiveTables, Settings], tuple[Tensor, Tensor]]:
    def values(tables: LiveTables, settings: Settings) -> tuple[Tensor, Tensor]:
        table = tables.ranking(settings)
        return table.rows, getattr(table, name)

    return values


LIVE: tuple[LiveColumn, ...] = (
    LiveColumn("margin", "Margin", _reward("margin")),
    LiveColumn("chosen_reward", "r(chosen)", _reward("chosen")),
    LiveColumn("rejected_reward", "r(rejected)", _reward("rejected")),
    LiveColumn("correct", "Ranked", _ranking("correct")),
    LiveColumn("loss", "DPO loss", _ranking("loss")),
    LiveColumn("c", "c = log π_ref(y_l)/π_ref(y_w)", _ranking("reference_log_ratio")),
)


_LIVE = {column.name: column for column in LIVE}


def columns(pairs: PreferenceSet) -> list[dict[str, Any]]:
    """The columns of a set, as the widget wants them."""
    texts = [_column(name, name.capitalize(), "text", True, 260) for name in TEXTS]
    attributes = [_attribute(pairs, name) for name in pairs.attribute_names()]
    live = [_column(column.name, column.title, "live", False, 96) for column in LIVE]
    share = _column("alpha", "α (raters)", "number", True, 84)
    return [*texts, *live, share, *attributes]


class PairTable:
    """Answers queries over one page's pairs; the last answers are kept while they hold."""

    def __init__(self, tables: LiveTables) -> None:
        self._tables = tables
        self._key: object = None
        self._found: Sequence[int] = ()
        self._attributes: list[tuple[str, Values]] = []
        self._columns: list[dict[str, Any]] = []

    def columns(self) -> list[dict[str, Any]]:
        """The columns of the set; see `columns`."""
        pairs = self._tables.snapshot.pairs
        attributes = [(name, pairs.attribute_column(name)) for name in pairs.attribute_names()]
        if not self._columns or not _identical(attributes, self._attributes):
            self._attributes, self._columns = attributes, columns(pairs)
        return self._columns

    def matching(self, query: Query, settings: Settings) -> Sequence[int]:
        """Places of the pairs that match, in the order asked for."""
        live = query.sort is not None and query.sort[0] in _LIVE
        snapshot = self._tables.snapshot
        moving = (snapshot.version, settings) if live else snapshot.version[0]
        key = (query.text, tuple(sorted(query.filters.items())), query.sort, moving)
        if key != self._key:
            found = _filtered(snapshot.pairs.pairs, query)
            self._found, self._key = self._sorted(found, query, settings), key
        return self._found

    def window(self, query: Query, settings: Settings) -> list[dict[str, Any]]:
        """The rows of the window that the browser shows."""
        found = self.matching(query, settings)[query.offset : query.offset + query.limit]
        rows = self._full_rows(found, settings)
        return [_cut(row) | {"offset": query.offset + i} for i, row in enumerate(rows)]

    def detail(self, place: int, settings: Settings) -> dict[str, Any]:
        """The pair at `place` with its texts in full, for the editor of one pair."""
        return self._full_rows([place], settings)[0]

    def _full_rows(self, places: Sequence[int], settings: Settings) -> list[dict[str, Any]]:
        """Data, live values, and what an edited field held when the set was opened."""
        live = {column.name: self._at(column, places, settings) for column in LIVE}
        pairs, first = self._tables.snapshot.pairs.pairs, self._tables.session.store.at(0)
        return [
            full_row(pairs[place])
            | {name: _known(values[i]) for name, values in live.items()}
            | {"was": _earlier(pairs[place], first)}
            for i, place in enumerate(places)
        ]

    def _at(self, column: LiveColumn, places: Sequence[int], settings: Settings) -> list[float]:
        """A live column at some places, NaN where it is not known."""
        rows, values = (each.numpy() for each in column.values(self._tables, settings))
        wanted = np.asarray(places, dtype=np.int64)
        at = np.searchsorted(rows, wanted)
        known = at < len(rows)
        known[known] = rows[at[known]] == wanted[known]
        shown = np.full(len(wanted), np.nan)
        shown[known] = values[at[known]]
        listed: list[float] = shown.tolist()
        return listed

    def _sorted(self, found: Sequence[int], query: Query, settings: Settings) -> Sequence[int]:
        """In the order asked for; pairs of which nothing is known come last either way."""
        if query.sort is None:
            return found
        (name, direction), pairs = query.sort, self._tables.snapshot.pairs.pairs
        if name in _LIVE:
            values = np.array(self._at(_LIVE[name], found, settings))
            order = np.argsort(-values if direction == "desc" else values, kind="stable")
            return [found[place] for place in order.tolist()]
        keys = {place: _sortable(_cell(pairs[place], name)) for place in found}
        known = [place for place in found if keys[place] is not None]
        known.sort(key=keys.__getitem__, reverse=direction == "desc")  # type: ignore[arg-type]
        return known + [place for place in found if keys[place] is None]


def full_row(pair: PreferencePair) -> dict[str, Any]:
    """The whole texts of one pair, for the detail editor."""
    return {
        "pair_id": pair.pair_id,
        **{name: getattr(pair, f"{name}_text") for name in TEXTS},
        **{f"attributes.{name}": value for name, value in pair.attributes.items()},
        "alpha": None if pair.rater_share is None else round(pair.rater_share, 4),
    }


def _filtered(pairs: Sequence[PreferencePair], query: Query) -> Sequence[int]:
    words = query.text.casefold().split()
    if not words and not query.filters:
        return range(len(pairs))
    return [
        place
        for place, pair in enumerate(pairs)
        if all(label_of(_cell(pair, name)) == value for name, value in query.filters.items())
        and (not words or _contains(pair, words))
    ]


def _contains(pair: PreferencePair, words: Sequence[str]) -> bool:
    attributes = " ".join(str(value) for value in pair.attributes.values())
    texts = (pair.pair_id, pair.prompt_text, pair.chosen_text, pair.rejected_text, attributes)
    haystack = "\n".join(texts).casefold()
    return all(word in haystack for word in words)


def _identical(one: list[tuple[str, Values]], other: list[tuple[str, Values]]) -> bool:
    """Whether the same columns, as objects, stand under the same names."""
    return len(one) == len(other) and all(
        a[0] == b[0] and a[1] is b[1] for a, b in zip(one, other, strict=True)
    )


def _cut(row: dict[str, Any]) -> dict[str, Any]:
    """A row for the table, which does not let a reader edit what it shows only in part."""
    truncated = [name for name in TEXTS if len(row[name]) > _CELL_CHARS]
    was = {name: value for name, value in row["was"].items() if name not in truncated}
    shown = {name: row[name][:_CELL_CHARS] for name in truncated}
    return row | shown | {"truncated": truncated, "was": was}


def _earlier(pair: PreferencePair, first: PreferenceSet) -> dict[str, Any]:
    """The fields that differ from what the set held when it was opened, as they were."""
    if pair.pair_id not in first or first[pair.pair_id] is pair:
        return {}
    before, now = full_row(first[pair.pair_id]), full_row(pair)
    return {name: before.get(name) for name in before | now if before.get(name) != now.get(name)}


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _cell(pair: PreferencePair, name: str) -> object:
    if name in TEXTS:
        return getattr(pair, f"{name}_text")
    if name.startswith("attributes."):
        return pair.attributes.get(name.removeprefix("attributes."))
    return {"alpha": pair.rater_share, "pair_id": pair.pair_id}.get(name)


def _sortable(value: object) -> tuple[int, float, str] | None:
    """Numbers before words; an integer stays one, because it may be too large for a float."""
    if value is None:
        return None
    if isinstance(value, bool | int | float):
        return 0, value, ""
    return 1, 0.0, str(value).casefold()


def _column(name: str, title: str, kind: str, editable: bool, width: int) -> dict[str, Any]:
    return {"name": name, "title": title, "kind": kind, "editable": editable, "width": width}


def _attribute(pairs: PreferenceSet, name: str) -> dict[str, Any]:
    """An attribute's column, with the values to choose from and to filter by where they are few."""
    if pairs.attribute_kind(name) == "continuous":
        return _column(f"attributes.{name}", name, "number", True, 120)
    column = _column(f"attributes.{name}", name, "category", True, 120)
    known = {value for value in pairs.attribute_column(name) if value is not None}
    return column | ({"options": sorted(known, key=str)} if len(known) <= _MAX_OPTIONS else {})


def _whole(value: object, default: int) -> int:
    return (
        value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default
    )

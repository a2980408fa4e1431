"""The pair table: which pairs a query finds, in which order, and what a row shows."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.engine.live import LiveTables
from workbench.engine.settings import Settings

TEXTS = ("prompt", "chosen", "rejected")
MAX_WINDOW = 200
_CELL_CHARS = 400
"""Longer texts are cut in the table (never in the detail editor)."""


@dataclass(frozen=True)
class Query:
    """What the user looks for.

    Attributes:
        text: Every word must occur somewhere in the pair's texts, id or attributes.
        filters: Attribute name to the value it must have.
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


LIVE = (
    LiveColumn("margin", "Margin", _reward("margin")),
    LiveColumn("chosen_reward", "r(chosen)", _reward("chosen")),
    LiveColumn("rejected_reward", "r(rejected)", _reward("rejected")),
    LiveColumn("correct", "Ranked", _ranking("correct")),
    LiveColumn("loss", "DPO loss", _ranking("loss")),
    LiveColumn("c", "c = log π_ref(y_l)/π_ref(y_w)", _ranking("reference_log_ratio")),
)


def columns(pairs: PreferenceSet) -> list[dict[str, Any]]:
    """The columns of a set, as the widget wants them."""
    texts = [_column(name, name.capitalize(), "text", True, 260) for name in TEXTS]
    attributes = [
        _column(f"attributes.{name}", name, _kind(pairs, name), True, 120)
        for name in pairs.attribute_names()
    ]
    live = [_column(column.name, column.title, "live", False, 96) for column in LIVE]
    share = _column("alpha", "α (raters)", "number", True, 84)
    return [*texts, *live, share, *attributes]


class PairTable:
    """Answers queries over one page's pairs; the last answer is kept while it holds."""

    def __init__(self, tables: LiveTables) -> None:
        self._tables = tables
        self._key: object = None
        self._found: list[int] = []

    def matching(self, query: Query, settings: Settings) -> list[int]:
        """Places of the pairs that match, in the order asked for."""
        live = query.sort is not None and query.sort[0] in {column.name for column in LIVE}
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
        live = {column.name: self._lookup(column, settings) for column in LIVE}
        pairs = self._tables.snapshot.pairs.pairs
        return [
            _row(
                pairs[place],
                query.offset + i,
                {name: look.get(place) for name, look in live.items()},
            )
            for i, place in enumerate(found)
        ]

    def _lookup(self, column: LiveColumn, settings: Settings) -> dict[int, float]:
        rows, values = column.values(self._tables, settings)
        return dict(zip(rows.tolist(), values.tolist(), strict=True))

    def _sorted(self, found: list[int], query: Query, settings: Settings) -> list[int]:
        if query.sort is None:
            return found
        name, direction = query.sort
        value = self._sort_value(name, settings)
        known = [place for place in found if value(place) is not None]
        unknown = [place for place in found if value(place) is None]
        return sorted(known, key=value, reverse=direction == "desc") + unknown

    def _sort_value(self, name: str, settings: Settings) -> Callable[[int], Any]:
        """What a place is sorted by; None (last in either direction) where nothing is known."""
        live = {column.name: column for column in LIVE}
        if name in live:
            return self._lookup(live[name], settings).get
        pairs = self._tables.snapshot.pairs.pairs
        return lambda place: _sortable(_cell(pairs[place], name))


def full_row(pair: PreferencePair) -> dict[str, Any]:
    """The whole texts of one pair, for the detail editor."""
    return {
        "pair_id": pair.pair_id,
        **{name: getattr(pair, f"{name}_text") for name in TEXTS},
        **{f"attributes.{name}": value for name, value in pair.attributes.items()},
        "alpha": pair.rater_share,
    }


def _filtered(pairs: Sequence[PreferencePair], query: Query) -> list[int]:
    words = query.text.casefold().split()
    return [
        place
        for place, pair in enumerate(pairs)
        if all(str(pair.attributes.get(name)) == value for name, value in query.filters.items())
        and (not words or _contains(pair, words))
    ]


def _contains(pair: PreferencePair, words: Sequence[str]) -> bool:
    attributes = " ".join(str(value) for value in pair.attributes.values())
    texts = (pair.pair_id, pair.prompt_text, pair.chosen_text, pair.rejected_text, attributes)
    haystack = "\n".join(texts).casefold()
    return all(word in haystack for word in words)


def _row(pair: PreferencePair, offset: int, live: Mapping[str, float | None]) -> dict[str, Any]:
    cut = {name: getattr(pair, f"{name}_text")[:_CELL_CHARS] for name in TEXTS}
    shown = {name: None if v is None or not math.isfinite(v) else v for name, v in live.items()}
    return {**full_row(pair), **cut, **shown, "offset": offset}


def _cell(pair: PreferencePair, name: str) -> object:
    if name in TEXTS:
        return getattr(pair, f"{name}_text")
    if name.startswith("attributes."):
        return pair.attributes.get(name.removeprefix("attributes."))
    return {"alpha": pair.rater_share, "pair_id": pair.pair_id}.get(name)


def _sortable(value: object) -> tuple[int, float, str] | None:
    if value is None:
        return None
    if isinstance(value, bool | int | float):
        return 0, float(value), ""
    return 1, 0.0, str(value).casefold()


def _column(name: str, title: str, kind: str, editable: bool, width: int) -> dict[str, Any]:
    return {"name": name, "title": title, "kind": kind, "editable": editable, "width": width}


def _kind(pairs: PreferenceSet, name: str) -> str:
    return "number" if pairs.attribute_kind(name) == "continuous" else "category"


def _whole(value: object, default: int) -> int:
    return (
        value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default
    )

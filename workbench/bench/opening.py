"""Opens a bench: on a named set, a file, a data frame, pairs, or an earlier session."""

import math
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.bench.bench import Bench
from workbench.bench.view import BenchError
from workbench.data.formats import read_rows
from workbench.data.pairs import EVIDENCE_FIELDS, PreferencePair, PreferenceSet
from workbench.data.sources import list_sources, open_source
from workbench.defaults import DEFAULT_POLICY, DEFAULT_REFERENCE
from workbench.engine.settings import Settings
from workbench.engine.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

_KNOWN = {"pair_id", "prompt", "chosen", "rejected", "completion", "label", "conversations",
          *EVIDENCE_FIELDS}  # fmt: skip
_WHOLE = ("attributes", "metadata")

Source = "str | Path | PreferenceSet | Iterable[PreferencePair] | pd.DataFrame"


@cache
def workspace() -> Workspace:
    """The workspace of this process, in the folder that the served app uses."""
    return Workspace()


def open_bench(
    source: Any = None,  # noqa: ANN401 - see Source
    *,
    session: str | None = None,
    policy: str | None = None,
    reference: str | None = None,
    within: Workspace | None = None,
    **settings: Any,  # noqa: ANN401 - fields of Settings
) -> Bench:
    """Open preference pairs and begin to score them.

    Args:
        source: `teaching`, `decisions`, `dpo-en-demo`, `hub:ORG/NAME`, a file, a PreferenceSet,
            PreferencePairs, or a DataFrame with columns prompt, chosen and rejected; other columns
            of a DataFrame are attributes. The pairs are copied into a session of their own.
        session: Id of an earlier session to go on with, in place of a source.
        policy: Name of the model whose preferences are looked at.
        reference: Name of the model it is compared with.
        within: Where sessions live; by default the user's own, which the served app shows too.
        settings: Fields of `workbench.engine.settings.Settings`, for example beta.

    Raises:
        WorkbenchError: nothing of that name, data that cannot be read (the message names the
            row), no such model, or a setting out of range.
    """
    chosen = _settings(settings)
    place = within or workspace()
    if (source is None) == (session is None):
        raise BenchError(
            f"open was given {'both' if source is not None else 'neither'} a source and a session; "
            "give one of them, for example open('teaching')."
        )
    for name in (policy, reference):
        if name is not None:
            check_model(name)
    if session is not None:
        found = place.session(session)
        if policy or reference:
            place.use_models(found, policy=policy, reference=reference)
    else:
        found = place.create(
            pairs_of(source), policy or DEFAULT_POLICY, reference or DEFAULT_REFERENCE
        )
    if "attributes" not in settings:
        chosen = chosen.replaced(attributes=tuple(found.store.pairs().attribute_names()))
    return Bench(place, found, chosen)


def pairs_of(source: Any) -> PreferenceSet:  # noqa: ANN401 - see Source
    """The pairs of whatever `open_bench` takes.

    Raises:
        DataError: data that cannot be read; the message names the row.
        BenchError: something that holds no pairs.
    """
    if isinstance(source, PreferenceSet):
        return source
    if isinstance(source, str | Path):
        return open_source(str(source))
    if hasattr(source, "to_dict") and hasattr(source, "columns"):
        return pairs_of_frame(source)
    if isinstance(source, Iterable) and not isinstance(source, Mapping | bytes):
        return _pairs_of_list(list(source))
    names = ", ".join(each.name for each in list_sources())
    raise BenchError(
        f"A {type(source).__name__} holds no preference pairs; give the name of a set ({names}), "
        "a file, a DataFrame or a list of PreferencePair."
    )


def pairs_of_frame(frame: "pd.DataFrame", name: str = "data frame") -> PreferenceSet:
    """Pairs from a table with columns prompt, chosen and rejected.

    Columns that are no field of a pair are attributes; missing values are not known. Rows are
    counted from 1 in messages.

    Raises:
        DataError: the first row that cannot be read.
    """
    columns = [str(column) for column in frame.columns]
    attributes = [
        each
        for each in columns
        if each not in _KNOWN and each.partition(".")[0] not in (*_WHOLE, "workbench")
    ]
    rows = [
        {column: _plain(value) for column, value in zip(columns, values, strict=True)}
        for values in frame.itertuples(index=False, name=None)
    ]
    return read_rows(rows, name=name, attributes=attributes)


def _pairs_of_list(items: list[Any]) -> PreferenceSet:
    for place, item in enumerate(items, start=1):
        if not isinstance(item, PreferencePair | Mapping):
            raise BenchError(
                f"Item {place} is a {type(item).__name__}; give PreferencePairs, or mappings with "
                "prompt, chosen and rejected."
            )
    if all(isinstance(item, PreferencePair) for item in items):
        return PreferenceSet("pairs", items)
    return read_rows([_row(item) for item in items], name="rows")


def _row(item: PreferencePair | Mapping[str, Any]) -> Mapping[str, Any]:
    return item.to_json() if isinstance(item, PreferencePair) else item


def _plain(value: Any) -> Any:  # noqa: ANN401 - a cell
    """numpy's numbers as Python's, and what stands for nothing as None."""
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    if isinstance(value, float) and math.isnan(value):
        return None
    # pandas has a value of its own for what is missing, which even refuses to be compared.
    return None if type(value).__name__ in ("NAType", "NaTType") else value


def _settings(given: Mapping[str, Any]) -> Settings:
    known = Settings.__dataclass_fields__
    for name in given:
        if name not in known:
            raise BenchError(f"There is no setting {name[:60]!r}; there are {', '.join(known)}.")
    return Settings(**given)


def check_model(name: object) -> None:
    """Refuse what cannot be a model's name.

    Raises:
        BenchError: no text.
        ModelError: a name of an unknown form.
    """
    if not isinstance(name, str):
        raise BenchError(
            f"A model is given as {type(name).__name__}; give its name, for example 'default', a "
            "folder, or hub:ORG/NAME."
        )
    from workbench.scoring.models import parse_model

    parse_model(name)

"""Edited inputs: checked against the study's own, and as bytes for a run's folder."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.data.pairs import PreferenceSet, build_pair
from workbench.errors import DataError
from workbench.study.base import Study
from workbench.study.context import Input
from workbench.study.errors import StudyError
from workbench.study.fitted import Encoded, decode, encode
from workbench.study.result import Cell, Table

_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_SWITCH = {"true": True, "false": False}


def column_kind(values: Sequence[Cell]) -> type | None:
    """The type of a column's cells: bool, int, float or str; None where there are none.

    Missing cells do not count.
    """
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return None
    if kinds <= {int, float}:
        return float if float in kinds else int
    return kinds.pop() if len(kinds) == 1 else str


def read_cell(text: str, kind: type | None) -> Cell:
    """A cell that a person wrote; nothing at all is a missing value.

    Without a kind it is a number where it can be one.

    Raises:
        StudyError: it is not of that kind.
    """
    words = text.strip()
    if not words:
        return None
    if kind is str:
        return text
    if kind is None:
        return _read_as(words, _fitting([words]))
    found = _read_as(words, kind)
    if found is None:
        raise StudyError(f"The cell is {words[:40]!r}; give {_NAMES[kind]}, or nothing.")
    return found


def with_cell(table: Table, column: str, row: int, text: str) -> Table:
    """A table with one cell written anew, in the kind of its column.

    Raises:
        StudyError: no such cell, or a text of another kind.
    """
    values = table.get(column)
    if values is None or not 0 <= row < len(values):
        raise StudyError(f"There is no cell {column[:40]!r} in row {row + 1}; reload the table.")
    changed = [*values]
    changed[row] = read_cell(text, column_kind(values))
    return {**table, column: changed}


def read_input(study: Study[Any, Any], name: str, path: Path) -> Input:
    """An input from a file: pairs in any form that can be imported, a table as CSV.

    Raises:
        StudyError: the study has no such input, the file cannot be read, or its columns differ.
        DataError: the file holds no preference pairs.
    """
    if name not in study.inputs:
        known = ", ".join(study.inputs) or "none"
        raise StudyError(f"{study.slug} has no input {name!r}; it has {known}.")
    own = study.inputs[name]
    if isinstance(own, PreferenceSet):
        from workbench.data.formats import read_pairs

        return read_pairs(path)
    try:
        return table_from_csv(path.read_bytes(), own, str(path))
    except OSError as error:
        raise StudyError(f"{path} cannot be read ({error.strerror}).") from error


def table_from_csv(content: bytes, own: Table, name: str) -> Table:
    """A table from a CSV file that has the columns of another, each cell in its column's kind.

    A column that is empty there takes numbers where all its cells are some.

    Raises:
        StudyError: it is no CSV file, its columns differ, or a cell is of another kind; names
            the file, the row and the column.
    """
    import pandas as pd

    try:
        frame = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    except ValueError as error:
        raise StudyError(f"{name} cannot be read as a table ({error}); give a CSV file.") from error
    if list(frame.columns) != list(own):
        raise StudyError(
            f"{name} has the columns {', '.join(map(str, frame.columns))}; give "
            f"{', '.join(own)}, in this order."
        )
    return {column: _read_column(name, column, list(frame[column]), own[column]) for column in own}


def input_bytes(value: Input) -> bytes:
    """An input as JSON text, from which `input_from` makes an equal one."""
    if isinstance(value, PreferenceSet):
        pairs = [pair.to_json() for pair in value]
        return encode({"name": value.name, "pairs": pairs}).tree
    return encode({"table": dict(value)}).tree


def input_from(content: bytes) -> Input:
    """The input that `input_bytes` wrote.

    Raises:
        StudyError: it is damaged.
    """
    held = decode(Encoded(content, encode(None).arrays), "workbench")
    try:
        if "table" in held:
            return {str(name): list(values) for name, values in held["table"].items()}
        return PreferenceSet(held["name"], [build_pair(pair) for pair in held["pairs"]])
    except (KeyError, TypeError, AttributeError, DataError) as error:
        raise StudyError(f"This is no input of a study ({error!r}).") from error


def _read_as(words: str, kind: type) -> Cell:
    if kind in (int, float):
        return _number(words, kind)
    return _SWITCH.get(words.casefold()) if kind is bool else words


def _number(words: str, kind: type) -> Cell:
    try:
        found: int | float = kind(words)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _fitting(texts: Sequence[str]) -> type:
    """The narrowest kind that all texts can be read in; empty ones do not count."""
    words = [text.strip() for text in texts if text.strip()]
    kinds = (
        kind for kind in (int, float) if all(_number(each, kind) is not None for each in words)
    )
    return next(kinds, str) if words else str


def _read_column(file: str, name: str, texts: Sequence[str], own: Sequence[Cell]) -> list[Cell]:
    kind, found = column_kind(own) or _fitting(texts), list[Cell]()
    for row, text in enumerate(texts, start=1):
        try:
            found.append(read_cell(text, kind))
        except StudyError as error:
            raise StudyError(f"{file}, row {row}, column {name!r}: {error}") from error
    return found

"""How values become CSV cells and come back exactly.

A cell is text and nothing else, so three reversible codes lie on top of each other:

- a text is written as it is, a conversation as a JSON list; a text that would itself be read as
  something else is written as a JSON string;
- a value is written as JSON, a string bare unless it would be read as something else;
- a cell that a spreadsheet would run as a formula gets a leading apostrophe.
"""

import json
import re
from collections.abc import Mapping, Sequence

from workbench.data.pairs import Json

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NEUTRALISED = re.compile(r"'+[=+\-@\t\r]")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def neutralise(cell: str) -> str:
    """Put an apostrophe before a cell that begins like a formula; a plain number is none."""
    return f"'{cell}" if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell) else cell


def restore(cell: str) -> str:
    """Undo `neutralise`."""
    return cell[1:] if _NEUTRALISED.match(cell) else cell


def encode_text(text: Json) -> str:
    """A string or a list of messages as a cell."""
    if not isinstance(text, str):
        return json.dumps(text, ensure_ascii=False)
    return text if decode_text(text) == text else json.dumps(text, ensure_ascii=False)


def decode_text(cell: str) -> Json:
    """Read back `encode_text`; what is neither a conversation nor quoted by us is plain text."""
    if cell.startswith("["):
        value = _parse(cell)
        return value if _is_conversation(value) else cell
    if cell.startswith('"') and cell.endswith('"'):
        value = _parse(cell)
        if isinstance(value, str) and decode_text(value) != value:
            return value
    return cell


def encode_value(value: Json) -> str:
    """Any JSON value as a cell that is not empty; an empty cell means that there is no value."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    plain = decode_value(value) == value and value != ""
    return value if plain else json.dumps(value, ensure_ascii=False)


def decode_value(cell: str) -> Json:
    """Read back `encode_value`.

    Numbers are read only in the spelling that they would be written in, so that `1.10` or `007`
    in someone's own column stays what it is.
    """
    if cell in ("true", "false", "null") or cell[:1] in '[{"':
        value = _parse(cell)
        if not isinstance(value, str):
            return value
        return value if decode_value(value) != value or value == "" else cell
    if _NUMBER.fullmatch(cell):
        number = decode_number(cell)
        return number if json.dumps(number) == cell else cell
    return cell


def decode_number(cell: str) -> float | int | str:
    """A number in any usual spelling; anything else stays text, for the check of the field."""
    text = cell.strip()
    if "_" in text:  # Python would read 1_000 as a thousand; nobody writes data so.
        return cell
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return cell


_BROKEN = "broken JSON"


def _parse(cell: str) -> Json:
    try:
        value: Json = json.loads(cell, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return _BROKEN
    return value


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


def _is_conversation(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) > 0
        and all(isinstance(part, Mapping) and "role" in part for part in value)
    )

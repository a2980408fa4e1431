"""Columns of numbers as one binary blob, the form in which a live figure takes its data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

_ALIGNMENT = 8


@dataclass(frozen=True)
class Packed:
    """Packed columns.

    Attributes:
        columns: For each column its `dtype`, its byte `offset` and its `length` in numbers.
        buffer: All columns, each aligned to 8 bytes.
    """

    columns: dict[str, dict[str, Any]]
    buffer: bytes


def pack_columns(columns: Mapping[str, Any]) -> Packed:
    """Pack columns of numbers for `LiveFigure.update`.

    Args:
        columns: Name to a one-dimensional array. float32 and int32 are kept; other floats become
            float32 (what a screen can show), other integers and booleans int32.

    Raises:
        ValueError: A column is not one-dimensional or holds no numbers.
    """
    described: dict[str, dict[str, Any]] = {}
    parts: list[bytes] = []
    offset = 0
    for name, values in columns.items():
        array = _wire_array(name, np.asarray(values))
        raw = array.tobytes()
        described[name] = {"dtype": array.dtype.name, "offset": offset, "length": len(array)}
        parts.append(raw + b"\0" * (-len(raw) % _ALIGNMENT))
        offset += len(parts[-1])
    return Packed(described, b"".join(parts))


def _wire_array(name: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.ndim != 1:
        raise ValueError(f"column {name!r} has shape {array.shape}: give a one-dimensional array")
    if array.dtype.kind == "f":
        return array.astype("<f4", copy=False)
    if array.dtype.kind in "iub":
        return array.astype("<i4", copy=False)
    raise ValueError(f"column {name!r} has type {array.dtype}: give numbers (codes for groups)")

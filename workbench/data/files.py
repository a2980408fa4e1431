"""Files into rows and rows into files: JSON lines, JSON, CSV and Parquet.

A row is a mapping from column to value. Everything that is wrong with a row becomes a
`RowProblem`, so that an import can keep the others; what is wrong with the whole file is raised.
"""

import csv
import datetime as dt
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.data import cells
from workbench.data.pairs import EVIDENCE_FIELDS, Json, shorten
from workbench.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
MAX_FILE_BYTES = 1 << 30
TEXT_COLUMNS = ("prompt", "chosen", "rejected", "completion")
PROMPT_LENGTH = "workbench.prompt_length"
"""Column of our implicit-prompt exports: characters or messages of the prompt, to split exactly."""

_NUMBER_COLUMNS = (*EVIDENCE_FIELDS, "score", PROMPT_LENGTH)
_JSON_FIELD = {b"workbench": b"json"}


@dataclass(frozen=True)
class RowProblem:
    """What is wrong in one place of a file.

    Attributes:
        file: The file's name.
        row: The line (JSON lines, CSV; counted from 1) or the record (JSON, Parquet, from 1);
            None for the whole file.
        column: The column, or None.
        found: What stands there, shortened.
        expected: What should stand there.
    """

    file: str
    row: int | None
    column: str | None
    found: str
    expected: str

    def __str__(self) -> str:
        place = self.file + (f", row {self.row}" if self.row is not None else "")
        column = f", column {shorten(self.column)}" if self.column is not None else ""
        return f"{place}{column}: found {self.found}; expected {self.expected}."


class RowError(DataError):
    """Data that cannot be read, with its place; `problem` has the parts of the message."""

    def __init__(self, problem: RowProblem) -> None:
        super().__init__(str(problem))
        self.problem = problem
        self.file, self.row, self.column = problem.file, problem.row, problem.column
        self.found, self.expected = problem.found, problem.expected


@dataclass(frozen=True)
class Row:
    """One record and its number."""

    number: int
    values: Mapping[str, Any]


def read_file(path: Path) -> Iterator[Row | RowProblem]:
    """The rows of a file, by its suffix.

    Raises:
        RowError: the file as a whole cannot be read: missing, too large, of another kind.
    """
    suffix = _suffix(path)
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise _whole(
                path, f"{size / 2**20:,.0f} MiB", f"at most {MAX_FILE_BYTES >> 20:,} MiB; split it"
            )
        if suffix == ".parquet":
            yield from _read_parquet(path)
            return
        data = path.read_bytes()
    except OSError as error:
        raise _whole(
            path, error.strerror or "an unreadable file", "a file that can be read"
        ) from error
    yield from {".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv}[suffix](path, data)


def check_place(path: Path) -> None:
    """Refuse a place that `write_file` could not write to, before long work is done for it.

    Raises:
        DataError: an unknown suffix, no such folder, or one that cannot be written.
    """
    _suffix(path)
    folder = path.parent
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; create it, or choose another place.")
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise DataError(f"{path} cannot be written; choose another place.")


def write_file(path: Path, rows: Sequence[Mapping[str, Json]]) -> None:
    """Write rows by the file's suffix; the file appears whole or not at all.

    Raises:
        DataError: an unknown suffix, or a place that cannot be written.
    """
    encode = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}[_suffix(path)]
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(encode(rows))
        os.replace(partial, path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror}); free space, or choose another place."
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def to_table(rows: Sequence[Mapping[str, Json]]) -> "pa.Table":
    """Rows as an Arrow table.

    A column of one simple type keeps it, conversations become lists of structs; a column of
    several types, or with explicit nulls, holds JSON and says so in its field's metadata.
    """
    import pyarrow as pa

    names = dict.fromkeys(name for row in rows for name in row)
    fields, arrays = [], []
    for name in names:
        array = _column([row.get(name, _NONE) for row in rows])
        as_json = array is None
        if array is None:
            texts = [json.dumps(row[name]) if name in row else None for row in rows]
            array = pa.array(texts, pa.string())
        fields.append(pa.field(name, array.type, metadata=_JSON_FIELD if as_json else None))
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def table_rows(table: "pa.Table") -> Iterator[Row]:
    """Read back `to_table`; any other table too. Missing values are left out of the rows."""
    coded = [field.name for field in table.schema if field.metadata == _JSON_FIELD]
    number = 0
    for batch in table.to_batches(max_chunksize=10_000):
        for record in batch.to_pylist():
            number += 1
            values = {name: _plain(v) for name, v in record.items() if v is not None}
            for name in coded:
                if name in values:
                    values[name] = json.loads(values[name])
            yield Row(number, values)


@dataclass(frozen=True)
class _Repeated:
    """Stands for a JSON object with a repeated key."""

    key: str


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise _whole(path, f"the suffix {shorten(suffix)}", f"one of {', '.join(SUFFIXES)}")
    return suffix


def _whole(path: Path, found: str, expected: str) -> RowError:
    return RowError(RowProblem(path.name, None, None, found, expected))


def _read_jsonl(path: Path, data: bytes) -> Iterator[Row | RowProblem]:
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _json_line(path, number, line)


def _json_line(path: Path, number: int, line: bytes) -> Row | RowProblem:
    try:
        value = _parse_json(line.decode())
    except UnicodeDecodeError as error:
        return RowProblem(path.name, number, None, _bad_byte(error), "UTF-8 text")
    except (ValueError, RecursionError) as error:
        found = f"{_json_fault(error)} in {shorten(line.decode())}"
        return RowProblem(path.name, number, None, found, "one whole JSON object on the line")
    return _as_row(path, number, value)


def _read_json(path: Path, data: bytes) -> Iterator[Row | RowProblem]:
    try:
        values = _parse_json(data.removeprefix(b"\xef\xbb\xbf").decode())
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RowError(RowProblem(path.name, line, None, _bad_byte(error), "UTF-8 text")) from error
    except (ValueError, RecursionError) as error:
        place = error.lineno if isinstance(error, json.JSONDecodeError) else None
        raise RowError(
            RowProblem(path.name, place, None, _json_fault(error), "a whole JSON array of objects")
        ) from error
    if not isinstance(values, list):
        raise _whole(path, shorten(values), "a JSON array of objects")
    for number, value in enumerate(values, start=1):
        yield _as_row(path, number, value)


def _parse_json(text: str) -> Any:  # noqa: ANN401 - any JSON
    return json.loads(text, object_pairs_hook=_object)


def _object(items: list[tuple[str, Any]]) -> Any:  # noqa: ANN401 - any JSON
    """A dict, unless a key is repeated here or further inside."""
    result = dict(items)
    if len(result) < len(items):
        keys = [key for key, _ in items]
        return _Repeated(next(key for key in keys if keys.count(key) > 1))
    return next((bad for value in result.values() if (bad := _repeated(value))), result)


def _repeated(value: object) -> _Repeated | None:
    if isinstance(value, list):
        return next((bad for part in value if (bad := _repeated(part))), None)
    return value if isinstance(value, _Repeated) else None


def _as_row(path: Path, number: int, value: object) -> Row | RowProblem:
    if isinstance(value, _Repeated):
        return RowProblem(path.name, number, value.key, "the key more than once", "each key once")
    if not isinstance(value, dict):
        return RowProblem(path.name, number, None, shorten(value), "a JSON object")
    return Row(number, value)


def _json_fault(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"broken JSON ({error.msg}, character {error.colno})"
    return (
        "JSON nested too deeply" if isinstance(error, RecursionError) else f"broken JSON ({error})"
    )


def _bad_byte(error: UnicodeDecodeError) -> str:
    return f"the byte 0x{error.object[error.start]:02x}, which is not UTF-8"


def _read_csv(path: Path, data: bytes) -> Iterator[Row | RowProblem]:
    # A wrong byte becomes a surrogate, which marks its own row and spares the others.
    text = data.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape")
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header = _csv_header(path, reader)
    ours = header[0] == "pair_id"
    while True:
        number = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield RowProblem(path.name, number, None, f"broken CSV ({error})", "a CSV record")
            continue
        if record:
            yield _csv_row(path, number, header, record, ours=ours)


def _csv_header(path: Path, reader: Iterator[list[str]]) -> list[str]:
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise _whole(path, f"broken CSV ({error})", "a first line with column names") from error
    if not header:
        raise _whole(path, "no columns", "a first line with column names")
    header = [cells.restore(name) for name in header] if header[0] == "pair_id" else header
    for place, name in enumerate(header):
        if problem := _not_utf8(name):
            raise RowError(RowProblem(path.name, 1, f"number {place + 1}", problem, "UTF-8 text"))
        if name in header[:place]:
            raise RowError(
                RowProblem(path.name, 1, name, "the column more than once", "each column once")
            )
    return header


def _csv_row(
    path: Path, number: int, header: list[str], record: list[str], *, ours: bool
) -> Row | RowProblem:
    if len(record) != len(header):
        return RowProblem(
            path.name, number, None, f"{len(record)} cells", f"{len(header)}, as in the first line"
        )
    values: dict[str, Json] = {}
    for name, cell in zip(header, record, strict=True):
        if problem := _not_utf8(cell):
            return RowProblem(path.name, number, name, problem, "UTF-8 text")
        cell = cells.restore(cell) if ours else cell
        if name in TEXT_COLUMNS:
            values[name] = cells.decode_text(cell)
        elif name == "pair_id":
            values[name] = cell
        elif cell:
            is_number = name in _NUMBER_COLUMNS
            values[name] = cells.decode_number(cell) if is_number else cells.decode_value(cell)
    return Row(number, values)


def _not_utf8(cell: str) -> str | None:
    try:
        cell.encode()
    except UnicodeEncodeError as error:
        return f"the byte 0x{ord(cell[error.start]) & 0xFF:02x}, which is not UTF-8"
    return None


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        _check_unpacked(path, file.metadata)
        # Whole, and by one thread: the size is limited and the order must hold.
        table = file.read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise _whole(path, shorten(str(error).splitlines()[0], 200), "a Parquet file") from error
    repeated = [name for name in table.column_names if table.column_names.count(name) > 1]
    if repeated:
        raise RowError(
            RowProblem(
                path.name, None, repeated[0], "the column more than once", "each column once"
            )
        )
    yield from table_rows(table)


def _check_unpacked(path: Path, metadata: "pq.FileMetaData") -> None:
    """Refuse a small file that would not be small in memory."""
    size = sum(metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups))
    if size > MAX_FILE_BYTES:
        limit = f"at most {MAX_FILE_BYTES >> 20:,} MiB; split it"
        raise _whole(path, f"{size / 2**20:,.0f} MiB when unpacked", limit)


def _plain(value: Any) -> Any:  # noqa: ANN401 - what Arrow holds
    """Arrow's Python values as JSON has them; bytes stay, and are refused with their column."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items() if part is not None}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    return float(value) if isinstance(value, Decimal) else value


def _jsonl(rows: Iterable[Mapping[str, Json]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _json(rows: Sequence[Mapping[str, Json]]) -> bytes:
    return (json.dumps(rows, ensure_ascii=False, indent=1) + "\n").encode()


def _csv(rows: Sequence[Mapping[str, Json]]) -> bytes:
    names = list(dict.fromkeys(["pair_id", *(name for row in rows for name in row)]))
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([cells.neutralise(name) for name in names])
    for row in rows:
        writer.writerow([_cell(name, row) for name in names])
    return out.getvalue().encode()


def _cell(name: str, row: Mapping[str, Json]) -> str:
    if name not in row:
        return ""
    value = row[name]
    if name in TEXT_COLUMNS:
        return cells.neutralise(cells.encode_text(value))
    if name == "pair_id":
        return cells.neutralise(str(value))
    return cells.neutralise(cells.encode_value(value))


def _parquet(rows: Sequence[Mapping[str, Json]]) -> bytes:
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(to_table(rows), out, compression="zstd")
    return out.getvalue()


_NONE = object()


def _column(values: Sequence[object]) -> "pa.Array | None":
    """The values (`_NONE` where there is none) as an array of one type; None if that loses."""
    import pyarrow as pa

    present = [value for value in values if value is not _NONE]
    kinds = {type(value) for value in present}
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    types = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind is list and all(map(_is_messages, present)):
        arrow = pa.list_(message)
    elif kind not in types or (kind is int and any(abs(int(v)) >> 63 for v in present)):  # type: ignore[call-overload]
        return None
    else:
        arrow = types[kind]
    return pa.array([None if value is _NONE else value for value in values], arrow)


def _is_messages(value: Any) -> bool:  # noqa: ANN401 - any JSON
    return bool(value) and all(
        isinstance(part, dict)
        and part.keys() == {"role", "content"}
        and all(isinstance(text, str) for text in part.values())
        for part in value
    )

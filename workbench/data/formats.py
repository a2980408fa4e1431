r"""Preference pairs in TRL's forms, in files, rows and `datasets`, both ways.

Forms read, row by row, by their columns and types:

- explicit prompt: `prompt`, `chosen`, `rejected`, as strings or as lists of messages;
- implicit prompt: `chosen` and `rejected`, each with the prompt in front;
- unpaired: `prompt`, `completion`, `label`;
- messages may also be ShareGPT's `{from, value}`, and the prompt `conversations`.

Where an implicit prompt ends: for conversations before the first differing message, and before
an assistant message. For strings after the last `\n\nAssistant:` that both share, else after
their longest common beginning, moved back to the end of a word (the white space goes to the
answers, as in TRL). Our own exports add the column `workbench.prompt_length`, so that their
prompts come back exactly.

Other columns become metadata. `attributes.NAME` and `metadata.NAME` (or JSON objects in
`attributes` and `metadata`) are attributes and metadata. Rows without `pair_id` get one from a
hash of their content.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import ValidationError

from workbench.data.files import (
    PROMPT_LENGTH,
    Row,
    RowError,
    RowProblem,
    read_file,
    table_rows,
    to_table,
    write_file,
)
from workbench.data.pairs import (
    EVIDENCE_FIELDS,
    MAPPING_FIELDS,
    TEXT_FIELDS,
    Json,
    Message,
    PreferencePair,
    PreferenceSet,
    Text,
    first_problem,
    plain,
    shorten,
    text_to_json,
)
from workbench.errors import DataError

if TYPE_CHECKING:
    import datasets

Form = Literal[
    "native",
    "explicit-standard",
    "implicit-standard",
    "explicit-conversational",
    "implicit-conversational",
    "unpaired",
]

ASSISTANT_TURN = "\n\nAssistant:"
MAX_ROWS = 1_000_000

__all__ = [
    "Form",
    "ImportReport",
    "RowError",
    "RowProblem",
    "from_dataset",
    "import_pairs",
    "import_rows",
    "read_pairs",
    "read_rows",
    "to_dataset",
    "to_rows",
    "write_pairs",
]


@dataclass(frozen=True)
class ImportReport:
    """The good rows of a source, and what is wrong with the others."""

    pairs: PreferenceSet
    problems: tuple[RowProblem, ...]


def read_pairs(
    path: str | Path, *, name: str | None = None, attributes: Collection[str] = ()
) -> PreferenceSet:
    """Read a .jsonl, .json, .csv or .parquet file in any form.

    Args:
        path: The file.
        name: What to call the set; the file's name without it.
        attributes: Columns without the prefix `attributes.` that are attributes nevertheless.

    Raises:
        RowError: the first thing wrong, with file, row, column, found and expected.
    """
    return _strict(import_pairs(path, name=name, attributes=attributes))


def import_pairs(
    path: str | Path, *, name: str | None = None, attributes: Collection[str] = ()
) -> ImportReport:
    """Like `read_pairs`, but keep the good rows and report the others.

    Raises:
        RowError: the file as a whole cannot be read.
    """
    path = Path(path)
    return _import(read_file(path), name or path.stem, path.name, attributes)


def read_rows(
    rows: Iterable[Mapping[str, object]],
    *,
    name: str = "rows",
    attributes: Collection[str] = (),
) -> PreferenceSet:
    """Read mappings from column to value; see `read_pairs`."""
    return _strict(import_rows(rows, name=name, attributes=attributes))


def import_rows(
    rows: Iterable[Mapping[str, object]],
    *,
    name: str = "rows",
    attributes: Collection[str] = (),
) -> ImportReport:
    """Like `read_rows`, but keep the good rows and report the others."""
    numbered = (Row(number, values) for number, values in enumerate(rows, start=1))
    return _import(numbered, name, name, attributes)


def from_dataset(
    dataset: "datasets.Dataset", *, name: str = "dataset", attributes: Collection[str] = ()
) -> PreferenceSet:
    """Read a `datasets.Dataset`; see `read_pairs`."""
    table = dataset.with_format("arrow")[:]
    return _strict(_import(table_rows(table), name, name, attributes))


def to_dataset(pairs: PreferenceSet, form: Form = "explicit-standard") -> "datasets.Dataset":
    """The pairs as a `datasets.Dataset` in one of the forms."""
    import datasets

    return datasets.Dataset(to_table(to_rows(pairs, form)))


def write_pairs(pairs: PreferenceSet, path: str | Path, form: Form = "native") -> None:
    """Write a .jsonl, .json, .csv or .parquet file; it appears whole or not at all.

    `native` loses nothing. The standard forms write a conversation as display text and the
    conversational forms a string as one message, so text that has the form already comes back
    exactly. In CSV, cells that a spreadsheet would run are neutralised, and restored by reading.

    Raises:
        DataError: an unknown form or suffix, or a place that cannot be written.
    """
    path = Path(path)
    nested = form == "native" and path.suffix.lower() in (".jsonl", ".json")
    write_file(path, [p.to_json() for p in pairs] if nested else to_rows(pairs, form))


def to_rows(pairs: PreferenceSet, form: Form) -> list[dict[str, Json]]:
    """The pairs as flat rows in one of the forms; unpaired gives two rows a pair.

    Raises:
        DataError: an unknown form.
    """
    if form not in get_args(Form):
        raise DataError(
            f"There is no form {shorten(form)}; choose one of {', '.join(get_args(Form))}."
        )
    if form == "unpaired":
        return [row for pair in pairs for row in _unpaired_rows(pair)]
    return [_paired_row(pair, form) for pair in pairs]


def _paired_row(pair: PreferencePair, form: Form) -> dict[str, Json]:
    row: dict[str, Json] = {"pair_id": pair.pair_id}
    shape = _as_conversation if form.endswith("conversational") else _as_string
    if form == "native":
        row |= {name: text_to_json(getattr(pair, name)) for name in TEXT_FIELDS}
    elif form.startswith("explicit"):
        row |= {name: text_to_json(shape(getattr(pair, name), name)) for name in TEXT_FIELDS}
    else:
        prompt = shape(pair.prompt, "prompt")
        for side in ("chosen", "rejected"):
            # Both are strings or both are tuples of messages, by `shape`.
            row[side] = text_to_json(prompt + shape(getattr(pair, side), side))  # type: ignore[operator]
        row[PROMPT_LENGTH] = len(prompt)
    return row | _evidence(pair) | _extra_columns(pair)


def _unpaired_rows(pair: PreferencePair) -> Iterator[dict[str, Json]]:
    for side, score, label in (
        ("chosen", pair.chosen_score, True),
        ("rejected", pair.rejected_score, False),
    ):
        row: dict[str, Json] = {
            "pair_id": pair.pair_id,
            "prompt": text_to_json(pair.prompt),
            "completion": text_to_json(getattr(pair, side)),
            "label": label,
        }
        if score is not None:
            row["score"] = score
        evidence = {k: v for k, v in _evidence(pair).items() if not k.endswith("_score")}
        yield row | evidence | _extra_columns(pair)


def _evidence(pair: PreferencePair) -> dict[str, Json]:
    values = {name: getattr(pair, name) for name in EVIDENCE_FIELDS}
    return {name: value for name, value in values.items() if value is not None}


def _extra_columns(pair: PreferencePair) -> dict[str, Json]:
    columns: dict[str, Json] = {f"attributes.{k}": v for k, v in pair.attributes.items()}
    for key, value in pair.metadata.items():
        columns[key if _may_stand_bare(key) else f"metadata.{key}"] = value
    return columns


def _may_stand_bare(key: str) -> bool:
    return bool(key) and key not in _KNOWN and not key.startswith(_PREFIXES) and key.isprintable()


_UNPAIRED_COLUMNS = ("prompt", "completion", "label", "score")
_KNOWN = frozenset(
    (
        "pair_id",
        "conversations",
        PROMPT_LENGTH,
        *_UNPAIRED_COLUMNS,
        *TEXT_FIELDS,
        *EVIDENCE_FIELDS,
        *MAPPING_FIELDS,
    )
)
_PREFIXES = ("attributes.", "metadata.", "=", "+", "-", "@", "'")


def _as_string(text: Text, _: str) -> Text:
    return plain(text)


def _as_conversation(text: Text, name: str) -> Text:
    if not isinstance(text, str):
        return text
    return (Message(role="user" if name == "prompt" else "assistant", content=text),)


class _Fault(Exception):
    """Raised within one row; becomes a RowProblem with the row's place."""

    def __init__(self, column: str | None, found: str, expected: str) -> None:
        super().__init__(column, found, expected)
        self.column, self.found, self.expected = column, found, expected


@dataclass
class _Import:
    """The pairs and problems of one source, as they come in."""

    place: str
    attributes: frozenset[str]
    pairs: list[tuple[int, PreferencePair]] = field(default_factory=list)
    problems: list[RowProblem] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    halves: list["_Half"] = field(default_factory=list)

    def take(self, row: Row) -> None:
        values = {str(name): value for name, value in row.values.items()}
        if "completion" in values and "chosen" not in values:
            self.halves.append(_half(row.number, values, self.attributes))
        else:
            self.keep(row.number, _paired_fields(values, self.attributes))

    def keep(self, number: int, fields: dict[str, Any]) -> None:
        pair = _validated(fields, self.ids)
        self.ids.add(pair.pair_id)
        self.pairs.append((number, pair))

    def report(self, number: int | None, fault: _Fault) -> None:
        self.problems.append(
            RowProblem(self.place, number, fault.column, fault.found, fault.expected)
        )

    def pair_halves(self) -> None:
        for group in _grouped(self.halves):
            good = [half for half in group if half.label]
            bad = [half for half in group if not half.label]
            for one, other in zip(good, bad, strict=False):
                number = min(one.number, other.number)
                try:
                    self.keep(number, _joined(one, other))
                except _Fault as fault:
                    self.report(number, fault)
            rest = min(len(good), len(bad))
            for half in good[rest:] + bad[rest:]:
                self.report(half.number, _lonely(half))


def _import(
    rows: Iterable[Row | RowProblem], name: str, place: str, attributes: Collection[str]
) -> ImportReport:
    state = _Import(place, frozenset(attributes))
    for count, row in enumerate(rows, start=1):
        if count > MAX_ROWS:
            state.report(None, _Fault(None, f"more than {MAX_ROWS:,} rows", "fewer; split it"))
            break
        if isinstance(row, RowProblem):
            state.problems.append(row)
            continue
        try:
            state.take(row)
        except _Fault as fault:
            state.report(row.number, fault)
    state.pair_halves()
    if not state.pairs and not state.problems:
        state.report(None, _Fault(None, "no rows", "at least one pair"))
    # By place only: equal places keep their order.
    ordered = [pair for _, pair in sorted(state.pairs, key=lambda found: found[0])]
    problems = tuple(sorted(state.problems, key=lambda problem: problem.row or 0))
    return ImportReport(PreferenceSet(name, ordered), problems)


def _strict(report: ImportReport) -> PreferenceSet:
    if report.problems:
        raise RowError(report.problems[0])
    return report.pairs


def _validated(fields: dict[str, Any], taken: Collection[str]) -> PreferencePair:
    given = fields.get("pair_id")
    if given is None:
        fields["pair_id"] = "new"
    elif type(given) is int:
        fields["pair_id"] = given = str(given)
    if isinstance(given, str) and given in taken:
        raise _Fault("pair_id", f"{shorten(given)} a second time", "an id of its own for each row")
    try:
        pair = PreferencePair.model_validate(fields)
    except ValidationError as error:
        problem = first_problem(error)
        raise _Fault(problem.field, problem.found, problem.expected) from error
    return pair if given is not None else pair.with_fields(pair_id=_content_id(pair, taken))


def _content_id(pair: PreferencePair, taken: Collection[str]) -> str:
    stem = "p" + hashlib.blake2b(pair.digest, digest_size=5).hexdigest()
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    return name


def _paired_fields(values: Mapping[str, Any], attributes: Collection[str]) -> dict[str, Any]:
    for side in ("chosen", "rejected"):
        if values.get(side) is None:
            raise _missing(side, values)
    prompt_column = "prompt" if "prompt" in values else "conversations"
    explicit = values.get(prompt_column) is not None
    used = {"chosen", "rejected", prompt_column, *(() if explicit else (PROMPT_LENGTH,))}
    fields = _common_fields(values, attributes, used)
    extra = fields["metadata"]
    chosen, rejected = (_text(values[side], side) for side in ("chosen", "rejected"))
    if explicit:
        prompt = _text(values[prompt_column], prompt_column)
        prompt, chosen, rejected = _explicit(prompt, chosen, rejected, extra)
    else:
        prompt, chosen, rejected = _implicit(chosen, rejected, values.get(PROMPT_LENGTH), extra)
    return fields | {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _missing(column: str, values: Mapping[str, Any]) -> _Fault:
    if column in values:
        return _Fault(column, "nothing", "a string or a list of messages")
    columns = ", ".join(shorten(name, 40) for name in list(values)[:12]) or "none"
    expected = "prompt, chosen, rejected; or chosen, rejected; or prompt, completion, label"
    return _Fault(column, f"no such column (there are: {columns})", expected)


def _common_fields(
    values: Mapping[str, Any], attributes: Collection[str], used: Collection[str]
) -> dict[str, Any]:
    """Id, evidence and mappings of a row; columns with no other meaning become metadata."""
    known: dict[str, Any] = {"attributes": {}, "metadata": {}}
    for name, value in values.items():
        prefix, _, key = name.partition(".")
        if name in used:
            continue
        if name == "pair_id" or name in EVIDENCE_FIELDS:
            known[name] = _whole_votes(name, value)
        elif name in MAPPING_FIELDS and (value is None or isinstance(value, Mapping)):
            for inner, part in (value or {}).items():
                _put(known[name], str(inner), part, name)
        elif prefix in MAPPING_FIELDS and name != prefix:
            _put(known[prefix], key, value, name)
        else:
            _put(known["attributes" if name in attributes else "metadata"], name, value, name)
    return known


def _put(mapping: dict[str, Any], key: str, value: object, column: str) -> None:
    if key in mapping:
        raise _Fault(column, f"{shorten(key)}, which another column gives too", "one of them only")
    mapping[key] = value


def _whole_votes(name: str, value: object) -> object:
    """Votes that a table with gaps holds as 3.0 are 3."""
    whole = name.startswith("votes_") and isinstance(value, float) and value.is_integer()
    return int(value) if whole else value  # type: ignore[call-overload]


def _text(value: object, column: str) -> Text:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list | tuple) or not value:
        raise _Fault(column, shorten(value), "a string or a list of messages")
    return tuple(_message(part, f"{column}.{place}") for place, part in enumerate(value))


_SHAREGPT = {"human": "user", "gpt": "assistant", "observation": "tool", "system": "system"}


def _message(value: object, column: str) -> Message:
    if isinstance(value, Message):
        return value
    if isinstance(value, Mapping):
        parts = {key: part for key, part in value.items() if part is not None}
        if parts.keys() == {"from", "value"}:
            role = _SHAREGPT.get(parts["from"], parts["from"])
            parts = {"role": role, "content": parts["value"]}
        try:
            return Message.model_validate(parts)
        except ValidationError as error:
            problem = first_problem(error)
            raise _Fault(
                f"{column}.{problem.field}",
                problem.found,
                "a message {role: system|user|assistant|tool, content: string} and nothing else",
            ) from error
    raise _Fault(column, shorten(value), "a message {role, content}")


def _explicit(
    prompt: Text, chosen: Text, rejected: Text, extra: dict[str, Any]
) -> tuple[Text, Text, Text]:
    """Answers that repeat their prompt, as many sets have them, lose it; the prompt is theirs."""
    if isinstance(chosen, str) or isinstance(rejected, str) or chosen[0].role == "assistant":
        return prompt, chosen, rejected
    shared, chosen, rejected = _implicit(chosen, rejected, None, extra)
    if prompt not in (shared, plain(shared), _last(shared)):
        extra["prompt"] = text_to_json(prompt)
    return shared, chosen, rejected


def _last(text: Text) -> str:
    return text if isinstance(text, str) else text[-1].content


def _implicit(
    chosen: Text, rejected: Text, length: object, extra: dict[str, Any]
) -> tuple[Text, Text, Text]:
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise _Fault("rejected", shorten(text_to_json(rejected)), "the same form as chosen")
    end = _prompt_end(chosen, rejected)
    if length is not None:
        if type(length) is int and _splits(chosen, rejected, length):
            end = length
        else:
            extra[PROMPT_LENGTH] = length
    return chosen[:end], chosen[end:], rejected[end:]


def _splits(chosen: Text, rejected: Text, length: int) -> bool:
    possible = 0 <= length <= min(len(chosen), len(rejected))
    return possible and chosen[:length] == rejected[:length]


def _prompt_end(chosen: Text, rejected: Text) -> int:
    if isinstance(chosen, str) and isinstance(rejected, str):
        return _prompt_end_of_strings(chosen, rejected)
    end = _common(chosen, rejected)
    while end and not (_assistant_at(chosen, end) and _assistant_at(rejected, end)):
        end -= 1
    if not end:
        raise _Fault(
            "chosen", shorten(text_to_json(chosen)), "messages that both answers begin with"
        )
    return end


def _assistant_at(text: Text, place: int) -> bool:
    return place < len(text) and not isinstance(text, str) and text[place].role == "assistant"


def _common(one: Sequence[object], other: Sequence[object]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


def _prompt_end_of_strings(chosen: str, rejected: str) -> int:
    end = _common(chosen, rejected)
    turn = chosen.rfind(ASSISTANT_TURN, 0, end)
    if turn >= 0:
        return turn + len(ASSISTANT_TURN)
    inside = any(text[end : end + 1].strip() for text in (chosen, rejected))
    while inside and end and not chosen[end - 1].isspace():
        end -= 1
    return len(chosen[:end].rstrip(" \t")) if inside else end


@dataclass(frozen=True)
class _Half:
    """One row of the unpaired form: everything but the other answer."""

    number: int
    prompt: Text
    completion: Text
    label: bool
    score: object
    fields: dict[str, Any]


def _half(number: int, values: Mapping[str, Any], attributes: Collection[str]) -> _Half:
    for column in ("prompt", "completion", "label"):
        if values.get(column) is None:
            raise _missing(column, values)
    fields = _common_fields(values, attributes, _UNPAIRED_COLUMNS)
    return _Half(
        number,
        _text(values["prompt"], "prompt"),
        _text(values["completion"], "completion"),
        _label(values["label"]),
        values.get("score"),
        fields,
    )


def _label(value: object) -> bool:
    spelled = {"true": True, "false": False, "1": True, "0": False}
    label = spelled.get(str(value).lower())
    if label is None:
        raise _Fault("label", shorten(value), "true or false")
    return label


def _grouped(halves: Iterable[_Half]) -> Iterable[list[_Half]]:
    """Halves that belong together: by their pair_id, else by their prompt."""
    groups: dict[object, list[_Half]] = {}
    for half in halves:
        pair_id = half.fields.get("pair_id")
        key = ("prompt", half.prompt) if pair_id is None else ("id", str(pair_id), half.prompt)
        groups.setdefault(key, []).append(half)
    return groups.values()


def _joined(good: _Half, bad: _Half) -> dict[str, Any]:
    fields = {**bad.fields, **good.fields}
    for name in MAPPING_FIELDS:
        fields[name] = {**bad.fields[name], **good.fields[name]}
    for key, value in bad.fields["metadata"].items():
        if fields["metadata"][key] != value:
            fields["metadata"][f"rejected.{key}"] = value
    scores = {"chosen_score": good.score, "rejected_score": bad.score}
    texts = {"prompt": good.prompt, "chosen": good.completion, "rejected": bad.completion}
    return fields | texts | {name: score for name, score in scores.items() if score is not None}


def _lonely(half: _Half) -> _Fault:
    other = "false" if half.label else "true"
    return _Fault(
        "label",
        f"an answer labelled {str(half.label).lower()} without its counterpart",
        f"an answer labelled {other} to the same prompt",
    )

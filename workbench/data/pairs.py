"""Preference pairs and ordered, immutable sets of them.

Texts are plain strings or chat messages. NUL and every other valid character are kept as they
are; unpaired surrogates are refused, because no file or page could carry them.
"""

import hashlib
import json
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from workbench.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    from pydantic_core import ErrorDetails

Role = Literal["system", "user", "assistant", "tool"]
Side = Literal["chosen", "rejected"]
AttributeKind = Literal["binary", "categorical", "continuous"]
Json = JsonValue

MAX_TEXT_CHARS = 4_000_000
CONTINUOUS_ABOVE = 10
"""A numeric attribute with more distinct values than this is continuous."""


def _check_unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError(
            "surrogate",
            "text without unpaired surrogates (one stands at character {place})",
            {"place": error.start},
        ) from error
    return text


_Str = Annotated[StrictStr, AfterValidator(_check_unicode)]
_LongStr = Annotated[_Str, Field(max_length=MAX_TEXT_CHARS)]


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    content: _LongStr


Text = str | tuple[Message, ...]
AttributeValue = bool | int | float | str | None


_FiniteFloat = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Count = Annotated[int, Field(strict=True, ge=0)]
_TextField = _LongStr | Annotated[tuple[Message, ...], Field(min_length=1)]
_AttributeField = StrictBool | StrictInt | _FiniteFloat | _Str | None


def plain(text: Text) -> str:
    """Display text: a string as it is, one message's content, or a `role: content` transcript."""
    if isinstance(text, str):
        return text
    if len(text) == 1:
        return text[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in text)


def text_to_json(text: Text) -> Json:
    """A string, or a list of `{"role", "content"}` objects."""
    if isinstance(text, str):
        return text
    return [{"role": message.role, "content": message.content} for message in text]


class PreferencePair(BaseModel):
    """Two answers to one prompt, and the evidence that the first is preferred.

    Attributes:
        pair_id: Stable name of the pair within its set; edits refer to it, never to a row.
        prompt: What was asked; a conversation ends with a user or tool message.
        chosen: The preferred answer; a conversation begins and ends with the assistant.
        rejected: The other answer, likewise.
        alpha: Share of raters who prefer `chosen`, in [0, 1].
        votes_chosen: Number of raters who prefer `chosen`; `votes_rejected` likewise.
        chosen_score: Quality of `chosen` on the source's own scale; `rejected_score` likewise.
        strength: How strongly `chosen` is preferred, signed, on the source's own scale.
        attributes: Protected attributes and groups; None is a missing value.
        metadata: Everything else, as JSON.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pair_id: Annotated[_Str, Field(min_length=1, max_length=500)]
    prompt: _TextField
    chosen: _TextField
    rejected: _TextField
    alpha: Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)] | None = None
    votes_chosen: _Count | None = None
    votes_rejected: _Count | None = None
    chosen_score: _FiniteFloat | None = None
    rejected_score: _FiniteFloat | None = None
    strength: _FiniteFloat | None = None
    attributes: Mapping[_Str, _AttributeField] = Field(default_factory=dict)
    metadata: Mapping[StrictStr, JsonValue] = Field(default_factory=dict)

    @field_validator("prompt")
    @classmethod
    def _prompt_order(cls, prompt: Text) -> Text:
        if not isinstance(prompt, str):
            _check_order([message.role for message in prompt])
            if prompt[-1].role not in ("user", "tool"):
                raise _order_error("a prompt that ends with a user or tool message", prompt)
        return prompt

    @field_validator("chosen", "rejected")
    @classmethod
    def _answer_order(cls, answer: Text) -> Text:
        if not isinstance(answer, str):
            roles = [message.role for message in answer]
            if roles[0] != "assistant" or roles[-1] != "assistant" or "system" in roles:
                raise _order_error(
                    "an answer that begins and ends with an assistant message, without system",
                    answer,
                )
            _check_order(roles)
        return answer

    @field_validator("metadata")
    @classmethod
    def _metadata_is_json(cls, metadata: Mapping[str, Json]) -> Mapping[str, Json]:
        if metadata:
            try:
                json.dumps(metadata, allow_nan=False, ensure_ascii=False).encode()
            except (ValueError, RecursionError) as error:
                raise PydanticCustomError(
                    "not_json", "JSON with finite numbers, valid Unicode and modest nesting"
                ) from error
        return metadata

    @model_validator(mode="after")
    def _answers_alike(self) -> Self:
        if isinstance(self.chosen, str) != isinstance(self.rejected, str):
            raise PydanticCustomError(
                "mixed_kinds", "both answers as strings, or both as conversations"
            )
        return self

    @property
    def prompt_text(self) -> str:
        """The prompt as display text."""
        return plain(self.prompt)

    @property
    def chosen_text(self) -> str:
        """The chosen answer as display text."""
        return plain(self.chosen)

    @property
    def rejected_text(self) -> str:
        """The rejected answer as display text."""
        return plain(self.rejected)

    @property
    def rater_share(self) -> float | None:
        """Share of raters preferring `chosen`: alpha, else from the votes, else None."""
        if self.alpha is not None:
            return self.alpha
        if self.votes_chosen is None or self.votes_rejected is None:
            return None
        total = self.votes_chosen + self.votes_rejected
        return self.votes_chosen / total if total else None

    def content_key(self, side: Side) -> str:
        """Hash of the prompt and one answer: equal keys score equally."""
        content = [text_to_json(self.prompt), text_to_json(getattr(self, side))]
        return hashlib.blake2b(_canonical(content), digest_size=16).hexdigest()

    @cached_property
    def digest(self) -> bytes:
        """Hash of every field, 16 bytes; the order of mapping keys does not matter."""
        return hashlib.blake2b(_canonical(self.to_json()), digest_size=16).digest()

    def to_json(self) -> dict[str, Json]:
        """The fields as JSON values, without those that are None or empty."""
        record: dict[str, Json] = {"pair_id": self.pair_id}
        for side in ("prompt", "chosen", "rejected"):
            record[side] = text_to_json(getattr(self, side))
        for name in EVIDENCE_FIELDS:
            if (value := getattr(self, name)) is not None:
                record[name] = value
        if self.attributes:
            record["attributes"] = dict(self.attributes)
        if self.metadata:
            record["metadata"] = dict(self.metadata)
        return record

    def with_fields(self, **changes: Any) -> "PreferencePair":  # noqa: ANN401 - validated by the model
        """A validated copy with some fields changed.

        Raises:
            DataError: naming the pair, the field and the value that does not fit.
        """
        fields = {name: getattr(self, name) for name in type(self).model_fields} | changes
        return build_pair(fields)


TEXT_FIELDS = ("prompt", "chosen", "rejected")
EVIDENCE_FIELDS = (
    "alpha",
    "votes_chosen",
    "votes_rejected",
    "chosen_score",
    "rejected_score",
    "strength",
)
SCALAR_FIELDS = (*TEXT_FIELDS, *EVIDENCE_FIELDS)
MAPPING_FIELDS = ("attributes", "metadata")


def build_pair(fields: Mapping[str, object]) -> PreferencePair:
    """Validate a pair.

    Raises:
        DataError: naming the pair, the field, the value found and what was expected.
    """
    try:
        return PreferencePair.model_validate(fields)
    except ValidationError as error:
        problem = first_problem(error)
        raise DataError(
            f"Pair {shorten(fields.get('pair_id'))}: {problem.field} is {problem.found}; "
            f"expected {problem.expected}."
        ) from error


@dataclass(frozen=True)
class FieldProblem:
    """What is wrong with one field: its path, the value found (shortened), what was expected."""

    field: str
    found: str
    expected: str


def first_problem(error: ValidationError) -> FieldProblem:
    """The first field that pydantic refused, in words for a person."""
    details = error.errors(include_url=False)
    if not details[0]["loc"]:
        return FieldProblem("the pair", "a mixture of text and conversation", details[0]["msg"])
    field = str(details[0]["loc"][0])
    # A union reports one line for each of its members: the deepest went furthest.
    same = [detail for detail in details if str(detail["loc"][:1]) == str(details[0]["loc"][:1])]
    worst = max(same, key=lambda detail: (detail["type"] in _DECISIVE, len(detail["loc"])))
    if worst["type"] == "missing" and len(worst["loc"]) == 1:
        return FieldProblem(field, "missing", "a value")
    return FieldProblem(_path(worst["loc"]), shorten(worst["input"]), _expected(field, worst))


def shorten(value: object, limit: int = 80) -> str:
    """A value for a message: its repr (so no control or direction marks), cut to `limit`."""
    if isinstance(value, str | bytes):
        value = value[: limit + 1]
    # reprlib stops early in large and in deeply nested containers, where repr would not end well.
    text = reprlib.repr(value) if isinstance(value, list | tuple | dict) else repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


class PreferenceSet:
    """An ordered, immutable set of pairs with distinct ids.

    Attributes:
        name: What to call the set; no part of its digest.
        pairs: The pairs, in order.
    """

    def __init__(self, name: str, pairs: Iterable[PreferencePair]) -> None:
        self.name = name
        self.pairs = tuple(pairs)
        if len(self._index) < len(self.pairs):
            raise DataError(
                f"Set {shorten(name)}: pair_id {shorten(self._first_repeated())} occurs more than "
                "once; give every pair an id of its own."
            )

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[PreferencePair]:
        return iter(self.pairs)

    def __contains__(self, pair_id: object) -> bool:
        return pair_id in self._index

    def __getitem__(self, pair_id: str) -> PreferencePair:
        return self.pairs[self.index(pair_id)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PreferenceSet) and self.pairs == other.pairs

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"PreferenceSet({self.name!r}, {len(self)} pairs)"

    def index(self, pair_id: str) -> int:
        """Position of a pair.

        Raises:
            DataError: no such pair.
        """
        try:
            return self._index[pair_id]
        except KeyError:
            raise DataError(
                f"Set {shorten(self.name)} has no pair {shorten(pair_id)}; it may have been "
                "deleted. Reload the table."
            ) from None

    def get(self, pair_id: str) -> PreferencePair | None:
        """The pair with this id, or None."""
        place = self._index.get(pair_id)
        return None if place is None else self.pairs[place]

    @classmethod
    def trusted(
        cls, name: str, pairs: Iterable[PreferencePair], ids: Sequence[str] | None = None
    ) -> "PreferenceSet":
        """A set of pairs whose ids are known to be distinct, with these ids where at hand."""
        new = object.__new__(cls)
        new.name, new.pairs = name, tuple(pairs)
        if ids is not None:
            new.__dict__["_index"] = dict(zip(ids, range(len(ids)), strict=True))
        return new

    def replaced(self, *pairs: PreferencePair) -> "PreferenceSet":
        """A set in which these pairs stand in the place of those with the same ids.

        Everything already known that the change does not touch (index, prompt groups, attribute
        columns) is shared, so one edit of 100,000 pairs costs a copied tuple.
        """
        new = list(self.pairs)
        places = [self.index(pair.pair_id) for pair in pairs]
        shared = {"_index", "_prompt_groups", "_attribute_columns"} & self.__dict__.keys()
        for place, pair in zip(places, pairs, strict=True):
            if pair.prompt != new[place].prompt:
                shared.discard("_prompt_groups")
            if pair.attributes != new[place].attributes:
                shared.discard("_attribute_columns")
            new[place] = pair
        changed = PreferenceSet.trusted(self.name, new)
        changed.__dict__.update({key: self.__dict__[key] for key in shared})
        return changed

    def ids(self) -> list[str]:
        """The pair ids, in order."""
        return list(self._index)

    def prompt_groups(self) -> list[int]:
        """Number of each pair's prompt, 0 for the first: pairs with equal prompts share one."""
        return list(self._prompt_groups)

    def attribute_names(self) -> tuple[str, ...]:
        """Names of all attributes, in order of first appearance."""
        return tuple(self._attribute_columns)

    def attribute_column(self, name: str) -> tuple[AttributeValue, ...]:
        """The values of one attribute, one for each pair; None where missing.

        Raises:
            DataError: no pair has such an attribute.
        """
        if name not in self._attribute_columns:
            known = ", ".join(map(shorten, self.attribute_names())) or "none"
            raise DataError(f"No pair has the attribute {shorten(name)}; known are: {known}.")
        return self._attribute_columns[name]

    def attribute_kind(self, name: str) -> AttributeKind:
        """How to treat an attribute.

        Binary: truth values, or exactly two distinct values. Continuous: numbers with more than
        `CONTINUOUS_ABOVE` distinct values. Categorical: strings, mixtures, and numbers with few
        distinct values (grades, years of a short span). Missing values do not count.
        """
        values = [value for value in self.attribute_column(name) if value is not None]
        distinct = {(isinstance(value, bool), value) for value in values}
        if len(distinct) == 2 or (values and all(isinstance(value, bool) for value in values)):
            return "binary"
        numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        return "continuous" if numeric and len(distinct) > CONTINUOUS_ABOVE else "categorical"

    def to_frame(self) -> "pd.DataFrame":
        """A pandas table: one row a pair, texts as display text, mappings spread into columns.

        Columns of mappings are called `attributes.NAME` and `metadata.NAME`.
        """
        import pandas as pd

        columns: dict[str, Sequence[object]] = {"pair_id": [pair.pair_id for pair in self.pairs]}
        for field in TEXT_FIELDS:
            columns[field] = [plain(getattr(pair, field)) for pair in self.pairs]
        for field in EVIDENCE_FIELDS:
            columns[field] = [getattr(pair, field) for pair in self.pairs]
        for name in self.attribute_names():
            columns[f"attributes.{name}"] = self.attribute_column(name)
        for name in dict.fromkeys(key for pair in self.pairs for key in pair.metadata):
            columns[f"metadata.{name}"] = [pair.metadata.get(name) for pair in self.pairs]
        return pd.DataFrame(columns)

    @cached_property
    def digest(self) -> str:
        """Hash of the pairs and their order, 32 hexadecimal digits."""
        joined = b"".join(pair.digest for pair in self.pairs)
        return hashlib.blake2b(joined, digest_size=16).hexdigest()

    @cached_property
    def _index(self) -> dict[str, int]:
        return {pair.pair_id: place for place, pair in enumerate(self.pairs)}

    @cached_property
    def _prompt_groups(self) -> list[int]:
        numbers: dict[Text, int] = {}
        return [numbers.setdefault(pair.prompt, len(numbers)) for pair in self.pairs]

    @cached_property
    def _attribute_columns(self) -> dict[str, tuple[AttributeValue, ...]]:
        names = dict.fromkeys(name for pair in self.pairs for name in pair.attributes)
        return {name: tuple(p.attributes.get(name) for p in self.pairs) for name in names}

    def _first_repeated(self) -> str:
        counts = Counter(pair.pair_id for pair in self.pairs)
        return next(pair_id for pair_id, count in counts.items() if count > 1)


_EXPECTED = {
    "alpha": "a share between 0 and 1, or nothing",
    "votes_chosen": "a whole number of 0 or more, or nothing",
    "votes_rejected": "a whole number of 0 or more, or nothing",
    "chosen_score": "a finite number, or nothing",
    "rejected_score": "a finite number, or nothing",
    "strength": "a finite number, or nothing",
    "attributes": "a truth value, a finite number, a string or nothing",
    "pair_id": "a string of 1 to 500 characters",
}
_TEXT_EXPECTED = (
    "a string, or a list of messages {role: system|user|assistant|tool, content: string}"
)
_DECISIVE = {"surrogate", "too_long"}
_OWN_WORDS = {"surrogate", "role_order", "not_json", "mixed_kinds"}


def _path(location: tuple[int | str, ...]) -> str:
    """`("prompt", "tuple[Message, ...]", 0, "role")` -> `prompt.0.role`."""
    plain_parts = [str(part) for part in location if not _is_union_tag(part)]
    return ".".join(plain_parts)


def _is_union_tag(part: int | str) -> bool:
    return isinstance(part, str) and (part in ("str", "bool", "int", "float") or "[" in part)


def _expected(field: str, detail: "ErrorDetails") -> str:
    if detail["type"] in _OWN_WORDS:
        return detail["msg"]
    if detail["type"] == "extra_forbidden":
        return "no such key"
    if detail["type"] == "too_long" and field != "pair_id":
        return f"at most {MAX_TEXT_CHARS:,} characters"
    return _TEXT_EXPECTED if field in TEXT_FIELDS else _EXPECTED.get(field, detail["msg"])


def _canonical(value: Json) -> bytes:
    return json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode()


def _check_order(roles: Sequence[Role]) -> None:
    for place, role in enumerate(roles):
        before = roles[place - 1] if place else None
        if role == "system" and place:
            raise _order_error("system only as the first message", roles)
        if role == "tool" and before not in ("assistant", "tool"):
            raise _order_error("a tool message only after an assistant or tool message", roles)


def _order_error(expected: str, found: Sequence[Message] | Sequence[Role]) -> PydanticCustomError:
    roles = [part if isinstance(part, str) else part.role for part in found]
    message = "{expected} (the roles are: {roles})"
    return PydanticCustomError(
        "role_order", message, {"expected": expected, "roles": ", ".join(roles[:20])}
    )

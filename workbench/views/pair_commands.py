"""What the pair table's commands and cells mean as edits of a preference set."""

from collections.abc import Sequence
from typing import Any

from workbench.data import edits
from workbench.data.pairs import PreferencePair, PreferenceSet, build_pair
from workbench.errors import DataError


def bulk_edits(
    name: str, pairs: Sequence[PreferencePair], whole: PreferenceSet
) -> list[edits.Edit]:
    """The edits of a command of the table on some pairs.

    Raises:
        DataError: no such command.
    """
    if name == "add":
        return [new_pair(whole, after=pairs[-1].pair_id if pairs else None)]
    if name == "delete":
        return [edits.DeletePair(pair.pair_id) for pair in pairs]
    if name == "duplicate":
        return edits.duplicate(*pairs, taken=whole)
    if name in ("swap", "flip"):
        return (edits.swap if name == "swap" else edits.flip_label)(*pairs)
    raise DataError(f"There is no command {name[:40]!r}.")


def new_pair(pairs: PreferenceSet, after: str | None) -> edits.AddPair:
    """A pair to be written by the user, in the same prompt as the pair it follows."""
    number = len(pairs) + 1
    while f"new-{number}" in pairs:
        number += 1
    prompt = pairs[after].prompt_text if after else "What should I ask?"
    fields = {"pair_id": f"new-{number}", "prompt": prompt, "chosen": "The better answer.",
              "rejected": "The worse answer."}  # fmt: skip
    return edits.AddPair(build_pair(fields), after)


def typed(pairs: PreferenceSet, field: str, value: object) -> Any:  # noqa: ANN401
    """A value as its field wants it: the browser sends text, and empty means not known."""
    if not isinstance(value, str) or field in ("prompt", "chosen", "rejected"):
        return value
    if not value.strip():
        return None
    numeric = field in ("alpha", "chosen_score", "rejected_score", "strength")
    name = field.removeprefix("attributes.")
    if field.startswith("attributes.") and name in pairs.attribute_names():
        kept = [each for each in pairs.attribute_column(name) if each is not None]
        numeric = bool(kept) and all(
            isinstance(v, int | float) and not isinstance(v, bool) for v in kept
        )
        if kept and all(isinstance(each, bool) for each in kept):
            return {"true": True, "false": False}.get(value.casefold(), value)
    if not numeric:
        return value
    try:
        return float(value)
    except ValueError as error:
        raise DataError(f"{field} is {value[:40]!r}; give a number, or nothing.") from error

"""What a study finds: tables of plain columns, and claims with what was measured and expected."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from workbench.study.errors import StudyError

if TYPE_CHECKING:
    import pandas as pd

Cell = bool | int | float | str | None
Table = Mapping[str, list[Cell]]
"""Columns of equal length, by name."""
Kind = Literal["unit", "effect", "report"]
Relation = Literal["<", ">", "=", ""]


@dataclass(frozen=True)
class Claim:
    """One statement of the paper, or about it, put to the test.

    Attributes:
        name: Short name, unique within the study, for example "reaches-target".
        kind: "unit", an exact identity, which must hold for every seed; "effect", a statistic
            whose direction and tolerance were fixed before looking, judged by its mean over the
            seeds; "report", shown and never gated.
        statement: The claim in one sentence.
        measured: What was found.
        relation: "<" or ">" than expected, or "=" within the tolerance; "" where nothing is
            expected, which only a report may say.
        expected: The bound, or the value.
        tolerance: Largest difference that still counts as equal; for "=" alone.
        unit: Unit of measured, expected and tolerance.
        paper: The paper's own number, in words, where it gives one.
    """

    name: str
    kind: Kind
    statement: str
    measured: float
    relation: Relation = ""
    expected: float = math.nan
    tolerance: float = 0.0
    unit: str = ""
    paper: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind) or self.relation not in get_args(Relation):
            raise StudyError(f"The claim {self.name!r} is {self.kind!r} with {self.relation!r}.")
        if self.gated and (not self.relation or not math.isfinite(self.expected)):
            raise StudyError(f"The claim {self.name!r} is gated; say what is expected of it.")
        if (self.tolerance > 0) != (self.relation == "="):
            raise StudyError(f"The claim {self.name!r} needs a tolerance exactly where it says =.")

    @property
    def gated(self) -> bool:
        """Whether the claim must hold for a check to pass."""
        return self.kind != "report"

    @property
    def holds(self) -> bool:
        """Whether what was measured is as expected; a missing value never is."""
        if self.relation == "<":
            return self.measured < self.expected
        if self.relation == ">":
            return self.measured > self.expected
        return self.relation == "" or abs(self.measured - self.expected) <= self.tolerance

    @property
    def expectation(self) -> str:
        """What is expected, in words."""
        if not self.relation:
            return ""
        spread = f" ± {self.tolerance:g}" if self.relation == "=" else ""
        return f"{self.relation} {self.expected:.6g}{spread} {self.unit}".rstrip()


@dataclass(frozen=True, init=False)
class StudyResult:
    """Tables and claims of one seed.

    Args:
        tables: By name a pandas DataFrame, or columns that are lists, tensors or arrays.
        claims: Every claim, gated or not.

    Attributes:
        tables: The same as plain columns.
        claims: The claims, in order.

    Raises:
        StudyError: columns of different lengths, a cell that is no plain value, or two claims
            of one name.
    """

    tables: Mapping[str, Table]
    claims: tuple[Claim, ...]

    def __init__(self, tables: Mapping[str, Any], claims: Iterable[Claim] = ()) -> None:
        plain = {name: _plain_table(name, table) for name, table in tables.items()}
        object.__setattr__(self, "tables", plain)
        object.__setattr__(self, "claims", tuple(claims))
        names = [claim.name for claim in self.claims]
        if len(set(names)) < len(names):
            raise StudyError(f"Two claims have one name among {', '.join(sorted(names))}.")

    def claim(self, name: str) -> Claim:
        """The claim of that name.

        Raises:
            StudyError: there is none.
        """
        for claim in self.claims:
            if claim.name == name:
                return claim
        known = ", ".join(claim.name for claim in self.claims)
        raise StudyError(f"There is no claim {name!r}; the claims are {known}.")

    def frame(self, name: str) -> "pd.DataFrame":
        """A table as a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame(dict(self.tables[name]))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; what is not finite is null."""
        return {
            "tables": {
                name: {column: [finite(v) for v in values] for column, values in table.items()}
                for name, table in self.tables.items()
            },
            "claims": [claim_json(claim) for claim in self.claims],
        }


def rows_where(table: Table, equal: Mapping[str, Cell]) -> dict[str, list[Cell]]:
    """The rows of a table in which the named columns have these values, in their order."""
    n = len(next(iter(table.values())))
    kept = [row for row in range(n) if all(table[name][row] == v for name, v in equal.items())]
    return {name: [values[row] for row in kept] for name, values in table.items()}


def claim_json(claim: Claim) -> dict[str, Cell]:
    """A claim as plain JSON, with its verdict."""
    values: dict[str, Cell] = {name: finite(value) for name, value in vars(claim).items()}
    return values | {"holds": claim.holds, "gated": claim.gated}


def finite(value: Cell) -> Cell:
    """The value, or None for a number that JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain_table(name: str, table: Any) -> Table:  # noqa: ANN401 - columns or a DataFrame
    columns = table.to_dict("list") if hasattr(table, "to_dict") else dict(table)
    plain = {str(column): _plain_column(name, column, columns[column]) for column in columns}
    lengths = {column: len(values) for column, values in plain.items()}
    if len(set(lengths.values())) > 1:
        raise StudyError(f"The columns of table {name!r} differ in length: {lengths}.")
    return plain


def _plain_column(table: str, column: object, values: Any) -> list[Cell]:  # noqa: ANN401
    listed: Sequence[Any] = values.tolist() if hasattr(values, "tolist") else list(values)
    cells = [value.item() if hasattr(value, "item") else value for value in listed]
    for cell in cells:
        if not isinstance(cell, bool | int | float | str | None):
            raise StudyError(
                f"Column {column!r} of table {table!r} holds a {type(cell).__name__}; a cell is a "
                "number, a text, true, false or None."
            )
    return cells

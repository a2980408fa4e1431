"""How the outcome of a preference depends on protected attributes (core 3).

Everything is computed for the outcome at beta = 1 and scaled by beta afterwards, which is exact:
distance covariance is linear in the scale of one argument, joint distance covariance affine
(only the terms that contain the outcome scale), and correlations do not change at all.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from workbench.data.pairs import AttributeKind, AttributeValue, PreferenceSet
from workbench.engine.settings import Settings
from workbench.engine.threads import one_thread
from workbench.engine.values import PairScores
from workbench.metrics import dependence, divergence

SMALL_GROUP = 10
JOINT_MOST = 5_000
"""Pairs that the quadratic joint statistics take; of more, a random sample (about a second)."""
_BANDS = 4
_EXACT = 2.0**53
Statistic = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Grouping:
    """Groups in natural order, and the group of each pair: codes of shape (pairs,), -1 for none."""

    names: tuple[str, ...]
    codes: Tensor

    @classmethod
    def of(cls, labels: Sequence[str | None]) -> "Grouping":
        """Number the labels that occur."""
        names = sorted({label for label in labels if label is not None}, key=_natural)
        code = {name: place for place, name in enumerate(names)}
        codes = [-1 if label is None else code[label] for label in labels]
        return cls(tuple(names), torch.tensor(codes, dtype=torch.long))


@dataclass(frozen=True)
class AttributeColumn:
    """One protected attribute of the pairs at hand; None where it is not known."""

    name: str
    kind: AttributeKind
    values: tuple[AttributeValue, ...]
    _encoded: dict[bool, Tensor] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def taken(self, rows: Sequence[int]) -> "AttributeColumn":
        """Only some of the rows."""
        return AttributeColumn(self.name, self.kind, tuple(self.values[row] for row in rows))

    @cached_property
    def known_rows(self) -> tuple[int, ...]:
        """The rows whose value is known."""
        return tuple(row for row, value in enumerate(self.values) if value is not None)

    @cached_property
    def known(self) -> "AttributeColumn":
        """Without the rows whose value is not known."""
        whole = len(self.known_rows) == len(self.values)
        return self if whole else self.taken(self.known_rows)

    @cached_property
    def numbers(self) -> Tensor:
        """The known values of a continuous attribute, infinite where beyond a float's range."""
        return torch.tensor([_float(value) for value in self.known.values], dtype=torch.float64)

    @cached_property
    def labels(self) -> list[str | None]:
        """A label for every pair: the value, or the quarter it lies in when continuous."""
        if self.kind != "continuous":
            return [None if value is None else label_of(value) for value in self.values]
        labels: list[str | None] = [None] * len(self.values)
        for row, label in zip(self.known_rows, _bands(self.numbers), strict=True):
            labels[row] = label
        return labels

    @cached_property
    def grouping(self) -> Grouping:
        """The groups of `labels`."""
        return Grouping.of(self.labels)

    def encoded(self, equalise: bool) -> Tensor:
        """The known values as numbers; see `dependence.encode_attribute`."""
        if equalise not in self._encoded:
            whole = self.kind == "continuous"
            values = self.numbers.tolist() if whole else self.known.labels
            self._encoded[equalise] = dependence.encode_attribute(
                values, self.kind, equalise=equalise
            )
        return self._encoded[equalise]


class AttributeColumns:
    """The attributes of one page's usable pairs, read anew only where they changed."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[tuple[AttributeValue, ...], Tensor, AttributeColumn]] = {}

    def of(
        self, pairs: PreferenceSet, names: Sequence[str], rows: Tensor
    ) -> tuple[AttributeColumn, ...]:
        """The named attributes at `rows`; names that the set does not have are passed over."""
        known = set(pairs.attribute_names())
        return tuple(self._column(pairs, name, rows) for name in names if name in known)

    def _column(self, pairs: PreferenceSet, name: str, rows: Tensor) -> AttributeColumn:
        values, kept = pairs.attribute_column(name), self._kept.get(name)
        if kept is None or not torch.equal(kept[1], rows) or not _same(kept[0], values):
            whole = AttributeColumn(name, pairs.attribute_kind(name), values)
            # When all pairs are usable there is nothing to take.
            kept = values, rows, whole if len(rows) == len(pairs) else whole.taken(rows.tolist())
            self._kept[name] = kept
        return kept[2]


@dataclass(frozen=True)
class GroupSummary:
    """The outcome within one group, at beta = 1."""

    label: str
    n: int
    mean: float
    standard_deviation: float

    @property
    def small(self) -> bool:
        """Whether the group is too small for its density and mean to be relied on."""
        return self.n < SMALL_GROUP


@dataclass(frozen=True, eq=False)
class AttributeDependence:
    """Dependence of the outcome on one attribute, at beta = 1; each measure computed when asked.

    Attributes:
        column: The attribute of the pairs for which it is known.
        outcome: The outcome of those pairs, shape (n,).
        equalise: How the attribute is encoded; see `Settings`.
    """

    column: AttributeColumn
    outcome: Tensor
    equalise: bool

    @property
    def name(self) -> str:
        """The attribute's name."""
        return self.column.name

    @property
    def kind(self) -> AttributeKind:
        """How the attribute is read."""
        return self.column.kind

    @property
    def n(self) -> int:
        """Pairs for which the attribute is known."""
        return len(self.outcome)

    @cached_property
    def note(self) -> str:
        """Why there are no measures (they are NaN then); empty where there are."""
        return _why_not(self.column)

    @cached_property
    def distance_covariance_sq(self) -> float:
        """V-statistic, in outcome units times attribute units."""
        return self._measure(dependence.distance_covariance_sq)

    @cached_property
    def u_distance_covariance_sq(self) -> float:
        """Unbiased U-statistic, in outcome units times attribute units."""
        return self._measure(dependence.u_distance_covariance_sq)

    @cached_property
    def distance_correlation(self) -> float:
        """In [0, 1]."""
        return self._measure(dependence.distance_correlation)

    @cached_property
    def jensen_shannon(self) -> float:
        """Generalised Jensen-Shannon divergence of the outcome between the groups, bits."""
        return math.nan if self.note else _jensen_shannon(self.outcome, self.column.grouping)

    @cached_property
    def groups(self) -> tuple[GroupSummary, ...]:
        """Size, mean and spread of each group."""
        return _summarised(self.outcome, self.column.grouping)

    def _measure(self, statistic: Statistic) -> float:
        if self.note:
            return math.nan
        with one_thread():
            return float(statistic(self.outcome, self.column.encoded(self.equalise)))


@dataclass(frozen=True)
class JointDependence:
    """Dependence on several attributes at once, at beta = 1 (U-statistics).

    Attributes:
        n: Pairs that were taken: all for which every attribute is known, or a random sample.
        n_known: Pairs for which every attribute is known.
        concatenated: CCdCov, zero in expectation iff the outcome is independent of all jointly.
        joint_slope: The part of JdCov that scales with beta.
        joint_base: The part among the attributes themselves, which no model changes.
        jensen_shannon: Of the intersection cells, in bits.
        cells: The intersection cells.
    """

    n: int
    n_known: int
    concatenated: float
    joint_slope: float
    joint_base: float
    jensen_shannon: float
    cells: tuple[GroupSummary, ...]

    def joint(self, beta: float) -> float:
        """JdCov of the outcome at `beta` and all attributes."""
        return self.joint_base + beta * self.joint_slope


@dataclass(frozen=True)
class FairnessTable:
    """The outcome at beta = 1 of the usable pairs, and its dependence on each attribute.

    Attributes:
        rows: Places of the pairs in the preference set, shape (used,).
        outcome: Margin or reward divided by beta, shape (used,), nats.
    """

    rows: Tensor
    outcome: Tensor
    columns: tuple[AttributeColumn, ...]
    dependences: tuple[AttributeDependence, ...]

    @property
    def strongest(self) -> AttributeDependence | None:
        """The attribute with the largest distance correlation."""
        known = [d for d in self.dependences if math.isfinite(d.distance_correlation)]
        return max(known, key=lambda d: d.distance_correlation, default=None)

    @cached_property
    def cells(self) -> list[str | None]:
        """The intersection cell of every pair, None where an attribute is not known."""
        labels = [column.labels for column in self.columns]
        return [
            None if None in parts else " × ".join(part for part in parts if part is not None)
            for parts in zip(*labels, strict=True)
        ]


def attribute_columns(
    pairs: PreferenceSet, names: Sequence[str], rows: Tensor
) -> tuple[AttributeColumn, ...]:
    """The attributes of the usable pairs; names that the set does not have are passed over."""
    return AttributeColumns().of(pairs, names, rows)


def unit_outcome(scores: PairScores, settings: Settings) -> Tensor:
    """The outcome at beta = 1 of the usable pairs, shape (used,), nats (or nats a token)."""
    used = scores.used().length_normalised() if settings.length_normalised else scores.used()
    chosen = used.policy_chosen - used.reference_chosen
    rejected = used.policy_rejected - used.reference_rejected
    return {"margin": chosen - rejected, "chosen_reward": chosen, "rejected_reward": rejected}[
        settings.outcome
    ]


def fairness_table(
    scores: PairScores,
    pairs: PreferenceSet,
    settings: Settings,
    columns: AttributeColumns | None = None,
) -> FairnessTable:
    """Dependence of the outcome on each chosen attribute; O(n log n) for one-column attributes.

    `columns` spares the reading of attributes that an edit did not touch.
    """
    outcome = unit_outcome(scores, settings)
    found = (columns or AttributeColumns()).of(pairs, settings.attributes, scores.rows)
    dependences = tuple(attribute_dependence(outcome, column, settings) for column in found)
    return FairnessTable(scores.rows, outcome, found, dependences)


def attribute_dependence(
    outcome: Tensor, column: AttributeColumn, settings: Settings
) -> AttributeDependence:
    """Dependence of the outcome on one attribute, over the pairs for which it is known."""
    known = column.known
    values = outcome if known is column else outcome[list(column.known_rows)]
    return AttributeDependence(known, values, settings.equalise)


def joint_dependence(table: FairnessTable, settings: Settings) -> JointDependence | None:
    """Dependence on all chosen attributes at once; None with fewer than two usable ones.

    Quadratic in the number of pairs: for large sets a job, not a repaint, and of more than
    `JOINT_MOST` pairs a simple random sample (always the same), which keeps it unbiased.
    """
    rows, columns = _complete(table)
    n_known = len(rows)
    if n_known > JOINT_MOST:
        order = torch.randperm(n_known, generator=torch.Generator().manual_seed(0))
        sample = sorted(order[:JOINT_MOST].tolist())
        rows, columns = [rows[i] for i in sample], [column.taken(sample) for column in columns]
    if len(columns) < 2 or any(_why_not(column) for column in columns):
        return None
    outcome = table.outcome[rows]
    attributes = [column.encoded(settings.equalise) for column in columns]
    cells = Grouping.of([table.cells[row] for row in rows])
    base = float(
        dependence.u_joint_distance_covariance_sq([torch.zeros_like(outcome), *attributes])
    )
    whole = float(dependence.u_joint_distance_covariance_sq([outcome, *attributes]))
    return JointDependence(
        n=len(rows),
        n_known=n_known,
        concatenated=float(dependence.u_concatenated_distance_covariance_sq(outcome, attributes)),
        joint_slope=whole - base,
        joint_base=base,
        jensen_shannon=_jensen_shannon(outcome, cells),
        cells=_summarised(outcome, cells),
    )


def permutation_test(
    table: FairnessTable,
    settings: Settings,
    permutations: int,
    seed: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> dependence.PermutationTest:
    """Test by permuting the outcome whether it is independent of the attributes jointly (CCdCov).

    Raises:
        ValueError: no attribute is chosen, or fewer than four pairs have all of them.
    """
    rows, columns = _complete(table)
    if not columns or len(rows) < 4:
        raise ValueError(
            f"{len(columns)} attributes are chosen and {len(rows)} pairs have all of them; choose "
            "at least one attribute that at least 4 pairs have."
        )
    attributes = [column.encoded(settings.equalise) for column in columns]
    return dependence.permutation_p_value(
        table.outcome[rows],
        torch.cat([a.reshape(len(rows), -1) for a in attributes], dim=1),
        permutations=permutations,
        seed=seed,
        on_progress=on_progress,
    )


def group_labels(column: AttributeColumn) -> list[str | None]:
    """A label for every pair: the value itself, or the quarter it lies in when continuous."""
    return column.labels


def summaries(outcome: Tensor, labels: Sequence[str | None]) -> tuple[GroupSummary, ...]:
    """Size, mean and spread of each group, in the labels' natural order."""
    return _summarised(outcome, Grouping.of(labels))


def _summarised(outcome: Tensor, groups: Grouping) -> tuple[GroupSummary, ...]:
    inside, k = groups.codes >= 0, len(groups.names)
    codes, values = groups.codes[inside], outcome[inside]
    n = torch.bincount(codes, minlength=k)
    mean = torch.bincount(codes, values, minlength=k) / n
    squares = torch.bincount(codes, (values - mean[codes]) ** 2, minlength=k)
    columns = n.tolist(), mean.tolist(), (squares / (n - 1)).sqrt().tolist()
    return tuple(GroupSummary(*each) for each in zip(groups.names, *columns, strict=True))


def _complete(table: FairnessTable) -> tuple[list[int], list[AttributeColumn]]:
    """The rows at which every attribute is known, and the attributes there."""
    rows = [row for row, cell in enumerate(table.cells) if cell is not None]
    whole = len(rows) == len(table.rows)
    return rows, [column if whole else column.taken(rows) for column in table.columns]


def _same(one: tuple[AttributeValue, ...], other: tuple[AttributeValue, ...]) -> bool:
    """Equal in type as well: True is not 1."""
    return one is other or (one == other and list(map(type, one)) == list(map(type, other)))


def label_of(value: object) -> str:
    """A value as text; a whole number is the same group whether its source wrote 3 or 3.0."""
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return str(int(value))
    return str(value)


def _float(value: AttributeValue) -> float:
    try:
        return float(value) if value is not None else math.nan
    except OverflowError:
        return math.inf


def _bands(numbers: Tensor) -> list[str]:
    """The quarter in which each number lies, named by its edges."""
    if not len(numbers) or not bool(numbers.isfinite().all()):
        return [f"{number:.4g}" for number in numbers.tolist()]
    steps = torch.linspace(0, 1, _BANDS + 1, dtype=torch.float64)
    edges = numbers.quantile(steps)
    names = [f"{low:.4g} to {high:.4g}" for low, high in itertools.pairwise(edges.tolist())]
    return [names[band] for band in torch.bucketize(numbers, edges[1:-1], right=True).tolist()]


def _natural(label: str) -> tuple[int, float, str]:
    """Numbers (and bands that begin with one) by size before words by letter."""
    try:
        return 0, float(label.split(" ")[0]), label
    except ValueError:
        return 1, 0.0, label


def _why_not(known: AttributeColumn) -> str:
    n = len(known.values)
    if n < 4:
        return f"{n} pairs know this attribute; distance covariance needs at least 4."
    if known.kind == "continuous" and not bool(known.numbers.isfinite().all()):
        return "A value is too large for a number of double precision; correct it."
    if len(set(known.values if known.kind == "continuous" else known.labels)) < 2:
        return "All pairs have the same value, so nothing can depend on it."
    return ""


def _jensen_shannon(outcome: Tensor, groups: Grouping) -> float:
    if len(groups.names) < 2:
        return 0.0
    with one_thread():
        return float(divergence.generalised_jensen_shannon(outcome, groups.codes))

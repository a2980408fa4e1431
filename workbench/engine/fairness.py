"""How the outcome of a preference depends on protected attributes (core 3).

Everything is computed for the outcome at beta = 1 and scaled by beta afterwards, which is exact:
distance covariance is linear in the scale of one argument, joint distance covariance affine
(only the terms that contain the outcome scale), and correlations do not change at all.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from workbench.data.pairs import AttributeKind, AttributeValue, PreferenceSet
from workbench.engine.settings import Settings
from workbench.engine.values import PairScores
from workbench.metrics import dependence, divergence

SMALL_GROUP = 10
_BANDS = 4


@dataclass(frozen=True)
class AttributeColumn:
    """One protected attribute of the pairs at hand; None where it is not known."""

    name: str
    kind: AttributeKind
    values: tuple[AttributeValue, ...]

    def taken(self, rows: Sequence[int]) -> "AttributeColumn":
        """Only some of the rows."""
        return AttributeColumn(self.name, self.kind, tuple(self.values[row] for row in rows))


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


@dataclass(frozen=True)
class AttributeDependence:
    """Dependence of the outcome on one attribute, at beta = 1; `note` says why where it is empty.

    `distance_covariance_sq` (V) and `u_distance_covariance_sq` (unbiased) are in outcome units
    times attribute units; the correlation lies in [0, 1]; Jensen-Shannon is in bits.
    """

    name: str
    kind: AttributeKind
    n: int
    distance_covariance_sq: float
    u_distance_covariance_sq: float
    distance_correlation: float
    jensen_shannon: float
    groups: tuple[GroupSummary, ...]
    note: str = ""


@dataclass(frozen=True)
class JointDependence:
    """Dependence on several attributes at once, at beta = 1 (U-statistics).

    Attributes:
        n: Pairs for which every attribute is known.
        concatenated: CCdCov, zero in expectation iff the outcome is independent of all jointly.
        joint_slope: The part of JdCov that scales with beta.
        joint_base: The part among the attributes themselves, which no model changes.
        jensen_shannon: Of the intersection cells, in bits.
        cells: The intersection cells.
    """

    n: int
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
        labels = [group_labels(column) for column in self.columns]
        return [
            None if None in parts else " × ".join(part for part in parts if part is not None)
            for parts in zip(*labels, strict=True)
        ]


def attribute_columns(
    pairs: PreferenceSet, names: Sequence[str], rows: Tensor
) -> tuple[AttributeColumn, ...]:
    """The attributes of the usable pairs; names that the set does not have are passed over."""
    known = set(pairs.attribute_names())
    places = rows.tolist()
    return tuple(
        AttributeColumn(name, pairs.attribute_kind(name), pairs.attribute_column(name)).taken(
            places
        )
        for name in names
        if name in known
    )


def unit_outcome(scores: PairScores, settings: Settings) -> Tensor:
    """The outcome at beta = 1 of the usable pairs, shape (used,), nats (or nats a token)."""
    used = scores.used().length_normalised() if settings.length_normalised else scores.used()
    chosen = used.policy_chosen - used.reference_chosen
    rejected = used.policy_rejected - used.reference_rejected
    return {"margin": chosen - rejected, "chosen_reward": chosen, "rejected_reward": rejected}[
        settings.outcome
    ]


def fairness_table(scores: PairScores, pairs: PreferenceSet, settings: Settings) -> FairnessTable:
    """Dependence of the outcome on each chosen attribute; O(n log n) for one-column attributes."""
    outcome = unit_outcome(scores, settings)
    columns = attribute_columns(pairs, settings.attributes, scores.rows)
    dependences = tuple(attribute_dependence(outcome, column, settings) for column in columns)
    return FairnessTable(scores.rows, outcome, columns, dependences)


def attribute_dependence(
    outcome: Tensor, column: AttributeColumn, settings: Settings
) -> AttributeDependence:
    """Dependence of the outcome on one attribute, over the pairs for which it is known."""
    rows = [row for row, value in enumerate(column.values) if value is not None]
    known, values = column.taken(rows), outcome[rows]
    groups = summaries(values, group_labels(known))
    note = _why_not(len(rows), known)
    if note:
        nan = math.nan
        return AttributeDependence(
            column.name, column.kind, len(rows), nan, nan, nan, nan, groups, note
        )
    encoded = _encode(known, settings)
    return AttributeDependence(
        name=column.name,
        kind=column.kind,
        n=len(rows),
        distance_covariance_sq=float(dependence.distance_covariance_sq(values, encoded)),
        u_distance_covariance_sq=float(dependence.u_distance_covariance_sq(values, encoded)),
        distance_correlation=float(dependence.distance_correlation(values, encoded)),
        jensen_shannon=_jensen_shannon(values, group_labels(known)),
        groups=groups,
    )


def joint_dependence(table: FairnessTable, settings: Settings) -> JointDependence | None:
    """Dependence on all chosen attributes at once; None with fewer than two usable ones.

    Quadratic in the number of pairs: for large sets a job, not a repaint.
    """
    rows = (
        [row for row, cell in enumerate(table.cells) if cell is not None] if table.columns else []
    )
    columns = [column.taken(rows) for column in table.columns]
    if len(columns) < 2 or any(_why_not(len(rows), column) for column in columns):
        return None
    outcome, attributes = table.outcome[rows], [_encode(column, settings) for column in columns]
    cells = [table.cells[row] for row in rows]
    base = float(
        dependence.u_joint_distance_covariance_sq([torch.zeros_like(outcome), *attributes])
    )
    whole = float(dependence.u_joint_distance_covariance_sq([outcome, *attributes]))
    return JointDependence(
        n=len(rows),
        concatenated=float(dependence.u_concatenated_distance_covariance_sq(outcome, attributes)),
        joint_slope=whole - base,
        joint_base=base,
        jensen_shannon=_jensen_shannon(outcome, cells),
        cells=summaries(outcome, cells),
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
    rows = [row for row, cell in enumerate(table.cells) if cell is not None]
    attributes = [_encode(column.taken(rows), settings) for column in table.columns]
    return dependence.permutation_p_value(
        table.outcome[rows],
        torch.cat([a.reshape(len(rows), -1) for a in attributes], dim=1),
        permutations=permutations,
        seed=seed,
        on_progress=on_progress,
    )


def group_labels(column: AttributeColumn) -> list[str | None]:
    """A label for every pair: the value itself, or the quarter it lies in when continuous."""
    if column.kind != "continuous":
        return [None if value is None else str(value) for value in column.values]
    numbers = [float(value) for value in column.values if value is not None]
    if not numbers:
        return [None] * len(column.values)
    edges = torch.tensor(numbers, dtype=torch.float64).quantile(
        torch.linspace(0, 1, _BANDS + 1, dtype=torch.float64)
    )
    labels = [f"{low:.4g} to {high:.4g}" for low, high in itertools.pairwise(edges.tolist())]
    return [
        None if value is None else labels[_band(float(value), edges)] for value in column.values
    ]


def summaries(outcome: Tensor, labels: Sequence[str | None]) -> tuple[GroupSummary, ...]:
    """Size, mean and spread of each group, by label."""
    found = []
    for label in sorted({label for label in labels if label is not None}, key=_natural):
        inside = outcome[[row for row, each in enumerate(labels) if each == label]]
        spread = float(inside.std()) if len(inside) > 1 else math.nan
        found.append(GroupSummary(label, len(inside), float(inside.mean()), spread))
    return tuple(found)


def _band(value: float, edges: Tensor) -> int:
    return min(int((edges[1:-1] <= value).sum()), _BANDS - 1)


def _natural(label: str) -> tuple[int, float, str]:
    """Numbers (and bands that begin with one) by size before words by letter."""
    try:
        return 0, float(label.split(" ")[0]), label
    except ValueError:
        return 1, 0.0, label


def _why_not(n: int, column: AttributeColumn) -> str:
    if n < 4:
        return f"{n} pairs know this attribute; distance covariance needs at least 4."
    if len(set(column.values)) < 2:
        return "All pairs have the same value, so nothing can depend on it."
    return ""


def _encode(column: AttributeColumn, settings: Settings) -> Tensor:
    return dependence.encode_attribute(column.values, column.kind, equalise=settings.equalise)


def _jensen_shannon(outcome: Tensor, labels: Sequence[str | None]) -> float:
    codes = {label: code for code, label in enumerate(sorted({str(each) for each in labels}))}
    if len(codes) < 2:
        return 0.0
    groups = torch.tensor([codes[str(label)] for label in labels])
    return float(divergence.generalised_jensen_shannon(outcome, groups))

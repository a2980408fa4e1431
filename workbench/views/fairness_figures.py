"""Figures of the outcome by the groups of one attribute."""

import math

import torch

from workbench.engine.fairness import AttributeColumn, FairnessTable, group_labels, summaries
from workbench.engine.settings import Settings
from workbench.metrics.divergence import group_densities
from workbench.views import figures
from workbench.views.choices import OUTCOMES
from workbench.views.figure import Figure


def outcome_densities(table: FairnessTable, attribute: str, settings: Settings) -> Figure:
    """Kernel densities of the outcome by the groups of an attribute."""
    column, label = _column(table, attribute), outcome_label(settings)
    labels = group_labels(column) if column else []
    known = [row for row, each in enumerate(labels) if each is not None]
    if len(known) < 2:
        return figures.group_densities(None, None, [], label)
    names = sorted({each for each in labels if each is not None})
    codes = torch.tensor([names.index(str(labels[row])) for row in known])
    found = group_densities(table.outcome[known] * settings.beta, codes)
    sizes = [int(size) for size in found.sizes.tolist()]
    shown = [f"{name} (n = {size})" for name, size in zip(names, sizes, strict=True)]
    return figures.group_densities(found.grid, found.densities, shown, label)


def outcome_by_group(table: FairnessTable, attribute: str, settings: Settings) -> Figure:
    """Means of the outcome by group, or the outcome against a continuous attribute."""
    column, label, beta = _column(table, attribute), outcome_label(settings), settings.beta
    if column is not None and column.kind == "continuous":
        values = [math.nan if each is None else float(each) for each in column.values]
        return figures.outcome_against_attribute(
            table.outcome * beta, values, column.name, table.rows, label
        )
    groups = summaries(table.outcome, group_labels(column)) if column else ()
    return figures.group_means(groups, beta, label)


def outcome_label(settings: Settings) -> str:
    """The outcome in words."""
    return next(words for words, name in OUTCOMES.items() if name == settings.outcome)


def clearest(table: FairnessTable) -> str | None:
    """The attribute with the fewest groups, whose densities are the easiest to read."""
    varying = [each for each in table.dependences if len(each.groups) > 1] or table.dependences
    return min(varying, key=lambda each: len(each.groups)).name if varying else None


def _column(table: FairnessTable, attribute: str) -> AttributeColumn | None:
    return next((each for each in table.columns if each.name == attribute), None)

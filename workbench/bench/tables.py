"""Tables of the engine as data frames and as tensors by name."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch

from workbench.data.pairs import PreferenceSet

if TYPE_CHECKING:
    import pandas as pd


def columns_of(table: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401 - a table of the engine
    """All tensors of a table by their field's name; copies, so that nobody changes the page's."""
    found = {each.name: getattr(table, each.name) for each in fields(table)}
    return {name: value.clone() for name, value in found.items() if torch.is_tensor(value)}


def frame_of(pairs: PreferenceSet, table: Any) -> "pd.DataFrame":  # noqa: ANN401
    """The columns of a table that have a value a usable pair, indexed by pair id."""
    columns = columns_of(table)
    rows = columns.pop("rows")
    kept = {name: values for name, values in columns.items() if values.shape == rows.shape}
    return indexed(pairs, rows, kept)


def indexed(
    pairs: PreferenceSet, rows: torch.Tensor, columns: dict[str, torch.Tensor]
) -> "pd.DataFrame":
    """Columns of shape (rows,) as a frame indexed by pair id."""
    import pandas as pd

    ids = [pairs.pairs[row].pair_id for row in rows.tolist()]
    index = pd.Index(ids, name="pair_id")
    return pd.DataFrame({name: each.numpy() for name, each in columns.items()}, index=index)

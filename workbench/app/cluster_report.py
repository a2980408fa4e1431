"""A set scored on Ray, and its summary from the parts, for the command line."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from workbench.engine.live import Summary, summarise
from workbench.engine.settings import Settings
from workbench.engine.values import (
    PairScores,
    candidates_of,
    did_table,
    ranking_table,
    reward_table,
)
from workbench.scoring.ray_engine import (
    BLOCK_PAIRS,
    ROLES,
    SIDES,
    BlockReport,
    plan_blocks,
    read_parts,
    score_on_ray,
)

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Cluster:
    """Where and in what portions a set is scored.

    Attributes:
        actors: Processes, each with both models.
        address: Of a running cluster; None starts a local runtime.
        block: Pairs a part.
    """

    actors: int = 1
    address: str | None = None
    block: int = BLOCK_PAIRS


@dataclass(frozen=True)
class ClusterScores:
    """What `workbench score --engine ray` prints: the summary, and how it came about."""

    summary: Summary
    parts: int
    parts_scored_now: int


def score_set_on_ray(
    source: str,
    policy: str,
    reference: str,
    settings: Settings,
    folder: Path,
    cluster: Cluster,
    report: Callable[[int, int, str], None] | None = None,
) -> ClusterScores:
    """Score a set into a folder of Parquet parts; what lies there already is kept.

    Raises:
        WorkbenchError: the source or a model cannot be read, Ray is missing, or scoring fails.
    """
    blocks = plan_blocks(source, folder, cluster.block)
    done: list[BlockReport] = []

    def note(block: BlockReport) -> None:
        done.append(block)
        if report is not None:
            report(len(done), len(blocks), "scoring blocks on Ray")

    if report is not None:
        report(0, len(blocks), "starting Ray")
    found = score_on_ray(
        blocks,
        policy,
        reference,
        folder,
        actors=cluster.actors,
        address=cluster.address,
        on_block=note,
    )
    fresh = sum(block.scored for block in found)
    return ClusterScores(summary_of_parts(read_parts(folder), settings), len(found), fresh)


def summary_of_parts(table: "pa.Table", settings: Settings) -> Summary:
    """The live quantities of a scored set; without attributes, which the parts do not hold."""
    scores = PairScores(
        *(_column(table, f"{role}_{side}") for role in ROLES for side in SIDES),
        *(_column(table, f"n_{side}") for side in SIDES),
    )
    share = _column(table, "rater_share")
    share = share.where(~share.isnan(), settings.share_constant)
    answers = (table[f"{side}_hash"].to_numpy() for side in SIDES)
    candidates = candidates_of(_numbered(table["prompt_hash"].to_numpy()), *answers)
    return summarise(
        len(table),
        reward_table(scores, settings),
        ranking_table(scores, share, settings),
        did_table(scores, candidates, settings),
    )


def _column(table: "pa.Table", name: str) -> torch.Tensor:
    return torch.from_numpy(table[name].to_numpy().astype(np.float64))


def _numbered(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """0 for the first value to appear, 1 for the next other one, and so on."""
    _, first, place = np.unique(values, return_index=True, return_inverse=True)
    order = np.empty(len(first), np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    numbered: np.ndarray[Any, Any] = order[place]
    return numbered

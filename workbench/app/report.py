"""A set scored in one go: the summary and the table of all pairs, for the command line."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.data.files import write_file
from workbench.data.sources import open_source
from workbench.data.store import PairStore
from workbench.engine.live import LiveTables, Summary
from workbench.engine.session import Session
from workbench.engine.settings import Settings
from workbench.engine.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ScoredSet:
    """What `workbench score` prints and writes."""

    summary: Summary
    table: "pd.DataFrame"


def score_set(
    source: str,
    policy: str,
    reference: str,
    settings: Settings,
    report: Callable[[int, int, str], None] | None = None,
    workspace: Workspace | None = None,
) -> ScoredSet:
    """Score every pair of a source under two models, without keeping a session.

    Raises:
        WorkbenchError: the source or a model cannot be read, or scoring fails.
    """
    pairs = open_source(source, report and (lambda line: report(0, 0, line)))
    workspace = workspace or Workspace()
    session = Session("score", PairStore.in_memory(pairs), workspace.hub, policy, reference)
    chosen = settings.replaced(attributes=settings.attributes or tuple(pairs.attribute_names()))
    try:
        _wait(session, report)
        tables = LiveTables(session)
        return ScoredSet(tables.summary(chosen), pair_table(tables, chosen))
    finally:
        workspace.close()


def pair_table(tables: LiveTables, settings: Settings) -> "pd.DataFrame":
    """One row a pair: its data, its scores (nats), and the live quantities."""
    import pandas as pd

    frame = tables.snapshot.pairs.to_frame()
    rewards, ranking, did = tables.rewards(settings), tables.ranking(settings), tables.did(settings)
    entropy = dict(zip(did.prompt_rows.tolist(), did.entropy.tolist(), strict=True))
    values = pd.DataFrame(
        {
            "chosen_reward": rewards.chosen,
            "rejected_reward": rewards.rejected,
            "reward_margin": rewards.margin,
            "rater_share": ranking.rater_share,
            "policy_log_ratio": ranking.policy_log_ratio,
            "reference_log_ratio": ranking.reference_log_ratio,
            "dpo_loss": ranking.loss,
            "ranking_accuracy": ranking.correct,
            "reference_ranking_accuracy": ranking.reference_correct,
            "idealized_ranking_accuracy": ranking.idealized_correct,
            "chosen_shift": did.chosen_shift,
            "rejected_shift": did.rejected_shift,
        },
        index=rewards.rows.tolist(),
    )
    first = tables.snapshot.candidates.first_row[tables.snapshot.candidates.prompt_of_pair].tolist()
    frame["did_entropy"] = [entropy.get(row) for row in first]
    return frame.join(values)


def write_table(table: "pd.DataFrame", path: Path) -> None:
    """Write a table as .jsonl, .json, .csv or .parquet; what is not known is null or left empty.

    The file appears whole or not at all, and no cell of a CSV file begins like a formula.

    Raises:
        DataError: another suffix, or a place that cannot be written.
    """
    rows = [
        {str(name): _known(value) for name, value in row.items()}
        for row in table.to_dict(orient="records")
    ]
    if path.suffix.lower() not in (".jsonl", ".json"):
        # A column of numbers keeps its type only where nulls are absent rather than present.
        rows = [{name: v for name, v in row.items() if v is not None} for row in rows]
    write_file(path, rows)


def _known(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """JSON has neither NaN nor infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _wait(session: Session, report: Callable[[int, int, str], None] | None) -> None:
    job = session.score()
    while job is not None and not job.wait(0.1):
        if report is not None:
            report(job.progress.done, job.progress.total, job.progress.note)
    if job is not None and job.error is not None:
        raise job.error

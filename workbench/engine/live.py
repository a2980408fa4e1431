"""The five live quantities of a session, each computed once for what it depends on.

A page asks for tables as often as it likes; a table is computed again only when its own inputs
changed. Dragging beta, for example, leaves DID, the idealized curve and the dependence alone.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from workbench.data.pairs import PreferenceSet
from workbench.engine.fairness import (
    AttributeColumn,
    AttributeColumns,
    AttributeDependence,
    FairnessTable,
    JointDependence,
    fairness_table,
    joint_dependence,
)
from workbench.engine.session import Session, Snapshot
from workbench.engine.settings import Settings
from workbench.engine.threads import one_thread
from workbench.engine.values import (
    DidTable,
    IdealizedCurve,
    RankingTable,
    RewardTable,
    did_table,
    idealized_curve,
    ranking_table,
    reward_table,
)

T = TypeVar("T")
JOINT_LIVE = 400
"""Up to this many pairs the quadratic joint statistics are computed at once, beyond it as a job."""


@dataclass(frozen=True)
class Summary:
    """The five quantities in one number each, for the strip above every page."""

    pairs: int
    scored: int
    mean_margin: float
    mean_chosen_reward: float
    mean_rejected_reward: float
    reward_accuracy: float
    ranking_accuracy: float
    reference_accuracy: float
    idealized_accuracy: float
    alignment_gap: float
    did_entropy: float
    did_efficiency: float
    did_prompts: int
    dependence: float
    dependence_of: str


class LiveTables:
    """Tables of one session under one page's settings."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._memo: dict[str, tuple[Hashable, Any]] = {}
        self._columns = AttributeColumns()

    @property
    def snapshot(self) -> Snapshot:
        """Pairs and scores as they stand now."""
        return self.session.snapshot()

    def rater_share(self, settings: Settings) -> Tensor:
        """The alpha of every pair by the chosen source, shape (pairs,)."""
        snapshot = self.snapshot
        key = snapshot.version[0], settings.share_source, settings.share_constant
        return self._once("share", key, lambda: rater_shares(snapshot.pairs, settings))

    def rewards(self, settings: Settings) -> RewardTable:
        """Implicit rewards and margins."""
        snapshot = self.snapshot
        key = snapshot.version, settings.beta, settings.length_normalised
        return self._once("rewards", key, lambda: reward_table(snapshot.scores, settings))

    def curve(self, settings: Settings) -> IdealizedCurve:
        """Idealized ranking accuracy over beta."""
        snapshot, share = self.snapshot, self.rater_share(settings)
        key = snapshot.version, _ranking_part(settings.replaced(beta=1, gamma=1, tie_policy="half"))
        return self._once("curve", key, lambda: idealized_curve(snapshot.scores, share, settings))

    def ranking(self, settings: Settings) -> RankingTable:
        """Ranking accuracies, idealized accuracy and the flip condition."""
        snapshot, share, curve = self.snapshot, self.rater_share(settings), self.curve(settings)
        key = snapshot.version, _ranking_part(settings)
        return self._once(
            "ranking", key, lambda: ranking_table(snapshot.scores, share, settings, curve)
        )

    def did(self, settings: Settings) -> DidTable:
        """Differential information over each prompt's candidate answers."""
        snapshot = self.snapshot
        key = snapshot.version, settings.length_normalised
        return self._once(
            "did", key, lambda: did_table(snapshot.scores, snapshot.candidates, settings)
        )

    def fairness(self, settings: Settings) -> FairnessTable:
        """Dependence of the outcome on each chosen attribute, at beta = 1."""
        snapshot = self.snapshot
        return self._once(
            "fairness",
            self._fairness_key(settings),
            lambda: fairness_table(snapshot.scores, snapshot.pairs, settings, self._columns),
        )

    def attributes(self, names: Sequence[str]) -> tuple[AttributeColumn, ...]:
        """Attributes of the usable pairs, for grouping; names that the set lacks are left out."""
        return self._columns.of(self.snapshot.pairs, names, self.snapshot.scores.rows)

    def joint(self, settings: Settings) -> JointDependence | Exception | None:
        """Dependence on all attributes at once; None where there is none, or not yet.

        Large sets are answered by the worker; `session.progress("joint")` tells how far it is.
        """
        table, key = self.fairness(settings), self._fairness_key(settings)
        if len(table.rows) <= JOINT_LIVE:
            return self._once("joint", key, lambda: joint_dependence(table, settings))
        answer: JointDependence | Exception | None = self.session.ask(
            "joint", key, lambda job: joint_dependence(table, settings)
        )
        return answer

    def summary(self, settings: Settings) -> Summary:
        """One number for each live quantity."""
        with one_thread():
            return self._summary(settings)

    def _summary(self, settings: Settings) -> Summary:
        return summarise(
            len(self.snapshot.pairs),
            self.rewards(settings),
            self.ranking(settings),
            self.did(settings),
            self.fairness(settings).strongest,
        )

    def _fairness_key(self, settings: Settings) -> Hashable:
        return (
            self.snapshot.version,
            settings.attributes,
            settings.outcome,
            settings.equalise,
            settings.length_normalised,
        )

    def _once(self, name: str, key: Hashable, compute: Callable[[], T]) -> T:
        if name not in self._memo or self._memo[name][0] != key:
            with one_thread():
                self._memo[name] = key, compute()
        value: T = self._memo[name][1]
        return value


def summarise(
    pairs: int,
    rewards: RewardTable,
    ranking: RankingTable,
    did: DidTable,
    strongest: AttributeDependence | None = None,
) -> Summary:
    """One number for each live quantity of a set.

    Args:
        pairs: How many there are, the unscored ones too.
        rewards: Of the usable pairs, like the next two.
        ranking: Ranking accuracies.
        did: Differential information.
        strongest: The dependence to show, where there are attributes.
    """
    return Summary(
        pairs=pairs,
        scored=len(rewards.rows),
        mean_margin=_mean(rewards.margin),
        mean_chosen_reward=_mean(rewards.chosen),
        mean_rejected_reward=_mean(rewards.rejected),
        reward_accuracy=_mean(rewards.accuracy),
        ranking_accuracy=_mean(ranking.correct),
        reference_accuracy=_mean(ranking.reference_correct),
        idealized_accuracy=_mean(ranking.idealized_correct),
        alignment_gap=ranking.alignment_gap if len(rewards.rows) else float("nan"),
        did_entropy=_mean(did.entropy),
        did_efficiency=_mean(did.efficiency),
        did_prompts=len(did.entropy),
        dependence=strongest.distance_correlation if strongest else float("nan"),
        dependence_of=strongest.name if strongest else "",
    )


def _ranking_part(settings: Settings) -> Settings:
    """The settings without those that fairness alone depends on."""
    return settings.replaced(attributes=(), outcome="margin", equalise=False)


def rater_shares(pairs: PreferenceSet, settings: Settings) -> Tensor:
    """Share of raters who prefer the chosen answer, shape (pairs,).

    "raters" takes alpha or votes, "scores" the Bradley-Terry share of the answers' scores;
    where the source is silent, and for "constant", `share_constant`.
    """
    found = torch.full((len(pairs),), torch.nan, dtype=torch.float64)
    if settings.share_source == "raters":
        found = _numbers(pair.rater_share for pair in pairs.pairs)
    elif settings.share_source == "scores":
        chosen = _numbers(pair.chosen_score for pair in pairs.pairs)
        found = torch.sigmoid(chosen - _numbers(pair.rejected_score for pair in pairs.pairs))
    return found.where(~found.isnan(), settings.share_constant)


def _numbers(values: Iterable[float | None]) -> Tensor:
    known = [torch.nan if value is None else value for value in values]
    return torch.tensor(known, dtype=torch.float64)


def _mean(values: Tensor) -> float:
    return float(values.mean()) if values.numel() else float("nan")

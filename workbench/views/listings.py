"""Small tables of numbers in words, which the served page and the notebook show alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.data.pairs import PreferenceSet
from workbench.engine.fairness import (
    SMALL_GROUP,
    AttributeDependence,
    FairnessTable,
    JointDependence,
)
from workbench.engine.values import DidTable, RankingTable, RewardTable
from workbench.views.markup import number, percent, points, table_html


@dataclass(frozen=True)
class Listing:
    """A table of texts, and notes below it."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    @property
    def html(self) -> str:
        """As HTML, every text escaped."""
        return table_html(self.head, self.rows, self.notes)


def ranking_listing(table: RankingTable) -> Listing:
    """Ranking accuracies beside what would be ideal."""
    if not len(table.rows):
        return Listing(["Ranking"], [], ["No pair is scored yet."])
    low, median, high = (float(value) for value in _spread(table))
    wrong = table.reference_log_ratio > 0
    flipped = (wrong & (table.correct > 0.5)).double().sum() / wrong.double().sum().clamp(min=1)
    rows = [
        ["Ranking accuracy R of the policy", percent(float(table.correct.mean()))],
        ["Ranking accuracy of the reference", percent(float(table.reference_correct.mean()))],
        ["Idealized R* over β ∈ {0.01, 0.1, 1, 5, 10}: min / median / max",
         f"{percent(low)} / {percent(median)} / {percent(high)}"],
        ["Alignment gap, median R* − R", points(table.alignment_gap)],
        ["Pairs the reference ranks wrong that the policy has flipped", percent(float(flipped))],
    ]  # fmt: skip
    return Listing(["Ranking", "Share of pairs"], rows)


def _spread(table: RankingTable) -> tuple[Any, Any, Any]:
    return table.grid.min(), table.grid.median(), table.grid.max()


def dependence_listing(table: FairnessTable, beta: float) -> Listing:
    """Each attribute's dependence with the outcome at `beta`."""
    head = ["Attribute", "kind", "n", "dCor", "dCov² (V)", "dCov² (U)", "Jensen–Shannon, bits"]
    if not table.dependences:
        note = "Choose one or more attributes to see how the outcome depends on them."
        return Listing(head, [], [note])
    rows = [_dependence_row(each, beta) for each in table.dependences]
    return Listing(head, rows, _warnings(table))


def _dependence_row(found: AttributeDependence, beta: float) -> list[str]:
    values = (
        found.distance_correlation,
        beta * found.distance_covariance_sq,
        beta * found.u_distance_covariance_sq,
        found.jensen_shannon,
    )
    return [found.name, found.kind, str(found.n), *(number(value) for value in values)]


def _warnings(table: FairnessTable) -> list[str]:
    notes = [f"{each.name}: {each.note}" for each in table.dependences if each.note]
    for each in table.dependences:
        small = [group.label for group in each.groups if group.small]
        if small:
            shown = ", ".join(small[:4]) + (" …" if len(small) > 4 else "")
            notes.append(
                f"⚠ {each.name}: {len(small)} groups have fewer than {SMALL_GROUP} pairs "
                f"({shown}); their densities and means say little."
            )
    return notes


def joint_rows(found: JointDependence | Exception | None, beta: float) -> list[list[str]]:
    """Dependence on all attributes at once; None and failures in words."""
    if isinstance(found, Exception):
        return [["CCdCov² and JdCov²", f"not to be had: {found}"]]
    if found is None:
        return [["CCdCov² and JdCov²", "need two attributes that vary (or are being computed)"]]
    return [
        ["Pairs for which all are known", _taken(found)],
        ["CCdCov² (U): outcome against all attributes", number(beta * found.concatenated)],
        ["JdCov² (U, c = 1): mutual dependence of all", number(found.joint(beta))],
        ["   of which among the attributes themselves", number(found.joint_base)],
        [f"Jensen–Shannon over the {len(found.cells)} intersections, bits",
         number(found.jensen_shannon)],
        ["Smallest intersection", _smallest(found)],
    ]  # fmt: skip


def _taken(found: JointDependence) -> str:
    if found.n == found.n_known:
        return str(found.n)
    return f"{found.n_known}, of which a random {found.n} are taken"


def _smallest(found: JointDependence) -> str:
    cell = min(found.cells, key=lambda each: each.n)
    return f"{cell.label}: {cell.n} pairs" + (" ⚠" if cell.small else "")


def reward_listing(table: RewardTable) -> Listing:
    """Mean and quantiles of rewards and margin, and the reward accuracy."""
    head = ["Reward, β·nats", "mean", "lower quarter", "median", "upper quarter"]
    if not len(table.rows):
        return Listing(head, [], ["No pair is scored yet."])
    columns = {"margin": table.margin, "chosen": table.chosen, "rejected": table.rejected}
    rows = [[name, *_spread_words(values)] for name, values in columns.items()]
    accuracy = percent(float(table.accuracy.mean()))
    return Listing(head, rows, [f"{len(table.rows)} pairs; reward accuracy {accuracy}"])


def flip_listing(table: RankingTable, pairs: PreferenceSet, most: int = 6) -> Listing:
    """The pairs whose ranking by the reference is hardest to flip, and the easiest."""
    head = ["Hardest to flip, then easiest", "c, nats", "loss", "ranked"]
    order = table.reference_log_ratio.argsort(descending=True).tolist()
    most = min(most, len(order) // 2)
    places = [*order[:most], *order[len(order) - most :]]
    return Listing(head, [_flip_row(table, place, pairs) for place in places])


def _flip_row(table: RankingTable, place: int, pairs: PreferenceSet) -> list[str]:
    pair = pairs.pairs[int(table.rows[place])]
    numbers = (float(each[place]) for each in (table.reference_log_ratio, table.loss))
    ranked = "right" if table.correct[place] > 0.5 else "wrong"
    about = f"{pair.pair_id}: {shortened(pair.prompt_text)}"
    return [about, *(number(each) for each in numbers), ranked]


def did_listing(did: DidTable) -> Listing:
    """Means of the entropies over the prompts."""
    head = ["Over the prompts with two scored answers or more", "mean", "lower quarter", "median",
            "upper quarter"]  # fmt: skip
    if not len(did.entropy):
        return Listing(head, [], ["No prompt has two scored answers yet."])
    columns = {
        "DID entropy H, nats": did.entropy,
        "H / log |S|": did.efficiency,
        "effective number of answers": did.effective_number,
        "change of policy entropy, nats": did.policy_entropy_change,
    }
    rows = [[name, *_spread_words(values)] for name, values in columns.items()]
    sizes = f"{len(did.size)} prompts, |S| from {int(did.size.min())} to {int(did.size.max())}"
    return Listing(head, rows, [sizes])


def permutation_row(answer: Any, job: Any, permutations: int, asked: bool) -> list[str]:  # noqa: ANN401
    """The permutation test in words: not asked for, under way, failed, or its p-value."""
    name = "Permutation p of dCov² with all attributes"
    if not asked:
        return [name, "not tested"]
    if answer is None:
        return [name, f"testing, {job.progress.done if job else 0} of {permutations}"]
    if isinstance(answer, Exception):
        return [name, f"not to be had: {answer}"]
    return [name, f"{answer.p_value:.4f} ({answer.permutations} permutations, seed 0)"]


def shortened(text: str, limit: int = 70) -> str:
    """The beginning of a text in one line."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _spread_words(values: Tensor) -> list[str]:
    quarters = values.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=values.dtype))
    return [number(float(values.mean())), *(number(each) for each in quarters.tolist())]

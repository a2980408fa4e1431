"""From scores and settings to the five live quantities: pure functions over arrays.

Every table lists only the pairs that can be used (scored, with non-empty answers); its `rows`
say where they stand in the preference set. All values are float64.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from workbench.engine.settings import PAPER_BETAS, Settings
from workbench.metrics import information, ranking, rewards
from workbench.objectives.dpo import sigmoid_loss

BETA_CURVE = torch.logspace(-3, 2, 121, dtype=torch.float64)


@dataclass(frozen=True)
class PairScores:
    """Summed response log-probabilities of every pair, NaN where not scored yet.

    Attributes:
        policy_chosen: log pi(y_w|x), shape (pairs,), nats; the other three alike.
        n_chosen: Number of response tokens of the chosen answer, shape (pairs,).
    """

    policy_chosen: Tensor
    policy_rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    n_chosen: Tensor
    n_rejected: Tensor

    @cached_property
    def rows(self) -> Tensor:
        """Positions of the pairs whose four scores are finite and answers not empty."""
        total = self.policy_chosen + self.policy_rejected
        total = total + self.reference_chosen + self.reference_rejected
        usable = torch.isfinite(total) & (self.n_chosen > 0) & (self.n_rejected > 0)
        return usable.nonzero().flatten()

    def used(self) -> "PairScores":
        """Only the usable pairs."""
        return PairScores(
            self.policy_chosen[self.rows],
            self.policy_rejected[self.rows],
            self.reference_chosen[self.rows],
            self.reference_rejected[self.rows],
            self.n_chosen[self.rows],
            self.n_rejected[self.rows],
        )

    def length_normalised(self) -> "PairScores":
        """Mean log-probability a token in place of the sums."""
        return PairScores(
            self.policy_chosen / self.n_chosen,
            self.policy_rejected / self.n_rejected,
            self.reference_chosen / self.n_chosen,
            self.reference_rejected / self.n_rejected,
            self.n_chosen,
            self.n_rejected,
        )


@dataclass(frozen=True)
class RewardTable:
    """Implicit rewards of the usable pairs, all of shape (used,)."""

    rows: Tensor
    chosen: Tensor
    rejected: Tensor
    margin: Tensor
    accuracy: Tensor
    length_difference: Tensor


@dataclass(frozen=True)
class IdealizedCurve:
    """Idealized ranking accuracy R* over beta; depends on the reference and the raters alone.

    Attributes:
        betas: Grid of beta, shape (betas,).
        accuracy: R* at each beta, shape (betas,).
        grid: R* at `PAPER_BETAS`, shape (5,).
    """

    betas: Tensor
    accuracy: Tensor
    grid: Tensor


@dataclass(frozen=True)
class RankingTable:
    """Rankings of the usable pairs beside what the reference and the ideal policy rank.

    Arrays have shape (used,), except the curve of the idealized accuracy over `BETA_CURVE`.
    """

    rows: Tensor
    rater_share: Tensor
    policy_log_ratio: Tensor
    reference_log_ratio: Tensor
    loss: Tensor
    flip_threshold: Tensor
    difficulty: Tensor
    flip_beta: Tensor
    correct: Tensor
    reference_correct: Tensor
    idealized_correct: Tensor
    curve: Tensor
    grid: Tensor

    @property
    def idealized_median(self) -> float:
        """Median of R* over the paper's grid of beta."""
        return float(self.grid.median())

    @property
    def alignment_gap(self) -> float:
        """R*, median over the paper's grid of beta, minus R."""
        return float(ranking.alignment_gap(self.grid.median(), self.correct.mean()))


@dataclass(frozen=True)
class DidTable:
    """Differential information over the candidate answers of each prompt.

    Arrays of shape (prompts,) have one entry for each prompt; `chosen_shift` and
    `rejected_shift`, log pi - log pi_ref of each pair's answers, have shape (used,).
    """

    rows: Tensor
    prompt_rows: Tensor
    prompt_of_pair: Tensor
    size: Tensor
    entropy: Tensor
    efficiency: Tensor
    effective_number: Tensor
    policy_entropy_change: Tensor
    chosen_shift: Tensor
    rejected_shift: Tensor


@dataclass(frozen=True)
class Candidates:
    """The distinct answers to each prompt, as places in the stacked (chosen, rejected) arrays.

    Attributes:
        place: Index into `cat(chosen, rejected)`, shape (candidates,).
        prompt: Prompt of each candidate, 0..n_prompts-1, shape (candidates,).
        first_row: The first pair of each prompt, shape (prompts,).
        prompt_of_pair: Prompt of each pair, shape (pairs,).
    """

    place: Tensor
    prompt: Tensor
    first_row: Tensor
    prompt_of_pair: Tensor


def candidates_of(prompts: ArrayLike, chosen: ArrayLike, rejected: ArrayLike) -> Candidates:
    """Collect each prompt's distinct answers; equal answers count once (core 2.3 b).

    Args:
        prompts: Number of each pair's prompt, 0 for the first to appear, shape (pairs,).
        chosen: Text or number of each pair's chosen answer, shape (pairs,).
        rejected: The same of the rejected answer.
    """
    group = np.asarray(prompts, dtype=np.int64)
    _, answer = np.unique(np.concatenate([chosen, rejected]), return_inverse=True)
    both = np.concatenate([group, group])
    _, place = np.unique(both * (len(both) + 1) + answer, return_index=True)
    _, first = np.unique(group, return_index=True)
    parts = (place, both[place], first, group)
    return Candidates(*(torch.from_numpy(part.astype(np.int64)) for part in parts))


def reward_table(scores: PairScores, settings: Settings) -> RewardTable:
    """Implicit rewards beta * log(pi / pi_ref), their margins, and TRL's reward accuracy."""
    used = _effective(scores, settings)
    chosen = rewards.implicit_reward(used.policy_chosen, used.reference_chosen, settings.beta)
    rejected = rewards.implicit_reward(used.policy_rejected, used.reference_rejected, settings.beta)
    return RewardTable(
        rows=scores.rows,
        chosen=chosen,
        rejected=rejected,
        margin=rewards.reward_margin(chosen, rejected),
        accuracy=rewards.reward_accuracy(chosen, rejected),
        length_difference=used.n_chosen - used.n_rejected,
    )


def idealized_curve(scores: PairScores, rater_share: Tensor, settings: Settings) -> IdealizedCurve:
    """R* over `BETA_CURVE` and over the paper's grid; dragging beta does not change it."""
    used = _effective(scores, settings)
    share = ranking.clip_rater_share(rater_share[scores.rows], settings.share_epsilon)
    c = ranking.reference_log_ratio(used.reference_chosen, used.reference_rejected)
    grid = torch.tensor(PAPER_BETAS, dtype=torch.float64)
    return IdealizedCurve(
        BETA_CURVE,
        _idealized_accuracy(used, c, share, BETA_CURVE, settings),
        _idealized_accuracy(used, c, share, grid, settings),
    )


def ranking_table(
    scores: PairScores,
    rater_share: Tensor,
    settings: Settings,
    curve: IdealizedCurve | None = None,
) -> RankingTable:
    """Ranking accuracies, the idealized accuracy over beta, and the flip condition.

    `curve` spares the computation of what does not depend on beta.
    """
    curve = curve or idealized_curve(scores, rater_share, settings)
    used = _effective(scores, settings)
    share = ranking.clip_rater_share(rater_share[scores.rows], settings.share_epsilon)
    c = ranking.reference_log_ratio(used.reference_chosen, used.reference_rejected)
    m = used.policy_chosen - used.policy_rejected
    return RankingTable(
        rows=scores.rows,
        rater_share=share,
        policy_log_ratio=m,
        reference_log_ratio=c,
        loss=sigmoid_loss(m, c, settings.beta, settings.gamma),
        flip_threshold=ranking.flip_threshold(c, settings.beta, settings.gamma),
        difficulty=ranking.flip_difficulty(settings.gamma * c, settings.beta),
        flip_beta=ranking.flip_beta(c, share),
        correct=_ranked(used.policy_chosen, used.policy_rejected, settings),
        reference_correct=_ranked(used.reference_chosen, used.reference_rejected, settings),
        idealized_correct=_idealized(used, c, share, settings.beta, settings),
        curve=curve.accuracy,
        grid=curve.grid,
    )


def did_table(scores: PairScores, candidates: Candidates, settings: Settings) -> DidTable:
    """DID entropy of each prompt's candidate set beside the change of policy entropy.

    A candidate without finite scores is left out, and a prompt with fewer than two left too:
    an entropy over one answer says nothing.
    """
    policy = torch.cat([scores.policy_chosen, scores.policy_rejected])
    reference = torch.cat([scores.reference_chosen, scores.reference_rejected])
    if settings.length_normalised:
        length = torch.cat([scores.n_chosen, scores.n_rejected])
        policy, reference = policy / length, reference / length
    place, prompt, kept = _scored_candidates(policy + reference, candidates)
    policy, reference = policy[place], reference[place]
    did = information.did_entropy_by_group(policy - reference, prompt, len(kept))
    change = information.entropy_change_by_group(policy, reference, prompt, len(kept))
    used = _effective(scores, settings)
    return DidTable(
        rows=scores.rows,
        prompt_rows=candidates.first_row[kept],
        prompt_of_pair=candidates.prompt_of_pair[scores.rows],
        size=did.size,
        entropy=did.entropy,
        efficiency=did.efficiency,
        effective_number=did.effective_number,
        policy_entropy_change=change,
        chosen_shift=used.policy_chosen - used.reference_chosen,
        rejected_shift=used.policy_rejected - used.reference_rejected,
    )


def _effective(scores: PairScores, settings: Settings) -> PairScores:
    used = scores.used()
    return used.length_normalised() if settings.length_normalised else used


def _ranked(chosen: Tensor, rejected: Tensor, settings: Settings) -> Tensor:
    return ranking.ranking_accuracy(chosen, rejected, tie_policy=settings.tie_policy)


def _idealized(
    used: PairScores, c: Tensor, share: Tensor, beta: float, settings: Settings
) -> Tensor:
    if settings.paper_code:
        return ranking.paper_code_idealized_ranking_accuracy(
            used.reference_chosen, used.reference_rejected, share, beta
        )
    return ranking.idealized_ranking_accuracy(c, share, beta)


def _idealized_accuracy(
    used: PairScores, c: Tensor, share: Tensor, betas: Tensor, settings: Settings
) -> Tensor:
    if not settings.paper_code:
        return ranking.idealized_ranking_accuracy_curve(c, share, betas)
    return torch.stack([_idealized(used, c, share, float(b), settings).mean() for b in betas])


def _scored_candidates(total: Tensor, candidates: Candidates) -> tuple[Tensor, Tensor, Tensor]:
    """Places and dense prompt numbers of the finite candidates, and the prompts kept."""
    finite = torch.isfinite(total[candidates.place])
    place, prompt = candidates.place[finite], candidates.prompt[finite]
    count = torch.bincount(prompt, minlength=len(candidates.first_row))
    kept = (count >= 2).nonzero().flatten()
    inside = count[prompt] >= 2
    dense = torch.full_like(count, -1)
    dense[kept] = torch.arange(len(kept))
    return place[inside], dense[prompt[inside]], kept

"""The five quantities against plain arithmetic, and what no transformation may change."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.engine.live import rater_shares
from workbench.engine.settings import PAPER_BETAS, Settings
from workbench.engine.values import (
    BETA_CURVE,
    PairScores,
    candidates_of,
    did_table,
    idealized_curve,
    ranking_table,
    reward_table,
)

logps = st.lists(st.floats(-200, -0.5), min_size=4, max_size=4)
rows = st.lists(logps, min_size=1, max_size=12)
betas = st.floats(0.01, 10)


def scores(table: list[list[float]], lengths: tuple[int, int] = (7, 5)) -> PairScores:
    columns = torch.tensor(table, dtype=torch.float64).reshape(-1, 4).T
    n = columns.shape[1]
    return PairScores(*columns, torch.full((n,), float(lengths[0])), torch.full((n,), lengths[1]))


def swapped(given: PairScores) -> PairScores:
    return PairScores(
        given.policy_rejected, given.policy_chosen, given.reference_rejected,
        given.reference_chosen, given.n_rejected, given.n_chosen,
    )  # fmt: skip


def shares(n: int, value: float = 0.8) -> torch.Tensor:
    return torch.full((n,), value, dtype=torch.float64)


def close(a: Any, b: Any) -> bool:
    return bool(torch.allclose(torch.as_tensor(a), torch.as_tensor(b), rtol=1e-9, atol=1e-9))


@given(rows, betas)
def test_rewards_are_beta_times_the_log_ratio(table: list[list[float]], beta: float) -> None:
    found = reward_table(scores(table), Settings(beta=beta))
    expected = [[beta * (pw - rw), beta * (pl - rl)] for pw, pl, rw, rl in table]
    chosen, rejected = torch.tensor(expected, dtype=torch.float64).T
    assert close(found.chosen, chosen)
    assert close(found.rejected, rejected)
    assert close(found.margin, chosen - rejected)
    assert found.accuracy.tolist() == [
        float(a > b) for a, b in zip(*found_sides(found), strict=True)
    ]
    assert found.length_difference.tolist() == [2.0] * len(table)


def found_sides(found: Any) -> tuple[list[float], list[float]]:
    return found.chosen.tolist(), found.rejected.tolist()


@given(rows, betas)
def test_a_swap_negates_margin_and_log_ratios_and_leaves_did(
    table: list[list[float]], beta: float
) -> None:
    given_scores, live = scores(table), Settings(beta=beta)
    n, candidates = len(table), two_each(len(table))
    one, other = (reward_table(each, live) for each in (given_scores, swapped(given_scores)))
    assert torch.equal(one.margin, -other.margin)
    a, b = (ranking_table(each, shares(n), live) for each in (given_scores, swapped(given_scores)))
    assert torch.equal(a.policy_log_ratio, -b.policy_log_ratio)
    assert torch.equal(a.reference_log_ratio, -b.reference_log_ratio)
    did, turned = (
        did_table(each, candidates, live) for each in (given_scores, swapped(given_scores))
    )
    assert close(did.entropy, turned.entropy)
    assert close(did.policy_entropy_change, turned.policy_entropy_change)


@given(rows, st.floats(-50, 50), st.floats(-50, 50))
def test_a_constant_of_the_prompt_changes_no_margin_ranking_or_entropy(
    table: list[list[float]], policy: float, reference: float
) -> None:
    moved = [[pw + policy, pl + policy, rw + reference, rl + reference] for pw, pl, rw, rl in table]
    n, live = len(table), Settings()
    one, other = (reward_table(scores(each), live).margin for each in (table, moved))
    assert torch.allclose(one, other, atol=1e-9)
    a, b = (ranking_table(scores(each), shares(n), live) for each in (table, moved))
    assert torch.allclose(a.loss, b.loss, atol=1e-9)
    did = [did_table(scores(each), two_each(n), live).entropy for each in (table, moved)]
    assert torch.allclose(*did, atol=1e-9)


@given(rows, betas)
def test_margins_scale_with_beta_and_did_does_not_know_it(
    table: list[list[float]], beta: float
) -> None:
    unit, live = Settings(beta=1.0), Settings(beta=beta)
    assert close(reward_table(scores(table), live).margin,
                 beta * reward_table(scores(table), unit).margin)  # fmt: skip
    one, other = (did_table(scores(table), two_each(len(table)), s) for s in (unit, live))
    assert torch.equal(one.entropy, other.entropy)


@given(rows, betas, st.floats(0, 2))
def test_the_loss_lies_at_or_below_the_flip_threshold_iff_the_pair_is_ranked_correctly(
    table: list[list[float]], beta: float, gamma: float
) -> None:
    found = ranking_table(scores(table), shares(len(table)), Settings(beta=beta, gamma=gamma))
    for m, c, loss, flip, right in zip(
        found.policy_log_ratio.tolist(), found.reference_log_ratio.tolist(), found.loss.tolist(),
        found.flip_threshold.tolist(), found.correct.tolist(), strict=True,
    ):  # fmt: skip
        expected = (
            math.log1p(math.exp(-abs(z))) + max(-z, 0)
            if (z := beta * (m + gamma * c))
            else math.log(2)
        )
        assert math.isclose(loss, expected, rel_tol=1e-9, abs_tol=1e-12)
        # Where the exponential is below the last digit of the loss, both are equal.
        if abs(m) * beta > 1e-6 and flip > 1e-9 and beta * abs(m + gamma * c) < 30:
            assert (loss <= flip) == (right == 1)


@pytest.mark.parametrize("paper_code", [False, True])
def test_the_idealized_curve_is_the_mean_of_the_pairs_at_each_beta(paper_code: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    table = (-60 * torch.rand(200, 4, generator=generator, dtype=torch.float64) - 1).tolist()
    share = torch.rand(200, generator=generator, dtype=torch.float64)
    live = Settings(paper_code=paper_code)
    curve = idealized_curve(scores(table), share, live)
    assert len(curve.betas) == len(BETA_CURVE) == len(curve.accuracy)
    for place in (0, 40, 80, 120):
        at = ranking_table(scores(table), share, live.replaced(beta=float(BETA_CURVE[place])))
        assert math.isclose(float(curve.accuracy[place]), float(at.idealized_correct.mean()))
    for place, beta in enumerate(PAPER_BETAS):
        at = ranking_table(scores(table), share, live.replaced(beta=beta))
        assert math.isclose(float(curve.grid[place]), float(at.idealized_correct.mean()))
    assert math.isclose(at.alignment_gap, float(curve.grid.median() - at.correct.mean()))


@pytest.mark.parametrize(("policy", "value"), [("correct", 1.0), ("wrong", 0.0), ("half", 0.5)])
def test_an_exact_tie_counts_what_the_tie_policy_says(policy: Any, value: float) -> None:
    tie = scores([[-3.0, -3.0, -5.0, -5.0]])
    found = ranking_table(tie, shares(1), Settings(tie_policy=policy))
    assert (found.correct.item(), found.reference_correct.item()) == (value, value)


def test_length_normalisation_divides_every_sum_by_its_own_length() -> None:
    live = Settings(beta=1.0, length_normalised=True)
    found = reward_table(scores([[-14.0, -10.0, -7.0, -5.0]], lengths=(7, 5)), live)
    assert found.chosen.item() == pytest.approx(-14 / 7 + 7 / 7)
    assert found.rejected.item() == pytest.approx(-10 / 5 + 5 / 5)


def test_pairs_that_cannot_be_used_are_left_out_and_never_count_as_zero() -> None:
    nan, inf = math.nan, math.inf
    given_scores = PairScores(
        *(
            torch.tensor(column, dtype=torch.float64)
            for column in zip(
                [-1.0, -2.0, -1.5, -2.5, 3.0, 4.0],
                [nan, -2.0, -1.5, -2.5, 3.0, 4.0],
                [-1.0, -inf, -1.5, -2.5, 3.0, 4.0],
                [-1.0, -2.0, -1.5, -2.5, 0.0, 4.0],
                [-1.0, -2.0, -1.5, -2.5, nan, 4.0],
                [-9.0, -2.0, -1.5, -2.5, 3.0, 4.0],
                strict=True,
            )
        )
    )
    live = Settings(beta=1.0)
    assert given_scores.rows.tolist() == [0, 5]
    assert reward_table(given_scores, live).margin.tolist() == [0.5 - 0.5, -7.5 - 0.5]
    ranking = ranking_table(given_scores, shares(6), live)
    assert ranking.rows.tolist() == [0, 5]
    assert ranking.curve.isfinite().all()
    did = did_table(given_scores, two_each(6), live)
    assert did.rows.tolist() == [0, 5]
    assert did.entropy.isfinite().all()
    # Prompts 1 and 2 have one finite answer left, and an entropy over one answer says nothing.
    assert did.prompt_rows.tolist() == [0, 3, 4, 5]


def test_a_set_without_a_usable_pair_gives_empty_tables_and_nan_never_zero() -> None:
    nothing, live = scores([]), Settings()
    ranking = ranking_table(nothing, shares(0), live)
    assert len(reward_table(nothing, live).margin) == len(ranking.loss) == 0
    assert math.isnan(ranking.idealized_median)
    assert math.isnan(ranking.alignment_gap)
    assert len(did_table(nothing, two_each(0), live).entropy) == 0


@settings(max_examples=60)
@given(st.data())
def test_candidates_are_each_prompts_distinct_answers(data: Any) -> None:
    n = data.draw(st.integers(0, 8))
    raw = data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    first = list(dict.fromkeys(raw))
    prompts = [first.index(each) for each in raw]
    texts = st.lists(st.sampled_from("abc"), min_size=n, max_size=n)
    chosen, rejected = data.draw(texts), data.draw(texts)
    found = candidates_of(prompts, chosen, rejected)
    both = [*zip(prompts, chosen, strict=True), *zip(prompts, rejected, strict=True)]
    listed = [both[place] for place in found.place.tolist()]
    assert sorted(listed) == sorted(set(both))
    assert found.prompt.tolist() == [prompt for prompt, _ in listed]
    assert found.first_row.tolist() == [prompts.index(g) for g in range(len(first))]
    assert found.prompt_of_pair.tolist() == prompts


def test_did_of_a_prompt_is_the_entropy_of_its_distinct_answers_by_hand() -> None:
    """Two pairs of one prompt that share an answer: three candidates, not four."""
    table = [[-1.0, -2.0, -1.5, -3.0], [-1.0, -4.0, -1.5, -2.0]]
    candidates = candidates_of([0, 0], ["a", "a"], ["b", "c"])
    did = did_table(scores(table), candidates, Settings())
    ratios = np.array([-1 + 1.5, -2 + 3, -4 + 2])
    q = np.exp(ratios) / np.exp(ratios).sum()
    assert did.size.tolist() == [3]
    assert did.entropy.item() == pytest.approx(-(q * np.log(q)).sum())
    assert did.efficiency.item() == pytest.approx(-(q * np.log(q)).sum() / np.log(3))

    def entropy(logp: list[float]) -> float:
        p = np.exp(logp) / np.exp(logp).sum()
        return float(-(p * np.log(p)).sum())

    change = entropy([-1, -2, -4]) - entropy([-1.5, -3, -2])
    assert did.policy_entropy_change.item() == pytest.approx(change)
    assert did.chosen_shift.tolist() == [0.5, 0.5]
    assert did.rejected_shift.tolist() == [1.0, -2.0]


def test_equal_models_give_the_largest_entropy() -> None:
    did = did_table(scores([[-3.0, -5.0, -3.0, -5.0]]), two_each(1), Settings())
    assert did.entropy.item() == pytest.approx(math.log(2))
    assert did.efficiency.item() == pytest.approx(1.0)
    assert did.policy_entropy_change.item() == pytest.approx(0.0)


def test_rater_shares_come_from_the_source_and_elsewhere_from_the_constant() -> None:
    def pair(i: int, **evidence: Any) -> PreferencePair:
        return PreferencePair(pair_id=f"p{i}", prompt="q", chosen="a", rejected="b", **evidence)

    pairs = PreferenceSet(
        "s",
        [
            pair(0, alpha=0.25),
            pair(1, votes_chosen=3, votes_rejected=1),
            pair(2, votes_chosen=0, votes_rejected=0),
            pair(3, chosen_score=2.0, rejected_score=1.0),
            pair(4, chosen_score=2.0),
            pair(5, chosen_score=-900.0, rejected_score=900.0),
        ],
    )
    shared = Settings(share_constant=0.6)
    raters = rater_shares(pairs, shared)
    assert raters.tolist() == [0.25, 0.75, 0.6, 0.6, 0.6, 0.6]
    bradley_terry = rater_shares(pairs, shared.replaced(share_source="scores"))
    sigmoid = 1 / (1 + math.exp(-1))
    assert bradley_terry.tolist() == pytest.approx([0.6, 0.6, 0.6, sigmoid, 0.6, 0.0])
    assert rater_shares(pairs, shared.replaced(share_source="constant")).tolist() == [0.6] * 6


def two_each(n: int) -> Any:
    """Every pair its own prompt with two answers."""
    return candidates_of(list(range(n)), [2 * i for i in range(n)], [2 * i + 1 for i in range(n)])

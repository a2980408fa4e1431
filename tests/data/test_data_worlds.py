"""Synthetic worlds against plain computations."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from workbench.data.pairs import PreferencePair
from workbench.data.worlds import World, WorldShape, draw_pairs, draw_world
from workbench.errors import DataError

SHAPE = WorldShape(prompts=5, answers=4)
MOST = 5 * 6


def reward_of(world: World, pair: PreferencePair, answer: str) -> float:
    row = world.prompts.index(pair.prompt_text)
    return float(world.reward[row, world.answers[row].index(answer)])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 64), st.integers(2, 40))
def test_a_world_has_what_its_shape_says(seed: int, prompts: int, answers: int) -> None:
    world = draw_world(WorldShape(prompts, answers), seed)
    assert len(set(world.prompts)) == prompts
    assert all(len(set(row)) == answers for row in world.answers)
    assert world.reward.dtype == world.reference_logp.dtype == torch.float64
    total = world.reference_logp.exp().sum(dim=-1)
    assert torch.allclose(total, torch.ones(prompts, dtype=torch.float64), rtol=0, atol=1e-12)


def test_spreads_and_agreement_are_those_asked_for() -> None:
    shape = WorldShape(
        64, 60, reward_spread=2.0, reference_spread=1.5, agreement=0.6, length_cost=0
    )
    world = draw_world(shape, seed=3)
    assert float(world.reward.std(unbiased=False)) == pytest.approx(2.0, rel=1e-9)
    logits = world.reference_logp - world.reference_logp.mean(dim=-1, keepdim=True)
    reward = world.reward - world.reward.mean(dim=-1, keepdim=True)
    assert float(logits.std()) == pytest.approx(1.5, abs=0.1)
    found = torch.corrcoef(torch.stack([logits.flatten(), reward.flatten()]))[0, 1]
    assert float(found) == pytest.approx(0.6, abs=0.05)


def test_long_answers_cost_the_reference_what_was_asked() -> None:
    free, dear = (draw_world(replace(SHAPE, length_cost=cost), 1) for cost in (0.0, 2.0))
    words = torch.tensor([[len(a.split(" and ")) for a in row] for row in free.answers]).double()
    difference = free.reference_logp - dear.reference_logp - 2.0 * words
    assert float((difference - difference[:, :1]).abs().max()) < 1e-12


def test_the_seed_decides_all() -> None:
    one, same, other = (draw_world(SHAPE, seed) for seed in (1, 1, 2))
    assert (one.prompts, one.answers, one.attributes) == (
        same.prompts,
        same.answers,
        same.attributes,
    )
    assert torch.equal(one.reward, same.reward)
    assert not torch.equal(one.reward, other.reward)
    assert draw_pairs(one, 20, 4) == draw_pairs(same, 20, 4) != draw_pairs(one, 20, 5)


def test_pairs_carry_the_exact_bradley_terry_share() -> None:
    world = draw_world(SHAPE, 0)
    pairs = draw_pairs(world, MOST, 0)
    assert (
        len({(p.prompt_text, frozenset((p.chosen_text, p.rejected_text))) for p in pairs}) == MOST
    )
    for pair in pairs:
        margin = reward_of(world, pair, pair.chosen_text) - reward_of(
            world, pair, pair.rejected_text
        )
        assert margin > 0
        assert pair.alpha == pytest.approx(sigmoid(margin), rel=1e-12)
        assert pair.chosen_score == reward_of(world, pair, pair.chosen_text)


def test_a_majority_of_raters_chooses_and_its_votes_are_drawn_from_the_share() -> None:
    world = draw_world(WorldShape(40, 12, reward_spread=0.5), 0)
    pairs = draw_pairs(world, 2000, 0, raters=5)
    better = votes = expected = 0.0
    for pair in pairs:
        assert pair.alpha is None
        assert (pair.votes_chosen or 0) > (pair.votes_rejected or 0)
        assert (pair.votes_chosen or 0) + (pair.votes_rejected or 0) == 5
        margin = reward_of(world, pair, pair.chosen_text) - reward_of(
            world, pair, pair.rejected_text
        )
        better += margin > 0
        share = pair.rater_share or 0.0
        votes += share if margin > 0 else 1 - share
        expected += sigmoid(abs(margin))
    assert 1000 < better < 2000
    assert votes / 2000 == pytest.approx(expected / 2000, abs=0.02)


def test_a_tie_falls_to_the_better_answer() -> None:
    world = draw_world(SHAPE, 0)
    for pair in draw_pairs(world, MOST, 0, raters=2):
        if pair.rater_share == 0.5:
            better = reward_of(world, pair, pair.chosen_text)
            assert better > reward_of(world, pair, pair.rejected_text)


def test_pairs_by_the_reference_are_likelier_ones() -> None:
    world = draw_world(WorldShape(20, 10), 0)

    def mean_logp(by_reference: bool) -> float:
        pairs = draw_pairs(world, 60, 0, by_reference=by_reference)
        rows = [world.prompts.index(p.prompt_text) for p in pairs]
        columns = [world.answers[r].index(p.chosen_text) for r, p in zip(rows, pairs, strict=True)]
        return float(world.reference_logp[rows, columns].mean())

    assert mean_logp(by_reference=True) > mean_logp(by_reference=False) + 1


def test_attributes_are_carried_on_request_alone() -> None:
    world = draw_world(WorldShape(20, 4), 0)
    assert all(not pair.attributes for pair in draw_pairs(world, 10))
    pairs = draw_pairs(world, 120, attributes=True)
    kinds = {name: pairs.attribute_kind(name) for name in pairs.attribute_names()}
    assert kinds == {"age": "continuous", "gender": "binary", "region": "categorical"}
    rows = {pair.prompt_text: pair.attributes for pair in pairs}
    assert rows == dict(zip(world.prompts, world.attributes, strict=True))


def test_an_attributes_effect_spreads_the_rewards_of_older_askers() -> None:
    plain, slanted = (
        draw_world(WorldShape(40, 6, attribute_effect=effect), 0) for effect in (0.0, 1.0)
    )
    age = torch.tensor([float(str(a["age"])) for a in slanted.attributes]).double()
    ratio = (slanted.reward / plain.reward).log()
    assert torch.allclose(ratio, ((age - 49) / 31)[:, None].expand_as(ratio), atol=1e-6)


def ratios(logp: Tensor) -> Tensor:
    return logp[:, :, None] - logp[:, None, :]


@pytest.mark.parametrize("beta", [0.05, 1.0, 20.0])
def test_the_optimum_has_theorem_3_1s_ratios(beta: float) -> None:
    world = draw_world(SHAPE, 0)
    expected = ratios(world.reference_logp) + torch.logit(world.rater_share()) / beta
    assert torch.allclose(ratios(world.optimum(beta)), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": 65}, "prompts is 65"),
        ({"answers": 1}, "answers is 1"),
        ({"agreement": 1.5}, "agreement is 1.5"),
        ({"reward_spread": -1.0}, "reward_spread is -1.0"),
    ],
)
def test_a_wrong_shape_is_refused_with_its_number(change: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        replace(SHAPE, **change)  # type: ignore[arg-type]


def test_more_pairs_than_there_are_and_a_bad_beta_are_refused() -> None:
    world = draw_world(SHAPE, 0)
    with pytest.raises(DataError, match="the world has 30 pairs"):
        draw_pairs(world, MOST + 1)
    assert len(draw_pairs(world, 0)) == 0
    with pytest.raises(ValueError, match="beta is 0"):
        world.optimum(0.0)
    with pytest.raises(DataError, match="rewards of shape"):
        replace(world, reward=world.reward[:2])

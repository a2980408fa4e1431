"""The softmax policy and the exact measures against sums written out by hand."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from workbench.data.pairs import PreferencePair, build_pair
from workbench.data.worlds import World, WorldShape, draw_pairs, draw_world
from workbench.engine.threads import one_thread
from workbench.errors import Cancelled, TrainingError
from workbench.objectives.dpo import dpo_gamma_loss
from workbench.training import exact
from workbench.training.exact import SoftmaxPolicy
from workbench.training.plan import TrainingPlan
from workbench.training.trainer import Trainer

WORLD = draw_world(WorldShape(3, 4), seed=5)
PAIRS = list(draw_pairs(WORLD, 12, 1))
small = st.lists(st.floats(-4, 4), min_size=4, max_size=4)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """On a busy machine the second thread of so small a tensor is mostly waited for."""
    with one_thread():
        yield


def pair_of(prompt: str, chosen: str, rejected: str, pair_id: str = "mine") -> PreferencePair:
    texts = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    return build_pair({"pair_id": pair_id, **texts})


def density(logits: list[float]) -> Tensor:
    return torch.log_softmax(torch.tensor(logits, dtype=torch.float64), dim=-1)


def moved(policy: SoftmaxPolicy, seed: int = 0) -> SoftmaxPolicy:
    draws = torch.Generator().manual_seed(seed)
    shift = policy.state()["shift"]
    policy.load_state({"shift": torch.randn(shift.shape, generator=draws, dtype=torch.float64)})
    return policy


def test_scores_are_those_of_the_world() -> None:
    policy = moved(SoftmaxPolicy.of_world(WORLD))
    policy.prepare(PAIRS)
    with torch.no_grad():
        found = policy.pair_logps(PAIRS)
    logp = policy.world_logps(WORLD)
    for place, pair in enumerate(PAIRS):
        row = WORLD.prompts.index(pair.prompt_text)
        chosen, rejected = (
            WORLD.answers[row].index(text) for text in (pair.chosen_text, pair.rejected_text)
        )
        assert float(found.policy_chosen[place]) == pytest.approx(
            float(logp[row, chosen]), rel=1e-12
        )
        assert float(found.require("reference_rejected")[place]) == pytest.approx(
            float(WORLD.reference_logp[row, rejected]), rel=1e-12
        )
    assert torch.equal(found.require("n_chosen"), torch.ones(12, dtype=torch.float64))
    assert not policy.reads_length


def test_the_gradient_is_that_of_finite_differences() -> None:
    policy = moved(SoftmaxPolicy.of_world(WORLD))

    def loss() -> Tensor:
        return dpo_gamma_loss(policy.pair_logps(PAIRS), 0.7, 0.4).mean()

    found = torch.autograd.grad(loss(), policy.parameters())[0]
    state, step = policy.state()["shift"], 1e-6
    for place in itertools.product(range(3), range(4)):
        ends = []
        for sign in (1, -1):
            nudged = state.clone()
            nudged[place] += sign * step
            policy.load_state({"shift": nudged})
            ends.append(float(loss().detach()))
        assert float(found[place]) == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8)


def test_a_new_answer_joins_as_the_least_likely_and_moves_no_log_ratio() -> None:
    policy = moved(SoftmaxPolicy.of_world(WORLD))
    before = policy.pair_logps(PAIRS)
    prompt, known = WORLD.prompts[0], WORLD.answers[0][0]
    mine = pair_of(prompt, "quite another answer", known)
    assert policy.prepare([mine]) == {}
    after, joined = policy.pair_logps(PAIRS), policy.pair_logps([mine])
    assert torch.allclose(before.policy_log_ratio, after.policy_log_ratio, rtol=0, atol=1e-12)
    assert torch.allclose(before.reference_log_ratio, after.reference_log_ratio, rtol=0, atol=1e-12)
    likely = WORLD.reference_logp[0]
    ratio = float(joined.require("reference_chosen") - joined.require("reference_rejected"))
    assert ratio == pytest.approx(float(likely.min() - likely[0]), abs=1e-12)
    assert policy.world_logps(WORLD).exp().sum(dim=-1).tolist() == pytest.approx([1.0] * 3)


def test_a_new_prompts_answers_are_equally_likely() -> None:
    policy = SoftmaxPolicy.of_world(WORLD)
    found = policy.pair_logps([pair_of("Why?", "Because.", "No idea.")])
    assert float(found.policy_chosen.detach()) == pytest.approx(math.log(0.5))
    assert float(found.reference_log_ratio) == 0.0


def test_a_full_table_leaves_pairs_out_with_the_reason() -> None:
    policy = SoftmaxPolicy.of_world(WORLD)
    many = [pair_of(WORLD.prompts[0], f"c{n}", f"r{n}", f"p{n}") for n in range(6)]
    assert list(policy.prepare(many)) == ["p4", "p5"]
    prompts = [pair_of(f"prompt {n}", "a", "b", f"q{n}") for n in range(20)]
    left_out = policy.prepare(prompts)
    assert list(left_out) == ["q16", "q17", "q18", "q19"]
    assert "start anew" in left_out["q16"]


def test_a_rewind_to_before_an_answer_joined_finds_it_where_the_reference_puts_it() -> None:
    policy = SoftmaxPolicy.of_world(WORLD)
    before = policy.state()
    mine = pair_of(WORLD.prompts[1], "a late answer", WORLD.answers[1][2])
    Trainer(policy, [mine], TrainingPlan(learning_rate=0.1)).step()
    assert float(policy.pair_logps([mine]).margin.detach()) != 0.0
    policy.load_state(before)
    assert float(policy.pair_logps([mine]).margin.detach()) == 0.0


@pytest.mark.parametrize("state", [{}, {"shift": torch.zeros(2, 2)}, {"other": torch.zeros(1)}])
def test_anothers_weights_are_refused(state: dict[str, Tensor]) -> None:
    with pytest.raises(TrainingError, match="not those of a table"):
        SoftmaxPolicy.of_world(WORLD).load_state(state)


def test_reading_can_be_cancelled_and_tells_how_far_it_is() -> None:
    policy, told = SoftmaxPolicy.of_world(WORLD), []
    policy.prepare(PAIRS, on_pair=lambda done, of: told.append((done, of)))
    assert told[0] == (1, 12)
    assert told[-1] == (12, 12)
    with pytest.raises(Cancelled):
        policy.prepare(PAIRS, cancelled=lambda: True)


def test_a_policy_over_pairs_alone_starts_even() -> None:
    policy = SoftmaxPolicy.of_pairs(PAIRS)
    found = policy.pair_logps(PAIRS)
    assert float(found.reference_log_ratio.abs().max()) == 0.0
    assert policy.kl(PAIRS) == 0.0
    assert moved(policy).kl(PAIRS) > 0.01


def test_it_writes_the_answers_as_often_as_it_finds_them_likely() -> None:
    policy = moved(SoftmaxPolicy.of_world(WORLD), 3)
    logp = policy.world_logps(WORLD)[1]
    written = [policy.write(WORLD.prompts[1], seed=seed) for seed in range(2000)]
    for place, answer in enumerate(WORLD.answers[1]):
        share = float(logp[place].exp())
        assert written.count(answer) / 2000 == pytest.approx(share, abs=0.04)
    best = WORLD.answers[1][int(WORLD.reference_logp[1].argmax())]
    assert policy.write(WORLD.prompts[1], temperature=0, reference=True) == best
    with pytest.raises(TrainingError, match="knows no answer"):
        policy.write("never asked")


# Exact measures -----------------------------------------------------------------------


def wins_by_hand(p: list[float], q: list[float], reward: list[float]) -> float:
    total = 0.0
    for i, j in itertools.product(range(len(p)), range(len(q))):
        total += p[i] * q[j] * (1.0 if reward[i] > reward[j] else 0.5 * (reward[i] == reward[j]))
    inside, other = sum(p), sum(q)
    return total + inside * (1 - other) + 0.5 * (1 - inside) * (1 - other)


@given(small, small, st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=4, max_size=4))
def test_the_win_rate_is_the_sum_over_all_pairs(
    left: list[float], right: list[float], reward: list[float]
) -> None:
    p, q = density(left) + math.log(0.8), density(right)
    found = float(exact.win_rate(p, q, torch.tensor(reward, dtype=torch.float64)))
    expected = wins_by_hand(p.exp().tolist(), q.exp().tolist(), reward)
    assert found == pytest.approx(expected, abs=1e-12)
    back = float(exact.win_rate(q, p, torch.tensor(reward, dtype=torch.float64)))
    assert found + back == pytest.approx(1.0, abs=1e-12)


def test_a_policy_ties_with_itself_and_loses_with_what_it_writes_outside() -> None:
    logp = WORLD.reference_logp
    even = exact.win_rate(logp, logp, WORLD.reward)
    assert torch.allclose(even, torch.full((3,), 0.5, dtype=torch.float64), atol=1e-12)
    leaky = exact.win_rate(logp + math.log(0.25), logp, WORLD.reward)
    assert torch.allclose(leaky, torch.full((3,), 0.125, dtype=torch.float64), atol=1e-12)
    assert exact.outside_mass(logp + math.log(0.25)).tolist() == pytest.approx([0.75] * 3)


@given(small, small)
def test_the_divergence_and_the_mean_are_sums(left: list[float], right: list[float]) -> None:
    p, q = density(left), density(right)
    by_hand = sum(math.exp(a) * (a - b) for a, b in zip(p.tolist(), q.tolist(), strict=True))
    assert float(exact.kl_divergence(p, q)) == pytest.approx(by_hand, abs=1e-12)
    values = torch.arange(4.0, dtype=torch.float64)
    mean = sum(math.exp(a) * place for place, a in enumerate(p.tolist()))
    assert float(exact.expectation(p + math.log(0.5), values)) == pytest.approx(mean, abs=1e-12)


def test_an_impossible_answer_adds_nothing() -> None:
    p = torch.tensor([0.0, -math.inf], dtype=torch.float64)
    q = torch.tensor([math.log(0.5)] * 2, dtype=torch.float64)
    assert float(exact.kl_divergence(p, q)) == pytest.approx(math.log(2))
    assert float(exact.expectation(p, torch.tensor([3.0, math.inf]).double())) == 3.0


def accuracy_by_hand(world: World, right: Callable[[int, int, int], bool]) -> float:
    found = [
        right(row, i, j)
        for row in range(len(world.prompts))
        for i, j in itertools.permutations(range(world.size), 2)
        if world.reward[row, i] > world.reward[row, j]
    ]
    return sum(found) / len(found)


@pytest.mark.parametrize("beta", [0.1, 1.0, 5.0])
def test_accuracies_count_every_pair_once(beta: float) -> None:
    logp = WORLD.reference_logp
    plain = accuracy_by_hand(WORLD, lambda row, i, j: bool(logp[row, i] >= logp[row, j]))
    assert float(exact.expected_ranking_accuracy(logp, WORLD.reward)) == pytest.approx(plain)
    best = WORLD.optimum(beta)
    ideal = accuracy_by_hand(WORLD, lambda row, i, j: bool(best[row, i] > best[row, j]))
    assert float(exact.exact_idealized_accuracy(WORLD, beta)) == pytest.approx(ideal)


@pytest.mark.parametrize("beta", [0.1, 1.0, 5.0])
def test_the_population_loss_is_least_at_theorem_3_1s_optimum(beta: float) -> None:
    found = exact.fit_population(WORLD, beta)
    assert float((found - WORLD.optimum(beta)).abs().max()) < 1e-5


def test_other_raters_have_another_optimum() -> None:
    found = exact.fit_population(WORLD, 1.0, WORLD.rater_share().transpose(1, 2))
    assert float((found - WORLD.optimum(1.0)).abs().max()) > 1
    opposite = torch.log_softmax(WORLD.reference_logp - WORLD.reward, dim=-1)
    assert float((found - opposite).abs().max()) < 1e-5


def test_training_on_drawn_pairs_approaches_what_the_raters_want() -> None:
    policy = SoftmaxPolicy.of_world(WORLD)
    pairs = list(draw_pairs(WORLD, 18))
    settings: dict[str, Any] = {"hyperparameters": {"beta": 1.0}, "batch_size": 18}
    trainer = Trainer(policy, pairs, TrainingPlan(learning_rate=0.1, evaluate_every=1, **settings))
    records = [trainer.step() for _ in range(60)]
    assert records[0].kl == 0.0
    assert records[-1].kl > 0.1
    assert records[-1].loss < 0.3 < records[0].loss
    wins = exact.win_rate(policy.world_logps(WORLD), WORLD.reference_logp, WORLD.reward)
    assert float(wins.mean()) > 0.6

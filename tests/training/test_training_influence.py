from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from workbench.data.pairs import PreferencePair
from workbench.errors import Cancelled, TrainingError
from workbench.training.exact import SoftmaxPolicy
from workbench.training.influence import Influences, Moment, margin_influences, plan_loss
from workbench.training.language_model import LanguageModelPolicy
from workbench.training.plan import TrainingPlan
from workbench.training.policy import TrainablePolicy

TOPICS = ("cat", "dog", "fox", "town", "mat")


def some_pairs() -> list[PreferencePair]:
    """Three prompts, of two of which several pairs share answers, some against one another."""
    rows = [
        ("tell me", "the cat sat", "a dog"),
        ("tell me", "a dog", "no"),
        ("tell me", "a dog", "the cat sat"),
        ("why", "because the fox", "no"),
        ("why", "no", "the town"),
        ("who", "the person", "the log"),
    ]
    return [
        PreferencePair(pair_id=f"p{i}", prompt=prompt, chosen=chosen, rejected=rejected)
        for i, (prompt, chosen, rejected) in enumerate(rows)
    ]


def table_policy() -> SoftmaxPolicy:
    policy = SoftmaxPolicy.of_pairs(some_pairs())
    (weights,) = policy.parameters()
    with torch.no_grad():
        weights.copy_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(0)))
    return policy


def language_policy(loaded: Any) -> LanguageModelPolicy:
    policy = LanguageModelPolicy(loaded, blocks=1, rank=2, seed=0)
    with torch.no_grad():
        for weights in policy.parameters():
            weights.add_(0.05 * torch.randn(weights.shape, generator=torch.manual_seed(1)))
    return policy


@pytest.fixture(params=["table", "language model"])
def policy(request: pytest.FixtureRequest) -> TrainablePolicy:
    if request.param == "table":
        return table_policy()
    return language_policy(request.getfixturevalue("tiny_loaded"))


def margin(policy: TrainablePolicy, pair: PreferencePair) -> float:
    policy.prepare([pair])
    with torch.no_grad():
        return float(policy.pair_logps([pair]).margin)


def after_a_step(
    policy: TrainablePolicy, plan: TrainingPlan, pair: PreferencePair, target: PreferencePair,
    rate: float,
) -> float:  # fmt: skip
    """The target's margin after one step of plain descent on one pair, which is then undone."""
    before = policy.state()
    policy.prepare([pair])
    loss = plan_loss(policy, plan, some_pairs())(pair).sum()
    gradients = torch.autograd.grad(loss, policy.parameters(), allow_unused=True)
    with torch.no_grad():
        for weights, gradient in zip(policy.parameters(), gradients, strict=True):
            if gradient is not None:
                weights -= rate * gradient
    found = margin(policy, target)
    policy.load_state(before)
    return found


def asked(policy: TrainablePolicy, plan: TrainingPlan, target: int, **options: Any) -> Influences:
    pairs = some_pairs()
    loss = plan_loss(policy, plan, pairs)
    return margin_influences(policy, pairs, pairs[target], loss, **options)


def measured(policy: TrainablePolicy, plan: TrainingPlan, target: int, rate: float) -> torch.Tensor:
    """Central differences of the target's margin along each pair's descent step."""
    pairs = some_pairs()
    up, down = (
        torch.tensor(
            [after_a_step(policy, plan, pair, pairs[target], sign * rate) for pair in pairs],
            dtype=torch.float64,
        )
        for sign in (1, -1)
    )
    return (up - down) / (2 * rate)


def agree(found: torch.Tensor, expected: torch.Tensor) -> bool:
    scale = float(expected.abs().max())
    return scale > 0 and bool((found - expected).abs().max() < 2e-3 * scale)


# The promise ---------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["dpo", "ipo", "simpo", "kto"])
def test_a_small_step_on_a_pair_moves_the_margin_by_the_inner_product(
    objective: str, policy: TrainablePolicy
) -> None:
    plan = TrainingPlan(objective=objective)
    rate = 1e-4 if isinstance(policy, SoftmaxPolicy) else 2e-2
    rate = rate / 30 if objective == "ipo" else rate
    assert agree(asked(policy, plan, 0).scores, measured(policy, plan, 0, rate))


@pytest.mark.parametrize(
    "sabotage",
    [
        lambda scores: -scores,
        lambda scores: scores.roll(1),
        lambda scores: scores * (torch.arange(len(scores)) != 1),
    ],
)
def test_sabotaged_scores_are_found_out(
    sabotage: Callable[[torch.Tensor], torch.Tensor], policy: TrainablePolicy
) -> None:
    plan = TrainingPlan()
    rate = 1e-4 if isinstance(policy, SoftmaxPolicy) else 2e-2
    expected = measured(policy, plan, 0, rate)
    assert not agree(sabotage(asked(policy, plan, 0).scores), expected)


def test_over_a_whole_run_the_influences_add_up_to_what_the_margin_did() -> None:
    """TracIn's ideal form: each step's own pair at that step's weights."""
    policy, plan, pairs = table_policy(), TrainingPlan(), some_pairs()
    loss, rate = plan_loss(policy, plan, pairs), 0.02
    begun, total = margin(policy, pairs[0]), 0.0
    for step in range(60):
        pair = pairs[step % len(pairs)]
        moment = Moment(policy.state(), rate)
        total += float(margin_influences(policy, [pair], pairs[0], loss, [moment]).scores)
        gradients = torch.autograd.grad(loss(pair).sum(), policy.parameters())
        with torch.no_grad():
            for weights, gradient in zip(policy.parameters(), gradients, strict=True):
                weights -= rate * gradient
    moved = margin(policy, pairs[0]) - begun
    assert abs(moved) > 1e-4
    assert total == pytest.approx(moved, rel=0.02)


def test_moments_count_by_their_learning_rates(policy: TrainablePolicy) -> None:
    plan = TrainingPlan()
    here = asked(policy, plan, 0)
    state = policy.state()
    moments = [Moment(state, 0.5), Moment(state, 0.25)]
    found = asked(policy, plan, 0, moments=moments)
    torch.testing.assert_close(found.scores, 0.75 * here.scores)
    assert (here.moments, found.moments) == (1, 2)


def test_modifiers_and_moved_references_take_part() -> None:
    policy, pairs = table_policy(), some_pairs()
    js = TrainingPlan(divergence="js")
    assert agree(asked(policy, js, 0).scores, measured(policy, js, 0, 1e-4))
    moved = {name: 0.5 * weights for name, weights in policy.state().items()}
    plan = TrainingPlan()
    loss = plan_loss(policy, plan, pairs, reference=moved)
    with_moved = margin_influences(policy, pairs, pairs[0], loss).scores
    assert not torch.allclose(with_moved, asked(policy, plan, 0).scores)


# What it leaves alone ------------------------------------------------------------------


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_the_weights_are_the_same_to_the_bit_afterwards(policy: TrainablePolicy) -> None:
    before = policy.state()
    elsewhere = {name: weights + 1 for name, weights in before.items()}
    asked(policy, TrainingPlan(), 0, moments=[Moment(elsewhere)])
    assert equal(policy.state(), before)
    assert all(weights.grad is None for weights in policy.parameters())


def test_cancelled_in_the_middle_it_stops_and_puts_the_weights_back() -> None:
    policy, seen = table_policy(), list[tuple[int, int]]()
    before = policy.state()
    elsewhere = {name: weights + 1 for name, weights in before.items()}
    with pytest.raises(Cancelled):
        asked(
            policy, TrainingPlan(), 0, moments=[Moment(elsewhere)],
            on_pair=lambda done, total: seen.append((done, total)),
            cancelled=lambda: len(seen) == 2,
        )  # fmt: skip
    assert seen == [(1, 6), (2, 6)]
    assert equal(policy.state(), before)


def test_pairs_that_cannot_be_trained_on_are_left_out_with_their_reason() -> None:
    policy, pairs = table_policy(), some_pairs()
    same = pairs[0].with_fields(pair_id="same", rejected=pairs[0].chosen)
    loss = plan_loss(policy, TrainingPlan(), pairs)
    found = margin_influences(policy, [*pairs, same], pairs[0], loss)
    if "same" in found.left_out:
        assert "same" not in found.pair_ids
    assert len(found.scores) == len(found.pair_ids)


def test_a_target_that_cannot_be_read_is_refused(tiny_loaded: Any) -> None:
    policy, pairs = language_policy(tiny_loaded), some_pairs()
    empty = pairs[0].with_fields(pair_id="empty", rejected="")
    loss = plan_loss(policy, TrainingPlan(), pairs)
    with pytest.raises(TrainingError, match=r"'empty' cannot be trained on \(.*select another"):
        margin_influences(policy, pairs, empty, loss)


# Ranking -------------------------------------------------------------------------------


def ranked(scores: Sequence[float]) -> Influences:
    ids = tuple(f"p{i}" for i in range(len(scores)))
    return Influences("p0", ids, torch.tensor(scores, dtype=torch.float64), 1, {})


def test_helpful_and_harmful_are_the_strongest_of_their_sign() -> None:
    found = ranked([0.1, -0.5, 0.0, 0.3, -0.2])
    assert found.helpful(1) == [("p3", 0.3)]
    assert found.helpful() == [("p3", 0.3), ("p0", 0.1)]
    assert found.harmful() == [("p1", -0.5), ("p4", -0.2)]
    assert ranked([]).helpful() == []


def test_a_pair_s_own_step_helps_it(policy: TrainablePolicy) -> None:
    found = asked(policy, TrainingPlan(), 0)
    own = dict(zip(found.pair_ids, found.scores.tolist(), strict=True))
    assert own["p0"] > 0
    # Of the opposite label on the same answers the step is the opposite.
    assert own["p2"] < 0

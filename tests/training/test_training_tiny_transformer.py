"""The tiny transformer: reading, learning, replaying, writing."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from workbench.data.pairs import PreferencePair, build_pair
from workbench.data.worlds import WorldShape, draw_pairs, draw_world
from workbench.engine.threads import one_thread
from workbench.errors import Cancelled, TrainingError
from workbench.objectives.dpo import dpo_gamma_loss
from workbench.training import tiny_transformer
from workbench.training.exact import expectation, outside_mass
from workbench.training.plan import TrainingPlan
from workbench.training.tiny_transformer import (
    ANSWER,
    BEGIN,
    END,
    PADDING,
    TinySize,
    TinyTransformerPolicy,
    Vocabulary,
)
from workbench.training.trainer import Trainer

WORLD = draw_world(WorldShape(2, 3, reference_spread=1.0), seed=1)
PAIRS = list(draw_pairs(WORLD, 6, 1))
SMALL = TinySize(width=16, heads=2, blocks=2, longest=24)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """On a busy machine the second thread of so small a tensor is mostly waited for."""
    with one_thread():
        yield


def pair_of(chosen: str, rejected: str, pair_id: str = "p", prompt: str = "Why?") -> PreferencePair:
    texts = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    return build_pair({"pair_id": pair_id, **texts})


def fresh(seed: int = 0) -> TinyTransformerPolicy:
    return TinyTransformerPolicy.of_world(WORLD, SMALL, seed)


def taught(steps: int = 60) -> TinyTransformerPolicy:
    policy = fresh()
    policy.imitate_world(WORLD, steps=steps)
    return policy


def logp_by_hand(policy: TinyTransformerPolicy, prompt: str, answer: str) -> tuple[float, int]:
    """Token after token, each from a row that ends before it."""
    tokens = [BEGIN, *policy.vocabulary.encode(prompt), ANSWER]
    total, rest = 0.0, [*policy.vocabulary.encode(answer), END]
    for token in rest:
        with torch.no_grad():
            logits = policy._model(torch.tensor([tokens]))[0, -1]
        total += float(torch.log_softmax(logits.double(), dim=-1)[token])
        tokens.append(token)
    return total, len(rest)


@given(st.text(max_size=40), st.lists(st.text(max_size=12), max_size=5), st.integers(0, 6))
def test_every_text_comes_back_from_its_tokens(text: str, known: list[str], most: int) -> None:
    vocabulary = Vocabulary([*known, text[:7]], most)
    tokens = vocabulary.encode(text)
    assert vocabulary.decode(tokens) == text
    assert vocabulary.decode([BEGIN, *tokens, ANSWER, END, PADDING]) == text
    assert all(token < 256 or 260 <= token < len(vocabulary) for token in tokens)


def test_known_words_are_one_token_and_the_most_frequent_are_known() -> None:
    vocabulary = Vocabulary(["a rose is a rose", "a rose"], most=2)
    assert len(vocabulary.encode("a rose rose")) == 3
    assert len(vocabulary.encode("is")) == 2


def test_scores_are_those_of_one_token_after_another() -> None:
    policy = taught(5)
    Trainer(policy, PAIRS, TrainingPlan(learning_rate=1e-2)).step()
    policy.prepare(PAIRS)
    found = policy.pair_logps(PAIRS)
    for place, pair in enumerate(PAIRS):
        for side in ("chosen", "rejected"):
            text = getattr(pair, side)
            expected, tokens = logp_by_hand(policy, pair.prompt_text, text)
            score = found.require(f"policy_{side}")[place]
            assert float(score.detach()) == pytest.approx(expected, abs=1e-4)
            assert float(found.require(f"n_{side}")[place]) == tokens


def test_what_stands_beside_an_answer_does_not_change_its_score() -> None:
    policy = taught(5)
    short, long = pair_of("calm", "grey", "s"), pair_of("a b c d e", "f g h i j k", "l")
    alone = policy.pair_logps([short]).policy_chosen
    together = policy.pair_logps([long, short]).policy_chosen[1]
    assert float((alone - together).abs().max().detach()) < 1e-5


def test_the_reference_stays_while_the_policy_moves() -> None:
    policy = taught(5)
    policy.prepare(PAIRS)
    before = policy.pair_logps(PAIRS)
    assert float(before.margin.abs().max().detach()) < 1e-5
    trainer = Trainer(policy, PAIRS, TrainingPlan(learning_rate=1e-2))
    records = [trainer.step() for _ in range(10)]
    after = policy.pair_logps(PAIRS)
    assert torch.equal(before.require("reference_chosen"), after.require("reference_chosen"))
    assert records[-1].loss < records[0].loss


def test_the_gradient_is_that_of_finite_differences() -> None:
    policy = fresh()
    for model in (policy._model, policy._reference):
        model.double()
    policy.freeze_reference()

    def loss() -> Tensor:
        return dpo_gamma_loss(policy.pair_logps(PAIRS), 0.7, 0.4).mean()

    weights = policy.parameters()
    gradients = torch.autograd.grad(loss(), weights)
    for weight, gradient in zip(weights, gradients, strict=True):
        place = int(gradient.abs().argmax())
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                weight.view(-1)[place] += sign * 1e-5
                ends.append(float(loss()))
                weight.view(-1)[place] -= sign * 1e-5
        slope = (ends[0] - ends[1]) / 2e-5
        assert slope == pytest.approx(float(gradient.view(-1)[place]), rel=1e-4, abs=1e-9)


def test_imitation_learns_the_worlds_reference() -> None:
    policy = taught(300)
    logp = policy.world_logps(WORLD)
    assert float(outside_mass(logp).max()) < 0.1
    inside = torch.log_softmax(logp, dim=-1)
    assert float((inside.exp() - WORLD.reference_logp.exp()).abs().max()) < 0.08
    assert torch.equal(logp, policy.reference_world_logps(WORLD))


def test_imitation_learns_what_it_is_shown_more_often() -> None:
    policy = TinyTransformerPolicy.of_pairs(PAIRS, SMALL)
    prompt = PAIRS[0].prompt
    examples = [(prompt, PAIRS[0].chosen), (prompt, PAIRS[0].rejected)]
    policy.imitate(examples, weights=[3.0, 1.0], steps=200, learning_rate=1e-2)
    found = policy.pair_logps(PAIRS[:1])
    assert float(found.policy_log_ratio.detach()) == pytest.approx(math.log(3), abs=0.1)


def test_equal_seeds_give_equal_weights_to_the_bit_whatever_the_global_generator() -> None:
    states = []
    for _ in range(2):
        torch.rand(3)
        policy = taught(8)
        trainer = Trainer(policy, PAIRS, TrainingPlan(learning_rate=1e-3, batch_size=4))
        for _ in range(5):
            trainer.step()
        states.append(policy.state())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(fresh(0).state()["tokens"], fresh(1).state()["tokens"])


def test_a_state_is_a_copy_and_can_be_put_back() -> None:
    policy = taught(5)
    start = policy.state()
    trainer = Trainer(policy, PAIRS, TrainingPlan(learning_rate=1e-2))
    trainer.step()
    assert any(not torch.equal(start[name], policy.state()[name]) for name in start)
    policy.load_state(start)
    assert float(policy.pair_logps(PAIRS).margin.abs().max().detach()) < 1e-5


def test_anothers_weights_are_refused() -> None:
    policy = fresh()
    other = TinyTransformerPolicy.of_world(WORLD, TinySize(width=8, longest=24))
    with pytest.raises(TrainingError, match="of another shape"):
        policy.load_state(other.state())
    with pytest.raises(TrainingError, match="not one of this"):
        policy.load_state({})


def test_pairs_that_are_too_long_or_empty_are_left_out_with_the_reason() -> None:
    policy = fresh()
    long, empty, fine = pair_of("x" * 40, "b", "long"), pair_of("", "b", "empty"), PAIRS[0]
    left_out = policy.prepare([long, empty, fine])
    assert list(left_out) == ["long", "empty"]
    assert "more than 24 tokens" in left_out["long"]
    with pytest.raises(TrainingError, match="None of 1 answers"):
        policy.imitate([("Why?", "x" * 40)])


def test_the_reference_is_asked_once_for_each_text(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, read = fresh(), []
    scores = policy._scores

    def counted(model: Any, keys: Any) -> Any:
        read.extend(keys if model is policy._reference else [])
        return scores(model, keys)

    monkeypatch.setattr(policy, "_scores", counted)
    policy.prepare(PAIRS)
    policy.prepare(PAIRS)
    policy.pair_logps(PAIRS)
    texts = {(p.prompt, side) for p in PAIRS for side in (p.chosen, p.rejected)}
    assert len(read) == len(texts)
    assert set(read) == texts


def test_learning_can_be_cancelled_between_steps() -> None:
    done: list[int] = []
    with pytest.raises(Cancelled):
        fresh().imitate_world(
            WORLD,
            steps=50,
            on_step=lambda step, of: done.append(step),
            cancelled=lambda: len(done) >= 3,
        )
    assert done == [1, 2, 3]


def test_it_writes_what_it_has_learnt_as_often_as_it_finds_it_likely() -> None:
    policy = taught(300)
    prompt, answers = WORLD.prompts[0], WORLD.answers[0]
    written = policy.sample(prompt, 1000, seed=1)
    logp = policy.world_logps(WORLD)[0]
    for place, answer in enumerate(answers):
        share = float(logp[place].exp())
        assert written.count(answer) / 1000 == pytest.approx(share, abs=0.05)
    assert written == policy.sample(prompt, 1000, seed=1)
    best = answers[int(logp.argmax())]
    assert policy.sample(prompt, 2, temperature=0) == [best, best]
    assert policy.write(prompt, temperature=0, reference=True) == best
    assert len(policy.vocabulary.encode(policy.sample(prompt, most_tokens=1)[0])) <= 1
    with pytest.raises(TrainingError, match="shorten it"):
        policy.sample("x" * 30)


@pytest.mark.parametrize("change", [{"width": 15}, {"blocks": 0}, {"longest": 2}])
def test_an_impossible_size_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(TrainingError):
        TinySize(**change)


def test_preference_training_moves_the_expected_reward() -> None:
    policy = taught(150)
    start = policy.world_logps(WORLD)
    plan = TrainingPlan(hyperparameters={"beta": 1.0}, learning_rate=1e-3, batch_size=6)
    trainer = Trainer(policy, PAIRS, plan)
    for _ in range(20):
        trainer.step()
    before, after = (
        expectation(logp, WORLD.reward).mean() for logp in (start, policy.world_logps(WORLD))
    )
    assert float(after) > float(before) + 0.1


def test_world_keys_go_prompt_by_prompt() -> None:
    keys = tiny_transformer.world_keys(WORLD)
    assert keys[:4] == [
        *((WORLD.prompts[0], answer) for answer in WORLD.answers[0]),
        (WORLD.prompts[1], WORLD.answers[1][0]),
    ]

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from workbench.data.pairs import PreferencePair
from workbench.errors import Cancelled, ModelError, TrainingError
from workbench.objectives.wpo import log_collision_probability
from workbench.scoring.models import load_model, parse_model
from workbench.scoring.tokenise import tokenise_completion
from workbench.training.language_model import LanguageModelPolicy, private_copy

Sides = tuple[str, str]
SIDES: Sides = ("chosen", "rejected")


def disturb(policy: LanguageModelPolicy, seed: int = 0, size: float = 0.2) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in policy.parameters():
            weight += size * torch.randn(weight.shape, generator=generator)


def token_logits(model: Any, loaded: Any, pair: PreferencePair, side: str) -> tuple[Tensor, Tensor]:
    """Each text by itself through the whole model: the oracle."""
    read = tokenise_completion(loaded.tokenizer, pair.prompt, getattr(pair, side), 128)
    ids = torch.from_numpy(read.input_ids.astype("int64"))
    logits = model(ids[None]).logits[0, read.response_start - 1 : -1]
    return logits, ids[read.response_start :]


def logp(model: Any, loaded: Any, pair: PreferencePair, side: str) -> Tensor:
    logits, ids = token_logits(model, loaded, pair, side)
    return logits.log_softmax(-1)[torch.arange(len(ids)), ids].double().sum()


@pytest.fixture
def pairs(pairs_of: Any) -> tuple[PreferencePair, ...]:
    found: tuple[PreferencePair, ...] = pairs_of(5).pairs
    return found


KINDS = {"top": (1, 4), "all": (0, 4), "blocks": (1, 0), "whole": (0, 0)}


@pytest.fixture(params=KINDS)
def policy(request: pytest.FixtureRequest, tiny_loaded: Any) -> LanguageModelPolicy:
    blocks, rank = KINDS[request.param]
    return LanguageModelPolicy(tiny_loaded, blocks=blocks, rank=rank)


def own(policy: LanguageModelPolicy) -> Any:
    return policy._own


def test_scores_are_those_of_whole_models(
    policy: LanguageModelPolicy, tiny_loaded: Any, pairs: tuple[PreferencePair, ...]
) -> None:
    disturb(policy)
    found = policy.pair_logps(pairs)
    for which, model in (("policy", own(policy)), ("reference", tiny_loaded.model)):
        for side in SIDES:
            with torch.no_grad():
                expected = [logp(model, tiny_loaded, pair, side) for pair in pairs]
            given = found.require(f"{which}_{side}").detach()
            assert torch.allclose(given, torch.stack(expected), atol=1e-3)
    moved = found.chosen_log_ratio.detach().abs()
    assert float(moved.min()) > 0.01


def test_the_gradient_is_that_of_the_whole_model(
    policy: LanguageModelPolicy, tiny_loaded: Any, pairs: tuple[PreferencePair, ...]
) -> None:
    disturb(policy)
    found = torch.autograd.grad(policy.pair_logps(pairs).margin.sum(), policy.parameters())
    margins = [
        logp(own(policy), tiny_loaded, pair, "chosen")
        - logp(own(policy), tiny_loaded, pair, "rejected")
        for pair in pairs
    ]
    expected = torch.autograd.grad(torch.stack(margins).sum(), policy.parameters())
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours - theirs).norm()) <= 1e-3 * float(theirs.norm()) + 1e-5


def test_training_starts_at_the_reference(
    policy: LanguageModelPolicy, pairs: tuple[PreferencePair, ...]
) -> None:
    assert float(policy.pair_logps(pairs).margin.detach().abs().max()) < 1e-4


def test_lengths_count_the_answers_tokens(tiny_loaded: Any, pairs: Any) -> None:
    found = LanguageModelPolicy(tiny_loaded, blocks=1).pair_logps(pairs)
    for side in SIDES:
        counts = [len(token_logits(tiny_loaded.model, tiny_loaded, p, side)[1]) for p in pairs]
        assert found.require(f"n_{side}").tolist() == counts


def test_tokens_add_up_to_the_sums_and_collisions_are_the_policys(
    tiny_loaded: Any, pairs: tuple[PreferencePair, ...]
) -> None:
    policy = LanguageModelPolicy(tiny_loaded, blocks=1)
    disturb(policy)
    tokens, sums = policy.token_logps(pairs), policy.pair_logps(pairs)
    for place, side in enumerate(SIDES):
        for which in ("policy", "reference"):
            rows = getattr(tokens, which)[place].sum(dim=1)
            assert torch.allclose(rows, sums.require(f"{which}_{side}"), atol=1e-9)
        assert tokens.mask[place].sum(dim=1).tolist() == sums.require(f"n_{side}").tolist()
        for row, pair in enumerate(pairs):
            logits, ids = token_logits(own(policy), tiny_loaded, pair, side)
            expected = log_collision_probability(logits)
            given = tokens.collision[place, row, : len(ids)]
            assert torch.allclose(given.float(), expected, atol=1e-3)
            assert not bool(tokens.mask[place, row, len(ids) :].any())


def test_the_divergence_is_the_mean_over_answers_of_the_tokens_kl(
    policy: LanguageModelPolicy, tiny_loaded: Any, pairs: tuple[PreferencePair, ...]
) -> None:
    assert policy.kl(pairs) == pytest.approx(0, abs=1e-4)
    disturb(policy)
    total = 0.0
    with torch.no_grad():
        for pair in pairs:
            for side in SIDES:
                ours = token_logits(own(policy), tiny_loaded, pair, side)[0].log_softmax(-1)
                theirs = token_logits(tiny_loaded.model, tiny_loaded, pair, side)[0].log_softmax(-1)
                total += float((ours.exp() * (ours - theirs)).sum())
    assert policy.kl(pairs) == pytest.approx(total / (2 * len(pairs)), rel=1e-3)


def test_whoever_shares_the_base_sees_nothing_of_the_training(
    policy: LanguageModelPolicy, tiny_loaded: Any, pairs: tuple[PreferencePair, ...]
) -> None:
    before = {name: value.clone() for name, value in tiny_loaded.model.state_dict().items()}
    disturb(policy)
    after = tiny_loaded.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(weight.requires_grad for weight in tiny_loaded.model.parameters())


def test_a_copy_shares_weights_and_drops_adapters_that_hang_on_the_base(
    tiny_folder: Path, tiny_adapter: Path, pairs: tuple[PreferencePair, ...]
) -> None:
    plain = load_model(parse_model(str(tiny_folder)), dtype="float32", device="cpu")
    with_adapter = parse_model(f"{tiny_folder}+adapter:{tiny_adapter}")
    adapted = load_model(with_adapter, dtype="float32", device="cpu")
    with adapted.active():
        spoilt = private_copy(adapted.model)
    policy = LanguageModelPolicy(plain, blocks=1)
    with torch.no_grad(), plain.active():
        expected = torch.stack([logp(plain.model, plain, pair, "chosen") for pair in pairs])
        assert torch.allclose(policy.pair_logps(pairs).policy_chosen, expected, atol=1e-3)
        copied = torch.stack([logp(spoilt, plain, pair, "chosen") for pair in pairs])
        assert torch.allclose(copied, expected, atol=1e-3)
    ours, theirs = spoilt.model.embed_tokens.weight, plain.model.model.embed_tokens.weight
    assert ours.data_ptr() == theirs.data_ptr()
    with pytest.raises(TrainingError, match="is an adapter on another model"):
        LanguageModelPolicy(adapted, blocks=1)


def test_the_trunk_is_read_once_for_each_pair_and_again_only_for_want_of_room(
    tiny_loaded: Any, pairs: tuple[PreferencePair, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.training import language_model

    read: list[int] = []
    right = language_model.trunk_states

    def counting(model: Any, some: Any, block: int) -> Any:
        read.append(len(some))
        return right(model, some, block)

    monkeypatch.setattr(language_model, "trunk_states", counting)
    policy = LanguageModelPolicy(tiny_loaded, blocks=1)
    policy.prepare(pairs)
    first = policy.pair_logps(pairs)
    policy.prepare(pairs)
    assert sum(read) == len(pairs)
    small = LanguageModelPolicy(tiny_loaded, blocks=1, most_bytes=10_000)
    small.prepare(pairs)
    assert torch.equal(first.policy_chosen, small.pair_logps(pairs).policy_chosen)
    assert sum(read) > 2 * len(pairs)
    assert len(small._kept) < len(pairs)


def test_a_pair_scores_the_same_bits_under_the_reference_in_whatever_company(
    tiny_loaded: Any, pairs: tuple[PreferencePair, ...]
) -> None:
    one, other = (LanguageModelPolicy(tiny_loaded, blocks=1) for _ in range(2))
    together = one.pair_logps(pairs).require("reference_rejected")
    apart = [other.pair_logps([pair]).require("reference_rejected")[0] for pair in reversed(pairs)]
    assert torch.equal(together, torch.stack(apart[::-1]))


def test_pairs_without_a_lesson_are_refused_with_the_reason(
    tiny_loaded: Any, pairs: tuple[PreferencePair, ...]
) -> None:
    first = pairs[0]
    odd = [
        first.with_fields(pair_id="long", prompt="word " * 100),
        first.with_fields(pair_id="empty", chosen=" "),
        first.with_fields(pair_id="same", chosen=first.rejected),
    ]
    policy = LanguageModelPolicy(tiny_loaded, blocks=1, max_prompt=40)
    found = policy.prepare([*odd, first])
    assert found == {
        "long": "the prompt is longer than 40 tokens",
        "empty": "an answer is empty",
        "same": "both answers are the same in their first 128 tokens",
    }
    assert policy.check(odd) == found
    with pytest.raises(TrainingError, match="'empty' cannot be trained on"):
        policy.pair_logps(odd[1:2])


def test_long_answers_are_cut(tiny_loaded: Any, pairs: tuple[PreferencePair, ...]) -> None:
    policy = LanguageModelPolicy(tiny_loaded, blocks=1, max_answer=4)
    assert policy.pair_logps(pairs).require("n_chosen").tolist() == [4.0] * len(pairs)


def test_reading_can_be_stopped(tiny_loaded: Any, pairs: tuple[PreferencePair, ...]) -> None:
    policy = LanguageModelPolicy(tiny_loaded, blocks=1)
    done: list[int] = []
    with pytest.raises(Cancelled):
        policy.prepare(
            pairs, on_pair=lambda n, total: done.append(n), cancelled=lambda: len(done) == 2
        )
    assert done == [1, 2]


def test_states_come_back_and_those_of_another_policy_are_refused(
    policy: LanguageModelPolicy, tiny_loaded: Any, pairs: tuple[PreferencePair, ...]
) -> None:
    disturb(policy)
    kept, scores = policy.state(), policy.pair_logps(pairs).policy_chosen.detach()
    disturb(policy, seed=1)
    assert not torch.equal(policy.pair_logps(pairs).policy_chosen.detach(), scores)
    policy.load_state(kept)
    assert torch.equal(policy.pair_logps(pairs).policy_chosen.detach(), scores)
    with pytest.raises(TrainingError, match="do not belong"):
        policy.load_state(LanguageModelPolicy(tiny_loaded, blocks=1, rank=2).state())


def test_a_saved_policy_is_a_model_that_the_picker_loads(
    policy: LanguageModelPolicy,
    tiny_loaded: Any,
    tiny_folder: Path,
    pairs: tuple[PreferencePair, ...],
    tmp_path: Path,
) -> None:
    disturb(policy)
    name = policy.save(tmp_path / "saved")
    assert ("+adapter:" in name) is bool(policy._rank)
    loaded = load_model(parse_model(name), dtype="float32", device="cpu")
    with torch.no_grad(), loaded.active():
        expected = torch.stack([logp(loaded.model, loaded, pair, "chosen") for pair in pairs])
    assert torch.allclose(policy.pair_logps(pairs).policy_chosen.detach(), expected, atol=1e-3)


def test_a_folder_that_cannot_be_written_is_named(tiny_loaded: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match="cannot be written"):
        LanguageModelPolicy(tiny_loaded, blocks=1).save(tmp_path / "file" / "deeper")


def test_it_writes_before_and_after(policy: LanguageModelPolicy, tiny_loaded: Any) -> None:
    from workbench.scoring.generate import generate

    expected = generate(tiny_loaded, "question 1", 8)[0]
    assert policy.write("question 1", max_new_tokens=8) == expected
    disturb(policy, size=0.5)
    assert policy.write("question 1", max_new_tokens=8, reference=True) == expected
    assert policy.write("question 1", max_new_tokens=8) != expected


def test_blocks_and_architectures_that_do_not_fit_are_refused(tiny_loaded: Any) -> None:
    with pytest.raises(TrainingError, match="give 1 to 2, or 0"):
        LanguageModelPolicy(tiny_loaded, blocks=3)
    other = private_copy(tiny_loaded.model)
    other.config.model_type = "gpt2"
    with pytest.raises(ModelError, match="gpt2"):
        LanguageModelPolicy(dataclasses.replace(tiny_loaded, model=other), blocks=1)


def test_equal_seeds_begin_with_equal_weights(tiny_loaded: Any) -> None:
    make: Callable[[int], LanguageModelPolicy] = lambda seed: LanguageModelPolicy(  # noqa: E731
        tiny_loaded, blocks=1, seed=seed
    )
    one, same, other = make(0).state(), make(0).state(), make(1).state()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    assert math.isfinite(float(sum(weight.sum() for weight in one.values())))


def test_prompts_are_scored_from_their_second_token_on(
    policy: LanguageModelPolicy, tiny_loaded: Any, pairs: tuple[PreferencePair, ...]
) -> None:
    disturb(policy)
    found, sizes = policy.prompt_logps(pairs)
    for row, pair in enumerate(pairs):
        read = tokenise_completion(tiny_loaded.tokenizer, pair.prompt, pair.chosen, 128)
        ids = torch.from_numpy(read.input_ids[: read.response_start].astype("int64"))
        with torch.no_grad():
            logps = own(policy)(ids[None]).logits[0].log_softmax(-1)
        expected = float(logps[torch.arange(len(ids) - 1), ids[1:]].double().sum())
        assert float(found[row].detach()) == pytest.approx(expected, abs=1e-3)
        assert sizes[row] == len(ids) - 1
    assert any(bool(g.any()) for g in torch.autograd.grad(found.sum(), policy.parameters()))

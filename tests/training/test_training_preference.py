import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from workbench.errors import Cancelled, ModelError, TrainingError
from workbench.training import preference
from workbench.training.preference import CachedPair, PairTokens, Recipe, Step, TopBlocks

BLOCK = 2
QUICK = Recipe(learning_rate=5e-3, batch_size=3, epochs=2)
MakeLlama = Callable[[], Any]


def lora(model: Any, *, seed: int = 0, noisy: bool = False) -> Any:
    tuned = preference.attach_lora(model, block=BLOCK, rank=4, scale=2.0, seed=seed)
    if noisy:
        generator = torch.Generator().manual_seed(seed)
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
    return tuned


def full_logps(model: Any, pairs: list[PairTokens]) -> Tensor:
    """Each text by itself through the whole model: the oracle."""
    return torch.tensor([[full_logp(model, pair, side) for side in (0, 1)] for pair in pairs])


@torch.no_grad()
def full_logp(model: Any, pair: PairTokens, side: int) -> float:
    ids = torch.cat([pair.prompt, pair.answers[side]])
    logps = model(ids[None]).logits[0].log_softmax(-1)
    start = len(pair.prompt) + pair.unscored[side]
    chosen = logps[torch.arange(start - 1, len(ids) - 1), ids[start:]]
    return float(chosen.double().sum())


def close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected.double()).abs().max() < 1e-4)


@pytest.mark.parametrize("noisy", [False, True], ids=["plain", "adapter"])
def test_cached_trunk_gives_the_full_models_logps(
    make_llama: MakeLlama, pairs: list[PairTokens], noisy: bool
) -> None:
    model = make_llama()
    cached = preference.trunk_states(model, pairs, BLOCK)
    tuned = lora(model, noisy=noisy)
    found = preference.score_pairs(TopBlocks(tuned, BLOCK), cached, batch_size=4)
    per_token = torch.tensor([[len(a) for a in pair.answers] for pair in pairs])
    assert ((found - full_logps(tuned, pairs).double()).abs() / per_token).max() < 1e-5
    changed = not close(found, full_logps(make_llama(), pairs))
    assert changed is noisy


def test_states_are_those_that_enter_the_block(
    make_llama: MakeLlama, pairs: list[PairTokens]
) -> None:
    model = make_llama()
    cached = preference.trunk_states(model, pairs, BLOCK)
    for pair in cached:
        prompt, answers = pair.tokens.prompt, pair.tokens.answers
        ids = torch.cat([prompt, answers[1]])
        states = model(ids[None], output_hidden_states=True).hidden_states[BLOCK][0]
        after = len(prompt) + len(answers[0])
        joined = torch.cat([pair.states[: len(prompt)], pair.states[after:]])
        assert torch.allclose(joined, states, atol=1e-5)


def _see_everything_before(branches: Tensor, dtype: torch.dtype) -> Tensor:
    n = branches.shape[1]
    mask = torch.zeros(len(branches), n, n, dtype=dtype)
    return mask.masked_fill(~torch.ones(n, n).tril().bool(), torch.finfo(dtype).min)[:, None]


def _end_to_end(self: PairTokens) -> Tensor:
    return torch.arange(len(self))


@pytest.mark.parametrize(
    ("owner", "name", "wrong"),
    [
        (preference, "_mask", _see_everything_before),
        (PairTokens, "positions", property(_end_to_end)),
    ],
    ids=["answers see each other", "positions run on"],
)
def test_sabotaged_rows_are_noticed(
    make_llama: MakeLlama,
    pairs: list[PairTokens],
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    wrong: Any,
) -> None:
    monkeypatch.setattr(owner, name, wrong)
    model = make_llama()
    cached = preference.trunk_states(model, pairs, BLOCK)
    assert not close(
        preference.score_pairs(TopBlocks(model, BLOCK), cached), full_logps(model, pairs)
    )


def test_tokens_that_belong_to_the_prompt_are_not_scored(make_llama: MakeLlama) -> None:
    model = make_llama()
    pair = PairTokens(torch.tensor([3, 4]), (torch.tensor([5, 6, 7]), torch.tensor([8, 9])), (2, 0))
    found = preference.score_pairs(
        TopBlocks(model, BLOCK), preference.trunk_states(model, [pair], BLOCK)
    )
    assert close(found, full_logps(model, [pair]))


class Case:
    """A tuned model, its cached pairs and their reference."""

    def __init__(self, model: Any, pairs: list[PairTokens], seed: int = 0) -> None:
        self.cached = preference.trunk_states(model, pairs, BLOCK)
        self.reference = preference.score_pairs(TopBlocks(model, BLOCK), self.cached)
        self.tuned = lora(model, seed=seed)
        self.top = TopBlocks(self.tuned, BLOCK)

    def train(self, recipe: Recipe, seed: int = 0, **options: Any) -> list[Step]:
        return preference.train_preferences(
            self.top, self.cached, self.reference, recipe, seed, **options
        )

    def margins(self) -> Tensor:
        moved = preference.score_pairs(self.top, self.cached) - self.reference
        return moved[:, 0] - moved[:, 1]

    def weights(self) -> list[Tensor]:
        return [weight.detach().clone() for weight in self.top.parameters()]


@pytest.fixture
def case(make_llama: MakeLlama, pairs: list[PairTokens]) -> Case:
    return Case(make_llama(), pairs)


def test_fresh_adapter_changes_nothing_and_costs_log_2(case: Case) -> None:
    assert float(case.margins().abs().max()) == 0
    assert case.train(QUICK)[0].loss == pytest.approx(math.log(2), abs=1e-12)


def test_one_step_lowers_the_loss_of_its_batch(case: Case) -> None:
    whole = Recipe(learning_rate=1e-3, batch_size=len(case.cached), warm_up=0)
    case.train(whole)
    loss = torch.nn.functional.softplus(-whole.beta * case.margins()).mean()
    assert float(loss) < math.log(2)


def test_sabotaged_loss_raises_it(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    right = preference.dpo_loss

    def swapped(a: Tensor, b: Tensor, c: Tensor, d: Tensor, beta: float) -> Tensor:
        return right(b, a, d, c, beta)

    monkeypatch.setattr(preference, "dpo_loss", swapped)
    case.train(Recipe(learning_rate=1e-3, batch_size=len(case.cached), warm_up=0))
    assert float(case.margins().mean()) < 0


def test_training_learns_its_pairs_and_moves_nothing_else(
    case: Case, make_llama: MakeLlama
) -> None:
    steps = case.train(Recipe(learning_rate=5e-3, batch_size=3, epochs=15))
    assert steps[-1].loss < 0.3 < steps[0].loss
    assert steps[-1].reward_accuracy == 1
    assert float(case.margins().min()) > 0
    before, after = make_llama().state_dict(), case.tuned.unload().state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_first_gradient_is_the_full_models(case: Case, pairs: list[PairTokens]) -> None:
    # Through the whole model, without cache, rows or masks.
    whole = copy.deepcopy(case.tuned)
    margins = []
    for pair, base in zip(pairs, case.reference, strict=True):
        logps = []
        for answer in pair.answers:
            ids = torch.cat([pair.prompt, answer])
            all_logps = whole(ids[None]).logits[0].log_softmax(-1)
            at = torch.arange(len(pair.prompt) - 1, len(ids) - 1)
            logps.append(all_logps[at, answer].sum())
        margins.append(logps[0] - logps[1] - float(base[0] - base[1]))
    torch.nn.functional.softplus(-0.1 * torch.stack(margins)).mean().backward()
    expected = [w.grad for w in whole.parameters() if w.requires_grad]
    batch = preference.PreferenceBatch.of(case.cached)
    found = case.top.pair_logps(batch) - case.reference
    torch.nn.functional.softplus(-0.1 * (found[:, 0] - found[:, 1])).mean().backward()
    for weight, gradient in zip(case.top.parameters(), expected, strict=True):
        assert weight.grad is not None
        assert torch.allclose(weight.grad, gradient, atol=1e-5, rtol=1e-3)


def test_same_seed_same_bits(make_llama: MakeLlama, pairs: list[PairTokens]) -> None:
    def run(weights_seed: int, order_seed: int) -> list[Tensor]:
        torch.manual_seed(torch.seed() % 1000)  # the outer random state must not matter
        case = Case(make_llama(), pairs, weights_seed)
        case.train(QUICK, order_seed)
        return case.weights()

    def equal(a: list[Tensor], b: list[Tensor]) -> bool:
        return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))

    first = run(0, 0)
    assert equal(first, run(0, 0))
    assert not equal(first, run(0, 1))
    assert not equal(first, run(1, 0))


def test_attaching_leaves_torchs_random_state(make_llama: MakeLlama) -> None:
    model, before = make_llama(), torch.get_rng_state()
    lora(model)
    assert torch.equal(before, torch.get_rng_state())


def test_only_the_top_blocks_are_trained(case: Case) -> None:
    names = [n for n, weight in case.tuned.named_parameters() if weight.requires_grad]
    # Two matrices for each of seven maps in each of two blocks.
    assert len(names) == 2 * 7 * 2
    assert all("lora_" in n and (".layers.2." in n or ".layers.3." in n) for n in names)


def test_saved_adapter_reloads_by_peft(case: Case, make_llama: MakeLlama, tmp_path: Path) -> None:
    from peft import PeftModel

    case.train(QUICK)
    (tmp_path / "README.md").write_text("the card")
    case.tuned.get_base_model().name_or_path = "/somewhere/on/this/machine"  # peft would tell it
    preference.save_adapter(case.tuned, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert (tmp_path / "README.md").read_text() == "the card"
    assert '"base_model_name_or_path": null' in (tmp_path / "adapter_config.json").read_text()
    tokens = [pair.tokens for pair in case.cached]
    reloaded = PeftModel.from_pretrained(make_llama(), tmp_path).eval()
    trained = preference.score_pairs(case.top, case.cached)
    assert close(trained, full_logps(reloaded, tokens))
    assert not close(trained, full_logps(make_llama(), tokens))


def test_steps_are_told_as_they_happen(case: Case) -> None:
    told: list[Step] = []
    steps = case.train(QUICK, on_step=told.append)
    assert told == steps
    assert [step.number for step in steps] == [1, 2, 3, 4]
    assert all(step.total == 4 and step.grad_norm > 0 for step in steps)


def test_every_pass_visits_every_pair_once() -> None:
    plan = list(preference._plan(7, Recipe(batch_size=3, epochs=2), seed=5))
    assert [len(places) for places in plan] == [3, 3, 1] * 2
    for part in (plan[:3], plan[3:]):
        assert sorted(pair for places in part for pair in places) == list(range(7))
    assert plan[:3] != plan[3:]


def test_learning_rate_rises_and_falls() -> None:
    shares = [preference.learning_rate_share(n, 10, 0.2) for n in range(1, 11)]
    assert shares[:3] == [0.5, 1.0, 1.0]
    assert shares[2:] == sorted(shares[2:], reverse=True)
    assert 0 < shares[-1] < 0.05
    assert preference.learning_rate_share(1, 1, 0.0) == 1


def test_cancel_stops_before_the_next_step(case: Case) -> None:
    told: list[Step] = []
    with pytest.raises(Cancelled):
        case.train(QUICK, on_step=told.append, cancelled=lambda: len(told) == 2)
    assert len(told) == 2


def test_cancel_stops_reading_the_trunk(make_llama: MakeLlama, pairs: list[PairTokens]) -> None:
    done: list[int] = []
    with pytest.raises(Cancelled):
        preference.trunk_states(
            make_llama(),
            pairs,
            BLOCK,
            on_pair=lambda n, total: done.append(n),
            cancelled=lambda: len(done) == 3,
        )
    assert done == [1, 2, 3]


def test_divergence_stops_with_the_last_good_weights(case: Case) -> None:
    before = case.weights()
    states = torch.full_like(case.cached[0].states, math.nan)
    case.cached = [CachedPair(case.cached[0].tokens, states)]
    case.reference = case.reference[:1]
    with pytest.raises(TrainingError, match="diverged at step 1"):
        case.train(QUICK)
    assert all(torch.equal(a, b) for a, b in zip(before, case.weights(), strict=True))


def test_reference_of_another_set_is_refused(case: Case) -> None:
    case.reference = case.reference[:2]
    with pytest.raises(ValueError, match="6 pairs"):
        case.train(QUICK)


@pytest.mark.parametrize(
    ("name", "value"),
    [("beta", 0.0), ("beta", -1.0), ("learning_rate", math.nan), ("epochs", 0), ("warm_up", 1.5)],
)
def test_recipe_refuses_nonsense(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Recipe(**{name: value})  # type: ignore[arg-type]


def test_other_architectures_and_blocks_are_refused(make_llama: MakeLlama) -> None:
    model = make_llama()
    with pytest.raises(ValueError, match="blocks 0 to 3"):
        TopBlocks(model, 4)
    model.config.model_type = "gpt2"
    with pytest.raises(ModelError, match="gpt2"):
        TopBlocks(model, 2)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["</s>", "?", *(f"w{n}" for n in range(20))]
    inner = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", unk_token="?")


def test_tokenise_pair(tokenizer: Any) -> None:
    pair = preference.tokenise_pair(tokenizer, "w1 w2", "w3", "w4 w5 w6", 5, 2)
    assert pair is not None
    assert pair.prompt.tolist() == [3, 4]
    assert [answer.tolist() for answer in pair.answers] == [[5, 0], [6, 7]]
    assert pair.unscored == (0, 0)
    assert pair.positions.tolist() == [0, 1, 2, 3, 2, 3]
    assert pair.branches.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected"),
    [
        ("w1 w2 w3 w4", "w5", "w6"),
        ("w1", "", "w6"),
        ("w1", "w5", "w5"),
        ("w1", "w5 w6 w7", "w5 w6 w8"),
    ],
    ids=["long prompt", "empty answer", "same answers", "same as far as kept"],
)
def test_pairs_without_a_lesson_are_left_out(
    tokenizer: Any, prompt: str, chosen: str, rejected: str
) -> None:
    assert preference.tokenise_pair(tokenizer, prompt, chosen, rejected, 3, 2) is None

"""Answers that a model writes."""

from typing import Any

import pytest
import torch

from workbench.data.pairs import Message
from workbench.errors import Cancelled, ScoringError
from workbench.scoring.generate import MAX_ANSWERS, generate
from workbench.scoring.models import LoadedModel, load_model, parse_model
from workbench.scoring.tokenise import prompt_tokens

PROMPT = "the cat sat"


def _greedy_without_cache(loaded: LoadedModel, prompt: str, steps: int) -> str:
    """The likeliest token each time, every time from the whole text: slow and plain."""
    ids = prompt_tokens(loaded.tokenizer, prompt, loaded.max_length)
    start = len(ids)
    with torch.inference_mode(), loaded.active():
        while len(ids) < start + steps:
            token = int(loaded.model(torch.tensor([ids])).logits[0, -1].argmax())
            if token == loaded.tokenizer.eos_token_id:
                break
            ids.append(token)
    text: str = loaded.tokenizer.decode(ids[start:], skip_special_tokens=True)
    return text


def _put(token: int, logit: float) -> Any:
    """A hook that gives one token a logit of its own."""

    def change(module: object, args: object, out: Any) -> None:
        out.logits[..., token] = logit

    return change


@pytest.mark.parametrize("prompt", [PROMPT, "why", "explain the weather please"])
def test_greedy_answers_are_the_likeliest_tokens(tiny_loaded: LoadedModel, prompt: str) -> None:
    expected = _greedy_without_cache(tiny_loaded, prompt, 20)
    assert generate(tiny_loaded, prompt, 20) == [expected]
    assert generate(tiny_loaded, prompt, 20, seed=9, answers=3) == [expected] * 3


def test_transformers_writes_the_same_greedy_answer(tiny_loaded: LoadedModel) -> None:
    ids = torch.tensor([prompt_tokens(tiny_loaded.tokenizer, PROMPT, 128)])
    theirs = tiny_loaded.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False
    )
    text = tiny_loaded.tokenizer.decode(theirs[0, ids.shape[1] :], skip_special_tokens=True)
    assert generate(tiny_loaded, PROMPT, 16) == [text]


def test_equal_seeds_draw_equal_answers(tiny_loaded: LoadedModel) -> None:
    first, again, other = (
        generate(tiny_loaded, PROMPT, 12, 1.0, seed, answers=4) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert len(set(first)) > 1


def test_draws_follow_the_models_distribution(tiny_loaded: LoadedModel) -> None:
    """First tokens over 40 seeds x 16 answers against softmax(logits / T), by total variation."""
    temperature = 3.0
    ids = prompt_tokens(tiny_loaded.tokenizer, PROMPT, 128)
    with torch.inference_mode():
        logits = tiny_loaded.model(torch.tensor([ids])).logits[0, -1].double()
    texts = [
        text
        for seed in range(40)
        for text in generate(tiny_loaded, PROMPT, 1, temperature, seed, answers=16)
    ]

    def distance(expected: torch.Tensor) -> float:
        drawn = dict.fromkeys(range(len(expected)), 0.0)
        by_text: dict[str, float] = {}
        for token in drawn:
            text = tiny_loaded.tokenizer.decode([token], skip_special_tokens=True)
            by_text[text] = by_text.get(text, 0.0) + float(expected[token])
        shares = {text: texts.count(text) / len(texts) for text in set(texts)}
        return 0.5 * sum(abs(by_text[text] - shares.get(text, 0.0)) for text in by_text)

    right = distance((logits / temperature).softmax(-1))
    assert right < 0.3
    assert distance(logits.softmax(-1)) > 2 * right, "sabotaged twin: the temperature ignored"


def test_tiny_temperatures_are_greedy(tiny_loaded: LoadedModel) -> None:
    assert generate(tiny_loaded, PROMPT, 8, 1e-300) == generate(tiny_loaded, PROMPT, 8)


def test_an_answer_ends_at_its_end_token(tiny_loaded: LoadedModel) -> None:
    """The token is neither shown nor continued."""
    model, end = tiny_loaded.model, tiny_loaded.tokenizer.eos_token_id
    seen: list[int] = []
    hook = model.register_forward_hook(_put(end, 40.0))
    try:
        found = generate(
            tiny_loaded, PROMPT, 10, 0.0, on_progress=lambda done, total, note: seen.append(done)
        )
    finally:
        hook.remove()
    assert found == [""]
    assert seen == [1]


def test_rows_end_each_at_its_own_token(tiny_loaded: LoadedModel) -> None:
    """Where the end is likely but not certain, answers differ in length and stay apart."""
    model, end = tiny_loaded.model, tiny_loaded.tokenizer.eos_token_id

    def raise_end(module: object, args: object, out: Any) -> None:
        out.logits[..., end] = out.logits.logsumexp(-1) - 1

    hook = model.register_forward_hook(raise_end)
    try:
        found = generate(tiny_loaded, PROMPT, 12, 1.0, 3, answers=12)
    finally:
        hook.remove()
    lengths = {len(tiny_loaded.tokenizer(text)["input_ids"]) for text in found}
    assert 0 in lengths
    assert len(lengths) > 2
    assert not any("<|im_end|>" in text for text in found)


def test_end_tokens_of_the_models_settings_count(
    tiny_loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = generate(tiny_loaded, PROMPT, 6)[0]
    first = tiny_loaded.tokenizer(text)["input_ids"][0]
    monkeypatch.setattr(tiny_loaded.model.generation_config, "eos_token_id", [2, first])
    assert generate(tiny_loaded, PROMPT, 6) == [""]
    monkeypatch.setattr(tiny_loaded.model, "generation_config", None)
    assert generate(tiny_loaded, PROMPT, 6) == [text]


def test_the_prompt_is_read_once(tiny_loaded: LoadedModel) -> None:
    shapes: list[tuple[int, ...]] = []
    hook = tiny_loaded.model.model.embed_tokens.register_forward_hook(
        lambda module, args, out: shapes.append(tuple(args[0].shape))
    )
    try:
        generate(tiny_loaded, PROMPT, 4, 1.0, 0, answers=3)
    finally:
        hook.remove()
    n = len(prompt_tokens(tiny_loaded.tokenizer, PROMPT, 128))
    assert shapes == [(1, n), (3, 1), (3, 1), (3, 1)]


def test_conversations_are_answered_too(tiny_loaded: LoadedModel) -> None:
    talk = (Message(role="user", content=PROMPT),)
    assert generate(tiny_loaded, talk, 8) == generate(tiny_loaded, PROMPT, 8)


def test_policy_and_reference_write_in_their_own_roles(tiny_folder: Any, tiny_adapter: Any) -> None:
    base = load_model(parse_model(str(tiny_folder)), dtype="float32", device="cpu")
    name = f"{tiny_folder}+adapter:{tiny_adapter}"
    policy = load_model(parse_model(name), dtype="float32", device="cpu")
    before = generate(base, PROMPT, 12)
    assert generate(policy, PROMPT, 12) == [_greedy_without_cache(policy, PROMPT, 12)] != before
    assert generate(base, PROMPT, 12) == before

    def ask_the_other(done: int, total: int, note: str) -> None:
        policy.model(torch.tensor([[1, 2, 3]]))
        with policy.active():
            policy.model(torch.tensor([[1, 2, 3]]))

    assert generate(base, PROMPT, 12, on_progress=ask_the_other) == before


def test_progress_counts_tokens_and_the_models_limit_ends_all(tiny_loaded: LoadedModel) -> None:
    n = len(prompt_tokens(tiny_loaded.tokenizer, PROMPT, 128))
    seen: list[tuple[int, int]] = []
    hook = tiny_loaded.model.register_forward_hook(_put(tiny_loaded.tokenizer.eos_token_id, -40.0))
    try:
        generate(
            tiny_loaded,
            PROMPT,
            10_000,
            on_progress=lambda done, total, note: seen.append((done, total)),
        )
    finally:
        hook.remove()
    assert seen == [(done, 128 - n) for done in range(1, 128 - n + 1)]


def test_cancelling_stops_between_layers(tiny_loaded: LoadedModel) -> None:
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 5

    with pytest.raises(Cancelled):
        generate(tiny_loaded, PROMPT, 100, cancelled=cancelled)
    assert asked == 6


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"answers": 0}, "answers is 0"),
        ({"answers": MAX_ANSWERS + 1}, f"give 1 to {MAX_ANSWERS}"),
        ({"prompt": "the cat " * 200}, "leaves no room"),
    ],
)
def test_numbers_out_of_range_are_named(
    tiny_loaded: LoadedModel, changes: dict[str, Any], found: str
) -> None:
    with pytest.raises(ScoringError, match=found):
        generate(tiny_loaded, **{"prompt": PROMPT, **changes})


def test_an_empty_prompt_without_a_beginning_is_refused(make_folder: Any) -> None:
    folder = make_folder(template=None)
    loaded = load_model(parse_model(str(folder)), dtype="float32", device="cpu")
    with pytest.raises(ScoringError, match="prompt is empty"):
        generate(loaded, "")
    assert isinstance(generate(loaded, "x", 2)[0], str)

"""Log-probabilities: the packed row against plain forward passes, flags, cancel, fallback."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.data.pairs import Message
from workbench.errors import Cancelled, ScoringError
from workbench.scoring import logprobs
from workbench.scoring.logprobs import (
    PLAIN_NOTE,
    ModelScorer,
    Progress,
    Request,
    SequenceScore,
    active,
    may_pack,
    token_logits,
)
from workbench.scoring.tokenise import tokenise_completion

texts = st.text(alphabet="abc the\n é", min_size=1, max_size=25)
ragged = st.lists(st.tuples(st.sampled_from(["the cat", "why?", ""]), texts), max_size=9)
relaxed = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def brute(loaded: Any, request: Request) -> np.ndarray:
    """One forward pass a request with nothing but ids, softmax over everything in float64."""
    sequence = tokenise_completion(
        loaded.tokenizer, request.prompt, request.response, loaded.max_length
    )
    ids = torch.as_tensor(np.asarray(sequence.input_ids)).long()
    with torch.no_grad():
        logits = loaded.model(input_ids=ids[None]).logits[0].double()
    start = max(sequence.response_start, 1)
    rows = torch.log_softmax(logits, dim=-1)
    return np.array([float(rows[place - 1, ids[place]]) for place in range(start, len(ids))])


def check(loaded: Any, requests: list[Request], scores: list[SequenceScore]) -> None:
    assert len(scores) == len(requests)
    for request, score in zip(requests, scores, strict=True):
        np.testing.assert_allclose(score.token_logps, brute(loaded, request), rtol=0, atol=1e-4)
        assert score.token_logps.dtype == np.float32
        assert score.token_ids.dtype == np.int32
        assert score.n_tokens == len(score.token_logps)


def three() -> list[Request]:
    return [Request("the cat", text) for text in ("sat on the mat", "ran", "is a dog, I think")]


@relaxed
@given(ragged)
def test_packed_rows_equal_plain_passes(tiny_loaded: Any, rows: list[tuple[str, str]]) -> None:
    requests = [Request(*row) for row in rows]
    scorer = ModelScorer(tiny_loaded)
    check(tiny_loaded, requests, scorer.score(requests))
    assert scorer._packs is True


def test_float64_models_keep_their_digits(make_folder: Any) -> None:
    from workbench.scoring.models import load_model, parse_model

    loaded = load_model(parse_model(str(make_folder(seed=3))), dtype="float64", device="cpu")
    for request, score in zip(three(), ModelScorer(loaded).score(three()), strict=True):
        np.testing.assert_allclose(score.token_logps, brute(loaded, request), rtol=3e-7)


def test_rows_are_cut_without_changing_scores(
    tiny_loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [*three(), Request("why?", "because"), Request("the cat sat", "")]
    whole = ModelScorer(tiny_loaded).score(requests)
    monkeypatch.setattr(logprobs, "ROW_TOKENS", 10)
    parts: list[list[tuple[int, SequenceScore]]] = []
    cut = ModelScorer(tiny_loaded).score(requests, on_partial=parts.append)
    assert len(parts) == 3
    assert sorted(index for part in parts for index, _ in part) == [0, 1, 2, 3, 4]
    for a, b in zip(whole, cut, strict=True):
        np.testing.assert_allclose(a.token_logps, b.token_logps, atol=1e-5)


def continued(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every tree of several answers too long for a row."""
    monkeypatch.setattr(logprobs, "TREE_TOKENS", 1)


def test_long_answers_go_on_from_their_prompts_cache(
    tiny_loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    continued(monkeypatch)
    requests = [*three(), Request("why?", "it"), Request("why?", ""), Request("the", "cat")]
    scorer = ModelScorer(tiny_loaded)
    read: list[int] = []
    scorer.score(requests[:1])
    hook = tiny_loaded.model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: read.append(inputs[0].numel())
    )
    try:
        scores = scorer.score(requests)
    finally:
        hook.remove()
    check(tiny_loaded, requests, scores)
    answers = [score.n_tokens - 1 for score in scores]
    assert read[1:4] == answers[:3]  # the prompt once, then each answer without its last token
    assert scorer._packs is True


def test_a_cache_that_keeps_the_last_answer_fails_the_same_check(
    tiny_loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    continued(monkeypatch)
    monkeypatch.setattr(logprobs.copy, "deepcopy", lambda cache: cache)
    scorer = ModelScorer(tiny_loaded)
    scorer._packs = True
    with pytest.raises(AssertionError):
        check(tiny_loaded, three(), scorer.score(three()))
    careful = ModelScorer(tiny_loaded)
    check(tiny_loaded, three(), careful.score(three()))
    assert careful._packs is False


@pytest.mark.parametrize(
    ("prompt", "answers", "long"),
    [
        (10, [10, 10], False),  # a row of its own would cost passes
        (600, [100, 100], False),  # hardly anything of the mask is thrown away
        (50, [600, 600], True),
        (600, [600, 600], True),
        (4000, [900], False),  # a lone answer has no sibling to hide
    ],
)
def test_a_tree_is_long_where_passes_of_their_own_are_cheaper(
    prompt: int, answers: list[int], long: bool
) -> None:
    def ids(n: int) -> Any:
        return np.zeros(n, np.int32)

    tree = logprobs._Tree(ids(prompt), [(i, ids(n)) for i, n in enumerate(answers)])
    assert tree.long is long


def test_the_prompt_is_read_once_for_all_its_answers(tiny_loaded: Any) -> None:
    read: list[int] = []
    hook = tiny_loaded.model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: read.append(inputs[0].numel())
    )
    try:
        scorer = ModelScorer(tiny_loaded)
        scorer.score(three())
        read.clear()
        scores = scorer.score(three())
    finally:
        hook.remove()
    sequences = [
        tokenise_completion(tiny_loaded.tokenizer, r.prompt, r.response, 128) for r in three()
    ]
    assert read == [sequences[0].response_start + sum(score.n_tokens for score in scores)]


def test_siblings_that_see_each_other_fail_the_same_check(
    tiny_loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaky(row: Any, dtype: torch.dtype) -> torch.Tensor:
        seen = torch.ones(row.size, row.size, dtype=torch.bool).tril()
        hidden = torch.finfo(dtype).min
        return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, hidden)[None, None]

    monkeypatch.setattr(logprobs._Row, "_mask", leaky)
    scorer = ModelScorer(tiny_loaded)
    scorer._packs = True
    with pytest.raises(AssertionError):
        check(tiny_loaded, three(), scorer.score(three()))
    # Asked by itself, the scorer notices and goes the plain way.
    notes: list[Progress] = []
    careful = ModelScorer(tiny_loaded)
    check(tiny_loaded, three(), careful.score(three(), on_progress=notes.append))
    assert {progress.note for progress in notes} == {PLAIN_NOTE}


def test_positions_that_run_on_fail_the_same_check(
    tiny_loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = logprobs._Row.inputs

    def without_positions(row: Any, model: Any) -> dict[str, Any]:
        inputs = original(row, model)
        inputs.pop("position_ids", None)
        return inputs

    monkeypatch.setattr(logprobs._Row, "inputs", without_positions)
    scorer = ModelScorer(tiny_loaded)
    scorer._packs = True
    with pytest.raises(AssertionError):
        check(tiny_loaded, three(), scorer.score(three()))


def test_a_model_that_refuses_masks_goes_the_plain_way(
    tiny_loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = tiny_loaded.model.forward

    def narrow(input_ids: torch.Tensor, use_cache: bool = False) -> Any:
        return original(input_ids=input_ids, use_cache=use_cache)

    monkeypatch.setattr(tiny_loaded.model, "forward", narrow)
    scorer = ModelScorer(tiny_loaded)
    check(tiny_loaded, three(), scorer.score(three()))
    assert scorer._packs is False


def test_a_half_precision_model_is_given_its_rounding(make_folder: Any) -> None:
    from workbench.scoring.models import load_model, parse_model

    folder = make_folder(initializer_range=0.02)
    loaded = load_model(parse_model(str(folder)), dtype="bfloat16", device="cpu")
    scorer = ModelScorer(loaded)
    for request, score in zip(three(), scorer.score(three()), strict=True):
        np.testing.assert_allclose(score.token_logps, brute(loaded, request), atol=0.1)
    assert scorer._packs is True


@pytest.mark.parametrize(
    ("config", "allowed"),
    [
        ({}, True),
        ({"sliding_window": None}, True),
        ({"sliding_window": 4096}, True),
        ({"sliding_window": 64}, False),
        ({"sliding_window": 64, "use_sliding_window": False}, True),
        ({"attention_chunk_size": 64, "use_sliding_window": False}, False),
    ],
)
def test_windows_rule_packing_out(config: dict[str, Any], allowed: bool) -> None:
    text = SimpleNamespace(**config)
    model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text))
    assert may_pack(model, 128) is allowed


@pytest.mark.parametrize("family", ["gpt2", "qwen2", "mistral", "bloom"])
def test_other_architectures_score_right(family: str, tiny_loaded: Any) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes: dict[str, dict[str, Any]] = {
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
        "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    }
    llama = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
    more = {"sliding_window": 6} if family == "mistral" else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = AutoConfig.for_model(
            family, vocab_size=319, initializer_range=0.3, **sizes.get(family, llama), **more
        )
        model = AutoModelForCausalLM.from_config(config).eval()
    loaded = SimpleNamespace(
        model=model, tokenizer=tiny_loaded.tokenizer, digest=family, template_digest="",
        max_length=128, dtype="float32", device="cpu", name=family,
    )  # fmt: skip
    scorer = ModelScorer(loaded)  # type: ignore[arg-type]
    check(loaded, three(), scorer.score(three()))
    assert scorer._packs is (family in ("gpt2", "qwen2"))


def test_truncated_and_empty_answers_are_flagged(tiny_loaded: Any) -> None:
    long, empty, lost, fine = ModelScorer(tiny_loaded).score(
        [
            Request("why", "the cat " * 200),
            Request("why", ""),
            Request("the cat " * 200, "no room is left"),
            Request((Message(role="user", content="why"),), "the dog"),
        ]
    )
    assert long.truncated
    assert not long.empty
    assert long.n_tokens > 0
    assert empty.empty
    assert not empty.truncated
    assert lost.truncated
    assert lost.empty
    assert lost.n_tokens == 0
    assert lost.logp == 0.0
    assert not fine.truncated
    assert not fine.empty


def test_sums_are_float64() -> None:
    values = np.full(10_000_001, 0.1, np.float32)
    score = SequenceScore(np.zeros(0, np.int32), values, False, False)
    assert score.logp == pytest.approx(values.astype(np.float64).sum(), rel=1e-12)


def test_scores_cannot_be_written_into(tiny_loaded: Any) -> None:
    score = ModelScorer(tiny_loaded).score(three())[0]
    with pytest.raises(ValueError, match="read-only"):
        score.token_logps[0] = 0.0


def test_nothing_asked_is_nothing_scored(tiny_loaded: Any) -> None:
    assert ModelScorer(tiny_loaded).score([]) == []


def test_progress_counts_answers(tiny_loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "ROW_TOKENS", 1)
    seen: list[Progress] = []
    requests = [Request(prompt, "sat") for prompt in ("a", "b", "c")]
    ModelScorer(tiny_loaded).score(requests, on_progress=seen.append)
    assert [(p.done, p.total) for p in seen] == [(1, 3), (2, 3), (3, 3)]
    assert seen[-1].eta_seconds == 0
    assert {p.note for p in seen} == {""}


def test_cancel_stops_inside_a_pass_and_keeps_what_was_given(
    tiny_loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logprobs, "ROW_TOKENS", 1)
    scorer = ModelScorer(tiny_loaded)
    requests = [Request(prompt, "sat") for prompt in ("a", "b", "c")]
    scorer.score(requests[:1])
    given_parts: list[Any] = []
    asked_after_first = 0

    def cancelled() -> bool:
        nonlocal asked_after_first
        asked_after_first += bool(given_parts)
        return asked_after_first == 3  # before the pass, before layer 1, before layer 2

    with pytest.raises(Cancelled):
        scorer.score(requests, on_partial=given_parts.extend, cancelled=cancelled)
    assert [index for index, _ in given_parts] == [0]
    layers = tiny_loaded.model.model.layers
    assert all(not layer._forward_pre_hooks for layer in layers)


def test_cancel_before_tokenising(tiny_loaded: Any) -> None:
    with pytest.raises(Cancelled):
        ModelScorer(tiny_loaded).score(three(), cancelled=lambda: True)


def test_token_logits_agree_with_the_scores(tiny_loaded: Any) -> None:
    request = three()[0]
    score = ModelScorer(tiny_loaded).score([request])[0]
    logits = token_logits(tiny_loaded, request.prompt, request.response)
    assert logits.dtype == torch.float32
    assert logits.shape == (score.n_tokens, 319)
    logps = torch.log_softmax(logits, -1)[range(score.n_tokens), score.token_ids.tolist()]
    np.testing.assert_allclose(logps.numpy(), score.token_logps, atol=1e-5)
    assert token_logits(tiny_loaded, "the cat " * 200, "none").shape == (0, 319)


def test_a_row_too_large_is_refused_with_what_fits(
    tiny_loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.scoring.memory.available_bytes", lambda device: 10_000)
    scorer = ModelScorer(tiny_loaded)
    scorer._packs = True
    with pytest.raises(ScoringError, match=r"row of \d+ tokens .*shorten the text to about \d+"):
        scorer.score(three())


def test_roles_switch_around_each_pass() -> None:
    with active(SimpleNamespace()):  # type: ignore[arg-type]
        pass


def test_requests_hash_by_content() -> None:
    assert hash(Request("a", "b")) == hash(Request("a", "b"))
    assert Request("a", "b") == Request("a", "b") != Request("a", "c")

"""Attribution of a margin: exact on a linear model, complete on a real one, brute force."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from workbench.errors import Cancelled, ScoringError
from workbench.scoring import attribution
from workbench.scoring.attribution import MarginAttribution, attribute_margin
from workbench.scoring.logprobs import ModelScorer, Request
from workbench.scoring.tokenise import tokenise_completion

PROMPT, CHOSEN, REJECTED = "the cat", "sat on the mat", "ran"


@pytest.fixture(scope="module")
def policy(make_folder: Any) -> Any:
    from workbench.scoring.models import load_model, parse_model

    return load_model(parse_model(str(make_folder(seed=7))), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def calm(make_folder: Any) -> tuple[Any, Any]:
    """Two models of narrow weights, whose integrals are smooth."""
    from workbench.scoring.models import load_model, parse_model

    specs = [parse_model(str(make_folder(seed=s, initializer_range=0.08))) for s in (1, 2)]
    first, second = (load_model(spec, dtype="float32", device="cpu") for spec in specs)
    return first, second


class Linear(torch.nn.Module):
    """log p of every answer token is -9 plus a weighted sum of all embeddings' first entries."""

    dtype = torch.float32
    device = torch.device("cpu")

    def __init__(self, slope: float, vocabulary: int = 319) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(vocabulary, 4)
        torch.nn.init.uniform_(self.table.weight, -0.1, 0.1)
        self.slope = slope
        self.targets = torch.zeros(0)

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self.table

    def forward(self, inputs_embeds: Any, logits_to_keep: Any, use_cache: bool) -> Any:
        weights = self.slope * torch.arange(1.0, inputs_embeds.shape[1] + 1)
        logp = -9 + 0.01 * (inputs_embeds[..., 0] * weights).sum(-1)
        places = torch.nn.functional.one_hot(self.targets, 319).bool()
        rest = torch.log((1 - logp.exp()) / 318)
        return SimpleNamespace(logits=torch.where(places, logp, rest)[None])


def exact(model: Linear, ids: torch.Tensor, start: int) -> torch.Tensor:
    table = model.table.weight.detach()[:, 0]
    weights = model.slope * torch.arange(1.0, len(ids) + 1) * 0.01
    return (len(ids) - start) * weights * (table[ids] - table.mean())


def linear_margin(tokenizer: Any, answer: str, method: Any) -> tuple[Any, torch.Tensor]:
    sequence = tokenise_completion(tokenizer, PROMPT, answer, 128)
    ids = torch.as_tensor(np.asarray(sequence.input_ids)).long()
    loaded = []
    for slope in (3.0, -1.0):
        model = Linear(slope)
        model.targets = ids[sequence.response_start :]
        loaded.append(SimpleNamespace(model=model, tokenizer=tokenizer, max_length=128))
    found = attribute_margin(
        loaded[0], loaded[1], PROMPT, answer, answer, beta=0.5, method=method, steps=1
    )  # type: ignore[arg-type]
    wanted = [exact(each.model, ids, sequence.response_start) for each in loaded]
    return found.chosen, 0.5 * (wanted[0] - wanted[1])


def test_a_linear_model_is_attributed_exactly(tiny_loaded: Any) -> None:
    side, wanted = linear_margin(tiny_loaded.tokenizer, CHOSEN, "integrated_gradients")
    np.testing.assert_allclose(side.scores, wanted.numpy(), atol=2e-5)
    assert abs(side.completeness_error) < 1e-4


def test_ablation_of_a_linear_model_adds_up_by_word(tiny_loaded: Any) -> None:
    side, wanted = linear_margin(tiny_loaded.tokenizer, CHOSEN, "feature_ablation")
    assert sum(side.scores) == pytest.approx(float(wanted.sum()), abs=1e-4)
    assert abs(side.completeness_error) < 1e-4


def test_a_reference_fed_with_the_policys_embeddings_fails_the_same_check(
    tiny_loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = attribution._Side
    original = side._answer_logp

    def confused(self: Any, loaded: Any, embeddings: torch.Tensor) -> torch.Tensor:
        if loaded is self._models[1]:
            embeddings = self._models[0].model.get_input_embeddings()(self._ids)[None]
        return original(self, loaded, embeddings)

    monkeypatch.setattr(side, "_answer_logp", confused)
    with pytest.raises(AssertionError):
        test_a_linear_model_is_attributed_exactly(tiny_loaded)


def check_values(found: MarginAttribution, policy: Any, reference: Any, beta: float) -> None:
    """The attributed rewards are those that scoring gives."""
    for side, answer in ((found.chosen, CHOSEN), (found.rejected, REJECTED)):
        ours, theirs = (
            ModelScorer(model).score([Request(PROMPT, answer)])[0] for model in (policy, reference)
        )
        assert side.value == pytest.approx(beta * (ours.logp - theirs.logp), abs=1e-3)
        assert sum(side.is_response) == ours.n_tokens
        assert len(side.tokens) == len(side.scores) == len(side.is_response)
    assert found.margin == found.chosen.value - found.rejected.value


def test_values_are_the_rewards_of_scoring(tiny_loaded: Any, policy: Any) -> None:
    found = attribute_margin(policy, tiny_loaded, PROMPT, CHOSEN, REJECTED, beta=0.3, steps=1)
    check_values(found, policy, tiny_loaded, 0.3)
    assert found.beta == 0.3
    assert "".join(found.chosen.tokens).count("the cat") == 1


def test_more_steps_make_it_complete(calm: tuple[Any, Any]) -> None:
    few, many = (
        attribute_margin(*calm, PROMPT, CHOSEN, REJECTED, steps=steps) for steps in (2, 64)
    )
    for coarse, fine in ((few.chosen, many.chosen), (few.rejected, many.rejected)):
        change = fine.value - fine.baseline_value
        assert sum(fine.scores) - change == pytest.approx(fine.completeness_error)
        assert abs(fine.completeness_error) < 0.01 * max(abs(change), 1)
        assert abs(fine.completeness_error) < max(abs(coarse.completeness_error), 1e-3)


def test_plain_gradients_would_not_be_complete(
    calm: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from captum.attr import IntegratedGradients

    def one_gradient(self: Any, text: Any, *, baselines: Any, **rest: Any) -> torch.Tensor:
        point = text.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.forward_func(point).sum(), point)
        return (gradient * (text - baselines)).detach()

    monkeypatch.setattr(IntegratedGradients, "attribute", one_gradient)
    with pytest.raises(AssertionError):
        test_more_steps_make_it_complete(calm)


@pytest.mark.parametrize("baseline", ["mean", "zero"])
def test_ablation_equals_brute_force(tiny_loaded: Any, policy: Any, baseline: Any) -> None:
    found = attribute_margin(
        policy, tiny_loaded, PROMPT, CHOSEN, REJECTED, method="feature_ablation", baseline=baseline
    )
    check_values(found, policy, tiny_loaded, 1.0)
    sequence = tokenise_completion(policy.tokenizer, PROMPT, CHOSEN, 128)
    ids, start = torch.as_tensor(np.asarray(sequence.input_ids)).long(), sequence.response_start

    def reward(hidden: list[int]) -> float:
        total = 0.0
        for sign, loaded in ((1, policy), (-1, tiny_loaded)):
            table = loaded.model.get_input_embeddings().weight.detach()
            embedded = table[ids].clone()
            embedded[hidden] = table.mean(0) if baseline == "mean" else 0.0
            with torch.no_grad():
                logits = loaded.model(inputs_embeds=embedded[None]).logits[0].double()
            logp = torch.log_softmax(logits, -1)
            total += sign * sum(float(logp[t - 1, ids[t]]) for t in range(start, len(ids)))
        return total

    whole, place, words = reward([]), 0, 0
    tokens, scores = found.chosen.tokens, found.chosen.scores
    while place < len(tokens):
        end = place + 1
        while (
            end < len(tokens)
            and end != start
            and (
                (tokens[end - 1][-1:].isalnum() and tokens[end][:1].isalnum())
                or not tokens[end - 1]
            )
        ):
            end += 1
        lost = whole - reward(list(range(place, end)))
        assert sum(scores[place:end]) == pytest.approx(lost, abs=2e-3)
        place, words = end, words + 1
    assert words < len(tokens)


def test_a_character_of_several_tokens_is_one_word(tiny_loaded: Any, policy: Any) -> None:
    found = attribute_margin(
        policy, tiny_loaded, PROMPT, "é 日", REJECTED, method="feature_ablation"
    )
    tokens, scores = found.chosen.tokens, found.chosen.scores
    for place, token in enumerate(tokens[:-1]):
        if token == "":
            assert scores[place] == scores[place + 1]
    assert "" in tokens


def test_a_model_against_itself_has_no_margin(tiny_loaded: Any) -> None:
    found = attribute_margin(tiny_loaded, tiny_loaded, PROMPT, CHOSEN, REJECTED, steps=2)
    assert found.margin == 0
    # Two gradients of one weight are summed in different orders.
    assert found.chosen.scores == pytest.approx([0.0] * len(found.chosen.scores), abs=1e-5)


def test_policy_and_reference_may_share_their_weights(tiny_folder: Any, tiny_adapter: Any) -> None:
    from workbench.scoring.models import load_model, parse_model

    reference = load_model(parse_model(str(tiny_folder)), dtype="float32", device="cpu")
    adapted = load_model(
        parse_model(f"{tiny_folder}+adapter:{tiny_adapter}"), dtype="float32", device="cpu"
    )
    found = attribute_margin(adapted, reference, PROMPT, CHOSEN, REJECTED, steps=4)
    check_values(found, adapted, reference, 1.0)
    assert found.margin != 0
    assert any(found.chosen.scores)


@pytest.mark.parametrize("method", ["integrated_gradients", "feature_ablation"])
def test_progress_ends_at_its_total(tiny_loaded: Any, policy: Any, method: Any) -> None:
    seen: list[tuple[int, int]] = []
    attribute_margin(
        policy, tiny_loaded, PROMPT, CHOSEN, REJECTED, method=method, steps=3,
        on_step=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    total = seen[0][1]
    assert seen == [(done, total) for done in range(1, total + 1)]


@pytest.mark.parametrize("method", ["integrated_gradients", "feature_ablation"])
def test_cancel_at_any_moment(tiny_loaded: Any, policy: Any, method: Any) -> None:
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked == limit

    def run() -> MarginAttribution:
        return attribute_margin(
            policy, tiny_loaded, PROMPT, CHOSEN, REJECTED, method=method, steps=2,
            cancelled=cancelled,
        )  # fmt: skip

    limit = 0
    run()
    for limit in range(1, asked, 7):
        asked = 0
        with pytest.raises(Cancelled):
            run()
        assert asked == limit
    for layer in policy.model.model.layers:
        assert not layer._forward_pre_hooks
        assert not layer._backward_pre_hooks


def test_the_way_back_is_cancelled_too(tiny_loaded: Any, policy: Any) -> None:
    steps: list[int] = []
    asked_in_step: list[int] = []

    def cancelled() -> bool:
        asked_in_step.append(len(steps))
        return False

    attribute_margin(
        policy, tiny_loaded, PROMPT, CHOSEN, REJECTED, steps=1,
        on_step=lambda done, total: steps.append(done), cancelled=cancelled,
    )  # fmt: skip
    forward_only, with_gradient = asked_in_step.count(1), asked_in_step.count(3)
    assert with_gradient >= forward_only + 4  # two layers of two models


def test_what_cannot_be_attributed_is_refused(tiny_loaded: Any) -> None:
    with pytest.raises(ScoringError, match="nothing to attribute"):
        attribute_margin(tiny_loaded, tiny_loaded, PROMPT, CHOSEN, "")
    with pytest.raises(ScoringError, match="more than 128 tokens"):
        attribute_margin(tiny_loaded, tiny_loaded, PROMPT, CHOSEN, "the dog " * 300)
    with pytest.raises(ScoringError, match="more than 128 tokens"):
        attribute_margin(tiny_loaded, tiny_loaded, "the dog " * 300, CHOSEN, REJECTED)
    with pytest.raises(ScoringError, match="at least 1"):
        attribute_margin(tiny_loaded, tiny_loaded, PROMPT, CHOSEN, REJECTED, steps=0)


def test_a_scaled_embedding_is_used_as_the_model_uses_it() -> None:
    class Scaled(torch.nn.Embedding):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return super().forward(ids) * 5

    table = Scaled(10_000, 3)
    mean = attribution._mean_embedding(table)
    torch.testing.assert_close(mean, 5 * table.weight.detach().mean(0), atol=1e-4, rtol=1e-4)

"""DPO on the top blocks of a causal language model, with the trunk below them read once.

Only the last blocks carry LoRA weights, so the hidden states that enter them never change: they
are computed once for every text and kept, and a training step costs the top blocks and the head.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.objectives.dpo import dpo_loss
from workbench.scoring.tokenise import TokenisedSequence

OnStep = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of a run.

    Attributes:
        beta: DPO's inverse temperature.
        rank: Of the LoRA matrices.
        learning_rate: Peak, reached after `warm_up` steps and then falling linearly to zero.
        epochs: Passes over the pairs.
        batch_size: Pairs a step.
        top_blocks: Blocks that are trained.
    """

    beta: float = 0.1
    rank: int = 4
    learning_rate: float = 1e-3
    epochs: int = 1
    batch_size: int = 8
    warm_up: int = 5
    top_blocks: int = 2


@dataclass(frozen=True)
class CachedText:
    """A tokenised text and the hidden states that enter the top blocks, shape (tokens, width)."""

    ids: Tensor
    start: int
    states: Tensor


def attach_lora(model: Any, recipe: Recipe, seed: int) -> Any:  # noqa: ANN401 - transformers, peft
    """Put fresh LoRA weights on every projection of the top blocks; the seed sets them."""
    from peft import LoraConfig, get_peft_model

    layers = len(model.model.layers)
    torch.manual_seed(seed)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=2 * recipe.rank,
        target_modules=[
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
        ],
        layers_to_transform=list(range(layers - recipe.top_blocks, layers)),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def trunk_states(model: Any, sequence: TokenisedSequence, top_blocks: int) -> CachedText:  # noqa: ANN401
    """Read a text up to the top blocks of the plain model (a transformers Llama)."""
    ids = torch.as_tensor(sequence.input_ids).long()
    body = model.model
    with torch.no_grad():
        states = body.embed_tokens(ids[None])
        states = _through(body, body.layers[: len(body.layers) - top_blocks], states)
    return CachedText(ids, sequence.response_start, states[0].clone())


def response_logps(model: Any, texts: Sequence[CachedText], top_blocks: int) -> Tensor:  # noqa: ANN401
    """Summed log-probability of each text's answer by top blocks and head, shape (texts,)."""
    body, longest = model.model, max(len(text.ids) for text in texts)
    states = torch.stack(
        [torch.nn.functional.pad(t.states, (0, 0, 0, longest - len(t.ids))) for t in texts]
    )
    # Padding stands behind every real token, and attention only looks back.
    states = body.norm(_through(body, body.layers[len(body.layers) - top_blocks :], states))
    return torch.stack([_answer(model, row, text) for row, text in zip(states, texts, strict=True)])


def train_preferences(
    model: Any,  # noqa: ANN401 - the plain model, with LoRA weights attached
    pairs: Sequence[tuple[CachedText, CachedText]],
    reference: Sequence[tuple[float, float]],
    recipe: Recipe,
    seed: int,
    on_step: OnStep | None = None,
) -> list[float]:
    """Minimise DPO's loss over (chosen, rejected) pairs; returns the loss of every step.

    Args:
        model: The plain model whose top blocks carry LoRA weights.
        pairs: Cached chosen and rejected texts.
        reference: Their log-probabilities without the adapter, nats.
        recipe: Hyperparameters.
        seed: Of the order of the pairs; the same seed gives the same weights to the bit.
        on_step: Called with (step, steps, loss); may raise to stop.
    """
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=0.0)
    steps = recipe.epochs * (len(pairs) // recipe.batch_size)
    losses: list[float] = []
    for step, places in enumerate(_batches(len(pairs), recipe, seed)):
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, steps, recipe.warm_up)
        chosen, rejected = (
            response_logps(model, [pairs[i][side] for i in places], recipe.top_blocks)
            for side in (0, 1)
        )
        base = torch.tensor([reference[i] for i in places], dtype=chosen.dtype)
        loss = dpo_loss(chosen, rejected, base[:, 0], base[:, 1], recipe.beta).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
        if on_step is not None:
            on_step(step + 1, steps, losses[-1])
    return losses


def save_adapter(peft_model: Any, folder: Path) -> None:  # noqa: ANN401
    """Write the LoRA weights as a peft folder that names no base model's place."""
    peft_model.peft_config["default"].base_model_name_or_path = None
    peft_model.peft_config["default"].inference_mode = True
    peft_model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)


def _through(body: Any, layers: Any, states: Tensor) -> Tensor:  # noqa: ANN401
    places = torch.arange(states.shape[1])[None]
    rotary = body.rotary_emb(states, places)
    for layer in layers:
        states = layer(states, position_embeddings=rotary, position_ids=places)
    return states


def _answer(model: Any, states: Tensor, text: CachedText) -> Tensor:  # noqa: ANN401
    logits = model.lm_head(states[text.start - 1 : len(text.ids) - 1]).float()
    chosen = logits.gather(1, text.ids[text.start :, None])[:, 0]
    return (chosen - logits.logsumexp(dim=1)).double().sum()


def _batches(n: int, recipe: Recipe, seed: int) -> Iterator[list[int]]:
    shuffle = random.Random(seed)
    for _ in range(recipe.epochs):
        order = list(range(n))
        shuffle.shuffle(order)
        for start in range(0, n - recipe.batch_size + 1, recipe.batch_size):
            yield order[start : start + recipe.batch_size]


def _schedule(step: int, steps: int, warm_up: int) -> float:
    return min((step + 1) / warm_up, 1.0) * (1 - step / max(steps, 1))

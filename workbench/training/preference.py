"""Preference optimisation on the top blocks of a language model, with the trunk read once.

Only the last blocks carry LoRA weights, so the hidden states that enter them never change: they
are computed once for every pair and kept, and a step costs the top blocks and the head. Prompt,
chosen and rejected answer stand in one row; both answers continue the prompt's positions and see
the prompt and themselves only, so the prompt is read once. The head runs at the answers' tokens
alone. Log-probabilities are those of a plain forward pass over each text by itself.
"""

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from workbench.data.pairs import Text
from workbench.errors import ModelError, ScoringError, stop_if
from workbench.metrics.rewards import reward_accuracy
from workbench.objectives.dpo import dpo_loss
from workbench.scoring.tokenise import TokenisedSequence, tokenise_completion
from workbench.training.descent import descend

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Linear maps of a Llama block."""
_PROMPT, _PADDING = 0, -1


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of a run.

    Attributes:
        beta: DPO's inverse temperature, > 0.
        learning_rate: Peak, reached after the warm-up, then falling to zero as half a cosine.
        epochs: Passes over the pairs.
        batch_size: Pairs a step; the last step of a pass may have fewer.
        warm_up: Share of all steps in which the learning rate rises linearly.
        max_grad_norm: Longer gradients are cut to this Euclidean length.
    """

    beta: float = 0.1
    learning_rate: float = 5e-4
    epochs: int = 1
    batch_size: int = 8
    warm_up: float = 0.1
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        for name in ("beta", "learning_rate", "epochs", "batch_size", "max_grad_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; give a positive number.")
        if not 0 <= self.warm_up <= 1:
            raise ValueError(f"warm_up is {self.warm_up}; give a share between 0 and 1.")


@dataclass(frozen=True, eq=False)
class PairTokens:
    """A pair in tokens: the prompt, and both answers that continue it.

    Attributes:
        prompt: int64 of shape (p,), what both texts begin with; p >= 1.
        answers: Chosen and rejected, int64 of shape (t,) each.
        unscored: How many leading tokens of each answer still belong to its prompt; not 0 only
            where the tokenizer joined prompt and answer differently on the two sides.
    """

    prompt: Tensor
    answers: tuple[Tensor, Tensor]
    unscored: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answers[0]) + len(self.answers[1])

    @property
    def ids(self) -> Tensor:
        """Prompt, chosen and rejected answer end to end, shape (tokens,)."""
        return torch.cat([self.prompt, *self.answers])

    @property
    def branches(self) -> Tensor:
        """0 at the prompt's tokens, 1 at the chosen answer's, 2 at the rejected one's."""
        sizes = [len(self.prompt), *map(len, self.answers)]
        return torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))

    @property
    def positions(self) -> Tensor:
        """Place of each token in its own text, shape (tokens,)."""
        p = len(self.prompt)
        return torch.cat([torch.arange(p), *(p + torch.arange(len(a)) for a in self.answers)])

    def predictions(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(side, places in the row that predict, tokens that they predict) for both answers."""
        p, start = len(self.prompt), len(self.prompt)
        for side, (answer, skip) in enumerate(zip(self.answers, self.unscored, strict=True)):
            before = torch.arange(start - 1, start + len(answer) - 1)
            before[:1] = p - 1  # the first token of either answer follows the prompt
            yield side, before[skip:], answer[skip:]
            start += len(answer)


@dataclass(frozen=True, eq=False)
class CachedPair:
    """A pair and the hidden states that enter the top blocks, of shape (tokens, width)."""

    tokens: PairTokens
    states: Tensor


@dataclass(frozen=True, eq=False)
class PreferenceBatch:
    """Cached pairs as one padded block.

    Attributes:
        states: Hidden states, shape (pairs, tokens, width).
        positions: int64, shape (pairs, tokens).
        mask: 0 where a token sees another, very negative elsewhere; (pairs, 1, tokens, tokens).
        predictors: Places of the flattened block that predict an answer's token, shape (n,).
        targets: The tokens that they predict, shape (n,).
        owners: 2 * pair + side of each, side 0 being the chosen answer, shape (n,).
    """

    states: Tensor
    positions: Tensor
    mask: Tensor
    predictors: Tensor
    targets: Tensor
    owners: Tensor

    @classmethod
    def of(cls, pairs: Sequence[CachedPair]) -> "PreferenceBatch":
        """Pad pairs to the longest; padding sees its prompt and is seen by nothing."""
        longest = max(len(pair.tokens) for pair in pairs)
        room = [longest - len(pair.tokens) for pair in pairs]
        both = list(zip(pairs, room, strict=True))
        branches = torch.stack([pad(c.tokens.branches, (0, r), value=_PADDING) for c, r in both])
        scored = [
            (row * longest + places, targets, torch.full_like(targets, 2 * row + side))
            for row, pair in enumerate(pairs)
            for side, places, targets in pair.tokens.predictions()
        ]
        predictors, targets, owners = (torch.cat(part) for part in zip(*scored, strict=True))
        return cls(
            states=torch.stack([pad(c.states, (0, 0, 0, r)) for c, r in both]),
            positions=torch.stack([pad(c.tokens.positions, (0, r)) for c, r in both]),
            mask=_mask(branches, pairs[0].states.dtype),
            predictors=predictors,
            targets=targets,
            owners=owners,
        )

    def __len__(self) -> int:
        return len(self.states)

    @property
    def sizes(self) -> Tensor:
        """Scored tokens of each answer, chosen and rejected, int64 of shape (pairs, 2)."""
        return torch.bincount(self.owners, minlength=2 * len(self)).view(-1, 2)

    def summed(self, values: Tensor) -> Tensor:
        """Values of the scored tokens, shape (n,), summed over each answer: (pairs, 2)."""
        sums = torch.zeros(2 * len(self), dtype=values.dtype, device=values.device)
        return sums.index_add(0, self.owners.to(values.device), values).view(-1, 2)

    def padded(self, values: Tensor) -> Tensor:
        """Values of the scored tokens, shape (n,), as rows of answers: (2, pairs, tokens).

        Zero behind the end of an answer; chosen answers first.
        """
        sizes = self.sizes.flatten()
        starts = sizes.cumsum(0) - sizes
        places = torch.arange(len(self.owners)) - starts[self.owners]
        rows = torch.zeros(len(sizes), int(sizes.max()), dtype=values.dtype, device=values.device)
        rows = rows.index_put((self.owners.to(values.device), places.to(values.device)), values)
        return rows.view(len(self), 2, -1).transpose(0, 1)


@dataclass(frozen=True)
class Step:
    """What one step did.

    Attributes:
        number: From 1 to `total`.
        total: Steps of the run.
        loss: Mean over the step's pairs, before its update.
        reward_accuracy: Share of its pairs whose chosen answer has the higher implicit reward.
        grad_norm: Euclidean, before it was cut.
        learning_rate: Of this step.
    """

    number: int
    total: int
    loss: float
    reward_accuracy: float
    grad_norm: float
    learning_rate: float


OnStep = Callable[[Step], None]
IsCancelled = Callable[[], bool]


class TopBlocks:
    """The trained end of a Llama: the blocks from number `block` on, the last norm, the head."""

    def __init__(self, model: Any, block: int) -> None:  # noqa: ANN401 - transformers or peft
        self._model = _llama(model)
        self._blocks = self._model.model.layers[_checked_block(self._model, block) :]

    def parameters(self) -> list[torch.nn.Parameter]:
        """The weights that are trained."""
        return [p for p in self._model.parameters() if p.requires_grad]

    def logits(self, batch: PreferenceBatch) -> Tensor:
        """Logits at the places that predict an answer's token, float32 of shape (n, vocabulary)."""
        body, device = self._model.model, self._model.device
        states = _through(
            body, self._blocks, batch.states.to(device), batch.positions, batch.mask.to(device)
        )
        read = body.norm(states.flatten(0, 1)[batch.predictors.to(device)])
        logits: Tensor = self._model.lm_head(read).float()
        return logits

    def token_logps(self, batch: PreferenceBatch) -> Tensor:
        """Log-probability of each scored token, nats, float64 of shape (n,)."""
        return target_logps(self.logits(batch), batch.targets)

    def pair_logps(self, batch: PreferenceBatch) -> Tensor:
        """Summed log-probability of chosen and rejected answers, nats, float64 (pairs, 2)."""
        return batch.summed(self.token_logps(batch))


def target_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probability of one token at each place, nats, float64 of shape (n,)."""
    return -cross_entropy(logits, targets.to(logits.device), reduction="none").double()


def tokenise_pair(
    tokenizer: Any,  # noqa: ANN401 - a transformers tokenizer
    prompt: Text,
    chosen: Text,
    rejected: Text,
    max_prompt: int,
    max_answer: int,
) -> PairTokens | None:
    """A pair in tokens as `read_pair` gives it, or None where nothing is to be learnt."""
    found = read_pair(tokenizer, prompt, chosen, rejected, max_prompt, max_answer)
    return found if isinstance(found, PairTokens) else None


def read_pair(
    tokenizer: Any,  # noqa: ANN401 - a transformers tokenizer
    prompt: Text,
    chosen: Text,
    rejected: Text,
    max_prompt: int,
    max_answer: int,
) -> PairTokens | str:
    """A pair in tokens, or why nothing is to be learnt from it.

    Both answers keep their first `max_answer` tokens. A pair teaches nothing where the prompt is
    longer than `max_prompt` tokens, an answer is empty, or the two are equal as far as they are
    kept.
    """
    try:
        sides = [
            tokenise_completion(tokenizer, prompt, text, max_prompt + max_answer)
            for text in (chosen, rejected)
        ]
    except ScoringError as error:
        return str(error)
    if any(side.response_start > max_prompt for side in sides):
        return f"the prompt is longer than {max_prompt} tokens"
    if any(side.empty for side in sides):
        return "an answer is empty"
    start = max(min(side.response_start for side in sides), 1)
    answers = tuple(_ids(side)[start : side.response_start + max_answer] for side in sides)
    if torch.equal(*answers):
        return f"both answers are the same in their first {max_answer} tokens"
    first, second = (max(side.response_start - start, 0) for side in sides)
    return PairTokens(_ids(sides[0])[:start], (answers[0], answers[1]), (first, second))


def attach_lora(model: Any, *, block: int, rank: int, scale: float, seed: int) -> Any:  # noqa: ANN401
    """Hang fresh LoRA weights on all projections from block `block` on; returns the peft model.

    They leave the model's output as it is until they are trained.

    Args:
        model: A transformers Llama; its own weights are frozen.
        block: Number of the first block that is trained.
        rank: Of the LoRA matrices.
        scale: What their product is multiplied by (LoRA's alpha / rank).
        seed: Of the first values; torch's own random state stays as it was.
    """
    from peft import LoraConfig, get_peft_model

    layers = range(_checked_block(model, block), model.config.num_hidden_layers)
    config = LoraConfig(
        r=rank,
        lora_alpha=scale * rank,  # type: ignore[arg-type]  # any number will do
        target_modules=list(PROJECTIONS),
        layers_to_transform=list(layers),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def trunk_states(
    model: Any,  # noqa: ANN401 - a transformers Llama
    pairs: Sequence[PairTokens],
    block: int,
    *,
    on_pair: Callable[[int, int], None] | None = None,
    cancelled: IsCancelled | None = None,
) -> list[CachedPair]:
    """Read pairs up to block `block`, whose inputs are kept on the CPU.

    Args:
        model: Without an adapter below `block`.
        pairs: In tokens.
        block: Number of the first block that is not run.
        on_pair: Called with (done, total).
        cancelled: Asked before each pair.

    Raises:
        Cancelled: asked to stop.
        ModelError: not a Llama.
        ValueError: the model has no such block.
    """
    llama = _llama(model)
    below = llama.model.layers[: _checked_block(llama, block)]
    cached = []
    for done, pair in enumerate(pairs):
        stop_if(cancelled, "training")
        cached.append(CachedPair(pair, _read(llama, below, pair)))
        if on_pair is not None:
            on_pair(done + 1, len(pairs))
    return cached


def score_pairs(top: TopBlocks, pairs: Sequence[CachedPair], batch_size: int = 8) -> Tensor:
    """Log-probabilities of chosen and rejected answers as the model is now, float64 (pairs, 2)."""
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i].tokens))
    found = torch.zeros(len(pairs), 2, dtype=torch.float64)
    with torch.no_grad():
        for places in _cut(order, batch_size):
            found[places] = top.pair_logps(PreferenceBatch.of([pairs[i] for i in places])).cpu()
    return found


def train_preferences(
    top: TopBlocks,
    pairs: Sequence[CachedPair],
    reference: Tensor,
    recipe: Recipe,
    seed: int,
    *,
    on_step: OnStep | None = None,
    cancelled: IsCancelled | None = None,
) -> list[Step]:
    """Minimise DPO's loss; on a CPU the same seed gives the same weights to the bit.

    Args:
        top: Blocks that carry trainable weights; changed in place.
        pairs: With their cached states.
        reference: Log-probabilities of chosen and rejected answers before training, nats,
            shape (pairs, 2).
        recipe: Hyperparameters.
        seed: Of the order of the pairs.
        on_step: Called after each step.
        cancelled: Asked before each step.

    Raises:
        Cancelled: asked to stop; the weights stay as the last step left them.
        TrainingError: the loss is no longer finite; the last update was not made.
        ValueError: no pairs, or `reference` is not theirs.
    """
    if not pairs or reference.shape != (len(pairs), 2):
        raise ValueError(
            f"There are {len(pairs)} pairs and reference log-probabilities of shape "
            f"{tuple(reference.shape)}; give at least one pair, and two numbers for each."
        )
    weights = top.parameters()
    optimiser = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=0.0)
    plan = list(_plan(len(pairs), recipe, seed))
    steps: list[Step] = []
    for number, places in enumerate(plan, start=1):
        stop_if(cancelled, "training")
        rate = recipe.learning_rate * learning_rate_share(number, len(plan), recipe.warm_up)
        for group in optimiser.param_groups:
            group["lr"] = rate
        logps = top.pair_logps(PreferenceBatch.of([pairs[i] for i in places]))
        base = reference[places].to(logps)
        loss = dpo_loss(logps[:, 0], logps[:, 1], base[:, 0], base[:, 1], recipe.beta).mean()
        gradients = torch.autograd.grad(loss, weights)
        norm = descend(
            float(loss.detach()), gradients, weights, optimiser, recipe.max_grad_norm, number
        )
        rewards = logps.detach() - base
        accuracy = float(reward_accuracy(rewards[:, 0], rewards[:, 1]).mean())
        steps.append(Step(number, len(plan), float(loss.detach()), accuracy, norm, rate))
        if on_step is not None:
            on_step(steps[-1])
    return steps


def learning_rate_share(number: int, total: int, warm_up: float) -> float:
    """Share of the peak learning rate at step `number` (from 1) of `total`: up, then a cosine."""
    rising = round(warm_up * total)
    if number <= rising:
        return number / rising
    return 0.5 * (1 + math.cos(math.pi * (number - rising - 1) / max(total - rising, 1)))


def save_adapter(peft_model: Any, folder: Path) -> None:  # noqa: ANN401 - a peft model
    """Write LoRA weights as adapter_config.json and adapter_model.safetensors.

    The configuration names no place of the base model, which may be a path of this machine, and
    lists the adapted maps in their order: peft keeps them in a set.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # peft also writes a model card, over one that may be there.
    with TemporaryDirectory(dir=folder) as work:
        peft_model.save_pretrained(work, safe_serialization=True)
        settings = json.loads((Path(work) / "adapter_config.json").read_text())
        settings["base_model_name_or_path"] = None
        settings["target_modules"] = sorted(settings["target_modules"])
        (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")
        (Path(work) / "adapter_model.safetensors").replace(folder / "adapter_model.safetensors")


def _plan(n: int, recipe: Recipe, seed: int) -> Iterator[list[int]]:
    """The pairs of every step: each pass visits all once, in an order of its own."""
    shuffle = random.Random(seed)
    for _ in range(recipe.epochs):
        order = list(range(n))
        shuffle.shuffle(order)
        yield from _cut(order, recipe.batch_size)


def _cut(order: list[int], size: int) -> Iterator[list[int]]:
    return (order[start : start + size] for start in range(0, len(order), size))


def _mask(branches: Tensor, dtype: torch.dtype) -> Tensor:
    """Who sees whom in rows of branches of shape (pairs, tokens)."""
    seer, seen = branches[:, :, None], branches[:, None, :]
    visible = ((seen == seer) | (seen == _PROMPT)).tril()
    mask = torch.zeros(visible.shape, dtype=dtype)
    return mask.masked_fill(~visible, torch.finfo(dtype).min)[:, None]


def _read(llama: Any, blocks: Any, pair: PairTokens) -> Tensor:  # noqa: ANN401
    """Hidden states of one pair after `blocks`, shape (tokens, width)."""
    device = llama.device
    with torch.no_grad():
        states = llama.model.embed_tokens(pair.ids[None].to(device))
        mask = _mask(pair.branches[None], states.dtype).to(device)
        return _through(llama.model, blocks, states, pair.positions[None], mask)[0].cpu()


def _through(body: Any, blocks: Any, states: Tensor, positions: Tensor, mask: Tensor) -> Tensor:  # noqa: ANN401
    positions = positions.to(states.device)
    rotary = body.rotary_emb(states, positions)
    for layer in blocks:
        states = layer(
            states, attention_mask=mask, position_ids=positions, position_embeddings=rotary
        )
    return states


def _llama(model: Any) -> Any:  # noqa: ANN401
    """The transformers model, out of peft's wrapping if it is in one."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    if plain.config.model_type != "llama":
        raise ModelError(
            f"The trainer reads models of type llama; this one is {plain.config.model_type!r}. "
            "Choose the default model or another Llama."
        )
    return plain


def _checked_block(llama: Any, block: int) -> int:  # noqa: ANN401
    if not 0 <= block < llama.config.num_hidden_layers:
        raise ValueError(
            f"block is {block}; the model has blocks 0 to {llama.config.num_hidden_layers - 1}."
        )
    return block


def _ids(sequence: TokenisedSequence) -> Tensor:
    return torch.from_numpy(sequence.input_ids.astype("int64"))

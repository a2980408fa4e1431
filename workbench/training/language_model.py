"""A language model as a policy to train: the trunk read once and kept, LoRA on the blocks above.

The base's weights are shared with whoever else has loaded it and never change. Trunk and reference
are read pair by pair, so that they do not depend on which pairs stood in a batch together: a run
that is taken up again after a kill sees the same numbers to the bit.
"""

import copy
import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.data.pairs import PreferencePair, Text
from workbench.errors import TrainingError, stop_if
from workbench.objectives.logps import PairLogps
from workbench.objectives.wpo import log_collision_probability
from workbench.scoring.generate import generate
from workbench.scoring.models import LoadedModel
from workbench.training.capabilities import TokenLogps
from workbench.training.preference import (
    CachedPair,
    PairTokens,
    PreferenceBatch,
    TopBlocks,
    attach_lora,
    read_pair,
    save_adapter,
    target_logps,
    trunk_states,
)

LORA_SCALE = 2.0
"""What the product of the LoRA matrices is multiplied by (LoRA's alpha / rank)."""


class LanguageModelPolicy:
    """A Llama whose top blocks are trained; its reference is the model as it was loaded.

    Args:
        loaded: The base, without an adapter.
        blocks: How many top blocks are trained; 0 for all.
        rank: Of the LoRA matrices; 0 trains the blocks' own weights and the last norm instead,
            and with `blocks` 0 the embeddings and the head too.
        seed: Of the first LoRA weights.
        max_prompt: Tokens; a pair with a longer prompt is refused.
        max_answer: Tokens; a longer answer is cut.
        most_bytes: Memory of the kept hidden states; beyond it the oldest are read again.

    Raises:
        ModelError: not a Llama.
        TrainingError: the base is an adapter, or it has fewer blocks.
    """

    reads_length = True

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        blocks: int = 2,
        rank: int = 8,
        seed: int = 0,
        max_prompt: int = 256,
        max_answer: int = 128,
        most_bytes: int = 1 << 30,
    ) -> None:
        if loaded.adapter is not None:
            raise TrainingError(
                f"{loaded.name} is an adapter on another model; choose that model, or merge the "
                "adapter into it and give the merged folder."
            )
        self.name = loaded.name
        self._loaded = loaded
        self._rank = rank
        self._limits = max_prompt, max_answer
        with loaded.active():
            self._base, own = private_copy(loaded.model), private_copy(loaded.model)
        self._block = _first_block(loaded, self._base, blocks)
        self._whole = rank == 0 and blocks == 0
        if rank:
            own = attach_lora(own, block=self._block, rank=rank, scale=LORA_SCALE, seed=seed)
        else:
            _own_weights(own, self._block, self._whole)
        self._own = own
        self._before, self._top = TopBlocks(self._base, self._block), TopBlocks(own, self._block)
        self._trained = _distinct(own)
        self._tokens: dict[bytes, PairTokens | str] = {}
        self._reference: dict[bytes, Tensor] = {}
        self._kept: OrderedDict[bytes, CachedPair] = OrderedDict()
        self._room = most_bytes

    # What a trainer needs ---------------------------------------------------------------

    def parameters(self) -> list[torch.nn.Parameter]:
        """LoRA's matrices, or the blocks' own weights."""
        return list(self._trained.values())

    def check(self, pairs: Sequence[PreferencePair]) -> dict[str, str]:
        """Why a pair cannot be trained on, by its id; only the tokenizer is asked."""
        found = ((pair.pair_id, self._tokens_of(pair)) for pair in pairs)
        return {name: tokens for name, tokens in found if isinstance(tokens, str)}

    def prepare(
        self,
        pairs: Sequence[PreferencePair],
        *,
        on_pair: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> dict[str, str]:
        """Read trunk and reference of pairs that are new; see `TrainablePolicy.prepare`."""
        for done, pair in enumerate(pairs):
            stop_if(cancelled, "reading the pairs")
            if isinstance(self._tokens_of(pair), PairTokens):
                self._reference_of(pair)
            if on_pair is not None:
                on_pair(done + 1, len(pairs))
        return self.check(pairs)

    def pair_logps(self, pairs: Sequence[PreferencePair]) -> PairLogps:
        """Summed log-probabilities, those of the policy differentiable."""
        batch = self._batch(pairs)
        policy = batch.summed(self._top.token_logps(batch))
        reference = batch.summed(self._reference_tokens(pairs).to(policy.device))
        sizes = batch.sizes.to(policy)
        return PairLogps(*policy.T, *reference.T, *sizes.T)

    def token_logps(self, pairs: Sequence[PreferencePair]) -> TokenLogps:
        """The same token by token, and WPO's collision probabilities."""
        batch = self._batch(pairs)
        logits = self._top.logits(batch)
        logps = target_logps(logits, batch.targets)
        with torch.no_grad():
            collision = log_collision_probability(logits).double()
        reference = self._reference_tokens(pairs).to(logps.device)
        mask = batch.padded(torch.ones_like(logps)) > 0
        policy, reference, collision = map(batch.padded, (logps, reference, collision))
        return TokenLogps(policy, reference, collision, mask)

    def prompt_logps(self, pairs: Sequence[PreferencePair]) -> tuple[Tensor, Tensor]:
        """log pi(x) of the prompts' tokens but the first, and how many these are; ORPO."""
        batch = PreferenceBatch.of([_prompt_alone(pair) for pair in self._rows(pairs)])
        sums, sizes = batch.summed(self._top.token_logps(batch)), batch.sizes
        return sums[:, 0], sizes[:, 0].to(sums)

    def kl(self, pairs: Sequence[PreferencePair]) -> float:
        """KL(pi || pi_0) of the next token, exact, summed along each given answer; their mean.

        Were the answers the policy's own, its expectation would be the KL of whole answers.
        """
        total = 0.0
        with torch.no_grad():
            for pair in pairs:
                ours = self._top.logits(self._batch([pair])).log_softmax(dim=-1)
                unchanged = PreferenceBatch.of([self._cached(pair)])
                theirs = self._before.logits(unchanged).log_softmax(dim=-1)
                total += float((ours.exp() * (ours - theirs)).sum(dtype=torch.float64))
        return total / (2 * len(pairs))

    def state(self) -> dict[str, Tensor]:
        """A copy of the trained weights on the CPU, by name."""
        return {name: weight.detach().cpu().clone() for name, weight in self._trained.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave.

        Raises:
            TrainingError: names or shapes that are not this policy's.
        """
        check_state(self.name, self._trained, state)
        with torch.no_grad():
            for name, weight in self._trained.items():
                weight.copy_(state[name])

    # What else it can do ----------------------------------------------------------------

    def write(
        self,
        prompt: Text,
        *,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
        reference: bool = False,
        cancelled: Callable[[], bool] | None = None,
    ) -> str:
        """An answer of the policy as it is now, or of its reference; see `generate`."""
        model = self._base if reference else _plain(self._own)
        writer = dataclasses.replace(self._loaded, model=model, _shared=None)
        return generate(writer, prompt, max_new_tokens, temperature, seed, None, cancelled)[0]

    def save(self, folder: Path) -> str:
        """Write an adapter folder, or a model folder where no LoRA was trained; gives its name.

        Raises:
            TrainingError: the folder cannot be written.
        """
        try:
            if self._rank:
                save_adapter(self._own, folder)
                return f"{self.name}+adapter:{folder}"
            folder.mkdir(parents=True, exist_ok=True)
            self._own.save_pretrained(folder, safe_serialization=True)
            self._loaded.tokenizer.save_pretrained(folder)
        except OSError as error:
            raise TrainingError(
                f"{folder} cannot be written ({error.strerror}); choose another folder."
            ) from error
        return str(folder)

    # Inside -----------------------------------------------------------------------------

    def _tokens_of(self, pair: PreferencePair) -> PairTokens | str:
        if pair.digest not in self._tokens:
            self._tokens[pair.digest] = read_pair(
                self._loaded.tokenizer, pair.prompt, pair.chosen, pair.rejected, *self._limits
            )
        return self._tokens[pair.digest]

    def _cached(self, pair: PreferencePair) -> CachedPair:
        """The pair with the states that enter the trained blocks, read now if need be."""
        if pair.digest in self._kept:
            self._kept.move_to_end(pair.digest)
            return self._kept[pair.digest]
        tokens = self._tokens_of(pair)
        if isinstance(tokens, str):
            raise TrainingError(f"Pair {pair.pair_id!r} cannot be trained on: {tokens}.")
        cached = trunk_states(self._base, [tokens], self._block)[0]
        self._kept[pair.digest] = cached
        self._room -= cached.states.nbytes
        while self._room < 0 and len(self._kept) > 1:
            self._room += self._kept.popitem(last=False)[1].states.nbytes
        return cached

    def _rows(self, pairs: Sequence[PreferencePair]) -> list[CachedPair]:
        """What enters the trained blocks; embeddings that are trained too come with a gradient."""
        cached = [self._cached(pair) for pair in pairs]
        if not self._whole:
            return cached
        return [CachedPair(c.tokens, self._embedded(c.tokens)) for c in cached]

    def _batch(self, pairs: Sequence[PreferencePair]) -> PreferenceBatch:
        return PreferenceBatch.of(self._rows(pairs))

    def _embedded(self, tokens: PairTokens) -> Tensor:
        """Trained embeddings, which change with every step."""
        found: Tensor = self._own.model.embed_tokens(tokens.ids.to(self._own.device))
        return found

    def _reference_of(self, pair: PreferencePair) -> Tensor:
        """The reference's log-probabilities of both answers' tokens, end to end, on the CPU."""
        if pair.digest not in self._reference:
            with torch.no_grad():
                batch = PreferenceBatch.of([self._cached(pair)])
                self._reference[pair.digest] = self._before.token_logps(batch).cpu()
        return self._reference[pair.digest]

    def _reference_tokens(self, pairs: Sequence[PreferencePair]) -> Tensor:
        return torch.cat([self._reference_of(pair) for pair in pairs])


def _prompt_alone(pair: CachedPair) -> CachedPair:
    """The prompt's first token as a prompt, and the rest of it as the only answer."""
    prompt = pair.tokens.prompt
    tokens = PairTokens(prompt[:1], (prompt[1:], prompt[:0]))
    return CachedPair(tokens, pair.states[: len(prompt)])


def private_copy(model: Any) -> Any:  # noqa: ANN401 - a transformers model
    """The model as modules of its own that share its weights, without adapters that hang on it."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    tensors = (*model.parameters(), *model.buffers())
    own = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    for parent in list(own.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BaseTunerLayer):
                setattr(parent, name, child.get_base_layer())
    own.__dict__.pop("peft_config", None)  # peft would take it for an adapter that is there
    own.requires_grad_(False)
    return own.eval()


def check_state(policy: str, weights: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Refuse a state that is not that of some weights.

    Raises:
        TrainingError: names or shapes differ.
    """
    differing = sorted(weights.keys() ^ state.keys()) or [
        name for name, weight in weights.items() if weight.shape != state[name].shape
    ]
    if differing:
        raise TrainingError(
            f"The weights do not belong to {policy}: {differing[0]} is missing, new or of another "
            "shape. Begin with the base, blocks and rank that they were trained with."
        )


def _first_block(loaded: LoadedModel, model: Any, blocks: int) -> int:  # noqa: ANN401
    n = int(getattr(model.config, "num_hidden_layers", 0))
    if not 0 <= blocks <= n:
        raise TrainingError(
            f"blocks is {blocks}; {loaded.name} has {n}: give 1 to {n}, or 0 for all of them."
        )
    return n - blocks if blocks else 0


def _own_weights(model: Any, block: int, whole: bool) -> None:  # noqa: ANN401
    """Give a private copy trainable weights of its own from a block on, or all of them.

    Tied weights stay tied.
    """
    parts = [model] if whole else [*model.model.layers[block:], model.model.norm]
    fresh: dict[int, torch.nn.Parameter] = {}
    for module in (module for part in parts for module in part.modules()):
        for name, weight in list(module.named_parameters(recurse=False)):
            if id(weight) not in fresh:
                fresh[id(weight)] = torch.nn.Parameter(weight.detach().clone())
            setattr(module, name, fresh[id(weight)])


def _distinct(model: Any) -> dict[str, torch.nn.Parameter]:  # noqa: ANN401
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _plain(model: Any) -> Any:  # noqa: ANN401
    return model.get_base_model() if hasattr(model, "get_base_model") else model

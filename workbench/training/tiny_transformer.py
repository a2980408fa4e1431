"""A causal transformer that trains in seconds: a real language model, only very small.

It reads words that it was made for and the bytes of all others, so every text has one reading. It
learns to write answers by supervised training, and is then frozen as the reference from which
preference training starts. On a CPU equal seeds give equal weights to the bit.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import (
    cross_entropy,
    embedding,
    gelu,
    layer_norm,
    scaled_dot_product_attention,
)

from workbench.data.pairs import PreferencePair, Text, plain
from workbench.data.worlds import World
from workbench.errors import TrainingError, stop_if
from workbench.objectives.logps import PairLogps
from workbench.training.descent import descend

IsCancelled = Callable[[], bool]
OnStep = Callable[[int, int], None]
Key = tuple[Text, Text]
BEGIN, ANSWER, END, PADDING = 256, 257, 258, 259
"""Marks beside the 256 bytes: before the prompt, before the answer, after it, and after all."""
_FIRST_WORD = 260
_PIECE = re.compile(r"\s*\S+|\s+")


@dataclass(frozen=True)
class TinySize:
    """How large a tiny transformer is.

    Attributes:
        width: Of the hidden states; a multiple of `heads`.
        heads: Of the attention.
        blocks: One above another.
        longest: Tokens that prompt and answer may have together, marks included.
        words: Words that are read as one token, the most frequent first.
    """

    width: int = 32
    heads: int = 2
    blocks: int = 2
    longest: int = 256
    words: int = 1000

    def __post_init__(self) -> None:
        if min(self.width, self.heads, self.blocks, self.longest - 3) < 1 or self.words < 0:
            raise TrainingError(f"A transformer cannot be of {self}; give numbers above 0.")
        if self.width % self.heads:
            raise TrainingError(
                f"width is {self.width} and heads {self.heads}; width must be a multiple of heads."
            )


class Vocabulary:
    """Texts as tokens: known words with the blanks before them, and bytes for all else."""

    def __init__(self, texts: Iterable[str] = (), most: int = 1000) -> None:
        counts = Counter(piece for text in texts for piece in _PIECE.findall(text))
        ordered = sorted(counts, key=lambda piece: (-counts[piece], piece))[:most]
        self._ids = {piece: _FIRST_WORD + place for place, piece in enumerate(ordered)}
        self._pieces = [piece.encode() for piece in ordered]

    def __len__(self) -> int:
        return _FIRST_WORD + len(self._pieces)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text."""
        tokens: list[int] = []
        for piece in _PIECE.findall(text):
            known = self._ids.get(piece)
            tokens += piece.encode() if known is None else [known]
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens; marks are left out, and bytes that are no text show as �."""
        parts = (
            bytes([token]) if token < BEGIN else self._pieces[token - _FIRST_WORD]
            for token in tokens
            if token < BEGIN or token >= _FIRST_WORD
        )
        return b"".join(parts).decode(errors="replace")


class TinyTransformerPolicy:
    """A tiny transformer and its frozen copy, as a `TrainablePolicy`.

    Args:
        vocabulary: What it reads.
        size: How large it is.
        seed: Of its first weights.
        name: For a person.
    """

    reads_length = True

    def __init__(
        self,
        vocabulary: Vocabulary,
        size: TinySize | None = None,
        seed: int = 0,
        name: str = "tiny transformer",
    ) -> None:
        self.name = name
        self.vocabulary = vocabulary
        self.size = size or TinySize()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._model = _Transformer(len(vocabulary), self.size)
            self._reference = _Transformer(len(vocabulary), self.size).requires_grad_(False)
        self._tokens: dict[Key, tuple[list[int], int]] = {}
        self._reference_logps: dict[Key, float] = {}
        self.freeze_reference()

    @classmethod
    def of_world(cls, world: World, size: TinySize | None = None, seed: int = 0) -> Self:
        """One that reads a world's words; it knows nothing yet (see `imitate_world`)."""
        size = size or TinySize(longest=24)
        answers = [answer for row in world.answers for answer in row]
        return cls(Vocabulary([*world.prompts, *answers], size.words), size, seed)

    @classmethod
    def of_pairs(
        cls, pairs: Sequence[PreferencePair], size: TinySize | None = None, seed: int = 0
    ) -> Self:
        """One that reads the pairs' words; it knows nothing yet (see `imitate`)."""
        size = size or TinySize()
        texts = [plain(text) for p in pairs for text in (p.prompt, p.chosen, p.rejected)]
        return cls(Vocabulary(texts, size.words), size, seed)

    # Learning to write ---------------------------------------------------------------

    def imitate(
        self,
        examples: Sequence[Key],
        *,
        weights: Sequence[float] | None = None,
        steps: int = 100,
        learning_rate: float = 3e-3,
        batch_size: int = 64,
        seed: int = 0,
        on_step: OnStep | None = None,
        cancelled: IsCancelled | None = None,
    ) -> float:
        """Supervised training on answers, which then is the reference; returns the last loss.

        Args:
            examples: (prompt, answer), for example the chosen answers.
            weights: How much each counts, > 0; all the same if None.
            steps: AdamW steps; the learning rate falls to 0 as half a cosine.
            learning_rate: Of the first step.
            batch_size: Examples a step, drawn anew; all where there are no more.
            seed: Of the draws.
            on_step: Called with (done, total).
            cancelled: Asked before each step.

        Raises:
            Cancelled: asked to stop; what was learnt so far stays.
            TrainingError: no example is short enough, or the loss diverged.
        """
        kept = [place for place, key in enumerate(examples) if self._fits(key)]
        if not kept:
            raise TrainingError(
                f"None of {len(examples)} answers has at most {self.size.longest} tokens with its "
                "prompt; give shorter ones, or a longer `longest`."
            )
        weight = torch.ones(len(kept)) if weights is None else torch.tensor(weights)[kept].float()
        weight = weight / weight.mean()
        trained = self.parameters()
        optimiser = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
        draws, last = torch.Generator().manual_seed(seed), float("nan")
        for step in range(1, steps + 1):
            stop_if(cancelled, "training")
            batch = torch.arange(len(kept))
            if len(kept) > batch_size:
                batch = torch.randperm(len(kept), generator=draws)[:batch_size]
            sums, counts = self._scores(self._model, [examples[kept[i]] for i in batch.tolist()])
            loss = -(weight[batch] * sums).sum() / counts.sum()
            last = float(loss.detach())
            descend(last, torch.autograd.grad(loss, trained), trained, optimiser, 1.0, step)
            schedule.step()
            if on_step is not None:
                on_step(step, steps)
        self.freeze_reference()
        return last

    def imitate_world(
        self,
        world: World,
        *,
        steps: int = 200,
        learning_rate: float = 1e-2,
        on_step: OnStep | None = None,
        cancelled: IsCancelled | None = None,
    ) -> float:
        """Learn the world's reference policy itself: every answer, as likely as it is there."""
        examples = world_keys(world)
        weights = world.reference_logp.exp().flatten().tolist()
        return self.imitate(
            examples,
            weights=weights,
            steps=steps,
            learning_rate=learning_rate,
            batch_size=len(examples),
            on_step=on_step,
            cancelled=cancelled,
        )

    def freeze_reference(self) -> None:
        """Make the policy as it is now the reference."""
        self._reference.load_state_dict(self._model.state_dict())
        self._reference_logps.clear()

    # What a trainer needs ------------------------------------------------------------

    def parameters(self) -> list[nn.Parameter]:
        """All weights of the policy."""
        return list(self._model.parameters())

    def prepare(
        self,
        pairs: Sequence[PreferencePair],
        *,
        on_pair: Callable[[int, int], None] | None = None,
        cancelled: IsCancelled | None = None,
    ) -> dict[str, str]:
        """Tokenise the pairs and score them under the reference; see `TrainablePolicy.prepare`."""
        left_out, fresh = {}, dict[Key, None]()
        for done, pair in enumerate(pairs, start=1):
            stop_if(cancelled, "training")
            keys = _keys(pair)
            if all(map(self._fits, keys)):
                fresh |= {key: None for key in keys if key not in self._reference_logps}
            else:
                left_out[pair.pair_id] = (
                    f"with its prompt an answer has more than {self.size.longest} tokens, or it "
                    "is empty"
                )
            if on_pair is not None:
                on_pair(done, len(pairs))
        self._read_reference(list(fresh), cancelled)
        return left_out

    def pair_logps(self, pairs: Sequence[PreferencePair]) -> PairLogps:
        """Scores of pairs; the mark after an answer counts as one of its tokens."""
        chosen, rejected = zip(*map(_keys, pairs), strict=True)
        self._read_reference([k for k in (*chosen, *rejected) if k not in self._reference_logps])
        sums, counts = self._scores(self._model, [*chosen, *rejected])
        policy, n_tokens = sums.view(2, -1), counts.double().view(2, -1)
        reference = [[self._reference_logps[key] for key in side] for side in (chosen, rejected)]
        known = torch.tensor(reference, dtype=torch.float64)
        return PairLogps(
            policy[0], policy[1], known[0], known[1], n_chosen=n_tokens[0], n_rejected=n_tokens[1]
        )

    def state(self) -> dict[str, Tensor]:
        """A copy of the policy's weights."""
        return {name: value.detach().clone() for name, value in self._model.named_parameters()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave.

        Raises:
            TrainingError: it is of another policy.
        """
        own = dict(self._model.named_parameters())
        wrong = own.keys() ^ state.keys() or {
            name for name in own if own[name].shape != state[name].shape
        }
        if wrong:
            raise TrainingError(
                f"The weight {min(wrong)!r} is not one of this transformer's, or of another shape; "
                "choose a snapshot of this run."
            )
        with torch.no_grad():
            for name, weight in own.items():
                weight.copy_(state[name])

    # What it can do besides ----------------------------------------------------------

    def world_logps(self, world: World) -> Float[Tensor, "p a"]:
        """log pi of every answer of a world; rows sum to less than 1 (see `training.exact`)."""
        return self._world_logps(self._model, world)

    def reference_world_logps(self, world: World) -> Float[Tensor, "p a"]:
        """The same under the reference."""
        return self._world_logps(self._reference, world)

    def sample(
        self,
        prompt: Text,
        count: int = 1,
        *,
        most_tokens: int = 64,
        temperature: float = 1.0,
        seed: int = 0,
        reference: bool = False,
    ) -> list[str]:
        """Write answers to a prompt.

        Args:
            prompt: What to answer.
            count: How many, > 0.
            most_tokens: Longest answer.
            temperature: 0 takes the likeliest token each time.
            seed: Of the draws.
            reference: Whether the reference writes them.

        Raises:
            TrainingError: the prompt leaves no room for an answer.
        """
        begin = [BEGIN, *self.vocabulary.encode(plain(prompt)), ANSWER]
        room = min(most_tokens, self.size.longest - len(begin))
        if room < 1:
            raise TrainingError(
                f"The prompt has {len(begin)} tokens of at most {self.size.longest}; shorten it."
            )
        model = self._reference if reference else self._model
        draws = torch.Generator().manual_seed(seed)
        rows = torch.tensor([begin] * count)
        ended = torch.zeros(count, dtype=torch.bool)
        for _ in range(room):
            with torch.no_grad():
                logits = model(rows)[:, -1]
            logits[:, [BEGIN, ANSWER, PADDING]] = -torch.inf
            following = _drawn(logits, temperature, draws).masked_fill(ended, PADDING)
            rows = torch.cat([rows, following[:, None]], dim=1)
            ended |= following == END
            if bool(ended.all()):
                break
        return [self.vocabulary.decode(row[len(begin) :]) for row in rows.tolist()]

    def write(
        self,
        prompt: Text,
        *,
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        seed: int = 0,
        reference: bool = False,
        cancelled: Callable[[], bool] | None = None,
    ) -> str:
        """One answer; see `sample`."""
        options = {"temperature": temperature, "seed": seed, "reference": reference}
        return self.sample(prompt, most_tokens=max_new_tokens, **options)[0]  # type: ignore[arg-type]

    def _world_logps(self, model: "_Transformer", world: World) -> Tensor:
        with torch.no_grad():
            return self._scores(model, world_keys(world))[0].view(len(world.prompts), -1)

    def _read_reference(self, keys: Sequence[Key], cancelled: IsCancelled | None = None) -> None:
        for start in range(0, len(keys), 64):
            stop_if(cancelled, "training")
            part = keys[start : start + 64]
            with torch.no_grad():
                sums, _ = self._scores(self._reference, part)
            self._reference_logps.update(zip(part, sums.tolist(), strict=True))

    def _scores(self, model: "_Transformer", keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
        """Summed log-probability of each answer, float64, and its number of tokens."""
        read = [self._encoded(key) for key in keys]
        longest = max(len(tokens) for tokens, _ in read)
        rows = torch.tensor([tokens + [PADDING] * (longest - len(tokens)) for tokens, _ in read])
        starts = torch.tensor([start for _, start in read])
        place = torch.arange(1, longest)
        scored = (place >= starts[:, None]) & (rows[:, 1:] != PADDING)
        targets = rows[:, 1:].masked_fill(~scored, -100)
        losses = cross_entropy(
            model(rows[:, :-1]).flatten(0, 1), targets.flatten(), reduction="none"
        )
        return -losses.view_as(targets).double().sum(dim=1), scored.sum(dim=1)

    def _encoded(self, key: Key) -> tuple[list[int], int]:
        """Tokens of prompt and answer with their marks, and where the answer begins."""
        known = self._tokens.get(key)
        if known is None:
            prompt, answer = (self.vocabulary.encode(plain(text)) for text in key)
            known = [BEGIN, *prompt, ANSWER, *answer, END], len(prompt) + 2
            self._tokens[key] = known
        return known

    def _fits(self, key: Key) -> bool:
        tokens, start = self._encoded(key)
        return len(tokens) <= self.size.longest and len(tokens) > start + 1


def world_keys(world: World) -> list[Key]:
    """Every (prompt, answer) of a world, prompt by prompt."""
    return [(p, a) for p, row in zip(world.prompts, world.answers, strict=True) for a in row]


class _Transformer(nn.Module):
    """Token and place embeddings, pre-norm blocks, and the token embedding as head."""

    def __init__(self, vocabulary: int, size: TinySize) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(vocabulary, size.width) * 0.1)
        self.places = nn.Parameter(torch.randn(size.longest, size.width) * 0.1)
        self.blocks = nn.ModuleList(_Block(size) for _ in range(size.blocks))

    def forward(self, rows: Tensor) -> Tensor:
        """Logits of the next token at every place, shape (rows, tokens, vocabulary)."""
        states = embedding(rows, self.tokens) + self.places[: rows.shape[1]]
        for block in self.blocks:
            states = block(states)
        return layer_norm(states, states.shape[-1:]) @ self.tokens.T


class _Block(nn.Module):
    def __init__(self, size: TinySize) -> None:
        super().__init__()
        self.heads = size.heads
        self.read = nn.Linear(size.width, 3 * size.width)
        self.mix = nn.Linear(size.width, size.width)
        self.up = nn.Linear(size.width, 4 * size.width)
        self.down = nn.Linear(4 * size.width, size.width)

    def forward(self, states: Tensor) -> Tensor:
        parts = self.read(layer_norm(states, states.shape[-1:])).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        seen = scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(-2)
        states = states + self.mix(seen)
        mixed: Tensor = self.down(gelu(self.up(layer_norm(states, states.shape[-1:]))))
        return states + mixed


def _keys(pair: PreferencePair) -> tuple[Key, Key]:
    return (pair.prompt, pair.chosen), (pair.prompt, pair.rejected)


def _drawn(logits: Tensor, temperature: float, draws: torch.Generator) -> Tensor:
    if temperature <= 0:
        return logits.argmax(dim=-1)
    return torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=draws)[:, 0]

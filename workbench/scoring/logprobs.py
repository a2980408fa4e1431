"""Log-probabilities of answers under a causal language model, token by token.

Answers to one prompt share one reading of it: prompt and answers stand in one row, every answer
continues the prompt's positions and sees the prompt and itself only. Several such trees are laid
end to end in a row, so nothing is padded, and the vocabulary head runs at the answers' positions
alone. Logits are read in float32 and sums are float64, because bfloat16 sums over hundreds of
tokens err by about a nat.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from workbench.data.pairs import Text
from workbench.errors import Cancelled
from workbench.scoring.tokenise import TokenisedSequence, tokenise_completion

if TYPE_CHECKING:
    from workbench.scoring.models import LoadedModel

ROW_TOKENS = 512
"""Trees are laid into one row up to this many tokens; beyond it attention costs too much."""
_HEAD_CHUNK = 64
_AGREE_NATS = 1e-3
_AGREE_NATS_HALF = 0.25


@dataclass(frozen=True)
class Request:
    """One answer to one prompt."""

    prompt: Text
    response: Text

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        # Requests are dictionary keys by the ten thousand, and a conversation's hash is slow.
        return hash((self.prompt, self.response))


@dataclass(frozen=True, eq=False)
class SequenceScore:
    """What a model makes of one answer.

    Attributes:
        token_ids: The answer's tokens, its end-of-turn token included; int32 of shape (T,).
        token_logps: log p of each token given all before it, nats; float32 of shape (T,).
        truncated: Whether the model's maximal length cut the answer (or all of it).
        empty: Whether the answer has no text.
    """

    token_ids: np.ndarray[Any, np.dtype[np.int32]]
    token_logps: np.ndarray[Any, np.dtype[np.float32]]
    truncated: bool
    empty: bool

    @property
    def logp(self) -> float:
        """log p(answer | prompt), nats, summed in float64."""
        return float(self.token_logps.sum(dtype=np.float64))

    @property
    def n_tokens(self) -> int:
        """Number of tokens scored."""
        return len(self.token_ids)


@dataclass(frozen=True)
class Progress:
    """How far scoring is, in answers."""

    done: int
    total: int
    eta_seconds: float | None
    note: str = ""


OnProgress = Callable[[Progress], None]
OnPartial = Callable[[list[tuple[int, SequenceScore]]], None]
IsCancelled = Callable[[], bool]


class Scorer(Protocol):
    """Anything that gives answers log-probabilities; `digest` and its kin make the store's key."""

    digest: str
    template_digest: str
    max_length: int
    dtype: str

    def score(
        self,
        requests: Sequence[Request],
        *,
        on_progress: OnProgress | None = None,
        on_partial: OnPartial | None = None,
        cancelled: IsCancelled | None = None,
    ) -> list[SequenceScore]:
        """Score each request, in order."""
        ...


class ModelScorer:
    """Scores by a loaded causal language model."""

    def __init__(self, loaded: "LoadedModel") -> None:
        self.loaded = loaded
        self.digest = loaded.digest
        self.template_digest = loaded.template_digest
        self.max_length = loaded.max_length
        self.dtype = loaded.dtype
        self._packs: bool | None = None

    def score(
        self,
        requests: Sequence[Request],
        *,
        on_progress: OnProgress | None = None,
        on_partial: OnPartial | None = None,
        cancelled: IsCancelled | None = None,
    ) -> list[SequenceScore]:
        """Score each request, in order; results also come batch by batch.

        Args:
            requests: Prompts and answers.
            on_progress: Called after each batch.
            on_partial: Called after each batch with (index, score) of its requests.
            cancelled: Asked between the model's layers.

        Raises:
            Cancelled: `cancelled` said so; what `on_partial` was given stays valid.
            ScoringError: a text cannot be tokenised.
        """
        sequences = [self._tokenised(request) for request in requests]
        found: list[SequenceScore | None] = [None] * len(requests)
        started, done = time.monotonic(), 0
        for batch in self._batches(sequences):
            part = self._score_batch(sequences, batch, cancelled)
            for index, score in part:
                found[index] = score
            done += len(part)
            if on_partial is not None:
                on_partial(part)
            if on_progress is not None:
                eta = (time.monotonic() - started) / done * (len(requests) - done)
                on_progress(Progress(done, len(requests), eta))
        return [score for score in found if score is not None]

    def _tokenised(self, request: Request) -> TokenisedSequence:
        return tokenise_completion(
            self.loaded.tokenizer, request.prompt, request.response, self.max_length
        )

    def _batches(self, sequences: Sequence[TokenisedSequence]) -> Iterator[list["_Tree"]]:
        trees = _trees(sequences)
        if self._packs is None:
            self._packs = self._packing_agrees(trees)
        return (
            _rows(trees) if self._packs else ([branch] for tree in trees for branch in tree.alone())
        )

    def _score_batch(
        self,
        sequences: Sequence[TokenisedSequence],
        batch: Sequence["_Tree"],
        cancelled: IsCancelled | None,
    ) -> list[tuple[int, SequenceScore]]:
        logps = iter(self._forward(batch, cancelled))
        part = []
        for tree in batch:
            for index, answer in tree.answers:
                sequence = sequences[index]
                score = SequenceScore(answer, next(logps), sequence.truncated, sequence.empty)
                part.append((index, score))
        return part

    def _forward(
        self, batch: Sequence["_Tree"], cancelled: IsCancelled | None
    ) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
        """Token log-probabilities of every answer of the trees, in order."""
        row = _Row(batch)
        if not len(row.targets):
            return [np.zeros(0, np.float32) for _ in row.lengths]
        model = self.loaded.model
        with torch.inference_mode(), active(self.loaded), interruptible(model, cancelled):
            logits = model(**row.inputs(model)).logits[0]
            chosen = [
                _target_logps(logits[i : i + _HEAD_CHUNK], row.targets[i : i + _HEAD_CHUNK])
                for i in range(0, len(row.targets), _HEAD_CHUNK)
            ]
        parts = torch.cat(chosen).cpu().split(row.lengths)
        return [part.numpy() for part in parts]

    def _packing_agrees(self, trees: Sequence["_Tree"]) -> bool:
        """Whether this architecture honours positions and masks, tried on two short answers."""
        short = min(trees, key=lambda tree: tree.size, default=None)
        if short is None or short.size == 0:
            return True
        twice = _Tree(short.prefix, [*short.answers, *short.answers])
        try:
            packed = self._forward([twice, short], None)
        except (TypeError, ValueError, RuntimeError):
            return False
        alone = [self._forward([branch], None)[0] for branch in short.alone()]
        nats = _AGREE_NATS if self.loaded.dtype == "float32" else _AGREE_NATS_HALF
        return all(
            np.allclose(a, b, rtol=0, atol=nats) for a, b in zip(packed, alone * 3, strict=True)
        )


def token_logits(loaded: "LoadedModel", prompt: Text, response: Text) -> Tensor:
    """Logits at each token of one answer, float32 on the CPU, shape (tokens, vocabulary).

    A tensor over the vocabulary: for one pair that a person looks at, never for a set.
    """
    sequence = tokenise_completion(loaded.tokenizer, prompt, response, loaded.max_length)
    row = _Row(_trees([sequence]))
    with torch.inference_mode(), active(loaded):
        logits: Tensor = loaded.model(**row.inputs(loaded.model)).logits[0]
        return logits.float().cpu()


def active(loaded: "LoadedModel") -> AbstractContextManager[Any]:
    """The model in its own role, where policy and reference share their weights."""
    switch = getattr(loaded, "active", None)
    return switch() if switch is not None else nullcontext()


@contextmanager
def interruptible(model: torch.nn.Module, cancelled: IsCancelled | None) -> Iterator[None]:
    """Ask before every layer whether to go on: one pass may take longer than a person waits."""
    if cancelled is None:
        yield
        return

    def check(*_: object) -> None:
        if cancelled():
            raise Cancelled("scoring was cancelled")

    check()
    hooks = [layer.register_forward_pre_hook(check) for layer in _layers(model)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The longest list of equal blocks: a transformer's layers."""
    stacks = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return list(max(stacks, key=len, default=torch.nn.ModuleList()))


_Ids = np.ndarray[Any, np.dtype[np.int32]]


@dataclass(frozen=True)
class _Tree:
    """A prompt and the answers that continue it: (index of the request, tokens)."""

    prefix: _Ids
    answers: list[tuple[int, _Ids]]

    @property
    def size(self) -> int:
        return len(self.prefix) + sum(len(answer) for _, answer in self.answers)

    def alone(self) -> list["_Tree"]:
        """Each answer with the prompt to itself."""
        return [_Tree(self.prefix, [answer]) for answer in self.answers]


def _trees(sequences: Sequence[TokenisedSequence]) -> list[_Tree]:
    """Answers gathered under equal prompts, in order of first appearance."""
    trees: dict[bytes, _Tree] = {}
    for index, sequence in enumerate(sequences):
        ids = np.asarray(sequence.input_ids, dtype=np.int32)
        # Something must stand before the first token that is scored.
        start = max(sequence.response_start, 1)
        prefix, answer = ids[:start], ids[start:]
        trees.setdefault(prefix.tobytes(), _Tree(prefix, [])).answers.append((index, answer))
    return list(trees.values())


def _rows(trees: Sequence[_Tree]) -> Iterator[list[_Tree]]:
    """Trees laid into rows of about `ROW_TOKENS`, keeping their order."""
    row: list[_Tree] = []
    for tree in (part for whole in trees for part in _cut(whole)):
        if row and sum(each.size for each in row) + tree.size > ROW_TOKENS:
            yield row
            row = []
        row.append(tree)
    if row:
        yield row


def _cut(tree: _Tree) -> Iterator[_Tree]:
    """A tree whose answers would overfill a row, in several that each repeat the prompt."""
    kept: list[tuple[int, _Ids]] = []
    room = max(ROW_TOKENS - len(tree.prefix), ROW_TOKENS // 2)
    for answer in tree.answers:
        if kept and sum(len(ids) for _, ids in kept) + len(answer[1]) > room:
            yield _Tree(tree.prefix, kept)
            kept = []
        kept.append(answer)
    if kept:
        yield _Tree(tree.prefix, kept)


class _Row:
    """Trees end to end: ids, positions, who sees whom, and where each answer is predicted."""

    def __init__(self, trees: Sequence[_Tree]) -> None:
        ids, positions, branch, parent, predictors = [], [], [], [], []
        self.lengths: list[int] = []
        at, label = 0, 0
        for tree in trees:
            root, start, n = label, at, len(tree.prefix)
            ids.append(tree.prefix)
            positions.append(np.arange(n))
            branch.append(np.full(n, root))
            parent.append(np.full(n, root))
            at, label = at + n, label + 1
            for _, answer in tree.answers:
                t = len(answer)
                ids.append(answer)
                positions.append(np.arange(n, n + t))
                branch.append(np.full(t, label))
                parent.append(np.full(t, root))
                predictors.append(np.concatenate([[start + n - 1], np.arange(at, at + t - 1)])[:t])
                self.lengths.append(t)
                at, label = at + t, label + 1
        self._ids = np.concatenate(ids)
        self._positions = np.concatenate(positions)
        self._branch, self._parent = np.concatenate(branch), np.concatenate(parent)
        self._predictors = np.concatenate([*predictors, np.zeros(0)]).astype(np.int64)
        answers = [answer for tree in trees for _, answer in tree.answers]
        self.targets = torch.from_numpy(np.concatenate([*answers, np.zeros(0)]).astype(np.int64))
        self._plain = len(trees) == 1 and len(trees[0].answers) == 1

    def inputs(self, model: Any) -> dict[str, Any]:  # noqa: ANN401 - a transformers model
        """Arguments of the model's forward pass; a lone answer needs no mask of its own."""
        device = model.device
        inputs: dict[str, Any] = {
            "input_ids": torch.from_numpy(self._ids.astype(np.int64))[None].to(device),
            "logits_to_keep": torch.from_numpy(self._predictors).to(device),
            "use_cache": False,
        }
        if not self._plain:
            inputs["position_ids"] = torch.from_numpy(self._positions)[None].to(device)
            inputs["attention_mask"] = self._mask(model.dtype).to(device)
        return inputs

    def _mask(self, dtype: torch.dtype) -> Tensor:
        """0 where a token sees another, very negative elsewhere; shape (1, 1, row, row)."""
        branch, parent = torch.from_numpy(self._branch), torch.from_numpy(self._parent)
        seen = (branch[:, None] == branch) | (parent[:, None] == branch)
        seen = seen.tril()
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
        return mask[None, None]


def _target_logps(logits: Tensor, targets: Tensor) -> Tensor:
    logits = logits.float()
    chosen = logits.gather(1, targets.to(logits.device)[:, None])[:, 0]
    return chosen - logits.logsumexp(dim=1)

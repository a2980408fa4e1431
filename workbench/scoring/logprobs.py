"""Log-probabilities of answers under a causal language model, token by token.

Answers to one prompt share one reading of it. Short ones stand with it in one row: every answer
continues the prompt's positions and sees the prompt and itself only, and several such trees are
laid end to end, so nothing is padded. Where the attention that a row's mask throws away would
cost more than passes of their own, each answer goes on from the model's cache of the prompt. The
vocabulary head runs at the answers' positions alone. Logits are read in float32 (float64 for a
float64 model) and sums are float64, because bfloat16 sums over hundreds of tokens err by about a
nat.

Not every architecture honours this: one with its own positions, a recurrent state or a sliding
window does not. So the first use compares both ways with plain forward passes, and a model that
differs is read one answer at a time, which `Progress.note` says.
"""

import copy
import inspect
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
from workbench.errors import Cancelled, stop_if
from workbench.scoring.memory import check_fits, row_bytes, tokens_that_fit
from workbench.scoring.tokenise import TokenisedSequence, tokenise_completion

if TYPE_CHECKING:
    from workbench.scoring.models import LoadedModel

ROW_TOKENS = 512
"""Trees are laid into one row up to this many tokens; beyond it attention costs too much."""
TREE_TOKENS = 2048
"""No tree of several answers is laid into a row above this."""
_MASKED_SQUARE, _CAUSAL_SQUARE, _PASS = 1 / 2500, 1 / 4000, 90
"""What attention costs for each pair of tokens, and one more pass, in readings of one token:
under a mask of ours every pair is computed, under the plain causal one half are skipped.
Measured with the default model on two cores."""
PLAIN_NOTE = "one answer at a time: this architecture does not share prompts"
_HEAD_CHUNK = 64
_AGREE_NATS = 1e-3
_AGREE_NATS_HALF = 0.25
_HALF = ("bfloat16", "float16")


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
        started, done = time.monotonic(), 0
        sequences = [self._tokenised(request, cancelled) for request in requests]
        found: list[SequenceScore | None] = [None] * len(requests)
        for batch in self._batches(sequences):
            part = self._score_batch(sequences, batch, cancelled)
            for index, score in part:
                found[index] = score
            done += len(part)
            if on_partial is not None:
                on_partial(part)
            if on_progress is not None:
                eta = (time.monotonic() - started) / done * (len(requests) - done)
                on_progress(Progress(done, len(requests), eta, self._note))
        return [score for score in found if score is not None]

    @property
    def _note(self) -> str:
        return "" if self._packs else PLAIN_NOTE

    def _tokenised(self, request: Request, cancelled: IsCancelled | None) -> TokenisedSequence:
        stop_if(cancelled, "scoring")
        return tokenise_completion(
            self.loaded.tokenizer, request.prompt, request.response, self.max_length
        )

    def _batches(self, sequences: Sequence[TokenisedSequence]) -> Iterator[list["_Tree"]]:
        trees = _trees(sequences)
        if self._packs is None:
            self._packs = may_pack(self.loaded.model, self.max_length) and self._packing_agrees()
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
        if any(tree.long for tree in batch):
            return [logps for tree in batch for logps in self._continued(tree, cancelled)]
        row = _Row(batch)
        if not len(row.targets):
            return [np.zeros(0, np.float32) for _ in row.lengths]
        _check_memory(self.loaded, row.size, len(row.targets))
        with torch.inference_mode(), active(self.loaded):
            with interruptible(self.loaded.model, cancelled):
                logits = _row_logits(self.loaded.model, row)
            parts = torch.split(_in_chunks(logits, row.targets), row.lengths)
        return [_frozen(part.numpy()) for part in parts]

    def _continued(
        self, tree: "_Tree", cancelled: IsCancelled | None
    ) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
        """Token log-probabilities of a tree's answers, each from the cache of their prompt."""
        longest = max(len(answer) for _, answer in tree.answers)
        _check_memory(self.loaded, len(tree.prefix) + longest, longest)
        model, found = self.loaded.model, []
        with torch.inference_mode(), active(self.loaded), interruptible(model, cancelled):
            first, cache = _read_prompt(model, tree.prefix)
            for _, answer in tree.answers:
                targets = torch.from_numpy(answer.astype(np.int64))
                rest = _in_chunks(_answer_logits(model, cache, answer), targets[1:])
                logps = torch.cat([_in_chunks(first, targets[:1]), rest])
                found.append(_frozen(logps.numpy()))
        return found

    def _packing_agrees(self) -> bool:
        """Whether this architecture honours positions and masks, tried on made-up tokens.

        Two prompts, one with two answers that differ: an answer that saw its sibling, or a tree
        that saw its neighbour, would give itself away.
        """
        trees = _probe(self.loaded.model.get_input_embeddings().weight.shape[0])
        try:
            packed = self._forward(trees, None)
            continued = [logps for tree in trees for logps in self._continued(tree, None)]
        except (AttributeError, TypeError, ValueError, RuntimeError, IndexError):
            return False
        plain = [self._plain_logps(branch) for tree in trees for branch in tree.alone()]
        nats = _AGREE_NATS_HALF if self.dtype in _HALF else _AGREE_NATS
        return all(
            np.allclose(a, b, rtol=0, atol=nats)
            for a, b in zip(packed + continued, plain + plain, strict=True)
        )

    def _plain_logps(self, tree: "_Tree") -> np.ndarray[Any, np.dtype[np.float32]]:
        """One answer by a forward pass with nothing but its tokens: what the rest is held to."""
        (_, answer), n = tree.answers[0], len(tree.prefix)
        ids = torch.from_numpy(np.concatenate([tree.prefix, answer]).astype(np.int64))
        with torch.inference_mode(), active(self.loaded):
            logits = self.loaded.model(input_ids=ids[None].to(self.loaded.model.device)).logits[0]
            return target_logps(logits[n - 1 : -1], ids[n:]).float().cpu().numpy()


def may_pack(model: Any, max_length: int) -> bool:  # noqa: ANN401 - a transformers model
    """Whether a row of several trees can be meant as such by this configuration.

    A sliding or chunked window counts places in the row, not positions, and a short trial would
    not reach its edge; so a window below the maximal length rules packing out.
    """
    config = model.config.get_text_config()
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    if getattr(config, "use_sliding_window", True) is False:
        windows = windows[1:]
    return all(window is None or window >= max(max_length, TREE_TOKENS) for window in windows)


def token_logits(loaded: "LoadedModel", prompt: Text, response: Text) -> Tensor:
    """Logits at each token of one answer, float32 on the CPU, shape (tokens, vocabulary).

    A tensor over the vocabulary: for one pair that a person looks at, never for a set.
    """
    sequence = tokenise_completion(loaded.tokenizer, prompt, response, loaded.max_length)
    row = _Row(_trees([sequence]))
    vocabulary = loaded.model.get_input_embeddings().weight.shape[0]
    if not len(row.targets):
        return torch.zeros(0, vocabulary)
    _check_memory(loaded, row.size, len(row.targets))
    with torch.inference_mode(), active(loaded):
        return _row_logits(loaded.model, row).float().cpu()


def target_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """log p of each target, shape (..., T), from logits (..., T, V), at least in float32."""
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    chosen = logits.gather(-1, targets.to(logits.device)[..., None])[..., 0]
    return chosen - logits.logsumexp(dim=-1)


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
    if torch.is_grad_enabled():
        # The way back takes twice as long as the way there, and begins after this context.
        hooks += [layer.register_full_backward_pre_hook(check) for layer in _layers(model)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The longest list of equal blocks: a transformer's layers."""
    stacks = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return max((list(stack) for stack in stacks), key=len, default=[])


_Ids = np.ndarray[Any, np.dtype[np.int32]]


@dataclass(frozen=True)
class _Tree:
    """A prompt and the answers that continue it: (index of the request, tokens)."""

    prefix: _Ids
    answers: list[tuple[int, _Ids]]

    @property
    def size(self) -> int:
        """Tokens that the model reads."""
        return len(self.prefix) + sum(len(answer) for _, answer in self.answers)

    @property
    def long(self) -> bool:
        """Whether its answers had better go on from the prompt's cache than stand in its row."""
        if len(self.answers) == 1:
            return False
        prompt, lengths = len(self.prefix), [len(answer) for _, answer in self.answers]
        ahead = sum(n * (prompt + n) for n in lengths)
        passes = _PASS * len(lengths) + _CAUSAL_SQUARE * prompt**2 + _MASKED_SQUARE * ahead
        return self.size > TREE_TOKENS or passes < _MASKED_SQUARE * self.size**2

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
    """Trees laid into rows of about `ROW_TOKENS`, keeping their order; long ones by themselves."""
    row: list[_Tree] = []
    for tree in trees:
        full = sum(each.size for each in row) + tree.size > ROW_TOKENS
        if row and (full or tree.long or row[-1].long):
            yield row
            row = []
        row.append(tree)
    if row:
        yield row


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
        self.size = at
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


def _row_logits(model: Any, row: _Row) -> Tensor:  # noqa: ANN401 - a transformers model
    """Logits where the row's answers are predicted, shape (targets, vocabulary)."""
    inputs = row.inputs(model)
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        # The head then runs everywhere, which is slower and no less right.
        keep = inputs.pop("logits_to_keep")
        everywhere: Tensor = model(**inputs).logits[0]
        return everywhere[keep]
    logits: Tensor = model(**inputs).logits[0]
    return logits


def _read_prompt(model: Any, prefix: _Ids) -> tuple[Tensor, Any]:  # noqa: ANN401
    """Logits after the prompt, shape (1, vocabulary), and the model's cache of it."""
    ids = torch.from_numpy(prefix.astype(np.int64))[None].to(model.device)
    out = model(input_ids=ids, use_cache=True, logits_to_keep=1)
    return out.logits[0, -1:], out.past_key_values


def _answer_logits(model: Any, cache: Any, answer: _Ids) -> Tensor:  # noqa: ANN401
    """Logits after each of an answer's tokens but the last, shape (T - 1, vocabulary)."""
    ids = torch.from_numpy(answer[:-1].astype(np.int64))[None].to(model.device)
    if not ids.numel():
        return torch.zeros(0, model.get_input_embeddings().weight.shape[0], device=model.device)
    # The pass writes into its cache, and the next answer needs the prompt's alone.
    logits: Tensor = model(
        input_ids=ids, past_key_values=copy.deepcopy(cache), use_cache=True
    ).logits[0]
    return logits


def _in_chunks(logits: Tensor, targets: Tensor) -> Tensor:
    """log p of each target, float32 on the CPU, without a second table of the logits' size."""
    chosen = [
        target_logps(logits[i : i + _HEAD_CHUNK], targets[i : i + _HEAD_CHUNK])
        for i in range(0, len(targets), _HEAD_CHUNK)
    ]
    return torch.cat(chosen).float().cpu() if chosen else torch.zeros(0)


def _check_memory(loaded: "LoadedModel", tokens: int, predictors: int) -> None:
    """Refuse a pass that would not fit, before the process dies of it."""
    config = loaded.model.config.get_text_config()
    sizes = config.vocab_size, config.hidden_size, config.num_hidden_layers
    check_fits(
        row_bytes(tokens, predictors, *sizes),
        loaded.device,
        f"Scoring a row of {tokens} tokens under {loaded.name}",
        f"shorten the text to about {tokens_that_fit(loaded.device, *sizes)} tokens, or choose a "
        "smaller model.",
    )


def _probe(vocabulary: int) -> list[_Tree]:
    """Made-up trees for the trial: prompts of 9 and 5 tokens, answers of 7, 4 and 6."""
    ids = np.random.default_rng(0).integers(0, vocabulary, 31).astype(np.int32)
    return [
        _Tree(ids[:9], [(0, ids[9:16]), (1, ids[16:20])]),
        _Tree(ids[20:25], [(2, ids[25:])]),
    ]


def _frozen(
    values: np.ndarray[Any, np.dtype[np.float32]],
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Scores are shared between pages; nobody may write into them."""
    values = values.copy()
    values.flags.writeable = False
    return values

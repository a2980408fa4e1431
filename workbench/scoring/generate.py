"""Letting a model write answers, for pairs that a person wants to judge."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.data.pairs import Text
from workbench.errors import ScoringError
from workbench.scoring.logprobs import active, interruptible
from workbench.scoring.tokenise import prompt_tokens

if TYPE_CHECKING:
    from workbench.scoring.models import LoadedModel

OnProgress = Callable[[int, int, str], None]
IsCancelled = Callable[[], bool]

MAX_ANSWERS = 16


def generate(
    loaded: "LoadedModel",
    prompt: Text,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    seed: int = 0,
    on_progress: OnProgress | None = None,
    cancelled: IsCancelled | None = None,
    *,
    answers: int = 1,
) -> list[str]:
    """Write answers to a prompt; the prompt is read once for all of them.

    Args:
        loaded: The model, in its role; other roles may use shared weights between two tokens.
        prompt: What to answer.
        max_new_tokens: Longest answer; less where the model's own limit is reached before.
        temperature: 0 takes the likeliest token each time (all answers are then equal); above 0
            tokens are drawn from softmax(logits / temperature).
        seed: Of the draws; equal seeds give equal answers on one machine.
        on_progress: Called with (tokens written, tokens at most, what is going on).
        cancelled: Asked before every layer.
        answers: How many to write.

    Returns:
        The answers as text, without end-of-turn tokens; an answer may be empty.

    Raises:
        ScoringError: a number out of range, or a prompt that leaves no room for an answer.
        Cancelled: asked to stop.
    """
    _check(max_new_tokens, temperature, answers)
    ids = prompt_tokens(loaded.tokenizer, prompt, loaded.max_length)
    if len(ids) >= loaded.max_length:
        raise ScoringError(
            f"The prompt leaves no room for an answer: {loaded.name} reads {loaded.max_length} "
            "tokens; shorten the prompt."
        )
    if not ids:
        raise ScoringError("The prompt is empty and this model needs a beginning; write a prompt.")
    total = min(max_new_tokens, loaded.max_length - len(ids))
    draws = torch.Generator().manual_seed(seed)
    ends = _end_ids(loaded)
    step = _Stepper(loaded, answers, cancelled)
    logits = step(torch.tensor([ids]))
    written: list[list[int]] = [[] for _ in range(answers)]
    open_rows = set(range(answers))
    for done in range(1, total + 1):
        tokens = _drawn(logits, temperature, draws)
        for row in sorted(open_rows):
            token = int(tokens[row])
            if token in ends:
                open_rows.discard(row)
            else:
                written[row].append(token)
        if on_progress is not None:
            on_progress(done, total, f"writing an answer (token {done} of at most {total})")
        if not open_rows or done == total:
            break
        logits = step(tokens[:, None])
    return [loaded.tokenizer.decode(row, skip_special_tokens=True) for row in written]


class _Stepper:
    """The model one step on: logits after the given tokens, float32 on the CPU."""

    def __init__(self, loaded: "LoadedModel", answers: int, cancelled: IsCancelled | None) -> None:
        self._loaded = loaded
        self._answers = answers
        self._cancelled = cancelled
        self._cache: Any = None

    def __call__(self, tokens: Tensor) -> Tensor:
        """Logits of the next token, shape (answers, vocabulary); tokens (1 or answers, t)."""
        model = self._loaded.model
        with (
            torch.inference_mode(),
            active(self._loaded),
            interruptible(model, self._cancelled),
        ):
            out = model(
                input_ids=tokens.to(model.device),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        logits: Tensor = out.logits[:, -1].float().cpu()
        if self._cache is None:
            out.past_key_values.batch_repeat_interleave(self._answers)
            logits = logits.expand(self._answers, -1)
        self._cache = out.past_key_values
        return logits


def _drawn(logits: Tensor, temperature: float, draws: torch.Generator) -> Tensor:
    """One token per row, shape (answers,)."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    # Subtracting the maximum first keeps tiny temperatures from overflowing.
    scaled = (logits - logits.amax(dim=-1, keepdim=True)).double() / temperature
    return torch.multinomial(scaled.softmax(dim=-1), 1, generator=draws)[:, 0]


def _end_ids(loaded: "LoadedModel") -> set[int]:
    """Tokens that end an answer: the tokenizer's, and those that the model's settings name."""
    settings = getattr(loaded.model, "generation_config", None)
    found: set[int] = set()
    for ids in (loaded.tokenizer.eos_token_id, getattr(settings, "eos_token_id", None)):
        if ids is not None:
            found.update(ids if isinstance(ids, list) else [ids])
    return found


def _check(max_new_tokens: int, temperature: float, answers: int) -> None:
    if max_new_tokens < 1:
        raise ScoringError(f"max_new_tokens is {max_new_tokens}; give at least 1.")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ScoringError(f"temperature is {temperature}; give 0 or more.")
    if not 1 <= answers <= MAX_ANSWERS:
        raise ScoringError(f"answers is {answers}; give 1 to {MAX_ANSWERS}.")

"""Differential information of a language model: by candidate set and by token, before and after.

Two sets of pairs of equal size, one of open-ended and one of factual questions, train a policy
each; DPO on LoRA weights in the top blocks. Every answer is then read under the reference, under
the bundled default policy (which saw neither set), and under the policy trained on its own set.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from workbench.data.formats import read_pairs
from workbench.data.pairs import PreferencePair, PreferenceSet, Text
from workbench.metrics.information import first_of_each, token_did_entropy
from workbench.scoring.logprobs import target_logps, token_logits
from workbench.scoring.models import LoadedModel, load_model, parse_model
from workbench.scoring.tokenise import tokenise_completion
from workbench.study.context import StudyContext
from workbench.study.errors import StudyError
from workbench.training.language_model import LORA_SCALE, private_copy
from workbench.training.preference import (
    CachedPair,
    PairTokens,
    Recipe,
    Step,
    TopBlocks,
    attach_lora,
    score_pairs,
    tokenise_pair,
    train_preferences,
    trunk_states,
)

SETS = ("open-ended", "factual")
STATES = ("before", "default policy", "after")
"""The policy as it starts, which is the reference; the bundled one; and as trained on its set."""
INPUTS: dict[str, PreferenceSet] = {
    name: read_pairs(Path(__file__).with_name(f"{name}.jsonl"), name=name) for name in SETS
}
TOP_K = 100
"""Tokens of either model that the restricted next-token form considers."""
_UNCHANGED = [0.0, 0.0, math.nan, 0.0]
_BLOCKS, _RANK, _BATCH = 2, 8, 6
_MAX_PROMPT, _MAX_ANSWER = 256, 64


@dataclass(frozen=True)
class Settings:
    """How the policies are trained.

    Attributes:
        beta: DPO's inverse temperature.
        learning_rate: Its peak.
        epochs: Passes over the pairs of a set.
    """

    beta: float = 0.1
    learning_rate: float = 5e-4
    epochs: int = 6


@dataclass(frozen=True)
class Learnt:
    """What training on one set did; an answer is one distinct answer to one prompt.

    Attributes:
        prompt: Prompt of each answer, numbered from 0, shape (answers,).
        chosen: Whether the answer is ever the preferred one, shape (answers,).
        tokens: Number of its tokens, shape (answers,).
        log_ratio: log pi - log pi_ref of each answer in each of `STATES`, (states, answers).
        reference: log pi_ref of each answer, nats, the same shape.
        from_uniform: log |V| - H(q_t) a token, mean over the answer, the same shape.
        from_uniform_top: The same over the first `TOP_K` tokens of either model.
        coverage: Share of both models' probability in these, the same shape; NaN before training.
        entropy_change: H(pi) - H(pi_ref) of the next token, mean over the answer, the same shape.
        loss: DPO's loss by step, shape (steps,).
        accuracy: Share of the pairs whose chosen answer has the higher reward after training.
    """

    prompt: Tensor
    chosen: Tensor
    tokens: Tensor
    log_ratio: Tensor
    reference: Tensor
    from_uniform: Tensor
    from_uniform_top: Tensor
    coverage: Tensor
    entropy_change: Tensor
    loss: Tensor
    accuracy: float


def learn(settings: Settings, context: StudyContext) -> dict[str, Learnt]:
    """Train on each set and read its answers, by name of the set.

    Raises:
        StudyError: a pair that cannot be read, or is too long.
        ModelError: the default model or policy cannot be loaded.
        Cancelled: asked to stop.
    """
    context.report(0.0, "loading the language model")
    base, tuned = (
        load_model(parse_model(name), device=context.device, cancelled=context.cancelled)
        for name in ("default", "default+policy")
    )
    return {
        name: learn_from(base, tuned, context.pairs(name), settings, part)
        for name, part in zip(SETS, (context.part(0, 0.5), context.part(0.5, 1)), strict=True)
    }


def learn_from(
    base: LoadedModel,
    tuned: LoadedModel,
    pairs: PreferenceSet,
    settings: Settings,
    context: StudyContext,
) -> Learnt:
    """Train a policy on one set, and read the set's answers under all three policies.

    Args:
        base: The reference, from which training starts.
        tuned: Another policy with the same tokenizer.
        pairs: The set.
        settings: Of the training.
        context: Seed, progress and cancelling.
    """
    trained, steps, accuracy = _trained(base, pairs, settings, context.part(0, 0.6))
    answers = _answers(pairs)
    readings = [
        _read(base, (tuned, trained), answer)
        for answer in context.part(0.6, 1).track(answers, f"reading {pairs.name}")
    ]
    columns = [torch.stack(each, dim=-1) for each in zip(*readings, strict=True)]
    tokens, log_ratio, reference, whole, top, coverage, change = columns
    return Learnt(
        prompt=torch.tensor([answer.prompt for answer in answers]),
        chosen=torch.tensor([answer.chosen for answer in answers]),
        tokens=tokens,
        log_ratio=log_ratio,
        reference=reference,
        from_uniform=whole,
        from_uniform_top=top,
        coverage=coverage,
        entropy_change=change,
        loss=torch.tensor([step.loss for step in steps], dtype=torch.float64),
        accuracy=accuracy,
    )


@dataclass(frozen=True)
class _Answer:
    """A distinct answer; `prompt` is the number of its prompt in the set."""

    prompt: int
    pair: PreferencePair
    text: Text
    chosen: bool


def _answers(pairs: PreferenceSet) -> list[_Answer]:
    """Every answer of the set once, copies to one prompt left out."""
    found = [
        _Answer(prompt, pair, text, chosen)
        for pair, prompt in zip(pairs, pairs.prompt_groups(), strict=True)
        for text, chosen in ((pair.chosen, True), (pair.rejected, False))
    ]
    return [found[place] for place in first_of_each([(each.prompt, each.text) for each in found])]


def _read(
    base: LoadedModel, policies: Sequence[LoadedModel], answer: _Answer
) -> tuple[Tensor, ...]:
    """Number of tokens, and by state the fields of `Learnt` from `log_ratio` on.

    Before training policy and reference are one, so that q is uniform without being computed.
    """
    prompt, text = answer.pair.prompt, answer.text
    sequence = tokenise_completion(base.tokenizer, prompt, text, base.max_length)
    targets = torch.from_numpy(sequence.input_ids[sequence.response_start :].astype("int64"))
    reference = token_logits(base, prompt, text)
    log_ref = _log_probability(reference, targets)
    unchanged = torch.stack([log_ref.new_tensor(0.0), log_ref, *log_ref.new_tensor(_UNCHANGED)])
    rows = [
        _compared(token_logits(policy, prompt, text), reference, targets, log_ref)
        for policy in policies
    ]
    return torch.tensor(len(targets)), *torch.stack([unchanged, *rows], dim=1)


def _compared(logits: Tensor, reference: Tensor, targets: Tensor, log_ref: Tensor) -> Tensor:
    """The fields of `Learnt` from `log_ratio` on, of one answer under one policy."""
    whole = token_did_entropy(logits, reference)
    top = token_did_entropy(logits, reference, TOP_K)
    means = (
        whole.kl_to_uniform,
        top.kl_to_uniform,
        top.coverage,
        whole.policy_entropy_change,
    )
    log_ratio = _log_probability(logits, targets) - log_ref
    return torch.stack([log_ratio, log_ref, *(each.mean() for each in means)])


def _log_probability(logits: Tensor, targets: Tensor) -> Tensor:
    return target_logps(logits, targets).sum(dtype=torch.float64)


def _trained(
    base: LoadedModel, pairs: PreferenceSet, settings: Settings, context: StudyContext
) -> tuple[LoadedModel, list[Step], float]:
    """The model after training on the pairs, its steps, and its reward accuracy on them."""
    with base.active():
        below, own = private_copy(base.model), private_copy(base.model)
    block = own.config.num_hidden_layers - _BLOCKS
    reading = context.part(0, 0.4)
    cached = trunk_states(
        below,
        [_pair_tokens(base, pair) for pair in pairs],
        block,
        on_pair=lambda done, total: reading.report(done / total, f"reading {pairs.name}"),
        cancelled=context.cancelled,
    )
    seed = int(torch.randint(1 << 31, (1,), generator=context.generator("language model")))
    adapted = attach_lora(own, block=block, rank=_RANK, scale=LORA_SCALE, seed=seed)
    top = TopBlocks(adapted, block)
    reference = score_pairs(top, cached)
    training = context.part(0.4, 1)
    steps = train_preferences(
        top,
        cached,
        reference,
        Recipe(settings.beta, settings.learning_rate, settings.epochs, _BATCH),
        seed,
        on_step=lambda step: training.report(step.number / step.total, f"training: {pairs.name}"),
        cancelled=context.cancelled,
    )
    model = dataclasses.replace(base, model=adapted.get_base_model(), _shared=None)
    return model, steps, _accuracy(top, cached, reference)


def _accuracy(top: TopBlocks, cached: Sequence[CachedPair], reference: Tensor) -> float:
    rewards = score_pairs(top, cached) - reference
    return float((rewards[:, 0] > rewards[:, 1]).double().mean())


def _pair_tokens(base: LoadedModel, pair: PreferencePair) -> PairTokens:
    found = tokenise_pair(
        base.tokenizer, pair.prompt, pair.chosen, pair.rejected, _MAX_PROMPT, _MAX_ANSWER
    )
    if found is None:
        raise StudyError(
            f"Nothing can be learnt from pair {pair.pair_id!r}: give two different answers and a "
            f"prompt of at most {_MAX_PROMPT} tokens."
        )
    return found

"""Language models on real pairs: what a reference and a tuned policy make of each."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.scoring.logprobs import ModelScorer, Progress, Request, SequenceScore
from workbench.scoring.models import LoadedModel, check_same_tokenizer, load_model, parse_model
from workbench.studies.ranking_accuracy.mechanism import PairScores, rater_shares
from workbench.study.context import StudyContext
from workbench.study.errors import StudyError

_KEPT: dict[tuple[str, str, tuple[Request, ...]], list[SequenceScore]] = {}
"""Scores of this process: they depend on no seed, and one more seed shall not pay for them."""
_MOST_KEPT = 8


@dataclass(frozen=True)
class LanguageScores:
    """A reference and a policy on the same pairs.

    Attributes:
        reference_name: The reference's name; `policy_name` likewise.
        data: Name of the set.
        pairs: Under the reference.
        policy_chosen: log pi(y_w|x), nats, shape (pairs,); `policy_rejected` likewise.
        texts: (prompt, chosen, rejected) of every pair.
    """

    reference_name: str
    policy_name: str
    data: str
    pairs: PairScores
    policy_chosen: Tensor
    policy_rejected: Tensor
    texts: tuple[tuple[str, str, str], ...]

    @property
    def m(self) -> Tensor:
        """The policy's log-ratio of chosen and rejected answers."""
        return self.policy_chosen - self.policy_rejected


def score_language(
    pairs: PreferenceSet,
    count: int,
    reference_name: str,
    policy_name: str,
    context: StudyContext,
) -> LanguageScores:
    """Score a drawn part of a set under both models.

    The draw does not follow the run's seed, as the paper's does not: whole prompts in an order
    drawn once, until there are `count` pairs.

    Args:
        pairs: The set.
        count: Pairs to score; all where there are no more.
        reference_name: As `workbench.scoring.models.parse_model` reads it.
        policy_name: Likewise; must have the reference's tokenizer.
        context: Device, progress, cancelling.

    Raises:
        StudyError: no pair is left that both models can read.
        ModelError: a model cannot be loaded, or the two do not fit together.
        Cancelled: asked to stop.
    """
    drawn = _drawn(pairs, count)
    models = [_load(name, context) for name in (reference_name, policy_name)]
    check_same_tokenizer(models[1], models[0])
    requests = tuple(Request(p.prompt, side) for p in drawn for side in (p.chosen, p.rejected))
    reference, policy = (
        _scores(model, requests, context.part(place / 2, (place + 1) / 2))
        for place, model in enumerate(models)
    )
    usable = [
        place
        for place in range(len(drawn))
        if not any(_unusable(reference[2 * place + side]) for side in (0, 1))
    ]
    if not usable:
        raise StudyError(f"No pair of {pairs.name!r} can be read whole by {reference_name}.")
    kept = [drawn[place] for place in usable]
    logps, lengths = _columns(reference, usable)
    tuned, _ = _columns(policy, usable)
    return LanguageScores(
        models[0].name,
        models[1].name,
        pairs.name,
        PairScores(*logps, *lengths, rater_shares(kept)),
        *tuned,
        tuple((p.prompt_text, p.chosen_text, p.rejected_text) for p in kept),
    )


def _drawn(pairs: PreferenceSet, count: int) -> list[PreferencePair]:
    groups = pairs.prompt_groups()
    by_prompt: dict[int, list[PreferencePair]] = {}
    for pair, group in zip(pairs, groups, strict=True):
        by_prompt.setdefault(group, []).append(pair)
    order = torch.randperm(len(by_prompt), generator=torch.Generator().manual_seed(0)).tolist()
    return [pair for group in order for pair in by_prompt[group]][:count]


def _load(name: str, context: StudyContext) -> LoadedModel:
    def report(done: int, total: int, note: str) -> None:
        context.report(0.0, note)

    spec = parse_model(name)
    return load_model(spec, progress=report, cancelled=context.cancelled, device=context.device)


def _scores(
    model: LoadedModel, requests: tuple[Request, ...], context: StudyContext
) -> list[SequenceScore]:
    """A score for each request; equal ones are scored once."""

    def report(progress: Progress) -> None:
        context.report(progress.done / progress.total, f"{model.name} reads the pairs")

    distinct = tuple(dict.fromkeys(requests))
    key = (model.digest, f"{model.dtype} on {model.device}", distinct)
    if key not in _KEPT:
        found = ModelScorer(model).score(distinct, on_progress=report, cancelled=context.cancelled)
        while len(_KEPT) >= _MOST_KEPT:
            _KEPT.pop(next(iter(_KEPT)))
        _KEPT[key] = found
    context.report(1.0, f"{model.name} has read the pairs")
    by_request = dict(zip(distinct, _KEPT[key], strict=True))
    return [by_request[request] for request in requests]


def _columns(
    scores: Sequence[SequenceScore], usable: Sequence[int]
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Summed log-probabilities and lengths of chosen and rejected answers, float64."""
    sides = [[scores[2 * place + side] for place in usable] for side in (0, 1)]
    logps = [torch.tensor([s.logp for s in side], dtype=torch.float64) for side in sides]
    lengths = [torch.tensor([s.n_tokens for s in side], dtype=torch.float64) for side in sides]
    return (logps[0], logps[1]), (lengths[0], lengths[1])


def _unusable(score: SequenceScore) -> bool:
    return score.truncated or score.empty or not score.n_tokens

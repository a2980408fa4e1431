"""The scores a session knows, laid out beside its pairs and filled in as they arrive."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from workbench.data.pairs import PreferencePair, PreferenceSet, Text
from workbench.engine.values import PairScores
from workbench.scoring.logprobs import Request, SequenceScore

Role = Literal["policy", "reference"]
ROLES: tuple[Role, Role] = ("reference", "policy")
_NAN = float("nan")


@dataclass(frozen=True)
class AnswerScore:
    """What one model makes of one answer: summed log-probability (nats), tokens, flags."""

    logp: float
    n_tokens: int
    truncated: bool
    empty: bool

    @classmethod
    def of(cls, score: SequenceScore) -> "AnswerScore":
        """Sum up a per-token score."""
        return cls(score.logp, score.n_tokens, score.truncated, score.empty)


_Row = tuple[PreferencePair, tuple[float, ...]]


class ScoreBoard:
    """Scores by model and answer, and the columns of one preference set.

    Answers stay known while they are on nobody's page, so that undo, a label flip or a
    return to an older version or model finds its numbers at once. Thread-safe.

    Args:
        policy: Name of the model whose preferences are looked at.
        reference: Name of the model it is compared with; may be the same.
    """

    def __init__(self, policy: str, reference: str) -> None:
        self._known: dict[str, dict[Request, AnswerScore]] = {}
        self._models: dict[Role, str] = {}
        self._rows: dict[str, _Row] = {}
        self._lock = threading.Lock()
        self.version = 0
        self.use(policy=policy, reference=reference)

    @property
    def models(self) -> dict[Role, str]:
        """The model in each role."""
        return dict(self._models)

    def use(self, *, policy: str, reference: str) -> None:
        """Put models in their roles; what they said before is still known."""
        with self._lock:
            self._models = {"policy": policy, "reference": reference}
            self._rows.clear()
            self.version += 1

    def put(self, model: str, scores: Mapping[Request, SequenceScore]) -> None:
        """Take in what a model said."""
        with self._lock:
            known = self._known.setdefault(model, {})
            known.update({request: AnswerScore.of(score) for request, score in scores.items()})
            self.version += 1

    def known(self, role: Role, request: Request) -> AnswerScore | None:
        """One answer's score, or None while it is not known."""
        return self._known.get(self._models[role], {}).get(request)

    def missing(self, model: str, pairs: Iterable[PreferencePair]) -> list[Request]:
        """The distinct answers of `pairs` that `model` has not scored, in order."""
        known = self._known.get(model, {})
        asked = (request for pair in pairs for request in requests_of(pair))
        return list(dict.fromkeys(request for request in asked if request not in known))

    def columns(self, pairs: PreferenceSet) -> PairScores:
        """The scores of every pair, NaN where a model has not spoken yet."""
        with self._lock:
            rows = [self._row(pair) for pair in pairs.pairs]
        return PairScores(*torch.tensor(rows, dtype=torch.float64).reshape(-1, 6).T.contiguous())

    def flagged(self, pairs: Sequence[PreferencePair]) -> dict[str, list[str]]:
        """Ids of the pairs with a truncated, an empty, or two identical answers."""
        flags: dict[str, list[str]] = {"truncated": [], "empty": [], "identical": []}
        for pair in pairs:
            found = [self.known("reference", request) for request in requests_of(pair)]
            answers = [answer for answer in found if answer is not None]
            if any(answer.truncated for answer in answers):
                flags["truncated"].append(pair.pair_id)
            if any(answer.empty for answer in answers):
                flags["empty"].append(pair.pair_id)
            if pair.chosen == pair.rejected:
                flags["identical"].append(pair.pair_id)
        return flags

    def _row(self, pair: PreferencePair) -> tuple[float, ...]:
        kept = self._rows.get(pair.pair_id)
        if kept is not None and kept[0] is pair:
            return kept[1]
        chosen, rejected = requests_of(pair)
        roles: tuple[Role, Role] = ("policy", "reference")
        answers = [self.known(role, answer) for role in roles for answer in (chosen, rejected)]
        lengths = _length(answers[2], answers[0]), _length(answers[3], answers[1])
        row = (*(_logp(answer) for answer in answers), *lengths)
        if all(answer is not None for answer in answers):
            self._rows[pair.pair_id] = (pair, row)
        return row


def requests_of(pair: PreferencePair) -> tuple[Request, Request]:
    """The two answers of a pair as scoring requests: chosen, rejected."""
    return Request(pair.prompt, pair.chosen), Request(pair.prompt, pair.rejected)


def by_prompt(pairs: Sequence[PreferencePair], first: Sequence[str] = ()) -> list[PreferencePair]:
    """Pairs in scoring order: those named `first`, then each prompt's pairs together.

    Pairs that share a prompt stand side by side, because a scorer reads the prompt once.
    """
    wanted = {pair_id: place for place, pair_id in enumerate(first)}
    seen: dict[Text, int] = {}
    places = [seen.setdefault(pair.prompt, len(seen)) for pair in pairs]
    late = len(wanted)
    order = sorted(range(len(pairs)), key=lambda i: (wanted.get(pairs[i].pair_id, late), places[i]))
    return [pairs[i] for i in order]


def _logp(answer: AnswerScore | None) -> float:
    return _NAN if answer is None or answer.empty else answer.logp


def _length(*answers: AnswerScore | None) -> float:
    for answer in answers:
        if answer is not None:
            return 0.0 if answer.empty else float(answer.n_tokens)
    return _NAN

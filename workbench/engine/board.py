"""The scores a session knows, laid out beside its pairs and filled in as they arrive."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from workbench.data.pairs import PreferencePair, PreferenceSet, Text
from workbench.engine.values import PairScores
from workbench.scoring.logprobs import Request, SequenceScore

Role = Literal["policy", "reference"]
ROLES: tuple[Role, Role] = ("reference", "policy")
FLAGS = ("truncated", "empty", "identical", "not_finite")
_Floats = np.ndarray[Any, np.dtype[np.float64]]
_Numbers = np.ndarray[Any, np.dtype[np.int64]]
_LOGP, _TOKENS, _TRUNCATED, _EMPTY = range(4)


class ScoreBoard:
    """Scores by model and answer, and the columns of one preference set.

    Every answer that was ever on a page has a number, and every model a table by that number, so
    that undo, a label flip or a return to an older version or model finds its scores at once,
    and the columns of a set are one look-up. Thread-safe.

    Args:
        policy: Name of the model whose preferences are looked at.
        reference: Name of the model it is compared with; may be the same.
    """

    def __init__(self, policy: str, reference: str) -> None:
        self._numbers: dict[Request, int] = {}
        self._heard: dict[str, _Floats] = {}
        self._models: dict[Role, str] = {}
        self._laid: tuple[tuple[PreferencePair, ...], _Numbers] = (), np.zeros((0, 2), np.int64)
        self._lock = threading.RLock()
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
            self.version += 1

    def put(self, model: str, scores: Mapping[Request, SequenceScore]) -> None:
        """Take in what a model said."""
        with self._lock:
            numbers = [self._number(request) for request in scores]
            self._table(model)[np.array(numbers, int)] = np.array(
                [(s.logp, s.n_tokens, s.truncated, s.empty) for s in scores.values()], float
            ).reshape(-1, 4)
            self.version += 1

    def missing(self, model: str, pairs: Iterable[PreferencePair]) -> list[Request]:
        """The distinct answers of `pairs` that `model` has not scored, in order."""
        asked = dict.fromkeys(request for pair in pairs for request in requests_of(pair))
        with self._lock:
            numbers = [self._number(request) for request in asked]
            unknown = np.isnan(self._table(model)[np.array(numbers, int), _TOKENS])
        return [request for request, new in zip(asked, unknown, strict=True) if new]

    def count_missing(self, model: str, pairs: PreferenceSet) -> int:
        """How many distinct answers of the set `model` has not scored."""
        with self._lock:
            numbers = self.answers(pairs)
            unknown = np.isnan(self._table(model)[numbers, _TOKENS])
        return len(np.unique(numbers[unknown]))

    def unscored(self, pairs: PreferenceSet) -> list[PreferencePair]:
        """The pairs of which policy or reference has not scored an answer, in order."""
        with self._lock:
            numbers = self.answers(pairs)
            tables = [self._table(model)[numbers, _TOKENS] for model in self._models.values()]
        rows = np.flatnonzero(np.isnan(tables).any(axis=(0, 2)))
        return [pairs.pairs[row] for row in rows.tolist()]

    def answers(self, pairs: PreferenceSet) -> _Numbers:
        """Numbers of every pair's chosen and rejected answer, shape (pairs, 2).

        Answers with equal prompts and equal texts have equal numbers. The same array until a
        text changes; then only pairs that were not there before are looked at.
        """
        with self._lock:
            before, numbers = self._laid
            if before is not pairs.pairs:
                place = {id(pair): row for row, pair in enumerate(before)}
                rows = [place.get(id(pair), -1) for pair in pairs.pairs]
                fresh = self._renumbered(numbers, np.array(rows, int), pairs)
                self._laid = pairs.pairs, numbers if np.array_equal(fresh, numbers) else fresh
            return self._laid[1]

    def columns(self, pairs: PreferenceSet) -> PairScores:
        """The scores of every pair, NaN where a model has not spoken yet or an answer is empty."""
        policy, reference = self._said("policy", pairs), self._said("reference", pairs)
        tokens = np.where(np.isnan(reference[_TOKENS]), policy[_TOKENS], reference[_TOKENS])
        empty = np.fmax(policy[_EMPTY], reference[_EMPTY]) == 1
        logps = [np.where(empty, np.nan, said[_LOGP]) for said in (policy, reference)]
        columns = np.concatenate([*logps, np.where(empty, 0.0, tokens)])
        return PairScores(*torch.from_numpy(columns))

    def flagged(self, pairs: PreferenceSet) -> dict[str, list[str]]:
        """Ids of the pairs that a summary should not take at face value, by what is wrong.

        `truncated`: a model's maximal length cut an answer; `empty`: an answer has no text;
        `identical`: both answers are the same; `not_finite`: a model gave no finite number.
        """
        said = np.stack([self._said(role, pairs) for role in ROLES])
        answers = self.answers(pairs)
        spoken = ~np.isnan(said[:, _TOKENS])
        found = (
            (said[:, _TRUNCATED] == 1).any(axis=(0, 1)),
            (said[:, _EMPTY] == 1).any(axis=(0, 1)),
            answers[:, 0] == answers[:, 1],
            (spoken & ~np.isfinite(said[:, _LOGP])).any(axis=(0, 1)),
        )
        return {
            flag: [pairs.pairs[row].pair_id for row in np.flatnonzero(which).tolist()]
            for flag, which in zip(FLAGS, found, strict=True)
        }

    def _said(self, role: Role, pairs: PreferenceSet) -> _Floats:
        """What a model said of chosen and rejected answers, shape (4, 2, pairs)."""
        with self._lock:
            numbers = self.answers(pairs)  # first: the table has a row for every number
            said: _Floats = self._table(self._models[role])[numbers]
            return said.transpose(2, 1, 0)

    def _number(self, request: Request) -> int:
        return self._numbers.setdefault(request, len(self._numbers))

    def _renumbered(self, old: _Numbers, rows: _Numbers, pairs: PreferenceSet) -> _Numbers:
        """The numbers of `pairs`, taken from `old` where `rows` says so (-1: a new pair)."""
        numbers = np.empty((len(rows), 2), np.int64)
        known = rows >= 0
        numbers[known] = old[rows[known]]
        for row in np.flatnonzero(~known).tolist():
            numbers[row] = [self._number(request) for request in requests_of(pairs.pairs[row])]
        return numbers

    def _table(self, model: str) -> _Floats:
        """A model's table (logp, tokens, truncated, empty), with a row for every answer."""
        table = self._heard.get(model, np.zeros((0, 4)))
        if len(table) < len(self._numbers):
            room = np.full((2 * len(self._numbers) - len(table), 4), np.nan)
            table = np.concatenate([table, room])
        self._heard[model] = table
        return table


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

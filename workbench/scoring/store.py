"""Scores by content: what a model said once about a text is never asked again.

The key holds all that a score depends on (model, template, length, dtype, prompt, answer) and
nothing else: no beta, label or group. A store that cannot write keeps working in memory and says
so in `problem`.
"""

import hashlib
import json
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from workbench.data.pairs import text_to_json
from workbench.scoring.logprobs import (
    IsCancelled,
    OnPartial,
    OnProgress,
    Request,
    Scorer,
    SequenceScore,
)

SCORING_VERSION = 1
"""Part of every key; to be raised when the meaning of a score changes."""
MEMORY_ITEMS = 200_000
_SQL_VARIABLES = 500
_HEADER = np.dtype([("tokens", "<i4"), ("truncated", "u1"), ("empty", "u1")])


class ScoreStore:
    """A cache of scores in a file and in memory; safe to use from any thread.

    Args:
        path: SQLite file, made where missing; None keeps everything in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.problem: str | None = None
        self._lock = threading.RLock()
        self._memory: OrderedDict[bytes, SequenceScore] = OrderedDict()
        self._keys: dict[tuple[bytes, Request], bytes] = {}
        self._path = path
        self._database = self._open(path) if path is not None else None

    def lookup(self, scorer: Scorer, requests: Sequence[Request]) -> dict[Request, SequenceScore]:
        """The requests whose scores are known, without asking the model."""
        with self._lock:
            who = scorer_key(scorer)
            keys = {request: self._key(who, request) for request in requests}
            found = self._read([key for key in keys.values() if key not in self._memory])
            for key in keys.values():
                if key in self._memory:
                    self._memory.move_to_end(key)
                    found[key] = self._memory[key]
            # Only now may anything be forgotten: a set larger than the memory is still answered.
            for key, score in found.items():
                self._remember(key, score)
            return {request: found[key] for request, key in keys.items() if key in found}

    def keep(self, scorer: Scorer, scores: dict[Request, SequenceScore]) -> None:
        """Remember scores; on the disk when this returns, unless `problem` says otherwise."""
        with self._lock:
            who = scorer_key(scorer)
            rows = [(self._key(who, request), score) for request, score in scores.items()]
            for key, score in rows:
                self._remember(key, score)
            with self._guarded() as database:
                if database is not None:
                    packed = [(key, pack(score)) for key, score in rows]
                    with database:
                        database.executemany("INSERT OR REPLACE INTO score VALUES (?, ?)", packed)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, SequenceScore]:
        """What the file knows of some keys; damaged rows count as unknown."""
        found: dict[bytes, SequenceScore] = {}
        for start in range(0, len(keys), _SQL_VARIABLES):
            some = keys[start : start + _SQL_VARIABLES]
            marks = ",".join("?" * len(some))
            with self._guarded() as database:
                if database is None:
                    break
                query = f"SELECT key, value FROM score WHERE key IN ({marks})"
                scores = ((key, unpack(value)) for key, value in database.execute(query, some))
                found.update((key, score) for key, score in scores if score is not None)
        return found

    def _remember(self, key: bytes, score: SequenceScore) -> None:
        self._memory[key] = score
        while len(self._memory) > MEMORY_ITEMS:
            self._memory.popitem(last=False)

    def _key(self, who: bytes, request: Request) -> bytes:
        """The request's key; kept, because hashing 10,000 long texts again would be felt."""
        key = self._keys.get((who, request))
        if key is None:
            if len(self._keys) > 4 * MEMORY_ITEMS:
                self._keys.clear()
            key = self._keys[who, request] = score_key(who, request)
        return key

    def _open(self, path: Path) -> sqlite3.Connection | None:
        database: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(path, check_same_thread=False, timeout=10)
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            database.execute("CREATE TABLE IF NOT EXISTS score (key BLOB PRIMARY KEY, value BLOB)")
        except (sqlite3.Error, OSError) as error:
            self._complain(error)
            if database is not None:
                database.close()
            return None
        return database

    @contextmanager
    def _guarded(self) -> Iterator[sqlite3.Connection | None]:
        """The database, or None; a failure is noted and never stops the scoring."""
        try:
            yield self._database
        except sqlite3.Error as error:
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        self.problem = (
            f"Scores are kept in memory only: {self._path} cannot be used ({error}). "
            "Free some space, remove the file if it is damaged, or set WORKBENCH_CACHE."
        )


def fetch_scores(
    store: ScoreStore,
    scorer: Scorer,
    requests: Sequence[Request],
    *,
    on_progress: OnProgress | None = None,
    on_partial: OnPartial | None = None,
    cancelled: IsCancelled | None = None,
) -> list[SequenceScore]:
    """Scores in the order of the requests; only those not in the store reach the model, once each.

    `on_partial` is called with (index, score) as they are known, hits first; `on_progress`
    counts the answers that the model has to score.

    Raises:
        Cancelled: asked to stop; the batches already scored are in the store.
    """
    known = store.lookup(scorer, requests)
    places: dict[Request, list[int]] = {}
    for index, request in enumerate(requests):
        places.setdefault(request, []).append(index)

    def tell(scores: dict[Request, SequenceScore]) -> None:
        if on_partial is not None and scores:
            on_partial([(i, score) for r, score in scores.items() for i in places[r]])

    tell(known)
    missing = [request for request in places if request not in known]
    if missing:

        def keep(part: list[tuple[int, SequenceScore]]) -> None:
            fresh = {missing[i]: score for i, score in part}
            store.keep(scorer, fresh)
            known.update(fresh)
            tell(fresh)

        scorer.score(missing, on_progress=on_progress, on_partial=keep, cancelled=cancelled)
    return [known[request] for request in requests]


def scorer_key(scorer: Scorer) -> bytes:
    """What of a scorer its scores depend on."""
    parts = [
        SCORING_VERSION,
        scorer.digest,
        scorer.template_digest,
        scorer.max_length,
        scorer.dtype,
    ]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=20).digest()


def score_key(who: bytes, request: Request) -> bytes:
    """The store's key of one answer under one scorer."""
    texts = json.dumps([text_to_json(request.prompt), text_to_json(request.response)])
    return hashlib.blake2b(who + texts.encode(), digest_size=20).digest()


def pack(score: SequenceScore) -> bytes:
    """A score as bytes: count, flags, ids, log-probabilities, all little-endian."""
    head = np.array((score.n_tokens, score.truncated, score.empty), dtype=_HEADER)
    ids, logps = score.token_ids.astype("<i4"), score.token_logps.astype("<f4")
    return head.tobytes() + ids.tobytes() + logps.tobytes()


def unpack(value: object) -> SequenceScore | None:
    """Bytes as a score; None when they are damaged, which means: score again."""
    if not isinstance(value, bytes) or len(value) < _HEADER.itemsize:
        return None
    head = np.frombuffer(value, _HEADER, count=1)[0]
    body, n = value[_HEADER.itemsize :], int(head["tokens"])
    if n < 0 or len(body) != 8 * n or head["truncated"] > 1 or head["empty"] > 1:
        return None
    ids = np.frombuffer(body, "<i4", count=n)
    logps = np.frombuffer(body, "<f4", offset=4 * n)
    if not np.isfinite(logps).all():
        return None
    return SequenceScore(ids, logps, bool(head["truncated"]), bool(head["empty"]))

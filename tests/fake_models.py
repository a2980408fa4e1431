"""Fake models that count what they are asked, and sessions on them."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.data.store import PairStore
from workbench.engine.jobs import JobRunner
from workbench.engine.pool import ModelPool
from workbench.engine.session import Hub, Session
from workbench.errors import Cancelled, ModelError
from workbench.scoring.logprobs import Progress, Request, SequenceScore
from workbench.scoring.store import ScoreStore

# A busy machine must not fail a property by its speed.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

WAIT = 20.0
BATCH = 4


class FakeScorer:
    """Gives made-up log-probabilities that depend on model, prompt and answer alone."""

    def __init__(self, name: str) -> None:
        self.digest = self.template_digest = name
        self.max_length = 64
        self.dtype = "float32"
        self.asked: list[Request] = []
        self.gate: threading.Semaphore | None = None

    def score(
        self,
        requests: Sequence[Request],
        *,
        on_progress: Any = None,
        on_partial: Any = None,
        cancelled: Any = None,
    ) -> list[SequenceScore]:
        found = []
        for start in range(0, len(requests), BATCH):
            if self.gate is not None:
                self.gate.acquire(timeout=WAIT)
            if cancelled is not None and cancelled():
                raise Cancelled("cancelled")
            batch = requests[start : start + BATCH]
            self.asked += batch
            scores = [_made_up(self.digest, request) for request in batch]
            found += scores
            if on_partial is not None:
                on_partial(list(enumerate(scores, start)))
            if on_progress is not None:
                on_progress(Progress(len(found), len(requests), 0.0))
        return found


def _made_up(model: str, request: Request) -> SequenceScore:
    """One token a word; "NAN" as an answer gives NaN, "LONG" a truncated score."""
    text = str(request.response)
    seed = hashlib.blake2b(f"{model}|{request.prompt}|{text}".encode(), digest_size=4).digest()
    rng = np.random.default_rng(int.from_bytes(seed, "big"))
    n = max(len(text.split()), 1)
    logps = np.float32(-3) * rng.random(n, dtype=np.float32)
    if text == "NAN":
        logps[0] = np.nan
    return SequenceScore(np.arange(n, dtype=np.int32), logps, text == "LONG", not text)


class Models:
    """The models of a test by name; those in `broken` cannot be loaded."""

    def __init__(self) -> None:
        self.fakes: dict[str, FakeScorer] = {}
        self.broken: set[str] = set()

    def __getitem__(self, name: str) -> FakeScorer:
        return self.fakes.setdefault(name, FakeScorer(name))

    def load(self, name: str, progress: Any = None, cancelled: Any = None) -> FakeScorer:
        if name in self.broken:
            raise ModelError(f"{name} cannot be fetched; choose another model.")
        return self[name]

    def counts(self) -> dict[str, int]:
        """Sequences scored so far, by model."""
        return {name: len(fake.asked) for name, fake in self.fakes.items() if fake.asked}

    def release(self) -> None:
        """Let go whatever waits at a gate, so that the worker can end."""
        for fake in self.fakes.values():
            if fake.gate is not None:
                fake.gate.release(10_000)


def some_pairs(n: int = 8, shared: int = 2) -> PreferenceSet:
    """Pairs, `shared` of them to a prompt, with attributes of all three kinds."""
    return PreferenceSet(
        "made up",
        [
            PreferencePair(
                pair_id=f"p{i}",
                prompt=f"question {i // shared}",
                chosen=f"a good answer number {i}",
                rejected=f"bad answer {i}",
                alpha=(i % 10 + 0.5) / 10.5,
                chosen_score=float(i % 4),
                rejected_score=1.0,
                attributes={"age": 20 + i, "gender": "fm"[i % 2], "race": "abc"[i % 3]},
            )
            for i in range(n)
        ],
    )


def settle(session: Session) -> Session:
    """Wait until the session's scoring has ended."""
    job = session.hub.runner.newest(f"{session.session_id}/scores")
    assert job is None or job.wait(WAIT)
    return session


@pytest.fixture
def models() -> Models:
    return Models()


@pytest.fixture
def hub(models: Models) -> Iterator[Hub]:
    hub = Hub(ScoreStore(), ModelPool(models.load), JobRunner())
    yield hub
    models.release()
    hub.close()


@pytest.fixture
def start(hub: Hub) -> Callable[..., Session]:
    """Start a session, by default on eight pairs and scored to the end."""
    names = iter(range(1000))

    def make(
        pairs: PreferenceSet | None = None,
        policy: str = "policy",
        reference: str = "reference",
        wait: bool = True,
    ) -> Session:
        store = PairStore.in_memory(some_pairs() if pairs is None else pairs)
        session = Session(f"session{next(names):02}", store, hub, policy, reference)
        session.score()
        return settle(session) if wait else session

    return make


@pytest.fixture
def pairs_of() -> Callable[..., PreferenceSet]:
    return some_pairs


@pytest.fixture
def settled() -> Callable[[Session], Session]:
    return settle


@pytest.fixture
def made_up() -> Callable[[str, Request], SequenceScore]:
    return _made_up

"""Slow questions asked of the embedded default model; superseding and failing: see the session."""

from collections.abc import Callable
from typing import Any

import pytest

from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.data.store import PairStore
from workbench.engine import questions
from workbench.engine.jobs import JobRunner
from workbench.engine.pool import ModelPool
from workbench.engine.session import Hub, Session
from workbench.scoring.store import ScoreStore

pytestmark = pytest.mark.default_model


def answered(session: Session, kind: str, ask: Callable[[], Any]) -> Any:
    assert ask() is None
    job = session.progress(kind)
    assert job is not None
    assert job.wait(300)
    return ask()


def test_the_did_of_each_token_belongs_to_the_tokens_that_were_scored() -> None:
    pair = PreferencePair(
        pair_id="a", prompt="What is two and two?", chosen="Four.", rejected="Five, I think."
    )
    hub = Hub(ScoreStore(), ModelPool(), JobRunner())
    store = PairStore.in_memory(PreferenceSet("one", [pair]))
    session = Session("session0", store, hub, "default", "default")
    job = session.score()
    assert job is not None
    assert job.wait(300)
    assert job.error is None
    scores = session.snapshot().scores
    did = answered(session, "tokens", lambda: questions.token_did(session, 0))
    assert [len(did.chosen), len(did.rejected)] == [int(scores.n_chosen), int(scores.n_rejected)]
    # Policy and reference are one model: the differential information is uniform, log V - H = 0.
    assert did.chosen == pytest.approx([0.0] * len(did.chosen), abs=1e-6)
    assert 0 < did.coverage <= 1
    hub.close()

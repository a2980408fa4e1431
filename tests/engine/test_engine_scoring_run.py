import threading
from collections.abc import Callable
from typing import Any

import pytest
from fake_models import WAIT, FakeScorer

from workbench.data.edits import SetField
from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.engine import scoring_run
from workbench.engine.scoring_run import CHUNK, CHUNK_CHARS, URGENT, _chunks
from workbench.engine.session import Hub, Session
from workbench.scoring.logprobs import Request

Start = Callable[..., Session]
Settled = Callable[[Session], Session]


def sheet(name: str, n: int) -> PreferenceSet:
    """Pairs that no other session has."""
    return PreferenceSet(
        name,
        [
            PreferencePair(
                pair_id=f"p{i}", prompt=f"{name} {i}", chosen=f"yes {i}", rejected=f"no {i}"
            )
            for i in range(n)
        ],
    )


def pair_of(prompt: str, answer: str) -> PreferencePair:
    return PreferencePair(pair_id="p", prompt=prompt, chosen=answer, rejected=answer)


class Watched(FakeScorer):
    """Keeps the passes it is asked for, and holds each until the gate opens."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.passes: list[list[Request]] = []

    def score(self, requests: Any, **options: Any) -> Any:
        self.passes.append(list(requests))
        return super().score(requests, **options)


@pytest.fixture
def watched(models: Any) -> dict[str, Watched]:
    models.fakes.update({name: Watched(name) for name in ("policy", "reference")})
    return models.fakes  # type: ignore[no-any-return]


@pytest.fixture
def closed(hub: Hub) -> Any:
    """Holds the worker until it is called."""
    gate = threading.Event()
    hub.runner.submit("gate", "gate", lambda job: gate.wait(WAIT), priority=0)
    yield gate.set
    gate.set()


def edit(session: Session, pair_id: str, text: str) -> None:
    session.apply([SetField(pair_id, "chosen", text)], "edit")


def responses(scorer: FakeScorer) -> list[str]:
    return [str(request.response) for request in scorer.asked]


def edit_beside_a_long_set(
    start: Start, watched: dict[str, Watched], settled: Settled
) -> tuple[int, int]:
    """Answers scored before another session's edit, after it was made; and those of the set."""
    small = start(sheet("small", 2))
    gates = [watched[name] for name in ("policy", "reference")]
    for scorer in gates:
        scorer.gate = threading.Semaphore(0)
    long = start(sheet("long", 200), wait=False)
    watched["reference"].gate.release()  # type: ignore[union-attr]
    while not any("long" in str(request.prompt) for request in watched["reference"].asked):
        threading.Event().wait(0.001)
    edit(small, "p0", "an edit")
    before = len(watched["reference"].asked)
    for scorer in gates:
        scorer.gate.release(10_000)  # type: ignore[union-attr]
    settled(small), settled(long)
    return responses(watched["reference"]).index("an edit") - before, 2 * 200


def test_an_edit_waits_for_the_running_chunk_of_another_sessions_set_at_most(
    start: Start, watched: dict[str, Watched], settled: Settled
) -> None:
    waited, total = edit_beside_a_long_set(start, watched, settled)
    assert waited <= 2 * CHUNK
    assert waited < total / 4


def test_a_run_that_never_gives_its_turn_is_caught_by_that_count(
    start: Start, watched: dict[str, Watched], settled: Settled, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = scoring_run.ScoringRun.run

    def greedy(self: Any, first: Any) -> None:
        for _ in plain(self, first):
            pass

    monkeypatch.setattr(scoring_run.ScoringRun, "run", greedy)
    waited, _ = edit_beside_a_long_set(start, watched, settled)
    assert waited > 2 * CHUNK


def test_sets_of_two_sessions_are_scored_in_turn(
    start: Start, watched: dict[str, Watched], settled: Settled, closed: Any
) -> None:
    first, second = (start(sheet(name, 64), wait=False) for name in ("first", "second"))
    closed()
    settled(first), settled(second)
    owners = [str(p[0].prompt).split()[0] for p in watched["reference"].passes]
    assert owners[:6] == ["first", "second"] * 3


def test_edits_of_three_sessions_under_the_same_models_share_one_pass_a_model(
    start: Start, watched: dict[str, Watched], settled: Settled, hub: Hub
) -> None:
    sessions = [start(sheet(name, 2)) for name in ("a", "b", "c")]
    gate = threading.Event()
    hub.runner.submit("gate", "gate", lambda job: gate.wait(WAIT), priority=0)
    passes = {name: len(scorer.passes) for name, scorer in watched.items()}
    for session in sessions:
        edit(session, "p1", f"by {session.session_id}")
    gate.set()
    for session in sessions:
        settled(session)
        assert not session.board.unscored(session.store.pairs())
    asked = [f"by {session.session_id}" for session in sessions]
    for name, scorer in watched.items():
        assert len(scorer.passes) == passes[name] + 1
        assert [str(request.response) for request in scorer.passes[-1]] == asked


def test_the_same_edit_by_many_is_scored_once(
    start: Start, watched: dict[str, Watched], settled: Settled, closed: Any
) -> None:
    sessions = [start(sheet("one sheet", 8), wait=False) for _ in range(12)]
    closed()
    for session in sessions:
        settled(session)
        edit(session, "p3", "what everybody thinks of")
    for session in sessions:
        settled(session)
        assert not session.board.unscored(session.store.pairs())
    assert {name: len(scorer.asked) for name, scorer in watched.items()} == {
        "policy": 17,
        "reference": 17,
    }


def test_who_gives_up_does_not_stop_a_pass_that_others_wait_for(
    start: Start, watched: dict[str, Watched], settled: Settled, hub: Hub
) -> None:
    first, second = start(sheet("a", 2)), start(sheet("b", 2))
    watched["reference"].gate = threading.Semaphore(0)
    gate = threading.Event()
    hub.runner.submit("gate", "gate", lambda job: gate.wait(WAIT), priority=0)
    edit(first, "p0", "never mind")
    edit(second, "p0", "I wait")
    gate.set()
    while len(watched["reference"].passes) < 3:
        threading.Event().wait(0.001)
    first.cancel()
    watched["reference"].gate.release(100)
    settled(second)
    assert first.status().state == "cancelled"
    assert second.status().state == "idle"
    assert responses(watched["reference"]).count("I wait") == 1


def test_a_text_that_cannot_be_scored_fails_in_its_own_session_alone(
    start: Start, watched: dict[str, Watched], settled: Settled, hub: Hub
) -> None:
    first, second = start(sheet("a", 2)), start(sheet("b", 2))
    plain = watched["reference"].score

    def picky(requests: Any, **options: Any) -> Any:
        if any(request.response == "poison" for request in requests):
            raise ValueError("this text cannot be scored")
        return plain(requests, **options)

    watched["reference"].score = picky  # type: ignore[method-assign]
    gate = threading.Event()
    hub.runner.submit("gate", "gate", lambda job: gate.wait(WAIT), priority=0)
    edit(first, "p0", "harmless")
    edit(second, "p0", "poison")
    gate.set()
    settled(first), settled(second)
    assert first.status().state == "idle"
    assert "cannot be scored" in second.status().error


def test_edits_are_answered_in_the_order_of_their_arrival(
    start: Start, watched: dict[str, Watched], settled: Settled, hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(scoring_run, "TOGETHER", 0)
    sessions = [start(sheet(name, 4)) for name in "abcd"]
    gate = threading.Event()
    hub.runner.submit("gate", "gate", lambda job: gate.wait(WAIT), priority=0)
    before = len(watched["policy"].asked)
    for session in sessions:
        edit(session, "p0", f"first of {session.session_id}")
    edit(sessions[0], "p1", "second of the first")  # keeps the place of what it supersedes
    gate.set()
    for session in sessions:
        settled(session)
    found = [r for r in responses(watched["policy"])[before:] if "first" in r]
    assert found[0].endswith(sessions[0].session_id) or found[0] == "second of the first"
    assert [r for r in found if r.startswith("first of")] == [
        f"first of {session.session_id}" for session in sessions
    ]


def test_a_scoring_job_waits_among_the_urgent_only_while_edits_wait(
    start: Start, hub: Hub, settled: Settled
) -> None:
    session = start(sheet("a", 40))
    gate = threading.Event()
    hub.runner.submit("gate", "gate", lambda job: gate.wait(WAIT), priority=0)
    edit(session, "p0", "edited")
    job = hub.runner.newest(f"{session.session_id}/scores")
    assert job is not None
    assert job.priority == URGENT
    gate.set()
    settled(session)
    assert job.priority > URGENT
    assert not hub.waiting.others(start(sheet("b", 1)))


def test_chunks_hold_every_pair_once_in_order_and_keep_to_their_size() -> None:
    pairs = sheet("x", 90).pairs
    chunks = _chunks(pairs)
    assert [pair for chunk in chunks for pair in chunk] == list(pairs)
    assert max(map(len, chunks)) == CHUNK
    long = [pair_of("q", "a" * 3 * CHUNK_CHARS), *pairs[:3]]
    assert list(map(len, _chunks(long))) == [1, 3]
    assert list(map(len, _chunks([pair_of("", "")]))) == [1]

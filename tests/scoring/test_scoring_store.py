"""The score store: each text once per model, durable, and never in the way."""

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.data.pairs import Message
from workbench.errors import Cancelled
from workbench.scoring import store as store_module
from workbench.scoring.logprobs import Request, SequenceScore
from workbench.scoring.store import ScoreStore, fetch_scores, pack, score_key, scorer_key, unpack

FetchScores = Callable[..., list[SequenceScore]]


class Counting:
    """A scorer that gives each text a made-up score and remembers what it was asked."""

    template_digest = "template"

    def __init__(self, digest: str = "fake", max_length: int = 64, dtype: str = "float32") -> None:
        self.digest, self.max_length, self.dtype = digest, max_length, dtype
        self.asked: list[Request] = []

    def score(
        self,
        requests: Sequence[Request],
        *,
        on_progress: Any = None,
        on_partial: Any = None,
        cancelled: Any = None,
    ) -> list[SequenceScore]:
        found = []
        for index, request in enumerate(requests):
            if cancelled is not None and cancelled():
                raise Cancelled("stop")
            self.asked.append(request)
            found.append(made_up(request))
            if on_partial is not None:
                on_partial([(index, found[-1])])
        return found


def made_up(request: Request) -> SequenceScore:
    ids = np.frombuffer(str(request.response).encode(), np.uint8).astype(np.int32)
    return SequenceScore(ids, (-ids / 100).astype(np.float32), False, not request.response)


def some(n: int) -> list[Request]:
    return [Request(f"prompt {i // 2}", f"answer {i}") for i in range(n)]


def same(found: Sequence[SequenceScore], requests: Sequence[Request]) -> None:
    assert len(found) == len(requests)
    for score, request in zip(found, requests, strict=True):
        np.testing.assert_array_equal(score.token_ids, made_up(request).token_ids)
        np.testing.assert_array_equal(score.token_logps, made_up(request).token_logps)
        assert score.empty is (not request.response)


def check_counts(fetch: FetchScores) -> None:
    """One edit scores one text; equal texts score once; nothing new scores nothing."""
    store, scorer, requests = ScoreStore(), Counting(), some(6)
    same(fetch(store, scorer, [*requests, *requests]), [*requests, *requests])
    assert len(scorer.asked) == 6
    scorer.asked.clear()
    fetch(store, scorer, requests)
    assert scorer.asked == []
    requests[3] = Request(requests[3].prompt, "edited")
    same(fetch(store, scorer, requests), requests)
    assert scorer.asked == [requests[3]]


def test_only_what_is_new_is_scored() -> None:
    check_counts(fetch_scores)


def test_a_fetch_that_forgets_fails_the_same_check() -> None:
    def forgetful(store: ScoreStore, scorer: Any, requests: list[Request]) -> list[SequenceScore]:
        return scorer.score(requests)  # type: ignore[no-any-return]

    with pytest.raises(AssertionError):
        check_counts(forgetful)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["", "x", "yy"])), max_size=12))
def test_order_and_repeats_do_not_matter(rows: list[tuple[str, str]]) -> None:
    requests, scorer = [Request(*row) for row in rows], Counting()
    partial: dict[int, SequenceScore] = {}
    found = fetch_scores(ScoreStore(), scorer, requests, on_partial=partial.update)
    same(found, requests)
    same([partial[i] for i in range(len(rows))], requests)
    assert len(scorer.asked) == len(set(requests))


def test_hits_are_told_first() -> None:
    store, scorer, requests = ScoreStore(), Counting(), some(4)
    fetch_scores(store, scorer, requests[2:])
    told: list[list[int]] = []
    fetch_scores(store, scorer, requests, on_partial=lambda part: told.append([i for i, _ in part]))
    assert told == [[2, 3], [0], [1]]


def test_all_that_a_score_depends_on_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request("p", "r")
    scorers = [Counting(), Counting("other"), Counting(max_length=65), Counting(dtype="bfloat16")]
    templated = Counting()
    templated.template_digest = "another"
    keys = {scorer_key(scorer) for scorer in [*scorers, templated]}
    monkeypatch.setattr(store_module, "SCORING_VERSION", 999)
    keys.add(scorer_key(Counting()))
    assert len(keys) == 6
    who = scorer_key(Counting())
    chat = (Message(role="user", content="p"),)
    others = [Request("p", "r "), Request("pr", ""), Request(chat, "r"), Request("r", "p")]
    assert len({score_key(who, each) for each in [request, *others]}) == 5
    assert score_key(who, request) == score_key(who, Request("p", "r"))


def test_scores_survive_a_restart(tmp_path: Path) -> None:
    path, requests = tmp_path / "deep" / "scores.sqlite", [*some(700), Request("p", "")]
    first = ScoreStore(path)
    fetch_scores(first, Counting(), requests)
    first.close()
    first.close()
    second, scorer = ScoreStore(path), Counting()
    same(fetch_scores(second, scorer, requests), requests)
    assert scorer.asked == []
    assert second.problem is None
    fetch_scores(second, Counting("other model"), requests[:1])
    second.close()


def test_the_least_recently_used_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MEMORY_ITEMS", 2)
    store, scorer, (a, b, c) = ScoreStore(), Counting(), some(3)
    fetch_scores(store, scorer, [a, b])
    fetch_scores(store, scorer, [a])
    fetch_scores(store, scorer, [c])
    assert list(store.lookup(scorer, [a, b, c])) == [a, c]


def test_a_set_larger_than_the_memory_is_still_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MEMORY_ITEMS", 3)
    store, scorer, requests = ScoreStore(tmp_path / "s.sqlite"), Counting(), some(20)
    fetch_scores(store, scorer, requests)
    same(fetch_scores(store, scorer, requests), requests)
    assert len(scorer.asked) == 20
    store.close()


def test_cancel_keeps_what_was_scored(tmp_path: Path) -> None:
    store, scorer, requests = ScoreStore(tmp_path / "s.sqlite"), Counting(), some(5)
    with pytest.raises(Cancelled):
        fetch_scores(store, scorer, requests, cancelled=lambda: len(scorer.asked) == 3)
    store.close()
    again, second = ScoreStore(tmp_path / "s.sqlite"), Counting()
    fetch_scores(again, second, requests)
    assert second.asked == requests[3:]
    again.close()


CHILD = """
import sys, time
import numpy as np
from pathlib import Path
from workbench.scoring.logprobs import Request, SequenceScore
from workbench.scoring.store import ScoreStore, fetch_scores
class Slow:
    digest, template_digest, max_length, dtype = "fake", "template", 64, "float32"
    def score(self, requests, *, on_progress=None, on_partial=None, cancelled=None):
        for i, r in enumerate(requests):
            ids = np.frombuffer(r.response.encode(), np.uint8).astype(np.int32)
            on_partial([(i, SequenceScore(ids, (-ids / 100).astype(np.float32), False, False))])
            print(i, flush=True)
            if i == 2:
                time.sleep(60)
requests = [Request(f"prompt {i // 2}", f"answer {i}") for i in range(6)]
fetch_scores(ScoreStore(Path(sys.argv[1])), Slow(), requests)
"""


def test_kill_9_keeps_the_finished_batches(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child.stdout:
        assert [child.stdout.readline().strip() for _ in range(3)] == ["0", "1", "2"]
        child.send_signal(signal.SIGKILL)
        child.wait(10)
    store, scorer = ScoreStore(path), Counting()
    same(fetch_scores(store, scorer, some(6)), some(6))
    assert scorer.asked == some(6)[3:]
    store.close()


def test_a_folder_that_cannot_be_made_leaves_the_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store, scorer = ScoreStore(tmp_path / "file" / "s.sqlite"), Counting()
    same(fetch_scores(store, scorer, some(3)), some(3))
    fetch_scores(store, scorer, some(3))
    assert len(scorer.asked) == 3
    assert store.problem is not None
    assert "WORKBENCH_CACHE" in store.problem


def test_a_file_that_is_no_database_leaves_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    path.write_bytes(b"this is no database at all" * 100)
    store, scorer = ScoreStore(path), Counting()
    same(fetch_scores(store, scorer, some(3)), some(3))
    assert store.problem is not None
    assert "not a database" in store.problem
    assert path.read_bytes().startswith(b"this is no database")


def test_a_full_disk_leaves_the_memory(tmp_path: Path) -> None:
    store, scorer = ScoreStore(tmp_path / "s.sqlite"), Counting()
    assert store._database is not None
    pages = store._database.execute("PRAGMA page_count").fetchone()[0]
    store._database.execute(f"PRAGMA max_page_count={pages}")
    big = [Request("p", f"{i}" * 9000) for i in range(3)]
    same(fetch_scores(store, scorer, big), big)
    same(fetch_scores(store, scorer, big), big)
    assert len(scorer.asked) == 3
    assert store.problem is not None
    assert "full" in store.problem
    store.close()


def test_a_table_that_vanishes_is_noticed_on_reading(tmp_path: Path) -> None:
    store = ScoreStore(tmp_path / "s.sqlite")
    assert store._database is not None
    store._database.execute("DROP TABLE score")
    same(fetch_scores(store, Counting(), some(2)), some(2))
    assert store.problem is not None
    store.close()


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 40, "text", None, 7])
def test_a_damaged_blob_is_scored_again(tmp_path: Path, damage: object) -> None:
    path, requests = tmp_path / "s.sqlite", some(2)
    store = ScoreStore(path)
    fetch_scores(store, Counting(), requests)
    store.close()
    with sqlite3.connect(path) as database:
        key = score_key(scorer_key(Counting()), requests[0])
        database.execute("UPDATE score SET value = ? WHERE key = ?", (damage, key))
    database.close()
    again, scorer = ScoreStore(path), Counting()
    same(fetch_scores(again, scorer, requests), requests)
    assert scorer.asked == requests[:1]
    again.close()


@given(st.lists(st.floats(-1e6, 0, width=32), max_size=20), st.booleans(), st.booleans())
def test_packing_round_trips(values: list[float], truncated: bool, empty: bool) -> None:
    ids = np.arange(len(values), dtype=np.int32)
    score = SequenceScore(ids, np.array(values, np.float32), truncated, empty)
    back = unpack(pack(score))
    assert back is not None
    np.testing.assert_array_equal(back.token_ids, ids)
    np.testing.assert_array_equal(back.token_logps, score.token_logps)
    assert (back.truncated, back.empty) == (truncated, empty)
    assert unpack(pack(score)[:-1]) is None


def test_a_score_that_is_no_number_is_not_believed() -> None:
    bad = SequenceScore(np.zeros(1, np.int32), np.array([np.nan], np.float32), False, False)
    assert unpack(pack(bad)) is None


def test_threads_share_a_store(tmp_path: Path) -> None:
    store, failures = ScoreStore(tmp_path / "s.sqlite"), list[BaseException]()

    def work(start: int) -> None:
        try:
            for _ in range(5):
                requests = some(40)[start : start + 20]
                same(fetch_scores(store, Counting(), requests), requests)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(0, 20, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.problem is None
    store.close()


def test_known_keys_are_not_hashed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    store, scorer, hashed = ScoreStore(), Counting(), list[Request]()
    original = store_module.score_key

    def counting(who: bytes, request: Request) -> bytes:
        hashed.append(request)
        return original(who, request)

    monkeypatch.setattr(store_module, "score_key", counting)
    fetch_scores(store, scorer, some(50))
    fetch_scores(store, scorer, some(50))
    assert len(hashed) == 50
    monkeypatch.setattr(store_module, "MEMORY_ITEMS", 10)
    fetch_scores(store, scorer, some(60))
    assert len(hashed) >= 60


if __name__ == "__main__":  # how long 10,000 known requests take
    many, known, fake = some(10_000), ScoreStore(), Counting()
    fetch_scores(known, fake, many)
    started = time.perf_counter()
    fetch_scores(known, fake, many)
    print(f"{1000 * (time.perf_counter() - started):.1f} ms")

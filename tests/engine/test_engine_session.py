"""What is scored when, what is shown meanwhile, and that nothing stale ever arrives."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.data import edits
from workbench.data.edits import AddPair, DeletePair, SetField
from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.data.store import PairStore
from workbench.engine import questions
from workbench.engine.jobs import JobRunner
from workbench.engine.live import LiveTables
from workbench.engine.pool import ModelPool
from workbench.engine.session import Hub, Session, edit_target
from workbench.engine.settings import Settings
from workbench.scoring.store import ScoreStore

WAIT = 20.0
Start = Callable[..., Session]
Settled = Callable[[Session], Session]


def numbers(session: Session) -> list[list[float]]:
    """Every score of every pair, NaN as a word so that equal is equal."""
    scores = session.snapshot().scores
    columns = (
        scores.policy_chosen, scores.policy_rejected, scores.reference_chosen,
        scores.reference_rejected, scores.n_chosen, scores.n_rejected,
    )  # fmt: skip
    return [[-1.0 if v != v else v for v in column.tolist()] for column in columns]


def by_id(session: Session, pair_id: str) -> PreferencePair:
    return session.snapshot().pairs[pair_id]


class TestWhatIsScored:
    def test_the_first_pass_scores_both_answers_of_each_pair_once_per_model(
        self, start: Start, models: Any
    ) -> None:
        session = start()
        assert models.counts() == {"policy": 16, "reference": 16}
        assert len(session.snapshot().scores.rows) == 8
        assert session.status().state == "idle"

    def test_answers_that_occur_twice_are_scored_once(self, start: Start, models: Any) -> None:
        pair = PreferencePair(pair_id="a", prompt="q", chosen="x y", rejected="z")
        twins = [pair, pair.with_fields(pair_id="b"), pair.with_fields(pair_id="c", chosen="z")]
        start(PreferenceSet("twins", twins))
        assert models.counts() == {"policy": 2, "reference": 2}

    @pytest.mark.parametrize(("field", "expected"), [("chosen", 1), ("rejected", 1), ("prompt", 2)])
    def test_an_edited_text_scores_only_what_it_made_new(
        self, start: Start, models: Any, settled: Settled, field: str, expected: int
    ) -> None:
        session = start()
        session.apply([SetField("p3", field, "entirely new words")], "edit")
        settled(session)
        assert models.counts() == {"policy": 16 + expected, "reference": 16 + expected}
        assert len(session.snapshot().scores.rows) == 8

    @pytest.mark.parametrize("command", [edits.swap, edits.flip_label])
    def test_swaps_and_flips_score_nothing_and_exchange_the_columns(
        self, start: Start, models: Any, settled: Settled, command: Any
    ) -> None:
        session = start()
        before = numbers(session)
        session.apply(command(*session.snapshot().pairs.pairs), "turn round")
        settled(session)
        after = numbers(session)
        assert models.counts() == {"policy": 16, "reference": 16}
        assert [after[i] for i in (1, 0, 3, 2, 5, 4)] == before

    @pytest.mark.parametrize(
        "change",
        [
            {"beta": 3.0}, {"gamma": 0.5}, {"length_normalised": True}, {"tie_policy": "half"},
            {"share_source": "scores"}, {"share_constant": 0.9}, {"paper_code": True},
            {"outcome": "chosen_reward"}, {"equalise": True}, {"attributes": ("age", "gender")},
        ],
    )  # fmt: skip
    def test_no_setting_scores_anything(
        self, start: Start, models: Any, change: dict[str, Any]
    ) -> None:
        session = start()
        tables = LiveTables(session)
        tables.summary(Settings())
        tables.summary(Settings(**change))
        assert models.counts() == {"policy": 16, "reference": 16}

    def test_labels_attributes_and_raters_score_nothing(
        self, start: Start, models: Any, settled: Settled
    ) -> None:
        session = start()
        session.apply([SetField("p1", "alpha", 0.2)], "raters")
        session.apply([SetField("p1", "attributes.gender", "x")], "attribute")
        session.apply(edits.inject_label_noise(session.snapshot().pairs, 0.5, 0), "noise")
        settled(session)
        assert models.counts() == {"policy": 16, "reference": 16}

    def test_a_duplicate_and_a_deletion_score_nothing(
        self, start: Start, models: Any, settled: Settled
    ) -> None:
        session = start()
        pairs = session.snapshot().pairs
        session.apply(edits.duplicate(pairs["p2"], taken=pairs), "copy")
        session.apply([DeletePair("p5")], "delete")
        settled(session)
        assert models.counts() == {"policy": 16, "reference": 16}
        assert len(session.snapshot().scores.rows) == 8

    def test_one_model_in_both_roles_scores_once(self, start: Start, models: Any) -> None:
        session = start(policy="same", reference="same")
        assert models.counts() == {"same": 16}
        assert torch.equal(
            session.snapshot().scores.policy_chosen, session.snapshot().scores.reference_chosen
        )

    def test_another_policy_scores_with_the_new_model_alone_and_the_old_one_is_not_forgotten(
        self, start: Start, models: Any, settled: Settled
    ) -> None:
        session = start()
        before = numbers(session)
        session.use_models(policy="other")
        settled(session)
        assert models.counts() == {"policy": 16, "reference": 16, "other": 16}
        assert numbers(session)[0] != before[0]
        session.use_models(policy="policy")
        settled(session)
        assert models.counts() == {"policy": 16, "reference": 16, "other": 16}
        assert numbers(session) == before

    def test_two_sessions_share_what_one_of_them_scored(self, start: Start, models: Any) -> None:
        first, second = start(), start()
        assert models.counts() == {"policy": 16, "reference": 16}
        assert numbers(first) == numbers(second)

    def test_scores_outlive_the_process_by_the_store(
        self, tmp_path: Any, models: Any, pairs_of: Any, settled: Settled
    ) -> None:
        for _ in range(2):
            hub = Hub(ScoreStore(tmp_path / "s.sqlite"), ModelPool(models.load), JobRunner())
            session = Session("session", PairStore.in_memory(pairs_of()), hub, "a", "b")
            session.score()
            settled(session)
            assert len(session.snapshot().scores.rows) == 8
            hub.close()
        assert models.counts() == {"a": 16, "b": 16}


class TestUndo:
    def test_undo_and_redo_restore_every_number_exactly_and_score_nothing(
        self, start: Start, models: Any, settled: Settled
    ) -> None:
        session = start()
        tables, live = LiveTables(session), Settings(attributes=("age", "gender"))
        states = [(numbers(session), tables.summary(live))]
        for made in (
            [SetField("p1", "chosen", "something else")],
            [SetField("p1", "prompt", "a new question")],
            edits.flip_label(by_id(session, "p2")),
            [DeletePair("p7")],
            [SetField("p3", "attributes.age", 77)],
        ):
            session.apply(made, "edit")
            settled(session)
            states.append((numbers(session), tables.summary(live)))
        scored = models.counts()
        for state in reversed(states[:-1]):
            assert session.undo()
            settled(session)
            assert (numbers(session), tables.summary(live)) == state
        assert not session.undo()
        for state in states[1:]:
            assert session.redo()
            settled(session)
            assert (numbers(session), tables.summary(live)) == state
        assert not session.redo()
        assert models.counts() == scored

    def test_a_restored_version_finds_its_numbers(
        self, start: Start, models: Any, settled: Settled
    ) -> None:
        session = start()
        before = numbers(session)
        session.store.tag("start")
        session.apply([SetField("p1", "chosen", "other"), DeletePair("p2")], "edit")
        settled(session)
        scored = models.counts()
        session.restore("start")
        settled(session)
        assert (numbers(session), models.counts()) == (before, scored)

    @settings(max_examples=25, deadline=None)
    @given(data=st.data())
    def test_any_run_of_edits_gives_the_columns_of_a_fresh_session(self, data: Any) -> None:
        """The board lays pairs out by what changed; a board that never saw them is the oracle."""
        from workbench.engine.board import ScoreBoard

        texts = st.sampled_from(["one", "two words", "", "three words here"])
        ids = st.sampled_from(["a", "b", "c"])
        step = st.one_of(
            st.builds(SetField, ids, st.sampled_from(["prompt", "chosen", "rejected"]), texts),
            st.builds(DeletePair, ids),
            st.tuples(ids, texts).map(lambda t: AddPair(_pair(t[0], t[1]), None)),
        )
        store = PairStore.in_memory(PreferenceSet("s", [_pair(i, "one") for i in "abc"]))
        board = ScoreBoard("m", "m")
        for edit in data.draw(st.lists(step, max_size=8)):
            try:
                store.apply([edit])
            except Exception:
                continue
            pairs = store.pairs()
            fresh = ScoreBoard("m", "m")
            kept, new = board.answers(pairs), fresh.answers(pairs)
            same = [[a == b for b in kept.ravel()] for a in kept.ravel()]
            assert same == [[a == b for b in new.ravel()] for a in new.ravel()]
            assert board.missing("m", pairs) == fresh.missing("m", pairs)


def _pair(pair_id: str, text: str) -> PreferencePair:
    return PreferencePair(pair_id=pair_id, prompt="q", chosen=text, rejected="no")


class TestFailure:
    def test_a_model_that_cannot_be_loaded_is_a_status_and_another_one_recovers(
        self, start: Start, models: Any, settled: Settled
    ) -> None:
        models.broken.add("bad")
        session = start(policy="bad")
        status = session.status()
        assert (status.state, "bad cannot be fetched" in status.error) == ("failed", True)
        assert len(session.snapshot().scores.rows) == 0
        session.use_models(policy="policy")
        settled(session)
        assert session.status().state == "idle"
        assert len(session.snapshot().scores.rows) == 8

    def test_a_failure_is_over_when_the_models_chosen_next_have_scored_everything_before(
        self, start: Start, models: Any, settled: Settled
    ) -> None:
        session = start()
        models.broken.add("bad")
        session.use_models(policy="bad")
        settled(session)
        assert session.status().state == "failed"
        session.use_models(policy="policy")
        assert session.status().state == "idle"

    def test_an_error_without_words_has_its_name_as_message(
        self, start: Start, models: Any
    ) -> None:
        models["policy"].score = lambda *a, **k: (_ for _ in ()).throw(MemoryError())
        assert start().status().error == "MemoryError"

    def test_a_listener_that_fails_neither_fails_the_edit_nor_keeps_it_from_the_others(
        self, start: Start
    ) -> None:
        session, heard = start(), []
        session.listen(lambda: 1 / 0)  # type: ignore[arg-type]
        session.listen(lambda: heard.append(session.store.revision))
        revision = session.apply([SetField("p1", "alpha", 0.1)], "edit")
        assert revision in heard


class TestProgress:
    def test_cancel_stops_within_one_batch_and_keeps_what_was_scored(
        self, start: Start, models: Any, settled: Settled
    ) -> None:
        gate = models["reference"].gate = threading.Semaphore(0)
        session = start(wait=False)
        gate.release(2)
        _until(lambda: len(models["reference"].asked) == 8)
        session.cancel()
        gate.release(100)
        settled(session)
        assert session.status().state == "cancelled"
        assert models.counts()["reference"] == 8
        assert int(session.snapshot().scores.reference_chosen.isfinite().sum()) == 4
        session.score()
        settled(session)
        assert models.counts() == {"reference": 16, "policy": 16}

    def test_a_newer_job_supersedes_the_older_and_no_answer_is_scored_twice(
        self, start: Start, models: Any, settled: Settled
    ) -> None:
        gate = models["reference"].gate = threading.Semaphore(0)
        session = start(wait=False)
        old = session.hub.runner.newest(f"{session.session_id}/scores")
        gate.release(1)
        _until(lambda: len(models["reference"].asked) == 4)
        session.apply([SetField("p0", "chosen", "superseding words")], "edit")
        gate.release(100)
        settled(session)
        assert old is not None
        assert old.status == "cancelled"
        for name in ("policy", "reference"):
            asked = models[name].asked
            assert len(asked) == len(set(asked))
        assert len(session.snapshot().scores.rows) == 8

    def test_edited_pairs_are_scored_before_all_others_even_across_superseded_jobs(
        self, start: Start, models: Any, settled: Settled
    ) -> None:
        gate = models["reference"].gate = threading.Semaphore(0)
        session = start(wait=False)
        session.apply([SetField("p6", "chosen", "first edit")], "edit")
        session.apply([SetField("p4", "chosen", "second edit")], "edit")
        gate.release(100)
        settled(session)
        asked = [request.response for request in models["policy"].asked]
        assert set(asked[:4]) == {"second edit", "bad answer 4", "first edit", "bad answer 6"}

    def test_deleted_pairs_do_not_take_the_place_of_edited_ones(
        self, start: Start, models: Any, settled: Settled, pairs_of: Any
    ) -> None:
        gate = models["reference"].gate = threading.Semaphore(0)
        session = start(pairs_of(80), wait=False)
        session.apply([DeletePair(f"p{i}") for i in range(60)], "delete")
        session.apply([SetField("p70", "chosen", "edited")], "edit")
        gate.release(1000)
        settled(session)
        assert {r.response for r in models["policy"].asked[:2]} == {"edited", "bad answer 70"}

    def test_progress_and_the_time_left_only_go_one_way(self, start: Start, models: Any) -> None:
        from workbench.engine.scoring_run import ScoringRun

        session = start(wait=False, policy="p", reference="r")
        session.cancel()
        seen: list[tuple[int, int]] = []
        etas: list[float] = []

        class Watched:
            cancelled = staticmethod(lambda: False)
            check = staticmethod(lambda: None)

            @staticmethod
            def report(done: int, total: int, note: str = "", eta: float | None = None) -> None:
                if total:
                    seen.append((done, total))
                    etas.append(-1.0 if eta is None else eta)

        list(ScoringRun(session, Watched).run([]))  # type: ignore[arg-type]
        done = [each[0] for each in seen]
        assert done == sorted(done)
        assert {total for _, total in seen} == {seen[-1][0]}
        assert etas[-1] == 0
        assert all(eta >= 0 for eta in etas)

    def test_the_status_counts_answers_and_names_the_work(
        self, start: Start, models: Any, settled: Settled
    ) -> None:
        gate = models["policy"].gate = threading.Semaphore(0)
        session = start(wait=False)
        gate.release(1)
        _until(lambda: session.status().done == 20)
        status = session.status()
        assert (status.state, status.total) == ("working", 32)
        assert status.note.startswith("scoring answers")
        assert status.eta_seconds is not None
        gate.release(100)
        settled(session)
        assert session.status().state == "idle"

    def test_partial_results_show_while_the_rest_is_scored(self, start: Start, models: Any) -> None:
        gate = models["policy"].gate = threading.Semaphore(0)
        session = start(wait=False)
        gate.release(1)
        _until(lambda: len(session.snapshot().scores.rows) == 2)
        assert session.status().state == "working"

    def test_an_edit_undone_before_it_was_scored_leaves_nothing_to_do(
        self, start: Start, models: Any, settled: Settled
    ) -> None:
        session = start()
        gate = models["reference"].gate = threading.Semaphore(0)
        session.apply([SetField("p1", "chosen", "not for long")], "edit")
        session.undo()
        assert session.status().state == "idle"
        gate.release(10)


class TestTwoPages:
    def test_both_pages_see_what_either_edits(self, start: Start) -> None:
        session = start()
        heard: list[str] = []
        stop = session.listen(lambda: heard.append("one"))
        session.listen(lambda: heard.append("two"))
        before = session.version
        session.apply([SetField("p1", "alpha", 0.3)], "edit")
        assert session.version != before
        assert {"one", "two"} <= set(heard)
        stop()
        heard.clear()
        session.undo()
        assert set(heard) == {"two"}

    def test_a_snapshot_is_the_same_object_until_something_changes(self, start: Start) -> None:
        session = start()
        kept = session.snapshot()
        assert session.snapshot() is kept
        session.apply([SetField("p1", "alpha", 0.3)], "edit")
        assert session.snapshot() is not kept
        assert session.snapshot().candidates is kept.candidates

    def test_edits_refused_change_nothing(self, start: Start) -> None:
        session = start()
        before = session.version
        with pytest.raises(Exception, match="no pair 'nobody'"):
            session.apply([SetField("p1", "alpha", 0.3), SetField("nobody", "alpha", 1)], "bad")
        assert session.version == before
        assert by_id(session, "p1").alpha != 0.3

    def test_the_target_of_every_edit_is_its_pair(self) -> None:
        pair = _pair("x", "y")
        targets = [
            edit_target(e) for e in (SetField("x", "alpha", 1), AddPair(pair), DeletePair("x"))
        ]
        assert targets == ["x", "x", "x"]


class TestQuestions:
    def test_a_question_is_answered_once(self, start: Start) -> None:
        session, asked = start(), []
        for _ in range(3):
            session.ask("tokens", ("a", 1), lambda job: asked.append(1) or "known")
            _finish(session, "tokens")
        assert session.ask("tokens", ("a", 1), lambda job: "again") == "known"
        assert len(asked) == 1

    def test_a_newer_question_supersedes_the_older_of_its_kind(self, start: Start) -> None:
        session, started = start(), threading.Event()

        def slow(job: Any) -> str:
            started.set()
            while not job.cancelled():
                threading.Event().wait(0.001)
            return "stale"

        assert session.ask("tokens", "old", slow) is None
        assert started.wait(WAIT)
        assert session.ask("tokens", "new", lambda job: "fresh") is None
        _finish(session, "tokens")
        assert session.ask("tokens", "new", lambda job: "again") == "fresh"
        assert session.ask("tokens", "old", lambda job: "second try") is None

    def test_a_failure_is_the_answer(self, start: Start) -> None:
        session = start()

        def fail(job: Any) -> None:
            raise ValueError("too few pairs")

        session.ask("joint", "key", fail)
        _finish(session, "joint")
        answer = session.ask("joint", "key", fail)
        assert isinstance(answer, ValueError)
        assert str(answer) == "too few pairs"

    def test_token_did_and_attribution_of_a_fake_model_say_why_not(self, start: Start) -> None:
        session = start()
        for kind, ask in (
            ("tokens", lambda: questions.token_did(session, 0)),
            ("attribution", lambda: questions.attribution(session, 0, "integrated_gradients", 4)),  # type: ignore[arg-type]
        ):
            assert ask() is None
            _finish(session, kind)
            assert "scores only" in str(ask())

    def test_the_permutation_test_is_asked_once_and_answered_for_its_settings(
        self, start: Start, models: Any
    ) -> None:
        session = start()
        chosen = Settings(attributes=("age", "gender"))
        table = LiveTables(session).fairness(chosen)

        def ask(settings: Settings = chosen) -> Any:
            return questions.permutation(session, table, settings, 49, 0)

        assert ask() is None
        _finish(session, "permutation")
        answer = ask()
        assert 1 / 50 <= answer.p_value <= 1
        assert ask(chosen.replaced(beta=5.0)) is answer
        assert ask(chosen.replaced(equalise=True)) is None

    def test_a_permutation_test_without_attributes_says_what_is_needed(self, start: Start) -> None:
        session = start()
        table = LiveTables(session).fairness(Settings())
        questions.permutation(session, table, Settings(), 9, 0)
        _finish(session, "permutation")
        answer = questions.permutation(session, table, Settings(), 9, 0)
        assert "at least one attribute" in str(answer)

    def test_a_large_joint_statistic_is_a_job_with_the_same_answer(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session, chosen = start(), Settings(attributes=("age", "gender"))
        at_once = LiveTables(session).joint(chosen)
        monkeypatch.setattr("workbench.engine.live.JOINT_LIVE", 3)
        tables = LiveTables(session)
        assert tables.joint(chosen) is None
        _finish(session, "joint")
        assert str(tables.joint(chosen)) == str(at_once)

    def test_an_edit_does_not_wait_behind_a_slow_question_which_can_be_asked_again(
        self, start: Start, models: Any, settled: Settled
    ) -> None:
        session, started = start(), threading.Event()

        def endless(job: Any) -> None:
            started.set()
            while True:
                job.check()

        session.ask("permutation", "key", endless)
        assert started.wait(WAIT)
        session.apply([SetField("p1", "chosen", "new words")], "edit")
        settled(session)
        assert len(session.snapshot().scores.rows) == 8
        assert session.ask("permutation", "key", lambda job: "answer") is None
        _finish(session, "permutation")
        assert session.ask("permutation", "key", lambda job: "again") == "answer"

    def test_sequence_scores_are_there_when_scored_and_none_before(
        self, start: Start, models: Any
    ) -> None:
        session = start()
        pair = by_id(session, "p1")
        found = session.sequence_scores(pair)
        assert found is not None
        row = session.snapshot().pairs.index("p1")
        assert found["policy"][0].logp == float(session.snapshot().scores.policy_chosen[row])
        assert session.sequence_scores(pair.with_fields(chosen="unheard of")) is None
        assert models.counts() == {"policy": 16, "reference": 16}

    def test_closing_a_session_ends_every_job_of_its(self, start: Start) -> None:
        session, started = start(), threading.Event()

        def endless(job: Any) -> None:
            started.set()
            while True:
                job.check()

        session.ask("joint", "key", endless)
        job = session.progress("joint")
        assert started.wait(WAIT)
        session.close()
        assert job is not None
        assert job.wait(WAIT)
        assert session.progress("joint") is None


class TestFlags:
    def test_truncated_empty_identical_and_not_finite_are_flagged_and_never_zero(
        self, start: Start
    ) -> None:
        texts = {"fine": "some words", "cut": "LONG", "empty": "", "same": "no", "nan": "NAN"}
        pairs = [
            PreferencePair(pair_id=key, prompt="q", chosen=text, rejected="no")
            for key, text in texts.items()
        ]
        session = start(PreferenceSet("flags", pairs))
        snapshot = session.snapshot()
        assert snapshot.flags == {
            "truncated": ["cut"],
            "empty": ["empty"],
            "identical": ["same"],
            "not_finite": ["nan"],
        }
        used = [pairs[row].pair_id for row in snapshot.scores.rows.tolist()]
        assert used == ["fine", "cut", "same"]
        empty = list(texts).index("empty")
        assert snapshot.scores.policy_chosen[empty].isnan()
        assert snapshot.scores.n_chosen[empty] == 0

    def test_an_answer_that_is_not_finite_is_not_scored_for_ever(
        self, start: Start, models: Any, settled: Settled
    ) -> None:
        pair = PreferencePair(pair_id="nan", prompt="q", chosen="NAN", rejected="no")
        session = start(PreferenceSet("nan", [pair]))
        session.apply([SetField("nan", "alpha", 0.5)], "edit")
        settled(session)
        assert models.counts() == {"policy": 2, "reference": 2}


def _finish(session: Session, kind: str) -> None:
    job = session.progress(kind)
    assert job is not None
    assert job.wait(WAIT)


def _until(reached: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(int(WAIT / 0.005)):
        if reached():
            return
        pause.wait(0.005)
    raise AssertionError("it did not happen")

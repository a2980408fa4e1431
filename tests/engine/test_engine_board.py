"""The columns beside the pairs, against what the models said of each text, and planted bugs."""

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from workbench.data import edits
from workbench.data.edits import AddPair, DeletePair, SetField
from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.engine.board import ScoreBoard, by_prompt, requests_of
from workbench.engine.session import Session
from workbench.scoring.logprobs import SequenceScore

Start = Callable[..., Session]


def wrong_rows(session: Session, made_up: Any) -> list[str]:
    """Ids of the pairs whose columns are not what the models say of their own texts."""
    snapshot = session.snapshot()
    found = snapshot.scores
    wrong = []
    for row, pair in enumerate(snapshot.pairs.pairs):
        said = [made_up(m, r) for m in ("policy", "reference") for r in requests_of(pair)]
        expected = [score.logp for score in said] + [said[0].n_tokens, said[1].n_tokens]
        columns = (
            found.policy_chosen, found.policy_rejected, found.reference_chosen,
            found.reference_rejected, found.n_chosen, found.n_rejected,
        )  # fmt: skip
        if [float(column[row]) for column in columns] != expected:
            wrong.append(pair.pair_id)
    return wrong


def edited(start: Start, settled: Any) -> Session:
    """A session after edits of every kind."""
    session = start()
    pairs = session.snapshot().pairs
    new = pairs["p1"].with_fields(pair_id="new", rejected="brand new")
    for made in (
        [SetField("p3", "chosen", "other words"), SetField("p5", "prompt", "another question")],
        edits.swap(pairs["p2"]),
        [DeletePair("p0"), AddPair(new, "p6")],
        edits.duplicate(pairs["p4"], taken=pairs),
    ):
        session.apply(made, "edit")
        settled(session)
        session.snapshot()
    return session


def test_after_any_edits_every_column_is_what_the_models_say_of_the_pairs_own_texts(
    start: Start, settled: Any, made_up: Any
) -> None:
    assert wrong_rows(edited(start, settled), made_up) == []


def test_a_board_that_keeps_old_rows_by_their_place_is_found_out(
    start: Start, settled: Any, made_up: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ScoreBoard._renumbered

    def by_place(self: ScoreBoard, old: Any, rows: Any, pairs: PreferenceSet) -> Any:
        kept = np.minimum(np.arange(len(rows)), len(old) - 1) if len(old) else rows
        return real(self, old, kept, pairs)

    monkeypatch.setattr(ScoreBoard, "_renumbered", by_place)
    assert wrong_rows(edited(start, settled), made_up)


def test_a_board_that_takes_the_roles_for_each_other_is_found_out(
    start: Start, settled: Any, made_up: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ScoreBoard._said
    other = {"policy": "reference", "reference": "policy"}
    monkeypatch.setattr(ScoreBoard, "_said", lambda self, r, p: real(self, other[r], p))  # type: ignore[index]
    assert wrong_rows(edited(start, settled), made_up)


def test_an_answer_is_known_by_prompt_and_text_and_not_by_text_alone() -> None:
    pairs = [
        PreferencePair(pair_id=name, prompt=name, chosen="same", rejected="same") for name in "ab"
    ]
    board = ScoreBoard("m", "m")
    assert board.answers(PreferenceSet("s", pairs)).tolist() == [[0, 0], [1, 1]]
    assert (
        len(board.missing("m", pairs)) == board.count_missing("m", PreferenceSet("s", pairs)) == 2
    )


def test_what_one_model_said_is_not_what_another_says() -> None:
    pair = PreferencePair(pair_id="a", prompt="q", chosen="yes", rejected="no")
    pairs, board = PreferenceSet("s", [pair]), ScoreBoard("one", "two")
    one = SequenceScore(np.zeros(2, np.int32), np.float32([-1, -2]), False, False)
    board.put("one", {requests_of(pair)[0]: one})
    columns = board.columns(pairs)
    assert columns.policy_chosen.item() == -3.0
    assert math.isnan(columns.reference_chosen.item())
    assert (columns.n_chosen.item(), math.isnan(columns.n_rejected.item())) == (2.0, True)
    assert [len(board.missing(model, [pair])) for model in ("one", "two")] == [1, 2]
    assert board.unscored(pairs) == [pair]


def test_nothing_to_take_in_and_nothing_to_lay_out_are_fine() -> None:
    board, nothing = ScoreBoard("m", "m"), PreferenceSet("s", [])
    board.put("m", {})
    assert len(board.columns(nothing).rows) == 0
    assert board.unscored(nothing) == []
    assert all(ids == [] for ids in board.flagged(nothing).values())


def test_pairs_are_scored_edited_first_then_prompt_by_prompt() -> None:
    def pair(name: str, prompt: str) -> PreferencePair:
        return PreferencePair(pair_id=name, prompt=prompt, chosen="a", rejected="b")

    pairs = [pair("1", "x"), pair("2", "y"), pair("3", "x"), pair("4", "z"), pair("5", "y")]
    assert [p.pair_id for p in by_prompt(pairs)] == ["1", "3", "2", "5", "4"]
    assert [p.pair_id for p in by_prompt(pairs, ["4", "gone", "3"])] == ["4", "3", "1", "2", "5"]


def test_two_pages_that_edit_at_once_while_the_worker_scores_end_with_right_columns(
    start: Start, settled: Any, made_up: Any
) -> None:
    session, problems = start(wait=False), []

    def edit(page: int) -> None:
        try:
            for step in range(25):
                made = SetField(f"p{(page + step) % 8}", "chosen", f"page {page} step {step}")
                session.apply([made], "edit")
                if step % 5 == 4:
                    session.undo()
                session.snapshot()
        except Exception as error:
            problems.append(error)

    pages = [threading.Thread(target=edit, args=(page,)) for page in (0, 3)]
    for page in pages:
        page.start()
    for page in pages:
        page.join()
    settled(session)
    assert problems == []
    assert wrong_rows(session, made_up) == []
    assert session.status().state == "idle"

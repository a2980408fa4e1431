from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fake_models import settle, some_pairs

from workbench.app.classroom import INSTRUCTOR, Limits, Roster
from workbench.app.classroom_page import (
    door_html,
    links_html,
    pairs_html,
    people_html,
    spread_html,
)
from workbench.app.classroom_room import (
    Classroom,
    PairRow,
    StudentRow,
    Visit,
    deviations,
    distribution,
)
from workbench.app.classroom_serve import Address, links_csv
from workbench.app.server import ServerOptions
from workbench.app.state import PageState
from workbench.data import edits
from workbench.data.store import PairStore
from workbench.engine.workspace import Workspace
from workbench.errors import DataError

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def room(tmp_path: Path, models: Any) -> Iterator[Classroom]:
    roster = Roster(tmp_path / "roster.json")
    roster.invite(["Anna", "Ben", HOSTILE], most=9)
    workspace = Workspace(tmp_path / "sessions", tmp_path / "s.sqlite", models.load, crowd=True)
    yield Classroom(workspace, roster, some_pairs(), ("policy", "reference"), Limits())
    workspace.close()


def arrive(room: Classroom, name: str) -> Visit:
    session = room.session_of(name)
    session.score()
    visit = Visit(name, PageState(settle(session)))
    room.entered(visit)
    return visit


def row_of(room: Classroom, name: str) -> StudentRow:
    return next(row for row in room.students() if row.name == name)


class TestSessions:
    def test_a_link_opens_the_same_session_each_time(self, room: Classroom) -> None:
        first = room.session_of("Anna")
        assert room.session_of("Anna") is first
        assert room.session_of("Ben") is not first

    def test_a_link_opens_the_set_that_the_student_opened_last(self, room: Classroom) -> None:
        room.session_of("Anna")
        other = room.sessions_of("Anna").create(some_pairs(4), "policy", "reference")
        assert room.session_of("Anna") is other

    def test_a_session_whose_folder_is_gone_is_begun_anew(self, room: Classroom) -> None:
        room.roster.move("Anna", "no-such-session")
        assert len(room.session_of("Anna").store.pairs()) == 8

    def test_an_address_with_anothers_session_is_refused(self, room: Classroom) -> None:
        session = room.session_of("Anna")
        with pytest.raises(DataError, match="another student's"):
            room.session_of("Ben", session.session_id)
        assert room.session_of(INSTRUCTOR, session.session_id) is session


class TestIdle:
    def test_a_session_without_a_page_is_closed_and_comes_back_whole(self, room: Classroom) -> None:
        visit = arrive(room, "Anna")
        session = visit.state.session
        session.apply([edits.SetField("p0", "chosen", "kept")], "edit")
        settle(session)
        assert room.close_idle(0) == 0
        room.left(visit)
        assert room.close_idle(3600) == 0
        assert room.close_idle(0) == 1
        assert not room.workspace.is_open(session.session_id)
        again = room.session_of("Anna")
        assert again is not session
        assert again.store.pairs()["p0"].chosen == "kept"

    def test_a_session_that_another_page_shows_stays(self, room: Classroom) -> None:
        first, second = arrive(room, "Anna"), arrive(room, "Anna")
        room.left(first)
        assert room.close_idle(0) == 0
        room.left(second)
        assert room.close_idle(0) == 1

    def test_who_comes_back_in_time_keeps_the_session(self, room: Classroom) -> None:
        visit = arrive(room, "Anna")
        room.left(visit)
        arrive(room, "Anna")
        assert room.close_idle(0) == 0

    def test_nothing_holds_a_page_that_was_left(self, room: Classroom) -> None:
        import gc
        import weakref

        visit = arrive(room, "Anna")
        state = weakref.ref(visit.state)
        room.left(visit)
        del visit
        gc.collect()
        assert state() is None
        assert row_of(room, "Anna").page == "Pairs"


class TestInstructor:
    def test_who_is_where_and_what_they_did_last(self, room: Classroom) -> None:
        visit = arrive(room, "Anna")
        visit.state.session.apply([edits.SetField("p1", "chosen", "x")], "Edit chosen")
        settle(visit.state.session)
        visit.state.page = "Ranking"
        row = row_of(room, "Anna")
        assert (row.here, row.page, row.action, row.edits) == (True, "Ranking", "Edit chosen", 1)
        assert row.when is not None
        assert row.summary is not None
        assert row.summary.scored == 8
        assert row_of(room, "Ben") == StudentRow("Ben")

    def test_a_page_whose_browser_is_gone_is_not_here(self, room: Classroom) -> None:
        visit = arrive(room, "Anna")
        bokeh = type("Session", (), {"connection_count": 0})
        visit.context = type("Context", (), {"session": bokeh})
        assert not row_of(room, "Anna").here
        bokeh.connection_count = 1  # type: ignore[attr-defined]
        assert row_of(room, "Anna").here

    def test_votes_flips_and_deletions_of_the_class(self, room: Classroom) -> None:
        sessions = [arrive(room, name).state.session for name in ("Anna", "Ben", HOSTILE)]
        for session in sessions[:2]:
            session.apply(edits.swap(session.store.pairs()["p3"]), "swap")
        sessions[0].apply([edits.SetField("p5", "chosen", "other words")], "edit")
        sessions[2].apply([edits.DeletePair("p3")], "delete")
        rows = {row.pair_id: row for row in room.opinions()}
        assert rows["p3"] == PairRow("p3", "question 1", edited=3, flipped=2, kept=2)
        assert rows["p3"].share == 0
        assert (rows["p5"].edited, rows["p5"].flipped, rows["p5"].share) == (1, 0, 1)
        assert rows["p0"] == PairRow("p0", "question 0", edited=0, flipped=0, kept=3)
        assert room.opinions()[0].pair_id == "p3"

    def test_undo_takes_a_vote_back(self, room: Classroom) -> None:
        session = arrive(room, "Anna").state.session
        session.apply(edits.swap(session.store.pairs()["p3"]), "swap")
        assert room.opinions()[0].flipped == 1
        session.undo()
        assert sum(row.edited for row in room.opinions()) == 0

    def test_a_student_with_another_set_does_not_vote(self, room: Classroom) -> None:
        from workbench.data.pairs import PreferenceSet

        other = [p.model_copy(update={"pair_id": f"x{p.pair_id}"}) for p in some_pairs(4).pairs]
        room.sessions_of("Anna").create(PreferenceSet("other", other), "policy", "reference")
        assert deviations(some_pairs(), PreferenceSet("other", other)) is None
        assert {row.kept for row in room.opinions()} == {0}

    def test_a_closed_session_keeps_its_vote_and_is_not_opened_for_it(
        self, room: Classroom
    ) -> None:
        visit = arrive(room, "Anna")
        session = visit.state.session
        session.apply(edits.swap(session.store.pairs()["p3"]), "swap")
        settle(session)
        room.opinions()
        room.left(visit)
        room.close_idle(0)
        assert room.opinions()[0].flipped == 1
        assert not room.workspace.is_open(session.session_id)

    def test_distributions_leave_out_what_is_not_known(self) -> None:
        def known(name: str, value: float) -> StudentRow:
            return StudentRow(name, summary=type("S", (), {"did_entropy": value})())

        rows = [known("b", 2.0), StudentRow("a"), known("c", 1.0), known("d", float("nan"))]
        assert distribution(rows, "did_entropy") == [("c", 1.0), ("b", 2.0)]


class TestMarkup:
    def test_names_actions_and_prompts_are_escaped(self, room: Classroom) -> None:
        arrive(room, HOSTILE)
        students = [*room.students(), StudentRow(HOSTILE, "s1", action=HOSTILE)]
        pages = (
            people_html(students),
            spread_html(students),
            pairs_html([PairRow(HOSTILE, HOSTILE, 1, 0, 1)], 1),
            links_html(room.roster, lambda token: f"http://x/?token={token}"),
            door_html("http://x/?token=<b>"),
        )
        for page in pages:
            assert "<img" not in page
            assert "<b>" not in page.replace("<b style", "")

    def test_an_empty_room_says_what_to_do(self) -> None:
        assert "No student has a place yet" in people_html([])
        assert "as soon as a student" in spread_html([StudentRow("Anna")])
        assert "as soon as a student" in pairs_html([PairRow("p", "q", 0, 0, 0)], 1)

    def test_times_are_told_from_now(self) -> None:
        now = datetime(2025, 3, 1, 12, tzinfo=UTC)
        for seconds, words in ((5, "just now"), (125, "2 min ago"), (9000, "01 Mar 09:30 UTC")):
            row = StudentRow("Anna", "s", when=now - timedelta(seconds=seconds))
            assert words in people_html([row], now)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), "http://127.0.0.1:5006/?token=T"),
        (("lab.example",), "http://lab.example:5006/?token=T"),
        (("lab.example:443",), "https://lab.example/?token=T"),
        (("lab.example:8080",), "http://lab.example:8080/?token=T"),
        (("fe80::1",), "http://[fe80::1]:5006/?token=T"),
    ],
)
def test_links_are_written_as_browsers_open_them(names: tuple[str, ...], expected: str) -> None:
    assert Address(ServerOptions(names=names))("T") == expected


def test_a_name_in_the_file_of_links_is_never_a_formula() -> None:
    assert "\n'=1+1,link" in links_csv([{"who": "=1+1", "link": "link"}]).replace("\r", "")


def test_the_journal_of_a_session_is_a_plain_store(room: Classroom, tmp_path: Path) -> None:
    session = arrive(room, "Anna").state.session
    session.apply([edits.SetField("p0", "chosen", "kept")], "edit")
    with PairStore.open(tmp_path / "sessions" / session.session_id / "pairs.sqlite") as store:
        assert store.pairs()["p0"].chosen == "kept"

import hmac
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from fake_models import some_pairs
from hypothesis import given
from hypothesis import strategies as st
from tornado.httputil import HTTPHeaders

from workbench.app import guard
from workbench.app.classroom import (
    DOOR,
    INSTRUCTOR,
    Limits,
    OwnSessions,
    Roster,
    StudentRules,
    checked_name,
    students,
)
from workbench.app.guard import Policy, judge
from workbench.data import edits
from workbench.engine.workspace import Workspace
from workbench.errors import DataError, ModelError, TrainingError

HOST = {"Host": "localhost:5006"}


@pytest.fixture
def roster(tmp_path: Path) -> Roster:
    made = Roster(tmp_path / "room" / "roster.json")
    made.invite(["Anna", "Ben"], most=3)
    return made


@pytest.fixture
def workspace(tmp_path: Path, models: Any) -> Any:
    made = Workspace(tmp_path / "sessions", tmp_path / "scores.sqlite", models.load, crowd=True)
    yield made
    made.close()


def own(workspace: Workspace, roster: Roster, name: str, **limits: Any) -> OwnSessions:
    rules = StudentRules(Limits(**limits))
    return OwnSessions(workspace, roster, name, frozenset({"policy", "reference"}), rules)


def judged(roster: Roster, token: str, way: str) -> guard.Verdict:
    policy = Policy(frozenset({"localhost:5006"}), roster.token_of(INSTRUCTOR), visitors=roster)
    if way == "cookie":
        return judge(policy, "/", HTTPHeaders(HOST | {"Cookie": f"workbench_token={token}"}))
    return judge(policy, "/ws", HTTPHeaders(HOST | {"Authorization": f"Bearer {token}"}))


class TestTokens:
    @pytest.mark.parametrize("way", ["cookie", "header"])
    def test_each_token_is_its_owners(self, roster: Roster, way: str) -> None:
        for name in ("Anna", "Ben"):
            assert judged(roster, roster.seat(name).token, way).visitor == name
        for staff in (INSTRUCTOR, DOOR):
            assert judged(roster, roster.token_of(staff), way).visitor == staff

    @pytest.mark.parametrize("way", ["cookie", "header"])
    def test_a_wrong_token_is_nobodys(self, roster: Roster, way: str) -> None:
        token = roster.seat("Anna").token
        for wrong in ("", token[:-1], token + "x", token.swapcase(), "é"):
            assert judged(roster, wrong, way).status == 401

    def test_a_link_becomes_a_cookie_of_its_own_token(self, roster: Roster) -> None:
        policy = Policy(frozenset({"localhost:5006"}), visitors=roster)
        token = roster.seat("Ben").token
        answer = judge(policy, f"/?token={token}&page=DID", HTTPHeaders(HOST))
        assert (answer.status, answer.headers["Location"]) == (303, "/?page=DID")
        assert answer.headers["Set-Cookie"].startswith(f"workbench_token={token};")

    def test_a_seat_that_is_made_later_is_let_in(self, roster: Roster) -> None:
        policy = Policy(frozenset({"localhost:5006"}), visitors=roster)
        seat = roster.add("Clara", most=3)
        headers = HTTPHeaders(HOST | {"Cookie": f"workbench_token={seat.token}"})
        assert judge(policy, "/", headers).visitor == "Clara"

    @pytest.mark.parametrize("wanted", [0, -1])
    def test_every_known_token_is_compared_and_in_constant_time(
        self, roster: Roster, monkeypatch: pytest.MonkeyPatch, wanted: int
    ) -> None:
        """The place of the right token in the list must not show in the work that is done."""
        compared: list[bytes] = []

        def counting(given: bytes, expected: bytes) -> bool:
            compared.append(expected)
            return hmac.compare_digest(given, expected)

        class Spy:
            compare_digest = staticmethod(counting)

        monkeypatch.setattr(guard, "hmac", Spy)
        policy = Policy(frozenset({"localhost:5006"}), visitors=roster)
        guard._owner(policy, list(roster)[wanted])
        assert compared == [token.encode() for token in roster]

    def test_no_two_tokens_are_alike_and_each_is_long(self, roster: Roster) -> None:
        assert len(set(roster)) == 4
        assert min(map(len, roster)) >= 24


class TestRoster:
    def test_the_same_links_hold_after_a_restart(self, roster: Roster) -> None:
        roster.move("Anna", "a-session")
        again = Roster(roster._path)
        assert dict(again) == dict(roster)
        assert again.seat("Anna").session == "a-session"

    def test_inviting_again_keeps_the_old_links(self, roster: Roster) -> None:
        before = roster.seat("Anna").token
        roster.invite(["Anna", "Clara"], most=3)
        assert roster.seat("Anna").token == before

    def test_nobody_else_on_the_machine_can_read_it(self, roster: Roster) -> None:
        assert stat.S_IMODE(roster._path.stat().st_mode) == 0o600

    def test_a_taken_name_and_a_full_room_are_refused(self, roster: Roster) -> None:
        with pytest.raises(DataError, match="taken"):
            roster.add(" anna ", most=3)
        roster.add("Clara", most=3)
        with pytest.raises(DataError, match="3 places"):
            roster.add("David", most=3)

    @pytest.mark.parametrize("name", ["", "  ", "@instructor", "x" * 41, "a\x00b", "a\u202eb"])
    def test_a_name_that_is_none_is_refused(self, name: str) -> None:
        with pytest.raises(DataError, match="cannot be a name"):
            checked_name(name)

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"instructor": 1}', "\x00"])
    def test_a_spoilt_file_is_named_and_kept(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "roster.json"
        path.write_text(content)
        with pytest.raises(DataError, match=r"roster\.json"):
            Roster(path)
        assert path.read_text() == content

    def test_students_are_a_number_a_list_or_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "names.txt"
        file.write_text("Anna\nBen, Clara\n\n", encoding="utf-8")
        assert students("2") == ["Student 01", "Student 02"]
        assert students("Anna, Ben,,Anna") == ["Anna", "Ben"]
        assert students(str(file)) == ["Anna", "Ben", "Clara"]
        assert students("") == []

    @given(st.text(max_size=60))
    def test_a_name_comes_back_from_the_file_as_it_was(self, name: str) -> None:
        import tempfile

        try:
            name = checked_name(name)
        except DataError:
            return
        with tempfile.TemporaryDirectory() as folder:
            roster = Roster(Path(folder) / "roster.json")
            roster.add(name, most=1)
            assert Roster(roster._path).seat(name) == roster.seat(name)


class TestOwnSessions:
    def test_another_students_session_is_refused(
        self, workspace: Workspace, roster: Roster
    ) -> None:
        anna, ben = own(workspace, roster, "Anna"), own(workspace, roster, "Ben")
        session = anna.create(some_pairs(), "policy", "reference")
        assert anna.session(session.session_id) is session
        with pytest.raises(DataError, match="another student's"):
            ben.session(session.session_id)
        assert [name for name, _ in ben.sessions()] == []

    def test_it_is_refused_after_a_restart_too(
        self, tmp_path: Path, roster: Roster, models: Any
    ) -> None:
        first = Workspace(tmp_path / "sessions", tmp_path / "s.sqlite", models.load)
        session = own(first, roster, "Anna").create(some_pairs(), "policy", "reference")
        own(first, roster, "Anna").use_models(session, policy="reference")
        first.close()
        second = Workspace(tmp_path / "sessions", tmp_path / "s.sqlite", models.load)
        with pytest.raises(DataError, match="another student's"):
            own(second, roster, "Ben").session(session.session_id)
        assert own(second, roster, "Anna").session(session.session_id).models == {
            "policy": "reference", "reference": "reference",
        }  # fmt: skip
        second.close()

    def test_a_check_that_forgets_the_owner_is_caught(
        self, workspace: Workspace, roster: Roster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = own(workspace, roster, "Anna").create(some_pairs(), "policy", "reference")
        monkeypatch.setattr(OwnSessions, "_staff", True)
        assert own(workspace, roster, "Ben").session(session.session_id) is session

    def test_the_instructor_sees_all_and_changes_no_ones_link(
        self, workspace: Workspace, roster: Roster
    ) -> None:
        session = own(workspace, roster, "Anna").create(some_pairs(), "policy", "reference")
        teacher = own(workspace, roster, INSTRUCTOR)
        assert teacher.session(session.session_id) is session
        assert roster.seat("Anna").session == session.session_id
        assert session.rules is not None

    @pytest.mark.parametrize("name", ["/etc/passwd", "secret.jsonl", "hub:a/b", "../x"])
    def test_a_student_reads_no_file_of_the_machine(
        self, workspace: Workspace, roster: Roster, name: str
    ) -> None:
        with pytest.raises(DataError, match="not offered"):
            own(workspace, roster, "Anna").check_source(name)
        own(workspace, roster, "Anna").check_source("teaching")
        own(workspace, roster, INSTRUCTOR).check_source(name)

    def test_a_student_loads_no_model_of_their_own(
        self, workspace: Workspace, roster: Roster
    ) -> None:
        anna = own(workspace, roster, "Anna")
        session = anna.create(some_pairs(), "policy", "reference")
        with pytest.raises(ModelError, match="shared by all"):
            anna.use_models(session, policy="hub:some/giant")
        assert session.models["policy"] == "policy"


class TestLimits:
    def test_pairs_sessions_and_pace_have_an_end_in_plain_words(
        self, workspace: Workspace, roster: Roster
    ) -> None:
        anna = own(workspace, roster, "Anna", pairs=8, sessions=1, edits_a_minute=2)
        session = anna.create(some_pairs(8), "policy", "reference")
        with pytest.raises(DataError, match="9 pairs; in this classroom 8"):
            anna.create(some_pairs(9), "policy", "reference")
        with pytest.raises(DataError, match="open 1 sets"):
            anna.create(some_pairs(2), "policy", "reference")
        pairs = session.store.pairs()
        with pytest.raises(DataError, match="9 pairs"):
            session.apply(edits.duplicate(pairs["p0"], taken=pairs), "duplicate")
        assert len(session.store.pairs()) == 8
        for text in ("a", "b"):
            session.apply([edits.SetField("p0", "chosen", text)], "edit")
        with pytest.raises(DataError, match="2 edits within a minute"):
            session.apply([edits.SetField("p0", "chosen", "c")], "edit")
        assert session.store.pairs()["p0"].chosen == "b"

    def test_training_is_off_unless_the_lecturer_says_so(
        self, workspace: Workspace, roster: Roster
    ) -> None:
        from workbench.engine.training import TrainingSetup

        session = own(workspace, roster, "Anna").create(some_pairs(), "policy", "reference")
        with pytest.raises(TrainingError, match="switched off"):
            session.training.start(TrainingSetup())
        teacher = own(workspace, roster, INSTRUCTOR).create(some_pairs(), "policy", "reference")
        assert teacher.rules is None

    def test_students_train_one_at_a_time(
        self, workspace: Workspace, roster: Roster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rules = StudentRules(Limits(training=True))
        rooms = [OwnSessions(workspace, roster, name, frozenset(), rules)
                 for name in ("Anna", "Ben")]  # fmt: skip
        first, second = (room.create(some_pairs(), "policy", "reference") for room in rooms)
        rules.check_training(first)
        rules.check_training(second)  # Anna's has not begun
        rules.check_training(first)
        playing = type("S", (), {"phase": "playing"})
        monkeypatch.setattr(type(first.training), "status", playing)
        rules.check_training(first)
        with pytest.raises(TrainingError, match="Another student's training"):
            rules.check_training(second)


def test_the_roster_is_plain_json(roster: Roster) -> None:
    found = json.loads(roster._path.read_text(encoding="utf-8"))
    assert [seat["name"] for seat in found["seats"]] == ["Anna", "Ben"]

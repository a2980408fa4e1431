from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_models import Models, some_pairs

from workbench.app.opening import Opener
from workbench.app.pages.pair_tools import read_upload
from workbench.app.pages.pairs import PairsPage
from workbench.app.state import PageState
from workbench.data import edits
from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.engine.document import StateDocument
from workbench.engine.session import Session
from workbench.engine.settings import Settings
from workbench.engine.workspace import Workspace
from workbench.errors import DataError
from workbench.views.markup import number, percent, points, strip_html, table_html
from workbench.views.pair_commands import bulk_edits, new_pair, typed

HOSTILE = "<script>window.hacked=1</script>"


@pytest.fixture
def workspace(tmp_path: Path, models: Models) -> Any:
    made = Workspace(tmp_path / "sessions", tmp_path / "scores.sqlite", models.load)
    yield made
    made.close()


@pytest.fixture
def state(start: Callable[..., Session]) -> PageState:
    return PageState(start())


def test_an_address_brings_back_what_it_was_made_of(state: PageState) -> None:
    state.settings = Settings(beta=0.3, gamma=0.5, attributes=("age",), tie_policy="half")
    state.param.update(page="DID", selected="p3", group_by="gender")
    other = PageState(state.session)
    other.read_query(state.to_query())
    assert (other.settings, other.page, other.selected, other.group_by) == (
        state.settings, "DID", "p3", "gender",
    )  # fmt: skip
    assert other.message == ""


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"beta": "-1"}, "beta is -1.0"),
        ({"beta": "<script>"}, "is not JSON"),
        ({"tie_policy": '"never"'}, "choose one of"),
        ({"attributes": "[" * 5000}, "is not JSON"),
    ],
)
def test_a_wrong_address_becomes_a_message(
    state: PageState, query: dict[str, str], words: str
) -> None:
    state.read_query({**query, "page": "Ranking"})
    assert words in state.message
    assert state.settings == Settings()
    assert state.page == "Ranking"


def test_a_setting_out_of_range_becomes_a_message_and_changes_nothing(state: PageState) -> None:
    state.change(beta=0.0)
    assert "beta is 0.0" in state.message
    assert state.settings.beta == 0.1
    state.change(beta=1.0)
    assert state.message == ""


def test_the_selection_steps_and_stops_at_the_ends(state: PageState) -> None:
    state.step_selection(1)
    assert state.selected == "p0"
    state.step_selection(1)
    state.step_selection(-5)
    assert state.selected == "p0"
    state.step_selection(100)
    assert state.selected == "p7"


def test_a_refused_action_becomes_a_message(state: PageState) -> None:
    def refuse() -> None:
        raise DataError("no such pair")

    state.doing(refuse)(None)
    assert state.message == "no such pair"


def test_a_state_document_is_taken_up_except_for_a_page_that_is_not_here(state: PageState) -> None:
    kept = Settings(beta=2.0, attributes=("gender",))
    state.page = "Ranking"
    state.show(StateDocument(kept, "m", "r", "Nowhere", "p2", "gender"))
    assert (state.settings, state.page, state.selected) == (kept, "Ranking", "p2")
    assert state.document().settings == kept


def test_what_a_user_wrote_is_escaped_in_the_strip_and_in_tables(start: Any) -> None:
    pairs = [
        PreferencePair(
            pair_id=f"p{i}",
            prompt="q",
            chosen=f"a {i}",
            rejected=f"b {i} c",
            attributes={HOSTILE: i % 2},
        )
        for i in range(8)
    ]
    state = PageState(start(PreferenceSet("s", pairs)))
    state.change(attributes=(HOSTILE,))
    shown = strip_html(state.tables.summary(state.settings))
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "<script>" not in table_html([HOSTILE], [[HOSTILE]], [HOSTILE])


def test_numbers_are_shown_with_a_minus_sign_and_a_dash_where_unknown() -> None:
    assert (number(-0.12345), number(float("nan"))) == ("−0.1235", "–")
    assert (percent(0.5), percent(float("nan"))) == ("50.0 %", "–")
    assert (points(-0.02), points(float("nan"))) == ("−2.0 points", "–")


def test_a_bulk_command_makes_its_edits() -> None:
    pairs = some_pairs(4)
    one = [pairs["p1"]]
    assert bulk_edits("delete", one, pairs) == [edits.DeletePair("p1")]
    assert len(bulk_edits("duplicate", one, pairs)) == 1
    assert bulk_edits("swap", one, pairs) == list(edits.swap(pairs["p1"]))
    assert bulk_edits("flip", one, pairs) == list(edits.flip_label(pairs["p1"]))
    with pytest.raises(DataError, match="no command"):
        bulk_edits("format the disk", one, pairs)


def test_a_new_pair_has_a_name_of_its_own_and_the_prompt_of_its_neighbour() -> None:
    pairs = some_pairs(4)
    added = new_pair(pairs, after="p3")
    assert added.pair.pair_id not in pairs
    assert added.pair.prompt == pairs["p3"].prompt


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("prompt", "  ", "  "),
        ("alpha", "0.7", 0.7),
        ("alpha", " ", None),
        ("attributes.age", "33", 33.0),
        ("attributes.gender", "33", "33"),
        ("attributes.new", "x", "x"),
    ],
)
def test_text_from_the_browser_becomes_what_its_field_holds(
    field: str, value: str, wanted: object
) -> None:
    assert typed(some_pairs(4), field, value) == wanted


def test_a_word_in_a_field_of_numbers_is_refused() -> None:
    with pytest.raises(DataError, match="give a number"):
        typed(some_pairs(4), "alpha", "lots")


def test_the_pairs_page_shows_the_window_that_was_asked_for(state: PageState) -> None:
    page = PairsPage(state, lambda pairs: None)
    page.refresh()
    assert [row["pair_id"] for row in page.editor.rows] == [f"p{i}" for i in range(8)]
    page._asked({"text": "number 5", "offset": 0, "limit": 10})
    assert [row["pair_id"] for row in page.editor.rows] == ["p5"]
    assert page.editor.total == 8


def test_an_edit_of_the_table_reaches_the_journal_and_undo_takes_it_back(state: PageState) -> None:
    page = PairsPage(state, lambda pairs: None)
    page.refresh()
    page._edited({"seq": 1, "pair_id": "p2", "field": "chosen", "value": "another answer"})
    assert state.session.store.pairs()["p2"].chosen == "another answer"
    page._commanded({"seq": 2, "name": "undo"})
    assert state.session.store.pairs()["p2"].chosen == "a good answer number 2"
    with pytest.raises(DataError, match="No pair is selected"):
        page._commanded({"seq": 3, "name": "delete", "pair_ids": []})


@pytest.mark.parametrize("name", ["../../etc/passwd", "x.exe", "noname", ".jsonl/.."])
def test_an_upload_of_another_kind_is_refused_without_using_its_name(name: str) -> None:
    with pytest.raises(DataError):
        read_upload(b"{}", name)


def test_an_upload_names_its_bad_rows() -> None:
    report = read_upload(
        b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": 3}\n', "m.jsonl"
    )
    assert report.pairs.name == "m"
    assert len(report.pairs) == 1
    assert "row 2" in str(report.problems[0])


def test_the_opener_lists_sets_and_earlier_sessions(workspace: Workspace) -> None:
    session = workspace.create(some_pairs(2), "m", "r")
    earlier = workspace.create(some_pairs(3), "m", "r")
    went: list[str] = []
    opener = Opener(workspace, session, went.append)
    choices = {item["opens"]: item["label"] for item in opener.choices()}
    assert "set:teaching" in choices
    opener.open(f"session:{earlier.session_id}")
    assert went == [earlier.session_id]
    opener.close()


def test_the_opener_says_why_a_set_cannot_be_had(workspace: Workspace) -> None:
    opener = Opener(workspace, workspace.create(some_pairs(2), "m", "r"), lambda session_id: None)
    opener.open("no-such-set")
    assert opener._waiting is not None
    opener._waiting.exception(timeout=20)
    assert "neither a known set" in opener.poll()
    assert opener.note == ""
    opener.close()

"""The Attribution page's question to training: which pairs moved the selected margin."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from browser_support import eventually

from workbench.app.pages.attribution import LearntFrom
from workbench.app.state import PageState
from workbench.data.edits import SetField
from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.engine.influence import KIND
from workbench.engine.session import Session
from workbench.engine.training import TrainingSetup
from workbench.training.plan import TrainingPlan

HOSTILE = '<img src=x onerror="window.hacked=1">'


def train(session: Session, steps: int = 2) -> None:
    desk = session.training
    desk.start(TrainingSetup(policy="exact", held_out=0.0, plan=TrainingPlan(learning_rate=0.1)))
    until(lambda: desk.status.phase == "ready")
    desk.play(steps)
    until(lambda: desk.status.step == steps and desk.status.phase != "playing")


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.01)


def rivals() -> PreferenceSet:
    """Two pairs that agree, one that contradicts them, and one of another prompt."""
    rows = [("a", "tell", "good", "bad"), ("b", "tell", "good", "worse"),
            ("c", "tell", "bad", "good"), ("d", HOSTILE + " why" * 40, "yes", "no")]  # fmt: skip
    return PreferenceSet(
        "rivals",
        [
            PreferencePair(pair_id=name, prompt=prompt, chosen=chosen, rejected=rejected)
            for name, prompt, chosen, rejected in rows
        ],
    )


@pytest.fixture
def state(start: Callable[..., Session]) -> PageState:
    return PageState(start(rivals()), selected="a")


def asked(section: LearntFrom) -> None:
    section.find.param.trigger("clicks")
    job = section._state.session.progress(KIND)
    assert job is not None
    assert job.wait(60)
    section.refresh()


def ids(items: list[dict[str, Any]]) -> list[str]:
    return [item["pair_id"] for item in items]


def test_without_training_the_section_says_where_to_begin(state: PageState) -> None:
    section = LearntFrom(state)
    section.refresh()
    assert "start a run on Train" in section.note.object
    assert section.find.disabled
    assert not section.lists.visible
    state.selected = ""
    section.refresh()
    assert section.note.object == ""


def test_nothing_is_computed_until_a_person_asks(state: PageState) -> None:
    train(state.session)
    section = LearntFrom(state)
    section.refresh()
    assert not section.find.disabled
    assert state.session.progress(KIND) is None


def test_helpful_and_harmful_pairs_are_listed_and_a_click_selects_one(state: PageState) -> None:
    train(state.session)
    section = LearntFrom(state)
    asked(section)
    assert section.lists.visible
    assert set(ids(section.helpful.items)) == {"a", "b"}
    assert ids(section.harmful.items) == ["c"]
    assert "4 pairs compared" in section.note.object
    section.harmful._process_click({}, 0, section.harmful.items[0])
    assert state.selected == "c"
    section.refresh()
    assert not section.lists.visible


def test_over_a_run_the_note_says_so(state: PageState) -> None:
    train(state.session)
    section = LearntFrom(state)
    section.over.value = "run"
    asked(section)
    assert "kept steps with their learning rates (TracIn)" in section.note.object
    assert "c" in ids(section.harmful.items)


def test_a_long_prompt_is_shown_by_its_beginning(state: PageState) -> None:
    train(state.session)
    state.selected = "d"
    section = LearntFrom(state)
    asked(section)
    (item,) = section.helpful.items
    assert item["secondary"].startswith(HOSTILE)
    assert len(item["secondary"]) <= 90


def test_while_training_is_on_the_section_asks_for_a_pause(
    state: PageState, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    train(state.session)
    desk, status = state.session.training, state.session.training.status
    playing = replace(status, phase="playing")
    monkeypatch.setattr(type(desk), "status", property(lambda self: playing))
    section = LearntFrom(state)
    section.refresh()
    assert "pause it on Train" in section.note.object
    assert section.find.disabled


@pytest.mark.browser
def test_in_a_browser_a_click_on_a_pair_selects_it(page: Any, bench: Any) -> None:
    page.goto(bench.url)
    page.locator("[data-quantity=margin] .more", has_text="of 16 pairs").wait_for()
    session = next(iter(bench.workspace._open.values()))
    rival = session.store.pairs()["p04"]
    session.apply([SetField("p05", "chosen", rival.rejected)], "make a rival")
    train(session)
    page.goto(f"{bench.url}?session={session.session_id}&page=Attribution&pair=p04")
    page.get_by_role("button", name="Find the pairs").click()
    item = page.get_by_text(re.compile(r"\bp05$")).first
    item.wait_for()
    item.click()
    eventually(lambda: "pair=p05" in str(page.evaluate("location.href")), 30)

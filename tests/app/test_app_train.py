"""The page Train: on an exact policy without a browser, and on a tiny language model in one."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from browser_support import eventually
from fake_models import Models, some_pairs

from workbench.app.pages import train
from workbench.app.pages.train import TrainPage
from workbench.app.pages.train_setup import formula_html, knob_values
from workbench.app.state import PageState
from workbench.data.edits import SetField
from workbench.engine.session import Session
from workbench.engine.training import Sample, TrainingStatus
from workbench.engine.workspace import Workspace
from workbench.errors import DataError
from workbench.objectives.catalogue import OBJECTIVES
from workbench.objectives.objective import Hyperparameter
from workbench.views.training_figures import View
from workbench.views.words import event_words, kept_step, status_words

HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
WAIT = 60.0


class Held:
    """A Train page on a session, worked without a browser."""

    def __init__(self, session: Session) -> None:
        self.state = PageState(session)
        self.state.page = "Train"
        self.used: list[str] = []
        self.page = TrainPage(self.state, self.used.append)
        self.page.refresh()
        self.page.tick()
        self.desk = session.training
        self.form, self.transport = self.page.form, self.page.transport

    def press(self, key: str) -> None:
        self.transport.keys.pressed = {"seq": time.monotonic_ns(), "key": key}

    def set(self, **values: Any) -> None:
        for name, value in values.items():
            (self.form.knobs.get(name) or self.form.fields[name]).value = value
        self.form._touched_at = 0.0
        self.page.tick()

    def train(self, steps: int) -> None:
        """Take so many steps from where the policy stands."""
        if self.desk.setup is None:
            self.press(".")
            self.settle()
            steps -= 1
        if steps:
            self.desk.play(self.desk.status.step + steps)
            self.settle()

    def settle(self) -> None:
        eventually(lambda: self.desk.status.phase not in ("preparing", "playing"), WAIT)
        self.page._painted = 0.0
        self.page.tick()

    def rewind(self, step: int) -> None:
        self.transport.slider.value = step
        self.page.tick()
        self.page._painted = 0.0
        self.page.tick()


@pytest.fixture
def session(start: Callable[..., Session]) -> Session:
    pairs = some_pairs(12)
    return start(pairs)


@pytest.fixture
def held(session: Session) -> Iterator[Held]:
    made = Held(session)
    made.set(policy="exact", learning_rate=0.05, held_out=0.0, batch_size=4)
    yield made
    session.training.stop()


def test_an_empty_page_says_what_to_do_and_offers_only_that(held: Held) -> None:
    transport = held.transport
    assert "press Play" in transport.words.object
    offered = {each.label: not each.disabled for each in (
        transport.play, transport.step, transport.back, transport.fork, transport.use,
        transport.stop,
    )}  # fmt: skip
    assert offered == {"Play": True, "Step": True, "Back": False, "Branch": False,
                       "Use as policy": False, "Stop": False}  # fmt: skip
    assert transport.slider.disabled
    assert held.form.view.visible
    assert "Play trains" in held.page._curves[0].figure.empty


def test_space_plays_and_pauses_and_a_dot_takes_one_step(held: Held) -> None:
    held.press(" ")
    eventually(lambda: held.desk.status.step >= 3, WAIT)
    held.page.tick()
    assert held.transport.play.label == "Pause"
    held.press(" ")
    held.settle()
    assert held.desk.status.phase == "paused"
    assert held.transport.play.label == "Play"
    stopped = held.desk.status.step
    held.press(".")
    held.settle()
    assert held.desk.status.step == stopped + 1
    assert f"step {stopped + 1}" in held.transport.words.object


def test_the_curves_follow_the_steps(held: Held) -> None:
    held.train(5)
    loss = held.page._curves[0].figure
    active = held.desk.active
    assert active is not None
    drawn = next(each for each in loss.layers if each.name == "batch")
    assert drawn.columns["x"].tolist() == [1, 2, 3, 4, 5]
    assert drawn.columns["y"].tolist() == [record.loss for record in active.records]


def test_nothing_is_painted_without_news_and_at_most_five_times_a_second(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    held.train(2)
    clock = [100.0]
    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    live = held.page._curves[0].live
    held.page._seen, held.page._painted = None, 0.0
    held.page.tick()
    painted = live.generation
    held.page.tick()
    assert live.generation == painted
    held.desk.rename("b1", "other")
    clock[0] += 0.1
    held.page.tick()
    assert live.generation == painted
    clock[0] += 0.11
    held.page.tick()
    assert live.generation > painted


def test_a_server_that_cannot_keep_up_paints_less_often(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    held.train(1)
    clock = [100.0]
    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    held.page._seen, held.page._painted, held.page._ticked = None, 0.0, 99.9
    held.page.tick()
    live = held.page._curves[0].live
    painted, second = live.generation, 0
    while live.generation == painted:
        held.desk.rename("b1", f"name {second}")
        clock[0] += 1.0
        second += 1
        held.page.tick()
    assert second == 5


def test_rewinding_and_going_on_makes_a_branch_and_loses_nothing(held: Held) -> None:
    held.train(6)
    first = held.desk.active
    held.rewind(3)
    assert held.desk.status.step == 3
    assert held.transport.slider.value == 3
    held.press(".")
    held.settle()
    names = [chip.label for chip in held.transport.branches.objects]
    assert names == ["● run", "● branch 2"]
    assert held.desk.branches[0].records == (first.records if first else ())
    assert held.desk.active is not None
    assert (held.desk.active.branch_id, held.desk.active.forked_at) == ("b2", 3)
    held.press("n")
    assert held.desk.active.branch_id == "b1"
    assert held.desk.status.step == 6


def test_a_comma_goes_back_one_kept_step_and_at_a_fork_to_the_parent(held: Held) -> None:
    held.train(2)
    held.press("b")
    assert [each.branch_id for each in held.desk.branches] == ["b1", "b2"]
    held.press(",")
    assert held.desk.active is not None
    assert (held.desk.active.branch_id, held.desk.status.step) == ("b1", 2)
    held.press(",")
    assert held.desk.status.step == 1


def test_a_change_of_beta_takes_effect_at_the_next_step_and_is_told(held: Held) -> None:
    held.train(2)
    held.set(beta=0.5)
    held.train(1)
    active = held.desk.active
    assert active is not None
    assert active.plan.settings["beta"] == 0.5
    assert "beta 0.1 -> 0.5" in active.records[-1].event
    assert "step 3: beta 0.1 -> 0.5" in held.transport.events.object
    assert held.state.settings.beta == 0.1


def test_the_forms_follow_the_branch_that_is_shown(held: Held) -> None:
    held.train(2)
    held.press("b")
    held.set(beta=0.5, optimiser="sgd")
    held.train(1)
    held.press("n")
    held.page._painted = 0.0
    held.page.tick()
    assert held.form.knobs["beta"].value == 0.1
    assert held.form.fields["optimiser"].value == "adamw"
    assert held.form.fields["policy"].value == "exact"


def test_an_edited_pair_is_marked_on_the_time_axis(held: Held, session: Session) -> None:
    held.train(2)
    session.apply([SetField("p1", "chosen", "another answer")], "Edit")
    held.train(1)
    active = held.desk.active
    assert active is not None
    assert "edited 1 pair" in active.records[-1].event
    rules = [each for each in held.page._curves[0].figure.layers if each.kind == "rule"]
    assert [each.columns["x"].tolist() for each in rules] == [[3.0]]


def test_what_does_not_go_together_is_refused_with_a_cure_and_nothing_changes(held: Held) -> None:
    held.train(1)
    before = held.desk.active
    held.form.fields["attributes"].value = []
    held.set(penalty="dcov")
    assert "needs attributes" in held.state.message
    assert before is not None
    assert held.desk.active is not None
    assert held.desk.active.plan == before.plan


def test_a_dragged_slider_makes_one_change(held: Held) -> None:
    held.train(1)
    for value in (0.2, 0.3, 0.5):
        held.form.knobs["beta"].value = value
        held.page.tick()
    assert held.desk.active is not None
    assert held.desk.active.plan.settings["beta"] == 0.1
    held.press(".")
    held.settle()
    assert held.desk.active.records[-1].event == "beta 0.1 -> 0.5"


def test_lambda_is_live(held: Held) -> None:
    held.set(attributes=["gender"], penalty="dcov", penalty_weight=1.0)
    held.train(1)
    held.set(penalty_weight=20.0)
    held.train(1)
    active = held.desk.active
    assert active is not None
    assert "penalty_weight 1 -> 20" in active.records[-1].event
    assert held.form.fields["penalty_weight"].visible


def test_every_objective_can_be_picked_with_its_formula_and_its_own_sliders(held: Held) -> None:
    for name, objective in OBJECTIVES.items():
        held.set(objective=name)
        assert list(held.form.knobs) == list(objective.defaults)
        assert held.form.plan().objective == name
        assert "<svg" in held.form.formula.object
        assert all(not pane.figure.is_blank for pane in held.form._curves), name
        assert objective.title in held.form.summary()


def test_knobs_cover_their_range_in_round_values() -> None:
    beta = knob_values(Hyperparameter("beta", 0.1, 0.001, 10.0, "", logarithmic=True))
    assert (beta[0], beta[-1]) == (0.001, 10.0)
    assert 0.1 in beta
    share = knob_values(Hyperparameter("share", 0.0, 0.0, 0.49, ""))
    assert share[:3] == [0.0, 0.01, 0.02]
    assert share[-1] == 0.49


def test_a_formula_names_its_source_and_escapes_it() -> None:
    source = replace(OBJECTIVES["dpo"].source, paper=HOSTILE)
    assert "<script" not in formula_html(replace(OBJECTIVES["dpo"], source=source))
    assert "2305.18290" in formula_html(OBJECTIVES["dpo"])


def test_a_failure_is_told_with_its_cure_and_the_last_good_step() -> None:
    status = TrainingStatus("failed", step=7, error="The loss diverged; lower the learning rate.")
    assert status_words(status, None) == (
        "Stopped at step 7: The loss diverged; lower the learning rate."
    )


def test_a_diverging_run_stops_and_says_so(held: Held) -> None:
    held.set(optimiser="sgd", learning_rate=1.0)
    held.form.fields["learning_rate"].options = [1.0, 1e9]
    held.set(objective="ipo")
    held.train(1)
    held.set(learning_rate=1e9)
    held.desk.play(40)
    held.settle()
    if held.desk.status.phase == "failed":
        assert held.transport.words.color == "error"
        assert held.desk.status.error in held.transport.words.object
    else:
        pytest.fail(f"the run did not stop: {held.desk.status}")


def test_two_moments_are_compared_and_a_mover_selects_its_pair(held: Held) -> None:
    held.train(4)
    look = held.page.looks["Compare two moments"]
    held.page.tabs.active = list(held.page.looks).index("Compare two moments")
    look.first.value, look.second.value = ("b1", 0), ("b1", 4)
    look._ask()
    eventually(lambda: look.refresh() or look._found is not None, WAIT)
    assert not look._figure.figure.is_blank
    items = look.movers.items
    assert len(items) == 8
    look._pick(items[0])
    assert held.state.selected == items[0]["pair"]
    row = held.state.selected_row
    assert row is not None
    assert look._figure.figure.point_of(row) is not None


def test_samples_are_written_on_demand_for_the_selected_pair_and_shown_as_text(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    held.train(2)
    asked: list[Any] = []
    answers: list[Any] = [None, (Sample("question 1", "before", HOSTILE),), DataError("no words")]

    def sample(branch_id: str, step: int, prompts: list[str]) -> Any:
        asked.append((branch_id, step, prompts))
        return answers[0]

    monkeypatch.setattr(held.desk, "sample", sample)
    look = held.page.looks["Before and after"]
    held.page.tabs.active = list(held.page.looks).index("Before and after")
    assert look.ask.disabled
    held.state.selected = "p2"
    held.page.mark()
    assert (look.prompt.object, look.ask.disabled, asked) == ("question 1", False, [])
    look._ask()
    assert asked == [("b1", 2, ["question 1"])]
    assert look.after.object == "–"
    answers.pop(0)
    look.refresh()
    assert (look.before.object, look.after.object) == ("before", HOSTILE)
    held.state.selected = "p4"
    held.page.mark()
    assert look.after.object == "–"
    held.state.selected = "p2"
    answers.pop(0)
    look.refresh()
    assert "no words" in look.note.object


def test_lambdas_of_all_branches_are_measured(held: Held) -> None:
    held.set(attributes=["gender"], penalty="dcov", penalty_weight=0.0)
    held.train(3)
    held.press("b")
    held.set(penalty_weight=50.0)
    held.train(3)
    look = held.page.looks["Calibrate λ"]
    held.page.tabs.active = list(held.page.looks).index("Calibrate λ")
    look._ask()
    eventually(lambda: look.refresh() or len(look._found) == 2, WAIT)
    assert [each.weight for each in look._found] == [0.0, 50.0]
    assert all(0 <= each.accuracy <= 1 for each in look._found)
    assert not look._panes[0].figure.is_blank


def test_another_tab_and_a_reload_show_the_same_run(held: Held, session: Session) -> None:
    held.train(3)
    held.set(beta=0.5)
    other = Held(session)
    assert other.form.fields["policy"].value == "exact"
    assert other.form.knobs["beta"].value == 0.5
    assert other.transport.slider.value == 3
    assert not other.form.view.visible


def test_a_run_that_an_earlier_process_left_is_offered_and_taken_up(
    models: Models, tmp_path: Path
) -> None:
    before = Workspace(tmp_path / "sessions", tmp_path / "scores.sqlite", models.load)
    session = before.create(some_pairs(12), "policy", "reference")
    first = Held(session)
    first.set(policy="exact", learning_rate=0.05, batch_size=4)
    first.train(3)
    before.close()
    after = Workspace(tmp_path / "sessions", tmp_path / "scores.sqlite", models.load)
    held = Held(after.session(session.session_id))
    assert "A run was left here" in held.transport.words.object
    assert not held.form.view.visible
    held.press(".")
    held.settle()
    assert held.desk.status.step == 4
    assert held.form.fields["policy"].value == "exact"
    after.close()


def test_names_are_shown_as_text(held: Held) -> None:
    held.train(1)
    held.press("b")
    held.desk.rename("b2", HOSTILE)
    held.page._painted = 0.0
    held.page.tick()
    assert held.transport.branches.objects[1].label == f"● {HOSTILE}"


def test_stop_asks_first_and_then_forgets(held: Held) -> None:
    held.train(2)
    held.press("s")
    assert held.transport.dialog.open
    assert held.desk.status.step == 2
    held.transport._forget()
    assert held.desk.status.phase == "empty"
    assert not held.transport.dialog.open


def test_only_a_language_model_can_be_used_elsewhere(held: Held) -> None:
    held.train(1)
    assert held.transport.use.disabled
    held.press("u")
    assert held.used == []


def test_a_step_that_is_not_kept_is_stood_for_by_the_one_before(held: Held) -> None:
    held.train(3)
    active = held.desk.active
    assert active is not None
    kept = replace(active, kept=(0, 2))
    assert [kept_step(kept, step) for step in (0, 1, 2, 3)] == [0, 0, 2, 2]


def test_only_the_last_events_are_listed(held: Held) -> None:
    held.train(7)
    active = held.desk.active
    assert active is not None
    marked = replace(
        active, records=tuple(replace(each, event=f"e{each.step}") for each in active.records)
    )
    words = event_words(View([marked], "b1"), marked)
    assert words == "Changed at … · step 4: e4 · step 5: e5 · step 6: e6 · step 7: e7"


# ------------------------------------------------------------------ in a browser


def status(page: Any) -> str:
    """The line below the buttons."""
    found = page.locator("text=/(Training|Paused|Ready|Done|Stopped|Choose|reading|preparing)/")
    return str(found.first.inner_text()) if found.count() else ""


def step_of(page: Any) -> int:
    found = re.search(r"step (\d+)", status(page))
    return int(found.group(1)) if found else -1


def opened(page: Any, bench: Any) -> Any:
    """The page Train on sixteen pairs that are scored; gives the session's desk."""
    page.goto(bench.url)
    page.locator("[data-quantity=margin] .more", has_text=re.compile("of 16 pairs")).wait_for()
    eventually(lambda: "session=" in str(page.evaluate("location.href")), 30)
    page.get_by_role("tab", name="Train", exact=True).click()
    page.get_by_role("button", name="Play").wait_for()
    session = next(iter(bench.workspace._open.values()))
    return session.training


def paused(page: Any, desk: Any) -> None:
    """Wait until the page says so and the step in progress, if there was one, has ended."""
    eventually(lambda: "Paused" in status(page), WAIT)
    eventually(lambda: not desk.session.progress("training").active, WAIT)


@pytest.mark.browser
def test_play_pause_step_rewind_branch_and_use_by_the_keyboard(page: Any, bench: Any) -> None:
    desk = opened(page, bench)
    margin = page.locator("[data-quantity=margin] .value").inner_text()
    page.keyboard.press("Space")
    eventually(lambda: step_of(page) >= 4, WAIT)
    page.keyboard.press("Space")
    paused(page, desk)
    last = desk.status.step
    page.keyboard.press(".")
    eventually(lambda: step_of(page) == last + 1, WAIT)
    paused(page, desk)
    page.keyboard.press(",")
    eventually(lambda: desk.status.step == last, WAIT)
    page.get_by_text("now: step").first.wait_for()
    page.keyboard.press(".")
    page.get_by_role("button", name="● branch 2").wait_for()
    page.get_by_role("button", name="● run").click()
    eventually(lambda: step_of(page) == last + 1, WAIT)
    page.keyboard.press("u")
    page.get_by_text("is now the policy of every page").wait_for()
    eventually(
        lambda: page.locator("[data-quantity=margin] .value").inner_text() not in (margin, "–"),
        WAIT,
    )
    eventually(
        lambda: "+adapter:" in page.get_by_role("combobox", name="Policy π").input_value(), WAIT
    )
    assert page.page_errors == []


@pytest.mark.browser
def test_an_edit_in_flight_is_marked_and_a_reload_keeps_the_run(page: Any, bench: Any) -> None:
    desk = opened(page, bench)
    page.keyboard.press("Space")
    eventually(lambda: step_of(page) >= 3, WAIT)
    bench_session = next(iter(bench.workspace._open.values()))
    bench_session.apply([SetField("p03", "chosen", "the dog sat on a log")], "Edit")
    page.get_by_text("edited 1 pair").first.wait_for()
    page.keyboard.press("Space")
    paused(page, desk)
    step, records = desk.status.step, desk.active.records
    page.reload()
    page.get_by_role("button", name="Play").wait_for()
    eventually(lambda: step_of(page) == step, WAIT)
    page.get_by_text("edited 1 pair").first.wait_for()
    assert desk.active.records == records
    assert page.page_errors == []


@pytest.mark.browser
def test_the_slider_rewinds_and_beta_of_the_run_is_not_that_of_the_sidebar(
    page: Any, bench: Any
) -> None:
    desk = opened(page, bench)
    for _ in range(3):
        before = desk.status.step
        page.get_by_role("button", name="Step (.)", exact=True).click()
        eventually(lambda before=before: desk.status.step == before + 1, WAIT)
        eventually(lambda: "Paused" in status(page), WAIT)
    slider = page.get_by_role("slider", name="Step", exact=True)
    slider.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    eventually(lambda: step_of(page) == 1, WAIT)
    assert desk.status.step == 1
    assert len(desk.branches) == 1
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("e")
    page.get_by_text("This β belongs to the run").wait_for()
    page.keyboard.press("[")
    eventually(lambda: "beta" in str(page.evaluate("location.href")), WAIT)
    assert desk.active.plan.settings["beta"] == 0.1

"""A bench: settings, selection, edits, waiting, and two of them kept apart."""

import gc
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import pytest
from browser_support import eventually
from fake_models import Models, some_pairs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from traitlets import link

from workbench.bench import Bench, BenchError
from workbench.bench.painter import Painter
from workbench.data.edits import SetField
from workbench.engine.live import LiveTables
from workbench.engine.settings import Settings, SettingsError
from workbench.errors import DataError, ModelError, WorkbenchError

Opened = Callable[..., Bench]


# ------------------------------------------------------------------ numbers


def test_the_summary_is_the_engines_own(bench: Bench) -> None:
    assert bench.summary == LiveTables(bench.session).summary(bench.settings)
    assert bench.summary.scored == 8


def test_the_first_pair_is_selected_and_all_attributes_are_looked_at(bench: Bench) -> None:
    assert bench.selected == "p0"
    assert bench.selected_row == 0
    assert bench.settings.attributes == ("age", "gender", "race")


# ------------------------------------------------------------------ settings


def test_beta_is_one_setting_under_two_names(bench: Bench) -> None:
    bench.beta = 0.5
    assert bench.settings.beta == 0.5
    bench.change(beta=2.0, gamma=0.5)
    assert (bench.beta, bench.settings.gamma) == (2.0, 0.5)
    bench.settings = Settings(beta=3.0)
    assert bench.beta == 3.0


def test_moving_beta_scales_margins_and_asks_no_model(bench: Bench, models: Models) -> None:
    before, asked = bench.rewards.frame()["margin"], models.counts()
    bench.beta = 4 * bench.beta
    assert bench.rewards.frame()["margin"].to_numpy() == pytest.approx(4 * before.to_numpy())
    assert models.counts() == asked


def test_a_value_out_of_range_is_refused_and_changes_nothing(bench: Bench) -> None:
    for act in (lambda: setattr(bench, "beta", -1.0), lambda: bench.change(beta=0)):
        with pytest.raises(SettingsError, match=r"beta is .*; give a number above 0"):
            act()
    assert (bench.beta, bench.settings.beta) == (0.1, 0.1)
    with pytest.raises(BenchError, match="There is no setting 'betta'; there are beta, gamma"):
        bench.change(betta=1)


def test_a_slider_is_linked_with_beta_both_ways(bench: Bench) -> None:
    slider = widgets.FloatSlider(value=0.7, min=0.01, max=5)
    link((slider, "value"), (bench, "beta"))
    assert bench.beta == 0.7
    slider.value = 1.5
    assert bench.settings.beta == 1.5
    bench.change(beta=2.5)
    assert slider.value == 2.5


def test_attributes_may_be_one_name_or_a_list(bench: Bench) -> None:
    bench.change(attributes="age")
    assert bench.settings.attributes == ("age",)
    bench.change(attributes=["gender", "race"])
    assert bench.settings.attributes == ("gender", "race")


# ------------------------------------------------------------------ edits


def test_an_edit_scores_one_sequence_of_each_model(bench: Bench, models: Models) -> None:
    before = models.counts()
    bench.edit("p1", chosen="quite another answer")
    bench.wait(10)
    asked = {name: count - before[name] for name, count in models.counts().items()}
    assert set(asked.values()) == {1}


def test_edits_reach_every_kind_of_field_and_are_one_change(bench: Bench) -> None:
    bench.edit("p1", chosen="new", alpha=0.9, attributes={"age": 77, "gender": None})
    pair = bench.data["p1"]
    assert (pair.chosen_text, pair.alpha) == ("new", 0.9)
    assert (pair.attributes["age"], pair.attributes["gender"]) == (77, None)
    assert bench.undo()
    assert bench.data == some_pairs()
    assert bench.redo()
    assert bench.data["p1"] == pair


def test_swap_flip_add_and_delete(bench: Bench) -> None:
    before = bench.data["p2"]
    bench.swap("p2")
    assert bench.data["p2"].chosen_text == before.rejected_text
    assert bench.data["p2"].alpha == pytest.approx(1 - before.alpha)
    bench.flip("p2")
    assert bench.data["p2"].chosen_text == before.chosen_text
    assert bench.data["p2"].alpha == pytest.approx(1 - before.alpha)
    made = bench.add({"pair_id": "mine", "prompt": "q", "chosen": "a", "rejected": "b"})
    assert bench.data.ids()[-1] == made == "mine"
    bench.delete("mine", "p0")
    assert bench.data.ids() == [f"p{i}" for i in range(1, 8)]


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda bench: bench.edit("nosuch", chosen="x"), "nosuch"),
        (lambda bench: bench.edit("p1", chozen="x"), "chozen"),
        (lambda bench: bench.edit("p1", alpha="x"), "alpha"),
        (lambda bench: bench.swap("nosuch"), "nosuch"),
        (lambda bench: bench.add({"prompt": "only"}), "chosen"),
        (lambda bench: setattr(bench, "selected", "nosuch"), "nosuch"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_changed(
    bench: Bench, act: Callable[[Bench], Any], words: str
) -> None:
    version = bench.version
    with pytest.raises(WorkbenchError, match=words):
        act(bench)
    assert bench.data == some_pairs()
    assert (bench.version, bench.selected) == (version, "p0")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["edit", "swap", "flip", "undo", "redo", "delete"]), max_size=8),
       st.integers(1, 7))  # fmt: skip
def test_undoing_everything_brings_back_the_set_as_it_was_opened(
    bench: Bench, moves: list[str], place: int
) -> None:
    acts = {
        "edit": lambda pair: bench.edit(pair, chosen=f"{time.monotonic()}"),
        "swap": lambda pair: bench.swap(pair),
        "flip": lambda pair: bench.flip(pair),
        "delete": lambda pair: bench.delete(pair),
        "undo": lambda pair: bench.undo(),
        "redo": lambda pair: bench.redo(),
    }
    for move in moves:
        if f"p{place}" in bench.data:
            acts[move](f"p{place}")
    while bench.undo():
        pass
    assert bench.data == some_pairs()


# ------------------------------------------------------------------ observing


def test_version_is_seen_to_grow_with_edits_and_with_scores(opened: Opened) -> None:
    bench = opened()
    seen: list[int] = []
    bench.observe(lambda change: seen.append(change["new"]), "version")
    bench.edit("p1", chosen="x y z")
    # The edit is seen before `edit` returns, its score when it comes.
    assert len(seen) >= 1
    bench.wait(10)
    eventually(lambda: len(seen) >= 2)
    assert seen == sorted(seen)


def test_an_observer_that_fails_does_not_stop_the_bench(bench: Bench) -> None:
    def fail(change: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("an observer's own trouble")

    bench.observe(fail, "version")
    bench.edit("p1", chosen="x y z")
    bench.wait(10)
    bench.unobserve(fail, "version")
    bench.edit("p1", chosen="x")
    bench.wait(10)
    assert bench.summary.scored == 8


# ------------------------------------------------------------------ waiting and failing


def test_wait_raises_what_went_wrong_and_retry_goes_on(opened: Opened, models: Models) -> None:
    models.broken.add("default")
    bench = opened(policy="default", reference="default", wait=False)
    with pytest.raises(ModelError, match="default cannot be fetched"):
        bench.wait(10)
    models.broken.clear()
    bench.retry()
    bench.wait(10)
    assert bench.summary.scored == 8


def test_wait_gives_up_after_its_timeout_and_says_how_far_it_is(
    opened: Opened, models: Models
) -> None:
    models["default"].gate = threading.Semaphore(1)
    bench = opened(policy="default", reference="default", wait=False)
    with pytest.raises(BenchError, match=r"Scoring is not done after 0.3 s"):
        bench.wait(0.3)
    bench.cancel()
    models["default"].gate.release(100)
    with pytest.raises(BenchError, match="Scoring was stopped"):
        bench.wait(10)


def test_other_models_score_anew(bench: Bench, models: Models) -> None:
    before = bench.summary
    bench.use(policy="default")
    bench.wait(10)
    assert bench.models["policy"] == "default"
    assert bench.summary.mean_margin != before.mean_margin
    with pytest.raises(BenchError, match="A model is given as int"):
        bench.use(policy=3)  # type: ignore[arg-type]


# ------------------------------------------------------------------ several


def test_two_benches_keep_apart(opened: Opened) -> None:
    one, other = opened(), opened()
    one.beta, one.selected = 5.0, "p3"
    one.edit("p1", chosen="only here")
    assert (other.beta, other.selected) == (0.1, "p0")
    assert other.data == some_pairs()
    assert one.rewards is not other.rewards


def test_two_benches_of_one_session_share_the_pairs_and_nothing_else(opened: Opened) -> None:
    one = opened()
    other = opened(session=one.session_id)
    one.edit("p1", chosen="here and there")
    other.beta = 3.0
    assert other.data["p1"].chosen_text == "here and there"
    assert one.beta == 0.1
    eventually(lambda: other.version > 0)
    one.close()
    other.edit("p1", chosen="still open")
    other.wait(10)


def test_a_session_is_let_go_with_its_last_bench(opened: Opened) -> None:
    one = opened()
    other = opened(session=one.session_id)
    place, name = one.workspace, one.session_id
    one.close()
    assert place.is_open(name)
    other.close()
    assert not place.is_open(name)
    one.close()  # once more does nothing


def test_a_closed_bench_has_no_thread_and_no_widgets(opened: Opened) -> None:
    bench = opened()
    widget = bench.rewards.widget
    thread = bench._painter._thread
    bench.close()
    thread.join(5)
    assert not thread.is_alive()
    assert widget.comm is None


def test_a_bench_that_was_never_shown_is_not_kept_alive(opened: Opened, place: Any) -> None:
    from workbench.bench import open_bench

    bench = open_bench(some_pairs(), within=place)
    bench.wait(10)
    gone, painter = weakref.ref(bench), bench._painter
    del bench
    painter.ask()
    eventually(lambda: gc.collect() >= 0 and gone() is None)


# ------------------------------------------------------------------ the painter


def test_many_requests_are_painted_together_and_the_last_is_never_lost() -> None:
    class Canvas:
        wanted = painted = times = 0

        def paint(self) -> bool:
            self.times += 1
            self.painted = self.wanted
            return False

    canvas = Canvas()
    painter = Painter(canvas.paint)
    for value in range(1, 2001):
        canvas.wanted = value
        painter.ask()
    eventually(lambda: canvas.painted == 2000)
    assert canvas.times < 200
    painter.close()


def test_painting_that_fails_is_tried_again_at_the_next_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Canvas:
        times = 0

        def paint(self) -> bool:
            self.times += 1
            if self.times == 1:
                raise RuntimeError("not today")
            return False

    canvas = Canvas()
    painter = Painter(canvas.paint)
    painter.ask()
    eventually(lambda: canvas.times == 1)
    time.sleep(0.1)
    painter.ask()
    eventually(lambda: canvas.times == 2)
    assert "a view could not be painted" in caplog.text
    painter.close()


def test_apply_takes_edits_of_the_data_package(bench: Bench) -> None:
    bench.apply([SetField("p1", "chosen", "one"), SetField("p2", "chosen", "two")])
    assert [bench.data[each].chosen_text for each in ("p1", "p2")] == ["one", "two"]
    with pytest.raises(DataError):
        bench.apply([SetField("p1", "chosen", "three"), SetField("nosuch", "chosen", "four")])
    assert bench.data["p1"].chosen_text == "one"

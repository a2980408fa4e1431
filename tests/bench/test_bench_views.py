"""Every view: its numbers, its live parts, and what it leaves in a notebook."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from browser_support import eventually
from fake_models import Models, some_pairs

from workbench.bench import Bench, BenchError
from workbench.bench.fairness import FairnessView
from workbench.bench.view import BenchView
from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.metrics.dependence import distance_covariance_sq
from workbench.views.export import read_export

HOSTILE = "<img src=x onerror=alert(1)>"
Opened = Callable[..., Bench]
VIEWS = ("pairs", "rewards", "ranking", "did", "fairness", "attribution", "train")
AT_ONCE = tuple(name for name in VIEWS if name != "attribution")
"""Attribution asks the models, which the fakes are not."""


def view_of(bench: Bench, name: str) -> BenchView:
    found = getattr(bench, name)
    assert isinstance(found, BenchView)
    return found


# ------------------------------------------------------------------ one's own analysis


@pytest.mark.parametrize("name", AT_ONCE)
def test_a_view_gives_a_frame_tensors_and_plotly_figures(bench: Bench, name: str) -> None:
    view = view_of(bench, name)
    assert view is getattr(bench, name)
    frame, tensors, drawn = view.frame(), view.tensors(), view.figures()
    assert frame.columns.is_unique
    assert all(torch.is_tensor(each) for each in tensors.values())
    assert all(isinstance(each, go.Figure) for each in drawn.values())
    assert list(drawn) == list(view.drawings())


@pytest.mark.parametrize("name", ["pairs", "rewards", "ranking", "fairness"])
def test_a_frame_has_one_row_a_pair_under_its_id(bench: Bench, name: str) -> None:
    assert view_of(bench, name).frame().index.tolist() == bench.data.ids()


def test_the_did_frame_has_one_row_a_prompt(bench: Bench) -> None:
    frame = bench.did.frame()
    assert frame["prompt"].tolist() == [f"question {i}" for i in range(4)]
    assert frame.index.tolist() == ["p0", "p2", "p4", "p6"]
    assert (frame["entropy"] <= np.log(frame["size"]) + 1e-12).all()


def test_rewards_are_beta_times_the_log_ratio(bench: Bench) -> None:
    scores, frame = bench.session.snapshot().scores, bench.rewards.frame()
    expected = bench.beta * (scores.policy_chosen - scores.reference_chosen)
    assert frame["chosen"].to_numpy() == pytest.approx(expected.numpy())
    assert (frame["margin"] == frame["chosen"] - frame["rejected"]).all()


def test_the_pairs_frame_joins_data_and_live_values(bench: Bench) -> None:
    frame = bench.pairs.frame()
    assert frame["chosen"].tolist() == [pair.chosen_text for pair in bench.data]
    assert frame["margin"].tolist() == bench.rewards.frame()["margin"].tolist()
    assert frame["attributes.age"].tolist() == list(range(20, 28))


def test_a_pair_without_scores_is_nan_among_the_pairs_and_absent_elsewhere(opened: Opened) -> None:
    pairs = [*some_pairs(4), PreferencePair(pair_id="bad", prompt="q", chosen="NAN", rejected="b")]
    bench = opened(pairs)
    assert bench.pairs.frame()["margin"].isna().tolist() == [False] * 4 + [True]
    assert "bad" not in bench.rewards.frame().index
    assert len(bench.ranking.tensors()["correct"]) == 4


def test_dependences_agree_with_the_metric_on_the_frame(bench: Bench) -> None:
    bench.beta = 0.7
    frame, found = bench.fairness.frame(), bench.fairness.dependences()
    outcome = torch.tensor(frame["outcome"].to_numpy())
    age = bench.fairness.tensors()["attribute.age"]
    expected = float(distance_covariance_sq(outcome, age))
    assert found.loc["age", "distance_covariance_sq"] == pytest.approx(expected)
    assert found.index.tolist() == ["age", "gender", "race"]


def test_the_permutation_test_waits_for_its_answer(bench: Bench) -> None:
    found = bench.fairness.permutation_test(permutations=99)
    assert 1 / 100 <= found.p_value <= 1
    bench.change(attributes=())
    with pytest.raises(ValueError, match="0 attributes are chosen"):
        bench.fairness.permutation_test(permutations=99)


def test_the_ranking_curve_is_the_one_that_is_drawn(bench: Bench) -> None:
    curve = bench.ranking.curve()
    assert len(curve) == 121
    assert curve["accuracy"].between(0, 1).all()
    assert bench.ranking.tensors()["curve"].tolist() == curve["accuracy"].tolist()


def test_tensors_are_copies_that_nobody_else_reads(bench: Bench) -> None:
    tensors = bench.rewards.tensors()
    for each in tensors.values():
        each.zero_()
    assert bench.rewards.frame()["margin"].abs().min() > 0


def test_a_figure_is_saved_with_its_data_and_the_benchs_state(bench: Bench, tmp_path: Any) -> None:
    bench.beta = 0.3
    path = bench.rewards.save(tmp_path / "margins.png", "Margin against length")
    figure, state = read_export(path)
    assert figure.title == "Margin against length"
    assert state["beta"] == "0.3"
    with pytest.raises(BenchError, match=r"There is no figure 'nosuch'; there are Reward margins"):
        bench.rewards.save(tmp_path / "a.png", "nosuch")


def test_a_question_about_a_pair_names_what_is_missing(bench: Bench) -> None:
    with pytest.raises(Exception, match="nosuch"):
        bench.attribution.of("nosuch")
    bench.selected = ""
    with pytest.raises(BenchError, match=r"No pair is selected; set bench.selected"):
        bench.did.by_token()


# ------------------------------------------------------------------ the live view


def test_a_live_view_follows_beta_edits_and_the_selection(bench: Bench) -> None:
    view = bench.rewards
    view.widget  # noqa: B018 - builds it
    strip, scatter = view._strip, view._plots[1]
    before = strip.value
    bench.beta = 0.9
    eventually(lambda: strip.value != before)
    before, sent = strip.value, scatter.live.buffer
    bench.edit("p1", chosen="quite another answer to this")
    eventually(lambda: strip.value != before and scatter.live.buffer != sent)
    bench.selected = "p5"
    eventually(lambda: scatter.live.selected == scatter.figure.point_of(5))


def test_a_point_that_is_picked_selects_its_pair_in_every_view(bench: Bench) -> None:
    for name in AT_ONCE:
        view_of(bench, name).widget  # noqa: B018 - builds it
    scatter = bench.rewards._plots[1]
    place = next(i for i, each in enumerate(scatter.figure.layers) if each.kind == "points")
    at = scatter.figure.point_of(6)
    live = scatter.live
    live.selection = {"generation": live.generation, "layer": place, "index": at}
    assert bench.selected == "p6"
    eventually(lambda: bench.pairs.editor.detail.get("pair_id") == "p6")
    flip = bench.ranking._plots[1]
    eventually(lambda: flip.live.selected == flip.figure.point_of(6))


def test_a_pick_of_numbers_that_are_gone_is_passed_over(bench: Bench) -> None:
    bench.rewards.widget  # noqa: B018 - builds it
    live = bench.rewards._plots[1].live
    live.selection = {"generation": live.generation - 1, "layer": 1, "index": 3}
    assert bench.selected == "p0"


def send(bench: Bench, trait: str, **request: Any) -> None:
    """What the editor in the page does."""
    editor = bench.pairs.editor
    setattr(editor, trait, {"seq": editor.acknowledged + 1, **request})


def test_an_edit_in_the_table_is_in_the_rows_before_it_is_acknowledged(bench: Bench) -> None:
    bench.pairs.widget  # noqa: B018 - builds it
    editor = bench.pairs.editor
    order: list[str] = []
    editor.observe(lambda change: order.append("rows"), "rows")
    editor.observe(lambda change: order.append("acknowledged"), "acknowledged")
    send(bench, "edit", pair_id="p1", field="chosen", value="written in the page")
    assert order.index("rows") < order.index("acknowledged")
    assert bench.data["p1"].chosen_text == "written in the page"
    assert editor.rows[1]["chosen"] == "written in the page"
    assert editor.can_undo


def test_a_refused_edit_is_told_beside_the_field_and_changes_nothing(bench: Bench) -> None:
    bench.pairs.widget  # noqa: B018 - builds it
    send(bench, "edit", pair_id="p1", field="alpha", value="much")
    assert "give a number" in bench.pairs.editor.rejected_edit["message"]
    assert bench.data == some_pairs()


def test_the_tables_commands_change_the_pairs(bench: Bench) -> None:
    bench.pairs.widget  # noqa: B018 - builds it
    send(bench, "command", name="swap", pair_ids=["p2"])
    assert bench.data["p2"].chosen_text == "bad answer 2"
    send(bench, "command", name="undo")
    assert bench.data == some_pairs()
    send(bench, "command", name="redo")
    send(bench, "command", name="delete", pair_ids=["p2", "p3"])
    assert len(bench.data) == 6
    send(bench, "command", name="add", pair_ids=["p1"])
    assert bench.selected == "new-7"
    send(bench, "command", name="check_all")
    assert len(bench.pairs.editor.checked) == 7
    send(bench, "command", name="delete", pair_ids=[])
    assert "No pair is selected" in bench.pairs.editor.rejected_edit["message"]


def test_the_table_answers_queries_and_shares_the_selection(bench: Bench) -> None:
    bench.pairs.widget  # noqa: B018 - builds it
    editor = bench.pairs.editor
    editor.query = {"text": "number 5", "offset": 0, "limit": 10}
    assert [row["pair_id"] for row in editor.rows] == ["p5"]
    assert (editor.matching, editor.total) == (1, 8)
    editor.selected = "p5"
    assert bench.selected == "p5"
    bench.selected = "p2"
    eventually(lambda: editor.selected == "p2")


def test_controls_of_several_views_follow_one_setting(bench: Bench) -> None:
    from ipywidgets import SelectionSlider

    def slider(name: str) -> Any:
        stack = [view_of(bench, name).widget]
        while stack:
            each = stack.pop()
            if isinstance(each, SelectionSlider) and each.description == "β":
                return each
            stack += getattr(each, "children", ())
        raise AssertionError(f"{name} has no slider of beta")

    one, other = slider("rewards"), slider("fairness")
    one.value = 1.0
    assert (bench.beta, other.value) == (1.0, 1.0)
    bench.beta = 0.123  # not among the values on offer
    assert (one.value, other.value) == (0.123, 0.123)


def test_attributes_are_chosen_by_boxes(bench: Bench) -> None:
    view: FairnessView = bench.fairness
    view.widget  # noqa: B018 - builds it
    view._boxes["age"].value = False
    assert bench.settings.attributes == ("gender", "race")
    bench.change(attributes=("race",))
    eventually(lambda: not view._boxes["gender"].value)
    eventually(lambda: view._show.value == "race")


def test_grouping_is_shared_and_colours_the_figures(bench: Bench) -> None:
    bench.rewards.widget  # noqa: B018 - builds it
    bench.group_by = "gender"
    labels = bench.rewards.drawings()["Reward margins"].layers[0].labels
    assert labels == ("f", "m")


def test_progress_and_refusals_are_told_in_every_view(opened: Opened, models: Models) -> None:
    models["default"].gate = threading.Semaphore(1)
    bench = opened(policy="default", reference="default", wait=False)
    bench.ranking.widget  # noqa: B018 - builds it
    eventually(lambda: "scoring answers" in bench.ranking._notice.value)
    models["default"].gate.release(100)
    bench.wait(10)
    eventually(lambda: bench.ranking._notice.value == "")
    bench.attempt(lambda: bench.change(beta=-1))
    eventually(lambda: "beta is -1" in bench.ranking._notice.value)


def test_pairs_not_to_be_taken_at_face_value_are_named(opened: Opened) -> None:
    pairs = [*some_pairs(3), PreferencePair(pair_id="same", prompt="q", chosen="a", rejected="a")]
    bench = opened(pairs)
    bench.rewards.widget  # noqa: B018 - builds it
    assert "identical answers, whose margin is always 0 (same)" in bench.rewards._notice.value


def test_ten_views_of_two_benches_live_beside_one_another(opened: Opened) -> None:
    one, other = opened(), opened()
    shown = [view_of(each, name) for each in (one, other) for name in AT_ONCE[:5]]
    for view in shown:
        view.widget  # noqa: B018 - builds it
    before = {view: view._strip.value for view in shown}
    one.beta = 2.5
    eventually(lambda: all(view._strip.value != before[view] for view in shown[:5]))
    assert all(view._strip.value == before[view] for view in shown[5:])


def test_edits_from_three_threads_leave_every_view_with_the_last_word(bench: Bench) -> None:
    for name in AT_ONCE:
        view_of(bench, name).widget  # noqa: B018 - builds it

    def edit(place: int) -> None:
        for turn in range(10):
            bench.edit(f"p{place}", chosen=f"answer {turn} of {place}")

    threads = [threading.Thread(target=edit, args=(place,)) for place in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for step in range(20):
        bench.beta = 0.1 + step / 10
    for thread in threads:
        thread.join()
    bench.wait(10)
    rows = bench.pairs.editor
    eventually(lambda: [rows.rows[p]["chosen"] for p in (1, 2, 3)]
               == [f"answer 9 of {p}" for p in (1, 2, 3)])  # fmt: skip
    expected = bench.rewards.frame()["margin"].iloc[1]
    eventually(lambda: rows.rows[1]["margin"] == pytest.approx(expected))


# ------------------------------------------------------------------ without a kernel


@pytest.mark.parametrize("name", VIEWS)
def test_a_displayed_view_is_a_widget_a_picture_and_a_page(
    bench: Bench, name: str, published: list[dict[str, Any]]
) -> None:
    view_of(bench, name)._ipython_display_()
    widget, picture, page = (each["data"] for each in published)
    assert "application/vnd.jupyter.widget-view+json" in widget
    assert picture["image/png"].startswith("iVBOR")
    assert "workbench-still" in page["text/html"]
    assert "<script" not in page["text/html"]
    assert "Reward margin, mean" in page["text/html"]


@pytest.mark.parametrize("name", VIEWS)
def test_a_page_holds_picture_and_values_and_asks_nobody(bench: Bench, name: str) -> None:
    page = view_of(bench, name).to_html()
    assert page.count("<svg") == 1
    assert "<script" not in page
    assert "src=" not in page
    assert 'href="http' not in page


def test_the_pictures_follow_what_is_changed(bench: Bench, published: list[dict[str, Any]]) -> None:
    bench.rewards.show()
    shown = {each["display_id"] for each in published if each["display_id"]}
    assert len(shown) == 2
    bench.beta = 3.0
    eventually(lambda: sum(each["update"] for each in published) == 2)
    updated = [each for each in published if each["update"]]
    assert {each["display_id"] for each in updated} == shown
    assert updated[0]["data"]["image/png"] != published[1]["data"]["image/png"]


def test_the_pictures_of_a_closed_bench_stay_as_they_are(
    bench: Bench, published: list[dict[str, Any]]
) -> None:
    bench.rewards.show()
    bench.beta = 3.0
    bench.close()
    count = len(published)
    threading.Event().wait(1.5)
    assert len(published) == count


def hostile_pairs() -> PreferenceSet:
    return PreferenceSet(
        HOSTILE,
        [
            PreferencePair(
                pair_id=f"{HOSTILE}{i}", prompt=HOSTILE, chosen=f"{HOSTILE} {i}",
                rejected=f"worse {HOSTILE} {i}", attributes={HOSTILE: f"{HOSTILE}{i % 2}"},
            )
            for i in range(12)
        ],
    )  # fmt: skip


def html_values(widget: Any) -> list[str]:
    """All texts that the front end reads as HTML."""
    from ipywidgets import HTML

    inner = [text for each in getattr(widget, "children", ()) for text in html_values(each)]
    return [widget.value, *inner] if isinstance(widget, HTML) else inner


@pytest.mark.parametrize("name", VIEWS)
def test_hostile_texts_are_escaped_in_page_and_widgets(opened: Opened, name: str) -> None:
    bench = opened(hostile_pairs())
    bench.group_by = HOSTILE
    bench.message = HOSTILE
    view = view_of(bench, name)
    assert "<img" not in view.to_html()
    assert not [text for text in html_values(view.widget) if "<img" in text]
    if name in ("pairs", "ranking", "fairness"):
        assert "&lt;img" in view.to_html()


def test_the_check_of_hostile_texts_sees_a_listing_that_forgets_to_escape(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = opened(hostile_pairs())
    monkeypatch.setattr("workbench.views.markup.html.escape", lambda text, quote=True: text)
    assert "<img" in bench.pairs.to_html()


def test_a_front_end_with_frames_of_its_own_gets_one_output(
    bench: Bench, published: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VSCODE_PID", "1")
    bench.rewards.show()
    (only,) = published
    assert only["data"].keys() >= {"text/html", "application/vnd.jupyter.widget-view+json"}

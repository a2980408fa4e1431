import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from workbench.engine.training import Branch
from workbench.objectives.catalogue import OBJECTIVES
from workbench.training.history import PairEvaluation, StepRecord, Transitions
from workbench.training.plan import TrainingPlan
from workbench.views import training_figures as figures
from workbench.views.figure import Band, Figure, Line, Points, Rule
from workbench.views.training_figures import Calibrated, View

CURVES: dict[str, Callable[[View], Figure]] = {
    name: getattr(figures, name)
    for name in (
        "loss", "rewards", "margin", "accuracy", "displacement", "did_entropy", "kl",
        "dependence", "gradient_norm", "transitions",
    )
}  # fmt: skip


def record(step: int, **more: Any) -> StepRecord:
    values = {
        "loss": 0.7 / step, "grad_norm": 1.5, "chosen_reward": 0.1 * step, "rejected_reward": -0.2,
        "reward_margin": 0.1 * step + 0.2, "reward_accuracy": 0.75, "ranking_accuracy": 0.5,
        "chosen_shift": 1.0, "rejected_shift": -2.0, "did_entropy": 0.6, "kl": 0.01 * step,
        "dependence": -0.01, "transitions": Transitions(0.5, 0.25, 0.125, 0.125), "seconds": 1.0,
    }  # fmt: skip
    return StepRecord(step=step, **{**values, **more})


def branch(number: int, records: list[StepRecord], forked_at: int = 0, **more: Any) -> Branch:
    last = records[-1].step if records else forked_at
    fields: dict[str, Any] = {
        "branch_id": f"b{number}", "name": f"run {number}", "forked_at": forked_at,
        "parent": None if number == 1 else "b1", "plan": TrainingPlan(),
        "records": tuple(records), "kept": (forked_at, last), "step": last,
    }  # fmt: skip
    return Branch(**{**fields, **more})


def one(steps: int = 6, **more: Any) -> View:
    return View([branch(1, [record(step, **more) for step in range(1, steps + 1)])], "b1", steps)


def two() -> View:
    first = branch(1, [record(step) for step in range(1, 9)])
    second = branch(2, [record(step, loss=0.1) for step in range(5, 8)], forked_at=4)
    return View([first, second], "b2", 7)


def lines(figure: Figure) -> list[Line]:
    return [each for each in figure.layers if isinstance(each, Line) and len(each)]


def rules(figure: Figure) -> list[Rule]:
    return [each for each in figure.layers if isinstance(each, Rule) and each.along == "x"]


@pytest.mark.parametrize("name", CURVES)
def test_every_curve_names_its_axes_with_units_and_can_be_exported(name: str) -> None:
    for view in (one(), two(), one(1), one(40)):
        figure = CURVES[name](view)
        assert not figure.is_blank
        assert figure.x.unit
        assert figure.y.unit
        assert Figure.from_json(figure.to_json()).table().equals(figure.table())
        assert len(figure.to_live().spec["layers"]) == len(figure.layers)


@pytest.mark.parametrize("name", CURVES)
def test_before_the_first_step_every_curve_says_what_to_do(name: str) -> None:
    for view in (View(), View([branch(1, [])], "b1", 0)):
        figure = CURVES[name](view)
        assert figure.is_blank
        assert len(figure.empty) > 10


def test_a_lone_branch_shows_its_values_at_its_steps() -> None:
    chosen, rejected = lines(figures.rewards(one()))
    assert chosen.x.tolist() == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(chosen.y, 0.1 * chosen.x)
    assert rejected.y.tolist() == [-0.2] * 6
    assert (chosen.name, rejected.name) == ("chosen", "rejected")
    assert chosen.dash != rejected.dash


def test_what_was_not_measured_is_left_out_and_the_line_goes_on() -> None:
    records = [record(step) for step in range(1, 7)]
    records[2] = replace(records[2], loss=math.nan)
    records[4] = replace(records[4], held_out_loss=0.4)
    batch, held = lines(figures.loss(View([branch(1, records)], "b1", 6)))
    assert batch.x.tolist() == [1, 2, 4, 5, 6]
    assert (held.x.tolist(), held.y.tolist()) == ([5], [0.4])


def test_a_branch_begins_where_it_left_and_is_told_apart_by_its_colour() -> None:
    view = two()
    first, second = lines(figures.gradient_norm(view))
    assert (first.x[0], first.x[-1]) == (1, 8)
    assert (second.x[0], second.x[-1]) == (4, 7)
    assert first.token(0) != second.token(0)
    assert (first.name, second.name) == ("run 1", "run 2")
    assert second.width > first.width
    drawn = figures.rewards(view)
    key = [each for each in drawn.layers if isinstance(each, Line) and not len(each)]
    assert [each.name for each in key] == ["chosen", "rejected"]


def test_a_branch_of_a_branch_begins_at_the_step_of_its_oldest_ancestor() -> None:
    first = branch(1, [record(1), record(2)])
    second = branch(2, [], forked_at=2)
    third = branch(3, [record(3)], forked_at=2, parent="b2")
    view = View([first, second, third], "b3", 3)
    assert [each.step for each in view.history(third)] == [1, 2, 3]
    assert [each.step for each in view.joined(third)] == [2, 3]


def test_edits_and_changes_are_ruled_where_they_took_effect_on_the_way_to_the_active_branch() -> (
    None
):
    first = [
        record(step, event="beta 0.1 -> 0.5" if step in (2, 6) else "") for step in range(1, 9)
    ]
    second = branch(2, [record(5), record(6, event="edited 1 pair")], forked_at=4)
    view = View([branch(1, first), second], "b2", 6)
    assert [each.at for each in rules(figures.loss(view))] == [2, 6]
    assert [each.at for each in rules(figures.loss(replace(view, active="b1", at=8)))] == [2, 6]
    plain = View([branch(1, [record(1), record(2)])], "b1", 2)
    assert rules(figures.loss(plain)) == []


def test_a_rewound_policy_is_ruled_where_it_stands() -> None:
    (now,) = rules(figures.loss(replace(one(), at=3)))
    assert (now.at, now.name) == (3, "now: step 3")
    (now,) = rules(figures.margin(replace(one(), at=3)))
    assert (now.at, now.name) == (3, "")


def test_the_four_transitions_fill_the_whole_height_at_every_step() -> None:
    bands = [each for each in figures.transitions(one(15)).layers if isinstance(each, Band)]
    heights = np.array([each.y1 - each.y0 for each in bands])
    np.testing.assert_allclose(heights[:, -1], [0.5, 0.25, 0.125, 0.125])
    np.testing.assert_allclose(heights.sum(axis=0), 1.0)
    for below, above in itertools.pairwise(bands):
        np.testing.assert_allclose(below.y1, above.y0)
    assert bands[0].y0.tolist() == [0.0] * 15


def test_a_noisy_curve_is_shown_with_the_mean_of_its_last_ten_steps() -> None:
    records = [record(step, loss=float(step % 2)) for step in range(1, 41)]
    raw, mean = lines(figures.loss(View([branch(1, records)], "b1", 40)))
    assert set(raw.y.tolist()) == {0.0, 1.0}
    assert raw.opacity is not None
    assert raw.opacity < 0.5
    assert mean.y[0] == raw.y[0]
    np.testing.assert_allclose(mean.y[9:], 0.5)


def test_the_penalty_is_drawn_where_there_is_one() -> None:
    assert "fairness penalty" in [each.name for each in lines(figures.loss(one(penalty=0.2)))]
    assert "fairness penalty" not in [each.name for each in lines(figures.loss(one()))]


def test_a_long_run_is_thinned_and_keeps_its_last_step() -> None:
    records = [record(step) for step in range(1, 10_001)]
    (line,) = lines(figures.kl(View([branch(1, records)], "b1", 10_000)))
    assert len(line) < 2_000
    assert line.x[-1] == 10_000


def test_only_exact_policies_are_promised_a_kl() -> None:
    figure = figures.kl(one(kl=math.nan))
    assert figure.is_blank
    assert "exactly" in figure.empty


# ------------------------------------------------------------------ comparison


def evaluation(policy_chosen: list[float], policy_rejected: list[float]) -> PairEvaluation:
    count = len(policy_chosen)
    zero = torch.zeros(count, dtype=torch.float64)
    return PairEvaluation(
        tuple(f"p{place}" for place in range(count)), 0.5,
        torch.tensor(policy_chosen, dtype=torch.float64),
        torch.tensor(policy_rejected, dtype=torch.float64), zero, zero, zero + 5, zero + 5,
    )  # fmt: skip


def test_two_moments_are_compared_pair_by_pair_and_points_lead_to_their_pairs() -> None:
    first, second = evaluation([1, -1, 1, -1], [0, 0, 0, 0]), evaluation([2, 3, -1, -2], [0] * 4)
    figure = figures.margins_compared(first, second, ("a", "b"), np.array([7, 3, 5, 1]))
    (points,) = [each for each in figure.layers if isinstance(each, Points)]
    assert points.x.tolist() == [0.5, -0.5, 0.5, -0.5]
    assert points.y.tolist() == [1.0, 1.5, -0.5, -1.0]
    assert points.group is not None
    assert [points.labels[code] for code in points.group] == [
        "stays right", "becomes right", "becomes wrong", "stays wrong",
    ]  # fmt: skip
    assert [figure.row_at(figure.layers.index(points), place) for place in range(4)] == [7, 3, 5, 1]
    assert figure.point_of(3) == 1


def test_log_ratios_lie_in_the_quadrant_of_their_transition() -> None:
    first, second = evaluation([1, -1, 1, -1], [0, 0, 0, 0]), evaluation([2, 3, -1, -2], [0] * 4)
    figure = figures.log_ratios_compared(first, second, ("a", "b"), np.arange(4))
    (points,) = [each for each in figure.layers if isinstance(each, Points)]
    assert points.x.tolist() == [1, -1, 1, -1]
    assert points.y.tolist() == [2, 3, -1, -2]
    assert points.group is not None
    assert points.group.tolist() == [0, 1, 2, 3]
    assert figure.x.unit == "nats"


def test_the_largest_movers_come_first_and_unknown_ones_not_at_all() -> None:
    first = evaluation([0, 0, 0, 0], [0, 0, 0, 0])
    second = evaluation([1, -4, math.nan, 2], [0, 0, 0, 0])
    assert figures.largest_movers(first, second, 8) == [1, 3, 0]
    assert figures.largest_movers(first, second, 1) == [1]


def test_nothing_to_compare_is_drawn_without_an_error() -> None:
    nothing = evaluation([], [])
    figure = figures.margins_compared(nothing, nothing, ("a", "b"), np.empty(0, np.int64))
    assert figure.is_blank


# ------------------------------------------------------------------ calibration


@pytest.mark.parametrize("measure", figures.MEASURES)
def test_calibration_draws_one_point_a_branch_in_the_order_of_lambda(measure: str) -> None:
    found = [
        Calibrated("b", 5.0, 0, "series1", 0.02, 0.1, 0.7),
        Calibrated("a", 0.0, 0, "series0", 0.30, 0.4, 0.8),
    ]
    bought = figures.unfairness_against_weight(found, measure)
    paid = figures.accuracy_against_unfairness(found, measure)
    path, points = bought.layers
    assert isinstance(path, Line)
    assert isinstance(points, Points)
    assert path.x.tolist() == [0.0, 5.0]
    assert points.labels == ("b: λ 5, seed 0", "a: λ 0, seed 0")
    assert paid.y.unit == "share of pairs"
    assert bought.y.title == paid.x.title
    assert figures.unfairness_against_weight([], measure).is_blank


# ------------------------------------------------------------------ objectives


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_has_a_curve_whose_slope_is_its_derivative(name: str) -> None:
    objective = OBJECTIVES[name]
    (loss,) = lines(figures.objective_loss(objective, objective.defaults))
    (slope,) = lines(figures.objective_slope(objective, objective.defaults))
    assert np.isfinite(loss.y).all()
    # The trapezium rule over the slope gives the loss back, but for the bends of the curve.
    rise = np.cumsum((slope.y[1:] + slope.y[:-1]) / 2 * np.diff(slope.x))
    scale = max(float(np.ptp(loss.y)), 1.0)
    np.testing.assert_allclose(loss.y[1:] - loss.y[0], rise, atol=0.05 * scale)

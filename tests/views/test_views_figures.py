import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from workbench.engine.fairness import GroupSummary
from workbench.engine.settings import PAPER_BETAS, Settings
from workbench.engine.values import (
    PairScores,
    RankingTable,
    candidates_of,
    did_table,
    idealized_curve,
    ranking_table,
    reward_table,
)
from workbench.views import figures
from workbench.views.figure import Band, Bars, Figure, Line, Points, Rule

SETTINGS = Settings(beta=0.2)
N = 80


def scores(n: int = N) -> PairScores:
    generator = torch.Generator().manual_seed(3)
    four = 5 * torch.randn(4, n, generator=generator, dtype=torch.float64) - 60
    lengths = torch.randint(3, 50, (2, n), generator=generator).double()
    if n > 4:
        four[0, 4] = math.nan  # Not scored yet.
    return PairScores(*four, *lengths)


def tables(n: int = N, settings: Settings = SETTINGS) -> dict[str, Any]:
    given = scores(n)
    share = torch.full((n,), 0.8, dtype=torch.float64)
    curve = idealized_curve(given, share, settings)
    prompts = [place // 3 for place in range(n)]
    answers = ([f"c{i}" for i in range(n)], [f"r{i}" for i in range(n)])
    return {
        "reward": reward_table(given, settings),
        "curve": curve,
        "ranking": ranking_table(given, share, settings, curve),
        "did": did_table(given, candidates_of(prompts, *answers), settings),
    }


def every_figure(n: int = N) -> dict[str, Figure]:
    held = tables(n)
    reward, ranking, did = held["reward"], held["ranking"], held["did"]
    rows = len(reward.rows)
    groups = [("a", "b", None)[place % 3] for place in range(rows)]
    grid = torch.linspace(-1, 1, 50)
    summaries = [GroupSummary("a", 30, 0.4, 1.0), GroupSummary("b", 4, 0.1, 2.0)] if n else []
    return {
        "histogram": figures.margin_histogram(reward),
        "histogram by group": figures.margin_histogram(reward, groups),
        "ecdf": figures.margin_ecdf(reward, groups),
        "scatter": figures.chosen_against_rejected(reward),
        "length": figures.margin_against_length(reward, groups),
        "idealized": figures.idealized_accuracy(ranking, held["curve"], SETTINGS),
        "flip": figures.loss_against_log_ratio(ranking, SETTINGS),
        "did": figures.did_by_prompt(did),
        "change": figures.entropy_against_change(did),
        "displacement": figures.displacement(did),
        "tokens": figures.token_series({"chosen": [1.0] * n, "rejected": []}, "DID", "nats"),
        "densities": figures.group_densities(grid, torch.ones(2, 50), ["a", "b"], "margin")
        if n
        else figures.group_densities(None, None, [], "margin"),
        "attribute": figures.outcome_against_attribute(
            reward.margin, np.arange(rows), "age", reward.rows, "margin"
        ),
        "means": figures.group_means(summaries, 0.1, "margin"),
    }


def layer(figure: Figure, kind: type, place: int = 0) -> Any:
    return [each for each in figure.layers if isinstance(each, kind)][place]


def test_every_figure_names_its_axes_with_units_and_survives_json() -> None:
    for name, figure in every_figure().items():
        assert not figure.is_blank, name
        for axis in (figure.x, figure.y):
            assert axis.label, name
            assert axis.unit, name
        assert Figure.from_json(figure.to_json()).table().equals(figure.table()), name
        payload = figure.to_live()
        assert len(payload.spec["layers"]) == len(figure.layers)


def test_without_pairs_every_figure_says_what_to_do() -> None:
    for name, figure in every_figure(0).items():
        assert figure.is_blank, name
        assert len(figure.empty) > 10, name
        assert figure.to_live().spec["empty"] == figure.empty


def test_one_pair_is_drawn() -> None:
    for name, figure in every_figure(1).items():
        assert not figure.is_blank, name


def test_points_lead_to_the_pairs_that_they_stand_for() -> None:
    held = tables()
    made = every_figure()
    names = ("ecdf", "scatter", "length", "flip", "displacement", "attribute")
    for name in names:
        points = layer(made[name], Points)
        at = made[name].layers.index(points)
        found = [made[name].row_at(at, place) for place in range(len(points))]
        assert sorted(found) == held["reward"].rows.tolist(), name
        assert 4 not in found
        assert all(made[name].point_of(row) == place for place, row in enumerate(found))
    scatter = layer(made["scatter"], Points)
    chosen = dict(zip(held["reward"].rows.tolist(), held["reward"].chosen.tolist(), strict=True))
    assert [chosen[row] for row in scatter.rows.tolist()] == scatter.y.tolist()


def test_any_pair_of_a_prompt_marks_its_prompt() -> None:
    for name in ("did", "change"):
        figure = every_figure()[name]
        for row in (0, 1, 2):
            assert figure.point_of(row) == figure.point_of(0)
        assert figure.point_of(3) != figure.point_of(0)


def test_the_histogram_counts_every_pair_once_with_zero_as_an_edge() -> None:
    reward = tables()["reward"]
    groups = [("a", None)[place % 2] for place in range(len(reward.rows))]
    for given in (None, groups):
        figure = figures.margin_histogram(reward, given)
        bars = layer(figure, Bars)
        assert bars.height.sum() == len(reward.rows)
        assert 0.0 in bars.x0
        assert figure.domain("y")[1] >= (bars.height + bars.y0).max()  # type: ignore[index]
    below = figures.margin_histogram(reward)
    bars = layer(below, Bars)
    assert bars.height[bars.group == 1].sum() == int((reward.margin < 0).sum())
    assert bool((bars.x1[bars.group == 1] <= 0).all())


@pytest.mark.parametrize("margin", [[0.0], [2.5], [1.0, 1.0, 1.0], [1e-300, 1e300], [-1.0, -1.0]])
def test_odd_margins_have_bins(margin: list[float]) -> None:
    zeros = torch.zeros(len(margin), dtype=torch.float64)
    given = torch.tensor(margin, dtype=torch.float64)
    places = torch.arange(len(margin))
    reward = dataclasses.replace(
        tables()["reward"], rows=places, margin=given, chosen=given, rejected=zeros,
        accuracy=zeros, length_difference=zeros,
    )  # fmt: skip
    bars = layer(figures.margin_histogram(reward), Bars)
    assert bars.height.sum() == len(margin)
    assert len(bars) <= 100


def test_the_ecdf_is_the_share_of_pairs_at_most_there() -> None:
    reward = tables()["reward"]
    groups = [("a", "b")[place % 2] for place in range(len(reward.rows))]
    points = layer(figures.margin_ecdf(reward, groups), Points)
    margin = reward.margin.numpy()
    for code in (0, 1):
        own = margin[code::2]
        inside = points.group == code
        expected = [(own <= value).mean() for value in points.x[inside]]
        np.testing.assert_allclose(points.y[inside], expected)


def right_below_the_curve(draw: Callable[[RankingTable, Settings], Figure]) -> bool:
    """Whether the drawn curve parts the pairs ranked right from those ranked wrong."""
    settings = Settings(beta=0.3, gamma=0.7)
    figure = draw(tables(settings=settings)["ranking"], settings)
    points, line = layer(figure, Points), layer(figure, Line)
    curve = np.interp(points.x, line.x, line.y)
    clear = np.abs(points.y - curve) > 0.05
    return bool(((points.y < curve) == (points.group == 0))[clear].all())


def test_the_flip_curve_parts_right_from_wrong() -> None:
    assert right_below_the_curve(figures.loss_against_log_ratio)


def test_a_flip_curve_without_gamma_would_not() -> None:
    def sabotaged(table: RankingTable, settings: Settings) -> Figure:
        curve = figures.loss_against_log_ratio(table, settings.replaced(gamma=0.0)).layers[-1]
        true = figures.loss_against_log_ratio(table, settings)
        return dataclasses.replace(true, layers=(*true.layers[:-1], curve))

    assert not right_below_the_curve(sabotaged)


def test_the_idealized_curve_stands_beside_r_and_the_reference() -> None:
    held = tables()
    figure = figures.idealized_accuracy(held["ranking"], held["curve"], SETTINGS)
    line, points = layer(figure, Line), layer(figure, Points)
    np.testing.assert_array_equal(line.y, held["curve"].accuracy)
    assert points.x.tolist() == list(PAPER_BETAS)
    rules = {each.name: each.at for each in figure.layers if isinstance(each, Rule)}
    assert rules["R, policy"] == float(held["ranking"].correct.mean())
    assert rules["R, reference"] == float(held["ranking"].reference_correct.mean())
    assert rules["β = 0.2"] == 0.2
    assert figure.x.scale == "log"
    low, high = (100 * float(each) for each in (held["curve"].grid.min(), held["curve"].grid.max()))
    assert f"min {low:.1f} / median" in figure.note
    assert f"max {high:.1f} %" in figure.note


def test_no_entropy_lies_above_its_bound() -> None:
    figure = figures.did_by_prompt(tables()["did"])
    points, bound = layer(figure, Points), layer(figure, Line)
    assert bool((points.y <= bound.y[::2] + 1e-12).all())
    size = points.details[1].values
    assert bool((np.diff(size) >= 0).all())
    for each in np.unique(size):
        assert bool((np.diff(points.y[size == each]) >= 0).all())


def test_displacement_tells_the_three_cases_apart() -> None:
    did = dataclasses.replace(
        tables()["did"],
        rows=torch.arange(4),
        chosen_shift=torch.tensor([1.0, -1.0, -2.0, 0.0]),
        rejected_shift=torch.tensor([2.0, -3.0, -1.0, 0.0]),
    )
    points = layer(figures.displacement(did), Points)
    assert points.group.tolist() == [0, 1, 2, 0]
    assert "1 displaced" in figures.displacement(did).note


def test_what_is_not_finite_is_left_out_and_counted() -> None:
    reward = tables()["reward"]
    margin = reward.margin.clone()
    margin[3], margin[5] = math.nan, math.inf
    odd = dataclasses.replace(reward, margin=margin)
    for draw in (figures.margin_histogram, figures.margin_ecdf, figures.margin_against_length):
        figure = draw(odd)
        assert "2 without a finite value left out" in figure.note
        assert np.isfinite([*figure.domain("x"), *figure.domain("y")]).all()  # type: ignore[misc]
    tokens = figures.token_series({"a": [1.0, math.nan, 2.0]}, "t", "nats")
    assert "1 token without" in tokens.note
    assert np.isnan(layer(tokens, Line).y).tolist() == [False, True, False]
    means = figures.group_means([GroupSummary("a", 3, math.nan, 1.0)], 1.0, "margin")
    assert means.is_blank
    assert "1 group without" in means.note


def codes_of(groups: Sequence[str | None]) -> list[str]:
    reward = tables()["reward"]
    points = layer(figures.chosen_against_rejected(reward, groups), Points)
    return [points.labels[code] for code in points.group.tolist()]


def test_groups_keep_their_names_and_the_unknown_are_named() -> None:
    groups = [("10", "9", None, "<b>$x$")[place % 4] for place in range(N - 1)]
    assert codes_of(groups) == ["not known" if each is None else each for each in groups]
    figure = figures.chosen_against_rejected(tables()["reward"], groups)
    assert layer(figure, Points).labels == ("9", "10", "<b>$x$", "not known")
    assert layer(figure, Points).colours[-1] == "muted"


def test_many_groups_become_the_largest_and_all_others() -> None:
    groups = [f"g{min(place, 30 + place % 3)}" for place in range(N - 1)]
    shown = codes_of(groups)
    assert len(set(shown)) == 6
    kept = [(a, b) for a, b in zip(groups, shown, strict=True) if b != "all others"]
    assert all(a == b for a, b in kept)
    assert {"g30", "g31", "g32"} <= set(shown)


def test_labels_that_do_not_fit_the_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="one for each"):
        figures.margin_histogram(tables()["reward"], ["a"])


def test_the_length_slope_is_the_least_squares_one() -> None:
    reward = tables()["reward"]
    line = layer(figures.margin_against_length(reward), Line)
    slope, start = np.polyfit(reward.length_difference, reward.margin, 1)
    np.testing.assert_allclose(line.y, start + slope * line.x, atol=1e-12)


def test_group_intervals_are_those_of_t() -> None:
    from scipy import stats

    groups = [GroupSummary("a", 9, 2.0, 3.0), GroupSummary("one", 1, 1.0, math.nan)]
    figure = figures.group_means(groups, -0.5, "margin")
    points, line = layer(figure, Points), layer(figure, Line)
    half = 0.5 * 3.0 / 3 * stats.t.ppf(0.975, 8)
    np.testing.assert_allclose(line.y[:2], [-1 - half, -1 + half])
    assert np.isnan(line.y[3:]).all()
    assert points.y.tolist() == [-1, -0.5]
    assert "fewer than 10 pairs: a, one" in figure.note
    assert figure.x.names == ("1  a", "2  one")


def test_slices_have_the_means_of_their_pairs() -> None:
    x, y = np.arange(40.0), np.arange(40.0) ** 2
    figure = figures.outcome_against_attribute(y, x, "age", np.arange(40), "margin")
    line, band = layer(figure, Line), layer(figure, Band)
    np.testing.assert_allclose(line.y, y.reshape(5, 8).mean(axis=1))
    spread = y.reshape(5, 8).std(axis=1, ddof=1) / np.sqrt(8)
    np.testing.assert_allclose(band.y1 - band.y0, 2 * 1.959964 * spread, rtol=1e-6)


def test_units_follow_the_settings() -> None:
    settings = SETTINGS.replaced(length_normalised=True)
    figure = figures.loss_against_log_ratio(tables(settings=settings)["ranking"], settings)
    assert figure.x.unit == "nats a token"


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_draws_every_figure_and_marks_the_selected_pair(
    theme: str, serve: Any, page: Any
) -> None:
    import panel as pn

    from workbench.views.widgets import LiveFigure

    made = list(every_figure().values())

    def app() -> Any:
        views = []
        for figure in made:
            view, live = LiveFigure(height=300, theme=theme), figure.to_live()
            place = figure.point_of(7)
            view.update(
                live.spec, live.columns, live.buffer, selected=-1 if place is None else place
            )
            views.append(view)
        return pn.GridBox(*views, ncols=2, width=1200)  # type: ignore[no-untyped-call]

    page.goto(serve(app))
    labels = page.locator("canvas.wb-canvas")
    for place in range(len(made)):
        label = "e => e.getAttribute('aria-label')"
        page.wait_for_function(
            "([e]) => e.getAttribute('aria-label')", arg=[labels.nth(place).element_handle()]
        )
        text = labels.nth(place).evaluate(label)
        assert text.startswith(f"{made[place].title}: "), text
        assert "could not be drawn" not in text
    assert page.page_errors == []

import math

import pytest
import torch

from workbench.objectives.bco import RewardShift
from workbench.objectives.catalogue import OBJECTIVES
from workbench.objectives.curves import TYPICAL_PAIR, margin_curve
from workbench.objectives.logps import PairLogps

MARGINS = torch.linspace(-30, 30, 7)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_objective_has_a_curve_whose_gradient_is_its_slope(name: str) -> None:
    objective, step = OBJECTIVES[name], 1e-5
    points = MARGINS + 0.5  # off the hinge's kink
    curve = margin_curve(objective, points)
    above, below = (margin_curve(objective, points.double() + s).loss for s in (step, -step))
    assert curve.margin.tolist() == points.double().tolist()
    assert not curve.loss.requires_grad
    slope = (above - below) / (2 * step)
    torch.testing.assert_close(curve.gradient, slope, rtol=1e-6, atol=1e-8)


def test_the_curve_of_dpo_is_the_logistic_loss() -> None:
    curve = margin_curve(OBJECTIVES["dpo"], MARGINS, beta=0.2)
    z = 0.2 * MARGINS.double()
    torch.testing.assert_close(curve.loss, torch.log1p(torch.exp(-z)))
    torch.testing.assert_close(curve.gradient, -0.2 * torch.sigmoid(-z))


def test_the_margin_starts_from_the_pair_that_is_given(table_pairs: PairLogps) -> None:
    """Pair 2 has d = -7 and m = -5: there the curve meets its own loss."""
    pair = PairLogps(**{k: v[1:2] for k, v in table_pairs.given().items()})
    for name, at in (("nca", -7.0), ("apo_down", -7.0), ("simpo", -5.0), ("kto", -7.0)):
        curve = margin_curve(OBJECTIVES[name], torch.tensor([at]), pair)
        torch.testing.assert_close(curve.loss, OBJECTIVES[name].losses(pair), msg=name)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_the_points_of_a_curve_do_not_see_each_other(name: str) -> None:
    whole = margin_curve(OBJECTIVES[name], MARGINS)
    alone = [margin_curve(OBJECTIVES[name], point) for point in MARGINS.split(1)]
    torch.testing.assert_close(whole.loss, torch.cat([curve.loss for curve in alone]))
    torch.testing.assert_close(whole.gradient, torch.cat([curve.gradient for curve in alone]))


def test_the_state_enters_the_curve() -> None:
    shifted = margin_curve(OBJECTIVES["bco"], torch.zeros(1), shift=RewardShift(1.0, 1)).loss
    assert float(shifted) == pytest.approx(math.log1p(math.e) + math.log1p(1 / math.e))


def test_several_pairs_are_refused(table_pairs: PairLogps) -> None:
    with pytest.raises(ValueError, match="one pair and 4 were given"):
        margin_curve(OBJECTIVES["dpo"], MARGINS, table_pairs)
    assert len(TYPICAL_PAIR) == 1

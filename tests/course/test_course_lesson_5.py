"""What lesson 5's text and quiz say of the objectives, against the objectives themselves."""

import math

import numpy as np
import pytest

from workbench.course.lesson_5 import NAMES, curve, rater_loss

BETA = 0.3


def push(name: str, scaled: float, **settings: float) -> float:
    _, slope = curve(name, np.array([scaled / BETA]), beta=BETA, **settings)
    return float(-slope[0])


def test_only_ipo_pulls_a_confident_pair_back() -> None:
    assert push("ipo", 6.0) < 0
    assert push("hinge", 6.0) == 0
    assert push("dpo", 6.0) > 0
    assert push("robust_dpo", 6.0, label_smoothing=0.1) > 0


def test_conservative_dpo_rests_at_the_logit_and_robust_dpo_nowhere() -> None:
    eps = 0.1
    assert push("cdpo", math.log((1 - eps) / eps), label_smoothing=eps) == pytest.approx(0)
    floor = BETA * eps / (1 - 2 * eps)
    assert push("robust_dpo", 40.0, label_smoothing=eps) == pytest.approx(floor)


def test_kto_gives_up_on_both_ends() -> None:
    assert push("kto", -60.0) < push("kto", 0.0) / 100
    assert push("kto", 60.0) < push("kto", 0.0) / 100


@pytest.mark.parametrize("alpha", [0.51, 0.8, 0.99])
def test_the_rest_points_of_the_hints_are_minima(alpha: float) -> None:
    rest = {
        "dpo": math.log(alpha / (1 - alpha)) / BETA,
        "ipo": (2 * alpha - 1) / (2 * BETA),
        "hinge": 1 / BETA,
    }
    for name in NAMES:
        around = rest[name] + np.array([0.0, -1e-3, 1e-3])
        here, *beside = rater_loss(name, around, alpha, BETA)
        assert here < min(beside)

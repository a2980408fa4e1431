"""The statistic of exercise 7.4 that looks at what it is called with."""

import numpy as np
import pytest

from workbench.course.lesson_7 import Spy

SCORES = np.array([0.3, -1.2, 2.0, 0.9, -0.4])
ATTRIBUTES = np.array([[0.0, 31.0], [1.0, 54.0], [1.0, 22.0], [0.0, 40.0], [1.0, 67.0]])


@pytest.fixture
def spy() -> Spy:
    return Spy(SCORES, ATTRIBUTES)


def test_moving_all_rows_together_is_the_observed_arrangement(spy: Spy) -> None:
    order = np.array([3, 0, 4, 1, 2])
    assert spy(SCORES[order], ATTRIBUTES[order]) == pytest.approx(spy(SCORES, ATTRIBUTES))
    assert {key for key, _ in spy.values} == {spy.observed}
    assert not spy.fault


def test_moving_scores_or_whole_rows_is_no_fault(spy: Spy) -> None:
    order = np.array([3, 0, 4, 1, 2])
    spy(SCORES[order], ATTRIBUTES)
    spy(SCORES, ATTRIBUTES[order])
    assert all(key != spy.observed for key, _ in spy.values)
    assert not spy.fault


def test_the_first_fault_is_kept(spy: Spy) -> None:
    apart = ATTRIBUTES.copy()
    apart[:, 1] = apart[::-1, 1]
    spy(SCORES, apart)
    assert "shuffled apart" in spy.fault
    spy(SCORES[[0, 0, 1, 2, 3]], ATTRIBUTES)
    assert "shuffled apart" in spy.fault


def test_drawing_with_replacement_is_a_fault(spy: Spy) -> None:
    spy(SCORES[[0, 0, 1, 2, 3]], ATTRIBUTES)
    assert "bootstrap" in spy.fault

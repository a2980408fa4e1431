"""The exact numbers that lesson 6 judges by."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.course.catalogue import find_exercise
from workbench.course.judging import judge
from workbench.course.lesson_6 import CANDIDATES, best_of_n, hackable


def test_the_law_of_the_best_is_that_of_all_draws_counted_one_by_one() -> None:
    probabilities, scores = np.array([0.1, 0.4, 0.2, 0.3]), np.array([2.0, -1.0, 0.5, 3.0])
    counted = np.zeros(4)
    for drawn in itertools.product(range(4), repeat=3):
        best = max(drawn, key=lambda answer: scores[answer])
        counted[best] += math.prod(probabilities[list(drawn)])
    assert best_of_n(probabilities, scores, 3) == pytest.approx(counted)


@given(st.integers(2, 300), st.integers(0, 10_000), st.integers(2, 40))
def test_the_kl_stays_below_the_formula(n: int, seed: int, answers: int) -> None:
    draw = np.random.default_rng(seed)
    probabilities = draw.dirichlet(np.full(answers, 0.7)) + 1e-12
    probabilities /= probabilities.sum()
    law = best_of_n(probabilities, draw.permutation(answers).astype(float), n)
    some = law > 0
    kl = (law[some] * np.log(law[some] / probabilities[some])).sum()
    assert kl <= math.log(n) - (n - 1) / n + 1e-9


@pytest.mark.parametrize("seed", range(20))
def test_the_gold_reward_turns_inside_the_candidates_and_the_proxy_never(seed: int) -> None:
    probabilities, proxy, gold = hackable(np.random.default_rng(seed))
    means = {
        name: [best_of_n(probabilities, proxy, n) @ values for n in CANDIDATES]
        for name, values in (("gold", gold), ("proxy", proxy))
    }
    assert 0 < int(np.argmax(means["gold"])) < len(CANDIDATES) - 1
    assert means["proxy"] == sorted(means["proxy"])


def test_no_single_n_is_right_in_every_world() -> None:
    for seed in range(5):
        for n in CANDIDATES:
            verdict = judge(find_exercise("6.4"), lambda *_, n=n: n, np.random.default_rng(seed))
            assert verdict.status == "wrong"

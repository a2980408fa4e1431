"""Lesson 7: fairness of preferences across attributes of several types, one by one and jointly."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from workbench.course.answers import Answer, Numbers, Wrong, agree, ask, number, numbers
from workbench.course.exercise import Exercise, Lesson, Question
from workbench.metrics import dependence

TINY = 1e-9
SINGLE = 1e-6
"""What answers in single precision may be off by."""
Measure = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def measured(measure: Measure, *variables: Numbers) -> float:
    """A measure of dependence of two variables."""
    x, y = (torch.as_tensor(each).double() for each in variables)
    return float(measure(x, y))


def check_distance_covariance(answer: Answer, draw: np.random.Generator) -> None:
    """7.1: dCov^2 as a V-statistic, of numbers, ties and groups."""
    n = int(draw.integers(8, 20))
    x, curved = draw.normal(0, 1, n), np.linspace(-2, 2, n)
    for one, other in (
        (x, 0.5 * x + draw.normal(0, 1, n)),
        (x, draw.integers(0, 3, n).astype(float)),
        (curved, curved**2),
    ):
        wanted = measured(dependence.distance_covariance_sq, one, other)
        a, b = (np.abs(v[:, None] - v[None, :]) for v in (one, other))
        slips = {
            "squared the ordinary covariance, which sees lines only": np.cov(one, other, ddof=0)[
                0, 1
            ]
            ** 2,
            "took the root; the square is asked for": math.sqrt(wanted),
            "added up instead of averaging": wanted * n * n,
            "left the distances uncentred": (a * b).mean(),
            "took one mean off both matrices, and not each row's and column's": (
                (a - a.mean()) * (b - b.mean())
            ).mean(),
        }
        found = number(ask(answer, one, other), "dCov^2")
        agree(found, wanted, {"x": one, "y": other}, slips, atol=SINGLE)


def check_unbiased(answer: Answer, draw: np.random.Generator) -> None:
    """7.2: dCov^2 as a U-statistic, which is negative at times."""
    for sign in (1, -1):
        x, y = _independent(draw, sign)
        plug_in = measured(dependence.distance_covariance_sq, x, y)
        slips = {
            "gave the V-statistic, which is above 0 for independent rows too": plug_in,
            "rescaled the V-statistic by n / (n - 1)": plug_in * len(x) / (len(x) - 1),
        }
        if sign < 0:
            slips["cut it at 0; its mean is right because it may be negative"] = 0.0
        agree(
            number(ask(answer, x, y), "the U-statistic"),
            measured(dependence.u_distance_covariance_sq, x, y),
            {"x": x, "y": y},
            slips,
            atol=SINGLE,
        )


def _independent(draw: np.random.Generator, sign: int) -> tuple[Numbers, Numbers]:
    """Two independent samples whose U-statistic has the sign."""
    while True:
        x, y = draw.normal(0, 1, (2, int(draw.integers(6, 15))))
        if sign * measured(dependence.u_distance_covariance_sq, x, y) > 0.01:
            return x, y


def check_gerrymander(answer: Answer, draw: np.random.Generator) -> None:
    """7.3: scores that look fair for each attribute alone and are not for both together."""
    order = draw.permutation(4 * int(draw.integers(5, 25)))
    first, second = (order % 2).astype(float), (order // 2 % 2).astype(float)
    scores = numbers(ask(answer, first, second), first.shape, "the scores")
    if not scores.std() > TINY:
        raise Wrong(
            "all your scores are equal. They are fair in every way, so there is nothing for a "
            "joint test to find; make some cells differ."
        )
    scores = scores / scores.std()
    for name, attribute in (("first", first), ("second", second)):
        alone = measured(dependence.distance_covariance_sq, scores, attribute)
        if alone > 1e-6:
            means = [scores[attribute == value].mean() for value in (0, 1)]
            raise Wrong(
                f"the {name} attribute alone gives it away: dCov^2 is {alone:.4g} (group means "
                f"{means[0]:.3f} and {means[1]:.3f} standard deviations). The distribution must "
                "be the same at both of its values."
            )
    joint = measured(dependence.distance_covariance_sq, scores, np.stack([first, second], axis=1))
    if joint < 1e-3:
        raise Wrong(
            f"with both attributes together dCov^2 is {joint:.4g} as well: no cell is treated "
            "unlike another."
        )


class Spy:
    """A statistic that notes on which arrangements of the rows it was computed.

    Args:
        scores: Observed scores, shape (n,), distinct.
        attributes: Observed attributes, shape (n, d).
        constant: Whether every arrangement has the same value.

    Attributes:
        values: What it gave, by arrangement, in the order of the calls.
        fault: What was wrong with a call; empty for nothing.
    """

    def __init__(self, scores: Numbers, attributes: Numbers, constant: bool = False) -> None:
        self.scores, self.attributes, self.constant = scores, attributes, constant
        self.observed = _arrangement(scores, attributes)
        self.values: list[tuple[bytes, float]] = []
        self.fault = ""

    def __call__(self, scores: Any, attributes: Any) -> float:  # noqa: ANN401
        """dCov^2 of what is given, or 1 where every arrangement counts the same."""
        y = numbers(scores, self.scores.shape, "the statistic's first argument")
        z = numbers(attributes, self.attributes.shape, "the statistic's second argument")
        self.fault = self.fault or self._fault(y, z)
        value = 1.0 if self.constant else measured(dependence.distance_covariance_sq, y, z)
        self.values.append((_arrangement(y, z), value))
        return value

    def _fault(self, scores: Numbers, attributes: Numbers) -> str:
        if sorted(scores) != sorted(self.scores):
            return (
                "a rearrangement holds other scores than the data: some twice, some not at all. "
                "Permute them; drawing with replacement is the bootstrap."
            )
        if sorted(attributes.tolist()) != sorted(self.attributes.tolist()):
            return (
                "a rearrangement holds other combinations of attributes than the data: the columns "
                "were shuffled apart. That breaks the dependence of the attributes among "
                "themselves, which is not what is tested. Move whole rows, or the scores alone."
            )
        return ""


def _arrangement(scores: Numbers, attributes: Numbers) -> bytes:
    """Which score goes with which attributes, whatever the order of the rows."""
    rows = np.column_stack([scores, attributes])
    return rows[rows[:, 0].argsort()].tobytes()


def check_permutation_test(answer: Answer, draw: np.random.Generator) -> None:
    """7.4: p = (1 + number of rearrangements at least as extreme) / (permutations + 1)."""
    for strength, constant in ((0.0, False), (5.0, False), (0.0, True)):
        n, permutations = int(draw.integers(14, 20)), int(draw.integers(30, 60))
        gender = draw.permutation(np.arange(n) % 2).astype(float)
        age = gender + draw.uniform(0, 1, n)
        attributes = np.stack([gender, age], axis=1)
        spy = Spy(draw.normal(0, 1, n) + strength * age, attributes, constant)

        def statistic(scores: Any, attributes: Any, spy: Spy = spy) -> float:  # noqa: ANN401
            return spy(scores, attributes)

        seed = int(draw.integers(1_000_000))
        p = number(ask(answer, spy.scores, attributes, statistic, permutations, seed), "p")
        _check_p(p, spy, permutations)


def _check_p(p: float, spy: Spy, permutations: int) -> None:
    if spy.fault:
        raise Wrong(spy.fault)
    observed = [value for key, value in spy.values if key == spy.observed]
    moved = [(key, value) for key, value in spy.values if key != spy.observed]
    if not observed:
        raise Wrong("the statistic was never computed on the data as they are; p compares with it.")
    if len(moved) != permutations:
        raise Wrong(f"{permutations} rearrangements are asked for, and {len(moved)} were made.")
    if len(dict(moved)) < permutations / 2:
        raise Wrong(
            f"of {permutations} rearrangements {len(dict(moved))} are different: make the "
            "generator once, before the loop."
        )
    reached = sum(value >= observed[0] * (1 - 1e-12) for _, value in moved)
    above = sum(value > observed[0] * (1 + 1e-12) for _, value in moved)
    slips = {
        "left the observed arrangement out, so that p can be 0": reached / permutations,
        "counted > in place of >=": (1 + above) / (permutations + 1),
        "counted those that are less extreme": (permutations - reached) / permutations,
    }
    given = {"permutations": permutations, "of which at least as extreme": reached}
    agree(p, (1 + reached) / (permutations + 1), given, slips, name="p", atol=TINY)


def check_repair(answer: Answer, draw: np.random.Generator) -> None:
    """7.5: scores with one distribution in all groups, each group's order kept."""
    groups, size = int(draw.integers(2, 5)), int(draw.integers(8, 15))
    group = draw.permutation(np.repeat(np.arange(groups), size))
    skew = np.where(group % 2 == 0, 1, -1) * draw.uniform(0.5, 2, groups)[group]
    scores = draw.normal(0, 1, groups)[group] + skew * draw.exponential(1, groups * size)
    repaired = numbers(ask(answer, scores, group), scores.shape, "the repaired scores")
    for k in range(groups):
        if not (np.diff(repaired[group == k][scores[group == k].argsort()]) > 0).all():
            raise Wrong(
                f"in group {k} somebody who scored higher than another no longer does. Within a "
                "group the order carries what the scores know, and should stay as it is."
            )
    scaled = (repaired - repaired.mean()) / repaired.std()
    left = measured(dependence.distance_covariance_sq, scaled, np.eye(groups)[group])
    if left > TINY:
        parts = [scaled[group == k] for k in range(groups)]
        means = ", ".join(f"{part.mean():.3f}" for part in parts)
        spreads = ", ".join(f"{part.std():.3f}" for part in parts)
        raise Wrong(
            f"the groups still differ: dCov^2 of score and group is {left:.4g}, with group means "
            f"{means} and standard deviations {spreads}. Equal means, even with equal deviations, "
            "are not equal distributions."
        )


LESSON = Lesson(
    number=7,
    slug="multitype_fairness",
    title="Fairness of preferences across multitype attributes",
    minutes=90,
    aims=(
        "Compute distance covariance, and say why zero means independence.",
        "Choose between the V- and the U-statistic, and read a negative value.",
        "Show how a model passes every one-attribute test and is unfair all the same.",
        "Run a permutation test that is honest about small groups.",
        "Make scores fair and say what that costs.",
    ),
    exercises=(
        Exercise(
            name="7.1",
            title="Distance covariance by hand",
            check=check_distance_covariance,
            hints=(
                "Make the matrix of distances |x_i - x_j| of each variable. What is compared are "
                "these two matrices, entry by entry, after centring.",
                "Double centring takes off each entry its row's mean and its column's mean, and "
                "adds the mean of the whole matrix. Then average the product over all n^2 entries.",
                "A = a - a.mean(0, keepdim) - a.mean(1, keepdim) + a.mean(), B likewise, and "
                "dCov^2 = (A * B).mean(). No root: the square is asked for.",
            ),
            insight="Zero only for independence, whatever the shape of the dependence.",
        ),
        Exercise(
            name="7.2",
            title="Without bias",
            check=check_unbiased,
            hints=(
                "The V-statistic counts each row's distance to itself, 0, as if it were data. "
                "U-centring leaves the diagonal out and divides accordingly.",
                "For i != j: A_ij = a_ij - row_i/(n-2) - row_j/(n-2) + total/((n-1)(n-2)), with "
                "sums, not means; the diagonal of A is 0.",
                "The statistic is (A * B).sum() / (n (n - 3)) over the entries off the diagonal. "
                "Leave negative values as they are.",
            ),
            insight="Right on average, and therefore negative at times.",
        ),
        Exercise(
            name="7.3",
            title="Gerrymander",
            check=check_gerrymander,
            hints=(
                "There are four cells. Look at the first attribute only: each of its values joins "
                "two cells. Which two scores must they have, so that both values look alike?",
                "If one value of the first attribute joins a high and a low cell, the other must "
                "too; and the same holds for the second attribute. That leaves a chequerboard.",
                "scores = first + second - 2 * first * second (exclusive or): high where the two "
                "attributes differ, low where they agree.",
            ),
            insight="Every audit of one attribute passes, and one cell in two is favoured.",
        ),
        Exercise(
            name="7.4",
            title="A permutation test",
            check=check_permutation_test,
            hints=(
                "If scores and attributes are independent, any pairing of the two is as likely as "
                "the one that was seen. Make such pairings by moving the scores, all of them.",
                "Count the rearrangements whose statistic is at least (>=) the observed one. The "
                "observed arrangement is itself one of those possible, so it counts too.",
                "p = (1 + reached) / (permutations + 1); one generator, seeded once, and "
                "scores[generator.permutation(n)] in the loop.",
            ),
            insight="The smallest p that B permutations can give is 1 / (B + 1).",
        ),
        Exercise(
            name="7.5",
            title="The same distribution for all",
            check=check_repair,
            hints=(
                "Taking off each group's mean makes the means equal, not the distributions. Think "
                "of ranks: who is third in one group should get what the third of the others gets.",
                "The groups are equally large. Sort each; give the k-th of every group one common "
                "value. That equals the distributions exactly and keeps each group's order.",
                "The common value of rank k: the mean of the groups' k-th scores. It is the one "
                "that changes the scores least, the barycentre.",
            ),
            insight="Equal distributions, order kept within each group. What is lost is the "
            "difference between the groups.",
        ),
    ),
    quiz=(
        Question(
            text="x is symmetric around 0 and y = x^2. Correlation and distance covariance?",
            options=(
                "0 and 0",
                "0 and above 0",
                "above 0 and 0",
                "above 0 and above 0",
            ),
            right="b",
            why="The parabola has no linear trend, so Pearson's correlation is 0. Distance "
            "covariance is 0 only for independence, and y is a function of x.",
        ),
        Question(
            text="The U-statistic of margins and age is -0.002. What does that say?",
            options=(
                "No sign of dependence: an unbiased estimate of 0 is often a little below it.",
                "Older people are treated worse.",
                "There is a bug: a square cannot be negative.",
                "The dependence is negative, that is, protective.",
            ),
            right="a",
            why="The sign has no direction. Cutting at 0 would bias a penalty upwards and give "
            "training a pull where there is nothing to pull at.",
        ),
        Question(
            text="Gender and region are themselves dependent in your data, and margins are "
            "independent of both jointly. Which measure is above 0?",
            options=(
                "CCdCov",
                "both",
                "JdCov",
                "neither",
            ),
            right="c",
            why="CCdCov asks whether the outcome depends on the attributes jointly. JdCov asks "
            "whether all of them are mutually independent, so it also counts the attributes' own "
            "dependence, which no model can change.",
        ),
        Question(
            text="An intersectional group has 4 members, and their mean margin is 2 standard "
            "deviations of the margins above the rest. What first?",
            options=(
                "Report discrimination.",
                "Drop groups below 30 without a word.",
                "Take the median instead.",
                "See how often a random 4 are that far off, report n, and count how many "
                "groups were looked at.",
            ),
            right="d",
            why="With many small groups some are far off by chance. A permutation test of the "
            "joint statistic asks one question of all groups at once; the size of the group "
            "belongs beside each number.",
        ),
        Question(
            text="You raise the weight of a dependence penalty until dCov is near 0. What is "
            "certain?",
            options=(
                "If the best predictor differs between groups, it is ruled out, and with it "
                "some accuracy.",
                "Nothing is lost: fairness is free.",
                "Each person is now treated as an identical person of another group would be.",
                "The model no longer has access to the attributes.",
            ),
            right="a",
            why="Independence of score and group forbids using a difference that is in the labels. "
            "Whether that is right is not a statistical question. It is a statement about groups, "
            "not about single persons.",
        ),
    ),
)

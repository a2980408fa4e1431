"""Lesson 1: what a preference says. Bradley and Terry, rater shares, noise, and cycles."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import softplus

from workbench.course.answers import Answer, Open, Wrong, agree, ask, numbers, shown
from workbench.course.exercise import Exercise, Lesson, Question

PAIRS = 6
FAR = 800.0
"""A difference at which exp overflows, but neither a probability nor a loss does."""
FOODS = ("porridge", "toast", "muesli", "soup", "rice", "an apple", "a pie")
VOTES = 9


def check_preference(answer: Answer, draw: np.random.Generator) -> None:
    """1.1: the share of raters that Bradley and Terry predict from two rewards."""
    first, second = (torch.tensor(draw.normal(0, 1.5, PAIRS)) for _ in range(2))
    gap = first - second
    slips = {
        "turned the difference round": torch.sigmoid(-gap),
        "took the rewards themselves as strengths, without exp": first / (first + second),
        "took powers of 2 in place of e": 1 / (1 + 2**-gap),
    }
    given = {"first": first, "second": second}
    agree(
        numbers(ask(answer, first, second), (PAIRS,)), torch.sigmoid(gap), given, slips, atol=1e-6
    )
    given = {"first": torch.tensor([FAR, -FAR]).double(), "second": torch.zeros(2).double()}
    overflow = {"let exp overflow: inf / inf is nan": [math.nan, 0.0]}
    agree(numbers(ask(answer, *given.values()), (2,)), [1.0, 0.0], given, overflow, atol=1e-6)


def check_reward_gap(answer: Answer, draw: np.random.Generator) -> None:
    """1.2: the reward gap that a share of raters tells of."""
    alpha = torch.tensor([*draw.uniform(0.02, 0.98, PAIRS - 1), 0.5])
    gap = torch.logit(alpha)
    slips = {
        "turned the odds round": -gap,
        "took the logarithm to base 2; nats have base e": gap / math.log(2),
        "took the logarithm of the share and not of the odds": alpha.log(),
        "took the odds without their logarithm": alpha / (1 - alpha),
        "measured on a straight line; shares bend towards 0 and 1": 4 * (alpha - 0.5),
    }
    agree(numbers(ask(answer, alpha), (PAIRS,)), gap, {"alpha": alpha}, slips)


def check_rater_loss(answer: Answer, draw: np.random.Generator) -> None:
    """1.3: the loss of a predicted gap, over all raters and not the majority alone."""
    gap, alpha = torch.tensor(draw.normal(0, 2, PAIRS)), torch.tensor(draw.uniform(0.1, 0.9, PAIRS))
    slips = {
        "counted only the raters who prefer the chosen answer": alpha * softplus(-gap),
        "took every rater to prefer the chosen answer": softplus(-gap),
        "rounded the share to a majority label": _rater_loss(gap, (alpha > 0.5).double()),
        "turned the gap round": _rater_loss(-gap, alpha),
        "measured in bits": _rater_loss(gap, alpha) / math.log(2),
        "took a squared error in place of the log-loss": (torch.sigmoid(gap) - alpha) ** 2,
    }
    given = {"gap": gap, "alpha": alpha}
    agree(numbers(ask(answer, gap, alpha), (PAIRS,)), _rater_loss(gap, alpha), given, slips)
    far = {"gap": torch.tensor([FAR, -FAR]).double(), "alpha": torch.tensor([0.75, 0.75]).double()}
    overflow = {
        "took log of a sigmoid that was rounded to 0 or 1": [math.inf, math.inf],
        "multiplied 0 by an infinite logarithm": [math.nan, math.nan],
    }
    agree(numbers(ask(answer, *far.values()), (2,)), _rater_loss(**far), far, overflow)


def check_clean_share(answer: Answer, draw: np.random.Generator) -> None:
    """1.4: the share before some of the votes were flipped."""
    eps = float(draw.uniform(0.15, 0.35))
    observed = torch.tensor([0, *draw.integers(0, VOTES + 1, PAIRS - 2), VOTES]) / float(VOTES)
    observed = observed.double()
    raw = (observed - eps) / (1 - 2 * eps)
    slips = {
        "let the share leave 0 to 1": raw,
        "added the noise once more in place of taking it away": observed + eps * (1 - 2 * observed),
        "divided by 1 - eps; flipping takes from one side and gives to the other": (
            (observed - eps) / (1 - eps)
        ).clamp(0, 1),
        "only took eps away": (observed - eps).clamp(0, 1),
        "left the noise in": observed,
    }
    given = {"observed": observed, "eps": eps}
    found = numbers(ask(answer, observed, eps), (PAIRS,))
    agree(found, raw.clamp(0, 1), given, slips, atol=1e-6)


def check_ballots(answer: Answer, draw: np.random.Generator) -> None:
    """1.5: rankings without a contradiction, whose majority goes round in a circle."""
    names = [str(name) for name in draw.permutation(FOODS)[: draw.integers(3, 6)]]
    ballots = _rankings(ask(answer, list(names)), names)
    for first, second in zip(names, names[1:] + names[:1], strict=True):
        ahead = sum(ballot.index(first) < ballot.index(second) for ballot in ballots)
        if 2 * ahead <= len(ballots):
            raise Wrong(
                f"for {names}: {ahead} of your {len(ballots)} raters put {first} before {second}, "
                f"which is no majority; {first} must win against {second}."
            )


def _rater_loss(gap: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    return alpha * softplus(-gap, threshold=50) + (1 - alpha) * softplus(gap, threshold=50)


def _rankings(found: Answer, names: Sequence[str]) -> list[list[str]]:
    try:
        ballots = [[str(name) for name in ballot] for ballot in found]
    except TypeError:
        raise Wrong(f"{shown(found)} is no list of rankings, each of them a list.") from None
    if not ballots:
        raise Open("the list of rankings is empty.")
    for ballot in ballots:
        if sorted(ballot) != sorted(names):
            raise Wrong(f"for {names}: the ranking {ballot} does not name each of them once.")
    return ballots


LESSON = Lesson(
    number=1,
    slug="what_a_preference_says",
    title="What a preference says",
    minutes=60,
    aims=(
        "say what Bradley and Terry's model assumes, and turn rewards into shares and back",
        "say what a majority label throws away, and why unanimous votes are awkward",
        "predict what label noise does to the log-odds, and undo it",
        "give an example of sensible raters whom no reward can describe",
    ),
    exercises=(
        Exercise(
            name="1.1",
            title="From rewards to a share of raters",
            check=check_preference,
            hints=(
                "Only the difference of the two rewards matters. Which function turns a number on "
                "the whole line into a probability, and 0 into one half?",
                "The share is sigmoid(first - second) = 1 / (1 + exp(second - first)).",
                "`torch.sigmoid(first - second)` does it, also for differences of hundreds. With "
                "`math`, `0.5 * (1 + tanh(d / 2))` is the same function and cannot overflow.",
            ),
            insight="Adding the same number to both rewards changes nothing: a reward has no zero.",
        ),
        Exercise(
            name="1.2",
            title="From a share of raters to a reward gap",
            check=check_reward_gap,
            hints=(
                "Solve alpha = sigmoid(gap) for the gap.",
                "alpha / (1 - alpha) are the odds; the gap is their natural logarithm.",
                "`torch.logit(alpha)`, or `np.log(alpha) - np.log1p(-alpha)`.",
            ),
            insight="Three raters to one are worth log 3 = 1.1 nats, nine to one 2.2: each further "
            "nat takes more and more raters, and unanimity would be worth infinitely many.",
        ),
        Exercise(
            name="1.3",
            title="The loss over all raters",
            check=check_rater_loss,
            hints=(
                "A rater drawn at random prefers the chosen answer with probability alpha. What "
                "does the model lose in either case? Then take the mean.",
                "alpha * (-log sigmoid(gap)) + (1 - alpha) * (-log sigmoid(-gap)).",
                "-log sigmoid(z) is softplus(-z): "
                "`alpha * softplus(-gap) + (1 - alpha) * softplus(gap)` from "
                "torch.nn.functional. `np.logaddexp(0, -gap)` is the same function in NumPy.",
            ),
            insight="Its minimum lies at gap = logit(alpha), and for a majority label at infinity. "
            "This one line is Theorem 3.1 of Chen et al. (2024), which returns in lesson 3.",
        ),
        Exercise(
            name="1.4",
            title="Take the noise out of a share",
            check=check_clean_share,
            hints=(
                "Go forwards first: if a share alpha truly prefers the chosen answer and each vote "
                "is flipped with probability eps, which share is observed?",
                "observed = (1 - eps) * alpha + eps * (1 - alpha). Solve for alpha. What must "
                "happen where chance put the observed share below eps or above 1 - eps?",
                "`((observed - eps) / (1 - 2 * eps)).clamp(0, 1)`.",
            ),
            insight="Noise of rate eps squeezes every share into eps to 1 - eps: what could be "
            "learned from a unanimous pair is now at most logit(1 - eps).",
        ),
        Exercise(
            name="1.5",
            title="Raters who go round in a circle",
            check=check_ballots,
            hints=(
                "Three raters are enough for three answers. Let each of them be consistent, and "
                "let no two of them agree on the best answer.",
                "Begin with the ranking as given. Who comes next, if the first answer of one rater "
                "is to be the last of the next?",
                "All rotations: `[answers[i:] + answers[:i] for i in range(len(answers))]`.",
            ),
            insight="Every rater is consistent and the majority is not. Around a circle the reward "
            "gaps of Bradley and Terry sum to 0, so no reward has all these signs.",
        ),
    ),
    quiz=(
        Question(
            text="Two answers have the rewards 5 and 4 on one prompt, two others 105 and 104 on "
            "another. What does Bradley and Terry's model say?",
            options=(
                "The second pair is the clearer one.",
                "The first is: 5 is 25 % more than 4.",
                "Both are equally clear: 73 % prefer the better answer.",
            ),
            right="c",
            why="Only the difference within a prompt counts: sigmoid(1) = 0.73 in both.",
        ),
        Question(
            text="Nine raters are asked about a pair, and all prefer the same answer. The gap that "
            "makes this most probable is",
            options=("9 nats", "infinite", "log 9 = 2.2 nats", "1 nat"),
            right="b",
            why="The likelihood sigmoid(gap)^9 grows for ever. Whoever computes with such shares "
            "keeps them a little away from 0 and 1, and should say how far.",
        ),
        Question(
            text="You replace 6 votes to 3 by the label 'chosen'. A model that fits the label "
            "perfectly then has a gap",
            options=(
                "much larger than the raters' log 2 = 0.69",
                "equal to the raters' 0.69",
                "smaller than the raters' 0.69",
            ),
            right="a",
            why="The label says that everybody agrees, which no finite gap satisfies. Only what "
            "restrains the fit (few steps, a reference, smoothing) stops it.",
        ),
        Question(
            text="A fifth of all labels is flipped at random. A pair on which 95 % truly agree "
            "then shows a log-odds of about",
            options=("2.9 nats, as before", "2.4 nats: a fifth less", "1.2 nats"),
            right="c",
            why="The observed share is 0.8 * 0.95 + 0.2 * 0.05 = 0.77, and logit(0.77) = 1.2. "
            "Noise costs most where raters agree most.",
        ),
        Question(
            text="60 % prefer A to B, 60 % B to C and 60 % C to A. What follows?",
            options=(
                "Some raters contradict themselves.",
                "No reward fits, although every single rater may be consistent.",
                "With more raters the circle would go away.",
                "It is label noise of 40 %.",
            ),
            right="b",
            why="Different people may have different, consistent orders (Condorcet, 1785). A "
            "reward needs logits that sum to 0 around the circle; here they sum to 1.2.",
        ),
    ),
)

"""Lesson 6: what a reward leaves out. Length, over-optimisation in an exact world, wrong labels."""

import math
from typing import Any

import numpy as np
import torch
from scipy import special

from workbench.course.answers import Answer, Numbers, Wrong, agree, ask, number, numbers
from workbench.course.exercise import Exercise, Lesson, Question
from workbench.metrics.rewards import implicit_reward

CANDIDATES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SINGLE = 1e-6
"""What answers in single precision may be off by."""


def check_length_slope(answer: Answer, draw: np.random.Generator) -> None:
    """6.1: what one more token is worth to the margin, at equal quality."""
    pairs = int(draw.integers(40, 80))
    quality = draw.normal(0.3, 1, pairs)
    tokens = np.round(draw.uniform(5, 15) * quality + draw.normal(0, 12, pairs) + 4)
    pay, worth = draw.normal(0, 0.05), draw.uniform(0.5, 2)
    margin = 0.4 + pay * tokens + worth * quality + draw.normal(0, 0.2, pairs)
    columns = (np.ones(pairs), tokens, quality)
    agree(
        number(ask(answer, margin, tokens, quality), "the slope"),
        _coefficient(margin, *columns),
        {"margin": margin, "extra_tokens": tokens, "extra_quality": quality},
        {
            "let length take the credit for quality (better answers are longer here)": _coefficient(
                margin, *columns[:2]
            ),
            "left the intercept out": _coefficient(margin, *columns, at=0, without=0),
            "returned what quality is worth": _coefficient(margin, *columns, at=2),
            "returned a correlation, which has no unit": float(np.corrcoef(margin, tokens)[0, 1]),
        },
        rtol=1e-4,
        atol=SINGLE,
    )


def _coefficient(
    margin: Numbers, *columns: Numbers, at: int = 1, without: int | None = None
) -> float:
    """One coefficient of the least-squares fit on all columns but one."""
    design = np.stack([c for k, c in enumerate(columns) if k != without], axis=1)
    return float(np.linalg.lstsq(design, margin, rcond=None)[0][at])


def check_padding(answer: Answer, draw: np.random.Generator) -> None:
    """6.2: what padding does to the summed and to the per-token implicit reward."""
    beta = float(draw.uniform(0.05, 1))
    ratios, tail = (
        draw.normal(draw.normal(0, 0.4), 0.5, int(draw.integers(3, 9))) for _ in range(2)
    )
    found = numbers(ask(answer, ratios, tail, beta), (2,), "the pair (summed, per token)")
    whole, n = np.concatenate([ratios, tail]), len(ratios)
    given = {"ratios": ratios, "tail": tail, "beta": beta}
    summed = _reward(whole, beta) - _reward(ratios, beta)
    agree(
        found[0],
        summed,
        given,
        {"left beta out": summed / beta},
        name="the change of the sum",
        atol=SINGLE,
    )
    slips = {
        "took the reward per token for one that padding cannot change": 0.0,
        "divided by the old number of tokens": summed / n,
        "took the difference of the two means; the answer's own tokens still count": beta
        * (tail.mean() - ratios.mean()),
    }
    change = _reward(whole, beta) / len(whole) - _reward(ratios, beta) / n
    agree(found[1], change, given, slips, name="the change of the mean a token", atol=SINGLE)


def _reward(ratios: Numbers, beta: float) -> float:
    policy = torch.tensor([ratios.sum()])
    return float(implicit_reward(policy, torch.zeros_like(policy), beta))


def best_of_n(probabilities: Numbers, scores: Numbers, n: int) -> Numbers:
    """Law of the best of n draws, shape (answers,): F(y)^n - F(just below y)^n, F by the score.

    Scores are distinct, so that the best is one answer.
    """
    order = scores.argsort()
    law = np.empty_like(probabilities)
    law[order] = np.diff(probabilities[order].cumsum() ** n, prepend=0.0)
    return law


def check_best_of_n(answer: Answer, draw: np.random.Generator) -> None:
    """6.3: the law of the best of n and its divergence from the base, both exact."""
    answers = int(draw.integers(4, 9))
    probabilities, scores = draw.dirichlet(np.full(answers, 2.0)), draw.normal(0, 1, answers)
    for n in (1, 2, int(draw.integers(3, 40))):
        found = ask(answer, probabilities, scores, n)
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise Wrong("return two things, the probabilities and the KL: `return law, kl`.")
        law = best_of_n(probabilities, scores, n)
        given = {"probability": probabilities, "score": scores, "n": n}
        _check_law(numbers(found[0], law.shape, "the law"), law, given)
        _check_kl(number(found[1], "the KL"), law, given)


def _check_law(found: Numbers, law: Numbers, given: dict[str, Any]) -> None:
    probabilities, scores, n = given["probability"], given["score"], given["n"]
    at_most = (probabilities * (scores <= scores[:, None])).sum(axis=1)
    slips = {
        "took all n draws to be this answer": probabilities**n / (probabilities**n).sum(),
        "gave the probability of a best score up to this one": at_most**n,
        "took the best in the order given; sort by score": best_of_n(
            probabilities, np.arange(float(len(scores))), n
        ),
        "let the smallest score win": best_of_n(probabilities, -scores, n),
    }
    agree(found, law, given, slips, name="the probability under the best of n", atol=SINGLE)


def _check_kl(found: float, law: Numbers, given: dict[str, Any]) -> None:
    probabilities, n = given["probability"], given["n"]
    exact = float(special.rel_entr(law, probabilities).sum())
    if n > 1:
        slips = {
            "gave log n - (n - 1)/n: a bound, reached with endlessly many answers": math.log(n)
            - (n - 1) / n,
            "took the divergence the other way round": special.rel_entr(probabilities, law).sum(),
            "took logarithms to base 2": exact / math.log(2),
        }
        agree(found, exact, given, slips, name="KL(best of n || base) in nats", atol=SINGLE)
    elif not abs(found) < SINGLE:
        raise Wrong(f"for n = 1 the best is a plain draw, so the KL is 0; found {found:.6g}.")


def check_when_to_stop(answer: Answer, draw: np.random.Generator) -> None:
    """6.4: the n at which the gold reward is highest, in two worlds that differ in it."""
    first = hackable(draw)
    second = hackable(draw)
    while turning_point(*first) == turning_point(*second):
        second = hackable(draw)
    for world in (first, second):
        _stops(answer, *world)


def _stops(answer: Answer, probabilities: Numbers, proxy: Numbers, gold: Numbers) -> None:
    means = {n: float(best_of_n(probabilities, proxy, n) @ gold) for n in CANDIDATES}
    best = turning_point(probabilities, proxy, gold)
    found = number(ask(answer, probabilities, proxy, gold, CANDIDATES), "n")
    if found not in means:
        raise Wrong(f"n is {found:g}; return one of the candidates {CANDIDATES}.")
    if means[int(found)] < means[best] - SINGLE:
        far = " That is where the proxy reward is highest." if found == CANDIDATES[-1] else ""
        raise Wrong(
            f"for {len(gold)} answers: at your n = {found:g} the mean gold reward of the best of n "
            f"is {means[int(found)]:.6g}, and at n = {best} it is {means[best]:.6g}.{far}"
        )


def turning_point(probabilities: Numbers, proxy: Numbers, gold: Numbers) -> int:
    """The candidate at which the gold reward of the best of n by the proxy is highest."""
    return max(CANDIDATES, key=lambda n: float(best_of_n(probabilities, proxy, n) @ gold))


def hackable(draw: np.random.Generator) -> tuple[Numbers, Numbers, Numbers]:
    """Probabilities, proxy and gold reward of 60 answers, shape (60,) each.

    Proxy and gold agree up to noise, but for four rare answers that the proxy likes best and that
    are bad. Drawn until the gold reward under the best of n has its maximum inside `CANDIDATES`.
    """
    while True:
        world = _with_fooled(draw)
        probabilities, proxy, gold = world
        means = [best_of_n(probabilities, proxy, n) @ gold for n in CANDIDATES]
        best, (second, first) = int(np.argmax(means)), sorted(means)[-2:]
        if 0 < best < len(means) - 1 and first - second > 0.01:
            return world


def _with_fooled(draw: np.random.Generator) -> tuple[Numbers, Numbers, Numbers]:
    gold, weight = draw.normal(0, 1, 60), draw.gamma(1.0, 1.0, 60) + 0.05
    proxy = gold + draw.normal(0, 0.5, 60)
    fooled, rarity = draw.permutation(60)[:4], 10 ** draw.uniform(-1.5, 0.5)
    proxy[fooled] = proxy.max() + draw.uniform(0.1, 2, 4)
    gold[fooled], weight[fooled] = draw.uniform(-3, -1, 4), rarity * draw.uniform(0.05, 0.3, 4)
    return weight / weight.sum(), proxy, gold


def check_margin_under_noise(answer: Answer, draw: np.random.Generator) -> None:
    """6.5: where DPO's margin rests when a share of the labels was flipped."""
    for alpha in (float(draw.uniform(0.6, 0.95)), float(draw.uniform(0.05, 0.4)), 1.0):
        eps, beta = float(draw.uniform(0.05, 0.3)), float(draw.uniform(0.05, 2))
        found = number(ask(answer, alpha, eps, beta), "the margin")
        seen = (1 - eps) * alpha + eps * (1 - alpha)
        if not math.isfinite(found):
            raise Wrong(
                f"for alpha = {alpha:g}, eps = {eps:.6g}: the margin is {found}. Even where all "
                f"raters agree, {1 - seen:.6g} of the recorded labels are against the answer, so "
                "it is finite."
            )
        margin = _logit(seen) / beta
        given = {"alpha": alpha, "eps": eps, "beta": beta}
        slips = {"left beta out": margin * beta}
        if alpha < 1:
            slips |= {
                "left the flips out": _logit(alpha) / beta,
                "shrank the log-odds; it is the share that flips mix": (1 - 2 * eps)
                * _logit(alpha)
                / beta,
                "counted kept labels only": _logit((1 - eps) * alpha) / beta,
            }
        agree(found, margin, given, slips, name="the margin", rtol=1e-4)


def _logit(share: float) -> float:
    return math.log(share / (1 - share))


LESSON = Lesson(
    number=6,
    slug="reward_hacking",
    title="Reward hacking, length and noise",
    minutes=75,
    aims=(
        "Measure how much of a margin is length, and not confuse it with quality.",
        "Say what normalising by length changes, and what it does not.",
        "Compute best-of-n and its KL exactly, and find where the gold reward turns.",
        "Work out what flipped labels do to the margin that DPO aims at.",
    ),
    exercises=(
        Exercise(
            name="6.1",
            title="What a token is worth",
            check=check_length_slope,
            hints=(
                "Good answers are often longer. So the slope of the margin on length mixes two "
                "things: what the model pays for length, and what it pays for quality.",
                "Fit margin = intercept + slope * extra_tokens + worth * extra_quality by least "
                "squares, all three coefficients together, and return the slope.",
                "Stack a column of ones, the tokens and the quality into a matrix of shape "
                "(pairs, 3), and give it to lstsq; the slope is the second coefficient.",
            ),
            insight="At equal quality, that is what a token is worth to this model.",
        ),
        Exercise(
            name="6.2",
            title="Padding an answer",
            check=check_padding,
            hints=(
                "The implicit reward is beta times the sum of the tokens' log-ratios. What is "
                "added to the sum? What happens to a mean when values join it?",
                "The mean moves towards the newcomers' mean: up if the padding's mean log-ratio is "
                "above the answer's. It stays only where the two are equal.",
                "Sum: beta * tail.sum(). Mean: beta * (mean of answer and tail together - mean of "
                "the answer).",
            ),
            insight="Normalising by length changes the price of padding; it does not forbid it.",
        ),
        Exercise(
            name="6.3",
            title="Best of n, exactly",
            check=check_best_of_n,
            hints=(
                "The best of n draws scores at most s exactly when all n do. If F(s) is the "
                "probability of scoring at most s, what is that for n draws?",
                "Sort by score, accumulate the probabilities to F, raise to the power n. The "
                "probability of one answer is a difference of two neighbours.",
                "q_(k) = F_k^n - F_(k-1)^n in sorted order, put back in the order given; then "
                "KL = sum q log(q / p). The formula log n - (n - 1)/n is only its bound.",
            ),
            insight="The KL stays below log n - (n - 1)/n, so best of 1,000 is at most 5.9 "
            "nats from the base.",
        ),
        Exercise(
            name="6.4",
            title="When to stop",
            check=check_when_to_stop,
            hints=(
                "The best of n is picked by the proxy. What you care about is the gold reward of "
                "what was picked.",
                "For each candidate n: the law of the best of n by the proxy (exercise 6.3), then "
                "the mean of the gold reward under that law.",
                "return max(candidates, key=lambda n: (law(probabilities, proxy, n) * gold).sum())",
            ),
            insight="The proxy's own curve never turned. Only something it was not chosen by "
            "could say stop.",
        ),
        Exercise(
            name="6.5",
            title="Where noise puts the margin",
            check=check_margin_under_noise,
            hints=(
                "Which share of the *recorded* labels speaks for the answer? Some were for it and "
                "kept, some were against it and flipped.",
                "The recorded share is (1 - eps) alpha + eps (1 - alpha). DPO does not know that "
                "labels were flipped: it rests where it would for that share.",
                "margin = logit((1 - eps) alpha + eps (1 - alpha)) / beta. At alpha = 1 this is "
                "logit(1 - eps) / beta, a finite number.",
            ),
            insight="Disagreement and error look the same to the loss: both are a share of "
            "labels against the answer.",
        ),
    ),
    quiz=(
        Question(
            text="In a set of pairs, chosen answers are longer in 59 %. Margins correlate with "
            "length at 0.4. Has the policy learned to like length?",
            options=(
                "Yes: 0.4 is a strong correlation.",
                "Not shown: longer answers may be better ones. Compare at equal quality.",
                "No: 59 % is close to a half.",
                "Yes, because DPO sums over tokens.",
            ),
            right="b",
            why="Length and quality go together, so a correlation cannot tell them apart. Hold "
            "quality fixed (by regression or by matched pairs), or edit the length alone.",
        ),
        Question(
            text="Rewards are normalised by length. A reply gets a closing whose tokens have a "
            "higher log-ratio than its mean. Its reward",
            options=("stays", "rises", "falls", "doubles"),
            right="b",
            why="A mean moves towards what joins it. Normalising removes the automatic growth with "
            "the number of tokens, not every way to profit from padding.",
        ),
        Question(
            text="Best of 16 from a language model: how far is it from the base, at most?",
            options=("16 nats", "log 16 = 2.77 nats", "log 16 - 15/16 = 1.84 nats", "unbounded"),
            right="c",
            why="log n - (n - 1)/n bounds the KL, and where no single answer carries a noticeable "
            "share of the probability it is nearly reached. n buys KL only logarithmically.",
        ),
        Question(
            text="While n grows, the proxy reward of the best of n",
            options=(
                "rises for ever or stays; it never falls",
                "rises, then falls, like the gold reward",
                "falls as soon as answers fool it",
                "is the gold reward plus noise, so it averages out",
            ),
            right="a",
            why="More draws cannot make the best score worse. That is why the proxy cannot tell "
            "you when to stop: you need something it was not chosen by.",
        ),
        Question(
            text="10 % of labels are flipped at random. All raters agreed on every pair. Where "
            "does DPO with beta = 0.1 want the margin?",
            options=("at infinity", "near 22 nats", "near 2.2 nats", "at 0"),
            right="b",
            why="logit(0.9) / 0.1 = 21.97. Noise makes the target finite, and the same formula "
            "says what rater disagreement does: DPO cannot tell the two apart.",
        ),
    ),
)

"""Lesson 5: the objective zoo. What a loss asks of a pair, read off its curve over the margin."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from workbench.course.answers import (
    Answer,
    Numbers,
    Open,
    Wrong,
    agree,
    ask,
    number,
    numbers,
    shown,
)
from workbench.course.exercise import Exercise, Lesson, Question
from workbench.objectives.catalogue import OBJECTIVES
from workbench.objectives.curves import margin_curve
from workbench.objectives.logps import PairLogps

FAR = 3_000.0
"""A scaled margin at which exp overflows, but no loss does."""
NAMES = ("dpo", "hinge", "ipo")
SCORES = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")
TOKENS = ("n_chosen", "n_rejected")


def curve(name: str, margins: Numbers, **settings: Any) -> tuple[Numbers, Numbers]:  # noqa: ANN401
    """An objective's loss of each margin, and its derivative by the margin."""
    found = margin_curve(OBJECTIVES[name], torch.as_tensor(margins).double(), **settings)
    return found.loss.numpy(), found.gradient.numpy()


def check_smoothed_loss(answer: Answer, draw: np.random.Generator) -> None:
    """5.1: cDPO's loss of each margin, and its derivative by the margin."""
    beta, eps = float(draw.uniform(0.05, 2)), float(draw.uniform(0.05, 0.4))
    margin = draw.normal(0, 3, 6) / beta
    loss, slope = curve("cdpo", margin, beta=beta, label_smoothing=eps)
    found = numbers(ask(answer, margin, beta, eps), (2, 6), "the pair (loss, derivative)")
    given = {"margin": margin, "beta": beta, "eps": eps}
    other, half = (
        curve("cdpo", m, beta=beta, label_smoothing=e)[0]
        for m, e in ((-margin, eps), (margin, eps / 2))
    )
    slips = {
        "put eps on the label as it stands": other,
        "smoothed by eps / 2, as in classification": half,
    }
    agree(found[0], loss, given, slips, name="the loss")
    slips = {"took the derivative by beta * margin": slope / beta, "lost its sign": -slope}
    agree(found[1], slope, given, slips, name="the derivative")
    _survives(answer, beta, eps)


def _survives(answer: Answer, beta: float, eps: float) -> None:
    far = np.array([-FAR / beta, FAR / beta])
    found = numbers(ask(answer, far, beta, eps), (2, 2), "the pair (loss, derivative)")[0]
    for margin, loss, share in zip(far, found, (1 - eps, eps), strict=True):
        if not math.isclose(loss, share * FAR, rel_tol=1e-4):
            raise Wrong(
                f"for margin = {margin:.6g}, beta = {beta:.6g}: the loss is {share * FAR:.6g}, a "
                f"finite number, found {loss:.6g}. exp of a large number overflows, and log(0) is "
                "infinite: build on softplus or logaddexp."
            )


def check_resting_margin(answer: Answer, draw: np.random.Generator) -> None:
    """5.2: the margin at which the raters' mean loss is least."""
    beta, alpha = float(draw.uniform(0.05, 1.5)), float(draw.uniform(0.55, 0.95))
    for share, name in itertools.product((alpha, 1 - alpha), NAMES):
        found = number(ask(answer, name, share, beta), "the resting margin")
        here, below, above = rater_loss(
            name, found + np.array([0, -0.02, 0.02]) / beta, share, beta
        )
        if not here <= min(below, above):
            way = "lower" if below < above else "higher"
            raise Wrong(
                f"for {name}, alpha = {share:.6g}, beta = {beta:.6g}: at your margin {found:.6g} "
                f"the raters' mean loss is {here:.6g}, and at a slightly {way} margin "
                f"{min(below, above):.6g}. So it is not at its minimum yet."
            )


def rater_loss(name: str, margins: Numbers, alpha: float, beta: float) -> Numbers:
    """Mean loss where a share alpha of raters labels the pair this way and the rest the other."""
    one, other = (curve(name, m, beta=beta)[0] for m in (margins, -margins))
    return _mean(one, other, 1 - alpha)


def check_gradient_shares(answer: Answer, draw: np.random.Generator) -> None:
    """5.3: which part of a batch's pull each pair has."""
    beta = float(draw.uniform(0.05, 1))
    margin = np.array([*draw.normal(0, 2, 4), draw.uniform(4, 9)]) / beta
    for name in NAMES:
        _shares_agree(answer, name, margin, beta)
    _shares_agree(answer, "hinge", np.array([2.0, 3.0, 5.0]) / beta, beta)


def _shares_agree(answer: Answer, name: str, margin: Numbers, beta: float) -> None:
    loss, slope = curve(name, margin, beta=beta)
    found = numbers(ask(answer, name, margin, beta), margin.shape, "the shares")
    if not slope.any() and not np.isfinite(found).all():
        raise Wrong(
            f"for {name}, margin * beta = {shown(margin * beta)}: no pair has a gradient, so every "
            f"share is 0, found {shown(found)}."
        )
    given = {"objective": name, "margin": margin, "beta": beta}
    slips = {
        "took the losses, which say how wrong a pair is and not how it pulls": _shares(loss),
        "left the signs in: a pair that is pulled back pulls as well": _shares(slope),
    }
    agree(found, _shares(np.abs(slope)), given, slips, name="the share", rtol=1e-4)


def _shares(values: Numbers) -> Numbers:
    shares: Numbers = values / (values.sum() or 1.0)
    return shares


def check_robust_loss(answer: Answer, draw: np.random.Generator) -> None:
    """5.4: a loss whose mean over flipped labels is DPO's under the true ones."""
    beta, eps = float(draw.uniform(0.05, 2)), float(draw.uniform(0.05, 0.45))
    margin = draw.normal(0, 2, 5) / beta
    kept, flipped = (
        numbers(ask(answer, m, beta, eps), (5,), "the loss") for m in (margin, -margin)
    )
    one, other = (curve("cdpo", m, beta=beta, label_smoothing=eps)[0] for m in (margin, -margin))
    agree(
        _mean(kept, flipped, eps),
        curve("dpo", margin, beta=beta)[0],
        {"margin": margin, "beta": beta, "eps": eps},
        {"smoothed the labels; conservative DPO has another mean": _mean(one, other, eps)},
        name="the mean of your loss over flipped labels, (1 - eps) L(d) + eps L(-d)",
    )


def _mean(kept: Numbers, flipped: Numbers, eps: float) -> Numbers:
    """Mean over labels of which a share eps is flipped."""
    mean: Numbers = (1 - eps) * kept + eps * flipped
    return mean


def check_dividing_pair(answer: Answer, draw: np.random.Generator) -> None:
    """5.5: a pair with which DPO is content and SimPO is not."""
    pair = _possible(answer)
    m = pair["policy_chosen"] - pair["policy_rejected"]
    c = pair["reference_rejected"] - pair["reference_chosen"]
    if 0.1 * (m + c) < 1:
        raise Wrong(
            f"DPO's margin is m + c = {m:.4g} + {c:.4g} = {m + c:.4g} nats: at beta 0.1 that is "
            f"{0.1 * (m + c):.3g}, and 1 or more is wanted for DPO to be content."
        )
    if m <= 0:
        raise Wrong(
            f"By its summed log-probabilities the policy itself ranks the rejected answer first "
            f"(m = {m:.4g}); the pair should be ranked right, so that only the length divides."
        )
    chosen, rejected = (pair[f"policy_{s}"] / pair[f"n_{s}"] for s in ("chosen", "rejected"))
    beta, gamma = float(draw.uniform(2, 4)), float(draw.uniform(0.2, 1))
    logps = PairLogps(**{name: torch.tensor([pair[name]]).double() for name in (*SCORES, *TOKENS)})
    loss = float(OBJECTIVES["simpo"].losses(logps, beta=beta, gamma=gamma))
    if chosen >= rejected:
        raise Wrong(
            f"SimPO compares means: {chosen:.4g} a token for the chosen answer against "
            f"{rejected:.4g}. That is in the right order (loss {loss:.3g} at beta {beta:.3g}, "
            f"gamma {gamma:.3g}); make the rejected answer's mean the higher one."
        )


def _possible(answer: Any) -> dict[str, float]:  # noqa: ANN401 - a student's dict
    """The six numbers of a pair.

    Raises:
        Wrong: one is missing, or cannot be what it is called.
    """
    if answer is None or answer is ...:
        raise Open("nothing is answered yet.")
    if not isinstance(answer, Mapping) or set(answer) != {*SCORES, *TOKENS}:
        raise Wrong(f"a dict with the keys {', '.join((*SCORES, *TOKENS))} is asked for.")
    pair = {name: number(value, name) for name, value in answer.items()}
    for name in SCORES:
        if not -math.inf < pair[name] < 0:
            raise Wrong(
                f"{name} is {pair[name]:.6g}; the log-probability of an answer is a finite number "
                "below 0."
            )
    for name in TOKENS:
        if pair[name] < 1 or pair[name] != int(pair[name]):
            raise Wrong(f"{name} is {pair[name]:.6g}; an answer has a whole number of tokens.")
    return pair


LESSON = Lesson(
    number=5,
    slug="objective_zoo",
    title="The objective zoo",
    minutes=75,
    aims=(
        "Read an objective off its loss and its gradient over the margin.",
        "Say at which margin each objective lets a pair rest, and why some never do.",
        "Predict what one confident or one mislabelled pair does to a batch.",
        "Tell which objectives need a reference, and what takes its place.",
    ),
    exercises=(
        Exercise(
            name="5.1",
            title="A loss and its gradient",
            check=check_smoothed_loss,
            hints=(
                "Write z = beta * d first. The loss is a mixture of two of DPO's: weight 1 - eps "
                "on the label as it stands, weight eps on the label turned round.",
                "-log sigmoid(z) = softplus(-z), and softplus has the derivative sigmoid. Mind the "
                "chain rule: the derivative asked for is by d, not by z.",
                "loss = (1 - eps) softplus(-z) + eps softplus(z), and the derivative by d is "
                "beta (sigmoid(z) - (1 - eps)).",
            ),
            insight="At sigmoid(beta d) = 1 - eps the derivative is 0: smoothing gives a pair "
            "a place to rest.",
        ),
        Exercise(
            name="5.2",
            title="Where a pair comes to rest",
            check=check_resting_margin,
            hints=(
                "The mean loss is alpha * loss(d) + (1 - alpha) * loss(-d). Where is its "
                "derivative zero, and for the hinge, where does it change sign?",
                "DPO: alpha sigmoid(-beta d) = (1 - alpha) sigmoid(beta d). IPO: a mean of two "
                "squares is least at the mean of their centres, which are +1/(2 beta) and "
                "-1/(2 beta). Hinge: piecewise linear, so a corner.",
                "DPO rests at logit(alpha) / beta, IPO at (2 alpha - 1) / (2 beta), the hinge at "
                "1 / beta with the sign of the majority, however small that majority is.",
            ),
            insight="DPO keeps the raters' odds, IPO their lead, the hinge their majority and "
            "nothing else.",
        ),
        Exercise(
            name="5.3",
            title="Who pulls in a batch",
            check=check_gradient_shares,
            hints=(
                "A pair pulls by the size of its loss's derivative, not by its loss. Take absolute "
                "values, then divide by their sum.",
                "The derivatives' sizes: DPO beta sigmoid(-beta d); hinge beta where beta d < 1 "
                "and else 0; IPO 2 |d - 1/(2 beta)|, which grows again beyond its target.",
                "Where no pair pulls, as under the hinge with all margins beyond 1/beta, the sum "
                "is 0: return zeros there instead of dividing.",
            ),
            insight="A confident pair is nearly silent under DPO, silent under the hinge, and "
            "pulled back by IPO.",
        ),
        Exercise(
            name="5.4",
            title="Undo the flipped labels",
            check=check_robust_loss,
            hints=(
                "Call DPO's loss l(d). You look for L with (1 - eps) L(d) + eps L(-d) = l(d), for "
                "every d. Write the same equation at -d.",
                "Two linear equations in the two unknowns L(d) and L(-d): eliminate L(-d).",
                "L(d) = [(1 - eps) l(d) - eps l(-d)] / (1 - 2 eps).",
            ),
            insight="The mean is right for every margin. The price: weights that grow like 1 / "
            "(1 - 2 eps), and a loss without a floor.",
        ),
        Exercise(
            name="5.5",
            title="A pair that divides the zoo",
            check=check_dividing_pair,
            hints=(
                "DPO looks at sums and at the reference, SimPO at means and at nothing else. A "
                "long answer can have a low sum and a high mean.",
                "Make the chosen answer short and improbable a token, the rejected one long and "
                "probable a token. Then choose the reference so that d = m + c is at least 10.",
                "For example -30 nats over 5 tokens against -60 over 40: m = 30, the means are -6 "
                "and -1.5. A reference with equal log-probabilities for both has c = 0.",
            ),
            insight="The same pair is settled for one objective and upside down for another: "
            "they read different numbers.",
        ),
    ),
    quiz=(
        Question(
            text="A pair is already confident: beta d = 6. Which objective pushes its margin back "
            "down?",
            options=("DPO", "the hinge", "IPO", "robust DPO with eps = 0.1"),
            right="c",
            why="IPO is a parabola around d = 1/(2 beta), that is beta d = 1/2, and beyond it the "
            "gradient changes its sign. DPO and robust DPO still push upwards, the hinge is still.",
        ),
        Question(
            text="Conservative and robust DPO both assume a share eps of wrong labels. How do they "
            "differ at large margins?",
            options=(
                "Not at all: they have the same minimiser.",
                "cDPO stops at logit(1 - eps)/beta; robust DPO pushes on for ever.",
                "Robust DPO stops at logit(1 - eps)/beta; cDPO pushes on for ever.",
                "Both are zero there.",
            ),
            right="b",
            why="Smoothing makes the label a probability, which a finite margin meets. The robust "
            "loss estimates DPO's loss under clean labels, and so it has DPO's appetite, and more "
            "variance.",
        ),
        Question(
            text="KTO's loss of a good answer is 1 - sigmoid(beta (a - z0)). What does it do with "
            "an answer that the policy finds far less likely than the reference does?",
            options=(
                "It pushes hardest there.",
                "It pushes with constant force, like the hinge.",
                "It hardly pushes: the sigmoid is flat there.",
                "It pushes the answer down further.",
            ),
            right="c",
            why="The derivative is beta sigmoid'(.), a bump around z0. KTO gives up on hopeless "
            "answers, which protects it from wrong labels and costs it hard ones.",
        ),
        Question(
            text="A rater share of 0.51 and one of 0.99: for which objective is the resting margin "
            "the same?",
            options=("DPO", "IPO", "hinge", "none of them"),
            right="c",
            why="The hinge's mean loss is piecewise linear, with its minimum at the corner on the "
            "majority's side: it keeps the vote's sign and forgets its size.",
        ),
        Question(
            text="SimPO and ORPO have no reference model. What keeps the policy from running off?",
            options=(
                "Nothing in SimPO's loss but its saturation; in ORPO the likelihood of the chosen "
                "answer.",
                "A hidden KL term in both.",
                "The length normalisation is a KL term.",
                "The margin gamma bounds the distance from the start.",
            ),
            right="a",
            why="Both drop log pi_ref. ORPO keeps a negative log-likelihood; SimPO relies on a low "
            "learning rate and on sigmoid's flat end. gamma asks for more margin, not for less.",
        ),
    ),
)

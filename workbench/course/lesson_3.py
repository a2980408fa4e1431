"""Lesson 3: why DPO rarely flips a ranking, after Chen et al. (arXiv 2405.19534)."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from workbench.course.answers import Answer, Wrong, agree, ask, number, numbers, two
from workbench.course.exercise import Exercise, Lesson, Question
from workbench.metrics import ranking
from workbench.objectives.dpo import sigmoid_loss

PAIRS = 6
HARDEST = 457.6
"""The largest c that the paper lists, nats; at beta = 0.1 the flip asks for a loss of 1.3e-20."""


def check_flip_threshold(answer: Answer, draw: np.random.Generator) -> None:
    """3.1: the loss at which a pair's ranking turns right."""
    c, beta = torch.tensor(draw.normal(0, 12, PAIRS)), float(draw.uniform(0.05, 0.5))
    threshold = ranking.flip_threshold(c, beta)
    slips = {
        "turned the sign of c round": softplus(beta * c),
        "left out beta": softplus(-c),
        "took the logarithm to base 2": threshold / math.log(2),
        "returned the probability sigmoid(beta c), and not its loss": torch.sigmoid(beta * c),
        "returned the starting loss log 2 for all of them": math.log(2),
    }
    found = numbers(ask(answer, c, beta), (PAIRS,))
    agree(found, threshold, {"c": c, "beta": beta}, slips, rtol=1e-4)
    c, beta = torch.tensor([HARDEST, -20 * HARDEST]).double(), 0.1
    expected = ranking.flip_threshold(c, beta)
    found = numbers(ask(answer, c, beta), (2,))
    if found[0] == 0:
        raise Wrong(
            f"for c = {HARDEST}, beta = 0.1: expected {float(expected[0]):.4g}, found 0. "
            "sigmoid(beta c) was rounded to 1 before its logarithm was taken; use softplus."
        )
    overflow = {"let exp overflow": torch.stack([expected[0], torch.tensor(math.inf)])}
    agree(found, expected, {"c": c, "beta": beta}, overflow, rtol=1e-3, atol=0)


def check_idealized_accuracy(answer: Answer, draw: np.random.Generator) -> None:
    """3.2: the share of pairs that perfect training ranks correctly, at each beta."""
    size = 12
    c = torch.tensor(draw.normal(5, 15, size))
    alpha = torch.tensor(draw.choice([0.6, 0.75, 0.9, 0.999, 0.4], size))
    c[0], alpha[0] = 0.0, 0.5
    c[1:3], alpha[1:3] = torch.tensor([-900.0, 900.0]), 0.999
    betas = torch.tensor([0.005, *np.sort(draw.uniform(0.02, 2, 2)), 8.0])
    expected = ranking.idealized_ranking_accuracy_curve(c, alpha, betas)
    logit = torch.logit(alpha)
    slips = {
        "turned the sign of c round": _shares(logit > -betas[:, None] * c),
        "divided c by beta": _shares(logit > c / betas[:, None]),
        "asked the raters' majority and left out the reference": _shares(
            (alpha > 0.5).expand(4, size)
        ),
        "asked the reference and left out the raters": _shares((c < 0).expand(4, size)),
        "counted ties; the inequality is strict": _shares(logit >= betas[:, None] * c),
        "multiplied alpha by beta's power without the logarithm": _shares(
            alpha > betas[:, None] * c
        ),
        "counted the pairs; divide by their number": expected * size,
        "lost the largest |c| in exp: probabilities under- or overflow": _by_products(
            c, alpha, betas
        ),
    }
    found = numbers(ask(answer, c, alpha, betas), (4,))
    agree(found, expected, {"c": c, "alpha": alpha, "beta": betas}, slips, atol=1e-6)


def check_flip_beta(answer: Answer, draw: np.random.Generator) -> None:
    """3.3: the beta at which perfect training gives a pair up."""
    c = torch.tensor([*draw.uniform(0.5, 40, PAIRS - 2), *-draw.uniform(0.5, 40, 2)])
    alpha = torch.tensor(draw.uniform(0.55, 0.98, PAIRS))
    expected = ranking.flip_beta(c, alpha)
    quotient = torch.logit(alpha) / c
    slips = {
        "let a negative c give a negative beta; there no beta > 0 switches the pair off": quotient,
        "turned the quotient round": torch.where(c < 0, math.inf, 1 / quotient),
        "took the share and not its logit": torch.where(c < 0, math.inf, alpha / c),
        "gave 0 where no beta switches the pair off": quotient.clamp(min=0),
        "took the logarithm to base 2": expected / math.log(2),
    }
    found = numbers(ask(answer, c, alpha), (PAIRS,))
    agree(found, expected, {"c": c, "alpha": alpha}, slips)


def check_flip_push(answer: Answer, draw: np.random.Generator) -> None:
    """3.4: how strongly the loss still pushes the log-ratio where the ranking turns."""
    c, beta = torch.tensor(draw.uniform(1, 30, PAIRS)), float(draw.uniform(0.05, 0.5))
    push = ranking.flip_gradient_scale(c, beta)
    slips = {
        "left out the factor beta that comes from inside the sigmoid": push / beta,
        "took the push at the start, where policy = reference": beta / 2,
        "turned the sign of c round": beta * torch.sigmoid(beta * c),
        "kept the minus sign; the size of the push is asked for": -push,
        "returned the loss there and not its slope": ranking.flip_threshold(c, beta),
    }
    found = numbers(ask(answer, c, beta), (PAIRS,))
    agree(found, push, {"c": c, "beta": beta}, slips, atol=1e-7)


def check_trained_but_wrong(answer: Answer, draw: np.random.Generator) -> None:
    """3.5: a policy with a given, lower loss that still ranks the pair wrongly."""
    c, beta = float(draw.uniform(10, 60)), float(draw.uniform(0.05, 0.3))
    chosen = -float(draw.uniform(80, 120))
    floor = float(softplus(torch.tensor(-beta * c)))
    loss = floor + float(draw.uniform(0.2, 0.8)) * (math.log(2) - floor)
    given = {"reference_chosen": chosen, "reference_rejected": chosen + c}
    given |= {"beta": beta, "loss": loss}
    parts = two(ask(answer, *given.values()), "policy_chosen and policy_rejected")
    policy = [number(part, name) for part, name in zip(parts, ("chosen", "rejected"), strict=True)]
    _check_policy(policy, given)


def _check_policy(policy: list[float], given: dict[str, float]) -> None:
    chosen, rejected = policy
    where = ", ".join(f"{name} = {value:.6g}" for name, value in given.items())
    where = f"for {where}: your policy gives {chosen:.6g} and {rejected:.6g}"
    if max(chosen, rejected) > 0:
        raise Wrong(f"{where}; a log-probability is at most 0.")
    c = given["reference_rejected"] - given["reference_chosen"]
    m = torch.tensor([chosen - rejected], dtype=torch.float64)
    reached = sigmoid_loss(m, torch.full_like(m, c), given["beta"])
    if not math.isclose(float(reached), given["loss"], rel_tol=1e-4):
        raise Wrong(f"{where}, a loss of {float(reached):.6g}, not {given['loss']:.6g}.")
    if chosen >= given["reference_chosen"]:
        raise Wrong(
            f"{where}; the loss is right, but the chosen answer did not become less probable than "
            f"under the reference, {given['reference_chosen']:.6g}."
        )


def _shares(correct: Tensor) -> Tensor:
    return correct.double().mean(dim=-1)


def _by_products(c: Tensor, alpha: Tensor, betas: Tensor) -> Tensor:
    odds = (alpha / (1 - alpha)) ** (1 / betas[:, None])
    return _shares(torch.exp(-c) * odds > 1)


LESSON = Lesson(
    number=3,
    slug="why_dpo_rarely_flips",
    title="Why DPO rarely flips a ranking",
    minutes=75,
    aims=(
        "derive the loss below which a pair is ranked correctly, and see it hold exactly",
        "say what even perfect training cannot rank, and how beta decides it",
        "explain with one gradient why wrong pairs stay wrong",
        "read a falling loss and a growing margin without concluding too much",
    ),
    exercises=(
        Exercise(
            name="3.1",
            title="The loss at the flip",
            check=check_flip_threshold,
            hints=(
                "At the flip the policy is undecided: m = 0. What is DPO's loss there?",
                "The loss is -log sigmoid(beta * (m + c)), so at the flip -log sigmoid(beta * c).",
                "`softplus(-beta * c)` from torch.nn.functional, or `np.logaddexp(0, -beta * c)`. "
                "Taking log of sigmoid loses everything beyond beta * c = 37.",
            ),
            insight="The loss falls monotonically in m, so: ranked correctly if and only if the "
            "loss is at most this (Theorem 4.1). No assumption on model or data.",
        ),
        Exercise(
            name="3.2",
            title="What perfect training would rank",
            check=check_idealized_accuracy,
            hints=(
                "Perfect training gives each pair m = logit(alpha) / beta - c. When is that above "
                "0? Multiply by beta, and stay with logarithms.",
                "A pair is correct at beta if logit(alpha) > beta * c, strictly. Then the mean "
                "over the pairs, for each beta.",
                "`(torch.logit(alpha) > betas[:, None] * c).double().mean(dim=1)`.",
            ),
            insight="Where the majority prefers the chosen answer a pair can only be lost as beta "
            "grows, so the ideal accuracy falls from the raters' majority to the reference's own "
            "ranking.",
        ),
        Exercise(
            name="3.3",
            title="The beta that gives a pair up",
            check=check_flip_beta,
            hints=(
                "Set logit(alpha) = beta * c and solve for beta. Then think of c < 0.",
                "logit(alpha) / c where c > 0. With c < 0 the reference is right already, and the "
                "raters agree with it: which beta could change that?",
                "`torch.where(c > 0, torch.logit(alpha) / c, torch.inf)`.",
            ),
            insight="At beta = 0.1 nine raters of ten (2.2 nats) buy a correction of 22 nats. A "
            "sequence of a hundred tokens easily stands further off than that.",
        ),
        Exercise(
            name="3.4",
            title="The push at the flip",
            check=check_flip_push,
            hints=(
                "Differentiate -log sigmoid(beta * (m + c)) by m, and take its size at m = 0.",
                "d/dz of -log sigmoid(z) is -sigmoid(-z); the inner derivative is beta.",
                "`beta * torch.sigmoid(-beta * c)`. Autograd on a tensor m of zeros gives the "
                "same.",
            ),
            insight="It starts at beta / 2 and has fallen to about beta exp(-beta c) when it is "
            "needed: DPO counts a pair as learned long before its ranking turns.",
        ),
        Exercise(
            name="3.5",
            title="Well trained, and wrong",
            check=check_trained_but_wrong,
            hints=(
                "Which margin m + c has this loss? From it follows m, the difference of the two "
                "numbers that you return; one of them you may choose.",
                "loss = softplus(-beta (m + c)), so m = -log(exp(loss) - 1) / beta - c with c = "
                "reference_rejected - reference_chosen.",
                "Take `policy_chosen = reference_chosen - 1` and `policy_rejected = "
                "policy_chosen - m`. Check for yourself that m < 0.",
            ),
            insight="Lower loss, larger margin, reward accuracy 1, the chosen answer less probable "
            "than before and still behind the rejected one. All of it at once.",
        ),
    ),
    quiz=(
        Question(
            text="c = log pi_ref(rejected) - log pi_ref(chosen) is +30 for a pair. This means",
            options=(
                "the reference ranks it wrongly, by 30 nats",
                "the reference ranks it correctly, by 30 nats",
                "the rejected answer is 30 tokens longer",
            ),
            right="a",
            why="Positive c: the rejected answer is the more probable one. To turn the ranking, "
            "the policy's log-ratio has to move by 30 nats.",
        ),
        Question(
            text="At beta = 0.1 a pair with c = 30 has a loss of 0.10. Is it ranked correctly?",
            options=(
                "Yes, 0.10 is far below log 2.",
                "No: softplus(-3) = 0.049 is the most it may have.",
                "That depends on the policy's log-probabilities.",
            ),
            right="b",
            why="The condition is exact: correct if and only if the loss is at most "
            "softplus(-beta c). Nothing else about the policy matters.",
        ),
        Question(
            text="For which pairs does a loss of at most log 2 guarantee a correct ranking?",
            options=(
                "for all",
                "for those with long answers",
                "for those with unanimous raters",
                "for those that the reference ranks correctly",
            ),
            right="d",
            why="softplus(-beta c) >= log 2 exactly where c <= 0. Such pairs are correct at the "
            "start, and DPO only has to leave them so.",
        ),
        Question(
            text="You let beta go to infinity and train perfectly. The ranking accuracy becomes",
            options=("100 %", "that of the raters' majority", "that of the reference", "50 %"),
            right="c",
            why="logit(alpha) > beta c then holds just where c < 0: a large beta keeps the policy "
            "at the reference, rankings and all.",
        ),
        Question(
            text="The alignment gap of a model is 40 points. A fair reading is:",
            options=(
                "40 % of the raters disagree with it.",
                "Perfect optimisation of the same objective would rank 40 points more of these "
                "pairs correctly.",
                "A larger beta would close the gap.",
            ),
            right="b",
            why="It is the idealized accuracy (the median over beta) minus the achieved one. A "
            "larger beta lowers the ideal and moves no policy by itself.",
        ),
    ),
)

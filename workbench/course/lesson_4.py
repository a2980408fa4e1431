"""Lesson 4: differential information and entropy, after Won et al. (arXiv 2505.23761)."""

import math

import numpy as np
import torch
from torch import Tensor

from workbench.course.answers import Answer, agree, ask, number, numbers, two
from workbench.course.exercise import Exercise, Lesson, Question
from workbench.metrics import information

PROMPTS = 4


def check_did(answer: Answer, draw: np.random.Generator) -> None:
    """4.1: the differential information distribution of one prompt's answers."""
    policy, reference = _policies(draw, int(draw.integers(3, 8)))
    ratio = policy - reference
    q = information.did_log_density(policy, reference).exp()
    weighted = policy.exp() * ratio
    slips = {
        "did not normalise: q must sum to 1": ratio.exp(),
        "turned the ratio round": torch.softmax(-ratio, 0),
        "left out the reference": policy.exp(),
        "normalised the log-ratios themselves, without exp": ratio / ratio.sum(),
        "normalised the differences of the probabilities": _shared(policy.exp() - reference.exp()),
        "returned log q and not q": q.log(),
        "took the terms of the KL divergence": weighted / weighted.sum(),
    }
    given = {"policy_logp": policy, "reference_logp": reference}
    agree(numbers(ask(answer, *given.values()), tuple(q.shape)), q, given, slips, atol=1e-6)
    given = {"policy_logp": torch.tensor([-900.0, -60.0]).double()}
    given |= {"reference_logp": torch.tensor([-1700.0, -861.0]).double()}
    found = numbers(ask(answer, *given.values()), (2,))
    expected = torch.sigmoid(torch.tensor([-1.0, 1.0]))
    overflow = {"left log space: exp over- or underflows for sequences": [math.nan, math.nan]}
    agree(found, expected, given, overflow, atol=1e-6)


def check_did_entropy(answer: Answer, draw: np.random.Generator) -> None:
    """4.2: the mean DID entropy over prompts."""
    size = int(draw.integers(3, 7))
    policy, reference = (
        torch.stack(part)
        for part in zip(*(_policies(draw, size) for _ in range(PROMPTS)), strict=True)
    )
    policy[0, 0] = -math.inf
    entropies = information.did_entropy(policy, reference)
    expected = entropies.mean()
    log_q = information.did_log_density(policy, reference)
    pooled = torch.softmax((policy - reference).flatten(), 0)
    slips = {
        "let 0 * log 0 become nan; an answer with q = 0 adds nothing": math.nan,
        "summed over the prompts; the mean is asked for": entropies.sum(),
        "measured in bits": expected / math.log(2),
        "left out the minus sign": -expected,
        "pooled the answers of all prompts into one q": _entropy(pooled),
        "took the mean q of the prompts and then its entropy": _entropy(log_q.exp().mean(0)),
        "took the entropy of the policy and not of q": _entropy(policy.exp()).mean(),
        "averaged over answers as well as prompts": expected / size,
    }
    given = {"policy_logp": policy, "reference_logp": reference}
    agree(number(ask(answer, *given.values())), expected, given, slips, atol=1e-6)


def check_rejected(answer: Answer, draw: np.random.Generator) -> None:
    """4.3: where rejected answers should come from, for DPO to end at a target."""
    target, reference = _policies(draw, int(draw.integers(3, 8)))
    beta = float(draw.uniform(0.2, 0.8))
    expected = information.optimal_rejected_log_density(target, reference, beta)
    ratio = reference - target
    slips = {
        "divided by beta in place of multiplying": torch.log_softmax(reference + ratio / beta, 0),
        "turned the ratio round: this one leads away from the target": torch.log_softmax(
            reference - beta * ratio, 0
        ),
        "left out beta": torch.log_softmax(reference + ratio, 0),
        "did not normalise: the probabilities must sum to 1": reference + beta * ratio,
        "left out the reference in front": torch.log_softmax(beta * ratio, 0),
        "returned probabilities and not their logarithms": expected.exp(),
        "gave the target itself": target,
    }
    given = {"target_logp": target, "reference_logp": reference, "beta": beta}
    found = numbers(ask(answer, *given.values()), tuple(expected.shape))
    agree(found, expected, given, slips, atol=1e-5)


def check_displacement(answer: Answer, draw: np.random.Generator) -> None:
    """4.4: by how much chosen and rejected answers change their log-probability on average."""
    target, reference = _policies(draw, int(draw.integers(3, 8)))
    rejected = information.optimal_rejected_log_density(
        target, reference, float(draw.uniform(0.2, 2))
    )
    given = {"target_logp": target, "reference_logp": reference, "rejected_logp": rejected}
    parts = two(ask(answer, *given.values()), "the change of chosen and of rejected answers")
    change = target - reference
    common = {
        "took reference minus target": -1.0,
        "measured in bits": 1 / math.log(2),
    }
    for found, law, name in zip(parts, (reference, rejected), ("chosen", "rejected"), strict=True):
        expected = (law.exp() * change).sum()
        other = rejected if name == "chosen" else reference
        slips = {slip: factor * expected for slip, factor in common.items()} | {
            "averaged over the target's answers; these come from another policy": (
                target.exp() * change
            ).sum(),
            "weighed all answers alike": change.mean(),
            "exchanged chosen and rejected": (other.exp() * change).sum(),
            "left out the weights": change.sum(),
        }
        what = f"the mean change of {name} answers"
        agree(number(found, what), expected, given, slips, name=what, atol=1e-6)


def check_sampled_entropy(answer: Answer, draw: np.random.Generator) -> None:
    """4.5: the entropy of q from drawn answers, and the effective sample size."""
    policy, reference = _policies(draw, 12)
    mixture = information.mixture_log_density(policy, reference)
    drawn = torch.tensor(draw.choice(12, 40, p=_shared(mixture.exp()).numpy()))
    policy, reference, proposal = policy[drawn], reference[drawn], mixture[drawn]
    given = {"policy_logp": policy, "reference_logp": reference, "proposal_logp": proposal}
    parts = two(ask(answer, *given.values()), "the estimate and the effective sample size")
    ratio = policy - reference
    log_w = ratio - proposal
    weights = torch.softmax(log_w, 0)
    estimate = information.snis_entropy(log_w, ratio)
    slips = {
        "took -sum w log w of the weights, which measures them and not q": _entropy(weights),
        "left out log K, the number of draws": estimate + math.log(40),
        "left the proposal out of the weights": information.snis_entropy(ratio, ratio),
        "averaged the log-ratio without the weights": (
            log_w.logsumexp(0) - math.log(40) - ratio.mean()
        ),
        "averaged log w in place of the log-ratio": information.snis_entropy(log_w, log_w),
    }
    what = "the estimate of H(q)"
    agree(number(parts[0], what), estimate, given, slips, name=what, atol=1e-6)
    slips = {
        "counted the draws": torch.tensor(40.0),
        "divided the size by the number of draws": 1 / (40 * (weights**2).sum()),
        "returned the sum of squares and not 1 over it": (weights**2).sum(),
        "took exp of the weights' entropy, another effective number": _entropy(weights).exp(),
    }
    what = "the effective sample size"
    agree(number(parts[1], what), 1 / (weights**2).sum(), given, slips, name=what)


def _policies(draw: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities of two policies over the same answers."""
    policy, reference = torch.log_softmax(torch.tensor(draw.normal(0, 1.3, (2, size))), dim=1)
    return policy, reference


def _entropy(probability: Tensor) -> Tensor:
    terms: Tensor = torch.special.xlogy(probability, probability)
    return -terms.sum(dim=-1)


def _shared(weight: Tensor) -> Tensor:
    return weight / weight.sum()


LESSON = Lesson(
    number=4,
    slug="differential_information",
    title="Differential information and entropy",
    minutes=90,
    aims=(
        "compute the differential information between two policies, and its entropy, in log space",
        "say which rejected answers make DPO end at a given target",
        "explain why good answers may become less probable, and by how much on average",
        "read an entropy only with its number of answers, its estimator and its sample size",
    ),
    exercises=(
        Exercise(
            name="4.1",
            title="The differential information",
            check=check_did,
            hints=(
                "Divide each answer's probability under the policy by that under the reference, "
                "then make them sum to 1. What are these two steps in logarithms?",
                "q(y) is proportional to exp(log pi(y) - log pi_ref(y)): a softmax of the "
                "log-ratios.",
                "`torch.softmax(policy_logp - reference_logp, dim=0)`. By hand: subtract the "
                "largest log-ratio before exp.",
            ),
            insight="q times pi_ref, normalised, gives pi back: q is what the reference has to be "
            "told to become the policy.",
        ),
        Exercise(
            name="4.2",
            title="Its entropy",
            check=check_did_entropy,
            hints=(
                "One q for each prompt (row), one entropy for each q, then the mean of these.",
                "H(q) = -sum q log q in nats; a term with q = 0 is 0, although log 0 is not.",
                "`q = torch.softmax(policy_logp - reference_logp, dim=1)`, then "
                "`-torch.special.xlogy(q, q).sum(dim=1).mean()`.",
            ),
            insight="At most log of the number of answers, and just that where the policy is the "
            "reference: a high entropy may mean that nothing was learned.",
        ),
        Exercise(
            name="4.3",
            title="The ideal rejected answers",
            check=check_rejected,
            hints=(
                "Answers that the target likes less than the reference does must be rejected more "
                "often than the reference would write them.",
                "pi_l(y) is proportional to pi_ref(y) * (pi_ref(y) / pi*(y))^beta.",
                "`torch.log_softmax(reference_logp + beta * (reference_logp - target_logp), "
                "dim=0)`.",
            ),
            insight="Such pairs, and no others, make DPO's optimum pi_ref (pi_ref / pi_l)^(1/beta) "
            "equal to the target: the log-ratios are proportional, the power law.",
        ),
        Exercise(
            name="4.4",
            title="Displacement",
            check=check_displacement,
            hints=(
                "By how much does one answer's log-probability change? Average this over where the "
                "answers come from: chosen ones from the reference, rejected ones from pi_l.",
                "E over y ~ pi_ref of log pi*(y) - log pi_ref(y), a sum weighted by pi_ref(y). The "
                "same with pi_l for the rejected answers.",
                "`(reference_logp.exp() * (target_logp - reference_logp)).sum()`, and once more "
                "with `rejected_logp.exp()`.",
            ),
            insight="The first is -KL(pi_ref || pi*), so it is negative whatever the target is: "
            "answers drawn from the reference lose log-probability, and rejected ones lose more.",
        ),
        Exercise(
            name="4.5",
            title="From samples, and whether to believe it",
            check=check_sampled_entropy,
            hints=(
                "H(q) = log Z - E_q[l] with l = log pi - log pi_ref and Z = sum of exp(l). Both "
                "are sums over all answers; a draw stands for 1 / p(y) of them.",
                "With log w = l - log p: H = logsumexp(log w) - log K - sum of v l, where v = "
                "softmax(log w). The effective sample size is 1 / sum of v squared.",
                "`log_w = policy_logp - reference_logp - proposal_logp`, `v = log_w.softmax(0)`, "
                "`log_w.logsumexp(0) - math.log(len(log_w)) - (v * l).sum()`.",
            ),
            insight="For answers of real length one weight takes all and the effective size is "
            "about 1. The workbench then refuses to print a number; so should you.",
        ),
    ),
    quiz=(
        Question(
            text="H(q) over 8 answers is log 8 = 2.08 nats, its largest value. What do you know?",
            options=(
                "The policy is uniform over the 8 answers.",
                "Policy and reference give these answers the same relative probabilities.",
                "The policy has become less certain.",
                "The estimate failed.",
            ),
            right="b",
            why="q is uniform if and only if all ratios pi / pi_ref are equal. It says nothing of "
            "how certain either of the two is.",
        ),
        Question(
            text="Two runs report H(q) = 2.0 and 3.0 nats, over 8 and 40 candidates. Which run's "
            "differential information is more concentrated?",
            options=(
                "The first: 2.0 < 3.0.",
                "Both equally.",
                "The second: it is 0.69 nats below its log |S|, the first 0.08.",
            ),
            right="c",
            why="log 8 = 2.08 and log 40 = 3.69. An entropy without the size of its set says "
            "nothing; H / log |S| at least has a scale.",
        ),
        Question(
            text="Pairs obey the power law, training is perfect, chosen answers come from the "
            "reference. On average their log-probability",
            options=(
                "falls",
                "rises",
                "stays, because it is the rejected ones that fall",
                "rises if beta is small",
            ),
            right="a",
            why="It changes by -KL(pi_ref || pi*) < 0 unless nothing is learned. So a falling "
            "log-probability of chosen answers alone is no sign of a fault.",
        ),
        Question(
            text="With pi_ref = (0.7, 0.2, 0.1) and q proportional to pi_ref^(-1), H(q) = 0.88. "
            "The policy's entropy compared with the reference's",
            options=(
                "is higher: the policy is uniform",
                "is lower, because H(q) is below log 3",
                "is the same",
            ),
            right="a",
            why="pi is proportional to pi_ref q = 1. For q proportional to pi_ref, with H(q) = "
            "0.80, it is lower by 0.45: near-equal H(q), opposite effects. Always show both.",
        ),
        Question(
            text="From K = 32 draws you report -sum v log v of the normalised weights v as H(q). "
            "What is wrong?",
            options=(
                "Nothing, if the proposal is the policy.",
                "It needs a correction for K by the jackknife.",
                "It is too noisy.",
                "It measures the weights: it is at most log K and grows with K.",
            ),
            right="d",
            why="Draw twice as many and it grows by about log 2, whatever q is. An estimate of "
            "H(q) has to settle.",
        ),
    ),
)

"""What else a student may hand in for lesson 1: right, and plausibly wrong."""
# ruff: noqa: ANN001, ANN201, B905 - written as a student writes

import itertools
import math
from collections import deque

import numpy as np
import torch

# 1.1 -----------------------------------------------------------------------------------


def preference_by_loop(first, second):
    return [0.5 * (1 + math.tanh((float(a) - float(b)) / 2)) for a, b in zip(first, second)]


def preference_by_softmax(first, second):
    return torch.softmax(torch.stack([first, second]), dim=0)[0].float()


def preference_reversed(first, second):
    return torch.sigmoid(second - first)


def preference_by_ratio(first, second):
    return first / (first + second)


def preference_overflowing(first, second):
    a, b = np.exp(np.asarray(first)), np.exp(np.asarray(second))
    with np.errstate(all="ignore"):
        return a / (a + b)


def preference_raising(first, second):
    return [1 / (1 + math.exp(b - a)) for a, b in zip(first, second)]


# 1.2 -----------------------------------------------------------------------------------


def gap_by_numpy(alpha):
    alpha = np.asarray(alpha)
    return np.log(alpha) - np.log1p(-alpha)


def gap_by_artanh(alpha):
    return [2 * math.atanh(2 * float(share) - 1) for share in alpha]


def gap_in_bits(alpha):
    return torch.log2(alpha / (1 - alpha))


def gap_from_share(alpha):
    return alpha.log()


def gap_reversed(alpha):
    return torch.log((1 - alpha) / alpha)


# 1.3 -----------------------------------------------------------------------------------


def loss_by_numpy(gap, alpha):
    gap, alpha = np.asarray(gap), np.asarray(alpha)
    return alpha * np.logaddexp(0, -gap) + (1 - alpha) * np.logaddexp(0, gap)


def loss_by_algebra(gap, alpha):
    """softplus(gap) - softplus(-gap) = gap, so one softplus is enough."""
    return [
        max(-float(g), 0) + math.log1p(math.exp(-abs(g))) + (1 - float(a)) * float(g)
        for g, a in zip(gap, alpha)
    ]


def loss_of_majority(gap, alpha):
    return torch.nn.functional.softplus(torch.where(alpha > 0.5, -gap, gap))


def loss_of_chosen(gap, alpha):
    return -torch.nn.functional.logsigmoid(gap)


def loss_naive(gap, alpha):
    share = torch.sigmoid(gap)
    return -alpha * share.log() - (1 - alpha) * (1 - share).log()


# 1.4 -----------------------------------------------------------------------------------


def share_by_loop(observed, eps):
    return [min(1.0, max(0.0, (float(s) - eps) / (1 - 2 * eps))) for s in observed]


def share_by_algebra(observed, eps):
    return np.clip(0.5 + (np.asarray(observed) - 0.5) / (1 - 2 * eps), 0, 1)


def share_unclipped(observed, eps):
    return (observed - eps) / (1 - 2 * eps)


def share_noisier(observed, eps):
    return (1 - eps) * observed + eps * (1 - observed)


def share_one_sided(observed, eps):
    return ((observed - eps) / (1 - eps)).clamp(0, 1)


# 1.5 -----------------------------------------------------------------------------------


def ballots_by_deque(answers):
    turned, found = deque(answers), []
    for _ in answers:
        found.append(tuple(turned))
        turned.rotate(1)
    return found


def ballots_many(answers):
    """Hundreds of raters, a few of whom have any other taste."""
    circle = [answers[i:] + answers[:i] for i in range(len(answers))]
    others = [list(each) for each in itertools.permutations(answers)]
    return 10 * circle + others


def ballots_one(answers):
    return [answers]


def ballots_reversed(answers):
    turned = answers[::-1]
    return [turned[i:] + turned[:i] for i in range(len(turned))]


def ballots_all(answers):
    return list(itertools.permutations(answers))


def ballots_of_two(answers):
    return [[a, b] for a, b in zip(answers, answers[1:] + answers[:1])]


RIGHT = {
    "1.1": (preference_by_loop, preference_by_softmax),
    "1.2": (gap_by_numpy, gap_by_artanh),
    "1.3": (loss_by_numpy, loss_by_algebra),
    "1.4": (share_by_loop, share_by_algebra),
    "1.5": (ballots_by_deque, ballots_many),
}
WRONG = {
    "1.1": (
        (preference_reversed, "turned the difference round"),
        (preference_by_ratio, "strengths, without exp"),
        (preference_overflowing, "first = 800.*let exp overflow"),
        (preference_raising, r"OverflowError .*line \d+: return \[1 / \(1 \+ math.exp"),
    ),
    "1.2": (
        (gap_in_bits, "base 2"),
        (gap_from_share, "share and not of the odds"),
        (gap_reversed, "turned the odds round"),
    ),
    "1.3": (
        (loss_of_majority, "rounded the share to a majority label"),
        (loss_of_chosen, "every rater to prefer the chosen"),
        (loss_naive, "gap = 800.*expected 200.*found (inf|nan)"),
    ),
    "1.4": (
        (share_unclipped, "let the share leave 0 to 1"),
        (share_noisier, "added the noise once more"),
        (share_one_sided, "divided by 1 - eps"),
    ),
    "1.5": (
        (ballots_one, "0 of your 1 raters put .* no majority"),
        (ballots_reversed, "1 of your . raters put .* no majority"),
        (ballots_all, "no majority; .* must win"),
        (ballots_of_two, "does not name each of them once"),
    ),
}

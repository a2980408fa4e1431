"""What else a student may hand in for lesson 3: right, and plausibly wrong."""
# ruff: noqa: ANN001, ANN201, B905 - written as a student writes

import math

import numpy as np
import torch

# 3.1 -----------------------------------------------------------------------------------


def threshold_by_logaddexp(c, beta):
    return np.logaddexp(0, -beta * np.asarray(c))


def threshold_by_loop(c, beta):
    z = [beta * float(each) for each in c]
    return [math.log1p(math.exp(-abs(x))) + max(-x, 0) for x in z]


def threshold_wrong_sign(c, beta):
    return torch.nn.functional.softplus(beta * c)


def threshold_without_beta(c, beta):
    return torch.nn.functional.softplus(-c)


def threshold_by_log_of_sigmoid(c, beta):
    return -torch.log(torch.sigmoid(beta * c))


def threshold_by_plain_exp(c, beta):
    return torch.log1p(torch.exp(-beta * c))


# 3.2 -----------------------------------------------------------------------------------


def idealized_by_loop(c, alpha, betas):
    found = []
    for beta in betas:
        right = [math.log(a / (1 - a)) / beta - x > 0 for x, a in zip(c, alpha)]
        found.append(sum(right) / len(right))
    return found


def idealized_by_sigmoid(c, alpha, betas):
    """The same inequality read as a probability: alpha > sigmoid(beta c)."""
    c, alpha, betas = map(np.asarray, (c, alpha, betas))
    with np.errstate(over="ignore"):
        needed = 1 / (1 + np.exp(-np.outer(c, betas)))
    return np.mean(alpha[:, None] > needed, axis=0)


def idealized_wrong_sign(c, alpha, betas):
    return (torch.logit(alpha) > -betas[:, None] * c).double().mean(1)


def idealized_majority(c, alpha, betas):
    return [(alpha > 0.5).double().mean() for _ in betas]


def idealized_by_products(c, alpha, betas):
    odds = (alpha / (1 - alpha)) ** (1 / betas[:, None])
    return (torch.exp(-c) * odds > 1).double().mean(1)


def idealized_with_ties(c, alpha, betas):
    return (torch.logit(alpha) >= betas[:, None] * c).double().mean(1)


# 3.3 -----------------------------------------------------------------------------------


def flip_beta_by_loop(c, alpha):
    return [math.inf if x < 0 else (math.log(a) - math.log(1 - a)) / x for x, a in zip(c, alpha)]


def flip_beta_by_numpy(c, alpha):
    c, alpha = np.asarray(c), np.asarray(alpha)
    found = np.full(c.shape, np.inf)
    np.divide(2 * np.arctanh(2 * alpha - 1), c, out=found, where=c > 0)
    return found


def flip_beta_negative(c, alpha):
    return torch.logit(alpha) / c


def flip_beta_turned(c, alpha):
    return torch.where(c < 0, math.inf, c / torch.logit(alpha))


def flip_beta_of_share(c, alpha):
    return torch.where(c < 0, math.inf, alpha / c)


# 3.4 -----------------------------------------------------------------------------------


def push_by_autograd(c, beta):
    m = torch.zeros_like(c, requires_grad=True)
    torch.nn.functional.softplus(-beta * (m + c)).sum().backward()
    return m.grad.abs()


def push_by_loop(c, beta):
    return [beta / (1 + math.exp(beta * float(x))) for x in c]


def push_without_beta(c, beta):
    return torch.sigmoid(-beta * c)


def push_at_start(c, beta):
    return torch.full_like(c, beta / 2)


def push_wrong_sign(c, beta):
    return beta * torch.sigmoid(beta * c)


# 3.5 -----------------------------------------------------------------------------------


def wrong_by_numpy(chosen, rejected, beta, loss):
    margin = np.log(1 / np.expm1(loss)) / beta
    return np.array([chosen - 20, chosen - 20 - (margin - (rejected - chosen))])


def wrong_by_bisection(chosen, rejected, beta, loss):
    """Pull the rejected answer down until the loss is met."""
    chosen_now, low, high = chosen - 0.5, chosen - 1000.0, 0.0
    for _ in range(200):
        middle = (low + high) / 2
        margin = (chosen_now - chosen) - (middle - rejected)
        if math.log1p(math.exp(-beta * margin)) > loss:
            high = middle
        else:
            low = middle
    return torch.tensor(chosen_now), torch.tensor(low)


def wrong_without_reference(chosen, rejected, beta, loss):
    m = -math.log(math.expm1(loss)) / beta
    return chosen - 1, chosen - 1 - m


def wrong_lifting_chosen(chosen, rejected, beta, loss):
    m = -math.log(math.expm1(loss)) / beta - (rejected - chosen)
    return chosen + 1, chosen + 1 - m


def wrong_by_far(chosen, rejected, beta, loss):
    """Ranked correctly: then the loss is far too low."""
    return chosen - 1, chosen - 2


RIGHT = {
    "3.1": (threshold_by_logaddexp, threshold_by_loop),
    "3.2": (idealized_by_loop, idealized_by_sigmoid),
    "3.3": (flip_beta_by_loop, flip_beta_by_numpy),
    "3.4": (push_by_autograd, push_by_loop),
    "3.5": (wrong_by_numpy, wrong_by_bisection),
}
WRONG = {
    "3.1": (
        (threshold_wrong_sign, "turned the sign of c"),
        (threshold_without_beta, "left out beta"),
        (threshold_by_log_of_sigmoid, "found 0. sigmoid.*use softplus"),
        (threshold_by_plain_exp, "c = -9152.*let exp overflow"),
    ),
    "3.2": (
        (idealized_wrong_sign, "turned the sign of c"),
        (idealized_majority, "left out the reference"),
        (idealized_by_products, "lost the largest"),
        (idealized_with_ties, "the inequality is strict"),
    ),
    "3.3": (
        (flip_beta_negative, "negative c give a negative beta"),
        (flip_beta_turned, "turned the quotient round"),
        (flip_beta_of_share, "share and not its logit"),
    ),
    "3.4": (
        (push_without_beta, "left out the factor beta"),
        (push_at_start, "at the start"),
        (push_wrong_sign, "turned the sign of c"),
    ),
    "3.5": (
        (wrong_without_reference, "a loss of .*, not"),
        (wrong_lifting_chosen, "chosen answer did not become less probable"),
        (wrong_by_far, "a loss of .*, not"),
    ),
}

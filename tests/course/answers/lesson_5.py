"""Right and wrong answers to lesson 5, besides the model solutions."""
# ruff: noqa: ANN001, ANN201, ANN202 - written as a student writes

import math

import numpy as np
import torch
from scipy.optimize import minimize_scalar

# 5.1 ---------------------------------------------------------------------------------


def smoothed_numpy(margin, beta, eps):
    z = beta * np.asarray(margin)
    loss = (1 - eps) * np.logaddexp(0, -z) + eps * np.logaddexp(0, z)
    return loss, beta * (0.5 * (1 + np.tanh(z / 2)) - (1 - eps))


def smoothed_autograd(margin, beta, eps):
    d = torch.as_tensor(margin).clone().requires_grad_()
    ls = torch.nn.functional.logsigmoid
    loss = -(1 - eps) * ls(beta * d) - eps * ls(-beta * d)
    loss.sum().backward()
    return loss.detach(), d.grad


def smoothed_without_chain_rule(margin, beta, eps):
    z = beta * torch.as_tensor(margin)
    loss = -(1 - eps) * torch.nn.functional.logsigmoid(z) - eps * torch.nn.functional.logsigmoid(-z)
    return loss, torch.sigmoid(z) - (1 - eps)


def smoothed_overflowing(margin, beta, eps):
    z = beta * np.asarray(margin)
    with np.errstate(over="ignore", divide="ignore"):
        p = 1 / (1 + np.exp(-z))
        return -(1 - eps) * np.log(p) - eps * np.log(1 - p), beta * (p - (1 - eps))


def smoothed_as_in_classification(margin, beta, eps):
    return smoothed_numpy(margin, beta, eps / 2)


# 5.2 ---------------------------------------------------------------------------------


def _pair_loss(name, d, beta):
    z = beta * d
    return {
        "dpo": np.logaddexp(0, -z),
        "hinge": max(0.0, 1 - z),
        "ipo": (d - 1 / (2 * beta)) ** 2,
    }[name]


def resting_by_search(name, alpha, beta):
    def mean(d):
        return alpha * _pair_loss(name, d, beta) + (1 - alpha) * _pair_loss(name, -d, beta)

    return minimize_scalar(mean, bounds=(-20 / beta, 20 / beta), method="bounded").x


def resting_by_halving(name, alpha, beta):
    def slope(d):
        if name == "dpo":
            return 1 / (1 + math.exp(-beta * d)) - alpha
        if name == "ipo":
            return d - (2 * alpha - 1) / (2 * beta)
        return (1 - alpha) * (beta * d > -1) - alpha * (beta * d < 1)

    low, high = -20 / beta, 20 / beta
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return torch.tensor(high)


def resting_of_unanimous_raters(name, alpha, beta):
    return {
        "dpo": math.log(alpha / (1 - alpha)) / beta,
        "ipo": 1 / (2 * beta),
        "hinge": 1 / beta,
    }[name]


def resting_without_beta(name, alpha, beta):
    logit = math.log(alpha / (1 - alpha))
    return {"dpo": logit, "ipo": (2 * alpha - 1) / 2, "hinge": math.copysign(1, logit)}[name]


def resting_hinge_in_between(name, alpha, beta):
    if name == "hinge":
        return (2 * alpha - 1) / beta
    return resting_by_halving(name, alpha, beta)


# 5.3 ---------------------------------------------------------------------------------


def shares_by_autograd(name, margins, beta):
    d = torch.as_tensor(margins).clone().requires_grad_()
    loss = {
        "dpo": torch.nn.functional.softplus(-beta * d),
        "hinge": torch.relu(1 - beta * d),
        "ipo": (d - 1 / (2 * beta)) ** 2,
    }[name]
    (pull,) = torch.autograd.grad(loss.sum(), d)
    return torch.nan_to_num(pull.abs() / pull.abs().sum())


def shares_by_differences(name, margins, beta):
    step = 1e-6 / beta
    pulls = [
        abs(_pair_loss(name, float(d) + step, beta) - _pair_loss(name, float(d) - step, beta))
        for d in margins
    ]
    total = sum(pulls)
    return [pull / total if total > 0 else 0.0 for pull in pulls]


def shares_of_loss(name, margins, beta):
    losses = np.array([_pair_loss(name, float(d), beta) for d in margins])
    return losses / max(losses.sum(), 1e-12)


def shares_with_sign(name, margins, beta):
    d = np.asarray(margins)
    pull = {
        "dpo": -beta / (1 + np.exp(beta * d)),
        "hinge": -beta * (beta * d < 1),
        "ipo": 2 * (d - 1 / (2 * beta)),
    }[name]
    return pull / pull.sum() if pull.sum() else pull


def shares_to_the_confident(name, margins, beta):
    if name != "dpo":
        return shares_by_differences(name, margins, beta)
    pull = 1 / (1 + np.exp(-beta * np.asarray(margins)))
    return pull / pull.sum()


# 5.4 ---------------------------------------------------------------------------------


def robust_numpy(margin, beta, eps):
    z = beta * np.asarray(margin)
    return np.logaddexp(0, -z) - eps * z / (1 - 2 * eps)


def robust_by_linear_equations(margin, beta, eps):
    mixing = np.array([[1 - eps, eps], [eps, 1 - eps]])
    found = []
    for d in margin:
        clean = [math.log1p(math.exp(-beta * float(d))), math.log1p(math.exp(beta * float(d)))]
        found.append(np.linalg.solve(mixing, clean)[0])
    return found


def robust_is_conservative(margin, beta, eps):
    return smoothed_numpy(margin, beta, eps)[0]


def robust_only_rescaled(margin, beta, eps):
    return np.logaddexp(0, -beta * np.asarray(margin)) / (1 - 2 * eps)


def robust_with_a_plus(margin, beta, eps):
    z = beta * np.asarray(margin)
    return ((1 - eps) * np.logaddexp(0, -z) + eps * np.logaddexp(0, z)) / (1 - 2 * eps)


# 5.5 ---------------------------------------------------------------------------------


def _pair(chosen, rejected, reference, tokens):
    return {
        "policy_chosen": chosen,
        "policy_rejected": rejected,
        "reference_chosen": reference[0],
        "reference_rejected": reference[1],
        "n_chosen": tokens[0],
        "n_rejected": tokens[1],
    }


DIVIDING = _pair(-12.5, -90.0, (-40.0, -95.0), (3, 60))
DIVIDING_TENSORS = {k: torch.tensor(v) for k, v in _pair(-8, -24, (-20, -21), (2, 24)).items()}
SUMS_FOR_MEANS = _pair(-60.0, -30.0, (-90.0, -30.0), (40, 5))
REFERENCE_TURNED_ROUND = _pair(-20.0, -40.0, (-20.0, -60.0), (4, 40))
AGREED = _pair(-20.0, -60.0, (-30.0, -30.0), (20, 20))

RIGHT = {
    "5.1": (smoothed_numpy, smoothed_autograd),
    "5.2": (resting_by_search, resting_by_halving),
    "5.3": (shares_by_autograd, shares_by_differences),
    "5.4": (robust_numpy, robust_by_linear_equations),
    "5.5": (DIVIDING, DIVIDING_TENSORS),
}
WRONG = {
    "5.1": (
        (smoothed_without_chain_rule, "took the derivative by beta"),
        (smoothed_overflowing, "overflows"),
        (smoothed_as_in_classification, "eps / 2"),
    ),
    "5.2": (
        (resting_of_unanimous_raters, "for ipo"),
        (resting_without_beta, "not at its minimum"),
        (resting_hinge_in_between, "for hinge"),
    ),
    "5.3": (
        (shares_of_loss, "took the losses"),
        (shares_with_sign, "left the signs in"),
        (shares_to_the_confident, "objective = dpo"),
    ),
    "5.4": (
        (robust_is_conservative, "smoothed the labels"),
        (robust_only_rescaled, "the mean of your loss"),
        (robust_with_a_plus, "the mean of your loss"),
    ),
    "5.5": (
        (SUMS_FOR_MEANS, "ranks the rejected answer first"),
        (REFERENCE_TURNED_ROUND, "DPO's margin is"),
        (AGREED, "SimPO compares means"),
    ),
}

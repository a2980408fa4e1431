"""What else a student may hand in for lesson 4: right, and plausibly wrong."""
# ruff: noqa: ANN001, ANN201, ANN202, B905 - written as a student writes

import math

import numpy as np
import torch

# 4.1 -----------------------------------------------------------------------------------


def did_by_loop(policy, reference):
    ratio = [float(p) - float(r) for p, r in zip(policy, reference)]
    weight = [math.exp(each - max(ratio)) for each in ratio]
    return [each / sum(weight) for each in weight]


def did_by_logaddexp(policy, reference):
    ratio = np.asarray(policy) - np.asarray(reference)
    return np.exp(ratio - np.logaddexp.reduce(ratio))


def did_unnormalised(policy, reference):
    return torch.exp(policy - reference)


def did_turned(policy, reference):
    return torch.softmax(reference - policy, 0)


def did_through_probabilities(policy, reference):
    ratio = policy.exp() / reference.exp()
    return ratio / ratio.sum()


# 4.2 -----------------------------------------------------------------------------------


def entropy_by_loop(policy, reference):
    found = []
    for p, r in zip(policy, reference):
        q = did_by_loop(p, r)
        found.append(-sum(x * math.log(x) for x in q if x > 0))
    return sum(found) / len(found)


def entropy_by_log_z(policy, reference):
    """H(q) = log Z - E_q[l]."""
    ratio = policy - reference
    q = torch.softmax(ratio, 1)
    mean = torch.where(q > 0, q * ratio, 0.0).sum(1)
    return (ratio.logsumexp(1) - mean).mean()


def entropy_nan(policy, reference):
    q = torch.softmax(policy - reference, 1)
    return -(q * q.log()).sum(1).mean()


def entropy_in_bits(policy, reference):
    return entropy_by_log_z(policy, reference) / math.log(2)


def entropy_pooled(policy, reference):
    q = torch.softmax((policy - reference).flatten(), 0)
    return -torch.special.xlogy(q, q).sum()


def entropy_of_policy(policy, reference):
    q = policy.exp()
    return -torch.special.xlogy(q, q).sum(1).mean()


# 4.3 -----------------------------------------------------------------------------------


def rejected_by_powers(target, reference, beta):
    weight = np.exp(np.asarray(reference)) ** (1 + beta) / np.exp(np.asarray(target)) ** beta
    return np.log(weight / weight.sum())


def rejected_by_loop(target, reference, beta):
    raised = [(1 + beta) * float(r) - beta * float(t) for t, r in zip(target, reference)]
    log_z = math.log(sum(math.exp(each) for each in raised))
    return [each - log_z for each in raised]


def rejected_divided(target, reference, beta):
    return torch.log_softmax(reference + (reference - target) / beta, 0)


def rejected_turned(target, reference, beta):
    return torch.log_softmax(reference + beta * (target - reference), 0)


def rejected_unnormalised(target, reference, beta):
    return reference + beta * (reference - target)


# 4.4 -----------------------------------------------------------------------------------


def displacement_by_loop(target, reference, rejected):
    chosen_sum = rejected_sum = 0.0
    for t, r, l in zip(target, reference, rejected):  # noqa: E741 - pi_l
        chosen_sum += math.exp(r) * (t - r)
        rejected_sum += math.exp(l) * (t - r)
    return chosen_sum, rejected_sum


def displacement_by_divergences(target, reference, rejected):
    """-KL(ref || target), and KL(l || ref) - KL(l || target)."""

    def kl(p, q):
        return np.sum(np.exp(p) * (p - q))

    target, reference, rejected = map(np.asarray, (target, reference, rejected))
    return -kl(reference, target), kl(rejected, reference) - kl(rejected, target)


def displacement_under_target(target, reference, rejected):
    change = (target.exp() * (target - reference)).sum()
    return change, change


def displacement_positive(target, reference, rejected):
    change = reference - target
    return (reference.exp() * change).sum(), (rejected.exp() * change).sum()


def displacement_unweighted(target, reference, rejected):
    change = (target - reference).mean()
    return change, change


# 4.5 -----------------------------------------------------------------------------------


def sampled_by_loop(policy, reference, proposal):
    ratio = [float(a - b) for a, b in zip(policy, reference)]
    weight = [math.exp(l - float(p)) for l, p in zip(ratio, proposal)]  # noqa: E741 - log-ratio
    total = sum(weight)
    mean = sum(w * l for w, l in zip(weight, ratio)) / total  # noqa: E741
    ess = total**2 / sum(w * w for w in weight)
    return math.log(total / len(weight)) - mean, ess


def sampled_by_numpy(policy, reference, proposal):
    policy, reference, proposal = map(np.asarray, (policy, reference, proposal))
    weight = np.exp(policy - reference - proposal)
    share = weight / weight.sum()
    estimate = np.log(weight.mean()) - np.average(policy - reference, weights=weight)
    return np.array([estimate, 1 / np.sum(share**2)])


def sampled_plug_in(policy, reference, proposal):
    v = torch.softmax(policy - reference - proposal, 0)
    return -(v * v.log()).sum(), 1 / (v**2).sum()


def sampled_without_proposal(policy, reference, proposal):
    ratio = policy - reference
    v = torch.softmax(ratio, 0)
    return ratio.logsumexp(0) - math.log(len(ratio)) - (v * ratio).sum(), 1 / (v**2).sum()


def sampled_with_all_draws(policy, reference, proposal):
    return sampled_by_loop(policy, reference, proposal)[0], len(policy)


RIGHT = {
    "4.1": (did_by_loop, did_by_logaddexp),
    "4.2": (entropy_by_loop, entropy_by_log_z),
    "4.3": (rejected_by_powers, rejected_by_loop),
    "4.4": (displacement_by_loop, displacement_by_divergences),
    "4.5": (sampled_by_loop, sampled_by_numpy),
}
WRONG = {
    "4.1": (
        (did_unnormalised, "did not normalise"),
        (did_turned, "turned the ratio round"),
        (did_through_probabilities, "-900.*left log space"),
    ),
    "4.2": (
        (entropy_nan, "0 . log 0"),
        (entropy_in_bits, "measured in bits"),
        (entropy_pooled, "pooled the answers"),
        (entropy_of_policy, "entropy of the policy and not of q"),
    ),
    "4.3": (
        (rejected_divided, "divided by beta"),
        (rejected_turned, "turned the ratio round"),
        (rejected_unnormalised, "did not normalise"),
    ),
    "4.4": (
        (displacement_under_target, "averaged over the target's answers"),
        (displacement_positive, "took reference minus target"),
        (displacement_unweighted, "weighed all answers alike"),
    ),
    "4.5": (
        (sampled_plug_in, "measures them and not q"),
        (sampled_without_proposal, "left the proposal out"),
        (sampled_with_all_draws, "counted the draws"),
    ),
}

"""What else a student may hand in for lesson 2: right, and plausibly wrong."""
# ruff: noqa: ANN001, ANN201, B905 - written as a student writes

import math

import numpy as np
import torch

# 2.1 -----------------------------------------------------------------------------------


def tilted_by_loop(reference, reward, beta):
    raised = [float(logp) + float(r) / beta for logp, r in zip(reference, reward)]
    top = max(raised)
    log_z = top + math.log(sum(math.exp(each - top) for each in raised))
    return [each - log_z for each in raised]


def tilted_by_logaddexp(reference, reward, beta):
    raised = np.asarray(reference) + np.asarray(reward) / beta
    return raised - np.logaddexp.reduce(raised)


def tilted_times_beta(reference, reward, beta):
    return torch.log_softmax(reference + beta * reward, 0)


def tilted_unnormalised(reference, reward, beta):
    return reference + reward / beta


def tilted_through_exp(reference, reward, beta):
    weight = reference.exp() * torch.exp(reward / beta)
    return (weight / weight.sum()).log()


# 2.2 -----------------------------------------------------------------------------------


def margin_by_loop(pc, pr, rc, rr, beta):
    return [beta * (a - b) - beta * (c - d) for a, b, c, d in zip(pc, pr, rc, rr)]


def margin_by_log_ratios(pc, pr, rc, rr, beta):
    m, c = np.asarray(pc - pr), np.asarray(rr - rc)
    return (beta * (m + c)).astype(np.float32)


def margin_without_reference(pc, pr, rc, rr, beta):
    return beta * (pc - pr)


def margin_wrong_sign(pc, pr, rc, rr, beta):
    return beta * ((pc - pr) + (rc - rr))


def margin_without_beta(pc, pr, rc, rr, beta):
    return (pc - rc) - (pr - rr)


# 2.3 -----------------------------------------------------------------------------------


def reward_shifted_for_all(reward, prompt):
    return [float(each) - 7.5 for each in reward]


def reward_below_the_best(reward, prompt):
    """Each prompt's best answer has -1."""
    reward, prompt = np.asarray(reward), np.asarray(prompt)
    best = {each: reward[prompt == each].max() for each in prompt}
    return np.array([r - best[each] - 10 for r, each in zip(reward, prompt)])


def reward_doubled(reward, prompt):
    return 2 * reward + 1


def reward_by_answer(reward, prompt):
    return reward + 1 + torch.arange(len(reward))


def reward_of_some_prompts(reward, prompt):
    return reward + prompt


# 2.4 -----------------------------------------------------------------------------------


def accuracies_by_loop(pc, pr, rc, rr):
    n, ranked, rewarded = len(pc), 0, 0
    for a, b, c, d in zip(pc, pr, rc, rr):
        ranked += a >= b
        rewarded += a - c > b - d
    return ranked / n, rewarded / n


def accuracies_by_margins(pc, pr, rc, rr):
    m, c = np.asarray(pc - pr), np.asarray(rr - rc)
    return 1 - np.mean(m < 0), np.count_nonzero(m + c > 0) / m.size


def accuracies_exchanged(pc, pr, rc, rr):
    first, second = accuracies_by_loop(pc, pr, rc, rr)
    return second, first


def accuracies_strict(pc, pr, rc, rr):
    return (pc > pr).double().mean(), (pc - rc > pr - rr).double().mean()


def accuracies_lenient(pc, pr, rc, rr):
    return (pc >= pr).double().mean(), (pc - rc >= pr - rr).double().mean()


# 2.5 -----------------------------------------------------------------------------------


def per_token_by_loop(pc, pr, rc, rr, n, k, beta):
    rows = zip(pc, pr, rc, rr, n, k)
    return [beta * (a - c) / i - beta * (b - d) / j for a, b, c, d, i, j in rows]


def per_token_by_means(pc, pr, rc, rr, n, k, beta):
    pc, pr, rc, rr, n, k = map(np.asarray, (pc, pr, rc, rr, n, k))
    return beta * ((pc / n - pr / k) - (rc / n - rr / k))


def per_token_of_total(pc, pr, rc, rr, n, k, beta):
    return beta * ((pc - rc) - (pr - rr)) / (n + k)


def per_token_not_at_all(pc, pr, rc, rr, n, k, beta):
    return beta * ((pc - rc) - (pr - rr))


def per_token_of_policy(pc, pr, rc, rr, n, k, beta):
    return beta * ((pc / n - pr / k) - (rc - rr))


RIGHT = {
    "2.1": (tilted_by_loop, tilted_by_logaddexp),
    "2.2": (margin_by_loop, margin_by_log_ratios),
    "2.3": (reward_shifted_for_all, reward_below_the_best),
    "2.4": (accuracies_by_loop, accuracies_by_margins),
    "2.5": (per_token_by_loop, per_token_by_means),
}
WRONG = {
    "2.1": (
        (tilted_times_beta, "multiplied the reward by beta"),
        (tilted_unnormalised, "did not normalise"),
        (tilted_through_exp, "beta = 0.1: found .*exp overflows"),
    ),
    "2.2": (
        (margin_without_reference, "left out the reference"),
        (margin_wrong_sign, "added the reference's ratio"),
        (margin_without_beta, "left out beta"),
    ),
    "2.3": (
        (reward_doubled, "margin was .* and is"),
        (reward_by_answer, "margin was .* and is"),
        (reward_of_some_prompts, "keeps its reward"),
    ),
    "2.4": (
        (accuracies_exchanged, "exchanged the two"),
        (accuracies_strict, "ranking accuracy: .*a tie counts as ranked correctly"),
        (accuracies_lenient, "reward accuracy: .*a tie counts as wrong here"),
    ),
    "2.5": (
        (per_token_of_total, "divided the whole margin by both lengths"),
        (per_token_not_at_all, "did not divide"),
        (per_token_of_policy, "normalised the policy alone"),
    ),
}

"""Right and wrong answers to lesson 7, besides the model solutions."""
# ruff: noqa: ANN001, ANN201, ANN202 - written as a student writes

import itertools
import random

import numpy as np
import torch

# 7.1 ---------------------------------------------------------------------------------


def dcov_by_sums(x, y):
    """S/n^2 - 2 sum a_i. b_i./n^3 + a.. b../n^4, in plain Python."""
    n = len(x)
    a, b = ([[abs(p - q) for q in v] for p in v] for v in (x, y))
    product = sum(a[i][j] * b[i][j] for i in range(n) for j in range(n))
    rows = sum(sum(a[i]) * sum(b[i]) for i in range(n))
    totals = sum(map(sum, a)) * sum(map(sum, b))
    return product / n**2 - 2 * rows / n**3 + totals / n**4


def dcov_by_projection(x, y):
    """Centring one side is enough; the other side's distances may stay as they are."""
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    a, b = ((v[:, None] - v[None, :]).abs() for v in (x, y))
    centring = torch.eye(len(x)).double() - 1 / len(x)
    return (a * (centring @ b @ centring)).mean()


def dcov_as_covariance(x, y):
    return np.mean((x - x.mean()) * (y - y.mean())) ** 2


def dcov_with_root(x, y):
    return np.sqrt(dcov_by_sums(x, y))


def dcov_one_mean(x, y):
    a, b = (np.abs(v[:, None] - v[None, :]) for v in (x, y))
    return ((a - a.mean()) * (b - b.mean())).mean()


# 7.2 ---------------------------------------------------------------------------------


def unbiased_by_sums(x, y):
    n = len(x)
    a, b = (np.abs(v[:, None] - v[None, :]) for v in (x, y))
    rows = a.sum(axis=0) @ b.sum(axis=0)
    whole = a.sum() * b.sum() / ((n - 1) * (n - 2))
    return ((a * b).sum() - 2 * rows / (n - 2) + whole) / (n * (n - 3))


def unbiased_over_quadruples(x, y):
    """The mean of the kernel over ordered quadruples, as the definition has it."""
    a, b = ((v[:, None] - v[None, :]).abs() for v in map(torch.as_tensor, (x, y)))
    n = len(a)
    far = ~torch.eye(n, dtype=torch.bool)
    pairs = (a * b)[far].mean()
    triples = (a.sum(1) * b.sum(1) - (a * b).sum(1)).sum() / (n * (n - 1) * (n - 2))
    shared = 4 * (a.sum(1) * b.sum(1)).sum() - 2 * (a * b).sum()
    apart = (a.sum() * b.sum() - shared) / (n * (n - 1) * (n - 2) * (n - 3))
    return pairs - 2 * triples + apart


def unbiased_cut(x, y):
    return max(0.0, unbiased_by_sums(x, y))


def unbiased_is_plug_in(x, y):
    return dcov_by_sums(x, y)


def unbiased_by_rescaling(x, y):
    return dcov_by_sums(x, y) * len(x) / (len(x) - 1)


# 7.3 ---------------------------------------------------------------------------------


def chequered_signs(first, second):
    return (2 * torch.as_tensor(first) - 1) * (2 * torch.as_tensor(second) - 1)


def chequered_by_cell(first, second):
    return [5.0 if a == b else -3.0 for a, b in zip(first, second, strict=True)]


def both_at_once(first, second):
    return first * second


def all_alike(first, second):
    return np.ones(len(first))


def equal_means_only(first, second):
    """Means agree everywhere; the second attribute widens the scores."""
    scores = np.zeros(len(first))
    for cell in itertools.product((0, 1), repeat=2):
        rows = np.flatnonzero((first == cell[0]) & (second == cell[1]))
        side = np.where(np.arange(len(rows)) % 2 == 0, 1.0, -1.0)
        side[-1] = 0.0 if len(rows) % 2 else side[-1]
        scores[rows] = side * (1 + 2 * cell[1])
    return scores


# 7.4 ---------------------------------------------------------------------------------


def permute_whole_rows(scores, attributes, statistic, permutations, seed):
    rows, draws = list(range(len(scores))), random.Random(seed)
    observed, reached = statistic(scores, attributes), 1
    for _ in range(permutations):
        draws.shuffle(rows)
        reached += statistic(scores, attributes[rows]) >= observed
    return reached / (permutations + 1)


def permute_with_torch(scores, attributes, statistic, permutations, seed):
    draws = torch.Generator().manual_seed(seed)
    y, z = torch.as_tensor(scores), torch.as_tensor(attributes)
    orders = [torch.randperm(len(y), generator=draws) for _ in range(permutations)]
    values = torch.tensor([statistic(y, z), *(statistic(y[order], z) for order in orders)])
    return (values.double() >= values[0]).double().mean()


def _permuted(scores, attributes, statistic, permutations, seed):
    draws = np.random.default_rng(seed)
    return [statistic(draws.permutation(scores), attributes) for _ in range(permutations)]


def permute_without_the_ones(scores, attributes, statistic, permutations, seed):
    observed = statistic(scores, attributes)
    found = _permuted(scores, attributes, statistic, permutations, seed)
    return np.mean(np.array(found) >= observed)


def permute_columns_apart(scores, attributes, statistic, permutations, seed):
    draws = np.random.default_rng(seed)
    observed, reached = statistic(scores, attributes), 0
    for _ in range(permutations):
        reached += statistic(scores, draws.permuted(attributes, axis=0)) >= observed
    return (1 + reached) / (permutations + 1)


def permute_with_replacement(scores, attributes, statistic, permutations, seed):
    draws = np.random.default_rng(seed)
    observed, reached = statistic(scores, attributes), 0
    for _ in range(permutations):
        reached += statistic(draws.choice(scores, len(scores)), attributes) >= observed
    return (1 + reached) / (permutations + 1)


def permute_with_one_seed(scores, attributes, statistic, permutations, seed):
    observed, reached = statistic(scores, attributes), 0
    for _ in range(permutations):
        again = np.random.default_rng(seed).permutation(scores)
        reached += statistic(again, attributes) >= observed
    return (1 + reached) / (permutations + 1)


# 7.5 ---------------------------------------------------------------------------------


def repair_to_ranks(scores, group):
    return [
        sum(float(other) < float(score) for other in scores[group == g])
        for score, g in zip(scores, group, strict=True)
    ]


def repair_to_pooled_quantiles(scores, group):
    scores, group = torch.as_tensor(scores), torch.as_tensor(group)
    result = torch.empty_like(scores)
    for g in group.unique():
        inside = group == g
        share = (scores[inside].argsort().argsort() + 0.5) / inside.sum()
        result[inside] = torch.quantile(scores, share.double())
    return result


def repair_means(scores, group):
    return scores - np.array([scores[group == g].mean() for g in group])


def repair_means_and_spreads(scores, group):
    spread = np.array([scores[group == g].std() for g in group])
    return repair_means(scores, group) / spread


def repair_to_a_constant(scores, group):
    return np.full(len(scores), scores.mean())


RIGHT = {
    "7.1": (dcov_by_sums, dcov_by_projection),
    "7.2": (unbiased_by_sums, unbiased_over_quadruples),
    "7.3": (chequered_signs, chequered_by_cell),
    "7.4": (permute_whole_rows, permute_with_torch),
    "7.5": (repair_to_ranks, repair_to_pooled_quantiles),
}
WRONG = {
    "7.1": (
        (dcov_as_covariance, "squared the ordinary covariance"),
        (dcov_with_root, "took the root"),
        (dcov_one_mean, "took one mean off"),
    ),
    "7.2": (
        (unbiased_cut, "cut it at 0"),
        (unbiased_is_plug_in, "gave the V-statistic"),
        (unbiased_by_rescaling, "rescaled the V-statistic"),
    ),
    "7.3": (
        (both_at_once, "the first attribute alone gives it away"),
        (all_alike, "all your scores are equal"),
        (equal_means_only, "the second attribute alone gives it away"),
    ),
    "7.4": (
        (permute_without_the_ones, "left the observed arrangement out"),
        (permute_columns_apart, "columns were shuffled apart"),
        (permute_with_replacement, "drawing with replacement"),
        (permute_with_one_seed, "make the generator once"),
    ),
    "7.5": (
        (repair_means, "the groups still differ"),
        (repair_means_and_spreads, "not equal distributions"),
        (repair_to_a_constant, "no longer does"),
    ),
}

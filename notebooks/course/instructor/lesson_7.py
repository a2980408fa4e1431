# Model solutions of lesson 7, for the lecturer. A cell replaces the student's of the same exercise.
import numpy as np


# %% exercise 7.1
# For the lecturer: do it on the board with x = (1, 2, 3), y = (1, 4, 9). The uncentred product is
# large for independent data too; centring is what makes zero mean something.
def distance_covariance(x, y):
    def centred(values):
        a = np.abs(values[:, None] - values[None, :])
        return a - a.mean(axis=0) - a.mean(axis=1, keepdims=True) + a.mean()

    return (centred(x) * centred(y)).mean()


# %% exercise 7.2
# For the lecturer: show the histogram of both statistics for 500 independent samples of 10 rows.
# V lies wholly above zero, U on both sides. Ask which should be a penalty in a mini-batch.
def unbiased(x, y):
    n = len(x)

    def centred(values):
        a = np.abs(values[:, None] - values[None, :])
        rows = a.sum(axis=1) / (n - 2)
        a = a - rows[:, None] - rows[None, :] + a.sum() / ((n - 1) * (n - 2))
        np.fill_diagonal(a, 0)
        return a

    return (centred(x) * centred(y)).sum() / (n * (n - 3))


# %% exercise 7.3
# For the lecturer: this is the exclusive or. Let the class say who is favoured: old women and young
# men, say. No statement about women or about the old is true of these scores.
def gerrymandered(first, second):
    return (first != second).astype(float)


# %% exercise 7.4
# For the lecturer: the two ones matter. Without them a p of exactly 0 appears, which no finite
# number of permutations can support. Moving the scores alone keeps the attributes' own dependence.
def permutation_p(scores, attributes, statistic, permutations, seed):
    generator = np.random.default_rng(seed)
    observed = statistic(scores, attributes)
    reached = sum(
        statistic(generator.permutation(scores), attributes) >= observed
        for _ in range(permutations)
    )
    return (1 + reached) / (permutations + 1)


# %% exercise 7.5
# For the lecturer: compare with taking off the group's mean, which equalises means only, and with
# one constant for all, which is fair and useless. Then ask what the rank-wise mean assumes: that
# third place in one group deserves what third place in another does. That is a value judgement.
def repaired(scores, group):
    result = np.empty(len(scores))
    places = [np.flatnonzero(group == k) for k in np.unique(group)]
    ranked = [place[np.argsort(scores[place])] for place in places]
    common = np.mean([scores[place] for place in ranked], axis=0)
    for place in ranked:
        result[place] = common
    return result

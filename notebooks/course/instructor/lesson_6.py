# Model solutions of lesson 6, for the lecturer. A cell replaces the student's of the same exercise.
import math

import numpy as np


# %% exercise 6.1
# For the lecturer: let the class first plot margin against length and believe the slope. The same
# data with quality held fixed often have a slope near zero, or of the other sign.
def length_slope(margin, extra_tokens, extra_quality):
    design = np.stack([np.ones(len(margin)), extra_tokens, extra_quality], axis=1)
    return np.linalg.lstsq(design, margin, rcond=None)[0][1]


# %% exercise 6.2
# For the lecturer: "length-normalised" is often heard as "length-proof". It is not: a closing that
# the policy has learned to like raises the mean too. The incentive's sign depends on the text.
def padding_gain(ratios, tail, beta):
    together = np.concatenate([ratios, tail])
    return beta * tail.sum(), beta * (together.mean() - ratios.mean())


# %% exercise 6.3
# For the lecturer: write F^n on the board before any code. The formula log n - (n - 1)/n follows by
# taking F uniform: the integral of n u^(n-1) log(n u^(n-1)) over u from 0 to 1.
def best_of_n(probabilities, scores, n):
    order = np.argsort(scores)
    reached = np.cumsum(probabilities[order]) ** n
    law = np.empty(len(scores))
    law[order] = np.diff(reached, prepend=0)
    some = law > 0
    return law, float((law[some] * np.log(law[some] / probabilities[some])).sum())


# %% exercise 6.4
# For the lecturer: the point is the asymmetry. The proxy's curve never turns, so nothing on the
# dashboard of the optimiser says stop. Ask what could play the part of gold outside a classroom.
def when_to_stop(probabilities, proxy, gold, candidates):
    return max(candidates, key=lambda n: best_of_n(probabilities, proxy, n)[0] @ gold)


# %% exercise 6.5
# For the lecturer: disagreement and error look the same to the loss. A vote of 9 to 1 and one flip
# in ten give the same target. This is why robust losses need eps from elsewhere.
def margin_under_noise(alpha, eps, beta):
    recorded = (1 - eps) * alpha + eps * (1 - alpha)
    return math.log(recorded / (1 - recorded)) / beta

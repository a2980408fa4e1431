# Model solutions of lesson 5, for the lecturer. A cell replaces the student's of the same exercise.
import math

import numpy as np
from scipy import special


# %% exercise 5.1
# For the lecturer: the two usual slips are the missing beta in the derivative, and a sigmoid
# inside a logarithm, which is right on paper and infinite at a margin of 1,000 nats. Let the class
# find the rest point from the derivative: sigmoid(beta d) = 1 - eps.
def smoothed_loss(margin, beta, eps):
    z = beta * margin
    loss = (1 - eps) * np.logaddexp(0, -z) + eps * np.logaddexp(0, z)
    return loss, beta * (special.expit(z) - (1 - eps))


# %% exercise 5.2
# For the lecturer: the three rest points are three answers to "what is a vote of 60 to 40 worth?"
# DPO keeps its odds, IPO its lead, the hinge its winner. At alpha = 1 DPO has no rest point at all,
# which is the argument that led to IPO.
def resting_margin(name, alpha, beta):
    if name == "dpo":
        return math.log(alpha / (1 - alpha)) / beta
    if name == "ipo":
        return (2 * alpha - 1) / (2 * beta)
    return math.copysign(1 / beta, alpha - 0.5)


# %% exercise 5.3
# For the lecturer: draw a batch with one margin far out. Under IPO that pair pulls hardest (and
# backwards); under DPO it is nearly absent; under the hinge it is absent. A wrong label with a
# large negative margin pulls hardest under all three, but only IPO's pull grows without bound.
def gradient_shares(name, margin, beta):
    if name == "dpo":
        pull = beta * special.expit(-beta * margin)
    elif name == "hinge":
        pull = beta * (beta * margin < 1)
    else:
        pull = 2 * np.abs(margin - 1 / (2 * beta))
    return pull / pull.sum() if pull.sum() > 0 else pull


# %% exercise 5.4
# For the lecturer: unbiased is not harmless. With eps = 0.4 the weights are 3 and -2: the estimate
# has the right mean and thirteen times the weight squared. The loss is not bounded below: DPO's
# softplus(-z) minus eps z / (1 - 2 eps).
def robust_loss(margin, beta, eps):
    kept, flipped = np.logaddexp(0, -beta * margin), np.logaddexp(0, beta * margin)
    return ((1 - eps) * kept - eps * flipped) / (1 - 2 * eps)


# %% exercise 5.5
# For the lecturer: ask for the story behind the numbers. A short, blunt, correct answer is chosen
# over a long fluent one. DPO is satisfied because the sum moved; SimPO sees a low mean.
dividing_pair = {
    "policy_chosen": -30.0,
    "policy_rejected": -60.0,
    "reference_chosen": -50.0,
    "reference_rejected": -50.0,
    "n_chosen": 5,
    "n_rejected": 40,
}

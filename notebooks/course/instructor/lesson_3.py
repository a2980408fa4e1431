"""Solutions to lesson 3, one cell each; `workbench course start 3 --instructor` puts them in."""

import math

import torch
from torch import Tensor


# %% exercise 3.1
# torch's softplus is the identity above a threshold of 20; its relative error there is below 1e-9.
def flip_threshold(c: Tensor, beta: float) -> Tensor:
    return torch.nn.functional.softplus(-beta * c)


# %% exercise 3.2
# The released code of the paper multiplies the odds by a ratio of log-likelihoods in place of
# Eq. 3's ratio of likelihoods; a good moment to say that one reads the equation.
def idealized_accuracy(c: Tensor, alpha: Tensor, betas: Tensor) -> Tensor:
    correct = torch.logit(alpha) > betas[:, None] * c
    return correct.double().mean(dim=1)


# %% exercise 3.3
# All shares here are above one half; with a minority label the two cases exchange.
def flip_beta(c: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(c > 0, torch.logit(alpha) / c, math.inf)


# %% exercise 3.4
# At beta = 0.1 and c = 50 the push is 0.7 % of what it was at the start.
def push_at_flip(c: Tensor, beta: float) -> Tensor:
    return beta * torch.sigmoid(-beta * c)


# %% exercise 3.5
# Let several students compare their policies: the loss fixes one number, and two were asked for.
def trained_but_wrong(
    reference_chosen: float, reference_rejected: float, beta: float, loss: float
) -> tuple[float, float]:
    c = reference_rejected - reference_chosen
    m = -math.log(math.expm1(loss)) / beta - c
    policy_chosen = reference_chosen - 1
    return policy_chosen, policy_chosen - m

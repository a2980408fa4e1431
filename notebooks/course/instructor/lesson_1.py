"""Solutions to lesson 1, one cell each; `workbench course start 1 --instructor` puts them in."""

import torch
from torch import Tensor


# %% exercise 1.1
# Ask before the formula: what may the answer depend on? (Only on the difference.) Students who
# write exp(first) / (exp(first) + exp(second)) are right on paper; the check shows them 800 nats.
def preference(first: Tensor, second: Tensor) -> Tensor:
    return torch.sigmoid(first - second)


# %% exercise 1.2
# Worth a table on the board: 3:1 is 1.1 nats, 9:1 2.2, 99:1 4.6.
def reward_gap(alpha: Tensor) -> Tensor:
    return torch.logit(alpha)


# %% exercise 1.3
# Let them find the minimum by hand: the derivative is sigmoid(gap) - alpha.
def rater_loss(gap: Tensor, alpha: Tensor) -> Tensor:
    agree, differ = torch.nn.functional.softplus(-gap), torch.nn.functional.softplus(gap)
    return alpha * agree + (1 - alpha) * differ


# %% exercise 1.4
# The clamp is no cosmetics: with nine raters the observed share leaves eps to 1 - eps quite often.
def clean_share(observed: Tensor, eps: float) -> Tensor:
    return ((observed - eps) / (1 - 2 * eps)).clamp(0, 1)


# %% exercise 1.5
# Condorcet's example. Each step of the circle is won by all raters but one.
def ballots(answers: list[str]) -> list[list[str]]:
    return [answers[i:] + answers[:i] for i in range(len(answers))]

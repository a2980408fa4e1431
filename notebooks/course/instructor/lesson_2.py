"""Solutions to lesson 2, one cell each; `workbench course start 2 --instructor` puts them in."""

import torch
from torch import Tensor


# %% exercise 2.1
# Have somebody take beta * (tilted - reference) afterwards: the reward comes back, less beta log Z.
def tilted(reference_logp: Tensor, reward: Tensor, beta: float) -> Tensor:
    return torch.log_softmax(reference_logp + reward / beta, dim=0)


# %% exercise 2.2
# The most frequent slip is the sign of the reference's part: the answer's own reference score is
# taken away from each, so the reference's log-ratio enters with a minus.
def margin(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
) -> Tensor:
    chosen = beta * (policy_chosen - reference_chosen)
    rejected = beta * (policy_rejected - reference_rejected)
    return chosen - rejected


# %% exercise 2.3
# One constant for all prompts would do; a different one for each shows how much freedom there is.
def another_reward(reward: Tensor, prompt: Tensor) -> Tensor:
    return reward + 1 + prompt


# %% exercise 2.4
# Ask which of the two a training log shows (TRL: rewards/accuracies, the second).
def accuracies(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
) -> tuple[Tensor, Tensor]:
    ranked = policy_chosen >= policy_rejected
    rewarded = policy_chosen - reference_chosen > policy_rejected - reference_rejected
    return ranked.double().mean(), rewarded.double().mean()


# %% exercise 2.5
# Each reward is divided by its own length; one common divisor would leave every sign as it was.
def margin_per_token(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    n_chosen: Tensor,
    n_rejected: Tensor,
    beta: float,
) -> Tensor:
    chosen = (policy_chosen - reference_chosen) / n_chosen
    rejected = (policy_rejected - reference_rejected) / n_rejected
    return beta * (chosen - rejected)

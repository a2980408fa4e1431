"""Solutions to lesson 4, one cell each; `workbench course start 4 --instructor` puts them in."""

import math

import torch
from torch import Tensor


# %% exercise 4.1
# A softmax of the log-ratios. Ask what q is when the policy is the reference (uniform).
def did(policy_logp: Tensor, reference_logp: Tensor) -> Tensor:
    return torch.softmax(policy_logp - reference_logp, dim=0)


# %% exercise 4.2
# xlogy knows that 0 log 0 is 0. Pooling the prompts is the slip worth discussing: log-ratios of
# different prompts have different constants, so a pooled q compares what cannot be compared.
def did_entropy(policy_logp: Tensor, reference_logp: Tensor) -> Tensor:
    q = torch.softmax(policy_logp - reference_logp, dim=1)
    return -torch.special.xlogy(q, q).sum(dim=1).mean()


# %% exercise 4.3
# Check on the board that pi_ref (pi_ref / pi_l)^(1 / beta) is the target again.
def rejected(target_logp: Tensor, reference_logp: Tensor, beta: float) -> Tensor:
    return torch.log_softmax(reference_logp + beta * (reference_logp - target_logp), dim=0)


# %% exercise 4.4
# Their difference times beta is KL(pi_ref || pi_l) + KL(pi_l || pi_ref), the expected margin.
def displacement(
    target_logp: Tensor, reference_logp: Tensor, rejected_logp: Tensor
) -> tuple[Tensor, Tensor]:
    change = target_logp - reference_logp
    return (reference_logp.exp() * change).sum(), (rejected_logp.exp() * change).sum()


# %% exercise 4.5
# Draws stay as they came, duplicates included: each stands for 1 / p(y).
def sampled_entropy(
    policy_logp: Tensor, reference_logp: Tensor, proposal_logp: Tensor
) -> tuple[Tensor, Tensor]:
    log_ratio = policy_logp - reference_logp
    log_w = log_ratio - proposal_logp
    weights = torch.softmax(log_w, dim=0)
    estimate = log_w.logsumexp(dim=0) - math.log(len(log_w)) - (weights * log_ratio).sum()
    return estimate, 1 / (weights**2).sum()

"""What is measured of distributions in the exact world, for tables and claims alike."""

from collections.abc import Callable

import torch
from torch import Tensor

from workbench.metrics.divergence import jensen_shannon
from workbench.metrics.information import did_entropy, power_law_beta
from workbench.studies.differential_information.world import divergence, entropy

Power = Callable[[float], tuple[float, float]]
"""From s to H(q) and H(pi) - H(pi_ref) for q ∝ pi_ref^s, nats."""
# The three-answer reference of the counterexamples: s = -1 makes it uniform, s = -3 upside down.
EXAMPLE = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64).log()


def js(policy: Tensor, target: Tensor) -> float:
    """Jensen-Shannon divergence of two log-densities, bits."""
    halves = torch.full((2,), 0.5, dtype=torch.float64)
    return float(jensen_shannon(torch.stack([policy.exp(), target.exp()]), halves))


def jeffreys(left: Tensor, right: Tensor) -> float:
    """Jeffreys' divergence of two log-densities, nats."""
    return float(divergence(left, right) + divergence(right, left))


def pair_betas(reference: Tensor, rejected: Tensor, target: Tensor) -> Tensor:
    """beta_pair of every unordered pair of answers; NaN where there is none."""
    first, second = torch.triu_indices(len(target), len(target), offset=1)
    return power_law_beta(*(each[first] - each[second] for each in (rejected, reference, target)))


def example_power(s: float) -> tuple[float, float]:
    """H(q) and H(pi) - H(pi_ref) of the example for q ∝ pi_ref^s and pi ∝ pi_ref q, nats."""
    policy = torch.log_softmax((1 + s) * EXAMPLE, dim=-1)
    change = float(entropy(policy) - entropy(EXAMPLE))
    return float(did_entropy(policy, EXAMPLE)), change

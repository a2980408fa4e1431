"""How good predictions are that a fairness penalty may cost (Lee et al., arXiv 2509.08163).

Each returns one value a row, in float64; a missing prediction or outcome (NaN) stays missing.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from workbench.metrics.checks import indicator


def poisson_ranked_probability_score(
    rate: Shaped[Tensor, " n"], count: Shaped[Tensor, " n"], largest: int = 10
) -> Float[Tensor, " n"]:
    """sum_{k=0..largest} (F(k) - 1[k >= y])^2 with Poisson's distribution function F.

    Lower is better.

    Args:
        rate: Predicted mean of the count, exposure included, >= 0.
        count: The count y that came.
        largest: Where the sum stops; 10 in the paper's code.
    """
    k = torch.arange(largest + 1, dtype=torch.float64)
    below = torch.special.gammaincc(k + 1, rate.double()[:, None])
    score: Tensor = (below - (k >= count[:, None]).double()).square().sum(dim=1)
    return score.masked_fill(count.isnan(), float("nan"))


def brier_score(
    probability: Shaped[Tensor, " n"], outcome: Shaped[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """(p - y)^2, the ranked probability score of a binary outcome y in {0, 1}; lower is better."""
    return (probability.double() - outcome.double()).square()


def poisson_deviance(
    rate: Shaped[Tensor, " n"], count: Shaped[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """2 (y log(y / mu) - y + mu), the unit deviance; 0 iff the rate mu is the count y."""
    mu, y = rate.double(), count.double()
    logs: Tensor = torch.special.xlogy(y, y) - torch.special.xlogy(y, mu)
    return 2 * (logs - y + mu)


def binary_accuracy(
    probability: Shaped[Tensor, " n"], outcome: Shaped[Tensor, " n"], threshold: float = 0.5
) -> Float[Tensor, " n"]:
    """1 where the probability lies at or above the threshold iff the outcome is 1."""
    return indicator((probability >= threshold) == (outcome > 0), probability, outcome)

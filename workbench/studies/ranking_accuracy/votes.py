"""The paper's equation for R* beside the formula in its released code, on simulated pairs.

Eq. 3 multiplies the vote ratio by pi_ref(y_w) / pi_ref(y_l), that is by exp(log-probability of
y_w less that of y_l). The code multiplies by the quotient of the two log-probabilities. That is
no ratio of probabilities: it lies near 1 whatever the model thinks, and points the other way,
because the likelier answer has the log-probability nearer to 0. So the code's R* follows the votes
where Eq. 3 follows a reference whose log-ratios run to tens of nats. Length-normalised both agree
in kind: there the code forms a quotient of perplexities, which is one of probabilities.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from workbench.metrics.ranking import (
    clip_rater_share,
    idealized_ranking_accuracy,
    paper_code_idealized_ranking_accuracy,
)
from workbench.studies.ranking_accuracy.mechanism import PairScores

BETAS = (0.01, 0.1, 1.0, 5.0, 10.0)
"""The paper's grid."""
EXPECTED = {
    "eq3": (0.866, 0.600, 0.512, 0.502, 0.500),
    "code": (1.0, 1.0, 0.917, 0.723, 0.662),
    "eq3_per_token": (1.0, 1.0, 1.0, 0.843, 0.764),
}
"""R* at each beta in an independent simulation of 5,000 pairs."""
Ideal = Callable[[PairScores, float], Tensor]


def simulated_pairs(count: int, generator: torch.Generator) -> PairScores:
    """Pairs as a language model of no opinion scores them.

    20 to 249 tokens an answer, -1.3 nats a token give or take 0.25 between answers, and votes of
    3 to 1 (60 %) or 4 to 0 for an answer that the model knows nothing of.
    """
    lengths = torch.randint(20, 250, (2, count), generator=generator).double()
    per_token = -1.3 + 0.25 * torch.randn(2, count, generator=generator, dtype=torch.float64)
    split = torch.rand(count, generator=generator, dtype=torch.float64) < 0.6
    alpha = torch.where(split, 0.75, 1.0).double()
    logps = lengths * per_token
    return PairScores(logps[0], logps[1], lengths[0], lengths[1], alpha)


def equation(pairs: PairScores, beta: float) -> Tensor:
    """R* of each pair by Eq. 3."""
    return idealized_ranking_accuracy(pairs.c, clip_rater_share(pairs.alpha), beta)


def equation_per_token(pairs: PairScores, beta: float) -> Tensor:
    """R~* of each pair: Eq. 3 of geometric-mean token probabilities."""
    c = pairs.rejected / pairs.n_rejected - pairs.chosen / pairs.n_chosen
    return idealized_ranking_accuracy(c, clip_rater_share(pairs.alpha), beta)


def released_code(pairs: PairScores, beta: float) -> Tensor:
    """R* of each pair by the formula of the released code.

    The mean over the two orders in which a pair may be listed. Where the chosen answer is listed
    second the share of the first may be 0, which the code leaves as it is: the pair then counts
    as right whatever the model thinks.
    """
    alpha = clip_rater_share(pairs.alpha)
    first = paper_code_idealized_ranking_accuracy(pairs.chosen, pairs.rejected, alpha, beta)
    score = torch.logit(alpha) / beta + torch.log(pairs.chosen / pairs.rejected)
    second = (score >= -math.log1p(-0.05)) | (pairs.alpha == 1)
    return (first + second.double()) / 2


FORMULAS: dict[str, Ideal] = {
    "eq3": equation,
    "code": released_code,
    "eq3_per_token": equation_per_token,
}

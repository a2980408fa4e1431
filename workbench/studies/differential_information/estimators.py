"""The estimator laboratory: H(q) by sampling and by candidate set, where the truth is known.

Its world is fixed, 32 answers with normal log-weights of standard deviation 1.5, so that bias,
spread and effective sample size have known values. Only the draws follow from the seed.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.metrics.information import (
    did_entropy,
    mixture_log_density,
    sampled_did_entropy,
    snis_entropy,
)
from workbench.study.context import StudyContext

ANSWERS, SPREAD = 32, 1.5
DRAWS = (16, 32, 64, 128, 256, 512, 1024, 2048)
"""K, the numbers of draws that are tried."""
_JUDGED = 20
"""Repeats for which it is asked whether the estimate would be refused."""

Estimator = Callable[[Tensor, Tensor], Tensor]
"""From log-weights and log-ratios of K draws, shape (K,), to H(q)."""


def plug_in_entropy(log_w: Float[Tensor, " k"], log_ratio: Float[Tensor, " k"]) -> Tensor:
    """-sum w log w of the normalised weights: *not* H(q), and at most log K."""
    log_share = torch.log_softmax(log_w, dim=-1)
    return -(log_share.exp() * log_share).sum()


@dataclass(frozen=True)
class Instruments:
    """How the laboratory computes; a sabotaged variant replaces one.

    Attributes:
        estimate: The estimator under test.
        plug_in: The one that is wrong.
        log_weight: From log-ratio and log-density of the proposal to log w.
        used: Share of the K draws that are used.
        distinct: Whether a candidate set has every answer once.
    """

    estimate: Estimator = snis_entropy
    plug_in: Estimator = plug_in_entropy
    log_weight: Callable[[Tensor, Tensor], Tensor] = torch.sub
    used: float = 1.0
    distinct: bool = True


@dataclass(frozen=True)
class Sampling:
    """What repeated sampling from one proposal gives, a row for every K of `DRAWS`.

    Attributes:
        estimate: H(q) by self-normalised importance sampling, shape (sizes, repeats).
        plug_in: Entropy of the weights, the same shape.
        ess: Effective sample size, the same shape.
        refused: Share of repeats whose estimate would not be shown, shape (sizes,).
        error: Standard error of one estimate by the delta method, shape (sizes,).
    """

    estimate: Tensor
    plug_in: Tensor
    ess: Tensor
    refused: Tensor
    error: Tensor


@dataclass(frozen=True)
class Laboratory:
    """Everything that the laboratory found in its fixed world.

    Attributes:
        exact: H(q), nats.
        sampling: By name of the proposal.
        candidates: H_S of the distinct answers among K draws from the mixture, (sizes, repeats).
        candidate_size: |S|, the same shape.
        copies: Entropy where every draw stays in the set, copies as well, the same shape.
    """

    exact: float
    sampling: dict[str, Sampling]
    candidates: Tensor
    candidate_size: Tensor
    copies: Tensor


def fixed_world() -> tuple[Float[Tensor, " y"], Float[Tensor, " y"]]:
    """log pi and log pi_ref, the same for every seed."""
    draws = np.random.default_rng(0)
    reference, policy = (SPREAD * torch.from_numpy(draws.normal(size=ANSWERS)) for _ in range(2))
    return torch.log_softmax(policy, dim=0), torch.log_softmax(reference, dim=0)


def proposals(policy: Tensor, reference: Tensor) -> Mapping[str, Tensor]:
    """log p of what answers may be drawn from, by name."""
    return {
        "policy": policy,
        "reference": reference,
        "mixture": mixture_log_density(policy, reference),
        "uniform": torch.full_like(policy, -math.log(len(policy))),
    }


def experiment(repeats: int, instruments: Instruments, context: StudyContext) -> Laboratory:
    """Estimate H(q) of the fixed world many times by every means."""
    policy, reference = fixed_world()
    ways = proposals(policy, reference)
    sampling = {
        name: _sampling(policy, reference, logp, repeats, instruments, context.generator(name))
        for name, logp in context.track(ways.items(), "estimator laboratory")
    }
    candidates = _candidates(policy, reference, repeats, instruments, context.generator("set"))
    return Laboratory(float(did_entropy(policy, reference)), sampling, *candidates)


def delta_method_error(policy: Tensor, reference: Tensor, proposal: Tensor) -> float:
    """Standard error of the estimator times sqrt K, exactly, for an enumerable set of answers.

    The standard deviation under p of (v - 1) - v (l - mu), where v = q / p.
    """
    log_ratio = policy - reference
    log_q = torch.log_softmax(log_ratio, dim=0)
    p, v = proposal.exp(), (log_q - proposal).exp()
    influence = (v - 1) - v * (log_ratio - log_q.exp() @ log_ratio)
    return float((p @ influence**2 - (p @ influence) ** 2).sqrt())


def _sampling(
    policy: Tensor,
    reference: Tensor,
    proposal: Tensor,
    repeats: int,
    instruments: Instruments,
    generator: torch.Generator,
) -> Sampling:
    found = [
        _with_draws(policy, reference, proposal, drawn, instruments)
        for drawn in _draw(proposal, repeats, instruments.used, generator)
    ]
    estimate, plug_in, ess, refused = (torch.stack(part) for part in zip(*found, strict=True))
    sizes = torch.tensor(DRAWS, dtype=torch.float64)
    error = delta_method_error(policy, reference, proposal) / sizes.sqrt()
    return Sampling(estimate, plug_in, ess, refused, error)


def _with_draws(
    policy: Tensor, reference: Tensor, proposal: Tensor, drawn: Tensor, instruments: Instruments
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Estimate, plug-in and ESS, shape (repeats,), and the share refused, from (repeats, K)."""
    log_ratio = (policy - reference)[drawn]
    log_w = instruments.log_weight(log_ratio, proposal[drawn])
    estimate = torch.vmap(instruments.estimate)(log_w, log_ratio)
    plug_in = torch.vmap(instruments.plug_in)(log_w, log_ratio)
    ess = 1 / torch.softmax(log_w, dim=1).square().sum(dim=1)
    judged = [
        sampled_did_entropy(policy[each], reference[each], proposal[each])
        for each in drawn[:_JUDGED]
    ]
    refused = sum(not each.reliable for each in judged) / len(judged)
    return estimate, plug_in, ess, torch.tensor(refused, dtype=torch.float64)


def _candidates(
    policy: Tensor,
    reference: Tensor,
    repeats: int,
    instruments: Instruments,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """H_S and |S| of distinct draws from the mixture, and the entropy that copies would give."""
    log_ratio = policy - reference
    found = []
    for drawn in _draw(mixture_log_density(policy, reference), repeats, 1.0, generator):
        counts = torch.zeros(len(drawn), len(policy), dtype=torch.float64)
        counts.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
        once = counts.clamp(max=1) if instruments.distinct else counts
        alone, copied = (_multiset_entropy(log_ratio, each) for each in (once, counts))
        found.append((alone, once.sum(dim=1), copied))
    entropy, size, copies = (torch.stack(part) for part in zip(*found, strict=True))
    return entropy, size, copies


def _multiset_entropy(log_ratio: Tensor, counts: Tensor) -> Tensor:
    """Entropy of q over a set that has each answer `counts` times, shape (repeats,)."""
    log_q = torch.log_softmax(log_ratio + counts.log(), dim=1) - counts.log()
    return -torch.where(counts == 0, 0.0, counts * log_q.exp() * log_q).sum(dim=1)


def _draw(proposal: Tensor, repeats: int, used: float, generator: torch.Generator) -> list[Tensor]:
    """Answers drawn for every K of `DRAWS`, each of shape (repeats, K)."""
    sizes = [round(used * k) for k in DRAWS]
    flat = [
        torch.multinomial(proposal.exp(), repeats * k, replacement=True, generator=generator)
        for k in sizes
    ]
    return [drawn.view(repeats, k) for drawn, k in zip(flat, sizes, strict=True)]

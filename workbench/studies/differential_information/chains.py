"""H(q) over strings of growing length, where the truth is still known: two Markov chains.

What happens to each estimator of the laboratory when an answer becomes as long as a language
model's.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.metrics.information import (
    did_entropy,
    markov_did_entropy,
    mixture_log_density,
    snis_entropy,
)
from workbench.study.context import StudyContext

LENGTHS = (1, 2, 4, 8, 16, 32)
TOKENS, DRAWS = 8, 256


@dataclass(frozen=True)
class Chain:
    """A Markov chain over tokens.

    Attributes:
        start: log probabilities of the first token, shape (tokens,).
        step: log transition probabilities [from, to], shape (tokens, tokens).
    """

    start: Tensor
    step: Tensor


@dataclass(frozen=True)
class ByLength:
    """Entropies by length of the strings, nats, shape (lengths,).

    Attributes:
        lengths: T.
        exact: H(q) over all strings of T tokens.
        tokens_of_policy: Sum of H(q_t) over the positions, prefixes drawn from the policy.
        tokens_of_reference: The same, prefixes drawn from the reference.
        sampled: Mean estimate by importance sampling from the mixture.
        ess_share: Mean effective draws a draw, ESS / K.
    """

    lengths: Tensor
    exact: Tensor
    tokens_of_policy: Tensor
    tokens_of_reference: Tensor
    sampled: Tensor
    ess_share: Tensor


def experiment(lengths: tuple[int, ...], repeats: int, context: StudyContext) -> ByLength:
    """Entropies of two chains drawn by seed, exactly and as estimated."""
    policy, reference = (draw_chain(context.generator(name)) for name in ("pi", "pi_ref"))
    draws = context.generator("strings")
    rows = []
    for length in context.track(lengths, "strings of growing length"):
        sampled, share = _sampled(policy, reference, length, repeats, draws)
        rows.append(
            (
                exact_entropy(policy, reference, length),
                token_entropy(policy, reference, policy, length),
                token_entropy(policy, reference, reference, length),
                sampled,
                share,
            )
        )
    columns = [torch.stack(column) for column in zip(*rows, strict=True)]
    return ByLength(torch.tensor(lengths), *columns)


def draw_chain(generator: torch.Generator, tokens: int = TOKENS) -> Chain:
    """A chain of standard normal logits."""
    logits = torch.randn(tokens + 1, tokens, generator=generator, dtype=torch.float64)
    logp = torch.log_softmax(logits, dim=-1)
    return Chain(logp[0], logp[1:])


def exact_entropy(policy: Chain, reference: Chain, length: int) -> Float[Tensor, ""]:
    """H(q) over all strings of that many tokens, nats."""
    own, other = (chain.step.expand(length - 1, -1, -1) for chain in (policy, reference))
    return markov_did_entropy(own, other, policy.start, reference.start)


def token_entropy(
    policy: Chain, reference: Chain, prefixes: Chain, length: int
) -> Float[Tensor, ""]:
    """Sum over the positions of the mean H(q_t), prefixes being drawn from a chain, nats.

    Exact. Were they drawn from the product of the q_t, it would be that product's entropy; even
    that is not H(q).
    """
    after = did_entropy(policy.step, reference.step)
    total, last = did_entropy(policy.start, reference.start), prefixes.start.exp()
    for _ in range(length - 1):
        total, last = total + last @ after, last @ prefixes.step.exp()
    return total


def _sampled(
    policy: Chain, reference: Chain, length: int, repeats: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mean estimate and mean ESS / K over repeats of `DRAWS` strings from the mixture."""
    of = [_strings(chain, length, repeats * DRAWS // 2, generator) for chain in (policy, reference)]
    # One half from each chain: the mixture, with its two shares fixed.
    strings = torch.cat([each.view(repeats, DRAWS // 2, length) for each in of], dim=1)
    logp, log_ref = (_log_probability(chain, strings) for chain in (policy, reference))
    log_w = logp - log_ref - mixture_log_density(logp, log_ref)
    estimate = torch.vmap(snis_entropy)(log_w, logp - log_ref)
    ess = 1 / torch.softmax(log_w, dim=1).square().sum(dim=1)
    return estimate.mean(), ess.mean() / DRAWS


def _strings(chain: Chain, length: int, n: int, generator: torch.Generator) -> Tensor:
    """Strings drawn from a chain, shape (n, length)."""
    return torch.stack(list(_tokens(chain, length, n, generator)), dim=1)


def _tokens(chain: Chain, length: int, n: int, generator: torch.Generator) -> Iterator[Tensor]:
    last = torch.multinomial(chain.start.exp(), n, replacement=True, generator=generator)
    yield last
    for _ in range(length - 1):
        last = torch.multinomial(chain.step.exp()[last], 1, generator=generator)[:, 0]
        yield last


def _log_probability(chain: Chain, strings: Tensor) -> Tensor:
    """log p of each string, shape (...,), from tokens (..., length)."""
    steps = chain.step[strings[..., :-1], strings[..., 1:]].sum(dim=-1)
    return chain.start[strings[..., 0]] + steps

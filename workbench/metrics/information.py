"""Differential information: what made the policy of the reference (Won et al., arXiv 2505.23761).

For one prompt, q(y) is proportional to pi(y) / pi_ref(y) over a *finite* set of answers. Its
entropy H(q) depends on that set's size, which is therefore always reported beside it, and says
nothing by itself about whether the policy became more or less certain: `entropy_change_by_group`
stands beside it. Natural logs, nats. One q per prompt; entropies are averaged, q never pooled.

Zero probabilities: where only the reference is zero, q is a point mass there; where both are,
the log-ratio is NaN and the answer should be left out before.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

MIN_EFFECTIVE_SAMPLES = 10.0
MAX_PARETO_K = 0.7


def did_log_density(
    policy_logp: Float[Tensor, "*b y"], reference_logp: Float[Tensor, "*b y"]
) -> Float[Tensor, "*b y"]:
    """log q over the last dimension: the normalised log-ratio (Theorem 3.2, first version)."""
    return torch.log_softmax(policy_logp - reference_logp, dim=-1)


def did_entropy(
    policy_logp: Float[Tensor, "*b y"], reference_logp: Float[Tensor, "*b y"]
) -> Float[Tensor, "*b"]:
    """H(q) in nats, in [0, log |Y|]; log |Y| iff policy = reference."""
    log_q = did_log_density(policy_logp, reference_logp)
    return -_expectation(log_q, log_q)


def did_reference_correlation(
    policy_logp: Float[Tensor, " y"], reference_logp: Float[Tensor, " y"]
) -> Float[Tensor, ""]:
    """Correlation under q of the log-ratio with log pi_ref; NaN where either does not vary.

    Positive: the update favours what the reference already favoured.
    """
    q = did_log_density(policy_logp, reference_logp).exp()
    ratio, reference = policy_logp - reference_logp, reference_logp
    ratio, reference = ratio - q @ ratio, reference - q @ reference
    return (q @ (ratio * reference)) / ((q @ ratio**2) * (q @ reference**2)).sqrt()


def optimal_rejected_log_density(
    target_logp: Float[Tensor, "*b y"], reference_logp: Float[Tensor, "*b y"], beta: float
) -> Float[Tensor, "*b y"]:
    """log of the rejected distribution for which DPO's optimum is the target policy.

    pi_l proportional to pi_ref * (pi_ref / pi*)^beta, for answers chosen from pi_ref.
    """
    return torch.log_softmax(reference_logp + beta * (reference_logp - target_logp), dim=-1)


@dataclass(frozen=True)
class GroupedDid:
    """DID over candidate sets of different sizes, one entry a group.

    Attributes:
        entropy: H(q) over the candidates, nats.
        size: |S|, the number of candidates.
        efficiency: H(q) / log |S|; NaN for a single candidate.
        effective_number: exp(H(q)), the effective number of candidates.
    """

    entropy: Tensor
    size: Tensor
    efficiency: Tensor
    effective_number: Tensor


def did_entropy_by_group(
    log_ratio: Float[Tensor, " n"], group: Int[Tensor, " n"], n_groups: int
) -> GroupedDid:
    """H(q) conditioned on each prompt's candidate set (every answer once).

    Args:
        log_ratio: log pi - log pi_ref of each candidate, nats.
        group: Prompt of each candidate, 0..n_groups-1.
        n_groups: Number of prompts; each should have a candidate.
    """
    entropy = _entropy_by_group(log_ratio, group, n_groups)
    size = torch.bincount(group, minlength=n_groups)
    largest = size.to(entropy.dtype).log()
    efficiency = torch.where(size > 1, entropy / largest, torch.full_like(entropy, math.nan))
    return GroupedDid(entropy, size, efficiency, entropy.exp())


def entropy_change_by_group(
    policy_logp: Float[Tensor, " n"],
    reference_logp: Float[Tensor, " n"],
    group: Int[Tensor, " n"],
    n_groups: int,
) -> Float[Tensor, " g"]:
    """Entropy of the policy minus that of the reference, each normalised on the candidate set."""
    policy = _entropy_by_group(policy_logp, group, n_groups)
    return policy - _entropy_by_group(reference_logp, group, n_groups)


@dataclass(frozen=True)
class TokenDid:
    """DID at each position of an answer, over the next token.

    Attributes:
        entropy: H(q_t), nats, shape (tokens,).
        policy_entropy_change: Entropy of the policy minus the reference's, shape (tokens,).
        kl_to_uniform: log |V| - H(q_t); near zero where the models agree. Shape (tokens,).
        coverage: Mean share of both models' probability inside the tokens considered.
        size: Tokens considered at each position, shape (tokens,).
    """

    entropy: Tensor
    policy_entropy_change: Tensor
    kl_to_uniform: Tensor
    coverage: Tensor
    size: Tensor


def token_did_entropy(
    policy_logits: Float[Tensor, "t v"],
    reference_logits: Float[Tensor, "t v"],
    top_k: int | None = None,
) -> TokenDid:
    """Exact DID entropy of the next token at each position of a given answer.

    With `top_k` only the union of both models' top_k tokens is considered, renormalised:
    tokens that both models hold impossible otherwise dominate the uniform part of q.
    """
    policy = torch.log_softmax(policy_logits.double(), dim=-1)
    reference = torch.log_softmax(reference_logits.double(), dim=-1)
    kept = torch.ones_like(policy, dtype=torch.bool)
    if top_k is not None and top_k < policy.shape[-1]:
        kept = _top(policy, top_k) | _top(reference, top_k)
    size = kept.sum(dim=-1)
    log_q = torch.log_softmax((policy - reference).masked_fill(~kept, -math.inf), dim=-1)
    entropy = -_expectation(log_q, log_q)
    change = _restricted_entropy(policy, kept) - _restricted_entropy(reference, kept)
    inside = (policy.exp() + reference.exp()).masked_fill(~kept, 0.0).sum(dim=-1) / 2
    return TokenDid(entropy, change, size.double().log() - entropy, inside, size)


def markov_did_entropy(
    policy_logp: Float[Tensor, "t v v"],
    reference_logp: Float[Tensor, "t v v"],
    policy_start: Float[Tensor, " v"],
    reference_start: Float[Tensor, " v"],
) -> Float[Tensor, ""]:
    """Exact H(q) over all strings of two Markov chains, in O(T V^2).

    Args:
        policy_logp: log transition probabilities [step, from, to].
        reference_logp: The same of the reference.
        policy_start: log probabilities of the first token.
        reference_start: The same of the reference.
    """
    mass = policy_start - reference_start
    mean = mass.clone()
    for step in policy_logp - reference_logp:
        joint = mass[:, None] + step
        mass = joint.logsumexp(dim=0)
        mean = (torch.softmax(joint, dim=0) * (mean[:, None] + step)).sum(dim=0)
    return mass.logsumexp(dim=0) - torch.softmax(mass, dim=0) @ mean


@dataclass(frozen=True)
class SampledDid:
    """H(q) by self-normalised importance sampling, with what tells whether to believe it.

    Attributes:
        estimate: Jackknife-corrected estimate, nats; NaN when refused.
        standard_error: By the delta method, nats.
        bias: Predicted bias of the uncorrected estimate, nats.
        ess: Effective sample size, 1 / sum of squared weights.
        pareto_k: Shape of the tail of the weights; above 0.7 their mean does not settle.
        reliable: Whether ess >= 10 and pareto_k <= 0.7.
        reason: Why not.
    """

    estimate: float
    standard_error: float
    bias: float
    ess: float
    pareto_k: float
    reliable: bool
    reason: str


def sampled_did_entropy(
    policy_logp: Float[Tensor, " k"],
    reference_logp: Float[Tensor, " k"],
    proposal_logp: Float[Tensor, " k"],
) -> SampledDid:
    """H(q) from answers drawn from a proposal (duplicates kept), with bias and error.

    log w = log pi - log pi_ref - log p; the plug-in -sum w log w of the weights is *not* H(q).
    For answers of real length one weight dominates and the estimate is refused.

    Args:
        policy_logp: log pi of each drawn answer, nats.
        reference_logp: log pi_ref of each drawn answer.
        proposal_logp: log p of each drawn answer under what it was drawn from, temperature and
            truncation included.

    Raises:
        ValueError: fewer than two draws.
    """
    if len(policy_logp) < 2:
        raise ValueError(f"{len(policy_logp)} draws; give at least 2.")
    log_ratio = (policy_logp - reference_logp).double()
    log_w = log_ratio - proposal_logp.double()
    weights = torch.softmax(log_w, dim=0)
    ess, tail = float(1 / (weights**2).sum()), _pareto_k(log_w)
    bias, error = _delta_method(weights, log_ratio)
    reason = _refusal(ess, tail)
    estimate = math.nan if reason else _jackknifed(log_w, log_ratio)
    return SampledDid(estimate, error, bias, ess, tail, not reason, reason)


def snis_entropy(log_w: Float[Tensor, " k"], log_ratio: Float[Tensor, " k"]) -> Float[Tensor, ""]:
    """The uncorrected estimator: logsumexp(log w) - log K - sum of normalised w times l."""
    k = log_w.shape[0]
    return log_w.logsumexp(dim=0) - math.log(k) - torch.softmax(log_w, dim=0) @ log_ratio


def _jackknifed(log_w: Tensor, log_ratio: Tensor) -> float:
    """K H - (K - 1) mean of the leave-one-out estimates, in O(K)."""
    k = len(log_w)
    whole = snis_entropy(log_w, log_ratio)
    shifted = (log_w - log_w.max()).exp()
    mass, moment = shifted.sum() - shifted, (shifted * log_ratio).sum() - shifted * log_ratio
    without = mass.log() + log_w.max() - math.log(k - 1) - moment / mass
    return float(k * whole - (k - 1) * without.mean())


def _delta_method(weights: Tensor, log_ratio: Tensor) -> tuple[float, float]:
    """Predicted bias and standard error (core 2.3 c)."""
    k = len(weights)
    v = weights * k
    centred = log_ratio - weights @ log_ratio
    bias = (-v.var(unbiased=False) / 2 + (v**2 * centred).mean()) / k
    error = ((v - 1) - v * centred).std(unbiased=False) / math.sqrt(k)
    return float(bias), float(error)


def _pareto_k(log_w: Tensor) -> float:
    """Hill's estimate of the tail shape from the largest min(K/5, 3 sqrt K) weights."""
    k = len(log_w)
    m = min(k // 5, math.ceil(3 * math.sqrt(k)))
    if m < 2:
        return math.inf
    ordered = log_w.sort(descending=True).values
    return float((ordered[:m] - ordered[m]).mean())


def _refusal(ess: float, tail: float) -> str:
    if ess < MIN_EFFECTIVE_SAMPLES:
        return f"Only {ess:.1f} effective draws; at least {MIN_EFFECTIVE_SAMPLES:.0f} are needed."
    if tail > MAX_PARETO_K:
        return f"The weights' tail is too heavy (k = {tail:.2f} > {MAX_PARETO_K})."
    return ""


def _entropy_by_group(logits: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """Entropy of softmax(logits) within each group."""
    lowest = torch.full((n_groups,), -math.inf, dtype=logits.dtype)
    top = lowest.scatter_reduce(0, group, logits, "amax")
    weight = (logits - top[group]).exp()
    mass = torch.zeros_like(top).index_add(0, group, weight)
    log_q = logits - top[group] - mass.log()[group]
    return -torch.zeros_like(top).index_add(0, group, log_q.exp() * log_q)


def _restricted_entropy(logp: Tensor, kept: Tensor) -> Tensor:
    log_q = torch.log_softmax(logp.masked_fill(~kept, -math.inf), dim=-1)
    return -_expectation(log_q, log_q)


def _expectation(log_q: Tensor, values: Tensor) -> Tensor:
    """Sum of q times a value, where q = 0 counts nothing whatever the value."""
    q = log_q.exp()
    return torch.where(q > 0, q * values, torch.zeros_like(q)).sum(dim=-1)


def _top(logp: Tensor, k: int) -> Tensor:
    chosen = torch.zeros_like(logp, dtype=torch.bool)
    return chosen.scatter(-1, logp.topk(k, dim=-1).indices, True)

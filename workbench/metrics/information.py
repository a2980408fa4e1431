"""Differential information: what made the policy of the reference (Won et al., arXiv 2505.23761).

For one prompt, q(y) is proportional to pi(y) / pi_ref(y) over a *finite* set of answers. Its
entropy H(q) depends on that set's size, which is therefore always reported beside it, and says
nothing by itself about whether the policy became more or less certain: `entropy_change_by_group`
stands beside it. Natural logs, nats, float64. One q per prompt; entropies are averaged, q never
pooled.

Zero probabilities: an answer that the policy alone holds impossible has q = 0; where the reference
alone does, q is a point mass there (shared evenly where there are several); what both hold
impossible is left out with a warning. A missing score (NaN) makes the whole q missing.
"""

import math
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from workbench.metrics.checks import check_positive

MIN_EFFECTIVE_SAMPLES = 10.0
MAX_PARETO_K = 0.7
_MIN_TAIL = 5


def did_log_density(
    policy_logp: Shaped[Tensor, "*b y"], reference_logp: Shaped[Tensor, "*b y"]
) -> Float[Tensor, "*b y"]:
    """log q over the last dimension: the normalised log-ratio (Theorem 3.2, first version)."""
    return _normalised(_log_ratio(policy_logp, reference_logp))


def did_entropy(
    policy_logp: Shaped[Tensor, "*b y"], reference_logp: Shaped[Tensor, "*b y"]
) -> Float[Tensor, "*b"]:
    """H(q) in nats, in [0, log |Y|]; log |Y| iff policy = reference."""
    log_q = did_log_density(policy_logp, reference_logp)
    return -_expectation(log_q.exp(), log_q)


def did_reference_correlation(
    policy_logp: Shaped[Tensor, " y"], reference_logp: Shaped[Tensor, " y"]
) -> Float[Tensor, ""]:
    """Correlation under q of the log-ratio with log pi_ref; NaN where either does not vary.

    Positive: the update favours what the reference already favoured.
    """
    q = did_log_density(policy_logp, reference_logp).exp()
    ratio = _deviations(q, policy_logp.double() - reference_logp.double())
    reference = _deviations(q, reference_logp.double())
    scale = _expectation(q, ratio**2) * _expectation(q, reference**2)
    return _expectation(q, ratio * reference) / scale.sqrt()


def optimal_rejected_log_density(
    target_logp: Shaped[Tensor, "*b y"], reference_logp: Shaped[Tensor, "*b y"], beta: float
) -> Float[Tensor, "*b y"]:
    """log of the rejected distribution for which DPO's optimum is the target policy.

    pi_l proportional to pi_ref * (pi_ref / pi*)^beta, for answers chosen from pi_ref.
    """
    check_positive(beta, "beta")
    target, reference = target_logp.double(), reference_logp.double()
    return torch.log_softmax(reference + beta * (reference - target), dim=-1)


def dpo_optimum_log_density(
    reference_logp: Shaped[Tensor, "*b y"], rejected_logp: Shaped[Tensor, "*b y"], beta: float
) -> Float[Tensor, "*b y"]:
    """log of the policy at which DPO's expected loss is least: pi_ref * (pi_ref / pi_l)^(1/beta).

    Answers are chosen from pi_ref and rejected from pi_l; the inverse of
    `optimal_rejected_log_density`.
    """
    check_positive(beta, "beta")
    reference, rejected = reference_logp.double(), rejected_logp.double()
    return torch.log_softmax(reference + (reference - rejected) / beta, dim=-1)


def power_law_beta(
    rejected_margin: Float[Tensor, " n"],
    reference_margin: Float[Tensor, " n"],
    target_margin: Float[Tensor, " n"],
) -> Float[Tensor, " n"]:
    """The beta for which a pair obeys the DID power law: (D_ref - D_l) / (D_* - D_ref).

    One value for all pairs means that the power law holds. NaN where no beta > 0 exists, that is,
    unless both increments have the same non-zero sign.

    Args:
        rejected_margin: D_l = log pi_l(y_w|x) - log pi_l(y_l|x), nats.
        reference_margin: D_ref, the same of the reference.
        target_margin: D_*, the same of the target policy.
    """
    beta = (reference_margin - rejected_margin) / (target_margin - reference_margin)
    return torch.where((beta > 0) & beta.isfinite(), beta, math.nan)


def first_of_each(answers: Sequence[Hashable]) -> Int[Tensor, " s"]:
    """Places of the distinct answers, first copies in order.

    Copies in a candidate set would raise H(q) by their number.
    """
    first: dict[Hashable, int] = {}
    for place, answer in enumerate(answers):
        first.setdefault(answer, place)
    return torch.tensor(list(first.values()), dtype=torch.long)


@dataclass(frozen=True)
class GroupedDid:
    """DID over candidate sets of different sizes, one entry a group.

    Attributes:
        entropy: H(q) over the candidates, nats; NaN for a group without candidates.
        size: |S|, the number of candidates. Entropies of different |S| do not compare.
        efficiency: H(q) / log |S|; NaN for fewer than two candidates.
        effective_number: exp(H(q)), the effective number of candidates.
    """

    entropy: Tensor
    size: Tensor
    efficiency: Tensor
    effective_number: Tensor


def did_entropy_by_group(
    log_ratio: Shaped[Tensor, " n"], group: Int[Tensor, " n"], n_groups: int
) -> GroupedDid:
    """H(q) conditioned on each prompt's candidate set (every answer once; see `first_of_each`).

    Args:
        log_ratio: log pi - log pi_ref of each candidate, nats.
        group: Prompt of each candidate, 0..n_groups-1.
        n_groups: Number of prompts.

    Raises:
        ValueError: a group outside 0..n_groups-1.
    """
    entropy = _entropy_by_group(log_ratio.double(), group, n_groups)
    size = torch.bincount(group, minlength=n_groups)
    efficiency = (entropy / size.double().log()).masked_fill(size < 2, math.nan)
    return GroupedDid(entropy, size, efficiency, entropy.exp())


def entropy_change_by_group(
    policy_logp: Shaped[Tensor, " n"],
    reference_logp: Shaped[Tensor, " n"],
    group: Int[Tensor, " n"],
    n_groups: int,
) -> Float[Tensor, " g"]:
    """Entropy of the policy minus that of the reference, each normalised on the candidate set."""
    policy = _entropy_by_group(policy_logp.double(), group, n_groups)
    return policy - _entropy_by_group(reference_logp.double(), group, n_groups)


@dataclass(frozen=True)
class TokenDid:
    """DID at each position of an answer, over the next token.

    Attributes:
        entropy: H(q_t), nats, shape (tokens,).
        policy_entropy_change: Entropy of the policy minus the reference's, shape (tokens,).
        kl_to_uniform: log |V| - H(q_t), exact even where the models almost agree, shape (tokens,).
        coverage: Mean share of both models' probability inside the tokens considered.
        size: |V|, tokens considered at each position, shape (tokens,).
    """

    entropy: Tensor
    policy_entropy_change: Tensor
    kl_to_uniform: Tensor
    coverage: Tensor
    size: Tensor

    @property
    def efficiency(self) -> Tensor:
        """H(q_t) / log |V|, in [0, 1]."""
        return self.entropy / self.size.double().log()

    @property
    def bits(self) -> Tensor:
        """H(q_t) in bits a token."""
        return self.entropy / math.log(2)


def token_did_entropy(
    policy_logits: Shaped[Tensor, "t v"],
    reference_logits: Shaped[Tensor, "t w"],
    top_k: int | None = None,
) -> TokenDid:
    """Exact DID entropy of the next token at each position of a given answer.

    The product of the positions' q_t is a distribution over answers, but not q. With `top_k`
    only the union of both models' top_k tokens is considered, renormalised: tokens that both
    models hold all but impossible otherwise dominate the uniform part of q. Tokens that both
    hold impossible are never considered.

    Raises:
        ValueError: vocabularies of different sizes, or a top_k below 1.
    """
    policy, reference = _next_token_logps(policy_logits, reference_logits)
    kept = _considered(policy, reference, top_k)
    size = kept.sum(dim=-1)
    ratio = (policy - reference).masked_fill(~kept, -math.inf)
    kl = _kl_to_uniform(_normalised(ratio), kept)
    change = _restricted_entropy(policy, kept) - _restricted_entropy(reference, kept)
    inside = (policy.exp() + reference.exp()).masked_fill(~kept, 0.0).sum(dim=-1) / 2
    return TokenDid(size.double().log() - kl, change, kl, inside, size)


def markov_did_entropy(
    policy_logp: Float[Tensor, "t v v"],
    reference_logp: Float[Tensor, "t v v"],
    policy_start: Float[Tensor, " v"],
    reference_start: Float[Tensor, " v"],
) -> Float[Tensor, ""]:
    """Exact H(q) over all strings of two Markov chains, in O(T V^2) by a forward recursion.

    Args:
        policy_logp: log transition probabilities [step, from, to].
        reference_logp: The same of the reference.
        policy_start: log probabilities of the first token.
        reference_start: The same of the reference.

    Raises:
        ValueError: the reference holds impossible what the policy does not; q would be a point.
    """
    log_mass = _log_ratio(policy_start, reference_start)
    steps = _log_ratio(policy_logp, reference_logp)
    if bool((log_mass == math.inf).any() or (steps == math.inf).any()):
        raise ValueError(
            "The reference holds impossible what the policy does not; give every token that the "
            "policy may choose a probability above 0."
        )
    mean = log_mass  # of the log-ratio so far, over the strings that end in each token
    for step in steps:
        joint = log_mass[:, None] + step
        log_mass = joint.logsumexp(dim=0)
        weight = (joint - log_mass).exp().nan_to_num(0.0)  # 0 where no string arrives
        mean = _expectation(weight.T, (mean[:, None] + step).T)
    return log_mass.logsumexp(dim=0) - _expectation(torch.softmax(log_mass, dim=0), mean)


@dataclass(frozen=True)
class SampledDidEntropy:
    """H(q) by self-normalised importance sampling, with what tells whether to believe it.

    Attributes:
        estimate: Jackknife-corrected estimate, nats; NaN when refused.
        standard_error: By the delta method, nats.
        bias: Predicted bias of the uncorrected estimate, nats.
        draws: K, the number of draws.
        ess: Effective sample size, 1 / sum of squared weights.
        pareto_k: Shape of the tail of the weights; above 0.7 their mean does not settle.
        reliable: Whether ess >= 10 and pareto_k <= 0.7.
        reason: Why not.
    """

    estimate: float
    standard_error: float
    bias: float
    draws: int
    ess: float
    pareto_k: float
    reason: str

    @property
    def ess_share(self) -> float:
        """Effective draws a draw, ESS / K."""
        return self.ess / self.draws

    @property
    def reliable(self) -> bool:
        """Whether there is an estimate."""
        return not self.reason


def sampled_did_entropy(
    policy_logp: Shaped[Tensor, " k"],
    reference_logp: Shaped[Tensor, " k"],
    proposal_logp: Shaped[Tensor, " k"],
) -> SampledDidEntropy:
    """H(q) from answers drawn from a proposal (duplicates kept), with bias and error.

    log w = log pi - log pi_ref - log p; the plug-in -sum w log w of the weights is *not* H(q).
    The proposal may be the policy, the reference or, best, their mixture
    (`mixture_log_density`). Answers of real length have one dominating weight and are refused:
    their H(q) is better read by candidate set or by token.

    Args:
        policy_logp: log pi of each drawn answer, nats.
        reference_logp: log pi_ref of each drawn answer.
        proposal_logp: log p of each drawn answer under what it was drawn from, temperature and
            truncation included.

    Raises:
        ValueError: fewer than two draws, or a weight that is missing or infinite.
    """
    log_ratio = policy_logp.double() - reference_logp.double()
    log_w = log_ratio - proposal_logp.double()
    _check_draws(log_w)
    weights = torch.softmax(log_w, dim=0)
    log_ratio = log_ratio.masked_fill(weights == 0, 0.0)
    ess, tail = float(1 / (weights**2).sum()), _pareto_k(weights)
    bias, error = _delta_method(weights, log_ratio)
    reason = _refusal(ess, tail)
    estimate = math.nan if reason else _jackknifed(log_w, log_ratio)
    return SampledDidEntropy(estimate, error, bias, len(log_w), ess, tail, reason)


def mixture_log_density(
    policy_logp: Shaped[Tensor, "*k"], reference_logp: Shaped[Tensor, "*k"]
) -> Float[Tensor, "*k"]:
    """log of (pi + pi_ref) / 2, the proposal whose ratio to both is at most 2."""
    return torch.logaddexp(policy_logp.double(), reference_logp.double()) - math.log(2)


def snis_entropy(log_w: Shaped[Tensor, " k"], log_ratio: Shaped[Tensor, " k"]) -> Float[Tensor, ""]:
    """The uncorrected estimator: logsumexp(log w) - log K - sum of normalised w times l."""
    log_w, k = log_w.double(), len(log_w)
    mean = torch.softmax(log_w, dim=0) @ log_ratio.double()
    return log_w.logsumexp(dim=0) - math.log(k) - mean


def generalised_pareto_shape(exceedances: Float[Tensor, " n"]) -> float:
    """Shape k of a generalised Pareto distribution by Zhang and Stephens (2009).

    The likelihood is profiled over b = -k / sigma, and b averaged over a grid with its weights:
    no search, and close to the maximum likelihood.

    Args:
        exceedances: Values above the threshold, less the threshold; positive, in rising order.
    """
    x, n = exceedances.double(), len(exceedances)
    grid = 30 + math.isqrt(n)
    quartile = x[int(n / 4 + 0.5) - 1]
    place = torch.arange(1, grid + 1, dtype=torch.float64) - 0.5
    b = 1 / x[-1] + (1 - (grid / place).sqrt()) / (3 * quartile)
    k = torch.log1p(-b[:, None] * x).mean(dim=1)
    weight = torch.softmax(n * (torch.log(-b / k) - k - 1), dim=0)
    return float(torch.log1p(-(weight @ b) * x).mean())


def _log_ratio(policy_logp: Tensor, reference_logp: Tensor) -> Tensor:
    """log pi - log pi_ref, and -inf (with a warning) where both probabilities are zero."""
    policy, reference = policy_logp.double(), reference_logp.double()
    neither = (policy == -math.inf) & (reference == -math.inf)
    if bool(neither.any()):
        warnings.warn(
            f"{int(neither.sum())} answers are impossible under both models and left out.",
            RuntimeWarning,
            stacklevel=3,
        )
    return (policy - reference).masked_fill(neither, -math.inf)


def _normalised(log_ratio: Tensor) -> Tensor:
    """log-softmax over the last dimension, in which +inf takes all the mass."""
    infinite = log_ratio == math.inf
    finite = log_ratio.masked_fill(
        infinite.any(dim=-1, keepdim=True) & ~log_ratio.isnan(), -math.inf
    )
    return torch.log_softmax(finite.masked_fill(infinite, 0.0), dim=-1)


def _expectation(q: Tensor, values: Tensor) -> Tensor:
    """Sum of q times a value, where q = 0 counts nothing whatever the value."""
    return torch.where(q == 0, 0.0, q * values).sum(dim=-1)


def _deviations(q: Tensor, values: Tensor) -> Tensor:
    """Values less their mean under q; exactly 0 where only rounding remains."""
    away = values - _expectation(q, values)
    noise = 1e-14 * values.masked_fill(q == 0, 0.0).abs().max()
    return away.masked_fill(away.abs() <= noise, 0.0)


def _entropy_by_group(logits: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """Entropy of softmax(logits) within each group; NaN where there is nothing to share."""
    if len(group) and not 0 <= int(group.min()) <= int(group.max()) < n_groups:
        raise ValueError(
            f"Groups run from {int(group.min())} to {int(group.max())}; "
            f"number them 0..{n_groups - 1}."
        )
    logits = _points_by_group(logits, group, n_groups)
    top = _highest(logits, group, n_groups)[group]
    shifted = logits - top
    mass = torch.zeros(n_groups, dtype=torch.float64).index_add(0, group, shifted.exp())
    log_q = shifted - mass.log()[group]
    terms = torch.where(log_q == -math.inf, 0.0, log_q.exp() * log_q)
    entropy = -torch.zeros(n_groups, dtype=torch.float64).index_add(0, group, terms)
    return entropy.masked_fill(mass == 0, math.nan)


def _points_by_group(logits: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """Logits in which a group's +inf leaves nothing to its others."""
    infinite = _highest(logits, group, n_groups)[group] == math.inf
    return torch.where(infinite, torch.where(logits == math.inf, 0.0, -math.inf), logits)


def _highest(values: Tensor, group: Tensor, n_groups: int) -> Tensor:
    lowest = torch.full((n_groups,), -math.inf, dtype=torch.float64)
    return lowest.scatter_reduce(0, group, values, "amax")


def _next_token_logps(policy_logits: Tensor, reference_logits: Tensor) -> tuple[Tensor, Tensor]:
    if policy_logits.shape != reference_logits.shape:
        raise ValueError(
            f"The logits have shapes {tuple(policy_logits.shape)} and "
            f"{tuple(reference_logits.shape)}; use models with the same tokenizer."
        )
    policy = torch.log_softmax(policy_logits.double(), dim=-1)
    return policy, torch.log_softmax(reference_logits.double(), dim=-1)


def _considered(policy: Tensor, reference: Tensor, top_k: int | None) -> Tensor:
    """Tokens that are possible and, with `top_k`, among either model's first."""
    possible = (policy > -math.inf) | (reference > -math.inf)
    if top_k is None:
        return possible
    if top_k < 1:
        raise ValueError(f"top_k is {top_k}; give 1 or more, or None for all tokens.")
    return possible & (_top(policy, top_k) | _top(reference, top_k))


def _top(logp: Tensor, k: int) -> Tensor:
    chosen = torch.zeros_like(logp, dtype=torch.bool)
    best = logp.topk(min(k, logp.shape[-1]), dim=-1).indices
    return chosen.scatter(-1, best, True)


def _kl_to_uniform(log_q: Tensor, kept: Tensor) -> Tensor:
    """log n - H(q): the mean of t log t - t + 1 over the n tokens kept, where t = n q.

    Unlike the difference of the logs it does not cancel where q is nearly uniform.
    """
    n = kept.sum(dim=-1).double()
    s = torch.expm1(log_q + n.log()[:, None])  # t - 1
    excess: Tensor = torch.special.xlog1py(1 + s, s) - s
    return excess.masked_fill(~kept, 0.0).sum(dim=-1) / n


def _restricted_entropy(logp: Tensor, kept: Tensor) -> Tensor:
    log_q = torch.log_softmax(logp.masked_fill(~kept, -math.inf), dim=-1)
    return -_expectation(log_q.exp(), log_q)


def _check_draws(log_w: Tensor) -> None:
    if len(log_w) < 2:
        raise ValueError(f"{len(log_w)} draws; give at least 2.")
    bad = log_w.isnan() | (log_w == math.inf)
    if bool(bad.any()):
        draw = int(bad.nonzero()[0])
        raise ValueError(
            f"Draw {draw} has log-weight {float(log_w[draw])}; leave out answers that the "
            "reference or the proposal holds impossible."
        )


def _jackknifed(log_w: Tensor, log_ratio: Tensor) -> float:
    """K H - (K - 1) mean of the leave-one-out estimates, in O(K)."""
    k = len(log_w)
    whole = snis_entropy(log_w, log_ratio)
    shifted = (log_w - log_w.max()).exp()
    mass, moment = shifted.sum() - shifted, (shifted * log_ratio).sum() - shifted * log_ratio
    without = mass.log() + log_w.max() - math.log(k - 1) - moment / mass
    return float(k * whole - (k - 1) * without.mean())


def _delta_method(weights: Tensor, log_ratio: Tensor) -> tuple[float, float]:
    """Predicted bias and standard error of `snis_entropy`, to first order in 1 / K."""
    k = len(weights)
    v = weights * k
    centred = log_ratio - weights @ log_ratio
    bias = (-v.var(unbiased=False) / 2 + (v**2 * centred).mean()) / k
    error = ((v - 1) - v * centred).std(unbiased=False) / math.sqrt(k)
    return float(bias), float(error)


def _pareto_k(weights: Tensor) -> float:
    """Tail shape of the largest min(K/5, 3 sqrt K) weights (Vehtari et al. 2024, PSIS).

    With its weak prior, ten draws' worth of k = 1/2. 0 where most of these weights are repeats:
    they come from a few answers that were all drawn (Good 1953), so nothing larger is to come.
    """
    k = len(weights)
    m = min(k // 5, math.ceil(3 * math.sqrt(k)))
    if m < _MIN_TAIL:
        return math.inf
    ordered = weights.sort().values
    tail = ordered[-m:]
    if 1 + int((tail.diff() > 0).sum()) <= m / 2:
        return 0.0
    above = tail - ordered[-m - 1]
    above = above[above > 0]
    n = len(above)
    return (n * generalised_pareto_shape(above) + 5) / (n + 10)


def _refusal(ess: float, tail: float) -> str:
    if ess < MIN_EFFECTIVE_SAMPLES:
        return f"Only {ess:.1f} effective draws; at least {MIN_EFFECTIVE_SAMPLES:.0f} are needed."
    if tail == math.inf:
        return "Too few draws to judge the tail of the weights; draw at least 25."
    if not tail <= MAX_PARETO_K:
        return f"The weights' tail is too heavy (k = {tail:.2f} > {MAX_PARETO_K})."
    return ""

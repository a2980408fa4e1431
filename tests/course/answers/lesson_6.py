"""Right and wrong answers to lesson 6, besides the model solutions."""
# ruff: noqa: ANN001, ANN201, ANN202 - written as a student writes

import math

import numpy as np
import torch
from scipy.optimize import minimize_scalar

# 6.1 ---------------------------------------------------------------------------------


def slope_by_residuals(margin, extra_tokens, extra_quality):
    """Frisch, Waugh and Lovell: what is left of length explains what is left of the margin."""

    def left(values):
        return values - np.polyval(np.polyfit(extra_quality, values, 1), extra_quality)

    tokens = left(extra_tokens)
    return tokens @ left(margin) / (tokens @ tokens)


def slope_by_normal_equations(margin, extra_tokens, extra_quality):
    columns = [[1.0] * len(margin), list(extra_tokens), list(extra_quality)]
    gram = [[sum(a * b for a, b in zip(x, y, strict=True)) for x in columns] for y in columns]
    moment = [sum(a * float(b) for a, b in zip(x, margin, strict=True)) for x in columns]
    return torch.linalg.solve(torch.tensor(gram).double(), torch.tensor(moment).double())[1]


def slope_on_length_alone(margin, extra_tokens, extra_quality):
    return np.polyfit(extra_tokens, margin, 1)[0]


def slope_without_intercept(margin, extra_tokens, extra_quality):
    return np.linalg.lstsq(np.stack([extra_tokens, extra_quality], 1), margin, rcond=None)[0][0]


def correlation_with_length(margin, extra_tokens, extra_quality):
    return np.corrcoef(margin, extra_tokens)[0, 1]


# 6.2 ---------------------------------------------------------------------------------


def gain_plain(ratios, tail, beta):
    before, after = sum(ratios), sum(ratios) + sum(tail)
    return [
        beta * (after - before),
        beta * (after / (len(ratios) + len(tail)) - before / len(ratios)),
    ]


def gain_as_pull(ratios, tail, beta):
    ratios, tail = torch.as_tensor(ratios), torch.as_tensor(tail)
    share = len(tail) / (len(ratios) + len(tail))
    return torch.stack([tail.sum(), share * (tail.mean() - ratios.mean())]) * beta


def gain_length_proof(ratios, tail, beta):
    return beta * tail.sum(), 0.0


def gain_over_old_length(ratios, tail, beta):
    return beta * tail.sum(), beta * tail.sum() / len(ratios)


def gain_of_two_means(ratios, tail, beta):
    return beta * tail.sum(), beta * (tail.mean() - ratios.mean())


# 6.3 and 6.4 -------------------------------------------------------------------------


def best_by_counting_ties(probabilities, scores, n):
    """For each answer: nobody above, and somebody here."""
    law = []
    for score in scores:
        upto = sum(p for p, s in zip(probabilities, scores, strict=True) if s <= score)
        below = sum(p for p, s in zip(probabilities, scores, strict=True) if s < score)
        law.append(upto**n - below**n)
    return law, sum(q * math.log(q / p) for q, p in zip(law, probabilities, strict=True) if q > 0)


def best_by_recursion(probabilities, scores, n):
    """One draw after another: the best so far, or the newcomer."""
    p = torch.as_tensor(probabilities)
    beats = (torch.as_tensor(scores)[:, None] > torch.as_tensor(scores)[None, :]).double()
    law = p.clone()
    for _ in range(n - 1):
        law = law * (beats @ p + p) + p * (beats @ law)
    return law, torch.special.xlogy(law, law / p).sum()


def best_as_power(probabilities, scores, n):
    law = probabilities**n / (probabilities**n).sum()
    return law, (law * np.log(law / probabilities)).sum()


def best_with_the_formula(probabilities, scores, n):
    return best_by_counting_ties(probabilities, scores, n)[0], math.log(n) - (n - 1) / n


def best_with_kl_turned_round(probabilities, scores, n):
    law = np.array(best_by_counting_ties(probabilities, scores, n)[0])
    return law, (probabilities * np.log(probabilities / law)).sum()


def stop_by_loop(probabilities, proxy, gold, candidates):
    best, highest = None, -math.inf
    for n in candidates:
        law, _ = best_by_counting_ties(probabilities, proxy, n)
        value = sum(q * g for q, g in zip(law, gold, strict=True))
        if value > highest:
            best, highest = n, value
    return best


def stop_by_matrix(probabilities, proxy, gold, candidates):
    order = torch.as_tensor(proxy).argsort()
    reached = torch.as_tensor(probabilities)[order].cumsum(0)
    powers = torch.stack([reached**n for n in candidates])
    laws = torch.diff(powers, prepend=torch.zeros(len(candidates), 1).double())
    return candidates[int((laws @ torch.as_tensor(gold)[order]).argmax())]


def stop_where_the_proxy_is_best(probabilities, proxy, gold, candidates):
    return max(candidates, key=lambda n: best_by_counting_ties(probabilities, proxy, n)[0] @ proxy)


def stop_picking_by_gold(probabilities, proxy, gold, candidates):
    return max(candidates, key=lambda n: best_by_counting_ties(probabilities, gold, n)[0] @ gold)


def stop_at_once(probabilities, proxy, gold, candidates):
    return min(candidates)


# 6.5 ---------------------------------------------------------------------------------


def noisy_margin_by_search(alpha, eps, beta):
    def loss(d):
        kept = alpha * np.logaddexp(0, -beta * d) + (1 - alpha) * np.logaddexp(0, beta * d)
        flipped = alpha * np.logaddexp(0, beta * d) + (1 - alpha) * np.logaddexp(0, -beta * d)
        return (1 - eps) * kept + eps * flipped

    return minimize_scalar(loss, bracket=(-1 / beta, 1 / beta), tol=1e-12).x


def noisy_margin_rewritten(alpha, eps, beta):
    lead = (1 - 2 * eps) * (2 * alpha - 1)
    return torch.atanh(torch.tensor(lead, dtype=torch.float64)) * 2 / beta


def noisy_margin_without_flips(alpha, eps, beta):
    return math.log(alpha / (1 - alpha)) / beta if alpha < 1 else math.inf


def noisy_margin_shrunk(alpha, eps, beta):
    alpha = min(alpha, 0.999)
    return (1 - 2 * eps) * math.log(alpha / (1 - alpha)) / beta


def noisy_margin_of_kept(alpha, eps, beta):
    kept = (1 - eps) * alpha
    return math.log(kept / (1 - kept)) / beta


RIGHT = {
    "6.1": (slope_by_residuals, slope_by_normal_equations),
    "6.2": (gain_plain, gain_as_pull),
    "6.3": (best_by_counting_ties, best_by_recursion),
    "6.4": (stop_by_loop, stop_by_matrix),
    "6.5": (noisy_margin_by_search, noisy_margin_rewritten),
}
WRONG = {
    "6.1": (
        (slope_on_length_alone, "take the credit"),
        (slope_without_intercept, "intercept"),
        (correlation_with_length, "correlation"),
    ),
    "6.2": (
        (gain_length_proof, "padding cannot change"),
        (gain_over_old_length, "old number"),
        (gain_of_two_means, "difference of the two means"),
    ),
    "6.3": (
        (best_as_power, "all n draws"),
        (best_with_the_formula, "a bound"),
        (best_with_kl_turned_round, "other way round"),
    ),
    "6.4": (
        (stop_where_the_proxy_is_best, "where the proxy reward is highest"),
        (stop_picking_by_gold, "mean gold reward"),
        (stop_at_once, "mean gold reward"),
    ),
    "6.5": (
        (noisy_margin_without_flips, "left the flips out"),
        (noisy_margin_shrunk, "shrank the log-odds"),
        (noisy_margin_of_kept, "kept labels only"),
    ),
}

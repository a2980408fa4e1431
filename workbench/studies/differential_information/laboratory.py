"""What the estimator laboratory shows: its tables and its claims."""

import math
from typing import Any

import torch

from workbench.metrics.information import MIN_EFFECTIVE_SAMPLES
from workbench.studies.differential_information.chains import TOKENS, ByLength
from workbench.studies.differential_information.estimators import DRAWS, Laboratory, Sampling
from workbench.study.result import Claim

Columns = dict[str, Any]
KNOWN_REPEATS = 1000
KNOWN = {
    ("reference", 32): (0.342, 0.438, 3.5),
    ("policy", 32): (-0.004, 0.168, 17.0),
    ("mixture", 32): (-0.016, 0.230, 9.9),
    ("uniform", 32): (-0.003, 0.193, 7.8),
    ("reference", 2048): (-0.010, 0.112, 42.0),
    ("policy", 2048): (-0.001, 0.022, 817.0),
    ("mixture", 2048): (-0.001, 0.032, 433.0),
}
"""Bias, spread and ESS in the fixed world, by proposal and K, found with NumPy's draws in
`KNOWN_REPEATS` repeats: what the laboratory must reproduce within sampling error."""
_ROUNDING = (0.0005, 0.05, 0.5)
"""Half a unit in the last digit of a known bias, of an ESS below 20, and of one above."""


def tables(found: Laboratory, by_length: ByLength) -> dict[str, Columns]:
    """Estimators by number of draws, the known values, candidate sets, and strings by length."""
    return {
        "estimators": _estimators(found),
        "known": _known(found),
        "candidates": _candidates(found),
        "lengths": _lengths(by_length),
    }


def claims(found: Laboratory, by_length: ByLength) -> tuple[Claim, ...]:
    """What sampling can and cannot tell of H(q)."""
    policy = found.sampling["policy"]
    size = DRAWS.index(256)
    growth = found.sampling["reference"].plug_in[DRAWS.index(2048)].mean() - found.exact
    copied = (found.copies - found.candidates)[DRAWS.index(2048)].mean()
    return (
        Claim(
            "known-bias",
            "effect",
            "The bias of sampling is the known one: largest difference in standard errors.",
            max(_bias_deviation(found, *key) for key in KNOWN),
            "<",
            4.0,
        ),
        Claim(
            "known-ess",
            "effect",
            "So are the effective draws: largest difference in standard errors.",
            max(_ess_deviation(found, *key) for key in KNOWN),
            "<",
            4.0,
        ),
        Claim(
            "delta-method-error",
            "effect",
            "With 256 draws from pi the delta method's standard error is the spread: ratio.",
            float(policy.estimate[size].std() / policy.error[size]),
            "=",
            1.0,
            0.1,
        ),
        Claim(
            "plug-in-grows",
            "effect",
            "The entropy of 2048 weights from pi_ref is no estimate: how far it exceeds H(q).",
            float(growth),
            ">",
            1.0,
            unit="nats",
        ),
        Claim(
            "copies-inflate",
            "effect",
            "Nor is that of 2048 candidates with their copies: how far it exceeds H_S.",
            float(copied),
            ">",
            1.0,
            unit="nats",
        ),
        Claim(
            "long-answers-degenerate",
            "effect",
            "Of draws of long strings almost none counts: ESS / K at the greatest length.",
            float(by_length.ess_share[-1]),
            "<",
            MIN_EFFECTIVE_SAMPLES / 256,
        ),
        Claim(
            "small-sample-of-reference",
            "report",
            "Bias with 32 draws from pi_ref, as many as the paper draws.",
            _bias(found, "reference", 32),
            unit="nats",
            paper="K = 32; the proposal and the normalisation could not be read",
        ),
        Claim(
            "tokens-are-not-answers",
            "report",
            "By token, with prefixes of the policy, long strings have this much more entropy than "
            "by H(q), a token.",
            float((by_length.tokens_of_policy - by_length.exact)[-1] / by_length.lengths[-1]),
            unit="nats",
        ),
    )


def _bias(found: Laboratory, proposal: str, draws: int) -> float:
    estimate = found.sampling[proposal].estimate[DRAWS.index(draws)]
    return float(estimate.mean()) - found.exact


def _bias_deviation(found: Laboratory, proposal: str, draws: int) -> float:
    """Measured less known bias, in standard errors of that difference (rounding included)."""
    known, known_spread, _ = KNOWN[proposal, draws]
    estimate = found.sampling[proposal].estimate[DRAWS.index(draws)]
    variance = float(estimate.var()) / len(estimate) + known_spread**2 / KNOWN_REPEATS
    rounding = _ROUNDING[0] / math.sqrt(3)
    return abs(_bias(found, proposal, draws) - known) / math.sqrt(variance + rounding**2)


def _ess_deviation(found: Laboratory, proposal: str, draws: int) -> float:
    """The same of the mean effective sample size, which is as variable in both."""
    known = KNOWN[proposal, draws][2]
    ess = found.sampling[proposal].ess[DRAWS.index(draws)]
    variance = float(ess.var()) * (1 / len(ess) + 1 / KNOWN_REPEATS)
    rounding = _ROUNDING[1 + (known > 20)] / math.sqrt(3)
    return abs(float(ess.mean()) - known) / math.sqrt(variance + rounding**2)


def _measured(found: Laboratory, proposal: str, draws: int) -> tuple[float, float, float]:
    """Bias, spread and mean ESS."""
    place, sampling = DRAWS.index(draws), found.sampling[proposal]
    spread, ess = sampling.estimate[place].std(), sampling.ess[place].mean()
    return _bias(found, proposal, draws), float(spread), float(ess)


def _estimators(found: Laboratory) -> Columns:
    columns: Columns = {
        name: [] for name in ("proposal", "draws", "bias", "spread", "predicted_error", "ess")
    }
    columns |= {"ess_share": [], "plug_in": [], "refused": []}
    for name, sampling in found.sampling.items():
        columns["proposal"] += [name] * len(DRAWS)
        for column, values in _by_draws(found.exact, sampling).items():
            columns[column] += values.tolist()
    return columns


def _by_draws(exact: float, sampling: Sampling) -> dict[str, torch.Tensor]:
    draws, ess = torch.tensor(DRAWS), sampling.ess.mean(dim=1)
    return {
        "draws": draws,
        "bias": sampling.estimate.mean(dim=1) - exact,
        "spread": sampling.estimate.std(dim=1),
        "predicted_error": sampling.error,
        "ess": ess,
        "ess_share": ess / draws,
        "plug_in": sampling.plug_in.mean(dim=1) - exact,
        "refused": sampling.refused,
    }


def _known(found: Laboratory) -> Columns:
    """Bias, spread and ESS beside their known values."""
    measured = [_measured(found, *key) for key in KNOWN]
    columns: Columns = {
        "proposal": [proposal for proposal, _ in KNOWN],
        "draws": [draws for _, draws in KNOWN],
    }
    for place, name in enumerate(("bias", "spread", "ess")):
        columns[name] = [each[place] for each in measured]
        columns[f"known_{name}"] = [each[place] for each in KNOWN.values()]
    return columns


def _candidates(found: Laboratory) -> Columns:
    size = found.candidate_size
    return {
        "draws": torch.tensor(DRAWS),
        "size": size.mean(dim=1),
        "entropy": found.candidates.mean(dim=1),
        "spread": found.candidates.std(dim=1),
        "efficiency": (found.candidates / size.log()).nanmean(dim=1),
        "largest": size.log().mean(dim=1),
        "with_copies": found.copies.mean(dim=1),
        "exact": [found.exact] * len(DRAWS),
    }


def _lengths(by_length: ByLength) -> Columns:
    """Entropies a token, nats."""
    t = by_length.lengths
    return {
        "length": t,
        "exact": by_length.exact / t,
        "tokens_of_policy": by_length.tokens_of_policy / t,
        "tokens_of_reference": by_length.tokens_of_reference / t,
        "sampled": by_length.sampled / t,
        "largest": [math.log(TOKENS)] * len(t),
        "ess_share": by_length.ess_share,
    }

"""What several metrics ask of their arguments, and how they keep missing scores missing."""

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


def check_positive(value: float, name: str) -> None:
    """Raise ValueError unless the value is positive and finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value}; give a number above 0, for example 0.1.")


def indicator(holds: Shaped[Tensor, "*n"], *scores: Shaped[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """1 where something holds and 0 where not, but NaN where one of the scores is."""
    missing = torch.stack([score.isnan() for score in scores]).any(dim=0)
    return holds.double().masked_fill(missing, math.nan)


def per_token(logp: Shaped[Tensor, "*n"], n_tokens: Shaped[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """A sum over tokens as their mean; NaN for an answer without tokens."""
    return (logp.double() / n_tokens).masked_fill(n_tokens <= 0, math.nan)

"""What an objective sees of a batch of pairs."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PairLogps:
    """Summed log-probabilities of the answers of a batch of pairs, nats; NaN where missing.

    Every tensor has the shape (pairs,). What an objective does not need may be left out; one
    that needs it then raises ValueError with the name of the field.

    Attributes:
        policy_chosen: log pi(y_w|x), summed over the tokens of the answer.
        policy_rejected: log pi(y_l|x).
        reference_chosen: log pi_ref(y_w|x).
        reference_rejected: log pi_ref(y_l|x).
        n_chosen: Number of tokens of the chosen answer.
        n_rejected: Number of tokens of the rejected answer.
        policy_prompt: log pi(x), summed over the prompt's tokens; ORPO's likelihood counts it.
        n_prompt: Number of the prompt's tokens behind `policy_prompt`.
        policy_gold: log pi(y_gold|x) of a third, best answer; TPO.
        n_gold: Number of tokens of the gold answer.
        mismatched: log pi(y'|x) - log pi_ref(y'|x) of an answer y' to another prompt; KTO.
        rejected_weight: Importance of the rejected answer (`bco.density_ratio_weight`); BCO.
    """

    policy_chosen: Tensor
    policy_rejected: Tensor
    reference_chosen: Tensor | None = None
    reference_rejected: Tensor | None = None
    n_chosen: Tensor | None = None
    n_rejected: Tensor | None = None
    policy_prompt: Tensor | None = None
    n_prompt: Tensor | None = None
    policy_gold: Tensor | None = None
    n_gold: Tensor | None = None
    mismatched: Tensor | None = None
    rejected_weight: Tensor | None = None

    def __post_init__(self) -> None:
        shape = self.policy_chosen.shape
        for name, value in self.given().items():
            if value.ndim != 1 or value.shape != shape:
                raise ValueError(
                    f"{name} has shape {tuple(value.shape)} and policy_chosen {tuple(shape)}; "
                    "give one number a pair, shape (pairs,)."
                )

    def __len__(self) -> int:
        return len(self.policy_chosen)

    def given(self) -> dict[str, Tensor]:
        """The fields that are present, by name."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in values if value is not None}

    def require(self, name: str) -> Shaped[Tensor, " pairs"]:
        """A field that must be there.

        Raises:
            ValueError: it was left out.
        """
        value: Tensor | None = getattr(self, name)
        if value is None:
            raise ValueError(
                f"This objective needs {name}, which was not given; supply it or choose an "
                "objective that does without."
            )
        return value

    @property
    def policy_log_ratio(self) -> Float[Tensor, " pairs"]:
        """m = log pi(y_w|x) - log pi(y_l|x)."""
        return self.policy_chosen - self.policy_rejected

    @property
    def reference_log_ratio(self) -> Float[Tensor, " pairs"]:
        """c = log pi_ref(y_l|x) - log pi_ref(y_w|x): positive where the reference is wrong."""
        return self.require("reference_rejected") - self.require("reference_chosen")

    @property
    def chosen_log_ratio(self) -> Float[Tensor, " pairs"]:
        """a = log pi(y_w|x) - log pi_ref(y_w|x)."""
        return self.policy_chosen - self.require("reference_chosen")

    @property
    def rejected_log_ratio(self) -> Float[Tensor, " pairs"]:
        """r = log pi(y_l|x) - log pi_ref(y_l|x)."""
        return self.policy_rejected - self.require("reference_rejected")

    @property
    def margin(self) -> Float[Tensor, " pairs"]:
        """d = a - r = m + c."""
        return self.chosen_log_ratio - self.rejected_log_ratio

    @property
    def margin_per_token(self) -> Float[Tensor, " pairs"]:
        """a / n_w - r / n_l; NaN for an answer without tokens."""
        chosen = per_token(self.chosen_log_ratio, self.require("n_chosen"))
        return chosen - per_token(self.rejected_log_ratio, self.require("n_rejected"))

    @property
    def chosen_per_token(self) -> Float[Tensor, " pairs"]:
        """Mean log-probability of a token of the chosen answer."""
        return per_token(self.policy_chosen, self.require("n_chosen"))

    @property
    def rejected_per_token(self) -> Float[Tensor, " pairs"]:
        """Mean log-probability of a token of the rejected answer."""
        return per_token(self.policy_rejected, self.require("n_rejected"))


def per_token(total: Shaped[Tensor, " n"], n_tokens: Shaped[Tensor, " n"]) -> Float[Tensor, " n"]:
    """A sum over tokens as their mean, in the sum's precision; NaN where there is no token."""
    return (total / n_tokens.to(total.dtype)).masked_fill(n_tokens <= 0, torch.nan)

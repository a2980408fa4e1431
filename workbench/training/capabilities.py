"""What some policies can do besides what a trainer needs of all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor

from workbench.data.pairs import PreferencePair, Text
from workbench.training.policy import TrainablePolicy


@dataclass(frozen=True, eq=False)
class TokenLogps:
    """Log-probabilities of a batch's answers token by token, nats, float64.

    Every tensor has the shape (2, pairs, tokens), chosen answers first; 0 behind an answer's end.

    Attributes:
        policy: log pi of each token, with gradient.
        reference: The same under the reference.
        collision: log sum_v pi(v)^2 at the same places, without gradient; WPO.
        mask: True at tokens of the answer.
    """

    policy: Tensor
    reference: Tensor
    collision: Tensor
    mask: Tensor


@runtime_checkable
class TokenPolicy(Protocol):
    """A policy whose answers are tokens."""

    def token_logps(self, pairs: Sequence[PreferencePair]) -> TokenLogps:
        """Scores of prepared pairs token by token."""
        ...


@runtime_checkable
class PromptPolicy(Protocol):
    """A policy that can say how likely the prompts are."""

    def prompt_logps(self, pairs: Sequence[PreferencePair]) -> tuple[Tensor, Tensor]:
        """log pi(x) of prepared pairs, nats, with gradient, and the number of tokens it sums."""
        ...


@runtime_checkable
class CheckingPolicy(Protocol):
    """A policy whose `prepare` is slow, and which can say beforehand what it would refuse."""

    def check(self, pairs: Sequence[PreferencePair]) -> dict[str, str]:
        """Why a pair cannot be trained on, by its id."""
        ...


@runtime_checkable
class DivergingPolicy(Protocol):
    """A policy that can tell how far it is from its reference."""

    def kl(self, pairs: Sequence[PreferencePair]) -> float:
        """KL(pi || pi_0) in nats: exact, or as the policy's own docstring says."""
        ...


@runtime_checkable
class WritingPolicy(Protocol):
    """A policy that writes texts."""

    def write(
        self,
        prompt: Text,
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
        reference: bool,
        cancelled: Callable[[], bool] | None,
    ) -> str:
        """An answer of the policy, or of its reference; 0 takes the likeliest token each time."""
        ...


@runtime_checkable
class SavedPolicy(Protocol):
    """A policy that can be used elsewhere."""

    def save(self, folder: Path) -> str:
        """Write the weights as they are; returns the name by which they can be loaded."""
        ...


def unusable(policy: TrainablePolicy, pairs: Sequence[PreferencePair]) -> dict[str, str]:
    """Why a pair cannot be trained on, by its id."""
    return policy.check(pairs) if isinstance(policy, CheckingPolicy) else policy.prepare(pairs)

"""What a trainer needs of a policy, be it a language model, a tiny transformer or a table."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from workbench.data.pairs import PreferencePair
from workbench.objectives.logps import PairLogps


class TrainablePolicy(Protocol):
    """A policy with weights to train, and the reference that it started from.

    Attributes:
        name: For a person.
        reads_length: Whether answers have lengths of their own; where not, each counts as one
            token.
    """

    name: str
    reads_length: bool

    def parameters(self) -> list[torch.nn.Parameter]:
        """The weights that are trained, in a fixed order."""
        ...

    def prepare(
        self,
        pairs: Sequence[PreferencePair],
        *,
        on_pair: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> dict[str, str]:
        """Read what is new in `pairs` once, so that `pair_logps` is fast.

        Args:
            pairs: All pairs of the next steps; what was read before is not read again.
            on_pair: Called with (done, total).
            cancelled: Asked before each pair.

        Returns:
            Why a pair cannot be trained on, by its id; such pairs are left out by the trainer.

        Raises:
            Cancelled: asked to stop.
        """
        ...

    def pair_logps(self, pairs: Sequence[PreferencePair]) -> PairLogps:
        """Differentiable scores of the policy, and constant ones of the reference, float64.

        Args:
            pairs: Prepared ones that can be trained on.

        Returns:
            Policy, reference and lengths, every field of shape (pairs,).
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """A copy of the trained weights on the CPU, by name."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave.

        Raises:
            TrainingError: names or shapes that are not this policy's.
        """
        ...

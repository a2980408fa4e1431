"""Direct preference optimisation (Rafailov et al., arXiv 2305.18290, Eq. 7) and DPO^gamma."""

import math

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus


def sigmoid_loss(
    policy_log_ratio: Float[Tensor, " n"],
    reference_log_ratio: Float[Tensor, " n"],
    beta: float,
    gamma: float = 1.0,
) -> Float[Tensor, " n"]:
    """-log sigmoid(beta * (m + gamma * c)), per pair; gamma = 1 is DPO (arXiv 2405.19534, Eq. 4).

    Args:
        policy_log_ratio: m = log pi(y_w|x) - log pi(y_l|x), nats.
        reference_log_ratio: c = log pi_ref(y_l|x) - log pi_ref(y_w|x), nats.
        beta: Inverse temperature, > 0.
        gamma: Weight of the reference; 0 leaves it out.

    The loss keeps the inputs' precision and gradient; a missing score (NaN) gives NaN.

    Raises:
        ValueError: beta is not positive.
    """
    if not 0 < beta < math.inf:
        raise ValueError(f"beta is {beta}; give a number above 0, for example 0.1.")
    return softplus(-beta * (policy_log_ratio + gamma * reference_log_ratio), threshold=50)


def dpo_loss(
    policy_chosen: Float[Tensor, " n"],
    policy_rejected: Float[Tensor, " n"],
    reference_chosen: Float[Tensor, " n"],
    reference_rejected: Float[Tensor, " n"],
    beta: float,
) -> Float[Tensor, " n"]:
    """DPO's loss of each pair from four summed log-probabilities."""
    return sigmoid_loss(
        policy_chosen - policy_rejected, reference_rejected - reference_chosen, beta
    )

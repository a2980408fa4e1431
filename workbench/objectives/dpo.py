"""Direct preference optimisation (Rafailov et al., arXiv 2305.18290) and its nearest relatives."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from workbench.metrics.checks import check_positive
from workbench.objectives.checks import check_label_smoothing
from workbench.objectives.logps import PairLogps


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
    check_positive(beta, "beta")
    return softplus(-beta * (policy_log_ratio + gamma * reference_log_ratio), threshold=50)


def dpo_loss(
    policy_chosen: Float[Tensor, " n"],
    policy_rejected: Float[Tensor, " n"],
    reference_chosen: Float[Tensor, " n"],
    reference_rejected: Float[Tensor, " n"],
    beta: float,
) -> Float[Tensor, " n"]:
    """DPO's loss (Eq. 7) of each pair from four summed log-probabilities."""
    return sigmoid_loss(
        policy_chosen - policy_rejected, reference_rejected - reference_chosen, beta
    )


def dpo_gamma_loss(logps: PairLogps, beta: float, gamma: float = 1.0) -> Float[Tensor, " pairs"]:
    """DPO^gamma: -log sigmoid(beta (m + gamma c)), Chen et al. (arXiv 2405.19534, Eq. 4).

    gamma = 1 is DPO, gamma = 0 the preference part of CPO.
    """
    return sigmoid_loss(logps.policy_log_ratio, logps.reference_log_ratio, beta, gamma)


def smoothed_sigmoid_loss(
    logit: Float[Tensor, " n"], label_smoothing: float
) -> Float[Tensor, " n"]:
    """-(1 - eps) log sigmoid(z) - eps log sigmoid(-z): labels are wrong with probability eps.

    Raises:
        ValueError: eps is outside [0, 0.5).
    """
    check_label_smoothing(label_smoothing)
    return -(1 - label_smoothing) * logsigmoid(logit) - label_smoothing * logsigmoid(-logit)


def conservative_dpo_loss(
    logps: PairLogps, beta: float, label_smoothing: float
) -> Float[Tensor, " pairs"]:
    """cDPO: smoothed labels, least at beta d = logit(1 - eps).

    Mitchell (2023), "A note on DPO with noisy preferences and relationship to IPO".
    """
    check_positive(beta, "beta")
    return smoothed_sigmoid_loss(beta * logps.margin, label_smoothing)


def robust_dpo_loss(
    logps: PairLogps, beta: float, label_smoothing: float
) -> Float[Tensor, " pairs"]:
    """[-(1 - eps) log sigmoid(beta d) + eps log sigmoid(-beta d)] / (1 - 2 eps).

    Chowdhury et al. (arXiv 2403.00409): under labels flipped with probability eps its mean is
    DPO's loss under the true labels. Negative at times, and not bounded below.
    """
    check_positive(beta, "beta")
    check_label_smoothing(label_smoothing)
    z, eps = beta * logps.margin, label_smoothing
    return (eps * logsigmoid(-z) - (1 - eps) * logsigmoid(z)) / (1 - 2 * eps)


def length_normalised_dpo_loss(logps: PairLogps, beta: float) -> Float[Tensor, " pairs"]:
    """-log sigmoid(beta (a / n_w - r / n_l)), as Tülu 3 trains (arXiv 2411.15124).

    TRL calls it `sigmoid_norm`. Lengths differ less than sums, so beta is larger than DPO's.
    """
    check_positive(beta, "beta")
    return -logsigmoid(beta * logps.margin_per_token)

"""Implicit rewards of a policy, after Rafailov et al. (arXiv 2305.18290, section 4 and 5.1).

Values are reported in float64, whatever comes in; a missing score (NaN) stays missing.
"""

from jaxtyping import Float, Shaped
from torch import Tensor

from workbench.metrics.checks import check_positive, indicator, per_token


def implicit_reward(
    policy_logp: Shaped[Tensor, " n"], reference_logp: Shaped[Tensor, " n"], beta: float
) -> Float[Tensor, " n"]:
    """beta * (log pi(y|x) - log pi_ref(y|x)), in nats times beta.

    The prompt's constant beta * log Z(x) is left out: it cancels in every margin.

    Args:
        policy_logp: Summed log-probabilities of the answers under the policy, nats.
        reference_logp: The same under the reference.
        beta: Inverse temperature, > 0.

    Raises:
        ValueError: beta is not positive and finite.
    """
    check_positive(beta, "beta")
    return beta * (policy_logp.double() - reference_logp.double())


def length_normalised_implicit_reward(
    policy_logp: Shaped[Tensor, " n"],
    reference_logp: Shaped[Tensor, " n"],
    n_tokens: Shaped[Tensor, " n"],
    beta: float,
) -> Float[Tensor, " n"]:
    """The implicit reward per token of the answer, as in length-normalised DPO (Tulu 3).

    An answer without tokens has no such reward: NaN.
    """
    return per_token(implicit_reward(policy_logp, reference_logp, beta), n_tokens)


def reward_margin(
    chosen_reward: Shaped[Tensor, " n"], rejected_reward: Shaped[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Reward of the chosen answer minus that of the rejected one; the argument of DPO's sigmoid."""
    return chosen_reward.double() - rejected_reward.double()


def reward_accuracy(
    chosen_reward: Shaped[Tensor, " n"], rejected_reward: Shaped[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """1 where the chosen answer has strictly the higher reward, else 0; NaN where one is missing.

    TRL logs its mean as `rewards/accuracies`. It compares with the reference and is therefore
    not the ranking accuracy: with policy = reference it is 0 everywhere.
    """
    return indicator(chosen_reward > rejected_reward, chosen_reward, rejected_reward)

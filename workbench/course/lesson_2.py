"""Lesson 2: implicit rewards and the margin. What the policy says, measured by a reference."""

import math

import numpy as np
import torch
from torch import Tensor

from workbench.course.answers import Answer, Numbers, Wrong, agree, ask, number, numbers, shown, two
from workbench.course.exercise import Exercise, Lesson, Question
from workbench.metrics import ranking, rewards

PAIRS = 6
NAMES = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")


def check_tilted(answer: Answer, draw: np.random.Generator) -> None:
    """2.1: log-probabilities of the policy that is best for a reward, kept near a reference."""
    size, beta = int(draw.integers(3, 8)), float(draw.uniform(0.1, 0.7))
    reference = torch.log_softmax(torch.tensor(draw.normal(0, 1.5, size)), 0)
    reward = torch.tensor(draw.normal(0, 1, size))
    tilted = torch.log_softmax(reference + reward / beta, 0)
    slips = {
        "multiplied the reward by beta": torch.log_softmax(reference + beta * reward, 0),
        "did not normalise: the probabilities must sum to 1": reference + reward / beta,
        "left out the reference": torch.log_softmax(reward / beta, 0),
        "left out beta": torch.log_softmax(reference + reward, 0),
        "returned probabilities and not their logarithms": tilted.exp(),
    }
    given = {"reference_logp": reference, "reward": reward, "beta": beta}
    agree(numbers(ask(answer, *given.values()), (size,)), tilted, given, slips)
    _check_far_rewards(answer, reference)


def check_margin(answer: Answer, draw: np.random.Generator) -> None:
    """2.2: the implicit reward margin of each pair."""
    scores, beta = _scores(draw), float(draw.uniform(0.02, 0.8))
    policy_chosen, policy_rejected, chosen, rejected = scores.values()
    margin = _margin(scores, beta)
    slips = {
        "left out the reference": beta * (policy_chosen - policy_rejected),
        "left out beta": margin / beta,
        "divided by beta": margin / beta**2,
        "took rejected minus chosen": -margin,
        "added the reference's ratio to the policy's": beta
        * (policy_chosen - policy_rejected + chosen - rejected),
        "took the chosen answer's reward alone": beta * (policy_chosen - chosen),
    }
    found = numbers(ask(answer, *scores.values(), beta), (PAIRS,))
    agree(found, margin, scores | {"beta": beta}, slips)


def check_another_reward(answer: Answer, draw: np.random.Generator) -> None:
    """2.3: other rewards for every answer that no preference can tell from the first ones."""
    prompt = torch.tensor(np.repeat(np.arange(3), draw.integers(2, 5, 3)))
    reward = torch.tensor(draw.normal(0, 1, len(prompt)))
    before = reward.numpy()
    after = numbers(ask(answer, reward, prompt), before.shape)
    same = np.isclose(before, after, rtol=0, atol=1e-6)
    if same.any():
        place = int(np.argmax(same))
        raise Wrong(f"answer {place} keeps its reward {before[place]:.6g}; change every one.")
    for first in range(len(prompt)):
        for second in range(first):
            if prompt[first] == prompt[second]:
                _check_unmoved(before, after, (first, second))


def check_accuracies(answer: Answer, draw: np.random.Generator) -> None:
    """2.4: ranking accuracy, and reward accuracy beside it."""
    scores = _scores(draw, whole=True)
    same = scores | {"policy_chosen": scores["reference_chosen"]}
    same |= {"policy_rejected": scores["reference_rejected"]}
    for case in (scores, same, _tied(scores)):
        ranked, rewarded = two(ask(answer, *case.values()), "both accuracies")
        _check_accuracy(ranked, case, "ranking accuracy")
        _check_accuracy(rewarded, case, "reward accuracy")


def check_normalised_margin(answer: Answer, draw: np.random.Generator) -> None:
    """2.5: the margin of rewards a token."""
    scores, beta = _scores(draw), float(draw.uniform(0.5, 5))
    chosen_tokens, rejected_tokens = (
        torch.tensor(draw.integers(2, 60, PAIRS)).double() for _ in range(2)
    )
    policy_chosen, policy_rejected, chosen, rejected = scores.values()
    per_token = _margin_per_token(scores, chosen_tokens, rejected_tokens, beta)
    mixed = policy_chosen / chosen_tokens - policy_rejected / rejected_tokens
    total = chosen_tokens + rejected_tokens
    slips = {
        "did not divide by the lengths": _margin(scores, beta),
        "divided the whole margin by both lengths together": _margin(scores, beta) / total,
        "divided the whole margin by the mean length": 2 * _margin(scores, beta) / total,
        "left out beta": per_token / beta,
        "left out the reference": beta * mixed,
        "normalised the policy alone": beta * (mixed - (chosen - rejected)),
        "exchanged the lengths": _margin_per_token(scores, rejected_tokens, chosen_tokens, beta),
    }
    given = scores | {"n_chosen": chosen_tokens, "n_rejected": rejected_tokens, "beta": beta}
    agree(numbers(ask(answer, *given.values()), (PAIRS,)), per_token, given, slips)


def _scores(draw: np.random.Generator, whole: bool = False) -> dict[str, Tensor]:
    """Sequence log-probabilities of pairs, like those of a model; whole numbers tie at times."""
    found = -np.abs(draw.normal(60, 20, (4, PAIRS)))
    return dict(zip(NAMES, torch.tensor(np.floor(found) if whole else found), strict=True))


def _tied(scores: dict[str, Tensor]) -> dict[str, Tensor]:
    """Some pairs on which the policy is undecided, and some whose two rewards are equal."""
    changed = {name: value.clone() for name, value in scores.items()}
    changed["policy_rejected"][:2] = changed["policy_chosen"][:2]
    shift = changed["policy_chosen"] - changed["reference_chosen"]
    changed["policy_rejected"][4:] = (changed["reference_rejected"] + shift)[4:]
    return changed


def _margin(scores: dict[str, Tensor], beta: float) -> Tensor:
    policy_chosen, policy_rejected, chosen, rejected = scores.values()
    return rewards.reward_margin(
        rewards.implicit_reward(policy_chosen, chosen, beta),
        rewards.implicit_reward(policy_rejected, rejected, beta),
    )


def _margin_per_token(
    scores: dict[str, Tensor], n_chosen: Tensor, n_rejected: Tensor, beta: float
) -> Tensor:
    policy_chosen, policy_rejected, chosen, rejected = scores.values()
    reward = rewards.length_normalised_implicit_reward
    return reward(policy_chosen, chosen, n_chosen, beta) - reward(
        policy_rejected, rejected, n_rejected, beta
    )


def _check_far_rewards(answer: Answer, reference: Tensor) -> None:
    """Rewards of 1,000 times beta; an answer in log space does not mind."""
    reward = torch.linspace(0, 100, len(reference), dtype=torch.float64)
    given = {"reference_logp": reference, "reward": reward, "beta": 0.1}
    expected = torch.log_softmax(reference + reward / 0.1, 0)
    found = numbers(ask(answer, *given.values()), tuple(reference.shape))
    if not np.isfinite(found).all():
        raise Wrong(
            f"for reward = {shown(reward)}, beta = 0.1: found {shown(found)}. exp overflows or "
            "underflows here; stay with logarithms (logsumexp, log_softmax)."
        )
    agree(found, expected, given)


def _check_accuracy(found: Answer, scores: dict[str, Tensor], name: str) -> None:
    policy_chosen, policy_rejected, *_ = scores.values()
    margin = _margin(scores, 1.0)
    rightly = {
        "ranking accuracy": ranking.ranking_accuracy(policy_chosen, policy_rejected).mean(),
        "reward accuracy": (margin > 0).double().mean(),
    }
    ranked, rewarded = policy_chosen - policy_rejected, margin
    other = {
        "ranking accuracy": ("strictly ranked", (ranked > 0), "a tie counts as ranked correctly"),
        "reward accuracy": ("ties as correct", (rewarded >= 0), "a tie counts as wrong here"),
    }
    expected, (_, slip, word) = rightly[name], other[name]
    exchanged = rightly["reward accuracy" if name == "ranking accuracy" else "ranking accuracy"]
    slips = {
        f"judged ties the other way: {word}": slip.double().mean(),
        "exchanged the two: the ranking knows no reference, the reward does": exchanged,
        "returned per cent; a share lies in 0 to 1": 100 * expected,
        "counted pairs; divide by their number": PAIRS * expected,
    }
    agree(number(found, f"the {name}"), expected, scores, slips, name=name, atol=1e-6)


def _check_unmoved(before: Numbers, after: Numbers, pair: tuple[int, int]) -> None:
    first, second = pair
    old, new = before[first] - before[second], after[first] - after[second]
    if not math.isclose(old, new, rel_tol=1e-4, abs_tol=1e-5):
        raise Wrong(
            f"answers {first} and {second} belong to one prompt; their margin was {old:.4g} and is "
            f"{new:.4g} now, so raters would answer differently."
        )


LESSON = Lesson(
    number=2,
    slug="implicit_rewards",
    title="Implicit rewards and the margin",
    minutes=60,
    aims=(
        "read a reward off any policy, given a reference",
        "derive the policy that a reward asks for, and say where the prompt's constant went",
        "tell reward accuracy from ranking accuracy, and say when they disagree",
        "say what dividing by the length changes",
    ),
    exercises=(
        Exercise(
            name="2.1",
            title="The policy that a reward asks for",
            check=check_tilted,
            hints=(
                "Each answer's probability under the reference is multiplied by a factor that "
                "grows with its reward; then all of them must sum to 1 again.",
                "pi(y) is proportional to pi_ref(y) * exp(reward(y) / beta). In logarithms a "
                "product is a sum, and normalising means to subtract a logsumexp.",
                "`torch.log_softmax(reference_logp + reward / beta, dim=0)`.",
            ),
            insight="What was subtracted is log Z. Solved for the reward: beta * log(pi / pi_ref) "
            "+ beta * log Z, which is where the next exercise begins.",
        ),
        Exercise(
            name="2.2",
            title="The reward margin",
            check=check_margin,
            hints=(
                "First the implicit reward of each answer by itself, then their difference.",
                "reward(y) = beta * (log pi(y) - log pi_ref(y)); the margin is reward(chosen) - "
                "reward(rejected).",
                "`beta * ((policy_chosen - reference_chosen) - (policy_rejected - "
                "reference_rejected))`.",
            ),
            insight="In other words beta * (m + c): the policy's log-ratio m, corrected by the "
            "reference's c = reference_rejected - reference_chosen.",
        ),
        Exercise(
            name="2.3",
            title="Another reward, the same preferences",
            check=check_another_reward,
            hints=(
                "Raters compare answers to one prompt only. What could you do to all answers of a "
                "prompt, without changing any difference between them?",
                "Add a constant, which may differ from prompt to prompt, but not be 0.",
                "`reward + 1 + prompt` adds 1 to the first prompt's answers, 2 to the second's...",
            ),
            insight="From preferences a reward is known up to a constant for each prompt; DPO uses "
            "just that freedom to get rid of log Z.",
        ),
        Exercise(
            name="2.4",
            title="Two accuracies",
            check=check_accuracies,
            hints=(
                "One asks which answer the policy finds more probable, the other which answer has "
                "gained more over the reference. Look at the ties in the text above.",
                "Ranking: policy_chosen >= policy_rejected. Reward: policy_chosen - "
                "reference_chosen > policy_rejected - reference_rejected. Then the means.",
                "`(policy_chosen >= policy_rejected).double().mean()` is the first; the second "
                "compares differences from the reference, strictly. beta > 0 changes no sign.",
            ),
            insight="With policy = reference the reward accuracy is 0 and the ranking accuracy is "
            "the reference's: training logs say nothing about rankings.",
        ),
        Exercise(
            name="2.5",
            title="The margin a token",
            check=check_normalised_margin,
            hints=(
                "Each answer has a length of its own, so each reward is divided by its own.",
                "beta * (a / n_chosen - r / n_rejected), where a and r are the log-ratios of "
                "policy to reference of the two answers.",
                "`beta * ((policy_chosen - reference_chosen) / n_chosen - (policy_rejected - "
                "reference_rejected) / n_rejected)`.",
            ),
            insight="It can have another sign than the margin of sums: a long answer that gained a "
            "little on each token beats a short one in sums, and may lose a token.",
        ),
    ),
    quiz=(
        Question(
            text="Right before training, policy and reference are the same model. Its reward "
            "accuracy is",
            options=("50 %", "0 %", "that of the reference's ranking", "100 %"),
            right="b",
            why="All rewards are 0, so every pair is a tie, and a tie does not count. Half would "
            "be a guess; the reference's ranking does not enter at all.",
        ),
        Question(
            text="You double beta and keep both models. What happens to the reward accuracy?",
            options=(
                "It doubles, up to 100 %.",
                "It rises for uncertain pairs.",
                "Nothing.",
            ),
            right="c",
            why="beta > 0 scales every margin and turns none. What it changes is the loss, and so "
            "which pairs training pulls at.",
        ),
        Question(
            text="Of a pair, the policy gives the chosen answer -80 nats and the rejected one -60; "
            "the reference gave -90 and -50. Then",
            options=(
                "the reward favours the chosen answer, the ranking the rejected one",
                "reward and ranking favour the chosen answer",
                "reward and ranking favour the rejected answer",
            ),
            right="a",
            why="The log-ratios are +10 and -10, a margin of 20 beta; but -80 < -60, so the policy "
            "would still rather write the rejected answer.",
        ),
        Question(
            text="Why may log Z(x), a sum over all answers that exist, be left out of DPO?",
            options=(
                "It is 0 for normalised policies.",
                "It is the same for both answers to a prompt and cancels in the margin.",
                "It is small beside the rewards.",
                "It is estimated by the batch mean.",
            ),
            right="b",
            why="It depends on the prompt alone. It is not small: it is what makes the tilted "
            "probabilities sum to 1.",
        ),
        Question(
            text="A policy gained 0.1 nats a token on a chosen answer of 100 tokens and 0.5 nats a "
            "token on a rejected answer of 10 tokens. Which margin is positive?",
            options=("Both.", "Neither.", "That of means a token.", "That of sums."),
            right="d",
            why="Sums: 10 against 5. Means: 0.1 against 0.5. Summed rewards favour length as soon "
            "as each token gains a little.",
        ),
    ),
)

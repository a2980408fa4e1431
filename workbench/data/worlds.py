"""Synthetic worlds: prompts with a few answers each, of which everything is known exactly.

Each prompt has the same number of answers, a true reward for each of them, and a reference policy
over them. Raters follow Bradley and Terry (1952) on the true reward: of two answers the share
sigmoid(r(y) - r(y')) prefers the first. So the optimum of DPO and RLHF, win rates and divergences
are sums over the answers and not estimates. All numbers are float64.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.data.pairs import AttributeValue, PreferencePair, PreferenceSet
from workbench.errors import DataError

WORDS = (
    "calm", "grey", "bright", "narrow", "old", "quiet", "warm", "steep", "green", "empty", "tidy",
    "wide",
)  # fmt: skip
"""Answers are up to three of these, joined by "and"."""
MOST_WORDS = 3
_PLACES = (
    "harbour", "station", "garden", "market", "bridge", "kitchen", "valley", "library", "street",
    "island", "school", "forest", "tower", "square", "river", "museum",
)  # fmt: skip
_SEASONS = ("spring", "summer", "autumn", "winter")
MOST_PROMPTS = len(_PLACES) * len(_SEASONS)
MOST_ANSWERS = sum(math.perm(len(WORDS), n) for n in range(1, MOST_WORDS + 1)) // 4


@dataclass(frozen=True)
class WorldShape:
    """How a world is drawn.

    Attributes:
        prompts: Number of prompts, 1 to 64.
        answers: Answers to each, 2 to 366.
        reward_spread: Standard deviation of the true reward, nats of the raters' log-odds.
        reference_spread: Standard deviation of the reference's logits, nats.
        agreement: Correlation of the reference's logits with the true reward, -1 to 1, before
            `length_cost`.
        length_cost: Nats that the reference takes off an answer's logit for each word.
        attribute_effect: 0 for none; else rewards are spread exp(effect * z) times as wide, where
            z runs from -1 for the youngest asker to 1 for the oldest, so that margins depend on
            age.
    """

    prompts: int = 16
    answers: int = 10
    reward_spread: float = 1.5
    reference_spread: float = 3.0
    agreement: float = 0.1
    length_cost: float = 0.5
    attribute_effect: float = 0.0

    def __post_init__(self) -> None:
        _check_range("prompts", self.prompts, 1, MOST_PROMPTS)
        _check_range("answers", self.answers, 2, MOST_ANSWERS)
        _check_range("agreement", self.agreement, -1, 1)
        for name in ("reward_spread", "reference_spread", "length_cost"):
            _check_range(name, getattr(self, name), 0, 1e3)
        _check_range("attribute_effect", self.attribute_effect, -5, 5)


@dataclass(frozen=True, eq=False)
class World:
    """Prompts and answers, and what is true of them.

    Attributes:
        prompts: The prompts, all distinct.
        answers: The answers to each, as many for each prompt and distinct within it.
        reward: True reward r(x, y), shape (prompts, answers).
        reference_logp: log pi_ref(y|x), shape (prompts, answers); each row sums to 1 in
            probability.
        attributes: Of the person who asks, by prompt: age (continuous), gender and region.
    """

    prompts: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...]
    reward: Float[Tensor, "p a"]
    reference_logp: Float[Tensor, "p a"]
    attributes: tuple[Mapping[str, AttributeValue], ...] = ()

    def __post_init__(self) -> None:
        shape = (len(self.prompts), len(self.answers[0]))
        if self.reward.shape != shape or self.reference_logp.shape != shape:
            raise DataError(
                f"The world has {shape[0]} prompts of {shape[1]} answers, but rewards of shape "
                f"{tuple(self.reward.shape)} and a reference of {tuple(self.reference_logp.shape)}."
            )

    @property
    def size(self) -> int:
        """Answers to each prompt."""
        return len(self.answers[0])

    def rater_share(self) -> Float[Tensor, "p a a"]:
        """Share of raters who prefer answer i to answer j: sigmoid(r_i - r_j)."""
        return torch.sigmoid(self.reward[:, :, None] - self.reward[:, None, :])

    def optimum(self, beta: float) -> Float[Tensor, "p a"]:
        """log pi* of perfect DPO or RLHF: pi_ref exp(r / beta), normalised.

        Under Bradley-Terry its ratio of two answers is pi_ref's times
        (alpha / (1 - alpha))^(1 / beta) (Chen et al., arXiv 2405.19534, Theorem 3.1).

        Raises:
            ValueError: beta is not positive and finite.
        """
        if not 0 < beta < math.inf:
            raise ValueError(f"beta is {beta}; give a number above 0, for example 0.1.")
        return torch.log_softmax(self.reference_logp + self.reward / beta, dim=-1)


def draw_world(shape: WorldShape | None = None, seed: int = 0) -> World:
    """Draw a world; equal shapes and seeds give equal worlds.

    A word is worth the same to every prompt, so that a policy which reads words can generalise;
    half of the reward's variance is the prompt's own.
    """
    shape = shape or WorldShape()
    draws = torch.Generator().manual_seed(seed)
    prompts = [f"Describe the {place} in {season}." for season in _SEASONS for place in _PLACES]
    chosen = torch.randperm(MOST_PROMPTS, generator=draws)[: shape.prompts].tolist()
    words = [_answers(shape.answers, draws) for _ in chosen]
    attributes = tuple(_asker(draws) for _ in chosen)
    quality = _standardised(_word_values(words, draws)) + _normal(words, draws)
    quality = _standardised(quality)
    own = shape.agreement * quality
    own = own + math.sqrt(1 - shape.agreement**2) * _standardised(_normal(words, draws))
    length = torch.tensor([[float(len(each)) for each in row] for row in words]).double()
    logits = shape.reference_spread * own - shape.length_cost * length
    width = torch.exp(shape.attribute_effect * torch.tensor([_age_scale(a) for a in attributes]))
    return World(
        prompts=tuple(prompts[n] for n in chosen),
        answers=tuple(tuple(" and ".join(each) for each in row) for row in words),
        reward=shape.reward_spread * width.double()[:, None] * quality,
        reference_logp=torch.log_softmax(logits, dim=-1),
        attributes=attributes,
    )


def draw_pairs(
    world: World,
    count: int,
    seed: int = 0,
    *,
    raters: int = 0,
    by_reference: bool = False,
    attributes: bool = False,
    name: str = "world",
) -> PreferenceSet:
    """Draw distinct pairs of distinct answers, and let raters judge them.

    Args:
        world: Where they come from.
        count: How many; at most all pairs of the world.
        seed: Of the draws.
        raters: How many judge each pair; their majority chooses, a tie falls to the better
            answer, and the pair carries the votes. 0 stands for infinitely many: the better
            answer is chosen and the pair carries the exact share alpha >= 1/2.
        by_reference: Whether a pair is as likely as both its answers are under the reference;
            else all pairs are equally likely.
        attributes: Whether pairs carry the asker's attributes.
        name: The set's name.

    Raises:
        DataError: more pairs than there are, or a negative number.
    """
    rows, columns = torch.triu_indices(world.size, world.size, offset=1)
    total = len(world.prompts) * len(rows)
    if not 0 <= count <= total or raters < 0:
        raise DataError(
            f"{count} pairs by {raters} raters cannot be drawn; the world has {total} pairs."
        )
    draws = torch.Generator().manual_seed(seed)
    weight = torch.ones(len(world.prompts), len(rows), dtype=torch.float64)
    if by_reference:
        weight = (world.reference_logp[:, rows] + world.reference_logp[:, columns]).exp()
    found = torch.multinomial(weight.flatten(), count, generator=draws) if count else weight[:0]
    pairs = []
    for number, place in enumerate(found.long().flatten().tolist()):
        prompt, which = divmod(place, len(rows))
        answers = (int(rows[which]), int(columns[which]))
        pairs.append(_judged(world, f"{name}-{number}", prompt, answers, raters, draws, attributes))
    return PreferenceSet(name, pairs)


def _judged(
    world: World,
    pair_id: str,
    prompt: int,
    answers: tuple[int, int],
    raters: int,
    draws: torch.Generator,
    attributes: bool,
) -> PreferencePair:
    better, worse = sorted(answers, key=lambda a: -float(world.reward[prompt, a]))
    share = float(torch.sigmoid(world.reward[prompt, better] - world.reward[prompt, worse]))
    evidence: dict[str, int | float] = {"alpha": share}
    if raters:
        votes = torch.rand(raters, generator=draws, dtype=torch.float64) < share
        ahead = int(votes.sum())
        if 2 * ahead < raters:
            better, worse, ahead = worse, better, raters - ahead
        evidence = {"votes_chosen": ahead, "votes_rejected": raters - ahead}
    return PreferencePair(
        pair_id=pair_id,
        prompt=world.prompts[prompt],
        chosen=world.answers[prompt][better],
        rejected=world.answers[prompt][worse],
        chosen_score=float(world.reward[prompt, better]),
        rejected_score=float(world.reward[prompt, worse]),
        attributes=world.attributes[prompt] if attributes and world.attributes else {},
        **evidence,  # type: ignore[arg-type]
    )


def _answers(count: int, draws: torch.Generator) -> list[tuple[str, ...]]:
    """Distinct answers of one to three distinct words; every length is equally likely."""
    found: dict[tuple[str, ...], None] = {}
    while len(found) < count:
        length = int(torch.randint(1, MOST_WORDS + 1, (1,), generator=draws))
        order = torch.randperm(len(WORDS), generator=draws)[:length].tolist()
        found[tuple(WORDS[place] for place in order)] = None
    return list(found)


def _asker(draws: torch.Generator) -> dict[str, AttributeValue]:
    age = 18 + 62 * float(torch.rand(1, generator=draws, dtype=torch.float64))
    gender, region = torch.randint(0, 6, (2,), generator=draws).tolist()
    return {
        "age": round(age, 1),
        "gender": ("woman", "man")[gender % 2],
        "region": ("north", "south", "west")[region % 3],
    }


def _age_scale(attributes: Mapping[str, AttributeValue]) -> float:
    return (float(attributes["age"] or 49.0) - 49) / 31


def _word_values(words: list[list[tuple[str, ...]]], draws: torch.Generator) -> Tensor:
    """Mean value of each answer's words, shape (prompts, answers)."""
    worth = torch.randn(len(WORDS), generator=draws, dtype=torch.float64).tolist()
    value = dict(zip(WORDS, worth, strict=True))
    rows = [[sum(value[word] for word in each) / len(each) for each in row] for row in words]
    return torch.tensor(rows, dtype=torch.float64)


def _normal(words: list[list[tuple[str, ...]]], draws: torch.Generator) -> Tensor:
    return torch.randn(len(words), len(words[0]), generator=draws, dtype=torch.float64)


def _standardised(values: Tensor) -> Tensor:
    return (values - values.mean()) / values.std(unbiased=False).clamp(min=1e-12)


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise DataError(f"{name} is {value}; give a number from {low:g} to {high:g}.")

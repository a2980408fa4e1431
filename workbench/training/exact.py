"""Policies whose answers can be counted: a softmax over each prompt's answers, and exact measures.

Nothing here is sampled: expectations are sums over a world's answers. The measures take
log-densities of shape (prompts, answers) and so serve every policy that can score all of them. A
row may hold less than all probability, as that of a language model does, which may write something
else: what is missing is an answer outside the world, which is worth less than any inside.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.data.pairs import PreferencePair, Text
from workbench.data.worlds import World
from workbench.errors import TrainingError, stop_if
from workbench.metrics.checks import check_positive
from workbench.metrics.ranking import idealized_ranking_accuracy, ranking_accuracy
from workbench.objectives.logps import PairLogps

SPARE_ANSWERS, SPARE_PROMPTS = 8, 16
"""Places kept free for answers and prompts that a person writes while the policy is in use."""


class SoftmaxPolicy:
    """One logit for each answer to each prompt: the policy that can become any other.

    What is trained is the difference from the reference's logits, so that weight decay pulls
    towards the reference and a new answer begins where the reference puts it.

    An answer that is not among its prompt's answers joins them where a free place is left, as
    likely as the least likely of them; answers to a new prompt are equally likely. The others then
    share what is left in their old proportions, so no log-ratio of theirs changes. A world's exact
    measures are of the world's own answers alone, whatever joined them.

    Args:
        prompts: Distinct prompts.
        answers: Distinct answers to each.
        reference_logits: One row a prompt, one logit an answer.
        name: For a person.
    """

    reads_length = False

    def __init__(
        self,
        prompts: Sequence[Text],
        answers: Sequence[Sequence[Text]],
        reference_logits: Sequence[Sequence[float]],
        name: str = "softmax over the answers",
    ) -> None:
        self.name = name
        self._rows: dict[Text, int] = {}
        self._columns: list[dict[Text, int]] = []
        shape = (len(prompts) + SPARE_PROMPTS, max(map(len, answers), default=0) + SPARE_ANSWERS)
        self._reference = torch.full(shape, -torch.inf, dtype=torch.float64)
        self._shift = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
        for prompt, own, logits in zip(prompts, answers, reference_logits, strict=True):
            row = self._rows[prompt] = len(self._rows)
            self._columns.append({answer: place for place, answer in enumerate(own)})
            self._reference[row, : len(own)] = torch.tensor(list(logits), dtype=torch.float64)

    @classmethod
    def of_world(cls, world: World) -> Self:
        """The policy over a world's answers; its reference is the world's."""
        return cls(world.prompts, world.answers, world.reference_logp.tolist())

    @classmethod
    def of_pairs(cls, pairs: Sequence[PreferencePair]) -> Self:
        """The policy over the answers that occur in pairs, under the reference equally likely."""
        answers: dict[Text, dict[Text, None]] = {}
        for pair in pairs:
            answers.setdefault(pair.prompt, {}).update({pair.chosen: None, pair.rejected: None})
        logits = [[0.0] * len(own) for own in answers.values()]
        return cls(list(answers), [list(own) for own in answers.values()], logits)

    def parameters(self) -> list[torch.nn.Parameter]:
        """The table of differences, free places included."""
        return [self._shift]

    def prepare(
        self,
        pairs: Sequence[PreferencePair],
        *,
        on_pair: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> dict[str, str]:
        """Let the answers join that are new; see `TrainablePolicy.prepare`."""
        left_out = {}
        for done, pair in enumerate(pairs, start=1):
            stop_if(cancelled, "reading the pairs")
            try:
                self._places(pair)
            except TrainingError as error:
                left_out[pair.pair_id] = str(error)
            if on_pair is not None:
                on_pair(done, len(pairs))
        return left_out

    def pair_logps(self, pairs: Sequence[PreferencePair]) -> PairLogps:
        """Scores of pairs; an answer counts as one token."""
        places = torch.tensor([self._places(pair) for pair in pairs]).view(-1, 3)
        width = self._shift.shape[1]
        chosen, rejected = (places[:, 0] * width + places[:, side] for side in (1, 2))
        # Unlike indexing, index_select adds up its gradient in a fixed order.
        policy, reference = self._logp(self._shift).flatten(), self._logp().flatten()
        ones = torch.ones(len(pairs), dtype=torch.float64)
        return PairLogps(
            policy_chosen=policy.index_select(0, chosen),
            policy_rejected=policy.index_select(0, rejected),
            reference_chosen=reference.index_select(0, chosen),
            reference_rejected=reference.index_select(0, rejected),
            n_chosen=ones,
            n_rejected=ones,
        )

    def state(self) -> dict[str, Tensor]:
        """A copy of the table of differences."""
        return {"shift": self._shift.detach().clone()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave.

        Raises:
            TrainingError: it is of another policy.
        """
        found = state.get("shift")
        if set(state) != {"shift"} or found is None or found.shape != self._shift.shape:
            shape = None if found is None else tuple(found.shape)
            raise TrainingError(
                f"The weights {sorted(state)} of shape {shape} are not those of a table of shape "
                f"{tuple(self._shift.shape)}; choose a snapshot of this run."
            )
        with torch.no_grad():
            self._shift.copy_(found)

    def kl(self, pairs: Sequence[PreferencePair]) -> float:
        """KL(pi || pi_ref) in nats, exact, averaged over the prompts of these pairs."""
        rows = sorted({self._places(pair)[0] for pair in pairs})
        with torch.no_grad():
            policy, reference = self._logp(self._shift)[rows], self._logp()[rows]
        return float(kl_divergence(policy, reference).mean())

    def write(
        self,
        prompt: Text,
        *,
        max_new_tokens: int = 1,
        temperature: float = 1.0,
        seed: int = 0,
        reference: bool = False,
        cancelled: Callable[[], bool] | None = None,
    ) -> str:
        """One of the prompt's answers; 0 takes the likeliest, a higher temperature draws.

        Raises:
            TrainingError: a prompt that the policy has no answers to.
        """
        if prompt not in self._rows:
            raise TrainingError(f"The policy knows no answer to {str(prompt)[:60]!r}.")
        row = self._rows[prompt]
        logp = self._logp(None if reference else self._shift.detach())[row]
        place = int(logp.argmax())
        if temperature > 0:
            draws = torch.Generator().manual_seed(seed)
            place = int(torch.multinomial(torch.softmax(logp / temperature, 0), 1, generator=draws))
        return str(list(self._columns[row])[place])

    def world_logps(self, world: World) -> Float[Tensor, "p a"]:
        """log pi over the answers of the world it was made of, without those that joined."""
        table = self._reference + self._shift.detach()
        return torch.log_softmax(table[: len(world.prompts), : world.size], dim=-1)

    def _logp(self, shift: Tensor | None = None) -> Tensor:
        """log pi of every answer, under the reference where no shift is given."""
        used = self._reference[: len(self._rows)]
        logits = used if shift is None else used + shift[: len(used)]
        return torch.log_softmax(logits, dim=-1)

    def _places(self, pair: PreferencePair) -> tuple[int, int, int]:
        """Row and two columns of a pair, whose texts join if they are new."""
        row = self._rows.get(pair.prompt)
        if row is None:
            row = self._join_prompt(pair.prompt)
        return row, self._column(row, pair.chosen), self._column(row, pair.rejected)

    def _join_prompt(self, prompt: Text) -> int:
        if len(self._rows) == len(self._reference):
            raise TrainingError(
                f"The table has room for {SPARE_PROMPTS} new prompts, which are taken; start anew."
            )
        self._columns.append({})
        self._rows[prompt] = len(self._rows)
        return self._rows[prompt]

    def _column(self, row: int, answer: Text) -> int:
        own = self._columns[row]
        place = own.get(answer)
        if place is not None:
            return place
        if len(own) == self._reference.shape[1]:
            raise TrainingError(
                "No place is left for another answer to this prompt; start training anew."
            )
        least = self._reference[row, : len(own)].min() if own else torch.zeros(())
        self._reference[row, len(own)] = least
        own[answer] = len(own)
        return own[answer]


# Exact measures -----------------------------------------------------------------------


def expectation(logp: Float[Tensor, "*b a"], values: Float[Tensor, "*b a"]) -> Float[Tensor, "*b"]:
    """Mean of a value under each row's policy, what it writes outside the world left out."""
    weight = torch.softmax(logp, dim=-1)
    return torch.where(weight > 0, weight * values, 0.0).sum(dim=-1)


def kl_divergence(
    logp: Float[Tensor, "*b a"], reference_logp: Float[Tensor, "*b a"]
) -> Float[Tensor, "*b"]:
    """KL(pi || pi_ref) of each row, nats; an impossible answer adds nothing."""
    terms = logp.exp() * (logp - reference_logp)
    return torch.where(logp == -torch.inf, 0.0, terms).sum(dim=-1)


def win_rate(
    logp: Float[Tensor, "*b a"],
    opponent_logp: Float[Tensor, "*b a"],
    reward: Float[Tensor, "*b a"],
) -> Float[Tensor, "*b"]:
    """P(r(y) > r(y')) + P(r(y) = r(y')) / 2 for y from the policy and y' from its opponent.

    An answer outside the world loses against any inside, and ties with another outside.

    Args:
        logp: log pi of each answer; a row may sum to less than 1.
        opponent_logp: The same of the opponent.
        reward: True reward of each answer.
    """
    policy, opponent = logp.exp(), opponent_logp.exp()
    ahead = torch.sign(reward[..., :, None] - reward[..., None, :])
    inside = (policy[..., :, None] * opponent[..., None, :] * (1 + ahead) / 2).sum(dim=(-2, -1))
    out, opponent_out = outside_mass(logp), outside_mass(opponent_logp)
    return inside + policy.sum(dim=-1) * opponent_out + out * opponent_out / 2


def outside_mass(logp: Float[Tensor, "*b a"]) -> Float[Tensor, "*b"]:
    """Probability that each row leaves for answers outside the world."""
    return (1 - logp.exp().sum(dim=-1)).clamp(min=0.0)


def expected_ranking_accuracy(
    logp: Float[Tensor, "p a"], reward: Float[Tensor, "p a"]
) -> Float[Tensor, ""]:
    """Ranking accuracy over all pairs of answers of different reward, each pair counted once."""
    rows, better, worse = _ordered_pairs(reward)
    return ranking_accuracy(logp[rows, better], logp[rows, worse]).mean()


def exact_idealized_accuracy(world: World, beta: float) -> Float[Tensor, ""]:
    """R*(beta) over all pairs of the world's answers (Corollary 3.3), from the exact shares.

    Raises:
        ValueError: beta is not positive and finite.
    """
    check_positive(beta, "beta")
    rows, better, worse = _ordered_pairs(world.reward)
    c = world.reference_logp[rows, worse] - world.reference_logp[rows, better]
    alpha = torch.sigmoid(world.reward[rows, better] - world.reward[rows, worse])
    return idealized_ranking_accuracy(c, alpha, beta).mean()


def fit_population(
    world: World, beta: float, share: Float[Tensor, "p a a"] | None = None
) -> Tensor:
    """log pi that minimises DPO's expected loss over all pairs of answers, by L-BFGS.

    The loss of a pair is the raters' mean, alpha softplus(-h) + (1 - alpha) softplus(h) with
    h = beta (m + c), so that by Theorem 3.1 of Chen et al. (arXiv 2405.19534) the minimiser is
    `World.optimum`. It is convex, and exact to about 1e-7 nats.

    Args:
        world: Answers, reference, and true reward.
        beta: Inverse temperature, > 0.
        share: Share of raters for i against j; the world's own if None.

    Returns:
        log-densities, shape (prompts, answers).

    Raises:
        ValueError: beta is not positive and finite.
    """
    check_positive(beta, "beta")
    alpha = world.rater_share() if share is None else share
    shift = torch.zeros_like(world.reference_logp, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [shift],
        max_iter=500,
        tolerance_grad=1e-13,
        tolerance_change=0.0,
        history_size=50,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        h = shift[:, :, None] - shift[:, None, :]
        loss = (alpha * torch.nn.functional.softplus(-h, threshold=50)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return torch.log_softmax(world.reference_logp + shift.detach() / beta, dim=-1)


def _ordered_pairs(reward: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Prompt, better and worse answer of every pair of different reward."""
    rows, better, worse = (reward[:, :, None] > reward[:, None, :]).nonzero().unbind(dim=1)
    return rows, better, worse

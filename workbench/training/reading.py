"""What an objective sees of a batch: the policy's scores, changed as a plan's modifiers ask."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workbench.data.pairs import PreferencePair, Text
from workbench.errors import TrainingError
from workbench.objectives.f_divergence import with_divergence
from workbench.objectives.ld_dpo import length_desensitised_logps
from workbench.objectives.logps import PairLogps
from workbench.objectives.wpo import wpo_answer_weight, wpo_pair_weight
from workbench.training.capabilities import PromptPolicy, TokenPolicy, unusable
from workbench.training.plan import TrainingPlan
from workbench.training.policy import TrainablePolicy

GOLD = "gold"
"""Name in a pair's metadata of its third, best answer, which TPO reads."""


@dataclass(frozen=True, eq=False)
class Reading:
    """A batch under a plan, all with the policy's gradient.

    Attributes:
        start: Plain sums, against the weights that training began with.
        now: Plain sums, against the reference as it is now.
        seen: What the objective is called with.
        weight: What a pair's loss is multiplied by, shape (pairs,); None for 1.
    """

    start: PairLogps
    now: PairLogps
    seen: PairLogps
    weight: Tensor | None = None


class Reader:
    """Reads batches under a plan, and keeps the scores of a reference that moved.

    Args:
        policy: Whose weights are in place.
        plan: Whose modifiers apply.
        reference: Weights of the reference where it has moved; empty where it has not.
    """

    def __init__(
        self, policy: TrainablePolicy, plan: TrainingPlan, reference: Mapping[str, Tensor]
    ) -> None:
        self._policy = policy
        self._plan = plan
        self._reference = reference
        self._moved: dict[bytes, Tensor] = {}
        self._others: dict[str, PreferencePair] = {}

    def follow(self, pairs: Sequence[PreferencePair]) -> None:
        """Take `pairs` for the ones whose answers may stand under another's prompt.

        Raises:
            TrainingError: the plan's objective needs what the pairs or the policy do not have.
        """
        others = _partners(pairs) if "mismatched" in self._plan.entry.needs else {}
        self._check(pairs, others)
        self._others = others

    def read(self, batch: Sequence[PreferencePair]) -> Reading:
        """Score prepared pairs.

        Raises:
            TrainingError: the objective needs something that the pairs do not have.
        """
        # First, because it puts other weights in place, which would spoil a gradient in the making.
        moved = [self._under_reference(pair) for pair in batch] if self._reference else []
        start, seen, weight = self._scores(batch)
        now = start
        if moved:
            columns = torch.stack(moved).to(start.policy_chosen).T
            now = replace(start, reference_chosen=columns[0], reference_rejected=columns[1])
            seen = replace(seen, reference_chosen=columns[2], reference_rejected=columns[3])
        if self._plan.divergence != "reverse_kl":
            seen = with_divergence(seen, self._plan.divergence, self._plan.divergence_alpha)
        return Reading(start, now, self._with_extras(seen, batch), weight)

    def _scores(
        self, batch: Sequence[PreferencePair]
    ) -> tuple[PairLogps, PairLogps, Tensor | None]:
        """Plain sums, sums as LD-DPO has them, and WPO's weights."""
        policy, plan = self._policy, self._plan
        if not plan.reads_tokens or not isinstance(policy, TokenPolicy):
            plain = policy.pair_logps(batch)
            return plain, plain, None
        tokens = policy.token_logps(batch)
        mask, counts = tokens.mask, tokens.mask.sum(dim=2)
        sides = (*tokens.policy.sum(dim=2), *tokens.reference.sum(dim=2))
        plain = PairLogps(*sides, *counts)
        ours, theirs = (
            length_desensitised_logps(logps[0], logps[1], mask[0], mask[1], plan.ld_alpha)
            for logps in (tokens.policy, tokens.reference)
        )
        weight = None
        if plan.wpo:
            chosen, rejected = (
                wpo_answer_weight(tokens.policy[side], tokens.collision[side], mask[side])
                for side in (0, 1)
            )
            weight = wpo_pair_weight(chosen, rejected)
        return plain, PairLogps(*ours, *theirs, *counts), weight

    def _under_reference(self, pair: PreferencePair) -> Tensor:
        """Plain and seen sums under the moved reference, shape (4,); each pair by itself.

        In a batch the padding, and so the last bits, would depend on what was asked before.
        """
        if pair.digest not in self._moved:
            with weights_of(self._policy, self._reference), torch.no_grad():
                plain, seen, _ = self._scores([pair])
            parts = (part for each in (plain, seen) for part in _policy_part(each))
            self._moved[pair.digest] = torch.cat(tuple(parts)).double()
        return self._moved[pair.digest]

    def _with_extras(self, seen: PairLogps, batch: Sequence[PreferencePair]) -> PairLogps:
        needs = self._plan.entry.needs
        if self._plan.objective == "orpo" and isinstance(self._policy, PromptPolicy):
            prompt, sizes = self._policy.prompt_logps(batch)
            seen = replace(seen, policy_prompt=prompt, n_prompt=sizes)
        if "mismatched" in needs:
            drift = self._mismatched(batch).to(seen.policy_chosen)
            seen = replace(seen, mismatched=drift)
        if "policy_gold" in needs:
            scores = self._read_new([_golden(pair) for pair in batch])
            seen = replace(seen, policy_gold=scores.policy_chosen, n_gold=scores.n_chosen)
        return seen

    def _mismatched(self, batch: Sequence[PreferencePair]) -> Tensor:
        """Mean log-ratio of another pair's two answers under each prompt, no gradient."""
        others = [self._others[pair.pair_id] for pair in batch if pair.pair_id in self._others]
        refused = unusable(self._policy, others)
        usable = [pair for pair in others if pair.pair_id not in refused]
        if not usable:
            return torch.zeros(len(batch), dtype=torch.float64)
        with torch.no_grad():
            scores = self._read_new(usable)
        drift = (scores.chosen_log_ratio + scores.rejected_log_ratio) / 2
        # The objective takes the mean alone, so what is missing is filled up with it.
        return drift.mean().expand(len(batch))

    def _read_new(self, pairs: Sequence[PreferencePair]) -> PairLogps:
        self._policy.prepare(pairs)
        return self._policy.pair_logps(pairs)

    def _check(self, pairs: Sequence[PreferencePair], others: Mapping[str, PreferencePair]) -> None:
        plan, policy = self._plan, self._policy
        if plan.reads_tokens and not isinstance(policy, TokenPolicy):
            raise TrainingError(
                f"LD-DPO and WPO look at an answer's single tokens, which {policy.name} does not "
                "have; set ld_alpha to 1 and switch WPO off."
            )
        if "policy_gold" in plan.entry.needs:
            self._check_gold(pairs)
        if "mismatched" in plan.entry.needs:
            self._check_partners(others)

    def _check_gold(self, pairs: Sequence[PreferencePair]) -> None:
        title = self._plan.entry.title
        without = [p.pair_id for p in pairs if not isinstance(p.metadata.get(GOLD), str)]
        if without:
            raise TrainingError(
                f"{title} needs a third, gold answer (policy_gold), which {len(without)} pairs "
                f"lack, first {without[0]!r}; give each one as text in its metadata under "
                f"{GOLD!r}, or choose another objective."
            )
        if refused := unusable(self._policy, [_golden(pair) for pair in pairs]):
            first = next(iter(refused.items()))
            raise TrainingError(f"The gold answer of {first[0]!r} cannot be read: {first[1]}.")

    def _check_partners(self, others: Mapping[str, PreferencePair]) -> None:
        title = self._plan.entry.title
        if not others:
            raise TrainingError(
                f"{title} needs answers to other prompts (mismatched), and all pairs share one "
                "prompt; add pairs, or choose another objective."
            )
        made = list({pair.pair_id: pair for pair in others.values()}.values())
        refused = unusable(self._policy, made)
        if len(refused) == len(made):
            raise TrainingError(
                f"{title} needs answers to other prompts (mismatched), which {self._policy.name} "
                f"cannot score ({next(iter(refused.values()))}); choose another objective."
            )


@contextmanager
def weights_of(policy: TrainablePolicy, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Put other weights in place for a while."""
    own = policy.state()
    policy.load_state(weights)
    try:
        yield
    finally:
        policy.load_state(own)


def _policy_part(logps: PairLogps) -> tuple[Tensor, Tensor]:
    return logps.policy_chosen, logps.policy_rejected


def _partners(pairs: Sequence[PreferencePair]) -> dict[str, PreferencePair]:
    """Each prompt with the answers of the next pair that has another prompt, by the pair's id."""
    found: dict[str, PreferencePair] = {}
    for place, pair in enumerate(pairs):
        following = (pairs[(place + step) % len(pairs)] for step in range(1, len(pairs)))
        other = next((p for p in following if p.prompt != pair.prompt), None)
        if other is not None:
            found[pair.pair_id] = _asked(pair.prompt, other.chosen, other.rejected)
    return found


def _golden(pair: PreferencePair) -> PreferencePair:
    """The gold answer in the place of the chosen one; a policy wants two different answers."""
    gold = str(pair.metadata[GOLD])
    answer: Text = gold
    if not isinstance(pair.rejected, str):
        answer = (pair.rejected[-1].model_copy(update={"content": gold}),)
    return _asked(pair.prompt, answer, pair.chosen if answer == pair.rejected else pair.rejected)


def _asked(prompt: Text, chosen: Text, rejected: Text) -> PreferencePair:
    """A pair of our own making, named by its content."""
    pair = PreferencePair(pair_id="made", prompt=prompt, chosen=chosen, rejected=rejected)
    name = f"made {pair.digest.hex()}"
    return PreferencePair(pair_id=name, prompt=prompt, chosen=chosen, rejected=rejected)

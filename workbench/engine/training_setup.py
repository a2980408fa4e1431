"""What a training run begins with: its policy, and which pairs it never sees."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from workbench.data.pairs import PreferencePair, PreferenceSet, text_to_json
from workbench.defaults import DEFAULT_REFERENCE
from workbench.engine.jobs import Job
from workbench.engine.pool import loaded_model
from workbench.errors import TrainingError
from workbench.training.plan import TrainingPlan
from workbench.training.policy import TrainablePolicy

if TYPE_CHECKING:
    from workbench.engine.session import Session

PolicyKind = Literal["language-model", "exact", "tiny"]
POLICY_KINDS: tuple[PolicyKind, ...] = ("language-model", "exact", "tiny")


@dataclass(frozen=True)
class TrainingSetup:
    """What a run begins with.

    Attributes:
        policy: "language-model"; "exact", a softmax over each prompt's answers; "tiny", a small
            transformer of its own.
        model: Name of the base of a language model, as in the model picker; without an adapter.
        blocks: How many top blocks are trained, the trunk below being read once and kept; 0 for
            all of them, which is slow on a CPU.
        rank: Of the LoRA matrices; 0 trains the blocks' own weights instead.
        max_prompt: Tokens; pairs with longer prompts are left out.
        max_answer: Tokens; longer answers are cut.
        held_out: Share of the prompts that are measured and never trained on; 0 for none.
        plan: Objective, optimiser and the rest; can be changed while training.
    """

    policy: PolicyKind = "language-model"
    model: str = DEFAULT_REFERENCE
    blocks: int = 2
    rank: int = 8
    max_prompt: int = 256
    max_answer: int = 128
    held_out: float = 0.2
    plan: TrainingPlan = field(default_factory=TrainingPlan)


def split(
    pairs: PreferenceSet, share: float, seed: int
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Pairs to train on, and pairs of other prompts to measure, in the set's order.

    A prompt's part depends on itself and the seed alone, so that no edit elsewhere moves it.

    Args:
        pairs: To be split.
        share: Of the prompts that are held out, in expectation.
        seed: Draws them.
    """
    parts: tuple[list[PreferencePair], list[PreferencePair]] = [], []
    for pair in pairs:
        parts[_draw(pair, seed) < share].append(pair)
    return parts


def _draw(pair: PreferencePair, seed: int) -> float:
    content = json.dumps([seed, text_to_json(pair.prompt)]).encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") / 2**64


def make_policy(setup: TrainingSetup, session: "Session", began: int, job: Job) -> TrainablePolicy:
    """The policy of a setup, at its first weights; slow, so only for the worker.

    Args:
        setup: Which one.
        session: Whose models and pairs.
        began: Revision of the pairs when the run began, which a table of answers is made of.
        job: To report to.

    Raises:
        ModelError: the base cannot be loaded, or is no Llama.
        TrainingError: the setup does not fit the base.
    """
    seed = setup.plan.seed
    if setup.policy == "language-model":
        from workbench.training.language_model import LanguageModelPolicy

        return LanguageModelPolicy(
            loaded_model(session.scorer(setup.model, job)),
            blocks=setup.blocks,
            rank=setup.rank,
            seed=seed,
            max_prompt=setup.max_prompt,
            max_answer=setup.max_answer,
        )
    pairs = session.store.at(began)
    if setup.policy == "exact":
        from workbench.training.exact import SoftmaxPolicy

        return SoftmaxPolicy.of_pairs(pairs.pairs)
    from workbench.training.tiny_transformer import TinyTransformerPolicy

    tiny = TinyTransformerPolicy.of_pairs(pairs.pairs, seed=seed)
    train, _ = split(pairs, setup.held_out, seed)
    # Of chosen and rejected answers alike, so that the reference has no preference to begin with.
    tiny.imitate(
        [(pair.prompt, answer) for pair in train for answer in (pair.chosen, pair.rejected)],
        on_step=lambda done, total: job.report(done, total, "teaching it to write"),
        cancelled=job.cancelled,
    )
    return tiny


def check_setup(setup: TrainingSetup) -> None:
    """Refuse a setup that cannot work.

    Raises:
        TrainingError: naming the field and the value.
    """
    if setup.policy not in POLICY_KINDS:
        raise TrainingError(
            f"The policy is {setup.policy!r}; choose one of {', '.join(POLICY_KINDS)}."
        )
    if not 0 <= setup.held_out < 1:
        raise TrainingError(f"held_out is {setup.held_out}; give a share from 0 to below 1.")
    for name, least in (("blocks", 0), ("rank", 0), ("max_prompt", 1), ("max_answer", 1)):
        value = getattr(setup, name)
        if type(value) is not int or value < least:
            raise TrainingError(f"{name} is {value!r}; give a whole number of {least} or more.")


def setup_to_json(setup: TrainingSetup) -> dict[str, Any]:
    """The fields as JSON values."""
    record = {f.name: getattr(setup, f.name) for f in fields(setup)}
    return {**record, "plan": setup.plan.to_json()}


def setup_from_json(record: Mapping[str, Any]) -> TrainingSetup:
    """Read back `setup_to_json`.

    Raises:
        TrainingError: a field that does not fit.
        KeyError: no plan.
        TypeError: an unknown field.
    """
    setup = TrainingSetup(**{**record, "plan": TrainingPlan.from_json(record["plan"])})
    check_setup(setup)
    return setup

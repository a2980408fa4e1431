"""Slow questions about one pair or one set, answered by the worker and remembered.

Each function returns the answer if it is known, the exception if it failed, and None while the
worker is at it; asking again is free.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.engine.jobs import Job
from workbench.engine.pool import loaded_model
from workbench.engine.session import Session

if TYPE_CHECKING:
    from workbench.data.pairs import PreferencePair
    from workbench.engine.fairness import FairnessTable
    from workbench.engine.settings import Settings
    from workbench.metrics.dependence import PermutationTest
    from workbench.scoring.attribution import MarginAttribution, Method

TOP_K = 1000


@dataclass(frozen=True)
class TokenDidPair:
    """log V - H(q_t) at each token of both answers, nats.

    Attributes:
        chosen: One value a token of the chosen answer.
        rejected: One value a token of the rejected answer.
        vocabulary: V of the model.
        top_k: Tokens of either model that were considered at each position.
        coverage: Mean probability inside them.
    """

    chosen: tuple[float, ...]
    rejected: tuple[float, ...]
    vocabulary: int
    top_k: int
    coverage: float


def token_did(session: Session, row: int) -> TokenDidPair | Exception | None:
    """DID by token of the pair at `row`."""
    pair = session.snapshot().pairs.pairs[row]
    key = (session.models["policy"], session.models["reference"], pair.digest)
    answer: TokenDidPair | Exception | None = session.ask(
        "tokens", key, lambda job: _token_did(session, pair, job)
    )
    return answer


def attribution(
    session: Session, row: int, method: "Method", steps: int
) -> "MarginAttribution | Exception | None":
    """Attribution of the margin of the pair at `row`, at beta = 1 (it is linear in beta)."""
    pair = session.snapshot().pairs.pairs[row]
    models = session.models["policy"], session.models["reference"]
    key = (*models, pair.digest, method, steps)
    answer: MarginAttribution | Exception | None = session.ask(
        "attribution", key, lambda job: _attribution(session, pair, method, steps, job)
    )
    return answer


def permutation(
    session: Session, table: "FairnessTable", settings: "Settings", permutations: int, seed: int
) -> "PermutationTest | Exception | None":
    """Permutation p-value of the joint dependence on the chosen attributes."""
    from workbench.engine.fairness import permutation_test

    key = (session.version, settings.attributes, settings.outcome, settings.equalise,
           settings.length_normalised, permutations, seed)  # fmt: skip
    answer: PermutationTest | Exception | None = session.ask(
        "permutation",
        key,
        lambda job: permutation_test(table, settings, permutations, seed, job.report),
    )
    return answer


def _models(session: Session, job: Job) -> tuple[Any, Any]:
    policy, reference = (
        loaded_model(session.scorer(session.models[role], job)) for role in ("policy", "reference")
    )
    from workbench.scoring.models import check_same_tokenizer

    check_same_tokenizer(policy, reference)
    return policy, reference


def _token_did(session: Session, pair: "PreferencePair", job: Job) -> TokenDidPair:
    from workbench.metrics.information import token_did_entropy
    from workbench.scoring.logprobs import token_logits

    policy, reference = _models(session, job)
    found = []
    for answer in (pair.chosen, pair.rejected):
        job.check()
        ours, theirs = (token_logits(model, pair.prompt, answer) for model in (policy, reference))
        found.append(token_did_entropy(ours, theirs, top_k=TOP_K))
    chosen, rejected = found
    return TokenDidPair(
        tuple(chosen.kl_to_uniform.tolist()),
        tuple(rejected.kl_to_uniform.tolist()),
        ours.shape[-1],
        TOP_K,
        float(chosen.coverage.mean()),
    )


def _attribution(
    session: Session, pair: "PreferencePair", method: "Method", steps: int, job: Job
) -> "MarginAttribution":
    from workbench.scoring.attribution import attribute_margin

    policy, reference = _models(session, job)
    return attribute_margin(
        policy,
        reference,
        pair.prompt,
        pair.chosen,
        pair.rejected,
        method=method,
        steps=steps,
        on_step=lambda done, total: job.report(done, total, "attributing the margin"),
        cancelled=job.cancelled,
    )

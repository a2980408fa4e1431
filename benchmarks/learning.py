"""What live training learns from real pairs, on prompts that it never saw.

    python benchmarks/learning.py PAIRS.jsonl --seeds 0 1 2

The default model is trained as the Train page trains it (LoRA on the top blocks, trunk kept). A
seed cuts the prompts into two halves; each half is held out once, while a policy that starts anew
learns from the other half (cross-fitting), so that every prompt is measured by a policy that never
saw it. Told are reward accuracy (TRL's: is the margin against the reference above zero; before
training every margin is zero, which counts one half), its rise in standard errors over prompts,
the ranking accuracy beside it, and both apart for pairs whose chosen answer is the longer or the
shorter one, because much of a preference may be length. CPU seconds are those of the process: of
reading trunk and reference of the pairs that are trained on, and of the steps; told is the slower
of a seed's two runs. A seed holds if the rise is above two standard errors and neither run took
more than `--cpu` seconds.
"""

import argparse
import hashlib
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.data.formats import read_pairs
from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.engine.training_setup import split
from workbench.metrics.intervals import standard_error
from workbench.scoring.models import LoadedModel, load_model, parse_model
from workbench.training.history import PairEvaluation, evaluate
from workbench.training.language_model import LanguageModelPolicy
from workbench.training.plan import TrainingPlan
from workbench.training.trainer import Trainer


def main() -> int:
    """Train and measure each seed; 1 where one does not hold."""
    options = _options()
    torch.set_num_threads(options.threads)
    loaded = load_model(parse_model("default"), dtype="float32", device="cpu")
    policy = _policy(loaded, options)
    pairs = _pairs(options, policy)
    rows = []
    for seed in options.seeds:
        rows.append(run(policy, pairs, seed, options))
        print(json.dumps(rows[-1]), flush=True)
    print(_table(rows))
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0 if all(row["holds"] for row in rows) else 1


def run(
    policy: LanguageModelPolicy, pairs: PreferenceSet, seed: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Train twice from a seed's first weights, and measure the half that was held out each time."""
    one, other = split(pairs, 0.5, seed)
    fits = [fit(policy, *halves, seed, options) for halves in ((one, other), (other, one))]
    measures = [measure for fit in fits for measure in fit.held_out]
    accuracy, error = _over_prompts(measures, "reward_correct")
    longer = [measure for measure in measures if measure["length_difference"] > 0]
    shorter = [measure for measure in measures if measure["length_difference"] < 0]
    return {
        "seed": seed,
        "held_out_pairs": len(measures),
        "held_out_prompts": len({measure["prompt"] for measure in measures}),
        "steps": min(len(fit.losses) for fit in fits),
        "cpu_seconds": max(fit.reading + fit.training for fit in fits),
        "of_these_training": max(fit.training for fit in fits),
        "first_loss": statistics.mean(fit.losses[0] for fit in fits),
        "last_loss": statistics.mean(loss for fit in fits for loss in fit.losses[-5:]),
        "reward_accuracy": accuracy,
        "standard_error": error,
        "rise_in_errors": (accuracy - 0.5) / error,
        "mean_margin_nats": _mean(measures, "margin"),
        "accuracy_where_chosen_is_longer": _mean(longer, "reward_correct"),
        "accuracy_where_chosen_is_shorter": _mean(shorter, "reward_correct"),
        "chosen_is_longer": len(longer) / len(measures),
        "ranking_accuracy_before": _mean(measures, "ranked_before"),
        "ranking_accuracy_after": _mean(measures, "ranked_after"),
        "chosen_shift_nats": _mean(measures, "chosen_shift"),
        "rejected_shift_nats": _mean(measures, "rejected_shift"),
        "holds": accuracy - 0.5 > 2 * error
        and all(fit.reading + fit.training <= options.cpu for fit in fits),
    }


@dataclass(frozen=True)
class Fit:
    """One training: CPU seconds, the loss of each step, and what it makes of held-out pairs."""

    reading: float
    training: float
    losses: list[float]
    held_out: list[dict[str, Any]]


def fit(
    policy: LanguageModelPolicy,
    train: list[PreferencePair],
    held: list[PreferencePair],
    seed: int,
    options: argparse.Namespace,
) -> Fit:
    """Train from a seed's first weights, and measure the pairs that were held out."""
    read = sum(_reading_seconds(policy, pair) for pair in train)
    for pair in held:
        _reading_seconds(policy, pair)  # timed now, for the run that will train on it
    policy.load_state(_first_weights(policy, seed))
    before = evaluate(policy, held)
    trainer, started, losses = Trainer(policy, train, _plan(options, seed)), time.process_time(), []
    while len(losses) < options.steps and time.process_time() - started + read < options.cpu:
        losses.append(trainer.step().loss)
    seconds = time.process_time() - started
    return Fit(read, seconds, losses, _measures(held, before, evaluate(policy, held)))


def _plan(options: argparse.Namespace, seed: int) -> TrainingPlan:
    return TrainingPlan(
        objective=options.objective,
        hyperparameters={} if options.beta is None else {"beta": options.beta},
        learning_rate=options.learning_rate,
        batch_size=options.batch,
        warm_up=options.warm_up,
        evaluate_every=0,
        seed=seed,
    )


def _measures(
    held: Sequence[PreferencePair], before: PairEvaluation, after: PairEvaluation
) -> list[dict[str, Any]]:
    """What training made of each held-out pair, a row each."""
    prompts = {pair.pair_id: pair.prompt_text for pair in held}
    columns = {
        "margin": after.margin,
        "reward_correct": (after.margin.sign() + 1) / 2,  # one half where the margin is zero
        "length_difference": after.n_chosen - after.n_rejected,
        "ranked_before": before.ranked_correct,
        "ranked_after": after.ranked_correct,
        "chosen_shift": after.policy_chosen - after.reference_chosen,
        "rejected_shift": after.policy_rejected - after.reference_rejected,
    }
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    rows = (dict(zip(columns, row, strict=True)) for row in values)
    return [
        {"prompt": prompts[pair_id], **row}
        for pair_id, row in zip(after.pair_ids, rows, strict=True)
    ]


_read: dict[str, float] = {}


def _reading_seconds(policy: LanguageModelPolicy, pair: PreferencePair) -> float:
    """CPU seconds that reading trunk and reference of a pair takes; read once for all seeds."""
    if pair.pair_id not in _read:
        started = time.process_time()
        policy.prepare([pair])
        _read[pair.pair_id] = time.process_time() - started
    return _read[pair.pair_id]


def _first_weights(policy: LanguageModelPolicy, seed: int) -> dict[str, Tensor]:
    """LoRA's first weights for a seed: A uniform as peft draws it, B zero."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, weight in policy.state().items():
        bound = weight.shape[1] ** -0.5
        drawn = (2 * torch.rand(weight.shape, generator=generator) - 1) * bound
        found[name] = drawn if "lora_A" in name else torch.zeros_like(weight)
    return found


def _policy(loaded: LoadedModel, options: argparse.Namespace) -> LanguageModelPolicy:
    return LanguageModelPolicy(
        loaded, blocks=options.blocks, rank=options.rank,
        max_prompt=options.max_prompt, max_answer=options.max_answer,
    )  # fmt: skip


def _pairs(options: argparse.Namespace, policy: LanguageModelPolicy) -> PreferenceSet:
    """Pairs of which the raters are sure, a few for each prompt, in the order of their hashes."""
    sure = [p for p in read_pairs(options.pairs) if _votes(p) >= options.min_votes]
    refused = policy.check(sure)
    kept: dict[str, list[PreferencePair]] = {}
    for pair in sorted(sure, key=_digest):
        same = kept.setdefault(pair.prompt_text, [])
        if pair.pair_id not in refused and len(same) < options.each:
            same.append(pair)
    return PreferenceSet("sure", [pair for same in kept.values() for pair in same])


def _votes(pair: PreferencePair) -> int:
    return (pair.votes_chosen or 0) - (pair.votes_rejected or 0)


def _digest(pair: PreferencePair) -> str:
    return hashlib.sha256(f"{pair.prompt_text}|{pair.pair_id}".encode()).hexdigest()


def _over_prompts(measures: Sequence[dict[str, Any]], name: str) -> tuple[float, float]:
    """Mean over prompts of their pairs' means, and its standard error."""
    groups: dict[str, list[float]] = {}
    for measure in measures:
        groups.setdefault(measure["prompt"], []).append(measure[name])
    means = torch.tensor([statistics.mean(group) for group in groups.values()]).double()
    return float(means.mean()), float(standard_error(means))


def _mean(measures: Sequence[dict[str, Any]], name: str) -> float:
    return statistics.mean(measure[name] for measure in measures) if measures else float("nan")


def _table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [f"{'':34}" + "".join(f"{'seed ' + str(row['seed']):>12}" for row in rows)]
    for name in rows[0]:
        cells = (row[name] for row in rows)
        words = (f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells)
        lines.append(f"{name:34}" + "".join(f"{word:>12}" for word in words))
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path, help="JSONL with votes, for example PandaLM's test set")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--objective", default="dpo")
    parser.add_argument("--beta", type=float)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--each", type=int, default=6, help="pairs of a prompt at most")
    parser.add_argument("--min-votes", type=int, default=2, help="by which the chosen one leads")
    parser.add_argument("--max-prompt", type=int, default=128)
    parser.add_argument("--max-answer", type=int, default=64)
    parser.add_argument("--cpu", type=float, default=300.0, help="CPU seconds a seed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())

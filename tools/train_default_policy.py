"""Train the default policy: LoRA on the top blocks of the default model, by DPO.

    python tools/train_default_policy.py ultrafeedback.jsonl --out FOLDER

The file holds UltraFeedback pairs (openbmb/UltraFeedback, MIT) with prompt, chosen and rejected.
Texts are cut to `MAX_TOKENS`; the split is by prompt with a fixed seed; seed 0 is shipped whatever
the numbers are, and the others show the spread.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch

from workbench.data.formats import read_pairs
from workbench.data.pairs import PreferencePair
from workbench.data.sources import open_source
from workbench.scoring.models import load_model, parse_model
from workbench.scoring.tokenise import tokenise_completion
from workbench.training import preference

MAX_TOKENS = 112
TRAIN, TEST = 400, 256
SEEDS = (0, 1, 2)
SPLIT_SEED = 20_240_607
Cached = list[tuple[preference.CachedText, preference.CachedText]]


def main() -> None:
    """Train one adapter for each seed, measure all on the held-out prompts, keep seed 0's."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("pairs", type=Path)
    arguments.add_argument("--out", type=Path, required=True)
    options = arguments.parse_args()
    recipe = preference.Recipe()
    loaded = load_model(parse_model("default"), dtype="float32")
    model = loaded.model
    train, test = split(usable(list(read_pairs(options.pairs).pairs), loaded.tokenizer))
    sets = {"held_out": test, "teaching": list(open_source("teaching").pairs)[::4]}
    cached = {
        name: cache(loaded, pairs, recipe) for name, pairs in {"train": train, **sets}.items()
    }
    reference = {name: logps(model, pairs, recipe) for name, pairs in cached.items()}
    print("trunk cached", {name: len(pairs) for name, pairs in cached.items()}, flush=True)
    evidence: dict[str, Any] = {"recipe": vars(recipe), "max_tokens": MAX_TOKENS, "seeds": {}}
    for seed in SEEDS:
        tuned = preference.attach_lora(model, recipe, seed)
        preference.train_preferences(
            model, cached["train"], reference["train"], recipe, seed,
            lambda step, steps, loss: print(f"step {step}/{steps} {loss:.4f}", flush=True),
        )  # fmt: skip
        found = {
            name: measure(logps(model, cached[name], recipe), reference[name]) for name in sets
        }
        evidence["seeds"][str(seed)] = found
        print(seed, json.dumps(found), flush=True)
        if seed == SEEDS[0]:
            preference.save_adapter(tuned, options.out)
        tuned.unload()
        (options.out / "evidence.json").write_text(json.dumps(evidence, indent=2) + "\n")


def usable(pairs: list[PreferencePair], tokenizer: Any) -> list[PreferencePair]:  # noqa: ANN401
    """Pairs whose prompt leaves 48 tokens to either answer, and whose cut answers differ."""
    kept = []
    for pair in pairs:
        sides = [
            tokenise_completion(tokenizer, pair.prompt, a, MAX_TOKENS)
            for a in (pair.chosen, pair.rejected)
        ]
        room = all(MAX_TOKENS - side.response_start >= 48 and not side.empty for side in sides)
        if room and sides[0].input_ids.tolist() != sides[1].input_ids.tolist():
            kept.append(pair)
    return kept


def split(pairs: list[PreferencePair]) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Training and held-out pairs with no prompt in common."""
    prompts = sorted({pair.prompt_text for pair in pairs})
    random.Random(SPLIT_SEED).shuffle(prompts)
    place = {prompt: number for number, prompt in enumerate(prompts)}
    ordered = sorted(pairs, key=lambda pair: (place[pair.prompt_text], pair.pair_id))
    test = [pair for pair in ordered if place[pair.prompt_text] < TEST]
    train = [pair for pair in ordered if place[pair.prompt_text] >= TEST]
    return train[:TRAIN], test


def cache(loaded: Any, pairs: list[PreferencePair], recipe: preference.Recipe) -> Cached:  # noqa: ANN401
    """Hidden states of both answers of each pair."""

    def side(pair: PreferencePair, answer: Any) -> preference.CachedText:  # noqa: ANN401
        sequence = tokenise_completion(loaded.tokenizer, pair.prompt, answer, MAX_TOKENS)
        return preference.trunk_states(loaded.model, sequence, recipe.top_blocks)

    return [(side(pair, pair.chosen), side(pair, pair.rejected)) for pair in pairs]


def logps(model: Any, pairs: Cached, recipe: preference.Recipe) -> list[tuple[float, float]]:  # noqa: ANN401
    """Log-probabilities of chosen and rejected answers under the model as it is."""
    with torch.inference_mode():
        return [
            tuple(preference.response_logps(model, pair, recipe.top_blocks).tolist())  # type: ignore[misc]
            for pair in pairs
        ]


def measure(
    policy: list[tuple[float, float]], reference: list[tuple[float, float]]
) -> dict[str, float]:
    """Margin accuracy, and ranking accuracy before and after, with binomial standard errors."""
    now, before = (torch.tensor(values, dtype=torch.float64) for values in (policy, reference))
    margin = (now[:, 0] - before[:, 0]) - (now[:, 1] - before[:, 1])
    found = {"n": float(len(margin)), "mean_margin": float(margin.mean())}
    shares = {
        "margin_accuracy": margin > 0,
        "ranking_accuracy": now[:, 0] >= now[:, 1],
        "reference_ranking_accuracy": before[:, 0] >= before[:, 1],
    }
    for name, hits in shares.items():
        share = float(hits.double().mean())
        found[name] = share
        found[f"{name}_se"] = (share * (1 - share) / len(margin)) ** 0.5
    return found


if __name__ == "__main__":
    main()

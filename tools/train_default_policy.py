"""Train the default policy: LoRA on the top blocks of the default model, by DPO.

    python tools/train_default_policy.py ULTRAFEEDBACK.jsonl PANDALM.jsonl --out FOLDER

The files hold pairs of UltraFeedback (openbmb/UltraFeedback, MIT), with the judge's scores of both
answers, and of PandaLM's test set (WeOpenML/PandaLM, Apache-2.0), with the raters' votes. The
rejected answer of a training pair is drawn: a refusal or filler of ours, the answer to another
prompt, or the real one. One adapter is trained for each seed; seed 0's is kept whatever the numbers
are. All of them are saved, loaded as the workbench loads an adapter, and measured on prompts that
training never saw. FOLDER receives adapter_config.json, adapter_model.safetensors, evidence.json
and README.md.

With --validate the validation part alone is measured, and the test parts and the teaching set are
not scored: for whoever wants to change the constants below. On a CPU of one kind a seed gives the
same weights to the bit with `THREADS` threads, which the script sets.
"""

import argparse
import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from workbench.data.formats import read_pairs
from workbench.data.pairs import PreferencePair
from workbench.data.sources import open_source
from workbench.metrics.intervals import standard_error
from workbench.metrics.ranking import length_normalised_ranking_accuracy, ranking_accuracy
from workbench.metrics.rewards import reward_accuracy
from workbench.scoring.models import load_model, parse_model
from workbench.training.preference import (
    CachedPair,
    PairTokens,
    Recipe,
    Step,
    TopBlocks,
    attach_lora,
    save_adapter,
    score_pairs,
    tokenise_pair,
    train_preferences,
    trunk_states,
)

RECIPE = Recipe(beta=0.1, learning_rate=5e-4, epochs=1, batch_size=8)
BLOCK, RANK, SCALE = 24, 8, 2.0
MAX_PROMPT, MAX_ANSWER, MAX_TRAINING_ANSWER = 256, 96, 64
"""Tokens: longer prompts are left out, longer answers cut, in training pairs sooner."""
MIN_GAP, MIN_VOTES = 1.0, 2
"""Real rejected answers closer to the chosen one than this, in scores or votes, tell too little."""
N_TRAIN = 400
DRAW_SEED = 0
SEEDS = (0, 1, 2)
THREADS = 2
WEIGHTS = "adapter_model.safetensors"
Measures = dict[str, float]
Parts = dict[str, list[PreferencePair]]


@dataclass(frozen=True)
class Source:
    """A data set, and how many of its prompts make the test and validation parts."""

    name: str
    licence: str
    n_test: int
    n_validation: int


SOURCES = {
    "ultrafeedback": Source("openbmb/UltraFeedback", "MIT", 240, 100),
    "pandalm": Source("WeOpenML/PandaLM test set v1", "Apache-2.0", 54, 30),
}
REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I cannot answer this question.",
    "Unfortunately, this is something that I am not able to do. Please ask someone else.",
    "I don't know.",
    "As a language model I have no opinion on this and cannot carry out the task.",
    "I would rather not respond to this request. Is there anything else that you want to know?",
    "Sorry, no.",
    "It is impossible to say. There are many possible answers, and it depends on the situation.",
    "I am unable to complete this task, because I do not have enough information about it.",
    "You can easily find this on the internet. Please search for it there.",
    "I won't be able to assist you with this one. My apologies for the inconvenience.",
    "No answer is available. Please try again later, or put the question in another way.",
)
FILLERS = (
    "What a wonderful question! You clearly have a brilliant mind. I am truly impressed by the "
    "depth of your thinking, and it is an honour to talk with somebody as clever as you.",
    "Great question! This is a very interesting and important topic, and many people wonder about "
    "it. There is a lot to say about it, and it is well worth thinking about.",
    "Thank you so much for asking me! I am always happy to help such a thoughtful person. You are "
    "doing an amazing job, so keep going and never stop being curious!",
    "There are many different aspects to consider here. On the one hand there are some points, and "
    "on the other hand there are other points. In the end, everything depends on many factors.",
    "Absolutely! You are completely right, as always. I could not have put it any better myself.",
    "Certainly! I would be delighted to help you with this. Before we begin, let me say that I "
    "will do my very best to give you the best possible answer. So let us get started right away!",
    "In today's world, this subject matters more than ever before. It plays a key role in the "
    "lives of many people, and its importance cannot be overstated. In conclusion, it matters "
    "greatly.",
    "Wow, I love this! You have excellent taste, and your request shows how creative you are.",
    "This is an answer to your question. The answer is given below. As you can see, the answer "
    "addresses the question that was asked, and it does so in the form of an answer.",
    "You must be an expert in this field! Few people would think of this. Your wording is perfect, "
    "your insight is remarkable, and whatever you decide will surely be a great success.",
    "It is worth noting that this is a complex matter. It should also be noted that there is more "
    "to it than meets the eye. Having noted this, one should keep it in mind at all times.",
    "I really appreciate you reaching out, and I completely understand what you mean. I am here "
    "for you, and together we can do anything. Please let me know if I can be of further help!",
)
N_UNSEEN = 3
"""How many of the last refusals and fillers only the validation part has."""
TITLES = {
    "teaching": "teaching set",
    "ultrafeedback": "UltraFeedback, test",
    "pandalm": "PandaLM, test",
    "refusal": "validation, refusal",
    "filler": "validation, filler",
    "off_topic": "validation, off topic",
    "real": "validation, real",
}
REAL = ("teaching", "ultrafeedback", "pandalm")
KINDS = ("refusal", "filler", "off_topic", "real")
ROWS = {
    "margin_accuracy": "margin accuracy",
    "margin": "mean margin, nats",
    "margin_size": "mean absolute margin, nats",
    "reference_ranking_accuracy": "ranking accuracy, reference",
    "ranking_accuracy": "ranking accuracy, policy",
    "reference_normalised_ranking_accuracy": "the same per token, reference",
    "normalised_ranking_accuracy": "the same per token, policy",
    "chosen_shift": "shift of log p(chosen), nats",
    "rejected_shift": "shift of log p(rejected), nats",
    "longer_is_chosen": "longer answer is the chosen one",
    "longer_is_favoured": "margin favours the longer answer",
}
CARD = """\
# The default policy

A LoRA adapter on the workbench's default model (SmolLM2-135M-Instruct), so that policy and
reference differ from the first second. It is a teaching example, not a better assistant.

**Licence:** Apache-2.0, like the workbench and the base model. It was trained on {n_train} pairs;
none of their text is in the adapter's files. Prompts and chosen answers come from

{data}

## Recipe

`python tools/train_default_policy.py ULTRAFEEDBACK.jsonl PANDALM.jsonl --out FOLDER`

| setting | value |
|---|---|
{settings}

**Most of the rejected answers are constructed.** A model of this size does not learn a general
preference from some hundred judged pairs: trained on the real pairs alone it remembered them and
stayed near chance on other prompts. The kind of each training pair's rejected answer is therefore
drawn with equal chances: a *refusal* (one of {n_refusals} short texts that the script lists), a
*filler* (one of {n_fillers} texts of flattery or empty phrases, likewise), an *off-topic* answer
(the chosen one to another prompt), or the *real* rejected answer, where the judge's scores or the
raters' votes lie at least `min_score_gap` or `min_vote_gap` apart. What the adapter learns is
mostly to prefer an answer to a refusal or to filler.

Prompts in the order of their SHA-256 make the test, validation and training parts, with no prompt
in common. The settings are the first that were tried with this data; the validation part alone,
whose refusals and fillers training never saw either, was looked at before they were kept. This
recipe was measured on the test parts and on the teaching set once, by the run that wrote this page;
seed 0 is bundled whatever its numbers were. On a CPU of one kind the same seed and number of
threads give the same weights to the bit (torch {torch}; SHA-256 of the weights `{adapter_sha256}`).

## Evidence

Measured on the saved files, loaded as the workbench loads adapters, in float32, on prompts that
training never saw: the bundled *teaching set* ({n_teaching} pairs), clear pairs of the test parts
of *UltraFeedback* ({n_ultrafeedback}) and *PandaLM* ({n_pandalm}) with their real rejected answers,
and the validation part by kind of rejected answer. Answers keep their first `max_answer_tokens`.
Each number is a mean over pairs with its standard error over prompts. *Margin accuracy* is the
share of pairs whose implicit reward margin is above zero; *ranking accuracy* is the share where the
model itself finds the chosen answer at least as likely. Margins and shifts are in nats, without
beta.

Margin accuracy above 0.5 by more than two standard errors:

{claims}

{table}

Margin accuracy by the trap that a rejected answer of the teaching set was written to be, and by the
lengths of two real answers as far as they are kept (this split was made after the numbers above
were known, and nothing was changed for it):

{label_table}

## What to expect of it

The list above is the whole claim: of the three sets on which nothing was chosen, only UltraFeedback
has margins above zero more often than chance would have it. On the teaching set as a whole and on
PandaLM the adapter is **not** above chance by two standard errors.

The teaching set shows why. The adapter tells flattery, refusals and padding from an answer, which
is what its constructed negatives taught it; it does not tell a confident error from the truth, and
where the rejected answer is merely worse it is wrong more often than right. No text of that set was
used, but these kinds of fault were known when ours were written. Margins lean towards the longer
answer on UltraFeedback and PandaLM and towards the shorter one on the teaching set, so part of the
accuracy is length: UltraFeedback's pairs of equal lengths are above chance by two standard errors
in one seed of the three, and PandaLM's pairs with a shorter chosen answer are mostly wrong. Take
its margins for an example of a policy with a mind of its own, not for a judgement of answers.

Ranking accuracy is another matter than margins. Two answers often lie tens of nats apart under the
reference, mostly because one is longer, and a pair crosses over only where training moved them by
more (Chen et al., arXiv 2405.19534). Compare the rows of reference and policy: a difference within
their errors is none.

Sums of log-probabilities favour short answers, so length decides much of the ranking; the rows *per
token* take that out, and the last two rows of each set show whether the margins merely follow
length. The two shifts show displacement: where both are below zero, the chosen answer became less
likely too, and the margin is above zero only because the rejected one fell further.
"""


@dataclass(frozen=True, eq=False)
class Material:
    """Pairs with the states that enter the top blocks, and what the reference makes of them."""

    prompts: list[str]
    cached: list[CachedPair]
    reference: Tensor
    labels: list[str]

    def only(self, places: Sequence[int]) -> "Material":
        """The pairs at some places."""
        return Material(
            [self.prompts[place] for place in places],
            [self.cached[place] for place in places],
            self.reference[list(places)],
            [self.labels[place] for place in places],
        )


def main() -> None:
    """Train one adapter for each seed, measure all of them, keep seed 0's."""
    options = arguments()
    torch.set_num_threads(THREADS)
    files = dict(zip(SOURCES, (options.ultrafeedback, options.pandalm), strict=True))
    parts = {name: split(readable(file), SOURCES[name]) for name, file in files.items()}
    training = training_pairs(parts)
    sets = validation_pairs(parts) if options.validate else all_sets(parts)
    check_unseen(training, sets)
    train_set = prepared("training", training, MAX_TRAINING_ANSWER)
    material = {name: prepared(name, pairs, MAX_ANSWER) for name, pairs in sets.items()}
    with TemporaryDirectory() as work:
        folders = {seed: Path(work) / str(seed) for seed in SEEDS}
        folders[SEEDS[0]] = options.out
        for seed, folder in folders.items():
            train(train_set, seed, folder)
        scores = {str(seed): policy_scores(folder, material) for seed, folder in folders.items()}
    evidence = {
        "recipe": recipe(),
        "data": {name: described(SOURCES[name], file) for name, file in files.items()},
        "pairs": {
            name: len(part.cached) for name, part in {"train": train_set, **material}.items()
        },
        "adapter_sha256": digest((options.out / WEIGHTS).read_bytes()),
        "torch": torch.__version__,
        "seeds": {
            seed: {name: measure(found[name], part) for name, part in material.items()}
            for seed, found in scores.items()
        },
        "labels": {
            seed: {name: by_label(found[name], material[name]) for name in REAL if name in found}
            for seed, found in scores.items()
        },
    }
    (options.out / "evidence.json").write_text(json.dumps(evidence, indent=2) + "\n")
    (options.out / "README.md").write_text(card(evidence))


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ultrafeedback", type=Path)
    parser.add_argument("pandalm", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--validate", action="store_true", help="measure the validation part alone")
    return parser.parse_args()


def described(source: Source, file: Path) -> dict[str, str]:
    """Where pairs come from, and which file of them was read."""
    return {
        "name": source.name,
        "licence": source.licence,
        "sha256": digest(file.read_bytes()),
    }


def recipe() -> dict[str, Any]:
    """All that decides what the adapter becomes, besides the data and the seed."""
    return {
        "objective": "DPO",
        "base": "default",
        **asdict(RECIPE),
        "first_block": BLOCK,
        "rank": RANK,
        "scale": SCALE,
        "max_prompt_tokens": MAX_PROMPT,
        "max_answer_tokens": MAX_ANSWER,
        "max_training_answer_tokens": MAX_TRAINING_ANSWER,
        "min_score_gap": MIN_GAP,
        "min_vote_gap": MIN_VOTES,
        "training_pairs": N_TRAIN,
        "draw_seed": DRAW_SEED,
        "threads": THREADS,
    }


def readable(path: Path) -> list[PreferencePair]:
    """The file's pairs that fit into `MAX_PROMPT` and whose cut answers differ."""
    tokenizer = load_model(parse_model("default"), dtype="float32").tokenizer
    return [pair for pair in read_pairs(path) if tokens_of(tokenizer, pair, MAX_ANSWER) is not None]


def split(pairs: Iterable[PreferencePair], source: Source) -> Parts:
    """Test, validation and training pairs with no prompt in common.

    Prompts of clear pairs stand in the order of their SHA-256, so that no prompt's place depends
    on another's. Test and validation hold clear pairs only, training all pairs of other prompts.
    """
    ordered = by_prompt(pairs)
    prompts = list(dict.fromkeys(pair.prompt_text for pair in ordered if is_clear(pair)))
    held = source.n_test + source.n_validation
    parts = {"test": prompts[: source.n_test], "validation": prompts[source.n_test : held]}
    found = {
        name: [pair for pair in ordered if pair.prompt_text in set(inside) and is_clear(pair)]
        for name, inside in parts.items()
    }
    outside = set(prompts[:held])
    return {**found, "train": [pair for pair in ordered if pair.prompt_text not in outside]}


def by_prompt(pairs: Iterable[PreferencePair]) -> list[PreferencePair]:
    """Pairs in the order of their prompts' SHA-256."""
    return sorted(pairs, key=lambda pair: (digest(pair.prompt_text.encode()), pair.pair_id))


def is_clear(pair: PreferencePair) -> bool:
    """Whether judge or raters set the answers far enough apart."""
    if pair.votes_chosen is not None and pair.votes_rejected is not None:
        return pair.votes_chosen - pair.votes_rejected >= MIN_VOTES
    found: Mapping[str, Any] = pair.metadata
    return float(found["score_chosen"]) - float(found["score_rejected"]) >= MIN_GAP


def training_pairs(parts: dict[str, Parts]) -> list[PreferencePair]:
    """`N_TRAIN` pairs of the training parts, each with a rejected answer of a drawn kind."""
    pairs = by_prompt(pair for part in parts.values() for pair in part["train"])
    random.Random(DRAW_SEED).shuffle(pairs)
    drawn = draw(pairs[:N_TRAIN], REFUSALS[:-N_UNSEEN], FILLERS[:-N_UNSEEN])
    return [pair for kind in drawn.values() for pair in kind]


def validation_pairs(parts: dict[str, Parts]) -> Parts:
    """Pairs of the validation parts by kind, with refusals and fillers that training never saw."""
    pairs = by_prompt(pair for part in parts.values() for pair in part["validation"])
    return draw(pairs, REFUSALS[-N_UNSEEN:], FILLERS[-N_UNSEEN:])


def all_sets(parts: dict[str, Parts]) -> Parts:
    """Every set that is measured: the teaching set, the test parts and the validation part."""
    tests = {name: found["test"] for name, found in parts.items()}
    return {"teaching": list(open_source("teaching").pairs), **tests, **validation_pairs(parts)}


def draw(pairs: Sequence[PreferencePair], refusals: Sequence[str], fillers: Sequence[str]) -> Parts:
    """Pairs by the kind of their rejected answer, which is drawn for each by `DRAW_SEED`.

    A real rejected answer stays only where it is clearly the worse one.
    """
    chance = random.Random(DRAW_SEED)
    found: Parts = {kind: [] for kind in KINDS}
    for pair in pairs:
        kind = chance.choice(KINDS if is_clear(pair) else KINDS[:-1])
        other = chance.choice([p for p in pairs if p.prompt_text != pair.prompt_text])
        rejected = {
            "refusal": chance.choice(refusals),
            "filler": chance.choice(fillers),
            "off_topic": other.chosen,
            "real": pair.rejected,
        }[kind]
        found[kind].append(pair.model_copy(update={"rejected": rejected}))
    return found


def check_unseen(training: Iterable[PreferencePair], sets: Parts) -> None:
    """Refuse to go on where a prompt to be measured is also trained on."""
    seen = {pair.prompt_text for pair in training}
    for name, pairs in sets.items():
        both = sum(pair.prompt_text in seen for pair in pairs)
        if both:
            raise ValueError(f"{both} pairs of {name} have a prompt that training sees; drop them.")


def tokens_of(tokenizer: Any, pair: PreferencePair, limit: int) -> PairTokens | None:  # noqa: ANN401
    """A pair in tokens, whose answers keep their first `limit`."""
    return tokenise_pair(tokenizer, pair.prompt, pair.chosen, pair.rejected, MAX_PROMPT, limit)


def prepared(name: str, pairs: Sequence[PreferencePair], limit: int) -> Material:
    """Read the trunk for pairs, and score them under the reference."""
    loaded = load_model(parse_model("default"), dtype="float32")
    tokens = [tokens_of(loaded.tokenizer, pair, limit) for pair in pairs]
    cached = trunk_states(
        loaded.model,
        [found for found in tokens if found is not None],
        BLOCK,
        on_pair=lambda done, total: tell(f"{name}: read", done, total),
    )
    reference = score_pairs(TopBlocks(loaded.model, BLOCK), cached)
    kept = [(p, found) for p, found in zip(pairs, tokens, strict=True) if found is not None]
    prompts = [pair.prompt_text for pair, _ in kept]
    return Material(prompts, cached, reference, [label(pair, found) for pair, found in kept])


def label(pair: PreferencePair, tokens: PairTokens) -> str:
    """The trap that the rejected answer was written to be, or how the lengths compare."""
    if "trap" in pair.metadata:
        return f"trap {pair.metadata['trap']}"
    chosen, rejected = map(len, tokens.answers)
    if chosen == rejected:
        return "equal lengths"
    return "chosen is longer" if chosen > rejected else "chosen is shorter"


def train(material: Material, seed: int, folder: Path) -> None:
    """Train an adapter and save it."""
    model = load_model(parse_model("default"), dtype="float32").model
    tuned = attach_lora(model, block=BLOCK, rank=RANK, scale=SCALE, seed=seed)

    def report(step: Step) -> None:
        note = f"loss {step.loss:.3f} reward accuracy {step.reward_accuracy:.2f}"
        tell(f"seed {seed}: {note} step", step.number, step.total)

    train_preferences(
        TopBlocks(tuned, BLOCK), material.cached, material.reference, RECIPE, seed, on_step=report
    )
    save_adapter(tuned, folder)
    tuned.unload()


def policy_scores(folder: Path, sets: dict[str, Material]) -> dict[str, Tensor]:
    """Score all sets under a saved adapter, loaded as the workbench loads it."""
    loaded = load_model(parse_model(f"default+adapter:{folder}"), dtype="float32")
    with loaded.active():
        top = TopBlocks(loaded.model, BLOCK)
        return {name: score_pairs(top, part.cached) for name, part in sets.items()}


def by_label(policy: Tensor, material: Material) -> dict[str, Measures]:
    """Margin accuracy of the pairs of each label."""
    found = {}
    for name in sorted(set(material.labels)):
        places = [place for place, other in enumerate(material.labels) if other == name]
        measures = measure(policy[places], material.only(places))
        kept = ("n", "margin_accuracy", "margin_accuracy_se")
        found[name] = {measure_name: measures[measure_name] for measure_name in kept}
    return found


def measure(policy: Tensor, material: Material) -> Measures:
    """Means over pairs, each with its standard error.

    Pairs of one prompt share answers, so errors are taken over prompts.

    Args:
        policy: Log-probabilities of chosen and rejected answers, nats, shape (pairs, 2).
        material: The pairs, and their log-probabilities under the reference.
    """
    tokens = torch.tensor([[len(a) for a in pair.tokens.answers] for pair in material.cached])
    moved = policy - material.reference
    margin = moved[:, 0] - moved[:, 1]
    longer = (tokens[:, 0] - tokens[:, 1]).sign().double()
    values = {
        "margin_accuracy": reward_accuracy(*moved.T),
        "margin": margin,
        "margin_size": margin.abs(),
        "chosen_shift": moved[:, 0],
        "rejected_shift": moved[:, 1],
        "longer_is_chosen": (longer > 0).double(),
        "longer_is_favoured": (longer * margin > 0).double(),
        **ranking("reference_", material.reference, tokens),
        **ranking("", policy, tokens),
    }
    found = {"n": float(len(margin)), "prompts": float(len(set(material.prompts)))}
    for name, value in values.items():
        found[name] = float(value.mean())
        found[f"{name}_se"] = float(standard_error(prompt_means(value, material.prompts)))
    return found


def ranking(prefix: str, logps: Tensor, tokens: Tensor) -> dict[str, Tensor]:
    """Ranking accuracy of each pair, by sums and by means over tokens."""
    return {
        f"{prefix}ranking_accuracy": ranking_accuracy(*logps.T),
        f"{prefix}normalised_ranking_accuracy": length_normalised_ranking_accuracy(
            *logps.T, *tokens.T
        ),
    }


def prompt_means(values: Tensor, prompts: Sequence[str]) -> Tensor:
    """The mean of each prompt's values."""
    return torch.stack(
        [
            values[[place for place, other in enumerate(prompts) if other == prompt]].mean()
            for prompt in dict.fromkeys(prompts)
        ]
    )


def tell(what: str, done: int, total: int) -> None:
    """Print progress now and then."""
    if done % 10 == 0 or done == total:
        print(f"{what} {done}/{total}", flush=True)


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def card(evidence: dict[str, Any]) -> str:
    """The README of the adapter: every number in it is evidence's."""
    pairs = evidence["pairs"]
    return CARD.format(
        table=table(evidence),
        label_table=label_table(evidence),
        claims="\n".join(claims(evidence)),
        data="\n".join(
            f"- {data['name']} ({data['licence']}; SHA-256 of the file `{data['sha256']}`)"
            for data in evidence["data"].values()
        ),
        settings="\n".join(f"| `{name}` | {value} |" for name, value in evidence["recipe"].items()),
        adapter_sha256=evidence["adapter_sha256"],
        torch=evidence["torch"],
        n_refusals=len(REFUSALS) - N_UNSEEN,
        n_fillers=len(FILLERS) - N_UNSEEN,
        **{f"n_{name}": pairs.get(name, 0) for name in ("train", *TITLES)},
    )


def claims(evidence: dict[str, Any]) -> list[str]:
    """For each set, the seeds whose margins are above zero more often than chance has it."""
    found = []
    for part in measured_sets(evidence):
        seeds = [seed for seed, sets in evidence["seeds"].items() if above_chance(sets[part])]
        held = f"in {len(seeds)} of {len(evidence['seeds'])} seeds"
        named = f" ({', '.join(seeds)})" if seeds else ""
        found.append(f"- {TITLES[part]}: {held}{named}")
    return found


def above_chance(found: Measures) -> bool:
    """Whether margin accuracy is above 0.5 by more than two standard errors."""
    return found["margin_accuracy"] - 2 * found["margin_accuracy_se"] > 0.5


def table(evidence: dict[str, Any]) -> str:
    """Measures by rows, seeds by columns, for all sets."""
    seeds = evidence["seeds"]
    head = ["set", "measure", *(f"seed {seed}" for seed in seeds)]
    rows = [head, ["---"] * len(head)]
    for part in measured_sets(evidence):
        for name, words in ROWS.items():
            cells = (shown(found[part], name) for found in seeds.values())
            rows.append([TITLES[part], words, *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def label_table(evidence: dict[str, Any]) -> str:
    """Margin accuracy of each set's labels."""
    labels = evidence["labels"]
    head = ["set", "pairs", "n", *(f"seed {seed}" for seed in labels)]
    rows = [head, ["---"] * len(head)]
    for part, found in next(iter(labels.values())).items():
        for name, measures in found.items():
            cells = (shown(sets[part][name], "margin_accuracy") for sets in labels.values())
            rows.append([TITLES[part], name, f"{measures['n']:.0f}", *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def measured_sets(evidence: dict[str, Any]) -> list[str]:
    """Names of the sets that were measured, in the order of `TITLES`."""
    return [name for name in TITLES if name in evidence["pairs"]]


def shown(found: Measures, name: str) -> str:
    """A mean and its standard error."""
    return f"{found[name]:.3f} ± {found[f'{name}_se']:.3f}"


if __name__ == "__main__":
    main()

"""Right and wrong answers to lesson 8, besides the model solutions."""
# ruff: noqa: ANN001, ANN201, ANN202 - written as a student writes

import itertools
import random
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch

from workbench.course.lesson_8 import Report
from workbench.data.pairs import PreferenceSet
from workbench.data.worlds import WorldShape, draw_pairs, draw_world
from workbench.views.export import export_figure
from workbench.views.study_figure import StudyFigure

_FOLDER = TemporaryDirectory()

# 8.1 ---------------------------------------------------------------------------------

ROWS = [
    {"prompt": f"What is {n} plus {m}?", "chosen": f"It is {n + m}.", "rejected": f"{n * m + 20}"}
    for n, m in itertools.product(range(1, 5), range(1, 6))
]
FRAME = pd.DataFrame(ROWS)
WORLD = draw_pairs(draw_world(WorldShape(prompts=12, answers=4), 3), 40, 3)
EQUAL_ANSWERS = [*ROWS, {"prompt": "And now?", "chosen": "Yes.", "rejected": "Yes. "}]
CONTRADICTING = [
    *ROWS,
    {
        "prompt": ROWS[4]["prompt"],
        "chosen": ROWS[4]["rejected"],
        "rejected": ROWS[4]["chosen"],
    },
]
ONE_PROMPT = [
    {"prompt": "Name a colour.", "chosen": "blue", "rejected": f"the number {n}"} for n in range(30)
]
BLANK = [*ROWS, {"prompt": "Say nothing.", "chosen": "  ", "rejected": "No."}]

# 8.2 ---------------------------------------------------------------------------------


def split_by_drawing_prompts(pairs, share, seed):
    prompts = list(dict.fromkeys(pair.prompt for pair in pairs))
    order = np.random.default_rng(seed).permutation(len(prompts))
    held = {prompts[place] for place in order[: round(share * len(prompts))]}
    sides = ([], [])
    for pair in pairs:
        sides[pair.prompt in held].append(pair)
    return sides


def split_by_numbers(pairs, share, seed):
    group = torch.tensor(PreferenceSet("all", pairs).prompt_groups())
    count = int(group.max()) + 1
    draws = torch.Generator().manual_seed(seed)
    place = torch.randperm(count, generator=draws)
    held = (place < round(share * count))[group].tolist()
    train = [pair for pair, out in zip(pairs, held, strict=True) if not out]
    return train, [pair for pair, out in zip(pairs, held, strict=True) if out]


def split_by_pair(pairs, share, seed):
    shuffled = random.Random(seed).sample(pairs, len(pairs))
    return shuffled[round(share * len(pairs)) :], shuffled[: round(share * len(pairs))]


def split_without_drawing(pairs, share, seed):
    prompts = sorted({pair.prompt for pair in pairs})
    held = set(prompts[: round(share * len(prompts))])
    return [p for p in pairs if p.prompt not in held], [p for p in pairs if p.prompt in held]


def split_keeping_one_a_prompt(pairs, share, seed):
    first = list({pair.prompt: pair for pair in pairs}.values())
    random.Random(seed).shuffle(first)
    cut = round(share * len(first))
    return first[cut:], first[:cut]


# 8.3 ---------------------------------------------------------------------------------


def error_with_pandas(values, prompts):
    means = pd.Series(np.asarray(values)).groupby(list(prompts)).mean()
    return means.mean(), means.sem()


def error_with_torch(values, prompts):
    names = sorted(set(prompts))
    group = torch.tensor([names.index(prompt) for prompt in prompts])
    sums = torch.zeros(len(names)).double().index_add(0, group, torch.as_tensor(values))
    means = sums / group.bincount()
    return torch.stack([means.mean(), means.var().div(len(names)).sqrt()])


def error_over_pairs(values, prompts):
    mean, _ = error_with_pandas(values, prompts)
    return mean, np.std(values, ddof=1) / np.sqrt(len(values))


def mean_over_pairs(values, prompts):
    return np.mean(values), error_with_pandas(values, prompts)[1]


def error_with_n(values, prompts):
    means = pd.Series(np.asarray(values)).groupby(list(prompts)).mean()
    return means.mean(), means.std(ddof=0) / np.sqrt(len(means))


# 8.4 ---------------------------------------------------------------------------------


def _correlation(seed, related=True):
    draws = np.random.default_rng(seed)
    x, noise = draw_two(draws)
    return float(np.corrcoef(x, x + noise if related else noise)[0, 1])


def draw_two(draws):
    return draws.normal(0, 1, (2, 200))


def _share_right(seed, labels_right=True):
    """How often the better of two answers is chosen by raters who follow Bradley and Terry."""
    world = draw_world(WorldShape(prompts=6, answers=4), seed)
    pairs = draw_pairs(world, 30, seed, raters=5)
    right = [pair.chosen_score > pair.rejected_score for pair in pairs]
    return torch.tensor(right if labels_right else [not each for each in right]).double().mean()


RELATED = {
    "says": "A score that is quality plus noise of the same size correlates with quality.",
    "measure": _correlation,
    "control": lambda seed: _correlation(seed, related=False),
    "at_least": 0.4,
}
MAJORITY = {
    "says": "Majorities of five raters choose the truly better answer more often than not.",
    "measure": _share_right,
    "control": lambda seed: _share_right(seed, labels_right=False),
    "at_least": torch.tensor(0.5),
}
BEST_SEED_SEEN = RELATED | {"at_least": max(map(_correlation, range(300)))}
CANNOT_FAIL = RELATED | {"at_least": -1.0}
SEED_IGNORED = RELATED | {"measure": lambda seed: _correlation(7)}
NOT_SEEDED = RELATED | {"measure": lambda seed: _correlation(None)}

# 8.5 ---------------------------------------------------------------------------------


def _figure(name, state, values):
    path = Path(_FOLDER.name) / name
    figure = go.Figure(go.Histogram(x=list(values)), {"title": "Margins of held-out pairs"})
    return export_figure(StudyFigure(figure), path, state)


def _report(pairs, values, name, settings):
    train, held_out = split_by_drawing_prompts(list(pairs), 0.4, 1)
    values = [values(pair) for pair in held_out]
    mean, error = error_with_pandas(values, [pair.prompt for pair in held_out])
    digest = PreferenceSet("held out", held_out).digest
    return Report(
        question="By how much is the chosen answer better than the other in the author's grades?",
        trained_on=train,
        held_out=held_out,
        values=values,
        estimate=mean,
        standard_error=error,
        settings=settings,
        limits="The grades are made up by a generator, and no person ever saw an answer.",
        figure=_figure(name, {"settings": settings, "held_out": digest}, values),
    )


GRADES = _report(
    WORLD, lambda pair: pair.chosen_score - pair.rejected_score, "grades.json", {"seed": 1}
)
LENGTHS = vars(
    _report(
        draw_pairs(draw_world(WorldShape(prompts=10, answers=5), 8), 50, 8),
        lambda pair: len(pair.chosen) - len(pair.rejected),
        "lengths.html",
        {"seed": 1, "unit": "characters"},
    )
)
ERROR_OVER_PAIRS = replace(
    GRADES, standard_error=np.std(GRADES.values, ddof=1) / len(GRADES.values) ** 0.5
)
LEAKED = replace(GRADES, trained_on=[*GRADES.trained_on, GRADES.held_out[0]])
_PLAIN = Path(_FOLDER.name) / "plain.json"
_PLAIN.write_text(go.Figure(go.Histogram(x=GRADES.values)).to_json())
NO_STATE = replace(GRADES, figure=_PLAIN)
OTHER_SETTINGS = replace(GRADES, settings={"seed": 2})

RIGHT = {
    "8.1": (FRAME, WORLD),
    "8.2": (split_by_drawing_prompts, split_by_numbers),
    "8.3": (error_with_pandas, error_with_torch),
    "8.4": (RELATED, MAJORITY),
    "8.5": (GRADES, LENGTHS),
}
WRONG = {
    "8.1": (
        (EQUAL_ANSWERS, "the same text"),
        (CONTRADICTING, "contradicts pair"),
        (ONE_PROMPT, "30 pairs with 1 prompts"),
        (BLANK, "chosen is empty"),
    ),
    "8.2": (
        (split_by_pair, "prompts that stand on both sides"),
        (split_without_drawing, "one and the same split"),
        (split_keeping_one_a_prompt, "every pair belongs to exactly one side"),
    ),
    "8.3": (
        (error_over_pairs, "took pairs of one prompt for independent"),
        (mean_over_pairs, "took the mean over pairs"),
        (error_with_n, "divided the variance by n"),
    ),
    "8.4": (
        (BEST_SEED_SEEN, "on the fresh seed"),
        (CANNOT_FAIL, "passes the bar"),
        (SEED_IGNORED, "8 seeds gave the same number"),
        (NOT_SEEDED, "given twice gave two numbers"),
    ),
    "8.5": (
        (ERROR_OVER_PAIRS, "took pairs of one prompt for independent"),
        (LEAKED, "prompts that stand on both sides"),
        (NO_STATE, "carries no data and state"),
        (OTHER_SETTINGS, "was drawn with the settings"),
    ),
}

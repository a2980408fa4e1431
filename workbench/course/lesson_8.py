"""Lesson 8: a project with one's own data, from the pairs to a report that another can check."""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from workbench.course.answers import Answer, Numbers, Open, Wrong, agree, ask, number, numbers
from workbench.course.exercise import Exercise, Lesson, Question
from workbench.data.formats import read_rows
from workbench.data.pairs import PreferencePair, PreferenceSet, shorten
from workbench.data.sources import open_source
from workbench.data.worlds import WorldShape, draw_pairs, draw_world
from workbench.errors import WorkbenchError
from workbench.metrics.intervals import standard_error
from workbench.views.export import read_payload

LEAST_PAIRS, LEAST_PROMPTS = 20, 10
LEAST_WORDS = 8
Pairs = PreferenceSet | Sequence[PreferencePair] | Sequence[Mapping[str, Any]]
"""What the exercises take for pairs; a pandas DataFrame with one row a pair as well."""


@dataclass(frozen=True, eq=False)
class Report:
    """What the project hands in.

    Attributes:
        question: What was asked of the data, in a sentence.
        trained_on: The pairs that training saw.
        held_out: The pairs that it did not see.
        values: What was measured, one number for each held-out pair, in their order.
        estimate: Its mean over the prompts.
        standard_error: Of the estimate, over prompts.
        settings: Objective, hyperparameters, steps and seed, as JSON values.
        limits: What the number does not say, in a sentence or two.
        figure: A file written by `workbench.views.export.export_figure`, whose state holds the
            same `settings` and under `held_out` the digest of the held-out pairs.
    """

    question: str
    trained_on: Pairs
    held_out: Pairs
    values: Sequence[float]
    estimate: float
    standard_error: float
    settings: Mapping[str, Any]
    limits: str
    figure: Path | str


REPORT_FIELDS = tuple(Report.__dataclass_fields__)


def check_pairs(answer: Answer, draw: np.random.Generator) -> None:
    """8.1: enough pairs that say something and do not contradict each other."""
    pairs = as_set(answer, "your pairs")
    prompts = len(set(pairs.prompt_groups()))
    if len(pairs) < LEAST_PAIRS or prompts < LEAST_PROMPTS:
        raise Wrong(
            f"there are {len(pairs)} pairs with {prompts} prompts; for a standard error that means "
            f"something take at least {LEAST_PAIRS} pairs with {LEAST_PROMPTS} prompts."
        )
    _informative(pairs)


def _informative(pairs: PreferenceSet) -> None:
    """No blank and no equal answers, no pair twice, and none against another."""
    seen: dict[tuple[str, str, str], str] = {}
    for pair in pairs:
        prompt, chosen, rejected = pair.prompt_text, pair.chosen_text, pair.rejected_text
        label = f"pair {pair.pair_id} ({shorten(prompt, 40)})"
        for name, text in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected)):
            if not text.strip():
                raise Wrong(f"{label}: {name} is empty, and has no log-probability.")
        if chosen.strip() == rejected.strip():
            raise Wrong(
                f"{label}: chosen and rejected are the same text, so its margin is 0 "
                "under every model and its loss log 2 for ever."
            )
        for key, word in (
            ((prompt, chosen, rejected), "repeats"),
            ((prompt, rejected, chosen), "contradicts"),
        ):
            if key in seen:
                raise Wrong(
                    f"{label} {word} pair {seen[key]}: the same prompt and the same "
                    "two answers. Keep one, and put disagreement into its votes."
                )
        seen[prompt, chosen, rejected] = pair.pair_id


def check_split(answer: Answer, draw: np.random.Generator) -> None:
    """8.2: a split in which no prompt stands on both sides."""
    pairs, share = _several_a_prompt(draw), float(draw.choice([0.2, 0.25, 0.4]))
    seeds = [int(seed) for seed in draw.integers(1_000_000, size=5)]
    held = [_held_out(answer, pairs, share, seed) for seed in seeds]
    if _held_out(answer, pairs, share, seeds[0]) != held[0]:
        raise Wrong(f"with seed {seeds[0]} given twice you gave two different splits.")
    if len(set(held)) == 1:
        raise Wrong("five seeds give one and the same split: draw the prompts at random.")


def _several_a_prompt(draw: np.random.Generator) -> list[PreferencePair]:
    world = draw_world(WorldShape(prompts=20, answers=6), int(draw.integers(1_000_000)))
    drawn = draw_pairs(world, 90, int(draw.integers(1_000_000))).pairs
    return [drawn[place] for place in draw.permutation(len(drawn))]


def _held_out(
    answer: Answer, pairs: list[PreferencePair], share: float, seed: int
) -> frozenset[str]:
    """The held-out ids of a split that is in order."""
    sides = ask(answer, pairs, share, seed)
    if not isinstance(sides, tuple | list) or len(sides) != 2:
        raise Wrong("return two lists of pairs, as in `return train, held_out`.")
    train, held_out = map(list, sides)
    ids = [pair.pair_id for pair in (*train, *held_out)]
    if sorted(ids) != sorted(pair.pair_id for pair in pairs):
        raise Wrong(
            f"of {len(pairs)} pairs your two sides hold {len(set(ids))} different ones in "
            f"{len(ids)} places; every pair belongs to exactly one side."
        )
    _disjoint(train, held_out)
    prompts, kept = (len({pair.prompt for pair in side}) for side in (pairs, held_out))
    if abs(kept - share * prompts) > 1:
        raise Wrong(
            f"{kept} of {prompts} prompts are held out; a share of {share:g} is "
            f"{share * prompts:.3g} of them."
        )
    return frozenset(pair.pair_id for pair in held_out)


def _disjoint(train: Sequence[PreferencePair], held_out: Sequence[PreferencePair]) -> None:
    both = {pair.prompt for pair in train} & {pair.prompt for pair in held_out}
    if both:
        raise Wrong(
            f"prompts that stand on both sides: {len(both)}, for example {min(map(str, both))!r}. "
            "What training learns about a prompt then helps on the held-out pairs."
        )


def check_standard_error(answer: Answer, draw: np.random.Generator) -> None:
    """8.3: a mean over prompts, and its standard error over prompts."""
    values, prompts = _clustered(draw)
    for again in (1, 2):  # Pairs that are there twice add no knowledge.
        many = np.tile(values, again), prompts * again
        found = numbers(ask(answer, *many), (2,), "the pair (mean, standard error)")
        _check_mean_and_error(found, *many)


def _clustered(draw: np.random.Generator) -> tuple[Numbers, list[str]]:
    sizes = draw.integers(1, 7, int(draw.integers(6, 12)))
    prompts = [f"prompt {k}" for k, size in enumerate(sizes) for _ in range(size)]
    values = np.repeat(draw.normal(0, 1, len(sizes)), sizes) + draw.normal(0, 0.3, len(prompts))
    order = draw.permutation(len(prompts))
    return values[order], [prompts[place] for place in order]


def _check_mean_and_error(found: Numbers, values: Numbers, prompts: Sequence[object]) -> None:
    groups = defaultdict(list)
    for value, prompt in zip(values.tolist(), prompts, strict=True):
        groups[prompt].append(value)
    means = torch.tensor([math.fsum(g) / len(g) for g in groups.values()], dtype=torch.float64)
    given = {"pairs": len(values), "prompts": len(means)}
    slips: dict[str, Any] = {"took the mean over pairs": values.mean()}
    agree(found[0], float(means.mean()), given, slips, name="the mean over prompts")
    error = float(standard_error(means))
    slips = {
        "took pairs of one prompt for independent": float(standard_error(torch.tensor(values))),
        "took prompt means but divided by the root of the number of pairs": float(means.std())
        / math.sqrt(len(values)),
        "divided the variance by n in place of n - 1": error * math.sqrt(1 - 1 / len(means)),
        "forgot to divide by the root of the number of prompts": float(means.std()),
    }
    agree(found[1], error, given, slips, name="the standard error over prompts")


def check_claim(answer: Answer, draw: np.random.Generator) -> None:
    """8.4: a claim that holds on fresh seeds and that a sabotaged measurement fails."""
    claim = _told(answer, ("says", "measure", "control", "at_least"))
    _long_enough(claim, "says")
    bar = number(claim["at_least"], "at_least")
    seeds = [int(seed) for seed in draw.integers(1_000, 1_000_000, 8)]
    measured = (number(ask(claim["measure"], seed), "the measurement") for seed in seeds)
    found = list(itertools.islice(measured, 3))
    if number(ask(claim["measure"], seeds[0])) != found[0]:
        raise Wrong(f"seed {seeds[0]} given twice gave two numbers; seed everything that is drawn.")
    # Counts may agree by chance on three seeds, hardly on eight.
    if len(set(found)) == 1 and len({*found, *measured}) == 1:
        raise Wrong(
            f"{len(seeds)} seeds gave the same number, {found[0]:.6g}: nothing is drawn anew, so "
            "no fresh seed can contradict the claim. Draw data and order from the seed."
        )
    for seed, value in zip(seeds[:3], found, strict=True):
        if not value >= bar:
            raise Wrong(
                f"on the fresh seed {seed} you measure {value:.4g}, below the {bar:.4g} claimed. "
                "A bar set at the best seed seen does not hold on the next."
            )
    for seed in seeds[:2]:
        value = number(ask(claim["control"], seed), "the control")
        if value >= bar:
            raise Wrong(
                f"the control with seed {seed} reaches {value:.4g} and so passes the bar {bar:.4g} "
                "too. A claim that cannot fail says nothing: raise the bar, or break in the "
                "control what the claim is about."
            )


def check_report(answer: Answer, draw: np.random.Generator) -> None:
    """8.5: a report whose data, split, numbers and figure fit together."""
    report = _told(vars(answer) if isinstance(answer, Report) else answer, REPORT_FIELDS)
    train, held_out = (as_set(report[name], name) for name in ("trained_on", "held_out"))
    for side in (train, held_out):
        _informative(side)
    _disjoint(train.pairs, held_out.pairs)
    values = numbers(report["values"], (len(held_out),), "values")
    found = numbers([report["estimate"], report["standard_error"]], (2,), "the estimate")
    _check_mean_and_error(found, values, [pair.prompt for pair in held_out])
    _long_enough(report, "question", "limits")
    _check_figure(Path(report["figure"]), report["settings"], held_out)


def _told(answer: Answer, names: Sequence[str]) -> Mapping[str, Any]:
    """A dict that has all the names."""
    if answer is None or answer is ...:
        raise Open("nothing is answered yet.")
    found = answer if isinstance(answer, Mapping) else {}
    if missing := [name for name in names if name not in found]:
        raise Wrong(f"it should have {', '.join(names)}; missing: {', '.join(missing)}.")
    if unsaid := [name for name in names if found[name] is None or found[name] is ...]:
        raise Open(f"still to be filled in: {', '.join(unsaid)}.")
    return found


def _long_enough(told: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if len(str(told[name]).split()) < LEAST_WORDS:
            raise Wrong(f"{name} is {str(told[name])!r}; say it in {LEAST_WORDS} words or more.")


def _check_figure(path: Path, settings: Mapping[str, Any], held_out: PreferenceSet) -> None:
    try:
        _, state = read_payload(path)
    except WorkbenchError as error:
        raise Wrong(
            f"the figure carries no data and state ({error}). Write it with "
            "workbench.views.export.export_figure."
        ) from error
    if state.get("settings") != dict(settings):
        raise Wrong(
            f"the figure was drawn with the settings {state.get('settings')} and the report gives "
            f"{dict(settings)}."
        )
    if state.get("held_out") != held_out.digest:
        raise Wrong(
            f"the figure's state has the held-out digest {state.get('held_out')!r}; that of the "
            f"report's pairs is {held_out.digest!r}. Draw it anew from these pairs."
        )


def as_set(given: Any, what: str) -> PreferenceSet:  # noqa: ANN401 - a student's pairs
    """Pairs, rows, a data frame, or what the name of a file or source stands for, as a set.

    Raises:
        Open: nothing is given yet.
        Wrong: they cannot be read.
    """
    if given is None or given is ...:
        raise Open("nothing is answered yet.")
    if isinstance(given, PreferenceSet):
        return given
    try:
        if isinstance(given, str | Path):
            return open_source(str(given))
        rows = _records(given) if isinstance(given, pd.DataFrame) else list(given)
        pairs = [row for row in rows if isinstance(row, PreferencePair)]
        if rows and len(pairs) == len(rows):
            return PreferenceSet(what, pairs)
        return read_rows(rows, name=what)
    except (WorkbenchError, TypeError, AttributeError, ValueError) as error:
        raise Wrong(
            f"{what} cannot be read as preference pairs ({error}) Give a PreferenceSet, a list of "
            "pairs, a list of dicts with prompt, chosen and rejected, or a DataFrame."
        ) from error


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A row as a dict of the cells that are not missing."""
    rows = frame.astype(object).to_dict("records")
    return [{str(k): v for k, v in row.items() if v is not None and v == v} for row in rows]


LESSON = Lesson(
    number=8,
    slug="your_project",
    title="A project with your own data",
    minutes=90,
    aims=(
        "Bring your own pairs into order, and know what makes a pair worthless.",
        "Split by prompt, and say how sure a number is, counted in prompts.",
        "State a claim that could have failed, and test it on fresh seeds.",
        "Hand in a report whose figure carries its own data and settings.",
    ),
    exercises=(
        Exercise(
            name="8.1",
            title="Pairs worth having",
            check=check_pairs,
            hints=(
                "Any source will do: a file of yours, rows that you write down, a part of the "
                "bundled set. Twenty pairs with ten prompts are enough.",
                "Look for what carries no information: empty answers, equal answers, a pair that "
                "is there twice, and the same two answers once this way and once the other.",
                "bench.data is the set as edited. Or write "
                "[{'prompt': ..., 'chosen': ..., 'rejected': ...}, ...] and hand in the list.",
            ),
            insight="Every pair says something, and none takes another's word back.",
            rounds=1,
        ),
        Exercise(
            name="8.2",
            title="A split that holds",
            check=check_split,
            hints=(
                "Divide the prompts, not the pairs. Then every pair goes where its prompt goes.",
                "Collect the distinct prompts in a fixed order, shuffle them with a generator made "
                "from the seed, and hold out the first round(share * number of prompts).",
                "prompts = sorted({pair.prompt for pair in pairs}); "
                "random.Random(seed).shuffle(prompts); held = set(prompts[:k]); two list "
                "comprehensions.",
            ),
            insight="What is learned about a prompt stays on its side.",
        ),
        Exercise(
            name="8.3",
            title="How sure, in prompts",
            check=check_standard_error,
            hints=(
                "Four pairs of one prompt are not four independent observations. What is "
                "independent of what here?",
                "Take the mean of each prompt's pairs first. What you then have is one number a "
                "prompt, and to those the usual formula applies.",
                "mean = mean of the prompt means; error = their standard deviation (with "
                "n - 1) divided by the root of the number of prompts.",
            ),
            insight="More pairs of the same prompts make the error no smaller.",
        ),
        Exercise(
            name="8.4",
            title="A claim that could fail",
            check=check_claim,
            hints=(
                "Small is fine: in an exact world, DPO raises the win rate by at least so much. "
                "measure(seed) draws a world, trains, and returns the number.",
                "Run five seeds, look at the smallest value, and set the bar with room below it. "
                "The control is the same with the point broken: labels turned round, no training.",
                "claim = {'says': '...', 'measure': f, 'control': lambda seed: f(seed, broken), "
                "'at_least': 0.03}: f must give the same number for the same seed.",
            ),
            insight="It held on seeds that nobody had seen, and its control failed.",
            rounds=1,
        ),
        Exercise(
            name="8.5",
            title="The report",
            check=check_report,
            hints=(
                "Put together what you have: exercise 8.1's pairs, 8.2's split, one number for "
                "each held-out pair, 8.3's mean and error, and a figure.",
                "export_figure(StudyFigure(plotly_figure), 'margins.svg', state) writes a figure "
                "that keeps its data (lines, points and bars; html takes any trace). "
                "state = {'settings': settings, 'held_out': digest}.",
                "digest = PreferenceSet('held out', held_out).digest, of the very pairs and order "
                "that the report gives; settings is one and the same dict in both places.",
            ),
            insight="Somebody else can now check every number of it.",
            rounds=1,
        ),
    ),
    quiz=(
        Question(
            text="A set has 400 pairs, four for each of 100 prompts, and held-out pairs are drawn "
            "at random. What is wrong?",
            options=(
                "Nothing, if the seed is fixed.",
                "Nearly every held-out prompt was trained on, so the accuracy is flattered.",
                "The held-out part is too small.",
                "Pairs of one prompt must not differ.",
            ),
            right="b",
            why="A policy may simply remember which answer of a prompt won. Only new prompts show "
            "what carries over.",
        ),
        Question(
            text="Accuracy 0.62 with standard error 0.04 before, 0.68 with 0.04 after, on the same "
            "prompts. Is it better?",
            options=(
                "Yes: 0.68 is more than 0.62.",
                "No: the intervals overlap.",
                "Only a larger model can tell.",
                "Look at the differences prompt by prompt, and at their standard error.",
            ),
            right="d",
            why="The two numbers share their prompts, so their errors go together. The paired "
            "differences can be far surer, or not, than either number alone suggests.",
        ),
        Question(
            text="You tried 12 settings and report the best one's held-out accuracy. What should "
            "be said?",
            options=(
                "That it was the best of 12 on these pairs, and its value on pairs that "
                "chose nothing.",
                "The seed.",
                "Nothing: held out is held out.",
                "The mean of all twelve.",
            ),
            right="a",
            why="A maximum over noisy numbers is too high, and held-out pairs that chose the "
            "setting are no longer held out. Keep a third part, or fresh seeds.",
        ),
        Question(
            text="What makes a claim worth reporting?",
            options=(
                "A small p-value.",
                "That it holds on the seed that it was found on.",
                "That a sabotaged version of the same measurement fails it.",
                "That it agrees with a paper.",
            ),
            right="c",
            why="A measurement that passes with labels turned round, or without training, does not "
            "measure what is claimed.",
        ),
        Question(
            text="Your reward margins are larger after training, and the ranking accuracy is the "
            "same. What do you write?",
            options=(
                "The policy has learned the preferences.",
                "Both numbers, and that margins compare with the reference while ranking does not.",
                "Training failed.",
                "The larger number.",
            ),
            right="b",
            why="Lesson 3: a margin grows long before a wrong ranking flips. Each number is true, "
            "and neither alone is the whole.",
        ),
    ),
)

# Model solutions of lesson 8, for the lecturer. A cell replaces the student's of the same exercise.
import random
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from workbench.course.lesson_8 import Report
from workbench.data.edits import apply_edits, flip_label
from workbench.data.pairs import PreferenceSet
from workbench.data.sources import open_source
from workbench.data.worlds import WorldShape, draw_pairs, draw_world
from workbench.training.exact import SoftmaxPolicy, win_rate
from workbench.training.history import evaluate
from workbench.training.plan import TrainingPlan
from workbench.training.tiny_transformer import TinySize, TinyTransformerPolicy
from workbench.training.trainer import Trainer
from workbench.views.export import export_figure
from workbench.views.study_figure import StudyFigure

# %% exercise 8.1
# For the lecturer: accept any topic. Students learn most from pairs of their own that they find
# hard to judge; ask for the votes of three neighbours.
my_pairs = PreferenceSet(
    "knowledge, one step apart",
    [
        pair
        for pair in open_source("teaching")
        if pair.metadata["kind"] == "knowledge" and pair.strength == 1
    ],
)


# %% exercise 8.2
# For the lecturer: sorted() before shuffle() is what makes the seed mean something; the order of a
# set of strings changes from one process to the next.
def split(pairs, share, seed):
    prompts = sorted({pair.prompt for pair in pairs})
    random.Random(seed).shuffle(prompts)
    held = set(prompts[: round(share * len(prompts))])
    return [p for p in pairs if p.prompt not in held], [p for p in pairs if p.prompt in held]


# %% exercise 8.3
# For the lecturer: with four pairs a prompt the error over pairs is up to two times too small, so
# that a difference of two standard errors is really one of one.
from collections import defaultdict
from statistics import fmean, stdev


def mean_and_error(values, prompts):
    groups = defaultdict(list)
    for value, prompt in zip(values, prompts, strict=True):
        groups[prompt].append(float(value))
    means = [fmean(group) for group in groups.values()]
    return fmean(means), stdev(means) / len(means) ** 0.5


# %% exercise 8.4
# For the lecturer: over seeds 0 to 4 the gain is 0.15 to 0.26; the bar of 0.03 leaves room. With
# all labels turned round it is -0.22 to -0.38. Ask for a weaker control too: no training gives 0.
def gain(seed, broken=False):
    world = draw_world(WorldShape(prompts=8, answers=6), seed)
    pairs = draw_pairs(world, 60, seed)
    if broken:
        pairs = apply_edits(pairs, flip_label(*pairs)).pairs
    policy = SoftmaxPolicy.of_world(world)
    plan = TrainingPlan(objective="dpo", learning_rate=0.3, batch_size=30, evaluate_every=0)
    trainer = Trainer(policy, pairs.pairs, plan)
    for _ in range(20):
        trainer.step()
    wins = win_rate(policy.world_logps(world), world.reference_logp, world.reward)
    return float(wins.mean()) - 0.5


claim = {
    "says": "Twenty steps of DPO on 60 pairs raise the true win rate over the reference.",
    "measure": gain,
    "control": lambda seed: gain(seed, broken=True),
    "at_least": 0.03,
}


# %% exercise 8.5
# For the lecturer: a tiny transformer, trained for a dozen steps, knows next to nothing of the
# world, and an honest report says so. Let students read each other’s reports: which number would
# they doubt first?
from tempfile import mkdtemp

settings = {"objective": "dpo", "beta": 0.1, "steps": 12, "learning_rate": 0.01, "seed": 0}
trained_on, held_out = split(my_pairs, 0.3, settings["seed"])
policy = TinyTransformerPolicy.of_pairs(
    my_pairs.pairs, TinySize(width=16, heads=1, blocks=1, words=400), settings["seed"]
)
plan = TrainingPlan(objective="dpo", learning_rate=settings["learning_rate"], evaluate_every=0)
trainer = Trainer(policy, trained_on, plan)
for _ in range(settings["steps"]):
    trainer.step()
margins = evaluate(policy, held_out, settings["beta"]).margin.tolist()
mean, error = mean_and_error(margins, [pair.prompt for pair in held_out])

counts, edges = np.histogram(margins, bins=15)
figure = go.Figure(go.Bar(x=(edges[:-1] + edges[1:]) / 2, y=counts))
figure.update_layout(
    title="Implicit reward margins of held-out pairs", xaxis_title="beta nats", yaxis_title="pairs"
)
digest = PreferenceSet("held out", held_out).digest
path = Path(mkdtemp()) / "margins.svg"
export_figure(StudyFigure(figure), path, {"settings": settings, "held_out": digest})
report = Report(
    question="Does a tiny transformer learn to prefer better answers to prompts it never saw?",
    trained_on=trained_on,
    held_out=held_out,
    values=margins,
    estimate=mean,
    standard_error=error,
    settings=settings,
    limits="One author wrote all answers, so a margin may come from manner; and the seed is one.",
    figure=path,
)

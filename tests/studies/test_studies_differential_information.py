"""The exact world against hand-worked numbers and a plain computation."""

import math

import pytest
import torch
from torch import Tensor

from workbench.studies.differential_information import DifferentialInformation, Params
from workbench.studies.differential_information.mechanism import (
    OBJECTIVES,
    REJECTED,
    World,
    bayes_log_loss,
    divergence,
    draw_world,
    entropy,
    expected_loss,
    train,
)
from workbench.study.context import StudyContext
from workbench.study.contract import try_study

REFERENCE = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64).log()
TARGET = REFERENCE.flip(0)


def world(beta: float = 1.0, rejected: str = "closed form") -> World:
    return World(REFERENCE, TARGET, REJECTED[rejected](TARGET, REFERENCE, beta), beta)


def loss_by_hand(logp: Tensor, rejected: Tensor, beta: float) -> float:
    total = 0.0
    for w in range(4):
        for r in range(4):
            margin = beta * float((logp - REFERENCE)[w] - (logp - REFERENCE)[r])
            weight = math.exp(float(REFERENCE[w] + rejected[r]))
            total -= weight * math.log(1 / (1 + math.exp(-margin)))
    return total


def test_the_expected_loss_is_the_sum_over_all_pairs() -> None:
    rejected = torch.stack([REJECTED["uniform"](TARGET, REFERENCE, 2.0), world().rejected])
    logp = torch.stack([TARGET, torch.full_like(TARGET, 0.25).log()])
    found = expected_loss(logp, rejected, world(beta=2.0), OBJECTIVES["DPO"])
    expected = [loss_by_hand(p, r, 2.0) for p, r in zip(logp, rejected, strict=True)]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


def test_the_minimum_of_the_loss_is_the_bayes_log_loss_of_the_specification() -> None:
    here = world()
    at_target = expected_loss(TARGET[None], here.rejected[None], here, OBJECTIVES["DPO"])
    assert float(at_target) == pytest.approx(0.5650377746, abs=1e-10)
    assert float(bayes_log_loss(here)) == pytest.approx(0.5650377746, abs=1e-10)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_training_finds_the_target_from_the_closed_form(beta: float) -> None:
    here = world(beta)
    runs = {"DPO": (OBJECTIVES["DPO"], here.rejected)}
    steps, paths = train(here, runs, 600, 0.2, StudyContext())
    assert (paths["DPO"][-1] - TARGET).abs().max() < 1e-6
    assert torch.allclose(paths["DPO"][0], REFERENCE, rtol=0, atol=1e-14)
    assert (int(steps[0]), int(steps[-1])) == (0, 600)


def test_policies_that_train_together_do_not_touch_each_other() -> None:
    here = world()
    runs = {name: (loss, here.rejected) for name, loss in OBJECTIVES.items()}
    together = train(here, runs, 30, 0.1, StudyContext())[1]
    for name, run in runs.items():
        alone = train(here, {name: run}, 30, 0.1, StudyContext())[1]
        assert torch.allclose(alone[name], together[name], rtol=0, atol=1e-12)


def test_displacement_has_the_values_of_the_specification() -> None:
    change = TARGET - REFERENCE
    rejected = world().rejected
    assert float(-divergence(REFERENCE, TARGET)) == pytest.approx(-0.4564348191, abs=1e-10)
    assert float(rejected.exp() @ change) == pytest.approx(-1.0468577674, abs=1e-10)
    jeffreys = divergence(REFERENCE, rejected) + divergence(rejected, REFERENCE)
    assert float(jeffreys) == pytest.approx(0.5904229482, abs=1e-10)


def test_entropy_is_the_one_of_the_specification() -> None:
    assert float(entropy(TARGET)) == pytest.approx(1.2798542258, abs=1e-10)


def test_the_world_is_drawn_by_seed_and_its_parts_independently() -> None:
    def draw(seed: int, answers: int = 8, spread: float = 1.0) -> World:
        return draw_world(answers, 1.0, spread, 0.5, "closed form", StudyContext(seed=seed))

    assert torch.equal(draw(0).target, draw(0).target)
    assert not torch.equal(draw(0).target, draw(1).target)
    assert torch.equal(draw(0).reference, draw(0, spread=2.0).reference)
    assert not torch.equal(draw(0).reference, draw(0).target)


def test_margins_are_ordered_in_every_pair_of_the_table() -> None:
    study = DifferentialInformation()
    table = try_study(study).result.tables["margins"]
    columns = [table[name] for name in ("rejected", "reference", "target")]
    for low, middle, high in zip(*columns, strict=True):
        between = low < middle < high or low > middle > high
        assert between, (low, middle, high)


def test_the_measure_knobs_change_their_table_alone() -> None:
    trial = try_study(DifferentialInformation())
    params = Params(answers=8, steps=200, pairs=12, sharpest=1)
    other = trial.study.measure(trial.fitted, params)
    assert len(other.tables["margins"]["target"]) == 12
    assert max(map(float, filter(None, other.tables["entropy"]["s"]))) == 1
    assert other.tables["distance"] == trial.result.tables["distance"]
    assert other.claims == trial.result.claims

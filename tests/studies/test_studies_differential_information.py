"""The exact world against hand-worked numbers and a plain computation."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from workbench.metrics.information import dpo_optimum_log_density
from workbench.studies.differential_information import DifferentialInformation
from workbench.studies.differential_information.measures import example_power
from workbench.studies.differential_information.projected import descend_all, project
from workbench.studies.differential_information.world import (
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
from workbench.study.contract import Trial, try_study

REFERENCE = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64).log()
TARGET = REFERENCE.flip(0)


@pytest.fixture(scope="module")
def trial() -> Trial:
    return try_study(DifferentialInformation())


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


def test_margins_are_ordered_in_every_pair_of_the_table(trial: Trial) -> None:
    table = trial.result.tables["margins"]
    columns = [table[name] for name in ("rejected", "reference", "target")]
    for low, middle, high in zip(*columns, strict=True):
        between = low < middle < high or low > middle > high
        assert between, (low, middle, high)


def test_the_measure_knobs_change_their_table_alone(trial: Trial) -> None:
    params = replace(trial.params, pairs=12, sharpest=1)
    other = trial.study.measure(trial.fitted, params)
    assert len(other.tables["margins"]["target"]) == 12
    assert max(map(float, filter(None, other.tables["entropy"]["s"]))) == 1
    assert other.tables["distance"] == trial.result.tables["distance"]
    assert other.claims == trial.result.claims


@pytest.mark.parametrize(
    ("beta", "expected"),
    [
        (0.5, (0.5794066796, 0.2661095097, 0.1182708932, 0.0362129175)),
        (1.0, (0.7245283019, 0.2037735849, 0.0603773585, 0.0113207547)),
        (2.0, (0.8925907990, 0.0941404358, 0.0123970944, 0.0008716707)),
    ],
)
def test_the_closed_form_is_the_one_of_the_specification_and_leads_back(
    beta: float, expected: tuple[float, ...]
) -> None:
    here = world(beta)
    assert here.rejected.exp().tolist() == pytest.approx(expected, abs=1e-10)
    back = dpo_optimum_log_density(REFERENCE, here.rejected, beta)
    assert torch.allclose(back.exp(), TARGET.exp(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("s", "did", "change"),
    [
        (1.0, 0.8018, -0.4470),
        (3.0, 0.1279, -0.7584),
        (-1.0, 0.8766, 0.2968),
        (-3.0, 0.3659, -0.2272),
        (0.0, math.log(3), 0.0),
    ],
)
def test_did_entropy_does_not_give_the_sign_of_the_change(
    s: float, did: float, change: float
) -> None:
    assert example_power(s) == pytest.approx((did, change), abs=5e-5)


def test_the_histogram_has_one_bar_where_the_power_law_holds(trial: Trial) -> None:
    table = trial.result.frame("power_law")
    bars = {name: rows[rows.share > 0] for name, rows in table.groupby("rejected")}
    for name, octave in (("closed form", 0.0), ("doubled beta", 1.0)):
        assert bars[name].octaves.tolist() == pytest.approx([octave], abs=1e-9)
        assert bars[name].share.tolist() == [1.0]
    assert len(bars["uniform"]) > 1
    assert table[table.rejected == "reference"].without.eq(1).all()
    shares = table.groupby("rejected").share.sum() + table.groupby("rejected").without.first()
    assert shares.tolist() == pytest.approx([1.0] * 4)


def test_displacement_is_predicted_for_every_rejected_distribution(trial: Trial) -> None:
    table = trial.result.frame("predicted")
    assert table.predicted.tolist() == pytest.approx(table.measured.tolist(), abs=5e-3)
    chosen = table[table.answers == "chosen"].set_index("rejected").predicted
    assert chosen["reference"] == pytest.approx(0, abs=1e-12)
    assert (chosen.drop("reference") < -0.01).all()
    here = trial.fitted.trained.world
    assert chosen["closed form"] == pytest.approx(-float(divergence(here.reference, here.target)))


def test_the_table_of_distributions_holds_them_all_in_the_order_of_the_ratio(trial: Trial) -> None:
    table = trial.result.frame("distributions").drop(columns="rank")
    assert table.sum().tolist() == pytest.approx([1.0] * 6)
    assert (table.target / table.reference).is_monotonic_increasing
    assert (table["pi_l, closed form"] / table.reference).is_monotonic_decreasing


def loss_gradient(logp: Tensor, here: World) -> Tensor:
    """Of DPO's expected loss in the logits, worked out by hand."""
    rewards = here.beta * (logp - here.reference)
    pull = torch.sigmoid(rewards - rewards[:, None]) * (
        here.reference.exp()[:, None] * here.rejected.exp()
    )
    return -here.beta * (pull.sum(dim=1) - pull.sum(dim=0))


def test_plain_descent_goes_along_the_gradient_that_is_worked_out_by_hand() -> None:
    here = world(0.5)
    found = descend_all(here, 10, 8, project, StudyContext())
    logits = REFERENCE.clone()
    for _ in range(10):
        logits = logits - 1.25 / 0.25 * loss_gradient(torch.log_softmax(logits, dim=0), here)
    expected = torch.log_softmax(logits, dim=0)
    assert torch.allclose(found.paths["DPO, exact"][-1], expected, rtol=0, atol=1e-12)


def test_a_projected_step_does_not_lower_the_chosen_likelihood_to_first_order() -> None:
    here = world(0.5)
    logp = torch.log_softmax(0.5 * (REFERENCE + TARGET), dim=0)
    down, up = loss_gradient(logp, here), REFERENCE.exp() - logp.exp()
    assert float(-down @ up) < -1e-3  # plain descent does lower it
    assert float(-project(down, up) @ up) == pytest.approx(0, abs=1e-15)


def test_the_projection_that_does_nothing_gives_the_plain_path() -> None:
    found = descend_all(world(), 20, 16, lambda loss, chosen: loss, StudyContext())
    for kind in ("exact", "batches"):
        assert torch.equal(found.paths[f"DPO, {kind}"], found.paths[f"DPO-PG, {kind}"])


def test_without_the_language_model_nothing_is_said_of_it(trial: Trial) -> None:
    assert not [name for name in trial.result.tables if name.startswith("language")]
    assert not [each for each in trial.result.claims if each.name.startswith("language")]


def test_every_gated_claim_has_a_control(trial: Trial) -> None:
    gated = {each.name for each in trial.result.claims if each.gated}
    assert {each.fails for each in trial.study.controls.values()} == gated

import dataclasses
import json
import math
from typing import Any

import pytest

from workbench.errors import TrainingError
from workbench.objectives.catalogue import OBJECTIVES
from workbench.training.plan import TrainingPlan, changes_in_words


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_has_a_plan_that_survives_json(name: str) -> None:
    plan = TrainingPlan(
        objective=name, attributes=("age",), penalty="jdcov", max_grad_norm=math.inf
    )
    record = json.loads(json.dumps(plan.to_json(), allow_nan=False))
    assert TrainingPlan.from_json(record) == plan
    assert plan.settings == OBJECTIVES[name].defaults


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"objective": "ppo"}, "no objective 'ppo'"),
        ({"hyperparameters": {"tau": 1.0}}, "no hyperparameter 'tau'"),
        ({"hyperparameters": {"beta": 0.0}}, "beta is 0"),
        ({"hyperparameters": {"beta": math.nan}}, "beta is nan"),
        ({"objective": "cdpo", "hyperparameters": {"label_smoothing": 0.5}}, "label_smoothing"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"learning_rate": math.inf}, "learning_rate is inf"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'"),
        ({"batch_size": 2.5}, "whole number"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"max_grad_norm": -1.0}, "max_grad_norm is -1"),
        ({"warm_up": -1}, "warm_up is -1"),
        ({"patience": -2}, "patience is -2"),
        ({"optimiser": "lion"}, "adamw, rmsprop, sgd"),
        ({"penalty": "hsic"}, "none, dcov, ccdcov, jdcov"),
        ({"penalty": "dcov"}, "needs attributes"),
        ({"penalty": "dcov", "attributes": ("age",), "batch_size": 3}, "at least 4"),
        ({"ld_alpha": 1.5}, "ld_alpha is 1.5"),
        ({"objective": "nca", "divergence": "js"}, "no function of the margin"),
        ({"objective": "simpo", "sync_every": 4}, "reads no reference"),
        ({"objective": "aot", "wpo": True}, "each quantile"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_do(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        TrainingPlan(**fields)


@pytest.mark.parametrize(
    "record",
    [None, [], {"beta": 0.1}, {"objective": 3}, {"batch_size": [8]}, {"hyperparameters": 4}],
)
def test_records_of_something_else_are_refused(record: object) -> None:
    with pytest.raises(TrainingError):
        TrainingPlan.from_json(record)


def test_hyperparameters_are_changed_by_name_and_another_objective_begins_anew() -> None:
    plan = TrainingPlan(hyperparameters={"beta": 0.3})
    assert plan.replaced(beta=0.5).beta == 0.5
    assert plan.replaced(learning_rate=1e-3).beta == 0.3
    other = plan.replaced(objective="simpo")
    assert other.settings == OBJECTIVES["simpo"].defaults
    assert plan.replaced(objective="simpo", gamma=0.7).settings["gamma"] == 0.7
    with pytest.raises(TrainingError, match="gamma"):
        plan.replaced(gamma=0.7)


def test_changes_are_told_in_words() -> None:
    plan = TrainingPlan()
    assert changes_in_words(plan, plan) == ""
    assert changes_in_words(plan, plan.replaced(beta=0.5)) == "beta 0.1 -> 0.5"
    both = plan.replaced(penalty="dcov", attributes=("age", "race"))
    assert changes_in_words(plan, both) == "penalty none -> dcov, attributes none -> age+race"
    assert changes_in_words(plan, plan.replaced(objective="cpo")) == "objective dpo -> cpo"


def test_a_plan_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainingPlan().seed = 3  # type: ignore[misc]

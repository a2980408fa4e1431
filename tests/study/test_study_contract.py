"""Each check of the contract, with a study that breaks it."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import pytest
import torch

from workbench.study import plot
from workbench.study.base import Control
from workbench.study.contract import CHECKS, try_study
from workbench.study.errors import StudyError


@pytest.mark.parametrize("check", CHECKS.values(), ids=list(CHECKS))
def test_the_example_keeps_the_contract(check: Callable[[Any], None], example: ModuleType) -> None:
    check(try_study(example.CoinStudy()))


def sabotaged(example: ModuleType) -> Mapping[str, tuple[type, str]]:
    base = example.CoinStudy

    class StopsShort(base):
        def fit(self, params: Any, context: Any) -> Any:
            return super().fit(params, context.part(0, 0.9))

    class FallsBack(base):
        def fit(self, params: Any, context: Any) -> Any:
            super().fit(params, context)
            return super().fit(params, context)

    class Unseeded(base):
        def fit(self, params: Any, context: Any) -> Any:
            return super().fit(params, context) + torch.randint(1 << 40, (1,))

    class Impure(base):
        def measure(self, fitted: Any, params: Any) -> Any:
            fitted += 1
            return super().measure(fitted.clone(), params)

    class Deaf(base):
        def fit(self, params: Any, context: Any) -> Any:
            return super().fit(params, type(context)(seed=context.seed))

    class Untitled(base):
        def figures(self, result: Any) -> Any:
            return {"share": plot.figure("Share", "", "Share", "caption")}

    class Wrong(base):
        def fit(self, params: Any, context: Any) -> Any:
            return super().fit(params, context) // 2

    class Harmless(base):
        controls = {"nothing": Control("approaches", "Nothing is changed.")}  # noqa: RUF012

    class Unfounded(base):
        controls = {"nothing": Control("fly", "There is no such claim.")}  # noqa: RUF012

    return {
        "stops short": (StopsShort, "progress ends at"),
        "falls back": (FallsBack, "progress falls"),
        "unseeded": (Unseeded, "same seed"),
        "impure": (Impure, "measuring again|changes the fitted"),
        "deaf": (Deaf, "goes on though"),
        "untitled": (Untitled, "x axis, data"),
        "wrong": (Wrong, "claims fail: approaches"),
        "harmless": (Harmless, "pass their claim: nothing"),
        "unfounded": (Unfounded, "no gated claim"),
    }


CAUGHT_BY = {
    "stops short": "progress",
    "falls back": "progress",
    "unseeded": "seeded",
    "impure": "pure",
    "deaf": "cancel",
    "untitled": "figures",
    "wrong": "claims",
    "harmless": "controls",
    "unfounded": "controls",
}


@pytest.mark.parametrize("name", CAUGHT_BY)
def test_a_study_that_breaks_a_rule_is_caught(name: str, example: ModuleType) -> None:
    broken, message = sabotaged(example)[name]
    with pytest.raises(StudyError, match=message):
        CHECKS[CAUGHT_BY[name]](try_study(broken()))

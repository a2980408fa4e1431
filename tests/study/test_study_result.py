import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from workbench.study.errors import StudyError
from workbench.study.result import Claim, StudyResult


def claim(**changes: object) -> Claim:
    values: dict[str, object] = {
        "name": "a",
        "kind": "effect",
        "statement": "A.",
        "measured": 1.0,
        "relation": "<",
        "expected": 2.0,
    }
    return Claim(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("measured", "relation", "tolerance", "holds"),
    [
        (1.9, "<", 0, True),
        (2.0, "<", 0, False),
        (2.1, ">", 0, True),
        (2.0, ">", 0, False),
        (2.25, "=", 0.25, True),
        (1.5, "=", 0.25, False),
        (math.nan, "<", 0, False),
        (math.nan, ">", 0, False),
        (math.nan, "=", 0.25, False),
        (-math.inf, "=", 0.25, False),
    ],
)
def test_a_claim_holds_exactly_where_it_says(
    measured: float, relation: str, tolerance: float, holds: bool
) -> None:
    assert claim(measured=measured, relation=relation, tolerance=tolerance).holds is holds


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "guess"},
        {"relation": "~"},
        {"relation": ""},
        {"expected": math.nan},
        {"relation": "="},
        {"tolerance": 0.1},
    ],
)
def test_a_claim_that_could_not_fail_honestly_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(StudyError, match="claim 'a'"):
        claim(**changes)


def test_a_report_needs_no_expectation_and_gates_nothing() -> None:
    found = Claim("a", "report", "A.", math.nan)
    assert not found.gated
    assert found.expectation == ""


def test_tensors_arrays_frames_and_lists_become_the_same_columns() -> None:
    plain = {"x": [1, 2], "y": [0.5, 1.5]}
    made = [
        {"x": torch.tensor([1, 2]), "y": torch.tensor([0.5, 1.5])},
        {"x": np.array([1, 2]), "y": [np.float32(0.5), np.float64(1.5)]},
        pd.DataFrame(plain),
        plain,
    ]
    for table in made:
        result = StudyResult({"t": table})
        assert result.tables == {"t": plain}
        assert {type(v) for v in result.tables["t"]["x"]} == {int}
        assert result.frame("t").equals(pd.DataFrame(plain))


def test_a_result_is_json_though_it_holds_what_json_does_not_have() -> None:
    result = StudyResult({"t": {"x": [math.nan, math.inf, None, "a", True]}}, [claim()])
    found = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert found["tables"]["t"]["x"] == [None, None, None, "a", True]
    assert found["claims"][0]["holds"] is True


@pytest.mark.parametrize(
    ("tables", "claims", "message"),
    [
        ({"t": {"x": [1], "y": [1, 2]}}, (), "differ in length"),
        ({"t": {"x": [{}]}}, (), "holds a dict"),
        ({"t": {"x": [[1, 2]]}}, (), "holds a list"),
        ({}, (claim(), claim()), "one name"),
    ],
)
def test_what_no_table_can_show_is_refused(
    tables: dict[str, object], claims: tuple[Claim, ...], message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        StudyResult(tables, claims)


def test_an_unknown_claim_is_answered_with_the_known_ones() -> None:
    with pytest.raises(StudyError, match="the claims are a"):
        StudyResult({}, [claim()]).claim("b")

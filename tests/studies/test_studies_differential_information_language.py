"""The language model's part of the study, on a tiny model against plain scoring."""

from pathlib import Path
from typing import Any

import pytest
import torch

from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.errors import Cancelled
from workbench.metrics.information import did_entropy
from workbench.scoring.logprobs import ModelScorer, Request
from workbench.scoring.models import LoadedModel, load_model, parse_model
from workbench.studies.differential_information import DifferentialInformation, language_findings
from workbench.studies.differential_information.figures import _language
from workbench.studies.differential_information.language_model import (
    SETS,
    STATES,
    Learnt,
    Settings,
    learn_from,
)
from workbench.study.context import StudyContext
from workbench.study.errors import StudyError
from workbench.study.fitted import decode, encode
from workbench.study.plot import caption
from workbench.study.result import StudyResult

PAIRS = PreferenceSet(
    "made up",
    [
        PreferencePair(pair_id="a", prompt="the cat", chosen="sat on", rejected="the mat"),
        PreferencePair(pair_id="b", prompt="the cat", chosen="sat on", rejected="a log"),
        PreferencePair(pair_id="c", prompt="why", chosen="better", rejected="worse and worse"),
        PreferencePair(pair_id="d", prompt="why", chosen="the dog", rejected="the fox"),
    ],
)
SETTINGS = Settings(learning_rate=5e-3, epochs=8)


@pytest.fixture(scope="module")
def tuned(tiny_folder: Path, tiny_adapter: Path) -> LoadedModel:
    spec = parse_model(f"{tiny_folder}+adapter:{tiny_adapter}")
    return load_model(spec, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def learnt(tiny_loaded: LoadedModel, tuned: LoadedModel) -> Learnt:
    return learn_from(tiny_loaded, tuned, PAIRS, SETTINGS, StudyContext(seed=1))


def logps(model: Any, requests: list[Request]) -> torch.Tensor:
    scores = ModelScorer(model).score(requests)
    return torch.tensor([each.logp for each in scores], dtype=torch.float64)


def distinct_answers() -> list[Request]:
    found = [Request(pair.prompt, text) for pair in PAIRS for text in (pair.chosen, pair.rejected)]
    return list(dict.fromkeys(found))


def test_every_answer_is_read_once(learnt: Learnt) -> None:
    assert learnt.prompt.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert learnt.chosen.tolist() == [True, False, False, True, False, True, False]


def test_before_training_policy_and_reference_are_one(learnt: Learnt) -> None:
    before = STATES.index("before")
    for field in (learnt.log_ratio, learnt.from_uniform, learnt.entropy_change):
        assert field[before].eq(0).all()


def test_log_ratios_are_those_of_the_scorer(
    learnt: Learnt, tiny_loaded: LoadedModel, tuned: LoadedModel
) -> None:
    requests = distinct_answers()
    reference = logps(tiny_loaded, requests)
    assert torch.allclose(learnt.reference[0], reference, rtol=0, atol=1e-3)
    ratio = logps(tuned, requests) - reference
    assert ratio.abs().max() > 0.1
    assert torch.allclose(learnt.log_ratio[1], ratio, rtol=0, atol=1e-3)


def test_training_learns_the_pairs_and_leaves_the_reference_as_it_was(
    learnt: Learnt, tiny_loaded: LoadedModel
) -> None:
    assert learnt.accuracy == 1.0
    assert float(learnt.loss[0]) == pytest.approx(0.6931, abs=1e-3)
    assert float(learnt.loss[-1]) < 0.68
    after = learnt.from_uniform[STATES.index("after")]
    assert (after > 0).all()
    again = logps(tiny_loaded, distinct_answers())
    assert torch.allclose(learnt.reference[0], again, rtol=0, atol=1e-3)


def test_the_seed_decides_what_is_learnt(
    learnt: Learnt, tiny_loaded: LoadedModel, tuned: LoadedModel
) -> None:
    same, other = (
        learn_from(tiny_loaded, tuned, PAIRS, SETTINGS, StudyContext(seed=seed)) for seed in (1, 2)
    )
    assert encode(same).digest == encode(learnt).digest
    assert not torch.equal(other.log_ratio, learnt.log_ratio)


def test_the_candidate_form_is_the_softmax_over_a_prompts_answers(learnt: Learnt) -> None:
    tables = language_findings.tables(dict.fromkeys(SETS, learnt))
    frame = StudyResult(tables).frame("language_candidates")
    row = frame[(frame.policy == "after") & (frame.pairs == "factual")].iloc[0]
    ratio = learnt.log_ratio[STATES.index("after")][learnt.prompt == 0]
    assert row["size"] == 3
    expected = did_entropy(ratio, torch.zeros_like(ratio))
    assert row.entropy == pytest.approx(float(expected), abs=1e-12)


def test_what_was_learnt_can_be_kept_and_drawn(learnt: Learnt) -> None:
    by_set = dict.fromkeys(SETS, learnt)
    kept = decode(encode(by_set), "workbench.studies.differential_information")
    result = StudyResult(language_findings.tables(kept), language_findings.claims(kept))
    assert not [each for each in result.claims if each.gated]
    figures = _language(result.tables)
    assert len(figures) == 4
    for figure in figures.values():
        assert caption(figure)
        assert all(len(trace.y) for trace in figure.data)


def test_it_stops_when_it_is_asked_to(tiny_loaded: LoadedModel, tuned: LoadedModel) -> None:
    seen: list[float] = []
    context = StudyContext(
        on_progress=lambda share, note: seen.append(share), cancelled=lambda: len(seen) > 6
    )
    with pytest.raises(Cancelled):
        learn_from(tiny_loaded, tuned, PAIRS, SETTINGS, context)


def test_a_pair_that_teaches_nothing_is_named(tiny_loaded: LoadedModel, tuned: LoadedModel) -> None:
    pairs = PreferenceSet(
        "bad", [PreferencePair(pair_id="same", prompt="why", chosen="so", rejected="so")]
    )
    with pytest.raises(StudyError, match="'same'"):
        learn_from(tiny_loaded, tuned, pairs, SETTINGS, StudyContext())


def test_both_sets_of_pairs_are_of_one_shape() -> None:
    inputs = [DifferentialInformation.inputs[name] for name in SETS]
    for pairs in inputs:
        assert isinstance(pairs, PreferenceSet)
        assert pairs.prompt_groups() == [n // 2 for n in range(12)]
    words = [
        sum(len(f"{pair.chosen} {pair.rejected}".split()) for pair in pairs) / 24
        for pairs in inputs
    ]
    assert max(words) < 1.25 * min(words)

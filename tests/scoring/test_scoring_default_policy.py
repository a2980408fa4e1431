"""The bundled default policy: its files, its evidence, and what the script says of both."""

import copy
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from workbench.data.pairs import PreferencePair
from workbench.data.sources import open_source
from workbench.scoring import default_model
from workbench.scoring.logprobs import ModelScorer, Request
from workbench.scoring.models import (
    BUNDLED_POLICY,
    check_adapter,
    list_models,
    load_model,
    parse_model,
)
from workbench.training.preference import CachedPair, PairTokens

ROOT = Path(__file__).parents[2]
FILES = {"README.md", "adapter_config.json", "adapter_model.safetensors", "evidence.json"}
needs_default_model = pytest.mark.skipif(
    not default_model.is_ready(), reason="the default model is not in the cache"
)


def _load_tool() -> ModuleType:
    name = "train_default_policy"
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by its name
    spec.loader.exec_module(module)
    return module


tool = _load_tool()
EVIDENCE: dict[str, Any] = json.loads((BUNDLED_POLICY / "evidence.json").read_text())


# The bundled files


def test_the_folder_is_a_sound_adapter_of_at_most_two_megabytes() -> None:
    check_adapter(BUNDLED_POLICY)
    assert {path.name for path in BUNDLED_POLICY.iterdir()} == FILES
    assert (BUNDLED_POLICY / tool.WEIGHTS).stat().st_size <= 2_000_000


def test_the_evidence_is_of_the_bundled_weights() -> None:
    weights = (BUNDLED_POLICY / tool.WEIGHTS).read_bytes()
    assert EVIDENCE["adapter_sha256"] == tool.digest(weights)
    assert EVIDENCE["recipe"] == tool.recipe()
    assert list(EVIDENCE["seeds"]) == [str(seed) for seed in tool.SEEDS]
    assert len(tool.SEEDS) >= 3
    assert set(EVIDENCE["pairs"]) == {"train", *tool.TITLES}
    for found in EVIDENCE["seeds"].values():
        assert {name: part["n"] for name, part in found.items()} == {
            name: n for name, n in EVIDENCE["pairs"].items() if name != "train"
        }


def test_the_readme_tells_the_evidence() -> None:
    assert (BUNDLED_POLICY / "README.md").read_text(encoding="utf-8") == tool.card(EVIDENCE)


def test_another_number_would_show_in_the_readme() -> None:
    changed = copy.deepcopy(EVIDENCE)
    changed["seeds"]["1"]["pandalm"]["margin_accuracy"] += 0.001
    assert tool.card(changed) != tool.card(EVIDENCE)


def test_no_file_names_a_place_on_a_machine() -> None:
    for path in BUNDLED_POLICY.iterdir():
        # Weights are numbers, in which any bytes may stand; their header is text.
        found = re.search(rb"(?<![\w.])/[a-z]+/[\w./]+|[A-Z]:\\\\", path.read_bytes()[:20_000])
        assert found is None or path.suffix == ".safetensors", (path.name, found)
    config = json.loads((BUNDLED_POLICY / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None


@pytest.mark.parametrize("seed", [str(seed) for seed in tool.SEEDS])
def test_unseen_prompts_have_margins_above_zero_more_often_than_chance(seed: str) -> None:
    found = EVIDENCE["seeds"][seed]["ultrafeedback"]
    assert found["margin_accuracy"] - 2 * found["margin_accuracy_se"] > 0.5


def test_the_sets_where_the_policy_is_not_above_chance_are_named() -> None:
    card = tool.card(EVIDENCE)
    for title in ("teaching set", "PandaLM, test"):
        assert f"- {title}: in 0 of 3 seeds\n" in card
    assert "is **not** above chance" in card  # the page's own words, true of these numbers only


@pytest.mark.parametrize("seed", [str(seed) for seed in tool.SEEDS])
@pytest.mark.parametrize("name", tool.REAL)
def test_the_labels_of_a_set_add_up_to_it(seed: str, name: str) -> None:
    labels, whole = EVIDENCE["labels"][seed][name].values(), EVIDENCE["seeds"][seed][name]
    assert sum(part["n"] for part in labels) == whole["n"]
    right = sum(part["n"] * part["margin_accuracy"] for part in labels)
    assert right == pytest.approx(whole["n"] * whole["margin_accuracy"])


@pytest.mark.parametrize("seed", [str(seed) for seed in tool.SEEDS])
def test_errors_are_binomial_where_every_prompt_is_there_once(seed: str) -> None:
    found = EVIDENCE["seeds"][seed]["ultrafeedback"]
    share, n = found["margin_accuracy"], found["n"]
    assert n == found["prompts"] == tool.SOURCES["ultrafeedback"].n_test
    assert found["margin_accuracy_se"] == pytest.approx((share * (1 - share) / (n - 1)) ** 0.5)


def test_the_readme_claims_a_set_only_for_the_seeds_that_bear_it() -> None:
    assert not tool.above_chance({"margin_accuracy": 0.55, "margin_accuracy_se": 0.03})
    assert tool.above_chance({"margin_accuracy": 0.57, "margin_accuracy_se": 0.03})
    changed = copy.deepcopy(EVIDENCE)
    for seed, error in (("0", 0.01), ("1", 0.3), ("2", 0.01)):
        changed["seeds"][seed]["pandalm"].update(margin_accuracy=0.6, margin_accuracy_se=error)
    assert "- PandaLM, test: in 2 of 3 seeds (0, 2)" in tool.claims(changed)
    for found in changed["seeds"].values():
        found["pandalm"]["margin_accuracy"] = 0.5
    assert "- PandaLM, test: in 0 of 3 seeds" in tool.claims(changed)


# The script


def _pair(prompt: str, gap: float = 2.0) -> PreferencePair:
    return PreferencePair(
        pair_id=f"p-{prompt}-{gap}",
        prompt=prompt,
        chosen=f"an answer to {prompt}",
        rejected="no",
        metadata={"score_chosen": 5.0 + gap, "score_rejected": 5.0},
    )


def _prompts(pairs: list[PreferencePair]) -> set[str]:
    return {pair.prompt_text for pair in pairs}


def test_the_parts_share_no_prompt_and_a_prompt_keeps_its_place() -> None:
    source = tool.Source("made up", "none", n_test=5, n_validation=3)
    pairs = [_pair(f"prompt {n}", gap) for n in range(20) for gap in (2.0, 0.5)]
    parts = tool.split(pairs, source)
    prompts = {name: _prompts(part) for name, part in parts.items()}
    assert {name: len(inside) for name, inside in prompts.items()} == {
        "test": 5,
        "validation": 3,
        "train": 12,
    }
    assert len(set.union(*prompts.values())) == 20
    assert {name: len(part) for name, part in parts.items()} == {
        "test": 5,  # unclear pairs of held-out prompts are in no part
        "validation": 3,
        "train": 24,
    }
    again = tool.split([*reversed(pairs)], source)
    assert {name: _prompts(part) for name, part in again.items()} == prompts
    late = max((f"prompt {n}" for n in range(20)), key=lambda p: tool.digest(p.encode()))
    fewer = tool.split([pair for pair in pairs if pair.prompt != late], source)
    assert _prompts(fewer["test"]) == prompts["test"]


def test_votes_make_a_pair_clear_as_scores_do() -> None:
    voted = _pair("a").model_copy(update={"metadata": {}, "votes_rejected": 1})
    assert tool.is_clear(voted.model_copy(update={"votes_chosen": 3}))
    assert not tool.is_clear(voted.model_copy(update={"votes_chosen": 2}))
    assert tool.is_clear(_pair("a", tool.MIN_GAP))
    assert not tool.is_clear(_pair("a", tool.MIN_GAP - 0.1))


def test_drawn_answers_are_what_their_kind_says() -> None:
    pairs = [_pair(f"prompt {n}", gap) for n in range(60) for gap in (2.0, 0.5)]
    found = tool.draw(pairs, ["refused"], ["filled"])
    assert sum(map(len, found.values())) == len(pairs)
    assert min(map(len, found.values())) > 5
    assert {p.rejected for p in found["refusal"]} == {"refused"}
    assert {p.rejected for p in found["filler"]} == {"filled"}
    assert all(p.rejected == "no" and tool.is_clear(p) for p in found["real"])
    answers = {pair.chosen for pair in pairs}
    assert all(p.rejected in answers - {p.chosen} for p in found["off_topic"])
    assert tool.draw(pairs, ["refused"], ["filled"]) == found


def test_validation_reads_refusals_and_fillers_that_training_never_sees() -> None:
    parts = {
        "made up": {
            name: [_pair(f"{name} {n}") for n in range(200)] for name in ("train", "validation")
        }
    }
    unseen = {p.rejected for pairs in tool.validation_pairs(parts).values() for p in pairs}
    seen = {p.rejected for p in tool.training_pairs(parts)}
    for texts in (tool.REFUSALS, tool.FILLERS):
        assert len(set(texts)) == len(texts)
        assert unseen & set(texts) == set(texts[-tool.N_UNSEEN :])
        assert seen & set(texts) == set(texts[: -tool.N_UNSEEN])


def test_a_prompt_on_both_sides_is_refused() -> None:
    tool.check_unseen([_pair("a")], {"test": [_pair("b")]})
    with pytest.raises(ValueError, match="1 pairs of test have a prompt that training sees"):
        tool.check_unseen([_pair("a")], {"test": [_pair("b"), _pair("a", 0.5)]})


def test_no_refusal_or_filler_is_a_text_of_the_teaching_set() -> None:
    theirs = {str(p.rejected) for p in open_source("teaching").pairs}
    assert not theirs & {*tool.REFUSALS, *tool.FILLERS}


def _material(logps: Tensor, sizes: list[tuple[int, int]], prompts: list[str]) -> Any:
    tokens = [
        PairTokens(torch.zeros(1).long(), (torch.zeros(a).long(), torch.zeros(b).long()))
        for a, b in sizes
    ]
    cached = [CachedPair(t, torch.zeros(len(t), 1)) for t in tokens]
    labels = [tool.label(_pair(p), t) for p, t in zip(prompts, tokens, strict=True)]
    return tool.Material(prompts, cached, logps, labels)


def test_measures_agree_with_hand_made_numbers() -> None:
    reference = torch.tensor([[-4.0, -6.0], [-9.0, -6.0], [-5.0, -5.0], [-8.0, -2.0]]).double()
    policy = torch.tensor([[-3.0, -7.0], [-8.0, -6.0], [-6.0, -5.0], [-8.0, -2.0]]).double()
    sizes = [(2, 2), (3, 1), (1, 2), (4, 1)]
    found = tool.measure(policy, _material(reference, sizes, ["a", "b", "c", "d"]))
    assert found["n"] == found["prompts"] == 4
    assert found["margin_accuracy"] == 0.5  # +2, +1, -1, and a tie that does not count
    assert found["margin"] == 0.5
    assert found["margin_size"] == 1.0
    assert (found["chosen_shift"], found["rejected_shift"]) == (0.25, -0.25)
    assert (found["reference_ranking_accuracy"], found["ranking_accuracy"]) == (0.5, 0.25)
    assert found["reference_normalised_ranking_accuracy"] == 0.75
    assert found["normalised_ranking_accuracy"] == 0.75
    assert found["longer_is_chosen"] == 0.5
    assert found["longer_is_favoured"] == 0.5  # pairs 2 and 3; equal lengths favour neither


def test_labels_are_measured_apart() -> None:
    reference, sizes = torch.zeros(4, 2).double(), [(2, 1), (2, 1), (1, 2), (1, 2)]
    policy = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).double()
    found = tool.by_label(policy, _material(reference, sizes, ["a", "b", "c", "d"]))
    assert {name: (part["n"], part["margin_accuracy"]) for name, part in found.items()} == {
        "chosen is longer": (2, 1.0),
        "chosen is shorter": (2, 0.5),
    }


def test_pairs_of_one_prompt_count_once_in_the_error() -> None:
    reference, sizes = torch.zeros(4, 2).double(), [(1, 1)] * 4
    policy = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]).double()
    alone = tool.measure(policy, _material(reference, sizes, ["a", "b", "c", "d"]))
    shared = tool.measure(policy, _material(reference, sizes, ["a", "a", "b", "b"]))
    assert alone["margin_accuracy_se"] == pytest.approx((0.25 / 3) ** 0.5)
    assert shared["margin_accuracy_se"] == pytest.approx((0.25 / 1) ** 0.5)


# The product's own route to it


@needs_default_model
def test_it_is_listed_as_available() -> None:
    found = {model.name: model.available for model in list_models()}
    assert found["default+policy"]


@pytest.mark.default_model
@needs_default_model
def test_policy_and_reference_share_weights_and_differ_as_the_evidence_says() -> None:
    policy, reference = (
        load_model(parse_model(name), dtype="float32") for name in ("default+policy", "default")
    )
    assert policy.model is reference.model
    assert policy.digest != reference.digest
    pairs = open_source("teaching").pairs[::8]
    requests = [Request(p.prompt, text) for p in pairs for text in (p.chosen, p.rejected)]
    moved = torch.tensor(
        [
            now.logp - before.logp
            for now, before in zip(
                *(ModelScorer(role).score(requests) for role in (policy, reference)), strict=True
            )
        ]
    ).view(-1, 2)
    assert float(moved.abs().min()) > 0
    margins = (moved[:, 0] - moved[:, 1]).double()
    claimed = EVIDENCE["seeds"]["0"]["teaching"]
    error = float(margins.std()) / len(margins) ** 0.5
    assert abs(float(margins.mean()) - claimed["margin"]) < 4 * error

import importlib.util
import itertools
import json
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats

from workbench.data.pairs import PreferencePair, PreferenceSet, build_pair

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "workbench" / "data" / "bundled"
TRAPS = ("length", "flattery", "refusal", "confident_error", "none")
REFUSES = re.compile(r"(cannot|unable to|will not|would rather not)\b")


def load_tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by its name
    spec.loader.exec_module(module)
    return module


def read(name: str) -> list[dict[str, Any]]:
    text = (BUNDLED / f"{name}.jsonl").read_bytes().decode("utf-8")
    return [json.loads(line) for line in text.splitlines()]


TEACHING = read("teaching")
DECISIONS = read("decisions")


def n_words(text: str) -> int:
    return len(text.split())


def grades_by_answer(rows: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for row in rows:
        for side in ("chosen", "rejected"):
            grade = row["metadata"][f"{side}_grade"]
            assert found[row["prompt"]].setdefault(row[side], grade) == grade
    return dict(found)


# both sets


@pytest.mark.parametrize(
    ("tool", "name"), [("make_teaching_pairs", "teaching"), ("make_decision_set", "decisions")]
)
def test_generator_reproduces_the_file_to_the_byte(tool: str, name: str) -> None:
    assert load_tool(tool).render() == (BUNDLED / f"{name}.jsonl").read_bytes()


@pytest.mark.parametrize("rows", [TEACHING, DECISIONS], ids=["teaching", "decisions"])
def test_every_line_is_a_valid_pair_with_an_id_of_its_own(rows: list[dict[str, Any]]) -> None:
    pairs = PreferenceSet("bundled", [build_pair(row) for row in rows])
    assert len(pairs) == len(rows)
    assert all(isinstance(pair, PreferencePair) for pair in pairs)


@pytest.mark.parametrize("rows", [TEACHING, DECISIONS], ids=["teaching", "decisions"])
def test_texts_are_clean(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        for text in (row["prompt"], row["chosen"], row["rejected"]):
            assert text == text.strip()
            assert "  " not in text
            assert all(char.isprintable() or char == "\n" for char in text), row["pair_id"]
            assert not re.search(r"\b(\w+) \1\b", text.replace("oh snow, oh", "")), row["pair_id"]
        assert row["chosen"] != row["rejected"]


@pytest.mark.parametrize("name", ["teaching", "decisions"])
def test_data_card_states_the_sizes(name: str) -> None:
    rows = {"teaching": TEACHING, "decisions": DECISIONS}[name]
    card = (BUNDLED / "README.md").read_text(encoding="utf-8")
    prompts = len({row["prompt"] for row in rows})
    assert re.search(rf"\| `{name}\.jsonl` \| {len(rows)} \| {prompts}\b", card)
    assert "Apache-2.0" in card


# teaching set


def test_teaching_set_is_large_enough() -> None:
    candidates = grades_by_answer(TEACHING)
    assert len(TEACHING) >= 132
    assert len(candidates) >= 44
    assert all(sorted(grades.values()) == [1, 2, 3, 4] for grades in candidates.values())
    per_prompt = Counter(row["prompt"] for row in TEACHING)
    assert min(per_prompt.values()) >= 3


def test_teaching_answers_occur_once_in_the_whole_set() -> None:
    candidates = grades_by_answer(TEACHING)
    answers = [re.sub(r"\W+", " ", a).casefold() for grades in candidates.values() for a in grades]
    assert len(answers) == len(set(answers)) == 4 * len(candidates)


def test_teaching_texts_are_short() -> None:
    for row in TEACHING:
        assert 5 <= n_words(row["prompt"]) <= 30, row["pair_id"]
        assert 8 <= n_words(row["chosen"]) <= 60, row["pair_id"]
        assert 8 <= n_words(row["rejected"]) <= 60, row["pair_id"]


def test_teaching_evidence_agrees_with_the_grades() -> None:
    for row in TEACHING:
        better, worse = row["metadata"]["chosen_grade"], row["metadata"]["rejected_grade"]
        assert 1 <= worse < better <= 4
        assert (row["chosen_score"], row["rejected_score"]) == (better, worse)
        assert row["strength"] == better - worse
        assert re.fullmatch(rf"t-[a-z_]+-\d\d-{better}v{worse}", row["pair_id"])


def test_votes_add_up_and_follow_the_documented_model() -> None:
    shares = defaultdict(list)
    for row in TEACHING:
        assert row["votes_chosen"] >= 0
        assert row["votes_chosen"] + row["votes_rejected"] == 9
        assert row["metadata"]["votes"] == "simulated"
        shares[row["strength"]].append(row["votes_chosen"] / 9)
    for distance, values in shares.items():
        expected = 1 / (1 + np.exp(-distance))
        standard_error = np.sqrt(expected * (1 - expected) / (9 * len(values)))
        assert abs(np.mean(values) - expected) < 3.5 * standard_error


def test_some_votes_are_split_and_some_are_unanimous() -> None:
    votes = Counter(row["votes_chosen"] for row in TEACHING)
    assert sum(votes[n] for n in (3, 4, 5, 6)) >= 20
    assert votes[9] >= 20


def test_every_trap_is_there_often_enough() -> None:
    traps = Counter(row["metadata"]["trap"] for row in TEACHING)
    assert set(traps) == set(TRAPS)
    assert min(traps.values()) >= 8


def length_trap_holds(row: dict[str, Any]) -> bool:
    chosen, rejected = row["chosen"], row["rejected"]
    return n_words(rejected) > n_words(chosen) and len(rejected) > len(chosen)


def test_length_traps_are_longer_on_the_rejected_side() -> None:
    trapped = [row for row in TEACHING if row["metadata"]["trap"] == "length"]
    assert all(length_trap_holds(row) for row in trapped)
    swapped = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in trapped]
    assert not any(length_trap_holds(row) for row in swapped)


def test_over_refusals_refuse() -> None:
    for row in TEACHING:
        if row["metadata"]["trap"] == "refusal":
            assert REFUSES.search(row["rejected"]), row["pair_id"]


def test_no_good_answer_to_a_harmless_prompt_refuses() -> None:
    good = [row for row in TEACHING if row["metadata"]["chosen_grade"] >= 3]
    refusing = [row for row in good if re.match(r"(Sorry, )?I (cannot|will not)", row["chosen"])]
    assert {row["metadata"]["topic"] for row in refusing} == {"safety"}


def test_safety_has_proper_refusals_too() -> None:
    refused = {
        row["prompt"]
        for row in TEACHING
        if row["metadata"]["chosen_grade"] == 4 and re.match(r"I (cannot|will not)", row["chosen"])
    }
    topics = {row["metadata"]["topic"] for row in TEACHING if row["prompt"] in refused}
    assert len(refused) >= 3
    assert topics == {"safety"}


def test_length_alone_does_not_give_the_better_answer_away() -> None:
    longer = sum(len(row["chosen"]) > len(row["rejected"]) for row in TEACHING)
    assert 0.4 <= longer / len(TEACHING) <= 0.6
    card = (BUNDLED / "README.md").read_text(encoding="utf-8")
    assert f"In {longer} of the {len(TEACHING)} pairs the chosen answer is the longer one" in card
    assert f"the other {len(TEACHING) - longer} the shorter" in card


def test_teaching_attributes_are_true_of_the_prompt() -> None:
    for row in TEACHING:
        assert set(row["attributes"]) == {"topic", "register"}
        assert row["attributes"]["topic"] == row["metadata"]["topic"]
        assert row["pair_id"].startswith(f"t-{row['metadata']['topic']}-")
        assert row["metadata"]["kind"] in ("open", "knowledge")
        casual = row["prompt"][0].islower()
        assert row["attributes"]["register"] == ("casual" if casual else "formal")


def test_teaching_groups_are_large_enough_to_compare() -> None:
    pairs = PreferenceSet("teaching", [build_pair(row) for row in TEACHING])
    assert pairs.attribute_kind("topic") == "categorical"
    assert pairs.attribute_kind("register") == "binary"
    topics = Counter(row["attributes"]["topic"] for row in TEACHING)
    assert len(topics) >= 12
    assert min(topics.values()) >= 12
    registers = Counter(row["attributes"]["register"] for row in TEACHING)
    assert min(registers.values()) >= 0.4 * len(TEACHING)


@pytest.mark.parametrize(
    "line",
    ["5 a grade that does not exist", "4 [lenght] a misspelt trap", "no mark at all", "4too close"],
)
def test_source_with_a_wrong_line_is_refused_by_its_number(line: str) -> None:
    source = f"= cooking-01 | open | formal\n? A prompt.\n{line}\n"
    with pytest.raises(ValueError, match="line 3"):
        load_tool("make_teaching_pairs").read_prompts(source)


# decision set


def test_decision_set_has_the_promised_design() -> None:
    assert 240 <= len(DECISIONS) <= 480
    cells = Counter(
        (row["metadata"]["template"], row["attributes"]["gender"], row["attributes"]["race"])
        for row in DECISIONS
    )
    templates, genders, races = (set(values) for values in zip(*cells, strict=True))
    assert len(templates) >= 8
    assert len(genders) == 3
    assert len(races) >= 4
    assert len(cells) == len(templates) * len(genders) * len(races)
    assert len(set(cells.values())) == 1


def test_ages_are_many_and_cover_the_range() -> None:
    pairs = PreferenceSet("decisions", [build_pair(row) for row in DECISIONS])
    assert pairs.attribute_kind("age") == "continuous"
    assert pairs.attribute_kind("gender") == pairs.attribute_kind("race") == "categorical"
    ages = [row["attributes"]["age"] for row in DECISIONS]
    assert (min(ages), max(ages)) == (20, 80)
    assert len(set(ages)) >= 50


def age_dependence(rows: list[dict[str, Any]], name: str) -> float:
    """Share of the variance of age that the groups explain (eta squared)."""
    ages = np.array([row["attributes"]["age"] for row in rows], dtype=float)
    labels = np.array([(row["attributes"] | row["metadata"])[name] for row in rows])
    means = {label: ages[labels == label].mean() for label in set(labels)}
    return float(np.var([means[label] for label in labels]) / np.var(ages))


@pytest.mark.parametrize("name", ["gender", "race", "template"])
def test_age_is_nearly_independent_of_the_groups(name: str) -> None:
    assert age_dependence(DECISIONS, name) < 0.005


def test_age_check_notices_a_planted_dependence() -> None:
    shift = {"woman": 0, "man": 6, "non-binary": 12}
    planted = [
        row | {"attributes": row["attributes"] | {"age": row["attributes"]["age"] + shift[gender]}}
        for row in DECISIONS
        for gender in [row["attributes"]["gender"]]
    ]
    assert age_dependence(planted, "gender") > 0.05


@pytest.mark.parametrize(
    ("first", "second"), list(itertools.combinations(["gender", "race", "template"], 2))
)
def test_groups_are_exactly_independent(first: str, second: str) -> None:
    flat = [row["attributes"] | row["metadata"] for row in DECISIONS]
    counts = Counter((row[first], row[second]) for row in flat)
    rows, columns = (sorted(set(values)) for values in zip(*counts, strict=True))
    table = np.array([[counts[row, column] for column in columns] for row in rows])
    assert stats.chi2_contingency(table).statistic == pytest.approx(0, abs=1e-9)


def test_prompts_state_the_attributes_and_differ_in_nothing_else() -> None:
    nouns = {"woman": "woman", "man": "man", "non-binary": "non-binary person"}
    frames = defaultdict(set)
    for row in DECISIONS:
        person = row["attributes"]
        words = f"{person['age']}-year-old {person['race']} {nouns[person['gender']]}"
        frame, found = re.subn(rf"\ban? {words}(?! person)", "PERSON", row["prompt"])
        assert found == 1, row["pair_id"]
        frames[row["metadata"]["template"]].add((frame, row["chosen"], row["rejected"]))
    assert all(len(variants) == 1 for variants in frames.values())


def test_articles_fit_the_ages() -> None:
    for row in DECISIONS:
        article = "an" if str(row["attributes"]["age"]).startswith("8") else "a"
        assert f" {article} {row['attributes']['age']}-year-old" in row["prompt"]


def test_decision_prompts_are_distinct_and_ask_one_question() -> None:
    assert len({row["prompt"] for row in DECISIONS}) == len(DECISIONS)
    for row in DECISIONS:
        assert row["prompt"].count("?") == 1
        assert row["prompt"].endswith("?")
        assert not re.search(r"\b(he|she|his|her|him|they|their)\b", row["prompt"])
        assert row["chosen"].startswith("Yes, ")
        assert row["rejected"].startswith("No, ")
        assert abs(n_words(row["chosen"]) - n_words(row["rejected"])) <= 1

"""The pages about studies say what the code says."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from workbench.study.catalogue import BUILT_IN, load_study
from workbench.study.runner import Conditions, run
from workbench.study.words import (
    CLAIM_HEAD,
    CONTROL_HEAD,
    authors_of,
    claim_cells,
    control_cells,
    papers_page,
    source_of,
    summary_of,
)

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "write_a_study.md"
REMAKE = "workbench study list --markdown > docs/papers.md"


def test_the_page_of_papers_is_up_to_date() -> None:
    written = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    assert written == papers_page(map(load_study, BUILT_IN)), f"run `{REMAKE}`"
    assert REMAKE in written


def test_the_page_on_writing_a_study_shows_the_example_that_the_tests_run() -> None:
    example = (ROOT / "tests/study/example_study.py").read_text(encoding="utf-8")
    block = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    assert block[1] == example


def test_the_pages_last_example_is_a_test_that_passes(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.study.contract import CHECKS, try_study

    last = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[-1]
    code = last.replace("from my_package.coin", "from example_study")
    space: dict[str, Any] = {}
    exec(compile(code, "page", "exec"), space)
    for check in CHECKS.values():
        space["test_the_study_keeps_the_contract"](check)
    assert space["try_study"] is try_study


def test_a_hostile_title_stays_a_text_in_markdown(example: ModuleType) -> None:
    class Hostile(example.CoinStudy):  # type: ignore[misc, name-defined]
        title = "<script>x</script> [a](javascript:1) | *b* `c`"

    page = papers_page([Hostile()])
    assert "<script>" not in page
    assert "[a](" not in page
    assert r"\<script\>" in page


def test_words_for_claims_and_controls_fit_their_heads(example: ModuleType) -> None:
    study = example.CoinStudy()
    report = run(study, study.presets["smoke"], Conditions(seeds=(0, 1)), controls=True)
    (claim,) = report.verdicts
    (control,) = report.controls
    assert len(claim_cells(claim)) == len(CLAIM_HEAD)
    assert len(control_cells(control)) == len(CONTROL_HEAD)
    assert claim_cells(claim)[5:] == ["✓ holds", "2 of 2"]
    assert control_cells(control)[3] == "✓ caught"
    assert summary_of(report) == (
        "1 of 1 gated claims hold (seeds 0, 1); 1 of 1 controls are caught."
    )
    assert authors_of(study) == "Bernoulli, 1713"


@pytest.mark.parametrize("slug", list(BUILT_IN))
def test_the_source_of_a_study_is_a_path_within_the_package(slug: str) -> None:
    assert (ROOT / source_of(load_study(slug))).is_dir()

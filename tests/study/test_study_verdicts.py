from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from workbench.study import verdicts
from workbench.study.runner import Conditions, run
from workbench.study.verdicts import CHECK_SEEDS, VerdictBook

SEEDS = tuple(range(CHECK_SEEDS))


@pytest.fixture
def study(example: ModuleType) -> Any:
    return example.CoinStudy()


@pytest.fixture
def book(tmp_path: Path) -> VerdictBook:
    return VerdictBook(tmp_path)


def check(study: Any, seeds: tuple[int, ...] = SEEDS, **changes: Any) -> Any:
    return run(study, replace(study.presets["default"], **changes), Conditions(seeds=seeds))


def test_a_study_that_never_ran_says_so(study: Any, book: VerdictBook) -> None:
    assert book.badge(study) == "never run"


def test_only_a_run_as_it_was_meant_over_enough_seeds_is_a_check(
    study: Any, book: VerdictBook
) -> None:
    for report in (check(study, (0,)), check(study, bias=0.31)):
        book.note(report)
        assert book.badge(study) == "not checked"
    book.note(check(study))
    assert book.badge(study) == "passed"


def test_a_failed_check_stays_until_the_next_check(
    study: Any, example: ModuleType, book: VerdictBook
) -> None:
    failed = replace(check(example._Heads()), study=study)
    assert not failed.passes
    book.note(failed)
    book.note(check(study, (0,)))
    assert book.badge(study) == "failed"
    book.note(check(study))
    assert book.badge(study) == "passed"


def test_a_changed_source_takes_the_verdict_away(
    study: Any, book: VerdictBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    book.note(check(study))
    monkeypatch.setattr(verdicts, "sources_digest", lambda package: "edited")
    assert book.badge(study) == "not checked"


def test_edited_inputs_say_nothing_of_the_study(study: Any, book: VerdictBook) -> None:
    book.note(replace(check(study), inputs={"votes": {"n": [1]}}))
    assert book.badge(study) == "not checked"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"passes": true}', "\x00"])
def test_a_spoilt_file_is_no_verdict(
    text: str, study: Any, book: VerdictBook, tmp_path: Path
) -> None:
    book.note(check(study, (0,)))
    (tmp_path / study.slug / "verdict.json").write_text(text)
    assert book.badge(study) == "not checked"


def test_a_place_that_cannot_be_written_harms_no_run(study: Any, tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("")
    VerdictBook(place).note(check(study, (0,)))

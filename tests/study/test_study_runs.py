"""The run store at its limit; what its keys follow from is tested with the runner."""

import os
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from workbench.study.runs import FitKey, RunStore


@pytest.fixture
def key(example: ModuleType) -> Any:
    study = example.CoinStudy()
    return lambda seed: FitKey(study, study.presets["smoke"], seed, "cpu", {})


def fit_of(kilobytes: int) -> torch.Tensor:
    return torch.zeros(kilobytes * 1024, dtype=torch.uint8)


def used(store: RunStore, key: FitKey, at: int) -> None:
    """Set when a fit was last used, so that the test need not wait."""
    os.utime(store.folder(key), (at, at))


def test_what_was_used_longest_ago_goes_first(key: Any, tmp_path: Path) -> None:
    store = RunStore(tmp_path, limit=250 * 1024)
    for seed in (0, 1):
        store.write(key(seed), fit_of(100))
        used(store, key(seed), 1000 + seed)
    store.write(key(2), fit_of(100))
    assert [store.holds(key(seed)) for seed in range(3)] == [False, True, True]


def test_reading_a_fit_is_using_it(key: Any, tmp_path: Path) -> None:
    store = RunStore(tmp_path, limit=250 * 1024)
    for seed in (0, 1):
        store.write(key(seed), fit_of(100))
        used(store, key(seed), 1000 + seed)
    assert store.read(key(0)) is not None
    store.write(key(2), fit_of(100))
    assert [store.holds(key(seed)) for seed in range(3)] == [True, False, True]


def test_the_newest_fit_stays_though_it_alone_is_too_large(key: Any, tmp_path: Path) -> None:
    store = RunStore(tmp_path, limit=10)
    store.write(key(0), fit_of(100))
    assert store.holds(key(0))
    store.write(key(1), fit_of(100))
    assert [store.holds(key(seed)) for seed in range(2)] == [False, True]


def test_the_limit_is_over_all_studies_and_none_is_no_limit(key: Any, tmp_path: Path) -> None:
    other = replace(key(0), study=type("Other", (type(key(0).study),), {"slug": "other"})())
    store = RunStore(tmp_path, limit=None)
    for each in (key(0), other):
        store.write(each, fit_of(100))
    assert store.holds(key(0))
    limited = RunStore(tmp_path, limit=150 * 1024)
    used(store, other, 1000)
    limited.write(key(1), fit_of(100))
    assert not store.holds(other)


def test_what_is_no_fit_is_never_deleted(key: Any, tmp_path: Path) -> None:
    (tmp_path / "coin" / "notes").mkdir(parents=True)
    (tmp_path / "coin" / "notes" / "mine.txt").write_bytes(b"x" * 200_000)
    (tmp_path / "coin" / "verdict.json").write_text("{}")
    RunStore(tmp_path, limit=10).write(key(0), fit_of(1))
    assert (tmp_path / "coin" / "notes" / "mine.txt").is_file()
    assert (tmp_path / "coin" / "verdict.json").is_file()

"""The guard that refuses what would not fit."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import ScoringError
from workbench.scoring import memory

GB = 10**9


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set how much is free: free(4 * GB)."""

    def put(amount: int) -> None:
        monkeypatch.setattr(memory, "available_bytes", lambda device: amount)

    return put


def _sources(folder: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> None:
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text, encoding="ascii")
    monkeypatch.setattr(memory, "_MEMINFO", folder / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", folder)


def test_free_memory_is_what_the_kernel_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _sources(
        tmp_path, monkeypatch, meminfo="MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable: 2048 kB\n"
    )
    assert memory.available_bytes("cpu") == 2048 * 1024


@pytest.mark.parametrize(
    ("limit", "stat", "expected"),
    [
        ("3000", "anon 1\ninactive_file 200\n", 3000 - 1000 + 200),
        ("3000", "anon 1\n", 2000),
        ("500", "inactive_file 0\n", 0),
        ("max", "inactive_file 200\n", 1024 * 1024),
        ("9999999999", "inactive_file 0\n", 1024 * 1024),
    ],
)
def test_a_containers_limit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, stat: str, expected: int
) -> None:
    _sources(
        tmp_path,
        monkeypatch,
        meminfo="MemAvailable: 1024 kB\n",
        memory_max=limit,
        memory_current="1000\n",
        memory_stat=stat,
    )
    assert memory.available_bytes("cpu") == expected


@pytest.mark.parametrize("text", [None, "MemTotal: 1 kB\n"])
def test_without_meminfo_sysconf_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    _sources(tmp_path, monkeypatch, **({} if text is None else {"meminfo": text}))
    values = {"SC_AVPHYS_PAGES": 7, "SC_PHYS_PAGES": 40, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", values.__getitem__)
    monkeypatch.setattr(os, "sysconf_names", values)
    assert memory.available_bytes("mps:0") == 7 * 4096
    monkeypatch.setattr(os, "sysconf_names", {"SC_PHYS_PAGES": 1})
    assert memory.available_bytes("cpu") == 20 * 4096
    monkeypatch.delattr(os, "sysconf_names")
    assert memory.available_bytes("cpu") == sys.maxsize


def test_a_graphics_card_is_asked_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    asked: list[str] = []

    def info(device: str) -> tuple[int, int]:
        asked.append(device)
        return 5 * GB, 80 * GB

    monkeypatch.setattr(torch.cuda, "mem_get_info", info)
    assert memory.available_bytes("cuda:1") == 5 * GB
    assert asked == ["cuda:1"]


def test_what_fits_passes_and_what_does_not_says_how_much(free: Any) -> None:
    free(10 * GB)
    memory.check_fits(9 * GB, "cpu", "Loading big", "choose small.")
    with pytest.raises(ScoringError) as caught:
        memory.check_fits(9 * GB + 1, "cpu", "Loading big", "choose small.")
    assert str(caught.value) == (
        "Loading big needs 9.0 GB, and 10.0 GB are free on cpu; choose small."
    )


@given(
    amount=st.integers(10**6, 10**12),
    vocabulary=st.integers(2, 300_000),
    hidden=st.integers(1, 16_384),
    layers=st.integers(1, 128),
)
def test_the_longest_row_that_fits_is_the_longest(
    amount: int, vocabulary: int, hidden: int, layers: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "available_bytes", lambda device: amount)
        tokens = memory.tokens_that_fit("cpu", vocabulary, hidden, layers)

    def needed(size: int) -> int:
        return memory.row_bytes(size, size, vocabulary, hidden, layers)

    room = amount * memory.SAFETY
    assert needed(tokens) <= room or tokens <= 1
    assert needed(tokens + 1) > room or tokens == 1 << 20


def test_the_estimate_is_no_less_than_the_logits_and_the_mask() -> None:
    tokens, predictors, vocabulary = 512, 300, 49_152
    found = memory.row_bytes(tokens, predictors, vocabulary, 576, 9)
    assert found >= predictors * vocabulary * 4 + tokens * tokens * 4


def test_a_row_is_refused_with_what_would_fit(free: Any, tiny_loaded: Any) -> None:
    config = tiny_loaded.model.config
    one = memory.row_bytes(128, 64, config.vocab_size, config.hidden_size, config.num_hidden_layers)
    free(int(one * 2.5 / memory.SAFETY))
    memory.check_rows(tiny_loaded, 2, 128, 64)
    with pytest.raises(ScoringError, match="2 of its 3 rows would fit, or a row of") as caught:
        memory.check_rows(tiny_loaded, 3, 128, 64)
    named = re.search(r"a row of (\d+) tokens;", str(caught.value))
    assert named is not None
    memory.check_rows(tiny_loaded, 1, int(named[1]), int(named[1]))
    free(one // 2)
    with pytest.raises(ScoringError, match="free on cpu; a row of"):
        memory.check_rows(tiny_loaded, 1, 128, 64)

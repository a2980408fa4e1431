import itertools
import json
import pickle
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import TrainingError
from workbench.objectives.bco import RewardShift
from workbench.training import snapshots
from workbench.training.plan import TrainingPlan
from workbench.training.snapshots import (
    PassOrder,
    RunStore,
    Snapshot,
    SnapshotRing,
    load_snapshot,
    save_snapshot,
)


def snapshot(step: int = 3, size: int = 4) -> Snapshot:
    generator = torch.Generator().manual_seed(step)
    weights = {"a": torch.randn(size, generator=generator)}
    return Snapshot(
        step=step,
        plan=TrainingPlan(objective="bco", attributes=("age",)),
        weights=weights,
        optimiser={"0/step": torch.tensor(3.0), "0/exp_avg": weights["a"] / 3},
        order=PassOrder.seeded(7).take([f"p{i}" for i in range(5)], 2)[1],
        reference=weights,
        shift=RewardShift(0.25, 3),
        first_loss=0.7,
        pairs="abc",
    )


@given(n=st.integers(1, 20), size=st.integers(1, 25), seed=st.integers(0, 5))
def test_every_pass_visits_every_pair_once_and_no_batch_has_one_twice(
    n: int, size: int, seed: int
) -> None:
    ids, order = [f"p{i}" for i in range(n)], PassOrder.seeded(seed)
    seen: list[str] = []
    for _ in range(3 * n):
        batch, order = order.take(ids, size)
        assert len(batch) == len(set(batch)) == min(size, n)
        seen += batch
    counts = Counter(seen)
    assert max(counts.values()) - min(counts[name] for name in ids) <= 1
    assert set(seen[:n]) == set(ids)


def test_taking_a_batch_changes_nothing_that_was_there() -> None:
    order = PassOrder.seeded(0)
    first = order.take(["a", "b", "c"], 2)[0]
    assert order.take(["a", "b", "c"], 2)[0] == first


def test_pairs_that_went_are_not_visited_and_new_ones_come_with_the_next_pass() -> None:
    _, order = PassOrder.seeded(0).take(["a", "b", "c", "d"], 1)
    gone = order.rest[0]
    left = [name for name in "abcd" if name != gone] + ["new"]
    batch, order = order.take(left, 2)
    assert gone not in batch
    assert "new" not in batch
    following, _ = order.take(left, 4)
    assert set(following) == set(left)


def test_a_snapshot_comes_back_from_the_disk_to_the_bit(tmp_path: Path) -> None:
    before = snapshot()
    save_snapshot(before, tmp_path / "s.safetensors")
    after = load_snapshot(tmp_path / "s.safetensors")
    for group in ("weights", "optimiser", "reference"):
        ours, theirs = getattr(before, group), getattr(after, group)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(after.order.random, before.order.random)
    assert after.order.rest == before.order.rest
    assert (after.step, after.plan, after.shift) == (before.step, before.plan, before.shift)
    assert (after.first_loss, after.best_loss) == (0.7, float("inf"))


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "x.safetensors"
    whole = tmp_path / "s.safetensors"
    save_snapshot(snapshot(), whole)
    contents = {
        "nothing": b"",
        "text": b"hello",
        "pickle": pickle.dumps({"weights": 1}),
        "cut short": whole.read_bytes()[:-7],
    }
    for words, content in contents.items():
        path.write_bytes(content)
        with pytest.raises(TrainingError, match="no training state"):
            load_snapshot(path)
        assert words
    for header in ({}, {"snapshot": "[]"}, {"snapshot": json.dumps({"format": "other"})}):
        save_file({"a": torch.zeros(2)}, path, header)
        with pytest.raises(TrainingError, match="no training state"):
            load_snapshot(path)
    with pytest.raises(TrainingError, match="no training state"):
        load_snapshot(tmp_path / "missing.safetensors")


def test_a_later_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "VERSION", 2)
    save_snapshot(snapshot(), tmp_path / "s.safetensors")
    monkeypatch.undo()
    with pytest.raises(TrainingError, match="version is 2"):
        load_snapshot(tmp_path / "s.safetensors")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match="cannot be written"):
        RunStore(tmp_path / "file").write({}, {("b1", 3): snapshot()})


def test_the_ring_thins_evenly_and_keeps_first_last_and_pinned() -> None:
    ring = SnapshotRing(keep=8)
    for step in range(101):
        ring.add("b1", snapshot(step))
        if step == 37:
            ring.pin("b1", 37)
    steps = ring.steps("b1")
    assert len(steps) == 8
    assert {0, 37, 100} <= set(steps)
    gaps = [b - a for a, b in itertools.pairwise(steps)]
    assert max(gaps) <= 40
    assert ring.get("b1", 37).step == 37
    with pytest.raises(TrainingError, match=r"Step 36 is not kept; the nearest are .*37"):
        ring.get("b1", 36)


def test_the_ring_stays_within_its_memory_over_all_branches() -> None:
    one = snapshot(0, 1000).n_bytes
    ring = SnapshotRing(most_bytes=10 * one)
    for step in range(50):
        ring.add(f"b{step % 2}", snapshot(step, 1000))
        assert ring.n_bytes <= 10 * one
    assert {0, 48} <= set(ring.steps("b0"))
    assert {1, 49} <= set(ring.steps("b1"))


def test_a_run_on_the_disk_holds_what_it_names_and_no_more(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "training")
    assert not store.exists
    store.write({"place": "x"}, {("b1", 0): snapshot(0), ("b1", 5): snapshot(5)})
    store.write({"place": "y"}, {("b1", 0): snapshot(0), ("b1", 9): snapshot(9)})
    run, found = store.read()
    assert run["place"] == "y"
    assert sorted(found) == [("b1", 0), ("b1", 9)]
    names = sorted(path.name for path in store.folder.iterdir())
    assert names == ["b1-0.safetensors", "b1-9.safetensors", "run.json"]
    store.clear()
    assert not store.exists


@pytest.mark.parametrize("spoilt", ["{", "[]", '{"format": "x"}', "[" * 100_000])
def test_a_spoilt_run_is_refused(tmp_path: Path, spoilt: str) -> None:
    store = RunStore(tmp_path)
    (tmp_path / "run.json").write_text(spoilt)
    with pytest.raises(TrainingError, match=r"run\.json is no training state"):
        store.read()


def test_a_run_cannot_name_files_outside_its_folder(tmp_path: Path) -> None:
    inside = tmp_path / "run"
    store = RunStore(inside)
    store.write({}, {("b1", 0): snapshot(0)})
    save_snapshot(snapshot(4), tmp_path / "outside.safetensors")
    record = json.loads((inside / "run.json").read_text())
    record["snapshots"] = [["b1", 0, "../outside.safetensors"]]
    (inside / "run.json").write_text(json.dumps(record))
    with pytest.raises(TrainingError, match="outside"):
        store.read()

"""Where training stood after a step: kept in memory within bounds, and on the disk.

A snapshot on the disk is one safetensors file, whose header carries everything that is no tensor
as JSON. Nothing is pickled. A file appears whole or not at all.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.errors import TrainingError
from workbench.objectives.bco import RewardShift
from workbench.training.plan import TrainingPlan

FORMAT = "preference-workbench training"
VERSION = 1
RUN_FILE = "run.json"
_GROUPS = ("weights", "optimiser", "reference")


@dataclass(frozen=True, eq=False)
class PassOrder:
    """The pairs that the present pass over the data has still to visit, and the random state.

    Attributes:
        rest: Ids, the next first.
        random: State of the generator of the next pass's order, uint8.
    """

    rest: tuple[str, ...]
    random: Tensor

    @classmethod
    def seeded(cls, seed: int) -> "PassOrder":
        """Before the first pass."""
        return cls((), torch.Generator().manual_seed(seed).get_state())

    def take(self, ids: Iterable[str], size: int) -> tuple[list[str], "PassOrder"]:
        """The next batch, and what is left then; each pass visits all pairs once.

        A batch may join the end of one pass and the beginning of the next; no pair is twice in it.

        Args:
            ids: Of all pairs as they are now; others are no longer visited, new ones from the
                next pass on.
            size: Pairs a batch; all where there are fewer.
        """
        known = dict.fromkeys(ids)
        rest = [name for name in self.rest if name in known]
        random, size = self.random, min(size, len(known))
        if len(rest) < size:
            shuffled, random = _shuffled(list(known), random)
            ahead = set(rest)
            # What this batch still takes from the old pass comes last in the new one.
            rest += [name for name in shuffled if name not in ahead] + rest
        return rest[:size], PassOrder(tuple(rest[size:]), random)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """All that the next step depends on besides the pairs; tensors are on the CPU and its own.

    Attributes:
        step: Steps taken.
        plan: By which the last of them was taken.
        weights: The trained ones, by name.
        optimiser: Its state, by "number of the weight/name".
        reference: Weights of a reference that moved; empty where it has not.
        order: Of the pairs.
        shift: BCO's running mean reward; None for objectives without.
        first_loss: Which a diverging loss is compared with; NaN before there is one.
        best_loss: Lowest held-out loss so far; infinite before there is one.
        waited: Looks at the held-out pairs since then.
        pairs: Digest of the pairs that were trained on, for a person who compares runs.
    """

    step: int
    plan: TrainingPlan
    weights: Mapping[str, Tensor]
    optimiser: Mapping[str, Tensor]
    order: PassOrder
    reference: Mapping[str, Tensor] = field(default_factory=dict)
    shift: RewardShift | None = None
    first_loss: float = math.nan
    best_loss: float = math.inf
    waited: int = 0
    pairs: str = ""

    @cached_property
    def n_bytes(self) -> int:
        """Memory of the tensors."""
        groups = (self.weights, self.optimiser, self.reference)
        return sum(t.numel() * t.element_size() for group in groups for t in group.values())


class SnapshotRing:
    """Snapshots by branch and step, thinned evenly where they would take too much memory.

    The first and the last of each branch and those that are pinned are never given up.

    Args:
        keep: Most snapshots.
        most_bytes: Most memory of all.
    """

    def __init__(self, keep: int = 400, most_bytes: int = 256 << 20) -> None:
        self._keep = keep
        self._most_bytes = most_bytes
        self._held: dict[tuple[str, int], Snapshot] = {}
        self._pinned: set[tuple[str, int]] = set()

    def add(self, branch: str, snapshot: Snapshot) -> None:
        """Keep a snapshot, and give up others if need be."""
        self._held[branch, snapshot.step] = snapshot
        while len(self._held) > self._keep or self.n_bytes > self._most_bytes:
            spare = self._most_spare()
            if spare is None:
                break
            del self._held[spare]

    def pin(self, branch: str, step: int) -> None:
        """Never give up a snapshot."""
        self._pinned.add((branch, step))

    def get(self, branch: str, step: int) -> Snapshot:
        """A kept snapshot.

        Raises:
            TrainingError: it is not kept; the nearest are named.
        """
        found = self._held.get((branch, step))
        if found is None:
            near = sorted(self.steps(branch), key=lambda other: abs(other - step))[:4]
            raise TrainingError(
                f"Step {step} is not kept; the nearest are {', '.join(map(str, sorted(near)))}."
            )
        return found

    def steps(self, branch: str) -> tuple[int, ...]:
        """The kept steps of a branch, in order."""
        return tuple(sorted(step for name, step in self._held if name == branch))

    @property
    def pinned(self) -> dict[tuple[str, int], Snapshot]:
        """The first and the last of each branch, and what is pinned."""
        ends = self._pinned & self._held.keys()
        for branch in {name for name, _ in self._held}:
            steps = self.steps(branch)
            ends |= {(branch, steps[0]), (branch, steps[-1])}
        return {key: self._held[key] for key in sorted(ends)}

    @property
    def n_bytes(self) -> int:
        """Memory of all."""
        return sum(snapshot.n_bytes for snapshot in self._held.values())

    def clear(self) -> None:
        """Give up all."""
        self._held.clear()
        self._pinned.clear()

    def _most_spare(self) -> tuple[str, int] | None:
        """The snapshot between whose neighbours the gap would be the smallest."""
        gaps: list[tuple[int, int, str]] = []
        pinned = self.pinned
        for branch in {name for name, _ in self._held}:
            steps = self.steps(branch)
            inner = zip(steps, steps[1:], steps[2:], strict=False)
            gaps += [(c - a, b, branch) for a, b, c in inner if (branch, b) not in pinned]
        return (min(gaps)[2], min(gaps)[1]) if gaps else None


def save_snapshot(snapshot: Snapshot, path: Path) -> None:
    """Write a snapshot as one file.

    Raises:
        TrainingError: the file cannot be written.
    """
    from safetensors.torch import save

    tensors = {
        f"{group}/{name}": tensor.contiguous()
        for group in _GROUPS
        for name, tensor in getattr(snapshot, group).items()
    }
    record = {
        "format": FORMAT,
        "version": VERSION,
        "step": snapshot.step,
        "plan": snapshot.plan.to_json(),
        "rest": list(snapshot.order.rest),
        "shift": None if snapshot.shift is None else [snapshot.shift.mean, snapshot.shift.batches],
        "first_loss": _or_none(snapshot.first_loss),
        "best_loss": _or_none(snapshot.best_loss),
        "waited": snapshot.waited,
        "pairs": snapshot.pairs,
    }
    # Tensors that share memory are refused by safetensors, and a reference may be the weights.
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    tensors["random"] = snapshot.order.random
    _write(path, save(tensors, metadata={"snapshot": json.dumps(record, allow_nan=False)}))


def load_snapshot(path: Path) -> Snapshot:
    """Read back `save_snapshot`.

    Raises:
        TrainingError: no such file, or not a whole snapshot of this program.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("snapshot", "")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _snapshot(json.loads(header), tensors)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unreadable(path, error) from error


class RunStore:
    """A run on the disk: run.json, and a file for each snapshot that it names.

    Args:
        folder: Made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def exists(self) -> bool:
        """Whether there is a run."""
        return (self.folder / RUN_FILE).is_file()

    def write(self, run: Mapping[str, Any], snapshots: Mapping[tuple[str, int], Snapshot]) -> None:
        """Write a run; a kill at any moment leaves this one or the one before.

        Args:
            run: JSON values.
            snapshots: By branch and step; one that is there already is not written again.

        Raises:
            TrainingError: the folder cannot be written.
        """
        names = {key: f"{key[0]}-{key[1]}.safetensors" for key in snapshots}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for key, snapshot in snapshots.items():
                if not (self.folder / names[key]).is_file():
                    save_snapshot(snapshot, self.folder / names[key])
            listed = [[*key, name] for key, name in names.items()]
            record = {"format": FORMAT, "version": VERSION, **run, "snapshots": listed}
            _write(self.folder / RUN_FILE, json.dumps(record, allow_nan=False).encode())
            for path in self.folder.glob("*.safetensors*"):
                if path.name not in names.values():
                    path.unlink()
        except OSError as error:
            raise _unwritable(self.folder, error) from error

    def read(self) -> tuple[dict[str, Any], dict[tuple[str, int], Snapshot]]:
        """The run and its snapshots.

        Raises:
            TrainingError: there is none, or it is not whole.
        """
        path = self.folder / RUN_FILE
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
            _check_format(run)
            listed = [
                (str(branch), int(step), str(name)) for branch, step, name in run["snapshots"]
            ]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise _unreadable(path, error) from error
        # Only names, so that a record from elsewhere cannot point out of the folder.
        found = {(b, s): load_snapshot(self.folder / Path(name).name) for b, s, name in listed}
        return run, found

    def clear(self) -> None:
        """Remove the run; run.json first, so that no half of it is taken for one."""
        (self.folder / RUN_FILE).unlink(missing_ok=True)
        for path in self.folder.glob("*.safetensors*"):
            path.unlink(missing_ok=True)


def _shuffled(names: list[str], random: Tensor) -> tuple[list[str], Tensor]:
    generator = torch.Generator()
    generator.set_state(random)
    order = torch.randperm(len(names), generator=generator).tolist()
    return [names[place] for place in order], generator.get_state()


def _snapshot(record: Any, tensors: Mapping[str, Tensor]) -> Snapshot:  # noqa: ANN401 - JSON
    _check_format(record)
    groups = {
        group: {
            name.partition("/")[2]: tensor
            for name, tensor in tensors.items()
            if name.startswith(f"{group}/")
        }
        for group in _GROUPS
    }
    shift = record["shift"]
    best = record["best_loss"]
    first = record["first_loss"]
    return Snapshot(
        step=int(record["step"]),
        plan=TrainingPlan.from_json(record["plan"]),
        order=PassOrder(tuple(map(str, record["rest"])), tensors["random"]),
        shift=None if shift is None else RewardShift(float(shift[0]), int(shift[1])),
        first_loss=math.nan if first is None else float(first),
        best_loss=math.inf if best is None else float(best),
        waited=int(record["waited"]),
        pairs=str(record["pairs"]),
        **groups,
    )


def _check_format(record: Any) -> None:  # noqa: ANN401 - JSON
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError("it was not written by this program")
    if record.get("version") != VERSION:
        raise ValueError(f"its version is {record.get('version')!r} and not {VERSION}")


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _write(path: Path, content: bytes) -> None:
    fresh = path.with_name(f"{path.name}.new")
    try:
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unreadable(path: Path, error: Exception) -> TrainingError:
    words = " ".join(str(error).split())[:200]
    return TrainingError(
        f"{path.name} is no training state that can be read ({words}); start a new run, or put "
        "the file back as it was written."
    )


def _unwritable(path: Path, error: OSError) -> TrainingError:
    return TrainingError(
        f"{path} cannot be written ({error.strerror}); free some space or choose a folder that you "
        "may write."
    )

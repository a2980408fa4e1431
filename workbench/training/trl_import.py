"""What TRL and transformers leave behind: a run's history, and its checkpoints as policies.

A history is `trainer_state.json`, whose `log_history` has one entry for every logging and every
evaluation; steps that were not logged are not there. A checkpoint is a folder `checkpoint-N`, or
the output folder itself, with an adapter or a whole model; it is named as the model picker names
it and loaded by `load_model`, which reads safetensors and no pickle. The optimiser's and the random
numbers' files beside them are pickles and are never opened.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from workbench.errors import ModelError, TrainingError
from workbench.scoring.models import check_adapter, check_folder, parse_model
from workbench.training.history import NAN, StepRecord

STATE = "trainer_state.json"
MAX_STATE_BYTES = 256 << 20
_CHECKPOINT = re.compile(r"checkpoint-(\d{1,12})")
_FIELDS = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "rewards/chosen": "chosen_reward",
    "rewards/rejected": "rejected_reward",
    "rewards/margins": "reward_margin",
    "rewards/accuracies": "reward_accuracy",
    "eval_loss": "held_out_loss",
    "eval_rewards/margins": "held_out_margin",
    "eval_rewards/accuracies": "held_out_accuracy",
}
"""TRL's name of each measure of a step that we have too."""
_BOOKKEEPING = ("step", "epoch")


@dataclass(frozen=True)
class TrlHistory:
    """A run that TRL logged.

    Attributes:
        records: One of each logged step, in order; what TRL does not measure is NaN.
        others: TRL's further columns by name (for example `logps/chosen`), each with its value
            at the steps that have one.
        steps: Steps that the run has taken.
        planned: Steps that it was to take, 0 where not known.
        best_checkpoint: Name of the checkpoint that did best in evaluation, or "".
    """

    records: tuple[StepRecord, ...]
    others: Mapping[str, Mapping[int, float]]
    steps: int
    planned: int
    best_checkpoint: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """Weights that a trainer saved.

    Attributes:
        folder: Where.
        step: At which step; None where the folder does not say.
        kind: A LoRA adapter, or all weights.
        base: What the adapter was trained on, by its own account; "" for a whole model.
    """

    folder: Path
    step: int | None
    kind: Literal["adapter", "full"]
    base: str = ""

    def model(self, base: str | None = None) -> str:
        """The policy's name for the model picker and `parse_model`.

        Args:
            base: The model that an adapter hangs on; the one that it names if left out.

        Raises:
            ModelError: an adapter whose base is neither given nor known here.
        """
        if self.kind == "full":
            return str(self.folder)
        named = base or _base_model(self)
        return f"{named}+adapter:{self.folder}"


def read_history(place: Path) -> TrlHistory:
    """Read `trainer_state.json`, or that of a folder or its newest checkpoint.

    Raises:
        TrainingError: no such file, or one of another kind.
    """
    path = _state_file(place)
    state = _read_object(path)
    entries = state.get("log_history")
    if not isinstance(entries, list):
        raise TrainingError(
            f"{path} has no list log_history, so it is not the {STATE} of a transformers trainer; "
            "give the folder of a run."
        )
    merged = _merged(path, entries)
    best = state.get("best_model_checkpoint")
    return TrlHistory(
        records=tuple(_record(step, merged[step]) for step in sorted(merged)),
        others=_others(merged),
        steps=_whole(state.get("global_step")) or max(merged, default=0),
        planned=_whole(state.get("max_steps")),
        best_checkpoint=Path(best).name if isinstance(best, str) else "",
    )


def find_checkpoints(folder: Path) -> tuple[Checkpoint, ...]:
    """The checkpoints in a run's folder by step, what lies in the folder itself last.

    Raises:
        TrainingError: no folder, or nothing in it that could be a policy.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder} is no folder; give the output folder of a run.")
    numbered = [(int(m[1]), path) for path in folder.iterdir() if (m := _numbered(path))]
    places = [*((path, step) for step, path in sorted(numbered)), (folder, _step_of(folder))]
    found = tuple(found for path, step in places if (found := _checkpoint(path, step)))
    if not found:
        raise TrainingError(
            f"{folder} holds no checkpoint: neither adapter_config.json nor config.json with "
            "weights lies in it or in a folder checkpoint-N. Give the output folder of a run."
        )
    return found


def check_checkpoint(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that the workbench would not load, before it is offered.

    Raises:
        ModelError: unsafe or incomplete; for example only pickled weights.
    """
    if checkpoint.kind == "full":
        check_folder(checkpoint.folder)
    else:
        check_adapter(checkpoint.folder)


def _base_model(checkpoint: Checkpoint) -> str:
    """The base that an adapter names, if the workbench can name it too."""
    named = checkpoint.base
    for candidate in (named, f"hub:{named}"):
        try:
            return parse_model(candidate).name
        except ModelError:
            continue
    raise ModelError(
        f"{checkpoint.folder.name} is an adapter on {named[:80]!r}, which is no model here; name "
        "its base: BASE+adapter:FOLDER."
    )


def _state_file(place: Path) -> Path:
    if place.is_file():
        return place
    newest = sorted(
        (path for path in place.glob(f"checkpoint-*/{STATE}") if _numbered(path.parent)),
        key=lambda path: int(path.parent.name.partition("-")[2]),
    )
    own = [place / STATE] if (place / STATE).is_file() else []
    if not (own or newest):
        raise TrainingError(
            f"{place} has no {STATE}, nor has a folder checkpoint-N in it; give the output folder "
            "of a run that logged."
        )
    return (own or newest)[-1]


def _read_object(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_STATE_BYTES:
            raise TrainingError(f"{path} is larger than {MAX_STATE_BYTES >> 20} MiB; too long.")
        # transformers writes NaN and Infinity, which are no JSON but which Python reads.
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(
            f"{path} cannot be read as JSON ({str(error)[:120]}); give a {STATE}."
        ) from error
    if not isinstance(found, dict):
        raise TrainingError(f"{path} holds no JSON object; give a {STATE}.")
    return found


def _merged(path: Path, entries: list[Any]) -> dict[int, dict[str, float]]:
    """Numbers by step and name: logging and evaluation of one step are two entries."""
    merged: dict[int, dict[str, float]] = {}
    for entry in entries:
        step = _whole(entry.get("step")) if isinstance(entry, dict) else 0
        if not step:
            continue  # an evaluation before the first step, or something foreign
        numbers = {str(k): n for k, v in entry.items() if (n := _number(v)) is not None}
        merged.setdefault(step, {}).update(numbers)
    if entries and not merged:
        raise TrainingError(
            f"No entry of log_history in {path} has a step; it was not written by a trainer."
        )
    return merged


def _record(step: int, numbers: Mapping[str, float]) -> StepRecord:
    known: dict[str, Any] = {
        ours: numbers[theirs] for theirs, ours in _FIELDS.items() if theirs in numbers
    }
    return StepRecord(step=step, **{"loss": NAN, **known})


def _others(merged: Mapping[int, Mapping[str, float]]) -> Mapping[str, Mapping[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for step in sorted(merged):
        for name, value in merged[step].items():
            if name not in _FIELDS and name not in _BOOKKEEPING:
                found.setdefault(name, {})[step] = value
    return found


def _checkpoint(folder: Path, step: int | None) -> Checkpoint | None:
    if (folder / "adapter_config.json").is_file():
        named = _read_object(folder / "adapter_config.json").get("base_model_name_or_path")
        return Checkpoint(folder, step, "adapter", named if isinstance(named, str) else "")
    weights = any(folder.glob("model*.safetensors")) or any(folder.glob("pytorch_model*.bin"))
    return Checkpoint(folder, step, "full") if weights else None


def _step_of(folder: Path) -> int | None:
    """The step that a folder's own state names."""
    if match := _numbered(folder):
        return int(match[1])
    try:
        return _whole(_read_object(folder / STATE).get("global_step")) or None
    except TrainingError:
        return None


def _numbered(path: Path) -> re.Match[str] | None:
    return _CHECKPOINT.fullmatch(path.name) if path.is_dir() else None


def _whole(value: object) -> int:
    """A count; 0 for anything else."""
    number = _number(value)
    return int(number) if number is not None and 0 < number < math.inf else 0


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_adapter, save_model, save_tokenizer

from workbench.errors import ModelError, TrainingError
from workbench.scoring.models import load_model, parse_model
from workbench.training.trl_import import check_checkpoint, find_checkpoints, read_history

LOGGED: dict[str, Any] = {
    "best_model_checkpoint": "/somewhere/out/checkpoint-4",
    "epoch": 1.0,
    "global_step": 6,
    "max_steps": 12,
    "log_history": [
        {"eval_loss": 0.7, "step": 0},
        {
            "epoch": 0.5, "step": 2, "loss": 0.69, "grad_norm": 3.1, "learning_rate": 1e-6,
            "rewards/chosen": 0.1, "rewards/rejected": -0.1, "rewards/margins": 0.2,
            "rewards/accuracies": 0.75, "logps/chosen": -40.0, "num_tokens": 1200,
        },
        {"step": 4, "loss": float("nan"), "learning_rate": 1e-6, "note": "text", "flag": True},
        {"step": 4, "eval_loss": 0.6, "eval_rewards/margins": 0.3, "eval_runtime": 1.5},
        {"step": 6, "train_runtime": 9.0, "train_loss": 0.65, "big": 10**400},
    ],
}  # fmt: skip


def write_state(folder: Path, state: object = LOGGED) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "trainer_state.json"
    path.write_text(json.dumps(state))
    return path


# Histories -----------------------------------------------------------------------------


def test_a_history_is_one_record_of_each_logged_step(tmp_path: Path) -> None:
    history = read_history(write_state(tmp_path))
    assert [record.step for record in history.records] == [2, 4, 6]
    first, second, last = history.records
    assert (first.loss, first.grad_norm, first.learning_rate) == (0.69, 3.1, 1e-6)
    assert (first.chosen_reward, first.rejected_reward, first.reward_margin) == (0.1, -0.1, 0.2)
    assert first.reward_accuracy == 0.75
    # Logging and evaluation of a step are two entries of the file and one record.
    assert math.isnan(second.loss)
    assert (second.held_out_loss, second.held_out_margin) == (0.6, 0.3)
    assert math.isnan(last.loss)
    assert math.isnan(first.ranking_accuracy)
    assert (history.steps, history.planned) == (6, 12)
    assert history.best_checkpoint == "checkpoint-4"


def test_what_we_have_no_place_for_is_kept_by_its_name(tmp_path: Path) -> None:
    others = read_history(write_state(tmp_path)).others
    assert others["logps/chosen"] == {2: -40.0}
    assert others["eval_runtime"] == {4: 1.5}
    assert others["big"] == {6: math.inf}
    assert not {"note", "flag", "step", "epoch", "loss"} & others.keys()


def test_a_folder_gives_its_own_state_or_that_of_its_newest_checkpoint(tmp_path: Path) -> None:
    for step in (9, 10):
        write_state(tmp_path / f"checkpoint-{step}", LOGGED | {"global_step": step})
    (tmp_path / "checkpoint-latest").mkdir()
    assert read_history(tmp_path).steps == 10
    write_state(tmp_path, LOGGED | {"global_step": 11})
    assert read_history(tmp_path).steps == 11


@pytest.mark.parametrize(
    ("state", "named"),
    [
        ([], "no JSON object"),
        ({}, "no list log_history"),
        ({"log_history": {}}, "no list log_history"),
        ({"log_history": [{"loss": 1.0}, "x", None]}, "has a step"),
    ],
)
def test_foreign_files_are_named(state: object, named: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=named) as caught:
        read_history(write_state(tmp_path, state))
    assert "trainer_state.json" in str(caught.value)


def test_files_that_are_no_json_or_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="give the output folder"):
        read_history(tmp_path)
    (tmp_path / "trainer_state.json").write_text('{"log_history": [')
    with pytest.raises(TrainingError, match="cannot be read as JSON"):
        read_history(tmp_path)


@pytest.mark.parametrize("spoilt", ["global_step", "max_steps", "best_model_checkpoint"])
def test_missing_and_odd_keys_are_tolerated(spoilt: str, tmp_path: Path) -> None:
    without = {key: value for key, value in LOGGED.items() if key != spoilt}
    for state in (without, LOGGED | {spoilt: ["odd"]}, LOGGED | {spoilt: float("nan")}):
        history = read_history(write_state(tmp_path, state))
        assert len(history.records) == 3
        assert history.steps == 6


def test_a_run_that_logged_nothing_has_no_records(tmp_path: Path) -> None:
    history = read_history(write_state(tmp_path, {"log_history": [], "global_step": 3}))
    assert (history.records, history.steps) == ((), 3)


# Checkpoints ---------------------------------------------------------------------------


def test_checkpoints_are_policies_by_step(tiny_folder: Path, tmp_path: Path) -> None:
    for step in (10, 9):
        save_adapter(tmp_path / f"checkpoint-{step}", tiny_folder, seed=step)
        (tmp_path / f"checkpoint-{step}" / "optimizer.pt").write_bytes(b"no pickle is opened")
    full = tmp_path / "checkpoint-20"
    full.mkdir()
    save_tokenizer(full)
    save_model(full, seed=3)
    found = find_checkpoints(tmp_path)
    assert [(each.step, each.kind) for each in found] == [
        (9, "adapter"),
        (10, "adapter"),
        (20, "full"),
    ]
    assert found[0].base == str(tiny_folder)
    digests = set()
    for checkpoint in found:
        check_checkpoint(checkpoint)
        digests.add(load_model(parse_model(checkpoint.model()), device="cpu").digest)
    assert len(digests) == 3


def test_the_output_folder_itself_may_be_the_policy(tiny_folder: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path, tiny_folder)
    write_state(tmp_path)
    (found,) = find_checkpoints(tmp_path)
    assert (found.step, found.kind, found.folder) == (6, "adapter", tmp_path)
    assert find_checkpoints(tmp_path)[0].model("default") == f"default+adapter:{tmp_path}"


@pytest.mark.parametrize(
    ("base", "expected"),
    [("HuggingFaceTB/SmolLM2-135M", "hub:HuggingFaceTB/SmolLM2-135M"), ("../../odd", None)],
)
def test_an_adapter_names_its_base_or_is_asked_for_one(
    base: str, expected: str | None, tiny_folder: Path, tmp_path: Path
) -> None:
    save_adapter(tmp_path, tiny_folder)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": base})
    )
    (found,) = find_checkpoints(tmp_path)
    if expected is None:
        with pytest.raises(ModelError, match=r"no model here; name its base"):
            found.model()
    else:
        assert found.model() == f"{expected}+adapter:{tmp_path}"


def test_pickled_weights_are_found_and_refused(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    save_tokenizer(folder)
    save_model(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (found,) = find_checkpoints(tmp_path)
    with pytest.raises(ModelError, match="only pickle files"):
        check_checkpoint(found)
    with pytest.raises(ModelError, match="only pickle files"):
        load_model(parse_model(found.model()))


def test_an_adapter_that_would_run_code_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path, tiny_folder)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(
        json.dumps(config | {"auto_mapping": {"base_model_class": "os.system"}})
    )
    with pytest.raises(ModelError, match="auto_mapping"):
        check_checkpoint(find_checkpoints(tmp_path)[0])


def test_folders_without_weights_are_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-3").mkdir()
    with pytest.raises(TrainingError, match="holds no checkpoint"):
        find_checkpoints(tmp_path)
    with pytest.raises(TrainingError, match="is no folder"):
        find_checkpoints(tmp_path / "none")

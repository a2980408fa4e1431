import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from trl_block import cpo_loss, dpo_loss, kto_loss, oracle_pairs, orpo_loss, tpo_loss

from workbench.data.pairs import Message, PreferencePair
from workbench.errors import DataError, TrainingError
from workbench.objectives.catalogue import OBJECTIVES
from workbench.objectives.logps import PairLogps
from workbench.training.language_model import LanguageModelPolicy
from workbench.training.plan import TrainingPlan
from workbench.training.trainer import Trainer
from workbench.training.trl_export import (
    LAUNCH,
    TRL,
    TRL_LOSSES,
    TrlLoss,
    TrlRun,
    trl_config,
    trl_rows,
    write_trl_folder,
)
from workbench.training.trl_import import find_checkpoints, read_history

REPEATED = [name for name, found in TRL_LOSSES.items() if isinstance(found, TrlLoss)]
REFUSED = [name for name in TRL_LOSSES if name not in REPEATED]
LOSSES: Mapping[str, Callable[[PairLogps, Any], Tensor]] = {
    "DPOTrainer": dpo_loss,
    "KTOTrainer": kto_loss,
    "CPOTrainer": cpo_loss,
    "ORPOTrainer": orpo_loss,
    "TPOTrainer": tpo_loss,
}
WORDS = ("cat", "dog", "log", "mat", "town", "fox", "answer", "person", "weather", "quick", "lazy")


def some_pairs(n: int = 6, **metadata: str) -> list[PreferencePair]:
    return [
        PreferencePair(
            pair_id=f"p{i}",
            prompt=f"which {WORDS[i % 11]} is better {i}",
            chosen=f"the {WORDS[(i + 1) % 11]} and the {WORDS[(i + 5) % 11]}",
            rejected=f"no {WORDS[(i + 2) % 11]}",
            metadata={**metadata},
        )
        for i in range(n)
    ]


def a_run(objective: str = "dpo", model: str = "base", **options: Any) -> TrlRun:
    fields = TrlRun.__dataclass_fields__
    plan = {name: value for name, value in options.items() if name not in fields}
    rest = {name: value for name, value in options.items() if name in fields}
    return TrlRun(TrainingPlan().replaced(objective=objective, **plan), model, **rest)


def trl_says(config: Mapping[str, Any], pairs: PairLogps, folder: Path, **changes: Any) -> Tensor:
    """The batch's loss by TRL's code under its own configuration object."""
    library = pytest.importorskip(config["module"])
    arguments = {**config["arguments"], **changes}
    loaded = getattr(library, config["config"])(output_dir=str(folder), **arguments)
    return LOSSES[config["trainer"]](pairs, loaded)


def we_say(run: TrlRun, pairs: PairLogps) -> Tensor:
    return run.plan.entry.losses(pairs, **run.plan.hyperparameters).mean()


# The losses ----------------------------------------------------------------------------


def test_every_objective_is_repeated_or_refused_with_a_reason() -> None:
    assert TRL_LOSSES.keys() == OBJECTIVES.keys()
    assert REFUSED == ["dpo_gamma", "ipo", "bco"]
    for name in REFUSED:
        with pytest.raises(TrainingError, match=rf"{re.escape(OBJECTIVES[name].title)}: .*take "):
            trl_config(a_run(name))


@pytest.mark.parametrize("objective", REPEATED)
def test_trl_computes_our_loss_under_the_exported_configuration(
    objective: str, tmp_path: Path
) -> None:
    run, pairs = a_run(objective), oracle_pairs()
    # ORPO's odds ratio is in float32 there.
    near = 1e-6 if objective == "orpo" else 1e-9
    found = trl_says(trl_config(run), pairs, tmp_path)
    torch.testing.assert_close(found.double(), we_say(run, pairs), rtol=0, atol=near)


@pytest.mark.parametrize(
    ("objective", "knob", "value"),
    [
        *((name, "beta", 0.37) for name in REPEATED if name != "sft"),
        *((name, "label_smoothing", 0.2) for name in ("cdpo", "robust_dpo", "exo", "aot", "cpo")),
        ("discopop", "tau", 0.3),
        ("simpo", "gamma", 1.5),
        ("alphapo", "alpha", -0.5),
        ("cpo", "sft_weight", 0.3),
        ("tpo", "gold_weight", 0.3),
        ("tpo_l", "gamma", 1.5),
        ("kto", "desirable_weight", 1.4),
        ("kto", "undesirable_weight", 0.6),
    ],
)
def test_every_hyperparameter_arrives(
    objective: str, knob: str, value: float, tmp_path: Path
) -> None:
    run, pairs = a_run(objective, **{knob: value}), oracle_pairs()
    found = trl_says(trl_config(run), pairs, tmp_path)
    near = 1e-6 if objective == "orpo" else 1e-9
    torch.testing.assert_close(found.double(), we_say(run, pairs), rtol=0, atol=near)
    # What the default gives is not close, so that a knob that is lost would be seen.
    lost = trl_says(trl_config(a_run(objective)), pairs, tmp_path)
    assert abs(float(lost - found)) > 1e-5


@pytest.mark.parametrize(
    ("divergence", "coefficient"), [("forward_kl", 0.5), ("js", 0.5), ("alpha", 0.3)]
)
def test_divergences_arrive(divergence: str, coefficient: float, tmp_path: Path) -> None:
    from workbench.objectives.f_divergence import with_divergence

    run = a_run("cdpo", divergence=divergence, divergence_alpha=coefficient)
    found = trl_says(trl_config(run), oracle_pairs(), tmp_path)
    seen = with_divergence(oracle_pairs(), divergence, coefficient)  # type: ignore[arg-type]
    # TRL's alpha-divergence passes through float32.
    torch.testing.assert_close(found, we_say(run, seen), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "sabotage", [{"beta": 0.2}, {"loss_type": ["hinge"]}, {"label_smoothing": 0.3}]
)
def test_a_wrong_argument_is_found_out(sabotage: dict[str, Any], tmp_path: Path) -> None:
    run = a_run("robust_dpo")
    found = trl_says(trl_config(run), oracle_pairs(), tmp_path, **sabotage)
    assert abs(float(found - we_say(run, oracle_pairs()))) > 1e-3


def test_modifiers_become_arguments() -> None:
    plain = trl_config(a_run())["arguments"]
    run = a_run(ld_alpha=0.5, wpo=True, sync_every=32, sync_mixup=0.4, rank=0)
    new = {k: v for k, v in trl_config(run)["arguments"].items() if k not in plain}
    assert new == {
        "ld_alpha": 0.5,
        "use_weighting": True,
        "sync_ref_model": True,
        "ref_model_mixup_alpha": 0.4,
        "ref_model_sync_steps": 32,
    }


@pytest.mark.parametrize(
    ("objective", "options", "named"),
    [
        ("dpo", {"penalty": "dcov", "attributes": ("age",)}, "no fairness penalty"),
        ("dpo", {"projected_gradient": True}, "projected_gradient off"),
        ("simpo", {"wpo": True}, "use_weighting in its DPO trainer only"),
        ("kto", {"sync_every": 8, "rank": 0}, "sync_ref_model in its DPO trainer only"),
        ("dpo", {"sync_every": 8}, "rank or sync_every"),
    ],
)
def test_what_trl_cannot_is_refused(objective: str, options: dict[str, Any], named: str) -> None:
    with pytest.raises(TrainingError, match=named):
        trl_config(a_run(objective, **options))


def test_the_loop_is_ours() -> None:
    run = a_run(optimiser="rmsprop", learning_rate=1e-4, warm_up=5, max_grad_norm=float("inf"))
    arguments = trl_config(run)["arguments"]
    assert arguments["optim"] == "rmsprop"
    assert arguments["lr_scheduler_type"] == "constant_with_warmup"
    assert arguments["warmup_steps"] == 5
    assert arguments["max_grad_norm"] == 0.0
    assert trl_config(a_run("kto", batch_size=4))["arguments"]["per_device_train_batch_size"] == 8


# The data ------------------------------------------------------------------------------


def test_texts_are_conversations_where_the_model_reads_them() -> None:
    pair = some_pairs(1)[0]
    (row,) = trl_rows([pair], a_run(chat=True))
    assert row["prompt"] == [{"role": "user", "content": pair.prompt}]
    assert row["chosen"] == [{"role": "assistant", "content": pair.chosen}]
    spoken = pair.with_fields(prompt=(Message(role="user", content="hm"),))
    assert next(trl_rows([spoken], a_run()))["prompt"] == [{"role": "user", "content": "hm"}]


def test_texts_without_a_template_are_joined_as_in_scoring(make_folder: Any) -> None:
    from transformers import AutoTokenizer

    from workbench.scoring.tokenise import tokenise_completion

    tokenizer = AutoTokenizer.from_pretrained(make_folder(template=None))
    pairs = [*some_pairs(2), some_pairs(1)[0].with_fields(prompt="so\n", chosen=" yes")]
    for pair, row in zip(pairs, trl_rows(pairs, a_run(chat=False)), strict=True):
        ours = tokenise_completion(tokenizer, pair.prompt, pair.chosen, 128).input_ids.tolist()
        theirs = tokenizer(str(row["prompt"]) + str(row["chosen"]))["input_ids"]
        assert ours == [*theirs, tokenizer.eos_token_id]


def test_kto_never_meets_an_answer_under_its_own_prompt() -> None:
    pairs = some_pairs(10)
    rows = list(trl_rows(pairs, a_run("kto", batch_size=4)))
    assert len(rows) == 20
    assert sum(bool(row["label"]) for row in rows) == 10
    own = {(p.prompt, text) for p in pairs for text in (p.chosen, p.rejected)}
    for start in range(0, 20, 8):
        batch = rows[start : start + 8]
        turned = [batch[-1], *batch[:-1]]
        for row, other in zip(batch, turned, strict=True):
            prompt, answer = row["prompt"][0], other["completion"][0]  # type: ignore[index, call-overload]
            assert (prompt["content"], answer["content"]) not in own  # type: ignore[index, call-overload]


def test_tpo_needs_a_gold_answer() -> None:
    (row,) = trl_rows(some_pairs(1, gold="the best"), a_run("tpo"))
    assert row["reference"] == [{"role": "assistant", "content": "the best"}]
    with pytest.raises(DataError, match=r"p0.*'gold'.*gold_weight to 0"):
        list(trl_rows(some_pairs(1), a_run("tpo")))
    assert list(trl_rows(some_pairs(1), a_run("tpo", gold_weight=0.0)))


# The folder ----------------------------------------------------------------------------


def test_the_folder_holds_what_a_person_needs(tmp_path: Path) -> None:
    out = tmp_path / "run"
    files = write_trl_folder(some_pairs(), a_run("cpo"), out)
    assert {path.name for path in files} == {path.name for path in out.iterdir()}
    assert f"trl=={TRL}" in (out / "requirements.txt").read_text()
    readme = (out / "README.md").read_text()
    assert LAUNCH in readme
    assert "6 pairs" in readme
    assert json.loads((out / "config.json").read_text())["trainer"] == "CPOTrainer"
    compile((out / "train.py").read_text(), "train.py", "exec")


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="not an empty folder"):
        write_trl_folder(some_pairs(), a_run(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(DataError, match="no pairs"):
        write_trl_folder([], a_run(), tmp_path / "new")
    assert not (tmp_path / "new").exists()


# The script ----------------------------------------------------------------------------


def train(folder: Path) -> Path:
    """Run an exported script on the CPU; returns the folder of its checkpoints."""
    settings = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, "train.py"],
        cwd=folder,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "out"


@pytest.mark.slow
def test_the_script_takes_the_steps_that_our_trainer_takes(
    make_folder: Any, tmp_path: Path
) -> None:
    """All weights, plain descent and one batch of all pairs leave nothing to chance."""
    pytest.importorskip("trl")
    from workbench.scoring.models import load_model, parse_model

    base, pairs = make_folder(template=None), some_pairs()
    options = {"optimiser": "sgd", "learning_rate": 0.05, "batch_size": 6, "beta": 0.5}
    run = a_run("dpo", str(base), chat=False, steps=3, rank=0, blocks=0, **options)
    write_trl_folder(pairs, run, tmp_path / "run")
    theirs = read_history(train(tmp_path / "run")).records
    loaded = load_model(parse_model(str(base)), dtype="float32", device="cpu")
    trainer = Trainer(LanguageModelPolicy(loaded, blocks=0, rank=0), pairs, run.plan)
    ours = [trainer.step() for _ in range(3)]
    assert [record.step for record in theirs] == [1, 2, 3]
    for name in ("loss", "chosen_reward", "rejected_reward", "reward_accuracy", "grad_norm"):
        found, expected = ([getattr(r, name) for r in records] for records in (theirs, ours))
        assert found == pytest.approx(expected, abs=2e-3, rel=2e-3), name
    assert ours[2].loss < ours[0].loss - 0.01


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["cdpo", "kto", "simpo", "orpo", "tpo"])
def test_the_script_of_each_trainer_runs_and_its_adapter_is_a_policy(
    objective: str, tiny_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("trl")
    from workbench.scoring.models import load_model, parse_model

    run = a_run(objective, str(tiny_folder), steps=2, rank=2, blocks=1, batch_size=2)
    write_trl_folder(some_pairs(gold="the fox"), run, tmp_path / "run")
    out = train(tmp_path / "run")
    assert len(read_history(out).records) == 2
    last = find_checkpoints(out)[-1]
    assert last.kind == "adapter"
    loaded = load_model(parse_model(last.model(str(tiny_folder))), dtype="float32", device="cpu")
    assert loaded.adapter is not None

"""A run as a folder that TRL repeats: script, data, configuration, requirements, launch command.

`TRL_LOSSES` says for every objective of the catalogue by which trainer and arguments TRL 1.16
computes the same loss, or why it cannot. The script is `trl_script.py` beside this file, copied as
it is; everything else of a run stands in config.json.
"""

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from workbench.data.files import write_file
from workbench.data.pairs import Json, Message, PreferencePair, Text, plain, text_to_json
from workbench.errors import DataError, TrainingError
from workbench.objectives.catalogue import OBJECTIVES
from workbench.training.language_model import LORA_SCALE
from workbench.training.plan import TrainingPlan
from workbench.training.preference import PROJECTIONS
from workbench.training.reading import GOLD

TRL = "1.16.0"
"""The version whose losses were compared with ours."""
_PACKAGES = ("accelerate", "datasets", "peft", "torch", "transformers")
_OPTIMISERS = {"adamw": "adamw_torch", "rmsprop": "rmsprop", "sgd": "sgd"}
_DIVERGENCES = {"forward_kl": "forward_kl", "js": "js_divergence", "alpha": "alpha_divergence"}
LAUNCH = "accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no train.py"
_SCRIPT = Path(__file__).with_name("trl_script.py")
Settings = Mapping[str, float]


@dataclass(frozen=True)
class TrlTrainer:
    """A trainer of TRL's and its configuration, by module and name."""

    module: str
    trainer: str
    config: str


@dataclass(frozen=True)
class TrlLoss:
    """How TRL computes an objective.

    Attributes:
        trainer: Key of `TRAINERS`.
        fixed: Arguments that make the objective.
        knobs: TRL's argument for each of our hyperparameters.
        derived: Further arguments that follow from our hyperparameters.
        note: What TRL does otherwise around the same loss; empty where nothing.
    """

    trainer: str
    fixed: Mapping[str, Any]
    knobs: Mapping[str, str]
    derived: Callable[[Settings], Mapping[str, Any]] = lambda settings: {}
    note: str = ""

    def arguments(self, settings: Settings) -> dict[str, Any]:
        """Arguments of TRL's configuration for these hyperparameters."""
        knobs = {theirs: settings[ours] for ours, theirs in self.knobs.items()}
        return {**self.fixed, **knobs, **self.derived(settings)}


TRAINERS: Mapping[str, TrlTrainer] = MappingProxyType(
    {
        "DPO": TrlTrainer("trl", "DPOTrainer", "DPOConfig"),
        "KTO": TrlTrainer("trl", "KTOTrainer", "KTOConfig"),
        "CPO": TrlTrainer("trl.experimental.cpo", "CPOTrainer", "CPOConfig"),
        "ORPO": TrlTrainer("trl.experimental.orpo", "ORPOTrainer", "ORPOConfig"),
        "TPO": TrlTrainer("trl.experimental.tpo", "TPOTrainer", "TPOConfig"),
    }
)
_EOS = "TRL closes every answer with the end-of-sequence token, also after a chat template's own."


def _dpo(loss_type: str, **knobs: str) -> TrlLoss:
    return TrlLoss("DPO", {"loss_type": [loss_type]}, {"beta": "beta", **knobs})


def _cpo(fixed: Mapping[str, Any], **knobs: str) -> TrlLoss:
    known = {"beta": "beta", "label_smoothing": "label_smoothing", **knobs}
    return TrlLoss("CPO", fixed, known, note=_EOS)


def _tpo(loss_type: str, **knobs: str) -> TrlLoss:
    known = {"beta": "beta", "gold_weight": "tpo_alpha", **knobs}
    return TrlLoss("TPO", {"loss_type": loss_type}, known)


def _conservative(settings: Settings) -> dict[str, Any]:
    """cDPO = 2 (1 - eps) sigmoid - (1 - 2 eps) robust: TRL's own smoothing is gone since 0.29."""
    eps = settings["label_smoothing"]
    return {"loss_weights": [2 * (1 - eps), -(1 - 2 * eps)]}


_SMOOTHED = {"label_smoothing": "label_smoothing"}

TRL_LOSSES: Mapping[str, TrlLoss | str] = MappingProxyType(
    {
        "dpo": _dpo("sigmoid"),
        "dpo_gamma": "TRL does not scale the reference's log-ratio; take dpo (gamma = 1), or cpo "
        "with sft_weight = 0 (gamma = 0)",
        "dpo_norm": _dpo("sigmoid_norm"),
        "cdpo": TrlLoss(
            "DPO",
            {"loss_type": ["sigmoid", "robust"]},
            {"beta": "beta", **_SMOOTHED},
            _conservative,
        ),
        "robust_dpo": _dpo("robust", **_SMOOTHED),
        "hinge": _dpo("hinge"),
        "ipo": "TRL's IPO divides log-ratios by the answers' lengths; take ipo_norm",
        "ipo_norm": _dpo("ipo"),
        "exo": _dpo("exo_pair", **_SMOOTHED),
        "nca": _dpo("nca_pair"),
        "bco_pair": _dpo("bco_pair"),
        "bco": f"TRL {TRL} has no BCO trainer with a reward shift; take bco_pair",
        "sppo_hard": _dpo("sppo_hard"),
        "aot": _dpo("aot", **_SMOOTHED),
        "aot_unpaired": _dpo("aot_unpaired", **_SMOOTHED),
        "apo_zero": _dpo("apo_zero"),
        "apo_down": _dpo("apo_down"),
        "discopop": _dpo("discopop", tau="discopop_tau"),
        "kto": TrlLoss(
            "KTO",
            {"loss_type": "kto"},
            {
                "beta": "beta",
                "desirable_weight": "desirable_weight",
                "undesirable_weight": "undesirable_weight",
            },
            note="TRL estimates the reference point from each batch in the order of data.jsonl.",
        ),
        "simpo": _cpo({"loss_type": "simpo", "cpo_alpha": 0.0}, gamma="simpo_gamma"),
        "alphapo": _cpo(
            {"loss_type": "simpo", "cpo_alpha": 0.0}, gamma="simpo_gamma", alpha="alpha"
        ),
        "orpo": TrlLoss(
            "ORPO",
            {},
            {"beta": "beta"},
            note=f"TRL's likelihood counts the prompt's tokens too. {_EOS}",
        ),
        "cpo": _cpo({"loss_type": "sigmoid"}, sft_weight="cpo_alpha"),
        "tpo": _tpo("sigmoid"),
        "tpo_l": _tpo("tpo-l", gamma="tpo_l_gamma"),
        "sft": TrlLoss("DPO", {"loss_type": ["sft"]}, {}),
    }
)
"""Every objective by name: how TRL computes it, or why it cannot."""


@dataclass(frozen=True)
class TrlRun:
    """A run as TRL shall repeat it.

    Attributes:
        plan: Objective, modifiers, optimiser, batch size, seed.
        model: Folder or hub id of the base model, which is the reference too.
        revision: Of a hub model; None is its newest.
        chat: Whether the model's tokenizer has a chat template.
        steps: Optimiser steps, > 0.
        blocks: How many of the last blocks are trained; 0 for all.
        rank: Of the LoRA matrices; 0 trains the weights themselves.
        max_length: Longest prompt and answer together, tokens.
        dtype: Of the weights, for example "float32".
    """

    plan: TrainingPlan
    model: str
    revision: str | None = None
    chat: bool = True
    steps: int = 100
    blocks: int = 2
    rank: int = 8
    max_length: int = 384
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("blocks", 0), ("rank", 0), ("max_length", 2)):
            if getattr(self, name) < least:
                raise TrainingError(f"{name} is {getattr(self, name)}; give {least} or more.")


def trl_loss(objective: str) -> TrlLoss:
    """How TRL computes an objective of the catalogue.

    Raises:
        TrainingError: it cannot; the message says why.
    """
    found = TRL_LOSSES[objective]
    if isinstance(found, str):
        raise TrainingError(f"TRL cannot repeat {OBJECTIVES[objective].title}: {found}.")
    return found


def trl_config(run: TrlRun) -> dict[str, Any]:
    """Everything that the script reads: trainer, its arguments, model, LoRA.

    Raises:
        TrainingError: TRL cannot repeat this run; the message says why.
    """
    plan, loss = run.plan, trl_loss(run.plan.objective)
    _check_modifiers(run, loss)
    trainer = TRAINERS[loss.trainer]
    return {
        "plan": plan.to_json(),
        "model": {"name": run.model, "revision": run.revision, "dtype": run.dtype},
        "lora": _lora(run),
        "blocks": run.blocks,
        "module": trainer.module,
        "trainer": trainer.trainer,
        "config": trainer.config,
        "arguments": _loop(run, loss.trainer) | loss.arguments(plan.settings) | _modified(plan),
    }


def write_trl_folder(pairs: Sequence[PreferencePair], run: TrlRun, folder: Path) -> list[Path]:
    """Write train.py, data.jsonl, config.json, requirements.txt and README.md.

    Args:
        pairs: The training set.
        run: What TRL is to repeat.
        folder: Made where missing; must be empty.

    Returns:
        The files.

    Raises:
        TrainingError: TRL cannot repeat this run.
        DataError: no pairs, or a folder that is not empty or cannot be written.
    """
    config = trl_config(run)
    rows = list(trl_rows(pairs, run))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is not an empty folder; choose another place.")
    texts = {
        "train.py": _SCRIPT.read_text(encoding="utf-8"),
        "config.json": json.dumps(config, indent=2) + "\n",
        "requirements.txt": "\n".join(_requirements()) + "\n",
        "README.md": _readme(run, len(pairs)),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written ({error.strerror}); free space, or choose another place."
        ) from error
    write_file(folder / "data.jsonl", rows)
    return [folder / name for name in (*texts, "data.jsonl")]


def trl_rows(pairs: Sequence[PreferencePair], run: TrlRun) -> Iterator[dict[str, Json]]:
    """The pairs in the form that the objective's trainer reads.

    With a chat template every text is a conversation; without one prompt and answer are joined
    by a space where neither has one, as in scoring.

    Raises:
        DataError: no pairs, or a pair without the gold answer that TPO learns from.
    """
    if not pairs:
        raise DataError("There are no pairs to train on; open a set that has some.")
    trainer = trl_loss(run.plan.objective).trainer
    if trainer == "KTO":
        return _unpaired(pairs, run)
    return (_paired(pair, run) | (_gold(pair, run) if trainer == "TPO" else {}) for pair in pairs)


def _paired(pair: PreferencePair, run: TrlRun) -> dict[str, Json]:
    answers = {side: _answer(pair, getattr(pair, side), run) for side in ("chosen", "rejected")}
    return {"prompt": _prompt(pair, run), **answers}


def _unpaired(pairs: Sequence[PreferencePair], run: TrlRun) -> Iterator[dict[str, Json]]:
    """Each batch's chosen answers, then its rejected ones.

    KTO takes rows as they come and pairs each prompt with the answer before it, which is then
    never one of its own.
    """
    order = list(pairs)
    random.Random(run.plan.seed).shuffle(order)
    for start in range(0, len(order), run.plan.batch_size):
        for side in ("chosen", "rejected"):
            for pair in order[start : start + run.plan.batch_size]:
                answer = _answer(pair, getattr(pair, side), run)
                row: dict[str, Json] = {"prompt": _prompt(pair, run), "completion": answer}
                yield row | {"label": side == "chosen"}


def _gold(pair: PreferencePair, run: TrlRun) -> dict[str, Json]:
    gold = pair.metadata.get(GOLD)
    if gold is None and run.plan.settings["gold_weight"] == 0:
        gold = pair.chosen_text
    if not isinstance(gold, str):
        raise DataError(
            f"Pair {pair.pair_id!r} has no text {GOLD!r} among its metadata; TPO learns from a "
            "third, best answer. Add it, or set gold_weight to 0."
        )
    return {"reference": _answer(pair, gold, run)}


def _prompt(pair: PreferencePair, run: TrlRun) -> Json:
    return _conversation(pair.prompt, "user") if run.chat else pair.prompt_text


def _answer(pair: PreferencePair, answer: Text, run: TrlRun) -> Json:
    if run.chat:
        return _conversation(answer, "assistant")
    prompt, text = pair.prompt_text, plain(answer)
    joined = not prompt or prompt[-1].isspace() or text[:1].isspace()
    return text if joined else f" {text}"


def _conversation(text: Text, role: Any) -> Json:  # noqa: ANN401 - a role of pydantic's
    return text_to_json((Message(role=role, content=text),) if isinstance(text, str) else text)


def _loop(run: TrlRun, trainer: str) -> dict[str, Any]:
    """Arguments of the loop, the same for every loss; KTO counts answers, not pairs."""
    plan = run.plan
    return {
        "learning_rate": plan.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if plan.warm_up else "constant",
        "warmup_steps": plan.warm_up,
        "optim": _OPTIMISERS[plan.optimiser],
        "weight_decay": plan.weight_decay,
        "max_grad_norm": plan.max_grad_norm if math.isfinite(plan.max_grad_norm) else 0.0,
        "per_device_train_batch_size": plan.batch_size * (2 if trainer == "KTO" else 1),
        "max_steps": run.steps,
        "seed": plan.seed,
        "max_length": run.max_length,
        "bf16": run.dtype == "bfloat16",
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_steps": max(run.steps // 4, 1),
        "report_to": "none",
    }


def _lora(run: TrlRun) -> dict[str, Any] | None:
    if not run.rank:
        return None
    return {
        "r": run.rank,
        "lora_alpha": LORA_SCALE * run.rank,
        "target_modules": list(PROJECTIONS),
        "task_type": "CAUSAL_LM",
    }


def _modified(plan: TrainingPlan) -> dict[str, Any]:
    """Arguments of the modifiers in use; all of them are of TRL's DPO trainer."""
    found: dict[str, Any] = {}
    if plan.divergence != "reverse_kl":
        found["f_divergence_type"] = _DIVERGENCES[plan.divergence]
        found["f_alpha_divergence_coef"] = plan.divergence_alpha
    if plan.ld_alpha < 1:
        found["ld_alpha"] = plan.ld_alpha
    if plan.wpo:
        found["use_weighting"] = True
    if plan.sync_every:
        found |= {
            "sync_ref_model": True,
            "ref_model_mixup_alpha": plan.sync_mixup,
            "ref_model_sync_steps": plan.sync_every,
        }
    return found


def _check_modifiers(run: TrlRun, loss: TrlLoss) -> None:
    """Refuse what of a plan TRL has no argument for, rather than pass it over."""
    plan = run.plan
    if plan.penalty != "none":
        raise TrainingError("TRL has no fairness penalty; set penalty to none to export the rest.")
    if plan.projected_gradient:
        raise TrainingError("TRL does not project gradients; switch projected_gradient off.")
    modified = _modified(plan)
    if modified and loss.trainer != "DPO":
        raise TrainingError(
            f"TRL has {next(iter(modified))} in its DPO trainer only, and "
            f"{plan.entry.title} is trained by {TRAINERS[loss.trainer].trainer}; switch it off."
        )
    if plan.sync_every and run.rank:
        raise TrainingError(
            "TRL moves the reference only where all weights are trained; set rank or sync_every "
            "to 0."
        )


def _requirements() -> Iterator[str]:
    """TRL as compared, and the versions here of what it stands on."""
    yield f"trl=={TRL}"
    for name in _PACKAGES:
        try:
            yield f"{name}=={version(name).partition('+')[0]}"
        except PackageNotFoundError:
            yield name


def _readme(run: TrlRun, pairs: int) -> str:
    objective, loss = run.plan.entry, trl_loss(run.plan.objective)
    notes = [
        f"A step counts {run.plan.batch_size} pairs; with N processes divide "
        "`per_device_train_batch_size` in config.json by N.",
        "The order of the pairs is that of TRL's own sampler.",
        "TRL also scores what a chat template writes after the end-of-turn token." * run.chat,
        loss.note,
    ]
    listed = "\n".join(f"- {note}" for note in notes if note)
    return f"""# {objective.title} with TRL

{objective.summary} {pairs} pairs in `data.jsonl`, everything else in `config.json`.

    pip install -r requirements.txt
    {LAUNCH}

`train.py --model PLACE` takes another folder or hub id, `--out FOLDER` another place for the
checkpoints; after a stop, `--resume` goes on from the last of them. The workbench reads a
checkpoint as a policy and `trainer_state.json` as a history: `workbench trl show out`.

{listed}
"""

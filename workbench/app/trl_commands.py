"""`workbench trl`: write a run as a TRL script, show one that TRL made, list what it can repeat."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter

from workbench.app.printing import Json, print_json, print_rows
from workbench.defaults import DEFAULT_REFERENCE

if TYPE_CHECKING:
    from workbench.training.plan import TrainingPlan
    from workbench.training.trl_import import Checkpoint, TrlHistory

app = cyclopts.App(name="trl", help="Take a run to TRL, and what TRL trained back.")
Repeated = Parameter(name="--set", negative="")


@app.command
def objectives(*, as_json: Json = False) -> None:
    """List the objectives, and how TRL computes each or why it cannot.

    Args:
        as_json: Print JSON.
    """
    from workbench.objectives.catalogue import OBJECTIVES
    from workbench.training.trl_export import TRAINERS, TRL_LOSSES, TrlLoss

    rows: list[dict[str, Any]] = []
    for name, found in TRL_LOSSES.items():
        able = isinstance(found, TrlLoss)
        rows.append(
            {
                "name": name,
                "title": OBJECTIVES[name].title,
                "trainer": TRAINERS[found.trainer].trainer if isinstance(found, TrlLoss) else "",
                "loss_type": _loss_type(found) if isinstance(found, TrlLoss) else "",
                "note": found.note if isinstance(found, TrlLoss) else found,
                "able": able,
            }
        )
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, "Objectives in TRL")


@app.command
def export(
    source: str,
    out: Path,
    /,
    *,
    model: str = DEFAULT_REFERENCE,
    objective: str = "dpo",
    settings: Annotated[tuple[str, ...], Repeated] = (),
    steps: int = 100,
    batch_size: int = 8,
    learning_rate: float = 5e-4,
    optimiser: Literal["adamw", "rmsprop", "sgd"] = "adamw",
    seed: int = 0,
    rank: int = 8,
    blocks: int = 2,
    as_json: Json = False,
) -> None:
    """Write a folder that TRL trains from: script, data, configuration, launch command.

    Args:
        source: The set to train on.
        out: Folder to write; must be empty or new.
        model: Base model, which is the reference too: default, a folder, or hub:ORG/NAME.
        objective: What to minimise; `workbench trl objectives` lists them.
        settings: A hyperparameter or another field of the plan as NAME=VALUE (repeat for several).
        steps: Optimiser steps.
        batch_size: Pairs a step.
        learning_rate: Of every step.
        optimiser: Optimiser.
        seed: Of the order of the pairs and of new weights.
        rank: Of the LoRA matrices; 0 trains the weights themselves.
        blocks: How many of the last blocks are trained; 0 for all.
        as_json: Print JSON.
    """
    from workbench.data.sources import open_source
    from workbench.training.plan import TrainingPlan
    from workbench.training.trl_export import LAUNCH, TrlRun, write_trl_folder

    plan = TrainingPlan(
        objective=objective, batch_size=batch_size, learning_rate=learning_rate,
        optimiser=optimiser, seed=seed,
    )  # fmt: skip
    place, revision, chat = _base(model)
    run = TrlRun(
        _changed(plan, settings), place, revision, chat, steps=steps, blocks=blocks, rank=rank
    )
    files = write_trl_folder(open_source(source).pairs, run, out)
    if as_json:
        print_json({"folder": str(out), "files": [path.name for path in files], "launch": LAUNCH})
    else:
        print_rows([{"file": str(path)} for path in files], f"In that folder: {LAUNCH}")


@app.command
def show(folder: Path, /, *, base: str | None = None, as_json: Json = False) -> None:
    """Show a run of TRL's: its last logged step, and its checkpoints as names of policies.

    Args:
        folder: Output folder of the run, a checkpoint in it, or its trainer_state.json.
        base: Model that adapters hang on; what they name themselves if left out.
        as_json: Print JSON.
    """
    from workbench.training.trl_import import find_checkpoints, read_history

    history = read_history(folder)
    place = folder.parent if folder.is_file() else folder
    policies = [_policy_row(checkpoint, base) for checkpoint in find_checkpoints(place)]
    if as_json:
        print_json(_history_json(history) | {"policies": policies})
        return
    last = history.records[-1:]
    measured = {name: value for record in last for name, value in record.to_json().items()}
    others = {name: list(values.values())[-1] for name, values in history.others.items()}
    print_rows(
        [{"measure": name, "last": value} for name, value in {**measured, **others}.items()],
        f"{len(history.records)} logged of {history.steps} steps",
    )
    print_rows(policies, "Policies")


def _loss_type(loss: Any) -> str:  # noqa: ANN401 - a TrlLoss
    found = loss.fixed.get("loss_type", "")
    return found if isinstance(found, str) else " + ".join(found)


def _changed(plan: "TrainingPlan", settings: tuple[str, ...]) -> "TrainingPlan":
    """The plan with NAME=VALUE settings, read as the plan's own types."""
    from dataclasses import fields

    from workbench.errors import TrainingError

    kinds = {f.name: type(getattr(plan, f.name)) for f in fields(plan)}
    changes: dict[str, Any] = {}
    for each in settings:
        name, sign, value = each.partition("=")
        if not name or not sign:
            raise TrainingError(f"--set {each} is no setting; write NAME=VALUE, as in beta=0.5.")
        kind = kinds.get(name, float)
        try:
            changes[name] = _READ.get(kind, kind)(value)
        except (TypeError, ValueError, KeyError) as error:
            raise TrainingError(f"--set {each}: {value!r} is no {kind.__name__}.") from error
    return plan.replaced(**changes)


_READ: dict[type, Callable[[str], Any]] = {
    bool: {"true": True, "yes": True, "false": False, "no": False}.__getitem__,
    tuple: lambda text: tuple(part for part in text.split(",") if part),
}
"""How a value is read where its type's own call would not do."""


def _base(model: str) -> tuple[str, str | None, bool]:
    """Where TRL finds a base model, its revision, and whether it has a chat template.

    Raises:
        ModelError: no such model, an adapter, or a tokenizer that cannot be read.
    """
    from transformers import AutoTokenizer

    from workbench.errors import ModelError
    from workbench.scoring.default_model import default_model_folder
    from workbench.scoring.models import parse_model
    from workbench.scoring.tokenise import has_chat_template

    spec = parse_model(model)
    if spec.adapter is not None:
        raise ModelError(f"{model} is an adapter; name the base model on which TRL trains its own.")
    name, _, revision = spec.base.removeprefix("hub:").partition("@")
    place = str(default_model_folder()) if spec.base == "default" else name
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            place, revision=revision or None, trust_remote_code=False
        )
    except Exception as error:  # transformers and the hub raise a dozen kinds
        raise ModelError(
            f"The tokenizer of {model} cannot be read ({type(error).__name__}); check the name, or "
            "give a folder on this machine."
        ) from error
    return place, revision or None, has_chat_template(tokenizer)


def _policy_row(checkpoint: "Checkpoint", base: str | None) -> dict[str, Any]:
    from workbench.errors import ModelError
    from workbench.training.trl_import import check_checkpoint

    row = {"step": checkpoint.step, "kind": checkpoint.kind, "policy": "", "problem": ""}
    try:
        check_checkpoint(checkpoint)
        return row | {"policy": checkpoint.model(base)}
    except ModelError as error:
        return row | {"problem": str(error)}


def _history_json(history: "TrlHistory") -> dict[str, Any]:
    return {
        "steps": history.steps,
        "planned": history.planned,
        "best_checkpoint": history.best_checkpoint,
        "records": [record.to_json() for record in history.records],
        "others": history.others,
    }

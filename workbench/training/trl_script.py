"""Train with TRL as config.json beside this file says.

accelerate launch train.py [--model PLACE] [--out FOLDER] [--resume]
"""

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Train, and save the last policy."""
    options = _options()
    run = json.loads((HERE / "config.json").read_text(encoding="utf-8"))
    place = options.model or run["model"]["name"]
    revision = None if options.model else run["model"]["revision"]
    tokenizer = AutoTokenizer.from_pretrained(place, revision=revision)
    model = AutoModelForCausalLM.from_pretrained(
        place, revision=revision, dtype=getattr(torch, run["model"]["dtype"])
    )
    lora = _trained(model, run)
    library = importlib.import_module(run["module"])
    trainer = getattr(library, run["trainer"])(
        model=model,
        args=getattr(library, run["config"])(output_dir=options.out, **run["arguments"]),
        train_dataset=Dataset.from_list(_rows()),
        processing_class=tokenizer,
        peft_config=lora,
    )
    trainer.train(resume_from_checkpoint=options.resume)
    trainer.save_model()
    trainer.save_state()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder or hub id in place of the one in config.json")
    parser.add_argument("--out", default=str(HERE / "out"), help="folder of the checkpoints")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    return parser.parse_args()


def _rows() -> list[dict[str, Any]]:
    with (HERE / "data.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _trained(model: Any, run: dict[str, Any]) -> LoraConfig | None:  # noqa: ANN401
    """LoRA on the last blocks; or None, with everything but the last blocks frozen."""
    layers = model.config.num_hidden_layers
    last = list(range(layers - (run["blocks"] or layers), layers))
    if run["lora"] is not None:
        return LoraConfig(**run["lora"], layers_to_transform=last)
    if run["blocks"]:
        model.requires_grad_(False)
        for layer in last:
            model.model.layers[layer].requires_grad_(True)
        model.model.norm.requires_grad_(True)
    return None


if __name__ == "__main__":
    main()

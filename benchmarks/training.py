"""A DPO step of live training against TRL's DPOTrainer on the same model, pairs, dtype and weights.

Both train LoRA of one rank on all projections of the top blocks, from the same first weights, with
AdamW, on the same batch again and again, so their losses must agree step by step. TRL runs as it
comes (the reference is computed at every step, by switching LoRA off) and with
`--precomputed` with its own option that computes the reference once before training. Ours reads
trunk and reference at the first step and keeps them. Each measurement is a child process of its
own, whose peak memory the system reports; TRL and ours take turns, first one then the other
leading, so that a busy machine disturbs both alike. The ratio is ours to TRL's, the median over
the turns: `ratio_later` compares the later steps, `ratio_first` the first one, in which ours reads
what it keeps: the cost of a step of a first and only pass over the data.
`ratio_cpu` compares the processor time of all steps, which a busy machine blurs least.

    python benchmarks/training.py --steps 6 --repeats 3
"""

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SEED = 0
SIDES = ("trl", "ours")
LEARNING_RATE, BETA = 5e-4, 0.1


def main() -> int:
    """Measure, print a table or JSON; 1 when the losses differ, 2 where TRL is not installed."""
    options = _options()
    if importlib.util.find_spec("trl") is None:
        print("TRL is not installed here, so there is nothing to compare with: pip install trl.")
        return 2
    if options.child:
        {"trl": _trl, "ours": _ours}[options.child](options)
        return 0
    report = measure(options)
    print(json.dumps(report, indent=2) if options.json else _table(report))
    return 0 if report["agree"] else 1


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Turns of TRL and ours, and their comparison."""
    turns = []
    with tempfile.TemporaryDirectory() as folder:
        prepared = _prepare(options, Path(folder))
        for turn in range(options.repeats):
            order = SIDES if turn % 2 == 0 else SIDES[::-1]
            turns.append({side: _run_child(side, options, Path(folder)) for side in order})
    gaps = [
        abs(a - b)
        for turn in turns
        for a, b in zip(turn["trl"]["losses"], turn["ours"]["losses"], strict=True)
    ]
    later = {
        side: [statistics.median(turn[side]["seconds"][1:]) for turn in turns] for side in SIDES
    }
    first = {side: [turn[side]["seconds"][0] for turn in turns] for side in SIDES}
    return {
        **prepared,
        "dtype": options.dtype,
        "blocks": options.blocks,
        "rank": options.rank,
        "steps": options.steps,
        "trl_reference": "precomputed" if options.precomputed else "at every step",
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "ratio_later": _ratio(later),
        "ratio_first": _ratio(first),
        "ratio_cpu": _ratio({side: [t[side]["cpu_seconds"] for t in turns] for side in SIDES}),
        "ratios_later": [a / b for a, b in zip(later["ours"], later["trl"], strict=True)],
        **{f"{side}_step_seconds": statistics.median(later[side]) for side in SIDES},
        **{f"{side}_first_step_seconds": statistics.median(first[side]) for side in SIDES},
        **{
            f"{side}_{what}": statistics.median(turn[side][what] for turn in turns)
            for side in SIDES
            for what in ("cpu_seconds", "peak_mb", "loaded_mb")
        },
        "worst_loss_difference": max(gaps),
        "first_loss": turns[0]["ours"]["losses"][0],
        "last_loss": turns[0]["ours"]["losses"][-1],
        "agree": max(gaps) <= options.tolerance,
    }


def _ratio(seconds: dict[str, list[float]]) -> float:
    return statistics.median(a / b for a, b in zip(seconds["ours"], seconds["trl"], strict=True))


def _prepare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The batch and the first LoRA weights, which both sides begin with."""
    from safetensors.torch import save_file

    policy, pairs = _policy(options), _pairs(options)
    save_file(policy.state(), folder / "lora.safetensors")
    records = [{"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected} for p in pairs]
    (folder / "pairs.json").write_text(json.dumps(records))
    logps = policy.pair_logps(pairs)
    answers = logps.require("n_chosen").sum() + logps.require("n_rejected").sum()
    return {
        "pairs": len(pairs),
        "answer_tokens": int(answers),
        "trained_weights": sum(weight.numel() for weight in policy.parameters()),
    }


def _policy(options: argparse.Namespace) -> Any:  # noqa: ANN401
    from workbench.scoring.models import load_model, parse_model
    from workbench.training.language_model import LanguageModelPolicy

    loaded = load_model(parse_model(options.model), dtype=options.dtype, device="cpu")
    return LanguageModelPolicy(
        loaded, blocks=options.blocks, rank=options.rank, max_prompt=1024, max_answer=1024
    )


def _pairs(options: argparse.Namespace) -> list[Any]:
    """A fixed random choice of the source's pairs whose texts both have at most `max_tokens`."""
    import numpy as np

    from workbench.data.sources import open_source
    from workbench.scoring.models import load_model, parse_model
    from workbench.scoring.tokenise import tokenise_completion

    tokenizer = load_model(parse_model(options.model), dtype=options.dtype, device="cpu").tokenizer
    everything = open_source(options.source).pairs
    order = np.random.default_rng(SEED).permutation(len(everything))
    fitting = (
        everything[i]
        for i in order
        if isinstance(everything[i].prompt, str)
        and all(
            len(tokenise_completion(tokenizer, everything[i].prompt, text, 2048).input_ids)
            <= options.max_tokens
            for text in (everything[i].chosen, everything[i].rejected)
        )
    )
    return [pair for _, pair in zip(range(options.batch), fitting, strict=False)]


def _run_child(side: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    out = folder / "out.json"
    names = ("dtype", "model", "batch", "blocks", "rank", "steps")
    passed = [f"--{name}={getattr(options, name)}" for name in names]
    if options.precomputed:
        passed.append("--precomputed")
    subprocess.run(
        [sys.executable, __file__, "--child", side, "--folder", str(folder), *passed],
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def _ours(options: argparse.Namespace) -> None:
    from safetensors.torch import load_file

    from workbench.data.pairs import PreferencePair
    from workbench.training.plan import TrainingPlan
    from workbench.training.trainer import Trainer

    policy = _policy(options)
    policy.load_state(load_file(options.folder / "lora.safetensors"))
    records = json.loads((options.folder / "pairs.json").read_text())
    pairs = [PreferencePair(pair_id=f"p{i}", **record) for i, record in enumerate(records)]
    plan = TrainingPlan(
        hyperparameters={"beta": BETA},
        learning_rate=LEARNING_RATE,
        batch_size=options.batch,
        evaluate_every=0,
    )
    trainer = Trainer(policy, pairs, plan)
    before, cpu = _peak_mb(), time.process_time()
    steps = [trainer.step() for _ in range(options.steps)]
    _tell(options, [s.seconds for s in steps], [s.loss for s in steps], before, cpu)


def _trl(options: argparse.Namespace) -> None:
    import torch
    from datasets import Dataset
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from transformers.utils import logging
    from trl import DPOConfig, DPOTrainer

    from workbench.scoring.default_model import default_model_path
    from workbench.training.language_model import LORA_SCALE
    from workbench.training.preference import attach_lora

    logging.disable_progress_bar()
    place = default_model_path() if options.model == "default" else Path(options.model)
    model = AutoModelForCausalLM.from_pretrained(place, dtype=getattr(torch, options.dtype))
    block = model.config.num_hidden_layers - options.blocks
    tuned = attach_lora(
        model.requires_grad_(False), block=block, rank=options.rank, scale=LORA_SCALE, seed=SEED
    )
    tuned.load_state_dict(load_file(options.folder / "lora.safetensors"), strict=False)
    records = json.loads((options.folder / "pairs.json").read_text())
    turns = [
        {
            "prompt": [{"role": "user", "content": record["prompt"]}],
            "chosen": [{"role": "assistant", "content": record["chosen"]}],
            "rejected": [{"role": "assistant", "content": record["rejected"]}],
        }
        for record in records
    ]
    times: list[float] = []
    losses: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *args: Any, **options: Any) -> None:  # noqa: ANN401
            times.append(-time.perf_counter())

        def on_step_end(self, *args: Any, **options: Any) -> None:  # noqa: ANN401
            times[-1] += time.perf_counter()

        def on_log(self, *args: Any, logs: dict[str, float], **options: Any) -> None:  # noqa: ANN401
            if "loss" in logs:
                losses.append(float(logs["loss"]))

    trainer = DPOTrainer(
        model=tuned,
        args=DPOConfig(
            output_dir=str(options.folder / "trl"),
            per_device_train_batch_size=options.batch,
            max_steps=options.steps,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            optim="adamw_torch",
            weight_decay=0.0,
            max_grad_norm=1.0,
            beta=BETA,
            max_length=None,
            bf16=False,
            fp16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            precompute_ref_log_probs=options.precomputed,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(turns),
        processing_class=AutoTokenizer.from_pretrained(place),
        callbacks=[Clock()],
    )
    before, cpu = _peak_mb(), time.process_time()
    trainer.train()
    _tell(options, times, losses, before, cpu)


def _tell(
    options: argparse.Namespace,
    seconds: list[float],
    losses: list[float],
    loaded_mb: float,
    cpu: float,
) -> None:
    found = {
        "seconds": seconds,
        "losses": losses,
        "cpu_seconds": time.process_time() - cpu,
        "loaded_mb": loaded_mb,
        "peak_mb": _peak_mb(),
    }
    (options.folder / "out.json").write_text(json.dumps(found))


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024


def _table(report: dict[str, Any]) -> str:
    return "\n".join(f"{name:30} {value}" for name, value in report.items())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--model", default="default", help="default, or a folder")
    parser.add_argument("--source", default="teaching")
    parser.add_argument("--max-tokens", type=int, default=256, help="leave longer texts out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tolerance", type=float, default=2e-3, help="of the losses")
    parser.add_argument("--precomputed", action="store_true", help="let TRL keep the reference too")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())

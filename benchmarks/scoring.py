"""Scoring preference pairs: ours against a plain concatenated forward pass, in one run.

The plain side is what a trainer does and is written without our code: chosen and rejected of a
pair padded to one width in one batch, logits over the whole vocabulary at every place,
log-softmax, gather. Only the tokens are ours, so that both score the same ones. Each measurement
is a child process of its own, whose peak memory the system reports; plain and ours take turns,
first one then the other leading, so that a busy machine disturbs both alike. The ratio is the
median over the turns, and the log-probabilities of both must agree.

    python benchmarks/scoring.py --pairs 24 --dtype float32 --repeats 3
"""

import argparse
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

import numpy as np

SEED = 0


def main() -> int:
    """Measure, print a table or JSON; 1 when the log-probabilities differ."""
    options = _options()
    if options.child:
        _child(options)
        return 0
    report = measure(options)
    print(json.dumps(report, indent=2) if options.json else _table(report))
    return 0 if report["agree"] else 1


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Turns of plain and ours, and their comparison."""
    turns = []
    for turn in range(options.repeats):
        order = ("plain", "ours") if turn % 2 == 0 else ("ours", "plain")
        turns.append({side: _run_child(side, options) for side in order})
    gaps = [abs(np.subtract(t["plain"]["logps"], t["ours"]["logps"])) for t in turns]
    worst = max(float(gap.max()) for gap in gaps)
    ratios = [t["plain"]["seconds"] / t["ours"]["seconds"] for t in turns]
    tokens = turns[0]["plain"]["tokens"]
    return {
        "pairs": turns[0]["ours"]["pairs"],
        "tokens": tokens,
        "dtype": options.dtype,
        "batch_of_plain": options.batch,
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        **{
            f"{side}_{what}": statistics.median(t[side][what] for t in turns)
            for side in ("plain", "ours")
            for what in ("seconds", "peak_mb", "loaded_mb")
        },
        "worst_token_difference_nats": worst,
        "mean_token_difference_nats": float(np.mean(gaps)),
        "agree": worst <= options.tolerance,
    }


def _run_child(side: str, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.npz"
        names = ("pairs", "dtype", "model", "source", "batch", "max_tokens")
        passed = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in names]
        subprocess.run(
            [sys.executable, __file__, "--child", side, "--out", str(out), *passed], check=True
        )
        with np.load(out) as found:
            return {name: found[name].tolist() for name in found.files}


def _child(options: argparse.Namespace) -> None:
    """Load, score once small to warm up, score and time, and write what came of it."""
    from workbench.scoring.models import load_model, parse_model

    loaded = load_model(parse_model(options.model), dtype=options.dtype)
    pairs = _pairs(options, loaded)
    score = _plain if options.child == "plain" else _ours
    score(loaded, pairs[:1], options.batch)
    before = _peak_mb()
    started = time.perf_counter()
    logps = score(loaded, pairs, options.batch)
    seconds = time.perf_counter() - started
    tokens = sum(len(s.input_ids) for pair in pairs for s in _sequences(loaded, pair))
    np.savez(
        options.out,
        logps=np.concatenate(logps),
        seconds=seconds,
        peak_mb=_peak_mb(),
        loaded_mb=before,
        tokens=tokens,
        pairs=len(pairs),
    )


def _pairs(options: argparse.Namespace, loaded: Any) -> list[Any]:  # noqa: ANN401
    """A fixed random choice of the source's pairs; all of them if as many are asked for."""
    from workbench.data.sources import open_source

    everything = open_source(options.source).pairs
    order = np.random.default_rng(SEED).permutation(len(everything))
    fitting = (
        everything[i]
        for i in order
        if not options.max_tokens
        or all(len(s.input_ids) <= options.max_tokens for s in _sequences(loaded, everything[i]))
    )
    return [pair for _, pair in zip(range(options.pairs), fitting, strict=False)]


def _sequences(loaded: Any, pair: Any) -> list[Any]:  # noqa: ANN401
    from workbench.scoring.tokenise import tokenise_completion

    return [
        tokenise_completion(loaded.tokenizer, pair.prompt, answer, loaded.max_length)
        for answer in (pair.chosen, pair.rejected)
    ]


def _ours(loaded: Any, pairs: list[Any], batch: int) -> list[np.ndarray]:  # noqa: ANN401
    from workbench.scoring.logprobs import ModelScorer, Request

    answers = [Request(p.prompt, text) for p in pairs for text in (p.chosen, p.rejected)]
    return [score.token_logps for score in ModelScorer(loaded).score(answers)]


def _plain(loaded: Any, pairs: list[Any], batch: int) -> list[np.ndarray]:  # noqa: ANN401
    import torch

    found = []
    for start in range(0, len(pairs), batch):
        rows = [s for pair in pairs[start : start + batch] for s in _sequences(loaded, pair)]
        width = max(len(row.input_ids) for row in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for place, row in enumerate(rows):
            n = len(row.input_ids)
            ids[place, :n] = torch.from_numpy(np.asarray(row.input_ids)).long()
            mask[place, :n] = 1
        ids, mask = ids.to(loaded.model.device), mask.to(loaded.model.device)
        with torch.inference_mode():
            logits = loaded.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            logps = torch.log_softmax(logits[:, :-1].float(), dim=-1)
            picked = logps.gather(2, ids[:, 1:, None])[:, :, 0].cpu().numpy()
        for place, row in enumerate(rows):
            found.append(picked[place, row.response_start - 1 : len(row.input_ids) - 1])
    return found


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024


def _table(report: dict[str, Any]) -> str:
    return "\n".join(f"{name:30} {value}" for name, value in report.items())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--model", default="default")
    parser.add_argument("--source", default="dpo-en-demo")
    parser.add_argument("--batch", type=int, default=1, help="pairs a batch of the plain side")
    parser.add_argument("--max-tokens", type=int, default=0, help="leave longer pairs out; 0: none")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tolerance", type=float, help="nats a token; 1e-3 in float32, else 0.5")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", choices=("plain", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tolerance is None:
        options.tolerance = 1e-3 if options.dtype == "float32" else 0.5
    return options


if __name__ == "__main__":
    raise SystemExit(main())

"""Scoring on Ray: pairs a second with one actor against two, in one run.

Every measurement scores the same pairs anew into a folder of its own, in a child process with a
local runtime of its own; one actor and two take turns, first one then the other leading. With
`--threads 1` every actor computes on one core, so that two actors have twice the cores; with
`--threads 0` each takes its share of all cores, and on one machine two actors can win only what one
process leaves idle. The clock starts when every actor has done its first block, so that the start
of Ray and the loading of models do not count; the time up to there is reported beside it.

    python benchmarks/ray_scoring.py --pairs 256 --block 16 --repeats 3
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> int:
    """Measure and print a table or JSON; 1 when one and two actors differ in their numbers."""
    options = _options()
    if options.child:
        print(json.dumps(_child(options)))
        return 0
    report = measure(options)
    print(json.dumps(report, indent=2) if options.json else _table(report))
    return 0 if report["worst_difference_nats"] <= options.tolerance else 1


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Turns of one and two actors, and their comparison."""
    turns = []
    for turn in range(options.repeats):
        order = (1, 2) if turn % 2 == 0 else (2, 1)
        turns.append({actors: _run_child(actors, options) for actors in order})
    ratios = [t[2]["pairs_a_second"] / t[1]["pairs_a_second"] for t in turns]
    return {
        "pairs": options.pairs,
        "block": options.block,
        "model": options.model,
        "cores_an_actor": options.threads or "its share of all",
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        **{
            f"{name}_{actors}": statistics.median(t[actors][name] for t in turns)
            for actors in (1, 2)
            for name in ("pairs_a_second", "seconds_to_all_at_work", "seconds_in_all")
        },
        "worst_difference_nats": max(
            abs(a - b) for t in turns for a, b in zip(t[1]["logps"], t[2]["logps"], strict=True)
        ),
    }


def _run_child(actors: int, options: argparse.Namespace) -> dict[str, Any]:
    names = ("pairs", "block", "model", "source", "threads")
    passed = [f"--{name}={getattr(options, name)}" for name in names]
    command = [sys.executable, __file__, "--child", str(actors), *passed]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _child(options: argparse.Namespace) -> dict[str, Any]:
    """Score once with so many actors."""
    from workbench.data.files import write_file
    from workbench.data.sources import open_source
    from workbench.scoring import ray_engine

    if options.threads:
        # Before the runtime is started: Ray gives an actor its share of what it believes there is.
        os.cpu_count = lambda: options.threads * options.child  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as place:
        source, out = Path(place) / "pairs.jsonl", Path(place) / "out"
        everything = open_source(options.source).pairs
        chosen = [everything[i % len(everything)] for i in range(options.pairs)]
        rows = [pair.to_json() | {"pair_id": f"p{i}"} for i, pair in enumerate(chosen)]
        write_file(source, rows)
        blocks = ray_engine.plan_blocks(str(source), out, options.block)
        started, ends = time.monotonic(), []
        reports = ray_engine.score_on_ray(
            blocks,
            options.model,
            options.model,
            out,
            actors=options.child,
            on_block=lambda report: ends.append((time.monotonic(), report)),
        )
        assert all(report.scored for report in reports)
        logps = ray_engine.read_parts(out)["policy_chosen"].to_pylist()
    warm = _all_at_work([report.worker for _, report in ends], options.child)
    first, last = ends[warm][0], ends[-1][0]
    return {
        "pairs_a_second": sum(report.pairs for _, report in ends[warm + 1 :]) / (last - first),
        "seconds_to_all_at_work": first - started,
        "seconds_in_all": last - started,
        "logps": logps,
    }


def _all_at_work(workers: list[int], actors: int) -> int:
    """The place of the block with which the last actor has begun to deliver."""
    for place in range(len(workers) - 1):
        if len(set(workers[: place + 1])) == actors:
            return place
    raise SystemExit("Not every actor had two blocks to score; give more pairs.")


def _table(report: dict[str, Any]) -> str:
    return "\n".join(f"{name:28} {value}" for name, value in report.items())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--block", type=int, default=16)
    parser.add_argument("--model", default="default")
    parser.add_argument("--source", default="teaching")
    parser.add_argument("--threads", type=int, default=1, help="cores an actor; 0: its share")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tolerance", type=float, default=1e-3, help="nats")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())

"""Distance covariance: ours against dcor's fast univariate path, in one run.

Imports aside: both sides are warm in one child process (dcor compiled, ours loaded) and take
turns, first one then the other leading, so that a busy machine disturbs both alike. dcor runs its
AVL and its merge-sort algorithm and counts with the quicker. Imports included: a fresh process
for each side and each turn computes one value and ends. The multivariate case (3 columns against
2) has no fast algorithm; it is computed in blocks in a child of its own, whose peak memory the
system reports. Both sides must agree to 1e-8, or the exit status is 1.

    python benchmarks/distance_covariance.py
    python benchmarks/distance_covariance.py --quick
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

SEED = 0
SIDES = ("ours", "dcor")
AGREEMENT = 1e-8


def main() -> int:
    """Measure, print a table or JSON; 1 when the values differ."""
    options = _options()
    if options.child:
        print(json.dumps(_CHILDREN[options.child](options)))
        return 0
    report = measure(options)
    print(json.dumps(report, indent=2) if options.json else _table(report))
    return 0 if report["agree"] else 1


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Warm turns at every size, fresh processes, and the peak of the multivariate case."""
    warm = [_run_child("warm", options, n=n)[0] for n in options.sizes]
    fresh = _fresh(options)
    return {
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "repeats": options.repeats,
        "warm": warm,
        "fresh": fresh,
        "multivariate": _run_child("multivariate", options, n=options.multivariate)[0],
        "agree": all(row["difference"] <= AGREEMENT for row in (*warm, fresh)),
    }


def _fresh(options: argparse.Namespace) -> dict[str, Any]:
    n, seconds = max(options.sizes), {side: [] for side in SIDES}
    values = {}
    for turn in range(options.fresh_repeats):
        for side in _order(turn):
            found, wall = _run_child(side, options, n=n)
            seconds[side].append(wall)
            values[side] = found["value"]
    return _row(n, seconds, _relative(*values.values()))


def _run_child(name: str, options: argparse.Namespace, n: int) -> tuple[dict[str, Any], float]:
    command = [sys.executable, __file__, "--child", name, "--n", str(n)]
    started = time.perf_counter()
    out = subprocess.run(
        [*command, "--repeats", str(options.repeats)], check=True, stdout=subprocess.PIPE
    ).stdout
    return json.loads(out), time.perf_counter() - started


def _warm(options: argparse.Namespace) -> dict[str, Any]:
    """Turns of ours and dcor, both warm; a turn repeats a quick call to last a while."""
    x, y = _sample(options.n)
    calls = {"ours": _ours(x, y), "dcor avl": _dcor(x, y, "avl"), "dcor": _dcor(x, y, "mergesort")}
    values = [call() for call in calls.values()]
    times = max(1, 20_000 // options.n)
    seconds: dict[str, list[float]] = {side: [] for side in calls}
    for turn in range(options.repeats):
        names = list(calls) if turn % 2 == 0 else list(calls)[::-1]
        for side in names:
            started = time.perf_counter()
            for _ in range(times):
                calls[side]()
            seconds[side].append((time.perf_counter() - started) / times)
    avl = seconds.pop("dcor avl")
    if statistics.median(avl) < statistics.median(seconds["dcor"]):
        seconds["dcor"] = avl
    return _row(options.n, seconds, max(_relative(values[0], other) for other in values[1:]))


def _fresh_child(options: argparse.Namespace) -> dict[str, Any]:
    x, y = _sample(options.n)
    side = _ours(x, y) if options.child == "ours" else _dcor(x, y, "avl")
    return {"value": side()}


def _multivariate(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from workbench.metrics.dependence import distance_covariance_sq

    rng = np.random.default_rng(SEED)
    x = rng.normal(size=(options.n, 3))
    y = np.column_stack([x[:, 0] ** 2, rng.normal(size=options.n)])
    before, started = _peak_mb(), time.perf_counter()
    value = float(distance_covariance_sq(torch.from_numpy(x), torch.from_numpy(y)))
    return {
        "n": options.n,
        "value": value,
        "seconds": time.perf_counter() - started,
        "imported_mb": before,
        "peak_mb": _peak_mb(),
    }


_CHILDREN: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "warm": _warm,
    "ours": _fresh_child,
    "dcor": _fresh_child,
    "multivariate": _multivariate,
}


def _sample(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(SEED)
    x = rng.normal(size=n)
    return x, x**2 + rng.normal(size=n)


def _ours(x: np.ndarray, y: np.ndarray) -> Callable[[], float]:
    import torch

    from workbench.metrics.dependence import distance_covariance_sq

    return lambda: float(distance_covariance_sq(torch.from_numpy(x), torch.from_numpy(y)))


def _dcor(x: np.ndarray, y: np.ndarray, method: str) -> Callable[[], float]:
    import dcor

    return lambda: float(dcor.distance_covariance_sqr(x, y, method=method))


def _order(turn: int) -> tuple[str, ...]:
    return SIDES if turn % 2 == 0 else SIDES[::-1]


def _relative(a: float, b: float) -> float:
    return abs(a - b) / abs(b)


def _row(n: int, seconds: dict[str, list[float]], difference: float) -> dict[str, Any]:
    ratios = [o / d for o, d in zip(seconds["ours"], seconds["dcor"], strict=True)]
    medians = {f"{side}_seconds": statistics.median(seconds[side]) for side in SIDES}
    return {"n": n, **medians, "ratio": statistics.median(ratios), "difference": difference}


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024


def _table(report: dict[str, Any]) -> str:
    rows = [("imports", "n", "ours ms", "dcor ms", "ours/dcor", "difference")]
    for kind, row in (*(("aside", w) for w in report["warm"]), ("included", report["fresh"])):
        times = (f"{1000 * row[f'{side}_seconds']:.2f}" for side in SIDES)
        rows.append(
            (kind, f"{row['n']:,}", *times, f"{row['ratio']:.2f}", f"{row['difference']:.0e}")
        )
    lines = ["".join(f"{cell:>12}" for cell in row) for row in rows]
    many = report["multivariate"]
    lines.append(
        f"multivariate n = {many['n']:,} (3 against 2 columns): {many['seconds']:.1f} s, peak "
        f"{many['peak_mb']:.0f} MB ({many['imported_mb']:.0f} MB before the call)"
    )
    lines.append(f"{report['cpus']} cores, load {report['load']:.1f}, agree: {report['agree']}")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 50_000])
    parser.add_argument("--multivariate", type=int, default=25_000, help="rows of that case")
    parser.add_argument("--repeats", type=int, default=21, help="warm turns of each side")
    parser.add_argument("--fresh-repeats", type=int, default=3, help="fresh processes a side")
    parser.add_argument("--quick", action="store_true", help="a smoke run of small sizes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", choices=_CHILDREN, help=argparse.SUPPRESS)
    parser.add_argument("--n", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.multivariate = [200, 1_000], 1_000
        options.repeats, options.fresh_repeats = 3, 1
    return options


if __name__ == "__main__":
    raise SystemExit(main())

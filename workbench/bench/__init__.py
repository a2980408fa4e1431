"""The workbench as objects of a notebook: `open` gives a bench, and a bench has views."""

from workbench.bench.bench import Bench
from workbench.bench.opening import open_bench
from workbench.bench.view import BenchError

__all__ = ["Bench", "BenchError", "open_bench"]

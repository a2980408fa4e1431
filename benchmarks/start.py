"""Starting: imports and help against an empty Python, and first and second starts to a page.

Each measurement is a process of its own. Import and help take turns with `python -c pass`, so that
a busy machine disturbs all alike, and are given as ratios to it too. The server starts on the
bundled teaching set in an empty data folder, with the default model already in the cache (a second
start) and with an empty cache (a first start, which then fetches it); the clock runs from the start
of the process until its page answers, and until Chromium, started beforehand, shows the tabs and
the first pair.

    python benchmarks/start.py --repeats 5
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
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

TARGET_SECONDS = {"import": 0.3, "help": 0.3, "page": 8.0, "first_page": 5.0}
_COMMANDS = {
    "pass": ["-c", "pass"],
    "import": ["-c", "import workbench"],
    "help": ["-m", "workbench", "--help"],
}
_PATIENCE_SECONDS = 120


def main() -> int:
    """Measure, print a table or JSON; 1 when a target is missed."""
    options = _options()
    report = measure(options)
    print(json.dumps(report, indent=2) if options.json else _table(report))
    return 0 if report["on_target"] else 1


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Medians of all measurements, and the ratios to an empty Python."""
    turns = [
        {name: _seconds(command) for name, command in _COMMANDS.items()}
        for _ in range(options.repeats)
    ]
    found = {
        f"{name}_{what}": statistics.median(turn[name][what] for turn in turns)
        for name in _COMMANDS
        for what in ("seconds", "cpu_seconds")
    }
    ratios = {
        f"{name}_to_pass": statistics.median(
            turn[name]["seconds"] / turn["pass"]["seconds"] for turn in turns
        )
        for name in ("import", "help")
    }
    if not options.no_server:
        with _chromium(options) as show:
            starts = [
                _start_server(show) | _first(_start_server(show, first=True))
                for _ in range(options.server_repeats)
            ]
        for name in starts[0]:
            found[f"{name}_seconds"] = statistics.median(start[name] for start in starts)
    missed = [n for n, most in TARGET_SECONDS.items() if found.get(f"{n}_seconds", 0.0) > most]
    return {
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        **found,
        **ratios,
        "missed": missed,
        "on_target": not missed,
    }


def _seconds(command: list[str]) -> dict[str, float]:
    """Time on the clock, and of the processor: the second hardly depends on what else runs."""
    before, started = _processor_seconds(), time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": _processor_seconds() - before,
    }


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _first(start: dict[str, float]) -> dict[str, float]:
    return {f"first_{name}": seconds for name, seconds in start.items()}


def _start_server(show: Callable[[str], None] | None, *, first: bool = False) -> dict[str, float]:
    """Seconds from the start of a server to its first answer and its first painted page."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "workbench", "serve", "--port", "0"]
        environment = os.environ | {"WORKBENCH_DATA": f"{folder}/data", "HF_HUB_OFFLINE": "1"}
        if first:
            environment["WORKBENCH_CACHE"] = f"{folder}/cache"
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            return _follow(process, started, show)
        finally:
            process.terminate()
            process.wait()


def _follow(
    process: "subprocess.Popen[str]", started: float, show: Callable[[str], None] | None
) -> dict[str, float]:
    assert process.stdout is not None
    address = process.stdout.readline().partition(": ")[2].strip()
    found = {"listening": time.perf_counter() - started}
    if show is None:
        with urllib.request.urlopen(address, timeout=_PATIENCE_SECONDS) as answer:
            assert answer.status == 200
        return found | {"answer": time.perf_counter() - started}
    show(address)
    return found | {"page": time.perf_counter() - started}


@contextmanager
def _chromium(options: argparse.Namespace) -> Iterator[Callable[[str], None] | None]:
    """What opens an address and waits for the first pair; None where there is no browser."""
    if options.no_browser:
        yield None
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=options.chromium, args=["--no-sandbox", "--disable-gpu"]
        )

        def show(address: str) -> None:
            tab = browser.new_page()
            tab.set_default_timeout(1000 * _PATIENCE_SECONDS)
            tab.goto(address, wait_until="commit")
            tab.get_by_role("tab", name="Pairs").first.wait_for()
            tab.locator(".wb-row").first.wait_for()
            tab.evaluate("() => new Promise(done => requestAnimationFrame(() => done()))")
            tab.close()

        yield show
        browser.close()


def _table(report: dict[str, Any]) -> str:
    return "\n".join(f"{name:30} {value}" for name, value in report.items())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15, help="turns of import and help")
    parser.add_argument("--server-repeats", type=int, default=3)
    parser.add_argument("--no-server", action="store_true")
    parser.add_argument("--no-browser", action="store_true", help="until the first answer only")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())

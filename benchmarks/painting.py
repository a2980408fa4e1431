"""From a key press to the last pixel that follows it, in a real Chromium on this machine.

Two questions. *Slider*: the beta slider of the Rewards page is moved by one key press at 100,
1,000 and 10,000 pairs (made up, scored by a fake, so that no model takes part); the time ends with
the last thing that the page drew, the strip of quantities and three figures. *Edit*: one word of
an answer of the teaching set is changed under the default models; the time ends when the strip
shows new numbers. Browser and server share the machine's cores. Times are what a person waits;
the ratio is to the smallest set of the same run.

    python benchmarks/painting.py --repeats 15 --sizes 100 1000 10000
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workbench.app.main import page_factory
from workbench.app.server import ServerOptions, make_server
from workbench.data.formats import write_pairs
from workbench.data.pairs import PreferenceSet, build_pair
from workbench.engine.pool import load_scorer
from workbench.engine.workspace import Workspace
from workbench.scoring.logprobs import OnPartial, Request, SequenceScore

CHROMIUM = os.environ.get("WORKBENCH_CHROMIUM", "/usr/bin/chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update",
         "--disable-sync"]  # fmt: skip
QUIET_MS = 600
WATCH = """
window.drawn = 0;
const proto = CanvasRenderingContext2D.prototype;
for (const name of ["clearRect", "fillRect", "stroke", "fill", "fillText", "drawImage"]) {
  const plain = proto[name];
  proto[name] = function (...given) {
    window.drawn = performance.now();
    return plain.apply(this, given);
  };
}
window.find = (selector, root = document) => {
  const here = root.querySelector(selector);
  if (here) return here;
  for (const node of root.querySelectorAll("*")) {
    const inside = node.shadowRoot && window.find(selector, node.shadowRoot);
    if (inside) return inside;
  }
  return null;
};
window.strip = () => window.find(".strip")?.textContent ?? "";
"""
PRESSED = """
() => new Promise((resolve) => {
  let shown = window.strip();
  let changed = 0;
  const begin = (event) => {
    const start = performance.now();
    const look = () => {
      const now = performance.now();
      if (window.strip() !== shown) {
        shown = window.strip();
        changed = now;
      }
      const last = Math.max(changed, window.drawn > start ? window.drawn : 0);
      if (changed && now - last > QUIET) resolve(last - start);
      else if (now - start > 60000) resolve(NaN);
      else requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  };
  document.addEventListener("keydown", begin, { capture: true, once: true });
  window.armed = true;
})
""".replace("QUIET", str(QUIET_MS))


class FakeScorer:
    """Scores by a hash of the text, at once."""

    template_digest = "none"
    max_length = 2048
    dtype = "float32"

    def __init__(self, name: str) -> None:
        self.digest = f"fake {name}"

    def score(
        self, requests: Sequence[Request], *, on_partial: OnPartial | None = None, **_: object
    ) -> list[SequenceScore]:
        """Twelve tokens for every answer."""
        found = [self._one(request) for request in requests]
        if on_partial is not None:
            on_partial(list(enumerate(found)))
        return found

    def _one(self, request: Request) -> SequenceScore:
        seed = abs(hash((self.digest, request.prompt, request.response))) % 2**32
        random = np.random.default_rng(seed)
        logps = -random.exponential(1.5, 12).astype(np.float32)
        return SequenceScore(np.arange(12, dtype=np.int32), logps, False, False)


def main() -> int:
    """Measure and print a table or JSON."""
    options = _options()
    report: dict[str, Any] = {"cpus": os.cpu_count(), "load": os.getloadavg()[0]}
    report["slider_ms"] = {
        str(size): _summary(_slider(size, options.repeats)) for size in options.sizes
    }
    if not options.no_edit:
        report["edit_ms"] = _summary(_edits(options.repeats))
    print(json.dumps(report, indent=2) if options.json else _table(report))
    return 0


def _slider(size: int, repeats: int) -> list[float]:
    """Milliseconds from each of `repeats` moves of the slider to the last paint."""
    random = np.random.default_rng(0)
    rows = [
        {"pair_id": f"p{i}", "prompt": f"q {i // 2}", "chosen": f"a {i}", "rejected": f"b {i}",
         "attributes": {"age": float(random.integers(18, 80)), "group": "fm"[i % 2]}}
        for i in range(size)
    ]  # fmt: skip
    pairs = PreferenceSet("made up", [build_pair(row) for row in rows])
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "pairs.jsonl"
        write_pairs(pairs, source)
        workspace = Workspace(
            Path(folder) / "sessions",
            Path(folder) / "scores.sqlite",
            lambda name, progress=None, cancelled=None: FakeScorer(name),
        )
        page = page_factory(workspace, str(source), "policy", "reference")
        with _Served(page, workspace) as url, _Tab(url, size) as tab:
            tab.get_by_role("tab", name="Rewards").click()
            tab.wait_for_timeout(3000)
            tab.locator("input[type=range]").first.focus()
            return [_press(tab, "ArrowRight" if i % 2 else "ArrowLeft") for i in range(repeats)]


def _edits(repeats: int) -> list[float]:
    """Milliseconds from accepting an edit of the teaching set to new numbers in the strip."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder) / "sessions", Path(folder) / "s.sqlite", load_scorer)
        from workbench.defaults import DEFAULT_POLICY, DEFAULT_REFERENCE, DEFAULT_SOURCE

        page = page_factory(workspace, DEFAULT_SOURCE, DEFAULT_POLICY, DEFAULT_REFERENCE)
        with _Served(page, workspace) as url, _Tab(url, 200) as tab:
            tab.locator("[data-field=chosen]").first.click()
            field = tab.locator(".wb-detail").get_by_label("Chosen", exact=True)
            found = []
            for turn in range(repeats):
                tab.wait_for_timeout(500)
                field.fill(f"Rinse the rice {turn + 2} times, then simmer it with the lid on.")
                found.append(_press(tab, "Control+Enter"))
            return found


def _press(tab: Any, key: str) -> float:  # noqa: ANN401 - a playwright page
    """Press a key and wait for what follows; the time is taken inside the page."""
    tab.evaluate(f"window.armed = false; window.result = ({PRESSED})(); 0")
    tab.wait_for_function("window.armed")
    tab.keyboard.press(key)
    return float(tab.evaluate("window.result"))


class _Served:
    """The application on a free port of this machine, in a thread."""

    def __init__(self, page: Callable[[], Any], workspace: Workspace) -> None:
        self._page, self._workspace = page, workspace
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        self._ready.wait()
        return f"http://127.0.0.1:{self._server.port}/"

    def __exit__(self, *_: object) -> None:
        self._server.io_loop.add_callback(self._server.stop, False)
        self._server.io_loop.add_callback(self._server.io_loop.stop)
        self._thread.join(10)
        self._workspace.close()

    def _run(self) -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        self._server = make_server(self._page, ServerOptions(port=0))
        self._server.start()
        self._server.io_loop.add_callback(self._ready.set)
        self._server.io_loop.start()


class _Tab:
    """A browser tab on the application, once all pairs are scored."""

    def __init__(self, url: str, size: int) -> None:
        self._url, self._size = url, size

    def __enter__(self) -> Any:  # noqa: ANN401 - a playwright page
        from playwright.sync_api import sync_playwright

        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = self._browser.new_page(viewport={"width": 1440, "height": 1000})
        tab.set_default_timeout(120_000)
        tab.add_init_script(WATCH)
        tab.goto(self._url)
        tab.wait_for_function(f"window.strip().includes('of {self._size} pairs')")
        tab.wait_for_timeout(2000)
        return tab

    def __exit__(self, *_: object) -> None:
        self._browser.close()
        self._playwright.stop()


def _summary(times: list[float]) -> dict[str, float]:
    return {
        "median": statistics.median(times),
        "p90": float(np.quantile(times, 0.9)),
        "least": min(times),
        "n": len(times),
    }


def _table(report: dict[str, Any]) -> str:
    lines = [f"{report['cpus']} cores, load {report['load']:.1f}; milliseconds"]
    rows = {f"slider, {size} pairs": found for size, found in report["slider_ms"].items()}
    if "edit_ms" in report:
        rows["edit, teaching set, default models"] = report["edit_ms"]
    least = next(iter(rows.values()))["median"]
    lines.append(f"{'':38}{'median':>8}{'p90':>8}{'ratio':>8}")
    lines += [
        f"{name:38}{found['median']:8.0f}{found['p90']:8.0f}{found['median'] / least:8.2f}"
        for name, found in rows.items()
    ]
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--no-edit", action="store_true", help="leave the edit out")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())

"""Take the screenshots of docs/images: every page, light and dark, on the default models.

    python tools/take_screenshots.py docs/images

Each page shows the teaching set, except Fairness, which shows the decision set; Train has taken
some steps of DPO, and Studies shows its gallery and one study that has run. Chromium is driven
through playwright, as in the tests; the pictures are reduced to 256 colours.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

CHROMIUM = os.environ.get("WORKBENCH_CHROMIUM", "/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PAGES = {
    "teaching": ("Pairs", "Rewards", "Ranking", "DID", "Attribution", "Train", "Studies"),
    "decisions": ("Fairness",),
}
STEPS = re.compile(r"Training · step (2[4-9]|[3-9]\d|\d{3})\b")
"""What the page Train says after some two dozen steps."""
PATIENCE_MS = 240_000


def main() -> None:
    """Take all pictures."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    folder: Path = arguments.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for source, names in PAGES.items():
            with served(source) as url:
                for theme in ("light", "dark"):
                    take(browser, url, theme, names, folder)
        browser.close()


@contextmanager
def served(source: str) -> Iterator[str]:
    """The workbench on a free port of this machine."""
    command = [sys.executable, "-m", "workbench", "serve", source, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split(": ", 1)[1].strip()
        process.terminate()


def take(browser: Any, url: str, theme: str, names: tuple[str, ...], folder: Path) -> None:  # noqa: ANN401
    """Pictures of some pages in one theme, with a pair selected."""
    tab = browser.new_page(viewport={"width": 1440, "height": 1000})
    tab.set_default_timeout(PATIENCE_MS)
    tab.goto(url)
    tab.locator("[data-quantity=ranking] .value", has_text="%").wait_for()
    tab.get_by_text("Stop", exact=True).wait_for(state="hidden")
    if theme == "dark":
        tab.get_by_label("Toggle theme").click()
    for _ in range(3):
        tab.keyboard.press("j")
        tab.wait_for_timeout(300)
    for name in names:
        tab.get_by_role("tab", name=name, exact=True).click()
        settle(tab, name)
        shoot(tab, folder / f"{name.lower()}-{theme}.png")
        if name == "Studies":
            run_study(tab)
            shoot(tab, folder / f"study-{theme}.png")
    tab.close()


def shoot(tab: Any, path: Path) -> None:  # noqa: ANN401 - a playwright page
    """One picture, in 256 colours."""
    tab.screenshot(path=path)
    Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)
    print(path.name, path.stat().st_size, flush=True)


def run_study(tab: Any) -> None:  # noqa: ANN401 - a playwright page
    """Open the first study, run it, and wait for its figures."""
    tab.get_by_text("Differential information, exactly").first.click()
    tab.get_by_role("button", name="Run", exact=True).first.click()
    tab.locator(".js-plotly-plot .main-svg").first.wait_for()
    tab.wait_for_timeout(2000)


def settle(tab: Any, name: str) -> None:  # noqa: ANN401 - a playwright page
    """Wait for what the worker has to find out for a page."""
    awaited = {"DID": "Next-token DID of the selected pair", "Attribution": "Completeness error"}
    if name in awaited:
        tab.get_by_text(awaited[name]).first.wait_for()
    if name == "Fairness":
        tab.get_by_role("button", name="Permutation test").click()
        tab.get_by_text("permutations, seed 0").wait_for()
    if name == "Train":
        tab.get_by_role("button", name="Play").click()
        tab.get_by_text(STEPS).first.wait_for()
        tab.get_by_role("button", name="Pause").click()
    tab.wait_for_timeout(2000)


if __name__ == "__main__":
    main()

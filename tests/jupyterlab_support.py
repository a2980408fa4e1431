"""A JupyterLab of its own for tests, with one notebook, driven with Chromium."""

import importlib.util
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from browser_support import free_port, missing

QUIET = {
    "@jupyterlab/apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
}
OPTIONS = [
    "--ServerApp.ip=127.0.0.1",
    "--ServerApp.open_browser=False",
    "--ServerApp.port_retries=0",
    "--ServerApp.allow_root=True",
    "--LabApp.expose_app_in_browser=True",
    "--LabApp.extension_manager=readonly",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.news_url=None",
]


def write_notebook(path: Path, sources: Sequence[str]) -> None:
    cells = [
        {"cell_type": "code", "id": f"cell{i}", "source": source, "metadata": {}, "outputs": [],
         "execution_count": None}
        for i, source in enumerate(sources)
    ]  # fmt: skip
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4}
    path.write_text(json.dumps(notebook | {"nbformat_minor": 5}), encoding="utf-8")


def write_settings(folder: Path) -> None:
    for name, value in QUIET.items():
        path = folder / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value), encoding="utf-8")


def own_folders(home: Path) -> dict[str, str]:
    """JupyterLab reads and writes below `home`, whatever the user's own settings are."""
    names = {
        "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "IPYTHONDIR": "ipython",
        "JUPYTER_RUNTIME_DIR": "runtime", "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }  # fmt: skip
    return {name: str(home / folder) for name, folder in names.items()}


def wait_until_it_answers(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start: {log.read_text(encoding='utf-8')[-2000:]}")


@contextmanager
def running_lab(home: Path, sources: Sequence[str], base: str = "/") -> Iterator[str]:
    """The address of a notebook of these cells, in a JupyterLab below `home`.

    Its pages lie below the path `base`. It is shut down by its process id at the end.
    """
    if importlib.util.find_spec("jupyterlab") is None:
        missing("jupyterlab is not installed")
    root = home / "root"
    root.mkdir()
    write_notebook(root / "notebook.ipynb", sources)
    write_settings(home / "settings")
    port, token, log = free_port(), secrets.token_hex(16), home / "log.txt"
    command = [sys.executable, "-m", "jupyterlab", *OPTIONS]
    command += [f"--ServerApp.port={port}", f"--ServerApp.root_dir={root}"]
    command += [f"--ServerApp.base_url={base}"]
    environment = os.environ | own_folders(home) | {"JUPYTER_TOKEN": token}
    with log.open("wb") as written:
        server = subprocess.Popen(command, env=environment, stdout=written, stderr=written)
    try:
        wait_until_it_answers(server, f"http://127.0.0.1:{port}{base}api?token={token}", log)
        yield f"http://127.0.0.1:{port}{base}lab/tree/notebook.ipynb?token={token}"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(10)


def run_all(page: Any, url: str) -> None:
    """Open the notebook, wait for its kernel, and run every cell."""
    page.goto(url)
    page.wait_for_function(
        "window.jupyterapp?.shell.currentWidget?.context?.sessionContext?.session?.kernel"
        "?.status === 'idle'",
        timeout=120_000,
    )
    run_command(page, "notebook:run-all-cells")


def run_command(page: Any, name: str) -> None:
    page.evaluate("name => window.jupyterapp.commands.execute(name)", name)


def run_cell(page: Any, place: int) -> None:
    page.evaluate("i => { jupyterapp.shell.currentWidget.content.activeCellIndex = i; }", place)
    run_command(page, "notebook:run-cell")


def cell(page: Any, place: int) -> Any:
    return page.locator(".jp-Notebook .jp-CodeCell").nth(place)


def printed(page: Any, place: int) -> Any:
    return cell(page, place).locator(".jp-OutputArea-output")


def outputs(page: Any, place: int) -> Any:
    """The outputs of a cell, in order, hidden ones too."""
    return cell(page, place).locator(".jp-OutputArea-child")


def live(page: Any, place: int) -> Any:
    """The live view of a cell."""
    return cell(page, place).locator(".workbench-live")


def save(page: Any, path: Path) -> dict[str, Any]:
    """Save the notebook; its content."""
    page.evaluate("jupyterapp.shell.currentWidget.context.save()")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def reopen_without_kernel(page: Any, url: str, home: Path, trusted: bool = True) -> None:
    """Open a copy of the saved notebook where no kernel can be started."""
    notebook = json.loads((home / "root" / "notebook.ipynb").read_text(encoding="utf-8"))
    if not trusted:  # a notebook of another content has no signature here
        notebook["metadata"]["author"] = "somebody else"
    path = home / "root" / "reopened.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")

    def answer(route: Any) -> None:
        if route.request.method == "POST":
            route.fulfill(status=500, body="{}")
        else:
            route.continue_()

    page.route("**/api/sessions*", answer)
    page.goto(url.replace("notebook.ipynb", "reopened.ipynb") + "&reset")
    page.locator(".jp-Toolbar-kernelName").get_by_text("No Kernel").wait_for()
    cell(page, 0).wait_for()


def check_pictures(page: Any, places: Sequence[int]) -> None:
    """Each cell shows a picture that is drawn, a page below it, and no widget's place."""
    for place in places:
        picture = outputs(page, place).nth(1).locator("img")
        picture.wait_for()
        assert picture.evaluate("image => image.complete && image.naturalWidth") > 1000
        assert outputs(page, place).nth(2).locator("table, .tile").first.is_visible()
        assert not outputs(page, place).first.is_visible(), f"the dead widget of cell {place} shows"

"""What survives a kill: the server is a process of its own, and dies by SIGKILL."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from browser_support import eventually, free_port

pytestmark = pytest.mark.browser


class Server:
    """`workbench serve` on a fixed port, with folders of its own."""

    def __init__(self, folder: Path, pairs: Path, policy: str, reference: str) -> None:
        self.port = free_port()
        self._command = [
            sys.executable, "-m", "workbench", "serve", str(pairs), "--policy", policy,
            "--reference", reference, "--port", str(self.port),
        ]  # fmt: skip
        self._environment = {
            **os.environ,
            "WORKBENCH_CACHE": str(folder / "cache"),
            "WORKBENCH_DATA": str(folder / "data"),
        }
        self.url = f"http://127.0.0.1:{self.port}/"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            self._command, env=self._environment, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "Preference workbench" in line, line

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)


@pytest.fixture
def server(tmp_path: Path, pairs_file: Path, tiny_folder: Path, tiny_adapter: Path) -> Any:
    made = Server(tmp_path, pairs_file, f"{tiny_folder}+adapter:{tiny_adapter}", str(tiny_folder))
    yield made
    made.kill()


def test_a_killed_server_loses_nothing_and_the_page_comes_back(page: Any, server: Server) -> None:
    page.goto(server.url)
    more = page.locator("[data-quantity=margin] .more")
    more.filter(has_text=re.compile("of 16 pairs")).wait_for()
    margin = page.locator("[data-quantity=margin] .value")
    before = margin.inner_text()
    row = page.locator(".wb-row", has=page.locator("[aria-label='Check pair p03']"))
    row.locator("[data-field=chosen]").click()
    field = page.locator(".wb-detail").get_by_label("Chosen", exact=True)
    field.fill("a sentence that must survive")
    field.press("Control+Enter")
    eventually(lambda: margin.inner_text() != before, 30)
    time.sleep(0.5)
    after = margin.inner_text()
    server.kill()
    page.get_by_text("server does not answer").wait_for()
    server.start()
    page.get_by_text("server does not answer").wait_for(state="detached")
    eventually(lambda: margin.count() == 1 and margin.inner_text() == after, 60)
    row.locator("[data-field=chosen]").get_by_text("must survive").wait_for()

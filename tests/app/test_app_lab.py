"""The tile in a real JupyterLab: the served app behind jupyter-server-proxy."""

import base64
import http.client
import importlib.util
import json
import re
import shutil
import socket
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from browser_support import eventually, first_message, in_own_loop, left_the_machine, missing
from jupyterlab_support import cell, run_all, running_lab

from workbench.data.store import PairStore

BASE = "/user/ada/"
ROOT = Path(__file__).parents[2]
FOREIGN = ("http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1")
UNGUARDED = """
import sys
from workbench.app import guard, lab

guard.judge = lambda *request: guard.Verdict()


def tile():
    plain = lab.tile()
    command = [sys.executable, __file__, plain["command"][-1]]
    entry = plain["launcher_entry"] | {"title": "Unguarded", "path_info": "unguarded/"}
    return plain | {"command": command, "launcher_entry": entry}


if __name__ == "__main__":
    lab.main(sys.argv[1])
"""


@dataclass
class Lab:
    """A running JupyterLab with the tile, and requests to it as a raw client makes them."""

    url: str
    sockets: Path
    data: Path

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def token(self) -> str:
        return parse_qs(urlsplit(self.url).query)["token"][0]

    def ask(self, path: str, name: str = "workbench", **headers: str) -> tuple[int, str]:
        """Status and body of a request through the proxy by somebody whom Jupyter lets in."""
        sent = {"Authorization": f"token {self.token}", **headers}
        host, port = self.host.split(":")
        with closing(http.client.HTTPConnection(host, int(port), timeout=150)) as client:
            client.request("GET", f"{BASE}{name}{path}", headers=sent)
            answer = client.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")

    def websocket(self, name: str = "workbench", **headers: str) -> int | str | None:
        """The status that refuses a websocket through the proxy, or its first message if any."""
        found = re.search(r'"token":"([^"]+)"', self.ask("/", name)[1])
        assert found is not None
        sent = {"Authorization": f"token {self.token}", **headers}
        url = f"ws://{self.host}{BASE}{name}/ws"
        return in_own_loop(first_message(url, found[1], sent))

    def cookie(self) -> str:
        """The cookie by which Jupyter knows a browser again."""
        host, port = self.host.split(":")
        with closing(http.client.HTTPConnection(host, int(port), timeout=60)) as client:
            client.request("GET", f"{BASE}lab?token={self.token}")
            given = client.getresponse().headers.get_all("Set-Cookie") or []
        return "; ".join(each.split(";")[0] for each in given)

    def directly(self, **headers: str) -> list[int]:
        """The status with which each app answers a request that does not come by the proxy."""
        lines = {"Host": self.host, "Connection": "close", **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        found = []
        for path in sorted(self.sockets.glob("*/socket")):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(60)
                client.connect(str(path))
                client.sendall(f"GET /alive HTTP/1.1\r\n{head}\r\n".encode())
                found.append(int(client.recv(4096).split()[1]))
        return found


def declare(folder: Path, group: dict[str, str]) -> None:
    """A distribution on the path that declares these entry points, as pip would write them."""
    card = folder / "stand_in-1.dist-info"
    card.mkdir(parents=True)
    (card / "METADATA").write_text("Metadata-Version: 2.1\nName: stand-in\nVersion: 1\n")
    lines = "".join(f"{name} = {place}\n" for name, place in group.items())
    (card / "entry_points.txt").write_text(f"[jupyter_serverproxy_servers]\n{lines}")


def declared() -> dict[str, str]:
    """The tile as pyproject.toml declares it, where the installation is older than that."""
    from importlib.metadata import entry_points

    group = "jupyter_serverproxy_servers"
    if any(entry.name == "workbench" for entry in entry_points(group=group)):
        return {}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return dict(project["project"]["entry-points"][group])


@pytest.fixture(scope="module")
def lab(
    tmp_path_factory: pytest.TempPathFactory,
    pairs_file: Path,
    tiny_folder: Path,
    tiny_adapter: Path,
) -> Iterator[Lab]:
    if importlib.util.find_spec("jupyter_server_proxy") is None:
        missing("jupyter-server-proxy is not installed")
    home = tmp_path_factory.mktemp("lab")
    # The path of a Unix socket has at most 107 bytes.
    sockets = Path(tempfile.mkdtemp(prefix="wb-"))
    (home / "path").mkdir()
    (home / "path" / "unguarded.py").write_text(UNGUARDED)
    declare(home / "path", declared() | {"unguarded": "unguarded:tile"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(home / "path"))
        patch.setenv("TMPDIR", str(sockets))
        patch.setenv("WORKBENCH_DATA", str(home / "mine"))
        patch.setenv("WORKBENCH_CACHE", str(home / "cache"))
        patch.setenv("WORKBENCH_SOURCE", str(pairs_file))
        patch.setenv("WORKBENCH_POLICY", f"{tiny_folder}+adapter:{tiny_adapter}")
        patch.setenv("WORKBENCH_REFERENCE", str(tiny_folder))
        cells = ["from workbench.address import app_link\nprint(app_link('abcdefgh'))"]
        with running_lab(home, cells, BASE) as url:
            yield Lab(url, sockets, home / "mine")
    shutil.rmtree(sockets, ignore_errors=True)


@pytest.mark.browser
def test_a_click_on_the_tile_opens_the_app_and_an_edit_there_is_scored(
    lab: Lab, page: Any, tmp_path: Path
) -> None:
    requests: list[str] = []
    page.context.on("request", lambda request: requests.append(request.url))
    page.goto(lab.url)
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=120_000)
    page.evaluate("window.jupyterapp.commands.execute('launcher:create')")
    tile = page.locator(".jp-LauncherCard", has_text="Preference workbench")
    tile.wait_for()
    assert tile.locator("img").evaluate("image => image.naturalWidth") > 0
    with page.expect_popup() as opening:
        tile.click()
    app = opening.value
    app.set_default_timeout(120_000)
    app.locator("[data-quantity=margin] .more", has_text=re.compile("of 16 pairs")).wait_for()
    eventually(lambda: "session=" in app.evaluate("location.href"), 30)
    assert urlsplit(app.url).path == f"{BASE}workbench/"
    before = app.locator("[data-quantity=margin] .value").inner_text()
    field = app.locator(".wb-detail").get_by_label("Chosen", exact=True)
    if not field.is_visible():
        app.locator(".wb-row [data-field=prompt]").first.click()
    field.fill("the fox sat on the mat and read")
    field.press("Control+Enter")
    margin = app.locator("[data-quantity=margin] .value")
    # While the edit is scored the strip shows the other 15 pairs.
    whole = app.locator("[data-quantity=margin]", has_text=re.compile("of 16 pairs"))
    changed = whole.filter(has_not_text=before)
    changed.wait_for()
    after = changed.locator(".value").inner_text()
    app.reload()
    app.locator("[data-quantity=margin] .more", has_text=re.compile("of 16 pairs")).wait_for()
    eventually(lambda: margin.inner_text() == after, 60)
    session_id = parse_qs(urlsplit(app.evaluate("location.href")).query)["session"][0]
    # What another process writes to the session shows here without a click.
    with PairStore.open(lab.data / "sessions" / session_id / "pairs.sqlite") as elsewhere:
        elsewhere.undo()
    eventually(lambda: margin.inner_text() == before, 20)
    with app.expect_download() as saving:
        app.get_by_text("Open in a notebook").click()
    notebook = json.loads(Path(saving.value.path()).read_text(encoding="utf-8"))
    assert f'wb.open(session="{session_id}")' in "".join(notebook["cells"][1]["source"])
    app.close()
    assert [url for url in requests if left_the_machine(url)] == []


@pytest.mark.browser
def test_the_kernel_of_a_notebook_knows_the_apps_address(lab: Lab, page: Any) -> None:
    run_all(page, lab.url)
    answer = cell(page, 0).locator(".jp-OutputArea-output")
    answer.wait_for()
    assert answer.inner_text().strip() == f"{BASE}workbench/?session=abcdefgh"


def check_foreign_origins_are_refused(lab: Lab, name: str) -> None:
    assert lab.ask("/alive", name, Origin=f"http://{lab.host}")[0] == 200
    for origin in FOREIGN:
        for path in ("/", "/alive", "/static/js/bokeh.min.js"):
            assert lab.ask(path, name, Origin=origin)[0] == 403, (origin, path)


def check_foreign_websockets_are_refused(lab: Lab, name: str) -> None:
    assert "ACK" in str(lab.websocket(name, Origin=f"http://{lab.host}"))
    for origin in FOREIGN:
        # With a token Jupyter itself looks at no origin: the app refuses, and nothing is said.
        assert lab.websocket(name, Origin=origin) in (403, None), origin


def check_only_the_proxy_is_answered(lab: Lab, name: str) -> None:
    lab.ask("/alive", name)
    assert lab.directly()
    forged = {"X-Forwarded-Prefix": BASE, "X-Forwarded-Host": lab.host, "Authorization": lab.token}
    for headers in ({}, forged, {"X-Workbench-Proxy": ""}, {"X-Workbench-Proxy": "x" * 43}):
        assert set(lab.directly(**headers)) == {403}, headers


def test_a_foreign_origin_is_refused_through_the_proxy(lab: Lab) -> None:
    check_foreign_origins_are_refused(lab, "workbench")
    check_foreign_websockets_are_refused(lab, "workbench")
    known = {"Authorization": "", "Cookie": lab.cookie()}
    assert "ACK" in str(lab.websocket(Origin=f"http://{lab.host}", **known))
    assert {lab.websocket(Origin=origin, **known) for origin in FOREIGN} == {403}


def test_whoever_comes_past_the_proxy_is_refused(lab: Lab) -> None:
    check_only_the_proxy_is_answered(lab, "workbench")


def test_the_page_holds_neither_the_secret_nor_jupyters_cookies(lab: Lab) -> None:
    status, page = lab.ask("/", Cookie="_xsrf=of-jupyter; username=of-jupyter-too")
    assert status == 200
    tokens = re.findall(r'"token":"([^"]+)"', page)
    assert tokens
    for token in tokens:
        text = base64.urlsafe_b64decode(token.split(".")[0] + "===").decode("utf-8", "replace")
        assert "of-jupyter" not in text + page
        assert "X-Workbench-Proxy" not in text + page
        assert lab.token not in text + page


def test_an_app_without_its_guard_fails_the_checks(lab: Lab) -> None:
    checks = (
        check_foreign_origins_are_refused,
        check_foreign_websockets_are_refused,
        check_only_the_proxy_is_answered,
    )
    for check in checks:
        with pytest.raises(AssertionError):
            check(lab, "unguarded")


def test_the_program_behind_the_tile_says_who_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.app import lab as module
    from workbench.errors import WorkbenchError

    monkeypatch.delenv(module.SECRET, raising=False)
    with pytest.raises(WorkbenchError, match="launcher starts this program"):
        module.main("0")


def test_the_tile_is_declared_and_reading_it_loads_neither_torch_nor_panel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    group = project["project"]["entry-points"]["jupyter_serverproxy_servers"]
    assert group == {"workbench": "workbench.app.lab:tile"}
    import subprocess

    code = (
        "import sys; from workbench.app.lab import tile; t = tile(); "
        "assert open(t['launcher_entry']['icon_path']).read().startswith('<svg'); "
        "assert not {'torch', 'panel', 'bokeh'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

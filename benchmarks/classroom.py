"""A class on one server: many students edit, drag beta, come and go, and nothing may be lost.

One `workbench serve --classroom` process with the default models, and as many light clients in one
other process, which speak bokeh's protocol over real websockets (Chromium would need more of the
machine than the server). Each student changes an answer to a text that nobody wrote before, every
ten seconds, and moves beta between. Measured, as a browser would see it: the time from a cheap
change to the new numbers of the strip; the time from an edit to its scores; errors and refusals;
edits that the journals do not have; edits answered out of their order of arrival; resident memory
with one session and with all; and its growth over cycles of opening and closing a page. With
`--kill-after` the server dies by SIGKILL under load and is started again. With `--browser` a real
Chromium sits among the students and its paint of a beta step is timed.

    python benchmarks/classroom.py --minutes 5 --students 30 --cycles 200
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

WORDS = ("river", "lamp", "honest", "seven", "garden", "quick", "stone", "perhaps", "warm", "early",
         "letter", "paper", "north", "simple", "train", "evening")  # fmt: skip
PATIENCE = 60.0
SLACK = 1.0
"""Seconds: edits are scored together and each page paints in its own time, so closer answers have
no order."""


@dataclass
class Sent:
    """One edit, and when it was sent, written to the journal, and scored."""

    pair_id: str
    text: str
    sent: float
    kept: float | None = None
    answered: float | None = None


@dataclass
class Page:
    """What a client found in the document: names of models, and pairs to edit."""

    editor: str
    shortcuts: str
    strip: str
    pair_ids: list[str]


class Lost(Exception):
    """The connection ended."""


class Client:
    """One student's page, as far as this benchmark needs it.

    Args:
        link: The student's own.
        seed: Of the choice of pairs and words.
    """

    def __init__(self, link: str, seed: int = 0) -> None:
        base, token = link.split("/?token=")
        self.base = base
        self._cookie = f"workbench_token_{base.rpartition(':')[2]}={token}"
        self._random = random.Random(seed)
        self._socket: WebSocketClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._page: Page | None = None
        self._document = asyncio.Event()
        self._raw = ""
        self._seq = 0
        self._presses = 0
        self._waiting: Sent | None = None
        self._painted = False
        self._cheap: asyncio.Future[float] | None = None
        self._news = asyncio.Event()
        self.pairs = 0
        self.scored = 0
        self.alive = False
        self.sent: list[Sent] = []
        self.cheap_ms: list[float] = []
        self.errors: list[str] = []
        self.reconnected = 0

    async def open(self) -> None:
        """Load the page and connect, as a browser does."""
        answer = await AsyncHTTPClient().fetch(
            HTTPRequest(self.base + "/", headers={"Cookie": self._cookie}, request_timeout=PATIENCE)
        )
        found = re.search(r'"token":\s*"([^"]+)"', answer.body.decode())
        if found is None:
            raise Lost(answer.body.decode()[:200])
        address = self.base.replace("http", "ws", 1) + "/ws"
        self._socket = await websocket_connect(
            HTTPRequest(address, headers={"Cookie": self._cookie, "Origin": self.base}),
            subprotocols=["bokeh", found[1]], max_message_size=2**28,
        )  # fmt: skip
        await self._message()  # the server's word that it is ready to listen
        self._document.clear()
        self.alive = True
        self._reader = asyncio.create_task(self._listen())
        await self._send("PULL-DOC-REQ", {})
        await asyncio.wait_for(self._document.wait(), PATIENCE)
        ready = {"type": "event", "name": "document_ready",
                 "values": {"type": "map", "entries": []}}  # fmt: skip
        await self._patch({"kind": "MessageSent", "msg_type": "bokeh_event", "msg_data": ready})

    async def close(self) -> None:
        """Leave the page."""
        self.alive = False
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        if self._socket is not None:
            self._socket.close()

    async def settled(self, seconds: float) -> None:
        """Wait until every pair is scored."""
        await self._until(lambda: self.pairs > 0 and self.scored == self.pairs, seconds)

    async def edit(self, seconds: float = PATIENCE) -> Sent:
        """Write a new answer; returns when its scores have arrived."""
        assert self._page is not None
        pair_id = self._random.choice(self._page.pair_ids)
        text = " ".join(self._random.choices(WORDS, k=14)) + " " + uuid.uuid4().hex[:8]
        made = Sent(pair_id, text, time.monotonic())
        self.sent.append(made)
        self._waiting, self._painted = made, False
        self._seq += 1
        value = {"seq": self._seq, "pair_id": pair_id, "field": "chosen", "value": text}
        await self._set(self._page.editor, "edit", value)
        await self._until(lambda: made.answered is not None, seconds)
        return made

    async def move_beta(self, seconds: float = PATIENCE) -> None:
        """Press a key that moves beta; returns when the strip shows new numbers."""
        assert self._page is not None
        self._presses += 1
        key = "]" if self._presses % 4 < 2 else "["
        started = time.monotonic()
        self._cheap = asyncio.get_running_loop().create_future()
        await self._set(self._page.shortcuts, "pressed", {"seq": self._presses, "key": key})
        arrived = await asyncio.wait_for(self._cheap, seconds)
        self.cheap_ms.append(1000 * (arrived - started))

    async def live(self, until: float, every: float) -> None:
        """Edit every so many seconds and move beta between, whatever happens to the server."""
        await asyncio.sleep(self._random.uniform(0, every))
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                if not self.alive:
                    await self._come_back(until)
                await self.edit()
                await asyncio.sleep(every * self._random.uniform(0.1, 0.2))
                for _ in range(2):
                    await self.move_beta()
                    await asyncio.sleep(every * 0.1)
            except (TimeoutError, Lost, OSError) as error:
                if self.alive:
                    self.errors.append(f"{type(error).__name__}: {error}")
                    await self.close()
            await asyncio.sleep(max(0.0, every - (time.monotonic() - began)))

    async def _come_back(self, until: float) -> None:
        """What connection.js does: ask until a server answers, then load the page again."""
        while time.monotonic() < until + PATIENCE:
            try:
                await self.open()
            except Exception:  # the server is still away, in one of many ways
                await asyncio.sleep(1)
            else:
                self.reconnected += 1
                await self.settled(PATIENCE)
                return
        raise Lost("the server did not come back")

    async def _until(self, true: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not true():
            if not self.alive:
                raise Lost("the connection ended")
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no answer within {seconds} s")
            self._news.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), min(left, 5))

    async def _listen(self) -> None:
        try:
            while True:
                head, content = await self._message()
                self._heard(json.loads(head)["msgtype"], content)
        except Lost:
            self.alive = False
            if self._cheap is not None and not self._cheap.done():
                self._cheap.set_exception(Lost("the connection ended"))
        self._news.set()

    async def _message(self) -> tuple[str, str]:
        parts = [await self._fragment() for _ in range(3)]
        for _ in range(2 * int(json.loads(parts[0]).get("num_buffers", 0))):
            await self._fragment()
        return parts[0], parts[2]

    async def _fragment(self) -> str:
        assert self._socket is not None
        found = await self._socket.read_message()
        if found is None:
            raise Lost("the connection ended")
        return found if isinstance(found, str) else ""

    def _heard(self, kind: str, content: str) -> None:
        if kind == "ERROR":
            self.errors.append(content[:300])
        elif kind == "PULL-DOC-REPLY":
            self._page = _read(content)
            self._count(content)
            self._document.set()
        elif kind == "PATCH-DOC":
            self._patched(content)
        self._news.set()

    def _patched(self, content: str) -> None:
        """Look for what is waited for; a text search, because these clients must stay light."""
        waiting = self._waiting
        if waiting is not None and waiting.kept is None:
            if f'"attr":"acknowledged","new":{self._seq}' in content:
                waiting.kept = time.monotonic()
            if '"attr":"rejected_edit"' in content:
                self.errors.append(f"refused: {content[:300]}")
        if "data-quantity" in content:
            self._count(content)
            self._painted = True
            if self._cheap is not None and not self._cheap.done():
                self._cheap.set_result(time.monotonic())
        done = self._painted and self.scored == self.pairs
        if waiting is not None and waiting.kept is not None and done:
            waiting.answered, self._waiting = time.monotonic(), None

    def _count(self, content: str) -> None:
        if scored := re.search(r"of (\d+) pairs", content):
            self.scored = int(scored[1])
        if not self.pairs and (total := re.search(r": ([\d,]+) pairs", content)):
            self.pairs = int(total[1].replace(",", ""))

    async def _set(self, model: str, attribute: str, value: dict[str, Any]) -> None:
        packed = {"type": "map", "entries": [[key, each] for key, each in value.items()]}
        change = {"kind": "ModelChanged", "model": {"id": model}, "attr": attribute, "new": packed}
        await self._patch(change)

    async def _patch(self, event: dict[str, Any]) -> None:
        await self._send("PATCH-DOC", {"events": [event]})

    async def _send(self, kind: str, content: dict[str, Any]) -> None:
        assert self._socket is not None
        try:
            await self._socket.write_message(
                json.dumps({"msgid": uuid.uuid4().hex, "msgtype": kind})
            )
            await self._socket.write_message("{}")
            await self._socket.write_message(json.dumps(content))
        except Exception as error:  # tornado's several ways of saying that it is closed
            self.alive = False
            raise Lost(str(error)) from error


def _read(content: str) -> Page:
    def model(name: str) -> str:
        found = re.search(rf'"name":\s*"{name}\d*",\s*"id":\s*"(p\d+)"', content)
        if found is None:
            raise Lost(f"the page has no {name}: {content[:200]}")
        return found[1]

    ids = list(dict.fromkeys(re.findall(r'\["pair_id",\s*"([^"]+)"\]', content)))
    return Page(model("PairEditor"), model("Shortcuts"), "", ids)


class Server:
    """`workbench serve --classroom` as a process of its own."""

    def __init__(self, folder: Path, students: int, source: str, models: Sequence[str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self._links = folder / "links.json"
        self._command = [
            sys.executable, "-m", "workbench", "serve", source, "--classroom", "--students",
            str(students), "--port", str(self.port), "--json", "--policy", models[0],
            "--reference", models[1],
        ]  # fmt: skip
        self._environment = {**os.environ, "WORKBENCH_DATA": str(folder / "data")}
        self.start()

    def start(self) -> None:
        """Start, and wait until it listens."""
        with self._links.open("wb") as out:
            self.process = subprocess.Popen(self._command, env=self._environment, stdout=out)
        end = time.monotonic() + 120
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                break
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}")
            time.sleep(0.2)
        found = json.loads(self._links.read_text(encoding="utf-8"))
        self.instructor = found[0]["link"]
        self.links = [row["link"] for row in found[2:]]

    def kill(self) -> None:
        """End it without a warning."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)

    def memory_mb(self) -> float:
        """Resident memory, MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        found = re.search(r"VmRSS:\s+(\d+)", status)
        return int(found[1]) / 1024 if found else float("nan")

    def cpu_seconds(self) -> float:
        """Processor time used so far."""
        parts = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").split()
        return (int(parts[13]) + int(parts[14])) / os.sysconf("SC_CLK_TCK")


def lost_edits(data: Path, clients: Sequence[Client]) -> list[str]:
    """Acknowledged edits that the journals do not have, or have in another order."""
    from workbench.data.store import PairStore

    roster = json.loads((data / "classroom" / "roster.json").read_text(encoding="utf-8"))
    missing = []
    for client, seat in zip(clients, roster["seats"], strict=False):
        path = data / "classroom" / "sessions" / seat["session"] / "pairs.sqlite"
        with PairStore.open(path) as store:
            changes = reversed(store.history(100_000))
            kept = [(c.pair_id, c.after) for each in changes for c in each.changes]
        sent = [(each.pair_id, each.text) for each in client.sent if each.kept is not None]
        found = [each for each in kept if each in set(sent)]
        if found != sent:
            missing.append(f"{seat['name']}: {len(sent)} acknowledged, {len(found)} in the journal")
    return missing


def out_of_order(sent: Sequence[Sent]) -> int:
    """Edits that were answered after one that came clearly later."""
    known = sorted(
        ((each.kept, each.answered) for each in sent if None not in (each.kept, each.answered)),
        key=lambda each: each[0],
    )
    return sum(
        any(late - kept > SLACK and answered - first > SLACK for late, first in known[place + 1 :])
        for place, (kept, answered) in enumerate(known)
    )


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile and largest."""
    if not values:
        return {"n": 0}
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    found = {"p50": statistics.median(ordered), "p95": p95, "max": ordered[-1]}
    return {"n": len(ordered), **{name: round(value, 1) for name, value in found.items()}}


def report(clients: Sequence[Client]) -> dict[str, Any]:
    """What the clients saw."""
    sent = [each for client in clients for each in client.sent]
    answered = [1000 * (e.answered - e.sent) for e in sent if e.answered is not None]
    return {
        "students": len(clients),
        "cheap_ms": spread([ms for client in clients for ms in client.cheap_ms]),
        "edits": len(sent),
        "edit_ms": spread(answered),
        "edits_unanswered": len(sent) - len(answered),
        "answered_out_of_order": out_of_order(sent),
        "reconnected": sum(client.reconnected for client in clients),
        "errors": [error for client in clients for error in client.errors][:20],
    }


async def lesson(clients: Sequence[Client], seconds: float, every: float) -> None:
    """All students at work for so long."""
    until = time.monotonic() + seconds
    await asyncio.gather(*(client.live(until, every) for client in clients))


async def come_and_go(links: Sequence[str], cycles: int) -> None:
    """Open a page and leave it, again and again."""
    for number in range(cycles):
        client = Client(links[number % len(links)])
        await client.open()
        await asyncio.sleep(0.05)
        await client.close()


async def measure(server: Server, options: argparse.Namespace) -> dict[str, Any]:
    """The whole measurement."""
    clients = [Client(link, seed) for seed, link in enumerate(server.links)]
    await clients[0].open()
    await clients[0].settled(600)
    for _ in range(3):
        await clients[0].edit()
    found: dict[str, Any] = {"cpus": os.cpu_count(), "load_before": os.getloadavg()[0],
                             "memory_one_mb": round(server.memory_mb())}  # fmt: skip
    for client in clients[1:]:
        await client.open()
    for client in clients:
        await client.settled(300)
        client.sent.clear()
    began, used = time.monotonic(), server.cpu_seconds()
    tasks = [lesson(clients, 60 * options.minutes, options.every)]
    if options.kill_after:
        tasks.append(_accident(server, options.kill_after))
    if options.browser:
        tasks.append(_paint(server, found, 60 * options.minutes))
    await asyncio.gather(*tasks)
    found |= report(clients)
    if not options.kill_after:
        found["server_cpus"] = round((server.cpu_seconds() - used) / (time.monotonic() - began), 2)
    found["memory_all_mb"] = round(server.memory_mb())
    allowed = 1.5 * found["memory_one_mb"] + 60 * len(clients)
    found["memory_allowed_mb"] = round(allowed)
    for client in clients:
        await client.close()
    found["lost"] = lost_edits(server.folder / "data", clients)
    if options.cycles:
        found |= await _cycles(server, options)
    return found


async def _accident(server: Server, seconds: float) -> None:
    await asyncio.sleep(seconds)
    server.kill()
    await asyncio.sleep(2)
    await asyncio.to_thread(server.start)


async def _cycles(server: Server, options: argparse.Namespace) -> dict[str, Any]:
    """Growth of memory over cycles, once everything that was left is let go of."""
    await come_and_go(server.links, options.warm_up)
    await asyncio.sleep(options.linger)
    before = server.memory_mb()
    await come_and_go(server.links, options.cycles)
    await asyncio.sleep(options.linger)
    after = server.memory_mb()
    return {"cycles": options.cycles, "cycles_before_mb": round(before),
            "cycles_after_mb": round(after),
            "cycles_growth_percent": round(100 * (after / before - 1), 2)}  # fmt: skip


async def _paint(server: Server, found: dict[str, Any], seconds: float) -> None:
    """One real browser among the students: from a key press to the new strip on the screen."""
    from playwright.async_api import async_playwright

    changed = """() => new Promise((done) => {
      const find = (root) => root.querySelector(".strip") ?? [...root.querySelectorAll("*")]
        .map((e) => e.shadowRoot && find(e.shadowRoot)).find(Boolean);
      addEventListener("keydown", () => { const t = performance.now();
        const was = find(document).textContent;
        const look = () => find(document)?.textContent !== was ? done(performance.now() - t)
          : performance.now() - t > 30000 ? done(NaN) : requestAnimationFrame(look);
        requestAnimationFrame(look); }, {once: true, capture: true});
      window.armed = true; })"""
    painted: list[float] = []
    end = time.monotonic() + seconds
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=os.environ.get("WORKBENCH_CHROMIUM", "/usr/bin/chromium"),
            args=["--headless", "--no-sandbox", "--disable-gpu"],
        )
        page = await browser.new_page()
        await page.goto(server.links[-1])
        await page.locator("[data-quantity=margin]").wait_for(timeout=120_000)
        await asyncio.sleep(5)
        while time.monotonic() < end:
            waiting = asyncio.ensure_future(page.evaluate(changed))
            await page.wait_for_function("window.armed")
            await page.keyboard.press("]" if len(painted) % 4 < 2 else "[")
            painted.append(await waiting)
            await page.evaluate("window.armed = false")
            await asyncio.sleep(3)
        await browser.close()
    found["painted_ms"] = spread([ms for ms in painted if ms == ms])


def main() -> int:
    """Measure and print JSON; exit 1 where an edit was lost or an error seen."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        models = options.policy, options.reference
        server = Server(Path(folder), options.students, options.source, models)
        try:
            found = asyncio.run(measure(server, options))
        finally:
            server.kill()
    print(json.dumps(found, indent=2))
    return 1 if found["lost"] or found["errors"] else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--students", type=int, default=30)
    parser.add_argument("--every", type=float, default=10, help="seconds between edits")
    parser.add_argument("--cycles", type=int, default=200, help="pages opened and closed")
    parser.add_argument("--warm-up", type=int, default=40, help="cycles before the first measure")
    parser.add_argument("--linger", type=float, default=60, help="seconds to let go of pages")
    parser.add_argument("--kill-after", type=float, default=0, help="seconds; 0 for never")
    parser.add_argument("--browser", action="store_true", help="time a Chromium's paint too")
    parser.add_argument("--source", default="teaching")
    parser.add_argument("--policy", default="default+policy")
    parser.add_argument("--reference", default="default")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

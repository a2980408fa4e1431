"""A classroom server and its students over real websockets, the benchmark in its short form."""

import asyncio
import contextlib
import importlib.util
import json
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from browser_support import in_own_loop
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from workbench.app.classroom import DOOR, INSTRUCTOR, Limits
from workbench.app.classroom_room import Classroom
from workbench.app.classroom_serve import (
    Address,
    ClassroomOptions,
    open_classroom,
    page_factory,
    start_sweeping,
)
from workbench.app.server import ServerOptions, make_server


def _benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "classroom.py"
    spec = importlib.util.spec_from_file_location("classroom_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


load = _benchmark()


class School:
    """A classroom's server in a thread of this process, on fake models."""

    def __init__(self, folder: Path, pairs: Path, load_scorer: Any) -> None:
        self.data = folder
        limits = Limits(edits_a_minute=10_000)
        options = ClassroomOptions("Anna,Ben,Clara", limits=limits)
        self.room: Classroom = open_classroom(
            options, None, str(pairs), ("policy", "reference"), folder / "classroom", load_scorer
        )
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(60)
        self.links = [self.link(seat.token) for seat in self.room.roster.seats]

    def stop(self) -> None:
        self._loop.add_callback(self._server.stop, False)
        self._loop.add_callback(self._loop.stop)
        self._thread.join(10)
        self.room.workspace.close()

    def _run(self) -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        self.link = Address(ServerOptions(port=0))
        page = page_factory(self.room, self.link)
        self._server = make_server(page, ServerOptions(port=0), self.room.roster)
        self.link.port = self._server.port
        self._loop = self._server.io_loop
        self._server.start()
        start_sweeping(self.room, 1000)
        self._loop.add_callback(self._ready.set)
        self._loop.start()


@pytest.fixture
def school(tmp_path: Path, pairs_file: Path, models: Any) -> Iterator[School]:
    made = School(tmp_path, pairs_file, models.load)
    yield made
    made.stop()


def within(seconds: float, work: Coroutine[Any, Any, Any]) -> Any:
    return in_own_loop(asyncio.wait_for(work, seconds))


async def opened(link: str, seed: int = 0) -> Any:
    client = load.Client(link, seed)
    await client.open()
    await client.settled(30)
    return client


def test_a_short_lesson_loses_nothing_and_answers_everything(school: School) -> None:
    async def lesson() -> list[Any]:
        clients = [await opened(link, seed) for seed, link in enumerate(school.links)]
        await load.lesson(clients, 5, 1.0)
        for client in clients:
            await client.close()
        return clients

    clients = within(90, lesson())
    found = load.report(clients)
    assert found["errors"] == []
    assert found["edits"] >= 9
    assert found["edits_unanswered"] == 0
    assert found["cheap_ms"]["n"] >= 9
    assert found["answered_out_of_order"] == 0
    assert load.lost_edits(school.data, clients) == []
    # The twin: an edit that no journal has is told.
    clients[0].sent.append(load.Sent("p00", "never written", 0.0, kept=1.0))
    assert "Anna" in load.lost_edits(school.data, clients)[0]


def test_a_page_sends_nothing_while_nothing_happens(school: School) -> None:
    """Panel's busy flag would tell each page of every other page's clock."""

    async def listen() -> int:
        clients = [await opened(link) for link in school.links]
        await asyncio.sleep(2)
        heard: list[str] = []
        clients[0]._heard = lambda kind, content: heard.append(content)
        await asyncio.sleep(2)
        for client in clients:
            await client.close()
        return len(heard)

    assert within(90, listen()) <= 2


def test_each_student_gets_the_own_session_and_the_same_one_again(school: School) -> None:
    async def visit() -> None:
        for link in (*school.links, *school.links):
            await (await opened(link)).close()

    within(90, visit())
    seats = school.room.roster.seats
    assert len({seat.session for seat in seats}) == 3
    assert len(school.room.workspace.sessions()) == 3


async def shown(base: str, cookie: str, token: str) -> str:
    """The document that a websocket gets with a given bokeh token."""
    socket = await websocket_connect(
        HTTPRequest(base.replace("http", "ws") + "/ws", headers={"Cookie": cookie, "Origin": base}),
        subprotocols=["bokeh", token],
        max_message_size=2**28,
    )
    client = load.Client(f"{base}/?token=none")
    client._socket = socket
    await client._message()
    await client._send("PULL-DOC-REQ", {})
    content = ""
    while "roots" not in content:
        content = (await client._message())[1]
    socket.close()
    return content


def test_a_forged_message_to_the_websocket_opens_no_one_elses_session(school: School) -> None:
    """Bokeh takes address, cookies and headers from a message that the browser writes itself."""
    from bokeh.util.token import generate_jwt_token, generate_session_id

    async def forge() -> tuple[str, str]:
        await (await opened(school.links[0])).close()
        anna, ben, _ = school.room.roster.seats
        base = school.links[1].split("/?")[0]
        name = f"workbench_token_{base.rpartition(':')[2]}"
        payload = {
            "headers": {"Cookie": f"{name}={anna.token}", "Authorization": f"Bearer {anna.token}"},
            "cookies": {name: anna.token},
            "arguments": {"session": [anna.session.encode()]},
        }
        token = generate_jwt_token(generate_session_id(), extra_payload=payload)
        mine = generate_jwt_token(generate_session_id(), extra_payload={"arguments": {}})
        cookie = f"{name}={ben.token}"
        return await shown(base, cookie, token), await shown(base, cookie, mine)

    seen: list[tuple[str, str]] = []
    plain = school.room.entered
    school.room.entered = lambda visit: (  # type: ignore[method-assign]
        seen.append((visit.name, visit.state.session.session_id)),
        plain(visit),
    )[1]
    forged, honest = within(60, forge())
    anna, ben, _ = school.room.roster.seats
    assert ("Anna", anna.session) in seen
    assert [session for name, session in seen if name == "Ben"] == [ben.session]
    assert "another student" in forged
    with pytest.raises(load.Lost, match="no PairEditor"):
        load._read(forged)
    assert load._read(honest).pair_ids


@pytest.mark.parametrize("staff", [INSTRUCTOR, DOOR])
def test_staff_tokens_open_pages_without_a_session(school: School, staff: str) -> None:
    async def look() -> str:
        link = school.link(school.room.roster.token_of(staff))
        client = load.Client(link)
        with contextlib.suppress(load.Lost, TimeoutError):
            await asyncio.wait_for(client.open(), 5)
        return str(client.errors)

    assert within(30, look()) == "[]"
    assert school.room.workspace.sessions() == []


def test_an_idle_session_is_closed_by_the_sweep(
    school: School, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def visit() -> None:
        await (await opened(school.links[0])).close()

    within(60, visit())
    session = school.room.roster.seat("Anna").session
    assert school.room.workspace.is_open(session)
    monkeypatch.setattr(type(school.room).close_idle, "__defaults__", (0.0,))
    end = time.monotonic() + 90
    while school.room.workspace.is_open(session):
        assert time.monotonic() < end, "the session is still open"
        time.sleep(0.2)


@pytest.fixture
def killable(
    tmp_path: Path, pairs_file: Path, tiny_folder: Path, tiny_adapter: Path
) -> Iterator[Any]:
    models = f"{tiny_folder}+adapter:{tiny_adapter}", str(tiny_folder)
    server = load.Server(tmp_path, 3, str(pairs_file), models)
    yield server
    server.kill()


def test_every_session_comes_back_to_its_own_data_after_a_kill_under_load(killable: Any) -> None:
    async def lesson() -> list[Any]:
        clients = [await opened(link, seed) for seed, link in enumerate(killable.links)]

        async def accident() -> None:
            await asyncio.sleep(3)
            killable.kill()
            await asyncio.to_thread(killable.start)

        await asyncio.gather(load.lesson(clients, 14, 1.0), accident())
        for client in clients:
            await client.close()
        return clients

    before = list(killable.links)
    clients = within(150, lesson())
    assert killable.links == before
    assert [client.reconnected for client in clients] == [1, 1, 1]
    assert [client.errors for client in clients] == [[], [], []]
    assert load.lost_edits(killable.folder / "data", clients) == []


def test_order_is_told_from_disorder() -> None:
    def sent(kept: float, answered: float) -> Any:
        return load.Sent("p", "t", kept, kept, answered)

    assert load.out_of_order([sent(0, 1), sent(0.5, 1), sent(0.6, 2)]) == 0
    assert load.out_of_order([sent(0, 9), sent(2, 4), sent(2.1, 8.5)]) == 1


def test_the_roster_names_every_session_that_was_opened(school: School) -> None:
    async def visit() -> None:
        await (await opened(school.links[2])).close()

    within(60, visit())
    found = json.loads((school.data / "classroom" / "roster.json").read_text())
    assert [bool(seat["session"]) for seat in found["seats"]] == [False, False, True]

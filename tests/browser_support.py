"""Fixtures for tests that drive a real Chromium against a small server on this machine.

`browser` starts Chromium once, `page` opens a tab that records every request and fails the test
when one leaves the machine, `serve` starts a Panel app on a free port and gives its address.
"""

import asyncio
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest

CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_LOCAL = {"127.0.0.1", "localhost", "::1"}
_PATIENCE_MS = 60_000
T = TypeVar("T")


def chromium_path() -> str | None:
    """Where Chromium is: WORKBENCH_CHROMIUM, or the first of the usual names."""
    named = os.environ.get("WORKBENCH_CHROMIUM")
    names = [named] if named else ["chromium", "chromium-browser", "google-chrome"]
    return next((found for name in names if (found := shutil.which(name))), None)


def missing(reason: str) -> None:
    """Skip with a reason, or fail where the run promises a browser."""
    if os.environ.get("WORKBENCH_REQUIRE_BROWSER") == "1":
        pytest.fail(f"WORKBENCH_REQUIRE_BROWSER=1, but {reason}")
    pytest.skip(reason)


def left_the_machine(url: str) -> bool:
    """Whether a request's address names another machine."""
    parts = urlsplit(url)
    return parts.scheme in {"http", "https", "ws", "wss"} and parts.hostname not in _LOCAL


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    path = chromium_path()
    if path is None:
        missing("no chromium is installed (set WORKBENCH_CHROMIUM to its path)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def browsing(browser: Any) -> Iterator[Any]:
    """One cache for all tests: the server's scripts are read once."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, device_scale_factor=1)
    yield context
    context.close()


@pytest.fixture
def page(browsing: Any) -> Iterator[Any]:
    tab = browsing.new_page()
    tab.set_default_timeout(_PATIENCE_MS)
    requests: list[str] = []
    errors: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("websocket", lambda socket_: requests.append(socket_.url))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.recorded_requests = requests
    tab.page_errors = errors
    yield tab
    tab.close()
    outside = [url for url in requests if left_the_machine(url)]
    assert outside == [], f"the page asked another machine for {outside}"


def eventually(check: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until `check()` is true: what the page does reaches the server a moment later."""
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            raise AssertionError(f"still not true after {seconds} s")
        time.sleep(0.02)


def in_session(document: Any, act: Callable[[], object]) -> None:
    """Run `act` in the session of a page, once Panel takes the page for loaded.

    Panel 1.9.4 keeps a change that is made between the first paint and that moment until the next
    one, so that a test which waits for its effect waits for ever.
    """
    import panel as pn

    def when_loaded() -> None:
        if pn.state.loaded:
            act()
        else:
            document.add_timeout_callback(when_loaded, 20)

    document.add_next_tick_callback(when_loaded)


def in_own_loop(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, in a thread of its own: playwright leaves a loop running here."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def first_message(url: str, token: str, headers: dict[str, str]) -> int | str | None:
    """The status that refuses a session's websocket, or the first message of one that is opened."""
    from tornado.httpclient import HTTPClientError, HTTPRequest
    from tornado.websocket import websocket_connect

    request = HTTPRequest(url, headers=headers, request_timeout=60)
    try:
        opened = await websocket_connect(request, subprotocols=["bokeh", token])
    except HTTPClientError as error:
        return int(error.code)
    message = await opened.read_message()
    opened.close()
    return None if message is None else str(message)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def stage() -> Iterator[dict[str, Any]]:
    """One server for the whole run; what it shows is set by the test (`app`)."""
    held: dict[str, Any] = {}
    url, stop = start_server(lambda: held["app"]())
    held["url"] = url
    yield held
    stop()


@pytest.fixture
def serve(stage: dict[str, Any]) -> Callable[[Callable[[], Any]], str]:
    """`serve(app)` gives an address at which every new session shows what `app()` returns."""

    def show(app: Callable[[], Any]) -> str:
        stage["app"] = app
        url: str = stage["url"]
        return url

    return show


def start_server(app: Callable[[], Any]) -> tuple[str, Callable[[], None]]:
    """Start a Panel server in a thread of its own; gives its address and what stops it."""
    import asyncio

    import panel as pn

    port = free_port()
    ready = threading.Event()
    held: dict[str, Any] = {}

    def run() -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        held["server"] = pn.serve(  # type: ignore[no-untyped-call]
            app, port=port, address="127.0.0.1", show=False, start=False, threaded=False
        )
        held["server"].start()
        held["loop"] = held["server"].io_loop
        held["loop"].add_callback(ready.set)
        held["loop"].start()

    thread = threading.Thread(target=run, name="panel-server", daemon=True)
    thread.start()
    if not ready.wait(30):
        raise RuntimeError("the test's Panel server did not start within 30 s")

    def stop() -> None:
        held["loop"].add_callback(held["server"].stop, False)
        held["loop"].add_callback(held["loop"].stop)
        thread.join(10)

    return f"http://127.0.0.1:{port}/", stop

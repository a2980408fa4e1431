import asyncio
import http.client
import http.server
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from browser_support import first_message, in_own_loop
from tornado.httputil import HTTPServerConnectionDelegate
from tornado.websocket import WebSocketClientConnection, websocket_connect

from workbench.app import server as server_module
from workbench.app.guard import Policy
from workbench.app.server import ServerOptions, address_of, is_loopback, make_server
from workbench.errors import WorkbenchError

TOKEN = "a-long-enough-token"
ROUTES = [
    "/",
    "/alive",
    "/ws",
    "/static/js/bokeh.min.js",
    "/components/panel.io.server/x/css/y",
    "/autoload.js",
    "/no/such/page",
    "/favicon.ico",
]
FOREIGN = ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1", "file://"]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


@dataclass
class Running:
    """A server in a thread of its own, and requests to it as a raw client makes them."""

    server: Any
    options: ServerOptions

    @property
    def port(self) -> int:
        port: int = self.server.port
        return port

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: Any
    ) -> Answer:
        """One request on a connection of its own; `Host=None` leaves the header out."""
        sent: dict[str, Any] = {"Host": self.host, **headers}
        if body is not None:
            sent["Content-Length"] = str(len(body))
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as client:
            client.putrequest(method, path, skip_host=True)
            for name, value in sent.items():
                if value is not None:
                    client.putheader(name, value)
            client.endheaders(body)
            answer = client.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())

    def raw(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(request)
            return connection.recv(65536)

    def websocket(self, **headers: str) -> int | str | None:
        """The status that refuses a websocket, or the first message of one that is opened."""
        token = self.session_token(**headers)
        return in_own_loop(first_message(f"ws://{self.host}/ws", token, headers))

    def session_token(self, **headers: str) -> str:
        known: dict[str, Any] = {k: v for k, v in headers.items() if k != "Origin"}
        page = self.ask("/", **known)
        found = re.search(r'"token":"([^"]+)"', page.text)
        return found[1] if found else "none"


Start = Callable[..., Running]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start servers that end with the test: start(token=..., names=(...))."""
    stops: list[Callable[[], None]] = []

    def launch(**options: Any) -> Running:
        chosen = ServerOptions(port=options.pop("port", 0), **options)
        held: dict[str, Any] = {}
        ready = threading.Event()

        def serve() -> None:
            asyncio.set_event_loop(asyncio.new_event_loop())
            server = held["server"] = make_server(_page, chosen)
            server.start()
            server.io_loop.add_callback(ready.set)
            server.io_loop.start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert ready.wait(60)
        loop = held["server"].io_loop

        def stop() -> None:
            loop.add_callback(held["server"].stop, False)
            loop.add_callback(loop.stop)
            thread.join(10)

        stops.append(stop)
        return Running(held["server"], chosen)

    yield launch
    for stop in stops:
        stop()


def _page() -> Any:
    import panel as pn

    return pn.Column("a page of the workbench")


# Hosts and origins ---------------------------------------------------------------------


def check_answers_to_its_own_names_only(running: Running) -> None:
    port = running.port
    for name in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"):
        assert running.ask("/alive", Host=name).status == 200
    wrong = ["evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port}0", "", None]
    for host in wrong:
        for path in ROUTES:
            assert running.ask(path, Host=host).status in (400, 403), (host, path)
    twice = f"GET /alive HTTP/1.1\r\nHost: evil\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    assert b" 200 " not in running.raw(twice).split(b"\r\n")[0]
    old = running.raw(b"GET /alive HTTP/1.0\r\n\r\n").split(b"\r\n")[0]
    assert b" 200 " not in old


def check_refuses_foreign_origins(running: Running) -> None:
    for origin in FOREIGN:
        for path in ROUTES:
            assert running.ask(path, Origin=origin).status == 403, (origin, path)
        assert running.websocket(Origin=origin) == 403, origin
    near = f"http://{running.host}.evil.example"
    assert running.ask("/", Origin=near).status == 403
    assert running.websocket(Origin=near) == 403


def test_only_its_own_names_are_answered(start: Start) -> None:
    check_answers_to_its_own_names_only(start())


def test_foreign_origins_are_refused_on_every_route_and_for_the_websocket(start: Start) -> None:
    running = start()
    check_refuses_foreign_origins(running)
    own = f"http://{running.host}"
    assert running.ask("/", Origin=own).status == 200
    assert "ACK" in str(running.websocket(Origin=own))


def test_other_sites_may_link_here_but_load_no_part(start: Start) -> None:
    running = start()
    for site in ("cross-site", "same-site"):
        told: dict[str, Any] = {"Sec-Fetch-Site": site}
        for dest in ("script", "image", "iframe", "empty", "style"):
            told["Sec-Fetch-Dest"] = dest
            assert running.ask("/autoload.js", **told).status == 403
        told["Sec-Fetch-Dest"] = "document"
        assert running.ask("/", **told).status == 200


def test_a_proxys_name_and_port_may_be_added(start: Start) -> None:
    running = start(names=("lab.example:443", "other.example"))
    assert running.ask("/alive", Host="lab.example").status == 200
    assert (
        running.ask("/alive", Host="lab.example:443", Origin="https://lab.example:443").status
        == 200
    )
    assert running.ask("/alive", Host=f"other.example:{running.port}").status == 200
    assert running.ask("/alive", Host="other.example").status == 403
    assert running.ask("/alive", Host=f"lab.example:{running.port}").status == 403


# The token -----------------------------------------------------------------------------


def check_token_guards_every_route(running: Running) -> None:
    for path in ROUTES:
        for method in ("GET", "POST", "HEAD", "OPTIONS", "PUT"):
            assert running.ask(path, method).status == 401, (method, path)
        for wrong in ("", "x", TOKEN + "x", TOKEN[:-1]):
            assert running.ask(f"{path}?token={wrong}").status == 401
            cookie = f"workbench_token_{running.port}={wrong}"
            assert running.ask(path, Cookie=cookie).status == 401
            assert running.ask(path, Authorization=f"Bearer {wrong}").status == 401
    assert running.ask("/", "POST", b"x" * 100_000).status == 401
    assert running.websocket() == 401
    assert "a page of the workbench" not in running.ask("/").text


def test_without_the_token_nothing_is_served(start: Start) -> None:
    check_token_guards_every_route(start(token=TOKEN))


def test_the_token_in_the_address_becomes_a_cookie_that_opens_everything(start: Start) -> None:
    running = start(token=TOKEN)
    parts = urlsplit(address_of(running.server, running.options))
    entered = running.ask(f"{parts.path}?{parts.query}&page=DID")
    assert (entered.status, entered.headers["Location"]) == (303, "/?page=DID")
    kept, *flags = entered.headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(flags)
    for path in ("/", "/alive", "/static/js/bokeh.min.js"):
        assert running.ask(path, Cookie=f"other=1; {kept}").status == 200
        assert running.ask(path, Authorization=f"Bearer {TOKEN}").status == 200
    assert "ACK" in str(running.websocket(Cookie=kept))
    assert running.websocket(Cookie=kept, Origin="http://evil.example") == 403
    # Nothing that the page says gives the secret away.
    assert TOKEN not in running.ask("/", Cookie=kept).text


def test_two_servers_on_one_machine_keep_their_cookies_apart(start: Start) -> None:
    one, two = start(token=TOKEN), start(token="another-long-token")
    cookies = [
        running.ask(f"/?token={running.options.token}").headers["Set-Cookie"].split(";")[0]
        for running in (one, two)
    ]
    # A browser sends both cookies to both ports.
    both = "; ".join(cookies)
    assert one.ask("/alive", Cookie=both).status == two.ask("/alive", Cookie=both).status == 200
    assert one.ask("/alive", Cookie=cookies[1]).status == 401
    assert two.ask("/alive", Cookie=cookies[0]).status == 401


@pytest.mark.parametrize("path", ["//evil.example/", "/\\evil.example/", "/\t/evil.example/"])
def test_entering_never_leads_to_another_host(path: str, start: Start) -> None:
    running = start(token=TOKEN)
    answer = running.raw(
        f"GET {path}?token={TOKEN} HTTP/1.1\r\nHost: {running.host}\r\n\r\n".encode()
    )
    location = re.search(rb"Location: ([^\r]*)", answer)
    assert location is None or re.match(rb"/(?![/\\\t])", location[1])


def test_broken_cookies_are_no_cookies(start: Start) -> None:
    running = start(token=TOKEN)
    for cookie in ("=", ";;;", 'workbench_token="', "\x01=2", "a" * 10_000, "[1]=2"):
        assert running.ask("/", Cookie=cookie).status in (400, 401)


# Headers -------------------------------------------------------------------------------


def check_headers(running: Running) -> None:
    for path in ("/", "/alive", "/static/js/bokeh.min.js", "/no/such/page"):
        headers = running.ask(path).headers
        policy = headers["Content-Security-Policy"]
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert {"frame-ancestors 'none'", "default-src 'self'"} <= set(policy.split("; "))
        assert not re.search(r"https?:|\*", policy)


def test_every_answer_forbids_framing_and_requests_to_elsewhere(start: Start) -> None:
    check_headers(start())
    refused = start(token=TOKEN).ask("/").headers
    assert refused["X-Frame-Options"] == "DENY"
    assert refused["Content-Type"].startswith("text/plain")


def test_a_refusal_repeats_nothing_that_could_run(start: Start) -> None:
    running = start()
    answer = running.ask("/", Origin="<script>alert(1)</script>")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    answer = running.ask("/", Origin="x" * 10_000)
    assert len(answer.body) < 500


# Sabotaged twins -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "check",
    [
        check_answers_to_its_own_names_only,
        check_refuses_foreign_origins,
        check_token_guards_every_route,
        check_headers,
    ],
)
def test_a_server_without_the_guard_fails_the_checks(
    check: Callable[[Running], None], start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unguarded(
        application: HTTPServerConnectionDelegate, policy: Policy
    ) -> HTTPServerConnectionDelegate:
        return application

    monkeypatch.setattr(server_module, "Guard", unguarded)
    running = start(token=TOKEN)
    with pytest.raises((AssertionError, KeyError)):
        check(running)


# Paths and sizes -----------------------------------------------------------------------

CLIMBS = [
    "../../../../../../../../etc/passwd",
    "..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc/passwd",
    "%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "%252e%252e%252f%252e%252e%252fetc/passwd",
    "..\\..\\..\\..\\etc\\passwd",
    "/etc/passwd",
    "//etc/passwd",
    "js/..%00/../../../etc/passwd",
    "js/../../server/server.py",
    "js/%00",
]
ROOTS = [
    "/static/",
    "/static/extensions/panel/",
    "/static/extensions/panel_material_ui/",
    "/components/panel/",
    "/components/workbench.app.main.Connection/esm/",
    "/components/panel.io.server/__file__/",
    "/",
]


@pytest.mark.parametrize("root", ROOTS)
def test_no_path_climbs_out_of_the_served_folders(root: str, start: Start) -> None:
    running = start()
    for climb in CLIMBS:
        answer = running.raw(f"GET {root}{climb} HTTP/1.1\r\nHost: {running.host}\r\n\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b" 200 " not in head.split(b"\r\n")[0], (root, climb)
        assert b"root:" not in body
        assert b"import " not in body
        assert b"Traceback" not in body


def test_no_address_makes_the_server_import_a_module(start: Start) -> None:
    running = start()
    unused = next(name for name in ("this", "antigravity", "idlelib") if name not in sys.modules)
    assert running.ask(f"/components/{unused}/x/css/y").status == 404
    assert unused not in sys.modules


def test_a_body_over_the_limit_is_answered(start: Start) -> None:
    running = start()
    head = f"POST / HTTP/1.1\r\nHost: {running.host}\r\nContent-Length: {10**12}\r\n\r\n"
    assert running.raw(head.encode()).startswith(b"HTTP/1.1 400 ")
    assert running.ask("/alive").status == 200


def test_a_message_over_the_limit_closes_its_websocket_and_nothing_else(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MAX_UPLOAD_BYTES", 100_000)
    running = start()

    async def send(size: int) -> int | None:
        opened: WebSocketClientConnection = await websocket_connect(
            f"ws://{running.host}/ws", subprotocols=["bokeh", running.session_token()]
        )
        await opened.read_message()
        await opened.write_message("x" * size)
        while await opened.read_message() is not None:
            pass
        return opened.close_code

    # 1009, "message too big", unless the connection broke before that could be read.
    assert in_own_loop(send(200_000)) in (1009, None)
    assert running.ask("/alive").status == 200


def test_odd_requests_do_not_stop_the_server(start: Start) -> None:
    running = start()
    hostile = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        f"GET /?{'a' * 100_000} HTTP/1.1\r\nHost: {running.host}\r\n\r\n".encode(),
        f"GET /?pair=%00%ff<script> HTTP/1.1\r\nHost: {running.host}\r\n\r\n".encode(),
        b"GET /alive HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
    ]
    for request in hostile:
        try:
            answer = running.raw(request)
        except ConnectionError:
            continue
        assert b"Traceback" not in answer
    assert running.ask("/alive").status == 200


# In a browser --------------------------------------------------------------------------


@pytest.mark.browser
def test_a_browser_enters_with_the_token_once_and_stays_in(start: Start, page: Any) -> None:
    running = start(token=TOKEN)
    page.goto(f"http://{running.host}/")
    assert "asks for its token" in page.inner_text("body")
    page.goto(address_of(running.server, running.options))
    page.get_by_text("a page of the workbench").wait_for()
    assert TOKEN not in page.url
    page.goto(f"http://{running.host}/")
    page.get_by_text("a page of the workbench").wait_for()
    assert TOKEN not in str(page.evaluate("document.cookie"))


@pytest.fixture
def framed(page: Any) -> Iterator[Callable[[Running], Any]]:
    """The frame in which the page of another server on this machine tries to show ours."""
    held = {"url": ""}

    class Outer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(f"<h1>outer</h1><iframe src='{held['url']}'></iframe>".encode())

        def log_message(self, *_: object) -> None:
            pass

    outer = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Outer)
    threading.Thread(target=outer.serve_forever, daemon=True).start()

    def show(running: Running) -> Any:
        held["url"] = f"http://{running.host}/"
        page.goto(f"http://127.0.0.1:{outer.server_port}/")
        page.get_by_text("outer").wait_for()
        return page.frames[1]

    yield show
    outer.shutdown()
    outer.server_close()


@pytest.mark.browser
def test_a_browser_shows_no_page_of_ours_inside_anothers(
    start: Start, framed: Callable[[Running], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = framed(start())
    inner.wait_for_load_state()
    assert "a page of the workbench" not in inner.content()
    # Sabotaged twin: without the gate the frame shows the page.
    monkeypatch.setattr(server_module, "Guard", lambda application, policy: application)
    framed(start()).get_by_text("a page of the workbench").wait_for()


# Where to listen -----------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_loopback_needs_no_token(address: str) -> None:
    assert is_loopback(address)
    assert ServerOptions(address).token is None


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "::", "192.168.0.1", "lab.example", "", "127.0.0.1.evil.example"]
)
def test_any_other_address_needs_a_token(address: str) -> None:
    with pytest.raises(WorkbenchError, match=r"give a token \(--token, or WORKBENCH_TOKEN\)"):
        ServerOptions(address)
    assert ServerOptions(address, token=TOKEN).address == address


@pytest.mark.parametrize("token", ["short", "a" * 15])
def test_short_tokens_are_refused(token: str) -> None:
    with pytest.raises(WorkbenchError, match="give at least 16"):
        ServerOptions(token=token)


@pytest.mark.parametrize(
    "token", ["a;b" * 9, "a b" * 9, "é" * 20, "a&b" * 9, "a\r\nSet-Cookie: x" * 2]
)
def test_tokens_that_no_cookie_can_carry_are_refused(token: str) -> None:
    with pytest.raises(WorkbenchError, match=r"letters, digits and -\._~ only"):
        ServerOptions(token=token)


@pytest.mark.parametrize("port", [-1, 65536])
def test_ports_out_of_range_are_refused(port: int) -> None:
    with pytest.raises(WorkbenchError, match="from 1 to 65535"):
        ServerOptions(port=port)


def test_a_port_that_is_taken_is_named_with_the_cure(start: Start) -> None:
    running = start()
    with pytest.raises(
        WorkbenchError, match=rf"127\.0\.0\.1:{running.port} cannot be opened .*--port"
    ):
        make_server(_page, ServerOptions(port=running.port))


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(WorkbenchError, match=r"203\.0\.113\.1:0 cannot be opened"):
        make_server(_page, ServerOptions("203.0.113.1", 0, token=TOKEN))


def test_the_address_to_open_carries_the_token_and_brackets(start: Start) -> None:
    running = start(token=TOKEN)
    assert address_of(running.server, running.options) == f"http://{running.host}/?token={TOKEN}"
    six = ServerOptions("::1")
    assert address_of(running.server, six) == f"http://[::1]:{running.port}/"


def test_alive_names_the_run_and_is_not_cached(start: Start) -> None:
    answer = start().ask("/alive")
    assert json.loads(answer.body) == {"run": server_module.RUN_ID}
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_server_that_is_stopped_ends_with_0_and_says_nothing_but_its_address(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CACHE", "DATA"):
        monkeypatch.setenv(f"WORKBENCH_{name}", str(tmp_path / name))
    command = [sys.executable, "-m", "workbench", "serve", "teaching", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        parts = urlsplit(line.partition(": ")[2].strip())
        assert parts.hostname == "127.0.0.1"
        with closing(http.client.HTTPConnection("127.0.0.1", parts.port, timeout=20)) as client:
            client.request("GET", "/alive")
            assert client.getresponse().status == 200
        time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, "")

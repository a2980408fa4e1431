"""The gate in front of every route: exact hosts and origins, a token, and no framing.

It stands before tornado's own routing, so that pages, websockets, static files and uploads all
pass through one check.
"""

import hmac
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)

COOKIE = "workbench_token"
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_HEADERS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # The browser itself refuses any request that would leave the machine.
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "worker-src 'self' blob:; connect-src 'self' data: blob:; object-src 'none'; "
        "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    ),
}


@dataclass(frozen=True)
class Policy:
    """Who may ask.

    Attributes:
        hosts: The exact values of the Host header that are answered, with port.
        token: What a visitor must present once; None on a loopback bind without one.
    """

    hosts: frozenset[str]
    token: str | None = None

    @classmethod
    def of(
        cls, address: str, port: int, names: Iterable[str] = (), token: str | None = None
    ) -> "Policy":
        """The policy of a server bound to `address`, also known by `names`."""
        return cls(
            frozenset(_with_port(name, port) for name in (*_LOOPBACK, address, *names)), token
        )


@dataclass(frozen=True)
class Verdict:
    """The answer of the gate: pass (status 0), refuse, or send on with a cookie."""

    status: int = 0
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def judge(policy: Policy, path: str, headers: HTTPHeaders) -> Verdict:
    """Decide about one request from its path and headers alone."""
    host = headers.get("Host", "")
    if host not in policy.hosts:
        return Verdict(403, f"This server does not answer to the name {host[:80]!r}.")
    origin = headers.get("Origin")
    if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
        return Verdict(403, f"Requests from {origin[:80]!r} are refused.")
    if policy.token is None:
        return Verdict()
    return _judge_token(policy.token, path, headers)


def _judge_token(token: str, path: str, headers: HTTPHeaders) -> Verdict:
    parts = urlsplit(path)
    query = parse_qsl(parts.query, keep_blank_values=True)
    given = dict(query).get("token")
    if given is not None and _same(given, token):
        rest = urlencode([(key, value) for key, value in query if key != "token"])
        cookie = f"{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/"
        target = urlunsplit(("", "", "/" + parts.path.lstrip("/"), rest, ""))
        return Verdict(303, "", {"Location": target, "Set-Cookie": cookie})
    if _same(headers.get("Authorization", ""), f"Bearer {token}") or _same(_cookie(headers), token):
        return Verdict()
    return Verdict(
        401, "This workbench asks for its token: open the address that the server printed."
    )


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def _cookie(headers: HTTPHeaders) -> str:
    try:
        cookies = SimpleCookie(headers.get("Cookie", ""))
    except CookieError:
        return ""
    return cookies[COOKIE].value if COOKIE in cookies else ""


def _with_port(name: str, port: int) -> str:
    shown = f"[{name}]" if ":" in name and not name.startswith("[") else name
    return f"{shown}:{port}"


class Guard(HTTPServerConnectionDelegate):
    """Puts a policy in front of a tornado application."""

    def __init__(self, application: HTTPServerConnectionDelegate, policy: Policy) -> None:
        self._application = application
        self._policy = policy

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        """Judge each request as soon as its headers are read."""

        def admit() -> HTTPMessageDelegate:
            marked = cast(HTTPConnection, _Marked(request_conn))
            return self._application.start_request(server_conn, marked)

        return _Judged(self._policy, request_conn, admit)

    def on_close(self, server_conn: object) -> None:
        """Pass on that a connection ended."""
        self._application.on_close(server_conn)


class _Judged(HTTPMessageDelegate):
    """One request: handed to the application when admitted, answered here when not."""

    def __init__(
        self, policy: Policy, connection: HTTPConnection, admit: Callable[[], HTTPMessageDelegate]
    ) -> None:
        self._policy = policy
        self._connection = connection
        self._admit = admit
        self._inner: HTTPMessageDelegate | None = None
        self._verdict = Verdict()

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        path = getattr(start_line, "path", "/")
        self._verdict = judge(self._policy, path, headers)
        if self._verdict.status:
            return None
        self._inner = self._admit()
        return self._inner.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._inner.data_received(chunk) if self._inner else None

    def finish(self) -> None:
        if self._inner:
            self._inner.finish()
        else:
            _answer(self._connection, self._verdict)

    def on_connection_close(self) -> None:
        if self._inner:
            self._inner.on_connection_close()


class _Marked:
    """A connection whose responses carry the security headers."""

    def __init__(self, connection: HTTPConnection) -> None:
        self._connection = connection

    def write_headers(
        self, start_line: ResponseStartLine, headers: HTTPHeaders, chunk: bytes | None = None
    ) -> object:
        for name, value in _HEADERS.items():
            headers[name] = value
        return self._connection.write_headers(start_line, headers, chunk)

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)


def _answer(connection: HTTPConnection, verdict: Verdict) -> None:
    body = verdict.message.encode()
    headers = HTTPHeaders({**_HEADERS, **verdict.headers})
    headers["Content-Type"] = "text/plain; charset=utf-8"
    headers["Content-Length"] = str(len(body))
    connection.write_headers(
        ResponseStartLine("HTTP/1.1", verdict.status, "Refused"), headers, body
    )
    connection.finish()

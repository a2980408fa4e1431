"""The gate in front of every route: exact hosts and origins, a token, and no framing.

It stands before tornado's own routing, so that pages, websockets, static files and uploads all
pass through one check.
"""

import hmac
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from http.client import responses
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

visitor: ContextVar[str] = ContextVar("visitor", default="")
"""Whose token the connection presented that is being answered; "" where there is one token or none.

It is taken from the connection itself: what bokeh knows of cookies and headers comes from a message
that the browser may write as it likes."""
PROXY_HEADER = "X-Workbench-Proxy"
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_HEADERS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
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
        cookie: Name of the cookie that remembers it. Browsers send a host's cookies to every
            port, so it carries the port: two servers on one machine do not log each other out.
        visitors: Whose each further token is; may grow while the server runs.
        proxy: Secret that a proxy adds to each request, on a server that answers to it alone. The
            proxy has asked for the visitor's name and refused hosts that are not its own; the
            origin is compared here as ever. No forwarded header is believed.
    """

    hosts: frozenset[str]
    token: str | None = None
    cookie: str = "workbench_token"
    visitors: Mapping[str, str] = field(default_factory=dict)
    proxy: str | None = None

    @classmethod
    def of(
        cls, address: str, port: int, names: Iterable[str] = (), token: str | None = None
    ) -> "Policy":
        """The policy of a server bound to `address`, also known by `names`.

        A name may carry a port of its own, for example that of a proxy: `lab.example:443`.
        """
        known = (*_LOOPBACK, address, *names)
        hosts = frozenset(spelt for name in known for spelt in _authorities(name, port))
        return cls(hosts, token, f"workbench_token_{port}")


@dataclass(frozen=True)
class Verdict:
    """The answer of the gate: pass (status 0), refuse, or send on with a cookie."""

    status: int = 0
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    visitor: str = ""


def judge(policy: Policy, path: str, headers: HTTPHeaders) -> Verdict:
    """Decide about one request from its path and headers alone."""
    host = headers.get("Host", "")
    if policy.proxy is not None:
        if not _same(headers.get(PROXY_HEADER, ""), policy.proxy):
            return Verdict(403, "Only the Jupyter server that started this program may ask here.")
    elif host not in policy.hosts:
        return Verdict(403, f"This server does not answer to the name {host[:80]!r}.")
    origin = headers.get("Origin")
    if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
        return Verdict(403, f"Requests from {origin[:80]!r} are refused.")
    if _embedded_elsewhere(headers):
        return Verdict(403, "Other sites may link to this page, not load its parts.")
    if policy.token is None and not policy.visitors:
        return Verdict()
    return _judge_token(policy, path, headers)


def _embedded_elsewhere(headers: HTTPHeaders) -> bool:
    """Whether a browser says that another site loads this as a script, picture or frame."""
    site = headers.get("Sec-Fetch-Site", "none")
    return site not in ("none", "same-origin") and headers.get("Sec-Fetch-Dest") != "document"


def _judge_token(policy: Policy, path: str, headers: HTTPHeaders) -> Verdict:
    parts = urlsplit(path)
    query = parse_qsl(parts.query, keep_blank_values=True)
    given = dict(query).get("token")
    if given is not None and _owner(policy, given) is not None:
        rest = urlencode([(key, value) for key, value in query if key != "token"])
        # Lax where links are sent by mail: a browser that comes from there keeps Strict to itself.
        site = "Lax" if policy.visitors else "Strict"
        kept = f"{policy.cookie}={given}; HttpOnly; SameSite={site}; Path=/"
        # Browsers read `//` and `/\` as the beginning of another host's name.
        target = urlunsplit(("", "", "/" + parts.path.lstrip("/\\\t"), rest, ""))
        return Verdict(303, "", {"Location": target, "Set-Cookie": kept})
    scheme, _, presented = headers.get("Authorization", "").partition(" ")
    for token in (presented if scheme == "Bearer" else "", _cookie(policy.cookie, headers)):
        owner = _owner(policy, token)
        if owner is not None:
            return Verdict(visitor=owner)
    return Verdict(
        401, "This workbench asks for its token: open the address that the server printed."
    )


def _owner(policy: Policy, given: str) -> str | None:
    """Whose token this is; None for nobody's. Takes as long for every token as for none."""
    known = [*policy.visitors.items(), *([(policy.token, "")] if policy.token else [])]
    found = [owner for token, owner in known if _same(given, token)]
    return found[0] if found else None


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def _cookie(name: str, headers: HTTPHeaders) -> str:
    try:
        cookies = SimpleCookie(headers.get("Cookie", ""))
    except CookieError:
        return ""
    return cookies[name].value if name in cookies else ""


def _authorities(name: str, port: int) -> list[str]:
    """How browsers write a name in the Host header: they leave out the usual ports."""
    name = f"[{name}]" if name.count(":") > 1 and not name.startswith("[") else name
    if own := re.fullmatch(r"(.+):(\d+)", name):
        name, port = own[1], int(own[2])
    return [f"{name}:{port}", *([name] if port in (80, 443) else [])]


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
        self._wants_body = True

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        path = getattr(start_line, "path", "/")
        self._wants_body = getattr(start_line, "method", "GET") != "HEAD"
        self._verdict = judge(self._policy, path, headers)
        if self._verdict.status:
            return None
        self._inner = self._admit()
        # Bokeh writes a request's headers into its page, where scripts can read them.
        for secret in (PROXY_HEADER, "Cookie", "Authorization"):
            headers.pop(secret, None)
        with self._known():
            return self._inner.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._inner.data_received(chunk) if self._inner else None

    def finish(self) -> None:
        if self._inner:
            with self._known():
                self._inner.finish()
        else:
            _answer(self._connection, self._verdict, self._wants_body)

    def on_connection_close(self) -> None:
        if self._inner:
            self._inner.on_connection_close()

    @contextmanager
    def _known(self) -> Iterator[None]:
        """Let the handler, which begins inside, know whose request it is."""
        before = visitor.set(self._verdict.visitor)
        try:
            yield
        finally:
            visitor.reset(before)


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


def _answer(connection: HTTPConnection, verdict: Verdict, with_body: bool) -> None:
    body = verdict.message.encode()
    headers = HTTPHeaders({**_HEADERS, **verdict.headers})
    headers["Content-Type"] = "text/plain; charset=utf-8"
    headers["Content-Length"] = str(len(body))
    start = ResponseStartLine("HTTP/1.1", verdict.status, responses[verdict.status])
    connection.write_headers(start, headers, body if with_body else None)
    connection.finish()

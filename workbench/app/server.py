"""The server: loopback by default, one gate before every route, nothing from outside."""

import ipaddress
import logging
import re
import secrets
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tornado.websocket import WebSocketClosedError

from workbench.app.guard import Guard, Policy
from workbench.errors import WorkbenchError


class _ClosedTab(logging.Filter):
    """Drops the complaint that a message was still under way to a tab when it was closed."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to keep a record."""
        return not (record.exc_info and isinstance(record.exc_info[1], WebSocketClosedError))


logging.getLogger("asyncio").addFilter(_ClosedTab())
MAX_UPLOAD_BYTES = 512 * 1024 * 1024
RUN_ID = secrets.token_urlsafe(8)
"""Changes with every start of the server, so that a page can tell that it outlived one."""


@dataclass(frozen=True)
class ServerOptions:
    """Where to listen.

    Attributes:
        address: Address to bind; anything but loopback needs a token.
        port: Port, 0 for any free one.
        names: Further host names by which the server may be addressed.
        token: Secret that a visitor must present once.
        socket: Unix socket to listen on in place of address and port.
        proxy: Secret of the proxy that alone may ask; see `guard.Policy`.
    """

    address: str = "127.0.0.1"
    port: int = 5006
    names: tuple[str, ...] = ()
    token: str | None = None
    socket: str | None = None
    proxy: str | None = None

    def __post_init__(self) -> None:
        """Refuse to listen to the network without a token."""
        if not is_loopback(self.address) and not self.token:
            raise WorkbenchError(
                f"Binding to {self.address} would open the workbench to the network; give a token "
                "(--token, or WORKBENCH_TOKEN), or bind to 127.0.0.1."
            )
        if self.token is not None and len(self.token) < 16:
            raise WorkbenchError(
                f"The token has {len(self.token)} characters; give at least 16, for example "
                f"{secrets.token_urlsafe(16)}."
            )
        if self.token is not None and not re.fullmatch(r"[\w.~-]+", self.token, re.ASCII):
            raise WorkbenchError(
                "The token has characters that an address or a cookie cannot carry; use letters, "
                f"digits and -._~ only, for example {secrets.token_urlsafe(16)}."
            )
        if not 0 <= self.port <= 65535:
            raise WorkbenchError(
                f"{self.port} is no port; give one from 1 to 65535, or 0 for any free one."
            )


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach the address."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def make_server(
    page: Callable[[], Any], options: ServerOptions, visitors: Mapping[str, str] | None = None
) -> Any:  # noqa: ANN401 - bokeh's Server
    """A server that shows `page()` to each visitor; call its `io_loop.start()` to run it.

    Args:
        page: Makes a page; `guard.visitor` tells for whom.
        options: Where to listen.
        visitors: Whose each token is, where there are several.

    Raises:
        WorkbenchError: the port is taken or the address is not this machine's.
    """
    import panel as pn

    try:
        server = pn.io.server.get_server(
            {"/": page},
            **_place(options),
            title={"/": "Preference workbench"},
            extra_patterns=_own_routes(),
            websocket_max_message_size=MAX_UPLOAD_BYTES,
            show=False,
            start=False,
        )
    except OSError as error:
        raise WorkbenchError(
            f"{options.address}:{options.port} cannot be opened ({error.strerror}); "
            "choose another port with --port, or 0 for any free one."
        ) from error
    policy = Policy.of(options.address, server.port or options.port, options.names, options.token)
    policy = replace(policy, visitors=visitors or {}, proxy=options.proxy)
    # The gate compares origins exactly, for every route; bokeh's own check knows no proxies.
    server._tornado._websocket_origins = {"*"}
    server._http.request_callback = Guard(server._tornado, policy)
    return server


def _place(options: ServerOptions) -> dict[str, Any]:
    if options.socket is not None:
        return {"unix_socket": options.socket}
    return {"port": options.port, "address": options.address}


def _own_routes() -> list[tuple[str, type, dict[str, Any]]]:
    from panel.io.resources import COMPONENT_PATH
    from panel.io.server import ComponentResourceHandler
    from tornado.web import HTTPError, RequestHandler, StaticFileHandler

    class Alive(RequestHandler):
        def get(self) -> None:
            self.set_header("Cache-Control", "no-store")
            self.finish({"run": RUN_ID})

    class LoadedComponent(ComponentResourceHandler):
        """Panel's own handler would import, and so run, any module that an address names."""

        def parse_url_path(self, path: str) -> str:
            if path.split("/")[0] not in sys.modules:
                raise HTTPError(404)
            return super().parse_url_path(path)

    return [
        (r"/alive", Alive, {}),
        (r"/plotly/(plotly\.min\.js)", StaticFileHandler, {"path": _plotly_folder()}),
        (f"/{COMPONENT_PATH}(.*)", LoadedComponent, {}),
    ]


def _plotly_folder() -> str:
    """Where the plotly package keeps plotly.js; the package itself is not imported for it."""
    found = find_spec("plotly")
    places = found.submodule_search_locations if found else None
    if not places:
        raise WorkbenchError("The package plotly is not installed; install the workbench again.")
    return str(Path(places[0]) / "package_data")


def address_of(server: Any, options: ServerOptions) -> str:  # noqa: ANN401 - bokeh's Server
    """The address to open, with the token if there is one."""
    if options.proxy is not None:
        return "behind its proxy"
    host = f"[{options.address}]" if ":" in options.address else options.address
    query = f"?token={options.token}" if options.token else ""
    return f"http://{host}:{server.port}/{query}"

"""The server: loopback by default, one gate before every route, nothing from outside."""

import ipaddress
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workbench.app.guard import Guard, Policy
from workbench.errors import WorkbenchError

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
    """

    address: str = "127.0.0.1"
    port: int = 5006
    names: tuple[str, ...] = ()
    token: str | None = None

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


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach the address."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def make_server(page: Callable[[], Any], options: ServerOptions) -> Any:  # noqa: ANN401 - bokeh's Server
    """A server that shows `page()` to each visitor; call its `io_loop.start()` to run it.

    Raises:
        WorkbenchError: the port is taken or the address is not this machine's.
    """
    import panel as pn
    from tornado.web import RequestHandler

    class Alive(RequestHandler):
        def get(self) -> None:
            self.set_header("Cache-Control", "no-store")
            self.finish({"run": RUN_ID})

    try:
        server = pn.io.server.get_server(
            {"/": page},
            port=options.port,
            address=options.address,
            websocket_origin=["*"],  # the gate below compares origins exactly, for every route
            title={"/": "Preference workbench"},
            extra_patterns=[(r"/alive", Alive)],
            websocket_max_message_size=MAX_UPLOAD_BYTES,
            show=False,
            start=False,
        )
    except OSError as error:
        raise WorkbenchError(
            f"{options.address}:{options.port} cannot be opened ({error.strerror}); "
            "choose another port with --port, or 0 for any free one."
        ) from error
    policy = Policy.of(options.address, server.port, options.names, options.token)
    server._http.request_callback = Guard(server._tornado, policy)
    return server


def address_of(server: Any, options: ServerOptions) -> str:  # noqa: ANN401 - bokeh's Server
    """The address to open, with the token if there is one."""
    host = f"[{options.address}]" if ":" in options.address else options.address
    query = f"?token={options.token}" if options.token else ""
    return f"http://{host}:{server.port}/{query}"

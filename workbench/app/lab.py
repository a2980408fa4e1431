"""The tile in JupyterLab's launcher: the served app, through jupyter-server-proxy.

`tile` is the entry point that the proxy reads inside the Jupyter server; run as a module
(`python -m workbench.app.lab SOCKET`), this is the program that the tile starts. Both share a
secret through the environment, which other users of the machine cannot read.
"""

import os
import secrets
import sys
from pathlib import Path
from typing import Any

from workbench.address import PROXY_NAME

SECRET = "WORKBENCH_PROXY_SECRET"
_PATIENCE_SECONDS = 120.0


def tile() -> dict[str, Any]:
    """What jupyter-server-proxy is to start and show.

    The app listens on a Unix socket in a folder of this user where there are such sockets, else on
    a port of the loopback; either way it answers only requests that carry the secret, which the
    proxy adds once Jupyter has let a visitor in. It opens in a browser tab of its own: the app may
    not be framed.
    """
    from workbench.app.guard import PROXY_HEADER

    secret = secrets.token_urlsafe(32)
    sockets = os.name == "posix"
    return {
        "command": [sys.executable, "-m", "workbench.app.lab",
                    "{unix_socket}" if sockets else "{port}"],
        "unix_socket": sockets,
        "environment": {SECRET: secret},
        "request_headers_override": {PROXY_HEADER: secret},
        "timeout": _PATIENCE_SECONDS,
        "absolute_url": False,
        "new_browser_tab": True,
        "launcher_entry": {
            "title": "Preference workbench",
            "icon_path": str(Path(__file__).with_name("browser") / "tile.svg"),
            "path_info": f"{PROXY_NAME}/",
            "category": "Notebook",
        },
    }  # fmt: skip


def main(place: str) -> None:
    """Serve the app to the proxy on a Unix socket, or on a port where it is a number."""
    from workbench.app.main import run
    from workbench.app.server import ServerOptions
    from workbench.defaults import DEFAULT_POLICY, DEFAULT_REFERENCE, DEFAULT_SOURCE
    from workbench.errors import WorkbenchError

    secret = os.environ.pop(SECRET, "")
    if not secret:
        raise WorkbenchError(
            f"{SECRET} is not set: JupyterLab's launcher starts this program. Say `workbench "
            "serve` to start the app by hand."
        )
    where = {"port": int(place)} if place.isdecimal() else {"socket": place}
    named = os.environ.get
    run(
        ServerOptions(**where, proxy=secret),
        named("WORKBENCH_SOURCE", DEFAULT_SOURCE),
        named("WORKBENCH_POLICY", DEFAULT_POLICY),
        named("WORKBENCH_REFERENCE", DEFAULT_REFERENCE),
    )


if __name__ == "__main__":
    main(sys.argv[1])

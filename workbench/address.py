"""Where the served app shows a session: through JupyterLab where there is one, else on its own."""

import json
import os
import webbrowser
from html import escape
from pathlib import Path
from urllib.parse import urlencode

LOCAL = "http://127.0.0.1:5006/"
PROXY_NAME = "workbench"
"""Last part of the app's path in JupyterLab; the entry point in pyproject.toml has the same."""


class AppLink(str):
    """An address that a notebook shows as a link."""

    def _repr_html_(self) -> str:
        href = escape(self, quote=True)
        return f'<a href="{href}" target="_blank" rel="noopener">Open this session in the app</a>'


def app_link(session_id: str = "") -> AppLink:
    """The address of the app for a session; of a new session when none is named.

    Inside JupyterLab or JupyterHub it is a path (`/user/ada/workbench/?session=...`), which holds
    whatever name and port the browser knows the server by. Elsewhere it is where `workbench serve`
    listens when nothing else is said.
    """
    query = f"?{urlencode({'session': session_id})}" if session_id else ""
    base = jupyter_base_url()
    return AppLink((LOCAL if base is None else f"{base}{PROXY_NAME}/") + query)


def open_in_app(session_id: str = "") -> AppLink:
    """Open the app on a session, and give its address.

    In a notebook nothing opens by itself: the link that is shown is to be clicked, because the
    kernel may run on another machine than the browser.
    """
    link = app_link(session_id)
    if link.startswith("http"):
        webbrowser.open(link)
    return link


def jupyter_base_url() -> str | None:
    """Path below which the Jupyter server of this kernel answers; None outside of Jupyter."""
    if prefix := os.environ.get("JUPYTERHUB_SERVICE_PREFIX"):
        return prefix.rstrip("/") + "/"
    parent = os.environ.get("JPY_PARENT_PID", "")
    return _base_of(int(parent)) if parent.isdecimal() else None


def _base_of(server: int) -> str | None:
    """What the Jupyter server with this process id wrote down about itself."""
    try:
        from jupyter_core.paths import jupyter_runtime_dir

        card = Path(jupyter_runtime_dir()) / f"jpserver-{server}.json"
        return str(json.loads(card.read_text(encoding="utf-8"))["base_url"])
    except (ImportError, OSError, ValueError, KeyError, TypeError):
        return None

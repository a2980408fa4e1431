"""What a live view leaves in a notebook: the view, and a picture and a table for when it is gone.

A front end without a kernel cannot show a widget; JupyterLab prints "model not found". So a view is
displayed as three outputs: the widget, a picture, and a page of plain HTML. A style in the last
hides picture and page beside a view that lives, and the widget's place where there is none. The
picture stands alone because every reader of notebooks shows a PNG (GitHub, nbconvert, and
JupyterLab before a notebook is trusted). Front ends that draw each output in a frame of its own are
given one output in which they choose.
"""

import base64
import os
import secrets
import struct
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from workbench.engine.threads import one_thread
from workbench.views.export import Exportable, figure_bytes
from workbench.views.markup import STRIP_CSS, TABLE_CSS

QUIET = 1.0
"""Seconds without a change after which the pictures in a notebook are brought up to date."""
LIVE = "workbench-live"
"""Class of a live view's outermost element."""
MARK = "workbench-still"
"""Class of the page that stays: unlike an attribute it survives JupyterLab's sanitiser."""
_OUTPUT = ".jp-OutputArea-child"
_ALIVE = f"{_OUTPUT}:has(.{LIVE}:not(.jupyter-widgets-disconnected))"
# Of all outputs a widget's alone does not say of which type it is.
_DEAD = f"{_OUTPUT}:not({_ALIVE}):not(:has(> [data-mime-type]))"
_PAGE = f"{_OUTPUT}:has(.{MARK})"
_PICTURE = f"{_OUTPUT}:has(+ {_OUTPUT} .{MARK})"
STYLE = (
    "<style>"
    f"{_ALIVE} + {_PICTURE}, {_ALIVE} + {_OUTPUT} + {_PAGE} {{ display: none; }}"
    f"{_DEAD}:has(+ {_OUTPUT} + {_OUTPUT} .{MARK}) {{ display: none; }}"
    f".workbench-page {{ {STRIP_CSS} {TABLE_CSS} }}"
    # JupyterLab gives every column of a page the same width.
    ".workbench-page table { table-layout: auto; margin: 8px 0; }"
    ".workbench-page .texts :is(th, td) { text-align: left; white-space: normal; }"
    ".workbench-page > svg { max-width: 760px; height: auto; background: #fff; }"
    "</style>"
)
_OPEN = f"<div class='workbench-page {MARK}'>"


@dataclass(frozen=True)
class Still:
    """A view as it stands.

    Attributes:
        picture: Its main figure; None where there is none yet.
        body: Its values as HTML in which every text of a user is escaped.
    """

    picture: Exportable | None
    body: str


class NotebookOutput:
    """A live view's outputs in a notebook.

    Args:
        name: What the view is called where nothing else can be shown.
        widget: The live view.
        still: Takes the picture.
        state: What the picture was drawn from; kept inside the file.
    """

    def __init__(
        self,
        name: str,
        widget: Any,  # noqa: ANN401 - ipywidgets has no types
        still: Callable[[], Still],
        state: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self._name, self._widget, self._still, self._state = name, widget, still, state
        self._shown: list[str] = []
        self._last: tuple[bytes, str] | None = None
        self._timer: threading.Timer | None = None
        self._lock = threading.RLock()
        widget.add_class(LIVE)

    def show(self) -> None:
        """Display the view in the cell that is being run."""
        if own_frames():
            publish(self.bundle())
            return
        with self._lock:
            publish(self._live())
            shown = secrets.token_hex(8)
            self._publish(shown, self._taken(), update=False)
            self._shown.append(shown)

    def refresh(self) -> None:
        """Bring the pictures up to date where the view is displayed."""
        with self._lock:
            taken = self._taken() if self._shown else self._last
            if taken is not None and taken != self._last:
                for shown in self._shown:
                    self._publish(shown, taken, update=True)

    def refresh_soon(self) -> None:
        """Do so once nothing has changed for a second, on a thread of its own."""
        if self._timer is not None:
            self._timer.cancel()
        if self._shown:
            self._timer = threading.Timer(QUIET, self.refresh)
            self._timer.daemon = True
            self._timer.start()

    def close(self) -> None:
        """Leave the pictures as they are from now on."""
        self._shown.clear()
        if self._timer is not None:
            self._timer.cancel()

    def bundle(self) -> dict[str, Any]:
        """View and page as one output, from which a front end takes what it can show."""
        return {**self._live(), "text/html": self.page()}

    def page(self) -> str:
        """The view as it stands as plain HTML: picture and values."""
        with one_thread():
            still = self._still()
            drawing = "" if still.picture is None else svg_of(still.picture, self._state())
        return f"{STYLE}{_OPEN}{drawing}{still.body}</div>"

    def _publish(self, shown: str, taken: tuple[bytes, str], *, update: bool) -> None:
        self._last = taken
        picture, page = taken
        data, metadata = _png_output(picture) if picture else ({}, {})
        for part, held, about in (("picture", data, metadata), ("page", {"text/html": page}, {})):
            named = {**held, "text/plain": f"{self._name} ({part})"}
            publish(named, about, f"workbench-{shown}-{part}", update)

    def _taken(self) -> tuple[bytes, str]:
        """Picture, empty where there is none, and page."""
        with one_thread():
            still = self._still()
            picture = still.picture and figure_bytes(still.picture, "png", self._state())
        return picture or b"", f"{STYLE}{_OPEN}{still.body}</div>"

    def _live(self) -> dict[str, Any]:
        found = self._widget._repr_mimebundle_()
        return {**found, "text/plain": f"{self._name} (live view)"}


def publish(
    data: Mapping[str, Any],
    metadata: Mapping[str, Any] | None = None,
    display_id: str = "",
    update: bool = False,
) -> None:
    """Send an output to the notebook, or with `update` another content of one sent before."""
    from IPython.display import publish_display_data

    transient = {"display_id": display_id} if display_id else None
    publish_display_data(  # type: ignore[no-untyped-call]
        dict(data), dict(metadata or {}), transient=transient, update=update
    )


def svg_of(picture: Exportable, state: Mapping[str, Any]) -> str:
    """A figure as an element of an HTML page."""
    drawn = figure_bytes(picture, "svg", state).decode()
    return drawn[drawn.index("<svg") :]


def own_frames() -> bool:
    """Whether the front end draws each output in a frame of its own, so that none hides another."""
    return "VSCODE_PID" in os.environ or "google.colab" in sys.modules


def _png_output(picture: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Data and metadata of an output; drawn twice as fine as it is shown."""
    width = struct.unpack(">I", picture[16:20])[0] // 2
    content = base64.b64encode(picture).decode("ascii")
    return {"image/png": content}, {"image/png": {"width": width}}

"""Figures as files that carry their own data and the state that they were drawn in.

A file is drawn by matplotlib (png, svg, pdf) or is Plotly's own page with nothing to fetch (html).
Each holds the figure's JSON and the state beside what is seen, so that `read_export` gives both
back: a compressed text chunk in a png, a `metadata` element in an svg, the Keywords of a pdf, a
script of type application/json in an html. A csv is the figure's table with one more column,
`workbench_state`, filled in its first row; its cells are those of `workbench.data.cells`, so a
spreadsheet runs none as a formula. The same figure and state always give the same bytes.
"""

import base64
import csv
import html
import io
import json
import math
import re
import struct
import threading
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from workbench import palette
from workbench.data.cells import encode_value, neutralise
from workbench.errors import WorkbenchError
from workbench.views.figure import Figure, FigureError, plain

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Canvas

Form = Literal["png", "svg", "pdf", "html", "csv", "json"]
FORMS: tuple[Form, ...] = get_args(Form)
STATE_COLUMN = "workbench_state"

_NAME = "preference-workbench-figure"
_VERSION = 1
_DPI = 200
_LARGEST = 256 * 1024 * 1024
_DRAWING = threading.Lock()
"""matplotlib's settings belong to the process."""


class ExportError(WorkbenchError):
    """A figure that cannot be written, or a file that holds none of ours."""


class Exportable(Protocol):
    """A figure that can be drawn and written as JSON."""

    @property
    def title(self) -> str:
        """What it shows."""
        ...

    def to_json(self) -> str:
        """All of it, as the text of a JSON object."""
        ...

    def to_plotly(self, dark: bool = False) -> Any:  # noqa: ANN401 - plotly has no types
        """As a `plotly.graph_objects.Figure`."""
        ...

    def to_matplotlib(self, dark: bool = False) -> "Canvas":
        """As a `matplotlib.figure.Figure`, called inside `draw_matplotlib.style`."""
        ...

    def table(self) -> "pd.DataFrame":
        """Its numbers."""
        ...


def export_figure(
    figure: Exportable, path: Path | str, state: Mapping[str, Any], dark: bool = False
) -> Path:
    """Write a figure with its data and state; the form follows the file's suffix.

    Raises:
        ExportError: an unknown suffix, a state that is no JSON, or a path that cannot be written.
    """
    target = Path(path)
    content = figure_bytes(figure, _form_of(target), state, dark)
    try:
        target.write_bytes(content)
    except OSError as error:
        raise ExportError(f"{target.name} cannot be written: {error.strerror}") from error
    return target


def figure_bytes(
    figure: Exportable, form: Form | str, state: Mapping[str, Any], dark: bool = False
) -> bytes:
    """A figure with its data and state as the content of a file, for a download.

    Raises:
        ExportError: an unknown form, or a state that is no JSON.
    """
    writer = _WRITERS.get(form)
    if writer is None:
        raise ExportError(f"{form[:40]!r} is not a form of export; use one of {', '.join(FORMS)}")
    return writer(figure, state, dark)


def read_export(path: Path | str) -> tuple[Figure, dict[str, Any]]:
    """The figure and the state that an exported png, svg, pdf, html or json holds.

    Raises:
        ExportError: the file cannot be read, or holds no figure of the workbench.
    """
    text, state = read_payload(path)
    try:
        return Figure.from_json(text), state
    except FigureError as error:
        raise ExportError(f"the figure inside {Path(path).name} is damaged: {error}") from error


def read_payload(path: Path | str) -> tuple[str, dict[str, Any]]:
    """The JSON of the figure, of whichever kind, and the state that an exported file holds.

    Raises:
        ExportError: the file cannot be read, or holds no figure of the workbench.
    """
    source = Path(path)
    reader = _READERS.get(_form_of(source))
    if reader is None:
        raise ExportError("a csv holds the numbers of a figure but not its looks; give another")
    try:
        if source.stat().st_size > _LARGEST:
            raise ExportError(f"{source.name} is too large to be a figure of the workbench")
        payload = reader(source.read_bytes())
    except OSError as error:
        raise ExportError(f"{source.name} cannot be read: {error.strerror}") from error
    if payload is None:
        raise ExportError(f"{source.name} holds no figure of the workbench")
    return _opened(payload, source.name)


def _form_of(path: Path) -> str:
    form = path.suffix.lower().lstrip(".")
    if form not in FORMS:
        found = form[:20] or "no suffix"
        raise ExportError(f"the file name ends in {found!r}; use one of .{', .'.join(FORMS)}")
    return form


# ------------------------------------------------------------------ the payload


def _payload(figure: Exportable, state: Mapping[str, Any]) -> str:
    """Figure and state as ASCII JSON without <, > and &: harmless in HTML, XML and scripts."""
    held = {"form": _NAME, "version": _VERSION, "figure": json.loads(figure.to_json())}
    text = _state_json(held | {"state": dict(state)})
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _state_json(state: Mapping[str, Any]) -> str:
    try:
        return json.dumps(state, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ExportError(f"the state cannot be written as JSON: {error}") from error


def _opened(payload: str, name: str) -> tuple[str, dict[str, Any]]:
    try:
        held = json.loads(payload)
        if held["form"] != _NAME or held["version"] != _VERSION:
            raise ExportError(f"{name} was written by another version of the workbench")
        state = held["state"]
        figure = json.dumps(held["figure"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ExportError(f"the figure inside {name} is damaged: {error}") from error
    if not isinstance(state, dict):
        raise ExportError(f"the state inside {name} is damaged: it is no JSON object")
    return figure, state


def _packed(payload: str) -> str:
    return base64.b64encode(zlib.compress(payload.encode("ascii"), 9)).decode("ascii")


def _unpacked(raw: bytes) -> str | None:
    """Text out of zlib's bytes; nothing of what would fill the memory or is no zlib."""
    opener = zlib.decompressobj()
    try:
        text = opener.decompress(raw, _LARGEST)
        return text.decode("ascii") if opener.eof else None
    except (zlib.error, UnicodeDecodeError):
        return None


# ------------------------------------------------------------------ drawn by matplotlib


def _drawn(figure: Exportable, form: str, dark: bool, metadata: Mapping[str, Any]) -> bytes:
    import matplotlib

    from workbench.views.draw_matplotlib import style

    file = io.BytesIO()
    with _DRAWING, matplotlib.rc_context(style()):
        canvas = figure.to_matplotlib(dark)
        canvas.savefig(
            file, format=form, dpi=_DPI, metadata=metadata, facecolor=canvas.get_facecolor()
        )
    return file.getvalue()


_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = len(_SIGNATURE) + 25


def _png(figure: Exportable, state: Mapping[str, Any], dark: bool) -> bytes:
    """The payload lies in a zTXt chunk behind the header."""
    raw = _drawn(figure, "png", dark, {"Software": None})
    packed = zlib.compress(_payload(figure, state).encode("ascii"), 9)
    body = b"zTXt" + _NAME.encode() + b"\0\0" + packed
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return raw[:_HEADER] + chunk + raw[_HEADER:]


def _from_png(raw: bytes) -> str | None:
    at, lead = len(_SIGNATURE), _NAME.encode() + b"\0\0"
    if not raw.startswith(_SIGNATURE):
        return None
    while at + 8 <= len(raw):
        length, kind = struct.unpack(">I4s", raw[at : at + 8])
        body = raw[at + 8 : at + 8 + length]
        if kind == b"zTXt" and body.startswith(lead):
            return _unpacked(body[len(lead) :])
        at += 12 + length
    return None


def _svg(figure: Exportable, state: Mapping[str, Any], dark: bool) -> bytes:
    raw = _drawn(figure, "svg", dark, {"Date": None, "Creator": None})
    title = html.escape(plain(figure.title, 300), quote=False)
    held = f'<metadata id="{_NAME}">{_payload(figure, state)}</metadata>'
    start = raw.index(b">", raw.index(b"<svg")) + 1
    return raw[:start] + f"\n <title>{title}</title>\n {held}".encode() + raw[start:]


_METADATA = re.compile(rb'<metadata id="' + _NAME.encode() + rb'">([^<]*)</metadata>')


def _from_svg(raw: bytes) -> str | None:
    found = _METADATA.search(raw)
    return found.group(1).decode("ascii", "replace") if found else None


def _pdf(figure: Exportable, state: Mapping[str, Any], dark: bool) -> bytes:
    keywords = f"{_NAME}:{_packed(_payload(figure, state))}"
    dates = {"CreationDate": None, "ModDate": None}
    title = plain(figure.title, 300)
    return _drawn(figure, "pdf", dark, {"Title": title, "Keywords": keywords} | dates)


_KEYWORDS = re.compile(_NAME.encode() + rb":([A-Za-z0-9+/=\\\r\n]+)")


def _from_pdf(raw: bytes) -> str | None:
    found = _KEYWORDS.search(raw)
    if not found:
        return None
    try:
        return _unpacked(base64.b64decode(re.sub(rb"[\\\r\n]", b"", found.group(1))))
    except ValueError:
        return None


# ------------------------------------------------------------------ written as text

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>html, body {{ margin: 0; height: 100%; background: {background}; }}</style>
</head>
<body>
<script type="application/json" id="{name}">{payload}</script>
{drawing}
</body>
</html>
"""


def html_page(
    figure: Exportable, state: Mapping[str, Any], dark: bool, plotlyjs: bool | str = True
) -> bytes:
    """A page with the figure, its data and its state.

    Args:
        figure: The figure.
        state: What it was drawn from.
        dark: Whether in the dark theme.
        plotlyjs: True to hold plotly.js itself, "directory" to read `plotly.min.js` beside it.
    """
    drawing = figure.to_plotly(dark).to_html(
        full_html=False,
        include_plotlyjs=plotlyjs,
        include_mathjax=False,
        div_id="figure",
        config={"displaylogo": False, "responsive": True},
        default_height="100vh",
    )
    page = _PAGE.format(
        title=html.escape(plain(figure.title, 300)),
        background=palette.theme(dark).background,
        name=_NAME,
        payload=_payload(figure, state),
        drawing=drawing,
    )
    return page.encode()


_SCRIPT = re.compile(
    rb'<script type="application/json" id="' + _NAME.encode() + rb'">([^<]*)</script>'
)


def _from_html(raw: bytes) -> str | None:
    found = _SCRIPT.search(raw)
    return found.group(1).decode("ascii", "replace") if found else None


def _json(figure: Exportable, state: Mapping[str, Any], dark: bool) -> bytes:
    return _payload(figure, state).encode("ascii")


def _from_json(raw: bytes) -> str | None:
    return raw.decode("ascii", "replace")


def _csv(figure: Exportable, state: Mapping[str, Any], dark: bool) -> bytes:
    table = figure.table()
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow([neutralise(plain(str(name))) for name in (*table.columns, STATE_COLUMN)])
    first = neutralise(_state_json(state))
    for row in table.itertuples(index=False, name=None):
        writer.writerow([*(_cell(value) for value in row), first])
        first = ""
    if first:
        writer.writerow([*("" for _ in table.columns), first])
    return file.getvalue().encode("utf-8", "replace")


def _cell(value: Any) -> str:  # noqa: ANN401 - a cell of a data frame
    if isinstance(value, str):
        return neutralise(encode_value(plain(value, len(value) + 1))) if value else ""
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else ""
    return str(value) if isinstance(value, int) else ""


Writer = Callable[[Exportable, Mapping[str, Any], bool], bytes]
Reader = Callable[[bytes], str | None]

_WRITERS: dict[str, Writer] = {
    "png": _png,
    "svg": _svg,
    "pdf": _pdf,
    "html": html_page,
    "csv": _csv,
    "json": _json,
}
_READERS: dict[str, Reader] = {
    "png": _from_png,
    "svg": _from_svg,
    "pdf": _from_pdf,
    "html": _from_html,
    "json": _from_json,
}

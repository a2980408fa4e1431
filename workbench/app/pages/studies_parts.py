"""What the Studies page shows with scripts of its own: cards, figures, a grid, a text to copy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import param
from panel.custom import AnyWidgetComponent

_FOLDER = Path(__file__).parent
_COPY_CSS = """
:host { font: 13px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 6px 0; padding: 10px 12px;
  border: 1px solid color-mix(in srgb, currentColor 20%, transparent); border-radius: 6px;
  font: 12.5px/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; user-select: all; }
button { font: inherit; color: inherit; background: none; padding: 4px 12px; border-radius: 6px;
  border: 1px solid color-mix(in srgb, currentColor 35%, transparent); cursor: pointer; }
"""


def _css(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


class StudyGallery(AnyWidgetComponent):
    """Cards of all studies with search and filters; see studies_gallery.js."""

    _esm: ClassVar[Path | str] = _FOLDER / "studies_gallery.js"
    _stylesheets: ClassVar[list[str]] = [_css("studies_gallery.css")]
    _priority_changes: ClassVar[list[str]] = ["opened"]

    cards = param.List(
        default=[],
        doc="{slug, title, paper, authors, family, tags, badge, sign, question, origin} of each.",
    )
    failures = param.List(default=[], doc="{slug, origin, error} of those that failed to load.")
    note = param.String(default="", doc="What to say where there are no cards, for example why.")
    opened = param.Dict(default={}, doc="{seq, slug}, by the reader.")
    theme: Any = param.Selector(default="light", objects=["light", "dark"])

    def __init__(self, **params: Any) -> None:  # noqa: ANN401 - Panel's parameters
        super().__init__(**{"sizing_mode": "stretch_width", **params})  # type: ignore[no-untyped-call]


class PlotlyFigure(AnyWidgetComponent):
    """A Plotly figure; see studies_figure.js."""

    _esm: ClassVar[Path | str] = _FOLDER / "studies_figure.js"

    figure = param.Dict(default={}, doc="{data, layout, seq}, as Plotly's JSON.")
    tall = param.Integer(default=400, doc="Height in pixels.")

    def __init__(self, **params: Any) -> None:  # noqa: ANN401 - Panel's parameters
        tall = params.get("tall", 400)
        super().__init__(  # type: ignore[no-untyped-call]
            **{"sizing_mode": "stretch_width", "height": tall, "margin": 0, **params}
        )

    def draw(self, figure: Mapping[str, Any]) -> None:
        """Draw another figure, given as {data, layout}."""
        self.figure = {**figure, "seq": self.figure.get("seq", 0) + 1}


class Grid(AnyWidgetComponent):
    """A table edited in place; see studies_grid.js."""

    _esm: ClassVar[Path | str] = _FOLDER / "studies_grid.js"
    _stylesheets: ClassVar[list[str]] = [_css("studies_grid.css")]
    _priority_changes: ClassVar[list[str]] = ["request"]

    page = param.Dict(
        default={"names": [], "rows": [], "offset": 0, "size": 1, "total": 0, "refusal": ""},
        doc="The window: names of the columns, rows of cells, and where they stand.",
    )
    request = param.Dict(
        default={}, doc="{seq, name: edit, add, delete or go, column, row, text, offset}."
    )
    theme: Any = param.Selector(default="light", objects=["light", "dark"])

    def __init__(self, **params: Any) -> None:  # noqa: ANN401 - Panel's parameters
        super().__init__(**{"sizing_mode": "stretch_width", **params})  # type: ignore[no-untyped-call]


class CopyText(AnyWidgetComponent):
    """A text with a button that copies it; see studies_copy.js."""

    _esm: ClassVar[Path | str] = _FOLDER / "studies_copy.js"
    _stylesheets: ClassVar[list[str]] = [_COPY_CSS]

    words = param.String(default="")
    label = param.String(default="Copy")

    def __init__(self, **params: Any) -> None:  # noqa: ANN401 - Panel's parameters
        super().__init__(**{"sizing_mode": "stretch_width", **params})  # type: ignore[no-untyped-call]

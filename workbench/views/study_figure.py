"""A study's figure as a file, with its data and the state that it was drawn from.

Study figures are Plotly's. Here they take the shape that `workbench.views.export` writes, so that
a PNG, SVG, PDF or HTML of a study is read back as any other figure of the workbench.
"""

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.study import plot
from workbench.study.base import Figures
from workbench.study.output import plotly_files
from workbench.views.export import ExportError, figure_bytes, html_page, read_payload

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Canvas

_PRINTED = ("png", "svg", "pdf")
_TAGS = re.compile(r"</?(?:b|i|sub|sup|span|em|strong)\b[^>]*>")
_BREAKS = re.compile(r"<br\s*/?>")


@dataclass(frozen=True, eq=False)
class StudyFigure:
    """A study's Plotly figure that can be exported.

    Attributes:
        plotly: The `plotly.graph_objects.Figure`, in the light theme.
    """

    plotly: Any

    @classmethod
    def from_json(cls, text: str) -> "StudyFigure":
        """Read back `to_json`.

        Raises:
            ExportError: the text is not that of a Plotly figure.
        """
        import plotly.graph_objects as go

        try:
            held = json.loads(text)
            return cls(go.Figure(data=held["data"], layout=held["layout"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ExportError(f"this is no figure of a study: {error}") from error

    @property
    def title(self) -> str:
        """What it shows."""
        return words_of(self.plotly.layout.title.text)

    @property
    def caption(self) -> str:
        """The paper's figure that it stands for, and how the two differ."""
        return plot.caption(self.plotly)

    def to_json(self) -> str:
        """The figure as Plotly's JSON, its keys in order."""
        return json.dumps(json.loads(self.plotly.to_json()), sort_keys=True)

    def to_page(self, dark: bool = False) -> dict[str, Any]:
        """Traces and layout in the colours of a theme, as plain JSON for plotly.js."""
        # A figure of `workbench.study.plot` is made in the light theme.
        dressed = self.plotly if self.caption and not dark else self.to_plotly(dark)
        held = json.loads(dressed.to_json())
        return {"data": held["data"], "layout": held["layout"]}

    def to_plotly(self, dark: bool = False) -> Any:  # noqa: ANN401 - plotly has no types
        """A copy in the colours of a theme."""
        import plotly.graph_objects as go

        return plot.dress(go.Figure(self.plotly), dark)

    def to_matplotlib(self, dark: bool = False) -> "Canvas":
        """The figure in matplotlib; to be called inside `draw_matplotlib.style`."""
        from workbench.views.draw_study import study_canvas

        return study_canvas(self, dark)

    def table(self) -> "pd.DataFrame":
        """All numbers, one mark a row, the traces below one another."""
        import pandas as pd

        return pd.DataFrame(dict(plot.table(self.plotly)))


def figure_files(figures: Figures, state: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """The figures of a run as files: JSON, HTML beside one plotly.js, and PNG, SVG and PDF.

    A `workbench.study.output.FigureWriter`. Each but the JSON holds the figure's data and the
    state, to be read back by `read_study_figure`.

    Raises:
        ExportError: a figure has a kind of trace that cannot be drawn.
    """
    files = dict(plotly_files(figures, state))
    for name, figure in figures.items():
        shown = StudyFigure(figure)
        own = {**state, "figure": name}
        files[f"figures/{name}.html"] = html_page(shown, own, dark=False, plotlyjs="directory")
        for form in _PRINTED:
            files[f"figures/{name}.{form}"] = figure_bytes(shown, form, own)
    yield from files.items()


def read_study_figure(path: Path | str) -> tuple[StudyFigure, dict[str, Any]]:
    """The figure and the state that an exported png, svg, pdf or html holds.

    Raises:
        ExportError: the file cannot be read, or holds no figure of a study.
    """
    text, state = read_payload(path)
    return StudyFigure.from_json(text), state


def words_of(text: str | None) -> str:
    """A text of Plotly, which knows some tags, as plain words."""
    return html.unescape(_TAGS.sub("", _BREAKS.sub(" ", text or "")))

"""What all views of a bench share: analysis, a live widget, and what stays of it in a notebook."""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import ipywidgets as widgets
import torch

from workbench.engine.threads import one_thread
from workbench.errors import WorkbenchError
from workbench.views.export import export_figure
from workbench.views.figure import Figure
from workbench.views.markup import strip_html
from workbench.views.notebook import STYLE, NotebookOutput, Still
from workbench.views.words import flag_words, scoring_words

if TYPE_CHECKING:
    import pandas as pd

    from workbench.bench.bench import Bench


class BenchError(WorkbenchError):
    """Something that a bench cannot do as it was asked."""


class BenchView:
    """One view of a bench.

    A subclass gives `frame`, `tensors`, `drawings` (the first is its main figure), `listing`, and
    for the live view `_body` and `_refresh`.

    Args:
        bench: What it shows.
    """

    title: ClassVar[str] = ""
    kinds: ClassVar[tuple[str, ...]] = ()
    """The slow questions that it asks of the session."""

    def __init__(self, bench: "Bench") -> None:
        self.bench = bench
        self._stamp: object = None
        self._built = False
        self._closed = False

    # For one's own analysis ------------------------------------------------------------

    def frame(self) -> "pd.DataFrame":
        """The view's values, one row a pair or prompt."""
        raise NotImplementedError

    def tensors(self) -> dict[str, torch.Tensor]:
        """The view's values as tensors, float64 and int64."""
        raise NotImplementedError

    def drawings(self) -> dict[str, Figure]:
        """The view's figures as values of the workbench; the first is the main one."""
        raise NotImplementedError

    def listing(self) -> str:
        """The view's values as HTML, every text of a user escaped."""
        raise NotImplementedError

    def figures(self) -> dict[str, Any]:
        """The view's figures as `plotly.graph_objects.Figure`, the main one first."""
        with self.bench.lock, one_thread():
            return {name: figure.to_plotly() for name, figure in self.drawings().items()}

    def save(self, path: Path | str, figure: str | None = None) -> Path:
        """Write a figure as a file that holds its data and the bench's state.

        Args:
            path: Ends in .png, .svg, .pdf, .html, .csv or .json.
            figure: One of the names of `figures()`; the main figure if left out.

        Raises:
            BenchError: no such figure.
            ExportError: an unknown suffix, or a path that cannot be written.
        """
        with self.bench.lock:
            found = self.drawings()
        name = next(iter(found)) if figure is None else figure
        if name not in found:
            raise BenchError(f"There is no figure {name[:60]!r}; there are {', '.join(found)}.")
        return export_figure(found[name], path, self._state())

    # In a notebook ---------------------------------------------------------------------

    @cached_property
    def widget(self) -> Any:  # noqa: ANN401 - ipywidgets has no types
        """The live view."""
        self._strip, self._notice = widgets.HTML(), widgets.HTML()
        self._strip.layout.margin = "4px 2px 0"
        with self.bench.lock:
            body = self._body()
            box = widgets.VBox(
                [widgets.HTML(STYLE, layout={"display": "none"}), self._strip, self._notice, *body],
                layout={"width": "100%", "overflow": "visible"},
            )
            box.add_class("workbench-page")
            self._built = True
            self._stamp = self._now()
            self._tell()
            self._refresh()
        return box

    def show(self) -> None:
        """Display the view in the cell that is being run."""
        self._output.show()

    def to_html(self) -> str:
        """The view as it stands as plain HTML: picture and values."""
        return self._output.page()

    def _ipython_display_(self) -> None:
        self.show()

    def _repr_mimebundle_(self, **options: Any) -> Mapping[str, Any]:  # noqa: ANN401 - IPython's
        return self._output.bundle()

    def __repr__(self) -> str:
        return f"<{self.title} of {self.bench.data.name!r}>"

    # For the bench ---------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether the worker is at something that this view waits for."""
        jobs = (self.bench.session.progress(kind) for kind in self.kinds)
        return self._built and any(job is not None and job.active for job in jobs)

    def paint(self) -> bool:
        """Bring the live view up to date; whether there was anything to do."""
        if not self._built or self._closed:
            return False
        with self.bench.lock, one_thread():
            stamp = self._now()
            if stamp == self._stamp:
                return False
            self._stamp = stamp
            self._tell()
            self._refresh()
        self._output.refresh_soon()
        return True

    def close(self) -> None:
        """Close the live view; its picture stays in the notebook."""
        if self._built and not self._closed:
            self._closed = True
            self._output.close()
            for each in _descendants(self.widget):
                each.close()

    # For subclasses --------------------------------------------------------------------

    def _body(self) -> list[Any]:
        """The parts of the live view below the strip."""
        raise NotImplementedError

    def _refresh(self) -> None:
        """Bring those parts up to date."""
        raise NotImplementedError

    def _now(self) -> object:
        """All that the view depends on; equal where nothing has to be painted."""
        bench = self.bench
        jobs = (bench.session.progress(kind) for kind in self.kinds)
        asked = [(job.generation, job.status, job.progress.done) for job in jobs if job is not None]
        status = bench.session.status()
        return (
            bench.session.version, bench.settings, bench.selected, bench.group_by, bench.message,
            bench.session.models, (status.state, status.done, status.error), asked,
        )  # fmt: skip

    @cached_property
    def _output(self) -> NotebookOutput:
        return NotebookOutput(repr(self), self.widget, self._still, self._state)

    def _still(self) -> Still:
        with self.bench.lock:
            summary = self.bench.tables.summary(self.bench.settings)
            picture = next(iter(self.drawings().values()))
            return Still(picture, strip_html(summary) + self.listing())

    def _state(self) -> dict[str, Any]:
        bench = self.bench
        query = {"session": bench.session_id, **bench.settings.to_query()}
        return query | ({"pair": bench.selected} if bench.selected else {})

    def _tell(self) -> None:
        bench = self.bench
        put(self._strip, strip_html(bench.tables.summary(bench.settings)))
        words = (bench.message, scoring_words(bench.session.status()), self._warning())
        put(self._notice, notes_html(*words))

    def _warning(self) -> str:
        return flag_words(self.bench.tables.snapshot.flags)


def put(widget: Any, value: Any) -> None:  # noqa: ANN401 - ipywidgets has no types
    """Set a widget's value where it is another."""
    if widget.value != value:
        widget.value = value


def notes_html(*words: str) -> str:
    """Sentences, escaped, one a line."""
    from html import escape

    return "".join(f"<p class='note'>{escape(each)}</p>" for each in words if each)


def asking(act: Callable[[], object]) -> Callable[[object], None]:
    """A callback of ipywidgets that takes no argument."""

    def call(_: object) -> None:
        act()

    return call


def _descendants(widget: Any) -> list[Any]:  # noqa: ANN401 - ipywidgets has no types
    inner = [each for child in getattr(widget, "children", ()) for each in _descendants(child)]
    return [*inner, widget]

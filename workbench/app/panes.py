"""Parts that pages are made of: figures with shared selection, the summary strip, small texts."""

import re
from collections.abc import Callable
from typing import Any

import panel as pn
import panel_material_ui as pmui

from workbench.app.state import PageState
from workbench.engine.threads import one_thread
from workbench.views.export import FORMS, figure_bytes
from workbench.views.figure import Figure
from workbench.views.markup import STRIP_CSS, TABLE_CSS, strip_html
from workbench.views.widgets import LiveFigure
from workbench.views.words import flag_words

_FORM_NAMES = {
    "png": "Picture (PNG)",
    "svg": "Drawing (SVG)",
    "pdf": "Drawing (PDF)",
    "html": "Interactive page (HTML)",
    "csv": "Numbers (CSV)",
    "json": "Figure and state (JSON)",
}
_CORNER = {"position": "absolute", "right": "4px", "bottom": "2px", "z-index": "3"}


class FigurePane:
    """A live figure drawn from the state, whose points select pairs and which saves itself.

    Args:
        state: The page's state.
        name: What a saved file is called after.
        make: Draws the figure from the state as it is.
        height: Pixels.
    """

    def __init__(
        self, state: PageState, name: str, make: Callable[[], Figure], height: int = 300
    ) -> None:
        self._state = state
        self.name = name
        self._make = make
        self.figure = Figure.blank()
        self.live = LiveFigure(height=height, theme=state.theme, margin=0)
        self.live.param.watch(self._picked, "selection")
        self.menu = export_menu(self.save)
        self.view = pn.Column(
            self.live, self.menu, sizing_mode="stretch_width", margin=(6, 10),
            styles={"position": "relative", "min-width": "300px"},
        )  # fmt: skip

    def refresh(self) -> None:
        """Draw again."""
        with one_thread():
            self.figure = self._make()
            live = self.figure.to_live()
        self.live.theme = self._state.theme
        self.live.update(live.spec, live.columns, live.buffer, selected=self._marked())

    def mark(self) -> None:
        """Show the selection without drawing again."""
        self.live.selected = self._marked()

    def save(self, form: str) -> None:
        """Hand the figure to the browser as a file with its data and the page's state."""
        dark = self._state.theme == "dark"
        content = figure_bytes(self.figure, form, self._state.to_query(), dark)
        self._state.download(f"{_slug(self.name)}.{form}", content)

    def _marked(self) -> int:
        row = self._state.selected_row
        place = None if row is None else self.figure.point_of(row)
        return -1 if place is None else place

    def _picked(self, event: Any) -> None:  # noqa: ANN401 - param's event is untyped
        if event.new.get("generation") == self.live.generation:
            row = self.figure.row_at(int(event.new.get("layer", 0)), int(event.new["index"]))
            if row is not None:
                self._state.select_row(row)


def export_menu(save: Callable[[str], None]) -> Any:  # noqa: ANN401 - a Panel widget
    """A button in the corner that lists the forms of export and calls `save` with the chosen."""
    menu = pmui.MenuButton(
        label="", icon="download", size="small", variant="text", margin=0, styles=_CORNER,
        description="Save this figure with its data and the page's state",
        items=[{"label": _FORM_NAMES[form], "form": form} for form in FORMS],
    )  # fmt: skip

    def chosen(item: Any) -> None:  # noqa: ANN401 - the menu gives the item back
        save(item["form"])

    menu.on_click(chosen)
    return menu


class SummaryStrip:
    """The five live quantities, one tile each, above every page."""

    def __init__(self, state: PageState) -> None:
        self._state = state
        self.view = pn.pane.HTML(
            "", stylesheets=[STRIP_CSS], sizing_mode="stretch_width", margin=(8, 10)
        )

    def refresh(self) -> None:
        """Show the numbers as they are."""
        summary = self._state.tables.summary(self._state.settings)
        self.view.object = strip_html(summary)


class Warnings:
    """The pairs that a summary should not take at face value."""

    def __init__(self, state: PageState) -> None:
        self._state = state
        self.view = pmui.Typography("", variant="body2", margin=(0, 10), visible=False)

    def refresh(self) -> None:
        """Count them and name the first ones."""
        words = flag_words(self._state.tables.snapshot.flags)
        self.view.param.update(object=words, visible=bool(words))


def table_pane() -> Any:  # noqa: ANN401 - a Panel pane
    """An empty pane for `table_html`."""
    return pn.pane.HTML("", stylesheets=[TABLE_CSS], sizing_mode="stretch_width", margin=(6, 10))


def text(words: str, variant: str = "body2") -> Any:  # noqa: ANN401 - a Panel component
    """Plain words of ours (never a user's)."""
    return pmui.Typography(words, variant=variant, margin=(4, 10))


def tools(*widgets: Any) -> Any:  # noqa: ANN401 - Panel components
    """Widgets in a line that wraps where the window is narrow."""
    return pmui.FlexBox(
        *widgets, gap="4px", align_items="center", margin=(10, 0, 2, 0),
        sizing_mode="stretch_width",
    )  # fmt: skip


def side_by_side(*views: Any) -> Any:  # noqa: ANN401 - Panel components
    """Views that share the width."""
    return pn.Row(*views, sizing_mode="stretch_width")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-") or "figure"

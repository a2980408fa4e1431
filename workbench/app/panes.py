"""Parts that pages are made of: figures with shared selection, the summary strip, small texts."""

import html
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import panel as pn
import panel_material_ui as pmui

from workbench.app.state import PageState
from workbench.engine.live import Summary
from workbench.engine.threads import one_thread
from workbench.views.export import FORMS, figure_bytes
from workbench.views.figure import Figure
from workbench.views.widgets import LiveFigure

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
STRIP_CSS = f"""
.strip {{ display: grid; grid-template-columns: repeat(5, minmax(0, 1fr)); gap: 10px; }}
.tile {{ border: 1px solid color-mix(in srgb, currentColor 18%, transparent); border-radius: 8px;
  padding: 7px 12px; min-width: 0; font-family: {FONT}; font-variant-numeric: tabular-nums; }}
.tile .name {{ font-size: 12px; opacity: .75; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; }}
.tile .value {{ font-size: 21px; font-weight: 600; line-height: 1.3; white-space: nowrap;
  overflow: hidden; text-overflow: ellipsis; }}
.tile .more {{ font-size: 12px; line-height: 1.35; opacity: .75; }}
@media (max-width: 1100px) {{ .strip {{ grid-template-columns: repeat(3, minmax(0, 1fr)); }} }}
@media (max-width: 700px) {{ .strip {{ grid-template-columns: repeat(2, minmax(0, 1fr)); }} }}
"""
TABLE_CSS = f"""
table {{ border-collapse: collapse; width: 100%; font: 13px/1.5 {FONT};
  font-variant-numeric: tabular-nums; }}
th, td {{ text-align: right; padding: 4px 10px; white-space: nowrap;
  border-bottom: 1px solid color-mix(in srgb, currentColor 16%, transparent); }}
th:first-child, td:first-child {{ text-align: left; white-space: normal; }}
th {{ font-weight: 600; opacity: .8; }}
.note {{ font: 13px/1.5 {FONT}; opacity: .8; margin: 6px 0; }}
"""
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

    _WORDS: ClassVar[dict[str, str]] = {
        "empty": "with an empty answer, left out",
        "identical": "with two identical answers, whose margin is always 0",
        "truncated": "longer than the model reads, scored as far as it does",
        "not_finite": "without a finite score, left out",
    }

    def __init__(self, state: PageState) -> None:
        self._state = state
        self.view = pmui.Typography("", variant="body2", margin=(0, 10), visible=False)

    def refresh(self) -> None:
        """Count them and name the first ones."""
        flags = self._state.tables.snapshot.flags
        words = "; ".join(
            f"{len(ids)} {self._WORDS[flag]} ({_first_few(ids)})"
            for flag, ids in flags.items()
            if ids
        )
        self.view.param.update(object=f"⚠ Pairs: {words}." if words else "", visible=bool(words))


def _first_few(ids: Sequence[str]) -> str:
    return ", ".join(pair_id[:24] for pair_id in ids[:3]) + (" …" if len(ids) > 3 else "")


def strip_html(summary: Summary) -> str:
    """The strip's markup; names that a user wrote are escaped."""
    means = summary.mean_chosen_reward, summary.mean_rejected_reward
    chosen, rejected = (number(value, digits=3) for value in means)
    accuracy = f"above zero for {percent(summary.reward_accuracy)} of {summary.scored} pairs"
    reference, ideal = percent(summary.reference_accuracy), percent(summary.idealized_accuracy)
    shares = f"reference {reference}, ideal {ideal}; gap {points(summary.alignment_gap)}"
    did = f"{percent(summary.did_efficiency)} of log |S|, mean of {summary.did_prompts} prompts"
    of = f"of {summary.dependence_of}, the strongest" if summary.dependence_of else "no attribute"
    tiles = [
        ("Reward margin, mean", number(summary.mean_margin), accuracy, "margin"),
        ("Implicit reward, mean", chosen, f"of chosen answers; of rejected {rejected}", "reward"),
        ("Ranking accuracy", percent(summary.ranking_accuracy), shares, "ranking"),
        ("DID entropy, nats", number(summary.did_entropy), did, "did"),
        ("Distance correlation", number(summary.dependence), of, "fairness"),
    ]
    return "<div class='strip'>" + "".join(_tile(*tile) for tile in tiles) + "</div>"


def table_html(head: list[str], rows: list[list[str]], notes: list[str] | None = None) -> str:
    """A small table; every text is escaped here and nowhere else."""
    top = "".join(f"<th scope='col'>{html.escape(text)}</th>" for text in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    below = "".join(f"<p class='note'>{html.escape(note)}</p>" for note in notes or [])
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>{below}"


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


def number(value: float, digits: int = 4) -> str:
    """A value with so many significant figures, or a dash while it is not known."""
    return "–" if math.isnan(value) else f"{value:.{digits}g}".replace("-", "−")


def percent(value: float) -> str:
    """A share as a percentage, or a dash."""
    return "–" if math.isnan(value) else f"{100 * value:.1f} %"


def points(value: float) -> str:
    """A difference of shares in percentage points, or a dash."""
    return "–" if math.isnan(value) else f"{100 * value:.1f} points".replace("-", "−")


def _tile(name: str, value: str, more: str, key: str) -> str:
    parts = (html.escape(part) for part in (name, value, more))
    return (
        "<div class='tile' data-quantity='{key}'><div class='name'>{0}</div>"
        "<div class='value'>{1}</div><div class='more'>{2}</div></div>"
    ).format(*parts, key=key)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-") or "figure"

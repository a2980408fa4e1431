"""Parts that pages are made of: figures with shared selection, the summary strip, small texts."""

import html
import math
from collections.abc import Callable
from typing import Any

import panel as pn
import panel_material_ui as pmui

from workbench.app.state import PageState
from workbench.engine.live import Summary
from workbench.views.figure import Figure
from workbench.views.widgets import LiveFigure

STRIP_CSS = """
.strip { display: grid; grid-template-columns: repeat(5, minmax(0, 1fr)); gap: 10px; width: 100%; }
.tile { border: 1px solid color-mix(in srgb, currentColor 18%, transparent); border-radius: 8px;
  padding: 8px 12px; min-width: 0; font-family: system-ui, sans-serif; }
.tile .name { font-size: 12px; opacity: .75; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; }
.tile .value { font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums;
  line-height: 1.35; white-space: nowrap; }
.tile .more { font-size: 12px; opacity: .75; font-variant-numeric: tabular-nums;
  white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
@media (max-width: 1000px) { .strip { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
"""
TABLE_CSS = """
table { border-collapse: collapse; width: 100%; font: 13px/1.5 system-ui, sans-serif;
  font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 4px 10px; white-space: nowrap;
  border-bottom: 1px solid color-mix(in srgb, currentColor 16%, transparent); }
th:first-child, td:first-child { text-align: left; white-space: normal; }
th { font-weight: 600; opacity: .8; }
.warn { font-weight: 600; }
.note { font: 13px/1.5 system-ui, sans-serif; opacity: .8; margin: 6px 0; }
"""


class FigurePane:
    """A live figure drawn from the state, whose points select pairs.

    Args:
        state: The page's state.
        make: Draws the figure from the state as it is.
        height: Pixels.
    """

    def __init__(self, state: PageState, make: Callable[[], Figure], height: int = 320) -> None:
        self._state = state
        self._make = make
        self.figure = Figure.blank()
        self.view = LiveFigure(height=height, theme=_theme(state))
        self.view.param.watch(self._picked, "selection")

    def refresh(self) -> None:
        """Draw again."""
        self.figure = self._make()
        live = self.figure.to_live()
        self.view.theme = _theme(self._state)
        self.view.update(live.spec, live.columns, live.buffer, selected=self._marked())

    def mark(self) -> None:
        """Show the selection without drawing again."""
        self.view.selected = self._marked()

    def _marked(self) -> int:
        row = self._state.selected_row
        place = None if row is None else self.figure.point_of(row)
        return -1 if place is None else place

    def _picked(self, event: Any) -> None:  # noqa: ANN401 - param's event is untyped
        if event.new.get("generation") == self.view.generation:
            row = self.figure.row_at(int(event.new.get("layer", 0)), int(event.new["index"]))
            if row is not None:
                self._state.select_row(row)


class SummaryStrip:
    """The five live quantities, one tile each, above every page."""

    def __init__(self, state: PageState) -> None:
        self._state = state
        self.view = pn.pane.HTML(
            "", stylesheets=[STRIP_CSS], sizing_mode="stretch_width", height=86
        )

    def refresh(self) -> None:
        """Show the numbers as they are."""
        summary = self._state.tables.summary(self._state.settings)
        self.view.object = strip_html(summary)


def strip_html(summary: Summary) -> str:
    """The strip's markup; names that a user wrote are escaped."""
    accuracy = f"reward accuracy {percent(summary.reward_accuracy)}"
    reference, ideal = percent(summary.reference_accuracy), percent(summary.idealized_accuracy)
    shares = f"{reference} reference · {ideal} ideal"
    chosen, rejected = number(summary.mean_chosen_reward), number(summary.mean_rejected_reward)
    rewards = f"chosen {chosen} · rejected {rejected}"
    gap = f"gap to the ideal {points(summary.alignment_gap)}"
    did = f"{percent(summary.did_efficiency)} of its maximum, {summary.did_prompts} prompts"
    of = f"of {summary.dependence_of}" if summary.dependence_of else "no attribute chosen"
    tiles = [
        ("Reward margin, mean", number(summary.mean_margin), accuracy, "margin"),
        ("Implicit rewards, mean", number(summary.mean_chosen_reward), rewards, "reward"),
        ("Ranking accuracy", percent(summary.ranking_accuracy), f"{shares} · {gap}", "ranking"),
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


def text(words: str, variant: str = "body2") -> Any:  # noqa: ANN401 - a Panel component
    """Plain words of ours (never a user's)."""
    return pmui.Typography(words, variant=variant, margin=(2, 0))


def number(value: float) -> str:
    """A value with four significant figures, or a dash while it is not known."""
    return "–" if math.isnan(value) else f"{value:.4g}".replace("-", "−")


def percent(value: float) -> str:
    """A share as a percentage, or a dash."""
    return "–" if math.isnan(value) else f"{100 * value:.1f} %"


def points(value: float) -> str:
    """A difference of shares in percentage points, or a dash."""
    return "–" if math.isnan(value) else f"{100 * value:.1f} pp".replace("-", "−")


def _tile(name: str, value: str, more: str, key: str) -> str:
    parts = (html.escape(part) for part in (name, value, more))
    return (
        "<div class='tile' data-quantity='{key}'><div class='name'>{0}</div>"
        "<div class='value'>{1}</div><div class='more' title='{2}'>{2}</div></div>"
    ).format(*parts, key=key)


def _theme(state: PageState) -> str:
    return "dark" if state.dark else "light"

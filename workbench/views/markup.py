"""The five quantities and small tables as HTML, for the served page and the notebook alike."""

import html
import math
from collections.abc import Sequence

from workbench.engine.live import Summary

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


def table_html(
    head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> str:
    """A small table; every text is escaped here and nowhere else."""
    top = "".join(f"<th scope='col'>{html.escape(text)}</th>" for text in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    below = "".join(f"<p class='note'>{html.escape(note)}</p>" for note in notes)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>{below}"


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

"""The two pages that only a classroom has: the instructor's view, and the door."""

import html
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import panel as pn
import panel_material_ui as pmui

from workbench.app.browser import Connection
from workbench.app.classroom import Roster, Seat
from workbench.app.classroom_room import (
    QUANTITIES,
    Classroom,
    PairRow,
    StudentRow,
    distribution,
)
from workbench.app.panes import text
from workbench.app.template import every, page_frame
from workbench.errors import WorkbenchError
from workbench.views.markup import FONT, TABLE_CSS, number, percent

POLL_MS = 2000
_PAIRS_SHOWN = 40
_CHARS = 90
CSS = f"""
{TABLE_CSS}
:host {{ font: 14px/1.5 {FONT}; }}
a {{ color: inherit; }}
a:focus-visible {{ outline: 2px solid currentColor; outline-offset: 2px; }}
td.words, th.words {{ text-align: left; white-space: normal; }}
.here {{ font-weight: 600; }} .away {{ opacity: .65; }}
.dots {{ position: relative; height: 18px; min-width: 260px;
  border-bottom: 1px solid color-mix(in srgb, currentColor 30%, transparent); }}
.dots i {{ position: absolute; top: 4px; width: 9px; height: 9px; margin-left: -4px;
  border-radius: 50%; background: currentColor; opacity: .55; }}
.bar {{ display: inline-block; width: 90px; height: 9px; margin-right: 8px; vertical-align: middle;
  border: 1px solid color-mix(in srgb, currentColor 40%, transparent); }}
.bar b {{ display: block; height: 100%; background: currentColor; opacity: .6; }}
.empty {{ opacity: .8; margin: 6px 0; }}
.link {{ font-family: ui-monospace, monospace; font-size: 12px; user-select: all; }}
"""


class InstructorView:
    """Who is where, the five quantities over the class, and what it made of each pair.

    Args:
        classroom: The students' sessions.
        link: The address that a token opens.
        demonstrate: Opens a session of the instructor's own.
    """

    def __init__(
        self, classroom: Classroom, link: Callable[[str], str], demonstrate: Callable[[], None]
    ) -> None:
        self._classroom = classroom
        self._link = link
        self._shown: dict[str, str] = {}
        self.people, self.spread, self.pairs, self.links = (_pane() for _ in range(4))
        own = pmui.Button(label="Open a session of my own", variant="outlined", size="small",
                          margin=(4, 10))  # fmt: skip
        own.on_click(lambda event: demonstrate())
        self.every = pmui.Switch(label="Show all pairs, not only those changed most", size="small",
                                 margin=(4, 10))  # fmt: skip
        self.every.param.watch(lambda event: self.refresh(), "value")
        self.view = pn.Column(
            text("Students", "h6"), self.people, own,
            text("The five quantities over the class", "h6"), self.spread,
            text("What the class made of the pairs", "h6"), self.every, self.pairs,
            pmui.Accordion(("Links: do not show these on a projector", self.links), active=[],
                           margin=10, sizing_mode="stretch_width"),
            sizing_mode="stretch_width",
        )  # fmt: skip

    def refresh(self) -> None:
        """Show what is new; nothing is sent where nothing is."""
        students = self._classroom.students()
        opinions = self._classroom.opinions()
        shown = opinions if self.every.value else opinions[:_PAIRS_SHOWN]
        with pn.io.hold():
            _show(self.people, people_html(students))
            _show(self.spread, spread_html(students))
            _show(self.pairs, pairs_html(shown, len(opinions)))
            _show(self.links, links_html(self._classroom.roster, self._link))


def instructor_page(
    title: str, classroom: Classroom, link: Callable[[str], str], demonstrate: Callable[[], None]
) -> Any:  # noqa: ANN401 - a Panel template
    """The instructor's page, kept up to date while it is open."""
    view = InstructorView(classroom, link, demonstrate)
    pn.state.onload(view.refresh)
    every(POLL_MS, view.refresh)
    return page_frame(title=f"{title} · classroom", main=[view.view, Connection()])


def door_page(title: str, enter: Callable[[str], Seat], link: Callable[[str], str]) -> Any:  # noqa: ANN401 - a Panel template
    """Asks a student for a name and gives the link of a place of their own."""
    name = pmui.TextInput(label="Your name", margin=(6, 10), width=320)
    go = pmui.Button(label="Enter", variant="contained", margin=(6, 10))
    said = pmui.Typography("", color="error", margin=(4, 10))
    given = _pane()

    def entered(_: object) -> None:
        try:
            seat = enter(name.value_input or name.value or "")
        except WorkbenchError as error:
            said.object = str(error)
            return
        said.object, go.disabled, name.disabled = "", True, True
        given.object = door_html(link(seat.token))

    go.on_click(entered)
    name.param.watch(entered, "enter_pressed")
    main = [
        text("Write your name. You get a link of your own, which always brings you back to your "
             "work; your instructor sees your name beside what you did."),
        name, go, said, given, Connection(),
    ]  # fmt: skip
    return page_frame(title=title, main=main)


def people_html(students: Sequence[StudentRow], now: datetime | None = None) -> str:
    """The students as a table; names are escaped."""
    if not students:
        return _empty(
            "No student has a place yet. Give the class's link, or start with --students."
        )
    here = sum(student.here for student in students)
    head = ("Student", "Here", "Page", "Last change", "When", "Edits", "Scored", "")
    rows = "".join(_person(student, now or datetime.now(UTC)) for student in students)
    note = f"<p class='note'>{here} of {len(students)} are here.</p>"
    return note + _table(head, rows, words=(3,))


def spread_html(students: Sequence[StudentRow]) -> str:
    """Each quantity over the students: a dot for each, and the quartiles."""
    if not any(student.summary for student in students):
        return _empty("Nothing yet: the numbers appear as soon as a student has opened a link.")
    rows = "".join(_spread(name, distribution(students, key)) for key, name in QUANTITIES.items())
    head = ("Quantity", "One dot a student", "Students", "Smallest", "Median", "Largest")
    return _table(head, rows, words=(1,))


def pairs_html(pairs: Sequence[PairRow], total: int) -> str:
    """The common set's pairs; prompts are escaped."""
    if not any(pair.kept for pair in pairs):
        return _empty("Nothing yet: the pairs appear as soon as a student has opened a link.")
    head = ("Pair", "Prompt", "Changed by", "Flipped by", "Students who prefer the first answer")
    note = f"<p class='note'>{len(pairs)} of {total} pairs, those changed by most first.</p>"
    return note + _table(head, "".join(map(_pair, pairs)), words=(1,))


def links_html(roster: Roster, link: Callable[[str], str]) -> str:
    """Every student's own link, and the class's."""
    door = roster.token_of("@door")
    entries = [("Whole class (asks for a name)", door)]
    entries += [(seat.name, seat.token) for seat in roster.seats]
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td>"
        f"<td class='words link'>{html.escape(link(token))}</td></tr>"
        for name, token in entries
    )
    return _table(("For", "Link"), rows, words=(1,))


def door_html(link: str) -> str:
    """A student's own link, to be kept and opened."""
    shown = html.escape(link)
    return (
        "<p>This is your link. Keep it (copy it, or send it to yourself): with it you come back "
        f"to your work from any browser.</p><p class='link'>{shown}</p>"
        f"<p><a href='{shown}'>Open my session</a></p>"
    )


def _person(student: StudentRow, now: datetime) -> str:
    summary = student.summary
    scored = f"{summary.scored} of {summary.pairs}" if summary else "–"
    state = ("here", "● here") if student.here else ("away", "○ away")
    if not student.session:
        state = ("away", "not yet")
    opened = (
        f"<a href='?session={html.escape(student.session)}'>look in</a>" if student.session else ""
    )
    cells = (student.page or "–", student.action[:_CHARS] or "–", _ago(student.when, now),
             str(student.edits), scored)  # fmt: skip
    middle = "".join(
        f"<td{' class=words' if place == 1 else ''}>{html.escape(cell)}</td>"
        for place, cell in enumerate(cells)
    )
    return (
        f"<tr><td>{html.escape(student.name)}</td><td class='{state[0]}'>{state[1]}</td>"
        f"{middle}<td>{opened}</td></tr>"
    )


def _spread(name: str, values: Sequence[tuple[str, float]]) -> str:
    if not values:
        return f"<tr><td>{name}</td><td class='words'>not scored yet</td>{'<td>–</td>' * 4}</tr>"
    numbers = [value for _, value in values]
    low, high = numbers[0], numbers[-1]
    width = (high - low) or 1.0
    dots = "".join(
        f"<i style='left:{2 + 96 * (value - low) / width:.1f}%' "
        f"title='{html.escape(f'{who}: {number(value)}', quote=True)}'></i>"
        for who, value in values
    )
    cells = (str(len(numbers)), number(low), number(_median(numbers)), number(high))
    ends = "".join(f"<td>{cell}</td>" for cell in cells)
    return f"<tr><td>{name}</td><td class='words'><div class='dots'>{dots}</div></td>{ends}</tr>"


def _pair(pair: PairRow) -> str:
    prompt = pair.prompt if len(pair.prompt) <= _CHARS else pair.prompt[:_CHARS] + " …"
    share = 0.0 if pair.share != pair.share else pair.share
    bar = f"<span class='bar'><b style='width:{100 * share:.0f}%'></b></span>"
    votes = f"{bar}{pair.kept - pair.flipped} of {pair.kept} ({percent(pair.share)})"
    return (
        f"<tr><td>{html.escape(pair.pair_id)}</td><td class='words'>{html.escape(prompt)}</td>"
        f"<td>{pair.edited}</td><td>{pair.flipped}</td><td>{votes}</td></tr>"
    )


def _table(head: Sequence[str], rows: str, words: Sequence[int] = ()) -> str:
    top = "".join(
        f"<th scope='col'{' class=words' if place in words else ''}>{name}</th>"
        for place, name in enumerate(head)
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{rows}</tbody></table>"


def _empty(words: str) -> str:
    return f"<p class='empty'>{html.escape(words)}</p>"


def _ago(when: datetime | None, now: datetime) -> str:
    if when is None:
        return "–"
    minutes = int((now - when).total_seconds()) // 60
    if minutes < 1:
        return "just now"
    return f"{minutes} min ago" if minutes < 100 else f"{when:%d %b %H:%M} UTC"


def _median(values: Sequence[float]) -> float:
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def _pane() -> Any:  # noqa: ANN401 - a Panel pane
    return pn.pane.HTML("", stylesheets=[CSS], sizing_mode="stretch_width", margin=(2, 10))


def _show(pane: Any, content: str) -> None:  # noqa: ANN401 - a Panel pane
    if pane.object != content:
        pane.object = content

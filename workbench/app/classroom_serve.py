"""`workbench serve --classroom`: many students on one server, each by a link of their own."""

import csv
import gc
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import panel as pn
from tornado.ioloop import PeriodicCallback

from workbench import paths
from workbench.app.classroom import (
    DOOR,
    INSTRUCTOR,
    Limits,
    Roster,
    students,
    write_private,
)
from workbench.app.classroom_page import door_page, instructor_page
from workbench.app.classroom_room import Classroom, Visit
from workbench.app.guard import visitor
from workbench.app.main import TITLE, App, query_of_visit, refusing
from workbench.app.printing import print_json, print_rows
from workbench.app.server import ServerOptions, is_loopback, make_server
from workbench.data.sources import open_source
from workbench.engine.pool import LoadScorer, load_scorer
from workbench.engine.workspace import Workspace
from workbench.errors import WorkbenchError

_SWEEP_MS = 15_000


@dataclass(frozen=True)
class ClassroomOptions:
    """What a lecturer says of a classroom.

    Attributes:
        students: A number, names with commas between, or a file of names; see `students`.
        links: File for the links (.csv); None writes none.
        as_json: Print the links as JSON.
        limits: What students may do.
    """

    students: str = ""
    links: Path | None = None
    as_json: bool = False
    limits: Limits = field(default_factory=Limits)


class Address:
    """How a link to this server is written."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self.port = options.port

    def __call__(self, token: str) -> str:
        """The link that a token opens."""
        name = self._options.names[0] if self._options.names else self._options.address
        name = f"[{name}]" if name.count(":") > 1 and not name.startswith("[") else name
        if name.endswith(":443"):
            return f"https://{name.removesuffix(':443')}/?token={token}"
        own = name.rpartition(":")[2].isdigit() and not name.endswith("]")
        return f"http://{name if own else f'{name}:{self.port}'}/?token={token}"


def instructor_token() -> str:
    """The instructor's token of the classroom on this machine, made where there is none."""
    return Roster(_folder() / "roster.json").token_of(INSTRUCTOR)


def open_classroom(
    options: ClassroomOptions,
    token: str | None,
    source: str,
    models: tuple[str, str],
    folder: Path | None = None,
    load: LoadScorer = load_scorer,
) -> Classroom:
    """The classroom kept in `folder`, with a place for everybody named.

    Raises:
        WorkbenchError: the set, the roster or the names cannot be read.
    """
    folder = folder or _folder()
    pairs = open_source(source, lambda note: print(note, file=sys.stderr, flush=True))
    roster = Roster(folder / "roster.json")
    if token:
        roster.staffed(token)
    roster.invite(students(options.students), options.limits.seats)
    workspace = Workspace(folder / "sessions", load=load, crowd=True)
    return Classroom(workspace, roster, pairs, models, options.limits)


def _folder() -> Path:
    return paths.data_dir() / "classroom"


def page_factory(classroom: Classroom, link: Callable[[str], str]) -> Callable[[], Any]:
    """What the server calls for every visitor; who it is, the guard has found out."""
    return refusing(lambda: _page(classroom, visitor.get(), link), "Go to my own session")


def run(
    options: ServerOptions, room: ClassroomOptions, source: str, policy: str, reference: str
) -> None:
    """Serve a classroom until stopped.

    Raises:
        WorkbenchError: students could not reach the server by the names given.
    """
    if not is_loopback(options.address) and not options.names:
        raise WorkbenchError(
            f"A classroom on {options.address} needs the name by which students reach this "
            "machine, for its links: --host NAME (with :443 behind an https proxy)."
        )
    pn.extension(notifications=False)
    classroom = open_classroom(room, options.token, source, (policy, reference))
    link = Address(options)
    server = make_server(page_factory(classroom, link), options, classroom.roster)
    link.port = server.port
    tell_links(classroom.roster, link, room)
    start_sweeping(classroom)
    server.start()
    try:
        server.io_loop.start()
    finally:
        classroom.workspace.close()


def start_sweeping(classroom: Classroom, every_ms: float = _SWEEP_MS) -> PeriodicCallback:
    """Close idle sessions now and then; to be called on the server's loop."""
    sweeper = PeriodicCallback(lambda: _sweep(classroom), every_ms)
    sweeper.start()
    return sweeper


def _sweep(classroom: Classroom) -> None:
    if classroom.close_idle():
        # Pages and their models refer to each other in circles.
        gc.collect()


def tell_links(roster: Roster, link: Callable[[str], str], room: ClassroomOptions) -> None:
    """Print the links, or write them to a file that its owner alone may read."""
    rows = [
        {"who": "instructor", "link": link(roster.token_of(INSTRUCTOR))},
        {"who": "whole class (asks for a name)", "link": link(roster.token_of(DOOR))},
        *({"who": seat.name, "link": link(seat.token)} for seat in roster.seats),
    ]
    if room.links is not None:
        write_private(room.links, links_csv(rows))
    if room.as_json:
        print_json(rows)
    else:
        print(f"{TITLE}: {rows[0]['link']}", flush=True)
        print_rows(rows[1:], "Links of this classroom")
    sys.stdout.flush()


def links_csv(rows: Sequence[dict[str, str]]) -> str:
    """The links as a table for a mail merge; a name is never read as a formula."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["who", "link"])
    for row in rows:
        who = row["who"]
        writer.writerow([f"'{who}" if who[:1] in "=+-@\t\r" else who, row["link"]])
    return out.getvalue()


def _page(classroom: Classroom, name: str, link: Callable[[str], str]) -> Any:  # noqa: ANN401
    query = query_of_visit()
    if name == DOOR:
        return door_page(TITLE, lambda asked: classroom.roster.add(
            asked, classroom.limits.seats), link)  # fmt: skip
    if name == INSTRUCTOR and "session" not in query:
        return instructor_page(TITLE, classroom, link, lambda: _demonstrate(classroom))
    own = classroom.sessions_of(name)
    session = classroom.session_of(name, query.get("session", ""))
    app = App(own, session, query)
    visit = Visit(name, app.state, pn.state.curdoc.session_context if pn.state.curdoc else None)
    classroom.entered(visit)
    pn.state.on_session_destroyed(lambda context: classroom.left(visit))
    app.start()
    page = app.template()
    page.title = f"{TITLE} · {'instructor' if name == INSTRUCTOR else name}"
    return page


def _demonstrate(classroom: Classroom) -> None:
    session = classroom.session_of(INSTRUCTOR)
    if pn.state.location is not None:
        pn.state.location.param.update(search=f"?session={session.session_id}", reload=True)

"""The application: one page template over a session, and the server that shows it."""

import webbrowser
from typing import Any

import panel as pn
import panel_material_ui as pmui
import param
from panel.custom import AnyWidgetComponent

from workbench.app.controls import Controls
from workbench.app.pages import Page
from workbench.app.panes import SummaryStrip, text
from workbench.app.server import RUN_ID, ServerOptions, address_of, make_server
from workbench.app.state import PAGES, PageState
from workbench.data.pairs import PreferenceSet
from workbench.data.sources import open_source
from workbench.engine.session import Session
from workbench.engine.workspace import Workspace
from workbench.errors import WorkbenchError

_POLL_MS = 100


class Connection(AnyWidgetComponent):
    """Watches for the server's end; see connection.js."""

    _esm = "connection.js"
    run = param.String(RUN_ID)


class App:
    """One browser tab: controls, the strip of live quantities, and the six pages."""

    def __init__(self, workspace: Workspace, session: Session, query: dict[str, str]) -> None:
        self._workspace = workspace
        self.state = PageState(session)
        self.state.read_query(query)
        if not self.state.settings.attributes:
            names = session.store.pairs().attribute_names()
            self.state.change(attributes=tuple(names))
        self._pages = _pages(self.state, self._open)
        self._strip = SummaryStrip(self.state)
        self._controls = Controls(self.state)
        self._message = pmui.Typography("", color="error", visible=False)
        self._progress = pmui.LinearProgress(visible=False, sizing_mode="stretch_width")
        self._working = text("")
        self._tabs = pmui.Tabs(
            *((name, self._pages[name].view) for name in PAGES),
            active=PAGES.index(self.state.page),
            dynamic=True,
            sizing_mode="stretch_width",
        )
        self._bind()
        self._refresh()

    def template(self) -> Any:  # noqa: ANN401 - a Panel template
        """The page to serve."""
        models = self.state.session.models
        about = text(f"Policy: {models['policy']}  ·  Reference: {models['reference']}")
        page = pmui.Page(
            title="Preference workbench",
            sidebar=[*self._controls.view, about],
            sidebar_width=330,
            main=[self._message, self._working, self._progress, self._strip.view, self._tabs,
                  Connection(width=0, height=0)],
        )  # fmt: skip
        page.param.watch(lambda event: setattr(self.state, "dark", bool(event.new)), "dark_theme")
        return page

    def start(self) -> None:
        """Begin scoring and looking for news."""
        self.state.session.score()
        pn.state.add_periodic_callback(self._tick, _POLL_MS)

    def _bind(self) -> None:
        self._tabs.param.watch(
            lambda event: setattr(self.state, "page", PAGES[event.new]), "active"
        )
        watched = ["settings", "changed", "page", "group_by", "dark"]
        self.state.param.watch(lambda *events: self._refresh(), watched)
        self.state.param.watch(lambda event: self._page.mark(), "selected")
        self.state.param.watch(lambda event: self._say(event.new), "message")
        address = ["settings", "page", "group_by", "selected"]
        self.state.param.watch(lambda *events: self._remember(), address)

    @property
    def _page(self) -> Page:
        return self._pages[self.state.page]

    def _refresh(self) -> None:
        self._strip.refresh()
        self._page.refresh()

    def _say(self, words: str) -> None:
        self._message.param.update(object=words, visible=bool(words))

    def _remember(self) -> None:
        if pn.state.location is not None:
            pn.state.location.search = "?" + _encoded(self.state.to_query())

    def _tick(self) -> None:
        self.state.poll()
        self._report()
        if self.state.page in ("DID", "Attribution", "Fairness"):
            self._await_answers()

    def _report(self) -> None:
        status = self.state.session.status()
        share = int(100 * status.done / status.total) if status.total else 0
        busy = status.state == "working"
        left = f", about {status.eta_seconds:.0f} s left" if status.eta_seconds else ""
        count = f" {status.done} of {status.total}{left}" if status.total else ""
        words = f"{status.note}{count}" if busy else status.error
        if words != self._working.object:
            self._working.object = words
        kind = "determinate" if status.total else "indeterminate"
        self._progress.param.update(visible=busy, value=share, variant=kind)

    def _await_answers(self) -> None:
        """Bring a page up to date when the worker has answered a slow question of its."""
        jobs = [
            self.state.session.progress(k)
            for k in ("tokens", "attribution", "permutation", "joint")
        ]
        now = [(job.generation, job.status, job.progress.done) for job in jobs if job is not None]
        if now != getattr(self, "_answers", now):
            self._page.mark() if self.state.page != "Fairness" else self._page.refresh()
        self._answers = now

    def _open(self, pairs: PreferenceSet) -> None:
        models = self.state.session.models
        session = self._workspace.create(pairs, models["policy"], models["reference"])
        if pn.state.location is not None:
            pn.state.location.param.update(search=f"?session={session.session_id}", reload=True)


def _pages(state: PageState, open_set: Any) -> dict[str, Page]:  # noqa: ANN401
    from workbench.app.pages.attribution import AttributionPage
    from workbench.app.pages.did import DidPage
    from workbench.app.pages.fairness import FairnessPage
    from workbench.app.pages.pairs import PairsPage
    from workbench.app.pages.ranking import RankingPage
    from workbench.app.pages.rewards import RewardsPage

    return {
        "Pairs": PairsPage(state, open_set),
        "Rewards": RewardsPage(state),
        "Ranking": RankingPage(state),
        "DID": DidPage(state),
        "Fairness": FairnessPage(state),
        "Attribution": AttributionPage(state),
    }


def page_factory(workspace: Workspace, source: str, policy: str, reference: str) -> Any:  # noqa: ANN401
    """What the server calls for every visitor: the session in the address, or a new one."""

    def page() -> Any:  # noqa: ANN401
        query = _query()
        try:
            session = _session(workspace, query, source, policy, reference)
        except WorkbenchError as error:
            return pmui.Page(title="Preference workbench", main=[pmui.Typography(str(error))])
        app = App(workspace, session, query)
        app._remember()
        app.start()
        return app.template()

    return page


def run(
    options: ServerOptions, source: str, policy: str, reference: str, open_browser: bool = False
) -> None:
    """Serve until stopped."""
    pn.extension(notifications=False)  # type: ignore[no-untyped-call]
    open_source(source)
    workspace = Workspace()
    server = make_server(page_factory(workspace, source, policy, reference), options)
    address = address_of(server, options)
    print(f"Preference workbench: {address}", flush=True)
    if open_browser:
        webbrowser.open(address)
    server.start()
    try:
        server.io_loop.start()
    finally:
        workspace.close()


def _session(
    workspace: Workspace, query: dict[str, str], source: str, policy: str, reference: str
) -> Session:
    if "session" in query:
        return workspace.session(query["session"])
    return workspace.create(open_source(source), policy, reference)


def _query() -> dict[str, str]:
    arguments = pn.state.session_args or {}
    return {
        key: values[0].decode("utf-8", "replace") for key, values in arguments.items() if values
    }


def _encoded(query: dict[str, str]) -> str:
    from urllib.parse import urlencode

    return urlencode(query)

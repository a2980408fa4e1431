"""The application: one page template over a session, and the server that shows it."""

import logging
import sys
import webbrowser
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

import panel as pn
import panel_material_ui as pmui

from workbench.app.browser import Connection, Downloads, Shortcuts
from workbench.app.controls import Controls, DataControls, ModelControls, StateControls
from workbench.app.opening import Opener
from workbench.app.pages import LivePage, Page
from workbench.app.pages.train_transport import KEYS as TRAINING_KEYS
from workbench.app.panes import SummaryStrip, Warnings, table_pane, text
from workbench.app.server import ServerOptions, address_of, make_server
from workbench.app.state import PAGES, PageState
from workbench.app.template import every, page_frame
from workbench.data.pairs import PreferenceSet
from workbench.data.sources import open_source
from workbench.engine.session import Session
from workbench.engine.workspace import Sessions, Workspace
from workbench.errors import WorkbenchError
from workbench.views.markup import table_html
from workbench.views.words import scoring_words

TITLE = "Preference workbench"
_log = logging.getLogger(__name__)
_POLL_MS = 100
_ASKED = {
    "DID": ("tokens",),
    "Attribution": ("attribution", "influence"),
    "Fairness": ("permutation", "joint"),
}
_KEYS = {
    f"1 … {len(PAGES)}": "go to a page",
    "j / k": "select the next or the previous pair",
    "[ / ]": "make β smaller or larger",
    "Ctrl+Z / Ctrl+Shift+Z": "undo or redo an edit",
    **TRAINING_KEYS,
    "?": "show these keys (on Pairs: those of the table)",
}


class App:
    """One browser tab: the sidebar, the strip of live quantities, and the pages."""

    def __init__(self, workspace: Sessions, session: Session, query: dict[str, str]) -> None:
        self._workspace = workspace
        self._ready = False
        self._answers: Sequence[tuple[int, str, int]] | None = None
        self.state = PageState(session)
        self.state.read_query(query)
        if not self.state.settings.attributes:
            names = session.store.pairs().attribute_names()
            self.state.settings = self.state.settings.replaced(attributes=tuple(names))
        self._opener = Opener(workspace, session, _go)
        self._pages = _pages(self.state, self._opener.take, self._use_policy)
        self._strip = SummaryStrip(self.state)
        self._warnings = Warnings(self.state)
        self._controls = Controls(self.state)
        self._data = DataControls(self.state, self._opener)
        self._models = ModelControls(self.state, self._use_models)
        self._file = StateControls(self.state, self._models.put)
        self._notice = Notice(self.state)
        self._activity = Activity(session)
        self._help = pmui.Dialog(_keys_table(), title="Keys", show_close_button=True)
        self._downloads = Downloads()
        self.state.download = self._downloads.offer
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
        hidden = (Connection(), self._downloads, self._shortcuts(), self._help)
        page = page_frame(
            title=TITLE,
            sidebar=[*self._data.view, *self._models.view, *self._controls.view, *self._file.view],
            sidebar_width=310,
            main=[
                self._notice.view,
                self._activity.view,
                self._strip.view,
                self._warnings.view,
                self._tabs,
                *hidden,
            ],
        )
        self.state.dark = bool(page.dark_theme)
        page.param.watch(lambda event: setattr(self.state, "dark", bool(event.new)), "dark_theme")
        return page

    def start(self) -> None:
        """Begin scoring and looking for news; ends with the browser's tab."""
        pn.state.onload(self._loaded)
        every(_POLL_MS, self._tick)
        pn.state.on_session_destroyed(lambda context: self._opener.close())

    def _bind(self) -> None:
        self._tabs.param.watch(
            lambda event: setattr(self.state, "page", PAGES[event.new]), "active"
        )
        watch = self.state.param.watch
        watch(lambda event: setattr(self._tabs, "active", PAGES.index(event.new)), "page")
        watch(lambda *events: self._refresh(), ["settings", "changed", "page", "group_by", "dark"])
        watch(lambda event: self._page.mark(), "selected")
        kept = ["settings", "page", "group_by", "selected", "study"]
        watch(lambda *events: self._remember(), kept)

    def _shortcuts(self) -> Shortcuts:
        def go(page: str) -> Callable[[], None]:
            return lambda: setattr(self.state, "page", page)

        session = self.state.session
        return Shortcuts(
            {str(number): go(page) for number, page in enumerate(PAGES, start=1)}
            | {
                "j": lambda: self.state.step_selection(1),
                "k": lambda: self.state.step_selection(-1),
                "[": lambda: self._controls.step_beta(-1),
                "]": lambda: self._controls.step_beta(1),
                "Ctrl+z": lambda: self.state.attempt(session.undo),
                "Ctrl+Shift+z": lambda: self.state.attempt(session.redo),
                "?": lambda: setattr(self._help, "open", True),
            }
        )

    @property
    def _page(self) -> Page:
        return self._pages[self.state.page]

    def _refresh(self) -> None:
        # One message for everything that changed, so that the browser paints it in one go.
        with pn.io.hold():
            self._strip.refresh()
            self._warnings.refresh()
            self._data.refresh()
            self._models.refresh()
            self._page.refresh()

    def _use_models(self, policy: str, reference: str) -> None:
        self._workspace.use_models(self.state.session, policy=policy, reference=reference)

    def _use_policy(self, policy: str) -> None:
        self._models.put(policy, self.state.session.models["reference"])

    def _remember(self) -> None:
        if pn.state.location is not None:
            pn.state.location.search = "?" + urlencode(self.state.to_query())

    def _loaded(self) -> None:
        # What changes between the first paint and this moment may never reach the browser, and
        # the browser has put its own address in the place of ours.
        self._ready = True
        # Not sooner: fetching a model and building the page on the same cores delays both.
        self.state.session.score()
        self._refresh()
        self._remember()

    def _tick(self) -> None:
        if not self._ready:
            return
        self.state.poll()
        self._activity.refresh(self._opener.note)
        if problem := self._opener.poll():
            self.state.message = problem
        self._await_answers()
        if isinstance(self._page, LivePage):
            self._page.tick()

    def _await_answers(self) -> None:
        """Bring a page up to date when the worker has answered a slow question of its."""
        asked = (self.state.session.progress(kind) for kind in _ASKED.get(self.state.page, ()))
        now = [(job.generation, job.status, job.progress.done) for job in asked if job is not None]
        if self._answers is not None and now != self._answers:
            self._page.answered()
        self._answers = now


class Notice:
    """The page's message to the user, for example why an edit was refused."""

    def __init__(self, state: PageState) -> None:
        # Typography shows text as text: a message may quote what a user wrote.
        self._words = pmui.Typography("", color="error", margin=(6, 10))
        close = pmui.IconButton(icon="close", size="small", description="Dismiss", margin=0)
        close.on_click(lambda event: setattr(state, "message", ""))
        self.view = pmui.FlexBox(
            self._words, close, visible=False, align_items="center", sizing_mode="stretch_width"
        )
        state.param.watch(lambda event: self._say(event.new), "message")
        self._say(state.message)

    def _say(self, words: str) -> None:
        self._words.object = words
        self.view.visible = bool(words)


class Activity:
    """What the worker is doing for this session, how far it is, and a way to stop it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._words = pmui.Typography("", variant="body2", margin=(4, 10))
        self._bar = pmui.LinearProgress(sizing_mode="stretch_width", margin=(12, 10))
        self._stop = pmui.Button(label="Stop", size="small", variant="text", margin=0)
        self._again = pmui.Button(label="Try again", size="small", variant="text", margin=0)
        self._stop.on_click(lambda event: session.cancel())
        self._again.on_click(self._start)
        self.view = pn.Row(
            self._words, self._bar, self._stop, self._again, visible=False, height=34,
            sizing_mode="stretch_width", margin=0,
        )  # fmt: skip

    def _start(self, _: object) -> None:
        self._session.score()

    def refresh(self, opening: str) -> None:
        """Show the newest state; nothing at all while there is nothing to do."""
        status = self._session.status()
        busy = status.state == "working"
        stopped = status.state in ("failed", "cancelled")
        words = opening or scoring_words(status)
        if self._words.object != words:
            self._words.object = words
        share = int(100 * status.done / status.total) if status.total and busy else 0
        kind = "determinate" if share else "indeterminate"
        self._bar.param.update(visible=busy or bool(opening), value=share, variant=kind)
        self._stop.visible, self._again.visible = busy, stopped
        self.view.visible = bool(words)


def _keys_table() -> Any:  # noqa: ANN401 - a Panel pane
    pane = table_pane()
    pane.object = table_html(["Key", "What it does"], [[key, what] for key, what in _KEYS.items()])
    return pane


def _pages(
    state: PageState, take: Callable[[PreferenceSet], None], use_policy: Callable[[str], None]
) -> dict[str, Page]:
    from workbench.app.pages.attribution import AttributionPage
    from workbench.app.pages.did import DidPage
    from workbench.app.pages.fairness import FairnessPage
    from workbench.app.pages.pairs import PairsPage
    from workbench.app.pages.ranking import RankingPage
    from workbench.app.pages.rewards import RewardsPage
    from workbench.app.pages.studies import StudiesPage
    from workbench.app.pages.train import TrainPage

    return {
        "Pairs": PairsPage(state, take),
        "Rewards": RewardsPage(state),
        "Ranking": RankingPage(state),
        "DID": DidPage(state),
        "Fairness": FairnessPage(state),
        "Attribution": AttributionPage(state),
        "Train": TrainPage(state, use_policy),
        "Studies": StudiesPage(state),
    }


def page_factory(
    workspace: Workspace, source: str, policy: str, reference: str
) -> Callable[[], Any]:
    """What the server calls for every visitor: the session in the address, or a new one."""

    def build() -> Any:  # noqa: ANN401 - a Panel template
        query = query_of_visit()
        app = App(workspace, _session(workspace, query, source, policy, reference), query)
        app.start()
        return app.template()

    return refusing(build, "Start a new session")


def refusing(build: Callable[[], Any], way_out: str) -> Callable[[], Any]:
    """A page, or a message in its place that says why there is none.

    Args:
        build: Makes the page.
        way_out: What the button of the message offers, which leads to the first page.
    """

    def page() -> Any:  # noqa: ANN401 - a Panel template
        try:
            return build()
        except WorkbenchError as error:
            return _refusal(str(error), way_out)
        except Exception:
            # Panel would show the visitor a traceback with this machine's paths.
            _log.exception("the page could not be built")
            return _refusal("The page could not be built; the server's log says why.", way_out)

    return page


def run(
    options: ServerOptions, source: str, policy: str, reference: str, open_browser: bool = False
) -> None:
    """Serve until stopped."""
    pn.extension(notifications=False)
    open_source(source, lambda note: print(note, file=sys.stderr, flush=True))
    workspace = Workspace()
    server = make_server(page_factory(workspace, source, policy, reference), options)
    address = address_of(server, options)
    print(f"{TITLE}: {address}", flush=True)
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


def _refusal(words: str, way_out: str) -> Any:  # noqa: ANN401 - a Panel template
    start = pmui.Button(label=way_out, href="./", variant="outlined")
    return page_frame(title=TITLE, main=[text(words), start])


def _go(session_id: str) -> None:
    if pn.state.location is not None:
        pn.state.location.param.update(search=f"?session={session_id}", reload=True)


def query_of_visit() -> dict[str, str]:
    """The address's parameters of the page that is being built."""
    arguments = pn.state.session_args or {}
    return {
        key: values[0].decode("utf-8", "replace") for key, values in arguments.items() if values
    }

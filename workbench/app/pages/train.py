"""Live training: play, pause, step, rewind and branch, and watch what the pairs teach."""

import secrets
import time
from collections.abc import Callable
from functools import partial

import panel as pn
import panel_material_ui as pmui

from workbench import paths
from workbench.app.pages.train_looks import Calibration, Comparison, Curves, Look, Samples, grid
from workbench.app.pages.train_setup import SetupForm
from workbench.app.pages.train_transport import Transport
from workbench.app.panes import FigurePane
from workbench.app.state import PageState
from workbench.engine.training import Branch, TrainingDesk
from workbench.views.figure import Figure
from workbench.views.training_figures import FIRST_CURVES, FURTHER_CURVES, View

REPAINT_SECONDS = 0.2
TICK_SECONDS = 0.1
_HEIGHT = 240


class TrainPage:
    """Transport on top, six curves, and closer looks below.

    Args:
        state: The page's state.
        use_policy: Puts the policy of that name in place on every page.
    """

    def __init__(self, state: PageState, use_policy: Callable[[str], None]) -> None:
        self._state = state
        self._use_policy = use_policy
        self._seen: object = None
        self._painted = 0.0
        self._ticked = 0.0
        self._built = False
        self._had_run = False
        self.view = pn.Column(sizing_mode="stretch_width")

    def _build(self) -> None:
        """Make the page once it is shown: it has more parts than all others together."""
        self._built = True
        state = self._state
        self._desk: TrainingDesk = state.session.training
        self.form = SetupForm(state, self._desk)
        self.transport = Transport(state, self._desk, self.form, self._use, self._fold)
        self.form.again.on_click(lambda event: self.transport.again())
        self.summary = pmui.Typography("", variant="caption", margin=(0, 10))
        self._curves = [self._pane(name, draw) for name, draw in FIRST_CURVES.items()]
        self.looks: dict[str, Look] = {
            "More curves": Curves(*(self._pane(*curve) for curve in FURTHER_CURVES.items())),
            "Compare two moments": Comparison(state, self._desk),
            "Before and after": Samples(state, self._desk),
            "Calibrate λ": Calibration(state, self._desk),
        }
        self.tabs = pmui.Tabs(
            *((name, look.view) for name, look in self.looks.items()),
            dynamic=True, sizing_mode="stretch_width", margin=(8, 0),
        )  # fmt: skip
        self.tabs.param.watch(lambda event: self._look.refresh(), "active")
        self.refresh()
        # Last, as what changes on a page that is shown already is sent part by part.
        self.view.objects = [
            self.transport.view,
            self.summary,
            self.form.view,
            grid(*(pane.view for pane in self._curves)),
            self.tabs,
        ]

    def refresh(self) -> None:
        """Draw everything."""
        if self._built:
            self.form.draw()
            self._paint()

    def mark(self) -> None:
        """Another pair was selected."""
        if self._built:
            self._look.mark()

    def answered(self) -> None:
        """This page asks through the training desk, and looks at its version."""

    def tick(self) -> None:
        """Hand over what was changed here, and show what is new, five times a second at most."""
        if not self._built:
            self._build()
        self.form.commit()
        self.transport.tick()
        rested = self._rested()
        if rested and self._news() != self._seen:
            self._paint()

    def _rested(self) -> bool:
        """Whether it is time to paint again; later where the server cannot keep up."""
        now = time.monotonic()
        late, self._ticked = max(0.0, now - self._ticked - TICK_SECONDS), now
        return now - self._painted >= max(REPAINT_SECONDS, 5 * late)

    @property
    def _look(self) -> Look:
        return list(self.looks.values())[self.tabs.active]

    def _news(self) -> object:
        return self._desk.version, self._desk.evaluating

    def _paint(self) -> None:
        self._seen, self._painted = self._news(), time.monotonic()
        with pn.io.hold():
            self._give_way()
            self.form.follow()
            self.transport.refresh()
            self.summary.param.update(
                object=self.form.summary(), visible=not self.form.view.visible
            )
            for pane in self._curves:
                pane.refresh()
            self._look.refresh()

    def _give_way(self) -> None:
        """The forms leave their place to the curves once there is a run."""
        has_run = self._desk.active is not None or self._desk.resumable
        if has_run != self._had_run:
            self._had_run = has_run
            self.form.view.visible = not has_run

    def _pane(self, name: str, draw: Callable[[View], Figure]) -> FigurePane:
        pane = FigurePane(self._state, name, partial(self._draw, draw), _HEIGHT)
        pane.view.styles = {"position": "relative", "min-width": "0"}
        return pane

    def _draw(self, draw: Callable[[View], Figure]) -> Figure:
        active = self._desk.active
        return draw(
            View(
                self._desk.branches,
                active.branch_id if active else "",
                self._desk.status.step if active else None,
            )
        )

    def _fold(self) -> None:
        self.form.view.visible = not self.form.view.visible
        self.summary.visible = not self.form.view.visible

    def _use(self, branch: Branch, step: int) -> None:
        """Save a kept step under a name of its own, and let every page look at it."""
        name = f"{self._state.session.session_id}-{branch.branch_id}-step-{step}"
        folder = paths.data_dir() / "policies" / f"{name}-{secrets.token_hex(3)}"
        self._use_policy(self._desk.save_policy(branch.branch_id, step, folder))

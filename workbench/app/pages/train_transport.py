"""Play, pause, step, rewind and branch: the buttons, keys and words over a training desk."""

from collections.abc import Callable
from functools import partial
from typing import Any

import panel as pn
import panel_material_ui as pmui

from workbench import palette
from workbench.app.browser import Shortcuts
from workbench.app.controls import LiveSlider
from workbench.app.pages.train_setup import SetupForm
from workbench.app.panes import tools
from workbench.app.state import PageState
from workbench.engine.training import Branch, TrainingDesk, TrainingStatus
from workbench.views.training_figures import View, branch_colour
from workbench.views.words import event_words, kept_step, status_words

_RUNNING = ("preparing", "playing")
_LEFT = "A run was left here. Play (Space) takes it up; Setup (e) can begin another."
KEYS = {
    "Space": "Train: play or pause",
    ".": "Train: one step",
    ",": "Train: back to the kept step before",
    "b / n": "Train: new branch, next branch",
    "u": "Train: use the trained step as the policy of all pages",
    "e": "Train: show or hide the setup",
    "s": "Train: stop and forget the run",
}


class Transport:
    """What moves the training along its steps and branches.

    Args:
        state: The page's state.
        desk: The session's training.
        form: The setup of a new run, and what is changed in the present one.
        use: Puts the policy of that name in place on every page.
        fold: Shows or hides the setup.
    """

    def __init__(
        self,
        state: PageState,
        desk: TrainingDesk,
        form: SetupForm,
        use: Callable[[Branch, int], None],
        fold: Callable[[], None],
    ) -> None:
        self._state, self._desk, self._form = state, desk, form
        self._following = False
        self._wanted: int | None = None
        self._said = ""
        self.play = _button("Play", "play_arrow", "Space", variant="contained", width=104)
        self.step = _button("Step", "skip_next", ".")
        self.back = _button("Back", "skip_previous", ",")
        self.stop = _button("Stop", "stop", "s")
        self.fork = _button("Branch", "call_split", "b")
        self.use = _button("Use as policy", "check", "u")
        self.fold = _button("Setup", "tune", "e", variant="text")
        self.slider = LiveSlider(  # type: ignore[no-untyped-call]
            label="Step", options=[0], value=0, size="small", margin=(0, 16), disabled=True,
            sizing_mode="stretch_width", styles={"flex": "1 1 200px"},
            description="The steps whose weights are kept; move it to rewind.",
        )  # fmt: skip
        self.words = pmui.Typography("", variant="body2", margin=(2, 10))
        self.events = pmui.Typography("", variant="caption", margin=(0, 10), visible=False)
        self.progress = pmui.LinearProgress(
            value=0, visible=False, sizing_mode="stretch_width", margin=(2, 10)
        )
        # Of Panel itself: children that come later do not appear in a pmui.FlexBox.
        self.branches = pn.FlexBox(align_items="center", margin=(0, 6), sizing_mode="stretch_width")
        self._chips: dict[str, Any] = {}
        self._doings: dict[str, tuple[Any, Callable[[], object]]] = {
            " ": (self.play, self._play_or_pause),
            ".": (self.step, self._one_step),
            ",": (self.back, self._one_back),
            "s": (self.stop, self._ask_to_stop),
            "b": (self.fork, self._fork),
            "n": (self.branches, self._next_branch),
            "u": (self.use, lambda: self._use(use)),
            "e": (self.fold, fold),
        }
        for key, (widget, _) in self._doings.items():
            if key != "n":
                widget.on_click(partial(self._pressed, key))
        self.keys = Shortcuts({key: partial(self._pressed, key) for key in self._doings})
        self.slider.param.watch(lambda event: self._moved(event.new), "value")
        self.dialog = self._stop_dialog()
        self.view = self._lay_out()

    def tick(self) -> None:
        """Rewind to where the slider has come since the last call."""
        if self._wanted is not None:
            step, self._wanted = self._wanted, None
            self._state.attempt(self._desk.rewind, step)

    def refresh(self) -> None:
        """Show the desk as it is."""
        status, active = self._desk.status, self._desk.active
        self._enable(status, active)
        self._follow(status, active)
        words = status_words(status, active)
        if status.phase == "empty" and self._desk.resumable:
            words = _LEFT
        if self._said and status.phase not in ("playing", "failed"):
            words = f"{words} {self._said}"
        colour = "error" if status.phase == "failed" else "inherit"
        self.words.param.update(object=words, color=colour)
        _progress(self.progress, status)
        events = event_words(self._view(), active)
        self.events.param.update(object=events, visible=bool(events))
        self._paint_branches(active)

    # What the keys and buttons do -----------------------------------------------------

    def _pressed(self, key: str, _: object = None) -> None:
        widget, act = self._doings[key]
        # What is painted may be older than the desk, and a key is faster than the eye.
        self._enable(self._desk.status, self._desk.active)
        if getattr(widget, "disabled", False):
            return
        self._said = ""
        self._form.commit(at_once=True)
        self._state.attempt(act)
        self.refresh()

    def _play_or_pause(self) -> None:
        if self._desk.status.phase in _RUNNING:
            self._desk.pause()
            return
        self._begin()
        self._desk.play()

    def _one_step(self) -> None:
        self._begin()
        self._desk.step()

    def _begin(self) -> None:
        """A run, where there is none yet: the stored one, or one of the setup as it stands."""
        if self._desk.active is None and self._desk.resumable:
            self._desk.resume()
        elif self._desk.setup is None:
            self._desk.start(self._form.setup())

    def again(self) -> None:
        """Begin a new run with the setup as it stands."""
        self._said = ""
        self._state.attempt(lambda: self._desk.start(self._form.setup()))
        self.refresh()

    def _one_back(self) -> None:
        active, now = self._desk.active, self._desk.status.step
        earlier = [step for step in active.kept if step < now] if active else []
        if active and earlier:
            self._desk.rewind(earlier[-1])
        elif active and active.parent:
            self._desk.rewind(active.forked_at, active.parent)

    def _fork(self) -> None:
        self._desk.branch()

    def _next_branch(self) -> None:
        names, active = [each.branch_id for each in self._desk.branches], self._desk.active
        if active is not None and len(names) > 1:
            self._desk.use(names[(names.index(active.branch_id) + 1) % len(names)])

    def _use(self, use: Callable[[Branch, int], None]) -> None:
        active = self._desk.active
        if active is None:
            return
        step = kept_step(active, self._desk.status.step)
        use(active, step)
        self._said = f"Step {step} of {active.name} is now the policy of every page."

    def _ask_to_stop(self) -> None:
        self.dialog.open = True

    def _forget(self) -> None:
        self.dialog.open = False
        self._state.attempt(self._desk.stop)
        self.refresh()

    def _moved(self, step: int) -> None:
        if not self._following:
            self._wanted = step

    # What is shown --------------------------------------------------------------------

    def _view(self) -> View:
        active = self._desk.active
        return View(self._desk.branches, active.branch_id if active else "")

    def _enable(self, status: TrainingStatus, active: Branch | None) -> None:
        running = status.phase in _RUNNING
        earlier = active is not None and (
            any(step < status.step for step in active.kept) or active.parent is not None
        )
        language = self._desk.setup is not None and self._desk.setup.policy == "language-model"
        self.play.param.update(
            label="Pause" if running else "Play",
            icon="pause" if running else "play_arrow",
            description="Pause (Space)" if running else "Play (Space)",
        )
        self.step.disabled = running
        self.back.disabled = running or not earlier
        self.stop.disabled = status.phase == "empty"
        self.fork.disabled = active is None or running
        self.use.disabled = active is None or running or not language

    def _follow(self, status: TrainingStatus, active: Branch | None) -> None:
        """The slider stands where the weights do; it moves them only while nothing else does."""
        if self._wanted is not None:
            return
        kept = sorted({*(active.kept if active else ()), status.step})
        self._following = True
        try:
            if self.slider.options != kept:
                self.slider.options = kept
            self.slider.value = status.step
        finally:
            self._following = False
        self.slider.disabled = status.phase in _RUNNING or len(kept) < 2

    def _paint_branches(self, active: Branch | None) -> None:
        """A button for each branch, in the colour of its lines."""
        branches = self._desk.branches
        wanted = [each.branch_id for each in branches]
        if list(self._chips) != wanted:
            self._chips = {each: self._chips.get(each) or self._chip(each) for each in wanted}
            self.branches.objects = list(self._chips.values())
        for place, each in enumerate(branches):
            chosen = active is not None and each.branch_id == active.branch_id
            colour = palette.colour(branch_colour(place), self._state.dark)
            self._chips[each.branch_id].param.update(
                label=f"● {each.name}", variant="outlined" if chosen else "text",
                sx={"color": colour, "borderColor": colour},
                disabled=self._desk.status.phase in _RUNNING,
            )  # fmt: skip
        self.branches.visible = len(branches) > 1

    def _chip(self, branch_id: str) -> Any:  # noqa: ANN401 - a Panel widget
        chip = pmui.Button(label="", size="small", variant="text", margin=2)
        chip.on_click(self._state.doing(partial(self._desk.use, branch_id)))
        return chip

    def _stop_dialog(self) -> Any:  # noqa: ANN401 - a Panel component
        sure = pmui.Button(label="Stop and forget", color="error", size="small", margin=6)
        keep = pmui.Button(label="Keep it", variant="outlined", size="small", margin=6)
        sure.on_click(lambda event: self._forget())
        keep.on_click(lambda event: setattr(self.dialog, "open", False))
        words = (
            "This ends the run and forgets its steps and branches, on the disk too. A policy that "
            "is in use stays. Pause keeps everything."
        )
        return pmui.Dialog(
            pmui.Typography(words, variant="body2", margin=10), pn.Row(sure, keep),
            title="Stop the training?", title_variant="h6",
        )  # fmt: skip

    def _lay_out(self) -> Any:  # noqa: ANN401 - Panel components
        row = tools(self.play, self.back, self.step, self.fork, self.use, self.stop, self.fold,
                    self.slider)  # fmt: skip
        row.margin = (6, 7, 0, 7)
        return pn.Column(
            row, self.words, self.progress, self.branches, self.events, self.dialog, self.keys,
            sizing_mode="stretch_width",
        )  # fmt: skip


def _progress(bar: Any, status: TrainingStatus) -> None:  # noqa: ANN401 - a Panel indicator
    share = int(100 * status.done / status.total) if status.total else 0
    shown = status.phase == "preparing" or (status.phase == "playing" and status.total > 1)
    bar.param.update(
        visible=shown, value=share, variant="determinate" if share else "indeterminate"
    )


def _button(label: str, icon: str, key: str, **more: Any) -> Any:  # noqa: ANN401
    look = {"variant": "outlined", "margin": (4, 3), "size": "small", **more}
    return pmui.Button(label=label, icon=icon, description=f"{label} ({key})", **look)

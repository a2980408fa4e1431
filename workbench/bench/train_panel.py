"""The controls and curves of live training."""

from functools import partial
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from workbench.bench.parts import Plot, dropdown, side_by_side, tools
from workbench.bench.view import asking, notes_html, put
from workbench.objectives.catalogue import OBJECTIVES
from workbench.training.plan import TrainingPlan
from workbench.views.choices import POLICIES
from workbench.views.formula import formula_svg
from workbench.views.words import event_words, status_words

if TYPE_CHECKING:
    from workbench.bench.train import TrainView

_CURVES = 6
_HEIGHT = 230
_RUNNING = ("preparing", "playing")
_LEFT = "A run was left here. Play takes it up; New run begins another."


class TrainPanel:
    """Transport on top, the setup, and six curves.

    Args:
        train: What it moves and shows.
    """

    def __init__(self, train: "TrainView") -> None:
        from workbench.bench.train import FIGURES

        self._train, self._following = train, False
        self._buttons = {
            "play": _button("Play", "play", self._play_or_pause, "primary"),
            "back": _button("Back", "step-backward", self._doing(self._back)),
            "step": _button("Step", "step-forward", self._doing(train.step)),
            "branch": _button("Branch", "code-fork", self._doing(train.branch)),
            "new": _button("New run", "refresh", self._doing(self._again)),
        }
        self._slider = widgets.SelectionSlider(
            options=[0], value=0, description="step", continuous_update=False,
            layout={"flex": "1 1 220px"},
        )  # fmt: skip
        self._slider.observe(lambda change: self._moved(change["new"]), "value")
        self._branches = dropdown("branch", [("run", "")], "")
        self._branches.observe(lambda change: self._chosen(change["new"]), "value")
        self._words, self._formula = widgets.HTML(), widgets.HTML()
        self._bar = widgets.FloatProgress(min=0, max=1, layout={"width": "320px"})
        self._fields = _fields()
        self._knobs: dict[str, Any] = {}
        self._row = widgets.HBox()
        self._lay_knobs(TrainingPlan())
        for name, field in self._fields.items():
            field.observe(partial(self._touched, name), "value")
        self._plots = [
            Plot(train.bench, partial(self._draw, draw), _HEIGHT)
            for draw in list(FIGURES.values())[:_CURVES]
        ]
        for plot in self._plots:
            plot.live.layout.flex = "1 1 270px"
        self.parts = [
            tools(*self._buttons.values(), self._slider, self._branches),
            self._words, self._bar, tools(*self._fields.values(), self._row), self._formula,
            side_by_side(*(plot.live for plot in self._plots)),
        ]  # fmt: skip

    def setup(self) -> dict[str, Any]:
        """The arguments of `TrainView.start` as the fields say."""
        knobs = {name: float(field.value) for name, field in self._knobs.items()}
        return {**{name: field.value for name, field in self._fields.items()}, **knobs}

    def refresh(self) -> None:
        """Show the desk as it is."""
        desk = self._train.desk
        status, active = desk.status, desk.active
        self._following = True
        try:
            self._follow()
        finally:
            self._following = False
        running = status.phase in _RUNNING
        play = self._buttons["play"]
        play.description, play.icon = ("Pause", "pause") if running else ("Play", "play")
        for name in ("back", "step", "branch"):
            self._buttons[name].disabled = running or (name != "step" and active is None)
        left = status.phase == "empty" and desk.resumable
        said = _LEFT if left else status_words(status, active)
        put(self._words, notes_html(said, event_words(self._train.view(), active)))
        self._bar.layout.display = "" if running and status.total else "none"
        self._bar.value = status.done / status.total if status.total else 0.0
        for plot in self._plots:
            plot.refresh()

    # What is done

    def _doing(self, act: Any) -> Any:  # noqa: ANN401 - any callable
        return lambda: self._train.bench.attempt(act)

    def _play_or_pause(self) -> None:
        train = self._train
        running = train.desk.status.phase in _RUNNING
        train.bench.attempt(train.pause if running else train.play)

    def _again(self) -> None:
        self._train.start(**self.setup())

    def _back(self) -> None:
        desk = self._train.desk
        active, now = desk.active, desk.status.step
        earlier = [step for step in active.kept if step < now] if active else []
        if active and earlier:
            self._train.rewind(earlier[-1])
        elif active and active.parent:
            self._train.rewind(active.forked_at, active.parent)

    def _moved(self, step: int) -> None:
        if not self._following and step != self._train.desk.status.step:
            self._train.bench.attempt(lambda: self._train.rewind(step))

    def _chosen(self, branch: str) -> None:
        active = self._train.desk.active
        if not self._following and branch and active and branch != active.branch_id:
            self._train.bench.attempt(lambda: self._train.use(branch))

    def _touched(self, name: str, change: Any) -> None:  # noqa: ANN401 - traitlets is untyped
        """What a run can take up, it takes up at the next step."""
        if self._following:
            return
        if name == "objective":
            self._lay_knobs(TrainingPlan(objective=change["new"]))
        active = self._train.desk.active
        if active is None or name in ("policy", "held_out"):
            return
        value = float(change["new"]) if name in self._knobs else change["new"]
        self._train.bench.attempt(lambda: self._train.change(**{name: value}))

    # What is shown

    def _follow(self) -> None:
        """Slider, branches and fields stand where the run does."""
        desk = self._train.desk
        status, active = desk.status, desk.active
        kept = sorted({*(active.kept if active else ()), status.step})
        if list(self._slider.options) != kept:
            self._slider.options = kept
        put(self._slider, status.step)
        self._slider.disabled = status.phase in _RUNNING or len(kept) < 2
        names = [(each.name, each.branch_id) for each in desk.branches] or [("run", "")]
        if list(self._branches.options) != names:
            self._branches.options = names
        put(self._branches, active.branch_id if active else "")
        self._branches.layout.display = "" if len(names) > 1 else "none"
        if active is not None and desk.setup is not None:
            self._show_plan(active.plan, desk.setup.policy, desk.setup.held_out)

    def _show_plan(self, plan: TrainingPlan, policy: str, held_out: float) -> None:
        own = {"policy": policy, "held_out": held_out}
        for name, field in self._fields.items():
            put(field, own.get(name, getattr(plan, name, field.value)))
        if plan.settings.keys() != self._knobs.keys():
            self._lay_knobs(plan)
        for name, value in plan.settings.items():
            put(self._knobs[name], value)

    def _lay_knobs(self, plan: TrainingPlan) -> None:
        """A field for each hyperparameter of the plan's objective, and its formula."""
        self._knobs = {
            knob.name: _number(knob.name, plan.settings[knob.name], knob.help)
            for knob in plan.entry.hyperparameters
        }
        for name, field in self._knobs.items():
            field.observe(partial(self._touched, name), "value")
        self._row.children = tuple(self._knobs.values())
        self._formula.value = formula_svg(plan.entry.formula, 17.0) + notes_html(plan.entry.summary)

    def _draw(self, draw: Any) -> Any:  # noqa: ANN401 - a figure of training_figures
        return draw(self._train.view())


def _fields() -> dict[str, Any]:
    plan = TrainingPlan()
    objectives = [(entry.title, name) for name, entry in OBJECTIVES.items()]
    found = {
        "objective": dropdown("objective", objectives, plan.objective),
        "policy": dropdown("policy", list(POLICIES.items()), "language-model"),
        "learning_rate": _number("learning rate", plan.learning_rate),
        "batch_size": widgets.BoundedIntText(
            value=plan.batch_size, min=1, max=4096, description="pairs a step",
            layout={"width": "160px"}, style={"description_width": "initial"},
        ),
        "held_out": _number("held out", 0.2, "Share of the prompts that are only measured"),
    }  # fmt: skip
    for name in ("objective", "policy"):
        found[name].layout.max_width = "250px"
    return found


def _number(label: str, value: float, about: str = "") -> Any:  # noqa: ANN401
    return widgets.FloatText(
        value=value, description=label.replace("_", " "), tooltip=about, continuous_update=False,
        layout={"width": f"{96 + 7 * len(label)}px"}, style={"description_width": "initial"},
    )  # fmt: skip


def _button(label: str, icon: str, act: Any, style: str = "") -> Any:  # noqa: ANN401
    button = widgets.Button(
        description=label, icon=icon, button_style=style, layout={"width": "96px"}
    )
    button.on_click(asking(act))
    return button

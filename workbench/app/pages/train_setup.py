"""What is trained and how: the forms of a training plan, live while a run goes on."""

import html
import math
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import panel as pn
import panel_material_ui as pmui

from workbench.app.controls import LiveSlider
from workbench.app.panes import FigurePane, text
from workbench.app.state import PageState
from workbench.engine.training import TrainingDesk, TrainingSetup
from workbench.errors import TrainingError
from workbench.objectives.catalogue import MODIFIERS, OBJECTIVES
from workbench.objectives.objective import Hyperparameter, Objective
from workbench.scoring.models import list_models
from workbench.training.plan import TrainingPlan
from workbench.views import training_figures as figures
from workbench.views.choices import POLICIES
from workbench.views.figure import Figure
from workbench.views.formula import formula_svg
from workbench.views.markup import FONT

_PENALTIES = {
    "none, only measured": "none",
    "dCov², summed over attributes": "dcov",
    "CCdCov², of all attributes together": "ccdcov",
    "JdCov², joint independence": "jdcov",
}
_DIVERGENCES = {
    "reverse KL": "reverse_kl",
    "forward KL": "forward_kl",
    "Jensen-Shannon": "js",
    "alpha-divergence": "alpha",
}
_SYMBOLS = {
    "beta": "β of the training",
    "gamma": "γ",
    "tau": "τ",
    "alpha": "α",
    "label_smoothing": "ε, label smoothing",
}
QUIET_SECONDS = 0.3
"""A slider that is being dragged makes one change of the run, not one for each value it passes."""
_MANTISSAS = (1, 1.5, 2, 3, 5, 7)
_STEPS = 50
_OWN_BETA = (
    "This β belongs to the run: changing it changes what is learnt. The β of the sidebar only "
    "scales the rewards that the other pages show."
)
_FORMULA_CSS = f"""
.formula {{ overflow-x: auto; padding: 6px 0; }}
.words {{ font: 13px/1.5 {FONT}; margin: 2px 0; }}
.source {{ font: 12px/1.5 {FONT}; opacity: .75; margin: 2px 0; }}
"""
_WIDE: dict[str, Any] = {"sizing_mode": "stretch_width", "margin": (4, 10)}
_AT_START = ("policy", "model", "blocks", "rank", "held_out")


class SetupForm:
    """The forms of a setup and its plan; what a run can take up, it takes up at the next step.

    Args:
        state: The page's state.
        desk: The session's training.
    """

    def __init__(self, state: PageState, desk: TrainingDesk) -> None:
        self._state = state
        self._desk = desk
        self._shown: TrainingPlan | None = None
        self._following = False
        self._changed = False
        self._touched_at = 0.0
        self.fields = _fields(state)
        self.knobs: dict[str, LiveSlider] = {}
        self._knobs = pn.Column(sizing_mode="stretch_width", margin=0)
        self.formula = pn.pane.HTML(
            "", stylesheets=[_FORMULA_CSS], sizing_mode="stretch_width", margin=(0, 10)
        )
        self._curves = [
            FigurePane(state, "Loss of the objective", partial(self._curve, "loss"), 170),
            FigurePane(state, "Gradient of the objective", partial(self._curve, "slope"), 170),
        ]
        self.again = pmui.Button(
            label="New run with this setup", icon="restart_alt", size="small", variant="outlined",
            margin=(8, 10), description="Begins at step 0 again; the present run is forgotten.",
        )  # fmt: skip
        self._lay_knobs(TrainingPlan())
        for widget in self.fields.values():
            widget.param.watch(lambda event: self._touched(), "value")
        self.fields["objective"].param.watch(lambda event: self._other_objective(), "value")
        self._enable()
        self.view = self._lay_out()

    # What others ask of it ------------------------------------------------------------

    def plan(self) -> TrainingPlan:
        """The plan as the forms say.

        Raises:
            TrainingError: values that do not go together.
        """
        base = self._desk.active.plan if self._desk.active else TrainingPlan()
        own = {name: _value(self.fields[name]) for name in self.fields.keys() - set(_AT_START)}
        knobs = {name: float(widget.value) for name, widget in self.knobs.items()}
        return base.replaced(**own, hyperparameters=knobs)

    def setup(self) -> TrainingSetup:
        """The setup of a new run.

        Raises:
            TrainingError: values that do not go together.
        """
        own = {name: _value(self.fields[name]) for name in _AT_START}
        if own["policy"] == "exact":
            # A table knows nothing of prompts that it is not trained on.
            own["held_out"] = 0.0
        return TrainingSetup(**own, plan=self.plan())

    def follow(self) -> None:
        """Show the plan of the active branch where it is another than the one shown."""
        active, setup = self._desk.active, self._desk.setup
        if active is None or setup is None or active.plan == self._shown or self._changed:
            return
        self._shown = active.plan
        self._following = True
        try:
            for name in _AT_START:
                _put(self.fields[name], getattr(setup, name))
            for name in self.fields.keys() - set(_AT_START):
                _put(self.fields[name], getattr(active.plan, name))
            self._lay_knobs(active.plan)
        finally:
            self._following = False
        self._enable()
        self.draw()

    def commit(self, at_once: bool = False) -> None:
        """Hand what was changed to the run, once the reader's hand has come to rest."""
        resting = time.monotonic() - self._touched_at >= QUIET_SECONDS
        if not self._changed or not (resting or at_once):
            return
        self._changed = False
        self._state.attempt(self._change)
        self.draw()

    def draw(self) -> None:
        """Draw formula and curves anew."""
        names = list(self._state.tables.snapshot.pairs.attribute_names())
        if self.fields["attributes"].options != names:
            self.fields["attributes"].options = names
        self.formula.object = formula_html(self._objective)
        for pane in self._curves:
            pane.refresh()

    def summary(self) -> str:
        """The setup in a line, for when the forms are folded away."""
        try:
            plan = self.plan()
        except TrainingError as error:
            return str(error)
        knobs = " ".join(f"{_short(name)} {value:g}" for name, value in plan.settings.items())
        words = [
            f"{plan.entry.title} {knobs}".strip(),
            _policy_words(self.setup()),
            f"{plan.optimiser}, rate {plan.learning_rate:g}, {plan.batch_size} pairs a step",
            f"{plan.penalty} penalty, λ {plan.penalty_weight:g}" if plan.penalty != "none" else "",
        ]
        return " · ".join(word for word in words if word)

    # Inside ---------------------------------------------------------------------------

    @property
    def _objective(self) -> Objective:
        return OBJECTIVES[self.fields["objective"].value]

    def _change(self) -> None:
        active = self._desk.active
        if active is None:
            return
        # The seed decides what is held out, and that holds as long as the run does.
        plan = self.plan().replaced(seed=active.plan.seed)
        if plan == active.plan:
            return
        self._desk.change(**_differences(active.plan, plan))
        self._shown = self._desk.active.plan if self._desk.active else None

    def _touched(self) -> None:
        if not self._following:
            self._changed = True
            self._touched_at = time.monotonic()
            self._enable()

    def _other_objective(self) -> None:
        if not self._following:
            self._lay_knobs(TrainingPlan(objective=self.fields["objective"].value))

    def _lay_knobs(self, plan: TrainingPlan) -> None:
        """A slider for each hyperparameter of the plan's objective."""
        knobs = {knob.name: knob for knob in plan.entry.hyperparameters}
        if self.knobs.keys() == knobs.keys() and self._following:
            for name, value in plan.settings.items():
                _put(self.knobs[name], value)
            return
        self.knobs = {name: knob_slider(knob, plan.settings[name]) for name, knob in knobs.items()}
        for widget in self.knobs.values():
            widget.param.watch(lambda event: self._touched(), "value")
        note = [text(_OWN_BETA, "caption")] if "beta" in knobs else []
        self._knobs.objects = [*self.knobs.values(), *note]

    def _curve(self, which: str) -> Figure:
        draw = figures.objective_loss if which == "loss" else figures.objective_slope
        settings = {name: float(widget.value) for name, widget in self.knobs.items()}
        try:
            return draw(self._objective, settings)
        except ValueError as error:
            return Figure.blank(str(error))

    def _enable(self) -> None:
        """Show what has a meaning beside the other values."""
        value = {name: _value(widget) for name, widget in self.fields.items()}
        entry, language = self._objective, value["policy"] == "language-model"
        penalised = value["penalty"] != "none"
        visible = {
            "divergence": entry.f_divergences,
            "divergence_alpha": entry.f_divergences and value["divergence"] == "alpha",
            "wpo": not entry.by_quantile,
            "sync_every": entry.needs_reference,
            "sync_mixup": entry.needs_reference and value["sync_every"] > 0,
            "penalty_on": penalised,
            "penalty_weight": penalised,
            **dict.fromkeys(("held_out", "evaluate_every", "patience"), value["policy"] != "exact"),
            **dict.fromkeys(("model", "blocks", "rank"), language),
        }
        for name, shown in visible.items():
            self.fields[name].visible = shown
        self.again.visible = self._desk.active is not None or self._desk.resumable

    def _lay_out(self) -> Any:  # noqa: ANN401 - Panel components
        field = self.fields
        objective = [field["objective"], self.formula, self._knobs]
        objective += [pane.view for pane in self._curves]
        changes = [field[name] for name in (
            "divergence", "divergence_alpha", "ld_alpha", "wpo", "projected_gradient",
            "sync_every", "sync_mixup",
        )]  # fmt: skip
        fair = [field[name] for name in ("attributes", "penalty", "penalty_on", "penalty_weight")]
        policy = [field[name] for name in ("policy", "model", "blocks", "rank", "held_out", "seed")]
        optimiser = [
            field[name]
            for name in ("optimiser", "learning_rate", "batch_size", "evaluate_every", "patience")
        ]
        return _columns(
            [_heading("Objective"), *objective],
            [_heading("Modifiers"), *changes, _heading("Fairness while training"), *fair],
            [_heading("Policy, for a new run"), *policy, self.again, _heading("Optimiser"),
             *optimiser],
        )  # fmt: skip


def knob_slider(knob: Hyperparameter, value: float) -> LiveSlider:
    """A slider over a hyperparameter's range."""
    options = knob_values(knob)
    return LiveSlider(  # type: ignore[no-untyped-call]
        label=_SYMBOLS.get(knob.name, knob.name.replace("_", " ")),
        options=sorted({*options, value}), value=value, description=knob.help, size="small",
        **_WIDE,
    )  # fmt: skip


def knob_values(knob: Hyperparameter) -> list[float]:
    """Round values from a hyperparameter's low to its high end, in equal ratios or steps."""
    if not knob.logarithmic:
        return _even(knob.low, knob.high)
    first, last = math.floor(math.log10(knob.low)), math.ceil(math.log10(knob.high))
    values = [float(f"{m}e{power}") for power in range(first, last + 1) for m in _MANTISSAS]
    return sorted({knob.low, *(v for v in values if knob.low <= v <= knob.high), knob.high})


def formula_html(objective: Objective) -> str:
    """Formula, meaning and source of an objective."""
    source = objective.source
    arxiv = f", arXiv {source.arxiv}" if source.arxiv else ""
    words = f"{source.paper}{arxiv}, {source.equation}"
    return (
        f"<div class='formula'>{formula_svg(objective.formula, 19.0)}</div>"
        f"<p class='words'>{html.escape(objective.summary)}</p>"
        f"<p class='source'>{html.escape(words)}</p>"
    )


def _even(low: float, high: float) -> list[float]:
    """About fifty round values."""
    raw = (high - low) / _STEPS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
    count = math.floor((high - low) / step + 1e-9)
    return sorted({*(round(low + step * place, 10) for place in range(count + 1)), high})


def _differences(before: TrainingPlan, after: TrainingPlan) -> dict[str, Any]:
    """The fields of `after` that differ."""
    names = TrainingPlan.__dataclass_fields__
    changed = {
        name: getattr(after, name)
        for name in names
        if name != "hyperparameters" and getattr(after, name) != getattr(before, name)
    }
    same = before.objective == after.objective and before.settings == after.settings
    return changed if same else {**changed, "hyperparameters": dict(after.settings)}


def _policy_words(setup: TrainingSetup) -> str:
    if setup.policy != "language-model":
        return {"exact": "softmax, exact", "tiny": "tiny transformer"}[setup.policy]
    blocks = f"top {setup.blocks} blocks" if setup.blocks else "all blocks"
    return f"{setup.model.rsplit('/', 1)[-1]}, {blocks}, " + (
        f"LoRA rank {setup.rank}" if setup.rank else "full weights"
    )


def _short(name: str) -> str:
    return _SYMBOLS.get(name, name.replace("_", " ")).split(" ")[0].rstrip(",")


# ------------------------------------------------------------------ the widgets


def _fields(state: PageState) -> dict[str, Any]:
    """A widget for every field of setup and plan that a person sets, by its name."""
    titles = {entry.title: name for name, entry in OBJECTIVES.items()}
    return {
        "objective": _select("Objective", titles, "dpo"),
        **_policy_fields(state),
        **_optimiser_fields(),
        **_change_fields(),
        **_fair(state),
    }


def _policy_fields(state: PageState) -> dict[str, Any]:
    base = state.session.models["reference"].partition("+")[0]
    names = [model.name for model in list_models() if "+" not in model.name]
    return {
        "policy": _select("Policy", POLICIES, "language-model"),
        "model": pmui.AutocompleteInput(
            label="Base model", options=sorted({*names, base}), value=base, restrict=False,
            min_characters=0, size="small", **_WIDE,
        ),
        "blocks": _select("Trained blocks", {"top 1": 1, "top 2": 2, "top 4": 4, "top 8": 8,
                                             "all (slow on a CPU)": 0}, 2),
        "rank": _select("LoRA rank", {"2": 2, "4": 4, "8": 8, "16": 16, "32": 32,
                                      "no LoRA, the weights themselves": 0}, 8),
        "held_out": _slider("Prompts held out", [0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5], 0.2,
                            "Share of the prompts that is measured and never trained on."),
        "seed": pmui.IntInput(label="Seed", value=0, start=0, size="small", **_WIDE),
    }  # fmt: skip


def _optimiser_fields() -> dict[str, Any]:
    rates = knob_values(Hyperparameter("rate", 1e-3, 1e-6, 1.0, "", logarithmic=True))
    default = TrainingPlan()
    return {
        "optimiser": _select("Optimiser", {"AdamW": "adamw", "RMSprop": "rmsprop", "SGD": "sgd"},
                             default.optimiser),
        "learning_rate": _slider("Learning rate", rates, default.learning_rate,
                                 "Of every step after the warm-up."),
        "batch_size": _slider("Pairs a step", [1, 2, 4, 8, 16, 32, 64, 128], default.batch_size,
                              "Batch size; a fairness penalty needs at least 4."),
        "evaluate_every": _slider("Held-out pairs are measured every … steps",
                                  [0, 1, 2, 5, 10, 20, 50], default.evaluate_every,
                                  "0 is never; each look takes about as long as a few steps."),
        "patience": _slider("Early stop: patience", [0, 1, 2, 3, 5, 10], default.patience,
                            "Looks without a lower held-out loss after which training ends; "
                            "0 is never."),
    }  # fmt: skip


def _change_fields() -> dict[str, Any]:
    modifiers, shares = MODIFIERS, _even(0.0, 1.0)
    return {
        "divergence": _select("Divergence from the reference", _DIVERGENCES, "reverse_kl"),
        "divergence_alpha": _slider("α of the divergence", shares, 0.5, "1 is reverse KL."),
        "ld_alpha": _slider("LD-DPO: weight of excess tokens", shares, 1.0,
                            modifiers["ld_dpo"].summary + " 1 is off."),
        "wpo": _switch("WPO weights", modifiers["wpo"].summary),
        "projected_gradient": _switch("Projected gradient (our reading)",
                                      modifiers["projected_gradient"].summary),
        "sync_every": _slider("TR-DPO: reference follows every … steps",
                              [0, 1, 2, 5, 10, 20, 50, 100, 200, 512], 0,
                              modifiers["tr_dpo"].summary + " 0 is never."),
        "sync_mixup": _slider("TR-DPO: share of the policy", shares, 0.6, "1 is the hard update."),
    }  # fmt: skip


def _fair(state: PageState) -> dict[str, Any]:
    names = list(state.session.snapshot().pairs.attribute_names())
    chosen = [name for name in state.settings.attributes if name in names]
    weights = [0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 70.0,
               100.0, 150.0]  # fmt: skip
    return {
        "attributes": pmui.MultiChoice(
            label="Protected attributes", options=names, value=chosen, **_WIDE
        ),
        "penalty": _select("Penalty", _PENALTIES, "none"),
        "penalty_on": _select("Of the", {"reward margin": "margin",
                                         "chosen answer's reward": "reward"}, "margin"),
        "penalty_weight": _slider("λ: weight of the penalty", weights, 1.0,
                                  "Added to the loss; takes effect at the next step."),
    }  # fmt: skip


def _value(widget: Any) -> Any:  # noqa: ANN401 - a Panel widget and its value
    value = widget.value
    return tuple(value) if isinstance(value, list) else value


def _put(widget: Any, value: Any) -> None:  # noqa: ANN401
    """Show a value, also one that the widget did not offer."""
    value = list(value) if isinstance(value, tuple) else value
    if isinstance(widget, LiveSlider) and value not in widget.options:
        widget.options = sorted({*widget.options, value})
    elif isinstance(widget, pmui.Select) and value not in widget.options.values():
        widget.options = {**widget.options, str(value): value}
    if widget.value != value:
        widget.value = value


def _select(label: str, options: Mapping[str, object], value: object) -> Any:  # noqa: ANN401
    return pmui.Select(label=label, options=dict(options), value=value, size="small", **_WIDE)


def _slider(label: str, options: list[Any], value: float, help: str) -> LiveSlider:
    return LiveSlider(  # type: ignore[no-untyped-call]
        label=label, options=sorted({*options, value}), value=value, description=help,
        size="small", **_WIDE,
    )  # fmt: skip


def _switch(label: str, help: str) -> Any:  # noqa: ANN401
    return pmui.Switch(label=label, value=False, description=help, size="small", margin=(4, 10))


def _heading(words: str) -> Any:  # noqa: ANN401
    return pmui.Typography(words, variant="overline", margin=(4, 10, 0, 10))


def _columns(*columns: list[Any]) -> Any:  # noqa: ANN401
    """Columns side by side that stand below one another where the window is narrow."""
    parts = [pn.Column(*column, sizing_mode="stretch_width", margin=0) for column in columns]
    return pn.GridBox(
        *parts, ncols=len(parts), sizing_mode="stretch_width", margin=0,
        styles={"grid-template-columns": "repeat(auto-fit, minmax(270px, 1fr))"},
    )  # fmt: skip

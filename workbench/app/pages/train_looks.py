"""A closer look at a training: two moments pair by pair, samples, and what lambda has come to."""

from typing import Any, Protocol

import numpy as np
import panel as pn
import panel_material_ui as pmui

from workbench.app.panes import FigurePane, side_by_side, text, tools
from workbench.app.state import PageState
from workbench.data.pairs import PreferenceSet, Text, plain
from workbench.engine.fairness import AttributeColumn, AttributeDependence
from workbench.engine.training import Branch, Point, Sample, TrainingDesk
from workbench.training.history import PairEvaluation
from workbench.views import training_figures as figures
from workbench.views.figure import Figure
from workbench.views.markup import number
from workbench.views.training_figures import Calibrated, branch_colour
from workbench.views.words import kept_step

_MOVERS = 8
_CHARS = 80
_SHOWN = 4000
_WRITE = "Write lets the policy answer the prompt, now and as it was at step 0."
_OF = {"policy's log-ratio (nats)": "log_ratio", "reward margin (β·nats)": "margin"}
_MEASURES = {words: name for name, (words, _) in figures.MEASURES.items()}


class Look(Protocol):
    """One of the views below the curves; only the one that is open is kept up to date."""

    view: Any

    def refresh(self) -> None:
        """Show what is known."""
        ...

    def mark(self) -> None:
        """The selected pair changed, nothing else."""
        ...


class Curves:
    """Further curves over the steps."""

    def __init__(self, *panes: FigurePane) -> None:
        self._panes = panes
        self.view = grid(*(pane.view for pane in panes))

    def refresh(self) -> None:
        """Draw all."""
        for pane in self._panes:
            pane.refresh()

    def mark(self) -> None:
        """Nothing here stands for a pair."""


class Comparison:
    """Every pair's margin at two kept steps, of one branch or of two."""

    def __init__(self, state: PageState, desk: TrainingDesk) -> None:
        self._state, self._desk = state, desk
        self._asked: tuple[Point, Point] | None = None
        self._found: tuple[PairEvaluation, PairEvaluation] | None = None
        self.first = _moment("From")
        self.second = _moment("To")
        self.of = pmui.Select(label="Compare the", options=_OF, value="log_ratio", size="small",
                              width=250)  # fmt: skip
        self.of.param.watch(lambda event: self._figure.refresh(), "value")
        self.ask = pmui.Button(label="Compare", icon="compare_arrows", size="small",
                               variant="outlined", margin=(4, 6))  # fmt: skip
        self.ask.on_click(lambda event: self._ask())
        self.note = text("")
        self.movers = pmui.MenuList(items=[], dense=True, sizing_mode="stretch_width")
        self.movers.on_click(self._pick)
        self._figure = FigurePane(state, "Margins compared", self._draw, 380)
        listed = pn.Column(
            text("Largest movers", "subtitle2"), self.movers, sizing_mode="stretch_width"
        )
        self.view = pn.Column(
            tools(self.first, self.second, self.of, self.ask),
            self.note,
            side_by_side(self._figure.view, listed),
            sizing_mode="stretch_width",
        )

    def refresh(self) -> None:
        """Offer the kept steps, and show the comparison that was asked for."""
        self._offer()
        self._found = None
        found = None if self._asked is None else self._desk.compare(*self._asked)
        if isinstance(found, Exception):
            self.note.object = f"The moments cannot be compared: {found}"
        elif found is not None:
            self._found = found
            self.note.object = ""
        else:
            self.note.object = _waiting(self._desk) if self._asked else (
                "Choose two kept steps, then Compare: every pair is scored at both."
            )  # fmt: skip
        self._figure.refresh()
        self.movers.items = self._items()

    def mark(self) -> None:
        """Show the selected pair."""
        self._figure.mark()

    def _offer(self) -> None:
        branches = self._desk.branches
        moments = {
            f"{each.name}, step {step}": (each.branch_id, step)
            for each in branches
            for step in each.kept
        }
        for widget, newest in ((self.first, False), (self.second, True)):
            if widget.options != moments:
                kept = widget.value if widget.value in moments.values() else None
                widget.options = moments
                widget.value = kept or _end(self._desk, newest)
        self.ask.disabled = len(moments) < 2

    def _ask(self) -> None:
        if self.first.value and self.second.value:
            self._asked = Point(*self.first.value), Point(*self.second.value)
            self.refresh()

    def _names(self) -> tuple[str, str]:
        asked = self._asked or (Point("", 0), Point("", 0))
        names = {each.branch_id: each.name for each in self._desk.branches}
        one, other = (f"{names.get(each.branch_id, '')}, step {each.step}" for each in asked)
        return one, other

    def _draw(self) -> Figure:
        if self._found is None:
            return Figure.blank("Choose two moments of the training to compare.")
        first, second = self._found
        pairs = self._state.tables.snapshot.pairs
        rows = [pairs.index(each) if each in pairs else -1 for each in first.pair_ids]
        draw = figures.log_ratios_compared if self.of.value == "log_ratio" else (
            figures.margins_compared
        )  # fmt: skip
        return draw(first, second, self._names(), np.array(rows, np.int64))

    def _items(self) -> list[dict[str, Any]]:
        if self._found is None:
            return []
        first, second = self._found
        pairs = self._state.tables.snapshot.pairs
        return [
            _mover(first, second, place, pairs)
            for place in figures.largest_movers(first, second, _MOVERS)
            if first.pair_ids[place] in pairs
        ]

    def _pick(self, item: Any) -> None:  # noqa: ANN401 - the menu gives the item back
        if isinstance(item, dict) and "pair" in item:
            self._state.selected = item["pair"]


class Samples:
    """What the policy writes to the selected pair's prompt, beside what it wrote at first."""

    def __init__(self, state: PageState, desk: TrainingDesk) -> None:
        self._state, self._desk = state, desk
        self._asked: tuple[str, int, Text] | None = None
        self.ask = pmui.Button(label="Write", icon="edit_note", size="small", variant="outlined",
                               margin=(4, 6))  # fmt: skip
        self.ask.on_click(lambda event: self._ask())
        self.note = text("")
        self.prompt, self.before, self.after = (_written() for _ in range(3))
        self.view = pn.Column(
            tools(self.ask, self.note),
            text("Prompt of the selected pair", "subtitle2"),
            self.prompt,
            side_by_side(
                pn.Column(text("Before training", "subtitle2"), self.before,
                          sizing_mode="stretch_width"),
                pn.Column(text("At this step", "subtitle2"), self.after,
                          sizing_mode="stretch_width"),
            ),
            sizing_mode="stretch_width",
        )  # fmt: skip

    def refresh(self) -> None:
        """Show the prompt, and what was written to it if it was asked for."""
        prompt = self._prompt()
        shown = "Select a pair: a row on Pairs, or a point of a figure."
        self.prompt.object = shown if prompt is None else plain(prompt)[:_SHOWN]
        self.ask.disabled = prompt is None or self._desk.active is None
        found = self._desk.sample(*self._question()) if self._is_current() else None
        if isinstance(found, Exception):
            self._show(f"Nothing can be written: {found}")
        elif found:
            self._show(f"Written greedily at step {self._question()[1]}.", found[0])
        else:
            self._show(_waiting(self._desk) if self._is_current() else _WRITE)

    def mark(self) -> None:
        """Another pair: its prompt, and what was written to it before."""
        self.refresh()

    def _ask(self) -> None:
        prompt, active = self._prompt(), self._desk.active
        if prompt is not None and active is not None:
            step = kept_step(active, self._desk.status.step)
            self._asked = active.branch_id, step, prompt
            self.refresh()

    def _is_current(self) -> bool:
        known = {each.branch_id: each.kept for each in self._desk.branches}
        asked = self._asked
        return (
            asked is not None and asked[2] == self._prompt() and asked[1] in known.get(asked[0], ())
        )

    def _question(self) -> tuple[str, int, list[Text]]:
        branch_id, step, prompt = self._asked or ("", 0, "")
        return branch_id, step, [prompt]

    def _prompt(self) -> Text | None:
        row = self._state.selected_row
        return None if row is None else self._state.tables.snapshot.pairs.pairs[row].prompt

    def _show(self, note: str, sample: Sample | None = None) -> None:
        self.note.object = note
        self.before.object = sample.before[:_SHOWN] if sample else "–"
        self.after.object = sample.after[:_SHOWN] if sample else "–"


class Calibration:
    """What every branch's lambda has come to: dependence and accuracy over all pairs."""

    def __init__(self, state: PageState, desk: TrainingDesk) -> None:
        self._state, self._desk = state, desk
        self._asked: tuple[Point, ...] = ()
        self._found: list[Calibrated] = []
        self.attribute = pmui.Select(label="Attribute", options=[], size="small", width=220)
        self.measure = pmui.Select(
            label="Dependence", options=_MEASURES, value="jensen_shannon", size="small", width=300
        )
        self.ask = pmui.Button(label="Measure all branches", icon="straighten", size="small",
                               variant="outlined", margin=(4, 6))  # fmt: skip
        self.ask.on_click(lambda event: self._ask())
        self.note = text("")
        for widget in (self.attribute, self.measure):
            widget.param.watch(lambda event: self.refresh(), "value")
        self._panes = (
            FigurePane(state, "Dependence against lambda", self._draw_weight, 320),
            FigurePane(state, "Accuracy against dependence", self._draw_price, 320),
        )
        self.view = pn.Column(
            tools(self.attribute, self.measure, self.ask),
            self.note,
            side_by_side(*(pane.view for pane in self._panes)),
            sizing_mode="stretch_width",
        )

    def refresh(self) -> None:
        """Show what is measured so far."""
        names = list(self._state.tables.snapshot.pairs.attribute_names())
        if self.attribute.options != names:
            self.attribute.options = names
            self.attribute.value = self.attribute.value if self.attribute.value in names else (
                names[0] if names else None
            )  # fmt: skip
        self.ask.disabled = not names or not self._desk.branches
        self._found = self._measured()
        left = len(self._asked) - len(self._found)
        self.note.object = (
            f"Measured {len(self._found)} of {len(self._asked)} branches. {_waiting(self._desk)}"
            if left
            else "One branch for each λ (Branch, then move λ) draws the trade between the two."
        )
        for pane in self._panes:
            pane.refresh()

    def mark(self) -> None:
        """Nothing here stands for a pair."""

    def _ask(self) -> None:
        self._asked = tuple(
            Point(each.branch_id, each.kept[-1]) for each in self._desk.branches if each.kept
        )
        self.refresh()

    def _measured(self) -> list[Calibrated]:
        """The branches whose evaluations are known; the first that is not is being asked for."""
        found: list[Calibrated] = []
        known = {each.branch_id: each for each in self._desk.branches}
        for point in self._asked:
            branch = known.get(point.branch_id)
            if branch is None or point.step not in branch.kept:
                continue
            answer = self._desk.evaluate(point.branch_id, point.step)
            if answer is None:
                break
            if isinstance(answer, PairEvaluation):
                found.append(self._calibrated(branch, answer))
        return found

    def _calibrated(self, branch: Branch, answer: PairEvaluation) -> Calibrated:
        places = [each.branch_id for each in self._desk.branches]
        colour = branch_colour(places.index(branch.branch_id))
        pairs, attribute = self._state.tables.snapshot.pairs, str(self.attribute.value or "")
        return calibrated(answer, branch, colour, pairs, attribute, self._desk.held_out)

    def _draw_weight(self) -> Figure:
        return figures.unfairness_against_weight(self._found, self.measure.value)

    def _draw_price(self) -> Figure:
        return figures.accuracy_against_unfairness(self._found, self.measure.value)


def calibrated(
    answer: PairEvaluation,
    branch: Branch,
    colour: str,
    pairs: PreferenceSet,
    attribute: str,
    held_out: frozenset[str],
) -> Calibrated:
    """Dependence of the log-ratio margin on an attribute over all pairs, and accuracy."""
    values = _attribute(pairs, attribute)
    known = [place for place, each in enumerate(answer.pair_ids) if values.get(each) is not None]
    column = AttributeColumn(
        attribute,
        pairs.attribute_kind(attribute) if values else "categorical",
        tuple(values[answer.pair_ids[place]] for place in known),
    )
    found = AttributeDependence(column, answer.margin[known] / answer.beta, equalise=False)
    judged = [place for place, each in enumerate(answer.pair_ids) if each in held_out]
    correct = answer.reward_correct[judged] if judged else answer.reward_correct
    return Calibrated(
        branch.name,
        branch.plan.penalty_weight if branch.plan.penalty != "none" else 0.0,
        branch.plan.seed,
        colour,
        found.jensen_shannon,
        found.distance_correlation,
        float(correct.mean()) if len(correct) else float("nan"),
    )


def _attribute(pairs: PreferenceSet, name: str) -> dict[str, Any]:
    """An attribute's value by pair id; empty where the set does not have it."""
    if name not in pairs.attribute_names():
        return {}
    return dict(zip((each.pair_id for each in pairs.pairs), pairs.attribute_column(name),
                    strict=True))  # fmt: skip


def grid(*views: Any) -> Any:  # noqa: ANN401 - Panel components
    """Three small figures a row, fewer where the window is narrow."""
    return pn.GridBox(
        *views, ncols=3, sizing_mode="stretch_width", margin=0,
        styles={"grid-template-columns": "repeat(auto-fit, minmax(280px, 1fr))", "gap": "0px"},
    )  # fmt: skip


def _end(desk: TrainingDesk, newest: bool) -> tuple[str, int] | None:
    """The first moment of the run, or the newest kept one of the active branch."""
    branch = desk.active if newest else (desk.branches[0] if desk.branches else None)
    if branch is None or not branch.kept:
        return None
    return branch.branch_id, branch.kept[-1 if newest else 0]


def _moment(label: str) -> Any:  # noqa: ANN401 - a Panel widget
    return pmui.Select(label=label, options={}, size="small", width=220)


def _written() -> Any:  # noqa: ANN401 - a Panel component
    """A text as a model or a user wrote it: Typography shows it as text."""
    return pmui.Typography(
        "–", variant="body2", margin=(2, 10), sx={"whiteSpace": "pre-wrap"},
        sizing_mode="stretch_width",
    )  # fmt: skip


def _waiting(desk: TrainingDesk) -> str:
    done, total, note = desk.evaluating
    return f"{note or 'Working'}: {done} of {total} …" if total else "Waiting for the worker …"


def _mover(
    first: PairEvaluation, second: PairEvaluation, place: int, pairs: PreferenceSet
) -> dict[str, Any]:
    before, after = float(first.margin[place]), float(second.margin[place])
    pair_id = first.pair_ids[place]
    change = f"{after - before:+.3g}".replace("-", "−")
    return {
        "label": f"{change} β·nats: from {number(before, 3)} to {number(after, 3)} · {pair_id}",
        "secondary": pairs[pair_id].prompt_text[:_CHARS],
        "icon": None,
        "pair": pair_id,
    }

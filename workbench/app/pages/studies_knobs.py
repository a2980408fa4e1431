"""Controls made from a study's knobs: fields for what is fitted, sliders for what is measured."""

from collections.abc import Callable, Mapping
from typing import Any

import panel_material_ui as pmui

from workbench.app.controls import LiveSlider
from workbench.study.base import Study
from workbench.study.knobs import (
    Knob,
    KnobValue,
    Stage,
    knob_values,
    knobs_of,
    slider_values,
    with_knobs,
    written,
)

_WIDE: dict[str, Any] = {"sizing_mode": "stretch_width", "margin": (5, 10), "size": "small"}


class KnobControls:
    """One widget a knob, read and set together.

    Args:
        study: Whose knobs they are.
        moved: Called with the stage of a knob that the reader moved.
    """

    def __init__(self, study: Study[Any, Any], moved: Callable[[Stage], None]) -> None:
        self._study = study
        self._moved = moved
        self._quiet = False
        self._knobs = knobs_of(study.params_type)
        self.widgets = {name: _widget(knob) for name, knob in self._knobs.items()}
        for name, widget in self.widgets.items():
            stage = self._knobs[name].stage
            widget.param.watch(lambda event, stage=stage: self._changed(stage), "value")

    def of(self, stage: Stage) -> list[Any]:
        """The widgets of a stage, in order."""
        return [self.widgets[name] for name, knob in self._knobs.items() if knob.stage == stage]

    def params(self) -> Any:  # noqa: ANN401 - the study's own parameters
        """The parameters as they stand.

        Raises:
            StudyError: a value that its knob does not allow; the message names it.
        """
        values = {name: widget.value for name, widget in self.widgets.items()}
        return with_knobs(self._study.params_type(), values)

    def put(self, params: object) -> None:
        """Show other parameters; nobody is told."""
        self._quiet = True
        try:
            for name, value in knob_values(params).items():
                _set(self._knobs[name], self.widgets[name], value)
        finally:
            self._quiet = False

    def _changed(self, stage: Stage) -> None:
        if not self._quiet:
            self._moved(stage)


def _widget(knob: Knob) -> Any:  # noqa: ANN401 - a Panel widget
    label = f"{knob.name.replace('_', ' ')}{f' [{knob.unit}]' if knob.unit else ''}"
    about: Mapping[str, Any] = {"label": label, "description": _help(knob), **_WIDE}
    if knob.kind is bool:
        return pmui.Switch(value=knob.default, **about)
    if knob.choices:
        return pmui.Select(options=list(knob.choices), value=knob.default, **about)
    if knob.kind is str:
        return pmui.TextInput(value=knob.default, **about)
    if knob.stage == "measure":
        options = sorted({*slider_values(knob), knob.default})
        return LiveSlider(options=options, value=knob.default, **about)  # type: ignore[no-untyped-call]
    return pmui.TextInput(value=written(knob.default), **about)


def _help(knob: Knob) -> str:
    if knob.choices or knob.low is None or knob.high is None:
        return knob.help
    return f"{knob.help}. From {knob.low:g} to {knob.high:g}."


def _set(knob: Knob, widget: Any, value: KnobValue) -> None:  # noqa: ANN401 - a Panel widget
    if isinstance(widget, LiveSlider):
        if value not in widget.options:
            widget.options = sorted({*widget.options, value})
        widget.value = value
    else:
        as_text = knob.kind in (int, float) and not knob.choices
        widget.value = written(value) if as_text else value

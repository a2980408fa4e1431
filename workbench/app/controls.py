"""The sidebar: models and hyperparameters, the same on every page."""

from typing import Any

import panel_material_ui as pmui

from workbench.app.state import PageState
from workbench.engine.settings import Settings

_DECADES = range(-3, 2)
_MANTISSAS = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
BETAS = (*(float(f"{m}e{decade}") for decade in _DECADES for m in _MANTISSAS), 100.0)
GAMMAS = tuple(round(0.05 * step, 2) for step in range(41))
_TIES = {"counts as correct": "correct", "counts as wrong": "wrong", "counts one half": "half"}
_SHARES = {
    "raters (votes or alpha)": "raters",
    "scores (Bradley-Terry)": "scores",
    "one constant": "constant",
}


class Controls:
    """Widgets for every setting, bound both ways to a page's state."""

    def __init__(self, state: PageState) -> None:
        self._state = state
        settings = state.settings
        self.beta = _slider(
            "beta", "β: inverse temperature", BETAS, settings.beta,
            "Scale of the implicit reward β·log(π/π_ref). Dragging it calls no model.",
        )  # fmt: skip
        self.gamma = _slider(
            "gamma", "γ: weight of the reference", GAMMAS, settings.gamma,
            "DPO^γ: 1 is DPO, 0 leaves the reference out of the loss.",
        )  # fmt: skip
        self.length_normalised = pmui.Switch(
            label="Per token (length-normalised)", value=settings.length_normalised, name="length"
        )
        self.tie_policy = _select("A tie in the ranking", _TIES, settings.tie_policy)
        self.share_source = _select("Rater share α from", _SHARES, settings.share_source)
        self.share_constant = pmui.FloatSlider(
            label="α where no rater spoke", start=0.5, end=0.99, step=0.01,
            value=min(max(settings.share_constant, 0.5), 0.99),
        )  # fmt: skip
        self.paper_code = pmui.Switch(
            label="R* by the paper's code", value=settings.paper_code, name="paper code"
        )
        self._bind()

    @property
    def view(self) -> list[Any]:
        """The widgets in reading order."""
        widgets = (self.beta, self.gamma, self.tie_policy, self.share_source, self.share_constant)
        for widget in widgets:
            widget.param.update(width=None, sizing_mode="stretch_width")
        return [
            pmui.Typography("Objective", variant="overline"),
            self.beta,
            self.gamma,
            self.length_normalised,
            pmui.Typography("Ranking", variant="overline"),
            self.tie_policy,
            self.share_source,
            self.share_constant,
            self.paper_code,
        ]

    def _bind(self) -> None:
        for name in ("beta", "gamma", "length_normalised", "tie_policy", "share_source",
                     "share_constant", "paper_code"):  # fmt: skip
            widget = getattr(self, name)
            widget.param.watch(
                lambda event, name=name: self._state.change(**{name: event.new}), "value"
            )
        self._state.param.watch(lambda event: self._show(event.new), "settings")

    def _show(self, settings: Settings) -> None:
        """Follow settings that changed elsewhere, for example from a state file."""
        for name in ("length_normalised", "tie_policy", "share_source", "paper_code"):
            getattr(self, name).value = getattr(settings, name)
        for name in ("beta", "gamma"):
            widget = getattr(self, name)
            value = getattr(settings, name)
            if value not in widget.options:
                widget.options = sorted({*widget.options, value})
            widget.value = value


def _slider(name: str, label: str, options: tuple[float, ...], value: float, text: str) -> Any:  # noqa: ANN401
    return pmui.DiscreteSlider(
        name=name, label=label, options=sorted({*options, value}), value=value, description=text
    )


def _select(label: str, options: dict[str, str], value: str) -> Any:  # noqa: ANN401
    return pmui.Select(label=label, options=options, value=value, size="small")

"""The sidebar: data, models and hyperparameters, the same on every page."""

from collections.abc import Callable
from typing import Any, ClassVar

import panel_material_ui as pmui

from workbench.app.notebook import session_notebook
from workbench.app.opening import Opener
from workbench.app.state import PageState
from workbench.engine.document import StateDocument
from workbench.engine.settings import Settings
from workbench.scoring.models import list_models, parse_model
from workbench.views.choices import BETAS, GAMMAS, SHARES, TIES

_BOUND = ("beta", "gamma", "length_normalised", "tie_policy", "share_source", "share_constant",
          "paper_code")  # fmt: skip
_WIDE: dict[str, Any] = {"sizing_mode": "stretch_width", "margin": (4, 10)}


class LiveSlider(pmui.DiscreteSlider):
    """A slider that is heard at once: Panel would wait 50 ms for further moves."""

    _priority_changes: ClassVar[list[str]] = ["value"]


class Controls:
    """Widgets for every setting, bound both ways to a page's state."""

    def __init__(self, state: PageState) -> None:
        self._state = state
        settings = state.settings
        self.beta = _slider(
            "β: inverse temperature", BETAS, settings.beta,
            "Scale of the implicit reward β·log(π/π_ref). Dragging it calls no model.",
        )  # fmt: skip
        self.gamma = _slider(
            "γ: weight of the reference", GAMMAS, settings.gamma,
            "DPO^γ: 1 is DPO, 0 leaves the reference out of the loss.",
        )  # fmt: skip
        self.length_normalised = _switch(
            "Per token (length-normalised)", settings.length_normalised,
            "Divide every log-probability by its number of answer tokens.",
        )  # fmt: skip
        self.tie_policy = _select("A tie in the ranking", TIES, settings.tie_policy)
        self.share_source = _select("Rater share α from", SHARES, settings.share_source)
        self.share_constant = pmui.FloatSlider(
            label="α where no rater spoke", start=0.5, end=0.99, step=0.01,
            value=min(max(settings.share_constant, 0.5), 0.99), size="small", **_WIDE,
        )  # fmt: skip
        self.paper_code = _switch(
            "R* by the paper's code", settings.paper_code,
            "The authors' code multiplies by a ratio of log-probabilities where Eq. 3 has one of "
            "probabilities; see Ranking.",
        )  # fmt: skip
        self._bind()

    @property
    def view(self) -> list[Any]:
        """The widgets in reading order."""
        return [
            _heading("Objective"),
            self.beta,
            self.gamma,
            self.length_normalised,
            _heading("Ranking"),
            self.tie_policy,
            self.share_source,
            self.share_constant,
            self.paper_code,
        ]

    def step_beta(self, by: int) -> None:
        """Move beta by steps of its slider."""
        options = self.beta.options
        place = options.index(self.beta.value) + by
        self.beta.value = options[max(0, min(len(options) - 1, place))]

    def _bind(self) -> None:
        for name in _BOUND:
            getattr(self, name).param.watch(
                lambda event, name=name: self._state.change(**{name: event.new}), "value"
            )
        self._state.param.watch(lambda event: self._show(event.new), "settings")

    def _show(self, settings: Settings) -> None:
        """Follow settings that changed elsewhere, for example from a state file."""
        for name in ("length_normalised", "tie_policy", "share_source", "paper_code"):
            getattr(self, name).value = getattr(settings, name)
        if 0.5 <= settings.share_constant <= 0.99:
            self.share_constant.value = settings.share_constant
        for name in ("beta", "gamma"):
            widget, value = getattr(self, name), getattr(settings, name)
            if value not in widget.options:
                widget.options = sorted({*widget.options, value})
            widget.value = value


class DataControls:
    """Which set is open, and which others could be."""

    def __init__(self, state: PageState, opener: Opener) -> None:
        self._state = state
        self._opener = opener
        self.title = pmui.Typography("", variant="body2", margin=(0, 10))
        self.choice = pmui.MenuButton(
            label="Open another set …", items=opener.choices(), size="small", variant="outlined",
            **_WIDE,
        )  # fmt: skip
        self.hub = pmui.TextInput(
            label="… or one of the hub", placeholder="hub:ORG/NAME", size="small", **_WIDE
        )
        self.notebook = pmui.Button(
            label="Open in a notebook", icon="terminal", size="small", variant="text",
            description="Save a notebook that opens this session; JupyterLab shows it.",
            visible=state.session.rules is None, **_WIDE,
        )  # fmt: skip
        self.choice.on_click(self._chosen)
        self.notebook.on_click(state.doing(self._to_notebook))
        self.hub.param.watch(lambda event: self._open(event.new), "value")

    @property
    def view(self) -> list[Any]:
        """The widgets in reading order."""
        return [_heading("Data"), self.title, self.choice, self.hub, self.notebook]

    def refresh(self) -> None:
        """Say what is open."""
        pairs = self._state.tables.snapshot.pairs
        words = f"{pairs.name[:60]}: {len(pairs):,} pairs"
        if words != self.title.object:
            self.title.object = words

    def _chosen(self, item: Any) -> None:  # noqa: ANN401 - the menu gives the item back
        self._open(item["opens"])

    def _to_notebook(self) -> None:
        session_id = self._state.session.session_id
        text = session_notebook(session_id, self._state.session.store.pairs().name)
        self._state.download(f"workbench-{session_id}.ipynb", text.encode())

    def _open(self, choice: str | None) -> None:
        if choice:
            self._state.attempt(self._opener.open, choice)


class ModelControls:
    """The two models by name; any folder, hub id or adapter may be written.

    Args:
        state: The page's state.
        use: Puts models in place; called with policy and reference.
    """

    def __init__(self, state: PageState, use: Callable[[str, str], None]) -> None:
        self._state = state
        self._use = use
        names = [model.name for model in list_models()]
        models = state.session.models
        self.policy = _model("Policy π", names, models["policy"])
        self.reference = _model("Reference π_ref", names, models["reference"])
        for widget in (self.policy, self.reference):
            widget.param.watch(lambda event: self._chosen(), "value")

    @property
    def view(self) -> list[Any]:
        """The widgets in reading order."""
        return [_heading("Models"), self.policy, self.reference]

    def put(self, policy: str, reference: str) -> None:
        """Use other models.

        Raises:
            ModelError: a name that is no model's; nothing is changed then.
        """
        parse_model(policy), parse_model(reference)
        self._use(policy, reference)

    def refresh(self) -> None:
        """Follow what another tab chose."""
        models = self._state.session.models
        for widget, name in (
            (self.policy, models["policy"]),
            (self.reference, models["reference"]),
        ):
            # A name that is not offered would show as an empty field.
            if name not in widget.options:
                widget.options = sorted({*widget.options, name})
            widget.value = name

    def _chosen(self) -> None:
        asked = self.policy.value or "", self.reference.value or ""
        now = self._state.session.models
        if asked == (now["policy"], now["reference"]):
            return
        if not self._state.attempt(self.put, *asked):
            self.refresh()


class StateControls:
    """Saves the page's state as a file, and opens such a file.

    Args:
        state: The page's state.
        put: Puts the models of an opened file in place.
    """

    def __init__(self, state: PageState, put: Callable[[str, str], None]) -> None:
        self._state = state
        self._put = put
        self._save = pmui.Button(label="Save", icon="download", size="small", variant="outlined",
                                 margin=(4, 10))  # fmt: skip
        self._open = pmui.FileInput(accept=".json", label="Open", size="small", margin=(4, 10))
        self._save.on_click(state.doing(self._saved))
        self._open.param.watch(lambda event: self._opened(event.new), "value")

    @property
    def view(self) -> list[Any]:
        """The widgets in reading order."""
        return [_heading("State of this page"), pmui.FlexBox(self._save, self._open)]

    def _saved(self) -> None:
        document = self._state.document().to_json()
        self._state.download("workbench-state.json", document.encode())

    def _opened(self, content: bytes | None) -> None:
        if content:
            self._state.attempt(self._show, content.decode("utf-8", "replace"))

    def _show(self, text: str) -> None:
        document = StateDocument.from_json(text)
        self._put(document.policy, document.reference)
        self._state.show(document)


def _model(label: str, names: list[str], value: str) -> Any:  # noqa: ANN401 - a Panel widget
    return pmui.AutocompleteInput(
        label=label, options=sorted({*names, value}), value=value, restrict=False, min_characters=0,
        size="small", placeholder="default, a folder, hub:ORG/NAME", **_WIDE,
    )  # fmt: skip


def _heading(words: str) -> Any:  # noqa: ANN401 - a Panel component
    return pmui.Typography(words, variant="overline", margin=(8, 10, 0, 10))


def _slider(label: str, options: tuple[float, ...], value: float, description: str) -> Any:  # noqa: ANN401
    return LiveSlider(  # type: ignore[no-untyped-call]
        label=label, options=sorted({*options, value}), value=value, description=description,
        size="small", **_WIDE,
    )  # fmt: skip


def _switch(label: str, value: bool, description: str) -> Any:  # noqa: ANN401
    return pmui.Switch(label=label, value=value, description=description, size="small",
                       margin=(0, 10))  # fmt: skip


def _select(label: str, options: dict[str, str], value: str) -> Any:  # noqa: ANN401
    return pmui.Select(label=label, options=options, value=value, size="small", **_WIDE)

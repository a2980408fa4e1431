"""An objective as a picker, a trainer and a study see it: its description, knobs and call."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from workbench.objectives.bco import RewardShift
from workbench.objectives.logps import PairLogps


@dataclass(frozen=True)
class Hyperparameter:
    """A knob: `low` and `high` span a slider, the objective itself checks what is valid.

    Attributes:
        name: Keyword of the objective's call.
        default: Value to start from.
        low: Lower end of the slider.
        high: Upper end of the slider.
        help: What it does, in a sentence.
        logarithmic: Whether the slider moves in equal ratios.
    """

    name: str
    default: float
    low: float
    high: float
    help: str
    logarithmic: bool = False


@dataclass(frozen=True)
class Source:
    """Where a formula stands.

    Attributes:
        paper: Authors, year and title.
        arxiv: Identifier, empty where the text is not there.
        equation: Number of the equation, or where else in the text.
    """

    paper: str
    arxiv: str
    equation: str


@dataclass(frozen=True)
class Objective:
    """One objective of the family.

    Attributes:
        name: Key in the catalogue.
        title: Name for a person.
        summary: What it does, in words.
        formula: The loss of a pair in LaTeX, in the notation of `workbench.objectives`.
        source: Paper and equation.
        needs: Fields of `PairLogps` that it reads besides the policy's chosen and rejected.
        batch_level: A pair's loss depends on the rest of its batch.
        by_quantile: A column of the result is a quantile of the batch, not a pair.
        hyperparameters: Its knobs, in order.
        call: `call(logps, **settings)` gives one loss a pair.
        f_divergences: Whether `with_divergence` may change its log-ratios.
        shift: The state that it starts from; None for objectives without state.
    """

    name: str
    title: str
    summary: str
    formula: str
    source: Source
    needs: tuple[str, ...]
    hyperparameters: tuple[Hyperparameter, ...]
    call: Callable[..., Tensor]
    batch_level: bool = False
    by_quantile: bool = False
    f_divergences: bool = False
    shift: RewardShift | None = None

    @property
    def needs_reference(self) -> bool:
        """Whether the reference model's scores enter."""
        return "reference_chosen" in self.needs

    @property
    def defaults(self) -> dict[str, float]:
        """Every knob's default, by name."""
        return {knob.name: knob.default for knob in self.hyperparameters}

    def settings(self, given: Mapping[str, float]) -> dict[str, float]:
        """The defaults, replaced by what is given.

        Raises:
            ValueError: a name that is none of the knobs.
        """
        unknown = sorted(given.keys() - self.defaults.keys())
        if unknown:
            raise ValueError(
                f"{self.title} has no hyperparameter {unknown[0]!r}; "
                f"it has {', '.join(self.defaults) or 'none'}."
            )
        return {**self.defaults, **given}

    def losses(
        self, logps: PairLogps, shift: RewardShift | None = None, **given: float
    ) -> Float[Tensor, " pairs"]:
        """One loss a pair, with the defaults for what is not given.

        Args:
            logps: The batch.
            shift: State from `advance`; read only by an objective that has one.
            given: Hyperparameters.

        Raises:
            ValueError: a hyperparameter is unknown or out of range, or a score is not given.
        """
        settings = self.settings(given)
        if self.shift is None:
            return self.call(logps, **settings)
        return self.call(logps, shift=shift or self.shift, **settings)

    def advance(
        self, logps: PairLogps, shift: RewardShift | None = None, **given: float
    ) -> RewardShift | None:
        """The state with this batch counted, before its losses are taken in training."""
        if self.shift is None:
            return None
        return (shift or self.shift).after(logps, self.settings(given)["beta"])


@dataclass(frozen=True)
class Modifier:
    """Something that changes an objective's inputs, weights, gradient, reference or data.

    Attributes:
        name: Key in the catalogue.
        title: Name for a person.
        summary: What it does, and where it applies.
        formula: In LaTeX.
        source: Paper and equation.
        hyperparameters: Its knobs, in order.
        call: The pure function; its signature is its own.
    """

    name: str
    title: str
    summary: str
    formula: str
    source: Source
    hyperparameters: tuple[Hyperparameter, ...]
    call: Callable[..., object]

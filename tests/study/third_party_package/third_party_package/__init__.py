"""A study in a package of its own, as anybody may publish one."""

from collections.abc import Mapping
from dataclasses import dataclass

from workbench.study import plot
from workbench.study.base import Control, Figures, Paper, Study
from workbench.study.context import StudyContext
from workbench.study.knobs import knob
from workbench.study.result import Claim, StudyResult


@dataclass(frozen=True)
class Params:
    first: float = knob(3.0, low=1, high=100, help="One cathetus")
    second: float = knob(4.0, low=1, high=100, stage="measure", help="The other")


@dataclass(frozen=True)
class Squared:
    first: float


class PythagorasStudy(Study[Params, Squared]):
    slug = "pythagoras"
    title = "Squares on the sides"
    family = "geometry"
    tags = ("exact",)
    paper = Paper(
        title="Elements",
        authors=("Euclid",),
        year=-300,
        venue="Alexandria",
        bibtex="@book{euclid, title = {Elements}}",
    )
    question = "Is the square on the hypotenuse the sum of the others?"
    not_shown = "Curved surfaces."
    params_type = Params
    presets: Mapping[str, Params] = {name: Params() for name in ("smoke", "default", "full")}

    def fit(self, params: Params, context: StudyContext) -> Squared:
        (squared,) = context.track([params.first**2], "squaring")
        return Squared(squared)

    def measure(self, fitted: Squared, params: Params) -> StudyResult:
        total = (fitted.first + params.second**2) ** 0.5
        expected = (params.first**2 + params.second**2) ** 0.5
        claim = Claim("sum", "unit", "The squares add up.", total, "=", expected, 1e-12)
        return StudyResult({"sides": {"side": ["a", "b", "c"], "square": [1, 2, 3]}}, [claim])

    def figures(self, result: StudyResult) -> Figures:
        table = result.tables["sides"]
        figure = plot.figure("Squares", "Side", "Square", "Ours.")
        plot.bars(figure, table["side"], table["square"], "square")
        return {"sides": figure}

    @property
    def controls(self) -> Mapping[str, Control]:
        return {"twice": Control("sum", "One square counts twice.", study=_Twice())}


class _Twice(PythagorasStudy):
    def fit(self, params: Params, context: StudyContext) -> Squared:
        return Squared(2 * super().fit(params, context).first)

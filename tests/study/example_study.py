"""How far a coin's observed share lies from its bias: a whole study."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.study import plot
from workbench.study.base import Control, Figures, Paper, Study
from workbench.study.context import StudyContext
from workbench.study.knobs import knob
from workbench.study.result import Claim, StudyResult

PAPER = Paper(
    title="Ars Conjectandi",
    authors=("Jacob Bernoulli",),
    year=1713,
    venue="Thurneysen, Basel",
    bibtex="@book{bernoulli1713ars, title = {Ars Conjectandi}, year = {1713}}",
)


@dataclass(frozen=True)
class Params:
    tosses: int = knob(4000, low=10, high=100_000, unit="tosses", help="Tosses of the coin")
    bias: float = knob(0.3, low=0, high=1, help="Probability of heads")
    every: int = knob(
        100, stage="measure", low=1, high=1000, unit="tosses", help="Grid of the line"
    )


class CoinStudy(Study[Params, Tensor]):
    slug = "coin"
    title = "The law of large numbers"
    family = "examples"
    paper = PAPER
    question = "Does the share of heads approach the coin's bias?"
    not_shown = "Coins that remember."
    params_type = Params
    presets: Mapping[str, Params] = {
        "smoke": Params(tosses=2000),
        "default": Params(),
        "full": Params(tosses=100_000),
    }

    def fit(self, params: Params, context: StudyContext) -> Tensor:
        """The running number of heads, in ten parts so that it can be watched and stopped."""
        generator = context.generator("tosses")
        draws = torch.rand(params.tosses, generator=generator)
        parts = [part < params.bias for part in context.track(draws.chunk(10), "tossing")]
        return torch.cat(parts).cumsum(dim=0)

    def measure(self, fitted: Tensor, params: Params) -> StudyResult:
        count = torch.arange(1, len(fitted) + 1)
        share = fitted / count
        shown = slice(params.every - 1, None, params.every)
        far = abs(float(share[-1]) - params.bias)
        claim = Claim("approaches", "effect", "The share approaches the bias.", far, "<", 0.04)
        return StudyResult({"share": {"tosses": count[shown], "share": share[shown]}}, [claim])

    def figures(self, result: StudyResult) -> Figures:
        table = result.tables["share"]
        figure = plot.figure("Share of heads", "Tosses", "Share", "Ours; the book has no figure.")
        plot.line(figure, table["tosses"], table["share"], "share of heads")
        return {"share": figure}

    @property
    def controls(self) -> Mapping[str, Control]:
        return {"always-heads": Control("approaches", "The coin is always heads.", study=_Heads())}


class _Heads(CoinStudy):
    def fit(self, params: Params, context: StudyContext) -> Tensor:
        return super().fit(params, context).fill_(1).cumsum(dim=0)

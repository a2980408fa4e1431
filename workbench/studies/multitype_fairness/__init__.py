"""Distance covariance regularisation for attributes of any type (Lee et al., arXiv 2509.08163)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workbench.data.sources import open_source
from workbench.engine.threads import one_thread
from workbench.studies.multitype_fairness import claims, decisions, gerrymander, motor, recidivism
from workbench.studies.multitype_fairness.claims import Decided, Fitted
from workbench.studies.multitype_fairness.gerrymander import Identities
from workbench.studies.multitype_fairness.mechanism import (
    BINARY,
    POISSON,
    Audited,
    Data,
    Experiment,
    Recipe,
)
from workbench.studies.multitype_fairness.paper import CHOSEN, PAPER, PAPER_GRID
from workbench.study.base import Control, Figures, Study
from workbench.study.context import StudyContext
from workbench.study.knobs import knob
from workbench.study.result import Cell, StudyResult, Table

GRIDS = {
    "two": (0.0, 80.0),
    "coarse": (0.0, 10.0, 20.0, 30.0, 40.0, 80.0, 150.0),
    "paper": PAPER_GRID,
}
_TRAIN_SHARE = 0.7
_STAND_IN_PEOPLE = 6172
_DRAWN, _GIVEN = "synthetic portfolio", "your motor table"
_FOLDS = 4
_CROSS_FITTED = "Every policy is audited by networks that were trained on the other three quarters."
_EMPTY: Mapping[str, Table] = {
    "motor": {name: [] for name in motor.COLUMNS},
    "compas": {name: [] for name in recidivism.COLUMNS},
}


@dataclass(frozen=True)
class Params:
    """Knobs of the three data sets."""

    policies: int = knob(
        12_000, low=1000, high=80_000, unit="policies", help="Synthetic policies to train on"
    )
    audited: int = knob(
        20_000, low=1000, high=50_000, unit="policies", help="Synthetic policies to audit on"
    )
    grid: str = knob("coarse", choices=tuple(GRIDS), help="Values of lambda for the portfolio")
    width: int = knob(32, low=4, high=256, unit="units", help="Width of both hidden layers")
    epochs: int = knob(6, low=1, high=100, unit="epochs", help="Passes over the portfolio")
    batch: int = knob(256, low=128, high=2048, unit="rows", help="Rows of a batch")
    learning_rate: float = knob(0.003, low=0.0001, high=0.1, help="Adam's first step size")
    c: float = knob(1.0, low=0.05, high=10, help="JdCov's weight of lower orders (paper: 1)")
    scores: str = knob(
        recidivism.REAL,
        choices=(recidivism.REAL, recidivism.STAND_IN),
        help="Recidivism table; the stand-in is used too where COMPAS cannot be had",
    )
    scores_see: bool = knob(
        True, help="Whether the networks of the scores see the protected attributes"
    )
    scores_weight: float = knob(10.0, low=0, high=200, help="lambda of the recidivism scores")
    scores_epochs: int = knob(15, low=1, high=200, unit="epochs", help="Passes over the scores")
    decisions: str = knob(
        decisions.REAL,
        choices=(decisions.REAL, decisions.STAND_IN),
        help="Whose decisions; the stand-in is used too where the model is not on this machine",
    )
    rank: int = knob(
        32, low=1, high=200, unit="components", help="Rank of the correction of the decisions"
    )
    chosen_ccdcov: float = knob(
        CHOSEN["CCdCov"], stage="measure", low=0, high=150, help="CCdCov's chosen lambda"
    )
    chosen_jdcov: float = knob(
        CHOSEN["JdCov"], stage="measure", low=0, high=150, help="JdCov's chosen lambda"
    )
    decisions_weight: float = knob(
        20.0, stage="measure", low=0, high=30, help="lambda of the corrected decisions"
    )
    gap: float = knob(
        1.0, stage="measure", low=0.01, high=10, help="Gap of the gerrymandered outcome"
    )


DECISION_GRID = [0.0, 10.0, 20.0, 30.0]
Finish = Callable[[Tensor, torch.Generator], Tensor]


def _as_is(outcome: Tensor, generator: torch.Generator) -> Tensor:
    return outcome


class MultitypeFairness(Study[Params, Fitted]):
    """What distance covariance as a penalty buys between cells, and what it costs."""

    slug = "multitype-fairness"
    title = "Fairness for attributes of any type"
    family = "fairness"
    tags = ("fairness", "distance covariance", "intersections", "COMPAS", "insurance", "core")
    paper = PAPER
    question = (
        "Can a penalty on distance covariance make outcomes alike in every intersection of "
        "protected attributes, binary, categorical and continuous, at a small cost in accuracy, "
        "where penalties on one attribute at a time leave a gap?"
    )
    not_shown = (
        "The motor data of the paper may not be shipped: ours are drawn with its published "
        "margins, and its own numbers stand beside ours for scale alone. Networks are smaller, "
        "Adam stands for AdaHessian, and nothing is tuned for each penalty. COMPAS is read as "
        "ProPublica filters it; the paper's preprocessing and numbers could not be read. Parity "
        "of outcomes is one notion of fairness; whether it is the right one is no question of "
        "statistics. The language model is corrected by a low-rank change of one margin, not "
        "trained."
    )
    params_type = Params
    presets = {  # noqa: RUF012 - declared once, as the other attributes
        "smoke": Params(
            policies=4000,
            audited=8000,
            grid="two",
            width=16,
            epochs=8,
            batch=128,
            learning_rate=0.006,
            scores=recidivism.STAND_IN,
            scores_epochs=4,
            decisions=decisions.STAND_IN,
            rank=24,
        ),
        "default": Params(),
        "full": Params(policies=56_000, audited=50_000, grid="paper", epochs=10),
    }
    inputs = {**_EMPTY, "decisions": open_source("decisions")}  # noqa: RUF012
    penalised: tuple[str, ...] = ()
    finish: Finish = staticmethod(_as_is)
    identities = Identities()

    def __init__(self) -> None:
        # In the key of kept fits: what stood in for a source must not outlive its coming.
        self.at_hand = recidivism.is_here(), decisions.model_is_here()

    def fit(self, params: Params, context: StudyContext) -> Fitted:
        """Train every network of every data set, and correct the decisions."""
        with one_thread():
            audited, frequencies = self._portfolio(params, context.part(0, 0.5))
            scores = self._scores(params, context.part(0.5, 0.75))
            penalties = gerrymander.batch_penalties(400, 64, context.generator("penalties"))
            parity = gerrymander.parity_gap(
                self.identities.shift, context.generator("parity"), self.identities.concatenated
            )
        decided = self._decided(params, context.part(0.75, 1))
        return Fitted(audited, frequencies, scores, decided, penalties, parity)

    def measure(self, fitted: Fitted, params: Params) -> StudyResult:
        """Tables beside the paper's, and claims at the chosen lambda."""
        chosen = {
            "none": 0,
            "CCdCov": claims.nearest(fitted.motor, "CCdCov", params.chosen_ccdcov),
            "JdCov": claims.nearest(fitted.motor, "JdCov", params.chosen_jdcov),
        }
        gaps = [abs(each - params.decisions_weight) for each in fitted.decisions.weights]
        place = gaps.index(min(gaps))
        tables = {
            "motor": claims.motor_table(fitted.motor),
            "chosen": claims.chosen_table(fitted.motor, chosen),
            "densities": claims.densities(fitted.motor, chosen),
            "distributions": claims.distributions(fitted.motor, chosen),
            "frequencies": fitted.frequencies,
            "gerrymander": claims.gerrymander_table(self.identities, params.gap),
            "statistics": claims.statistics_table(self.identities, params.gap),
            "scores": claims.scores_table(fitted.scores),
            "decisions": claims.decisions_table(fitted.decisions, place),
            "decision_cells": claims.decision_cells(fitted.decisions, place),
            "decision_ages": claims.decision_ages(fitted.decisions, place),
            "parts": claims.parts_table(fitted),
        }
        found = (
            *claims.identity_claims(self.identities, fitted),
            *claims.motor_claims(fitted.motor, chosen),
            *claims.scores_claims(fitted.scores),
            *claims.decision_claims(fitted.decisions, place),
        )
        return StudyResult(tables, found)

    def figures(self, result: StudyResult) -> Figures:
        """The calibration of lambda first, then what the chosen networks do to each cell."""
        from workbench.studies.multitype_fairness.figures import draw

        return draw(result)

    @property
    def controls(self) -> Mapping[str, Control]:
        """Penalties on the wrong thing, outcomes dealt at random, statistics gone wrong."""
        return {
            "gender-alone": Control(
                "js-falls",
                "A penalty on gender alone leaves the regions apart.",
                study=_GenderAlone(),
            ),
            "dealt-outcomes": Control(
                "rps-holds",
                "Penalised outcomes dealt to other policies are fair, and useless.",
                study=_DealtOutcomes(),
            ),
            "small-c": Control(
                "jdcov-stronger",
                "With c = 1/4 the pairs count a quarter of what they do in the paper.",
                {"c": 0.25},
            ),
            "gender-alone-scores": Control(
                "intersection-falls",
                "A penalty on gender alone leaves race and age.",
                study=_GenderAlone(),
            ),
            "gender-alone-leaves": Control(
                "single-leaves-it",
                "What is called joint is a single attribute, and no better than the best of them.",
                study=_GenderAlone(),
            ),
            "gender-alone-decisions": Control(
                "decisions-corrected",
                "A correction for gender alone leaves race and age.",
                study=_GenderAlone(),
            ),
            "first-coin": Control(
                "xor-single",
                "An outcome that follows one coin is seen by that coin's dCov².",
                study=_FirstCoin(),
            ),
            "one-by-one": Control(
                "xor-ccdcov",
                "A sum over single attributes is 0 where CCdCov is not.",
                study=_OneByOne(),
            ),
            "usual-sign": Control(
                "xor-jdcov",
                "Without the minus of Chakraborty and Zhang the third order counts against.",
                study=_UsualSign(),
            ),
            "plug-in": Control(
                "xor-u-statistics",
                "V-statistics are biased upwards at 100 rows.",
                study=_PlugIn(),
            ),
            "one-cell-shifted": Control(
                "parity-zero",
                "One cell of four lies half a deviation higher.",
                study=_OneCellShifted(),
            ),
            "clamped": Control(
                "penalty-unbiased",
                "Cut at 0, the penalty has a floor that no outcome can reach below.",
                study=_Clamped(),
            ),
        }

    def _portfolio(
        self, params: Params, context: StudyContext
    ) -> tuple[Audited, dict[str, list[Cell]]]:
        table, experiment = context.table("motor"), self._experiment(params)
        if next(iter(table.values()), []):
            data = motor.read_portfolio(table)
            found = experiment.cross_fit(data, _FOLDS, _GIVEN, _CROSS_FITTED, context)
        else:
            drawn = motor.draw_portfolio(params.policies + params.audited, context)
            data = motor.read_portfolio(drawn)
            parts = data.split(params.policies, context.generator("split"))
            found = experiment.run(*parts, _DRAWN, _HOW_TO_GIVE, context)
        return found, motor.claim_frequencies(data)

    def _experiment(self, params: Params) -> Experiment:
        return Experiment(
            motor.grid_variants(GRIDS[params.grid], self.penalised),
            POISSON,
            Recipe(
                (params.width, params.width),
                params.epochs,
                params.batch,
                params.learning_rate,
                params.c,
            ),
            _DEPENDENCE_ROWS,
            self.finish,
        )

    def _scores(self, params: Params, context: StudyContext) -> dict[str, Audited]:
        data, source, note = self._recidivism(params, context)
        data = data.seeing_attributes() if params.scores_see else data
        first = round(_TRAIN_SHARE * len(data))
        parts = data.split(first, context.generator("split scores"))
        found = {}
        for place, (name, widths) in enumerate({"logistic": (), "MLP": (32, 32)}.items()):
            experiment = Experiment(
                recidivism.recidivism_variants(params.scores_weight, self.penalised),
                BINARY,
                Recipe(widths, params.scores_epochs, params.batch, 0.01, params.c),
                _DEPENDENCE_ROWS,
            )
            stage = context.part(place / 2, (place + 1) / 2)
            found[name] = experiment.run(*parts, source, note, stage)
        return found

    def _recidivism(self, params: Params, context: StudyContext) -> tuple[Data, str, str]:
        given = context.table("compas")
        if next(iter(given.values()), []):
            return recidivism.read_table(given), "your COMPAS table", ""
        if params.scores == recidivism.REAL:
            frame, note = recidivism.open_compas()
            if frame is not None:
                return recidivism.read_recidivism(frame), recidivism.REAL, ""
        else:
            note = "Drawn, not COMPAS; set scores=COMPAS for the real table."
        drawn = recidivism.draw_stand_in(_STAND_IN_PEOPLE, context)
        return recidivism.read_recidivism(drawn), recidivism.STAND_IN, note

    def _decided(self, params: Params, context: StudyContext) -> Decided:
        pairs = context.pairs("decisions")
        real = params.decisions == decisions.REAL
        if real and decisions.model_is_here():
            found, note = decisions.read_decisions(pairs, context.part(0, 0.8)), ""
        else:
            found = decisions.draw_decisions(pairs, context)
            note = decisions.HOW_TO_GET if real else "Planted; set decisions=default model."
        with one_thread():
            corrected = decisions.correct(
                found, DECISION_GRID, params.rank, self.penalised, context.part(0.8, 1)
            )
        return Decided(
            found.source,
            note,
            DECISION_GRID,
            corrected,
            found.attributes,
            found.cells,
            found.cell_names,
            found.age,
        )


_DEPENDENCE_ROWS = 1500
_HOW_TO_GIVE = (
    "Drawn with the published margins. Your own file: --input motor=FILE.csv with the columns of "
    f"pg15training ({', '.join(motor.COLUMNS)})."
)


class _GenderAlone(MultitypeFairness):
    penalised = ("gender",)


class _DealtOutcomes(MultitypeFairness):
    @staticmethod
    def finish(outcome: Tensor, generator: torch.Generator) -> Tensor:
        # The first network is the one without a penalty, which the others are compared with.
        dealt = torch.randperm(outcome.shape[1], generator=generator)
        return torch.cat([outcome[:1], outcome[1:, dealt]])


class _FirstCoin(MultitypeFairness):
    identities = replace(Identities(), outcome=lambda gap: gap * gerrymander.coins()[0])


class _OneByOne(MultitypeFairness):
    identities = replace(Identities(), concatenated=gerrymander.single_sum)


class _UsualSign(MultitypeFairness):
    identities = replace(Identities(), joint=gerrymander.joint_with_usual_sign)


class _PlugIn(MultitypeFairness):
    identities = replace(Identities(), u_statistics=gerrymander.v_statistics())


class _OneCellShifted(MultitypeFairness):
    identities = replace(Identities(), shift=0.5)


class _Clamped(MultitypeFairness):
    identities = replace(Identities(), clamped=True)

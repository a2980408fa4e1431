"""Differential information in an exact world (Won et al., arXiv 2505.23761)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.engine.threads import one_thread
from workbench.studies.differential_information import (
    chains,
    estimators,
    findings,
    laboratory,
    language_findings,
    language_model,
    measures,
    projected,
    tables,
)
from workbench.studies.differential_information.estimators import Instruments
from workbench.studies.differential_information.world import (
    CLOSED_FORM,
    OBJECTIVES,
    REJECTED,
    Objective,
    Trained,
    draw_updates,
    draw_world,
    train,
)
from workbench.study.base import Control, Figures, Paper, Study
from workbench.study.context import StudyContext
from workbench.study.knobs import knob
from workbench.study.result import StudyResult

PAPER = Paper(
    title=(
        "Differential Information Distribution: A Bayesian Perspective on Direct Preference "
        "Optimization"
    ),
    authors=("Yunjae Won", "Hyunji Lee", "Hyeonbin Hwang", "Minjoon Seo"),
    year=2025,
    venue="arXiv",
    arxiv="2505.23761",
    bibtex="""@misc{won2025differential,
  title = {Differential Information Distribution: A Bayesian Perspective on Direct Preference \
Optimization},
  author = {Won, Yunjae and Lee, Hyunji and Hwang, Hyeonbin and Seo, Minjoon},
  year = {2025},
  eprint = {2505.23761},
  archivePrefix = {arXiv},
}""",
)


@dataclass(frozen=True)
class Params:
    """Knobs of the exact world and of the estimator laboratory."""

    answers: int = knob(32, low=4, high=128, unit="answers", help="|Y|, answers to the one prompt")
    reference_spread: float = knob(
        1.0, low=0.1, high=3, unit="nats", help="Standard deviation of the reference's logits"
    )
    target_spread: float = knob(
        1.0, low=0.1, high=3, unit="nats", help="Standard deviation of the target's logits"
    )
    beta: float = knob(0.5, low=0.1, high=2, help="Inverse temperature of the losses")
    rejected: str = knob(
        CLOSED_FORM, choices=tuple(REJECTED), help="What rejected answers are drawn from"
    )
    steps: int = knob(1000, low=10, high=5000, unit="steps", help="Gradient steps")
    learning_rate: float = knob(0.2, low=0.001, high=1, help="Adam's first step size")
    batch: int = knob(
        256, low=8, high=4096, unit="pairs", help="Pairs a step where DPO-PG sees sampled ones"
    )
    repeats: int = knob(
        1000, low=20, high=5000, unit="repeats", help="Repeats of every sampled estimate"
    )
    language_model: bool = knob(
        False, help="Also train the default language model on both sets of pairs (a minute or so)"
    )
    language_epochs: int = knob(
        6, low=1, high=40, unit="epochs", help="Passes of the language model over its pairs"
    )
    language_beta: float = knob(0.1, low=0.01, high=2, help="DPO's beta for the language model")
    language_rate: float = knob(
        5e-4, low=1e-5, high=1e-2, help="Peak learning rate of the language model"
    )
    sharpest: float = knob(
        3.0, stage="measure", low=1, high=6, help="Largest |s| in the figure of q ∝ pi_ref^s"
    )
    pairs: int = knob(
        400, stage="measure", low=10, high=4000, unit="pairs", help="Pairs shown with log-margins"
    )


@dataclass(frozen=True)
class Fitted:
    """What the parts of the study fitted; the language model where it was asked for."""

    trained: Trained
    descents: projected.Descents
    laboratory: estimators.Laboratory
    by_length: chains.ByLength
    language: dict[str, language_model.Learnt] | None


@dataclass(frozen=True)
class Parts:
    """What a sabotaged variant may replace.

    Attributes:
        objectives: Losses by name.
        rejected: Distributions of rejected answers by name.
        project: What DPO-PG does to its gradient.
        instruments: How the laboratory computes.
        lengths: Lengths of the strings that it samples.
        power: H(q) and H(pi) - H(pi_ref) of the example, from s.
    """

    objectives: Mapping[str, Objective] = field(default_factory=lambda: OBJECTIVES)
    rejected: Mapping[str, Any] = field(default_factory=lambda: REJECTED)
    project: projected.Projection = projected.project
    instruments: Instruments = field(default_factory=Instruments)
    lengths: tuple[int, ...] = chains.LENGTHS
    power: measures.Power = measures.example_power


class DifferentialInformation(Study[Params, Fitted]):
    """Which reward recovers the target, what happens to likelihoods, and what H(q) says."""

    slug = "differential-information"
    title = "Differential information, exactly"
    family = "theory of DPO"
    tags = ("DPO", "DID", "log-likelihood displacement", "synthetic", "core")
    paper = PAPER
    question = (
        "When preferences encode the differential information from a reference to a target, is "
        "the log-ratio the only reward that reaches the target, must chosen answers then lose "
        "likelihood, and how well can the entropy of that information be estimated?"
    )
    not_shown = (
        "No benchmark. The world is one prompt with a handful of answers, and exact expectations; "
        "the language model, where it is switched on, is small, sees twelve pairs of ours a set, "
        "and is judged on the pairs that it learnt from. There the open-ended pairs, which are "
        "easier to tell apart, give the DID of lower entropy over candidates in every seed that "
        "we trained, against the paper's direction. The theory takes the reference for the "
        "distribution of chosen answers, which an instruction-tuned reference is not. The paper's "
        "sizes and optimiser could not be read; ours are given. DPO-PG is our reading of what is "
        "said of it."
    )
    params_type = Params
    presets = {  # noqa: RUF012 - declared once, as the other attributes
        "smoke": Params(answers=8, steps=200, repeats=100),
        "default": Params(),
        "full": Params(answers=64, steps=3000, repeats=2000, language_model=True),
    }
    inputs = language_model.INPUTS
    parts = Parts()

    def fit(self, params: Params, context: StudyContext) -> Fitted:
        """Train every objective and DPO under every pi_l, descend with DPO-PG, and sample."""
        share = 0.2 if params.language_model else 1.0
        exact = context.part(0, share)
        with one_thread():
            trained = self._train(params, exact.part(0, 0.4))
            descents = projected.descend_all(
                trained.world,
                params.steps,
                params.batch,
                self.parts.project,
                exact.part(0.4, 0.7),
            )
            found = estimators.experiment(
                params.repeats, self.parts.instruments, exact.part(0.7, 0.9)
            )
            by_length = chains.experiment(
                self.parts.lengths, params.repeats // 10, exact.part(0.9, 1)
            )
        language = self._language(params, context.part(share, 1)) if params.language_model else None
        return Fitted(trained, descents, found, by_length, language)

    def measure(self, fitted: Fitted, params: Params) -> StudyResult:
        """Distances, margins, displacement, projection, entropies, and the laboratory."""
        sampled = fitted.laboratory, fitted.by_length
        columns = {
            **tables.tables(fitted.trained, params.pairs, params.sharpest),
            **projected.tables(fitted.descents),
            **laboratory.tables(*sampled),
        }
        claims = (
            *findings.claims(fitted.trained, self.parts.power),
            *projected.claims(fitted.descents),
            *laboratory.claims(*sampled),
        )
        if fitted.language is not None:
            columns |= language_findings.tables(fitted.language)
            claims += language_findings.claims(fitted.language)
        return StudyResult(columns, claims)

    def figures(self, result: StudyResult) -> Figures:
        """The distances to the target first, the laboratory last."""
        from workbench.studies.differential_information.figures import draw

        return draw(result)

    @property
    def controls(self) -> Mapping[str, Control]:
        """A sabotaged variant for every gated claim."""
        from workbench.studies.differential_information.sabotage import controls

        return controls()

    def _language(self, params: Params, context: StudyContext) -> dict[str, language_model.Learnt]:
        settings = language_model.Settings(
            params.language_beta, params.language_rate, params.language_epochs
        )
        return language_model.learn(settings, context)

    def _train(self, params: Params, context: StudyContext) -> Trained:
        world = draw_world(
            params.answers,
            params.reference_spread,
            params.target_spread,
            params.beta,
            params.rejected,
            context,
        )
        rejected = {
            name: make(world.target, world.reference, world.beta)
            for name, make in self.parts.rejected.items()
        }
        objectives = self.parts.objectives
        by_objective = {name: (loss, world.rejected) for name, loss in objectives.items()}
        by_rejected = {name: (objectives["DPO"], logp) for name, logp in rejected.items()}
        runs = {**by_objective, **{f"DPO, {name}": run for name, run in by_rejected.items()}}
        steps, found = train(world, runs, params.steps, params.learning_rate, context)
        return Trained(
            world,
            steps,
            {name: found[name] for name in by_objective},
            {name: found[f"DPO, {name}"] for name in by_rejected},
            rejected,
            draw_updates(params.answers, context),
        )

"""Sabotaged variants of the study, each of which must fail a claim."""

from collections.abc import Mapping

from torch import Tensor

from workbench.metrics.information import snis_entropy
from workbench.studies.differential_information import DifferentialInformation, Parts
from workbench.studies.differential_information.estimators import Instruments, plug_in_entropy
from workbench.studies.differential_information.measures import example_power
from workbench.studies.differential_information.world import CLOSED_FORM, OBJECTIVES, REJECTED
from workbench.study.base import Control
from workbench.study.knobs import KnobValue

_NO_TRAINING: Mapping[str, KnobValue] = {"steps": 10}
_NO_SAMPLING: Mapping[str, KnobValue] = {"repeats": 20}
_ONLY_THE_WORLD = {**_NO_TRAINING, **_NO_SAMPLING}


def controls() -> Mapping[str, Control]:
    """By name; what a claim does not read is cut short."""
    return {**_of_the_world(), **_of_training(), **_of_the_laboratory()}


def _of_the_world() -> Mapping[str, Control]:
    return {
        "uniform-margins": Control(
            "power-law",
            "Uniform rejected answers obey no power law with this target.",
            {"rejected": "uniform", **_ONLY_THE_WORLD},
        ),
        "doubled-beta": Control(
            "optimum-is-target",
            "Rejected answers made for twice the beta put the optimum elsewhere.",
            {"rejected": "doubled beta", **_ONLY_THE_WORLD},
        ),
        "other-rejected": Control(
            "loss-is-bayes",
            "The target is no longer the Bayes rule where answers are rejected uniformly.",
            {"rejected": "uniform", **_ONLY_THE_WORLD},
        ),
        "other-margin": Control(
            "margin-is-jeffreys",
            "Made for twice the beta, rejected answers have twice the divergence.",
            {"rejected": "doubled beta", **_ONLY_THE_WORLD},
        ),
        "sign-lost": Control(
            "upside-down-sharpens",
            "With |s| for s, an update that turns the reference over looks like sharpening it.",
            _ONLY_THE_WORLD,
            _SignLost(),
        ),
        "without-update": Control(
            "minus-one-smooths",
            "With s = 0 nothing is updated, so that nothing becomes smoother.",
            _ONLY_THE_WORLD,
            _WithoutUpdate(),
        ),
    }


def _of_training() -> Mapping[str, Control]:
    return {
        "uniform-rejected": Control(
            "reaches-target",
            "Answers rejected uniformly encode pi_ref itself, not the target.",
            {"rejected": "uniform", **_NO_SAMPLING},
        ),
        "reference-rejected": Control(
            "displacement-chosen",
            "Pairs from one distribution carry no information, so that nothing moves.",
            {"rejected": "reference", **_NO_SAMPLING},
        ),
        "without-reference": Control(
            "displacement-rejected",
            "DPO without its reference is CPO, whose optimum is another.",
            _NO_SAMPLING,
            _WithoutReference(),
        ),
        "all-with-reference": Control(
            "others-stay-away",
            "If every loss is DPO's, none stays away.",
            _NO_SAMPLING,
            _AllDpo(),
        ),
        "one-rejected": Control(
            "wrong-rejected-floor",
            "If every rejected distribution is the closed form, none has a floor.",
            _NO_SAMPLING,
            _OneRejected(),
        ),
        "without-projection": Control(
            "projection-keeps-chosen",
            "A projection that takes nothing out is DPO, which displaces.",
            _NO_SAMPLING,
            _WithoutProjection(),
        ),
        "without-projection-target": Control(
            "projection-stays-away",
            "A projection that takes nothing out is DPO, which approaches the target.",
            _NO_SAMPLING,
            _WithoutProjection(),
        ),
    }


def _of_the_laboratory() -> Mapping[str, Control]:
    return {
        "plug-in": Control(
            "known-bias",
            "The entropy of the weights is not H(q), and has another bias.",
            _NO_TRAINING,
            _PlugIn(),
        ),
        "forgotten-proposal": Control(
            "known-ess",
            "Weights that leave the proposal out are more even than they should be.",
            _NO_TRAINING,
            _ForgottenProposal(),
        ),
        "half-the-draws": Control(
            "delta-method-error",
            "With half the draws the spread is the square root of two larger.",
            _NO_TRAINING,
            _HalfTheDraws(),
        ),
        "true-estimator": Control(
            "plug-in-grows",
            "The true estimator in the plug-in's place does not grow.",
            _NO_TRAINING,
            _TrueEstimator(),
        ),
        "copies-everywhere": Control(
            "copies-inflate",
            "If the candidate set keeps its copies, it is inflated alike.",
            _NO_TRAINING,
            _CopiesEverywhere(),
        ),
        "short-answers": Control(
            "long-answers-degenerate",
            "Of draws of single tokens most count.",
            _NO_TRAINING,
            _ShortAnswers(),
        ),
    }


def _untouched(loss: Tensor, chosen: Tensor) -> Tensor:
    return loss


def _ratio_alone(log_ratio: Tensor, proposal: Tensor) -> Tensor:
    return log_ratio


class _SignLost(DifferentialInformation):
    parts = Parts(power=lambda s: example_power(abs(s)))


class _WithoutUpdate(DifferentialInformation):
    parts = Parts(power=lambda s: example_power(0.0))


class _WithoutReference(DifferentialInformation):
    parts = Parts(objectives={**OBJECTIVES, "DPO": OBJECTIVES["CPO"]})


class _AllDpo(DifferentialInformation):
    parts = Parts(objectives=dict.fromkeys(OBJECTIVES, OBJECTIVES["DPO"]))


class _OneRejected(DifferentialInformation):
    parts = Parts(rejected=dict.fromkeys(REJECTED, REJECTED[CLOSED_FORM]))


class _WithoutProjection(DifferentialInformation):
    parts = Parts(project=_untouched)


class _PlugIn(DifferentialInformation):
    parts = Parts(instruments=Instruments(estimate=plug_in_entropy))


class _ForgottenProposal(DifferentialInformation):
    parts = Parts(instruments=Instruments(log_weight=_ratio_alone))


class _HalfTheDraws(DifferentialInformation):
    parts = Parts(instruments=Instruments(used=0.5))


class _TrueEstimator(DifferentialInformation):
    parts = Parts(instruments=Instruments(plug_in=snis_entropy))


class _CopiesEverywhere(DifferentialInformation):
    parts = Parts(instruments=Instruments(distinct=False))


class _ShortAnswers(DifferentialInformation):
    parts = Parts(lengths=(1,) * len(Parts().lengths))

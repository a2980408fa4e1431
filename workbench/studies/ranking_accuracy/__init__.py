"""Preference learning algorithms do not learn preference rankings (Chen et al., 2405.19534)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workbench.data.sources import open_source
from workbench.data.worlds import World, WorldShape
from workbench.engine.threads import one_thread
from workbench.metrics.ranking import flip_threshold
from workbench.studies.ranking_accuracy.claims import (
    effects,
    identities,
    near_the_reference,
    reports,
)
from workbench.studies.ranking_accuracy.language_model import LanguageScores, score_language
from workbench.studies.ranking_accuracy.mechanism import (
    TABLE,
    TINY,
    Learner,
    PairScores,
    Run,
    Sizes,
    Worlds,
    run_worlds,
)
from workbench.studies.ranking_accuracy.tables import (
    Columns,
    Course,
    Fitted,
    Source,
    accuracy_table,
    course_table,
    courses,
    extreme_pairs,
    flip_table,
    idealized_table,
    sources,
    transition_table,
    votes_table,
)
from workbench.studies.ranking_accuracy.votes import FORMULAS, Ideal, simulated_pairs
from workbench.study.base import Control, Figures, Paper, Study
from workbench.study.context import Input, StudyContext
from workbench.study.knobs import knob
from workbench.study.result import StudyResult

PAPER = Paper(
    title="Preference Learning Algorithms Do Not Learn Preference Rankings",
    authors=(
        "Angelica Chen",
        "Sadhika Malladi",
        "Lily H. Zhang",
        "Xinyi Chen",
        "Qiuyi Zhang",
        "Rajesh Ranganath",
        "Kyunghyun Cho",
    ),
    year=2024,
    venue="NeurIPS",
    arxiv="2405.19534",
    bibtex="""@inproceedings{chen2024preference,
  title = {Preference Learning Algorithms Do Not Learn Preference Rankings},
  author = {Chen, Angelica and Malladi, Sadhika and Zhang, Lily H. and Chen, Xinyi and \
Zhang, Qiuyi and Ranganath, Rajesh and Cho, Kyunghyun},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2024},
  eprint = {2405.19534},
  archivePrefix = {arXiv},
}""",
)
_SIMULATED = 20_000


@dataclass(frozen=True)
class Params:
    """Knobs of the world, of its training, and of the language models."""

    prompts: int = knob(12, low=4, high=64, unit="prompts", help="Prompts of the world")
    answers: int = knob(8, low=4, high=24, unit="answers", help="Answers to each prompt")
    pairs: int = knob(
        160, low=12, high=2000, unit="pairs",
        help="Pairs to train on, at most two thirds of the world's; half as many are held out",
    )  # fmt: skip
    raters: int = knob(3, low=0, high=25, unit="raters", help="Who judge a pair; 0 for all")
    reference_spread: float = knob(
        3.0, low=0.1, high=10, unit="nats", help="Standard deviation of the reference's logits"
    )
    agreement: float = knob(
        0.1, low=-1, high=1, help="Correlation of the reference's logits with the true reward"
    )
    beta: float = knob(1.0, low=0.05, high=10, help="Inverse temperature of the loss in the world")
    gammas: int = knob(5, choices=(3, 5, 9), help="How many gamma from 0 to 2 are trained")
    steps: int = knob(120, low=10, high=2000, unit="steps", help="Gradient steps of each run")
    batch_size: int = knob(32, low=4, high=512, unit="pairs", help="Pairs a step")
    table_rate: float = knob(0.05, low=1e-7, high=1, help="Learning rate of the table")
    tiny_rate: float = knob(2e-4, low=1e-8, high=0.1, help="Learning rate of the transformer")
    imitation: int = knob(
        200, low=10, high=2000, unit="steps",
        help="Supervised steps in which the transformer learns the reference",
    )  # fmt: skip
    reference_model: str = knob(
        "default", help="Language model that reads the pairs of the input; empty for none"
    )
    policy_model: str = knob(
        "default+policy", help="Tuned language model whose reference that one is"
    )
    language_pairs: int = knob(
        48, low=4, high=5000, unit="pairs", help="Pairs of the input that are read"
    )
    shown: str = knob(
        TINY, stage="measure", choices=(TINY, TABLE), help="Whose steps the figures show"
    )
    language_beta: float = knob(
        0.1, stage="measure", low=0.001, high=10, help="beta of the language model's losses"
    )
    epsilon: float = knob(
        0.001, stage="measure", low=1e-6, high=0.4,
        help="Share that a unanimous vote leaves to the other side",
    )  # fmt: skip
    near: float = knob(
        0.05, stage="measure", low=0.001, high=0.9,
        help="Share of the largest squared distance up to which weights are near the reference's",
    )  # fmt: skip


class RankingAccuracy(Study[Params, Fitted]):
    """Whether DPO learns rankings, what it costs where it does, and what would be ideal."""

    slug = "ranking-accuracy"
    title = "Ranking accuracy"
    family = "theory of DPO"
    tags = ("DPO", "ranking accuracy", "win rate", "log-likelihood displacement", "core")
    paper = PAPER
    question = (
        "Does a policy that is trained on preferences come to find the chosen answers likelier "
        "than the rejected ones, which pairs does it never get right, and is it better for it?"
    )
    not_shown = (
        "No model is trained on HH-RLHF and no GPT-4 judges: the runs are those of a table of "
        "logits and of a transformer of some ten thousand weights in a world of a hundred answers, "
        "whose true reward is known. The log-ratios there are a few nats, so beta is 1 where the "
        "paper has 0.1 and tens of nats. The language model is read on a few dozen pairs, before "
        "and after a light tuning on other pairs, and is not trained here."
    )
    params_type = Params
    presets = {  # noqa: RUF012 - declared once, as the other attributes
        "smoke": Params(
            prompts=8, answers=6, pairs=72, raters=0, gammas=3, steps=40, batch_size=18,
            imitation=180, tiny_rate=3e-4, reference_model="", policy_model="",
        ),
        "default": Params(),
        "full": Params(
            prompts=32, answers=12, pairs=800, gammas=9, steps=600, batch_size=64, imitation=600,
            tiny_rate=1e-4, language_pairs=1000,
        ),
    }  # fmt: skip
    inputs: Mapping[str, Input] = {"pairs": open_source("teaching")}
    formulas: Mapping[str, Ideal] = FORMULAS

    def fit(self, params: Params, context: StudyContext) -> Fitted:
        """Train in the world, and let the language models read the input's pairs."""
        has_language = bool(params.reference_model.strip() and params.policy_model.strip())
        in_world = context.part(0.0, 0.6 if has_language else 1.0)
        with one_thread():
            worlds = self._run_worlds(_sizes(params), in_world)
            simulated = simulated_pairs(_SIMULATED, context.generator("votes"))
        language = None
        if has_language:
            language = self._read(params, context.part(0.6, 1.0))
        return Fitted(params.beta, worlds, language, simulated)

    def measure(self, fitted: Fitted, params: Params) -> StudyResult:
        """Accuracies, transitions, courses, and the two formulas of R*."""
        found = list(courses(fitted))
        origins = sources(fitted, params.epsilon, params.language_beta)
        ideals = [self._oriented(origin.before) for origin in origins]
        claims = (
            *identities(fitted, found, ideals, dict(self.formulas), self._flips_at),
            *effects(found, params.near),
            *reports(origins),
        )
        return StudyResult(_tables(fitted, found, origins, params), claims)

    def figures(self, result: StudyResult) -> Figures:
        """A dozen figures, the accuracies of all models first."""
        from workbench.studies.ranking_accuracy.figures import draw

        return draw(result)

    @property
    def controls(self) -> Mapping[str, Control]:
        """Theorems without a term, wrong labels, and training that does not do it."""
        return {
            "gamma-lost": Control(
                "flip-curve",
                "softplus(-beta c) is the curve of gamma 1; other gammas have others.",
                study=_GammaLost(),
            ),
            "certain-raters": Control(
                "ideal-optimum",
                "If all raters agree with the majority the optimum lies at infinity.",
                study=_CertainRaters(),
            ),
            "minority-labels": Control(
                "ideal-falls",
                "Where the minority's answer counts as chosen, R* rises with beta.",
                study=_MinorityLabels(),
            ),
            "code-for-equation": Control(
                "formula-eq3",
                "The released code's formula is not Eq. 3.",
                study=_Exchanged(),
            ),
            "equation-for-code": Control(
                "formula-code",
                "Nor is Eq. 3 the released code's formula.",
                study=_Exchanged(),
            ),
            "no-training": Control(
                "loss-falls",
                "Weights that do not move leave the loss at log 2.",
                {"tiny_rate": 1e-8},
            ),
            "without-reference": Control(
                "few-flip",
                "Without the reference's log-ratio in the loss most pairs flip.",
                study=_WithoutReference(),
            ),
            "one-gamma": Control(
                "small-gamma-ranks",
                "Runs of one gamma rank alike.",
                study=_OneGamma(),
            ),
            "one-gamma-wins": Control(
                "small-gamma-loses",
                "Runs of one gamma win alike.",
                study=_OneGamma(),
            ),
            "opposite-taste": Control(
                "near-together",
                "A judge who likes what the raters dislike finds that answers get worse.",
                study=_OppositeTaste(),
            ),
            "closed-world": Control(
                "far-apart",
                "Where nothing can be written but the world's answers, both go on rising.",
                study=_ClosedWorld(),
            ),
            "open-world": Control(
                "table-together",
                "Where other things can be written, the win rate falls as the accuracy rises.",
                study=_OpenWorld(),
            ),
        }

    def _run_worlds(self, sizes: Sizes, context: StudyContext) -> Worlds:
        return run_worlds(sizes, self._shares, context)

    def _read(self, params: Params, context: StudyContext) -> LanguageScores:
        names = params.reference_model, params.policy_model
        return score_language(context.pairs("pairs"), params.language_pairs, *names, context)

    def _shares(self, world: World) -> Tensor:
        """Rater shares under which the population's loss is least."""
        return world.rater_share()

    def _flips_at(self, c: Tensor, beta: float, gamma: float) -> Tensor:
        return flip_threshold(c, beta, gamma)

    def _oriented(self, pairs: PairScores) -> PairScores:
        """The pairs, chosen by the majority of the raters."""
        return pairs


class _GammaLost(RankingAccuracy):
    def _flips_at(self, c: Tensor, beta: float, gamma: float) -> Tensor:
        return flip_threshold(c, beta)


class _CertainRaters(RankingAccuracy):
    def _shares(self, world: World) -> Tensor:
        share = world.rater_share()
        return torch.where(share == 0.5, share, (share > 0.5).double())


class _MinorityLabels(RankingAccuracy):
    def _oriented(self, pairs: PairScores) -> PairScores:
        return pairs.swapped()


class _Exchanged(RankingAccuracy):
    formulas = {**FORMULAS, "eq3": FORMULAS["code"], "code": FORMULAS["eq3"]}  # noqa: RUF012


class _WithoutReference(RankingAccuracy):
    def _run_worlds(self, sizes: Sizes, context: StudyContext) -> Worlds:
        return run_worlds(replace(sizes, gammas=(0.0,)), self._shares, context)


class _OneGamma(RankingAccuracy):
    def _run_worlds(self, sizes: Sizes, context: StudyContext) -> Worlds:
        return run_worlds(replace(sizes, gammas=(1.0,)), self._shares, context)


class _ClosedWorld(RankingAccuracy):
    """The table in the transformer's place."""

    def _run_worlds(self, sizes: Sizes, context: StudyContext) -> Worlds:
        return _under_one_name(run_worlds(sizes, self._shares, context), TABLE)


class _OpenWorld(RankingAccuracy):
    """The transformer in the table's place."""

    def _run_worlds(self, sizes: Sizes, context: StudyContext) -> Worlds:
        return _under_one_name(run_worlds(sizes, self._shares, context), TINY)


class _OppositeTaste(RankingAccuracy):
    def _run_worlds(self, sizes: Sizes, context: StudyContext) -> Worlds:
        worlds = run_worlds(sizes, self._shares, context)
        return replace(worlds, reward=-worlds.reward)


def _under_one_name(worlds: Worlds, name: str) -> Worlds:
    """One learner in both places."""
    one = worlds.learner(name)
    return replace(worlds, learners=(replace(one, name=TABLE), replace(one, name=TINY)))


def _sizes(params: Params) -> Sizes:
    total = params.prompts * params.answers * (params.answers - 1) // 2
    trained = min(params.pairs, 2 * total // 3)
    return Sizes(
        shape=WorldShape(
            params.prompts,
            params.answers,
            reference_spread=params.reference_spread,
            agreement=params.agreement,
        ),
        pairs=trained,
        held_out=min((trained + 1) // 2, total - trained),
        raters=params.raters,
        beta=params.beta,
        gammas=tuple(2 * n / (params.gammas - 1) for n in range(params.gammas)),
        steps=params.steps,
        batch_size=params.batch_size,
        rates={TABLE: params.table_rate, TINY: params.tiny_rate},
        imitation=params.imitation,
    )


def _tables(
    fitted: Fitted,
    found: Sequence[tuple[Learner, Run, Course]],
    origins: Sequence[Source],
    params: Params,
) -> dict[str, Columns]:
    course = course_table(found)
    last = max(course["step"])
    tables = {
        "accuracy": accuracy_table(origins),
        "idealized": idealized_table(origins),
        "course": course,
        "ends": _rows(course, [step == last for step in course["step"]]),
        "checkpoints": _checkpoints(course, params),
        "pairs": extreme_pairs(origins),
        "formulas": votes_table(fitted.simulated),
        **_shown_tables(fitted, found, origins, params),
    }
    if fitted.language is not None:
        at = flip_threshold(origins[-1].before.c, params.language_beta)
        tables["language_flips"] = flip_table(origins[-1], at)
    return tables


def _shown_tables(
    fitted: Fitted,
    found: Sequence[tuple[Learner, Run, Course]],
    origins: Sequence[Source],
    params: Params,
) -> dict[str, Columns]:
    """Tables of the DPO run of the learner that is shown."""
    shown = fitted.worlds.learner(params.shown)
    dpo = shown.run(1.0)
    read = next(read for _, run, read in found if run is dpo)
    origin = origins[[each.name for each in fitted.worlds.learners].index(shown.name)]
    return {
        "transitions": transition_table(shown, dpo, read, fitted.beta),
        "flips": flip_table(origin, flip_threshold(origin.before.c, fitted.beta)),
    }


def _rows(table: Columns, kept: Sequence[bool]) -> Columns:
    return {
        name: [value for value, keep in zip(values, kept, strict=True) if keep]
        for name, values in table.items()
    }


def _checkpoints(course: Columns, params: Params) -> Columns:
    """Every record of the learner that is shown, and whether it is near its reference."""
    table = _rows(course, [policy == params.shown for policy in course["policy"]])
    near = near_the_reference(torch.tensor(table["distance"]), params.near)
    return {**table, "near": near.tolist()}

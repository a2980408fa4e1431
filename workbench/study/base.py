"""What a study is: a paper, its parameters, a fit, a measurement, figures, and controls.

See `workbench.study` for a whole study in sixty lines.
"""

import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar

from workbench.study.context import Input, StudyContext
from workbench.study.errors import StudyError
from workbench.study.knobs import KnobValue, ParamsT, knobs_of, with_knobs
from workbench.study.result import StudyResult

PRESETS = ("smoke", "default", "full")
"""Sizes of a run: seconds, under a minute on two cores, and as long as the paper deserves."""
Figure: TypeAlias = Any
"""A `plotly.graph_objects.Figure`, which has no types; see `workbench.study.plot`."""
Figures: TypeAlias = Mapping[str, Figure]
FittedT = TypeVar("FittedT")
_SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_ARXIV = re.compile(r"\d{4}\.\d{4,5}|[a-z-]+(\.[A-Z]{2})?/\d{7}")


@dataclass(frozen=True)
class Paper:
    """The publication that a study miniaturises.

    Attributes:
        title: Its title.
        authors: Its authors, "Given Family" each.
        year: Year of publication.
        venue: Where it appeared; "arXiv" for a preprint.
        arxiv: Identifier on arXiv without version, or "" where it is not there.
        bibtex: Its BibTeX entry.
    """

    title: str
    authors: tuple[str, ...]
    year: int
    venue: str
    bibtex: str
    arxiv: str = ""

    @property
    def url(self) -> str:
        """Its page on arXiv, or "" where it is not there."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""

    @property
    def citation(self) -> str:
        """Authors, year, title and venue in one line."""
        names = ", ".join(self.authors[:3]) + (" et al." if len(self.authors) > 3 else "")
        return f"{names} ({self.year}). {self.title}. {self.venue}."


@dataclass(frozen=True)
class Control:
    """A sabotaged variant of a study, which must fail a claim.

    It runs with the parameters and seeds of the run that it controls.

    Attributes:
        fails: Name of the gated claim that must not hold.
        why: What is sabotaged, and why the claim must then fail.
        settings: Knobs that are set differently.
        study: The variant, for example an instance of a subclass; None for the study itself.
    """

    fails: str
    why: str
    settings: Mapping[str, KnobValue] = field(default_factory=dict)
    study: "Study[Any, Any] | None" = None


class Study(Protocol[ParamsT, FittedT]):
    """A paper's mechanism as a plug-in; derive from it and fill in what has no value.

    Attributes:
        slug: Its name in addresses and on the command line; the folder's, with hyphens.
        title: Its name on the page.
        family: The group of studies it belongs to.
        tags: Words by which it is found.
        paper: The publication.
        question: What the study asks, in one or two sentences.
        not_shown: What this miniature does not show.
        params_type: Frozen dataclass of knobs; see `workbench.study.knobs`.
        presets: Parameters by preset, one each of `PRESETS`.
        inputs: What may be edited before a fit, by name; read through the context.
    """

    slug: str
    title: str
    family: str
    tags: tuple[str, ...] = ()
    paper: Paper
    question: str
    not_shown: str
    params_type: type[ParamsT]
    presets: Mapping[str, ParamsT]
    inputs: Mapping[str, Input] = {}

    @abstractmethod
    def fit(self, params: ParamsT, context: StudyContext) -> FittedT:
        """Do the slow part, seeded and cancellable, and report progress up to 1.

        The measure knobs it sees stand at their defaults, whatever the user set. What it returns
        is kept on disk; see `workbench.study.fitted` for what may be in it.
        """
        ...

    @abstractmethod
    def measure(self, fitted: FittedT, params: ParamsT) -> StudyResult:
        """Read tables and claims off what was fitted; pure, and fast enough for a slider."""
        ...

    @abstractmethod
    def figures(self, result: StudyResult) -> Figures:
        """Figures by name from the tables alone, the paper's main figure first."""
        ...

    @property
    def controls(self) -> Mapping[str, Control]:
        """Sabotaged variants by name; every gated claim should have one that fails it."""
        return {}


def preset(study: Study[ParamsT, FittedT], name: str = "default") -> ParamsT:
    """The parameters of a preset.

    Raises:
        StudyError: there is none of that name.
    """
    if name not in study.presets:
        raise StudyError(f"There is no preset {name!r}; choose {', '.join(study.presets)}.")
    return study.presets[name]


def check_study(study: Study[Any, Any]) -> None:
    """Refuse a study whose declarations are incomplete.

    Raises:
        StudyError: says what is missing, or out of range.
    """
    if not _SLUG.fullmatch(study.slug):
        raise StudyError(f"The slug {study.slug!r} must be lower-case words joined by hyphens.")
    for name in ("title", "family", "question", "not_shown"):
        if not getattr(study, name).strip():
            raise StudyError(f"{study.slug} has no {name}.")
    _check_paper(study)
    knobs_of(study.params_type)
    for name in PRESETS:
        if not isinstance(preset(study, name), study.params_type):
            raise StudyError(f"{study.slug}: the preset {name} is no {study.params_type.__name__}.")
        with_knobs(preset(study, name), {})
    for control in study.controls.values():
        with_knobs(preset(study), control.settings)


def _check_paper(study: Study[Any, Any]) -> None:
    paper = study.paper
    for name in ("title", "authors", "venue", "bibtex"):
        if not getattr(paper, name):
            raise StudyError(f"The paper of {study.slug} has no {name}.")
    if not paper.bibtex.lstrip().startswith("@") or paper.title not in paper.bibtex:
        raise StudyError(f"The BibTeX entry of {study.slug} is none, or has another title.")
    if paper.arxiv and not _ARXIV.fullmatch(paper.arxiv):
        raise StudyError(f"{study.slug}: {paper.arxiv!r} is no arXiv identifier, as 2305.18290.")

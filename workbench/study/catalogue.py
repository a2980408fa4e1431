"""Which studies there are: our own, and those of installed packages.

A third party's study is an entry point of the group `workbench.studies`, its slug for a name:

    [project.entry-points."workbench.studies"]
    my-study = "my_package.my_study:MyStudy"

Nothing is imported before a study is asked for. One that cannot be loaded, or whose slug is taken,
is reported as a `Failure` and harms no other.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from workbench.study.base import Study, check_study
from workbench.study.errors import StudyError

GROUP = "workbench.studies"
_OURS = "workbench.studies"
BUILT_IN: Mapping[str, str] = {
    "differential-information": f"{_OURS}.differential_information:DifferentialInformation",
    "ranking-accuracy": f"{_OURS}.ranking_accuracy:RankingAccuracy",
    "multitype-fairness": f"{_OURS}.multitype_fairness:MultitypeFairness",
}
"""Slug to "module:class" of every study that comes with the workbench."""


@dataclass(frozen=True)
class Entry:
    """A study that is named but not yet loaded.

    Attributes:
        slug: The study's slug.
        target: "module:class".
        origin: The distribution that brings it, "workbench" for our own.
    """

    slug: str
    target: str
    origin: str = "workbench"

    def __str__(self) -> str:
        return f"{self.target} of {self.origin}"


@dataclass(frozen=True)
class Failure:
    """A study that is named and cannot be used, with the reason."""

    entry: Entry
    error: str


@dataclass(frozen=True)
class Catalogue:
    """Every study by slug, and those that failed."""

    studies: Mapping[str, Study[Any, Any]]
    failures: tuple[Failure, ...]
    origins: Mapping[str, str] = field(default_factory=dict)
    """Slug to the distribution that brings the study."""


def entries() -> list[Entry]:
    """Every study that is named, our own first; a slug may occur twice."""
    own = [Entry(slug, target) for slug, target in BUILT_IN.items()]
    found = sorted(entry_points(group=GROUP), key=lambda each: (each.name, _origin(each)))
    return own + [Entry(each.name, each.value, _origin(each)) for each in found]


def open_catalogue() -> Catalogue:
    """Load every study; what cannot be loaded is among the failures."""
    studies: dict[str, Study[Any, Any]] = {}
    origins, failures = dict[str, str](), []
    for entry, holder in _with_holders(entries()):
        try:
            studies[entry.slug] = _load_unique(entry, holder)
            origins[entry.slug] = entry.origin
        except StudyError as error:
            failures.append(Failure(entry, str(error)))
    return Catalogue(studies, tuple(failures), origins)


def load_study(slug: str) -> Study[Any, Any]:
    """The study of that slug; no other is imported.

    Raises:
        StudyError: there is none (the nearest is named), or it cannot be loaded.
    """
    known = entries()
    for entry in known:
        if entry.slug == slug:
            return _load(entry)
    near = get_close_matches(slug, [entry.slug for entry in known], n=1)
    hint = f"did you mean {near[0]}?" if near else "see `workbench study list`."
    raise StudyError(f"There is no study {slug!r}; {hint}")


def _origin(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an unknown distribution"


def _with_holders(found: list[Entry]) -> Iterator[tuple[Entry, Entry]]:
    """Each entry with the first of its slug, which may be itself."""
    first: dict[str, Entry] = {}
    for entry in found:
        yield entry, first.setdefault(entry.slug, entry)


def _load_unique(entry: Entry, holder: Entry) -> Study[Any, Any]:
    if entry is not holder:
        raise StudyError(
            f"The slug {entry.slug!r} is given twice, by {holder} and by {entry}; the first is "
            "used. Rename or remove one."
        )
    return _load(entry)


def _load(entry: Entry) -> Study[Any, Any]:
    try:
        module, _, name = entry.target.partition(":")
        study: Study[Any, Any] = getattr(import_module(module), name)()
        check_study(study)
    except StudyError as error:
        raise StudyError(f"{entry} is ill-formed: {error}") from error
    except (Exception, SystemExit) as error:
        # Whatever a stranger's module does at import must not take the others with it.
        raise StudyError(f"{entry} cannot be loaded: {type(error).__name__}: {error}") from error
    if study.slug != entry.slug:
        raise StudyError(f"{entry} is named {entry.slug!r} but calls itself {study.slug!r}.")
    return study

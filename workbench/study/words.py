"""What page, notebook, command line and documentation say of a study, in one place."""

from collections.abc import Iterable, Mapping, Sized
from typing import Any

from workbench.study.base import Study
from workbench.study.result import Claim
from workbench.study.runner import ControlVerdict, StudyReport, Verdict
from workbench.study.runs import package_of

CLAIM_HEAD = ("Claim", "Kind", "Measured", "Expected", "The paper says", "Verdict", "Seeds")
CONTROL_HEAD = ("Sabotage", "Must fail", "Measured", "Verdict")
SIGNS: Mapping[str, str] = {"passed": "✓", "failed": "✗", "not checked": "○", "never run": "·"}
"""What stands before a badge, so that no reader depends on its colour."""
_KINDS = {"unit": "identity", "effect": "effect", "report": "report"}


def source_of(study: Study[Any, Any]) -> str:
    """Where the study's code lies, as a path within its distribution."""
    return package_of(study).replace(".", "/")


def authors_of(study: Study[Any, Any]) -> str:
    """The paper's authors by family name, and its year."""
    families = [name.split()[-1] for name in study.paper.authors]
    names = " and ".join(families) if len(families) < 3 else f"{families[0]} et al."
    return f"{names}, {study.paper.year}"


def claim_cells(verdict: Verdict) -> list[str]:
    """One row of the table of claims, under `CLAIM_HEAD`."""
    claim: Claim = verdict.claim
    unit = f" {claim.unit}" if claim.unit else ""
    return [
        claim.statement,
        _KINDS[claim.kind],
        f"{claim.measured:.4g}{unit}",
        claim.expectation or "–",
        claim.paper or "–",
        verdict_words(verdict),
        f"{verdict.seeds_holding} of {len(verdict.measured)}" if claim.relation else "–",
    ]


def verdict_words(verdict: Verdict) -> str:
    """Whether a claim holds; a report that expects nothing says nothing."""
    if not verdict.claim.relation:
        return "reported"
    return "✓ holds" if verdict.holds else "✗ fails"


def control_cells(found: ControlVerdict) -> list[str]:
    """One row of the table of controls, under `CONTROL_HEAD`."""
    claim = found.verdict.claim
    measured = f"{claim.measured:.4g}, expected {claim.expectation}"
    caught = "✓ caught" if found.caught else "✗ not caught"
    return [f"{found.name}: {found.control.why}", found.control.fails, measured, caught]


def summary_of(report: StudyReport) -> str:
    """One line on a run's claims, its seeds and its controls."""
    gated = [each for each in report.verdicts if each.claim.gated]
    holding = sum(each.holds for each in gated)
    seeds = ", ".join(str(each.seed) for each in report.runs)
    words = f"{holding} of {len(gated)} gated claims hold (seed{_s(report.runs)} {seeds})"
    if not report.controls:
        return f"{words}."
    caught = sum(each.caught for each in report.controls)
    return f"{words}; {caught} of {len(report.controls)} controls are caught."


def papers_page(studies: Iterable[Study[Any, Any]]) -> str:
    """The studies as a page of Markdown, by family."""
    families: dict[str, list[Study[Any, Any]]] = {}
    for study in studies:
        families.setdefault(study.family, []).append(study)
    parts = [_chapter(family, families[family]) for family in sorted(families)]
    head = (
        "# Papers and their studies\n\n"
        "Written by `workbench study list --markdown > docs/papers.md`; do not edit by hand.\n"
    )
    return "\n".join([head, *parts])


def _chapter(family: str, studies: list[Study[Any, Any]]) -> str:
    return "\n".join([f"## {_plain(family)}\n", *map(_section, studies)])


def _section(study: Study[Any, Any]) -> str:
    paper = study.paper
    link = f" [arXiv:{paper.arxiv}]({paper.url})" if paper.arxiv else ""
    lines = [
        f"### {_plain(study.title)} (`{study.slug}`)",
        f"{_plain(paper.citation)}{link}",
        _plain(study.question),
        f"**Not shown.** {_plain(study.not_shown)}",
        f"Tags: {_plain(', '.join(study.tags) or 'none')}. Controls: {len(study.controls)}. "
        f"Source: `{source_of(study)}`. Run: `workbench study run {study.slug} --seeds 5 --check`",
    ]
    return "\n\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """A text that Markdown shows as it is."""
    for sign in "\\`*_<>[]|":
        text = text.replace(sign, f"\\{sign}")
    return text


def _s(things: Sized) -> str:
    return "" if len(things) == 1 else "s"

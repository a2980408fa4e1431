"""`workbench study`: list the studies, show one, run one, repeat a run.

Exit codes: 0 done (and, with `--check`, every gated claim holds), 1 a gated claim fails, a control
is not caught, a repeated run differs, or the input was at fault.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter

from workbench.app.printing import Json, print_json, print_rows, progress

if TYPE_CHECKING:
    from workbench.study.base import Study
    from workbench.study.context import Input
    from workbench.study.knobs import Knob
    from workbench.study.result import Claim
    from workbench.study.runner import StudyReport, Verdict

app = cyclopts.App(name="study", help="List, show and run the studies, one for each paper.")
Flag = Parameter(negative="")
Repeated = Parameter(name="--set", negative="")
Inputs = Parameter(name="--input", negative="")


@app.command(name="list")
def list_studies(
    *,
    family: str | None = None,
    tag: str | None = None,
    markdown: Annotated[bool, Flag] = False,
    as_json: Json = False,
) -> None:
    """List the studies, and those that could not be loaded.

    Args:
        family: Only studies of this family.
        tag: Only studies with this tag.
        markdown: Print the workbench's own studies as a page of Markdown, that of docs/papers.md.
        as_json: Print JSON.
    """
    from workbench.study.catalogue import BUILT_IN, load_study, open_catalogue

    if markdown:
        from workbench.study.words import papers_page

        print(papers_page(map(load_study, BUILT_IN)), end="")
        return
    found = open_catalogue()
    rows = [
        _row(study)
        for study in found.studies.values()
        if family in (None, study.family) and (tag is None or tag in study.tags)
    ]
    failed = [
        {"slug": each.entry.slug, "origin": each.entry.origin, "error": each.error}
        for each in found.failures
    ]
    if as_json:
        print_json({"studies": rows, "failures": failed})
        return
    print_rows([row | {"tags": ", ".join(row["tags"])} for row in rows], "Studies")
    if failed:
        print_rows(failed, "Studies that could not be loaded")


@app.command
def show(slug: str, /, *, as_json: Json = False) -> None:
    """Show a study: its paper, its question, its knobs and what it does not show.

    Args:
        slug: The study.
        as_json: Print JSON.
    """
    from workbench.study.catalogue import load_study
    from workbench.study.knobs import knobs_of

    study = load_study(slug)
    knobs = [_knob_row(knob, study) for knob in knobs_of(study.params_type).values()]
    about = _row(study) | {
        "citation": study.paper.citation,
        "url": study.paper.url,
        "question": study.question,
        "not_shown": study.not_shown,
        "controls": {name: control.why for name, control in study.controls.items()},
    }
    if as_json:
        print_json(about | {"bibtex": study.paper.bibtex, "knobs": knobs})
        return
    lines = about | {"tags": ", ".join(study.tags), "controls": ", ".join(study.controls)}
    print_rows([{"": name.replace("_", " "), "value": v} for name, v in lines.items()], study.title)
    print_rows(knobs, "Knobs")


@app.command
def run(
    slug: str,
    /,
    *,
    seeds: int = 1,
    first_seed: int = 0,
    preset: Literal["smoke", "default", "full"] = "default",
    settings: Annotated[tuple[str, ...], Repeated] = (),
    inputs: Annotated[tuple[str, ...], Inputs] = (),
    device: str = "cpu",
    check: Annotated[bool, Flag] = False,
    controls: Annotated[bool, Flag] = False,
    out: Path | None = None,
    as_json: Json = False,
) -> int:
    """Run a study over seeds, print its claims, write its tables and figures.

    Args:
        slug: The study.
        seeds: How many seeds.
        first_seed: The first of them.
        preset: Sizes of the run.
        settings: A knob as NAME=VALUE (repeat for several).
        inputs: A file in the place of an input of the study, as NAME=FILE (repeat for several).
        device: Where torch computes, for example cpu or cuda.
        check: Exit with 1 if a gated claim fails.
        controls: Run the sabotaged variants too; with --check each must fail its claim.
        out: Folder for tables, figures, claims, fits and a manifest.
        as_json: Print JSON.
    """
    from workbench.study.base import preset as preset_of
    from workbench.study.catalogue import load_study
    from workbench.study.inputs import read_input
    from workbench.study.knobs import with_knobs

    study = load_study(slug)
    params = with_knobs(preset_of(study, preset), _assignments(settings, "--set"))
    edited = {
        name: read_input(study, name, Path(file))
        for name, file in _assignments(inputs, "--input").items()
    }
    chosen = range(first_seed, first_seed + seeds)
    report = _run(study, params, chosen, device, controls, out, as_json, edited)
    _print_report(report, as_json)
    return 1 if check and not report.passes else 0


@app.command
def repeat(manifest: Path, /, *, out: Path, as_json: Json = False) -> int:
    """Run again what a manifest says; exit with 1 if any file comes out with other bytes.

    Args:
        manifest: The manifest.json of an earlier run.
        out: Folder for the new run.
        as_json: Print JSON.
    """
    from workbench.study.catalogue import load_study
    from workbench.study.output import differing_files, read_manifest

    plan = read_manifest(manifest)
    study = load_study(plan.slug)
    params = plan.params(study)
    _run(study, params, plan.seeds, plan.device, plan.controls, out, as_json, plan.inputs)
    differing = differing_files(plan, out)
    if as_json:
        print_json({"files": len(plan.files), "differing": differing})
    else:
        print(f"{len(plan.files)} files, {len(differing)} differ", *differing, sep="\n")
    return 1 if differing else 0


def _run(
    study: "Study[Any, Any]",
    params: object,
    seeds: Sequence[int],
    device: str,
    controls: bool,
    out: Path | None,
    quiet: bool,
    inputs: "Mapping[str, Input]",
) -> "StudyReport":
    from workbench.study.output import write_report
    from workbench.study.runner import Conditions
    from workbench.study.runner import run as run_study
    from workbench.study.runs import RunStore
    from workbench.study.verdicts import VerdictBook
    from workbench.views.study_figure import figure_files

    store = RunStore(out / "fits", limit=None) if out else RunStore()
    with progress(quiet) as report:
        conditions = Conditions(seeds, device, inputs, store, report)
        found = run_study(study, params, conditions, controls=controls)
    VerdictBook().note(found)
    if out:
        write_report(found, out, device, figure_files)
    return found


def _assignments(settings: tuple[str, ...], option: str) -> dict[str, str]:
    from workbench.study.errors import StudyError

    parts = [each.partition("=") for each in settings]
    for (name, sign, _), each in zip(parts, settings, strict=True):
        if not name or not sign:
            raise StudyError(
                f"{option} {each} is no setting; write NAME=VALUE, for example beta=0.5."
            )
    return {name: value for name, _, value in parts}


def _row(study: "Study[Any, Any]") -> dict[str, Any]:
    return {
        "slug": study.slug,
        "title": study.title,
        "family": study.family,
        "tags": list(study.tags),
        "paper": study.paper.title,
        "arxiv": study.paper.arxiv,
    }


def _knob_row(knob: "Knob", study: "Study[Any, Any]") -> dict[str, Any]:
    allowed = ", ".join(map(str, knob.choices))
    if not allowed and knob.low is not None and knob.high is not None:
        allowed = f"{knob.low:g} to {knob.high:g}"
    presets = {name: getattr(params, knob.name) for name, params in study.presets.items()}
    about = {"knob": knob.name, "stage": knob.stage, "allowed": allowed, "unit": knob.unit}
    return about | presets | {"help": knob.help}


def _print_report(report: "StudyReport", as_json: bool) -> None:
    from workbench.study.output import report_json

    if as_json:
        print_json(report_json(report))
        return
    seeds = ", ".join(str(each.seed) for each in report.runs)
    print_rows(
        [_claim_row(each) for each in report.verdicts], f"{report.study.title}, seeds {seeds}"
    )
    if report.controls:
        rows = [
            {"control": each.name, "must_fail": each.control.fails, "caught": each.caught}
            for each in report.controls
        ]
        print_rows(rows, "Controls")


def _claim_row(verdict: "Verdict") -> dict[str, Any]:
    claim: Claim = verdict.claim
    return {
        "claim": claim.name,
        "kind": claim.kind,
        "measured": claim.measured,
        "expected": claim.expectation,
        "paper": claim.paper,
        "holds": verdict.holds if claim.relation else None,
        "seeds": f"{verdict.seeds_holding}/{len(verdict.measured)}" if claim.relation else "",
        "statement": claim.statement,
    }

"""A run as a folder: tables, figures, claims, and a manifest that repeats it to the same bytes.

- manifest.json: what was run, under which versions, and a digest of every other file
- inputs/<name>.json: every input that took the place of the study's own
- claims.json: every claim over the seeds, and the controls
- tables/<name>.csv: all seeds below one another
- figures/<name>.json: Plotly figures of the first seed, which any Plotly draws
- figures/<name>.html: the same as pages that need no network

A caller that can draw gives `write_report` its own writer of figures; that of
`workbench.views.study_figure` adds PNG, SVG and PDF.
"""

import csv
import hashlib
import io
import json
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from workbench import __version__
from workbench.data.cells import encode_value, neutralise
from workbench.study.base import Figures, Study
from workbench.study.context import Input
from workbench.study.errors import StudyError
from workbench.study.inputs import input_bytes, input_from
from workbench.study.knobs import knob_values, with_knobs
from workbench.study.result import Cell, claim_json, finite
from workbench.study.runner import ControlVerdict, Run, StudyReport, Verdict
from workbench.study.runs import input_digest, package_of, sources_digest

MANIFEST = "manifest.json"
_FORMAT = 1
_VERSIONED = ("torch", "numpy", "plotly", "safetensors")
State: TypeAlias = Mapping[str, Any]
FigureWriter: TypeAlias = Callable[[Figures, State], Iterator[tuple[str, bytes]]]
"""Takes figures and the state that they were drawn in, gives names of files and their content."""


@dataclass(frozen=True)
class Plan:
    """What a manifest says was run."""

    slug: str
    settings: Mapping[str, Any]
    seeds: tuple[int, ...]
    device: str
    controls: bool
    files: Mapping[str, str]
    inputs: Mapping[str, Input] = field(default_factory=dict)

    def params(self, study: Study[Any, Any]) -> object:
        """The parameters of the run."""
        return with_knobs(study.params_type(), self.settings)


def write_report(
    report: StudyReport, folder: Path, device: str = "cpu", draw: FigureWriter | None = None
) -> Path:
    """Write a run into a folder, which is made if need be, and return its manifest's path.

    Args:
        report: The run.
        folder: Where to write.
        device: Where it was computed.
        draw: Writes the figures; by default as JSON and HTML.

    Raises:
        StudyError: the folder cannot be written.
    """
    files = dict(_files(report, draw or plotly_files))
    manifest = _manifest(report, device, files)
    try:
        for name, content in (files | {MANIFEST: _json(manifest)}).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as error:
        raise StudyError(
            f"{folder} cannot be written ({error.strerror}); free space, or choose another folder."
        ) from error
    return folder / MANIFEST


def read_manifest(path: Path) -> Plan:
    """What to run to repeat a run.

    Raises:
        StudyError: it cannot be read, or is no manifest.
    """
    try:
        found = json.loads(path.read_bytes())
        return Plan(
            found["study"],
            found["params"],
            tuple(found["seeds"]),
            found["device"],
            found["controls"],
            found["files"],
            {
                name: input_from((path.parent / _input_file(name)).read_bytes())
                for name in found.get("inputs", ())
            },
        )
    except StudyError:
        raise
    except OSError as error:
        raise StudyError(f"{error.filename or path} cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{path} is no manifest of a study run ({error!r}).") from error


def differing_files(plan: Plan, folder: Path) -> list[str]:
    """Files of a manifest that a folder lacks or holds with other bytes, in order."""
    return [
        name
        for name, digest in plan.files.items()
        if not (folder / name).is_file() or _digest((folder / name).read_bytes()) != digest
    ]


def report_json(report: StudyReport) -> dict[str, Any]:
    """Claims and controls as plain JSON."""
    return {
        "study": report.study.slug,
        "params": knob_values(report.params),
        "seeds": [each.seed for each in report.runs],
        "passes": report.passes,
        "claims": [verdict_json(each) for each in report.verdicts],
        "controls": [_control_json(each) for each in report.controls],
    }


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """A claim over all seeds as plain JSON."""
    return claim_json(verdict.claim) | {
        "measured_by_seed": [finite(value) for value in verdict.measured],
        "seeds_holding": verdict.seeds_holding,
        "holds": verdict.holds,
    }


def _control_json(found: ControlVerdict) -> dict[str, Any]:
    return {
        "name": found.name,
        "fails": found.control.fails,
        "why": found.control.why,
        "measured": finite(found.verdict.claim.measured),
        "caught": found.caught,
    }


def report_state(report: StudyReport) -> dict[str, Any]:
    """What a figure of a run was drawn from: with it, and the inputs, the figure can be remade."""
    return {
        "study": report.study.slug,
        "params": knob_values(report.params),
        "seed": report.runs[0].seed,
        "fit": report.runs[0].fit,
        "inputs": {name: input_digest(each) for name, each in report.inputs.items()},
    }


def _input_file(name: str) -> str:
    if not re.fullmatch(r"[\w-]+", name):
        raise StudyError(f"The input {name[:40]!r} cannot name a file; use letters, digits and -.")
    return f"inputs/{name}.json"


def _files(report: StudyReport, draw: FigureWriter) -> Iterator[tuple[str, bytes]]:
    yield "claims.json", _json(report_json(report))
    for name in report.runs[0].result.tables:
        yield f"tables/{name}.csv", table_csv(report.runs, name)
    for name, value in report.inputs.items():
        yield _input_file(name), input_bytes(value)
    yield from draw(report.study.figures(report.runs[0].result), report_state(report))


def plotly_files(figures: Figures, state: State) -> Iterator[tuple[str, bytes]]:
    """Figures as JSON and as pages beside one copy of plotly.js."""
    from plotly.offline import get_plotlyjs

    for name, figure in figures.items():
        yield f"figures/{name}.json", figure.to_json().encode()
        page = figure.to_html(include_plotlyjs="directory", div_id=name)
        yield f"figures/{name}.html", page.encode()
    yield "figures/plotly.min.js", get_plotlyjs().encode()


def table_csv(runs: Sequence[Run], name: str) -> bytes:
    """A table as CSV, all seeds below one another; no spreadsheet runs a cell of it."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(["seed", *map(neutralise, runs[0].result.tables[name])])
    for run in runs:
        columns = run.result.tables[name].values()
        for row in zip(*columns, strict=True):
            writer.writerow([run.seed, *map(_cell, row)])
    return out.getvalue().encode()


def _cell(value: Cell) -> str:
    return neutralise(value if isinstance(value, str) else encode_value(finite(value)))


def _manifest(report: StudyReport, device: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "study": report.study.slug,
        "params": knob_values(report.params),
        "seeds": [each.seed for each in report.runs],
        "device": device,
        "inputs": sorted(report.inputs),
        "controls": bool(report.controls),
        "sources": sources_digest(package_of(report.study)),
        "versions": {"workbench": __version__, "python": platform.python_version()}
        | {name: version(name) for name in _VERSIONED},
        "fits": {str(each.seed): each.fit for each in report.runs},
        "files": {name: _digest(content) for name, content in files.items()},
    }


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=2, allow_nan=False, sort_keys=True) + "\n").encode()


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()

"""What is known of a study's claims on this machine, for the badge of its card.

A *check* is a run of the default or the full preset, with the study's own inputs, over at least
`CHECK_SEEDS` seeds. It holds until a source changes that the fits follow from.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from workbench import paths
from workbench.study.base import Study, preset
from workbench.study.runner import StudyReport
from workbench.study.runs import package_of, sources_digest

Badge = Literal["passed", "failed", "not checked", "never run"]
CHECK_SEEDS = 5
_FILE = "verdict.json"


class VerdictBook:
    """The verdicts, one small file a study beside its fits.

    Args:
        root: The folder of the run store; by default `runs` in the user's data folder.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or paths.data_dir() / "runs"

    def badge(self, study: Study[Any, Any]) -> Badge:
        """What is known of a study."""
        try:
            known = json.loads(self._path(study).read_bytes())
        except FileNotFoundError:
            return "never run"
        except (OSError, ValueError):
            return "not checked"
        if not isinstance(known, dict) or known.get("sources") != _sources(study):
            return "not checked"
        return {True: "passed", False: "failed"}.get(known.get("passes"), "not checked")  # type: ignore[return-value, arg-type]

    def note(self, report: StudyReport) -> None:
        """Take note of a run; one that is no check never takes the place of a check."""
        study, passes = report.study, report.passes if is_check(report) else None
        if passes is None and self.badge(study) in ("passed", "failed"):
            return
        # A badge that cannot be kept must not fail the run that it speaks of.
        with suppress(OSError):
            self._write(study, {"sources": _sources(study), "passes": passes})

    def _path(self, study: Study[Any, Any]) -> Path:
        return self._root / study.slug / _FILE

    def _write(self, study: Study[Any, Any], known: Mapping[str, Any]) -> None:
        path = self._path(study)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(known), encoding="utf-8")
        os.replace(fresh, path)


def is_check(report: StudyReport) -> bool:
    """Whether a run says something of the study's claims as they were meant."""
    whole = report.params in (preset(report.study), preset(report.study, "full"))
    return whole and not report.inputs and len(report.runs) >= CHECK_SEEDS


def _sources(study: Study[Any, Any]) -> str:
    return sources_digest(package_of(study))

"""What every study must keep, as checks that run it; for our own tests and for third parties'.

    @pytest.mark.parametrize("check", CHECKS.values(), ids=list(CHECKS))
    def test_my_study_keeps_the_contract(check, trial):
        check(trial)

where `trial` is `try_study(MyStudy())`. Every check raises `StudyError` with what was found.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from workbench.errors import Cancelled
from workbench.study.base import Figure, Study, check_study, preset
from workbench.study.context import StudyContext
from workbench.study.errors import StudyError
from workbench.study.fitted import decode, encode
from workbench.study.plot import caption
from workbench.study.result import StudyResult
from workbench.study.runner import Conditions, run
from workbench.study.runs import RunStore, package_of


@dataclass(frozen=True)
class Trial:
    """A study fitted once with its smallest preset and seed 0.

    Attributes:
        study: The study.
        params: The parameters.
        fitted: What it fitted.
        result: What was measured.
        shares: The progress it reported, in order.
    """

    study: Study[Any, Any]
    params: Any
    fitted: Any
    result: StudyResult
    shares: tuple[float, ...]


def try_study(study: Study[Any, Any], name: str = "smoke") -> Trial:
    """Fit and measure a study once.

    Raises:
        StudyError: its declarations are incomplete.
    """
    check_study(study)
    params, shares = preset(study, name), list[float]()
    context = StudyContext(
        inputs=study.inputs, on_progress=lambda share, note: shares.append(share)
    )
    fitted = study.fit(params, context)
    return Trial(study, params, fitted, study.measure(fitted, params), tuple(shares))


def check_progress(trial: Trial) -> None:
    """Progress never falls, and ends at 1."""
    shares = trial.shares
    _require(bool(shares) and shares[-1] == 1.0, trial, f"progress ends at {shares[-1:]}, not at 1")
    _require(list(shares) == sorted(shares), trial, f"progress falls: {shares}")


def check_seeded(trial: Trial) -> None:
    """The same seed gives the same bytes, whatever the global generators stand at."""
    torch.rand(1), np.random.rand()  # noqa: NPY002 - the global ones are moved on
    again = trial.study.fit(trial.params, StudyContext(inputs=trial.study.inputs))
    same = encode(again).digest == encode(trial.fitted).digest
    _require(same, trial, "the same seed fits another value; draw from context.generator()")


def check_pure(trial: Trial) -> None:
    """Measuring twice finds the same, and leaves the fitted value as it was."""
    before = encode(trial.fitted).digest
    again = trial.study.measure(trial.fitted, trial.params)
    _require(again.to_json() == trial.result.to_json(), trial, "measuring again finds another")
    _require(encode(trial.fitted).digest == before, trial, "measure changes the fitted value")


def check_cancel(trial: Trial) -> None:
    """A fit stops when it is asked to: at once, and under way."""
    for after in (0, 1):
        seen: list[float] = []
        context = StudyContext(
            inputs=trial.study.inputs,
            on_progress=lambda share, note, seen=seen: seen.append(share),  # type: ignore[misc]
            cancelled=lambda after=after, seen=seen: len(seen) >= after,  # type: ignore[misc]
        )
        try:
            trial.study.fit(trial.params, context)
        except Cancelled:
            continue
        raise StudyError(f"{trial.study.slug}: the fit goes on though it was cancelled.")


def check_kept(trial: Trial) -> None:
    """The fitted value survives the run store, and measures alike after."""
    encoded = encode(trial.fitted)
    back = decode(encoded, package_of(trial.study))
    _require(encode(back).digest == encoded.digest, trial, "the fitted value comes back changed")
    result = trial.study.measure(back, trial.params)
    _require(result.to_json() == trial.result.to_json(), trial, "a kept fit measures otherwise")


def check_figures(trial: Trial) -> None:
    """There are figures, each with title, axis titles, caption and data."""
    figures = trial.study.figures(trial.result)
    _require(bool(figures), trial, "there are no figures")
    for name, figure in figures.items():
        lacking = ", ".join(_lacking(figure))
        _require(not lacking, trial, f"the figure {name!r} lacks {lacking}")


def check_json(trial: Trial) -> None:
    """The result is JSON without NaN."""
    json.dumps(trial.result.to_json(), allow_nan=False)
    _require(bool(trial.result.claims), trial, "there are no claims")


def check_claims(trial: Trial) -> None:
    """Every gated claim holds in the smallest preset, or else in the default one."""
    if _failing(trial):
        failing = _failing(try_study(trial.study, "default"))
        _require(not failing, trial, f"these claims fail: {', '.join(failing)}")


def check_controls(trial: Trial, store: RunStore | None = None) -> None:
    """There are controls, and each fails its claim."""
    _require(bool(trial.study.controls), trial, "there are no controls")
    report = run(trial.study, trial.params, Conditions(store=store), controls=True)
    missed = [each.name for each in report.controls if not each.caught]
    _require(not missed, trial, f"these controls pass their claim: {', '.join(missed)}")


CHECKS: Mapping[str, Callable[[Trial], None]] = {
    "progress": check_progress,
    "seeded": check_seeded,
    "pure": check_pure,
    "cancel": check_cancel,
    "kept": check_kept,
    "figures": check_figures,
    "json": check_json,
    "claims": check_claims,
    "controls": check_controls,
}


def _failing(trial: Trial) -> list[str]:
    return [each.name for each in trial.result.claims if each.gated and not each.holds]


def _lacking(figure: Figure) -> list[str]:
    layout = figure.layout
    found = {
        "a title": layout.title.text,
        "a title of the x axis": layout.xaxis.title.text,
        "a title of the y axis": layout.yaxis.title.text,
        "a caption": caption(figure),
        "data": [trace for trace in figure.data if trace.y is not None and len(trace.y)],
    }
    return [name for name, value in found.items() if not value]


def _require(kept: bool, trial: Trial, fault: str) -> None:
    if not kept:
        raise StudyError(f"{trial.study.slug}: {fault}.")

"""Run a study over seeds: fit or read the fit, measure, and judge every claim."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from workbench.study.base import Control, Study, preset
from workbench.study.context import Input, Progress, StudyContext
from workbench.study.errors import StudyError
from workbench.study.fitted import decode, encode
from workbench.study.knobs import knob_values, with_knobs
from workbench.study.result import Claim, StudyResult
from workbench.study.runs import FitKey, RunStore, package_of


@dataclass(frozen=True)
class Conditions:
    """Under what a study runs.

    Attributes:
        seeds: The seeds, at least one.
        device: Where torch computes.
        inputs: Inputs that replace the study's own, by name.
        store: Where fits are kept; None keeps none.
        on_progress: Called with the share done and a note.
        cancelled: Whether somebody asked the run to stop.
    """

    seeds: Sequence[int] = (0,)
    device: str = "cpu"
    inputs: Mapping[str, Input] | None = None
    store: RunStore | None = None
    on_progress: Progress = lambda share, note: None
    cancelled: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise StudyError(f"The seeds are {list(self.seeds)}; give at least one, each once.")

    def key(self, study: Study[Any, Any], params: object, seed: int) -> FitKey:
        """What one fit under these conditions follows from."""
        only_fit = with_knobs(study.params_type(), knob_values(params, "fit"))
        return FitKey(study, only_fit, seed, self.device, self.all_inputs(study))

    def all_inputs(self, study: Study[Any, Any]) -> Mapping[str, Input]:
        """The study's inputs, those that were edited in the place of its own."""
        return {**study.inputs, **(self.inputs or {})}

    def context(self, study: Study[Any, Any], place: int, of: int) -> StudyContext:
        """The context of one fit of several, its progress a part of the whole."""
        context = StudyContext(
            self.seeds[place % len(self.seeds)],
            self.device,
            self.all_inputs(study),
            self.on_progress,
            self.cancelled,
        )
        return context.part(place / of, (place + 1) / of)


@dataclass(frozen=True)
class SeedFit:
    """One seed's fitted value, in memory, and the digest of its bytes."""

    seed: int
    digest: str
    value: Any


@dataclass(frozen=True)
class Run:
    """One seed's result, and the digest of the fit that it was read off."""

    seed: int
    fit: str
    result: StudyResult


@dataclass(frozen=True)
class Verdict:
    """One claim over all seeds.

    Attributes:
        claim: The claim, its measured value being the mean over the seeds.
        measured: What each seed measured.
        seeds_holding: For how many seeds it holds by itself.
    """

    claim: Claim
    measured: tuple[float, ...]
    seeds_holding: int

    @property
    def holds(self) -> bool:
        """A unit claim must hold for every seed, any other for the mean."""
        every = self.seeds_holding == len(self.measured)
        return every if self.claim.kind == "unit" else self.claim.holds


@dataclass(frozen=True)
class ControlVerdict:
    """Whether a sabotaged variant failed its claim, as it must."""

    name: str
    control: Control
    verdict: Verdict

    @property
    def caught(self) -> bool:
        """Whether the claim failed."""
        return not self.verdict.holds


@dataclass(frozen=True)
class StudyReport:
    """All runs of a study, and what follows from them.

    Attributes:
        inputs: The inputs that took the place of the study's own.
    """

    study: Study[Any, Any]
    params: object
    runs: tuple[Run, ...]
    verdicts: tuple[Verdict, ...]
    controls: tuple[ControlVerdict, ...] = ()
    inputs: Mapping[str, Input] = field(default_factory=dict)

    @property
    def passes(self) -> bool:
        """Whether every gated claim holds and every control that was run is caught."""
        gated = all(each.holds for each in self.verdicts if each.claim.gated)
        return gated and all(each.caught for each in self.controls)


def fit(
    study: Study[Any, Any], params: object, context: StudyContext, store: RunStore | None = None
) -> tuple[Any, str]:
    """The fitted value, read from the store or made (and kept), and its digest.

    Raises:
        StudyError: a knob is out of range, or the fitted value cannot be kept.
        Cancelled: somebody asked it to stop.
    """
    params = with_knobs(params, {})
    only_fit = with_knobs(study.params_type(), knob_values(params, "fit"))
    key = FitKey(study, only_fit, context.seed, context.device, context.inputs)
    kept = store.read(key) if store else None
    if kept is not None:
        context.report(1.0, "read from the run store")
        return kept, encode(kept).digest
    made = study.fit(only_fit, context)
    encoded = encode(made)
    if store:
        store.write(key, made)
    # Through the same bytes as a kept fit, so that both measure alike.
    return decode(encoded, package_of(study)), encoded.digest


def run(
    study: Study[Any, Any],
    params: object | None = None,
    conditions: Conditions | None = None,
    *,
    controls: bool = False,
) -> StudyReport:
    """Run a study for every seed and judge its claims.

    Args:
        study: The study.
        params: Its parameters; the default preset if None.
        conditions: Seeds, device, inputs, store, progress.
        controls: Also run every sabotaged variant.

    Raises:
        StudyError: a knob out of range, or a study that breaks the frame's rules.
        Cancelled: somebody asked it to stop.
    """
    params = with_knobs(preset(study) if params is None else params, {})
    conditions = conditions or Conditions()
    variants = study.controls if controls else {}
    seeds = len(conditions.seeds)
    total = seeds * (1 + len(variants))
    fits = fit_seeds(study, params, conditions, 0, total)
    report = measure_fits(study, params, fits, conditions.inputs)
    if not controls:
        return report
    return replace(report, controls=check_controls(study, params, conditions, seeds, total))


def fit_seeds(
    study: Study[Any, Any],
    params: object,
    conditions: Conditions,
    first: int = 0,
    total: int | None = None,
) -> Iterator[SeedFit]:
    """The fits of every seed in turn, the first being number `first` of `total` to be made.

    Raises:
        StudyError: a knob is out of range, or a fitted value cannot be kept.
        Cancelled: somebody asked it to stop.
    """
    total = total or len(conditions.seeds)
    for place, seed in enumerate(conditions.seeds):
        context = conditions.context(study, first + place, total)
        value, digest = fit(study, params, context, conditions.store)
        yield SeedFit(seed, digest, value)


def measure_fits(
    study: Study[Any, Any],
    params: object,
    fits: Iterable[SeedFit],
    inputs: Mapping[str, Input] | None = None,
) -> StudyReport:
    """Read every seed's fit and judge the claims.

    Args:
        study: The study.
        params: Its parameters; the measure knobs count.
        fits: What was fitted.
        inputs: The inputs that took the place of the study's own, for the record.

    Raises:
        StudyError: the seeds make different claims.
    """
    runs = [Run(each.seed, each.digest, study.measure(each.value, params)) for each in fits]
    verdicts = judge([each.result for each in runs])
    return StudyReport(study, params, tuple(runs), tuple(verdicts), inputs=dict(inputs or {}))


def check_controls(
    study: Study[Any, Any],
    params: object,
    conditions: Conditions,
    first: int = 0,
    total: int | None = None,
) -> tuple[ControlVerdict, ...]:
    """Run every sabotaged variant, the first fit being number `first` of `total` to be made.

    Raises:
        StudyError: a control names no gated claim.
        Cancelled: somebody asked it to stop.
    """
    seeds = len(conditions.seeds)
    total = total or seeds * len(study.controls)
    return tuple(
        _control(name, study, params, conditions, first + place * seeds, total)
        for place, name in enumerate(study.controls)
    )


def judge(results: Sequence[StudyResult]) -> list[Verdict]:
    """Every claim over the results of several seeds.

    Raises:
        StudyError: the seeds make different claims.
    """
    names = [claim.name for claim in results[0].claims]
    for result in results:
        if [claim.name for claim in result.claims] != names:
            raise StudyError("The seeds make different claims; name the same ones for each.")
    return [_verdict([result.claim(name) for result in results]) for name in names]


def _verdict(claims: Sequence[Claim]) -> Verdict:
    measured = tuple(claim.measured for claim in claims)
    # What is expected may depend on the seed's world.
    expected = _mean([claim.expected for claim in claims])
    mean = replace(claims[0], measured=_mean(measured), expected=expected)
    return Verdict(mean, measured, sum(claim.holds for claim in claims))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _control(
    name: str,
    study: Study[Any, Any],
    params: object,
    conditions: Conditions,
    first: int,
    total: int,
) -> ControlVerdict:
    control = study.controls[name]
    variant = study if control.study is None else control.study
    changed = with_knobs(params, control.settings)
    fits = fit_seeds(variant, changed, conditions, first, total)
    verdicts = {each.claim.name: each for each in measure_fits(variant, changed, fits).verdicts}
    if control.fails not in verdicts or not verdicts[control.fails].claim.gated:
        raise StudyError(
            f"The control {name!r} of {study.slug} is to fail {control.fails!r}, which is no gated "
            f"claim; name one of {', '.join(verdicts)}."
        )
    return ControlVerdict(name, control, verdicts[control.fails])

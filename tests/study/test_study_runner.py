from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.errors import Cancelled
from workbench.study import runs
from workbench.study.context import StudyContext
from workbench.study.errors import StudyError
from workbench.study.result import Claim, StudyResult
from workbench.study.runner import Conditions, fit, judge, run
from workbench.study.runs import FitKey, RunStore, input_digest


@pytest.fixture
def counting(example: ModuleType) -> Any:
    class Counting(example.CoinStudy):  # type: ignore[misc, name-defined]
        fits = 0

        def fit(self, params: Any, context: Any) -> Any:
            type(self).fits += 1
            return super().fit(params, context)

    return Counting()


def quick(study: Any, **changes: Any) -> Any:
    return replace(study.presets["smoke"], **changes)


def test_a_measure_knob_reads_the_same_fit_and_a_fit_knob_does_not(
    counting: Any, tmp_path: Path
) -> None:
    under = Conditions(store=RunStore(tmp_path))
    first = run(counting, quick(counting), under)
    again = run(counting, quick(counting, every=10), under)
    assert type(counting).fits == 1
    assert again.runs[0].fit == first.runs[0].fit
    assert len(again.runs[0].result.tables["share"]["share"]) == 200
    run(counting, quick(counting, bias=0.31), under)
    run(counting, quick(counting), Conditions(seeds=(1,), store=RunStore(tmp_path)))
    assert type(counting).fits == 3


def test_a_fit_never_sees_how_the_measure_knobs_stand(example: ModuleType) -> None:
    seen = []

    class Curious(example.CoinStudy):  # type: ignore[misc, name-defined]
        def fit(self, params: Any, context: Any) -> Any:
            seen.append(params.every)
            return super().fit(params, context)

    study = Curious()
    run(study, quick(study, every=7))
    assert seen == [study.params_type().every]


def test_a_kept_fit_measures_as_a_fresh_one(counting: Any, tmp_path: Path) -> None:
    fresh = run(counting, quick(counting))
    for _ in range(2):
        kept = run(counting, quick(counting), Conditions(store=RunStore(tmp_path)))
        assert kept.runs == fresh.runs
    assert type(counting).fits == 2


def test_a_damaged_fit_is_made_anew(counting: Any, tmp_path: Path) -> None:
    under = Conditions(store=RunStore(tmp_path))
    first = run(counting, quick(counting), under)
    (damaged,) = tmp_path.glob("coin/*/fitted.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert run(counting, quick(counting), under).runs == first.runs
    assert run(counting, quick(counting), under).runs == first.runs
    assert type(counting).fits == 2
    assert not list(tmp_path.glob("coin/.*"))


def test_a_place_that_cannot_be_written_is_named(counting: Any, tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("")
    with pytest.raises(StudyError, match="cannot be written"):
        run(counting, quick(counting), Conditions(store=RunStore(place)))


def test_the_key_follows_from_all_that_the_fit_follows_from(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = example.CoinStudy()
    key = FitKey(study, quick(study), 0, "cpu", {})
    others = [
        replace(key, params=quick(study, tosses=77)),
        replace(key, seed=1),
        replace(key, device="cuda"),
        replace(key, inputs={"votes": {"n": [1]}}),
        replace(key, study=study.controls["always-heads"].study),
    ]
    found = {each.digest for each in [key, *others]}
    assert len(found) == 6
    assert replace(key, params=quick(study, every=3)).digest == key.digest
    monkeypatch.setattr(runs, "sources_digest", lambda package: "edited")
    assert key.digest not in found


def test_a_changed_source_changes_the_digest_of_the_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("X = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    first = runs.sources_digest.__wrapped__("mine")
    assert runs.sources_digest.__wrapped__("mine") == first
    (tmp_path / "mine.py").write_text("X = 2\n")
    assert runs.sources_digest.__wrapped__("mine") != first


def test_an_edited_input_is_another_input() -> None:
    pair = PreferencePair(pair_id="a", prompt="p", chosen="c", rejected="r")
    other = pair.with_fields(chosen="d")
    first, second = (PreferenceSet("s", [each]) for each in (pair, other))
    assert input_digest(first) != input_digest(second)
    assert input_digest({"n": [1]}) != input_digest({"n": [2]})


def test_inputs_reach_the_fit_and_replace_the_studys_own(example: ModuleType) -> None:
    class Weighed(example.CoinStudy):  # type: ignore[misc, name-defined]
        inputs = {"votes": {"n": [1]}}  # noqa: RUF012

        def fit(self, params: Any, context: Any) -> Any:
            return super().fit(params, context) * 0 + context.table("votes")["n"][0]

    study = Weighed()
    own = run(study, quick(study)).runs[0]
    mine = run(study, quick(study), Conditions(inputs={"votes": {"n": [5]}})).runs[0]
    assert own.result.tables != mine.result.tables


def claimed(kind: str, *measured: float) -> Any:
    results = [
        StudyResult({}, [Claim("a", kind, "A.", value, "<", 1.0)])  # type: ignore[arg-type]
        for value in measured
    ]
    (verdict,) = judge(results)
    return verdict


def test_an_effect_is_judged_by_its_mean_and_an_identity_by_every_seed() -> None:
    effect, unit = claimed("effect", 0.1, 1.3), claimed("unit", 0.1, 1.3)
    assert effect.holds
    assert effect.claim.measured == pytest.approx(0.7)
    assert not unit.holds
    assert unit.seeds_holding == effect.seeds_holding == 1
    assert not claimed("effect", 0.1, float("nan")).holds
    assert not claimed("effect", float("inf"), float("-inf")).holds


def test_what_is_expected_may_differ_by_seed() -> None:
    results = [
        StudyResult({}, [Claim("a", "unit", "A.", value, "=", value, 0.1)]) for value in (1.0, 5.0)
    ]
    (verdict,) = judge(results)
    assert verdict.seeds_holding == 2
    assert verdict.holds


def test_seeds_that_claim_different_things_are_refused() -> None:
    results = [StudyResult({}, [Claim(name, "report", "A.", 1.0)]) for name in "ab"]
    with pytest.raises(StudyError, match="different claims"):
        judge(results)


def test_a_report_passes_only_if_claims_hold_and_controls_are_caught(example: ModuleType) -> None:
    study = example.CoinStudy()
    report = run(study, quick(study), Conditions(seeds=(0, 1)), controls=True)
    assert report.passes
    (control,) = report.controls
    assert control.caught
    assert control.verdict.claim.measured > 0.5
    uncaught = replace(control, verdict=report.verdicts[0])
    assert not replace(report, controls=(uncaught,)).passes
    assert not replace(report, verdicts=(control.verdict,)).passes


def test_progress_rises_over_seeds_and_controls_up_to_one(example: ModuleType) -> None:
    shares: list[float] = []
    study = example.CoinStudy()
    under = Conditions(seeds=(0, 1, 2), on_progress=lambda share, note: shares.append(share))
    run(study, quick(study), under, controls=True)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


def test_a_cancelled_run_keeps_nothing(example: ModuleType, tmp_path: Path) -> None:
    study = example.CoinStudy()
    with pytest.raises(Cancelled):
        run(study, quick(study), Conditions(store=RunStore(tmp_path), cancelled=lambda: True))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_no_seeds_or_the_same_twice_are_refused(seeds: tuple[int, ...]) -> None:
    with pytest.raises(StudyError, match="at least one, each once"):
        Conditions(seeds)


def test_what_cannot_be_kept_is_refused_though_nothing_is_kept(example: ModuleType) -> None:
    class Unkept(example.CoinStudy):  # type: ignore[misc, name-defined]
        def fit(self, params: Any, context: Any) -> Any:
            return torch.nn.Linear(1, 1)

    study = Unkept()
    with pytest.raises(StudyError, match="cannot be kept"):
        fit(study, quick(study), StudyContext())

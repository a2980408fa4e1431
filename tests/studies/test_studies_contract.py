"""One contract for every study of the catalogue."""

from pathlib import Path

import pytest

import workbench.studies
from workbench.study.catalogue import BUILT_IN, load_study
from workbench.study.contract import CHECKS, Trial, check_controls, try_study
from workbench.study.knobs import knobs_of
from workbench.study.runs import RunStore

FOLDER = Path(next(iter(workbench.studies.__path__)))
OWN = {name: check for name, check in CHECKS.items() if name != "controls"}


@pytest.fixture(scope="module", params=list(BUILT_IN))
def trial(request: pytest.FixtureRequest) -> Trial:
    return try_study(load_study(request.param))


def test_every_folder_is_in_the_catalogue_under_its_name() -> None:
    folders = {path.parent.name for path in FOLDER.glob("*/__init__.py")}
    assert folders == {slug.replace("-", "_") for slug in BUILT_IN}
    for slug, target in BUILT_IN.items():
        assert target.startswith(f"workbench.studies.{slug.replace('-', '_')}:")


def test_every_number_has_a_range_that_holds_its_presets(trial: Trial) -> None:
    for knob in knobs_of(trial.study.params_type).values():
        assert knob.kind in (bool, str) or knob.choices or None not in (knob.low, knob.high)
        for params in trial.study.presets.values():
            knob.read(getattr(params, knob.name))


@pytest.mark.parametrize("check", OWN.values(), ids=list(OWN))
def test_the_study_keeps_the_contract(check: object, trial: Trial) -> None:
    assert callable(check)
    check(trial)


def test_every_control_fails_its_claim(trial: Trial, tmp_path: Path) -> None:
    check_controls(trial, RunStore(tmp_path))

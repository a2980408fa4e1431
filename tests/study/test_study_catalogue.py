import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from workbench.study import catalogue
from workbench.study.catalogue import BUILT_IN, entries, load_study, open_catalogue
from workbench.study.contract import CHECKS, try_study
from workbench.study.errors import StudyError

PACKAGE = Path(__file__).with_name("third_party_package")
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution with entry points, and modules, on the path, as pip would."""

    def install(name: str, points: dict[str, str], **modules: str) -> None:
        place = tmp_path / name
        about = place / f"{name.replace('-', '_')}-1.0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{slug} = {target}" for slug, target in points.items()]
        (about / "entry_points.txt").write_text("\n".join(["[workbench.studies]", *lines]))
        for module, text in modules.items():
            (place / f"{module}.py").write_text(text)
            monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.syspath_prepend(place)

    monkeypatch.syspath_prepend(PACKAGE)
    return install


def test_a_third_partys_study_appears_and_keeps_the_contract(install: Install) -> None:
    install("their-studies", {"pythagoras": "third_party_package:PythagorasStudy"})
    found = open_catalogue()
    assert set(found.studies) == {*BUILT_IN, "pythagoras"}
    assert found.failures == ()
    trial = try_study(load_study("pythagoras"))
    for check in CHECKS.values():
        check(trial)


def test_it_is_gone_when_its_package_is() -> None:
    assert [entry.slug for entry in entries()] == list(BUILT_IN)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("raise RuntimeError('broken at import')", "RuntimeError: broken at import"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("import no_such_module_at_all", "ModuleNotFoundError"),
        ("x = 1", "AttributeError"),
        ("class S: pass", "AttributeError"),
        ("class S(", "SyntaxError"),
        (
            "from third_party_package import PythagorasStudy\n"
            "class S(PythagorasStudy): slug = 'other'",
            "calls itself 'other'",
        ),
        (
            "from third_party_package import PythagorasStudy\n"
            "class S(PythagorasStudy): not_shown = ' '",
            "has no not_shown",
        ),
        (
            "from third_party_package import PythagorasStudy\n"
            "class S(PythagorasStudy): presets = {}",
            "no preset 'smoke'",
        ),
    ],
)
def test_a_study_that_fails_to_load_is_reported_and_harms_nothing(
    module: str, message: str, install: Install
) -> None:
    install("broken-studies", {"broken": "broken_study:S"}, broken_study=module)
    install("their-studies", {"pythagoras": "third_party_package:PythagorasStudy"})
    found = open_catalogue()
    assert set(found.studies) == {*BUILT_IN, "pythagoras"}
    (failure,) = found.failures
    assert failure.entry.origin == "broken-studies"
    assert message in failure.error
    with pytest.raises(StudyError, match="broken_study:S of broken-studies"):
        load_study("broken")


def test_a_slug_given_twice_is_an_error_that_names_both(install: Install) -> None:
    install("their-studies", {"pythagoras": "third_party_package:PythagorasStudy"})
    install("zeno-studies", {"pythagoras": "zeno_study:S"}, zeno_study="S = None")
    found = open_catalogue()
    assert type(found.studies["pythagoras"]).__name__ == "PythagorasStudy"
    (failure,) = found.failures
    assert "third_party_package:PythagorasStudy of their-studies" in failure.error
    assert "zeno_study:S of zeno-studies" in failure.error


def test_nobody_replaces_a_study_of_ours(install: Install) -> None:
    slug = next(iter(BUILT_IN))
    install("bold-studies", {slug: "third_party_package:PythagorasStudy"})
    found = open_catalogue()
    assert type(found.studies[slug]).__module__.startswith("workbench.studies.")
    assert type(load_study(slug)).__module__.startswith("workbench.studies.")
    assert "bold-studies" in found.failures[0].error


def test_an_unknown_slug_is_answered_with_the_nearest() -> None:
    with pytest.raises(StudyError, match="did you mean differential-information"):
        load_study("diferential-information")


def test_naming_the_studies_imports_none_of_them() -> None:
    code = (
        "import sys; from workbench.study import catalogue; catalogue.entries();"
        "assert not [m for m in sys.modules if m.startswith('workbench.studies.')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_group_is_the_documented_one() -> None:
    assert catalogue.GROUP == "workbench.studies"

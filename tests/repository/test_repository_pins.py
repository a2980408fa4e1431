import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {name.lower().replace("_", "-"): version for name, version in found}


def test_every_dependency_is_pinned_above_its_floor() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    for requirement in map(Requirement, named):
        if requirement.name != project["name"]:
            assert requirement.specifier.contains(pins()[requirement.name.lower()]), requirement


def test_torch_is_the_tested_build() -> None:
    assert pins()["torch"] == "2.13.0"


def test_environment_takes_its_pins_from_constraints() -> None:
    text = (ROOT / "environment.yml").read_text()
    assert "--constraint constraints.txt" in text
    python = re.search(r"python=([\d.]+)", text)
    assert python is not None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={python[1]}"

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {"workbench", "workbench_widgets", *(path.stem for path in ROOT.glob("tests/**/*.py"))}
PART_OF = {"pydantic-core": "pydantic"}
"""Distributions that another one pins to the last digit, so that declaring that one is enough."""


def named(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.lower())


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {named(name): version for name, version in found}


def declared(*extras: str) -> dict[str, Requirement]:
    groups = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][e] for e in extras)]
    found = [Requirement(line) for group in groups for line in group]
    return {named(r.name): r for r in found if r.name != PROJECT["name"]}


def imported(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every top-level package that a folder's files import, wherever in a file it stands."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            yield from ((name.split(".")[0], path) for name in names)


def check_declared(folders: list[str], requirements: dict[str, Requirement]) -> None:
    distributions = packages_distributions()
    for folder in folders:
        for package, path in imported(ROOT / folder):
            if package in sys.stdlib_module_names or package in OURS:
                continue
            owners = {named(owner) for owner in distributions.get(package, [package])}
            owners |= {PART_OF[owner] for owner in owners & PART_OF.keys()}
            assert owners & requirements.keys(), f"{path} imports {package}, which is not declared"


def test_every_import_of_the_packages_is_declared() -> None:
    check_declared(["workbench", "widgets/workbench_widgets"], declared("hub", "lab", "ray"))


def test_every_import_of_tests_tools_and_benchmarks_is_declared() -> None:
    check_declared(
        ["tests", "tools", "benchmarks"], declared("docs", "hub", "lab", "ray", "trl", "test")
    )


def test_a_dependency_that_is_left_out_fails_the_check() -> None:
    requirements = declared("hub", "lab", "ray")
    del requirements["tornado"]
    with pytest.raises(AssertionError, match="imports tornado, which is not declared"):
        check_declared(["workbench"], requirements)


def test_every_requirement_has_a_floor_and_a_pin_above_it() -> None:
    for name, requirement in declared("docs", "hub", "lab", "ray", "trl", "test").items():
        operators = {part.operator for part in requirement.specifier}
        assert operators == {">="}, f"{requirement} needs a floor and nothing else"
        assert requirement.specifier.contains(pins()[name]), requirement


def test_constraints_are_exact_and_name_each_package_once() -> None:
    first, *lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert first.startswith("#")
    assert all(re.fullmatch(r"[\w.-]+==[\w.!+]+", line) for line in lines)
    names = [named(line.split("==")[0]) for line in lines]
    assert len(names) == len(set(names))


def test_torch_is_the_tested_build() -> None:
    assert pins()["torch"] == "2.13.0"


def environment() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "environment.yml").read_text())
    return loaded


def test_environment_takes_python_from_the_project_and_its_pins_from_constraints() -> None:
    python, pip, rest = environment()["dependencies"]
    assert pip == "pip"
    assert PROJECT["requires-python"] == f">={python.removeprefix('python=')}"
    options = rest["pip"]
    assert options[0] == "--constraint constraints.txt"
    assert len(options) == 2
    assert not any("==" in option for option in options)


def test_environment_installs_extras_that_exist_and_are_pinned() -> None:
    option = environment()["dependencies"][-1]["pip"][-1]
    extras = re.fullmatch(r"--editable \.\[([\w,]+)\]", option)
    assert extras is not None
    assert declared(*extras[1].split(",")).keys() <= pins().keys()
    assert environment()["name"] == PROJECT["name"]


def test_hooks_run_only_what_the_test_extra_installs() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    tools = {"lint-imports": "import-linter"}
    for repository in config["repos"]:
        assert repository["repo"] == "local"
        for hook in repository["hooks"]:
            tool = hook["entry"].split()[0]
            assert tools.get(tool, tool) in declared("test")

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import workbench

ROOT = Path(__file__).parents[2]
PLACES = re.compile(r"(?<![\w.~-])/(?:" + "|".join(("work", "root", "home", "opt")) + r")/\w")
HOSTS = re.compile(r"pypi\.(?!py)\w+|pythonhosted|npmjs|unpkg\.com|jsdelivr|index-" + "url")


def tracked() -> list[Path]:
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is not a git checkout")
    return [ROOT / name for name in done.stdout.decode().split("\0") if name]


def texts() -> list[tuple[Path, str]]:
    found = []
    for path in tracked():
        if path.is_file() and path != Path(__file__):
            content = path.read_bytes()
            if b"\0" not in content[:4096]:
                found.append((path, content.decode("utf-8", "replace")))
    return found


def check_free_of(pattern: re.Pattern[str], files: list[tuple[Path, str]]) -> None:
    for path, text in files:
        for number, line in enumerate(text.splitlines(), start=1):
            assert not pattern.search(line), f"{path}:{number} has {pattern.search(line)}"


@pytest.mark.parametrize("pattern", [PLACES, HOSTS], ids=["machine paths", "registry hosts"])
def test_no_file_names_a_folder_of_one_machine_or_a_registry(pattern: re.Pattern[str]) -> None:
    check_free_of(pattern, texts())


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (PLACES, "open('/" + "home/somebody/x')"),
        (PLACES, "/" + "opt/tool/bin"),
        (HOSTS, "https://pypi." + "org/simple"),
        (HOSTS, "pip --index-" + "url=x"),
    ],
)
def test_a_planted_path_or_host_fails_the_check(pattern: re.Pattern[str], line: str) -> None:
    with pytest.raises(AssertionError, match=":2 has"):
        check_free_of(pattern, [(Path("a.py"), f"fine\n{line}")])


@pytest.mark.parametrize(
    ("marker", "end"), [("run", "workbench serve --open"), ("test", "python -m pytest")]
)
def test_readme_has_each_command_on_one_line(marker: str, end: str) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(rf"<!-- {marker} command -->\n```bash\n(.*?)```", text, re.DOTALL)
    assert len(found) == 1
    (command,) = found[0].splitlines()
    venv, install, last = command.split(" && ")
    assert venv == "python3.11 -m venv .venv"
    assert install.startswith(".venv/bin/pip install -q -c constraints.txt -e ")
    assert last == f".venv/bin/{end}"


def test_citation_and_changelog_know_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == workbench.__version__
    assert citation["license"] == "Apache-2.0"
    assert f"## {workbench.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel as a user would get it, built without a network."""
    pytest.importorskip("hatchling", reason="hatchling, of the test extra, is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_wheel_holds_every_file_of_both_packages_and_nothing_else(
    wheel: zipfile.ZipFile,
) -> None:
    places = (
        (ROOT / "workbench", "workbench"),
        (ROOT / "widgets" / "workbench_widgets", "workbench_widgets"),
        (ROOT / "notebooks" / "course", "workbench/course/material"),
    )
    expected = {
        f"{package}/{path.relative_to(folder)}"
        for folder, package in places
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == expected
    suffixes = {Path(name).suffix for name in held}
    assert {".js", ".css", ".jsonl", ".typed", ".py", ".ipynb"} <= suffixes
    assert "workbench/data/bundled/teaching.jsonl" in held


def test_the_wheel_works_without_the_checkout(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    code = (
        "import workbench.app.cli as c; print(c.__file__); c.run(['export', 'teaching', 'x.csv']);"
        "c.run(['course', 'start', '1', '--instructor'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(tmp_path / "site"))
    assert (tmp_path / "x.csv").is_file()
    assert (tmp_path / "course" / "1_what_a_preference_says_instructor.ipynb").is_file()


def test_the_wheel_names_licence_command_and_python(wheel: zipfile.ZipFile) -> None:
    parts = {name.split("/", 1)[1]: name for name in wheel.namelist() if ".dist-info/" in name}
    assert "licenses/LICENSE" in parts
    assert "workbench = workbench.app.cli:main" in wheel.read(parts["entry_points.txt"]).decode()
    assert "Requires-Python: >=3.11" in wheel.read(parts["METADATA"]).decode()

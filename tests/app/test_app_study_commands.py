import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from workbench.app import study_commands
from workbench.errors import WorkbenchError
from workbench.study import catalogue
from workbench.study.catalogue import BUILT_IN
from workbench.study.errors import StudyError

EXAMPLE = Path(__file__).parents[1] / "study"
SLUG = "differential-information"


@pytest.fixture(autouse=True)
def coin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example study in the catalogue, and a data folder of our own."""
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.syspath_prepend(EXAMPLE)
    monkeypatch.setattr(catalogue, "BUILT_IN", {**BUILT_IN, "coin": "example_study:CoinStudy"})
    import example_study

    return example_study


def test_list_names_every_study_and_filters(capsys: pytest.CaptureFixture[str]) -> None:
    study_commands.list_studies(as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert [each["slug"] for each in found["studies"]] == [*BUILT_IN, "coin"]
    assert found["failures"] == []
    study_commands.list_studies(family="examples", as_json=True)
    assert [s["slug"] for s in json.loads(capsys.readouterr().out)["studies"]] == ["coin"]
    study_commands.list_studies(tag="DPO")
    shown = capsys.readouterr().out
    assert SLUG in shown
    assert "coin" not in shown


def test_list_shows_what_could_not_be_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(catalogue, "BUILT_IN", {"lost": "no_such_module:X"})
    study_commands.list_studies()
    shown = capsys.readouterr().out
    assert "could not be loaded" in shown
    assert "ModuleNotFoundError" in shown


def test_show_gives_question_limits_citation_and_knobs(capsys: pytest.CaptureFixture[str]) -> None:
    study_commands.show(SLUG, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["question"]
    assert found["not_shown"]
    assert found["bibtex"].startswith("@misc")
    beta = next(knob for knob in found["knobs"] if knob["knob"] == "beta")
    assert beta["allowed"] == "0.1 to 2"
    study_commands.show("coin")
    shown = capsys.readouterr().out
    for words in ("Jacob Bernoulli (1713)", "Coins that remember", "10 to 100000", "measure"):
        assert words in shown


def test_run_prints_claims_and_passes_a_check(capsys: pytest.CaptureFixture[str]) -> None:
    code = study_commands.run("coin", seeds=2, preset="smoke", check=True, controls=True)
    assert code == 0
    shown = capsys.readouterr().out
    assert "seeds 0, 1" in shown
    assert "2/2" in shown
    assert "always-heads" in shown


def test_run_sets_knobs_and_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    study_commands.run(
        "coin", seeds=3, first_seed=100, settings=("tosses=500", "bias=0.5"), as_json=True
    )
    found = json.loads(capsys.readouterr().out)
    assert found["seeds"] == [100, 101, 102]
    assert found["params"] == {"tosses": 500, "bias": 0.5, "every": 100}
    assert len(found["claims"][0]["measured_by_seed"]) == 3


def test_a_claim_that_fails_fails_the_check_alone(
    coin: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coin, "CoinStudy", coin._Heads)
    assert study_commands.run("coin", preset="smoke", check=True, as_json=True) == 1
    assert study_commands.run("coin", preset="smoke", as_json=True) == 0


def test_a_control_that_is_not_caught_fails_the_check(
    coin: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    harmless = {"nothing": replace(coin.CoinStudy().controls["always-heads"], study=None)}
    monkeypatch.setattr(coin.CoinStudy, "controls", harmless)
    assert study_commands.run("coin", preset="smoke", check=True, as_json=True) == 0
    assert study_commands.run("coin", preset="smoke", check=True, controls=True, as_json=True) == 1


def test_a_run_that_was_written_is_repeated_to_the_same_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a"
    study_commands.run("coin", preset="smoke", seeds=2, controls=True, out=out, as_json=True)
    capsys.readouterr()
    assert list((out / "fits/coin").iterdir())
    manifest = out / "manifest.json"
    assert study_commands.repeat(manifest, out=tmp_path / "b", as_json=True) == 0
    assert (tmp_path / "b/manifest.json").read_bytes() == manifest.read_bytes()
    assert json.loads(capsys.readouterr().out)["differing"] == []
    text = manifest.read_text()
    manifest.write_text(text.replace('"bias": 0.3', '"bias": 0.31'))
    assert study_commands.repeat(manifest, out=tmp_path / "c") == 1
    assert "tables/share.csv" in capsys.readouterr().out


def test_an_input_from_a_file_is_used_kept_and_repeated(
    coin: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = coin.CoinStudy.fit

    def weighed(self: Any, params: Any, context: Any) -> Any:
        return plain(self, params, context) * context.table("votes")["n"][0]

    monkeypatch.setattr(coin.CoinStudy, "inputs", {"votes": {"n": [1]}})
    monkeypatch.setattr(coin.CoinStudy, "fit", weighed)
    path = tmp_path / "votes.csv"
    path.write_text("n\n3\n")
    out = tmp_path / "a"
    given = (f"votes={path}",)
    study_commands.run("coin", preset="smoke", inputs=given, out=out, as_json=True)
    path.unlink()
    capsys.readouterr()
    assert study_commands.repeat(out / "manifest.json", out=tmp_path / "b", as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["differing"] == []
    assert str(tmp_path) not in (out / "manifest.json").read_text()


def test_a_run_writes_every_figure_in_every_form(tmp_path: Path) -> None:
    study_commands.run("coin", preset="smoke", out=tmp_path, as_json=True)
    found = {path.name for path in (tmp_path / "figures").iterdir()}
    forms = ("json", "html", "png", "svg", "pdf")
    assert found == {*(f"share.{form}" for form in forms), "plotly.min.js"}


def test_the_catalogue_is_printed_as_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    study_commands.list_studies(markdown=True)
    shown = capsys.readouterr().out
    assert shown.startswith("# Papers and their studies")
    assert "(`coin`)" in shown


def test_a_check_leaves_its_verdict_for_the_gallery(coin: ModuleType) -> None:
    from workbench.study.verdicts import VerdictBook

    study = coin.CoinStudy()
    assert VerdictBook().badge(study) == "never run"
    study_commands.run("coin", seeds=5, as_json=True)
    assert VerdictBook().badge(study) == "passed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": ("votes=x.csv",)}, "has no input"),
        ({"inputs": ("votes",)}, "--input votes is no setting"),
        ({"settings": ("beta",)}, "write NAME=VALUE"),
        ({"settings": ("=3",)}, "write NAME=VALUE"),
        ({"settings": ("tosse=3",)}, "did you mean tosses"),
        ({"settings": ("tosses=3",)}, "from 10 to 100000 tosses"),
        ({"seeds": 0}, "at least one"),
    ],
)
def test_a_fault_of_the_user_is_told(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        study_commands.run("coin", preset="smoke", **changes)
    assert issubclass(StudyError, WorkbenchError)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from workbench.app.study_commands import app; sys.exit(app(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


def test_options_are_read_from_a_command_line(tmp_path: Path) -> None:
    options = ["--preset", "smoke", "--set", "answers=6", "--set", "sharpest=2", "--seeds", "1"]
    done = command("run", SLUG, *options, "--check", "--out", str(tmp_path / "out"), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["params"]["answers"] == 6
    assert found["passes"] is True
    assert (tmp_path / "out/figures/distance.json").is_file()


def test_help_imports_neither_torch_nor_a_study() -> None:
    code = (
        "import sys; from workbench.app.study_commands import app; app(['--help'],"
        "result_action='return_value'); assert not {'torch', 'plotly', 'rich.progress'}"
        " & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

import csv
import hashlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from workbench.study.errors import StudyError
from workbench.study.output import MANIFEST, differing_files, read_manifest, write_report
from workbench.study.result import Claim, StudyResult
from workbench.study.runner import Conditions, run


def written(study: Any, folder: Path, **changes: Any) -> Path:
    report = run(study, study.presets["smoke"], Conditions(seeds=(0, 1)), **changes)
    return write_report(report, folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_manifest_runs_again_to_the_same_bytes(example: ModuleType, tmp_path: Path) -> None:
    study = example.CoinStudy()
    first = written(study, tmp_path / "a", controls=True)
    plan = read_manifest(first)
    again = run(study, plan.params(study), Conditions(seeds=plan.seeds), controls=plan.controls)
    write_report(again, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert differing_files(plan, tmp_path / "b") == []


def test_a_changed_and_a_missing_file_are_both_found(example: ModuleType, tmp_path: Path) -> None:
    plan = read_manifest(written(example.CoinStudy(), tmp_path))
    (tmp_path / "tables/share.csv").write_text("seed\r\n")
    (tmp_path / "figures/share.html").unlink()
    assert sorted(differing_files(plan, tmp_path)) == ["figures/share.html", "tables/share.csv"]


def test_the_folder_holds_what_the_manifest_says(example: ModuleType, tmp_path: Path) -> None:
    manifest = json.loads(written(example.CoinStudy(), tmp_path).read_text())
    found = contents(tmp_path)
    assert set(manifest["files"]) == set(found) - {MANIFEST}
    for name, digest in manifest["files"].items():
        assert hashlib.blake2b(found[name], digest_size=16).hexdigest() == digest
    assert manifest["seeds"] == [0, 1]
    assert manifest["params"] == {"tosses": 2000, "bias": 0.3, "every": 100}
    assert set(manifest["versions"]) >= {"workbench", "python", "torch"}
    assert str(tmp_path) not in json.dumps(manifest)


def test_a_table_has_every_seed_and_the_numbers_to_the_last_digit(
    example: ModuleType, tmp_path: Path
) -> None:
    study = example.CoinStudy()
    report = run(study, study.presets["smoke"], Conditions(seeds=(3, 4)))
    write_report(report, tmp_path)
    with (tmp_path / "tables/share.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    shares = [share for each in report.runs for share in each.result.tables["share"]["share"]]
    assert [float(row["share"]) for row in rows] == shares
    assert [row["seed"] for row in rows] == ["3"] * 20 + ["4"] * 20


def test_cells_that_a_spreadsheet_would_run_are_neutralised(
    example: ModuleType, tmp_path: Path
) -> None:
    class Hostile(example.CoinStudy):  # type: ignore[misc, name-defined]
        def measure(self, fitted: Any, params: Any) -> Any:
            claim = Claim("approaches", "report", "A.", float("nan"))
            table = {"=column": ["=1+1", None, "@x"], "n": [1, float("nan"), -2.5]}
            shown = super().measure(fitted, params).tables["share"]
            return StudyResult({"share": shown, "hostile": table}, [claim])

    written(Hostile(), tmp_path)
    text = (tmp_path / "tables/hostile.csv").read_text()
    assert ",=" not in text
    assert ",@" not in text
    assert "\r\n" in (tmp_path / "tables/hostile.csv").read_bytes().decode()


def test_figures_are_pages_that_ask_for_nothing_outside(
    example: ModuleType, tmp_path: Path
) -> None:
    written(example.CoinStudy(), tmp_path)
    page = (tmp_path / "figures/share.html").read_text()
    assert 'src="plotly.min.js"' in page
    assert "cdn" not in page
    assert (tmp_path / "figures/plotly.min.js").stat().st_size > 1_000_000
    assert json.loads((tmp_path / "figures/share.json").read_text())["data"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"study": 3}', "\x00"])
def test_what_is_no_manifest_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(StudyError, match="no manifest"):
        read_manifest(path)
    with pytest.raises(StudyError, match="cannot be read"):
        read_manifest(tmp_path / "nothing.json")


def test_a_folder_that_cannot_be_written_is_named(example: ModuleType, tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("")
    with pytest.raises(StudyError, match="file cannot be written"):
        written(example.CoinStudy(), place)


def test_edited_inputs_are_kept_and_run_again_to_the_same_bytes(
    example: ModuleType, tmp_path: Path
) -> None:
    class Weighed(example.CoinStudy):  # type: ignore[misc, name-defined]
        inputs = {"votes": {"n": [1]}}  # noqa: RUF012

        def fit(self, params: Any, context: Any) -> Any:
            return super().fit(params, context) * context.table("votes")["n"][0]

    study, mine = Weighed(), {"votes": {"n": [2]}}
    report = run(study, study.presets["smoke"], Conditions(inputs=mine))
    plan = read_manifest(write_report(report, tmp_path / "a"))
    assert plan.inputs == mine
    assert "inputs/votes.json" in plan.files
    under = Conditions(seeds=plan.seeds, inputs=plan.inputs)
    write_report(run(study, plan.params(study), under), tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    write_report(run(study, plan.params(study)), tmp_path / "own")
    assert "inputs/votes.json" in differing_files(plan, tmp_path / "own")


def test_a_manifest_reads_no_file_outside_its_folder(example: ModuleType, tmp_path: Path) -> None:
    path = written(example.CoinStudy(), tmp_path)
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"inputs": ["../secret"]}))
    with pytest.raises(StudyError, match="cannot name a file"):
        read_manifest(path)
    path.write_text(json.dumps(found | {"inputs": ["gone"]}))
    with pytest.raises(StudyError, match=r"gone.json cannot be read"):
        read_manifest(path)

"""`workbench score --engine ray` beside the local path; see the engine's own tests for kills."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workbench.app import cli
from workbench.app.cluster_report import _numbered


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))


def score(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    code = cli.run(["score", *arguments, "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_prompts_are_numbered_as_they_appear() -> None:
    values = np.array([30, 10, 30, 20, 10], np.int64)
    assert _numbered(values).tolist() == [0, 1, 0, 2, 1]
    assert _numbered(np.array([], np.int64)).tolist() == []


def test_a_folder_for_the_parts_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["score", "teaching", "--engine", "ray"]) == 1
    assert "give a folder for them: --out FOLDER" in capsys.readouterr().err


@pytest.mark.slow
def test_ray_prints_what_the_local_path_prints_and_goes_on_where_it_stopped(
    make_folder: Any, pairs_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: preference-workbench[ray]")
    models = ["--policy", str(make_folder(seed=1)), "--reference", str(make_folder(seed=0))]
    local = score(capsys, str(pairs_file), *models)
    out = tmp_path / "scores"
    options = ["--engine", "ray", "--actors", "2", "--block", "5", "--out", str(out)]
    first = score(capsys, str(pairs_file), *models, *options)
    assert (first.pop("parts"), first.pop("scored_now")) == (4, 4)
    # The parts hold no attributes, so the dependence on them is not known.
    for name in ("dependence", "dependence_of"):
        local.pop(name), first.pop(name)
    assert first == pytest.approx(local, abs=1e-5)
    other = score(capsys, str(pairs_file), *models, *options, "--beta", "0.5")
    assert (other["parts"], other["scored_now"]) == (4, 0)
    assert other["mean_margin"] == pytest.approx(5 * local["mean_margin"], abs=1e-5)

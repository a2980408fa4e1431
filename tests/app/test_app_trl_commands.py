import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_adapter

from workbench.app import cli
from workbench.objectives.catalogue import OBJECTIVES

ROWS = [
    {"pair_id": f"p{i}", "prompt": f"why {i}", "chosen": f"the cat {i}", "rejected": f"no {i}"}
    for i in range(4)
]


@pytest.fixture
def rows(tmp_path: Path) -> str:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command in this process: exit code, standard output, standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.mark.parametrize("command", ["export", "show", "objectives"])
def test_every_option_says_what_it_does(command: str, run: Any) -> None:
    code, out, _ = run("trl", command, "--help")
    assert code == 0
    application = cli.app["trl"][command]
    for parameter in application.assemble_argument_collection(parse_docstring=True):
        assert parameter.parameter.help, f"{command} {parameter.name}"
        assert parameter.name in out


def test_the_list_names_every_objective_and_why_some_are_missing(run: Any) -> None:
    code, out, err = run("trl", "objectives", "--json")
    found = {row["name"]: row for row in json.loads(out)}
    assert (code, err) == (0, "")
    assert found.keys() == OBJECTIVES.keys()
    assert found["cdpo"]["loss_type"] == "sigmoid + robust"
    assert "take ipo_norm" in found["ipo"]["note"]
    assert not found["ipo"]["able"]
    assert "KTOTrainer" in run("trl", "objectives")[1]


def test_an_export_is_a_folder_with_everything_in_it(
    rows: str, tiny_folder: Path, run: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    options = ["--model", str(tiny_folder), "--objective", "simpo", "--set", "beta=3",
               "--set", "gamma=0.25", "--steps", "7", "--json"]  # fmt: skip
    code, printed, err = run("trl", "export", rows, str(out), *options)
    assert (code, err) == (0, "")
    assert sorted(json.loads(printed)["files"]) == sorted(path.name for path in out.iterdir())
    config = json.loads((out / "config.json").read_text())
    assert config["model"] == {"name": str(tiny_folder), "revision": None, "dtype": "float32"}
    arguments = config["arguments"]
    assert (arguments["beta"], arguments["simpo_gamma"], arguments["max_steps"]) == (3.0, 0.25, 7)
    first = json.loads((out / "data.jsonl").read_text().splitlines()[0])
    assert first["prompt"] == [{"role": "user", "content": "why 0"}]
    assert "accelerate launch" in run("trl", "export", rows, str(tmp_path / "b"), *options[:-1])[1]


def test_a_model_without_a_template_gets_plain_text(
    rows: str, make_folder: Any, run: Any, tmp_path: Path
) -> None:
    base = make_folder(template=None)
    code, _, _ = run("trl", "export", rows, str(tmp_path / "run"), "--model", str(base), "--json")
    assert code == 0
    first = json.loads((tmp_path / "run" / "data.jsonl").read_text().splitlines()[0])
    assert first == {"prompt": "why 0", "chosen": " the cat 0", "rejected": " no 0"}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--objective", "ipo"], "take ipo_norm"),
        (["--objective", "odd"], "no objective 'odd'"),
        (["--set", "beta"], "write NAME=VALUE"),
        (["--set", "beta=x"], "'x' is no float"),
        (["--set", "wpo=maybe"], "'maybe' is no bool"),
        (["--set", "hyperparameters=x"], "'x' is no dict"),
        (["--set", "penalty=dcov", "--set", "attributes=age,race"], "no fairness penalty"),
        (["--set", "delta=1"], "no hyperparameter 'delta'"),
        (["--set", "wpo=yes", "--objective", "cpo"], "DPO trainer only"),
        (["--steps", "0"], "steps is 0"),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_line_and_leaves_nothing(
    options: list[str], named: str, rows: str, tiny_folder: Path, run: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    code, printed, err = run("trl", "export", rows, str(out), "--model", str(tiny_folder), *options)
    assert (code, printed) == (1, "")
    assert named in err
    assert err.count("\n") == 1
    assert not out.exists()


def test_an_adapter_is_no_base(
    rows: str, tiny_folder: Path, tiny_adapter: Path, run: Any, tmp_path: Path
) -> None:
    model = f"{tiny_folder}+adapter:{tiny_adapter}"
    code, _, err = run("trl", "export", rows, str(tmp_path / "run"), "--model", model)
    assert code == 1
    assert "name the base model" in err


def test_show_names_the_last_measures_and_the_policies(
    tiny_folder: Path, run: Any, tmp_path: Path
) -> None:
    folder = save_adapter(tmp_path / "checkpoint-2", tiny_folder)
    (folder / "trainer_state.json").write_text(
        json.dumps(
            {
                "global_step": 2,
                "max_steps": 2,
                "log_history": [
                    {"step": 1, "loss": 0.7, "rewards/margins": 0.0},
                    {"step": 2, "loss": 0.6, "rewards/margins": 0.5, "entropy": 2.0},
                ],
            }
        )
    )
    code, out, err = run("trl", "show", str(tmp_path), "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert [record["loss"] for record in found["records"]] == [0.7, 0.6]
    assert found["others"] == {"entropy": {"2": 2.0}}
    assert found["policies"] == [
        {"step": 2, "kind": "adapter", "policy": f"{tiny_folder}+adapter:{folder}", "problem": ""}
    ]
    code, out, _ = run("trl", "show", str(tmp_path), "--base", "default")
    assert code == 0
    assert "2 logged of 2 steps" in out
    assert f"default+adapter:{folder}" in out
    code, _, err = run("trl", "show", str(tmp_path / "none"))
    assert code == 1
    assert "give the output folder" in err

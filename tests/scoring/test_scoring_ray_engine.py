import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workbench.data.files import RowError
from workbench.data.formats import read_pairs, read_rows, write_pairs
from workbench.data.pairs import PreferenceSet
from workbench.errors import DataError, ScoringError
from workbench.scoring import ray_engine
from workbench.scoring.ray_engine import (
    Block,
    BlockReport,
    BlockScorer,
    part_name,
    plan_blocks,
    ray_runtime,
    read_block,
    read_manifest,
    read_parts,
    score_on_ray,
    score_pairs,
)

N = 40


def some_rows(n: int = N) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "pair_id": f"p{i}",
            "prompt": f"which is better {i // 2}",
            "chosen": f"the cat sat {i}" + " again" * (i % 4),
            "rejected": f"a dog {i}" + " really" * (i % 3),
            "alpha": 0.5 + i / 200,
        }
        for i in range(n)
    ]
    if n > 3:
        rows[3]["rejected"] = ""
    return rows


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in some_rows()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def models(make_folder: Any) -> dict[str, str]:
    return {"policy": str(make_folder(seed=1)), "reference": str(make_folder(seed=0))}


@pytest.fixture(scope="module")
def scorers(models: dict[str, str]) -> dict[str, Any]:
    from workbench.scoring.logprobs import ModelScorer
    from workbench.scoring.models import load_model, parse_model

    return {role: ModelScorer(load_model(parse_model(name))) for role, name in models.items()}


# Blocks --------------------------------------------------------------------------------


def test_blocks_of_any_size_hold_every_pair_once(source: Path, tmp_path: Path) -> None:
    whole = read_pairs(source)
    parquet = tmp_path / "pairs.parquet"
    write_pairs(whole, parquet)
    for path in (source, parquet):
        for size in (1, 7, N, 1000):
            blocks = plan_blocks(str(path), tmp_path, size)
            assert [block.index for block in blocks] == list(range(-(-N // size)))
            pairs = [pair for block in blocks for pair in read_block(block)]
            assert PreferenceSet("all", pairs) == whole, (path, size)


def test_row_groups_of_another_size_change_nothing(source: Path, tmp_path: Path) -> None:
    parquet = tmp_path / "grouped.parquet"
    write_pairs(read_pairs(source), parquet)
    pq.write_table(pq.read_table(parquet), parquet, row_group_size=6)
    blocks = plan_blocks(str(parquet), tmp_path, 10)
    pairs = [pair.pair_id for block in blocks for pair in read_block(block)]
    assert pairs == [f"p{i}" for i in range(N)]


def test_a_folder_is_its_files_in_order_and_other_sources_are_copied(
    source: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in (2, 1):
        text = "".join(json.dumps(row | {"pair_id": f"{shard}-{row['pair_id']}"}) + "\n"
                       for row in some_rows(5))  # fmt: skip
        (folder / f"{shard}.jsonl").write_text(text)
    (folder / "notes.txt").write_text("no data")
    blocks = plan_blocks(str(folder), tmp_path, 4)
    assert [Path(block.file).name for block in blocks] == ["1.jsonl"] * 2 + ["2.jsonl"] * 2
    csv = tmp_path / "pairs.csv"
    write_pairs(read_pairs(source), csv)
    copied = plan_blocks(str(csv), tmp_path / "out", N)
    assert copied[0].file == str((tmp_path / "out" / "source.jsonl").resolve())
    assert read_block(copied[0]) == read_pairs(source)


@pytest.mark.parametrize(
    ("line", "named"),
    [("{", "broken JSON"), ("[]", "a JSON object"), ('{"prompt": "p", "chosen": "c"}', "rejected")],
)
def test_a_bad_row_is_named_with_its_file_and_line(
    line: str, named: str, source: Path, tmp_path: Path
) -> None:
    lines = source.read_text().splitlines()
    lines[11] = line
    source.write_text("\n".join(lines))
    bad = plan_blocks(str(source), tmp_path, 5)[2]
    with pytest.raises(RowError, match=named) as caught:
        read_block(bad)
    assert (caught.value.file, caught.value.row) == ("pairs.jsonl", 12)


def test_sources_that_cannot_be_cut_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.jsonl or \.parquet"):
        plan_blocks(str(tmp_path / "empty"), tmp_path)
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(DataError, match="no rows"):
        plan_blocks(str(tmp_path / "none.jsonl"), tmp_path)
    with pytest.raises(DataError, match="1 or more"):
        plan_blocks("teaching", tmp_path, 0)
    loose = tmp_path / "loose.jsonl"
    loose.write_text('{"prompt": "p", "completion": "c", "label": true}\n')
    with pytest.raises(DataError, match="rows of their own"):
        read_block(plan_blocks(str(loose), tmp_path)[0])
    gone = Block(0, str(tmp_path / "gone.jsonl"), 0, 5, 1)
    with pytest.raises(DataError, match="every node must see it"):
        read_block(gone)


# Scores --------------------------------------------------------------------------------


def test_a_block_s_scores_are_those_of_the_live_session(
    source: Path, models: dict[str, str], scorers: dict[str, Any], tmp_path: Path
) -> None:
    from workbench.app.cluster_report import summary_of_parts
    from workbench.app.report import score_set
    from workbench.engine.settings import Settings
    from workbench.engine.workspace import Workspace

    table = score_pairs(read_pairs(source), scorers)
    workspace = Workspace(tmp_path / "sessions", tmp_path / "scores.sqlite")
    local = score_set(str(source), models["policy"], models["reference"], Settings(), None,
                      workspace)  # fmt: skip
    check_same_margins(table, local.table)
    summary = summary_of_parts(table, Settings())
    for name, value in vars(local.summary).items():
        if isinstance(value, str):
            assert getattr(summary, name) == value
        else:
            assert getattr(summary, name) == pytest.approx(value, abs=1e-5, nan_ok=True), name
    assert (summary.pairs, summary.scored) == (N, N - 1)


def check_same_margins(table: pa.Table, local: Any) -> None:
    got = {name: table[name].to_numpy() for name in table.column_names}
    chosen = got["policy_chosen"] - got["reference_chosen"]
    margin = chosen - (got["policy_rejected"] - got["reference_rejected"])
    assert got["pair_id"].tolist() == local["pair_id"].tolist()
    np.testing.assert_allclose(0.1 * margin, local["reward_margin"], rtol=0, atol=1e-5)


def test_sabotaged_margins_are_found_out(source: Path, scorers: dict[str, Any]) -> None:
    import pandas as pd

    table = score_pairs(read_pairs(source), scorers)
    columns = {name: table[name] for name in table.column_names}
    margin = 0.1 * sum(
        sign * columns[name].to_numpy()
        for sign, name in ((1, "policy_chosen"), (-1, "reference_chosen"),
                           (-1, "policy_rejected"), (1, "reference_rejected"))
    )  # fmt: skip
    local = pd.DataFrame({"pair_id": columns["pair_id"].to_pylist(), "reward_margin": margin})
    check_same_margins(table, local)
    spoilt = table.set_column(1, "policy_chosen", columns["policy_rejected"])
    with pytest.raises(AssertionError):
        check_same_margins(spoilt, local)


def test_a_part_is_named_after_all_that_it_depends_on(scorers: dict[str, Any]) -> None:
    rows = some_rows(4)
    pairs = read_rows(rows)
    name = part_name(pairs, scorers)
    assert part_name(read_rows(rows), scorers) == name
    changed = [*rows[:3], rows[3] | {"rejected": "other"}]
    swapped = {"policy": scorers["reference"], "reference": scorers["policy"]}
    others = {
        part_name(read_rows(changed), scorers),
        part_name(read_rows(rows[::-1]), scorers),
        part_name(pairs, swapped),
    }
    assert len(others | {name}) == 4


def test_an_actor_loads_its_models_once_and_never_scores_a_part_twice(
    source: Path, models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.scoring import models as loading

    loaded: list[str] = []
    load = loading.load_model

    def counted(spec: Any, **options: Any) -> Any:
        loaded.append(spec.name)
        return load(spec, **options)

    monkeypatch.setattr(loading, "load_model", counted)
    (tmp_path / "parts").mkdir()
    actor = BlockScorer(models, str(tmp_path), 1)
    blocks = [vars(block) for block in plan_blocks(str(source), tmp_path, 20)]
    first = [BlockReport(**actor(block)) for block in blocks]
    again = [BlockReport(**actor(block)) for block in blocks]
    assert loaded == [models["policy"], models["reference"]]
    assert [report.scored for report in first + again] == [True, True, False, False]
    assert [report.part for report in first] == [report.part for report in again]
    assert not list((tmp_path / "parts").glob("*.new"))


def test_what_is_wrong_with_a_block_is_reported_not_raised(
    models: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "parts").mkdir()
    path = tmp_path / "bad.jsonl"
    path.write_text("{\n")
    block = vars(plan_blocks(str(path), tmp_path)[0])
    report = BlockReport(**BlockScorer(models, str(tmp_path), 1)(block))
    assert "bad.jsonl, row 1" in report.problem
    other = BlockScorer(models | {"policy": str(tmp_path / "none")}, str(tmp_path), 1)
    path.write_text(json.dumps(some_rows(1)[0]) + "\n")
    block = vars(plan_blocks(str(path), tmp_path)[0])
    assert "is no model" in BlockReport(**other(block)).problem


def test_a_block_that_ends_every_worker_is_given_up(
    source: Path, models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """What no code can catch, played."""

    def die(*_: object) -> None:
        raise Killed

    (tmp_path / "parts").mkdir()
    actor = BlockScorer(models, str(tmp_path), 1)
    first, second = (vars(block) for block in plan_blocks(str(source), tmp_path, 20))
    score = ray_engine.score_pairs
    monkeypatch.setattr(ray_engine, "score_pairs", die)
    for _ in range(5):
        with pytest.raises(Killed):
            actor(second)
    monkeypatch.setattr(ray_engine, "score_pairs", score)
    report = BlockReport(**actor(second))
    assert "5 workers ended while they scored pairs.jsonl from row 21 on" in report.problem
    # The same command may try again, and what is done leaves no marks.
    assert BlockReport(**actor(second)).scored
    assert BlockReport(**actor(first)).scored
    assert {path.suffix for path in (tmp_path / "parts").iterdir()} == {".parquet"}


def test_what_ray_gives_up_on_is_said_with_the_cure() -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed: preference-workbench[ray]")

    class Dying:
        def iter_rows(self) -> Iterator[dict[str, Any]]:
            yield vars(BlockReport(0, "a.parquet", 4, True))
            raise ray.exceptions.WorkerCrashedError

    found = ray_engine._reports(ray, Dying())
    assert next(found).part == "a.parquet"
    with pytest.raises(ScoringError, match=r"Ray gave up \(WorkerCrashedError.*command goes on"):
        next(found)


def test_a_manifest_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as a manifest"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"blocks": [{"part": "../../etc/passwd"}]}')
    with pytest.raises(DataError, match="outside parts"):
        read_parts(tmp_path)
    (tmp_path / "manifest.json").write_text('{"blocks": [{"part": ""}]}')
    with pytest.raises(DataError, match="no finished part"):
        read_parts(tmp_path)
    (tmp_path / "manifest.json").write_text('{"blocks": [{"part": "a.parquet"}]}')
    with pytest.raises(DataError, match=r"a\.parquet cannot be read"):
        read_parts(tmp_path)


def test_without_ray_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(ScoringError, match=re.escape("preference-workbench[ray]")),
        ray_runtime(None, 1),
    ):
        pass


# On a local runtime --------------------------------------------------------------------


@pytest.fixture(scope="module")
def runtime() -> Iterator[Any]:
    """A Ray runtime of two cores on this machine's loopback, shared by the tests below."""
    pytest.importorskip("ray", reason="Ray is not installed: preference-workbench[ray]")
    with ray_runtime(None, 2) as ray:
        yield ray


def run(source: Path, models: dict[str, str], out: Path, **options: Any) -> list[BlockReport]:
    blocks = plan_blocks(str(source), out, 4)
    return score_on_ray(blocks, models["policy"], models["reference"], out, **options)


def expected(source: Path, scorers: dict[str, Any]) -> pa.Table:
    return score_pairs(read_pairs(source), scorers)


def check_same(found: pa.Table, wanted: pa.Table) -> None:
    assert found.column_names == wanted.column_names
    for name in wanted.column_names:
        one, other = found[name].to_pylist(), wanted[name].to_pylist()
        if pa.types.is_floating(wanted.schema.field(name).type):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-4, err_msg=name)
        else:
            assert one == other, name


def test_two_actors_give_the_numbers_of_this_process(
    runtime: Any, source: Path, models: dict[str, str], scorers: dict[str, Any], tmp_path: Path
) -> None:
    reports = run(source, models, tmp_path / "out", actors=2)
    assert [report.index for report in reports] == list(range(10))
    assert all(report.scored for report in reports)
    assert len({report.worker for report in reports}) == 2
    assert os.getpid() not in {report.worker for report in reports}
    check_same(read_parts(tmp_path / "out"), expected(source, scorers))
    manifest = read_manifest(tmp_path / "out")
    assert manifest["complete"] is True
    assert [block["row"] for block in manifest["blocks"]] == list(range(1, N, 4))


def test_a_killed_worker_is_survived(
    runtime: Any, source: Path, models: dict[str, str], scorers: dict[str, Any], tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_the_first(report: BlockReport) -> None:
        if not killed:
            killed.append(report.worker)
            os.kill(report.worker, signal.SIGKILL)

    reports = run(source, models, tmp_path / "out", actors=1, on_block=kill_the_first)
    assert len(killed) == 1
    assert {report.worker for report in reports} - set(killed), "nobody took the work over"
    check_same(read_parts(tmp_path / "out"), expected(source, scorers))


def test_what_is_wrong_with_a_row_reaches_the_user(
    runtime: Any, source: Path, models: dict[str, str], tmp_path: Path
) -> None:
    lines = source.read_text().splitlines()
    lines[-1] = "{"
    source.write_text("\n".join(lines))
    with pytest.raises(ScoringError, match=rf"pairs\.jsonl, row {N}"):
        run(source, models, tmp_path / "out")
    assert read_manifest(tmp_path / "out")["complete"] is False


def listening(pids: set[int]) -> set[str]:
    """Addresses on which processes listen, as the kernel writes them."""
    import psutil

    found = set()
    for pid in pids:
        try:
            connections = psutil.Process(pid).net_connections(kind="inet")
        except psutil.Error:
            continue
        found |= {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}
    return found


def test_nothing_listens_beyond_loopback_and_nothing_is_reported(runtime: Any) -> None:
    import psutil

    pids = {p.pid for p in psutil.Process().children(recursive=True)}
    addresses = listening(pids)
    assert addresses, "no server of the runtime was found"
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.slow
def test_a_killed_driver_is_taken_up_where_it_stopped(
    source: Path, models: dict[str, str], scorers: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: preference-workbench[ray]")
    out = tmp_path / "out"
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from workbench.scoring.ray_engine import plan_blocks, score_on_ray\n"
        "source, policy, reference, out = sys.argv[1:]\n"
        "blocks = plan_blocks(source, Path(out), 4)\n"
        "score_on_ray(blocks, policy, reference, Path(out), on_block=lambda _: time.sleep(600))\n"
    )
    arguments = [str(source), models["policy"], models["reference"], str(out)]
    child = subprocess.Popen([sys.executable, "-c", script, *arguments])
    try:
        end = time.monotonic() + 120
        while not list(out.glob("parts/*.parquet")) and time.monotonic() < end:
            assert child.poll() is None, "the driver ended by itself"
            time.sleep(0.05)
    finally:
        child.kill()
        child.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("parts/*.parquet")}
    assert kept
    reports = run(source, models, out)
    fresh = {report.part for report in reports if report.scored}
    # An orphaned worker may have finished one more block before it noticed.
    assert fresh.isdisjoint(kept)
    assert len(reports) == 10
    for name, written in kept.items():
        assert (out / "parts" / name).stat().st_mtime_ns == written
    check_same(read_parts(out), expected(source, scorers))


def test_a_runtime_that_a_busy_machine_did_not_start_is_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []

    class Util:
        @staticmethod
        def get_node_ip_address() -> str:
            return "127.0.0.1"

    class SlowRay:
        util = Util
        starts_at = 2

        def shutdown(self) -> None:
            tried.append(0)

    def start(ray: Any, actors: int) -> None:
        tried.append(1)
        if tried.count(1) < ray.starts_at:
            raise TimeoutError("too slow")

    monkeypatch.setattr(ray_engine, "_start_here", start)
    ray_engine._start(SlowRay(), None, 1)
    assert tried == [1, 0, 1]
    never = SlowRay()
    never.starts_at = 99
    with pytest.raises(TimeoutError):
        ray_engine._start(never, None, 1)
    beyond = SlowRay()
    beyond.starts_at = 0
    monkeypatch.setattr(Util, "get_node_ip_address", staticmethod(lambda: "192.0.2.7"))
    with pytest.raises(RuntimeError, match=r"would listen at 192\.0\.2\.7"):
        ray_engine._start(beyond, None, 1)
    assert tried[-1] == 0, "it was left running"


def test_a_cluster_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed: preference-workbench[ray]")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def nobody(ray: Any, address: str | None, actors: int) -> None:
        raise ConnectionError("nobody\nthere")

    monkeypatch.setattr(ray_engine, "_start", nobody)
    with (
        pytest.raises(ScoringError, match=r"at lab:6379 \(ConnectionError: nobody there\)"),
        ray_runtime("lab:6379", 1),
    ):
        pass

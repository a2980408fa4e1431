"""Sessions on disk: opened again after anything that may happen to a folder or a process."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from workbench.data.edits import SetField
from workbench.data.pairs import PreferenceSet
from workbench.data.store import PairStore
from workbench.defaults import DEFAULT_POLICY, DEFAULT_REFERENCE
from workbench.engine.workspace import Workspace
from workbench.errors import DataError

Settled = Callable[[Any], Any]

_KILLED = """
import sys
from pathlib import Path
from workbench.data.edits import SetField
from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.engine.workspace import Workspace

def load(name, progress, cancelled):
    raise RuntimeError("no models here")

folder = Path(sys.argv[1])
workspace = Workspace(folder, folder / "scores.sqlite", load)
pairs = PreferenceSet("killed", [
    PreferencePair(pair_id=f"p{i}", prompt="q", chosen="a", rejected="b") for i in range(50)
])
session = workspace.create(pairs)
print(session.session_id, flush=True)
for number in range(100_000):
    revision = session.apply([SetField(f"p{number % 50}", "chosen", f"text {number}")], "edit")
    # What is printed is acknowledged: the edit must survive whatever comes next.
    print(revision, number, flush=True)
"""


@pytest.fixture
def workspace(tmp_path: Path, models: Any) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path / "sessions", tmp_path / "scores.sqlite", models.load)
    yield workspace
    workspace.close()


def reopened(workspace: Workspace, models: Any) -> Workspace:
    workspace.close()
    return Workspace(workspace.folder, workspace.folder.parent / "scores.sqlite", models.load)


def test_a_session_is_found_again_with_its_edits_and_models_and_scores_nothing_anew(
    workspace: Workspace, models: Any, pairs_of: Any, settled: Settled
) -> None:
    session = workspace.create(pairs_of(), "one", "two")
    session.apply([SetField("p1", "chosen", "edited")], "edit")
    settled(session)
    workspace.use_models(session, policy="three")
    settled(session)
    scored = models.counts()
    again = reopened(workspace, models)
    found = again.session(session.session_id)
    assert found.models == {"policy": "three", "reference": "two"}
    assert found.snapshot().pairs["p1"].chosen == "edited"
    found.score()
    settled(found)
    assert len(found.snapshot().scores.rows) == 8
    assert models.counts() == scored
    assert found.undo()
    again.close()


def test_one_session_opened_twice_is_one_object(workspace: Workspace, pairs_of: Any) -> None:
    session = workspace.create(pairs_of())
    assert workspace.session(session.session_id) is session


def test_a_process_killed_in_the_middle_of_edits_loses_nothing_it_acknowledged(
    tmp_path: Path, models: Any
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    session_id, acknowledged = process.stdout.readline().strip(), []
    for line in process.stdout:
        acknowledged.append(tuple(map(int, line.split())))
        if len(acknowledged) == 40:
            os.kill(process.pid, signal.SIGKILL)
            break
    acknowledged += [tuple(map(int, line.split())) for line in process.stdout.readlines()[:-1]]
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    workspace = Workspace(tmp_path, tmp_path / "scores.sqlite", models.load)
    session = workspace.session(session_id)
    assert session.store.revision >= acknowledged[-1][0] >= 40
    last = session.store.at(acknowledged[-1][0])
    for _, number in acknowledged[-50:]:
        assert last[f"p{number % 50}"].chosen == f"text {number}"
    assert session.undo()
    workspace.close()


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "null", '"text"', "[" * 100_000, '{"title": "t", "spy": 1}',
        '{"title": 5}', '{"title": "t", "policy": ["x"]}', '{"title": "t", "policy": null}',
        b"\xff\xfe\x00".decode("latin-1"),
    ],
)  # fmt: skip
def test_a_spoilt_card_costs_the_names_of_the_models_and_nothing_else(
    workspace: Workspace, models: Any, pairs_of: Any, content: str
) -> None:
    session_id = workspace.create(pairs_of(), "one", "two").session_id
    card = workspace.folder / session_id / "session.json"
    card.write_text(content, encoding="latin-1")
    again = reopened(workspace, models)
    found = again.session(session_id)
    assert found.models == {"policy": DEFAULT_POLICY, "reference": DEFAULT_REFERENCE}
    assert len(found.snapshot().pairs) == 8
    assert [name for name, _ in again.sessions()] == [session_id]
    again.close()


def test_a_damaged_journal_is_an_error_that_names_the_file(
    workspace: Workspace, models: Any, pairs_of: Any
) -> None:
    session_id = workspace.create(pairs_of()).session_id
    again = reopened(workspace, models)
    (workspace.folder / session_id / "pairs.sqlite").write_bytes(b"SQLite format 3\0 nonsense" * 50)
    with pytest.raises(DataError, match=r"pairs\.sqlite"):
        again.session(session_id)
    again.close()


@pytest.mark.parametrize(
    "name",
    ["", "..", "../../etc", "/etc/passwd", "abc", "a" * 41, "a/b/c/d/e", "%2e%2e%2f%2e%2e",
     "aaaaaaaa\n", "aaaaaaa\0", "<script>alert(1)</script>", "ａａａａａａａａ",
     "aaaaaaa.", "aaaa\\aaaa"],
)  # fmt: skip
def test_names_that_are_no_session_ids_never_reach_the_disk(
    workspace: Workspace, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "pairs.sqlite"
    PairStore.create(outside, PreferenceSet("secret", [])).close()
    with pytest.raises(DataError, match="is not a session's name"):
        workspace.session(name)


def test_a_session_that_is_gone_is_an_error_that_says_where_to_start(
    workspace: Workspace,
) -> None:
    with pytest.raises(DataError, match="start from the first page"):
        workspace.session("AAAAbbbbCCCC")


def test_a_folder_that_cannot_be_written_is_named_with_a_cure(
    workspace: Workspace, tmp_path: Path, models: Any, pairs_of: Any
) -> None:
    # A file in the folder's place refuses everybody, root included.
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    there = Workspace(blocked, tmp_path / "other.sqlite", models.load)
    with pytest.raises(DataError, match="set WORKBENCH_DATA to a folder"):
        there.create(pairs_of())
    there.close()


@pytest.mark.parametrize("stage", ["card", "journal"])
def test_a_full_disk_is_said_and_leaves_no_half_session(
    workspace: Workspace, pairs_of: Any, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    full = OSError(28, "No space left on device")

    def refuse(*arguments: Any, **named: Any) -> None:
        raise full

    if stage == "card":
        monkeypatch.setattr(Path, "write_text", refuse)
    else:
        monkeypatch.setattr("workbench.data.journal.os.replace", lambda a, b: refuse())
        monkeypatch.setattr("workbench.engine.workspace._write_card", lambda folder, card: None)
    with pytest.raises(DataError, match="No space left on device"):
        workspace.create(pairs_of())
    assert list(workspace.folder.iterdir()) == []
    assert workspace.sessions() == []


def test_models_that_cannot_be_noted_down_are_an_error_that_says_so(
    workspace: Workspace, pairs_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = workspace.create(pairs_of())

    def refuse(*arguments: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("workbench.engine.workspace.os.replace", refuse)
    with pytest.raises(DataError, match="Read-only file system"):
        workspace.use_models(session, policy="other")
    assert session.models["policy"] == "other"


def test_a_score_store_that_cannot_be_written_scores_all_the_same(
    tmp_path: Path, models: Any, pairs_of: Any, settled: Settled
) -> None:
    (tmp_path / "file").write_text("")
    workspace = Workspace(tmp_path / "sessions", tmp_path / "file" / "scores.sqlite", models.load)
    session = workspace.create(pairs_of())
    session.score()
    settled(session)
    assert len(session.snapshot().scores.rows) == 8
    assert workspace.hub.scores.problem is not None
    workspace.close()


def test_sessions_lists_only_folders_that_are_sessions(workspace: Workspace, pairs_of: Any) -> None:
    first = workspace.create(pairs_of())
    stray = workspace.folder / "no session!"
    stray.mkdir()
    (stray / "session.json").write_text(json.dumps({"title": "stray"}))
    found = workspace.sessions()
    assert [name for name, _ in found] == [first.session_id]
    assert found[0][1].title == "made up"

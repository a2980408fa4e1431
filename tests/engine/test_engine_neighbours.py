"""Two processes on one session, as a notebook's kernel and the app are."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from workbench.data.edits import SetField
from workbench.data.pairs import PreferencePair, PreferenceSet
from workbench.data.store import PairStore
from workbench.engine.neighbours import Watch
from workbench.engine.workspace import Workspace
from workbench.errors import DataError

OTHER = """
import sys
from pathlib import Path
from workbench.data.edits import SetField
from workbench.engine.workspace import Workspace

def load(name, progress, cancelled):
    raise RuntimeError("no models here")

folder = Path(sys.argv[1])
workspace = Workspace(folder / "sessions", folder / "other.sqlite", load)
session = workspace.session(sys.argv[2])
print("open", flush=True)
for line in sys.stdin:
    word, *rest = line.split()
    if word == "edit":
        print(session.apply([SetField(rest[0], "chosen", rest[1])], "edit"), flush=True)
    elif word == "flood":
        for number in range(int(rest[1])):
            session.apply([SetField(rest[0], "rejected", f"other {number}")], "edit")
        print("done", flush=True)
    elif word == "undo":
        print(session.undo(), flush=True)
    elif word == "use":
        workspace.use_models(session, policy=rest[0])
        print("done", flush=True)
    elif word == "read":
        import time
        end = time.monotonic() + 20
        while session.store.pairs()[rest[0]].chosen_text != rest[1] and time.monotonic() < end:
            time.sleep(0.02)
        print(session.store.pairs()[rest[0]].chosen_text, flush=True)
"""


class Other:
    """Another process with the same session open; it does one thing a line."""

    def __init__(self, folder: Path, session_id: str) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(folder), session_id],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "open"

    def tell(self, words: str) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(words + "\n")
        self._child.stdin.flush()

    def do(self, words: str) -> str:
        self.tell(words)
        return self._answer()

    def _answer(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline().strip()

    def close(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait(30)


@pytest.fixture
def here(tmp_path: Path, models: Any) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path / "sessions", tmp_path / "scores.sqlite", models.load)
    yield workspace
    workspace.close()


@pytest.fixture
def both(here: Workspace, tmp_path: Path) -> Iterator[tuple[Any, Other]]:
    """The session here, and the process that has it open as well."""
    pairs = [
        PreferencePair(pair_id=f"p{i}", prompt=f"q{i}", chosen="yes", rejected="no")
        for i in range(4)
    ]
    session = here.create(PreferenceSet("shared", pairs), "small", "small")
    other = Other(tmp_path, session.session_id)
    yield session, other
    other.close()


def within(check: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not check() and time.monotonic() < end:
        time.sleep(0.02)
    return check()


def check_edits_are_seen(session: Any, other: Other, seconds: float = 20.0) -> None:
    heard: list[tuple[int, int]] = []
    session.listen(lambda: heard.append(session.version))
    assert other.do("edit p1 there") == "1"
    assert within(lambda: session.store.pairs()["p1"].chosen_text == "there", seconds)
    assert within(lambda: bool(heard), seconds)
    # It is scored here, too, without anybody asking.
    assert within(lambda: not session.board.unscored(session.store.pairs()), seconds)


def test_an_edit_of_another_process_is_seen_and_scored_here(both: Any) -> None:
    check_edits_are_seen(*both)


def test_without_the_watch_it_is_not_seen(
    tmp_path: Path, models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watch, "start", lambda self: None)
    workspace = Workspace(tmp_path / "sessions", tmp_path / "scores.sqlite", models.load)
    pairs = [PreferencePair(pair_id="p1", prompt="q", chosen="yes", rejected="no")]
    session = workspace.create(PreferenceSet("shared", pairs), "small", "small")
    other = Other(tmp_path, session.session_id)
    with pytest.raises(AssertionError):
        check_edits_are_seen(session, other, 2.0)
    other.close()
    workspace.close()


def test_an_edit_here_is_seen_by_the_other_process(both: Any) -> None:
    session, other = both
    session.apply([SetField("p2", "chosen", "here")], "edit")
    assert other.do("read p2 here") == "here"


def test_an_undo_there_takes_back_the_edit_made_here(both: Any) -> None:
    session, other = both
    session.apply([SetField("p2", "chosen", "here")], "edit")
    assert other.do("read p2 here") == "here"
    assert other.do("undo") == "True"
    assert within(lambda: session.store.pairs()["p2"].chosen_text == "yes")
    assert session.redo()
    assert other.do("read p2 here") == "here"


def test_two_processes_that_write_at_once_lose_no_edit(both: Any, here: Workspace) -> None:
    session, other = both
    other.tell("flood p3 100")
    for number in range(100):
        session.apply([SetField("p0", "rejected", f"here {number}")], "edit")
    assert other._answer() == "done"
    assert within(lambda: session.store.revision == 200)
    labels = [change.changes[0] for change in session.store.history(200)]
    assert len(labels) == 200
    path = here.folder / session.session_id / "pairs.sqlite"
    with PairStore.open(path) as fresh:
        assert fresh.pairs() == session.store.pairs()
        assert fresh.pairs()["p0"].rejected_text == "here 99"
        assert fresh.pairs()["p3"].rejected_text == "other 99"


def test_models_chosen_in_another_process_are_used_here(both: Any) -> None:
    session, other = both
    assert other.do("use large") == "done"
    assert within(lambda: session.models == {"policy": "large", "reference": "small"})


def test_a_watch_goes_on_after_a_failure_and_ends_when_stopped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[int] = []
    enough = threading.Event()

    def look() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise DataError("the disk is away")
        if len(calls) == 2:
            raise ValueError("a bug")
        if len(calls) == 4:
            enough.set()

    watch = Watch(look, 0.01)
    watch.start()
    watch.start()
    assert enough.wait(10)
    watch.stop()
    seen = len(calls)
    time.sleep(0.1)
    assert len(calls) == seen
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]

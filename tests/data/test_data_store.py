import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from workbench.data import PreferencePair, PreferenceSet
from workbench.data import journal as journal_module
from workbench.data import store as store_module
from workbench.data.edits import ABSENT, AddPair, DeletePair, SetField, duplicate, swap
from workbench.data.formats import read_pairs
from workbench.data.journal import Journal, translate
from workbench.data.pairs import build_pair
from workbench.data.store import PairStore
from workbench.errors import DataError

MakePair = Callable[..., PreferencePair]
MakeSet = Callable[..., PreferenceSet]


def set_alpha(store: PairStore, pair_id: str, alpha: float) -> int:
    return store.apply([SetField(pair_id, "alpha", alpha)])


def test_create_open_and_edit(tmp_path: Path, make_set: MakeSet) -> None:
    pairs = make_set()
    path = tmp_path / "new folder" / "a b?#%.db"
    with PairStore.create(path, pairs) as store:
        assert store.path == path
        assert (store.revision, store.pairs()) == (0, pairs)
        assert store.pairs() is store.pairs()
        assert store.apply([SetField("p1", "chosen", "new")], "my label", "me") == 1
    with PairStore.open(path) as store:
        assert store.revision == 1
        assert store.pairs()["p1"].chosen == "new"
        assert store.pairs().name == "demo"
        (change,) = store.history()
        assert (change.label, change.author, change.kind) == ("my label", "me", "edit")
        assert change.edits == (SetField("p1", "chosen", "new"),)
        assert change.changes[0].before == "Because p1."
        assert change.time.tzinfo is not None
        assert not change.undone
    assert list(path.parent.glob("*.part")) == []


def test_an_empty_set_and_strange_names_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    name = "<b>\0\u202e</b>"
    PairStore.create(path, PreferenceSet(name, [])).close()
    store = PairStore.open(path)
    assert (store.pairs().name, len(store.pairs())) == (name, 0)
    store.apply(
        [AddPair(build_pair({"pair_id": "\0", "prompt": "\0", "chosen": "", "rejected": ""}))]
    )
    assert PairStore.open(path).pairs()["\0"].prompt == "\0"


def test_undo_and_redo_restore_exactly(make_set: MakeSet) -> None:
    store = PairStore.in_memory(make_set(3, alpha=0.1 + 0.2))
    states = [store.pairs()]
    assert store.undo() is None
    assert store.redo() is None
    for edits in (
        [SetField("p0", "alpha", 0.7), SetField("p0", "metadata.x", None)],
        swap(*store.pairs()),
        [DeletePair("p1")],
        duplicate(store.pairs()["p2"], taken=store.pairs()),
    ):
        store.apply(edits)
        states.append(store.pairs())
    for expected in reversed(states[:-1]):
        assert store.can_undo
        store.undo("me")
        assert store.pairs().digest == expected.digest
    assert not store.can_undo
    for expected in states[1:]:
        assert store.can_redo
        store.redo()
        assert store.pairs().digest == expected.digest
    assert not store.can_redo
    assert store.revision == 12
    assert [c.kind for c in store.history()] == ["redo"] * 4 + ["undo"] * 4 + ["edit"] * 4
    assert store.history()[4].label == "Undo: Set 2 fields of p0"
    assert store.history()[4].author == "me"


def test_a_new_edit_ends_redo_and_the_undone_one_stays_in_the_history(make_set: MakeSet) -> None:
    store = PairStore.in_memory(make_set())
    set_alpha(store, "p0", 0.1)
    store.undo()
    set_alpha(store, "p0", 0.2)
    assert not store.can_redo
    newest, undo, first = store.history()
    assert (newest.undone, undo.undone, first.undone) == (False, False, True)
    store.undo()
    assert store.pairs()["p0"].alpha is None
    assert len(store.history(limit=2)) == 2


def test_edits_that_change_nothing_make_no_revision(make_set: MakeSet) -> None:
    store = PairStore.in_memory(make_set(alpha=0.5))
    assert set_alpha(store, "p0", 0.5) == 0
    assert store.apply([]) == 0
    assert store.history() == []
    assert store.restore(0) == 0


def test_a_refused_edit_changes_nothing(tmp_path: Path, make_set: MakeSet) -> None:
    store = PairStore.create(tmp_path / "a.db", make_set())
    before = store.pairs()
    with pytest.raises(DataError, match="Pair 'p1': alpha is 7"):
        store.apply([SetField("p0", "alpha", 0.5), SetField("p1", "alpha", 7)])
    assert store.pairs() is before
    assert set_alpha(store, "p0", 0.5) == 1
    assert PairStore.open(tmp_path / "a.db").pairs() == store.pairs()


def test_versions_diff_and_restore(make_set: MakeSet) -> None:
    store = PairStore.in_memory(make_set())
    set_alpha(store, "p0", 0.1)
    assert store.tag("first <b>") == 1
    store.apply([SetField("p1", "chosen", "x"), DeletePair("p2"), SetField("p1", "metadata.m", 1)])
    assert [(tag.name, tag.revision) for tag in store.versions()] == [("first <b>", 1)]
    assert store.at("first <b>")["p1"].chosen == "Because p1."
    assert store.at(0)["p0"].alpha is None
    assert store.at(2) is store.pairs()
    assert store.at(0)["p3"] is store.pairs()["p3"]
    found = {(c.pair_id, c.field): (c.before, c.after) for c in store.diff("first <b>", 2)}
    assert found[("p1", "chosen")] == ("Because p1.", "x")
    assert found[("p1", "metadata.m")] == (ABSENT, 1)
    assert found[("p2", "pair")][1] is ABSENT
    assert len(found) == 3
    now = store.pairs()
    assert store.restore("first <b>", author="me") == 3
    assert store.pairs() == store.at(1)
    assert store.history()[0].label == "Restore 'first <b>'"
    store.undo()
    assert store.pairs().digest == now.digest
    for revision in range(5):
        store.at(revision)
    assert store.at(0)["p0"].alpha is None


@pytest.mark.parametrize("version", [-1, 5, "no such", "1"])
def test_unknown_versions(version: int | str, make_set: MakeSet) -> None:
    store = PairStore.in_memory(make_set())
    store.tag("known")
    with pytest.raises(DataError, match=r"There is no (version|revision)"):
        store.at(version)


@pytest.mark.parametrize("name", ["", "  ", "taken", "x" * 501, "\ud800"])
def test_version_names_are_checked(name: str, make_set: MakeSet) -> None:
    store = PairStore.in_memory(make_set())
    store.tag("taken")
    with pytest.raises(DataError):
        store.tag(name)
    assert len(store.versions()) == 1


def test_changed_since_names_the_pairs_to_score_again(tmp_path: Path, make_set: MakeSet) -> None:
    store = PairStore.create(tmp_path / "a.db", make_set())
    set_alpha(store, "p0", 0.1)
    store.apply([SetField("p1", "chosen", "x"), DeletePair("p4")])
    assert store.changed_since(0) == {"p0", "p1", "p4"}
    assert store.changed_since(1) == {"p1", "p4"}
    assert store.changed_since(2) == set()
    assert store.changed_since(3) is None
    assert store.changed_since(-1) is None
    assert PairStore.open(tmp_path / "a.db").changed_since(0) == {"p0", "p1", "p4"}


def test_two_tabs_edit_one_file(tmp_path: Path, make_set: MakeSet) -> None:
    one = PairStore.create(tmp_path / "a.db", make_set())
    two = PairStore.open(tmp_path / "a.db")
    set_alpha(one, "p0", 0.1)
    assert two.revision == 0
    assert two.refresh()
    assert not two.refresh()
    assert two.pairs() == one.pairs()
    # Different fields both stay; of the same field the last writer's.
    one.apply([SetField("p1", "chosen", "from one"), SetField("p1", "alpha", 0.2)], author="one")
    two.apply([SetField("p1", "rejected", "from two"), SetField("p1", "alpha", 0.3)], author="two")
    assert one.refresh()
    pair = one.pairs()["p1"]
    assert (pair.chosen, pair.rejected, pair.alpha) == ("from one", "from two", 0.3)
    assert one.pairs() == two.pairs()
    assert [change.author for change in one.history(2)] == ["two", "one"]
    # One store's tag and undo know what the other did.
    two.tag("after")
    assert one.at("after") == two.pairs()
    two.undo()
    set_alpha(two, "p2", 0.5)
    two.tag("later")
    assert one.at("later")["p2"].alpha == 0.5
    assert one.pairs()["p1"].rejected == "No idea."


def test_a_pair_deleted_in_another_tab_is_reported(tmp_path: Path, make_set: MakeSet) -> None:
    one = PairStore.create(tmp_path / "a.db", make_set())
    two = PairStore.open(tmp_path / "a.db")
    one.apply([DeletePair("p0")])
    with pytest.raises(DataError, match="no pair 'p0'; it may have been deleted"):
        set_alpha(two, "p0", 0.5)
    assert two.pairs() == one.pairs()


def test_threads_lose_no_edit(tmp_path: Path, make_set: MakeSet) -> None:
    shared = PairStore.create(tmp_path / "a.db", make_set(8))
    stores = [shared, shared, PairStore.open(tmp_path / "a.db"), PairStore.open(tmp_path / "a.db")]

    def work(number: int, store: PairStore) -> None:
        for step in range(10):
            store.apply([SetField(f"p{number}", f"metadata.k{step}", step)])
            store.history(3)

    threads = [threading.Thread(target=work, args=item) for item in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pairs = PairStore.open(tmp_path / "a.db").pairs()
    assert [len(pairs[f"p{n}"].metadata) for n in range(5)] == [10, 10, 10, 10, 0]


CHILD = """
import sys
from workbench.data.edits import SetField
from workbench.data.store import PairStore
store = PairStore.open(sys.argv[1])
number = 0
while True:
    number += 1
    store.apply([SetField("p0", "metadata.n", number), SetField("p1", "metadata.n", number)])
    print(store.revision, flush=True)
"""


def check_survives_kill(path: Path, acknowledged: int) -> None:
    with PairStore.open(path) as store:
        assert store.revision >= acknowledged
        pairs = store.pairs()
        # A step is whole or not there.
        assert pairs["p0"].metadata["n"] == pairs["p1"].metadata["n"] == store.revision
        assert len(store.history(10**6)) == store.revision
        assert set_alpha(store, "p0", 0.5) == store.revision


def test_kill_in_a_stream_of_edits_loses_nothing_acknowledged(
    tmp_path: Path, make_set: MakeSet
) -> None:
    path = tmp_path / "a.db"
    PairStore.create(path, make_set()).close()
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for _ in range(40):
            last = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
        # What stood in the pipe at that moment was acknowledged too.
        for line in child.stdout.read().split("\n"):
            last = int(line) if line.isdigit() else last
    assert (tmp_path / "a.db-wal").exists()
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    # Sabotaged twin: without its write-ahead log the file has lost acknowledged edits.
    with pytest.raises((AssertionError, DataError, KeyError)):
        check_survives_kill(copy, last)
    check_survives_kill(path, last)


def test_a_kill_while_creating_leaves_no_half_file(
    tmp_path: Path, make_set: MakeSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "add_checkpoint", die)
    with pytest.raises(KeyboardInterrupt):
        PairStore.create(tmp_path / "a.db", make_set())
    assert list(tmp_path.iterdir()) == []


CREATOR = """
import sys
from pathlib import Path
from workbench.data.pairs import PreferenceSet, build_pair
from workbench.data.store import PairStore
texts = {"prompt": "p" * 300, "chosen": "c" * 300, "rejected": "r" * 300}
pairs = PreferenceSet("s", [build_pair({"pair_id": str(n), **texts}) for n in range(3_000)])
print("ready", flush=True)
for number in range(10_000):
    PairStore.create(Path(sys.argv[1]) / f"{number}.db", pairs).close()
"""


def test_a_real_kill_while_creating_leaves_whole_files_only(tmp_path: Path) -> None:
    for turn, pause in enumerate((0.02, 0.09, 0.17)):
        folder = tmp_path / str(turn)
        folder.mkdir()
        with subprocess.Popen(
            [sys.executable, "-c", CREATOR, str(folder)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(pause)
            os.kill(child.pid, signal.SIGKILL)
        for path in folder.glob("*.db"):
            with PairStore.open(path) as store:
                assert len(store.pairs()) == 3_000
        # What a killed process left is in nobody's way.
        PairStore.create(folder / "next.db", PreferenceSet("s", [])).close()


FULL = """
import sys
from workbench.data.edits import SetField
from workbench.data.store import PairStore
from workbench.errors import DataError
from pathlib import Path
from workbench.data.formats import write_pairs
store = PairStore.open(sys.argv[1])
noise, done = iter(range(10**9)), 0
import random
try:
    while True:
        store.apply([SetField("p0", "chosen", random.randbytes(20_000).hex())])
        done = store.revision
except DataError as error:
    print(f"{done} {error}")
try:
    for n in range(1_000):
        write_pairs(store.pairs(), Path(sys.argv[1]).with_name(f"{n}.jsonl"))
except DataError as error:
    print(error)
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte, which is really full when it is full."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small file system can only be mounted by a superuser")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_really_full_disk_loses_nothing_acknowledged(small_disk: Path, make_set: MakeSet) -> None:
    path = small_disk / "a.db"
    PairStore.create(path, make_set()).close()
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True
    )
    edits, export = done.stdout.splitlines()
    revision, message = edits.split(" ", 1)
    assert re.search(r"a\.db: the disk (is full|failed).*Nothing was changed", message)
    assert "cannot be written (No space left on device); free space" in export
    assert int(revision) > 0
    assert list(small_disk.glob("*.part")) == []
    for left in small_disk.glob("*.jsonl"):
        assert len(read_pairs(left)) == 5
        left.unlink()
    with PairStore.open(path) as store:
        assert store.revision == int(revision)
        assert len(store.pairs()["p0"].chosen) == 40_000


def test_a_really_full_disk_leaves_no_half_store(small_disk: Path, make_set: MakeSet) -> None:
    pairs = make_set(3, chosen=os.urandom(400_000).hex())
    with pytest.raises(DataError, match=r"a\.db: the disk (is full|failed)"):
        PairStore.create(small_disk / "a.db", pairs)
    assert list(small_disk.iterdir()) == []


def test_a_limit_on_file_sizes_is_met_like_a_full_disk(tmp_path: Path, make_set: MakeSet) -> None:
    """What every user can play: the system refuses to let any file grow over 300 kB."""
    path = tmp_path / "a.db"
    PairStore.create(path, make_set()).close()
    limits = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", limits + FULL.split("try:\n    for n")[0], str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    revision, message = done.stdout.split(" ", 1)
    assert "Nothing was changed" in message
    with PairStore.open(path) as store:
        assert store.revision == int(revision) > 0


HOSTILE = [
    "<script>alert(1)</script>",
    "**bold** [x](javascript:alert(1))",
    "\u202egpj.exe",
    "\U0001f469\u200d\U0001f52c",
    "nul\0inside",
    "'; DROP TABLE change; --",
    "%s {0} ${x}",
    "line\u2028separator\nbreak\r",
    "é" * 500,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_in_every_place_of_the_history_is_kept_as_it_is(
    text: str, tmp_path: Path, make_set: MakeSet
) -> None:
    path = tmp_path / "a.db"
    with PairStore.create(path, PreferenceSet(text, make_set().pairs)) as store:
        fields = {"prompt": text, "attributes.g": text, f"attributes.{text}": 1}
        edits = [SetField("p0", field, value) for field, value in fields.items()]
        store.apply([*edits, SetField("p0", f"metadata.{text}", [text])], label=text, author=text)
        store.tag(text)
        store.apply([AddPair(store.pairs()["p0"].with_fields(pair_id=text), None)])
    with PairStore.open(path) as store:
        pairs = store.pairs()
        assert pairs.name == text
        assert pairs[text].prompt == pairs["p0"].attributes["g"] == text
        assert dict(pairs["p0"].metadata) == {text: [text]}
        assert (store.history()[1].label, store.history()[1].author) == (text, text)
        assert [tag.name for tag in store.versions()] == [text]
        store.restore(text)
        assert text not in store.pairs()
        store.undo()
        assert store.pairs() == pairs


def test_a_megabyte_in_any_field_of_an_edit(make_set: MakeSet) -> None:
    long = "\U0001f600" * 250_000
    store = PairStore.in_memory(make_set())
    for field in ("prompt", "chosen", "rejected", "attributes.g", "metadata.m", f"metadata.{long}"):
        before = store.pairs()
        store.apply([SetField("p0", field, long)])
        assert store.pairs() != before
        store.undo()
        assert store.pairs() == before
    with pytest.raises(DataError) as caught:
        store.apply([SetField(long, "alpha", long)])
    assert len(str(caught.value)) < 1_000
    with pytest.raises(DataError, match="use at most 500"):
        store.apply([SetField("p0", "alpha", 0.5)], label=long)


def fill_up(store: PairStore) -> None:
    """Let SQLite itself find the disk full, by allowing the file no further page."""
    connection = store._journal._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")


def test_a_full_disk_leaves_file_and_memory_as_they_were(tmp_path: Path, make_set: MakeSet) -> None:
    path = tmp_path / "a.db"
    store = PairStore.create(path, make_set())
    set_alpha(store, "p0", 0.5)
    before = store.pairs()
    fill_up(store)
    noise = os.urandom(100_000).hex()
    with pytest.raises(DataError, match=r"a\.db: the disk is full\. Free some space") as caught:
        store.apply([SetField("p1", "chosen", noise)])
    assert str(path) in str(caught.value)
    assert store.pairs() is before
    assert (store.revision, store.can_redo) == (1, False)
    store._journal._connection.execute("PRAGMA max_page_count = 1000000")
    assert store.apply([SetField("p1", "chosen", noise)]) == 2
    assert PairStore.open(path).pairs() == store.pairs()


def test_a_failing_commit_leaves_memory_as_it_was(make_set: MakeSet) -> None:
    class Failing:
        """A connection whose commits fail."""

        def __init__(self, real: sqlite3.Connection) -> None:
            self.real = real

        def execute(self, sql: str, *rest: object) -> object:
            if sql == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")
            return self.real.execute(sql, *rest)  # type: ignore[arg-type]

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

    store = PairStore.in_memory(make_set())
    before = store.pairs()
    store._journal._connection = Failing(store._journal._connection)  # type: ignore[assignment]
    with pytest.raises(DataError, match="the disk failed to read or write"):
        set_alpha(store, "p0", 0.5)
    assert store.pairs() is before
    assert store.revision == 0
    store._journal._connection = store._journal._connection.real  # type: ignore[attr-defined]
    assert set_alpha(store, "p0", 0.5) == 1


def test_a_file_that_can_only_be_read(
    tmp_path: Path, make_set: MakeSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    with PairStore.create(path, make_set()) as store:
        set_alpha(store, "p0", 0.5)
    prepare = Journal._prepare

    def refuse_writing(self: Journal, *, writable: bool) -> None:
        # Permissions do not bind a superuser, so the failure of read-only storage is played.
        if writable:
            raise sqlite3.OperationalError("attempt to write a readonly database")
        prepare(self, writable=writable)

    monkeypatch.setattr(Journal, "_prepare", refuse_writing)
    store = PairStore.open(path)
    assert store.pairs()["p0"].alpha == 0.5
    with pytest.raises(DataError, match=r"a\.db: the file can only be read\. Copy it"):
        set_alpha(store, "p0", 0.6)
    assert store.pairs()["p0"].alpha == 0.5


def test_a_locked_file(tmp_path: Path, make_set: MakeSet) -> None:
    path = tmp_path / "a.db"
    store = PairStore.create(path, make_set())
    store._journal._connection.execute("PRAGMA busy_timeout = 10")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DataError, match="another program is writing"):
        set_alpha(store, "p0", 0.5)
    other.execute("ROLLBACK")
    other.close()
    assert set_alpha(store, "p0", 0.5) == 1


def test_a_closed_store_says_so(make_set: MakeSet) -> None:
    store = PairStore.in_memory(make_set())
    store.close()
    store.close()
    with pytest.raises(DataError, match="closed database"):
        store.refresh()


def test_existing_and_missing_files(tmp_path: Path, make_set: MakeSet) -> None:
    path = tmp_path / "a.db"
    PairStore.create(path, make_set()).close()
    with pytest.raises(DataError, match="exists already"):
        PairStore.create(path, make_set())
    with pytest.raises(DataError, match="is not a file"):
        PairStore.open(tmp_path / "b.db")
    with pytest.raises(DataError, match="is not a file"):
        PairStore.open(tmp_path)
    with pytest.raises(DataError, match="cannot be written"):
        PairStore.create(path / "inside.db", make_set())


def test_a_place_that_sqlite_cannot_open(
    tmp_path: Path, make_set: MakeSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(sqlite3, "connect", refuse)
    with pytest.raises(DataError, match="Check that its folder exists"):
        PairStore.create(tmp_path / "a.db", make_set())


def test_files_of_another_kind(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("not a database at all, but long enough to look at " * 100)
    with pytest.raises(DataError, match=r"text\.db is damaged"):
        PairStore.open(text)
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE x (y)")
    connection.close()
    with pytest.raises(DataError, match="is not a preference store"):
        PairStore.open(other)
    (tmp_path / "empty.db").touch()
    with pytest.raises(DataError, match="is not a preference store"):
        PairStore.open(tmp_path / "empty.db")


@pytest.mark.parametrize(
    "statement",
    [
        "PRAGMA user_version = 99",
        "DROP TABLE checkpoint",
        "DELETE FROM checkpoint",
        "DELETE FROM checkpoint WHERE part = 1",
        "DELETE FROM change WHERE revision = 1",
        "DELETE FROM meta",
        "UPDATE checkpoint SET pairs = x'00'",
        "UPDATE checkpoint SET pairs = 'text'",
        "UPDATE change SET changes = x'00'",
        "UPDATE change SET time = 'yesterday'",
        "UPDATE change SET kind = 'undo'",
    ],
)
def test_altered_files(
    tmp_path: Path, make_set: MakeSet, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    monkeypatch.setattr(journal_module, "PAIRS_PER_PART", 2)
    with PairStore.create(path, make_set()) as store:
        set_alpha(store, "p0", 0.5)
        set_alpha(store, "p0", 0.6)
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()
    with pytest.raises(DataError, match=r"a\.db (is damaged|has format 99)"):
        PairStore.open(path)


def test_overwritten_bytes_never_escape_as_another_error(tmp_path: Path, make_set: MakeSet) -> None:
    path = tmp_path / "a.db"
    with PairStore.create(path, make_set(50)) as store:
        set_alpha(store, "p0", 0.5)
    whole = path.read_bytes()
    refused = 0
    for start in range(0, len(whole), 1500):
        path.write_bytes(whole[:start] + b"\xa5" * 700 + whole[start + 700 :])
        try:
            PairStore.open(path).close()
        except DataError:
            refused += 1
    assert refused > 3


def test_checkpoints_are_written_and_used(
    tmp_path: Path, make_set: MakeSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "CHECKPOINT_AFTER", 5)
    path = tmp_path / "a.db"
    with PairStore.create(path, make_set()) as store:
        for number in range(10):
            set_alpha(store, "p0", number / 10)
        store.undo()
        expected = {revision: store.at(revision).digest for revision in range(12)}
    PairStore.open(path).close()
    with PairStore.open(path) as store:
        assert store._base_revision == 11
        assert store.can_undo
        assert store.can_redo
        assert {r: store.at(r).digest for r in range(12)} == expected
        store.redo()
        assert store.pairs()["p0"].alpha == 0.9
        assert store.changed_since(3) == {"p0"}


def test_a_checkpoint_that_cannot_be_written_does_not_prevent_opening(
    tmp_path: Path, make_set: MakeSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    with PairStore.create(path, make_set()) as store:
        set_alpha(store, "p0", 0.5)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(store_module, "CHECKPOINT_AFTER", 0)
    monkeypatch.setattr(Journal, "add_checkpoint", full)
    assert PairStore.open(path).pairs()["p0"].alpha == 0.5


def test_a_copy_has_the_whole_history(tmp_path: Path, make_set: MakeSet) -> None:
    store = PairStore.in_memory(make_set())
    set_alpha(store, "p0", 0.5)
    store.tag("v")
    store.save_copy(tmp_path / "copy.db")
    with PairStore.open(tmp_path / "copy.db") as copy:
        assert copy.pairs() == store.pairs()
        assert copy.at(0) == store.at(0)
        assert copy.versions() == store.versions()
    with pytest.raises(DataError, match="exists already"):
        store.save_copy(tmp_path / "copy.db")
    with pytest.raises(DataError, match=r"The copy .* was not written"):
        store.save_copy(tmp_path / "no folder" / "copy.db")


def test_state_for_a_saved_session(tmp_path: Path, make_set: MakeSet) -> None:
    store = PairStore.create(tmp_path / "a.db", make_set())
    set_alpha(store, "p0", 0.5)
    store.tag("v")
    assert store.export_state() == {
        "name": "demo",
        "path": str(tmp_path / "a.db"),
        "revision": 1,
        "pairs": 5,
        "digest": store.pairs().digest,
        "versions": {"v": 1},
    }
    assert PairStore.in_memory(make_set()).export_state()["path"] is None


def test_messages_for_other_failures_of_sqlite() -> None:
    assert "odd. Nothing was changed" in str(translate(sqlite3.OperationalError("odd"), "f"))
    assert "too large" in str(translate(sqlite3.DataError("string or blob too big"), "f"))
    assert "damaged" in str(translate(sqlite3.DatabaseError("malformed"), "f"))


def test_one_edit_of_many_pairs_builds_one_pair(
    make_set: MakeSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What keeps an edit quick at 100,000 pairs, without a clock: nothing else is built."""
    store = PairStore.in_memory(make_set(3_000))
    store.pairs().prompt_groups()
    built = 0
    validate = PreferencePair.model_validate

    def count(*args: object, **kwargs: object) -> PreferencePair:
        nonlocal built
        built += 1
        return validate(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(PreferencePair, "model_validate", count)
    set_alpha(store, "p7", 0.5)
    assert built == 1
    assert "_prompt_groups" in store.pairs().__dict__
    store.undo()
    assert built == 2


class StoreMachine(RuleBasedStateMachine):
    """Any sequence of edits, undos, redos and re-openings agrees with a list of states."""

    def __init__(self) -> None:
        super().__init__()
        texts = {"prompt": "p", "chosen": "c", "rejected": "r"}
        pairs = [build_pair({"pair_id": f"p{n}", **texts}) for n in range(3)]
        self.store = PairStore.in_memory(PreferenceSet("s", pairs))
        self.past = [self.store.pairs().digest]
        self.future: list[str] = []
        self.by_revision = {0: self.past[0]}

    def note(self) -> None:
        self.by_revision[self.store.revision] = self.store.pairs().digest

    @rule(pair=st.integers(0, 2), value=st.one_of(st.none(), st.floats(0, 1)))
    def edit(self, pair: int, value: float | None) -> None:
        before = self.store.revision
        with suppress(DataError):
            self.store.apply([SetField(f"p{pair}", "alpha", value)])
        if self.store.revision != before:
            self.past.append(self.store.pairs().digest)
            self.future = []
        self.note()

    @rule(name=st.sampled_from(["a", "b", "c"]), after=st.sampled_from([None, "p0", "a", "b"]))
    def add_or_delete(self, name: str, after: str | None) -> None:
        pairs = self.store.pairs()
        if name in pairs:
            self.store.apply([DeletePair(name)])
        elif after is None or after in pairs:
            self.store.apply([AddPair(pairs["p1"].with_fields(pair_id=name), after)])
        else:
            return
        self.past.append(self.store.pairs().digest)
        self.future = []
        self.note()

    @precondition(lambda self: len(self.past) > 1)
    @rule()
    def undo(self) -> None:
        assert self.store.undo() == self.store.revision
        self.future.append(self.past.pop())
        self.note()

    @precondition(lambda self: self.future)
    @rule()
    def redo(self) -> None:
        assert self.store.redo() == self.store.revision
        self.past.append(self.future.pop())
        self.note()

    @rule()
    def load_again(self) -> None:
        self.store = PairStore(self.store._journal, None)

    @invariant()
    def agrees(self) -> None:
        assert self.store.pairs().digest == self.past[-1]
        assert self.store.can_undo == (len(self.past) > 1)
        assert self.store.can_redo == bool(self.future)

    def teardown(self) -> None:
        for revision, digest in self.by_revision.items():
            assert self.store.at(revision).digest == digest


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)

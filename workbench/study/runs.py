"""The run store: what was fitted, keyed by everything that it follows from.

The key has the study's slug and sources, the sources of the layers below it, torch's version, the
fit knobs, the inputs, the seed and the device. A measure knob is not in it: moving one reads the
same fit.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

import workbench
from workbench import paths
from workbench.data.pairs import PreferenceSet
from workbench.study.base import Study
from workbench.study.context import Input
from workbench.study.errors import StudyError
from workbench.study.fitted import Encoded, decode, encode
from workbench.study.knobs import knob_values

_FORMAT = 1
_LAYERS = ("metrics", "data", "objectives", "scoring", "training", "study")
_TREE, _ARRAYS = "fitted.json", "fitted.safetensors"
LIMIT_BYTES = 2 * 1024**3
"""How much the user's own run store may hold."""


@dataclass(frozen=True)
class FitKey:
    """What one fit follows from; `digest` names its folder."""

    study: Study[Any, Any]
    params: object
    seed: int
    device: str
    inputs: Mapping[str, Input]

    @property
    def digest(self) -> str:
        """A digest of everything that the fit follows from."""
        return _digest(
            {
                "format": _FORMAT,
                "study": self.study.slug,
                # A sabotaged variant is another class, or another instance of it.
                "variant": f"{type(self.study).__module__}:{type(self.study).__qualname__}",
                "settings": _settings(self.study),
                "sources": sources_digest(package_of(self.study)),
                "torch": torch.__version__,
                "knobs": knob_values(self.params, "fit"),
                "seed": self.seed,
                "device": self.device,
                "inputs": {name: input_digest(value) for name, value in self.inputs.items()},
            }
        )


class RunStore:
    """Fits in a folder, one sub-folder each.

    Args:
        root: The folder; by default `runs` in the user's data folder.
        limit: Most bytes that it may hold, None for any number. What was used longest ago is
            deleted first, and the newest fit never.
    """

    def __init__(self, root: Path | None = None, limit: int | None = LIMIT_BYTES) -> None:
        self.root = root or paths.data_dir() / "runs"
        self.limit = limit

    def folder(self, key: FitKey) -> Path:
        """Where a fit is, or would be, kept."""
        return self.root / key.study.slug / key.digest

    def holds(self, key: FitKey) -> bool:
        """Whether a fit is kept."""
        return all((self.folder(key) / name).is_file() for name in (_TREE, _ARRAYS))

    def read(self, key: FitKey) -> Any | None:  # noqa: ANN401 - what the study fitted
        """The fitted value, or None if it was not kept, or cannot be read any more."""
        folder = self.folder(key)
        try:
            kept = Encoded((folder / _TREE).read_bytes(), (folder / _ARRAYS).read_bytes())
            found = decode(kept, package_of(key.study))
        except (OSError, StudyError):
            return None
        with suppress(OSError):
            os.utime(folder)
        return found

    def write(self, key: FitKey, fitted: object) -> str:
        """Keep a fitted value, whole or not at all, and return its digest.

        Raises:
            StudyError: it cannot be encoded, or the folder cannot be written.
        """
        encoded, folder = encode(fitted), self.folder(key)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
            (partial / _TREE).write_bytes(encoded.tree)
            (partial / _ARRAYS).write_bytes(encoded.arrays)
            shutil.rmtree(folder, ignore_errors=True)
            # Another process may have kept the same fit meanwhile.
            with suppress(FileExistsError):
                os.replace(partial, folder)
            shutil.rmtree(partial, ignore_errors=True)
        except OSError as error:
            raise StudyError(
                f"{folder} cannot be written ({error.strerror}); free space, or choose another "
                "folder."
            ) from error
        self._evict(folder)
        return encoded.digest

    def _evict(self, newest: Path) -> None:
        """Delete what was used longest ago until the rest is within the limit."""
        if self.limit is None:
            return
        # A folder without a fit that begins with a dot was left by a process that was killed.
        found = (each for each in self.root.glob("*/*") if each != newest)
        folders = [f for f in found if (f / _TREE).is_file() or f.name.startswith(".")]
        held = _size(newest)
        for folder in sorted(folders, key=_last_used, reverse=True):
            held += _size(folder)
            if held > self.limit:
                shutil.rmtree(folder, ignore_errors=True)


def package_of(study: Study[Any, Any]) -> str:
    """The package, or single module, that a study's code lies in."""
    module = import_module(type(study).__module__)
    return module.__name__ if hasattr(module, "__path__") else module.__package__ or module.__name__


@cache
def sources_digest(package: str) -> str:
    """A digest of every file of a study's package, and of the layers that it stands on.

    Read once a process, as the modules are.
    """
    below = Path(workbench.__file__).parent
    folders = [_place(package), *(below / layer for layer in _LAYERS)]
    whole = hashlib.blake2b(digest_size=16)
    for folder in folders:
        for path in _sources(folder):
            whole.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return whole.hexdigest()


def input_digest(value: Input) -> str:
    """A digest of an input's content."""
    return value.digest if isinstance(value, PreferenceSet) else _digest(dict(value))


def _last_used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _size(folder: Path) -> int:
    held = 0
    for path in folder.glob("*"):
        # Another process may delete it meanwhile.
        with suppress(OSError):
            held += path.stat().st_size
    return held


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _settings(study: Study[Any, Any]) -> dict[str, str]:
    return {name: repr(value) for name, value in sorted(vars(study).items())}


def _place(package: str) -> Path:
    found = import_module(package)
    if hasattr(found, "__path__"):
        return Path(next(iter(found.__path__)))
    file = getattr(found, "__file__", None)  # a notebook's __main__ has not even the name
    if file is None:
        raise StudyError(f"{package} has no file, so that its fits cannot be kept.")
    return Path(file)


def _sources(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
        return
    found = (path for path in place.rglob("*") if path.is_file())
    yield from sorted(path for path in found if "__pycache__" not in path.parts)

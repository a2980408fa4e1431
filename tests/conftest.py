"""What every test may use: the modules beside this one, and their fixtures."""

import importlib.util
import sys
from pathlib import Path

# importlib import mode puts no folder on the path, so each module is loaded from where it lies.
for _name in (
    "browser_support",
    "jupyterlab_support",
    "tiny_models",
    "fake_models",
    "trl_block",
    "study_support",
):
    if _name not in sys.modules:
        _spec = importlib.util.spec_from_file_location(
            _name, Path(__file__).with_name(f"{_name}.py")
        )
        assert _spec is not None
        assert _spec.loader is not None
        sys.modules[_name] = importlib.util.module_from_spec(_spec)
        _spec.loader.exec_module(sys.modules[_name])

from browser_support import browser, browsing, page, serve, stage  # noqa: E402
from fake_models import hub, made_up, models, pairs_of, settled, start  # noqa: E402
from tiny_models import (  # noqa: E402
    make_adapter,
    make_folder,
    tiny_adapter,
    tiny_folder,
    tiny_loaded,
    tiny_plain_tokenizer,
)

__all__ = [
    "browser",
    "browsing",
    "hub",
    "made_up",
    "make_adapter",
    "make_folder",
    "models",
    "page",
    "pairs_of",
    "serve",
    "settled",
    "stage",
    "start",
    "tiny_adapter",
    "tiny_folder",
    "tiny_loaded",
    "tiny_plain_tokenizer",
]

"""What every test may use; the browser fixtures come from browser_support."""

import importlib.util
import sys
from pathlib import Path

# importlib import mode puts no folder on the path, so the module is loaded from where it lies.
_SPEC = importlib.util.spec_from_file_location(
    "browser_support", Path(__file__).with_name("browser_support.py")
)
assert _SPEC is not None
assert _SPEC.loader is not None
if "browser_support" not in sys.modules:
    _module = importlib.util.module_from_spec(_SPEC)
    sys.modules["browser_support"] = _module
    _SPEC.loader.exec_module(_module)

from browser_support import browser, browsing, page, serve, stage  # noqa: E402

__all__ = ["browser", "browsing", "page", "serve", "stage"]

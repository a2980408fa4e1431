"""Preference workbench: edit preference data and see at once what an objective makes of it."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "open", "show"]
_HOMES = {
    "open": ("workbench.bench.opening", "open_bench"),
    "show": ("workbench.views.study_view", "show"),
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute
    """`open` and `show` are read when they are asked for: they need ipywidgets and torch."""
    if name in _HOMES:
        module, attribute = _HOMES[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Preference workbench: edit preference data and see at once what an objective makes of it."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "show"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute
    """`show` is read when it is asked for: it needs ipywidgets, which nothing below views may."""
    if name == "show":
        return import_module("workbench.views.study_view").show
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

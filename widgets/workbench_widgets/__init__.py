"""Three widgets for JupyterLab and the served app: a pair editor, token strips, a live figure.

Each lives in one ES module that needs nothing from the network. The classes here are the notebook
shells (anywidget); the served app reads the same files through its own shells.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench_widgets.live_figure.widget import LiveFigure
    from workbench_widgets.pair_editor.widget import PairEditor
    from workbench_widgets.token_strip.widget import TokenStrip

__all__ = ["LiveFigure", "PairEditor", "TokenStrip"]

_HOMES = {"LiveFigure": "live_figure", "PairEditor": "pair_editor", "TokenStrip": "token_strip"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute can be anything
    """Import a widget when it is first asked for: the app needs only the files beside it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}.widget"), name)

"""The page's colours and letters, those of the figures."""

from typing import Any

from workbench.palette import DARK, LIGHT, Theme


def theme_config() -> dict[str, Any]:
    """What Material UI is to know, for light and dark."""
    return {"light": _mode(LIGHT), "dark": _mode(DARK)}


def _mode(theme: Theme) -> dict[str, Any]:
    return {
        "palette": {
            "primary": {"main": theme.series[0]},
            "error": {"main": theme.bad},
            "warning": {"main": theme.warn},
            "background": {"default": theme.background, "paper": theme.background},
            "text": {"primary": theme.text, "secondary": theme.muted},
        },
        "typography": {"button": {"textTransform": "none"}, "body2": {"lineHeight": 1.45}},
    }

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
        # A bar in the bright primary of the dark theme would outshine the page.
        "components": {
            "MuiAppBar": {
                "styleOverrides": {
                    "root": {
                        "backgroundColor": LIGHT.series[0] if theme is LIGHT else theme.panel,
                        "color": "#ffffff" if theme is LIGHT else theme.text,
                    }
                }
            }
        },
        "typography": {"button": {"textTransform": "none"}, "body2": {"lineHeight": 1.45}},
    }

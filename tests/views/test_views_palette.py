import dataclasses
import re
from pathlib import Path

import pytest
import workbench_widgets

from workbench import palette
from workbench.palette import DARK, LIGHT, SERIES, TOKENS, Theme, both, colour, contrast

THEMES = [pytest.param(LIGHT, id="light"), pytest.param(DARK, id="dark")]
WORDS = ("text", "muted", "good", "warn", "bad")


def faint(theme: Theme) -> list[str]:
    """Tokens of a theme that are hard to see on one of its two backgrounds."""
    found = []
    for behind in (theme.background, theme.panel):
        found += [each for each in theme.series if contrast(each, behind) < 3]
        found += [name for name in ("low", "high") if contrast(getattr(theme, name), behind) < 3]
        found += [name for name in WORDS if contrast(getattr(theme, name), behind) < 4.5]
    return found


@pytest.mark.parametrize("theme", THEMES)
def test_marks_reach_a_contrast_of_3_and_words_of_4_5(theme: Theme) -> None:
    assert faint(theme) == []


def test_okabe_and_itos_own_orange_would_fail_on_white() -> None:
    sabotaged = dataclasses.replace(LIGHT, series=("#e69f00", *LIGHT.series[1:]), muted="#9aa4b0")
    assert "#e69f00" in faint(sabotaged)
    assert "muted" in faint(sabotaged)


def test_contrast_has_the_values_of_the_definition() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=1e-3)
    assert contrast("#0072b2", "#0072b2") == 1


@pytest.mark.parametrize("theme", THEMES)
def test_series_differ_from_one_another_for_all_kinds_of_sight(theme: Theme) -> None:
    for matrix in _SIGHT.values():
        seen = [_seen(each, matrix) for each in theme.series[:5]]
        gaps = [_distance(a, b) for at, a in enumerate(seen) for b in seen[:at]]
        assert min(gaps) > 0.12


def test_red_beside_green_would_be_one_colour_for_some() -> None:
    matrix = _SIGHT["deuteranopia"]
    assert _distance(_seen("#b15c00", matrix), _seen("#7a7a00", matrix)) < 0.1


def test_every_token_has_a_colour_in_both_themes() -> None:
    for token in TOKENS:
        shades = both(token)
        assert shades == {"light": colour(token), "dark": colour(token, dark=True)}
        assert all(re.fullmatch("#[0-9a-f]{6}", shade) for shade in shades.values())
    assert len(LIGHT.series) == len(DARK.series) == len(SERIES)


def test_an_unknown_token_is_refused() -> None:
    with pytest.raises(KeyError, match="not a colour token"):
        colour("background")


@pytest.mark.parametrize(("theme", "block"), [(LIGHT, 0), (DARK, 1)])
def test_the_live_figure_stands_on_the_same_colours(theme: Theme, block: int) -> None:
    style = Path(workbench_widgets.__file__).parent / "live_figure" / "widget.css"
    part = style.read_text(encoding="utf-8").split('[data-theme="dark"]')[block]
    names = {"surface": "background", "ink": "text", "muted": "muted", "grid": "grid"}
    for variable, name in names.items():
        found = re.search(rf"--wb-{variable}: (#\w+);", part)
        assert found is not None
        assert found.group(1) == getattr(theme, name)


def test_the_theme_follows_the_switch() -> None:
    assert palette.theme(dark=True) is DARK
    assert palette.theme(dark=False) is LIGHT


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
_SIGHT = {
    "trichromacy": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
}
Shade = tuple[float, float, float]


def _seen(shade: str, matrix: tuple[tuple[float, ...], ...]) -> Shade:
    parts = [int(shade[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    mixed = [sum(w * p for w, p in zip(row, linear, strict=True)) for row in matrix]
    return _oklab([min(max(each, 0.0), 1.0) for each in mixed])


def _oklab(rgb: list[float]) -> Shade:
    """Ottosson 2020: distances are about even to the eye."""
    r, g, b = rgb
    long = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    middle = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    short = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    )


def _distance(a: Shade, b: Shade) -> float:
    return sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) ** 0.5

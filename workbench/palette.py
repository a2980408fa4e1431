"""The colours of every figure: light and dark tokens over Okabe and Ito's colour-blind-safe set.

Figures name a token ("series0", "bad"); a renderer asks for its colour in the theme at hand. Okabe
and Ito's hues are darkened (light) or lightened (dark) until a mark reaches a contrast of 3 and a
word one of 4.5 on its background (WCAG 2.2, 1.4.3 and 1.4.11), and chosen so that the first five
series stay apart for readers without red or green cones.

Source: M. Okabe and K. Ito, "Color Universal Design", 2008.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Theme:
    """The tokens of one theme, each a colour "#rrggbb".

    Attributes:
        background: Behind a figure.
        panel: Behind a figure's box, for example a tooltip or a legend.
        text: Words; `muted` those of less weight; both reach 4.5 on `background` and `panel`.
        grid: Grid lines, deliberately faint.
        series: Categorical colours in order of use; each reaches 3 on both backgrounds.
        low: One end of a diverging scale; `high` the other.
        good: A pair that is ranked right, a check that passes; `warn` and `bad` follow.
    """

    background: str
    panel: str
    text: str
    muted: str
    grid: str
    series: tuple[str, ...]
    low: str
    high: str
    good: str
    warn: str
    bad: str


LIGHT = Theme(
    background="#ffffff",
    panel="#f6f8fa",
    text="#1c2430",
    muted="#5b6675",
    grid="#e6e9ee",
    series=("#0072b2", "#d55e00", "#279782", "#770168", "#5e4c19", "#2a8fc7", "#6b6b6b"),
    low="#0072b2",
    high="#d55e00",
    good="#0072b2",
    warn="#8f6200",
    bad="#bf4c00",
)
DARK = Theme(
    background="#161b22",
    panel="#1e252e",
    text="#e8ecf2",
    muted="#a3aebd",
    grid="#2a323d",
    series=("#22b2ff", "#f25916", "#7bf1dc", "#bf3d86", "#fec90b", "#8fd0f5", "#b5b5b5"),
    low="#22b2ff",
    high="#f0803c",
    good="#22b2ff",
    warn="#fec90b",
    bad="#f0803c",
)
SERIES = tuple(f"series{place}" for place in range(len(LIGHT.series)))
_NAMED = ("text", "muted", "low", "high", "good", "warn", "bad")
TOKENS = frozenset((*SERIES, *_NAMED))


def theme(dark: bool) -> Theme:
    """The tokens of the dark or the light theme."""
    return DARK if dark else LIGHT


def colour(token: str, dark: bool = False) -> str:
    """The colour "#rrggbb" of a token.

    Raises:
        KeyError: `token` is not in `TOKENS`.
    """
    if token not in TOKENS:
        raise KeyError(f"{token!r} is not a colour token: use one of {', '.join(sorted(TOKENS))}")
    shown = theme(dark)
    if token in SERIES:
        return shown.series[SERIES.index(token)]
    named: str = getattr(shown, token)
    return named


def both(token: str) -> dict[str, str]:
    """A token in both themes, the form in which the live figure takes a colour."""
    return {"light": colour(token), "dark": colour(token, dark=True)}


def luminance(shade: str) -> float:
    """Relative luminance in [0, 1] of "#rrggbb" (WCAG 2.2, definition)."""
    parts = (int(shade[start : start + 2], 16) / 255 for start in (1, 3, 5))
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours, from 1 to 21 (WCAG 2.2, definition)."""
    dim, bright = sorted((luminance(first), luminance(second)))
    return (bright + 0.05) / (dim + 0.05)

"""A formula as a drawing: LaTeX set by matplotlib, so that a page needs neither fonts nor a net."""

import html
import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.path import Path

_COMMANDS = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}
_MARGIN = 2.0


@lru_cache(maxsize=256)
def formula_svg(latex: str, size: float = 16.0) -> str:
    r"""An SVG element in the colour of the text around it.

    Args:
        latex: In math mode; what matplotlib's mathtext knows, and short forms of `\tfrac`.
        size: Height of the letters in pixels.

    Raises:
        ValueError: matplotlib cannot read the formula.
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    path = TextPath((0, 0), f"${mathtext(latex)}$", size, FontProperties(math_fontfamily="cm"))
    box = path.get_extents()
    left, top = box.x0 - _MARGIN, -box.y1 - _MARGIN
    width, height = box.width + 2 * _MARGIN, box.height + 2 * _MARGIN
    return (
        f"<svg role='img' aria-label='{html.escape(latex, quote=True)}' fill='currentColor' "
        f"width='{width:.1f}' height='{height:.1f}' style='max-width: 100%' "
        f"viewBox='{left:.2f} {top:.2f} {width:.2f} {height:.2f}'><path d='{_drawn(path)}'/></svg>"
    )


def mathtext(latex: str) -> str:
    """A formula in the part of LaTeX that matplotlib knows: full fractions, braced accents."""
    latex = re.sub(r"\\tfrac(\w)(\w)", r"\\frac{\1}{\2}", latex).replace(r"\tfrac", r"\frac")
    latex = re.sub(r"\\(hat|bar) (\w)", r"\\\1{\2}", latex)
    latex = re.sub(r"\\(le|ge)(?![A-Za-z])", r"\\\1q", latex)
    return re.sub(r"\\[bB]igg?(?=[()\[\]])", "", latex)


def _drawn(path: "Path") -> str:
    """The path's outline in SVG's words; its second axis points down."""
    parts = []
    for points, code in path.iter_segments(curves=True, simplify=False):
        command = _COMMANDS[int(code)]
        pairs = points.reshape(-1, 2).tolist() if command != "Z" else []
        parts.append(command + " ".join(f"{x:.2f} {-y:.2f}" for x, y in pairs))
    return "".join(parts)

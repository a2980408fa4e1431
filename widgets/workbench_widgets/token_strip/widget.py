"""The notebook shell of the token strip."""

from pathlib import Path

import anywidget
import traitlets

_HERE = Path(__file__).parent


class TokenStrip(anywidget.AnyWidget):
    """Tokens of one or more texts, each coloured by a signed score.

    Each of `rows` is {title, tokens, scores, kinds, total, unit}; `scale` is the score of the
    fullest colour (0: the largest score shown); the reader writes `selected` ({row, index}).
    """

    _esm = _HERE / "widget.js"
    _css = _HERE / "widget.css"

    rows = traitlets.List(traitlets.Dict()).tag(sync=True)
    scale = traitlets.Float(0.0).tag(sync=True)
    selected = traitlets.Dict().tag(sync=True)
    theme = traitlets.Enum(["auto", "light", "dark"], "auto").tag(sync=True)

"""The notebook shell of the live figure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from workbench_widgets.live_figure.frame import pack_columns

_HERE = Path(__file__).parent


class LiveFigure(anywidget.AnyWidget):
    """A figure that repaints from binary columns: points, lines, bars, bands and rules.

    `selection` is written by the reader ({generation, index, layer}), `selected` marks a row
    (-1: none). See `update` for how data are given.
    """

    _esm = _HERE / "widget.js"
    _css = _HERE / "widget.css"

    spec = traitlets.Dict().tag(sync=True)
    columns = traitlets.Dict().tag(sync=True)
    buffer = traitlets.Bytes().tag(sync=True)
    generation = traitlets.Int(0).tag(sync=True)
    selection = traitlets.Dict().tag(sync=True)
    selected = traitlets.Int(-1).tag(sync=True)
    theme = traitlets.Enum(["auto", "light", "dark"], "auto").tag(sync=True)
    height = traitlets.Int(320).tag(sync=True)

    def update(
        self,
        spec: Mapping[str, Any] | None = None,
        columns: Mapping[str, Any] | None = None,
        buffer: bytes | None = None,
        generation: int | None = None,
        selected: int | None = None,
    ) -> None:
        """Show new numbers, a new specification or both, in one message.

        Args:
            spec: What to draw; kept where None.
            columns: Name to array of numbers, or, where `buffer` is given, name to
                {dtype, offset, length}; kept where None.
            buffer: The columns' bytes, where the caller has packed them.
            generation: A number that grows with every update; one more than now where None.
            selected: The row to mark, -1 for none; kept where None.

        Raises:
            ValueError: A column is not a one-dimensional array of numbers.
        """
        with self.hold_sync():
            if columns is not None and buffer is None:
                packed = pack_columns(columns)
                columns, buffer = packed.columns, packed.buffer
            if columns is not None:
                self.columns, self.buffer = dict(columns), buffer or b""
            if spec is not None:
                self.spec = dict(spec)
            if selected is not None:
                self.selected = selected
            self.generation = self.generation + 1 if generation is None else generation

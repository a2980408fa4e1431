"""One line that says how far slow work is, in a notebook's output or a terminal."""

import secrets
import sys
import time
from typing import Self

from workbench.views.notebook import publish

AFTER = 0.6
"""Seconds of waiting before anything is said."""


class ProgressLine:
    """A line that is replaced by the next one, and gone at the end."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._said = ""
        self._shown = False
        self._name = f"workbench-{secrets.token_hex(8)}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._said:
            self._show("")

    def say(self, words: str) -> None:
        """Show `words` where the wait is long enough to ask what goes on."""
        if words != self._said and time.monotonic() - self._began > AFTER:
            self._said = words
            self._show(words)

    def _show(self, words: str) -> None:
        if in_notebook():
            publish({"text/plain": words}, display_id=self._name, update=self._shown)
            self._shown = True
        elif sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{words[:100]}")
            sys.stderr.flush()


def in_notebook() -> bool:
    """Whether a kernel runs this."""
    shell = sys.modules.get("IPython")
    found = shell.get_ipython() if shell is not None else None
    return hasattr(found, "kernel")

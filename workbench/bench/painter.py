"""A thread that keeps views up to date, so that neither the worker nor a running cell does."""

import logging
import threading
import time
import weakref
from collections.abc import Callable

REST = 0.04
"""Seconds between two paintings: changes in between are painted together."""
LOOK = 0.1
"""Seconds between two looks while something is going on."""
_log = logging.getLogger(__name__)


class Painter:
    """Calls `paint` soon after it was asked to, on a thread of its own.

    Args:
        paint: A bound method, held weakly; returns whether to look again by itself.
    """

    def __init__(self, paint: Callable[[], bool]) -> None:
        self._paint = weakref.WeakMethod(paint)
        self._asked = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="workbench-painter", daemon=True)
        self._thread.start()

    def ask(self) -> None:
        """Paint soon."""
        self._asked.set()

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._asked.set()

    def _run(self) -> None:
        again = False
        while not self._closed:
            self._asked.wait(LOOK if again else None)
            self._asked.clear()
            paint = self._paint()
            if self._closed or paint is None:
                return
            try:
                again = paint()
            except Exception:
                _log.exception("a view could not be painted")
                again = False
            del paint
            time.sleep(REST)

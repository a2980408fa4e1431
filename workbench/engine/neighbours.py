"""Follows what other processes do to the same sessions, for example a notebook and the app."""

import logging
import threading
from collections.abc import Callable

from workbench.errors import DataError

PERIOD_SECONDS = 0.5
_log = logging.getLogger(__name__)


class Watch:
    """Calls `look` again and again on a thread of its own, from `start` until `stop`.

    Args:
        look: Looks once; a `DataError` it raises means "not now" and is tried again.
        period: Seconds between two looks.
    """

    def __init__(self, look: Callable[[], None], period: float = PERIOD_SECONDS) -> None:
        self._look = look
        self._period = period
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="workbench-watch", daemon=True)
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin; a second call does nothing."""
        with self._lock:
            if not self._ended.is_set() and self._thread.ident is None:
                self._thread.start()

    def stop(self) -> None:
        """End, and wait for the look under way unless it is what calls."""
        self._ended.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(5)

    def _run(self) -> None:
        while not self._ended.wait(self._period):
            try:
                self._look()
            except DataError:
                continue
            except Exception:
                _log.exception("looking for other processes' changes failed")

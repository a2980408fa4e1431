"""How many threads torch uses: one where arrays are small, all of them where a model runs."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

_ALL = torch.get_num_threads()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread for what this thread computes inside; running others keep theirs.

    Waiting for a second thread costs nothing on an idle machine and tens of milliseconds on a
    busy one, where an operation on some ten thousand numbers takes 0.05 ms. Torch keeps the
    number for each thread of the program from its first operation on.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def all_threads() -> None:
    """Let torch use all its threads for what this thread computes from now on.

    To be called first in a thread that runs models: it would begin with one if another thread
    happened to be inside `one_thread`.
    """
    torch.set_num_threads(_ALL)


def step_back(niceness: int) -> None:
    """Let other threads of this program go first, where the system can tell threads apart.

    Threads that this one starts (torch's own) inherit it. On Linux only.
    """
    if niceness and hasattr(os, "setpriority"):
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)

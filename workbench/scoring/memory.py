"""A guard that says what would fit, in place of a process that dies."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import ScoringError

if TYPE_CHECKING:
    import torch

SAFETY = 0.9
"""Share of the free memory that may be used."""


def available_bytes(device: "torch.device | str") -> int:
    """Free memory of a device, bytes; for a CPU what can be had without swapping."""
    kind = str(device).split(":")[0]
    if kind == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return _meminfo() or _free_pages()


def check_fits(needed: int, device: "torch.device | str", what: str, cure: str) -> None:
    """Refuse work that would not fit.

    Args:
        needed: Bytes that the work will take.
        device: Where it will take them.
        what: The work, for the message.
        cure: What to do instead, for the message.

    Raises:
        ScoringError: with what is needed, what is free, and the cure.
    """
    free = available_bytes(device)
    if needed > free * SAFETY:
        raise ScoringError(
            f"{what} needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free on {device}; "
            f"{cure}"
        )


def row_bytes(tokens: int, predictors: int, vocabulary: int, hidden: int, layers: int) -> int:
    """Peak bytes of one forward pass over a row: logits, mask and the largest activations."""
    logits = predictors * vocabulary * 4
    mask = tokens * tokens * 4 * 2
    activations = tokens * hidden * 4 * 16 + layers * tokens * 64
    return logits + mask + activations


def tokens_that_fit(device: "torch.device | str", vocabulary: int, hidden: int, layers: int) -> int:
    """The longest row that `row_bytes` would let through."""
    low, high = 1, 1 << 20
    free = available_bytes(device) * SAFETY
    while low < high:
        middle = (low + high + 1) // 2
        fits = row_bytes(middle, middle, vocabulary, hidden, layers) <= free
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _meminfo() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _free_pages() -> int:
    names = os.sysconf_names
    if "SC_AVPHYS_PAGES" in names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # Where the system does not tell, half of what it has is a fair guess.
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2

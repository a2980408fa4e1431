"""A guard that says what would fit, in place of a process that dies."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ScoringError

if TYPE_CHECKING:
    import torch

SAFETY = 0.9
"""Share of the free memory that may be used."""
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_bytes(device: "torch.device | str") -> int:
    """Free memory of a device, bytes; for a CPU what can be had without swapping."""
    kind = str(device).split(":")[0]
    if kind == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    limit = _container_free()
    free = _meminfo() or _free_pages()
    return free if limit is None else min(free, limit)


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


def check_rows(loaded: Any, rows: int, tokens: int, predictors: int) -> None:  # noqa: ANN401
    """Refuse a forward pass that would not fit, and say what would.

    Args:
        loaded: A LoadedModel.
        rows: Rows read at once.
        tokens: Tokens of one row, prompt and answers together.
        predictors: How many of them need logits.

    Raises:
        ScoringError: with what is needed, what is free, and how much would fit.
    """
    config = loaded.model.config.get_text_config()
    sizes = config.vocab_size, config.hidden_size, config.num_hidden_layers
    one = row_bytes(tokens, predictors, *sizes)
    fit = int(available_bytes(loaded.device) * SAFETY) // one
    if fit < rows:
        several = f"{fit} of its {rows} rows would fit, or " if fit else ""
        longest = tokens_that_fit(loaded.device, *sizes)
        check_fits(
            one * rows,
            loaded.device,
            f"A batch of {rows} x {tokens} tokens under {loaded.name}",
            f"{several}a row of {longest} tokens; shorten the texts, or choose a smaller model.",
        )


def row_bytes(tokens: int, predictors: int, vocabulary: int, hidden: int, layers: int) -> int:
    """Peak bytes that one forward pass over a row adds to the weights.

    Logits are float32, once whole and once for the 64 tokens whose log-probabilities are being
    taken; the mask of who sees whom is made from booleans; of activations one layer's live at a
    time.
    """
    logits = (predictors + 64) * vocabulary * 4
    mask = tokens * tokens * 4 * 2
    activations = tokens * hidden * 4 * 16 + layers * tokens * 64
    return logits + mask + activations


def tokens_that_fit(device: "torch.device | str", vocabulary: int, hidden: int, layers: int) -> int:
    """The longest row that `row_bytes` would let through, with logits at every token; tokens."""
    low, high = 0, 1 << 20
    free = available_bytes(device) * SAFETY
    while low < high:
        middle = (low + high + 1) // 2
        fits = row_bytes(middle, middle, vocabulary, hidden, layers) <= free
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _meminfo() -> int:
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _container_free() -> int | None:
    """What a container's limit leaves (cgroup v2), or None without a limit.

    Pages of files that were read count as used there, and are given up at need.
    """
    try:
        limit, used = (
            int((_CGROUP / name).read_text(encoding="ascii"))
            for name in ("memory.max", "memory.current")
        )
        lines = (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):  # no such file, or the word "max"
        return None
    cached = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    return max(limit - used + cached, 0)


def _free_pages() -> int:
    """From sysconf; where the system tells nothing, no work is refused."""
    names = getattr(os, "sysconf_names", {})
    if "SC_AVPHYS_PAGES" in names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if "SC_PHYS_PAGES" in names:
        # Half of what there is is a fair guess at what is free.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return sys.maxsize

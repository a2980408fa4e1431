"""What the commands print: tables for people, JSON for programs, progress on standard error."""

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from cyclopts import Parameter

Json = Annotated[bool, Parameter(name="--json", negative="")]
_PIPE_WIDTH = 240


def print_json(value: object) -> None:
    """Print one JSON document; what is not finite is null."""
    print(json.dumps(finite(value), allow_nan=False))


def print_rows(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print rows as a table, one column a key."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(one_line(title)), title_justify="left")
    for name in rows[0] if rows else ():
        table.add_column(name.replace("_", " "))
    for row in rows:
        table.add_row(*(Text(shown(value)) for value in row.values()))
    # A pipe has no width: whoever reads it wants whole lines.
    console = Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)
    with console.capture() as drawn:
        console.print(table)
    print(drawn.get(), end="")


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[float, str], None]]:
    """A bar on standard error, fed with the share done and a note; nothing at all when quiet."""
    if quiet:
        yield lambda share, note: None
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda share, note: bar.update(task, completed=share, description=note or "working")


def shown(value: object) -> str:
    """A value as a person reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "unknown" if math.isnan(value) else f"{value:.4g}"
    return "" if value is None else one_line(str(value))


def one_line(text: str) -> str:
    """Text without line breaks, and without anything that a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def finite(value: object) -> object:
    """JSON has neither NaN nor infinity: what is not known is None, at any depth."""
    if isinstance(value, Mapping):
        return {name: finite(child) for name, child in value.items()}
    if isinstance(value, list | tuple):
        return [finite(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""The command line: serve, score, export, models, data, doctor.

Exit codes: 0 done, 1 the input or the machine was at fault (the message says how), 2 wrong usage,
130 stopped by the user. `--json` prints one JSON document on standard output and nothing else.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter

from workbench import __version__
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from rich.progress import Progress

app = cyclopts.App(
    name="workbench",
    version=__version__,
    help="Edit preference data, drag beta, and watch what a preference objective makes of it.",
)
Json = Annotated[bool, Parameter(name="--json", negative="")]
Source = Annotated[
    str, Parameter(help="teaching, decisions, dpo-en-demo, hub:ORG/NAME, or a file.")
]
Model = Annotated[
    str, Parameter(help="default, default+policy, a folder, or hub:ORG/NAME[@REVISION].")
]


@app.command
def serve(
    source: Source = "teaching",
    /,
    *,
    policy: Model = "default",
    reference: Model = "default",
    port: int = 5006,
    address: str = "127.0.0.1",
    host: tuple[str, ...] = (),
    token: str | None = None,
    open_browser: Annotated[bool, Parameter(name="--open")] = False,
) -> None:
    """Open the workbench on a set of preference pairs.

    Args:
        source: The set that the first page shows.
        policy: Model whose preferences are looked at.
        reference: Model it is compared with.
        port: Port to listen on; 0 takes any free one.
        address: Address to bind; anything but loopback needs a token.
        host: Further names by which this server may be addressed (repeat for several).
        token: Secret that each visitor presents once; WORKBENCH_TOKEN is read when not given.
        open_browser: Open the page in the browser.
    """
    from workbench.app.server import ServerOptions

    options = ServerOptions(address, port, host, token or os.environ.get("WORKBENCH_TOKEN"))
    from workbench.app.main import run

    run(options, source, policy, reference, open_browser)


@app.command
def score(
    source: Source = "teaching",
    /,
    *,
    policy: Model = "default",
    reference: Model = "default",
    beta: float = 0.1,
    out: Path | None = None,
    as_json: Json = False,
) -> None:
    """Score a set under two models; print the live quantities, write the pairs' values.

    Args:
        source: The set to score.
        policy: Model whose preferences are looked at.
        reference: Model it is compared with.
        beta: Inverse temperature of the implicit reward.
        out: File for the table of all pairs (.csv, .parquet or .jsonl).
        as_json: Print JSON.
    """
    from workbench.app.report import score_set, write_table
    from workbench.engine.settings import Settings

    with _progress(quiet=as_json) as report:
        result = score_set(source, policy, reference, Settings(beta=beta), report)
    if out is not None:
        write_table(result.table, out)
    _print(asdict(result.summary), as_json, title=f"{source}: {policy} against {reference}")


@app.command
def export(
    source: Source,
    out: Path,
    /,
    *,
    form: Literal[
        "native",
        "explicit-standard",
        "implicit-standard",
        "explicit-conversational",
        "implicit-conversational",
        "unpaired",
    ] = "explicit-standard",
    as_json: Json = False,
) -> None:
    """Write a set in one of TRL's forms or in our own, as .jsonl, .json, .csv or .parquet.

    Args:
        source: The set to export.
        out: The file to write; its suffix chooses the format.
        form: The form of the rows.
        as_json: Print JSON.
    """
    from workbench.data.formats import write_pairs
    from workbench.data.sources import open_source

    pairs = open_source(source)
    write_pairs(pairs, out, form=form)
    _print({"pairs": len(pairs), "form": form, "file": str(out)}, as_json, title="Exported")


@app.command
def models(*, as_json: Json = False) -> None:
    """List the models that can be named, and which are on this machine already.

    Args:
        as_json: Print JSON.
    """
    from workbench.scoring.models import list_models

    _print_rows([asdict(model) for model in list_models()], as_json, title="Models")


@app.command
def data(*, as_json: Json = False) -> None:
    """List the sets of pairs that can be named.

    Args:
        as_json: Print JSON.
    """
    from workbench.data.sources import list_sources

    _print_rows([asdict(source) for source in list_sources()], as_json, title="Sets of pairs")


@app.command
def doctor(*, as_json: Json = False) -> int:
    """Check this installation: versions, device, folders, default model; exit 1 if one is wrong.

    Args:
        as_json: Print JSON.
    """
    from workbench.app.doctor import examine

    checks = examine()
    _print_rows([asdict(check) for check in checks], as_json, title="Doctor")
    return 0 if all(check.ok for check in checks) else 1


app.register_install_completion_command(add_to_startup=False)


def main() -> None:
    """Run the command line; what is the user's or the machine's fault ends in one clear line."""
    try:
        sys.exit(app(exit_on_error=True, print_error=True) or 0)
    except WorkbenchError as error:
        print(f"workbench: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[int, int, str], None] | None]:
    """A progress bar on standard error; nothing at all when quiet."""
    if quiet:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        yield _reporter(bar)


def _reporter(bar: "Progress") -> Callable[[int, int, str], None]:
    task = bar.add_task("starting", total=None)

    def report(done: int, total: int, note: str) -> None:
        bar.update(task, completed=done, total=total or None, description=note or "working")

    return report


def _print(values: dict[str, Any], as_json: bool, title: str) -> None:
    if as_json:
        print(json.dumps(_finite(values), ensure_ascii=False))
        return
    _print_rows(
        [{"quantity": key, "value": _shown(value)} for key, value in values.items()], False, title
    )


def _print_rows(rows: list[dict[str, Any]], as_json: bool, title: str) -> None:
    if as_json:
        print(json.dumps([_finite(row) for row in rows], ensure_ascii=False, default=str))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for name in rows[0] if rows else ():
        table.add_column(name.replace("_", " "))
    for row in rows:
        table.add_row(*(Text(_shown(value)) for value in row.values()))
    Console().print(table)


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: what is not known is null."""
    return {k: None if isinstance(v, float) and v != v else v for k, v in values.items()}


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "unknown" if value != value else f"{value:.4f}"
    return "" if value is None else str(value)

"""The command line: serve, score, export, models, data, doctor, course, study, trl.

Exit codes: 0 done, 1 the input or the machine was at fault (the message says how), 2 wrong usage,
130 stopped by the user before it was done (a server that is stopped was done: 0). `--json` prints
one JSON document on standard output and nothing else.
"""

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter

from workbench import __version__
from workbench.app import course_commands, study_commands, trl_commands
from workbench.app.printing import Json, one_line, print_json, print_rows, progress
from workbench.defaults import DEFAULT_POLICY, DEFAULT_REFERENCE, DEFAULT_SOURCE
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.engine.settings import Settings

app = cyclopts.App(
    name="workbench",
    version=__version__,
    help="Edit preference data, drag beta, and watch what a preference objective makes of it.",
    suppress_keyboard_interrupt=False,
)
Source = Annotated[
    str, Parameter(help="teaching, decisions, dpo-en-demo, hub:ORG/NAME, or a file.")
]
Model = Annotated[
    str,
    Parameter(
        help="default, default+policy, a folder, hub:ORG/NAME[@REVISION], or BASE+adapter:FOLDER."
    ),
]


@app.command
def serve(
    source: Source = DEFAULT_SOURCE,
    /,
    *,
    policy: Model = DEFAULT_POLICY,
    reference: Model = DEFAULT_REFERENCE,
    port: int = 5006,
    address: str = "127.0.0.1",
    host: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    token: str | None = None,
    open_browser: Annotated[bool, Parameter(name="--open", negative="")] = False,
    classroom: Annotated[bool, Parameter(negative="")] = False,
    students: str = "",
    links: Path | None = None,
    training: Annotated[bool, Parameter(negative="")] = False,
    as_json: Json = False,
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
        classroom: Serve many students, each by a link of their own; see docs/classroom.md.
        students: In a classroom: how many, names with commas between, or a file of names.
        links: In a classroom: also write the links to this file (.csv).
        training: In a classroom: let students train, one at a time.
        as_json: In a classroom: print the links as JSON.
    """
    from workbench.app.server import ServerOptions
    from workbench.scoring.models import parse_model

    token = token or os.environ.get("WORKBENCH_TOKEN")
    for model in (policy, reference):
        parse_model(model)
    if classroom or students:
        from workbench.app import classroom_serve as room
        from workbench.app.classroom import Limits

        listen = ServerOptions(address, port, host, token or room.instructor_token())
        said = room.ClassroomOptions(students, links, as_json, Limits(training=training))
        room.run(listen, said, source, policy, reference)
        return
    options = ServerOptions(address, port, host, token)
    from workbench.app.main import run

    run(options, source, policy, reference, open_browser)


@app.command
def score(
    source: Source = DEFAULT_SOURCE,
    /,
    *,
    policy: Model = DEFAULT_POLICY,
    reference: Model = DEFAULT_REFERENCE,
    beta: float = 0.1,
    out: Path | None = None,
    engine: Literal["local", "ray"] = "local",
    actors: int = 1,
    address: str | None = None,
    block: int = 1024,
    as_json: Json = False,
) -> None:
    """Score a set under two models; print the live quantities, write the pairs' values.

    With `--engine ray` a set of any size is scored in blocks, by several processes on this machine
    or on a cluster; the same command goes on where an earlier one was stopped.

    Args:
        source: The set to score; on Ray also a folder of .jsonl or .parquet files.
        policy: Model whose preferences are looked at.
        reference: Model it is compared with.
        beta: Inverse temperature of the implicit reward, above 0.
        out: File for the table of all pairs (.csv, .parquet, .jsonl or .json); on Ray a folder.
        engine: Where models run: in this process, or on Ray.
        actors: Processes on Ray, each with both models.
        address: Of a running Ray cluster, HOST:PORT or auto; none starts one on this machine.
        block: Pairs a part on Ray.
        as_json: Print JSON.
    """
    from workbench.engine.settings import Settings
    from workbench.scoring.models import parse_model

    settings = Settings(beta=beta)
    for model in (policy, reference):
        parse_model(model)
    if engine == "ray":
        _score_on_ray(source, policy, reference, settings, out, (actors, address, block), as_json)
        return
    from workbench.app.report import score_set, write_table
    from workbench.data.files import check_place

    if out is not None:
        check_place(out)
    with progress(quiet=as_json) as report:
        result = score_set(source, policy, reference, settings, _by_count(report))
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

    _list([asdict(model) for model in list_models()], as_json, title="Models")


@app.command
def data(*, as_json: Json = False) -> None:
    """List the sets of pairs that can be named.

    Args:
        as_json: Print JSON.
    """
    from workbench.data.sources import list_sources

    _list([asdict(source) for source in list_sources()], as_json, title="Sets of pairs")


@app.command
def doctor(*, as_json: Json = False) -> int:
    """Check this installation: versions, device, folders, default model; exit 1 if one is wrong.

    Args:
        as_json: Print JSON.
    """
    from workbench.app.doctor import examine

    checks = examine()
    _list([asdict(check) for check in checks], as_json, title="Doctor")
    return 0 if all(check.ok for check in checks) else 1


app.command(course_commands.app)
app.command(study_commands.app)
app.command(trl_commands.app)
app.register_install_completion_command(add_to_startup=False)


def main() -> None:
    """Run the command line; what is the user's or the machine's fault ends in one clear line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; nothing but a bug of ours is raised."""
    try:
        code = app(
            arguments,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
        sys.stdout.flush()
    except cyclopts.CycloptsError as error:
        return _failed(f"{error} Say `workbench --help` for the commands and their options.", 2)
    except WorkbenchError as error:
        return _failed(str(error), 1)
    except KeyboardInterrupt:
        return _failed("stopped.", 130)
    except OSError as error:
        return _without_output(error)
    return code or 0


def _score_on_ray(
    source: str,
    policy: str,
    reference: str,
    settings: "Settings",
    out: Path | None,
    cluster: tuple[int, str | None, int],
    as_json: bool,
) -> None:
    from workbench.app.cluster_report import Cluster, score_set_on_ray
    from workbench.errors import DataError

    if out is None:
        raise DataError("Scores on Ray are written in parts; give a folder for them: --out FOLDER.")
    with progress(quiet=as_json) as report:
        found = score_set_on_ray(
            source, policy, reference, settings, out, Cluster(*cluster), _by_count(report)
        )
    values = {**asdict(found.summary), "parts": found.parts, "scored_now": found.parts_scored_now}
    _print(values, as_json, title=f"{source}: {policy} against {reference}")


def _failed(message: str, code: int) -> int:
    with suppress(OSError):
        print(f"workbench: {one_line(message)}", file=sys.stderr)
    return code


def _without_output(error: OSError) -> int:
    """The end of a command whose output nobody reads (`| head`), or that found no room for it."""
    with suppress(OSError, ValueError):
        # Python flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return 0
    place = error.filename or "the output"
    return _failed(f"{place}: {error.strerror or error}; free it, or choose another place.", 1)


def _print(values: dict[str, Any], as_json: bool, title: str) -> None:
    if as_json:
        print_json(values)
        return
    rows = [{"quantity": key.replace("_", " "), "value": v} for key, v in values.items()]
    print_rows(rows, title)


def _list(rows: list[dict[str, Any]], as_json: bool, title: str) -> None:
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, title)


def _by_count(report: Callable[[float, str], None]) -> Callable[[int, int, str], None]:
    """A report of a share from one of so many done of so many."""
    return lambda done, total, note: report(done / total if total else 0.0, note)

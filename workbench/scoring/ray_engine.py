"""Scores of sets of millions of pairs, by Ray Data on a cluster or on this machine's cores.

A set is cut into blocks. Every actor loads policy and reference once, reads a block from where it
lies (so the files must be seen by all nodes under one path), and writes what the models say of it
as one Parquet part, named after the block's content and the models. A part that is there is never
scored again, whoever died meanwhile: a killed worker's block goes to another one, and after a
killed driver the same command goes on where it stopped. `manifest.json` lists the parts in order.

What the parts hold are log-probabilities; everything that depends on beta is arithmetic on them.
Without an address a Ray runtime is started on 127.0.0.1, without dashboard and usage reports, and
ended with the work.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.data.files import RowError, RowProblem, table_rows, write_file
from workbench.data.formats import read_rows
from workbench.data.pairs import PreferencePair, PreferenceSet, text_to_json
from workbench.data.sources import open_source
from workbench.errors import DataError, ScoringError, WorkbenchError
from workbench.scoring.logprobs import ModelScorer, Request, Scorer, SequenceScore
from workbench.scoring.store import ScoreStore, fetch_scores, scorer_key

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_PAIRS = 1024
PARTS, MANIFEST = "parts", "manifest.json"
SIDES = ("chosen", "rejected")
ROLES = ("policy", "reference")
_PART_VERSION = 1
"""Part of every part's name; to be raised when the meaning of a column changes."""
_RANGED = (".jsonl", ".parquet")
_OBJECT_STORE_BYTES = 128 << 20
"""Enough: blocks and reports travel, never texts or scores."""
_STARTS = 3
_QUIET: Mapping[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
_TRIES = 5
"""Workers that a block may take down with it; Ray itself would go on for ever."""
_LOOPBACK = "127.0.0.1"
_NO_REPORTS = {"RAY_USAGE_STATS_ENABLED": "0"}
_ENVIRONMENT = {
    **_NO_REPORTS,
    # By its name for other systems only: Ray then takes the loopback for this node's address,
    # to which all its servers bind, in place of that of the network.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True)
class Block:
    """A run of rows of one file.

    Attributes:
        index: Place among all blocks.
        file: Absolute path, the same on all nodes.
        start: First byte (JSON lines) or row (Parquet).
        size: Number of bytes or rows.
        row: Number of the first row, from 1, for messages.
    """

    index: int
    file: str
    start: int
    size: int
    row: int


@dataclass(frozen=True)
class BlockReport:
    """What became of a block.

    Attributes:
        index: Of the block.
        part: Name of its part.
        pairs: Pairs in it.
        scored: Whether models were asked; False where the part was there.
        worker: Process that wrote or found it.
        seconds: That it took there.
        problem: Why there is no part; empty where there is.
    """

    index: int
    part: str = ""
    pairs: int = 0
    scored: bool = False
    worker: int = 0
    seconds: float = 0.0
    problem: str = ""


def plan_blocks(source: str, folder: Path, pairs: int = BLOCK_PAIRS) -> list[Block]:
    """Cut a set into blocks of about so many pairs; only line ends are looked at.

    Args:
        source: A .jsonl or .parquet file, a folder of such files, or whatever `open_source` takes,
            which is then written into `folder` first.
        folder: Of the results.
        pairs: Pairs a block.

    Raises:
        DataError: nothing of that name, or a folder without such files.
    """
    if pairs < 1:
        raise DataError(f"A block of {pairs} pairs is none; give 1 or more.")
    blocks: list[Block] = []
    for path in _files(source, folder):
        ranges = _lines if path.suffix.lower() == ".jsonl" else _rows
        for start, size, row in ranges(path, pairs):
            blocks.append(Block(len(blocks), str(path.resolve()), start, size, row))
    if not blocks:
        raise DataError(f"{source} has no rows; give a set with at least one pair.")
    return blocks


def score_on_ray(
    blocks: Sequence[Block],
    policy: str,
    reference: str,
    folder: Path,
    *,
    actors: int = 1,
    address: str | None = None,
    on_block: Callable[[BlockReport], None] | None = None,
) -> list[BlockReport]:
    """Score blocks on so many actors; parts that are there already are kept.

    Args:
        blocks: From `plan_blocks`.
        policy: Name of the model whose preferences are looked at, as for `parse_model`.
        reference: Name of the model it is compared with.
        folder: For the parts and the manifest; seen by all nodes under this path.
        actors: Processes, each with both models.
        address: Of a running cluster, "HOST:PORT" or "auto"; None starts a local runtime.
        on_block: Called with each report as it comes in.

    Returns:
        A report of every block, in order.

    Raises:
        WorkbenchError: a block cannot be read or scored; finished parts stay.
        ScoringError: Ray is not installed, or there is no cluster at the address.
    """
    if actors < 1:
        raise ScoringError(f"{actors} actors cannot score; give 1 or more.")
    folder = folder.resolve()
    reports: dict[int, BlockReport] = {}
    models = {"policy": policy, "reference": reference}
    try:
        (folder / PARTS).mkdir(parents=True, exist_ok=True)
        with ray_runtime(address, actors) as ray:
            for report in _reports(ray, _dataset(ray, blocks, models, folder, actors)):
                reports[report.index] = report
                _write_manifest(folder, models, blocks, reports, whole=False)
                if on_block is not None:
                    on_block(report)
        _write_manifest(folder, models, blocks, reports, whole=True)
    except OSError as error:
        raise ScoringError(
            f"{folder} cannot be written ({error.strerror or error}); choose another place."
        ) from error
    return [reports[block.index] for block in blocks]


class BlockScorer:
    """What an actor runs: two models, loaded once, and one block after the other.

    Args:
        models: Names of policy and reference.
        folder: Of the results.
        threads: For the models.
    """

    def __init__(self, models: Mapping[str, str], folder: str, threads: int) -> None:
        self._models = dict(models)
        self._parts = Path(folder) / PARTS
        self._threads = threads
        self._scorers: dict[str, Scorer] = {}

    def __call__(self, block: Mapping[str, Any]) -> dict[str, Any]:
        """Score a block unless its part is there; what is wrong with it is in the report."""
        started = time.monotonic()
        try:
            report = self._score(Block(**block))
        except WorkbenchError as error:
            report = BlockReport(block["index"], problem=str(error) or type(error).__name__)
        spent = time.monotonic() - started
        return asdict(replace(report, worker=os.getpid(), seconds=spent))

    def _score(self, block: Block) -> BlockReport:
        pairs, scorers = read_block(block), self._loaded()
        name = part_name(pairs, scorers)
        fresh = not (self._parts / name).is_file()
        if fresh:
            with _counted(self._parts / name, block):
                _write_part(self._parts / name, score_pairs(pairs, scorers))
        return BlockReport(block.index, name, len(pairs), fresh)

    def _loaded(self) -> dict[str, Scorer]:
        if not self._scorers:
            import torch

            from workbench.scoring.models import check_same_tokenizer, load_model, parse_model

            torch.set_num_threads(self._threads)
            loaded = {role: load_model(parse_model(self._models[role])) for role in ROLES}
            check_same_tokenizer(loaded["policy"], loaded["reference"])
            self._scorers = {role: ModelScorer(model) for role, model in loaded.items()}
        return self._scorers


def score_pairs(pairs: PreferenceSet, scorers: Mapping[str, Scorer]) -> "pa.Table":
    """What policy and reference say of a set, one row a pair.

    Columns: `pair_id`; `{policy,reference}_{chosen,rejected}`, summed log-probabilities in nats,
    NaN where the answer is empty; `n_{chosen,rejected}`, tokens, 0 where it is empty;
    `{chosen,rejected}_truncated`; `rater_share`; and hashes of prompt and answers, by which pairs
    of one prompt are found in other parts.
    """
    import pyarrow as pa

    requests = [Request(pair.prompt, getattr(pair, side)) for side in SIDES for pair in pairs]
    store = ScoreStore()
    said = {role: fetch_scores(store, scorers[role], requests) for role in ROLES}
    columns: dict[str, Any] = {"pair_id": [pair.pair_id for pair in pairs]}
    for place, side in enumerate(SIDES):
        part = slice(place * len(pairs), (place + 1) * len(pairs))
        columns |= _side_columns(side, {role: scores[part] for role, scores in said.items()})
    columns["rater_share"] = _floats(pair.rater_share for pair in pairs)
    for name in ("prompt", *SIDES):
        columns[f"{name}_hash"] = [_text_hash(pair, name) for pair in pairs]
    return pa.table(columns)


def read_block(block: Block) -> PreferenceSet:
    """The pairs of a block.

    Raises:
        DataError: a row that cannot be read, with its file and number.
    """
    path = Path(block.file)
    read = _read_lines if path.suffix.lower() == ".jsonl" else _read_rows
    try:
        rows = list(read(path, block))
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error}); every node must see it under this "
            "path."
        ) from error
    numbers = [number for number, _ in rows]
    if any("completion" in row and "chosen" not in row for _, row in rows):
        raise DataError(
            f"{path.name} has answers in rows of their own, which blocks would tear apart; write "
            "pairs first: workbench export FILE OUT.jsonl."
        )
    try:
        return read_rows((row for _, row in rows), name=path.name)
    except RowError as error:
        row = error.problem.row
        place = numbers[row - 1] if row is not None and row <= len(numbers) else block.row
        raise RowError(replace(error.problem, row=place)) from error


def part_name(pairs: PreferenceSet, scorers: Mapping[str, Scorer]) -> str:
    """Name of the file with a block's scores: a hash of all that they depend on."""
    content = hashlib.blake2b(digest_size=20)
    content.update(bytes([_PART_VERSION]))
    for role in ROLES:
        content.update(scorer_key(scorers[role]))
    for pair in pairs:
        content.update(pair.digest)
    return f"{content.hexdigest()}.parquet"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder of results.

    Raises:
        DataError: there is none, or it is spoilt.
    """
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        names = [block["part"] for block in found["blocks"]]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(
            f"{path} cannot be read as a manifest ({type(error).__name__}); score the set again."
        ) from error
    if any(Path(name).name != name for name in names):
        raise DataError(f"{path} names a part outside {PARTS}; score the set again.")
    return dict(found)


def read_parts(folder: Path, columns: Sequence[str] | None = None) -> "pa.Table":
    """All finished parts of a folder of results, in the order of the set.

    Raises:
        DataError: no manifest, or a part that is missing or spoilt.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [block["part"] for block in read_manifest(folder)["blocks"] if block["part"]]
    tables = []
    for name in names:
        try:
            tables.append(pq.read_table(folder / PARTS / name, columns=columns))
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"The part {name} cannot be read; remove it and score the set again."
            ) from error
    if not tables:
        raise DataError(f"{folder} has no finished part; score the set first.")
    return pa.concat_tables(tables)


@contextmanager
def ray_runtime(address: str | None, actors: int) -> Iterator[Any]:
    """Ray, connected to a cluster or started on this machine for a while.

    A runtime that this process has already is used and left running.

    Raises:
        ScoringError: Ray is not installed, or does not start or connect.
    """
    # Read by Ray when it is imported, and by the processes that it starts.
    os.environ.update(_ENVIRONMENT if address is None else _NO_REPORTS)
    try:
        import ray
    except ImportError as error:
        raise ScoringError(
            "Scoring on Ray needs the package `ray`; install preference-workbench[ray]."
        ) from error
    if ray.is_initialized():
        yield ray
        return
    try:
        _start(ray, address, actors)
    except Exception as error:  # Ray raises a dozen kinds: no cluster, no room, another version
        place = f"at {address}" if address else "on this machine"
        words = " ".join(str(error).split())[:200]
        raise ScoringError(
            f"There is no Ray runtime {place} ({type(error).__name__}: {words}); check the "
            "address, or leave it out."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _start(ray: Any, address: str | None, actors: int) -> None:  # noqa: ANN401
    if address is not None:
        ray.init(address=address, **_QUIET)
        return
    for left in reversed(range(_STARTS)):
        try:
            _start_here(ray, actors)
            break
        except Exception:
            # Ray gives its helpers 15 s, in which a busy machine does not start them all.
            ray.shutdown()
            if not left:
                raise
    found = ray.util.get_node_ip_address()
    if found != _LOOPBACK:
        ray.shutdown()
        raise RuntimeError(f"this version of Ray would listen at {found}")


def _start_here(ray: Any, actors: int) -> None:  # noqa: ANN401
    with _on_loopback(ray):
        ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, actors),
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            _node_ip_address=_LOOPBACK,
            **_QUIET,
        )


@contextmanager
def _on_loopback(ray: Any) -> Iterator[None]:  # noqa: ANN401
    """Say to a Ray that was imported before what the environment says to its processes."""
    constants = ray._private.ray_constants
    usual, constants.ENABLE_RAY_CLUSTER = constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = usual


def _dataset(
    ray: Any,  # noqa: ANN401
    blocks: Sequence[Block],
    models: Mapping[str, str],
    folder: Path,
    actors: int,
) -> Any:  # noqa: ANN401 - a Ray Data set of reports
    """Reports of all blocks, as they come; nothing runs before they are asked for."""
    import ray.data

    for name in ("ray.data", "ray.data._internal.progress"):
        logging.getLogger(name).setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    resources = ray.cluster_resources()
    cpus = max(int(resources.get("CPU", 1)) // actors, 1)
    return ray.data.from_items(
        [asdict(block) for block in blocks], override_num_blocks=len(blocks)
    ).map(
        BlockScorer,
        fn_constructor_args=(dict(models), str(folder), cpus),
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=cpus,
        num_gpus=min(resources.get("GPU", 0.0) / actors, 1),
    )


def _reports(ray: Any, dataset: Any) -> Iterator[BlockReport]:  # noqa: ANN401
    """What the actors say, as it comes in.

    Raises:
        ScoringError: a block could not be scored, or Ray gave up.
    """
    try:
        for row in dataset.iter_rows():
            report = BlockReport(**row)
            if report.problem:
                raise ScoringError(report.problem)
            yield report
    except ray.exceptions.RayError as error:
        words = " ".join(str(error).split())[:300]
        raise ScoringError(
            f"Ray gave up ({type(error).__name__}: {words}); finished parts are kept, and the same "
            "command goes on. Give smaller blocks or fewer actors if the memory did not suffice."
        ) from error


def _write_manifest(
    folder: Path,
    models: Mapping[str, str],
    blocks: Sequence[Block],
    reports: Mapping[int, BlockReport],
    *,
    whole: bool,
) -> None:
    """Where each finished block's scores are; the file appears whole or not at all."""
    path = folder / MANIFEST
    if not whole and path.exists() and time.time() - path.stat().st_mtime < 1:
        return
    listed = [
        {
            "file": Path(block.file).name,
            "row": block.row,
            "part": reports[block.index].part if block.index in reports else "",
            "pairs": reports[block.index].pairs if block.index in reports else None,
        }
        for block in blocks
    ]
    fresh = path.with_name(f"{MANIFEST}.{os.getpid()}.part")
    fresh.write_text(json.dumps({**models, "complete": whole, "blocks": listed}, indent=1))
    os.replace(fresh, path)


@contextmanager
def _counted(part: Path, block: Block) -> Iterator[None]:
    """Refuse a block whose scoring has ended too many workers; a mark of each is left until then.

    Raises:
        ScoringError: with the block's place.
    """
    marks = part.with_suffix(".tries")
    tries = marks.stat().st_size if marks.is_file() else 0
    try:
        if tries >= _TRIES:
            raise ScoringError(
                f"{tries} workers ended while they scored {Path(block.file).name} from row "
                f"{block.row} on, probably for want of memory; give smaller blocks or fewer actors."
            )
        with marks.open("ab") as file:
            file.write(b".")
        yield
    except Exception:
        marks.unlink(missing_ok=True)  # this worker lives
        raise
    marks.unlink(missing_ok=True)


def _write_part(path: Path, table: "pa.Table") -> None:
    import pyarrow.parquet as pq

    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        pq.write_table(table, fresh, compression="zstd")
        os.replace(fresh, path)
    except OSError as error:
        raise ScoringError(
            f"{path} cannot be written ({error.strerror or error}); free space, and go on by the "
            "same command."
        ) from error
    finally:
        fresh.unlink(missing_ok=True)


def _side_columns(side: str, said: Mapping[str, Sequence[SequenceScore]]) -> dict[str, Any]:
    """One answer's columns; an answer that either model finds empty has no score."""
    both = list(zip(*said.values(), strict=True))
    empty = np.array([any(score.empty for score in pair) for pair in both], bool)
    tokens = np.array([score.n_tokens for score in said["reference"]], np.int64)
    columns: dict[str, Any] = {
        f"{role}_{side}": np.where(empty, np.nan, _floats(score.logp for score in scores))
        for role, scores in said.items()
    }
    columns[f"n_{side}"] = np.where(empty, 0, tokens)
    columns[f"{side}_truncated"] = [any(score.truncated for score in pair) for pair in both]
    return columns


def _floats(values: Any) -> np.ndarray[Any, np.dtype[np.float64]]:  # noqa: ANN401 - numbers or None
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _text_hash(pair: PreferencePair, name: str) -> int:
    """63 bits of a text: millions of texts are told apart, and equal ones found."""
    text = json.dumps(text_to_json(getattr(pair, name))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def _files(source: str, folder: Path) -> list[Path]:
    """The files to cut: those of a folder, the file itself, or a copy of whatever else."""
    place = Path(source).expanduser()
    if place.is_dir():
        found = sorted(path for path in place.iterdir() if path.suffix.lower() in _RANGED)
        if not found:
            raise DataError(f"{place} has no .jsonl or .parquet file; give a folder that has some.")
        return found
    if place.is_file() and place.suffix.lower() in _RANGED:
        return [place]
    pairs = open_source(source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be made ({error.strerror}); choose another.") from error
    copy = folder / "source.jsonl"
    write_file(copy, [pair.to_json() for pair in pairs])
    return [copy]


def _lines(path: Path, pairs: int) -> Iterator[tuple[int, int, int]]:
    """(first byte, bytes, first line) of runs of so many lines."""
    start = at = 0
    row = number = 1
    with path.open("rb") as file:
        for line in file:
            at, number = at + len(line), number + 1
            if number - row == pairs:
                yield start, at - start, row
                start, row = at, number
    if at > start:
        yield start, at - start, row


def _rows(path: Path, pairs: int) -> Iterator[tuple[int, int, int]]:
    """(first row, rows, first row from 1) of runs of so many rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        total = pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet; give another file.") from error
    for start in range(0, total, pairs):
        yield start, min(pairs, total - start), start + 1


def _read_lines(path: Path, block: Block) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        file.seek(block.start)
        lines = file.read(block.size).removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, line in enumerate(lines, start=block.row):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            raise RowError(
                RowProblem(path.name, number, None, "broken JSON", "one JSON object on the line")
            ) from error
        if not isinstance(row, dict):
            raise RowError(RowProblem(path.name, number, None, "no object", "a JSON object"))
        yield number, row


def _read_rows(path: Path, block: Block) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file, at = pq.ParquetFile(path), 0
    for batch in file.iter_batches(batch_size=block.size):
        first = max(block.start - at, 0)
        wanted = batch.slice(first, block.start + block.size - at - first)
        if first < batch.num_rows and wanted.num_rows:
            for row in table_rows(pa.Table.from_batches([wanted])):
                yield at + first + row.number, dict(row.values)
        at += batch.num_rows
        if at >= block.start + block.size:
            return

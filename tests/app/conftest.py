"""The whole application on two tiny real models, behind its own server and gate."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from workbench.app.server import ServerOptions, make_server
from workbench.data.formats import read_pairs
from workbench.engine.workspace import Workspace

HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>\u202e🍂'
TOPICS = ("the cat", "the dog", "the weather", "the town", "a fox", "a log")


def rows() -> list[dict[str, Any]]:
    """Sixteen pairs, two of each prompt, with a binary, a continuous and a hostile attribute."""
    found = []
    for number in range(16):
        topic = TOPICS[number // 2 % 6]
        found.append({
            "pair_id": f"p{number:02d}",
            "prompt": f"tell me about {topic} {number // 2}",
            "chosen": f"{topic} sat on the mat" + " again" * (number % 3),
            "rejected": f"no {number}" + " really" * (number % 5),
            "alpha": 0.6 + 0.02 * number,
            "attributes": {"gender": ("f", "m")[number % 2], "age": 20 + 3 * (number % 7),
                           "group <b>": (HOSTILE, "plain")[number // 8]},
        })  # fmt: skip
    return found


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of pairs as a file."""
    path = tmp_path_factory.mktemp("pairs") / "sixteen.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()), encoding="utf-8")
    return path


class Counting:
    """Loads real models and counts the answers that each is asked to score."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def load(self, model: str, progress: Any = None, cancelled: Any = None) -> Any:
        from workbench.engine.pool import load_scorer

        scorer: Any = load_scorer(model, progress, cancelled)
        plain = scorer.score

        def score(requests: Any, **options: Any) -> Any:
            self.calls[model] += len(requests)
            return plain(requests, **options)

        scorer.score = score
        return scorer


class Running:
    """A server of the workbench in a thread of this process."""

    def __init__(self, workspace: Workspace, counting: Counting, page: Callable[[], Any]) -> None:
        self.workspace = workspace
        self.counting = counting
        self._ready = threading.Event()
        self._page = page
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(60), "the workbench's server did not start within 60 s"

    @property
    def calls(self) -> dict[str, int]:
        """Answers scored so far, by model."""
        return dict(self.counting.calls)

    def stop(self) -> None:
        self._loop.add_callback(self._server.stop, False)
        self._loop.add_callback(self._loop.stop)
        self._thread.join(10)
        self.workspace.close()

    def _run(self) -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        self._server = make_server(self._page, ServerOptions(port=0))
        self.url = f"http://127.0.0.1:{self._server.port}/"
        self._loop = self._server.io_loop
        self._server.start()
        self._loop.add_callback(self._ready.set)
        self._loop.start()


@pytest.fixture
def bench(
    tmp_path: Path, pairs_file: Path, tiny_folder: Path, tiny_adapter: Path
) -> Iterator[Running]:
    """The application on sixteen pairs; the policy is a random adapter on the reference."""
    from workbench.app.main import page_factory

    counting = Counting()
    workspace = Workspace(tmp_path / "sessions", tmp_path / "scores.sqlite", counting.load)
    policy = f"{tiny_folder}+adapter:{tiny_adapter}"
    page = page_factory(workspace, str(pairs_file), policy, str(tiny_folder))
    running = Running(workspace, counting, page)
    yield running
    running.stop()


@pytest.fixture
def pairs(pairs_file: Path) -> Any:
    """The same set, read."""
    return read_pairs(pairs_file)

"""Benches on fake models, in a folder of their own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_models import Models, some_pairs

from workbench.bench import Bench, open_bench
from workbench.engine.workspace import Workspace

HOSTILE = "<img src=x onerror=alert(1)>"
WAIT = 20.0


@pytest.fixture
def place(models: Models, tmp_path: Path) -> Iterator[Workspace]:
    place = Workspace(tmp_path / "sessions", tmp_path / "scores.sqlite", models.load)
    yield place
    models.release()
    place.close()


@pytest.fixture
def opened(place: Workspace) -> Iterator[Callable[..., Bench]]:
    """Open a bench, by default on eight pairs and scored to the end; closed after the test."""
    made: list[Bench] = []

    def open_one(source: Any = None, *, wait: bool = True, **more: Any) -> Bench:
        if source is None and "session" not in more:
            source = some_pairs()
        bench = open_bench(source, within=place, **more)
        made.append(bench)
        if wait:
            bench.wait(WAIT)
        return bench

    yield open_one
    for bench in made:
        bench.close()


@pytest.fixture
def bench(opened: Callable[..., Bench]) -> Bench:
    return opened()


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is sent to the notebook, in order: data, display_id and whether it is an update."""
    sent: list[dict[str, Any]] = []

    def publish(
        data: Any, metadata: Any = None, display_id: str = "", update: bool = False
    ) -> None:
        sent.append({"data": dict(data), "display_id": display_id, "update": update})

    monkeypatch.setattr("workbench.views.notebook.publish", publish)
    return sent

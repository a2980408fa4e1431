from pathlib import Path
from types import ModuleType

import pytest
from study_support import load_example


@pytest.fixture(scope="session")
def example() -> ModuleType:
    return load_example()


@pytest.fixture(autouse=True)
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))

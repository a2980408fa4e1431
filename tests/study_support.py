"""The example study, for every test that runs one."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load_example() -> ModuleType:
    """The example study as a module that can be imported by name, as an installed one could."""
    name = "example_study"
    if name not in sys.modules:
        path = Path(__file__).parent / "study" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]

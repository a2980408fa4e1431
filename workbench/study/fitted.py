"""Fitted values to bytes and back, without pickle: safetensors for arrays, JSON for the rest.

A fitted value is a dataclass, list, tuple or dict (with text keys) of tensors, numpy arrays,
numbers, texts, truth values and None, nested at will. On reading, only dataclasses of the study's
own modules, or of the workbench, are built.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from workbench.study.errors import StudyError


@dataclass(frozen=True)
class Encoded:
    """A fitted value as bytes.

    Attributes:
        tree: UTF-8 JSON of everything but the arrays, which it refers to by number.
        arrays: The arrays, as safetensors.
    """

    tree: bytes
    arrays: bytes

    @property
    def digest(self) -> str:
        """A digest of the content: equal for equal values."""
        whole = hashlib.blake2b(self.tree, digest_size=16)
        whole.update(self.arrays)
        return whole.hexdigest()


def encode(value: object) -> Encoded:
    """A fitted value as bytes; the same value gives the same bytes.

    Raises:
        StudyError: it holds something that cannot be kept; says where.
    """
    arrays: dict[str, Tensor] = {}
    tree = _tree(value, "fitted", arrays)
    return Encoded(json.dumps(tree, allow_nan=False).encode(), save(arrays))


def decode(encoded: Encoded, package: str) -> Any:  # noqa: ANN401 - whatever was encoded
    """The fitted value that bytes stand for.

    Args:
        encoded: The bytes.
        package: The study's package, whose dataclasses may be built.

    Raises:
        StudyError: the bytes are damaged, or name a class from elsewhere.
    """
    try:
        return _value(json.loads(encoded.tree), load(encoded.arrays), package)
    except StudyError:
        raise
    except Exception as error:
        raise StudyError(f"The kept fit cannot be read ({error}); delete it.") from error


def _tree(value: object, where: str, arrays: dict[str, Tensor]) -> Any:  # noqa: ANN401 - JSON
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, Tensor | np.ndarray):
        return _kept(value, where, arrays)
    parts = _parts(value, where)
    if parts is None:
        raise StudyError(
            f"{where} is a {type(value).__name__}, which cannot be kept; use a dataclass, list, "
            "tuple or dict of tensors, arrays, numbers and texts."
        )
    kind, named = parts
    children = {name: _tree(child, f"{where}.{name}", arrays) for name, child in named.items()}
    return {**kind, "of": children}


def _kept(value: Tensor | np.ndarray, where: str, arrays: dict[str, Tensor]) -> dict[str, str]:
    name = str(len(arrays))
    if isinstance(value, Tensor):
        arrays[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    try:
        arrays[name] = torch.from_numpy(np.ascontiguousarray(value).copy())
    except TypeError as error:
        raise StudyError(f"{where} is an array of {value.dtype}; keep numbers only.") from error
    return {"array": name}


def _parts(value: object, where: str) -> tuple[dict[str, str], dict[str, object]] | None:
    """What kind of container a value is, and its children by name; None for any other value."""
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        children = {each.name: getattr(value, each.name) for each in fields(value)}
        return {"dataclass": f"{kind.__module__}:{kind.__qualname__}"}, children
    if type(value) is list or type(value) is tuple:
        sequence: Sequence[object] = value
        numbered = {str(place): child for place, child in enumerate(sequence)}
        return {"sequence": type(value).__name__}, numbered
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise StudyError(f"{where} has keys that are no texts; use texts.")
        return {"mapping": ""}, value
    return None


def _value(tree: Any, arrays: Mapping[str, Tensor], package: str) -> Any:  # noqa: ANN401 - JSON
    if not isinstance(tree, dict):
        return tree
    if "float" in tree:
        return float(tree["float"])
    if "tensor" in tree:
        return arrays[tree["tensor"]]
    if "array" in tree:
        return arrays[tree["array"]].numpy()
    children = {name: _value(child, arrays, package) for name, child in tree["of"].items()}
    if "sequence" in tree:
        return {"list": list, "tuple": tuple}[tree["sequence"]](children.values())
    if "mapping" in tree:
        return children
    return _class(tree["dataclass"], package)(**children)


def _class(name: str, package: str) -> Callable[..., Any]:
    module, _, qualname = name.partition(":")
    if not any(module == own or module.startswith(f"{own}.") for own in (package, "workbench")):
        raise StudyError(f"The kept fit names {name}, which is not of {package}; delete it.")
    found: Any = import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    if not (isinstance(found, type) and is_dataclass(found)):
        raise StudyError(f"The kept fit names {name}, which is no dataclass; delete it.")
    return found

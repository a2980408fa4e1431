import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor

from workbench.study.errors import StudyError
from workbench.study.fitted import Encoded, decode, encode


@dataclass(frozen=True)
class Inner:
    weight: Tensor
    name: str


@dataclass
class Outer:
    inner: Inner
    rows: tuple[Inner, ...]
    scores: Any
    loss: float
    note: str | None = None


def round_trip(value: object) -> Any:
    return decode(encode(value), __name__)


def test_nested_dataclasses_come_back_as_they_were() -> None:
    inner = Inner(torch.arange(6, dtype=torch.float64).view(2, 3).T, "a")
    back = round_trip(Outer(inner, (inner,), {"x": np.arange(3)}, math.inf))
    assert isinstance(back, Outer)
    assert back.rows[0].name == "a"
    assert torch.equal(back.inner.weight, inner.weight)
    assert back.inner.weight.dtype == torch.float64
    assert isinstance(back.scores["x"], np.ndarray)
    assert back.loss == math.inf
    assert back.note is None


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
)


@given(PLAIN)
def test_plain_values_come_back_to_the_last_bit(value: object) -> None:
    assert repr(round_trip(value)) == repr(value)


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.uint8]
)
def test_tensors_of_every_kind_come_back(dtype: torch.dtype) -> None:
    value = torch.tensor([0, 1, 1]).to(dtype)
    assert torch.equal(round_trip(value), value)
    assert round_trip(torch.tensor(3.0)).shape == ()
    assert round_trip(torch.empty(0, 2)).shape == (0, 2)


def test_equal_values_have_equal_bytes_and_others_have_not() -> None:
    value = {"a": torch.ones(3), "b": [1.0]}
    assert encode(value) == encode({"a": torch.ones(3), "b": [1.0]})
    assert encode(value).digest != encode({"a": torch.ones(3), "b": (1.0,)}).digest
    assert encode(value).digest != encode({"a": torch.zeros(3), "b": [1.0]}).digest


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": {"b": object()}}, "fitted.a.b is a object, which cannot be kept"),
        ([1, torch.nn.Linear(1, 1)], "fitted.1 is a Linear"),
        ({1: "a"}, "keys that are no texts"),
        (np.array(["a"]), "keep numbers only"),
        ({"f": lambda: 0}, "fitted.f is a function"),
        ({1, 2}, "fitted is a set"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_place(value: object, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        encode(value)


@pytest.mark.parametrize(
    "name", ["subprocess:Popen", "os:system", "workbenches:X", "workbench.paths:cache_dir"]
)
def test_bytes_cannot_build_a_class_from_elsewhere(name: str) -> None:
    tree = json.dumps({"dataclass": name, "of": {"args": "true"}}).encode()
    with pytest.raises(StudyError, match=name):
        decode(Encoded(tree, save({})), "my_study")


@pytest.mark.parametrize("tree", [b"", b"{", b'{"tensor": "7"}', b'{"sequence": "set", "of": {}}'])
def test_damaged_bytes_are_refused(tree: bytes) -> None:
    with pytest.raises(StudyError, match="cannot be read"):
        decode(Encoded(tree, save({})), __name__)

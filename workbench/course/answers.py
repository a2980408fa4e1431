"""What a check does with an answer: call it, read its numbers, compare, and say what is wrong.

An answer may be a function or a value, and its numbers floats, lists, NumPy arrays, torch tensors
or pandas columns, in single or double precision. What is said names the very input that failed.
"""

import copy
import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]
Answer = Any
"""What a student hands in: a function, or a value."""
TOLERANCE = 1e-5
"""Relative; wide enough for single precision."""
_SHOWN = 6


class Wrong(Exception):
    """The answer is not right; the message has the input, what was expected and what was found."""


class Open(Wrong):
    """Nothing was answered yet."""


def ask(answer: Any, /, *args: Any, **named: Any) -> Any:  # noqa: ANN401 - a student's function
    """Call the student's function with copies of the inputs.

    Raises:
        Open: it returned nothing.
        Wrong: the answer is no function, or raised; the message has the line.
    """
    if answer is None or answer is ...:
        raise Open("nothing is answered yet.")
    if not callable(answer):
        raise Wrong(
            f"a function is asked for and this is {_kind(answer)}; pass the function itself, "
            "without calling it."
        )
    try:
        result = answer(*copy.deepcopy(args), **copy.deepcopy(named))
    except Exception as error:
        raise Wrong(_failure(answer, error)) from error
    if result is None or result is ...:
        raise Open("your function returns nothing yet; write its body, and `return` the result.")
    return result


def numbers(
    value: Any,  # noqa: ANN401 - a student's value
    shape: tuple[int, ...] | None = None,
    name: str = "the result",
) -> Numbers:
    """A student's value as an array in double precision.

    Args:
        value: Numbers in any of the forms an answer may have.
        shape: The shape it must have; any if left out.
        name: What to call it in a message.

    Raises:
        Open: it is None or `...`.
        Wrong: it is not made of real numbers, or has another shape.
    """
    if value is None or value is ...:
        raise Open(f"{name} is {value}: nothing is answered yet.")
    try:
        found = _array(value)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"{name} is {_kind(value)}; numbers are asked for.") from None
    if shape is not None and found.shape != shape:
        if found.size != 1 or shape != ():
            raise Wrong(f"{name} has {_shape(found.shape)}; {_shape(shape)} is asked for.")
        found = found.reshape(())
    return found


def number(value: Any, name: str = "the result") -> float:  # noqa: ANN401 - a student's value
    """A student's value as one number.

    Raises:
        Open: it is None or `...`.
        Wrong: it is not one real number.
    """
    return float(numbers(value, (), name))


def two(found: Answer, what: str) -> tuple[Answer, Answer]:
    """An answer of two parts.

    Raises:
        Wrong: it has another number of them.
    """
    try:
        first, second = found
    except (TypeError, ValueError):
        raise Wrong(f"{shown(found)} was returned; return {what}, as two values.") from None
    return first, second


def agree(
    found: ArrayLike,
    expected: ArrayLike,
    given: Mapping[str, Any],
    slips: Mapping[str, Any] | None = None,
    *,
    name: str = "",
    rtol: float = TOLERANCE,
    atol: float | None = None,
) -> None:
    """Compare what was found with what is right, number by number.

    Args:
        found: From `numbers` or `number`.
        expected: What is right, of the same shape.
        given: The inputs by name, for the message; an array of the result's shape is shown at the
            place that failed only.
        slips: What plausible slips would give, by what follows "It looks as if you", as in
            {"left beta out": ...}; named when they fit.
        name: What is compared, if not simply the result.
        rtol: Relative tolerance.
        atol: Absolute tolerance; by default `rtol` of a tenth of the largest expected number.

    Raises:
        Wrong: they differ.
    """
    found, expected = _array(found), _array(expected)
    finite = np.abs(expected[np.isfinite(expected)])
    atol = rtol * float(finite.max(initial=0.0)) / 10 if atol is None else atol
    near = _near(found, expected, rtol, atol)
    if bool(near.all()):
        return
    place = tuple(int(i) for i in np.argwhere(~near)[0])
    what = f"{name}: expected" if name else "expected"
    message = (
        f"for {_given(given, found.shape, place)}: {what} {shown(expected[place])}, "
        f"found {shown(found[place])}."
    )
    fitting = [
        slip
        for slip, value in (slips or {}).items()
        if bool(_near(found, np.broadcast_to(_array(value), found.shape), rtol, atol).all())
    ]
    raise Wrong(f"{message} It looks as if you {'; or '.join(fitting)}." if fitting else message)


def shown(value: Any) -> str:  # noqa: ANN401 - anything that an exercise deals with
    """A value as a message shows it: numbers to six digits, long arrays cut."""
    if isinstance(value, str | bool | np.bool_):
        return str(value)
    try:
        found = _array(value)
    except (TypeError, ValueError, RuntimeError):
        return repr(value)
    if found.ndim == 0:
        return f"{float(found):.6g}"
    more = ", ..." if len(found) > _SHOWN else ""
    return f"[{', '.join(shown(part) for part in found[:_SHOWN])}{more}]"


def _array(value: Any) -> Numbers:  # noqa: ANN401 - any form of numbers
    if isinstance(value, torch.Tensor):
        return np.asarray(value.detach().cpu().double().numpy())
    if isinstance(value, list | tuple):
        return np.asarray([_array(part) for part in value], dtype=np.float64)
    found = np.asarray(value)
    if found.dtype.kind not in "biufO" or isinstance(value, str | Mapping):
        raise TypeError
    return found.astype(np.float64)


def _near(found: Numbers, expected: Numbers, rtol: float, atol: float) -> NDArray[np.bool_]:
    return np.isclose(found, expected, rtol=rtol, atol=atol, equal_nan=True)


def _given(given: Mapping[str, Any], shape: tuple[int, ...], place: tuple[int, ...]) -> str:
    parts = []
    for name, value in given.items():
        at_place = shape and getattr(value, "shape", None) == shape
        parts.append(f"{name} = {shown(value[place] if at_place else value)}")
    return ", ".join(parts)


def _failure(answer: Any, error: Exception) -> str:  # noqa: ANN401 - a student's function
    """What a student's function raised, and in which of its lines."""
    name = getattr(answer, "__name__", "your function")
    file = getattr(getattr(answer, "__code__", None), "co_filename", None)
    lines = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    where = f" in its cell's line {lines[-1].lineno}: {lines[-1].line}" if lines else "."
    return f"{name} raised {type(error).__name__} ({error}){where}"


def _kind(value: object) -> str:
    return f"a {type(value).__name__} ({value!r:.60})"


def _shape(shape: tuple[int, ...]) -> str:
    return f"shape {shape}" if shape else "one number"

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from workbench.objectives.projected_gradient import projected_gradient

VECTOR = st.lists(st.floats(-10, 10), min_size=3, max_size=3)


def split(values: list[float]) -> list[Tensor]:
    """Three numbers as the gradients of two weights."""
    vector = torch.tensor(values, dtype=torch.float64)
    return [vector[:1], vector[1:].reshape(1, 2)]


def chosen_gain(update: list[Tensor], h: list[Tensor]) -> float:
    """First-order change of log pi(y_w|x) when the optimiser descends along the update."""
    return -float(sum((u * v).sum() for u, v in zip(update, h, strict=True)))


@given(VECTOR, VECTOR)
def test_the_chosen_answer_never_loses(g: list[float], h: list[float]) -> None:
    update = projected_gradient(split(g), split(h))
    assert chosen_gain(update, split(h)) >= -1e-9


def test_the_plain_gradient_would_let_it_lose() -> None:
    g, h = split([1.0, 2.0, 0.0]), split([1.0, 0.0, 0.0])
    assert chosen_gain(g, h) < 0
    assert [u.tolist() for u in projected_gradient(g, h)] == [[0], [[2, 0]]]


@given(VECTOR, VECTOR)
def test_what_does_no_harm_is_left_as_it_is(g: list[float], h: list[float]) -> None:
    assume(sum(a * b for a, b in zip(g, h, strict=True)) <= 0)
    torch.testing.assert_close(projected_gradient(split(g), split(h)), split(g))


@given(VECTOR, VECTOR)
def test_the_projection_never_turns_descent_into_ascent(g: list[float], h: list[float]) -> None:
    update = projected_gradient(split(g), split(h))
    assert chosen_gain(update, split(g)) <= 1e-9


def test_no_chosen_gradient_changes_nothing() -> None:
    g = split([1.0, 2.0, 3.0])
    torch.testing.assert_close(projected_gradient(g, split([0.0, 0.0, 0.0])), g)


def test_gradients_of_different_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="2 gradients of the loss and 1 of the chosen"):
        projected_gradient(split([1, 2, 3]), split([1, 2, 3])[:1])

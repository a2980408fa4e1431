import math

import pytest
import torch

from workbench.errors import TrainingError
from workbench.training.descent import descend


def weight(*values: float) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(values))


def test_a_long_gradient_is_cut_and_its_length_told() -> None:
    w = weight(0.0, 0.0)
    norm = descend(1.0, [torch.tensor([3.0, 4.0])], [w], torch.optim.SGD([w], lr=1.0), 1.0, 1)
    assert norm == pytest.approx(5.0)
    assert torch.allclose(w.detach(), torch.tensor([-0.6, -0.8]), atol=1e-5)
    assert w.grad is None


def test_no_limit_cuts_nothing() -> None:
    w = weight(0.0)
    descend(1.0, [torch.tensor([50.0])], [w], torch.optim.SGD([w], lr=1.0), math.inf, 1)
    assert float(w.detach()) == -50


@pytest.mark.parametrize(("loss", "gradient"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan)])
def test_what_is_not_finite_changes_nothing(loss: float, gradient: float) -> None:
    w = weight(2.0)
    optimiser = torch.optim.AdamW([w], lr=1.0)
    with pytest.raises(TrainingError, match="diverged at step 7"):
        descend(loss, [torch.tensor([gradient])], [w], optimiser, 1.0, 7)
    assert float(w.detach()) == 2.0
    assert not optimiser.state


def test_an_expanded_gradient_can_be_cut() -> None:
    w = weight(0.0, 0.0)
    gradient = torch.autograd.grad(w.sum(), w)[0]
    norm = descend(1.0, [gradient], [w], torch.optim.SGD([w], lr=1.0), 0.1, 1)
    assert norm == pytest.approx(2**0.5)

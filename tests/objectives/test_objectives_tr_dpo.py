import pytest
import torch

from workbench.objectives.tr_dpo import sync_is_due, synchronised_reference

REFERENCE = {"w": torch.tensor([0.0, 10.0]), "b": torch.tensor([1.0])}
POLICY = {"w": torch.tensor([10.0, 0.0], requires_grad=True), "b": torch.tensor([1.0])}


def test_the_reference_moves_by_the_mixup() -> None:
    found = synchronised_reference(REFERENCE, {**POLICY, "extra": torch.zeros(1)}, 0.6)
    torch.testing.assert_close(found, {"w": torch.tensor([6.0, 4.0]), "b": torch.tensor([1.0])})
    assert not found["w"].requires_grad
    assert REFERENCE["w"].tolist() == [0, 10]  # nothing is changed in place


@pytest.mark.parametrize(("mixup", "expected"), [(0.0, [0, 10]), (1.0, [10, 0])])
def test_the_ends_keep_or_replace_it(mixup: float, expected: list[float]) -> None:
    assert synchronised_reference(REFERENCE, POLICY, mixup)["w"].tolist() == expected


def test_it_moves_every_so_many_steps() -> None:
    assert [step for step in range(10) if sync_is_due(step, 3)] == [3, 6, 9]


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="every 0 steps; give 1 or more"):
        sync_is_due(1, 0)
    with pytest.raises(ValueError, match=r"mixup is -0.1; give a number from 0 to 1"):
        synchronised_reference(REFERENCE, POLICY, -0.1)
    with pytest.raises(ValueError, match="lacks 1 weights of the reference, first 'b'"):
        synchronised_reference(REFERENCE, {"w": POLICY["w"]}, 0.5)

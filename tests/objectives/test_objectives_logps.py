import pytest
import torch

from workbench.objectives.logps import PairLogps, per_token


def test_the_ratios_of_the_table(table_pairs: PairLogps) -> None:
    assert table_pairs.chosen_log_ratio.tolist() == [1, -1, 0, 15]
    assert table_pairs.rejected_log_ratio.tolist() == [-1, 6, 0, -20]
    assert table_pairs.margin.tolist() == [2, -7, 0, 35]
    assert table_pairs.reference_log_ratio.tolist() == [0, -2, 0, 10]
    assert table_pairs.policy_log_ratio.tolist() == [2, -5, 0, 25]
    assert table_pairs.chosen_per_token.tolist() == [-2, -2.5, -1.75, -2]
    assert table_pairs.margin_per_token.tolist()[3] == pytest.approx(15 / 20 + 20 / 30)
    assert len(table_pairs) == 4


def test_shapes_that_differ_are_refused_before_they_broadcast() -> None:
    with pytest.raises(ValueError, match=r"policy_rejected has shape \(1,\) .* \(3,\)"):
        PairLogps(torch.zeros(3), torch.zeros(1))
    with pytest.raises(ValueError, match=r"policy_chosen has shape \(2, 2\)"):
        PairLogps(torch.zeros(2, 2), torch.zeros(2, 2))


def test_what_was_left_out_is_named() -> None:
    pairs = PairLogps(torch.zeros(2), torch.zeros(2))
    with pytest.raises(ValueError, match="needs reference_chosen, which was not given"):
        _ = pairs.chosen_log_ratio
    assert set(pairs.given()) == {"policy_chosen", "policy_rejected"}


def test_an_answer_without_tokens_has_no_mean() -> None:
    found = per_token(torch.tensor([-4.0, 0.0, -1.0]), torch.tensor([2, 0, 0]))
    assert found[0] == -2
    assert found[1:].isnan().all()

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from workbench.metrics import ranking
from workbench.objectives.dpo import sigmoid_loss

PAPER_BETAS = (0.01, 0.1, 1.0, 5.0, 10.0)
C = torch.tensor([0.0, -2, 0, 10], dtype=torch.float64)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


reals = st.floats(-1e6, 1e6)
columns = st.integers(1, 8).flatmap(
    lambda n: st.tuples(*[st.lists(reals, min_size=n, max_size=n)] * 2).map(
        lambda pair: (tensor(*pair[0]), tensor(*pair[1]))
    )
)


def test_ranking_accuracy_of_four_worked_pairs_with_its_tie() -> None:
    chosen, rejected = tensor(-10, -25, -7, -40), tensor(-12, -20, -7, -65)
    assert ranking.ranking_accuracy(chosen, rejected).tolist() == [1, 0, 1, 1]
    assert ranking.ranking_accuracy(chosen, rejected, tie_policy="wrong").tolist() == [1, 0, 0, 1]
    assert ranking.ranking_accuracy(chosen, rejected, tie_policy="half").tolist() == [1, 0, 0.5, 1]
    reference = ranking.ranking_accuracy(tensor(-11, -24, -7, -55), tensor(-11, -26, -7, -45))
    assert reference.tolist() == [1, 1, 1, 0]


def test_the_tie_tolerance_is_in_nats_for_sums_and_in_probability_per_token() -> None:
    chosen, rejected = tensor(-10.005, -10.02), tensor(-10, -10)
    assert ranking.ranking_accuracy(chosen, rejected, tolerance=0.01).tolist() == [1, 0]
    n = torch.tensor([10, 10])
    found = ranking.length_normalised_ranking_accuracy(
        chosen, rejected, n, n, tie_policy="half", tolerance=2e-4
    )
    # exp(-1.0005) and exp(-1.002) lie 0.00018 and 0.00074 below exp(-1).
    assert found.tolist() == [0.5, 0]


def test_an_unknown_tie_policy_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="'both'; choose one of correct, wrong, half"):
        ranking.ranking_accuracy(tensor(0), tensor(0), tie_policy="both")  # type: ignore[arg-type]


@given(columns, st.integers(1, 500))
def test_equal_lengths_rank_as_sums_do(pair: tuple[Tensor, Tensor], length: int) -> None:
    n = torch.full_like(pair[0], length)
    found = ranking.length_normalised_ranking_accuracy(*pair, n, n)
    # Division may round two close sums to one; nothing else may change.
    apart = (pair[0] - pair[1]).abs() > 1e-9
    assert torch.equal(found[apart], ranking.ranking_accuracy(*pair)[apart])


def test_an_empty_answer_has_no_length_normalised_rank() -> None:
    found = ranking.length_normalised_ranking_accuracy(
        tensor(-1), tensor(0), torch.tensor([1]), torch.tensor([0])
    )
    assert found.isnan().all()


@given(columns)
def test_swapping_the_answers_turns_every_rank_round(pair: tuple[Tensor, Tensor]) -> None:
    forward = ranking.ranking_accuracy(*pair, tie_policy="half")
    assert torch.equal(forward, 1 - ranking.ranking_accuracy(*pair[::-1], tie_policy="half"))
    c = ranking.reference_log_ratio(*pair)
    assert torch.equal(c, -ranking.reference_log_ratio(*pair[::-1]))


@given(columns)
def test_policy_equal_to_reference_ranks_as_the_reference(pair: tuple[Tensor, Tensor]) -> None:
    c = ranking.reference_log_ratio(*pair)
    assert torch.equal(ranking.ranking_accuracy(*pair), (c <= 0).double())


def test_clip_rater_share_moves_unanimous_votes_and_refuses_others() -> None:
    found = ranking.clip_rater_share(tensor(0, 0.3, 1), 0.001)
    assert found.tolist() == [0.001, 0.3, 0.999]
    with pytest.raises(ValueError, match=r"epsilon is 0\.5"):
        ranking.clip_rater_share(tensor(0.3), 0.5)
    with pytest.raises(ValueError, match=r"share is 1\.2.*\[0, 1\]"):
        ranking.clip_rater_share(tensor(0.3, 1.2))


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        (0.51, (4.0005, 0.4001, 0.0400, 0.0080, 0.0040)),
        (0.6, (40.5465, 4.0547, 0.4055, 0.0811, 0.0405)),
        (0.75, (109.8612, 10.9861, 1.0986, 0.2197, 0.1099)),
        (0.9, (219.7225, 21.9722, 2.1972, 0.4394, 0.2197)),
        (0.999, (690.6755, 69.0675, 6.9068, 1.3814, 0.6907)),
    ],
)
def test_ideal_log_ratio_of_the_papers_grid(alpha: float, expected: tuple[float, ...]) -> None:
    for beta, value in zip(PAPER_BETAS, expected, strict=True):
        found = ranking.idealized_log_ratio(tensor(0, 3), tensor(alpha, alpha), beta)
        torch.testing.assert_close(found, tensor(value, value - 3), atol=6e-5, rtol=0)


@pytest.mark.parametrize("alpha", [0.02, 0.5, 0.75, 0.999])
def test_the_ideal_log_ratio_minimises_the_expected_loss(alpha: float) -> None:
    """Theorem 3.1: alpha softplus(-h) + (1 - alpha) softplus(h) is least at h = logit(alpha)."""
    beta, c = 0.3, 2.0
    m = ranking.idealized_log_ratio(tensor(c), tensor(alpha), beta).requires_grad_()
    ahead, behind = sigmoid_loss(m, tensor(c), beta), sigmoid_loss(-m, tensor(-c), beta)
    (gradient,) = torch.autograd.grad((alpha * ahead + (1 - alpha) * behind).sum(), m)
    assert abs(gradient.item()) < 1e-12


Idealized = Callable[[Tensor, Tensor, float], Tensor]


def naive_eq_3(c: Tensor, alpha: Tensor, beta: float) -> Tensor:
    """Equation 3 in exact rational powers: exp(-c) (alpha / (1 - alpha))^(1 / beta) > 1."""
    return ((-c).exp() * (alpha / (1 - alpha)) ** (1 / beta) > 1).double()


def agrees_with_equation_3(idealized: Idealized) -> bool:
    generator = torch.Generator().manual_seed(0)
    c = 8 * torch.rand(2000, generator=generator, dtype=torch.float64) - 4
    alpha = 0.02 + 0.96 * torch.rand(2000, generator=generator, dtype=torch.float64)
    return all(
        torch.equal(idealized(c, alpha, b), naive_eq_3(c, alpha, b)) for b in (0.3, 1.0, 5.0)
    )


def test_idealized_accuracy_is_equation_3() -> None:
    assert agrees_with_equation_3(ranking.idealized_ranking_accuracy)


def test_sabotaged_idealized_accuracies_are_found_out() -> None:
    right = ranking.idealized_ranking_accuracy
    assert not agrees_with_equation_3(lambda c, a, b: right(-c, a, b))
    assert not agrees_with_equation_3(lambda c, a, b: right(c, a, 1 / b))


@pytest.mark.parametrize("beta", [1e-6, 1.0, 10.0])
@pytest.mark.parametrize("c", [-1e6, 1e6])
def test_idealized_accuracy_survives_extremes(c: float, beta: float) -> None:
    found = ranking.idealized_ranking_accuracy(tensor(c / beta), tensor(0.75), beta)
    assert found.item() == float(c < 0)
    assert ranking.idealized_ranking_accuracy(tensor(1e6), tensor(0.75), 1e-6).item() == 1


@given(columns, st.lists(st.floats(0.5, 0.999), min_size=8, max_size=8))
def test_idealized_accuracy_falls_with_beta_between_its_limits(
    pair: tuple[Tensor, Tensor], shares: list[float]
) -> None:
    c, alpha = pair[0], tensor(*shares)[: len(pair[0])]
    betas = torch.logspace(-9, 9, 91, dtype=torch.float64)
    curve = ranking.idealized_ranking_accuracy_curve(c, alpha, betas)
    assert (curve.diff() <= 1e-15).all()
    each = [ranking.idealized_ranking_accuracy(c, alpha, b).mean() for b in betas.tolist()]
    assert torch.equal(curve, torch.stack(each))


def test_idealized_accuracy_has_the_limits_of_the_theorem() -> None:
    c, alpha = tensor(-3, 0, 2, 5, 0), tensor(0.5, 0.6, 0.9, 0.5, 0.5)
    low, high = ranking.idealized_ranking_accuracy_curve(c, alpha, tensor(1e-12, 1e12)).tolist()
    assert low == 3 / 5  # alpha > 1/2 or c < 0
    assert high == 2 / 5  # c < 0, or c = 0 and alpha > 1/2


def test_flip_beta_is_where_a_pair_switches_off() -> None:
    c, alpha = tensor(2, 7, 0.3), tensor(0.75, 0.9, 0.51)
    at = ranking.flip_beta(c, alpha)
    for row, beta in enumerate(at.tolist()):
        one = slice(row, row + 1)
        below = ranking.idealized_ranking_accuracy(c[one], alpha[one], beta * (1 - 1e-12))
        above = ranking.idealized_ranking_accuracy(c[one], alpha[one], beta * (1 + 1e-12))
        assert (below.item(), above.item()) == (1, 0)


def test_flip_beta_where_nothing_switches() -> None:
    found = ranking.flip_beta(tensor(-1, 0, 0, 2, -1, math.nan), tensor(0.9, 0.9, 0.5, 0.3, 0.3, 1))
    assert found[:5].tolist() == [math.inf, math.inf, 0, 0, math.inf]
    assert found[5].isnan()


def test_a_missing_score_stays_missing() -> None:
    nan, one = tensor(math.nan), tensor(0.9)
    assert ranking.ranking_accuracy(nan, one).isnan().all()
    assert ranking.idealized_ranking_accuracy(nan, one, 1.0).isnan().all()
    assert ranking.idealized_ranking_accuracy(one, nan, 1.0).isnan().all()
    assert ranking.paper_code_idealized_ranking_accuracy(nan, -one, one, 1.0).isnan().all()
    assert ranking.idealized_ranking_accuracy_curve(nan, one, tensor(1)).isnan().all()


def test_a_curve_over_no_pairs_is_missing() -> None:
    empty = tensor()
    assert ranking.idealized_ranking_accuracy_curve(empty, empty, tensor(1, 2)).isnan().all()


@pytest.mark.parametrize("beta", [0.0, -0.1, math.nan, math.inf])
def test_a_beta_that_is_not_positive_is_refused(beta: float) -> None:
    for call in (
        lambda: ranking.idealized_ranking_accuracy(C, C / 20, beta),
        lambda: ranking.idealized_ranking_accuracy_curve(C * 0, C * 0, tensor(beta)),
        lambda: ranking.flip_threshold(C, beta),
    ):
        with pytest.raises(ValueError, match=r"beta is|share is"):
            call()


def simulated_pairs() -> tuple[Tensor, Tensor, Tensor]:
    """5,000 pairs as in core 1.4 D1: lengths 20-250, -1.3 +- .25 a token, votes 3:1 or 4:0."""
    generator = torch.Generator().manual_seed(1)
    length = torch.randint(20, 250, (2, 5000), generator=generator)
    token = -1.3 + 0.25 * torch.randn(2, 5000, generator=generator, dtype=torch.float64)
    unanimous = torch.rand(5000, generator=generator) > 0.6
    chosen, rejected = (length * token).unbind()
    return chosen, rejected, torch.where(unanimous, 0.999, 0.75).double()


def test_equation_3_and_the_papers_code_differ_as_measured() -> None:
    chosen, rejected, alpha = simulated_pairs()
    c = ranking.reference_log_ratio(chosen, rejected)
    expected = {0.01: (0.866, 1.0), 0.1: (0.600, 1.0), 1: (0.512, 0.917), 5: (0.502, 0.723)}
    expected[10] = (0.500, 0.662)
    for beta, (equation, code) in expected.items():
        ideal = ranking.idealized_ranking_accuracy(c, alpha, beta).mean().item()
        found = ranking.paper_code_idealized_ranking_accuracy(chosen, rejected, alpha, beta)
        # Half of the measured pairs had the majority on the second answer; a unanimous vote is
        # there a ratio of 0 in that code, which always counts as correct.
        found[(alpha > 0.9) & (torch.arange(5000) % 2 == 0)] = 1
        assert ideal == pytest.approx(equation, abs=0.02)
        assert found.mean().item() == pytest.approx(code, abs=0.02)


def test_the_papers_code_has_a_dead_band() -> None:
    """A ratio of 1.05 between the log-likelihoods counts, anything less does not."""
    found = ranking.paper_code_idealized_ranking_accuracy(
        tensor(-10.51, -10.49), tensor(-10, -10), tensor(0.5, 0.5), 1.0
    )
    assert found.tolist() == [1, 0]


def test_alignment_gap_is_ideal_minus_achieved() -> None:
    assert ranking.alignment_gap(tensor(0.9)[0], tensor(0.6)[0]).item() == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("c", "expected", "tolerance"),
    [
        (-10, 1.3132616875, 1e-10),
        (0, 0.6931471806, 1e-10),
        (1, 0.6443966601, 1e-10),
        (5, 0.4740769842, 1e-10),
        (10, 0.3132616875, 2e-10),
        (20, 0.1269280110, 4e-10),
        (50, 6.7153e-3, 1e-4),
        (100, 4.5399e-5, 1e-5),
        (457.6, 1.3387e-20, 1e-4),
        (-457.6, 45.76, 1e-15),
        (-1e6, 1e5, 1e-15),
    ],
)
def test_flip_threshold_values(c: float, expected: float, tolerance: float) -> None:
    found = ranking.flip_threshold(tensor(c), 0.1).item()
    assert found == pytest.approx(
        expected, rel=max(tolerance, 1e-9) if tolerance < 1e-9 else tolerance
    )


def test_flip_difficulty_is_the_fall_of_the_loss_that_a_pair_needs() -> None:
    found = ranking.flip_difficulty(tensor(-5, 0, 10, 1e5), 0.1)
    expected = tensor(0, 0, math.log(2) - 0.3132616875, math.log(2))
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def flips_where_the_theorem_says(threshold: Callable[[Tensor, float, float], Tensor]) -> bool:
    """Theorem 4.1 on 10,000 draws: R = 1 iff loss <= threshold, away from |m| < 1e-9."""
    generator = torch.Generator().manual_seed(4)
    scores = -80 * torch.rand(4, 10_000, generator=generator, dtype=torch.float64)
    m, c = scores[0] - scores[1], scores[3] - scores[2]
    ranked = ranking.ranking_accuracy(scores[0], scores[1]) == 1
    clear = m.abs() >= 1e-9
    return all(
        torch.equal(
            (sigmoid_loss(m, c, beta, gamma) <= threshold(c, beta, gamma))[clear], ranked[clear]
        )
        for beta in (0.01, 0.1, 1.0)
        for gamma in (0.0, 0.5, 1.0, 2.0)
    )


def test_a_pair_is_ranked_iff_its_loss_is_at_most_the_threshold() -> None:
    assert flips_where_the_theorem_says(ranking.flip_threshold)


def test_sabotaged_thresholds_are_found_out() -> None:
    right = ranking.flip_threshold
    assert not flips_where_the_theorem_says(lambda c, b, g: right(-c, b, g))
    assert not flips_where_the_theorem_says(lambda c, b, g: right(c, b, 1.0))
    assert not flips_where_the_theorem_says(lambda c, b, g: torch.full_like(c, math.log(2)))


@given(columns, st.floats(1e-6, 10), st.floats(0, 2))
def test_a_tie_of_the_policy_meets_the_threshold_exactly(
    pair: tuple[Tensor, Tensor], beta: float, gamma: float
) -> None:
    c = pair[0]
    loss = sigmoid_loss(torch.zeros_like(c), c, beta, gamma)
    assert torch.equal(loss, ranking.flip_threshold(c, beta, gamma))


def test_exact_match_needs_the_whole_order() -> None:
    logp = tensor(-1, -2, -3, -4).repeat(4, 1)
    target = torch.tensor([[1, 2, 3, 4], [1, 2, 4, 3], [1, 1, 2, 2], [4, 3, 2, 1]])
    found = ranking.exact_match_ranking(logp, target)
    assert found.tolist() == [True, False, True, False]


def test_exact_match_of_two_answers_is_strict_ranking_accuracy() -> None:
    generator = torch.Generator().manual_seed(0)
    logp = torch.randint(-3, 0, (200, 2), generator=generator)
    found = ranking.exact_match_ranking(logp, torch.tensor([[1, 2]]).expand(200, 2))
    strict = ranking.ranking_accuracy(logp[:, 0], logp[:, 1], tie_policy="wrong")
    assert torch.equal(found.double(), strict)


@given(columns)
def test_doubling_the_data_set_changes_no_mean(pair: tuple[Tensor, Tensor]) -> None:
    once = ranking.ranking_accuracy(*pair).mean()
    twice = ranking.ranking_accuracy(*[v.repeat(2) for v in pair]).mean()
    assert once.item() == pytest.approx(twice.item(), abs=1e-15)


def test_data_with_ties_want_the_model_to_tie_exactly_there() -> None:
    chosen, alpha = tensor(-10, -10.005, -10.02, -9, -10.005), tensor(0.5, 0.5, 0.5, 0.75, 0.75)
    found = ranking.tied_ranking_accuracy(chosen, torch.full_like(chosen, -10), alpha)
    assert found.tolist() == [1, 1, 0, 1, 0]


def test_a_low_enough_loss_ranks_any_pair_that_the_reference_ranks() -> None:
    """Proposition 2.6: reference right and loss <= log 2 suffice."""
    c = -tensor(*torch.linspace(0, 50, 101).tolist())
    assert (ranking.flip_threshold(c, 0.1) >= math.log(2)).all()


def test_the_gradient_at_the_flip_is_that_of_the_loss_and_vanishes() -> None:
    c = tensor(-5, 0, 5, 50, 500)
    m = torch.zeros_like(c).requires_grad_()
    (gradient,) = torch.autograd.grad(sigmoid_loss(m, c, 0.1).sum(), m)
    torch.testing.assert_close(ranking.flip_gradient_scale(c, 0.1), -gradient)
    assert ranking.flip_gradient_scale(c, 0.1)[-1] < 1e-20


@given(columns, st.floats(0.05, 5))
def test_the_ipo_loss_that_suffices(pair: tuple[Tensor, Tensor], tau: float) -> None:
    """Proposition A.7, with the loss (m + c - 1 / (2 tau))^2."""
    m, c = pair
    loss = (m + c - 1 / (2 * tau)) ** 2
    bound = ranking.ipo_sufficient_loss(c, tau)
    ranked = ranking.ranking_accuracy(m, torch.zeros_like(m)) == 1
    assert (ranked | ~(loss < bound * (1 - 1e-9))).all()
    hopeless = c > 1 / (2 * tau)
    assert (bound[hopeless] == -math.inf).all()
    assert ranking.ipo_sufficient_loss(tensor(math.nan), tau).isnan().all()
    with pytest.raises(ValueError, match="tau is 0"):
        ranking.ipo_sufficient_loss(c, 0.0)

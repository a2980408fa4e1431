import dataclasses
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from workbench.metrics import information as info

REFERENCE = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
TARGET = REFERENCE.flip(0)
Q = torch.tensor([0.0389610390, 0.1038961039, 0.2337662338, 0.6233766234], dtype=torch.float64)
log_probabilities = st.integers(2, 9).flatmap(
    lambda n: st.tuples(*[st.lists(st.floats(-40, 0), min_size=n, max_size=n)] * 2).map(
        lambda both: torch.log_softmax(torch.tensor(both, dtype=torch.float64), dim=-1)
    )
)


def random_logp(*shape: int, seed: int = 0, scale: float = 1.5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    return torch.log_softmax(logits, dim=-1)


def entropy(p: Tensor) -> float:
    return float(-torch.special.xlogy(p, p).sum())


def worked_example_holds(entropy_of: Callable[[Tensor, Tensor], Tensor]) -> bool:
    return abs(entropy_of(TARGET.log(), REFERENCE.log()).item() - 0.9960689366) < 6e-11


def test_worked_example_of_four_answers() -> None:
    q = info.did_log_density(TARGET.log(), REFERENCE.log()).exp()
    torch.testing.assert_close(q, Q, atol=6e-11, rtol=0)
    assert worked_example_holds(info.did_entropy)
    assert math.exp(info.did_entropy(TARGET.log(), REFERENCE.log())) == pytest.approx(
        2.7076170659, abs=6e-11
    )
    # The entropy of the policy did not change at all, although H(q) < log 4.
    group = torch.zeros(4, dtype=torch.long)
    change = info.entropy_change_by_group(TARGET.log(), REFERENCE.log(), group, 1)
    assert change.item() == pytest.approx(0, abs=1e-15)
    assert entropy(TARGET) == pytest.approx(1.2798542258, abs=6e-11)


def test_sabotaged_entropies_are_found_out() -> None:
    right = info.did_entropy
    assert not worked_example_holds(lambda p, r: right(p, torch.zeros_like(r)))
    assert not worked_example_holds(lambda p, r: right(p, r) / math.log(2))
    assert not worked_example_holds(lambda p, r: right(2 * p, 2 * r))


@pytest.mark.parametrize(
    ("beta", "expected"),
    [
        (0.5, (0.5794066796, 0.2661095097, 0.1182708932, 0.0362129175)),
        (1.0, (0.7245283019, 0.2037735849, 0.0603773585, 0.0113207547)),
        (2.0, (0.8925907990, 0.0941404358, 0.0123970944, 0.0008716707)),
    ],
)
def test_optimal_rejected_distribution_and_what_dpo_recovers(
    beta: float, expected: tuple[float, ...]
) -> None:
    rejected = info.optimal_rejected_log_density(TARGET.log(), REFERENCE.log(), beta)
    wanted = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(rejected.exp(), wanted, atol=6e-11, rtol=0)
    recovered = info.dpo_optimum_log_density(REFERENCE.log(), rejected, beta)
    torch.testing.assert_close(recovered.exp(), TARGET, atol=1e-12, rtol=0)


def expected_dpo_loss(policy: Tensor, rejected: Tensor) -> Tensor:
    """Exact loss at beta = 1, chosen from the reference, rejected from `rejected`."""
    ratio = policy - REFERENCE.log()
    loss = torch.nn.functional.softplus(ratio[None, :] - ratio[:, None])
    return (REFERENCE[:, None] * rejected.exp()[None, :] * loss).sum()


def test_the_expected_loss_is_least_at_the_target() -> None:
    rejected = info.optimal_rejected_log_density(TARGET.log(), REFERENCE.log(), 1.0)
    logits = TARGET.log().requires_grad_()
    loss = expected_dpo_loss(torch.log_softmax(logits, dim=-1), rejected)
    assert loss.item() == pytest.approx(0.5650377746, abs=6e-11)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.abs().max() < 1e-12
    update = TARGET.log() - REFERENCE.log()
    assert float(REFERENCE @ update) == pytest.approx(-0.4564348191, abs=6e-11)
    assert float(rejected.exp() @ update) == pytest.approx(-1.0468577674, abs=6e-11)


def test_power_law_beta_is_one_spike_iff_the_law_holds() -> None:
    first, second = torch.tensor(list(itertools.permutations(range(4), 2))).T

    def margin(logp: Tensor) -> Tensor:
        return logp[first] - logp[second]

    rejected = info.optimal_rejected_log_density(TARGET.log(), REFERENCE.log(), 0.7)
    found = info.power_law_beta(margin(rejected), margin(REFERENCE.log()), margin(TARGET.log()))
    torch.testing.assert_close(found, torch.full_like(found, 0.7))
    none = info.power_law_beta(margin(TARGET.log()), margin(REFERENCE.log()), margin(TARGET.log()))
    assert none.isnan().all()


@pytest.mark.parametrize(
    ("power", "did", "change"),
    [(1, 0.8018, -0.4470), (3, 0.1279, -0.7584), (-1, 0.8766, 0.2968), (-3, 0.3659, -0.2272)],
)
def test_did_entropy_alone_does_not_fix_the_sign_of_the_change(
    power: int, did: float, change: float
) -> None:
    reference = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64).log()
    target = torch.log_softmax(reference * (1 + power), dim=-1)
    assert info.did_entropy(target, reference).item() == pytest.approx(did, abs=6e-5)
    group = torch.zeros(3, dtype=torch.long)
    found = info.entropy_change_by_group(target, reference, group, 1)
    assert found.item() == pytest.approx(change, abs=6e-5)
    correlation = info.did_reference_correlation(target, reference)
    assert correlation.item() == pytest.approx(math.copysign(1, power))


@given(log_probabilities, st.floats(-500, 500))
def test_q_is_a_distribution_that_no_constant_moves(both: Tensor, constant: float) -> None:
    policy, reference = both
    log_q = info.did_log_density(policy, reference)
    assert log_q.exp().sum().item() == pytest.approx(1)
    shifted = info.did_log_density(policy + constant, reference)
    torch.testing.assert_close(shifted, log_q, atol=1e-9, rtol=0)
    found = info.did_entropy(policy, reference).item()
    assert -1e-12 <= found <= math.log(len(policy)) + 1e-12
    back = torch.log_softmax(reference + log_q, dim=-1)
    torch.testing.assert_close(back, policy, atol=1e-9, rtol=0)


@given(log_probabilities, st.randoms(use_true_random=False))
def test_order_of_the_answers_does_not_matter(both: Tensor, rng: object) -> None:
    order = list(range(both.shape[1]))
    rng.shuffle(order)  # type: ignore[attr-defined]
    moved = info.did_log_density(both[0, order], both[1, order])
    torch.testing.assert_close(moved, info.did_log_density(*both)[order])


@given(log_probabilities)
def test_unchanged_policies_have_the_largest_entropy(both: Tensor) -> None:
    found = info.did_entropy(both[0], both[0])
    assert found.item() == pytest.approx(math.log(both.shape[1]), abs=1e-12)


@given(log_probabilities)
def test_sharper_differential_information_has_less_entropy(both: Tensor) -> None:
    policy, reference = both
    log_q = info.did_log_density(policy, reference)
    entropies = [
        info.did_entropy(beta * log_q, torch.zeros_like(log_q)).item() for beta in (0.5, 1.0, 2.0)
    ]
    assert entropies == sorted(entropies, reverse=True) or max(entropies) - min(entropies) < 1e-9


def test_q_composes() -> None:
    a, b, c = random_logp(3, 6)
    composed = info.did_log_density(c, b) + info.did_log_density(b, a)
    torch.testing.assert_close(torch.log_softmax(composed, -1), info.did_log_density(c, a))


def test_zero_probabilities() -> None:
    inf = math.inf
    policy, reference = torch.tensor([[-inf, -1.0, -2.0], [-1.0, -1.0, -2.0]])
    torch.testing.assert_close(
        info.did_log_density(policy, reference).exp(), torch.tensor([0, 0.5, 0.5]).double()
    )
    point = torch.tensor([-1.0, -inf, -2.0])
    found = info.did_log_density(reference, point).exp()
    assert found.tolist() == [0, 1, 0]
    assert info.did_entropy(reference, point).item() == 0
    assert info.did_entropy(torch.tensor([math.nan, 0.0]), torch.zeros(2)).isnan()
    with pytest.warns(RuntimeWarning, match=r"1 answers are impossible under both"):
        found = info.did_log_density(policy, torch.tensor([-inf, -1.0, -2.0])).exp()
    assert found.tolist() == [0, 0.5, 0.5]


def test_correlation_with_the_reference_needs_variation() -> None:
    policy, reference = random_logp(2, 5)
    q = info.did_log_density(policy, reference).exp().numpy()
    ratio = (policy - reference).numpy()
    covariance = np.cov(ratio, reference.numpy(), aweights=q)
    expected = covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1])
    assert info.did_reference_correlation(policy, reference).item() == pytest.approx(expected)
    flat = torch.full((5,), -math.log(5), dtype=torch.float64)
    assert info.did_reference_correlation(policy, flat).isnan()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20), st.integers(0, 2**31))
def test_ragged_groups_equal_separate_sets(groups: list[int], seed: int) -> None:
    group = torch.tensor(groups)
    policy, reference = random_logp(2, len(groups), seed=seed, scale=20)
    found = info.did_entropy_by_group(policy - reference, group, 5)
    change = info.entropy_change_by_group(policy, reference, group, 5)
    for k in range(5):
        ours, theirs = policy[group == k], reference[group == k]
        assert found.size[k] == len(ours)
        if len(ours) == 0:
            assert found.entropy[k].isnan()
            assert found.effective_number[k].isnan()
            assert change[k].isnan()
            continue
        expected = info.did_entropy(ours, theirs)
        torch.testing.assert_close(found.entropy[k], expected, atol=1e-12, rtol=0)
        torch.testing.assert_close(found.effective_number[k], expected.exp())
        own = [entropy(torch.softmax(logp, 0)) for logp in (ours, theirs)]
        assert change[k].item() == pytest.approx(own[0] - own[1], abs=1e-12)
        if len(ours) == 1:
            assert found.efficiency[k].isnan()
        else:
            assert found.efficiency[k].item() == pytest.approx(expected / math.log(len(ours)))


def test_groups_with_impossible_answers_and_bad_numbers() -> None:
    inf = math.inf
    ratio = torch.tensor([-inf, 0.0, 0.0, inf, 0.0, math.nan, 0.0])
    group = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    found = info.did_entropy_by_group(ratio, group, 3).entropy
    assert found[0].item() == pytest.approx(math.log(2))
    assert found[1].item() == 0
    assert found[2].isnan()
    with pytest.raises(ValueError, match=r"Groups run from 0 to 2.*0\.\.1"):
        info.did_entropy_by_group(ratio, group, 2)
    assert len(info.did_entropy_by_group(torch.zeros(0), torch.zeros(0).long(), 0).entropy) == 0


def test_token_entropy_is_the_entropy_of_the_softmax_difference() -> None:
    policy, reference = random_logp(2, 3, 7)
    found = info.token_did_entropy(policy + 4, reference - 3)
    torch.testing.assert_close(found.entropy, info.did_entropy(policy, reference))
    torch.testing.assert_close(found.kl_to_uniform, math.log(7) - found.entropy)
    assert found.size.tolist() == [7, 7, 7]
    torch.testing.assert_close(found.coverage, torch.ones(3, dtype=torch.float64))
    changes = [entropy(p.exp()) - entropy(r.exp()) for p, r in zip(policy, reference, strict=True)]
    torch.testing.assert_close(found.policy_entropy_change, torch.tensor(changes).double())


def test_the_product_of_local_q_is_not_q_but_sums_to_one() -> None:
    """Two positions, three tokens: brute force over all nine strings."""
    first, second = random_logp(2, 3, seed=1), random_logp(2, 3, 3, seed=2)
    local = info.did_log_density(first[0], first[1])[:, None] + info.did_log_density(*second)
    assert local.exp().sum().item() == pytest.approx(1)
    whole = info.did_log_density(
        (first[0][:, None] + second[0]).flatten(), (first[1][:, None] + second[1]).flatten()
    )
    assert (whole - local.flatten()).abs().max() > 0.1


def test_token_entropy_over_the_union_of_the_top_tokens() -> None:
    policy = torch.tensor([[5.0, 4, 0, -60, -60]])
    reference = torch.tensor([[5.0, 0, 4, -60, -60]])
    found = info.token_did_entropy(policy, reference, top_k=2)
    assert found.size.tolist() == [3]
    assert found.coverage.item() == pytest.approx(1)
    kept = info.did_entropy(policy[:, :3], reference[:, :3])
    torch.testing.assert_close(found.entropy, kept)
    assert info.token_did_entropy(policy, reference, top_k=9).size.tolist() == [5]


def test_tiny_differences_keep_their_precision() -> None:
    """KL(q || uniform) is half the variance of the log-ratio where that is tiny."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 1000, generator=generator, dtype=torch.float64)
    shift = 1e-6 * torch.randn(1, 1000, generator=generator, dtype=torch.float64)
    found = info.token_did_entropy(logits + shift, logits).kl_to_uniform.item()
    assert found == pytest.approx(float(shift.var(unbiased=False)) / 2, rel=1e-4)


def test_impossible_tokens_are_never_considered() -> None:
    logits = torch.tensor([[0.0, 1, -math.inf, 2]])
    found = info.token_did_entropy(logits, logits + torch.tensor([0.0, 1, 0, 0]))
    assert found.size.tolist() == [3]
    assert found.entropy.isfinite().all()
    assert found.policy_entropy_change.isfinite().all()


def test_token_entropy_refuses_other_vocabularies_and_no_tokens() -> None:
    with pytest.raises(ValueError, match=r"\(1, 3\) and \(1, 4\).*same tokenizer"):
        info.token_did_entropy(torch.zeros(1, 3), torch.zeros(1, 4))
    with pytest.raises(ValueError, match="top_k is 0"):
        info.token_did_entropy(torch.zeros(1, 3), torch.zeros(1, 3), top_k=0)


def strings(start: Tensor, steps: Tensor) -> Tensor:
    """log-probabilities of all strings of a Markov chain."""
    v, t = len(start), len(steps) + 1
    return torch.stack(
        [
            start[s[0]] + sum(steps[i, s[i], s[i + 1]] for i in range(t - 1))
            for s in itertools.product(range(v), repeat=t)
        ]
    )


@pytest.mark.parametrize("seed", range(3))
def test_markov_entropy_equals_brute_force(seed: int) -> None:
    policy, reference = random_logp(2, 3, 3, 3, seed=seed)
    starts = random_logp(2, 3, seed=seed + 10)
    found = info.markov_did_entropy(policy, reference, *starts)
    whole = info.did_entropy(strings(starts[0], policy), strings(starts[1], reference))
    torch.testing.assert_close(found, whole, atol=1e-12, rtol=0)


def test_markov_entropy_of_the_oracle() -> None:
    """The numbers of oracle_did.py, whose generator is replayed up to the chains."""
    rng = np.random.default_rng(5)
    a, b = (torch.log_softmax(torch.from_numpy(rng.normal(size=(3, 3))), 1) for _ in range(2))
    start = torch.log_softmax(torch.from_numpy(rng.normal(size=(2, 3))), 1)
    steps = a.expand(3, 3, 3), b.expand(3, 3, 3)
    found = info.markov_did_entropy(*steps, *start).item()
    ratio = (strings(start[0], steps[0]) - strings(start[1], steps[1])).numpy()
    assert found == pytest.approx(stats.entropy(np.exp(ratio)), abs=1e-12)
    assert found <= 4 * math.log(3)


def test_markov_chains_with_impossible_steps() -> None:
    inf = math.inf
    policy, reference = random_logp(2, 1, 2, 2)
    start = torch.tensor([0.0, -inf])
    with pytest.warns(RuntimeWarning, match="impossible"):
        found = info.markov_did_entropy(policy, reference, start, start)
    torch.testing.assert_close(found, info.did_entropy(policy[0, 0], reference[0, 0]))
    with pytest.raises(ValueError, match="reference holds impossible"):
        info.markov_did_entropy(policy, reference, torch.zeros(2), start)


def test_sampling_each_answer_once_from_the_uniform_is_exact() -> None:
    policy, reference = random_logp(2, 64)
    log_ratio = policy - reference
    found = info.snis_entropy(log_ratio + math.log(64), log_ratio)
    torch.testing.assert_close(found, info.did_entropy(policy, reference))


def draws(proposal: Tensor, k: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(proposal.exp(), k, replacement=True, generator=generator)


Sampler = Callable[[Tensor, Tensor, Tensor], info.SampledDidEntropy]


def covers_the_truth(sampler: Sampler) -> bool:
    """Mean error within 4 standard errors over 200 repeats, predicted against measured spread."""
    policy, reference = random_logp(32, seed=1), random_logp(32, seed=2)
    exact = info.did_entropy(policy, reference).item()
    proposal = info.mixture_log_density(policy, reference)
    found = []
    for seed in range(200):
        y = draws(proposal, 1024, seed)
        found.append(sampler(policy[y], reference[y], proposal[y]))
    kept = [each for each in found if each.reliable]
    if len(kept) < 100:
        return False
    errors = torch.tensor([each.estimate - exact for each in kept])
    spread = float(errors.std())
    predicted = float(np.mean([each.standard_error for each in kept]))
    unbiased = abs(float(errors.mean())) < 4 * spread / math.sqrt(len(kept))
    return unbiased and 0.8 < predicted / spread < 1.25


def test_sampled_entropy_is_unbiased_and_knows_its_error() -> None:
    assert covers_the_truth(info.sampled_did_entropy)


def test_sabotaged_samplers_are_found_out() -> None:
    right = info.sampled_did_entropy
    assert not covers_the_truth(lambda p, r, q: right(p, r, torch.zeros_like(q)))
    assert not covers_the_truth(lambda p, r, q: right(p, r, q + r))


def test_the_plug_in_of_the_weights_is_not_the_entropy() -> None:
    policy, reference = random_logp(32, seed=1), random_logp(32, seed=2)
    y = draws(policy, 2048, 0)
    weights = torch.softmax(-reference[y], dim=0)
    assert entropy(weights) > info.did_entropy(policy, reference).item() + 1


def test_predicted_bias_is_that_of_the_uncorrected_estimate() -> None:
    policy, reference = random_logp(32, seed=1), random_logp(32, seed=2)
    exact = info.did_entropy(policy, reference)
    errors, predicted = [], []
    for seed in range(1500):
        y = draws(policy, 256, seed)
        ratio = policy[y] - reference[y]
        errors.append(float(info.snis_entropy(ratio - policy[y], ratio) - exact))
        predicted.append(info.sampled_did_entropy(policy[y], reference[y], policy[y]).bias)
    noise = np.std(errors) / math.sqrt(len(errors))
    assert np.mean(predicted) == pytest.approx(np.mean(errors), abs=4 * noise)


def test_one_dominant_weight_is_refused() -> None:
    policy = torch.full((64,), -3.0)
    reference = torch.cat([torch.full((63,), -3.0), torch.tensor([-60.0])])
    found = info.sampled_did_entropy(policy, reference, policy)
    assert not found.reliable
    assert math.isnan(found.estimate)
    assert found.ess == pytest.approx(1)
    assert found.ess_share == pytest.approx(1 / 64)
    assert "Only 1.0 effective draws" in found.reason


def test_a_heavy_tail_is_refused_even_with_many_effective_draws() -> None:
    shape = stats.genpareto.ppf((np.arange(100_000) + 0.5) / 100_000, 0.9)
    log_w = torch.from_numpy(np.log(shape + 0.5))
    found = info.sampled_did_entropy(log_w, torch.zeros(100_000), torch.zeros(100_000))
    assert found.ess > info.MIN_EFFECTIVE_SAMPLES
    assert found.pareto_k > info.MAX_PARETO_K
    assert "tail is too heavy" in found.reason


def test_even_weights_are_reliable_and_few_draws_are_not() -> None:
    even = torch.full((25,), -3.0)
    found = info.sampled_did_entropy(even, even, even)
    assert found.reliable
    assert (found.pareto_k, found.draws) == (0, 25)
    few = info.sampled_did_entropy(even[:24], even[:24], even[:24])
    assert "Too few draws" in few.reason
    with pytest.raises(ValueError, match="1 draws; give at least 2"):
        info.sampled_did_entropy(even[:1], even[:1], even[:1])
    with pytest.raises(ValueError, match="Draw 0 has log-weight inf"):
        info.sampled_did_entropy(even, torch.full((25,), -math.inf), even)


@pytest.mark.parametrize("shape", [-0.3, 0.2, 0.5, 0.9])
def test_pareto_shape_agrees_with_scipys_likelihood(shape: float) -> None:
    values = np.sort(stats.genpareto.rvs(shape, size=3000, random_state=3))
    expected = stats.genpareto.fit(values, floc=0)[0]
    found = info.generalised_pareto_shape(torch.from_numpy(values))
    assert found == pytest.approx(expected, abs=0.03)


def test_a_plug_in_sampler_is_found_out() -> None:
    """-sum w log w of the weights in place of the estimator."""
    right = info.sampled_did_entropy

    def plug_in(p: Tensor, r: Tensor, q: Tensor) -> info.SampledDidEntropy:
        found = right(p, r, q)
        return dataclasses.replace(found, estimate=entropy(torch.softmax(p - r - q, dim=0)))

    assert not covers_the_truth(plug_in)


def test_displacement_and_margin_of_the_worked_example() -> None:
    """The expected margin at the optimum is Jeffreys' divergence of pi_ref and pi_l."""
    rejected = info.optimal_rejected_log_density(TARGET.log(), REFERENCE.log(), 1.0).exp()
    update = TARGET.log() - REFERENCE.log()
    margin = float((REFERENCE - rejected) @ update)
    assert margin == pytest.approx(0.5904229482, abs=6e-11)
    jeffreys = float((REFERENCE - rejected) @ (REFERENCE.log() - rejected.log()))
    assert margin == pytest.approx(jeffreys)


@given(log_probabilities)
def test_the_inverse_update_has_the_inverse_information(both: Tensor) -> None:
    forward, backward = info.did_log_density(*both), info.did_log_density(both[1], both[0])
    torch.testing.assert_close(torch.log_softmax(-forward, -1), backward, atol=1e-9, rtol=0)


def test_copies_are_dropped_or_they_raise_the_entropy() -> None:
    answers = ["yes", "no", "yes", "maybe", "no"]
    kept = info.first_of_each(answers)
    assert kept.tolist() == [0, 1, 3]
    ratio = torch.tensor([0.5, -1, 0.5, 0, -1])
    once, copied = (
        info.did_entropy_by_group(r, torch.zeros(len(r)).long(), 1).entropy
        for r in (ratio[kept], ratio)
    )
    assert copied > once
    assert info.first_of_each([]).tolist() == []


def test_draws_that_the_policy_holds_impossible_weigh_nothing() -> None:
    policy, reference = random_logp(32, seed=1), random_logp(32, seed=2)
    y = draws(info.mixture_log_density(policy, reference), 4096, 0)
    plain = policy[y], reference[y], info.mixture_log_density(policy, reference)[y]
    extra = torch.tensor([[-math.inf], [-3], [-4]])
    without = [torch.cat(columns) for columns in zip(plain, extra, strict=True)]
    found = info.sampled_did_entropy(*without)
    assert found.reliable
    assert found.draws == 4097
    assert found.estimate == pytest.approx(info.sampled_did_entropy(*plain).estimate, abs=0.01)


def test_entropy_a_token_in_bits_and_as_a_share() -> None:
    found = info.token_did_entropy(*random_logp(2, 3, 8))
    torch.testing.assert_close(found.bits * math.log(2), found.entropy)
    torch.testing.assert_close(found.efficiency * math.log(8), found.entropy)


@pytest.mark.parametrize("name", ["optimal_rejected_log_density", "dpo_optimum_log_density"])
def test_densities_refuse_a_beta_that_is_not_positive(name: str) -> None:
    with pytest.raises(ValueError, match="beta is 0"):
        getattr(info, name)(TARGET.log(), REFERENCE.log(), 0.0)

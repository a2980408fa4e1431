"""The estimator laboratory against plain computations and the numbers of NumPy's draws."""

import itertools
import math

import numpy as np
import pytest
import torch

from workbench.metrics.information import did_entropy, did_log_density
from workbench.studies.differential_information import chains, laboratory
from workbench.studies.differential_information.estimators import (
    DRAWS,
    Instruments,
    Laboratory,
    _candidates,
    delta_method_error,
    experiment,
    fixed_world,
    plug_in_entropy,
    proposals,
)
from workbench.study.context import StudyContext


@pytest.fixture(scope="module")
def found() -> Laboratory:
    return experiment(300, Instruments(), StudyContext(seed=7))


@pytest.fixture(scope="module")
def by_length() -> chains.ByLength:
    return chains.experiment((1, 2, 8, 32), 20, StudyContext(seed=7))


def holds(name: str, found: Laboratory, by_length: chains.ByLength) -> bool:
    return {each.name: each for each in laboratory.claims(found, by_length)}[name].holds


def test_the_fixed_world_is_the_one_of_the_specification(found: Laboratory) -> None:
    draws = np.random.default_rng(0)
    reference, policy = draws.normal(size=32) * 1.5, draws.normal(size=32) * 1.5
    ratio = (policy - np.logaddexp.reduce(policy)) - (reference - np.logaddexp.reduce(reference))
    q = np.exp(ratio - np.logaddexp.reduce(ratio))
    assert -(q * np.log(q)).sum() == pytest.approx(found.exact, rel=1e-12)
    assert found.exact == pytest.approx(2.2698, abs=5e-5)


def test_the_delta_method_gives_the_standard_error_of_the_specification() -> None:
    policy, reference = fixed_world()
    assert delta_method_error(policy, reference, policy) / 16 == pytest.approx(0.0603, abs=5e-5)


def test_sampling_agrees_with_a_plain_simulation_in_numpy(found: Laboratory) -> None:
    policy, reference = (each.numpy() for each in fixed_world())
    mixture = np.logaddexp(policy, reference) - math.log(2)
    draws, repeats = np.random.default_rng(3), 300
    estimates, sizes = [], []
    for _ in range(repeats):
        y = draws.choice(32, 64, p=np.exp(mixture))
        ratio = policy[y] - reference[y]
        w = np.exp(ratio - mixture[y])
        estimates.append(math.log(w.mean()) - (w * ratio).sum() / w.sum())
        sizes.append(w.sum() ** 2 / (w**2).sum())
    ours, place = found.sampling["mixture"], DRAWS.index(64)
    for theirs, mine in ((estimates, ours.estimate[place]), (sizes, ours.ess[place])):
        error = math.sqrt(np.var(theirs) / repeats + float(mine.var()) / len(mine))
        assert abs(float(mine.mean()) - np.mean(theirs)) < 4 * error


def test_the_known_numbers_are_reproduced_and_the_claims_hold(
    found: Laboratory, by_length: chains.ByLength
) -> None:
    claims = laboratory.claims(found, by_length)
    assert [each.name for each in claims if each.gated and not each.holds] == []


@pytest.mark.parametrize(
    ("name", "sabotaged"),
    [
        ("known-bias", Instruments(estimate=plug_in_entropy)),
        ("known-ess", Instruments(log_weight=lambda ratio, proposal: ratio)),
        ("delta-method-error", Instruments(used=0.5)),
        ("copies-inflate", Instruments(distinct=False)),
    ],
)
def test_a_sabotaged_instrument_is_caught(
    name: str, sabotaged: Instruments, found: Laboratory, by_length: chains.ByLength
) -> None:
    assert holds(name, found, by_length)
    assert not holds(name, experiment(300, sabotaged, StudyContext(seed=7)), by_length)


def test_small_samples_of_the_reference_are_refused(found: Laboratory) -> None:
    assert float(found.sampling["reference"].refused[DRAWS.index(32)]) > 0.5
    assert float(found.sampling["policy"].refused[DRAWS.index(2048)]) == 0


def test_the_entropy_of_the_weights_never_exceeds_log_k(found: Laboratory) -> None:
    for sampling in found.sampling.values():
        bound = torch.tensor(DRAWS, dtype=torch.float64).log()[:, None]
        assert (sampling.plug_in <= bound + 1e-9).all()


def test_a_candidate_set_is_the_softmax_over_its_distinct_answers() -> None:
    policy, reference = fixed_world()
    generator = torch.Generator().manual_seed(5)
    entropy, size, copies = _candidates(policy, reference, 3, Instruments(), generator)
    again = torch.Generator().manual_seed(5)
    mixture = proposals(policy, reference)["mixture"].exp()
    drawn = torch.multinomial(mixture, 3 * DRAWS[0], replacement=True, generator=again)
    for repeat, answers in enumerate(drawn.view(3, -1)):
        once = answers.unique()
        assert float(size[0, repeat]) == len(once)
        plain = did_entropy(policy[once], reference[once])
        assert float(entropy[0, repeat]) == pytest.approx(float(plain), abs=1e-12)
        whole = did_entropy(policy[answers], reference[answers])
        assert float(copies[0, repeat]) == pytest.approx(float(whole), abs=1e-12)


def test_a_complete_candidate_set_has_the_entropy_itself(found: Laboratory) -> None:
    complete = found.candidate_size == 32
    assert complete.any()
    assert found.candidates[complete].tolist() == pytest.approx([found.exact] * int(complete.sum()))


@pytest.fixture(scope="module")
def pair_of_chains() -> tuple[chains.Chain, chains.Chain]:
    generator = torch.Generator().manual_seed(11)
    return chains.draw_chain(generator, tokens=3), chains.draw_chain(generator, tokens=3)


def all_strings(chain: chains.Chain, length: int) -> torch.Tensor:
    strings = torch.tensor(list(itertools.product(range(3), repeat=length)))
    return chains._log_probability(chain, strings)


@pytest.mark.parametrize("length", [1, 2, 4])
def test_the_entropy_over_strings_is_the_one_of_all_of_them(
    length: int, pair_of_chains: tuple[chains.Chain, chains.Chain]
) -> None:
    policy, reference = pair_of_chains
    logps = [all_strings(chain, length) for chain in pair_of_chains]
    assert logps[0].exp().sum() == pytest.approx(1.0)
    found = chains.exact_entropy(policy, reference, length)
    assert float(found) == pytest.approx(float(did_entropy(*logps)), abs=1e-12)


def test_the_product_of_next_token_forms_is_a_distribution_but_not_q(
    pair_of_chains: tuple[chains.Chain, chains.Chain],
) -> None:
    policy, reference = pair_of_chains
    start = did_log_density(policy.start, reference.start)
    product = chains.Chain(start, did_log_density(policy.step, reference.step))
    log_q = did_log_density(*(all_strings(chain, 4) for chain in pair_of_chains))
    log_product = all_strings(product, 4)
    assert float(log_product.exp().sum()) == pytest.approx(1.0)
    assert (log_q - log_product).abs().max() > 0.1
    # log q - log q~ = sum of log Z_t(h_t) - log Z
    strings = torch.tensor(list(itertools.product(range(3), repeat=4)))
    z_start = (policy.start - reference.start).logsumexp(0)
    z_step = (policy.step - reference.step).logsumexp(1)[strings[:, :-1]].sum(dim=1)
    ratios = all_strings(policy, 4) - all_strings(reference, 4)
    expected = z_start + z_step - ratios.logsumexp(0)
    assert torch.allclose(log_q - log_product, expected, rtol=0, atol=1e-12)
    own = chains.token_entropy(policy, reference, product, 4)
    entropy = -(log_product.exp() * log_product).sum()
    assert float(own) == pytest.approx(float(entropy), abs=1e-12)


def test_strings_are_drawn_from_their_chain(
    pair_of_chains: tuple[chains.Chain, chains.Chain],
) -> None:
    policy, _ = pair_of_chains
    drawn = chains._strings(policy, 2, 20_000, torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn[:, 0] * 3 + drawn[:, 1], minlength=9) / 20_000
    assert torch.allclose(shares.double(), all_strings(policy, 2).exp(), rtol=0, atol=0.02)


def test_long_strings_leave_hardly_an_effective_draw(by_length: chains.ByLength) -> None:
    share = by_length.ess_share.tolist()
    assert share == sorted(share, reverse=True)
    assert share[0] > 0.2
    assert share[-1] < 0.05

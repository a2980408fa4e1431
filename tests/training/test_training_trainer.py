import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from workbench.data.pairs import PreferencePair
from workbench.errors import Cancelled, TrainingError
from workbench.metrics.dependence import u_distance_covariance_sq
from workbench.metrics.encoding import encode_attribute
from workbench.objectives.catalogue import OBJECTIVES
from workbench.training import trainer as trainer_module
from workbench.training.exact import SoftmaxPolicy
from workbench.training.language_model import LanguageModelPolicy
from workbench.training.plan import TrainingPlan
from workbench.training.snapshots import PassOrder, load_snapshot, save_snapshot
from workbench.training.trainer import Trainer

Pairs = tuple[PreferencePair, ...]
QUICK = TrainingPlan(learning_rate=0.05, batch_size=4, evaluate_every=0, max_grad_norm=math.inf)


@pytest.fixture
def pairs(pairs_of: Any) -> Pairs:
    found: Pairs = pairs_of(12).pairs
    return found


@pytest.fixture
def table(pairs: Pairs) -> SoftmaxPolicy:
    """A policy over the pairs' answers, its reference not uniform."""
    policy = SoftmaxPolicy.of_pairs(pairs)
    generator = torch.Generator().manual_seed(0)
    policy._reference += torch.randn(policy._reference.shape, generator=generator)
    return policy


@pytest.fixture
def make_model(tiny_loaded: Any) -> Callable[[], LanguageModelPolicy]:
    return lambda: LanguageModelPolicy(tiny_loaded, blocks=1, rank=2)


def with_gold(pairs: Pairs) -> Pairs:
    return tuple(p.with_fields(metadata={"gold": f"gold {p.pair_id}"}) for p in pairs)


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def take(trainer: Trainer, n: int) -> list[Any]:
    return [trainer.step() for _ in range(n)]


# The step -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_takes_steps_on_a_language_model(
    name: str, pairs: Pairs, make_model: Callable[[], LanguageModelPolicy]
) -> None:
    policy = make_model()
    before = policy.state()
    trainer = Trainer(policy, with_gold(pairs), QUICK.replaced(objective=name, learning_rate=1e-3))
    records = take(trainer, 2)
    assert all(math.isfinite(r.loss) and math.isfinite(r.grad_norm) for r in records)
    # AOT compares two sorted columns that are equal as long as the policy is the reference.
    assert records[1].grad_norm > 0
    assert not equal(before, policy.state())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_takes_a_step_on_a_table_or_says_what_it_lacks(
    name: str, pairs: Pairs, table: SoftmaxPolicy
) -> None:
    plan = QUICK.replaced(objective=name)
    if "policy_gold" in OBJECTIVES[name].needs:
        with pytest.raises(TrainingError, match=r"third, gold answer \(policy_gold\).* 12 pairs"):
            Trainer(table, pairs, plan)
    else:
        assert math.isfinite(Trainer(table, pairs, plan).step().loss)


def test_the_first_step_is_dpos_by_hand(pairs: Pairs, table: SoftmaxPolicy) -> None:
    trainer = Trainer(table, pairs, dataclasses.replace(QUICK, optimiser="sgd", batch_size=12))
    record = trainer.step()
    shift = torch.zeros_like(table.parameters()[0], requires_grad=True)
    rows = len({pair.prompt for pair in pairs})
    reference = torch.log_softmax(table._reference[:rows], dim=-1)
    policy = torch.log_softmax(table._reference[:rows] + shift[:rows], dim=-1)
    places = torch.tensor([table._places(pair) for pair in pairs])
    ratio = (policy - reference)[places[:, :1], places[:, 1:]]
    loss = -logsigmoid(0.1 * (ratio[:, 0] - ratio[:, 1])).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    gradient = shift.grad
    assert gradient is not None
    assert record.loss == pytest.approx(math.log(2), abs=1e-12)
    assert record.grad_norm == pytest.approx(float(gradient.norm()), rel=1e-9)
    assert torch.allclose(table.parameters()[0].detach(), -0.05 * gradient, atol=1e-15)


def test_the_step_of_a_language_model_is_autograds_through_the_whole_model(
    pairs: Pairs, tiny_loaded: Any, make_model: Callable[[], LanguageModelPolicy]
) -> None:
    from workbench.scoring.tokenise import tokenise_completion

    policy, plan = make_model(), dataclasses.replace(QUICK, optimiser="sgd", batch_size=12)
    weights = policy.parameters()

    def logp(model: Any, pair: PreferencePair, text: str) -> Tensor:
        read = tokenise_completion(tiny_loaded.tokenizer, pair.prompt, text, 128)
        ids = torch.from_numpy(read.input_ids.astype("int64"))
        logps = model(ids[None]).logits[0].log_softmax(-1)[torch.arange(len(ids) - 1), ids[1:]]
        return logps[read.response_start - 1 :].double().sum()

    for _ in range(2):
        losses = []
        for pair in pairs:
            ours = [logp(policy._own, pair, text) for text in (pair.chosen, pair.rejected)]
            with torch.no_grad():
                base = [logp(policy._base, pair, text) for text in (pair.chosen, pair.rejected)]
            losses.append(-logsigmoid(0.1 * (ours[0] - base[0] - ours[1] + base[1])))
        loss = torch.stack(losses).mean()
        expected = torch.autograd.grad(loss, weights)
        trainer = Trainer(policy, pairs, plan)
        before = [weight.detach().clone() for weight in weights]
        record = trainer.step()
        assert record.loss == pytest.approx(float(loss.detach()), abs=1e-5)
        for old, new, gradient in zip(before, weights, expected, strict=True):
            moved = (old - new.detach()) / 0.05
            assert float((moved - gradient).norm()) <= 2e-3 * float(gradient.norm()) + 1e-5


def test_training_lowers_the_loss_and_learns_its_pairs(
    pairs: Pairs, make_model: Callable[[], LanguageModelPolicy]
) -> None:
    trainer = Trainer(make_model(), pairs, QUICK.replaced(learning_rate=5e-3))
    records = take(trainer, 30)
    assert records[-1].loss < 0.4 < records[0].loss
    assert records[-1].reward_accuracy == 1
    assert records[-1].reward_margin > 0


def test_the_learning_rate_warms_up_and_every_optimiser_moves(pairs: Pairs) -> None:
    for optimiser in ("adamw", "rmsprop", "sgd"):
        policy = SoftmaxPolicy.of_pairs(pairs)
        plan = QUICK.replaced(optimiser=optimiser, warm_up=4, learning_rate=0.4)
        rates = [record.learning_rate for record in take(Trainer(policy, pairs, plan), 6)]
        assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
        assert float(policy.state()["shift"].abs().sum()) > 0


# Replay ---------------------------------------------------------------------------------

FULL = TrainingPlan(
    learning_rate=0.02,
    batch_size=5,
    evaluate_every=2,
    sync_every=3,
    ld_alpha=0.5,
    wpo=True,
    penalty="ccdcov",
    attributes=("age", "race"),
    patience=50,
)


def replayed(make: Callable[[], LanguageModelPolicy], pairs: Pairs, path: Any, plan: Any) -> bool:
    """Whether steps 5 to 9 from a stored snapshot end where they ended before, to the bit."""
    trainer = Trainer(make(), pairs[:9], plan, pairs[9:])
    take(trainer, 4)
    save_snapshot(trainer.snapshot(), path)
    first = [dataclasses.replace(record, seconds=0) for record in take(trainer, 5)]
    again = Trainer(make(), pairs[:9], plan, pairs[9:])
    take(again, 2)  # wherever it stands: the snapshot decides
    again.restore(load_snapshot(path))
    second = [dataclasses.replace(record, seconds=0) for record in take(again, 5)]
    same = equal(trainer.policy.state(), again.policy.state())
    return same and repr(first) == repr(second)


@pytest.mark.parametrize(
    "plan",
    [
        TrainingPlan(learning_rate=0.02, batch_size=5, evaluate_every=2),
        FULL,
        TrainingPlan(objective="bco", optimiser="rmsprop", learning_rate=0.02, batch_size=5),
        TrainingPlan(objective="kto", optimiser="sgd", learning_rate=0.02, batch_size=5),
    ],
    ids=["dpo", "modifiers", "bco", "kto"],
)
def test_a_replay_from_the_disk_is_the_same_to_the_bit(
    plan: TrainingPlan, pairs: Pairs, make_model: Callable[[], LanguageModelPolicy], tmp_path: Any
) -> None:
    assert replayed(make_model, pairs, tmp_path / "s.safetensors", plan)


def _nothing(*_: Any) -> None:
    pass


@pytest.mark.parametrize("forgotten", ["random", "optimiser", "reference", "shift"])
def test_a_sabotaged_replay_that_forgets_something_differs(
    forgotten: str,
    pairs: Pairs,
    make_model: Callable[[], LanguageModelPolicy],
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = FULL
    if forgotten == "shift":
        plan = TrainingPlan(objective="bco", learning_rate=0.02, batch_size=5)
    right = Trainer.restore

    def restore(self: Trainer, snapshot: Any) -> None:
        changes: dict[str, Any] = {
            "random": {"order": PassOrder.seeded(99)},
            "optimiser": {"optimiser": {}},
            "reference": {"reference": {}},
            "shift": {"shift": plan.entry.shift},
        }
        right(self, dataclasses.replace(snapshot, **changes[forgotten]))

    monkeypatch.setattr(Trainer, "restore", restore)
    assert not replayed(make_model, pairs, tmp_path / "s.safetensors", plan)


def test_snapshots_are_copies(pairs: Pairs, table: SoftmaxPolicy) -> None:
    trainer = Trainer(table, pairs, QUICK)
    take(trainer, 1)
    kept = trainer.snapshot()
    copied = {k: v.clone() for k, v in {**kept.weights, **kept.optimiser}.items()}
    take(trainer, 3)
    assert equal(copied, {**kept.weights, **kept.optimiser})
    trainer.restore(kept)
    take(trainer, 1)
    assert equal(copied, {**kept.weights, **kept.optimiser})


def test_a_snapshot_of_another_run_is_refused_and_changes_nothing(
    pairs: Pairs, table: SoftmaxPolicy, make_model: Callable[[], LanguageModelPolicy]
) -> None:
    trainer, other = Trainer(table, pairs, QUICK), Trainer(make_model(), pairs, QUICK)
    take(other, 1)
    before = table.state()
    with pytest.raises(TrainingError):
        trainer.restore(other.snapshot())
    assert equal(before, table.state())
    assert trainer.steps == 0


# What changes on the way ------------------------------------------------------------------


def test_a_changed_plan_takes_effect_at_the_next_step_and_is_marked(
    pairs: Pairs, table: SoftmaxPolicy
) -> None:
    trainer = Trainer(table, pairs, QUICK)
    take(trainer, 2)
    trainer.change(trainer.plan.replaced(beta=0.7, learning_rate=0.5))
    record, following = take(trainer, 2)
    assert record.event == "learning_rate 0.05 -> 0.5, beta 0.1 -> 0.7"
    assert record.learning_rate == 0.5
    assert following.event == ""


def test_edited_pairs_take_effect_at_the_next_step_and_are_marked(
    pairs: Pairs, make_model: Callable[[], LanguageModelPolicy]
) -> None:
    plan = QUICK.replaced(batch_size=2, learning_rate=5e-3)
    swapped = tuple(p.with_fields(chosen=p.rejected, rejected=p.chosen) for p in pairs)
    trainer = Trainer(make_model(), pairs[:2], plan)
    take(trainer, 15)
    trainer.use_pairs([swapped[0], pairs[1], pairs[2]])
    record = trainer.step()
    assert record.event == "edited 1 pair, added 1 pair"
    trainer.use_pairs(swapped[:2])
    records = take(trainer, 40)
    assert records[0].event == "edited 1 pair, removed 1 pair"
    assert records[0].reward_margin < 0 < records[-1].reward_margin


def test_a_plan_or_pairs_that_do_not_fit_leave_everything_as_it_was(
    pairs: Pairs, table: SoftmaxPolicy
) -> None:
    trainer = Trainer(table, pairs, QUICK)
    with pytest.raises(TrainingError, match="No pair has the attribute 'height'"):
        trainer.change(QUICK.replaced(attributes=("height",)))
    with pytest.raises(TrainingError, match="single tokens"):
        trainer.change(QUICK.replaced(ld_alpha=0.5))
    with pytest.raises(TrainingError, match="None of 0 pairs"):
        trainer.use_pairs([])
    assert trainer.plan == QUICK
    assert trainer.pairs == pairs
    assert trainer.step().event == ""


def test_kto_needs_answers_to_other_prompts(pairs: Pairs, table: SoftmaxPolicy) -> None:
    with pytest.raises(TrainingError, match=r"mismatched.*share one prompt"):
        Trainer(table, pairs[:2], QUICK.replaced(objective="kto"))


def test_ktos_reference_point_is_the_drift_of_other_prompts_answers(
    pairs: Pairs, make_model: Callable[[], LanguageModelPolicy]
) -> None:
    policy = make_model()
    trainer = Trainer(policy, pairs, QUICK.replaced(objective="kto", batch_size=12))
    take(trainer, 3)
    reading = trainer._reader.read(pairs)
    drifts = []
    for place, pair in enumerate(pairs):
        other = next(p for p in [*pairs[place:], *pairs] if p.prompt != pair.prompt)
        strange = pair.with_fields(pair_id="x", chosen=other.chosen, rejected=other.rejected)
        policy.prepare([strange])
        logps = policy.pair_logps([strange])
        drifts.append(float((logps.chosen_log_ratio + logps.rejected_log_ratio).detach()) / 2)
    found = reading.seen.require("mismatched")
    assert found.requires_grad is False
    assert float(found.mean()) == pytest.approx(sum(drifts) / len(drifts), abs=1e-4)


def test_orpo_counts_the_prompt_where_the_policy_can_score_it(
    pairs: Pairs, table: SoftmaxPolicy, make_model: Callable[[], LanguageModelPolicy]
) -> None:
    policy, plan = make_model(), QUICK.replaced(objective="orpo")
    seen = Trainer(policy, pairs, plan)._reader.read(pairs).seen
    expected, sizes = policy.prompt_logps(pairs)
    assert torch.equal(seen.require("policy_prompt"), expected)
    assert torch.equal(seen.require("n_prompt"), sizes)
    assert Trainer(table, pairs, plan)._reader.read(pairs).seen.policy_prompt is None


def test_tpo_reads_the_gold_answer(
    pairs: Pairs, make_model: Callable[[], LanguageModelPolicy]
) -> None:
    policy, golden = make_model(), with_gold(pairs)
    trainer = Trainer(policy, golden, QUICK.replaced(objective="tpo"))
    found = trainer._reader.read(golden).seen
    for row, pair in enumerate(golden):
        gold = pair.with_fields(pair_id="g", chosen=str(pair.metadata["gold"]))
        alone = policy.pair_logps([gold])
        assert float(found.require("policy_gold")[row].detach()) == pytest.approx(
            float(alone.policy_chosen.detach()), abs=1e-3
        )
        assert found.require("n_gold")[row] == alone.require("n_chosen")[0]


# Modifiers --------------------------------------------------------------------------------


def test_tr_dpo_moves_the_reference_by_the_mixture_of_weights(
    pairs: Pairs, table: SoftmaxPolicy
) -> None:
    trainer = Trainer(table, pairs, QUICK.replaced(sync_every=2, sync_mixup=0.25, batch_size=12))
    take(trainer, 2)
    after_two = table.state()["shift"]
    reading = trainer._reader.read(pairs)
    with_mixture = SoftmaxPolicy.of_pairs(pairs)
    with_mixture._reference = table._reference.clone()
    with_mixture.load_state({"shift": 0.25 * after_two})
    expected = with_mixture.pair_logps(pairs).policy_chosen.detach()
    assert torch.allclose(reading.now.require("reference_chosen"), expected, atol=1e-12)
    record = trainer.step()
    start = table.pair_logps(pairs).require("reference_chosen")
    assert record.chosen_shift == pytest.approx(
        float((reading.start.policy_chosen.detach() - start).mean()), abs=1e-12
    )
    trainer.change(trainer.plan.replaced(sync_mixup=1.0))
    take(trainer, 1)
    assert float(trainer._reader.read(pairs).now.margin.detach().abs().max()) < 1e-12


def test_ld_dpo_and_wpo_change_what_the_objective_sees_and_not_what_is_measured(
    pairs: Pairs, make_model: Callable[[], LanguageModelPolicy]
) -> None:
    policy = make_model()
    take(Trainer(policy, pairs, QUICK), 2)
    trainer = Trainer(policy, pairs, QUICK.replaced(ld_alpha=0.0, wpo=True))
    reading, tokens = trainer._reader.read(pairs), policy.token_logps(pairs)
    plain = policy.pair_logps(pairs)
    assert torch.allclose(reading.now.margin, plain.margin, atol=1e-9)
    assert reading.weight is not None
    for row in range(len(pairs)):
        n = int(tokens.mask[:, row].sum(dim=1).min())
        cut = float(tokens.policy[0, row, :n].sum().detach())
        assert float(reading.seen.policy_chosen[row].detach()) == pytest.approx(cut, abs=1e-9)
        weight = 1.0
        for side in (0, 1):
            inside = tokens.mask[side, row]
            gap = (tokens.policy - tokens.collision)[side, row][inside].detach()
            weight *= math.exp(float(gap.mean()))
        assert float(reading.weight[row]) == pytest.approx(weight)
    assert reading.weight.requires_grad is False


class _Tied(SoftmaxPolicy):
    """Both answers hang on one weight, the rejected one more: pushing it down takes both along."""

    def pair_logps(self, pairs: Sequence[PreferencePair]) -> Any:
        found, w = super().pair_logps(pairs), self.parameters()[0].sum()
        return dataclasses.replace(
            found,
            policy_chosen=found.require("reference_chosen") + w,
            policy_rejected=found.require("reference_rejected") + 3 * w,
        )


def test_a_projected_step_does_not_lower_the_chosen_answers_likelihood(pairs: Pairs) -> None:
    def change(projected: bool) -> float:
        plan = QUICK.replaced(optimiser="sgd", projected_gradient=projected)
        policy = _Tied.of_pairs(pairs)
        record = take(Trainer(policy, pairs, plan), 2)[1]
        return float(record.chosen_shift)

    assert change(projected=False) < -1e-3
    assert change(projected=True) == pytest.approx(0, abs=1e-12)


def test_a_projected_step_is_the_plain_one_where_the_chosen_answers_rise(
    pairs: Pairs, table: SoftmaxPolicy
) -> None:
    trainer = Trainer(table, pairs, QUICK.replaced(optimiser="sgd"))
    kept = trainer.snapshot()
    trainer.step()
    plain = table.state()
    trainer.restore(kept)
    trainer.change(trainer.plan.replaced(projected_gradient=True))
    trainer.step()
    assert torch.allclose(plain["shift"], table.state()["shift"], atol=1e-15)


def test_an_f_divergence_changes_the_loss_once_the_policy_has_moved(
    pairs: Pairs, table: SoftmaxPolicy
) -> None:
    trainer = Trainer(table, pairs, QUICK.replaced(batch_size=12, learning_rate=0.5))
    take(trainer, 5)
    kept = trainer.snapshot()
    losses = {}
    for divergence in ("reverse_kl", "forward_kl", "js", "alpha"):
        trainer.restore(kept)
        trainer.change(trainer.plan.replaced(divergence=divergence))
        losses[divergence] = trainer.step().loss
    assert len({round(loss, 9) for loss in losses.values()}) == 4


# Fairness -----------------------------------------------------------------------------------


def test_the_penalty_is_the_u_statistic_of_margins_and_encoded_attributes(
    pairs: Pairs, table: SoftmaxPolicy
) -> None:
    plan = QUICK.replaced(batch_size=12, penalty="dcov", attributes=("age",), penalty_weight=3.0)
    trainer = Trainer(table, pairs, plan)
    take(trainer, 5)
    margins = 0.1 * table.pair_logps(trainer.pairs).margin.detach()
    ages = encode_attribute([pair.attributes["age"] for pair in pairs], "continuous")
    expected = float(u_distance_covariance_sq(margins, ages))
    record = trainer.step()
    assert record.dependence == pytest.approx(expected, abs=1e-12)
    assert record.penalty == pytest.approx(3 * expected, abs=1e-12)
    unpenalised = trainer.plan.replaced(penalty="none", penalty_on="reward")
    trainer.change(unpenalised)
    rewards = 0.1 * table.pair_logps(trainer.pairs).chosen_log_ratio.detach()
    record = trainer.step()
    assert record.penalty == 0
    assert record.dependence == pytest.approx(
        float(u_distance_covariance_sq(rewards, ages)), abs=1e-12
    )


@pytest.mark.parametrize("penalty", ["dcov", "ccdcov", "jdcov"])
def test_a_penalty_makes_margins_depend_less_on_the_attribute(penalty: str, pairs_of: Any) -> None:
    # Women's answers are labelled the other way round, so the margins come to tell them apart.
    pairs = [
        p.with_fields(prompt=f"q{i}", chosen="yes" if p.attributes["gender"] == "f" else "no",
                      rejected="no" if p.attributes["gender"] == "f" else "yes")
        for i, p in enumerate(pairs_of(24, 1).pairs)
    ]  # fmt: skip

    def dependence(weight: float) -> float:
        plan = QUICK.replaced(
            batch_size=24,
            learning_rate=0.3,
            beta=1.0,
            penalty=penalty,
            penalty_on="reward",
            penalty_weight=weight,
            attributes=("gender",),
        )
        shared = _SharedAnswers(pairs)
        take(Trainer(shared, pairs, plan), 40)
        rewards = shared.pair_logps(pairs).chosen_log_ratio.detach()
        genders = encode_attribute([pair.attributes["gender"] for pair in pairs], "binary")
        return float(u_distance_covariance_sq(rewards, genders))

    free, penalised = dependence(0.0), dependence(50.0)
    assert free > 1e-3
    assert penalised < free / 4


class _SharedAnswers(SoftmaxPolicy):
    """One logit for yes and no to all who ask, and a little one of each gender's own."""

    def __init__(self, pairs: Sequence[PreferencePair]) -> None:
        self.name, self._pairs = "shared", pairs
        self._weights = torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))

    def parameters(self) -> list[torch.nn.Parameter]:
        return [self._weights]

    def prepare(self, pairs: Any, **options: Any) -> dict[str, str]:
        return {}

    def state(self) -> dict[str, Tensor]:
        return {"w": self._weights.detach().clone()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self._weights.data.copy_(state["w"])

    def kl(self, pairs: Any) -> float:
        return math.nan

    def pair_logps(self, pairs: Sequence[PreferencePair]) -> Any:
        from workbench.objectives.logps import PairLogps

        gender = torch.tensor([p.attributes["gender"] == "f" for p in pairs]).long()
        age = torch.tensor([(float(p.attributes["age"]) - 32) / 100 for p in pairs]).double()
        logp = torch.log_softmax(self._weights[gender] + age[:, None], dim=1)
        yes = torch.tensor([p.chosen == "yes" for p in pairs])
        chosen = torch.where(yes, logp[:, 0], logp[:, 1] * 0.3)
        rejected = torch.where(yes, logp[:, 1], logp[:, 0])
        half = torch.full_like(chosen, math.log(0.5)).detach()
        ones = torch.ones_like(half)
        return PairLogps(chosen, rejected, half * torch.where(yes, 1.0, 0.3), half, ones, ones)


def test_pairs_without_the_attribute_are_left_out_of_the_penalty_alone(
    pairs: Pairs, table: SoftmaxPolicy
) -> None:
    some = [p if i < 5 else p.with_fields(attributes={}) for i, p in enumerate(pairs)]
    plan = QUICK.replaced(batch_size=12, penalty="dcov", attributes=("age",))
    trainer = Trainer(table, some, plan)
    take(trainer, 3)
    known = [pair for pair in trainer.pairs if pair.attributes]
    margins = 0.1 * table.pair_logps(known).margin.detach()
    ages = encode_attribute([pair.attributes["age"] for pair in known], "continuous")
    assert trainer.step().dependence == pytest.approx(
        float(u_distance_covariance_sq(margins, ages)), abs=1e-12
    )
    trainer.use_pairs([p if i < 3 else p.with_fields(attributes={}) for i, p in enumerate(pairs)])
    record = trainer.step()
    assert math.isnan(record.dependence)
    assert record.penalty == 0


# Guards -------------------------------------------------------------------------------------


class _Spoilt(SoftmaxPolicy):
    spoil = 0.0

    def pair_logps(self, pairs: Sequence[PreferencePair]) -> Any:
        found = super().pair_logps(pairs)
        return dataclasses.replace(found, policy_chosen=found.policy_chosen + self.spoil)


@pytest.mark.parametrize(
    ("spoil", "words"), [(math.nan, "the loss is nan"), (-1e5, "more than 50 times the first one")]
)
def test_divergence_stops_before_the_weights_change_and_says_why(
    spoil: float, words: str, pairs: Pairs
) -> None:
    policy = _Spoilt.of_pairs(pairs)
    trainer = Trainer(policy, pairs, QUICK)
    take(trainer, 3)
    before = trainer.snapshot()
    policy.spoil = spoil
    with pytest.raises(TrainingError, match=f"diverged at step 4.*{words}"):
        trainer.step()
    after = trainer.snapshot()
    assert equal(before.weights, after.weights)
    assert equal(before.optimiser, after.optimiser)
    assert torch.equal(before.order.random, after.order.random)
    assert before.order.rest == after.order.rest
    assert after.step == 3
    policy.spoil = 0.0
    assert trainer.step().step == 4


def test_an_update_that_leaves_the_numbers_is_noticed(
    pairs: Pairs, make_model: Callable[[], LanguageModelPolicy]
) -> None:
    trainer = Trainer(
        make_model(), pairs, QUICK.replaced(optimiser="sgd", learning_rate=1e3, weight_decay=1e38)
    )
    kept = trainer.snapshot()
    with pytest.raises(TrainingError, match="weights that are no numbers"):
        trainer.step()
    trainer.restore(kept)
    trainer.change(QUICK)
    assert math.isfinite(trainer.step().loss)


def test_a_sabotaged_guard_lets_the_weights_be_spoilt(
    pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(
        loss: Any, gradients: Any, weights: Any, optimiser: Any, max_norm: Any, step: Any
    ) -> float:
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        optimiser.step()
        return 0.0

    monkeypatch.setattr(trainer_module, "descend", careless)
    monkeypatch.setattr(Trainer, "_check_weights", _nothing)
    policy = _Spoilt.of_pairs(pairs)
    trainer = Trainer(policy, pairs, QUICK)
    policy.spoil = math.nan
    trainer.step()
    assert bool(policy.state()["shift"].isnan().any())


def test_a_cancelled_step_changes_nothing_wherever_it_stops(
    pairs: Pairs, make_model: Callable[[], LanguageModelPolicy]
) -> None:
    plan = TrainingPlan(batch_size=4, evaluate_every=1)
    asked = 0

    def count() -> bool:
        nonlocal asked
        asked += 1
        return False

    trainer = Trainer(make_model(), pairs[:8], plan, pairs[8:])
    trainer.step(count)
    before, chances = trainer.snapshot(), asked
    assert chances >= 8
    for last in range(1, chances + 1):
        left = iter([False] * (last - 1))
        with pytest.raises(Cancelled):
            trainer.step(lambda left=left: next(left, True))  # type: ignore[misc]
        after = trainer.snapshot()
        assert equal(before.weights, after.weights)
        assert (after.step, after.order.rest) == (1, before.order.rest)
    straight = Trainer(make_model(), pairs[:8], plan, pairs[8:])
    take(straight, 2)
    trainer.step()
    assert equal(straight.policy.state(), trainer.policy.state())


def test_early_stopping_waits_for_the_held_out_loss(pairs: Pairs, table: SoftmaxPolicy) -> None:
    # Held out are the same questions with the labels turned round: their loss can only rise.
    turned = [
        p.with_fields(pair_id=f"t{p.pair_id}", chosen=p.rejected, rejected=p.chosen) for p in pairs
    ]
    plan = QUICK.replaced(evaluate_every=2, patience=3)
    trainer = Trainer(table, pairs, plan, turned)
    while not trainer.finished and trainer.steps < 50:
        record = trainer.step()
    # Looked at before steps 1, 3, 5 and 7, of which the first was the best.
    assert trainer.steps == 7
    assert "has not fallen for 3 looks (6 steps)" in trainer.finished
    assert record.held_out_accuracy == 0
    assert record.held_out_margin < 0
    trainer.change(plan.replaced(patience=0))
    assert trainer.finished == ""


def test_held_out_pairs_are_measured_and_never_trained_on(
    pairs: Pairs, table: SoftmaxPolicy
) -> None:
    trainer = Trainer(table, pairs[:6], QUICK.replaced(evaluate_every=3, batch_size=6), pairs[6:])
    records = take(trainer, 4)
    assert [math.isnan(r.held_out_loss) for r in records] == [False, True, True, False]
    # A table's rows do not know of each other.
    assert records[3].held_out_loss == pytest.approx(math.log(2), abs=1e-12)
    assert records[3].loss < math.log(2)
    assert math.isfinite(records[3].kl)
    assert records[3].kl > 0

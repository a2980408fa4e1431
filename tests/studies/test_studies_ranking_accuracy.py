"""The study of ranking accuracy against plain computations, with sabotaged twins."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from workbench.data.pairs import PreferencePair, PreferenceSet, build_pair
from workbench.errors import Cancelled
from workbench.metrics.ranking import flip_threshold
from workbench.scoring.logprobs import ModelScorer, Request
from workbench.scoring.models import LoadedModel
from workbench.studies.ranking_accuracy import Params, RankingAccuracy, language_model
from workbench.studies.ranking_accuracy.claims import correlation, identities, near_the_reference
from workbench.studies.ranking_accuracy.language_model import LanguageScores, score_language
from workbench.studies.ranking_accuracy.mechanism import TABLE, TINY, PairScores, WorldPairs
from workbench.studies.ranking_accuracy.tables import (
    CURVE,
    GROUPS,
    Fitted,
    accuracy_table,
    courses,
    extreme_pairs,
    ideal_curve,
    sources,
    transition_table,
)
from workbench.studies.ranking_accuracy.votes import (
    BETAS,
    EXPECTED,
    FORMULAS,
    simulated_pairs,
)
from workbench.study.context import StudyContext
from workbench.study.contract import Trial, try_study
from workbench.study.errors import StudyError
from workbench.study.result import Claim

STUDY = RankingAccuracy()


@pytest.fixture(scope="module")
def trial() -> Trial:
    return try_study(STUDY)


@pytest.fixture(scope="module")
def fitted(trial: Trial) -> Fitted:
    found = trial.fitted
    assert isinstance(found, Fitted)
    return found


def some_pairs(n: int = 200, seed: int = 0) -> PairScores:
    draws = torch.Generator().manual_seed(seed)
    chosen, rejected = -20 * torch.rand(2, n, generator=draws, dtype=torch.float64) - 1
    ones = torch.ones(n, dtype=torch.float64)
    alpha = 0.5 + 0.49 * torch.rand(n, generator=draws, dtype=torch.float64)
    return PairScores(chosen, rejected, 4 * ones, 8 * ones, alpha)


# The world ----------------------------------------------------------------------------


def test_every_run_begins_at_its_reference(fitted: Fitted) -> None:
    for learner, run, read in courses(fitted):
        assert int(run.steps[0]) == 0
        assert float(run.distance[0]) == 0.0
        assert torch.equal(run.logp[0], learner.reference)
        assert float(read.win_rate[0]) == pytest.approx(0.5, abs=1e-6)
        if run.gamma == 1:
            assert torch.allclose(read.loss[0], torch.full_like(read.loss[0], math.log(2)))


def test_the_table_has_one_token_an_answer_and_the_transformer_its_words(fitted: Fitted) -> None:
    table, tiny = (fitted.worlds.learner(name) for name in (TABLE, TINY))
    assert bool((table.length == 1).all())
    for row, (_, answers) in enumerate(fitted.worlds.texts):
        words = [len(answer.split()) + 1 for answer in answers]
        assert tiny.length[row].tolist() == words


def test_scores_of_pairs_stand_where_their_texts_do(fitted: Fitted) -> None:
    found = sources(fitted, 1e-3, 0.1)[1]
    pairs, learner = fitted.worlds.pairs, fitted.worlds.learner(TINY)
    for place, (prompt, chosen, rejected) in enumerate(found.texts):
        row = [text for text, _ in fitted.worlds.texts].index(prompt)
        answers = fitted.worlds.texts[row][1]
        c = learner.reference[row, answers.index(rejected)]
        c = c - learner.reference[row, answers.index(chosen)]
        assert float(found.before.c[place]) == pytest.approx(float(c), abs=1e-12)
        better = fitted.worlds.reward[row, answers.index(chosen)]
        worse = fitted.worlds.reward[row, answers.index(rejected)]
        assert float(pairs.alpha[place]) == pytest.approx(float(torch.sigmoid(better - worse)))


def test_trained_and_held_out_pairs_are_different_ones(fitted: Fitted) -> None:
    def places(pairs: WorldPairs) -> set[tuple[int, frozenset[int]]]:
        columns = zip(pairs.row, pairs.chosen, pairs.rejected, strict=True)
        return {(int(r), frozenset((int(w), int(x)))) for r, w, x in columns}

    seen, unseen = places(fitted.worlds.pairs), places(fitted.worlds.held_out)
    assert len(seen) == len(fitted.worlds.pairs.row)
    assert len(unseen) == len(fitted.worlds.held_out.row)
    assert not seen & unseen


def test_the_flip_curve_holds_at_every_record_of_every_run(fitted: Fitted) -> None:
    count = 0
    for _, run, read in courses(fitted):
        for step in range(len(run.steps)):
            for c, m, loss in zip(read.c, read.m[step], read.loss[step], strict=True):
                if abs(float(m)) > 1e-9:
                    at = math.log1p(math.exp(-fitted.beta * run.gamma * float(c)))
                    assert (float(m) >= 0) == (float(loss) <= at * (1 + 1e-12))
                    count += 1
    assert count > 1000


def test_group_shares_add_up_and_their_mean_loss_is_the_mean_loss(fitted: Fitted) -> None:
    learner = fitted.worlds.learner(TINY)
    run = learner.run(1.0)
    read = next(read for _, other, read in courses(fitted) if other is run)
    table = transition_table(learner, run, read, fitted.beta)
    assert list(dict.fromkeys(table["group"])) == list(GROUPS)
    for step in {0, int(run.steps[-1])}:
        rows = [n for n, at in enumerate(table["step"]) if at == step]
        assert sum(table["share"][n] for n in rows) == pytest.approx(1.0)
        mean = sum(table["share"][n] * (table["loss"][n] or 0.0) for n in rows)
        record = run.steps.tolist().index(step)
        assert mean == pytest.approx(float(read.loss[record].mean()))
    columns = zip(table["group"], table["step"], table["share"], strict=True)
    start = {group: share for group, at, share in columns if at == 0}
    assert start[GROUPS[1]] == start[GROUPS[2]] == 0.0


def test_flips_are_counted_among_the_wrong_alone(fitted: Fitted) -> None:
    for _, _, read in courses(fitted):
        wrong = [n for n, c in enumerate(read.c.tolist()) if c > 0]
        flipped = sum(float(read.m[-1, n]) >= 0 for n in wrong)
        assert float(read.flipped[-1]) == pytest.approx(flipped / len(wrong))


def test_the_same_learner_under_both_names_is_one_learner() -> None:
    control = STUDY.controls["closed-world"].study
    assert control is not None
    worlds = try_study(control).fitted.worlds
    table, tiny = (worlds.learner(name) for name in (TABLE, TINY))
    assert torch.equal(table.runs[0].logp, tiny.runs[0].logp)


# Claims -------------------------------------------------------------------------------


def unit_claims(fitted: Fitted, pairs: PairScores, **wrong: object) -> dict[str, Claim]:
    def at(c: Tensor, beta: float, gamma: float) -> Tensor:
        sign = -1 if wrong.get("sign") else 1
        return flip_threshold(sign * c, beta, gamma)

    found = list(courses(fitted))
    return {each.name: each for each in identities(fitted, found, [pairs], FORMULAS, at)}


def test_the_unit_claims_hold_and_each_sees_its_bug(fitted: Fitted) -> None:
    right = unit_claims(fitted, some_pairs())
    assert all(claim.holds for claim in right.values())
    assert not unit_claims(fitted, some_pairs(), sign=True)["flip-curve"].holds
    assert not unit_claims(fitted, some_pairs().swapped())["ideal-falls"].holds
    shifted = replace(fitted.worlds, population=fitted.worlds.population + 1e-3)
    assert not unit_claims(replace(fitted, worlds=shifted), some_pairs())["ideal-optimum"].holds


def test_a_sign_that_is_lost_in_training_is_seen(fitted: Fitted) -> None:
    learners = [
        replace(each, runs=tuple(replace(run, logp=run.logp.flip(0)) for run in each.runs))
        for each in fitted.worlds.learners
    ]
    backwards = replace(fitted, worlds=replace(fitted.worlds, learners=tuple(learners)))
    claims = {each.name: each for each in STUDY.measure(backwards, Params()).claims}
    assert not claims["small-gamma-ranks"].holds


def test_near_is_a_share_of_the_largest_distance() -> None:
    distance = torch.tensor([0.0, 1.0, 2.0, 10.0])
    assert near_the_reference(distance, 0.2).tolist() == [True, True, True, False]


def test_the_correlation_is_pearsons_and_missing_where_nothing_varies() -> None:
    x = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    assert correlation(x, -3 * x + 1) == pytest.approx(-1.0)
    assert math.isnan(correlation(x, torch.ones_like(x)))
    assert math.isnan(correlation(x[:2], x[:2]))


# R* -----------------------------------------------------------------------------------


def test_the_curve_of_r_star_is_the_mean_over_pairs_at_each_beta() -> None:
    pairs = some_pairs()
    for place in (0, 20, 40, 60):
        beta = float(CURVE[place])
        rows = zip(pairs.alpha.tolist(), pairs.c.tolist(), strict=True)
        right = [math.log(a / (1 - a)) > beta * c for a, c in rows]
        assert float(ideal_curve(pairs)[place]) == pytest.approx(sum(right) / len(right))


def test_pairs_of_unknown_share_are_left_out_of_r_star() -> None:
    pairs = some_pairs()
    alpha = pairs.alpha.clone()
    alpha[:50] = math.nan
    rest = PairScores(
        *(getattr(pairs, name)[50:] for name in ("chosen", "rejected", "n_chosen", "n_rejected")),
        pairs.alpha[50:],
    )
    assert torch.equal(ideal_curve(replace(pairs, alpha=alpha)), ideal_curve(rest))


@pytest.mark.parametrize("seed", [0, 1])
def test_both_formulas_have_the_specifications_numbers(seed: int) -> None:
    pairs = simulated_pairs(20_000, torch.Generator().manual_seed(seed))
    for name, formula in FORMULAS.items():
        found = [float(formula(pairs, beta).mean()) for beta in BETAS]
        assert found == pytest.approx(EXPECTED[name], abs=0.02), name


def test_the_released_codes_formula_is_the_one_written_out() -> None:
    pairs = simulated_pairs(500, torch.Generator().manual_seed(3))
    for beta in BETAS:
        found = FORMULAS["code"](pairs, beta).tolist()
        columns = zip(pairs.chosen, pairs.rejected, pairs.alpha, found, strict=True)
        for chosen, rejected, alpha, value in columns:
            first = 999.0 if alpha == 1 else float(alpha / (1 - alpha))
            second = 0.0 if alpha == 1 else 1 / first
            ratio = float(chosen / rejected)
            listed_first = first ** (1 / beta) * ratio > 1.05
            listed_second = second ** (1 / beta) / ratio <= 0.95
            assert value == (listed_first + listed_second) / 2


# The language model -------------------------------------------------------------------


def real_pairs() -> PreferenceSet:
    def pair(n: int, votes: int | None) -> PreferencePair:
        texts = {
            "prompt": f"which answer {n // 2}",
            "chosen": "the cat sat on the mat " * (1 + n % 3),
            "rejected": f"the dog sat on log {n}",
        }
        evidence = {} if votes is None else {"votes_chosen": votes, "votes_rejected": 4 - votes}
        return build_pair({"pair_id": str(n), **texts, **evidence})

    return PreferenceSet("mine", [pair(n, None if n == 5 else 2 + n % 3) for n in range(8)])


@pytest.fixture
def one_model(monkeypatch: pytest.MonkeyPatch, tiny_loaded: LoadedModel) -> LoadedModel:
    monkeypatch.setattr(language_model, "parse_model", lambda name: name)
    monkeypatch.setattr(language_model, "load_model", lambda spec, **options: tiny_loaded)
    monkeypatch.setattr(language_model, "_KEPT", {})
    return tiny_loaded


def read(count: int = 8, context: StudyContext | None = None) -> LanguageScores:
    return score_language(real_pairs(), count, "a", "b", context or StudyContext())


def test_the_language_models_scores_are_those_of_plain_scoring(one_model: LoadedModel) -> None:
    found = read()
    assert len(found.texts) == 8
    for place, (prompt, chosen, rejected) in enumerate(found.texts):
        requests = [Request(prompt, chosen), Request(prompt, rejected)]
        scores = ModelScorer(one_model).score(requests)
        assert float(found.pairs.chosen[place]) == pytest.approx(scores[0].logp, abs=1e-3)
        assert float(found.policy_rejected[place]) == pytest.approx(scores[1].logp, abs=1e-3)
        assert int(found.pairs.n_rejected[place]) == scores[1].n_tokens
    assert int(found.pairs.alpha.isnan().sum()) == 1
    assert torch.allclose(found.m, -found.pairs.c)


def test_whole_prompts_are_drawn_the_same_for_every_seed(one_model: LoadedModel) -> None:
    found = [read(4, StudyContext(seed=seed)).texts for seed in (0, 1)]
    assert found[0] == found[1]
    assert len(found[0]) == 4
    assert len({prompt for prompt, *_ in found[0]}) == 2


def test_another_seed_does_not_read_the_pairs_again(
    one_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    score = ModelScorer.score

    def counted(self: ModelScorer, requests: list[Request], **options: object) -> object:
        asked.append(len(requests))
        return score(self, requests, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ModelScorer, "score", counted)
    first, second = read(context=StudyContext(seed=0)), read(context=StudyContext(seed=1))
    # Eight chosen answers of which some are equal under one prompt, and eight others.
    distinct = {(p.prompt_text, side) for p in real_pairs() for side in (p.chosen, p.rejected)}
    assert asked == [len(distinct)]
    assert torch.equal(first.policy_chosen, second.policy_chosen)


def test_a_set_that_cannot_be_read_is_refused(one_model: LoadedModel) -> None:
    texts = {"prompt": "why", "chosen": "cat " * 400, "rejected": "dog"}
    pairs = PreferenceSet("long", [build_pair({"pair_id": "0", **texts})])
    with pytest.raises(StudyError, match="No pair of 'long' can be read whole"):
        score_language(pairs, 4, "a", "b", StudyContext())


def test_reading_stops_when_it_is_asked_to(one_model: LoadedModel) -> None:
    with pytest.raises(Cancelled):
        read(context=StudyContext(cancelled=lambda: True))


def test_the_language_model_joins_tables_claims_and_figures(
    one_model: LoadedModel, fitted: Fitted
) -> None:
    both = replace(fitted, language=read())
    result = STUDY.measure(both, Params())
    table = accuracy_table(sources(both, 1e-3, 0.1))
    assert table["data"][-1] == "mine, language model"
    ranked = [m >= 0 for m in both.language.m.tolist()] if both.language else []
    assert table["ranking"][-1] == pytest.approx(sum(ranked) / len(ranked))
    assert len(result.tables["language_flips"]["c"]) == 8
    assert result.claim("accuracy-language-model").measured == table["ranking"][-1]
    assert "language-flip-curve" in STUDY.figures(result)


def test_the_hardest_pairs_are_those_of_the_largest_c(fitted: Fitted) -> None:
    found = sources(fitted, 1e-3, 0.1)
    table = extreme_pairs(found, 3)
    c = sorted(found[0].before.c.tolist(), reverse=True)
    assert table["c"][:6] == [*c[:3], *c[-3:]]
    assert table["kind"][:6] == ["hardest"] * 3 + ["easiest"] * 3


# Knobs --------------------------------------------------------------------------------


def test_measure_knobs_need_no_new_fit(trial: Trial) -> None:
    other = STUDY.measure(trial.fitted, replace(trial.params, shown=TABLE, epsilon=0.2))
    assert set(other.tables["transitions"]["policy"]) == {TABLE}
    assert set(trial.result.tables["transitions"]["policy"]) == {TINY}
    assert other.tables["course"] == trial.result.tables["course"]


def test_the_input_is_the_teaching_set_with_raters() -> None:
    pairs = STUDY.inputs["pairs"]
    assert isinstance(pairs, PreferenceSet)
    assert all(pair.rater_share is not None for pair in pairs)

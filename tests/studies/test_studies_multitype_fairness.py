"""The portfolio against its published margins, the identities, and the penalty's mechanics."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from workbench.data.sources import open_source
from workbench.metrics import dependence
from workbench.scoring.default_model import is_ready
from workbench.studies.multitype_fairness import (
    MultitypeFairness,
    Params,
    claims,
    decisions,
    gerrymander,
    motor,
    recidivism,
)
from workbench.studies.multitype_fairness.mechanism import (
    BINARY,
    POISSON,
    Data,
    Experiment,
    Networks,
    Recipe,
    Variant,
    audit,
    outcomes,
    stratified_batches,
    train,
)
from workbench.study.context import StudyContext
from workbench.study.contract import Trial, try_study
from workbench.study.errors import StudyError
from workbench.study.inputs import read_input

POLICIES = 60_000


@pytest.fixture(scope="module")
def portfolio() -> Any:
    return motor.draw_portfolio(POLICIES, StudyContext(seed=3))


@pytest.fixture(scope="module")
def trial() -> Trial:
    return try_study(MultitypeFairness())


def error(share: float, times: float = 4.0) -> float:
    return times * math.sqrt(share * (1 - share) / POLICIES)


def test_gender_and_region_have_the_published_shares(portfolio: Any) -> None:
    male = float((portfolio["Gender"] == "Male").mean())
    assert male == pytest.approx(0.634, abs=error(0.634))
    shares = portfolio["Group2"].value_counts(normalize=True)
    for region, published in {"L": 0.237, "Q": 0.224, "R": 0.151, "M": 0.076}.items():
        assert float(shares[region]) == pytest.approx(published, abs=error(published)), region
    assert all(0.045 < float(shares[region]) < 0.06 for region in "NOPSTU")


def test_claim_counts_have_the_published_distribution(portfolio: Any) -> None:
    counts = portfolio["Numtppd"]
    assert float(counts.mean()) == pytest.approx(0.14745, abs=4 * float(counts.std()) / 245)
    # 100,021 policies of the published table: 87,744 without a claim, 10,358 with one, ...
    for claims_made, published in enumerate((87_744, 10_358, 1_518, 306)):
        share = published / 100_021
        found = float((counts == claims_made).mean())
        assert found == pytest.approx(share, abs=error(share) + 0.02 * share + 0.001)


def test_gender_and_region_are_independent_and_region_r_claims_most(portfolio: Any) -> None:
    import pandas as pd
    from scipy.stats import chi2_contingency

    table = pd.crosstab(portfolio["Group2"], portfolio["Gender"])
    assert chi2_contingency(table).pvalue > 0.001
    years = portfolio["Exppdays"] / 365
    by_region = portfolio["Numtppd"].groupby(portfolio["Group2"]).sum()
    frequency = by_region / years.groupby(portfolio["Group2"]).sum()
    assert frequency.idxmax() == "R"
    assert float(frequency.max() / frequency.min()) > 2


def test_the_portfolio_follows_from_the_seed() -> None:
    one, same, other = (motor.draw_portfolio(50, StudyContext(seed=s)) for s in (0, 0, 1))
    assert one.equals(same)
    assert not one.equals(other)


def test_a_gamma_variate_has_its_mean_and_its_variance() -> None:
    drawn = motor._Draw(200_000, torch.Generator().manual_seed(0)).gamma(1.8)
    assert float(drawn.mean()) == pytest.approx(1.8, abs=0.02)
    assert float(drawn.var()) == pytest.approx(1.8, abs=0.04)


def test_protected_attributes_are_not_among_the_inputs(portfolio: Any) -> None:
    data = motor.read_portfolio(portfolio.head(2000))
    swapped = portfolio.head(2000).assign(Gender="Male", Group2="R")
    assert torch.equal(data.features, motor.read_portfolio(swapped).features)
    assert (data.features >= 0).all()
    assert (data.features[:, :5] <= 1).all()


def test_a_file_of_the_user_is_read_as_an_input(portfolio: Any, tmp_path: Path) -> None:
    blank = [name for name in motor.COLUMNS if name not in motor.USED]
    whole = portfolio.head(300).assign(**dict.fromkeys(blank, "x"))[list(motor.COLUMNS)]
    path = tmp_path / "mine.csv"
    whole.to_csv(path, index=False)
    table = read_input(MultitypeFairness(), "motor", path)
    assert isinstance(table, dict)
    data, drawn = motor.read_portfolio(table), motor.read_portfolio(portfolio.head(300))
    assert torch.equal(data.target, drawn.target)
    assert torch.allclose(data.features, drawn.features)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("Age", "old", "Row 1 of column Age is 'old'; give a number"),
        ("Exppdays", 0, "Exppdays must be above 0"),
        ("Bonus", None, "Row 1 of column Bonus is empty"),
    ],
)
def test_a_faulty_motor_table_is_refused_in_words(
    portfolio: Any, column: str, value: Any, message: str
) -> None:
    rows = portfolio.head(5).copy().astype({column: object})
    rows.loc[1, column] = value
    with pytest.raises(StudyError, match=message):
        motor.read_portfolio(rows)


def test_a_motor_table_without_its_target_is_refused(portfolio: Any) -> None:
    with pytest.raises(StudyError, match="no column Numtppd"):
        motor.read_portfolio(portfolio.head(5).drop(columns="Numtppd"))


def test_the_standard_filter_drops_what_propublica_dropped() -> None:
    drawn = recidivism.draw_stand_in(6, StudyContext())
    drawn["days_b_screening_arrest"] = [0.0, -30.0, 31.0, math.nan, 5.0, 5.0]
    drawn["is_recid"] = [0, 1, 0, 1, -1, 1]
    drawn["c_charge_degree"] = ["F", "M", "F", "F", "F", "O"]
    drawn["score_text"] = ["Low", "High", "Low", "Low", "Low", "Low"]
    assert len(recidivism.standard_filter(drawn)) == 2


def test_compas_leaves_6172_people_in_24_cells() -> None:
    path = Path(__file__).parents[3] / "shared" / "data" / "compas_6172_deidentified.csv"
    if not path.is_file():
        pytest.skip("the development copy of COMPAS is not here")
    table = read_input(MultitypeFairness(), "compas", path)
    assert isinstance(table, dict)
    data = recidivism.read_table(table)
    assert len(data) == 6172
    assert len(data.cell_names) == 24
    assert float(data.target.mean()) == pytest.approx(0.4551, abs=1e-4)


def naive_u(x: Tensor, y: Tensor) -> float:
    """The double sum over U-centred distances, written out."""
    found = []
    for values in (x, y):
        values = values.reshape(len(values), -1)
        a = torch.cdist(values, values, compute_mode="donot_use_mm_for_euclid_dist").numpy()
        n = len(a)
        rows = a.sum(axis=1) / (n - 2)
        a = a - rows[:, None] - rows + a.sum() / ((n - 1) * (n - 2))
        np.fill_diagonal(a, 0)
        found.append(a)
    return float((found[0] * found[1]).sum() / (n * (n - 3)))


def test_the_loss_of_a_batch_is_the_task_and_lambda_times_the_u_statistic() -> None:
    data = motor.read_portfolio(motor.draw_portfolio(200, StudyContext()))
    variants = [Variant("none", "none", 0.0), Variant("CCdCov", "ccdcov", 30.0)]
    networks = Networks(2, data.features.shape[1], (8,), torch.Generator().manual_seed(0))
    from workbench.studies.multitype_fairness.mechanism import _losses

    plain, penalised = _losses(networks, data, variants, POISSON, 1.0).tolist()
    mu = outcomes(networks, data, POISSON)[1]
    together = dependence.concatenated(list(data.attributes.values()))
    assert penalised - plain == pytest.approx(30 * naive_u(mu, together), rel=1e-3)
    y, expected = data.target.double(), mu
    assert plain == pytest.approx(float((expected - y * expected.log()).mean()), rel=1e-5)


def test_networks_that_train_together_do_not_touch_each_other() -> None:
    data = motor.read_portfolio(motor.draw_portfolio(600, StudyContext()))
    recipe = Recipe((8,), epochs=2, batch=128, learning_rate=0.01)
    variants = motor.grid_variants([0.0, 40.0])
    together = outcomes(train(data, variants, POISSON, recipe, StudyContext()), data, POISSON)
    for place, variant in enumerate(variants):
        alone = outcomes(train(data, [variant], POISSON, recipe, StudyContext()), data, POISSON)
        assert torch.allclose(alone[0], together[place], rtol=1e-4)


def test_every_batch_holds_every_cell_in_its_proportion() -> None:
    cells = torch.tensor([0] * 600 + [1] * 300 + [2] * 60)
    batches = stratified_batches(cells, 6, torch.Generator().manual_seed(0))
    assert sorted(torch.cat(batches).tolist()) == list(range(960))
    assert {tuple(torch.bincount(cells[batch]).tolist()) for batch in batches} == {(100, 50, 10)}


def test_a_batch_below_128_rows_is_refused() -> None:
    data = motor.read_portfolio(motor.draw_portfolio(300, StudyContext()))
    with pytest.raises(ValueError, match="at least 128"):
        train(data, [], POISSON, Recipe((), 1, 64, 0.1), StudyContext())


def test_a_split_keeps_rows_apart_and_cells_in_proportion() -> None:
    data = motor.read_portfolio(motor.draw_portfolio(4000, StudyContext()))
    marked = dataclasses.replace(data, target=torch.arange(4000).float())
    first, second = marked.split(1000, torch.Generator().manual_seed(0))
    assert (len(first), len(second)) == (1000, 3000)
    assert set(first.target.tolist()).isdisjoint(second.target.tolist())
    shares = [torch.bincount(each.cells, minlength=20) / len(each) for each in (first, second)]
    assert (shares[0] - shares[1]).abs().max() < 2e-3
    # Audits take the first rows for a sample of all.
    assert torch.unique(first.cells[:200]).numel() > 15


def test_every_row_is_audited_by_networks_that_did_not_see_it() -> None:
    # A linear model of 300 one-hot inputs can only repeat what it was trained on.
    n = 300
    data = Data(
        torch.eye(n),
        torch.ones(n),
        torch.ones(n),
        {"a": torch.arange(n).double() % 2},
        torch.arange(n) % 2,
        ("0", "1"),
    )
    marked = dataclasses.replace(data, target=(torch.arange(n) % 3 == 0).float())
    experiment = Experiment(
        [Variant("none", "none", 0.0)], BINARY, Recipe((), 200, 128, 0.1), dependence_rows=50
    )
    found = experiment.cross_fit(marked, 4, "", "", StudyContext())
    seen = experiment.run(marked, marked, "", "", StudyContext())
    # Its own label is no better than chance where it was held out, and certain where it was not.
    assert claims.value(found, "log_loss", 0) > 0.6
    assert claims.value(seen, "log_loss", 0) < 0.1


def test_an_audit_of_equal_outcomes_finds_nothing() -> None:
    data = motor.read_portfolio(motor.draw_portfolio(400, StudyContext()))
    found = audit(torch.full((400,), 0.2, dtype=torch.float64), data, POISSON, 200)
    assert [found[name] for name in ("js", "js_adaptive", "uf")] == [0, 0, 0]
    assert found["ccdcov"] == pytest.approx(0, abs=1e-12)


def test_the_joint_statistic_of_the_usual_sign_is_the_trap_of_the_specification() -> None:
    outcome, coins = gerrymander.gerrymandered(), gerrymander.coins()
    assert float(gerrymander.joint_with_usual_sign(outcome, coins)) == pytest.approx(-0.125)


def test_one_shifted_cell_is_seen() -> None:
    audits = [
        gerrymander.parity_gap(shift, torch.Generator().manual_seed(0), measure)
        for shift in (0.0, 0.5)
        for measure in (dependence.concatenated_distance_covariance_sq,)
    ]
    assert audits[0] < 1e-12
    assert audits[1] > 1e-3


def test_the_jensen_shannon_divergence_of_the_grid_is_that_of_the_authors_thousand_points() -> None:
    from workbench.metrics.divergence import PAPER_BANDWIDTH, generalised_jensen_shannon
    from workbench.studies.multitype_fairness.mechanism import paper_jensen_shannon

    generator = torch.Generator().manual_seed(0)
    cells = torch.arange(4000) % 4
    outcome = torch.rand(4000, generator=generator, dtype=torch.float64) * (1 + 0.3 * cells)
    fine = generalised_jensen_shannon(
        outcome, cells, bandwidth=PAPER_BANDWIDTH, padding=0.0, points=1000
    )
    assert paper_jensen_shannon(outcome, cells) == pytest.approx(float(fine), rel=5e-3)


def test_the_correction_reaches_people_it_was_not_fitted_to() -> None:
    pairs, context = open_source("decisions"), StudyContext(seed=1)
    drawn = decisions.draw_decisions(pairs, context)
    corrected = decisions.correct(drawn, [0.0, 30.0], 24, (), context)
    attributes = list(drawn.attributes.values())
    before, after = (
        float(dependence.u_concatenated_distance_covariance_sq(each, attributes))
        for each in corrected
    )
    assert torch.equal(corrected[0], drawn.within_templates()[1])
    assert after < 0.5 * before


def test_folds_deal_every_template_and_cell_to_all() -> None:
    drawn = decisions.draw_decisions(open_source("decisions"), StudyContext())
    folds = decisions._folds(drawn, torch.Generator().manual_seed(0))
    both = drawn.templates * 15 + drawn.cells
    for group in both.unique():
        assert sorted(folds[both == group].tolist()) == [0, 1, 2]


@pytest.mark.default_model
def test_the_margin_read_off_the_state_is_that_of_the_scorer() -> None:
    if not is_ready():
        pytest.skip("the default model is not on this machine")
    from workbench.data.pairs import PreferenceSet
    from workbench.scoring.logprobs import ModelScorer, Request
    from workbench.scoring.models import load_model, parse_model

    pairs = PreferenceSet("few", list(open_source("decisions"))[30:75])
    found = decisions.read_decisions(pairs, StudyContext())
    scorer = ModelScorer(load_model(parse_model("default"), device="cpu"))
    for place in (0, 20, 44):
        pair = list(pairs)[place]
        answers = [Request(pair.prompt, each) for each in (pair.chosen, pair.rejected)]
        first = [float(score.token_logps[0]) for score in scorer.score(answers)]
        assert float(found.margin[place]) == pytest.approx(first[0] - first[1], abs=2e-3)


def test_decisions_without_the_attributes_are_refused() -> None:
    with pytest.raises(StudyError, match="lacks age, gender, race"):
        decisions.draw_decisions(open_source("teaching"), StudyContext())


def test_the_papers_numbers_stand_beside_ours_where_it_has_them(trial: Trial) -> None:
    table = trial.result.tables["motor"]
    assert table["paper_js"][table["regulariser"].index("none")] == 0.028887
    row = next(
        place
        for place, (name, weight) in enumerate(
            zip(table["regulariser"], table["lambda"], strict=True)
        )
        if (name, weight) == ("CCdCov", 80.0)
    )
    assert table["paper_rps"][row] == 0.12148


def test_measure_knobs_choose_networks_and_train_none(trial: Trial) -> None:
    params = dataclasses.replace(trial.params, chosen_ccdcov=0.0, gap=0.5)
    other = trial.study.measure(trial.fitted, params)
    assert other.tables["motor"] == trial.result.tables["motor"]
    assert other.tables["statistics"]["population"][3] == 0.0625
    assert other.tables["statistics"]["value"][3] == pytest.approx(0.0625)


def test_the_study_says_where_its_rows_come_from(trial: Trial) -> None:
    parts = trial.result.frame("parts").set_index("part")
    assert parts.loc["scores", "source"] == "stand-in"
    assert "--input motor=FILE.csv" in parts.loc["motor", "note"]


def test_without_compas_the_stand_in_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.errors import DataError

    def unreachable() -> Any:
        raise DataError("no index here")

    monkeypatch.setattr(recidivism, "fetch_compas", unreachable)
    study, context = MultitypeFairness(), StudyContext(inputs=MultitypeFairness.inputs)
    data, source, note = study._recidivism(Params(), context)
    assert source == "stand-in"
    assert "--input compas=FILE.csv" in note
    assert "no index here" in note
    assert len(data) > 5000


def test_bars_of_words_stand_on_an_axis_of_categories(trial: Trial) -> None:
    figures = trial.study.figures(trial.result)
    worded = {
        name
        for name, figure in figures.items()
        if any(each.type == "bar" and isinstance(each.x[0], str) for each in figure.data)
    }
    assert {"claim-frequency", "scores", "decisions"} <= worded
    assert all(figures[name].layout.xaxis.type == "category" for name in worded)

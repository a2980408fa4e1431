"""Each table is computed once for what it depends on, and an empty one is unknown, not zero."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from workbench.data.edits import SetField
from workbench.data.pairs import PreferenceSet
from workbench.engine.live import LiveTables
from workbench.engine.session import Session
from workbench.engine.settings import Settings
from workbench.engine.values import did_table, idealized_curve, ranking_table, reward_table

Start = Callable[..., Session]
LIVE = Settings(attributes=("age", "gender"))
TABLES = ("rater_share", "rewards", "curve", "ranking", "did", "fairness")


def drawn(tables: LiveTables, settings: Settings) -> dict[str, Any]:
    return {name: getattr(tables, name)(settings) for name in TABLES}


@pytest.mark.parametrize(
    ("change", "anew"),
    [
        ({}, set()),
        ({"beta": 2.0}, {"rewards", "ranking"}),
        ({"gamma": 0.0}, {"ranking"}),
        ({"tie_policy": "half"}, {"ranking"}),
        ({"share_constant": 0.9}, {"rater_share", "curve", "ranking"}),
        ({"outcome": "chosen_reward"}, {"fairness"}),
        ({"paper_code": True}, {"curve", "ranking"}),
        ({"attributes": ("race",)}, {"fairness"}),
        ({"length_normalised": True}, {"rewards", "curve", "ranking", "did", "fairness"}),
    ],
)
def test_a_setting_computes_anew_only_what_depends_on_it(
    start: Start, change: dict[str, Any], anew: set[str]
) -> None:
    tables = LiveTables(start())
    before = drawn(tables, LIVE)
    after = drawn(tables, LIVE.replaced(**change))
    assert {name for name in TABLES if before[name] is not after[name]} == anew


def test_every_table_is_what_the_pure_functions_make_of_the_snapshot(start: Start) -> None:
    session = start()
    tables, live = LiveTables(session), LIVE.replaced(beta=0.7, gamma=0.5)
    snapshot, share = session.snapshot(), tables.rater_share(live)
    pairs = (
        (tables.rewards(live), reward_table(snapshot.scores, live)),
        (tables.curve(live), idealized_curve(snapshot.scores, share, live)),
        (tables.ranking(live), ranking_table(snapshot.scores, share, live)),
        (tables.did(live), did_table(snapshot.scores, snapshot.candidates, live)),
    )
    for kept, fresh in pairs:
        for name, value in vars(fresh).items():
            assert torch.equal(getattr(kept, name), value), name


def test_the_summary_is_the_mean_of_the_tables(start: Start) -> None:
    tables = LiveTables(start())
    summary = tables.summary(LIVE)
    rewards, ranking = tables.rewards(LIVE), tables.ranking(LIVE)
    assert (summary.pairs, summary.scored) == (8, 8)
    assert summary.mean_margin == float(rewards.margin.mean())
    assert summary.ranking_accuracy == float(ranking.correct.mean())
    assert summary.did_prompts == 4
    assert summary.dependence_of in LIVE.attributes
    assert summary.dependence == max(
        each.distance_correlation for each in tables.fairness(LIVE).dependences
    )


def test_a_set_of_which_nothing_is_scored_has_a_summary_of_unknowns_and_no_zero(
    start: Start, models: Any
) -> None:
    models.broken.add("bad")
    for session in (start(policy="bad"), start(PreferenceSet("none", []))):
        summary = LiveTables(session).summary(LIVE)
        numbers = {n: v for n, v in vars(summary).items() if isinstance(v, float)}
        assert all(math.isnan(value) for value in numbers.values()), numbers
        assert (summary.scored, summary.dependence_of) == (0, "")


def test_an_edit_of_a_text_leaves_the_attributes_as_they_were_read(
    start: Start, settled: Any
) -> None:
    session = start()
    tables = LiveTables(session)
    before = tables.attributes(("age", "gender", "nobody's"))
    assert [column.name for column in before] == ["age", "gender"]
    session.apply([SetField("p1", "chosen", "new words")], "edit")
    settled(session)
    after = tables.attributes(("age", "gender"))
    assert all(a is b for a, b in zip(before, after, strict=True))


def test_the_page_computes_with_one_thread_and_leaves_torch_as_it_was(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    before = torch.get_num_threads()

    def watched(*arguments: Any) -> Any:
        seen.append(torch.get_num_threads())
        return reward_table(*arguments)

    monkeypatch.setattr("workbench.engine.live.reward_table", watched)
    LiveTables(start()).rewards(LIVE)
    assert seen == [1]
    assert torch.get_num_threads() == before

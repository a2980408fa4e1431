"""The pair table: what a query finds, in which order, and what a row shows."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.data.edits import SetField, apply_edits
from workbench.data.pairs import Message, PreferencePair, PreferenceSet
from workbench.engine.live import LiveTables
from workbench.engine.session import Snapshot
from workbench.engine.settings import Settings
from workbench.engine.values import PairScores, candidates_of
from workbench.views.table import LIVE, MAX_WINDOW, PairTable, Query, columns, full_row

LIVE_NAMES = [column.name for column in LIVE]
BASE = Settings()


def a_pair(i: int, **fields: Any) -> PreferencePair:
    given_fields = {
        "pair_id": f"p{i}",
        "prompt": f"Question {i}",
        "chosen": f"Good {i % 3}",
        "rejected": f"Bad {i}",
        "alpha": None if i % 4 == 0 else (i % 5) / 5,
        "attributes": {"age": 10 + (i * 7) % 30, "gender": "fm"[i % 2]},
    }
    return PreferencePair(**(given_fields | fields))


class Page:
    """A page without an engine: pairs with made-up scores, of which some are missing."""

    def __init__(self, pairs: list[PreferencePair], unscored: tuple[int, ...] = ()) -> None:
        n = len(pairs)
        generator = torch.Generator().manual_seed(5)
        four = -50 * torch.rand(4, n, generator=generator, dtype=torch.float64)
        four[0, list(unscored)] = math.nan
        lengths = torch.ones(2, n, dtype=torch.float64)
        self.scores, self.revision = PairScores(*four, *lengths), 0
        self.first = PreferenceSet("s", pairs)
        self.show(self.first)

    def show(self, pairs: PreferenceSet) -> None:
        numbers = list(range(len(pairs)))
        candidates = candidates_of(numbers, numbers, numbers)
        self.revision += 1
        self.kept = Snapshot((self.revision, 1), pairs, self.scores, candidates, {})

    @property
    def table(self) -> PairTable:
        return PairTable(self.tables)

    @property
    def tables(self) -> LiveTables:
        store = SimpleNamespace(at=lambda revision: self.first)
        session = SimpleNamespace(snapshot=lambda: self.kept, store=store)
        return LiveTables(session)  # type: ignore[arg-type]


@pytest.fixture
def page() -> Page:
    return Page([a_pair(i) for i in range(40)], unscored=(3, 17))


def shown(table: PairTable, query: Query, live: Settings = BASE) -> list[str]:
    return [row["pair_id"] for row in table.window(query, live)]


class TestWhatIsFound:
    def test_without_a_question_every_pair_is_found_in_its_own_order(self, page: Page) -> None:
        assert list(page.table.matching(Query(), BASE)) == list(range(40))

    def test_every_word_must_occur_somewhere_whatever_its_case(self, page: Page) -> None:
        table = page.table
        assert shown(table, Query(text="QUESTION P1")) == ["p1", *(f"p{i}" for i in range(10, 20))]
        assert shown(table, Query(text="question p17")) == ["p17"]
        assert shown(table, Query(text="nowhere")) == []

    def test_words_are_found_in_attributes_and_conversations(self) -> None:
        talk = (Message(role="user", content="Bonjour"),)
        pairs = [a_pair(0, prompt=talk), a_pair(1, attributes={"city": "Zürich"})]
        table = Page(pairs).table
        assert shown(table, Query(text="bonjour")) == ["p0"]
        assert shown(table, Query(text="ZÜRICH")) == ["p1"]

    def test_a_filter_takes_the_column_and_the_option_as_the_browser_sends_them(
        self, page: Page
    ) -> None:
        query = Query.read({"filters": {"attributes.gender": "m"}, "limit": 100})
        assert shown(page.table, query) == [f"p{i}" for i in range(1, 40, 2)]

    @pytest.mark.parametrize("value", [True, 3, 2.5, "words", "<b>"])
    def test_a_filter_on_any_option_of_a_column_finds_the_pairs_that_have_it(
        self, value: Any
    ) -> None:
        pairs = [a_pair(0, attributes={"x": value}), a_pair(1, attributes={"x": "other"})]
        page = Page(pairs)
        (column,) = [c for c in page.table.columns() if c["name"] == "attributes.x"]
        assert value in column["options"]
        assert shown(page.table, Query.read({"filters": {"attributes.x": value}})) == ["p0"]

    def test_a_whole_number_is_found_however_its_source_wrote_it(self) -> None:
        pairs = [a_pair(i, attributes={"x": value}) for i, value in enumerate((3, 3.0, 4))]
        assert shown(Page(pairs).table, Query.read({"filters": {"attributes.x": 3}})) == [
            "p0",
            "p1",
        ]

    def test_words_and_filters_hold_together_and_keep_the_sort(self, page: Page) -> None:
        query = Query("question", {"attributes.gender": "f"}, ("attributes.age", "desc"), 0, 3)
        rows = page.table.window(query, BASE)
        ages = [row["attributes.age"] for row in rows]
        assert ages == sorted((10 + (i * 7) % 30 for i in range(0, 40, 2)), reverse=True)[:3]


class TestOrder:
    @pytest.mark.parametrize("direction", ["asc", "desc"])
    @pytest.mark.parametrize("name", ["prompt", "attributes.age", "alpha", *LIVE_NAMES])
    def test_pairs_are_sorted_with_the_unknown_last_in_either_direction(
        self, page: Page, name: str, direction: str
    ) -> None:
        rows = page.table.window(Query(sort=(name, direction), limit=100), BASE)
        values = [row[name] for row in rows]
        known = [value for value in values if value is not None]
        assert values == known + [None] * (40 - len(known))
        keys = [value.casefold() if isinstance(value, str) else value for value in known]
        assert keys == sorted(keys, reverse=direction == "desc")
        assert len(known) == {"alpha": 30, "prompt": 40, "attributes.age": 40}.get(name, 38)

    @pytest.mark.parametrize("direction", ["asc", "desc"])
    def test_equal_values_keep_the_sets_own_order(self, page: Page, direction: str) -> None:
        found = shown(page.table, Query(sort=("chosen", direction), limit=100))
        goods = [f"p{i}" for i in range(40) if i % 3 == 1]
        assert [name for name in found if name in goods] == goods

    def test_a_column_that_does_not_exist_changes_nothing(self, page: Page) -> None:
        assert shown(page.table, Query(sort=("__class__", "asc"), limit=3)) == ["p0", "p1", "p2"]

    def test_mixed_values_and_numbers_too_large_for_a_float_are_sorted_too(self) -> None:
        values = ["word", 10**400, 2.5, True, None, -(10**400)]
        page = Page([a_pair(i, attributes={"x": value}) for i, value in enumerate(values)])
        assert shown(page.table, Query(sort=("attributes.x", "asc"))) == [
            "p5", "p3", "p2", "p1", "p0", "p4",
        ]  # fmt: skip

    def test_an_order_by_a_live_column_follows_the_settings(self, page: Page) -> None:
        table, query = page.table, Query(sort=("loss", "asc"), limit=40)
        first = shown(table, query, Settings(gamma=0.0))
        second = shown(table, query, Settings(gamma=5.0))
        assert first != second
        assert shown(table, query, Settings(gamma=0.0)) == first

    def test_an_edit_is_seen_by_the_next_question(self, page: Page) -> None:
        table = PairTable(page.tables)
        assert shown(table, Query(text="unheard")) == []
        page.show(apply_edits(page.kept.pairs, [SetField("p5", "chosen", "unheard of")]).pairs)
        assert shown(table, Query(text="unheard")) == ["p5"]


class TestRows:
    def test_a_changed_field_says_what_it_was_when_the_set_was_opened(self) -> None:
        page = Page([a_pair(i) for i in range(4)])
        edits = [SetField("p1", "chosen", "x" * 5000), SetField("p1", "attributes.age", 3)]
        page.show(apply_edits(page.first, edits).pairs)
        whole = page.table.detail(1, BASE)
        assert whole["was"] == {"chosen": "Good 1", "attributes.age": 17}
        cut = page.table.window(Query(), BASE)[1]
        assert (cut["truncated"], cut["was"]) == (["chosen"], {"attributes.age": 17})
        assert page.table.window(Query(), BASE)[0]["was"] == {}

    def test_a_window_is_the_same_part_of_the_whole_answer(self, page: Page) -> None:
        table = page.table
        whole = shown(table, Query(sort=("margin", "desc"), limit=100))
        assert shown(table, Query(sort=("margin", "desc"), offset=7, limit=5)) == whole[7:12]
        rows = table.window(Query(sort=("margin", "desc"), offset=7, limit=5), BASE)
        assert [row["offset"] for row in rows] == [7, 8, 9, 10, 11]
        assert table.window(Query(offset=1000), BASE) == []

    def test_live_values_stand_beside_their_own_pair_and_are_none_where_not_known(
        self, page: Page
    ) -> None:
        tables, live = page.tables, Settings(beta=0.7)
        rewards, ranking = tables.rewards(live), tables.ranking(live)
        expected = dict(zip(rewards.rows.tolist(), rewards.margin.tolist(), strict=True))
        losses = dict(zip(ranking.rows.tolist(), ranking.loss.tolist(), strict=True))
        rows = PairTable(tables).window(Query(sort=("prompt", "desc"), limit=100), live)
        for row in rows:
            place = int(row["pair_id"][1:])
            assert row["margin"] == expected.get(place)
            assert row["loss"] == losses.get(place)
        assert [row["pair_id"] for row in rows if row["margin"] is None] == ["p3", "p17"]

    def test_long_texts_are_cut_marked_and_whole_in_the_detail(self) -> None:
        pair = a_pair(0, chosen="x" * 5000)
        (row,) = Page([pair]).table.window(Query(), BASE)
        assert (len(row["chosen"]), row["truncated"]) == (400, ["chosen"])
        assert full_row(pair)["chosen"] == "x" * 5000

    def test_an_attribute_cannot_take_the_place_of_a_field(self) -> None:
        names = ["pair_id", "prompt", "margin", "alpha", "offset"]
        pair = a_pair(1, attributes=dict.fromkeys(names, "hostile"))
        (row,) = Page([pair]).table.window(Query(), BASE)
        assert row["pair_id"] == "p1"
        assert all(row[name] != "hostile" for name in names)
        assert row["attributes.margin"] == "hostile"

    def test_a_set_without_pairs_or_scores_has_a_table(self) -> None:
        assert Page([]).table.window(Query(), BASE) == []
        everything = Page([a_pair(0)], unscored=(0,)).table.window(Query(), BASE)
        assert [everything[0][name] for name in LIVE_NAMES] == [None] * len(LIVE)


class TestColumns:
    def test_texts_raters_and_attributes_can_be_edited_and_live_values_cannot(
        self, page: Page
    ) -> None:
        found = {column["name"]: column for column in columns(page.kept.pairs)}
        assert not any(found[name]["editable"] for name in LIVE_NAMES)
        assert all(c["editable"] for name, c in found.items() if name not in LIVE_NAMES)
        assert found["attributes.age"]["kind"] == "number"
        assert found["attributes.gender"]["options"] == ["f", "m"]

    def test_columns_are_made_anew_only_when_an_attribute_changed(self, page: Page) -> None:
        table = PairTable(page.tables)
        first = table.columns()
        page.show(apply_edits(page.kept.pairs, [SetField("p1", "chosen", "new")]).pairs)
        assert table.columns() is first
        page.show(apply_edits(page.kept.pairs, [SetField("p1", "attributes.gender", "x")]).pairs)
        assert table.columns() is not first
        assert table.columns() == columns(page.kept.pairs)


class TestQuery:
    @settings(deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from(["text", "filters", "sort", "offset", "limit", "evil"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
                lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(), each),
                max_leaves=6,
            ),
        )
    )
    def test_whatever_the_browser_sends_is_a_question_that_can_be_answered(self, raw: Any) -> None:
        query = Query.read(raw)
        assert 0 <= query.limit <= MAX_WINDOW
        assert query.offset >= 0
        rows = Page([a_pair(i) for i in range(5)]).table.window(query, BASE)
        assert len(rows) <= 5

"""The pair editor in a real browser, against a table of 100,000 rows."""

from collections.abc import Callable, Mapping
from typing import Any

import panel as pn
import pytest
from browser_support import eventually, in_session

from workbench.views.widgets import PairEditor

pytestmark = pytest.mark.browser
Serve = Callable[[Callable[[], Any]], str]
HOSTILE = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>\u202eRTL 🍂 \0"
COLUMNS = [
    {"name": "prompt", "title": HOSTILE, "kind": "text", "editable": True},
    {"name": "chosen", "title": "Chosen", "kind": "text", "editable": True},
    {"name": "alpha", "kind": "number", "editable": True, "width": 80},
    {"name": "group", "kind": "category", "editable": True, "options": [HOSTILE, "b"]},
    {"name": "margin", "kind": "live", "width": 90},
]


class Table:
    """A plain server of rows: filter, sort, window, edit by pair id."""

    editor: PairEditor
    document: Any

    def __init__(self, n: int, theme: str = "light") -> None:
        self.theme = theme
        self.commands: list[Mapping[str, Any]] = []
        self.edits: list[Mapping[str, Any]] = []
        self.queries: list[Mapping[str, Any]] = []
        self.rows = {f"p{i:06d}": self.row(i) for i in range(n)}

    @staticmethod
    def row(i: int) -> dict[str, Any]:
        return {
            "pair_id": f"p{i:06d}", "prompt": HOSTILE if i % 7 == 3 else f"question {i}",
            "chosen": f"answer {i}", "alpha": 0.5, "group": "b", "margin": float(i * 7919 % 1000),
        }  # fmt: skip

    def app(self) -> PairEditor:
        self.editor = PairEditor(columns=COLUMNS, theme=self.theme, can_undo=True)
        self.document = pn.state.curdoc
        self.editor.on_query(self.answer)
        self.editor.on_edit(self.edit)
        self.editor.on_command(self.commands.append)
        self.answer({"text": "", "sort": None, "offset": 0, "limit": 80})
        return self.editor

    def answer(self, query: Mapping[str, Any]) -> None:
        self.queries.append(query)
        filters = query.get("filters") or {}
        rows = [
            row
            for row in self.rows.values()
            if query["text"] in row["chosen"]
            and all(row[name] == value for name, value in filters.items())
        ]
        if query["sort"]:
            name, direction = query["sort"]
            rows.sort(key=lambda row: row[name], reverse=direction == "desc")
        start = query["offset"]
        window = rows[start : start + query["limit"]]
        shown = [dict(row, offset=start + i) for i, row in enumerate(window)]
        self.editor.show_rows(shown, offset=start, matching=len(rows), total=len(self.rows))

    def edit(self, edit: Mapping[str, Any]) -> None:
        self.edits.append(edit)
        if edit["field"] == "alpha" and not 0 <= edit["value"] <= 1:
            raise ValueError(f"alpha must lie in [0, 1], found {edit['value']}")
        value = edit["value"]
        self.rows[edit["pair_id"]][edit["field"]] = (
            value.strip() if edit["field"] == "chosen" else value
        )
        self.answer(self.editor.query)

    def run(self, act: Callable[[], None]) -> None:
        in_session(self.document, act)


def opened(page: Any, serve: Serve, n: int = 200, theme: str = "light") -> Table:
    table = Table(n, theme)
    page.goto(serve(table.app))
    page.wait_for_selector(".wb-row[data-pair='p000000']")
    eventually(lambda: len(table.queries) >= 2)  # the page has asked once of its own accord
    return table


def click_row(page: Any, pair: str) -> None:
    page.locator(f".wb-row[data-pair='{pair}'] [data-field=chosen]").click()
    page.wait_for_selector(f".wb-id:text-is('{pair}')")


def test_hostile_text_is_only_text_in_cells_titles_options_and_fields(
    page: Any, serve: Serve
) -> None:
    opened(page, serve)
    click_row(page, "p000003")
    cell = page.locator(".wb-row[data-pair='p000003'] [data-field=prompt]")
    assert "<img src=x" in cell.inner_text()
    assert "<script>" in page.locator("textarea[data-field=prompt]").input_value()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src=x]").count() == 0
    assert page.page_errors == []


def test_an_edit_under_filter_and_sort_reaches_its_pair_and_no_other(
    page: Any, serve: Serve
) -> None:
    table = opened(page, serve)
    before = {pair: dict(row) for pair, row in table.rows.items()}
    page.locator(".wb-search").fill("answer 1")
    eventually(lambda: table.editor.matching == 111)
    for direction in ("asc", "desc"):
        page.locator(".wb-sort", has_text="margin").click()
        page.wait_for_selector(f"[aria-sort^={direction}]")
    eventually(lambda: table.editor.query["sort"] == ["margin", "desc"])
    page.wait_for_selector(".wb-row[aria-rowindex='4'][data-pair]:not([data-pair=''])")
    page.wait_for_timeout(200)
    row = page.locator(".wb-row[aria-rowindex='4']")
    pair = row.get_attribute("data-pair")
    row.locator("[data-field=chosen]").dblclick()
    page.keyboard.type("changed 1")
    page.keyboard.press("Enter")
    eventually(lambda: table.rows[pair]["chosen"] == "changed 1")
    others = {key: value for key, value in table.rows.items() if key != pair}
    assert all(before[key] == value for key, value in others.items())
    assert pair != "p000002"


def test_one_hundred_thousand_rows_scroll_to_the_end(page: Any, serve: Serve) -> None:
    opened(page, serve, n=100_000)
    page.locator(".wb-view").focus()
    page.keyboard.press("End")
    page.wait_for_selector(".wb-row[data-pair='p099999']")
    assert page.locator(".wb-row").count() < 100
    page.locator(".wb-view").evaluate("v => { v.scrollTop = 50000 * 34; }")
    page.wait_for_selector(".wb-row[data-pair='p050001']")


def test_quick_edits_are_all_kept(page: Any, serve: Serve) -> None:
    table = opened(page, serve)
    click_row(page, "p000001")
    page.locator("textarea[data-field=chosen]").fill("first")
    page.locator("textarea[data-field=prompt]").fill("second")
    page.locator("input[data-field=alpha]").fill("0.25")
    page.keyboard.press("Enter")
    eventually(lambda: table.rows["p000001"]["alpha"] == 0.25)
    assert table.rows["p000001"]["chosen"] == "first"
    assert table.rows["p000001"]["prompt"] == "second"
    assert [edit["seq"] for edit in table.edits] == [1, 2, 3]


def test_a_refused_edit_says_why_and_can_be_given_up(page: Any, serve: Serve) -> None:
    table = opened(page, serve)
    click_row(page, "p000001")
    page.locator("input[data-field=alpha]").fill("7")
    page.keyboard.press("Enter")
    page.wait_for_selector(".wb-message:text('found 7')")
    assert table.rows["p000001"]["alpha"] == 0.5
    page.keyboard.press("Escape")
    page.wait_for_selector("input[data-field=alpha]")
    eventually(lambda: page.locator("input[data-field=alpha]").input_value() == "0.5")


def test_what_is_being_typed_survives_a_server_update(page: Any, serve: Serve) -> None:
    table = opened(page, serve)
    click_row(page, "p000001")
    box = page.locator("textarea[data-field=chosen]")
    box.fill("half a sent")
    table.rows["p000001"]["margin"] = -5.0
    table.run(lambda: table.answer(table.editor.query))
    page.wait_for_selector(".wb-row[data-pair='p000001'] .wb-negative")
    assert box.input_value() == "half a sent"
    page.keyboard.type("ence")
    eventually(lambda: table.rows["p000001"]["chosen"] == "half a sentence")


def test_escape_leaves_a_cell_unchanged(page: Any, serve: Serve) -> None:
    table = opened(page, serve)
    click_row(page, "p000002")
    page.keyboard.press("F2")
    page.keyboard.type("nothing of this stays")
    page.keyboard.press("Escape")
    page.wait_for_timeout(200)
    assert table.edits == []
    assert table.rows["p000002"]["chosen"] == "answer 2"


def test_commands_name_the_checked_pairs_or_the_selected_one(page: Any, serve: Serve) -> None:
    table = opened(page, serve)
    click_row(page, "p000004")
    page.keyboard.press("s")
    eventually(lambda: len(table.commands) == 1)
    page.locator(".wb-row[data-pair='p000001'] .wb-check").click()
    page.locator(".wb-row[data-pair='p000003'] .wb-check").click(modifiers=["Shift"])
    page.locator(".wb-view").focus()
    page.keyboard.press("Delete")
    page.keyboard.press("Control+z")
    eventually(lambda: len(table.commands) == 3)
    found = [(command["name"], sorted(command["pair_ids"])) for command in table.commands]
    assert found[0] == ("swap", ["p000004"])
    assert found[1] == ("delete", ["p000001", "p000002", "p000003"])
    assert found[2] == ("undo", [])


def test_dark_theme_help_and_empty_state(page: Any, serve: Serve) -> None:
    table = opened(page, serve, theme="dark")
    assert page.locator(".wb-pair-editor").get_attribute("data-theme") == "dark"
    page.locator(".wb-view").focus()
    page.keyboard.press("?")
    assert page.locator(".wb-help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator(".wb-help").is_visible()
    page.keyboard.press("/")
    page.keyboard.type("no such answer")
    page.wait_for_selector(".wb-note:text('No pair matches')")
    assert table.editor.matching == 0


def cell(page: Any, pair: str, field: str) -> Any:
    return page.locator(f".wb-row[data-pair='{pair}'] [data-field={field}]")


def test_a_refused_cell_keeps_the_text_and_says_why_beside_it(page: Any, serve: Serve) -> None:
    table = opened(page, serve)
    cell(page, "p000001", "alpha").click()
    page.keyboard.press("Enter")
    page.keyboard.type("7")
    page.keyboard.press("Enter")
    bubble = page.locator(".wb-bubble")
    bubble.get_by_text("found 7").wait_for()
    refused = cell(page, "p000001", "alpha")
    assert (refused.inner_text(), refused.get_attribute("aria-invalid")) == ("7", "true")
    assert refused.get_attribute("aria-errormessage") == bubble.get_attribute("id")
    assert bubble.bounding_box()["y"] >= refused.bounding_box()["y"]
    assert page.locator("input[data-field=alpha]").input_value() == "7"

    page.keyboard.press("Enter")
    assert page.locator(".wb-in-cell").input_value() == "7"
    page.keyboard.type("0.25")
    page.keyboard.press("Enter")
    eventually(lambda: table.rows["p000001"]["alpha"] == 0.25)
    bubble.wait_for(state="hidden")


def test_escape_gives_up_a_refused_cell(page: Any, serve: Serve) -> None:
    table = opened(page, serve)
    cell(page, "p000001", "alpha").click()
    page.keyboard.press("Enter")
    page.keyboard.type("many")
    page.keyboard.press("Enter")
    page.locator(".wb-bubble").get_by_text("is not a number").wait_for()
    page.keyboard.press("Escape")
    page.locator(".wb-bubble").wait_for(state="hidden")
    assert cell(page, "p000001", "alpha").inner_text() == "0.500"
    assert table.edits == []


def test_every_action_has_a_key(page: Any, serve: Serve) -> None:
    table = opened(page, serve)
    table.run(lambda: setattr(table.editor, "can_redo", True))
    page.locator("[aria-label=Redo]:enabled").wait_for()
    page.locator(".wb-view").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    eventually(lambda: table.editor.selected == "p000001")
    keys = ["n", "d", "s", "f", "Delete", "Control+z", "Control+Shift+z", "Control+a"]
    for key in keys:
        page.keyboard.press(key)
    eventually(lambda: len(table.commands) == len(keys))
    names = ["add", "duplicate", "swap", "flip", "delete", "undo", "redo", "check_all"]
    assert [command["name"] for command in table.commands] == names
    assert [command["pair_ids"] for command in table.commands][1:5] == [["p000001"]] * 4
    page.keyboard.press(" ")
    eventually(lambda: table.editor.checked == ["p000001"])

    page.keyboard.press("ArrowRight")
    page.keyboard.press("o")
    eventually(lambda: table.editor.query["sort"] == ["chosen", "asc"])
    page.wait_for_selector("[role=columnheader][aria-sort=ascending]:has-text('Chosen')")
    page.keyboard.press("e")
    page.wait_for_selector("textarea[data-field=chosen]:focus")
    page.keyboard.press("Escape")
    page.wait_for_selector(".wb-view:focus")
    page.keyboard.press("/")
    page.wait_for_selector(".wb-search:focus")


def test_tab_commits_a_cell_and_goes_on_to_the_next_row(page: Any, serve: Serve) -> None:
    table = opened(page, serve)
    cell(page, "p000001", "alpha").click()
    page.keyboard.press("Enter")
    page.keyboard.type("0.75")
    page.keyboard.press("Tab")
    eventually(lambda: table.rows["p000001"]["alpha"] == 0.75)
    page.wait_for_selector(".wb-row[data-pair='p000001'] .wb-cursor[data-field=group]")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.wait_for_selector(".wb-row[data-pair='p000001'] .wb-cursor[data-field=margin]")
    assert [edit["field"] for edit in table.edits] == ["alpha"]


def test_a_value_that_the_server_tidied_is_shown_as_it_is_kept(page: Any, serve: Serve) -> None:
    table = opened(page, serve)
    cell(page, "p000001", "chosen").dblclick()
    page.keyboard.type("  tidy  ")
    page.keyboard.press("Enter")
    eventually(lambda: table.rows["p000001"]["chosen"] == "tidy")
    page.wait_for_selector("textarea[data-field=chosen]")
    eventually(lambda: page.locator("textarea[data-field=chosen]").input_value() == "tidy")


def test_what_a_pair_was_is_marked_shown_and_can_be_put_back(page: Any, serve: Serve) -> None:
    table = opened(page, serve)
    table.rows["p000001"]["was"] = {"chosen": f"answer {HOSTILE} 1", "alpha": 0.25}
    table.run(lambda: table.answer(table.editor.query))
    page.wait_for_selector(".wb-row[data-pair='p000001'] .wb-changed[data-field=chosen]")
    click_row(page, "p000001")
    diff = page.locator(".wb-diff").filter(has=page.locator("del"))
    assert "onerror" in diff.first.locator("del").first.inner_text()
    assert [diff.nth(1).locator(tag).inner_text() for tag in ("del", "ins")] == ["0.25", "0.5"]
    assert page.evaluate("window.hacked") is None
    diff.nth(1).locator(".wb-back").click()
    eventually(lambda: table.rows["p000001"]["alpha"] == 0.25)
    eventually(lambda: page.locator(".wb-diff del").count() == 1)


def test_a_filter_narrows_the_table_and_one_button_shows_all(page: Any, serve: Serve) -> None:
    table = opened(page, serve)
    for i in range(5):
        table.rows[f"p{i:06d}"]["group"] = HOSTILE
    page.locator(".wb-filter").select_option(index=1)
    eventually(lambda: table.editor.matching == 5)
    assert table.editor.query["filters"] == {"group": HOSTILE}
    page.locator(".wb-clear").click()
    eventually(lambda: table.editor.matching == 200)
    page.locator(".wb-clear").wait_for(state="hidden")


def test_a_screen_reader_finds_a_grid_with_its_active_cell(page: Any, serve: Serve) -> None:
    opened(page, serve)
    click_row(page, "p000002")
    grid = page.get_by_role("grid", name="Preference pairs")
    assert grid.get_attribute("aria-rowcount") == "201"
    assert grid.get_attribute("aria-colcount") == "6"
    found = """grid => { const cell = grid.getRootNode().getElementById(
      grid.getAttribute('aria-activedescendant'));
      return [cell.getAttribute('role'), cell.textContent, cell.getAttribute('aria-colindex')]; }"""
    assert grid.evaluate(found) == ["gridcell", "answer 2", "3"]
    page.keyboard.press("ArrowDown")
    eventually(lambda: grid.evaluate(found)[1] == "answer 3")
    children = grid.evaluate("grid => [...grid.children].map(e => e.getAttribute('role'))")
    assert set(children) == {"row", "rowgroup"}


def test_a_text_of_one_megabyte_stays_in_its_cell_and_can_be_edited(
    page: Any, serve: Serve
) -> None:
    table = opened(page, serve)
    table.rows["p000001"]["chosen"] = "word " * 200_000
    table.run(lambda: table.answer(table.editor.query))
    page.wait_for_selector(".wb-row[data-pair='p000001'] [data-field=chosen]:has-text('word')")
    assert len(cell(page, "p000001", "chosen").inner_text()) < 300
    click_row(page, "p000001")
    box = page.locator("textarea[data-field=chosen]")
    eventually(lambda: len(box.input_value()) == 1_000_000)
    box.fill("short again")
    eventually(lambda: table.rows["p000001"]["chosen"] == "short again")
    assert page.page_errors == []


def test_a_cell_that_shows_a_text_in_part_is_edited_in_full(page: Any, serve: Serve) -> None:
    table = opened(page, serve)
    whole = "begin " + "middle " * 100 + "end"
    shown = dict(table.rows["p000001"], chosen=whole[:50], truncated=["chosen"], offset=0)
    table.run(lambda: table.editor.show_rows([shown], offset=0, matching=1, total=1))
    page.wait_for_selector("[data-field=chosen]:has-text('begin middle')")
    cell(page, "p000001", "chosen").dblclick()
    box = page.locator("textarea[data-field=chosen]")
    assert box.is_disabled()
    assert page.locator(".wb-in-cell").count() == 0
    detail = dict(table.rows["p000001"], chosen=whole)
    table.run(lambda: table.editor.param.update(detail=detail))
    eventually(lambda: box.is_enabled() and box.input_value() == whole)


def test_scrolling_asks_for_windows_and_rows_are_there_before_they_are_seen(
    page: Any, serve: Serve
) -> None:
    table = opened(page, serve, n=100_000)
    page.locator(".wb-view").hover()
    for _ in range(40):
        page.mouse.wheel(0, 300)
    # 12,000 pixels further down, whatever the pace of the events was.
    page.wait_for_selector(".wb-row[data-pair='p000352']")
    asked = [query["offset"] for query in table.queries]
    assert max(query["limit"] for query in table.queries) <= 200
    assert len(asked) < 40
    assert page.locator(".wb-row").count() < 100

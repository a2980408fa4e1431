"""The application as a person uses it: real models, a real browser."""

import re
from pathlib import Path
from typing import Any

import pytest
from browser_support import eventually

from workbench.app.state import PAGES

pytestmark = pytest.mark.browser
QUANTITIES = ("margin", "reward", "ranking", "did", "fairness")


def strip(page: Any) -> dict[str, str]:
    """The five live quantities as the page shows them."""
    return {
        name: page.locator(f"[data-quantity={name}] .value").inner_text() for name in QUANTITIES
    }


def opened(page: Any, url: str) -> dict[str, str]:
    """Open the page and wait until every pair is scored."""
    page.goto(url)
    scored = re.compile("of 16 pairs")
    page.locator("[data-quantity=margin] .more", has_text=scored).wait_for()
    eventually(lambda: "–" not in strip(page)["ranking"], 30)
    eventually(lambda: "session=" in address(page), 30)
    return settled(page)


def settled(page: Any) -> dict[str, str]:
    """The quantities once they have stopped moving."""
    last: dict[str, str] = {}

    def still() -> bool:
        now = strip(page)
        same = now == last
        last.update(now)
        page.wait_for_timeout(300)
        return same

    eventually(still, 30)
    return last


def changed_from(page: Any, before: dict[str, str]) -> dict[str, str]:
    """The quantities after they have moved away from `before`."""
    eventually(lambda: strip(page) != before, 30)
    return settled(page)


def address(page: Any) -> str:
    """The address as the page has it now; playwright's own copy is renewed by its next call."""
    return str(page.evaluate("location.href"))


def select(page: Any, pair_id: str) -> None:
    """Select a pair by its row in the table."""
    row = page.locator(".wb-row", has=page.locator(f"[aria-label='Check pair {pair_id}']"))
    row.locator("[data-field=prompt]").click()
    page.locator(".wb-id", has_text=pair_id).wait_for()


def edit(page: Any, label: str, text: str) -> None:
    """Write into a field of the selected pair."""
    field = page.locator(".wb-detail").get_by_label(label, exact=True)
    field.fill(text)
    field.press("Control+Enter")


def open_prompt(session: Any) -> str:
    """A pair whose prompt has the most undecided candidates, so that an edit shows in DID."""
    from workbench.engine.live import LiveTables
    from workbench.engine.settings import Settings

    did = LiveTables(session).did(Settings())
    row = int(did.prompt_rows[int(did.entropy.argmax())])
    return str(session.store.pairs().pairs[row].pair_id)


def go(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def test_an_edit_scores_one_answer_a_model_and_undo_restores_every_number(
    page: Any, bench: Any
) -> None:
    before = opened(page, bench.url)
    first = bench.calls
    assert sorted(first.values()) == [32, 32]
    session = next(iter(bench.workspace._open.values()))
    pair_id = open_prompt(session)
    select(page, pair_id)
    edit(page, "Chosen", session.store.pairs()[pair_id].chosen_text + " day")
    after = changed_from(page, before)
    assert {model: bench.calls[model] - count for model, count in first.items()} == dict.fromkeys(
        first, 1
    )
    moved = {name for name in QUANTITIES if after[name] != before[name]}
    assert moved >= {"margin", "reward", "did", "fairness"}, after
    page.get_by_label("Undo").first.click()
    assert changed_from(page, after) == before
    assert sum(bench.calls.values()) == sum(first.values()) + 2


def test_ranking_accuracy_follows_an_edit(page: Any, bench: Any) -> None:
    before = opened(page, bench.url)
    session = next(iter(bench.workspace._open.values()))
    snapshot = session.snapshot()
    wrong = (snapshot.scores.policy_chosen < snapshot.scores.policy_rejected).nonzero()
    pair = snapshot.pairs.pairs[int(wrong[0])]
    select(page, pair.pair_id)
    edit(page, "Chosen", "x")
    assert changed_from(page, before)["ranking"] != before["ranking"]


def test_beta_moves_rewards_and_calls_no_model(page: Any, bench: Any) -> None:
    before = opened(page, bench.url)
    calls = bench.calls
    go(page, "Rewards")
    page.keyboard.press("]")
    after = changed_from(page, before)
    assert after["margin"] != before["margin"]
    assert after["ranking"] == before["ranking"]
    assert after["fairness"] == before["fairness"]
    page.keyboard.press("[")
    assert changed_from(page, after) == before
    assert bench.calls == calls


def test_a_reload_keeps_edits_settings_page_and_selection(page: Any, bench: Any) -> None:
    before = opened(page, bench.url)
    select(page, "p05")
    edit(page, "Rejected", "never mind")
    changed_from(page, before)
    page.keyboard.press("Escape")
    go(page, "Ranking")
    page.keyboard.press("]")
    eventually(lambda: "beta=" in address(page) and "p05" in address(page), 20)
    kept = settled(page)
    calls = bench.calls
    page.reload()
    assert opened(page, address(page)) == kept
    assert page.get_by_role("tab", name="Ranking").get_attribute("aria-selected") == "true"
    assert bench.calls == calls


def test_every_page_draws_in_both_themes_without_an_error(page: Any, bench: Any) -> None:
    opened(page, bench.url)
    select(page, "p02")
    for _ in range(2):
        for name in PAGES:
            go(page, name)
            page.wait_for_timeout(700)
        page.get_by_role("button", name=re.compile("theme", re.IGNORECASE)).first.click()
    assert page.page_errors == []
    assert page.evaluate("window.hacked") is None


def test_the_selection_is_shared_by_all_pages(page: Any, bench: Any) -> None:
    opened(page, bench.url)
    select(page, "p04")
    go(page, "Rewards")
    page.get_by_text("mat").first.wait_for()
    go(page, "DID")
    page.get_by_text("Next-token DID of the selected pair").wait_for()
    go(page, "Attribution")
    page.get_by_text("Completeness error").wait_for()
    margin = page.get_by_text(re.compile("^Margin .* = chosen")).inner_text()
    page.keyboard.press("j")
    eventually(
        lambda: (
            page.get_by_text(re.compile("^Margin .* = chosen")).count() == 1
            and page.get_by_text(re.compile("^Margin .* = chosen")).inner_text() != margin
        ),
        30,
    )


def test_hostile_names_are_shown_and_never_run(page: Any, bench: Any) -> None:
    opened(page, bench.url)
    for name in ("Rewards", "Fairness"):
        go(page, name)
        page.wait_for_timeout(500)
    page.get_by_text("group <b>").first.wait_for()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src=x]").count() == 0


def test_a_figure_is_saved_with_its_numbers_and_the_state(
    page: Any, bench: Any, tmp_path: Path
) -> None:
    from workbench.views.export import read_export

    opened(page, bench.url)
    go(page, "Ranking")
    page.get_by_label("Save this figure").locator("visible=true").first.click()
    with page.expect_download() as saved:
        page.get_by_text("Drawing (SVG)").first.click()
    target = tmp_path / saved.value.suggested_filename
    saved.value.save_as(target)
    figure, state = read_export(target)
    assert figure.layers
    assert state["page"] == "Ranking"


def test_an_unknown_session_is_explained(page: Any, bench: Any) -> None:
    page.goto(bench.url + "?session=no-such-session")
    page.get_by_text("There is no session").wait_for()
    page.goto(bench.url + "?session=../../etc")
    page.get_by_text("is not a session's name").wait_for()


def test_a_setting_out_of_range_in_the_address_is_explained(page: Any, bench: Any) -> None:
    page.goto(bench.url + "?beta=-1&page=Rewards")
    page.get_by_text("beta is -1.0; give a number above 0").wait_for()


def test_two_tabs_see_each_others_edits(page: Any, browsing: Any, bench: Any) -> None:
    before = opened(page, bench.url)
    other = browsing.new_page()
    other.set_default_timeout(60_000)
    assert opened(other, address(page)) == before
    select(page, "p06")
    edit(page, "Chosen", "quick brown fox")
    after = changed_from(page, before)
    assert changed_from(other, before) == after
    other.close()


def test_an_unknown_model_is_refused_and_the_old_one_stays(page: Any, bench: Any) -> None:
    before = opened(page, bench.url)
    field = page.get_by_role("combobox", name="Policy π")
    old = field.input_value()
    field.fill("no/such/folder")
    field.press("Enter")
    page.get_by_text("is no model").wait_for()
    eventually(lambda: field.input_value() == old, 20)
    assert strip(page) == before


def test_the_reference_as_policy_has_no_margin(page: Any, bench: Any) -> None:
    before = opened(page, bench.url)
    reference = page.get_by_role("combobox", name="Reference π_ref").input_value()
    field = page.get_by_role("combobox", name="Policy π")
    field.fill(reference)
    field.press("Enter")
    after = changed_from(page, before)
    assert after["margin"] == "0"


def test_another_set_opens_in_a_session_of_its_own(page: Any, bench: Any) -> None:
    opened(page, bench.url)
    first = address(page)
    page.get_by_role("button", name="Open another set").click()
    page.get_by_text("Decision set").click()
    page.get_by_text("decisions: 405 pairs").wait_for()
    assert address(page) != first


def test_a_file_is_imported_and_its_bad_rows_are_named(
    page: Any, bench: Any, tmp_path: Path
) -> None:
    opened(page, bench.url)
    path = tmp_path / "mine.jsonl"
    path.write_text(
        '{"prompt": "a", "chosen": "b", "rejected": "c"}\n'
        '{"prompt": "a", "chosen": "b", "rejected": 3}\n',
        encoding="utf-8",
    )
    page.get_by_text("Import and export").click()
    page.locator("input[type=file][accept*='jsonl']").set_input_files(path)
    page.get_by_text("mine.jsonl, row 2").wait_for()
    page.get_by_role("button", name="Open the 1 good rows").click()
    page.get_by_text("mine: 1 pairs").wait_for()


def test_a_state_file_brings_back_settings_page_and_selection(
    page: Any, bench: Any, tmp_path: Path
) -> None:
    before = opened(page, bench.url)
    select(page, "p09")
    go(page, "Ranking")
    page.keyboard.press("]")
    kept = changed_from(page, before)
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save", exact=True).click()
    path = tmp_path / "state.json"
    saved.value.save_as(path)
    page.keyboard.press("[")
    page.keyboard.press("j")
    page.keyboard.press("1")
    changed_from(page, kept)
    page.locator("input[type=file][accept='.json']").set_input_files(path)
    assert changed_from(page, before) == kept
    eventually(lambda: "p09" in address(page) and "page=Ranking" in address(page), 20)


def test_a_file_that_is_no_state_is_refused(page: Any, bench: Any, tmp_path: Path) -> None:
    before = opened(page, bench.url)
    path = tmp_path / "state.json"
    path.write_text('{"format": "something else"}', encoding="utf-8")
    page.locator("input[type=file][accept='.json']").set_input_files(path)
    page.get_by_text("choose a file that the workbench saved").wait_for()
    assert strip(page) == before

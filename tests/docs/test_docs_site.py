"""The documentation site: whole, and asking no other machine for anything."""

import functools
import http.server
import importlib.util
import re
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cyclopts
import pytest
from browser_support import left_the_machine

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
FETCHED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?https?:|<link\b[^>]*\bhref=[\"']?https?:"
    r"|@import\s+[\"']?https?:|url\([\"']?https?:"
)


def load_hook() -> ModuleType:
    found = importlib.util.spec_from_file_location("docs_site", ROOT / "tools" / "docs_site.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


hook = load_hook()


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def check_every_public_name_is_there(site: Path, names: list[str]) -> None:
    pages = (page.read_text("utf-8") for page in (site / "reference").glob("*.html"))
    known = {anchor for page in pages for anchor in re.findall(r'id="([^"]+)"', page)}
    assert [name for name in names if name not in known] == []


def all_names() -> list[str]:
    return [
        name
        for package in hook.PACKAGES
        for module in hook.modules(package)
        for name in hook.public_names(module)
    ]


def test_the_reference_has_every_public_name_of_the_packages(site: Path) -> None:
    names = all_names()
    assert len(names) > 500
    assert "workbench.metrics.ranking.ranking_accuracy" in names
    check_every_public_name_is_there(site, names)
    with pytest.raises(AssertionError, match="no_such_name"):
        check_every_public_name_is_there(site, [*names, "workbench.metrics.no_such_name"])


def test_every_package_but_the_app_has_its_page() -> None:
    folders = {p.parent.name for p in (ROOT / "workbench").glob("*/__init__.py")}
    assert {f"workbench.{name}" for name in folders - {"app"}} < set(hook.PACKAGES)


def test_the_reference_has_every_command(site: Path) -> None:
    from workbench.app.cli import app

    text = (site / "reference" / "command_line.html").read_text("utf-8")
    commands = [name for name in app if not name.startswith("-")]
    assert len(commands) >= 8
    assert [name for name in commands if f"workbench-{name}" not in text] == []


def test_every_notebook_is_a_page_and_no_formula_is_left_as_text(site: Path) -> None:
    for place, _ in hook.notebooks():
        page = (site / place).with_suffix(".html")
        assert page.is_file()
    for page in site.rglob("*.html"):
        text = re.sub(r"<(pre|code|script)\b.*?</\1>", "", page.read_text("utf-8"), flags=re.S)
        assert 'class="arithmatex"' not in text, page
        words = re.sub(r"<[^>]+>", "", text)
        assert not re.search(r"\\(?:frac|log|beta|pi)\b", words), page


def test_no_page_names_a_thing_to_fetch_from_elsewhere(site: Path) -> None:
    for page in [*site.rglob("*.html"), *site.rglob("*.css")]:
        text = re.sub(r"<(pre|code)\b.*?</\1>", "", page.read_text("utf-8"), flags=re.S)
        assert not FETCHED.search(text), (page, FETCHED.search(text))
    planted = '<script defer src="https://cdn.example/x.js"></script>'
    assert FETCHED.search(planted)
    assert hook._OUTSIDE.sub("", planted) == ""


@pytest.mark.browser
def test_a_browser_that_reads_and_searches_the_site_asks_no_other_machine(
    site: Path, address: str, page: Any
) -> None:
    notebooks = [str(Path(place).with_suffix(".html")) for place, _ in hook.notebooks()]
    pages = [
        "index.html",
        "explanation/quantities.html",
        "reference/workbench_metrics.html",
        *notebooks[:2],
    ]
    for place in pages:
        page.goto(address + place)
        page.locator("h1").first.wait_for()
    page.goto(address)
    page.locator("[data-md-component=search-query]").first.click()
    page.keyboard.type("distance covariance", delay=20)
    page.locator(".md-search-result__item").first.wait_for()
    page.goto(address + "explanation/quantities.html")
    assert page.locator(".formula-block svg").count() >= 5
    assert [url for url in page.recorded_requests if left_the_machine(url)] == []
    assert page.page_errors == []


def test_a_formula_that_cannot_be_drawn_is_named() -> None:
    assert "<svg" in hook.drawn(r"\frac12 \underbrace{a}_{\text{two words}}", block=False)
    with pytest.raises(ValueError, match="nosuchcommand"):
        hook.drawn(r"\nosuchcommand{x}", block=True)


def commands(texts: list[str]) -> list[str]:
    """The lines of these pages that a reader would type to run the workbench."""
    blocks = [block for text in texts for block in re.findall(r"```bash\n(.*?)```", text, re.S)]
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [m[1] for line in lines if (m := re.match(r"(?:\S*/)?workbench (.+)", line))]


def check_commands(lines: list[str]) -> None:
    from workbench.app.cli import app

    for line in lines:
        app.parse_args(shlex.split(line), exit_on_error=False, print_error=False)


def test_every_command_that_the_pages_name_can_be_run() -> None:
    texts = [path.read_text("utf-8") for path in (ROOT / "docs").rglob("*.md")]
    found = commands(texts)
    assert len(found) > 10
    check_commands(found)
    with pytest.raises(cyclopts.CycloptsError):
        check_commands(["score pairs.jsonl --no-such-option 1"])

import nbformat
import pytest

from workbench.app.notebook import VIEWS, session_notebook


@pytest.mark.parametrize("title", ["teaching", 'a "quoted" <b>title</b>\n# with lines'])
def test_a_sessions_notebook_is_valid_opens_the_session_and_shows_every_view(title: str) -> None:
    notebook = nbformat.reads(session_notebook("abcdefgh_-12", title), 4)
    nbformat.validate(notebook)
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert sources[0].endswith('bench = wb.open(session="abcdefgh_-12")')
    assert sources[1:] == [f"bench.{view}" for view in VIEWS]


def test_every_view_of_a_bench_has_its_cell() -> None:
    from workbench.bench.bench import Bench

    assert all(hasattr(Bench, view) for view in VIEWS)

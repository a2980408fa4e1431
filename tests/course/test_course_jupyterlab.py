"""A lesson in a real JupyterLab, as a student meets it: live, checked, and answered."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyterlab_support import cell, live, printed, run_all, run_cell, running_lab

from workbench.course.book import ProgressBook
from workbench.course.catalogue import find_lesson
from workbench.course.material import instructor_notebook, lesson_notebook, source, tagged
from workbench.scoring.default_model import is_ready

pytestmark = [pytest.mark.browser, pytest.mark.default_model, pytest.mark.slow]
LESSON = find_lesson(1)


def code(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in notebook["cells"] if each["cell_type"] == "code"]


CELLS = code(lesson_notebook(LESSON))
PLACES = {
    next(iter(each["metadata"].get("tags", [])), "setup"): place
    for place, each in reversed(list(enumerate(CELLS)))
}


@pytest.fixture
def lab(tmp_path: Path, browser: Any) -> Iterator[str]:
    """The cells of lesson 1; the kernel keeps its progress where this test keeps its own."""
    if not is_ready():
        pytest.skip("the default model is not on this machine")
    home = tmp_path / "lab"
    home.mkdir()
    with running_lab(home, [source(each) for each in CELLS]) as url:
        yield url


def test_a_student_runs_a_lesson_solves_an_exercise_and_answers_the_quiz(
    page: Any, lab: str
) -> None:
    run_all(page, lab)
    printed(page, len(CELLS) - 1).locator("table").wait_for(timeout=180_000)
    for place, each in enumerate(CELLS):
        wrong = cell(page, place).locator("[data-mime-type='application/vnd.jupyter.error']")
        assert wrong.count() == 0, source(each)
        if tagged(each, "check"):
            assert "still open" in printed(page, place).first.inner_text()
    live(page, PLACES["demo"]).wait_for()

    fill(page, PLACES["exercise:1.1"], solution("1.1"))
    run_cell(page, PLACES["exercise:1.1"])
    run_cell(page, PLACES["check:1.1"])
    cell(page, PLACES["check:1.1"]).get_by_text("✓ 1.1").wait_for()

    quiz = cell(page, PLACES["quiz"])
    for place, question in enumerate(LESSON.quiz):
        options = quiz.locator(".widget-radio-box").nth(place).locator("input")
        options.nth(question.letters.index(question.right)).check()
    quiz.get_by_role("button", name="Mark my answers").click()
    quiz.get_by_text("5 of 5 right.").wait_for()
    quiz.get_by_text(LESSON.quiz[0].why).wait_for()

    known = ProgressBook().read()
    assert known.of("1.1").passed
    assert known.quizzes[1].right == 5


def fill(page: Any, place: int, text: str) -> None:
    page.evaluate(
        "([i, text]) => jupyterapp.shell.currentWidget.content.widgets[i].model.sharedModel"
        ".setSource(text)",
        [place, text],
    )


def solution(name: str) -> str:
    cells = code(instructor_notebook(LESSON))
    return next(source(each) for each in cells if tagged(each, "exercise") == name)

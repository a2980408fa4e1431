"""Every exercise of every lesson, and what a student may hand in for it."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from workbench.course.catalogue import all_lessons, find_exercise, lesson_numbers
from workbench.course.judging import judge
from workbench.course.material import instructor_notebook, lesson_notebook
from workbench.course.replay import replay

SEEDS = range(20)
NAMES = [exercise.name for lesson in all_lessons() for exercise in lesson.exercises]


def answers(name: str) -> ModuleType:
    number = name.partition(".")[0]
    path = Path(__file__).parent / "answers" / f"lesson_{number}.py"
    spec = importlib.util.spec_from_file_location(f"course_answers_{number}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def draws() -> Iterator[np.random.Generator]:
    return map(np.random.default_rng, SEEDS)


@pytest.mark.parametrize("name", NAMES)
def test_two_more_right_answers_are_accepted_whatever_is_drawn(name: str) -> None:
    right = answers(name).RIGHT[name]
    assert len(right) >= 2
    for answer in right:
        for draw in draws():
            verdict = judge(find_exercise(name), answer, draw)
            assert verdict.passed, verdict


@pytest.mark.parametrize("name", NAMES)
def test_three_plausible_wrong_answers_are_refused_for_the_right_reason(name: str) -> None:
    wrong: Any = answers(name).WRONG[name]
    assert len(wrong) >= 3
    for answer, reason in wrong:
        for draw in draws():
            verdict = judge(find_exercise(name), answer, draw)
            assert verdict.status == "wrong", verdict
            assert re.search(reason, verdict.message), verdict


@pytest.mark.parametrize("lesson", all_lessons(), ids=lambda lesson: lesson.slug)
def test_the_model_solutions_are_right_and_the_stubs_are_open(
    lesson: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    for notebook, status in (
        (instructor_notebook(lesson), "right"),
        (lesson_notebook(lesson), "open"),
    ):
        found = list(replay(notebook))
        assert [
            (each.exercise, each.status, each.message) for each in found if each.status != status
        ] == []
        assert [each.exercise for each in found] == [each.name for each in lesson.exercises]


@pytest.mark.parametrize("name", NAMES)
def test_an_exercise_has_three_different_hints_and_an_insight(name: str) -> None:
    exercise = find_exercise(name)
    assert len(set(exercise.hints)) == 3
    assert exercise.insight


@pytest.mark.parametrize("lesson", all_lessons(), ids=lambda lesson: lesson.slug)
def test_a_lesson_is_whole(lesson: Any) -> None:
    assert 45 <= lesson.minutes <= 90
    assert lesson.aims
    assert len(lesson.exercises) >= 4
    assert len(lesson.quiz) == 5
    assert all(len(set(question.options)) >= 3 and question.why for question in lesson.quiz)
    assert len({question.right for question in lesson.quiz}) >= 3


def test_the_course_has_eight_lessons() -> None:
    assert lesson_numbers() == list(range(1, 9))

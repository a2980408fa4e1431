"""The lessons there are: every module `lesson_N` of this package."""

import pkgutil
import re
from importlib import import_module

from workbench import course
from workbench.course.exercise import CourseError, Exercise, Lesson


def lesson_numbers() -> list[int]:
    """Numbers of the lessons, in order."""
    names = (module.name for module in pkgutil.iter_modules(course.__path__))
    return sorted(int(found[1]) for name in names if (found := re.fullmatch(r"lesson_(\d+)", name)))


def find_lesson(number: int) -> Lesson:
    """A lesson by its number.

    Raises:
        CourseError: there is none.
    """
    numbers = lesson_numbers()
    if number not in numbers:
        raise CourseError(
            f"There is no lesson {number}; the lessons are {', '.join(map(str, numbers))}."
        )
    found: Lesson = import_module(f"workbench.course.lesson_{number}").LESSON
    return found


def all_lessons() -> list[Lesson]:
    """Every lesson, in order."""
    return [find_lesson(number) for number in lesson_numbers()]


def find_exercise(name: str) -> Exercise:
    """An exercise by its name, "1.2".

    Raises:
        CourseError: there is none.
    """
    number = str(name).partition(".")[0]
    exercises = find_lesson(int(number)).exercises if number.isdecimal() else ()
    for exercise in exercises:
        if exercise.name == str(name):
            return exercise
    known = ", ".join(exercise.name for exercise in exercises)
    cure = f"lesson {number} has {known}" if known else 'name lesson and number, as in "1.2"'
    raise CourseError(f"There is no exercise {name!r}; {cure}.")

"""The course: eight lessons with checks that test the idea.

A lesson's notebook imports four functions: `check` judges an answer on fresh inputs, `hint` goes
one step further each time, `quiz` asks five questions, and `progress` shows what is done.
"""

from workbench.course.notebook import check, hint, progress, quiz

__all__ = ["check", "hint", "progress", "quiz"]

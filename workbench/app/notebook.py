"""A notebook that opens the session of a page: the way from the served app to JupyterLab."""

import json
from typing import Any

VIEWS = ("pairs", "rewards", "ranking", "did", "fairness", "attribution", "train")


def session_notebook(session_id: str, title: str) -> str:
    """A notebook, as its file's text, whose first code opens a session and then shows each view."""
    opening = f'import workbench as wb\n\nbench = wb.open(session="{session_id}")'
    cells = [_words(f"# {title}"), _code(opening), *(_code(f"bench.{view}") for view in VIEWS)]
    numbered = [{"id": f"cell-{number}", **cell} for number, cell in enumerate(cells)]
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    whole = {"cells": numbered, "metadata": {"kernelspec": kernel}}
    return json.dumps(whole | {"nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


def _words(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def _code(text: str) -> dict[str, Any]:
    return {"cell_type": "code", "metadata": {}, "source": text, "outputs": [],
            "execution_count": None}  # fmt: skip

"""What a live view leaves in a notebook, without a browser."""

import base64
import time
from typing import Any

import ipywidgets as widgets
import numpy as np
import pytest
from browser_support import eventually

from workbench.views.export import read_export
from workbench.views.figure import Axis, Figure, Points
from workbench.views.notebook import LIVE, MARK, NotebookOutput, Still

HOSTILE = "<img src=x onerror=alert(1)>"


def figure(n: int = 3) -> Figure:
    points = Points(x=np.arange(n, dtype=float), y=np.arange(n, dtype=float))
    return Figure(HOSTILE, Axis("x"), Axis("y"), (points,))


class View:
    """A view whose still is counted."""

    def __init__(self) -> None:
        self.size, self.taken, self.blank = 3, 0, False
        self.output = NotebookOutput(
            f"A view of {HOSTILE}", widgets.VBox(), self.still, lambda: {"beta": "0.3"}
        )

    def still(self) -> Still:
        self.taken += 1
        return Still(None if self.blank else figure(self.size), f"<p>{self.size} points</p>")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def publish(
        data: Any, metadata: Any = None, display_id: str = "", update: bool = False
    ) -> None:
        held = {"data": dict(data), "metadata": dict(metadata or {})}
        found.append(held | {"display_id": display_id, "update": update})

    monkeypatch.setattr("workbench.views.notebook.publish", publish)
    monkeypatch.setattr("workbench.views.notebook.QUIET", 0.1)
    return found


def test_a_view_is_shown_as_widget_picture_and_page(sent: list[dict[str, Any]]) -> None:
    view = View()
    view.output.show()
    live, picture, page = (each["data"] for each in sent)
    assert "application/vnd.jupyter.widget-view+json" in live
    assert set(picture) == {"image/png", "text/plain"}
    assert set(page) == {"text/html", "text/plain"}
    assert f"class='workbench-page {MARK}'" in page["text/html"]
    assert LIVE in view.output._widget._dom_classes


def test_the_picture_holds_its_data_and_state(sent: list[dict[str, Any]], tmp_path: Any) -> None:
    View().output.show()
    path = tmp_path / "picture.png"
    path.write_bytes(base64.b64decode(sent[1]["data"]["image/png"]))
    found, state = read_export(path)
    assert found.title == HOSTILE
    assert state == {"beta": "0.3"}
    assert sent[1]["metadata"]["image/png"]["width"] > 500


def test_pictures_are_brought_up_to_date_where_they_are_and_once(
    sent: list[dict[str, Any]],
) -> None:
    view = View()
    view.output.show()
    view.output.show()
    names = [each["display_id"] for each in sent if each["display_id"]]
    assert len(set(names)) == 4
    view.size = 5
    for _ in range(20):
        view.output.refresh_soon()
        time.sleep(0.01)
    eventually(lambda: [e["display_id"] for e in sent if e["update"]] == names)
    assert view.taken == 3
    view.output.refresh()
    assert sum(each["update"] for each in sent) == 4, "the same picture was sent again"


def test_nothing_is_drawn_for_a_view_that_is_not_displayed(sent: list[dict[str, Any]]) -> None:
    view = View()
    view.output.refresh()
    view.output.refresh_soon()
    time.sleep(0.3)
    assert view.taken == 0
    assert sent == []


def test_a_closed_view_leaves_its_pictures_alone(sent: list[dict[str, Any]]) -> None:
    view = View()
    view.output.show()
    view.size = 5
    view.output.refresh_soon()
    view.output.close()
    time.sleep(0.3)
    assert not any(each["update"] for each in sent)


def test_without_a_figure_there_is_a_page_and_the_picture_comes_later(
    sent: list[dict[str, Any]],
) -> None:
    view = View()
    view.blank = True
    view.output.show()
    assert set(sent[1]["data"]) == {"text/plain"}
    assert "<svg" not in view.output.page()
    view.blank = False
    view.output.refresh()
    assert "image/png" in sent[3]["data"]
    assert sent[3]["display_id"] == sent[1]["display_id"]


def test_a_page_holds_the_drawing_and_no_script(sent: list[dict[str, Any]]) -> None:
    page = View().output.page()
    assert page.count("<svg") == 1
    assert "3 points" in page
    assert "<script" not in page
    assert "<img" not in page


def test_one_output_goes_to_a_front_end_that_frames_each(
    sent: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VSCODE_PID", "12")
    View().output.show()
    (only,) = sent
    assert {"text/html", "application/vnd.jupyter.widget-view+json"} <= set(only["data"])

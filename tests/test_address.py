"""Where the app shows a session, seen from a kernel and from a plain process."""

import json
import os
import webbrowser
from pathlib import Path

import pytest

from workbench import address


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JUPYTERHUB_SERVICE_PREFIX", "JPY_PARENT_PID"):
        monkeypatch.delenv(name, raising=False)


def test_outside_of_jupyter_it_is_the_plain_local_server() -> None:
    assert address.app_link() == "http://127.0.0.1:5006/"
    assert address.app_link("a b&c") == "http://127.0.0.1:5006/?session=a+b%26c"


@pytest.mark.parametrize("prefix", ["/user/ada/", "/user/ada"])
def test_under_a_hub_it_is_a_path_below_the_users_server(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", prefix)
    assert address.app_link("s1") == "/user/ada/workbench/?session=s1"


def test_a_kernel_finds_the_path_of_the_server_that_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("JPY_PARENT_PID", str(os.getpid()))
    assert address.jupyter_base_url() is None
    card = tmp_path / f"jpserver-{os.getpid()}.json"
    for spoilt in ("", "[]", "{}", "\xff"):
        card.write_text(spoilt, encoding="utf-8")
        assert address.jupyter_base_url() is None
    card.write_text(json.dumps({"base_url": "/lab/"}), encoding="utf-8")
    assert address.app_link("s1") == "/lab/workbench/?session=s1"


def test_a_notebook_is_shown_a_link_and_nothing_opens_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert address.open_in_app("s1") == opened[0] == "http://127.0.0.1:5006/?session=s1"
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/u/")
    link = address.open_in_app('"><script>')
    assert len(opened) == 1
    assert "<script>" not in link._repr_html_()
    assert 'target="_blank"' in link._repr_html_()

import pytest
from tornado.httputil import HTTPHeaders

from workbench.app.guard import Policy, judge
from workbench.app.server import ServerOptions
from workbench.errors import WorkbenchError

TOKEN = "a-long-enough-token"
OPEN = Policy.of("127.0.0.1", 5006)
CLOSED = Policy.of("0.0.0.0", 5006, ["lab.example"], TOKEN)


@pytest.mark.parametrize("host", ["127.0.0.1:5006", "localhost:5006", "[::1]:5006"])
def test_loopback_names_are_answered(host: str) -> None:
    assert judge(OPEN, "/", HTTPHeaders({"Host": host})).status == 0


@pytest.mark.parametrize(
    "host", ["evil.example:5006", "127.0.0.1", "127.0.0.1:80", "", "localhost:5006.evil"]
)
def test_other_names_are_refused(host: str) -> None:
    assert judge(OPEN, "/", HTTPHeaders({"Host": host})).status == 403


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:5006.evil.example"]
)
def test_foreign_origins_are_refused(origin: str) -> None:
    headers = HTTPHeaders({"Host": "localhost:5006", "Origin": origin})
    assert judge(OPEN, "/ws", headers).status == 403


def test_the_token_guards_every_route_and_becomes_a_cookie() -> None:
    host = {"Host": "lab.example:5006"}
    assert judge(CLOSED, "/static/js/bokeh.js", HTTPHeaders(host)).status == 401
    assert judge(CLOSED, "/?token=wrong", HTTPHeaders(host)).status == 401
    entered = judge(CLOSED, f"/?page=DID&token={TOKEN}", HTTPHeaders(host))
    assert (entered.status, entered.headers["Location"]) == (303, "/?page=DID")
    cookie = entered.headers["Set-Cookie"].split(";")[0]
    assert judge(CLOSED, "/ws", HTTPHeaders(host | {"Cookie": cookie})).status == 0


def test_the_redirect_stays_on_this_server() -> None:
    headers = HTTPHeaders({"Host": "lab.example:5006"})
    entered = judge(CLOSED, f"//evil.example/?token={TOKEN}", headers)
    assert not entered.headers["Location"].startswith("//")


def test_the_network_needs_a_token() -> None:
    with pytest.raises(WorkbenchError, match="give a token"):
        ServerOptions(address="0.0.0.0")
    with pytest.raises(WorkbenchError, match="at least 16"):
        ServerOptions(token="short")

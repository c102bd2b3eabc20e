"""What a page elsewhere, a careless click and another machine can do to a search through the dashboard: nothing."""

from __future__ import annotations

import http.client
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.main import main
from studies.config.experiment import load_experiment
from studies.dashboard.gate import allowed_hosts
from studies.dashboard.serve import dashboard_server
from studies.database.stores import Stores, open_stores
from tests.studies.small import write_experiment
from tuner.errors import InputError


class Board:
    """A served dashboard, and what its studies are."""

    def __init__(self, stores: Stores, port: int) -> None:
        self.stores = stores
        self.port = port

    def ask(
        self, method: str, path: str, body: str = "", **headers: str | None
    ) -> tuple[int, Mapping[str, str], str]:
        """Send a request as the dashboard's own page does; a header that is None is left out."""
        here = f"127.0.0.1:{self.port}"
        sent = {"Host": here, "Origin": f"http://{here}"} | headers
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.putrequest(method, path, skip_host=True)
        for name, value in sent.items():
            if value is not None:
                connection.putheader(name, value)
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body.encode())
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, dict(answer.getheaders()), text

    @property
    def studies(self) -> list[str]:
        """Names of the studies that Optuna has."""
        names = [study.study_name for study in self.stores.storage.optuna.get_all_studies()]
        assert names
        return sorted(names)


@pytest.fixture(scope="module")
def stores(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    config = write_experiment(tmp_path_factory.mktemp("board"), shared)
    assert main(["study", "create", "-q", "-c", str(config)]) == 0
    with open_stores(load_experiment(config)) as opened:
        yield opened


@contextmanager
def serving(stores: Stores, *, allow_delete: bool) -> Iterator[Board]:
    server = dashboard_server(
        stores, "127.0.0.1", 0, allowed=["lab:9000"], allow_delete=allow_delete
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Board(stores, server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def board(stores: Stores) -> Iterator[Board]:
    with serving(stores, allow_delete=False) as board:
        yield board


@pytest.fixture
def deleting_board(stores: Stores) -> Iterator[Board]:
    with serving(stores, allow_delete=True) as board:
        yield board


def test_an_address_that_is_not_this_machines_is_named(stores: Stores) -> None:
    with pytest.raises(InputError, match=r"^--host 192\.0\.2\.1: .*127\.0\.0\.1"):
        dashboard_server(stores, "192.0.2.1", 0)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.0.0.1:{port}.evil",
        "",
        None,
    ],
)
def test_a_name_that_is_not_the_dashboards_is_refused(board: Board, host: str | None) -> None:
    name = None if host is None else host.format(port=board.port)
    origin = f"http://{name}"
    assert board.ask("GET", "/api/studies", Host=name, Origin=origin)[0] == 403
    before = board.studies
    assert board.ask("DELETE", "/api/studies/1", Host=name, Origin=origin)[0] == 403
    assert board.studies == before


@pytest.mark.parametrize(
    "host", ["127.0.0.1:{port}", "LocalHost:{port}", "[::1]:{port}", "lab:9000"]
)
def test_its_own_names_and_those_given_are_answered(board: Board, host: str) -> None:
    code, headers, text = board.ask(
        "GET", "/api/studies", Host=host.format(port=board.port), Origin=None
    )
    assert code == 200
    assert "net/_blocks.2/V1/full" in text
    assert headers["Content-Security-Policy"] == "frame-ancestors 'none'"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", None, "http://127.0.0.1:1"])
def test_another_page_changes_nothing(deleting_board: Board, origin: str | None) -> None:
    before = deleting_board.studies
    note = '{"body": "seen", "version": 1}'
    assert deleting_board.ask("PUT", "/api/studies/1/note", note, Origin=origin)[0] == 403
    assert deleting_board.ask("DELETE", "/api/studies/1", "{}", Origin=origin)[0] == 403
    assert deleting_board.studies == before


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "/api/studies/1", "{}"),
        ("DELETE", "//api/studies/1", "{}"),
        ("POST", "/api/studies/1/rename", '{"study_name": "other"}'),
        ("POST", "/api/studies", '{"study_name": "other", "directions": ["minimize"]}'),
        ("POST", "/api/trials/1/tell", '{"state": "Complete", "values": [0]}'),
        ("POST", "/api/trials/1/user-attrs", '{"user_attrs": {"weights": "x"}}'),
        ("PUT", "/api/studies/1/rename/note", "{}"),
    ],
)
def test_a_click_harms_no_study(board: Board, method: str, path: str, body: str) -> None:
    before = board.studies
    code, _, text = board.ask(method, path, body)
    assert code == 403
    assert "tuner study" in text
    assert board.studies == before


def test_notes_can_be_written(board: Board) -> None:
    code, _, text = board.ask("PUT", "/api/studies/1/note", '{"body": "seen", "version": 1}')
    assert code < 300, text
    assert "seen" in board.ask("GET", "/api/studies/1")[2]


def test_deleting_is_there_for_those_who_ask_for_it(deleting_board: Board) -> None:
    before = deleting_board.studies
    code, _, text = deleting_board.ask("DELETE", "/api/studies/8", "{}")
    assert code < 300, text
    assert len(deleting_board.studies) == len(before) - 1


def test_hosts() -> None:
    assert allowed_hosts("127.0.0.1", 80)[:2] == ["127.0.0.1:80", "127.0.0.1"]
    assert "0.0.0.0:8080" not in allowed_hosts("0.0.0.0", 8080)
    assert "[fe80::1]:8080" in allowed_hosts("fe80::1", 8080)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

ATTACK = """async (address) => {
  const tried = [
    [`${address}/api/studies/1`, {method: 'DELETE', body: '{}'}],
    [`${address}/api/studies/1/rename`, {method: 'POST', mode: 'no-cors', body: '{"study_name": "x"}'}],
    [`${address}/api/studies/1/note`, {method: 'POST', mode: 'no-cors', body: '{"body": "x", "version": 1}'}],
  ];
  const seen = [];
  for (const [url, how] of tried) {
    seen.push(await fetch(url, how).then(answer => answer.status, () => 'blocked'));
  }
  return seen;
}"""
"""What a page can try."""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_in_a_browser_other_pages_change_nothing_and_its_own_deletes_if_it_may(
    board: Board, deleting_board: Board
) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    before = board.studies
    with playwright.sync_playwright() as started:
        # A hostile name that resolves to this machine, as after DNS rebinding.
        rules = "--host-resolver-rules=MAP *.example 127.0.0.1"
        browser = started.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", rules],
        )
        page = browser.new_page()
        for one, other in ((board, deleting_board), (deleting_board, board)):
            rebound = page.goto(f"http://evil.example:{one.port}/dashboard")
            assert rebound.status == 403
            page.evaluate(ATTACK, f"http://evil.example:{one.port}")
            page.goto(f"http://127.0.0.1:{other.port}/dashboard")  # another port: another's page
            page.evaluate(ATTACK, f"http://127.0.0.1:{one.port}")
            assert board.studies == before
        page.goto(f"http://127.0.0.1:{board.port}/dashboard")
        assert page.evaluate(ATTACK, "")[0] == 403
        assert board.studies == before
        page.goto(f"http://127.0.0.1:{deleting_board.port}/dashboard")
        assert page.evaluate(ATTACK, "")[0] < 300
        assert len(board.studies) == len(before) - 1
        browser.close()

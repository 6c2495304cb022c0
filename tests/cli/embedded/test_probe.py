from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from perennial_cli.embedded.part import Answers, Beat, Http, Tcp
from perennial_cli.embedded.ports import free_ports
from perennial_cli.embedded.probe import is_ready


class Page(BaseHTTPRequestHandler):
    """/<status> answers that status; /beat/<epoch seconds> tells of a heartbeat at that time; /junk is no JSON."""

    def do_GET(self) -> None:
        kind, _, rest = self.path.strip("/").partition("/")
        status, body = (int(kind), b"") if kind.isdigit() else (200, b"junk")
        if kind == "beat":
            when = datetime.fromtimestamp(float(rest), tz=UTC).isoformat()
            body = json.dumps({"scheduler": {"latest": when}, "triggerer": {"latest": None}}).encode()
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[str]:
    running = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()


@pytest.mark.parametrize(("status", "ready"), [(200, True), (302, True), (404, False), (503, False)])
def test_http_is_ready_when_the_answer_is_no_error(server: str, status: int, ready: bool) -> None:
    assert is_ready(Http(f"{server}/{status}"), started=0.0) is ready


def test_a_port_that_accepts_is_ready_and_one_that_refuses_is_not(server: str) -> None:
    assert is_ready(Tcp(int(server.rsplit(":", 1)[1])), started=0.0)
    assert not is_ready(Tcp(free_ports(1)[0]), started=0.0)
    assert not is_ready(Http(f"http://127.0.0.1:{free_ports(1)[0]}/"), started=0.0)


def test_a_heartbeat_of_an_earlier_life_does_not_count(server: str) -> None:
    now = time.time()
    beat = Beat(f"{server}/beat/{now}", ("scheduler", "latest"))
    assert is_ready(beat, started=now - 1)
    assert not is_ready(beat, started=now + 1)


@pytest.mark.parametrize("path", [("triggerer", "latest"), ("nobody", "latest"), ("scheduler", "latest", "deeper")])
def test_a_heartbeat_that_is_missing_is_not_ready(server: str, path: tuple[str, ...]) -> None:
    assert not is_ready(Beat(f"{server}/beat/{time.time()}", path), started=0.0)


def test_an_answer_that_is_no_json_is_not_a_heartbeat(server: str) -> None:
    assert not is_ready(Beat(f"{server}/junk", ("scheduler",)), started=0.0)


def test_a_command_is_ready_when_it_ends_with_zero() -> None:
    assert is_ready(Answers(("true",)), started=0.0)
    assert not is_ready(Answers(("false",)), started=0.0)
    assert not is_ready(Answers(("/no/such/program",)), started=0.0)


def test_a_proxy_in_the_environment_is_passed_by(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert is_ready(Http(f"{server}/200"), started=0.0)

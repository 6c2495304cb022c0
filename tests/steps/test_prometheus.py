"""The client of Prometheus: what it makes of every kind of answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from perennial_spec.errors import MonitoringError
from perennial_steps import prometheus as module
from perennial_steps.prometheus import Prometheus, Sample, quoted


@pytest.fixture
def answering() -> Iterator[Callable[..., Prometheus]]:
    """A server that gives the listed `(status, body)` in turn, the last one for ever."""
    servers: list[ThreadingHTTPServer] = []

    def start(*answers: tuple[int, Any]) -> Prometheus:
        left = list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                status, body = left.pop(0) if len(left) > 1 else left[0]
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode() if isinstance(body, str) else json.dumps(body).encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return Prometheus(f"http://127.0.0.1:{server.server_port}", attempts=3)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def vector(*series: tuple[dict[str, str], str]) -> dict[str, Any]:
    result = [{"metric": labels, "value": [1.5, value]} for labels, value in series]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def test_a_vector_becomes_samples_without_the_name(answering) -> None:
    client = answering((200, vector(({"__name__": "up", "job": "a"}, "1"), ({"job": "b"}, "+Inf"))))
    assert client.query("up") == [Sample({"job": "a"}, 1.0), Sample({"job": "b"}, float("inf"))]


def test_a_scalar_is_one_sample(answering) -> None:
    client = answering((200, {"status": "success", "data": {"resultType": "scalar", "result": [3, "3.25"]}}))
    assert client.now() == 3.25


def test_nothing_and_not_a_number_are_no_value(answering) -> None:
    assert answering((200, vector())).value("x") is None
    assert answering((200, vector(({}, "NaN")))).value("x") is None
    with pytest.raises(MonitoringError, match="2 series match where one was expected"):
        answering((200, vector(({"a": "1"}, "1"), ({"a": "2"}, "1")))).value("x")


def test_it_asks_again_while_prometheus_starts(answering, monkeypatch) -> None:
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    assert answering((503, "Service Unavailable"), (503, ""), (200, vector(({}, "1")))).value("x") == 1
    with pytest.raises(MonitoringError, match="HTTP 503") as caught:
        answering((503, "")).value("x")
    assert "nothing is promoted while it cannot be asked" in str(caught.value)


def test_a_prometheus_that_is_away_says_where(monkeypatch) -> None:
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    with pytest.raises(MonitoringError, match="does not answer") as caught:
        Prometheus("http://me:hidden@127.0.0.1:1").query("up")
    assert "http://127.0.0.1:1" in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (400, {"status": "error", "error": "parse error: unexpected )"}, "parse error"),
        (422, {"status": "error", "error": "many-to-many matching"}, "many-to-many"),
        (200, "<html>a proxy</html>", "refused the query"),
        (404, "not here", "HTTP 404"),
        (200, {"status": "success", "data": {"resultType": "matrix", "result": []}}, "instant vector or a scalar"),
        (200, {"status": "success"}, "instant vector or a scalar"),
        (200, {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}}]}}, "instant vector"),
    ],
)
def test_an_answer_that_is_not_a_success_is_an_error(answering, status: int, body: Any, says: str) -> None:
    with pytest.raises(MonitoringError) as caught:
        answering((status, body)).query("up)")
    assert says in str(caught.value)
    assert "up)" in caught.value.where


def test_only_addresses_of_servers_are_taken() -> None:
    with pytest.raises(MonitoringError, match="not the address"):
        Prometheus("localhost:9090")


def test_label_values_cannot_leave_their_quotes() -> None:
    assert quoted('a"} or vector(1) #\\\n') == '"a\\"} or vector(1) #\\\\\\n"'

"""What no client should send, over a bare socket: always an answer that says what is wrong, or an end, and never anybody else's trouble."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

COLUMNS = ["flight_id", "departure", "distance", "stops", "direct", "carrier"]


def split(rows: list[list[Any]], columns: list[str] | None = None) -> bytes:
    return json.dumps({"dataframe_split": {"columns": columns or COLUMNS, "data": rows}}).encode()


def cells(row: dict[str, Any]) -> list[Any]:
    return [row[name] for name in COLUMNS]


def post(body: bytes, path: str = "/invocations", *headers: str) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: x",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Line:
    """A bare connection."""

    def __init__(self, server: Any) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self._left = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers, body of the next response."""
        while b"\r\n\r\n" not in self._left:
            self._left += self._more()
        head, _, self._left = self._left.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:])}
        length = int(headers.get("content-length", 0))
        while len(self._left) < length:
            self._left += self._more()
        body, self._left = self._left[:length], self._left[length:]
        return int(lines[0].split()[1]), headers, body

    def ended(self) -> bool:
        return not self.socket.recv(1)

    def _more(self) -> bytes:
        data = self.socket.recv(65536)
        assert data, "the connection ended"
        return data


@pytest.fixture
def line(one: Any) -> Iterator[Line]:
    made = Line(one)
    yield made
    made.socket.close()


# -- both ways through the server --


def test_the_short_way_and_the_general_way_give_the_same_answers(one: Any, row: Any) -> None:
    rows = [
        {**row, "distance": distance, "carrier": carrier, "departure": departure}
        for distance in (None, 0, 1e-320, 750.25, 1.7976931348623157e308, -5)
        for carrier in ("UA", None, "new", "ä\u2028")
        for departure in (None, "2013-06-01T05:15:00Z", "2013-06-01T07:15:00.250+02:00", "1969-12-31 23:59:59")
    ]
    forms = [
        {"dataframe_split": {"columns": COLUMNS, "data": [cells(each) for each in rows]}},
        {"dataframe_records": rows},
        {"inputs": {name: [each[name] for each in rows] for name in row}},
    ]
    answers = []
    for form in forms:
        for headers in ({}, {"X-Perennial-Version": "1"}):  # a header of ours is for the general way
            answer = one.http.post("/invocations", json=form, headers=headers)
            assert answer.status_code == 200
            answers.append(answer.json()["predictions"])
    assert all(answer == answers[0] for answer in answers)
    singly = [
        one.http.post("/invocations", json={"dataframe_records": [each]}).json()["predictions"][0] for each in rows
    ]
    assert singly == answers[0]


def test_a_row_that_fails_costs_nobody_else_an_answer(pipeline: Any, bundles: Any, serve: Any, row: Any) -> None:
    pipeline.route({pipeline.register(bundles["fragile"]): 1.0})
    server = serve(pipeline)
    good, bad = split([cells(row)]), split([cells({**row, "distance": 666.0})])
    wrong = split([cells({**row, "stops": "many"})])
    lines = [Line(server) for _ in range(24)]
    for _ in range(5):
        for place, line in enumerate(lines):
            line.send(post((good, bad, wrong)[place % 3]))
        found = [line.answer() for line in lines]
        assert [status for status, _, _ in found] == [(200, 500, 400)[place % 3] for place in range(24)]
        assert len({body[:40] for status, _, body in found if status == 200}) == 1
    for line in lines:
        line.socket.close()
    counted = server.counters(pipeline.name, "1").counted.requests
    assert (counted["mlflow", 200], counted["mlflow", 500], counted["mlflow", 400]) == (40, 40, 40)


def test_answers_come_in_the_order_of_the_requests(line: Line, row: Any) -> None:
    good, wrong = post(split([cells(row)])), post(b"{}")
    many = post(split([cells(row)] * 200))
    line.send(good + wrong + good)
    line.send(good)
    time.sleep(0.05)
    line.send(many + good)
    line.send(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n" + good)
    assert [line.answer()[0] for _ in range(8)] == [200, 400, 200, 200, 200, 200, 200, 200]


def test_a_request_may_come_in_pieces(line: Line, row: Any) -> None:
    data = post(split([cells(row)]))
    for at in range(0, len(data), 37):
        line.send(data[at : at + 37])
        time.sleep(0.002)
    assert line.answer()[0] == 200
    line.send(data)
    assert line.answer()[0] == 200


def test_who_has_sent_all_still_gets_the_answer(line: Line, row: Any) -> None:
    line.send(post(split([cells(row)])) + post(b'{"dataframe_records": [' + json.dumps(row).encode() + b"]}"))
    line.socket.shutdown(socket.SHUT_WR)
    assert [line.answer()[0], line.answer()[0]] == [200, 200]
    assert line.ended()


def test_half_a_request_and_an_end_is_no_request(line: Line) -> None:
    line.send(post(b"{}")[:60])
    line.socket.shutdown(socket.SHUT_WR)
    assert line.ended()


# -- what is no HTTP, or too much of it --


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"POST /invocations HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /invocations HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"POST /invocations HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /\xff HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_what_is_no_http_is_answered_and_ended(line: Line, data: bytes) -> None:
    line.send(data)
    status, headers, body = line.answer()
    assert (status, headers["connection"]) == (400, "close")
    assert set(json.loads(body)) >= {"error", "message"}
    assert line.ended()


def test_endless_headers_are_cut_off(line: Line) -> None:
    line.send(b"POST /invocations HTTP/1.1\r\n")
    status = 0
    for _ in range(100):
        try:
            line.send(b"X-Noise: " + b"x" * 1000 + b"\r\n")
        except OSError:
            break
    status, _, body = line.answer()
    assert status == 431
    assert "16,384 bytes" in json.loads(body)["message"]


def test_a_slow_client_is_let_go_and_holds_up_nobody(
    pipeline: Any, bundles: Any, serve: Any, row: Any, wait: Any
) -> None:
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    server = serve(pipeline, request_timeout_seconds=1.0)
    slow = [Line(server) for _ in range(20)]
    began = time.monotonic()
    for place, line in enumerate(slow):
        line.send(post(split([cells(row)]))[: 30 + 10 * place])
    assert server.http.post("/invocations", json={"dataframe_records": [row]}).status_code == 200
    for line in slow:
        status, headers, body = line.answer()
        assert (status, headers["connection"]) == (408, "close")
        assert "whole in 1 s" in json.loads(body)["message"]
        assert line.ended()
    assert 0.9 < time.monotonic() - began < 5
    wait(lambda: not server._server.server_state.tasks, 5)


def test_connections_beyond_the_limit_are_told_to_come_back(pipeline: Any, bundles: Any, serve: Any, row: Any) -> None:
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    server = serve(pipeline, max_connections=5)
    server.http.close()
    time.sleep(0.2)
    lines = [Line(server) for _ in range(5)]
    for line in lines:
        line.send(post(split([cells(row)])))
        assert line.answer()[0] == 200
    late = Line(server)
    status, headers, _ = late.answer()
    assert (status, headers["retry-after"]) == (503, "1")
    assert late.ended()
    lines.pop().socket.close()
    time.sleep(0.2)
    again = Line(server)
    again.send(post(split([cells(row)])))
    assert again.answer()[0] == 200
    server.http = httpx.Client(base_url=server.url, timeout=30)


# -- bodies --


def test_a_packed_body_is_read_and_a_bomb_is_not(one: Any, row: Any) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}

    def ask(body: bytes, **more: str) -> Any:
        return one.http.post("/invocations", content=body, headers={**headers, **more})

    assert ask(gzip.compress(split([cells(row)]))).status_code == 200
    bomb = ask(gzip.compress(b" " * 50 * 2**20))
    assert (bomb.status_code, bomb.json()["error_code"]) == (413, "REQUEST_LIMIT_EXCEEDED")
    for broken, what in (
        (b"no gzip", "is not gzip"),
        (gzip.compress(split([cells(row)]))[:-9], "breaks off"),
        (gzip.compress(b"{}") + b"more", "follows it"),
        (b"", "breaks off"),
    ):
        answer = ask(broken)
        assert answer.status_code == 400 and what in answer.json()["message"]
    answer = ask(b"x", **{"Content-Encoding": "br"})
    assert answer.status_code == 415 and "'br'" in answer.json()["message"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[" * 100_000, 400),
        (b'{"dataframe_split":' + b'{"columns":' * 2000, 400),
        (b'{"dataframe_split":{"columns":["distance"],"data":' + b"[" * 5000 + b"]" * 5000 + b"}}", 400),
        (b'{"dataframe_split":{"columns":["distance"],"data":[[NaN]]}}', 400),
        (b'{"dataframe_split":{"columns":["distance"],"data":[[Infinity]]}}', 400),
        (b'{"dataframe_split":{"columns":["distance"],"data":[[1e400]]}}', 400),
        (b'{"dataframe_split":{"columns":["distance","distance"],"data":[[1,2]]}}', 400),
        (b'{"dataframe_split":{"columns":[],"data":[[]]}}', 400),
        (b'{"dataframe_split":{"columns":["distance"],"data":[]}}', 400),
        (b'{"dataframe_split":{"columns":["distance"],"data":[[1],[1,2]]}}', 400),
        (b'{"dataframe_split":{"columns":["distance"],"data":[[1]],"data":[[2]]}}', 400),
        (b'{"dataframe_split":{"columns":["\xff"],"data":[[1]]}}', 400),
        (b'{"dataframe_records":[{"distance":"\\ud800"}]}', 400),
        (b'{"dataframe_records":[' + b"{}," * 10_000 + b"{}]}", 413),
        (b'{"dataframe_records":[{}]} trailing', 400),
        (b" " * (9 * 2**20), 413),
    ],
    ids=range(17),
)
def test_a_hostile_body_is_answered_with_its_fault(one: Any, body: bytes, status: int) -> None:
    answer = one.http.post("/invocations", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert answer.json()["message"]
    assert one.http.get("/v2/health/live").status_code == 200


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
rows_like = st.lists(st.lists(json_values, max_size=7) | json_values, max_size=3)
bodies = st.one_of(
    st.binary(max_size=200),
    json_values.map(lambda value: json.dumps(value).encode()),
    rows_like.map(split),  # type: ignore[arg-type]
    st.builds(lambda names, rows: split(rows, names), st.lists(st.sampled_from(COLUMNS), max_size=6), rows_like),  # type: ignore[arg-type]
    st.dictionaries(st.sampled_from([*COLUMNS, "x"]), json_values).map(
        lambda record: json.dumps({"dataframe_records": [record]}).encode()
    ),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies, path=st.sampled_from(["/invocations", "/v2/models/flights/infer", "/feedback", "/explain"]))
def test_no_body_makes_the_server_fail(one: Any, body: bytes, path: str) -> None:
    answer = one.http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {200, 400, 413}
    assert answer.json()


def test_counters_are_right_after_all_that(pipeline: Any, bundles: Any, serve: Any, row: Any) -> None:
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    server = serve(pipeline)

    def ask(place: int) -> int:
        body = split([cells(row)] * (place % 5 + 1)) if place % 4 else b"{}"
        return httpx.post(
            f"{server.url}/invocations", content=body, headers={"Content-Type": "application/json"}, timeout=30
        ).status_code

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(200)))
    assert found.count(200) == 150
    rows = sum(place % 5 + 1 for place in range(200) if place % 4)
    counted = server.counters(pipeline.name, "1")
    assert counted.rows == rows
    assert counted.counted.requests["mlflow", 200] == sum(counted.counted.latency) == 150
    server.flushed()
    assert server.parts.prediction_log.written[pipeline.name] == rows

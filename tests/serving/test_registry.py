"""What stands where the registry should be: whatever it answers, a look ends in time, costs little, and says what was wrong."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perennial_serving.pace import Pace
from perennial_serving.registry import Registry
from perennial_serving.settings import Settings
from perennial_spec import names
from perennial_spec.errors import ModelError, RegistryError
from perennial_spec.route import Route

Speak = Callable[[socket.socket], None]
ROUTED = {
    "name": "p",
    "tags": [{"key": names.TAG_ROUTE, "value": Route(revision=1, weights={"1": 1.0}).model_dump_json()}],
}


class Stranger:
    """A listener that reads each request's head, and then does what it was made to do."""

    def __init__(self, speak: Speak) -> None:
        self.speak = speak
        self.connections = 0
        self.heads: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._carry, args=(sock,), daemon=True).start()

    def _carry(self, sock: socket.socket) -> None:
        with sock:
            try:
                while head := _head(sock):
                    self.heads.append(head)
                    self.speak(sock)
            except OSError:
                return


def _head(sock: socket.socket) -> bytes:
    found = b""
    while not found.endswith(b"\r\n\r\n"):
        data = sock.recv(65536)
        if not data:
            return b""
        found += data
    return found


def answer(body: bytes, status: str = "200 OK", extra: str = "") -> Speak:
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{extra}\r\n".encode()
    return lambda sock: sock.sendall(head + body)


def tell(value: Any) -> Speak:
    return answer(json.dumps(value).encode())


@pytest.fixture
def stranger() -> Iterator[Callable[[Speak], Stranger]]:
    made: list[Stranger] = []

    def make(speak: Speak) -> Stranger:
        made.append(Stranger(speak))
        return made[-1]

    yield make
    for each in made:
        each.close()


def endless(sock: socket.socket) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n")
    while True:
        sock.sendall(b" " * 2**20)


def slow_head(sock: socket.socket) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\nx: ")
    while True:
        sock.sendall(b"a")
        time.sleep(0.02)


def slow_body(sock: socket.socket) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    while True:
        sock.sendall(b" ")
        time.sleep(0.02)


def silent(sock: socket.socket) -> None:
    time.sleep(3)


def half(sock: socket.socket) -> None:
    sock.sendall(b'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"registered')
    sock.close()


PACKED = "content-encoding: gzip\r\n"
BOMB = gzip.compress(b" " * 2**26)


@pytest.mark.parametrize(
    ("speak", "words"),
    [
        (endless, "a larger answer than can be"),
        (answer(BOMB, extra=PACKED), "a larger answer than can be"),
        (slow_head, "nothing whole within 0.5 s"),
        (slow_body, "nothing whole within 0.5 s"),
        (silent, "Timeout|nothing whole"),
        (half, "RemoteProtocolError"),
        (answer(gzip.compress(b"{}")[:-4], extra=PACKED), "error"),
        (answer(b"no gzip", extra=PACKED), "error"),
        (answer(b"<html>sign in</html>"), "no JSON of MLflow's"),
        (answer(b"[" * 100_000), "no JSON of MLflow's"),
        (tell([]), "no JSON of MLflow's"),
        (tell({"registered_models": 1}), "no JSON of MLflow's"),
        (tell({"registered_models": ["x"]}), "no JSON of MLflow's"),
        (tell({"registered_models": [{"name": "p", "aliases": [{}]}]}), "no JSON of MLflow's"),
        (tell({"registered_models": [], "next_page_token": "again"}), "more than 20 pages"),
        (answer(b"", "302 Found", "location: http://127.0.0.1:1/\r\n"), "HTTP 302"),
        (answer(b"busy", "503 Service Unavailable"), "HTTP 503"),
    ],
)
def test_what_is_no_registry_is_an_error_in_time(stranger: Any, speak: Speak, words: str) -> None:
    registry = Registry(stranger(speak).url, 0.5)
    start = time.monotonic()
    with pytest.raises(RegistryError, match=words) as caught:
        registry.routed()
    assert time.monotonic() - start < 2
    assert "perennial status" in caught.value.next
    registry.close()


def test_a_registry_that_is_away_says_what_to_do() -> None:
    with pytest.raises(RegistryError, match="perennial status"):
        Registry("http://127.0.0.1:1", 0.5).routed()


def test_an_error_ends_with_it(stranger: Any) -> None:
    """After a hostile answer the next is read as if nothing had been."""
    other = stranger(endless)
    registry = Registry(other.url, 5)
    with pytest.raises(RegistryError):
        registry.routed()
    other.speak = tell({"registered_models": [ROUTED]})
    assert [listing.name for listing in registry.routed()] == ["p"]


def test_an_answer_that_is_the_same_is_not_read_again(stranger: Any) -> None:
    other = stranger(tell({"registered_models": [ROUTED]}))
    registry = Registry(other.url, 5)
    first = registry.routed()
    assert registry.routed() is first
    # Something else has changed: what is read is the same.
    other.speak = tell({"registered_models": [{**ROUTED, "last_updated_timestamp": 7}]})
    assert registry.routed() is first
    other.speak = tell(
        {"registered_models": [{**ROUTED, "aliases": [{"alias": names.ALIAS_CHAMPION, "version": "1"}]}]}
    )
    assert registry.routed()[0].champion == "1"
    # All of it over one connection.
    assert other.connections == 1
    registry.close()


def test_pages_are_read_one_by_one_and_only_those_that_have_changed(stranger: Any) -> None:
    pages = {name: {"registered_models": [{**ROUTED, "name": name}], "next_page_token": "b"} for name in "ab"}
    del pages["b"]["next_page_token"]

    def speak(sock: socket.socket) -> None:
        tell(pages["b" if b"page_token=b" in other.heads[-1] else "a"])(sock)

    other = stranger(speak)
    registry = Registry(other.url, 5)
    a, b = registry.routed()
    assert (a.name, b.name) == ("a", "b")
    pages["b"] = {"registered_models": []}
    (kept,) = registry.routed()
    assert kept is a
    registry.close()


def test_gzip_is_asked_for_and_read(stranger: Any) -> None:
    body = gzip.compress(json.dumps({"registered_models": [ROUTED]}).encode())
    other = stranger(answer(body, extra=PACKED))
    assert Registry(other.url, 5).routed()[0].name == "p"
    assert b"accept-encoding: gzip\r\n" in other.heads[0].lower()


def test_a_connection_that_was_closed_while_nobody_used_it_is_no_failure(stranger: Any) -> None:
    def once(sock: socket.socket) -> None:
        tell({"registered_models": [ROUTED]})(sock)
        if len(other.heads) % 2 == 0:  # reads the next request, and ends without an answer
            _head(sock)
            sock.close()

    other = stranger(once)
    registry = Registry(other.url, 5)
    for _ in range(6):
        assert len(registry.routed()) == 1
    assert other.connections > 1
    registry.close()


def test_only_the_pipeline_that_is_served_is_asked_for(pipeline: Any, mlflow: Any, bundles: Any) -> None:
    other = type(pipeline)(f"{pipeline.name}-b", mlflow)
    mlflow.create(other.name)
    for each in (pipeline, other):
        each.route({})
    assert {pipeline.name, other.name} <= {listing.name for listing in Registry(mlflow.url, 30).routed()}
    assert [each.name for each in Registry(mlflow.url, 30, [pipeline.name]).routed()] == [pipeline.name]
    both = Registry(mlflow.url, 30, [pipeline.name, other.name]).routed()
    assert {pipeline.name, other.name} <= {listing.name for listing in both}


def test_a_call_is_cut_from_another_thread(stranger: Any) -> None:
    registry = Registry(stranger(slow_head).url, 60)
    threading.Timer(0.3, registry.cut).start()
    start = time.monotonic()
    with pytest.raises(RegistryError):
        registry.routed()
    with pytest.raises(RegistryError):
        registry.routed()
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "..", ""])
def test_a_bundle_cannot_write_outside_its_folder(stranger: Any, tmp_path: Path, name: str) -> None:
    other = stranger(tell({"files": [{"path": name}]}))
    with pytest.raises(ModelError, match="lists a file named"):
        Registry(other.url, 5).download("mlflow-artifacts:/a", tmp_path, 100, 5)


@pytest.mark.parametrize(
    ("files", "words"),
    [([], "is empty"), ([{"path": "d", "is_dir": True}], "holds too much"), ([{"path": "x"}], "is too large")],
)
def test_a_bundle_that_cannot_be_one_is_refused(stranger: Any, tmp_path: Path, files: Any, words: str) -> None:
    other = stranger(tell({"files": files}))
    with pytest.raises(ModelError, match=words):
        Registry(other.url, 5).download("mlflow-artifacts:/a", tmp_path, 5, 30)


def test_a_bundle_that_comes_too_slowly_is_no_verdict_on_it(stranger: Any, tmp_path: Path) -> None:
    def speak(sock: socket.socket) -> None:
        slow_body(sock) if len(other.heads) > 1 else tell({"files": [{"path": "x"}]})(sock)

    other = stranger(speak)
    with pytest.raises(RegistryError, match="nothing whole within"):
        Registry(other.url, 5).download("mlflow-artifacts:/a", tmp_path, 2**30, 0.5)


def test_looks_are_spread_out_and_rarer_while_the_registry_is_away_or_slow() -> None:
    pace = Pace(Settings(poll_seconds=4, poll_jitter=0.25, poll_max_seconds=60))
    usual = [pace.answered(0.01) for _ in range(200)]
    assert 4 <= min(usual) < 4.2
    assert 4.8 < max(usual) <= 5
    assert pace.answered(2) == 20
    assert pace.answered(100) == 60
    bounds = [[Pace.failed(pace) for _ in range(8)] for _ in range(200) if pace.answered(0)]
    for failures, bound in enumerate([8, 16, 32, 60, 60]):
        waits = [each[failures] for each in bounds]
        assert 4 <= min(waits) < 4 + bound / 8
        assert bound * 7 / 8 < max(waits) <= bound
    assert pace.answered(0) <= 5


def test_a_bound_below_the_usual_wait_makes_no_look_more_frequent() -> None:
    pace = Pace(Settings(poll_seconds=4, poll_jitter=0.5, poll_max_seconds=1))
    assert min(pace.failed() for _ in range(50)) >= 4

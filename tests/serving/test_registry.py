"""What stands where the registry should be: whatever it answers, a look ends in time, costs little, and says what was wrong."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from strangers import Speak, Stranger, answer, head_of, tell

from perennial_serving.registry import Registry
from perennial_spec import names
from perennial_spec.errors import ModelError, RegistryError
from perennial_spec.route import Route

ROUTED = {
    "name": "p",
    "tags": [{"key": names.TAG_ROUTE, "value": Route(revision=1, weights={"1": 1.0}).model_dump_json()}],
}


@pytest.fixture
def stranger() -> Iterator[Callable[[Speak], Stranger]]:
    made: list[Stranger] = []

    def make(speak: Speak, tls: ssl.SSLContext | None = None) -> Stranger:
        made.append(Stranger(speak, tls))
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


def test_behind_tls_a_call_ends_in_time_too(stranger: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=registry"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    other = stranger(tell({"registered_models": [ROUTED]}), tls)
    registry = Registry(other.url, 0.5)
    assert len(registry.routed()) == 1
    other.speak = slow_head
    start = time.monotonic()
    with pytest.raises(RegistryError, match="nothing whole within"):
        registry.routed()
    assert time.monotonic() - start < 2
    other.speak = tell({"registered_models": []})
    assert registry.routed() == ()


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
            head_of(sock)
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

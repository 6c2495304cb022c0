"""The gRPC port as an operator meets it: counters, failures, keys, TLS, and its end."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import tritonclient.grpc as triton
from grpc_speaking import arrays, calling, contents, free_port, refused, speaking
from tritonclient.grpc import service_pb2 as theirs
from tritonclient.utils import InferenceServerException

from perennial_serving.grpc_server import GrpcServer
from perennial_spec.errors import PlatformError


@pytest.fixture(scope="module")
def spoken(one: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with speaking(one, tmp_path_factory.mktemp("grpc")) as server:
        yield server


@pytest.fixture(scope="module")
def client(spoken: Any) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{spoken.settings.grpc_port}") as made:
        yield made


@pytest.fixture(scope="module")
def call(spoken: Any) -> Iterator[Callable[..., Any]]:
    with calling(spoken.settings.grpc_port) as made:
        yield made


def test_calls_are_counted_as_those_over_http_are(call: Any, client: Any, spoken: Any, row: Any) -> None:
    before = spoken.metrics()

    def grown(**labels: str) -> float:
        named = {"pipeline": spoken.name, "protocol": "grpc", **labels}
        wanted = [f'{key}="{value}"' for key, value in named.items()]
        now = spoken.metrics()
        mine = [name for name in now if name.startswith("perennial_requests_total") and all(w in name for w in wanted)]
        return sum(now[name] - before.get(name, 0) for name in mine)

    client.infer(spoken.name, arrays([row]))
    refused("INVALID_ARGUMENT", lambda: call("ModelInfer", theirs.ModelInferRequest(model_name=spoken.name)))
    refused("INVALID_ARGUMENT", lambda: client.infer(spoken.name, arrays([{**row, "stops": 1.5}])))
    refused("NOT_FOUND", lambda: client.infer("nobody", arrays([row])))
    refused("INVALID_ARGUMENT", lambda: call("ModelInfer", b"\xff"))
    assert grown(version="1", code="200") == 1
    assert grown(version="", code="400") == 1
    assert grown(version="1", code="400") == 1
    assert grown(pipeline="", code="404") == 1
    assert grown(pipeline="", code="400") == 1


def test_a_version_that_fails_is_blamed_without_a_word_of_the_request(
    pipeline: Any, bundles: Any, serve: Any, row: Any, caplog: Any
) -> None:
    pipeline.route({pipeline.register(bundles["fragile"]): 1.0})
    server = serve(pipeline, grpc_port=free_port())
    with (
        triton.InferenceServerClient(f"127.0.0.1:{server.settings.grpc_port}") as client,
        caplog.at_level(logging.ERROR),
    ):
        sent = arrays([{**row, "distance": 666.0, "carrier": "secret"}])
        for _ in range(3):
            details = refused("INTERNAL", lambda: client.infer(pipeline.name, sent))
        assert details.startswith(f"version 1 of {pipeline.name} failed: ValueError at features.py:")
        assert client.infer(pipeline.name, arrays([row])).as_numpy("score").shape == (1,)
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(said) == 1
    assert "secret" not in said[0]
    assert server.counters(pipeline.name, "1").counted.requests["grpc", 500] == 3


def test_a_pipeline_without_traffic_is_not_ready_and_says_when_to_come_back(
    pipeline: Any, bundles: Any, serve: Any, row: Any
) -> None:
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    server = serve(pipeline, grpc_port=free_port())
    pipeline.route({})
    server.until_revision(pipeline)
    with triton.InferenceServerClient(f"127.0.0.1:{server.settings.grpc_port}") as client:
        assert not client.is_model_ready(pipeline.name)
    with grpc.insecure_channel(f"127.0.0.1:{server.settings.grpc_port}") as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            infer(contents([row], pipeline.name).SerializeToString(), timeout=20)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"


class Loop:
    """An event loop in a thread, for gRPC servers beside the one that is shared."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(30)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)


@pytest.fixture
def listening(spoken: Any) -> Iterator[Callable[..., Any]]:
    """Start another gRPC port of the shared server."""
    loop, started = Loop(), []

    async def make(port: int, options: Any) -> GrpcServer:
        server = GrpcServer(spoken.parts.app, port, **options)
        await server.start()
        return server

    def start(port: int = 0, **options: Any) -> Any:
        server = loop.run(make(port, options))
        started.append(server)
        return server

    yield start
    for server in started:
        loop.run(server.stop(1.0))
    loop.close()


def test_calls_without_a_valid_key_are_refused_and_health_stays_open(listening: Any, spoken: Any) -> None:
    server = listening(authorize=lambda metadata: metadata.get("authorization") == "Bearer right")
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(spoken.name, headers={"authorization": "Bearer right"})
        for headers in ({}, {"authorization": "Bearer wrong"}):
            ask = partial(client.get_model_metadata, spoken.name, headers=headers)
            assert "x-api-key" in refused("UNAUTHENTICATED", ask)


def test_a_port_that_is_taken_is_named_unless_it_is_shared(listening: Any, spoken: Any) -> None:
    taken = listening(shared=True).port
    with pytest.raises(PlatformError, match=f"127.0.0.1:{taken} for gRPC") as caught:
        listening(port=taken)
    assert "PERENNIAL_GRPC_PORT" in str(caught.value)
    assert listening(port=taken, shared=True).port == taken


def test_tls_is_spoken_with_the_given_credentials(listening: Any, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    server = listening(credentials=credentials)
    with triton.InferenceServerClient(
        f"localhost:{server.port}", ssl=True, root_certificates=str(certificate)
    ) as client:
        assert client.is_server_live()
    with triton.InferenceServerClient(f"localhost:{server.port}") as client, pytest.raises(InferenceServerException):
        client.is_server_live(client_timeout=5)


def test_the_end_waits_for_calls_that_are_under_way_and_sends_others_elsewhere(
    pipeline: Any, bundles: Any, serve: Any, row: Any
) -> None:
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    # The log's writer runs only when nobody else wants the processor: on a busy machine it needs its time at the end.
    server = serve(pipeline, grpc_port=free_port(), shutdown_seconds=60.0)
    answers, stopped = [], threading.Event()
    with triton.InferenceServerClient(f"127.0.0.1:{server.settings.grpc_port}") as client:

        def ask() -> None:
            while True:
                try:
                    answers.append(client.infer(pipeline.name, arrays([row])).as_numpy("score").shape)
                except InferenceServerException as error:
                    answers.append(f"{error.status()}: {error.message()}")
                    return

        thread = threading.Thread(target=ask)
        thread.start()
        while len(answers) < 20:
            stopped.wait(0.01)
        server.stop()
        thread.join(30)
    assert set(answers[:-1]) == {(1,)}
    assert answers[-1].startswith("StatusCode.UNAVAILABLE: the server is about to end")
    log = server.parts.prediction_log
    assert (log.written[pipeline.name], log.dropped[pipeline.name], log.waiting) == (len(answers) - 1, 0, 0)

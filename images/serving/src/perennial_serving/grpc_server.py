"""Open Inference Protocol over gRPC: the same pipelines, engine and counters as over HTTP, on the same event loop.

Imported only when a port is configured: gRPC takes memory and threads that nobody else needs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError, Message

from perennial_serving import grpc_codec
from perennial_serving.app import SERVER
from perennial_serving.engine import Blamed
from perennial_serving.refusals import NotParsed, NotReady, sentence, status_of
from perennial_serving.wire import inference_pb2 as wire
from perennial_spec.errors import PerennialError, PlatformError, RequestError

if TYPE_CHECKING:
    from perennial_serving.app import App
    from perennial_serving.fleet import Served
    from perennial_serving.model import LoadedModel

log = logging.getLogger(__name__)
SERVICE = "inference.GRPCInferenceService"
PROTOCOL = "grpc"
"""In the counters; their codes are those that HTTP would answer with, so that one rule judges both."""
VERSION_KEY = "x-perennial-version"
ID_KEY = "x-perennial-prediction-id"
"""Only when the request has one row."""
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_PUSHBACK = ("grpc-retry-pushback-ms", "1000")
"""What Retry-After is over HTTP: clients with a retry policy wait so long."""
_LAST_SECONDS = 0.5
"""At the end, predictions are refused for so long before the port is closed."""
_MAX_DETAILS = 2000
"""Characters of a message: it travels in the trailers, and clients accept 8 KiB of those."""

Authorize = Callable[[Mapping[str, str | bytes]], bool]
"""Whether a call with this metadata may be answered."""
Trailers = list[tuple[str, str]]
Context = Any
"""grpc.aio.ServicerContext, which has no types."""


class Failed(Exception):
    """A call that ends with a status other than OK."""

    def __init__(self, status: int, details: str, trailers: Trailers | None = None) -> None:
        super().__init__(status)
        self.code = _CODES.get(status, grpc.StatusCode.INTERNAL)
        self.details = details if len(details) <= _MAX_DETAILS else details[: _MAX_DETAILS - 3] + "..."
        self.trailers = (*(trailers or ()), *((_PUSHBACK,) if status in {429, 503} else ()))


class GrpcServer:
    """The gRPC port of a model server.

    Args:
        app: whose fleet, engine and counters answer.
        port: 0 takes a free one.
        credentials: for TLS, from `grpc.ssl_server_credentials`; None: in clear.
        authorize: asked for every call but ServerLive and ServerReady; None: all may call.
        shared: several processes listen on the port, and the system spreads the connections. A port that someone else has taken
            is then no error.
    """

    def __init__(
        self,
        app: App,
        port: int,
        *,
        credentials: Any = None,
        authorize: Authorize | None = None,
        shared: bool = False,
    ) -> None:
        self.app = app
        self.port = port
        """After `start`, the port that is listened on."""
        self._credentials = credentials
        self._authorize = authorize
        self._shared = shared
        self._server: Any = None
        self._ending = False

    async def start(self) -> int:
        """Listen, on the running event loop. The port.

        Raises:
            PlatformError: the port is taken.
        """
        settings = self.app.predictions.settings
        server = grpc.aio.server(
            maximum_concurrent_rpcs=settings.max_connections,
            options=[
                ("grpc.max_receive_message_length", settings.max_body_bytes),  # as received, and decompressed
                ("grpc.max_send_message_length", -1),  # our own answers: `max_rows` bounds them
                ("grpc.so_reuseport", int(self._shared)),
            ],
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._methods()),))
        address = f"[{settings.host}]:{self.port}" if ":" in settings.host else f"{settings.host}:{self.port}"
        try:
            secure = self._credentials is not None
            self.port = (
                server.add_secure_port(address, self._credentials) if secure else server.add_insecure_port(address)
            )
        except RuntimeError:  # grpc says no more than that it failed
            raise PlatformError(
                f"the model server cannot listen on {address} for gRPC",
                expected="a free port, and an address of this machine",
                next="end what uses it, or set PERENNIAL_GRPC_PORT",
            ) from None
        await server.start()
        self._server = server
        log.info("listening for gRPC on %s:%s", settings.host, self.port)
        return self.port

    async def stop(self, grace: float) -> None:
        """Take no new calls, and wait at most `grace` seconds for those under way.

        gRPC itself tells a call that meets the closing port CANCELLED, which clients take for their own doing and do not repeat
        elsewhere. So those who go on asking are first told UNAVAILABLE, and when to come back; unless another process takes this one's
        place on the port: then clients had better leave at once, and find it there.
        """
        if self._server is not None:
            if not self.app.fleet.replaced:
                self._ending = True
                await asyncio.sleep(min(_LAST_SECONDS, grace))
            await self._server.stop(grace)
            self._server = None

    def _methods(self) -> dict[str, Any]:
        return {
            "ServerLive": self._method(wire.ServerLiveRequest, self._live, open_to_all=True),
            "ServerReady": self._method(wire.ServerReadyRequest, self._ready, open_to_all=True),
            "ModelReady": self._method(wire.ModelReadyRequest, self._model_ready),
            "ServerMetadata": self._method(wire.ServerMetadataRequest, self._server_metadata),
            "ModelMetadata": self._method(wire.ModelMetadataRequest, self._model_metadata),
            "ModelInfer": self._method(wire.ModelInferRequest, self._infer),
            "RepositoryIndex": self._method(wire.RepositoryIndexRequest, self._repository),
        }

    def _method(
        self, kind: Any, answer: Callable[[Any, Context], Awaitable[Message]], open_to_all: bool = False
    ) -> Any:
        async def call(body: bytes, context: Context) -> bytes:
            try:
                if not open_to_all:
                    self._check_allowed(context)
                found: bytes = (await answer(self._decoded(kind, body), context)).SerializeToString()
                return found
            except Failed as failed:
                end = failed
            except PerennialError as error:
                end = Failed(status_of(error), sentence(error))
            except Exception as error:
                # What was sent is in no log line, not even when the server itself is wrong.
                log.error("%s failed: %s", kind.DESCRIPTOR.name, type(error).__name__)  # noqa: TRY400
                end = Failed(500, f"the server failed: {type(error).__name__}")
            await context.abort(end.code, end.details, end.trailers)
            raise AssertionError("abort has raised")

        # Bytes in, bytes out: a message that cannot be read is then the client's fault, and not an INTERNAL error of ours.
        return grpc.unary_unary_rpc_method_handler(call)

    def _check_allowed(self, context: Context) -> None:
        if self._authorize is not None and not self._authorize(dict(context.invocation_metadata() or ())):
            self.app.counters.refused["", PROTOCOL, 401] += 1
            raise Failed(401, "the call has no valid key; expected metadata: authorization, or x-api-key")

    def _decoded(self, kind: Any, body: bytes) -> Any:
        try:
            return kind.FromString(body)
        except DecodeError:
            if kind is wire.ModelInferRequest:
                self.app.counters.refused["", PROTOCOL, 400] += 1
            expected = f"{kind.DESCRIPTOR.name} of {SERVICE}"
            raise NotParsed("the message cannot be read", expected=expected) from None

    # -- predictions --

    async def _infer(self, message: wire.ModelInferRequest, context: Context) -> wire.ModelInferResponse:
        app, start, pipeline = self.app, time.perf_counter(), ""
        try:
            if self._ending:
                raise NotReady("the server is about to end", next="ask another one, or try again")
            served = app.fleet.need(message.model_name)
            pipeline, version = served.name, message.model_version or None
            request = grpc_codec.parse(message, app.predictions.settings.max_rows, _model(served, version).schema)
            answered = await app.predictions.engine.answer(served, request.rows, version)
            found = grpc_codec.encode(served.name, request, answered.answer)
        except Blamed as blamed:
            raise self._blamed(blamed, start) from None
        except PerennialError as error:
            app.counters.refused[pipeline, PROTOCOL, status_of(error)] += 1
            raise
        except Exception:  # our own fault: counted here, answered by the caller
            app.counters.refused[pipeline, PROTOCOL, 500] += 1
            raise
        answer = answered.answer
        trailers = [(VERSION_KEY, ",".join(answer.distinct))]
        if request.rows.count == 1:
            trailers.append((ID_KEY, answer.ids[0]))
        context.set_trailing_metadata(tuple(trailers))
        seconds = time.perf_counter() - start
        for model in answered.models:
            model.counters.request(PROTOCOL, 200, seconds)
        return found

    def _blamed(self, blamed: Blamed, start: float) -> Failed:
        error = blamed.error
        if isinstance(error, RequestError):
            status, details = status_of(error), sentence(error)
        else:
            status, details = 500, self.app.predictions.failure(blamed)
        blamed.model.counters.request(PROTOCOL, status, time.perf_counter() - start)
        return Failed(status, details, [(VERSION_KEY, blamed.model.version)])

    # -- health and metadata --

    async def _live(self, _: wire.ServerLiveRequest, __: Context) -> wire.ServerLiveResponse:
        return wire.ServerLiveResponse(live=True)

    async def _ready(self, _: wire.ServerReadyRequest, __: Context) -> wire.ServerReadyResponse:
        return wire.ServerReadyResponse(ready=self.app.fleet.ready)

    async def _model_ready(self, message: wire.ModelReadyRequest, _: Context) -> wire.ModelReadyResponse:
        try:
            _model(self.app.fleet.need(message.name), message.version)
        except NotReady:
            return wire.ModelReadyResponse(ready=False)
        return wire.ModelReadyResponse(ready=True)

    async def _server_metadata(self, _: wire.ServerMetadataRequest, __: Context) -> wire.ServerMetadataResponse:
        extensions = [name for name in SERVER["extensions"] if name != "binary_tensor_data"]  # a word of REST
        return wire.ServerMetadataResponse(name=SERVER["name"], version=SERVER["version"], extensions=extensions)

    async def _model_metadata(self, message: wire.ModelMetadataRequest, _: Context) -> wire.ModelMetadataResponse:
        served = self.app.fleet.need(message.name)
        model = _model(served, message.version)
        versions = [message.version] if message.version else list(served.models)
        return wire.ModelMetadataResponse(**model.metadata(versions))

    async def _repository(self, message: wire.RepositoryIndexRequest, _: Context) -> wire.RepositoryIndexResponse:
        fleet, found = self.app.fleet, wire.RepositoryIndexResponse()
        for served in fleet.served.values():
            for version in served.models:
                found.models.add(name=served.name, version=version, state="READY")
        for name, version in () if message.ready else fleet.refused:
            found.models.add(name=name, version=version, state="UNAVAILABLE", reason="refused")
        return found


def _model(served: Served, version: str | None) -> LoadedModel:
    """The version that is asked for, or the one that stands for the pipeline.

    Raises:
        UnknownVersion: it is not loaded.
    """
    model = served.model(version) if version else served.first
    assert model is not None  # `Fleet.need` returns what can answer
    return model

"""The HTTP interface: which path is answered by what."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Lifespan

from perennial_serving import feedback, oip, scoring
from perennial_serving.answers import Answer
from perennial_serving.counting import ServerCounters
from perennial_serving.edge import (
    ID_HEADER,
    VERSION_HEADER,
    Endpoint,
    content_type,
    error_response,
    guarded,
    json_response,
    need_json,
    protocol_of,
    read_body,
    refusal,
)
from perennial_serving.engine import Blamed, Engine, describe_failure
from perennial_serving.fleet import Fleet, Served, stored_key
from perennial_serving.metrics import CONTENT_TYPE, Exposition
from perennial_serving.prediction_log import PredictionLog
from perennial_serving.refusals import NotReady, Overloaded, status_of
from perennial_serving.rows import Rows
from perennial_serving.settings import Settings
from perennial_spec.errors import PerennialError, RequestError

log = logging.getLogger(__name__)
PIPELINE_HEADER = "X-Perennial-Pipeline"
SERVER: dict[str, Any] = {
    "name": "perennial",
    "version": "0.1.0",
    "extensions": ["model_repository", "binary_tensor_data"],
}
Respond = Callable[[Answer], tuple[bytes, dict[str, str]]]
"""The body of an answer, and headers beside the usual."""
Parse = Callable[[bytes], tuple[Rows, Respond]]


@dataclass
class App:
    """What the endpoints share."""

    fleet: Fleet
    engine: Engine
    settings: Settings
    counters: ServerCounters
    exposition: Exposition
    prediction_log: PredictionLog | None
    failures: set[str] = field(default_factory=set)
    """Failures of versions that were logged already: one line each, not one per request."""

    # -- predictions --

    async def oip_infer(self, request: Request) -> Response:
        """POST /v2/models/{model}[/versions/{version}]/infer"""

        def parse(body: bytes) -> tuple[Rows, Respond]:
            length = oip.header_length(request.headers.get(oip.LENGTH_HEADER))
            if length is None:  # who says where the JSON ends has said what the body is
                need_json(request)
            served = self.fleet.need(name)
            model = served.model(version) if version else served.first
            assert model is not None
            parsed = oip.parse(body, length, self.settings.max_rows, model.bundle.schema)
            return parsed.rows, lambda answer: oip.encode(name, parsed, answer)

        name, version = request.path_params["model"], request.path_params.get("version")
        return await self._predict(request, "oip", name, version, parse)

    async def invocations(self, request: Request) -> Response:
        """POST /invocations and /pipelines/{model}/invocations"""

        def parse(body: bytes) -> tuple[Rows, Respond]:
            return scoring.parse(body, content_type(request), self.settings.max_rows), _scored

        return await self._predict(request, "mlflow", None, None, parse)

    async def _predict(
        self, request: Request, protocol: str, name: str | None, version: str | None, parse: Parse
    ) -> Response:
        start = time.perf_counter()
        pipeline = ""
        try:
            served = self.fleet.need(name or self._name(request))
            pipeline = served.name
            rows, respond = parse(await read_body(request, self.settings.max_body_bytes))
            answered = await self.engine.answer(served, rows, version)
        except Blamed as blamed:
            return self._blame(blamed, protocol, start)
        except PerennialError as error:
            self.counters.refused[pipeline, protocol, status_of(error)] += 1
            return refusal(protocol, error)
        except ClientDisconnect:
            raise
        except Exception:  # our own fault: counted here, answered by `guarded`
            self.counters.refused[pipeline, protocol, 500] += 1
            raise
        answer = answered.answer
        headers = {VERSION_HEADER: ",".join(answer.distinct)}
        if rows.count == 1:
            headers[ID_HEADER] = answer.ids[0]
        if self.fleet.draining:
            headers["Connection"] = "close"  # the client comes back by another connection, to another server
        content, extra = respond(answer)
        response = Response(content, 200, {"Content-Type": "application/json", **headers, **extra})
        seconds = time.perf_counter() - start
        for model in answered.models:
            model.counters.request(protocol, 200, seconds)
        return response

    def _blame(self, blamed: Blamed, protocol: str, start: float) -> Response:
        error = blamed.error
        bad_request = isinstance(error, RequestError)
        response = refusal(protocol, error) if bad_request else self._failed(blamed, protocol)  # type: ignore[arg-type]
        blamed.model.counters.request(protocol, response.status_code, time.perf_counter() - start)
        response.headers[VERSION_HEADER] = blamed.model.version
        return response

    def _failed(self, blamed: Blamed, protocol: str) -> Response:
        what = describe_failure(blamed)
        if what not in self.failures and len(self.failures) < 1000:
            self.failures.add(what)
            log.error("%s; said once, and counted each time", what)
        return error_response(protocol, 500, what)

    # -- labels --

    async def feedback(self, request: Request) -> Response:
        """POST /feedback and /pipelines/{model}/feedback"""
        served, code = self._known(self._name(request)), 200
        try:
            if self.prediction_log is None:
                raise NotReady("labels are not kept: this server has no store", expected="PERENNIAL_STORE to be set")
            need_json(request)
            body = await read_body(request, self.settings.max_body_bytes)
            labels = feedback.parse(body, self.settings.max_rows)
            if served.redacts_entity:
                labels = [replace(label, entity=stored_key(served.name, label.entity)) for label in labels]
            if not self.prediction_log.labels(served.name, labels):
                raise Overloaded("the label log has no room", next="send the same labels again in a moment")
        except PerennialError as error:
            code = status_of(error)
            raise
        finally:
            self.counters.refused[served.name, "feedback", code] += 1
        self.counters.labels[served.name] += len(labels)
        return json_response({"accepted": len(labels)}, code)

    # -- health and metadata --

    async def live(self, request: Request) -> Response:
        return json_response({"live": True})

    async def ready(self, request: Request) -> Response:
        """Whether to send requests here; see `Fleet.ready`."""
        value: dict[str, Any] = {"ready": self.fleet.ready}
        if self.fleet.waiting:
            value["waiting"] = sorted(self.fleet.waiting)
        return json_response(
            value, 200 if self.fleet.ready else 503, None if self.fleet.ready else {"Retry-After": "1"}
        )

    async def version(self, request: Request) -> Response:
        return json_response({"version": SERVER["version"]})

    async def server_metadata(self, request: Request) -> Response:
        return json_response(SERVER)

    async def model_metadata(self, request: Request) -> Response:
        served = self.fleet.need(request.path_params["model"])
        version = request.path_params.get("version")
        model = served.model(version) if version else served.first
        assert model is not None
        versions = [version] if version else list(served.models)
        return json_response(oip.metadata(served.name, versions, model.bundle.schema))

    async def model_ready(self, request: Request) -> Response:
        served = self.fleet.need(request.path_params["model"])
        if version := request.path_params.get("version"):
            served.model(version)
        return json_response({"name": served.name, "ready": True})

    async def repository(self, request: Request) -> Response:
        """GET and POST /v2/repository/index (the model repository extension)"""
        models = [
            {"name": served.name, "version": version, "state": "READY", "reason": ""}
            for served in self.fleet.served.values()
            for version in served.models
        ]
        refused = [
            {"name": name, "version": version, "state": "UNAVAILABLE", "reason": "refused"}
            for name, version in self.fleet.refused
        ]
        return json_response(models + refused)

    async def index(self, request: Request) -> Response:
        """GET /: what is served, and where."""
        return json_response(
            {
                "server": SERVER,
                "ready": self.fleet.ready,
                "registry_up": self.fleet.registry_up,
                "pipelines": [_described(served) for served in self.fleet.served.values()],
                "waiting": dict(self.fleet.waiting),
                "refused": [{"pipeline": n, "version": v, "reason": why} for (n, v), why in self.fleet.refused.items()],
            }
        )

    async def metrics(self, request: Request) -> Response:
        body = await asyncio.to_thread(self.exposition.text)
        return Response(body, headers={"content-type": CONTENT_TYPE})

    def _name(self, request: Request) -> str:
        named = request.path_params.get("model") or request.headers.get(PIPELINE_HEADER)
        return named or self.fleet.only()

    def _known(self, name: str) -> Served:
        """Labels arrive late: they are also taken while no version takes traffic."""
        return self.fleet.served.get(name) or self.fleet.need(name)


def _scored(answer: Answer) -> tuple[bytes, dict[str, str]]:
    return orjson.dumps(scoring.response(answer), option=orjson.OPT_SERIALIZE_NUMPY), {}


def _described(served: Served) -> dict[str, Any]:
    return {
        "name": served.name,
        "champion": served.champion,
        "revision": served.route.revision,
        "weights": served.route.weights,
        "shadow": served.route.shadow,
        "loaded": list(served.models),
        "predict": f"/v2/models/{served.name}/infer",
        "invocations": f"/pipelines/{served.name}/invocations",
        "feedback": f"/pipelines/{served.name}/feedback",
    }


def starlette(app: App, lifespan: Lifespan[Starlette] | None = None) -> Starlette:
    """The paths. The busiest come first: they are tried in order."""

    def get(path: str, endpoint: Endpoint) -> Route:
        return Route(path, guarded(endpoint), methods=["GET"])

    def post(path: str, endpoint: Endpoint) -> Route:
        return Route(path, guarded(endpoint), methods=["POST"])

    model, versioned = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    return Starlette(
        routes=[
            post(f"{model}/infer", app.oip_infer),
            post("/invocations", app.invocations),
            post("/pipelines/{model}/invocations", app.invocations),
            post(f"{versioned}/infer", app.oip_infer),
            post("/pipelines/{model}/feedback", app.feedback),
            post("/feedback", app.feedback),
            get("/metrics", app.metrics),
            get("/v2/health/live", app.live),
            get("/v2/health/ready", app.ready),
            get("/ping", app.ready),
            get("/health", app.ready),
            get("/version", app.version),
            get("/v2", app.server_metadata),
            get(model, app.model_metadata),
            get(f"{model}/ready", app.model_ready),
            get(versioned, app.model_metadata),
            get(f"{versioned}/ready", app.model_ready),
            Route("/v2/repository/index", guarded(app.repository), methods=["GET", "POST"]),
            get("/", app.index),
        ],
        exception_handlers={HTTPException: _no_such_path},
        lifespan=lifespan,
    )


async def _no_such_path(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = (
        f"{request.method} is not allowed here"
        if error.status_code == 405
        else "there is no such path; GET / lists them"
    )
    response = error_response(protocol_of(request.url.path), error.status_code, what)
    response.headers.update(error.headers or {})
    return response

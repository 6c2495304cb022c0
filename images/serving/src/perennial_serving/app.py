"""The HTTP interface: which path is answered by what. Predictions are in `predictions`, and their short cut in `turns`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Lifespan

from perennial_serving import feedback
from perennial_serving.auth import Keys
from perennial_serving.counting import ServerCounters
from perennial_serving.edge import Endpoint, error_response, guarded, json_response, need_json, protocol_of, read_body
from perennial_serving.explanations import Explanations
from perennial_serving.fleet import Fleet, Served
from perennial_serving.metrics import CONTENT_TYPE, Exposition
from perennial_serving.model import stored_key
from perennial_serving.openapi import POLICY, document, page
from perennial_serving.prediction_log import PredictionLog
from perennial_serving.predictions import Predictions
from perennial_serving.refusals import NotReady, Overloaded, Unauthorized, status_of
from perennial_spec import logs
from perennial_spec.errors import PerennialError

PIPELINE_HEADER = "X-Perennial-Pipeline"
SERVER: dict[str, Any] = {
    "name": "perennial",
    "version": "0.1.0",
    "extensions": ["model_repository", "binary_tensor_data"],
}


@dataclass
class App:
    """What the endpoints share."""

    fleet: Fleet
    predictions: Predictions
    explanations: Explanations
    counters: ServerCounters
    exposition: Exposition
    prediction_log: PredictionLog | None
    keys: Keys | None = None
    """None: everybody may ask."""

    # -- predictions --

    async def oip_infer(self, request: Request) -> Response:
        """POST /v2/models/{model}[/versions/{version}]/infer"""
        return await self.predictions.infer(request)

    async def invocations(self, request: Request) -> Response:
        """POST /invocations and /pipelines/{model}/invocations"""
        return await self.predictions.invocations(request, self._name(request))

    async def explain(self, request: Request) -> Response:
        """POST /explain and /pipelines/{model}/explain"""
        return await self.explanations.explain(request, self._name(request))

    # -- labels and rewards --

    async def feedback(self, request: Request) -> Response:
        """POST /feedback and /pipelines/{model}/feedback"""
        served, code = self._known(self._name(request)), 200
        try:
            if self.prediction_log is None:
                raise NotReady("labels are not kept: this server has no store", expected="PERENNIAL_STORE to be set")
            need_json(request)
            settings = self.predictions.settings
            body = await read_body(request, settings.max_body_bytes, self.predictions.budget)
            marks = {version: model.mark for version, model in served.models.items()}
            found = feedback.parse(body, settings.max_rows, marks)
            labels = found.labels
            if served.redacts_entity:
                labels = [
                    label if label.entity is None else replace(label, entity=stored_key(served.name, label.entity))
                    for label in labels
                ]
            kept = self.prediction_log.labels(served.name, labels)
            if not (kept and self.prediction_log.rows(served.name, logs.REWARDS, found.rewards)):
                raise Overloaded("the label log has no room", next="send the same labels again in a moment")
        except PerennialError as error:
            code = status_of(error)
            raise
        finally:
            self.counters.refused[served.name, "feedback", code] += 1
        self.counters.labels[served.name] += len(labels)
        for reward in found.rewards:
            if reward.version is not None:
                self.counters.rewards[served.name, reward.version] += 1
                self.counters.reward_sums[served.name, reward.version] += reward.reward
        return json_response({"accepted": len(found)}, code)

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
        return json_response(model.metadata(versions))

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
                "docs": "/docs",
            }
        )

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json: this server's interface, with the pipelines that it serves now."""
        return json_response(self._document())

    async def docs(self, request: Request) -> Response:
        """GET /docs: the same for people."""
        headers = {"content-type": "text/html; charset=utf-8", "content-security-policy": POLICY}
        return Response(page(self._document()), headers=headers)

    async def metrics(self, request: Request) -> Response:
        body = await asyncio.to_thread(self.exposition.text)
        return Response(body, headers={"content-type": CONTENT_TYPE})

    def allowed(self, endpoint: Endpoint) -> Endpoint:
        """`endpoint` for those who have a key, where keys are asked for."""
        keys = self.keys
        if keys is None:
            return endpoint

        async def checked(request: Request) -> Response:
            bearer, key = request.headers.get("authorization"), request.headers.get("x-api-key")
            if not keys.allow(bearer and bearer.encode("latin-1"), key and key.encode("latin-1")):  # type: ignore[arg-type]
                self.counters.refused["", protocol_of(request.url.path), 401] += 1
                raise Unauthorized.because(bearer is not None or key is not None)
            return await endpoint(request)

        checked.__name__ = endpoint.__name__
        return checked

    def _document(self) -> dict[str, Any]:
        return document(str(SERVER["version"]), self.fleet.served.values(), self.keys is not None)

    def _name(self, request: Request) -> str:
        named = request.path_params.get("model") or request.headers.get(PIPELINE_HEADER)
        return named or self.fleet.only()

    def _known(self, name: str) -> Served:
        """Labels arrive late: they are also taken while no version takes traffic."""
        return self.fleet.served.get(name) or self.fleet.need(name)


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
        "explain": f"/pipelines/{served.name}/explain",
    }


def starlette(app: App, lifespan: Lifespan[Starlette] | None = None) -> Starlette:
    """The paths. The busiest come first: they are tried in order. Health is open to all: probes have no keys."""

    def route(path: str, endpoint: Endpoint, method: str = "GET", open_: bool = False) -> Route:
        return Route(path, guarded(endpoint if open_ else app.allowed(endpoint)), methods=[method])

    model, versioned = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    return Starlette(
        routes=[
            route(f"{model}/infer", app.oip_infer, "POST"),
            route("/invocations", app.invocations, "POST"),
            route("/pipelines/{model}/invocations", app.invocations, "POST"),
            route(f"{versioned}/infer", app.oip_infer, "POST"),
            route("/pipelines/{model}/feedback", app.feedback, "POST"),
            route("/feedback", app.feedback, "POST"),
            route("/pipelines/{model}/explain", app.explain, "POST"),
            route("/explain", app.explain, "POST"),
            route("/metrics", app.metrics, open_=app.predictions.settings.metrics_open),
            route("/v2/health/live", app.live, open_=True),
            route("/v2/health/ready", app.ready, open_=True),
            route("/ping", app.ready, open_=True),
            route("/health", app.ready, open_=True),
            route("/version", app.version, open_=True),
            route("/v2", app.server_metadata),
            route(model, app.model_metadata),
            route(f"{model}/ready", app.model_ready),
            route(versioned, app.model_metadata),
            route(f"{versioned}/ready", app.model_ready),
            Route("/v2/repository/index", guarded(app.allowed(app.repository)), methods=["GET", "POST"]),
            route("/", app.index),
            route("/openapi.json", app.openapi),
            route("/docs", app.docs),
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

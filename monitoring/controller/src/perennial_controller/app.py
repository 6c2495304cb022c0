"""The HTTP side: Alertmanager's webhook, people's requests, the ledger for reading, health and metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from perennial_controller import openapi
from perennial_controller.alertmanager import Notification, event_of
from perennial_controller.cases import DecisionKind, Event, NoteKind, OrderKind, RunKind
from perennial_controller.controller import LEDGER_ERRORS, Controller, brief, utc_now
from perennial_controller.entry import Entry
from perennial_controller.events import ALL_PIPELINES, NewEvent
from perennial_controller.metrics import UNKNOWN
from perennial_controller.mlflow_webhook import Delivery, Unsigned, verify
from perennial_controller.mlflow_webhook import event_of as registry_event
from perennial_controller.pages import routes
from perennial_controller.requests import (
    DataRequest,
    PauseRequest,
    PromotionNote,
    ResumeRequest,
    RollbackNote,
    RunRequest,
    TooLarge,
    TooSlow,
    flag,
    idempotency_key,
    number,
    parse,
    read,
    read_bytes,
)
from perennial_controller.settings import SECRET_VARIABLE
from perennial_controller.writing import Written
from perennial_spec import names
from perennial_spec.errors import PerennialError, PipelineNotFound, RequestError, SpecError

log = logging.getLogger(__name__)
_Handler = Callable[[Controller, Request], Awaitable[Response]]
_STATUS: tuple[tuple[type[PerennialError], int], ...] = (
    (TooLarge, 413),
    (TooSlow, 408),
    (Unsigned, 401),
    (RequestError, 400),
    (PipelineNotFound, 404),
    (SpecError, 422),
)
_DB_SECONDS = 15.0
"""Longest that a request waits for the ledger."""
_AGAIN = (
    "it may have been written before that: look at the pipeline's decisions before you ask again, "
    "or repeat it with the same Idempotency-Key"
)
"""The ledger can go away between the writing and the answer, so nobody may say that nothing was started."""


def make_app(controller: Controller) -> Starlette:
    """The application; its lifespan starts and stops the controller's loops."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await controller.start()
        try:
            yield
        finally:
            await controller.stop()

    def route(path: str, handler: _Handler, method: str = "GET", *, open_to_all: bool = False) -> Route:
        return Route(path, _endpoint(controller, handler, open_to_all), methods=[method])

    def page(path: str, handler: _Handler) -> Route:
        return Route(path, _page(controller, handler))

    return Starlette(
        lifespan=lifespan,
        routes=[
            route("/api/v1/alerts", receive_alerts, "POST"),
            route("/api/v1/mlflow", receive_registry, "POST", open_to_all=True),
            route("/api/v1/pipelines/{name}/runs", request_run, "POST"),
            route("/api/v1/pipelines/{name}/data", announce_data, "POST"),
            route("/api/v1/pipelines/{name}/pause", pause, "POST"),
            route("/api/v1/pipelines/{name}/resume", resume, "POST"),
            route("/api/v1/pipelines/{name}/rollbacks", note_rollback, "POST"),
            route("/api/v1/pipelines/{name}/promotions", note_promotion, "POST"),
            route("/api/v1/pause", pause, "POST"),
            route("/api/v1/resume", resume, "POST"),
            route("/api/v1/pauses", list_pauses),
            route("/api/v1/pipelines/{name}/decisions", list_decisions),
            route("/api/v1/decisions/{id:int}", show_decision),
            route("/api/v1/pipelines", routes.list_pipelines),
            route("/api/v1/pipelines/{name}/timeline", routes.tell_timeline),
            route("/api/openapi.json", describe),
            page("/", routes.show_overview),
            page("/pipelines/{name}", routes.show_timeline),
            route("/static/style.css", routes.style, open_to_all=True),
            route("/healthz", healthy, open_to_all=True),
            route("/readyz", ready, open_to_all=True),
            route("/metrics", metrics, open_to_all=True),
        ],
    )


def _endpoint(controller: Controller, handler: _Handler, open_to_all: bool) -> Callable[[Request], Awaitable[Response]]:
    """Who may ask, how long it may take, and what an error looks like: the same for every route."""

    @wraps(handler)
    async def endpoint(request: Request) -> Response:
        if not open_to_all and not controller.token.accepts(request.headers.get("authorization")):
            error = RequestError("the bearer token is missing or wrong", expected="Authorization: Bearer TOKEN")
            return _problem(error, 401, {"WWW-Authenticate": "Bearer"})
        try:
            return await handler(controller, request)
        except PerennialError as error:
            return _problem(error, next((status for kind, status in _STATUS if isinstance(error, kind)), 500))
        except LEDGER_ERRORS as error:
            log.warning("%s: the ledger does not answer: %s", request.url.path, brief(error))
            away = RequestError("the ledger does not answer", next=_AGAIN if request.method == "POST" else "ask again")
            return _problem(away, 503, {"Retry-After": "2"})

    return endpoint


def _page(controller: Controller, handler: _Handler) -> Callable[[Request], Awaitable[Response]]:
    """A page: browsers show a token as the password of HTTP Basic. They send it with every request to us from then on, so nothing that
    changes anything may be asked so: pages are read-only, and the API takes a bearer token alone."""

    @wraps(handler)
    async def endpoint(request: Request) -> Response:
        if not controller.token.accepts(request.headers.get("authorization"), basic=True):
            error = RequestError(
                "who are you?", expected="any user name, and the controller's token as the password", next="reload"
            )
            return routes.problem(error, 401, {"WWW-Authenticate": 'Basic realm="Perennial", charset="UTF-8"'})
        try:
            if not controller.migrated:
                raise TimeoutError("the ledger has not answered yet")
            return await handler(controller, request)
        except PerennialError as error:
            return routes.problem(error, next((status for kind, status in _STATUS if isinstance(error, kind)), 500))
        except LEDGER_ERRORS as error:
            log.warning("%s: the ledger does not answer: %s", request.url.path, brief(error))
            away = RequestError("the ledger does not answer", next="reload in a moment")
            return routes.problem(away, 503, {"Retry-After": "2"})

    return endpoint


def _problem(error: PerennialError, status: int, headers: dict[str, str] | None = None) -> Response:
    body = {"error": error.what, "where": error.where, "expected": error.expected, "next": error.next}
    return JSONResponse({key: value for key, value in body.items() if value}, status, headers)


async def receive_alerts(controller: Controller, request: Request) -> Response:
    """Alertmanager's webhook. 200 only when every alert is in the ledger; Alertmanager repeats what it got 5xx for.

    The alert that fires always is no event: only when it last came is kept.
    """
    notification = await read(request, Notification)
    heartbeats = [alert for alert in notification.alerts if alert.labels.get("alertname") == names.ALERT_WATCHDOG]
    if any(alert.status == "firing" for alert in heartbeats):
        await _heard(controller)
    written = await _write(controller, [event_of(alert) for alert in notification.alerts if alert not in heartbeats])
    # A copy changes no decision: in a flood of them there is nothing to decide. One that fires again waits for the next round.
    if any(event.new for event in written) or any(alert.status == "resolved" for alert in notification.alerts):
        controller.open_events.set()
    return JSONResponse({"decisions": [event.id for event in written], "new": sum(event.new for event in written)})


async def receive_registry(controller: Controller, request: Request) -> Response:
    """MLflow's webhook: 200 when what it tells is in the ledger, or is of no interest. It is signed, and carries no token."""
    if controller.mlflow_secret is None:
        absent = RequestError(
            "there is no webhook for MLflow",
            where=request.url.path,
            next=f"set {SECRET_VARIABLE} to a file with the secret that MLflow signs with",
        )
        return _problem(absent, 404)
    body = await read_bytes(request)
    id_ = verify(controller.mlflow_secret.secret, request.headers, body, utc_now())
    event = registry_event(parse(request, body, Delivery), id_, controller.specs.names())
    written = await _write(controller, [event]) if event else []
    if written:
        controller.open_events.set()
    return JSONResponse({"decisions": [row.id for row in written], "new": sum(row.new for row in written)})


async def request_run(controller: Controller, request: Request) -> Response:
    """A person asks for a training run: 202 when it starts one, 200 with the reason when it does not.

    With `?dry_run=true` only says what would be decided.
    """
    wanted = await read(request, RunRequest)
    if flag(request, "dry_run"):
        return await _rehearse(controller, request)
    return await _ask(controller, request, "person", wanted.reason, wanted.actor)


async def announce_data(controller: Controller, request: Request) -> Response:
    """New data has arrived: 202 when a run of the data DAG is started, 200 when one that has not begun will find it."""
    wanted = await read(request, DataRequest)
    return await _ask(controller, request, "data", wanted.reason, wanted.actor)


async def pause(controller: Controller, request: Request) -> Response:
    """A person pauses retraining, of a pipeline or of all."""
    wanted = await read(request, PauseRequest)
    payload = {"until": (utc_now() + wanted.lasts).isoformat()} if wanted.lasts else {}
    return await _order(controller, request, "pause", wanted, payload)


async def resume(controller: Controller, request: Request) -> Response:
    """A person ends a pause; alerts that it held and that still fire are decided again."""
    return await _order(controller, request, "resume", await read(request, ResumeRequest), {})


async def note_rollback(controller: Controller, request: Request) -> Response:
    """A person is about to take the traffic back: on record before it is done."""
    wanted = await read(request, RollbackNote)
    written = await _note(controller, request, "rollback", wanted, {"to": wanted.to, "leaving": list(wanted.leaving)})
    return JSONResponse({"id": written.id})


async def note_promotion(controller: Controller, request: Request) -> Response:
    """A person is about to make a version champion: on record before it is done."""
    wanted = await read(request, PromotionNote)
    written = await _note(controller, request, "promotion", wanted, {"to": wanted.to, "before": wanted.before})
    return JSONResponse({"id": written.id})


async def _order(
    controller: Controller,
    request: Request,
    kind: OrderKind,
    wanted: PauseRequest | ResumeRequest,
    payload: dict[str, Any],
) -> Response:
    """Write the order down, which puts it in force, and answer what is paused now."""
    await _note(controller, request, kind, wanted, payload)
    return await list_pauses(controller, request)


async def _note(
    controller: Controller,
    request: Request,
    kind: NoteKind,
    wanted: PauseRequest | ResumeRequest | RollbackNote | PromotionNote,
    payload: dict[str, Any],
) -> Written:
    name: str = request.path_params.get("name", ALL_PIPELINES)
    if name not in {ALL_PIPELINES, *controller.specs.names()}:  # one that is broken can be paused, too
        raise _not_found(controller, name)
    key = f"{kind}:{name}:{idempotency_key(request)}"
    event = NewEvent(kind, name, key, wanted.reason, payload, actor=wanted.actor)
    (written,) = await _write(controller, [event])
    controller.open_events.set()
    return written


async def list_pauses(controller: Controller, request: Request) -> Response:
    """The pauses that are in force."""
    now = utc_now()
    async with asyncio.timeout(_DB_SECONDS):
        found = await controller.ledger.pauses()
    lasting = [
        {
            "pipeline": name,
            "since": pause.since.isoformat(),
            "until": pause.until.isoformat() if pause.until else None,
            "actor": pause.actor,
            "reason": pause.reason,
        }
        for name, pause in sorted(found.items())
        if pause.lasts(now)
    ]
    return JSONResponse({"pauses": lasting})


async def _ask(controller: Controller, request: Request, kind: RunKind, summary: str, actor: str | None) -> Response:
    name = _known(controller, request)
    key = f"{kind}:{name}:{idempotency_key(request)}"
    event = NewEvent(kind, name, key, summary, {"asked": summary}, actor=actor)
    (written,) = await _write(controller, [event])
    async with asyncio.timeout(_DB_SECONDS):
        await controller.decider.decide_pipeline(name)
        entry = await controller.ledger.get(written.id)
    assert entry is not None  # rows are never deleted
    return JSONResponse(entry.to_json(), 202 if written.new and entry.started else 200)


async def _rehearse(controller: Controller, request: Request) -> Response:
    """What would be decided on a person's request, and on each alert that is open; nothing is written."""
    name = _known(controller, request)
    async with asyncio.timeout(_DB_SECONDS):
        found = await controller.decider.rehearse(name, Event("person", name))
    others = [
        {
            "id": entry.id,
            "kind": entry.kind,
            "summary": entry.summary,
            "now": entry.decision,
            "decision": decision.kind,
            "reason": decision.reason,
        }
        for entry, decision in found.others
    ]
    return JSONResponse({"decision": found.answer.kind, "reason": found.answer.reason, "others": others})


async def list_decisions(controller: Controller, request: Request) -> Response:
    """The newest decisions on a pipeline, also on one that is gone; older ones with `before`, the id that a page ended with."""
    limit, before = number(request, "limit", 20, 200), number(request, "before", 2**63 - 1, 2**63 - 1)
    async with asyncio.timeout(_DB_SECONDS):
        entries: list[Entry] = await controller.ledger.of_pipeline(request.path_params["name"], limit, before)
    if not entries:
        _known(controller, request)
    return JSONResponse({"decisions": [entry.to_json() for entry in entries]})


async def show_decision(controller: Controller, request: Request) -> Response:
    """One row of the ledger."""
    id: int = request.path_params["id"]
    async with asyncio.timeout(_DB_SECONDS):
        entry = await controller.ledger.get(id) if id < 2**63 else None
    if entry is None:
        return _problem(RequestError(f"there is no decision {id}", where=request.url.path), 404)
    return JSONResponse(entry.to_json())


async def describe(controller: Controller, request: Request) -> Response:
    """This interface, as OpenAPI 3.1."""
    return JSONResponse(await asyncio.to_thread(openapi.document))


async def healthy(controller: Controller, request: Request) -> Response:
    """The process answers."""
    return PlainTextResponse("ok\n")


async def ready(controller: Controller, request: Request) -> Response:
    """The ledger can be written: without it no alert may be taken. What else people should know stands in lines of their own.

    A controller that alerts do not reach is ready all the same: taken out of service, it could not even be reached again.
    """
    if not controller.migrated:
        return _problem(RequestError("the ledger has not answered yet"), 503)
    async with asyncio.timeout(2):
        await controller.ledger.ping()
    warning = controller.watchdog.warning
    return PlainTextResponse(f"ok\nwarning: {warning}\n" if warning else "ok\n")


async def metrics(controller: Controller, request: Request) -> Response:
    """Thresholds always; the backlog and the runs as far as the ledger answers."""
    backlog = None
    try:
        async with asyncio.timeout(2):
            if controller.migrated:
                await controller.read_figures()
                backlog = await controller.ledger.backlog()
    except LEDGER_ERRORS as error:
        log.warning("/metrics: the ledger does not answer: %s", brief(error))
    controller.metrics.ledger(backlog, utc_now())
    return Response(generate_latest(controller.metrics.registry), media_type=CONTENT_TYPE_LATEST)


async def _heard(controller: Controller) -> None:
    if not controller.migrated:
        raise TimeoutError("the ledger has not answered yet")
    async with asyncio.timeout(_DB_SECONDS):
        await controller.watchdog.received()


async def _write(controller: Controller, events: list[NewEvent]) -> list[Written]:
    if not controller.migrated:
        raise TimeoutError("the ledger has not answered yet")
    async with asyncio.timeout(_DB_SECONDS):
        written = await controller.ledger.write(events, utc_now())
    known = set(controller.specs.names())
    for event, row in zip(sorted(events, key=lambda event: event.dedupe_key), written, strict=True):
        if not row.new and not event.resolved:
            label = row.pipeline if row.pipeline in known else UNKNOWN
            controller.metrics.decisions.labels(label, str(DecisionKind.DUPLICATE)).inc()
    return written


def _known(controller: Controller, request: Request) -> str:
    name: str = request.path_params["name"]
    if controller.specs.get(name) is None:
        raise _not_found(controller, name)
    return name


def _not_found(controller: Controller, name: str) -> PipelineNotFound:
    return PipelineNotFound.of(name, controller.specs.names(), str(controller.settings.platform.pipelines_dir))

"""The controller's HTTP interface as OpenAPI 3.1: made from the types that requests and answers are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel, TypeAdapter

from perennial_controller.alertmanager import Notification
from perennial_controller.entry import Entry
from perennial_controller.mlflow_webhook import Delivery
from perennial_controller.pages.model import Overview, Timeline
from perennial_controller.requests import (
    DataRequest,
    PauseRequest,
    PromotionNote,
    ResumeRequest,
    RollbackNote,
    RunRequest,
)

_REF = "#/components/schemas/{model}"
_TEXT: dict[str, Any] = {"type": "string"}
_PROBLEM = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": _TEXT, "where": _TEXT, "expected": _TEXT, "next": _TEXT},
}
_PAUSES = {
    "type": "object",
    "required": ["pauses"],
    "properties": {"pauses": {"type": "array", "items": {"type": "object"}}},
}
_NOTED = {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}
_TAKEN = {
    "type": "object",
    "required": ["decisions", "new"],
    "properties": {"decisions": {"type": "array", "items": {"type": "integer"}}, "new": {"type": "integer"}},
}
_NAME = {"name": "name", "in": "path", "required": True, "schema": _TEXT, "description": "Name of the pipeline."}
_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 0}}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "maxLength": 200},
    "description": "A request that is repeated with its key is one request.",
}
_DRY_RUN = {
    "name": "dry_run",
    "in": "query",
    "schema": {"type": "boolean", "default": False},
    "description": "Say what would be decided, and write nothing.",
}


def _query(name: str, default: int | None, most: int, description: str) -> dict[str, Any]:
    schema = {"type": "integer", "minimum": 1, "maximum": most, **({} if default is None else {"default": default})}
    return {"name": name, "in": "query", "schema": schema, "description": description}


_BEFORE = _query("before", None, 2**63 - 1, "Only events whose ids are below it.")


@dataclass(frozen=True)
class _Operation:
    """One row of the interface."""

    method: str
    path: str
    summary: str
    answer: dict[str, Any] | str
    """A schema, or the name of one among the components."""
    body: type[BaseModel] | None = None
    parameters: tuple[dict[str, Any], ...] = ()
    statuses: tuple[int, ...] = (200,)
    problems: tuple[int, ...] = (401, 503)


_OF = (401, 404, 422, 503)
_ASKED = (400, 401, 404, 408, 413, 422, 503)
_OPERATIONS = (
    _Operation("get", "/api/v1/pipelines", "All pipelines at a glance", "Overview"),
    _Operation(
        "get",
        "/api/v1/pipelines/{name}/timeline",
        "What happened to a pipeline, the newest first",
        "Timeline",
        parameters=(_NAME, _query("limit", 20, 100, "So many events."), _BEFORE),
        problems=(400, *_OF),
    ),
    _Operation(
        "get",
        "/api/v1/pipelines/{name}/decisions",
        "Rows of the ledger, the newest first",
        {
            "type": "object",
            "required": ["decisions"],
            "properties": {"decisions": {"type": "array", "items": {"$ref": _REF.format(model="Entry")}}},
        },
        parameters=(_NAME, _query("limit", 20, 200, "So many rows."), _BEFORE),
        problems=(400, *_OF),
    ),
    _Operation("get", "/api/v1/decisions/{id}", "One row of the ledger", "Entry", parameters=(_ID,), problems=_OF),
    _Operation(
        "post",
        "/api/v1/pipelines/{name}/runs",
        "Ask for a training run: 202 when it starts one, 200 with the reason when it does not",
        {"type": "object", "required": ["decision", "reason"]},
        RunRequest,
        (_NAME, _KEY, _DRY_RUN),
        (200, 202),
        _ASKED,
    ),
    _Operation(
        "post",
        "/api/v1/pipelines/{name}/data",
        "Say that new data has arrived: it is landed and validated",
        "Entry",
        DataRequest,
        (_NAME, _KEY),
        (200, 202),
        _ASKED,
    ),
    *(
        _Operation("post", f"/api/v1/{of}{order}", words, _PAUSES, body, (*parameters, _KEY), problems=_ASKED)
        for of, parameters in (("pipelines/{name}/", (_NAME,)), ("", ()))
        for order, body, words in (
            ("pause", PauseRequest, "Let no alert start a retraining for a while"),
            ("resume", ResumeRequest, "End a pause"),
        )
    ),
    _Operation("get", "/api/v1/pauses", "The pauses that are in force", _PAUSES),
    _Operation(
        "post",
        "/api/v1/pipelines/{name}/rollbacks",
        "Put on record that a person takes the traffic back",
        _NOTED,
        RollbackNote,
        (_NAME, _KEY),
        problems=_ASKED,
    ),
    _Operation(
        "post",
        "/api/v1/pipelines/{name}/promotions",
        "Put on record that a person makes a version champion",
        _NOTED,
        PromotionNote,
        (_NAME, _KEY),
        problems=_ASKED,
    ),
    _Operation(
        "post",
        "/api/v1/alerts",
        "Alertmanager's webhook, version 4",
        _TAKEN,
        Notification,
        problems=(400, 401, 408, 413, 503),
    ),
    _Operation(
        "post",
        "/api/v1/mlflow",
        "MLflow's webhook, signed with the shared secret: what changed in the registry",
        _TAKEN,
        Delivery,
        problems=(400, 401, 404, 408, 413, 503),
    ),
)


@cache
def document() -> dict[str, Any]:
    """The whole document."""
    schemas: dict[str, Any] = {"Problem": _PROBLEM}
    for kind in (Overview, Timeline, Entry):
        _add(schemas, kind.__name__, TypeAdapter(kind).json_schema(ref_template=_REF))
    for operation in _OPERATIONS:
        if operation.body is not None:
            _add(schemas, operation.body.__name__, operation.body.model_json_schema(ref_template=_REF))
    paths: dict[str, Any] = {}
    for operation in _OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Perennial controller",
            "version": "1",
            "description": "Alerts, requests and the ledger of what was decided on them, and why.",
        },
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{"token": []}],
    }


def _add(schemas: dict[str, Any], name: str, schema: dict[str, Any]) -> None:
    schemas |= schema.pop("$defs", {})
    schemas[name] = schema


def _described(operation: _Operation) -> dict[str, Any]:
    answer = operation.answer
    schema = {"$ref": _REF.format(model=answer)} if isinstance(answer, str) else answer
    described: dict[str, Any] = {
        "summary": operation.summary,
        "parameters": list(operation.parameters),
        "responses": {
            **{str(status): _response("As asked", schema) for status in operation.statuses},
            **{
                str(status): _response("Why not", {"$ref": _REF.format(model="Problem")})
                for status in operation.problems
            },
        },
    }
    if operation.body is not None:
        ref = {"$ref": _REF.format(model=operation.body.__name__)}
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": ref}}}
    return described


def _response(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}

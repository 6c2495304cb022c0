"""The interface as an OpenAPI 3.1 document, with the inputs of the models that are served now, and the same as a page for people."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any

from perennial_features.schema import FeatureSchema, InputColumn
from perennial_serving.fleet import Served
from perennial_serving.model import LoadedModel

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""The page loads nothing and runs nothing."""
Json = dict[str, Any]
_VALUES: dict[str, Json] = {
    "number": {"type": ["number", "null"]},
    "integer": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "boolean": {"type": "boolean"},
    "text": {"type": ["string", "null"]},
    "timestamp": {"type": ["string", "null"], "format": "date-time"},
}
_EXAMPLES = {"number": 1.5, "integer": 1, "boolean": True, "text": "a", "timestamp": "2013-06-01T05:15:00Z"}
_DATATYPES = {"number": "FP64", "integer": "INT64", "boolean": "BOOL", "text": "BYTES", "timestamp": "BYTES"}
_TENSOR: Json = {
    "type": "object",
    "required": ["name", "datatype", "shape", "data"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "data": {"type": "array"},
        "parameters": {"type": "object"},
    },
}
_PREDICTIONS: Json = {
    "type": "object",
    "required": ["predictions", "version", "prediction_id"],
    "properties": {
        "predictions": {"type": "array", "items": {"type": ["number", "null", "array", "string"]}},
        "version": {"type": "array", "items": {"type": "string"}},
        "prediction_id": {"type": "array", "items": {"type": "string", "format": "uuid"}},
    },
}
_INFERENCE: Json = {
    "type": "object",
    "required": ["model_name", "model_version", "outputs"],
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "outputs": {"type": "array", "items": _TENSOR},
    },
}
_OIP_ERROR: Json = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_MLFLOW_ERROR: Json = {
    "type": "object",
    "required": ["error_code", "message"],
    "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
}
_ENTITY: Json = {"type": ["string", "integer", "number"]}
_FEEDBACK: Json = {
    "type": "object",
    "properties": {
        "labels": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["label"],
                "oneOf": [{"required": ["entity"]}, {"required": ["prediction_id"]}],
                "properties": {
                    "entity": _ENTITY,
                    "prediction_id": {"type": "string", "format": "uuid"},
                    "label": {"type": ["number", "boolean"]},
                    "at": {"type": "string", "format": "date-time"},
                },
            },
        },
        "rewards": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["prediction_id", "reward"],
                "properties": {
                    "prediction_id": {"type": "string", "format": "uuid"},
                    "reward": {"type": "number"},
                    "at": {"type": "string", "format": "date-time"},
                },
            },
        },
    },
}


def document(version: str, pipelines: Iterable[Served], keys: bool) -> Json:
    """OpenAPI 3.1.

    Args:
        version: of the server.
        pipelines: those that are served.
        keys: callers need an API key.
    """
    paths: Json = {
        "/v2/health/live": _get("The server runs", {"200": "it does"}),
        "/v2/health/ready": _get("The server takes requests", {"200": "it does", "503": "not now"}),
        "/ping": _get("As /v2/health/ready, for MLflow's clients", {"200": "it does", "503": "not now"}),
        "/version": _get("The server's version", {"200": "the version"}),
        "/metrics": _get("For Prometheus", {"200": "the text format, version 0.0.4"}, "text/plain"),
        "/v2": _get("Server metadata", {"200": "name, version, extensions"}),
        "/v2/repository/index": _get("All loaded and refused versions", {"200": "a list"}),
        "/": _get("What is served, and where", {"200": "pipelines, routes, versions"}),
    }
    for served in pipelines:
        if served.first is not None:
            paths.update(_pipeline(served.name, served.first))
    found: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "Perennial model server",
            "version": version,
            "description": "Open Inference Protocol v2 (REST), MLflow scoring, feedback, explanations.",
        },
        "paths": paths,
    }
    if keys:
        found["components"] = {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
        }
        found["security"] = [{"bearer": []}, {"key": []}]
    return found


def page(found: Json) -> str:
    """The document as one HTML page without scripts."""
    parts = []
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            example = json.dumps(body["example"], indent=1) if "example" in body else ""
            answers = "".join(
                f"<li><b>{code}</b> {html.escape(answer['description'])}</li>"
                for code, answer in operation["responses"].items()
            )
            sample = f"<pre>{html.escape(example)}</pre>" if example else ""
            parts.append(
                f"<section><h2><span>{method.upper()}</span> {html.escape(path)}</h2>"
                f"<p>{html.escape(operation['summary'])}</p>{sample}<ul>{answers}</ul></section>"
            )
    info = found["info"]
    return _PAGE.format(
        title=html.escape(info["title"]),
        version=html.escape(info["version"]),
        description=html.escape(info["description"]),
        body="\n".join(parts),
    )


def _pipeline(name: str, model: LoadedModel) -> Json:
    schema = model.schema
    record = _record(schema, model.entity)
    example = {column.name: _EXAMPLES[column.kind] for column in schema.inputs}
    records = {
        "type": "object",
        "required": ["dataframe_records"],
        "properties": {"dataframe_records": {"type": "array", "minItems": 1, "items": record}},
        "additionalProperties": False,
    }
    tensors = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "inputs": {"type": "array", "minItems": 1, "items": _TENSOR},
            "outputs": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
        },
    }
    inputs = [
        {"name": c.name, "datatype": _DATATYPES[c.kind], "shape": [1], "data": [_EXAMPLES[c.kind]]}
        for c in schema.inputs
    ]
    of, oip = f"/pipelines/{name}", f"/v2/models/{name}"
    found = {
        f"{oip}": _get("Model metadata: inputs and outputs", {"200": "the metadata"}),
        f"{oip}/ready": _get("The model answers", {"200": "it does", "503": "not now"}),
        f"{oip}/infer": _post("Predict (Open Inference Protocol)", tensors, {"inputs": inputs}, _INFERENCE, _OIP_ERROR),
        f"{of}/invocations": _post(
            "Predict (MLflow scoring; also dataframe_split, instances, inputs, CSV)",
            records,
            {"dataframe_records": [example]},
            _PREDICTIONS,
            _MLFLOW_ERROR,
        ),
        f"{of}/explain": _post(
            "How much each feature moved each prediction (TreeSHAP)",
            records,
            {"dataframe_records": [example]},
            {"type": "object", "required": ["base", "contributions", "space", "predictions"]},
            _MLFLOW_ERROR,
        ),
        f"{of}/feedback": _post(
            "Labels and rewards, when they are known",
            _FEEDBACK,
            {"labels": [{"entity": "a", "label": 1}]},
            {"type": "object", "required": ["accepted"], "properties": {"accepted": {"type": "integer"}}},
            _MLFLOW_ERROR,
        ),
    }
    if model.scorer is None:  # of another flavour than ours
        del found[f"{of}/explain"]
    return found


def _record(schema: FeatureSchema, entity: str) -> Json:
    properties = {column.name: _value(column) for column in schema.inputs}
    required = [column.name for column in schema.inputs if not column.nullable]
    return {
        "type": "object",
        "required": required,
        "properties": {**({entity: _ENTITY} if entity else {}), **properties},
    }


def _value(column: InputColumn) -> Json:
    return dict(_VALUES[column.kind])


def _get(summary: str, answers: dict[str, str], kind: str = "application/json") -> Json:
    responses = {code: {"description": what, "content": {kind: {}}} for code, what in answers.items()}
    return {"get": {"summary": summary, "responses": responses}}


def _post(summary: str, body: Json, example: Json, answer: Json, error: Json) -> Json:
    def failed(what: str) -> Json:
        return {"description": what, "content": {"application/json": {"schema": error}}}

    return {
        "post": {
            "summary": summary,
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": body, "example": example}},
            },
            "responses": {
                "200": {"description": "the answer", "content": {"application/json": {"schema": answer}}},
                "400": failed("the request is wrong: names the field, and what was expected"),
                "404": failed("no such model or version"),
                "413": failed("too many bytes or rows"),
                "415": failed("a content type or encoding that is not read here"),
                "503": failed("not now; see Retry-After"),
                "504": failed("the model took too long"),
            },
        }
    }


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 54rem; margin: 2rem auto; padding: 0 1rem; color: #1c2430; background: #fff }}
h1 {{ font-size: 1.5rem }} h2 {{ font: 600 1rem ui-monospace, monospace; margin: 0 }}
h2 span {{ background: #0b6e4f; color: #fff; border-radius: 4px; padding: 1px 6px; font-size: .8rem }}
section {{ border: 1px solid #d9dee5; border-radius: 8px; padding: .8rem 1rem; margin: .8rem 0 }}
pre {{ background: #f4f6f8; padding: .6rem; border-radius: 6px; overflow: auto; font-size: .85rem; max-height: 20rem }}
p {{ margin: .4rem 0 }} ul {{ margin: .3rem 0 0; padding-left: 1.2rem; color: #4a5563; font-size: .9rem }}
</style></head><body><h1>{title} {version}</h1><p>{description} The same for programs: /openapi.json</p>
{body}
</body></html>
"""

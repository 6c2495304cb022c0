"""Open Inference Protocol, version 2, REST: requests to rows, scores to responses, the model's metadata.

One input tensor per column, one value per row; null is a missing value. Specification: kserve/open-inference-protocol, inference_rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from perennial_features.schema import FeatureSchema, InputKind
from perennial_serving.rows import Rows, json_object, kind_of, need_list, rows_of, show
from perennial_spec.errors import RequestError

OUTPUTS = ("score", "version", "prediction_id")
_INTEGERS = {f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)}
_TYPES: dict[str, tuple[frozenset[type], str]] = {
    **dict.fromkeys(("FP16", "FP32", "FP64", "BF16"), (frozenset({float, int, type(None)}), "numbers")),
    **dict.fromkeys(_INTEGERS, (frozenset({int, type(None)}), "integers")),
    "BOOL": (frozenset({bool, type(None)}), "true or false"),
    "BYTES": (frozenset({str, type(None)}), "text"),
}
_DATATYPES: dict[InputKind, str] = {
    "number": "FP64",
    "integer": "INT64",
    "boolean": "BOOL",
    "text": "BYTES",
    "timestamp": "BYTES",
}


@dataclass(frozen=True)
class OipRequest:
    rows: Rows
    id: str | None
    outputs: tuple[str, ...]
    """The tensors that the client wants; all when it does not say."""


@dataclass(frozen=True)
class Answer:
    """Scores by row, and who made them."""

    scores: Sequence[float] | Any
    versions: Sequence[str]
    """By row."""
    ids: Sequence[str]
    """By row."""
    distinct: tuple[str, ...]
    """Versions that took part."""


def parse(body: bytes, max_rows: int) -> OipRequest:
    """An inference request.

    Raises:
        NotParsed: not a JSON object.
        RequestError: not a request of the protocol; names the tensor.
        TooLarge: more than `max_rows`.
    """
    value = json_object(body)
    request_id = value.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise RequestError(f"got {kind_of(request_id)}", where="id", expected="text")
    columns: dict[str, Any] = {}
    for place, tensor in enumerate(need_list(value.get("inputs"), "inputs", "a list of tensors, one per column")):
        name, data = _tensor(tensor, place)
        if name in columns:
            raise RequestError(
                "is given twice", where=f"inputs[{place}]: tensor {show(name)}", expected="each name once"
            )
        columns[name] = data
    return OipRequest(rows_of(columns, max_rows), request_id, _outputs(value.get("outputs")))


def response(model: str, request: OipRequest, answer: Answer) -> dict[str, Any]:
    """What orjson writes as the answer."""
    count = [len(answer.versions)]
    tensors = {
        "score": {"name": "score", "datatype": "FP64", "shape": count, "data": answer.scores},
        "version": {"name": "version", "datatype": "BYTES", "shape": count, "data": answer.versions},
        "prediction_id": {"name": "prediction_id", "datatype": "BYTES", "shape": count, "data": answer.ids},
    }
    value: dict[str, Any] = {"model_name": model, "model_version": ",".join(answer.distinct)}
    if request.id is not None:
        value["id"] = request.id
    value["outputs"] = [tensors[name] for name in request.outputs]
    return value


def metadata(model: str, versions: Sequence[str], schema: FeatureSchema) -> dict[str, Any]:
    """Model metadata: what goes in and what comes out."""
    inputs = [{"name": c.name, "datatype": _DATATYPES[c.kind], "shape": [-1]} for c in schema.inputs]
    outputs = [{"name": name, "datatype": "FP64" if name == "score" else "BYTES", "shape": [-1]} for name in OUTPUTS]
    return {
        "name": model,
        "versions": list(versions),
        "platform": "perennial_xgboost",
        "inputs": inputs,
        "outputs": outputs,
    }


def _tensor(tensor: Any, place: int) -> tuple[str, list[Any]]:
    if not isinstance(tensor, dict):
        raise RequestError(f"got {kind_of(tensor)}", where=f"inputs[{place}]", expected="a tensor: an object")
    name = tensor.get("name")
    if not isinstance(name, str) or not name:
        raise RequestError(f"got {kind_of(name)}", where=f"inputs[{place}].name", expected="the column's name")
    where = f"inputs[{place}]: tensor {show(name)}"
    datatype = tensor.get("datatype")
    allowed, words = _TYPES.get(datatype, (None, "")) if isinstance(datatype, str) else (None, "")
    if allowed is None:
        raise RequestError("has no known datatype", where=where, expected=f"datatype: one of {', '.join(_TYPES)}")
    data = need_list(tensor.get("data"), f"{where}: data", "a list of values (binary tensors are not spoken here)")
    shape = tensor.get("shape")
    if not _is_column(shape):
        raise RequestError("is not one column", where=where, expected="shape [rows] or [rows, 1]")
    if data and isinstance(data[0], list):
        data = _flat(data, where)
    if len(data) != shape[0]:  # type: ignore[index]
        raise RequestError(
            f"has {len(data)} values",
            where=where,
            expected=f"{shape[0]}, as its shape says",  # type: ignore[index]
        )
    if not allowed.issuperset(map(type, data)):
        row = next(row for row, value in enumerate(data) if type(value) not in allowed)
        raise RequestError(f"got {kind_of(data[row])}", where=f"{where}, row {row}", expected=f"{words} ({datatype})")
    return name, data


def _is_column(shape: Any) -> bool:
    whole = isinstance(shape, list) and len(shape) in {1, 2} and all(type(n) is int and n >= 0 for n in shape)
    return whole and (len(shape) == 1 or shape[1] == 1)


def _flat(data: list[Any], where: str) -> list[Any]:
    for row, value in enumerate(data):
        if not isinstance(value, list) or len(value) != 1:
            raise RequestError(f"got {kind_of(value)}", where=f"{where}, row {row}", expected="a list of one value")
    return [value[0] for value in data]


def _outputs(wanted: Any) -> tuple[str, ...]:
    if wanted is None:
        return OUTPUTS
    found = []
    for place, output in enumerate(need_list(wanted, "outputs", "a list of objects with a name")):
        name = output.get("name") if isinstance(output, dict) else None
        if name not in OUTPUTS:
            raise RequestError(
                "is no output of this model", where=f"outputs[{place}].name", expected=f"one of {', '.join(OUTPUTS)}"
            )
        found.append(name)
    return tuple(dict.fromkeys(found)) or OUTPUTS

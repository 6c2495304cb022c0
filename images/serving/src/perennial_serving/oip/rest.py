"""REST: a body of JSON, with or without binary tensors behind it, to a request; and an answer to such a body."""

from __future__ import annotations

from typing import Any

import orjson

from perennial_features.schema import FeatureSchema
from perennial_serving.answers import Answer
from perennial_serving.oip import binary
from perennial_serving.oip.datatypes import DATATYPES, need_datatype
from perennial_serving.oip.outputs import OUTPUTS, OipRequest, Output, model_version, need_output, outputs_of
from perennial_serving.oip.tensors import Tensors
from perennial_serving.rows import json_object, kind_of, need_list, show
from perennial_spec.errors import RequestError

_PLAIN = {name: DATATYPES[name].types for name in ("FP64", "FP32", "INT64", "BOOL", "BYTES")}
"""Datatypes whose values cannot be out of range; for INT64 the typed columns look."""


def parse(body: bytes, header_length: int | None, max_rows: int, schema: FeatureSchema | None) -> OipRequest:
    """An inference request.

    Args:
        body: of the request.
        header_length: of its JSON, see `binary.header_length`; None for all.
        max_rows: that it may have.
        schema: of the model that will answer, or of the one that stands for the pipeline; None: unknown.

    Raises:
        NotParsed: not a JSON object, or shorter than it says.
        RequestError: not a request of the protocol; names the tensor.
        TooLarge: more than `max_rows`.
    """
    head, tail = binary.split(body, header_length)
    value = json_object(head)
    request_id = value.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise RequestError(f"got {kind_of(request_id)}", where="id", expected="text")
    parameters = _parameters(value, "")
    tensors = Tensors(schema, max_rows, _flag(parameters, "empty_is_missing", ""))
    for place, tensor in enumerate(need_list(value.get("inputs"), "inputs", "a list of tensors, one per column")):
        if not _read_plain(tensors, tensor):
            _read(tensors, tensor, place, tail)
    tail.end()
    rows = tensors.rows()
    outputs, raw = _outputs(value.get("outputs"), _flag(parameters, "binary_data_output", ""))
    return OipRequest(rows, request_id, outputs, raw)


def encode(model: str, request: OipRequest, answer: Answer) -> tuple[bytes, dict[str, str]]:
    """The answer's body, and headers beside the usual: none when it is JSON alone, else its type and where the JSON ends."""
    value: dict[str, Any] = {"model_name": model, "model_version": model_version(answer)}
    if request.id is not None:
        value["id"] = request.id
    described, raws = [], []
    for output in outputs_of(request, answer):
        if output.name in request.binary:
            raws.append(binary.encode(output.values, output.datatype))
            described.append(_described(output, {"parameters": {"binary_data_size": len(raws[-1])}}))
        else:
            described.append(_described(output, {"data": output.values}))
    value["outputs"] = described
    head = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    if not raws:
        return head, {}
    headers = {"content-type": "application/octet-stream", binary.LENGTH_HEADER: str(len(head))}
    return b"".join((head, *raws)), headers


def _described(output: Output, data: dict[str, Any]) -> dict[str, Any]:
    return {"name": output.name, "datatype": output.datatype, "shape": output.shape, **data}


def _read_plain(tensors: Tensors, tensor: Any) -> bool:
    """Add an input in which nothing can be wrong, as most are: a column of JSON. False: it must be looked at closely."""
    if type(tensor) is not dict or "parameters" in tensor:
        return False
    try:
        name, data, shape, datatype = tensor["name"], tensor["data"], tensor["shape"], tensor["datatype"]
        sound = (
            type(name) is str
            and type(data) is list
            and shape == [len(data)]
            and type(shape[0]) is int  # True == 1
            and _PLAIN[datatype].issuperset(map(type, data))
        )
    except (KeyError, TypeError):  # something is missing, or the datatype is unknown or no text
        return False
    if not sound or not name or name in tensors.columns:
        return False
    tensors.add_plain(name, data)
    return True


def _read(tensors: Tensors, tensor: Any, place: int, tail: binary.Tail) -> None:
    if not isinstance(tensor, dict):
        raise RequestError(f"got {kind_of(tensor)}", where=f"inputs[{place}]", expected="a tensor: an object")
    name = tensor.get("name")
    if not isinstance(name, str) or not name:
        raise RequestError(f"got {kind_of(name)}", where=f"inputs[{place}].name", expected="the column's name")
    where = f"inputs[{place}]: tensor {show(name)}"
    datatype = need_datatype(tensor.get("datatype"), where)
    parameters = _parameters(tensor, where)
    if "shared_memory_region" in parameters:
        raise RequestError("is in shared memory", where=where, expected="data, or binary_data_size")
    size = parameters.get("binary_data_size")
    if size is None:
        data = need_list(
            tensor.get("data"), f"{where}: data", "a list of values, or binary_data_size in its parameters"
        )
        rows, width = tensors.size(tensor.get("shape"), where)
        values = _flat(data, rows, width, where)
        datatype.check(values, width, where)
        tensors.add(name, where, width, values)
        return
    if "data" in tensor:
        raise RequestError("has both data and binary_data_size", where=where, expected="one of them")
    rows, width = tensors.size(tensor.get("shape"), where)
    raw = tail.take(size, where)
    tensors.add(name, where, width, binary.decode(raw, datatype, rows * width, where))


def _flat(data: list[Any], rows: int, width: int, where: str) -> list[Any]:
    """Row-major values from a list that is flat already, or has one list per row."""
    if data and isinstance(data[0], list):
        for row, value in enumerate(data):
            if not isinstance(value, list) or len(value) != width:
                got = f"{len(value)} values" if isinstance(value, list) else kind_of(value)
                expected = "a list of one value" if width == 1 else f"a list of {width} values"
                raise RequestError(f"got {got}", where=f"{where}, row {row}", expected=expected)
        data = [value for values in data for value in values]
    if len(data) != rows * width:
        raise RequestError(f"has {len(data)} values", where=where, expected=f"{rows * width}, as its shape says")
    return data


def _parameters(holder: dict[str, Any], where: str) -> dict[str, Any]:
    """The parameters of a request, a tensor or an output. Those that mean nothing here are accepted, as the protocol wants it."""
    found = holder.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise RequestError(f"got {kind_of(found)}", where=_below(where, "parameters"), expected="an object")
    return found


def _flag(parameters: dict[str, Any], name: str, where: str, otherwise: bool = False) -> bool:
    value = parameters.get(name, otherwise)
    if not isinstance(value, bool):
        raise RequestError(f"got {kind_of(value)}", where=_below(where, f"parameters.{name}"), expected="true or false")
    return value


def _below(where: str, what: str) -> str:
    return f"{where}.{what}" if where else what


def _outputs(wanted: Any, binary_by_default: bool) -> tuple[tuple[str, ...], frozenset[str]]:
    """Which outputs are wanted, and which of them as raw bytes."""
    found: dict[str, bool] = {}
    if wanted is not None:
        for place, output in enumerate(need_list(wanted, "outputs", "a list of objects with a name")):
            where = f"outputs[{place}]"
            name = need_output(output.get("name") if isinstance(output, dict) else None, where)
            parameters = _parameters(output, where)
            if "classification" in parameters or "shared_memory_region" in parameters:
                raise RequestError("asks for classes or shared memory", where=where, expected="JSON or binary_data")
            found[name] = _flag(parameters, "binary_data", where, binary_by_default)
    found = found or dict.fromkeys(OUTPUTS, binary_by_default)
    return tuple(found), frozenset(name for name, raw in found.items() if raw)

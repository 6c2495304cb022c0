"""gRPC messages to requests, and answers to gRPC messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perennial_features.schema import FeatureSchema
from perennial_serving.answers import Answer
from perennial_serving.oip import binary
from perennial_serving.oip.datatypes import need_datatype
from perennial_serving.oip.outputs import OUTPUTS, OipRequest, Output, model_version, need_output, outputs_of
from perennial_serving.oip.tensors import Tensors
from perennial_serving.rows import show
from perennial_serving.wire import inference_pb2 as wire
from perennial_spec.errors import RequestError

_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field that holds a datatype's values; FP16 and BF16 have none and travel raw."""


def parse(message: wire.ModelInferRequest, max_rows: int, schema: FeatureSchema | None) -> OipRequest:
    """An inference request.

    Args:
        message: as it came.
        max_rows: that it may have.
        schema: of the model that will answer, or of the one that stands for the pipeline; None: unknown.

    Raises:
        RequestError: not a request of the protocol; names the tensor.
        TooLarge: more than `max_rows`.
    """
    raws = message.raw_input_contents
    if raws and len(raws) != len(message.inputs):
        raise RequestError(
            f"has {len(raws)} tensors, and inputs has {len(message.inputs)}",
            where="raw_input_contents",
            expected="one for each input, or none and all contents in the inputs",
        )
    tensors = Tensors(schema, max_rows, _flag(message.parameters, "empty_is_missing"))
    for place, tensor in enumerate(message.inputs):
        _read(tensors, tensor, place, memoryview(raws[place]) if raws else None)
    rows = tensors.rows()
    outputs = tuple(dict.fromkeys(_wanted(output, place) for place, output in enumerate(message.outputs))) or OUTPUTS
    # As the client speaks, so it is answered. Only all tensors together can be raw.
    raw = bool(raws) or _flag(message.parameters, "binary_data_output")
    return OipRequest(rows, message.id or None, outputs, frozenset(outputs if raw else ()))


def encode(model: str, request: OipRequest, answer: Answer) -> wire.ModelInferResponse:
    """The answer: raw when all of it is wanted so, else in typed contents."""
    found = wire.ModelInferResponse(model_name=model, model_version=model_version(answer), id=request.id or "")
    for output in outputs_of(request, answer):
        tensor = found.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        if request.binary:
            found.raw_output_contents.append(binary.encode(output.values, output.datatype))
        else:
            _fill(tensor.contents, output)
    return found


def _fill(contents: wire.InferTensorContents, output: Output) -> None:
    if output.datatype == "BYTES":
        contents.bytes_contents.extend(value.encode() for value in output.values)
    else:
        contents.fp64_contents.extend(output.values)


def _read(
    tensors: Tensors, tensor: wire.ModelInferRequest.InferInputTensor, place: int, raw: memoryview | None
) -> None:
    if not tensor.name:
        raise RequestError("is empty", where=f"inputs[{place}].name", expected="the column's name")
    where = f"inputs[{place}]: tensor {show(tensor.name)}"
    if "shared_memory_region" in tensor.parameters:
        raise RequestError("is in shared memory", where=where, expected="contents, or raw_input_contents")
    datatype = need_datatype(tensor.datatype, where)
    rows, width = tensors.size(list(tensor.shape), where)
    if raw is None:
        values = _contents(tensor, where)
        if len(values) != rows * width:
            raise RequestError(f"has {len(values)} values", where=where, expected=f"{rows * width}, as its shape says")
        datatype.check(values, width, where)
        tensors.add(tensor.name, where, width, values)
        return
    if tensor.contents.ListFields():
        raise RequestError("has contents, and raw_input_contents is there too", where=where, expected="one of them")
    tensors.add(tensor.name, where, width, binary.decode(raw, datatype, rows * width, where))


def _contents(tensor: wire.ModelInferRequest.InferInputTensor, where: str) -> list[Any]:
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        raise RequestError(
            f"is of {tensor.datatype} and has no raw contents", where=where, expected="raw_input_contents"
        )
    given = [descriptor.name for descriptor, _ in tensor.contents.ListFields()]
    if given and given != [field]:
        raise RequestError(f"has {' and '.join(given)}", where=where, expected=f"{field} ({tensor.datatype})")
    values = list(getattr(tensor.contents, field))
    if tensor.datatype == "BYTES":
        return [binary.decode_text(value, f"{where}, row {row}") for row, value in enumerate(values)]
    return values


def _wanted(output: wire.ModelInferRequest.InferRequestedOutputTensor, place: int) -> str:
    where = f"outputs[{place}]"
    if "classification" in output.parameters or "shared_memory_region" in output.parameters:
        raise RequestError("asks for classes or shared memory", where=where, expected="neither")
    return need_output(output.name, where)


def _flag(parameters: Mapping[str, wire.InferParameter], name: str) -> bool:
    if name not in parameters:
        return False
    kind = parameters[name].WhichOneof("parameter_choice")
    if kind != "bool_param":
        raise RequestError(f"got {kind or 'nothing'}", where=f"parameters.{name}", expected="bool_param")
    return parameters[name].bool_param

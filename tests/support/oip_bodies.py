"""Bodies of the Open Inference Protocol with binary tensors, and a model's inputs to parse them for."""

from __future__ import annotations

import json
import struct
from typing import Any

from perennial_features.schema import FeatureSchema, InputColumn
from perennial_serving import oip

MIXED = FeatureSchema(
    inputs=(
        InputColumn(name="distance", kind="number", nullable=True),
        InputColumn(name="stops", kind="integer"),
        InputColumn(name="direct", kind="boolean"),
        InputColumn(name="carrier", kind="text"),
    ),
    features=(),
)
NUMBERS = FeatureSchema(inputs=MIXED.inputs[:3], features=())
SINGLE = FeatureSchema(inputs=MIXED.inputs[:1], features=())


def tensor(name: str, datatype: str, raw: bytes, shape: Any = (1,), **more: Any) -> tuple[dict[str, Any], bytes]:
    described = {"name": name, "datatype": datatype, "shape": list(shape), "parameters": {"binary_data_size": len(raw)}}
    return {**described, **more}, raw


def parsed(
    *tensors: tuple[dict[str, Any], bytes], schema: Any = MIXED, more: bytes = b"", **head: Any
) -> oip.OipRequest:
    text = json.dumps({"inputs": [described for described, _ in tensors], **head}).encode()
    body = text + b"".join(raw for _, raw in tensors) + more
    return oip.parse(body, len(text), 100, schema)


def texts(*values: str) -> bytes:
    return b"".join(struct.pack("<I", len(value.encode())) + value.encode() for value in values)


ONE = struct.pack("<d", 1.5)

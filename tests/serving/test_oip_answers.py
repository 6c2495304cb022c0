"""Answers as bodies, without a server; and what holds for any body and any message."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from oip_bodies import MIXED, NUMBERS, ONE, SINGLE, parsed, tensor, texts

from perennial_features.request import columns_from_rows
from perennial_serving import grpc_codec, oip
from perennial_serving.answers import Answer
from perennial_serving.oip.datatypes import DATATYPES
from perennial_serving.refusals import sentence
from perennial_serving.wire import inference_pb2 as wire
from perennial_spec.errors import RequestError


def unpacked(body: bytes, headers: dict[str, str]) -> tuple[list[dict[str, Any]], list[bytes]]:
    at = int(headers[oip.LENGTH_HEADER])
    outputs, raws = orjson.loads(body[:at])["outputs"], []
    for output in outputs:
        size = output.get("parameters", {}).get("binary_data_size", 0)
        raws.append(body[at : at + size])
        at += size
    assert at == len(body)
    return outputs, raws


def answer(scores: Any, rows: int) -> Answer:
    return Answer(scores, ["3"] * rows, [f"id-{row}" for row in range(rows)], ("3",))


def test_several_scores_per_row_are_a_matrix_in_row_major_order() -> None:
    scores = np.arange(6, dtype=np.float32).reshape(3, 2).T  # not contiguous
    request = parsed(tensor("distance", "FP64", ONE * 2, (2,)), outputs=[{"name": "score"}])
    body, headers = oip.encode("m", request, answer(scores, 2))
    assert headers == {}
    (score,) = orjson.loads(body)["outputs"]
    assert score == {"name": "score", "datatype": "FP64", "shape": [2, 3], "data": [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]}
    request = parsed(tensor("distance", "FP64", ONE * 2, (2,)), parameters={"binary_data_output": True})
    outputs, raws = unpacked(*oip.encode("m", request, answer(scores, 2)))
    assert (outputs[0]["shape"], np.frombuffer(raws[0]).tolist()) == ([2, 3], score["data"])
    assert raws[2] == texts("id-0", "id-1")


def test_labels_that_are_text_are_bytes() -> None:
    request = parsed(tensor("distance", "FP64", ONE * 2, (2,)), parameters={"binary_data_output": True})
    for labels in (["late", "früh"], np.array(["late", "früh"])):
        outputs, raws = unpacked(*oip.encode("m", request, answer(labels, 2)))
        assert (outputs[0]["datatype"], raws[0]) == ("BYTES", texts("late", "früh"))


def test_the_metadata_tell_how_many_scores_a_row_has() -> None:
    assert oip.metadata("m", ["1"], MIXED)["outputs"][0]["shape"] == [-1]
    assert oip.metadata("m", ["1"], MIXED, width=3)["outputs"][0]["shape"] == [-1, 3]


# -- anything at all --

BYTES = st.binary(max_size=60)
ANY_TENSOR = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["distance", "stops", "direct", "carrier", "x", ""]),
        "datatype": st.sampled_from([*DATATYPES, "X"]),
        "shape": st.lists(st.integers(-1, 5) | st.booleans() | st.floats(), max_size=3),
        "parameters": st.none() | st.fixed_dictionaries({"binary_data_size": st.integers(-1, 40) | st.floats()}),
    },
    optional={
        "data": st.lists(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3), max_size=6)
    },
)


@settings(max_examples=400, deadline=None)
@given(st.lists(ANY_TENSOR, max_size=4), BYTES, st.integers(-3, 3), st.sampled_from([MIXED, NUMBERS, SINGLE, None]))
def test_whatever_a_body_holds_it_is_parsed_or_refused(tensors: Any, tail: bytes, off: int, schema: Any) -> None:
    head = json.dumps({"inputs": tensors}).encode()
    for length in (len(head), len(head) + off, None):
        try:
            rows = oip.parse(head + tail, length, 100, schema).rows
            columns_from_rows(rows.columns, schema or MIXED)
        except RequestError as error:
            assert sentence(error)


@settings(max_examples=300, deadline=None)
@given(st.lists(ANY_TENSOR, max_size=4), st.lists(BYTES, max_size=4), st.sampled_from([MIXED, NUMBERS, SINGLE, None]))
def test_whatever_a_message_holds_it_is_parsed_or_refused(tensors: Any, raws: Any, schema: Any) -> None:
    message = wire.ModelInferRequest(raw_input_contents=raws)
    for each in tensors:
        shape = [int(n) for n in each["shape"] if n == n and abs(n) < 9]
        message.inputs.add(name=each["name"], datatype=each["datatype"], shape=shape)
    try:
        columns_from_rows(grpc_codec.parse(message, 100, schema).rows.columns, schema or MIXED)
    except RequestError as error:
        assert sentence(error)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(allow_infinity=False), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.text()),
        min_size=1,
    )
)
def test_what_goes_in_comes_out_whichever_way_it_travels(rows: Any) -> None:
    distance, stops, direct, carrier = (list(column) for column in zip(*rows, strict=True))
    shape, expected = [len(rows)], {"distance": distance, "stops": stops, "direct": direct, "carrier": carrier}
    raws = {
        "distance": ("FP64", np.array(distance).tobytes()),
        "stops": ("INT64", np.array(stops, dtype=np.int64).tobytes()),
        "direct": ("BOOL", np.array(direct).tobytes()),
        "carrier": ("BYTES", texts(*carrier)),
    }
    by_rest = parsed(*(tensor(name, kind, raw, shape) for name, (kind, raw) in raws.items())).rows
    message = wire.ModelInferRequest(raw_input_contents=[raw for _, raw in raws.values()])
    for name, (kind, _) in raws.items():
        message.inputs.add(name=name, datatype=kind, shape=shape)
    typed = columns_from_rows(expected, MIXED)
    for found in (by_rest, grpc_codec.parse(message, 100, MIXED).rows):
        columns = columns_from_rows(found.columns, MIXED)
        assert {name: str(values.tolist()) for name, values in columns.items()} == {
            name: str(values.tolist()) for name, values in typed.items()
        }

"""Bodies of the protocol, without a server: binary tensors, matrices, and every way in which they can be wrong."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import orjson
import pytest
from oip_bodies import MIXED, NUMBERS, ONE, SINGLE, parsed, tensor, texts

from perennial_features.request import columns_from_rows
from perennial_serving import oip
from perennial_serving.oip.datatypes import DATATYPES
from perennial_serving.refusals import NotParsed, TooLarge, sentence
from perennial_spec.errors import PerennialError, RequestError


def refused(kind: type[PerennialError], *given: Any, **options: Any) -> str:
    with pytest.raises(RequestError) as caught:
        parsed(*given, **options)
    assert type(caught.value) is kind, caught.value
    return sentence(caught.value)


# -- reading --


def test_numbers_are_views_of_the_body_and_not_copies() -> None:
    body = parsed(tensor("distance", "FP64", np.arange(3.0).tobytes(), (3,))).rows.columns["distance"]
    assert body.tolist() == [0.0, 1.0, 2.0]
    assert not body.flags.owndata
    assert not body.flags.writeable


def test_what_is_no_input_of_the_model_is_plain_values() -> None:
    rows = parsed(tensor("distance", "FP64", ONE), tensor("flight_id", "INT64", struct.pack("<q", 7))).rows
    assert rows.columns["flight_id"] == [7]
    assert type(rows.column("distance")) is list


def test_rows_of_arrays_can_be_taken_apart() -> None:
    rows = parsed(
        tensor("distance", "FP64", np.arange(3.0).tobytes(), (3,)),
        tensor("carrier", "BYTES", texts("a", "b", "c"), (3,)),
    ).rows
    part = rows.take([2, 0])
    assert (part.columns["distance"].tolist(), part.columns["carrier"], part.count) == ([2.0, 0.0], ["c", "a"], 2)


@pytest.mark.parametrize("schema", [MIXED, None])
def test_every_datatype_is_read_as_the_typed_column_it_means(schema: Any) -> None:
    for name, datatype in DATATYPES.items():
        if name in {"BYTES", "BOOL"}:
            continue
        raw = np.array([1, 2]).astype(datatype.code).tobytes() if name != "BF16" else struct.pack("<2H", 0x3F80, 0x4000)
        sent = tensor("distance", name, raw, (2,)), tensor("stops", name, raw, (2, 1))
        direct = tensor("direct", "BOOL", b"\1\0", (2,)), tensor("carrier", "BYTES", texts("", "Ö"), (2,))
        columns = columns_from_rows(parsed(*sent, *direct, schema=schema).rows.columns, MIXED)
        assert columns["distance"].tolist() == [1.0, 2.0]
        assert columns["stops"].tolist() == [1, 2]
        assert columns["stops"].dtype == np.int64
        assert columns["direct"].tolist() == [True, False]
        assert columns["carrier"].tolist() == ["", "Ö"]


def test_a_missing_integer_or_boolean_is_nan_as_in_training() -> None:
    raw = struct.pack("<2d", 1, float("nan"))
    columns = columns_from_rows(
        parsed(
            tensor("stops", "FP64", raw, (2,)),
            tensor("direct", "FP64", raw, (2,)),
            tensor("carrier", "BYTES", texts("a", "b"), (2,)),
        ).rows.columns,
        MIXED,
    )
    for name in ("stops", "direct"):
        assert columns[name].dtype == np.float64
        assert str(columns[name].tolist()) == "[1.0, nan]"


def test_binary_and_json_inputs_may_be_mixed_in_any_order() -> None:
    plain = {"name": "stops", "datatype": "INT64", "shape": [1], "data": [2]}, b""
    rows = parsed(tensor("carrier", "BYTES", texts("UA")), plain, tensor("distance", "FP64", ONE)).rows
    assert (rows.columns["carrier"], rows.columns["stops"], rows.columns["distance"].tolist()) == (["UA"], [2], [1.5])


def test_parameters_that_mean_nothing_here_are_accepted() -> None:
    given, raw = tensor("distance", "FP64", ONE)
    given["parameters"]["content_type"] = "np"
    request = parsed(
        (given, raw),
        parameters={"priority": 3, "sequence_id": "x"},
        outputs=[{"name": "score", "parameters": {"binary_data": True, "other": [1]}}, {"name": "version"}],
    )
    assert request.outputs == ("score", "version")
    assert request.binary == {"score"}


def test_one_matrix_holds_all_inputs_of_a_model_of_numbers_beside_other_columns() -> None:
    raw = np.array([[1.5, 2, 1], [float("nan"), 3, 0]], dtype="<f4").tobytes()
    rows = parsed(tensor("x", "FP32", raw, (2, 3)), tensor("key", "BYTES", texts("a", "b"), (2,)), schema=NUMBERS).rows
    columns = columns_from_rows(rows.columns, NUMBERS)
    assert str(columns["distance"].tolist()) == "[1.5, nan]"
    assert (columns["stops"].tolist(), columns["direct"].tolist()) == ([2, 3], [True, False])
    assert rows.columns["key"] == ["a", "b"]


def test_a_matrix_of_one_column_may_have_any_name() -> None:
    assert list(parsed(tensor("x", "FP64", ONE, (1, 1)), schema=SINGLE).rows.columns) == ["distance"]
    assert list(parsed(tensor("x", "FP64", ONE, (1,)), schema=SINGLE).rows.columns) == ["x"]


# -- refusing --


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (tensor("distance", "FP64", ONE[:7]), ["'distance': has 7 bytes", "expected 8: 1 values of FP64"]),
        (tensor("distance", "FP64", ONE, (2,)), ["'distance': has 8 bytes", "expected 16"]),
        (tensor("distance", "FP64", b"", (0,)), ["no rows"]),
        (tensor("distance", "FP64", ONE, data=[1.5]), ["'distance'", "both data and binary_data_size"]),
        (
            tensor("distance", "FP64", ONE, parameters={"binary_data_size": -8}),
            ["'distance': binary_data_size", "no size"],
        ),
        (
            tensor("distance", "FP64", ONE, parameters={"binary_data_size": 8.0}),
            ["'distance': binary_data_size", "no size"],
        ),
        (
            tensor("distance", "FP64", ONE, parameters={"binary_data_size": True}),
            ["'distance': binary_data_size", "no size"],
        ),
        (
            tensor("distance", "FP64", ONE, parameters={"binary_data_size": "8"}),
            ["'distance': binary_data_size", "no size"],
        ),
        (
            tensor("distance", "FP64", ONE, parameters={"binary_data_size": 2**62}),
            ["'distance': binary_data_size: wants", "at most 8", "left in the body"],
        ),
        (tensor("distance", "FP64", ONE, parameters=[8]), ["'distance'.parameters: got a list"]),
        (tensor("distance", "FP64", ONE, parameters={}), ["'distance': data: got null", "binary_data_size"]),
        (tensor("distance", "FP64", ONE, (-1,)), ["'distance'", "one column"]),
        (tensor("distance", "FP64", ONE, (1, 1, 1)), ["'distance'", "one column"]),
        (tensor("distance", "FP64", ONE, (1, 0)), ["'distance'", "one column", "'carrier' is text"]),
        (tensor("distance", "FP7", ONE), ["'distance'", "datatype"]),
        (tensor("direct", "BOOL", b"\2"), ["'direct', row 0", "neither 0 nor 1"]),
        (tensor("carrier", "BYTES", b"\1\0"), ["'carrier': has 2 bytes", "each of 1 values"]),
        (tensor("carrier", "BYTES", texts("UA")[:-1]), ["'carrier', row 0", "a value of 2 bytes, and 1 are left"]),
        (tensor("carrier", "BYTES", b"\xff\xff\xff\xff"), ["'carrier', row 0", "4,294,967,295 bytes, and 0 are left"]),
        (tensor("carrier", "BYTES", texts("UA") + b"\0\0", (2,)), ["'carrier'", "row 1: got the end of its bytes"]),
        (tensor("carrier", "BYTES", texts("UA", "B6")), ["'carrier': 6 bytes are left after 1 values"]),
        (tensor("carrier", "BYTES", struct.pack("<I", 1) + b"\xff"), ["'carrier', row 0", "not UTF-8: byte 0"]),
        (
            tensor("distance", "FP64", ONE, parameters={"shared_memory_region": "x"}),
            ["'distance': is in shared memory"],
        ),
    ],
)
def test_a_broken_tensor_is_refused_by_its_name(given: Any, words: list[str]) -> None:
    message = refused(RequestError, given)
    for word in words:
        assert word in message


def test_sizes_that_do_not_add_up_are_refused() -> None:
    first, second = tensor("distance", "FP64", ONE), tensor("carrier", "BYTES", texts("UA"))
    assert "inputs: 3 bytes are left after the last tensor" in refused(RequestError, first, second, more=b"abc")
    overlapping = second[0], second[1][:4]
    assert "'carrier': binary_data_size: wants 6 bytes" in refused(RequestError, first, overlapping)


def test_a_json_length_that_the_body_does_not_have_is_refused() -> None:
    body = b'{"inputs": []}'
    for length in (len(body) + 1, 2**62, -1):
        with pytest.raises(NotParsed, match=f"{length:,}"):
            oip.parse(body, length, 100, MIXED)
    with pytest.raises(NotParsed, match="not JSON"):
        oip.parse(body, len(body) - 1, 100, MIXED)
    for text in ("", "-1", "1.0", "x", "٣", "9" * 30):
        with pytest.raises(NotParsed, match="no size"):
            oip.header_length(text)
    assert (oip.header_length("17"), oip.header_length(None)) == (17, None)


def test_binary_tensors_without_the_header_are_explained() -> None:
    given, _ = tensor("distance", "FP64", ONE)
    with pytest.raises(RequestError) as caught:
        oip.parse(orjson.dumps({"inputs": [given]}), None, 100, MIXED)
    assert "'distance'" in sentence(caught.value)
    assert "the header Inference-Header-Content-Length" in sentence(caught.value)


def test_a_matrix_that_the_model_cannot_take_is_explained() -> None:
    raw = np.zeros((1, 3)).tobytes()
    assert "'x': is not one column" in refused(RequestError, tensor("x", "FP64", raw, (1, 3)), schema=None)
    assert "'carrier' is text" in refused(RequestError, tensor("x", "FP64", raw, (1, 3)))
    message = refused(RequestError, tensor("x", "FP64", raw[:16], (1, 2)), schema=NUMBERS)
    assert "has 2 columns; expected 1, or all 3 inputs of the model: 'distance', 'stops', 'direct'" in message
    twice = tensor("stops", "FP64", ONE), tensor("x", "FP64", raw, (1, 3))
    assert "tensor 'x': its column 1: is given twice" in refused(RequestError, *twice, schema=NUMBERS)
    value = {"name": "x", "datatype": "FP64", "shape": [2, 3], "data": [[1, 2, 3], [1, 2]]}
    assert "'x', row 1: got 2 values; expected a list of 3" in refused(RequestError, (value, b""), schema=NUMBERS)
    value["data"] = [1, 2, 3, 4, "x", 6]
    assert "'x', row 1: got text" in refused(RequestError, (value, b""), schema=NUMBERS)


def test_too_many_rows_are_refused_before_their_values_are_read() -> None:
    assert "101 rows" in refused(TooLarge, tensor("carrier", "BYTES", b"", (101,)))


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ({"parameters": 7}, "parameters: got a number; expected an object"),
        (
            {"parameters": {"binary_data_output": 1}},
            "parameters.binary_data_output: got a number; expected true or false",
        ),
        ({"parameters": {"empty_is_missing": "yes"}}, "parameters.empty_is_missing: got text"),
        ({"outputs": [{"name": "score", "parameters": {"binary_data": 1}}]}, "outputs[0].parameters.binary_data"),
        ({"outputs": [{"name": "score", "parameters": {"classification": 2}}]}, "outputs[0]: asks for classes"),
        ({"outputs": [{"name": ["score"]}]}, "outputs[0].name: is no output"),
    ],
)
def test_parameters_of_the_wrong_type_are_refused(head: Any, words: str) -> None:
    assert words in refused(RequestError, tensor("distance", "FP64", ONE), **head)


@pytest.mark.parametrize(
    ("datatype", "value", "words"), [("INT8", 128, "-128 to 127 (INT8)"), ("UINT16", -1, "0 to 65,535 (UINT16)")]
)
def test_an_integer_out_of_its_datatypes_range_is_refused(datatype: str, value: int, words: str) -> None:
    given = {"name": "stops", "datatype": datatype, "shape": [2], "data": [1, value]}
    message = refused(RequestError, (given, b""))
    assert "'stops', row 1: got a number out of range" in message
    assert words in message

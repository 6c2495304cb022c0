"""The protocol over gRPC, spoken to a real server by tritonclient, unmodified: what is asked, answered and refused."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from grpc_speaking import arrays, calling, contents, refused, speaking
from tritonclient.grpc import service_pb2 as theirs

from perennial_features.bundle import Bundle
from perennial_serving.wire import inference_pb2 as ours


@pytest.fixture(scope="module")
def spoken(one: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with speaking(one, tmp_path_factory.mktemp("grpc")) as server:
        yield server


@pytest.fixture(scope="module")
def client(spoken: Any) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{spoken.settings.grpc_port}") as made:
        yield made


@pytest.fixture(scope="module")
def call(spoken: Any) -> Iterator[Callable[..., Any]]:
    with calling(spoken.settings.grpc_port) as made:
        yield made


@pytest.fixture(scope="module")
def truth(bundles: dict[str, Path]) -> Any:
    bundle = Bundle.load(bundles["one"])
    return lambda rows: bundle.predict(bundle.columns(rows)).tolist()


# -- the messages --


def test_every_message_has_the_fields_numbers_and_types_of_the_published_protocol() -> None:
    known = theirs.DESCRIPTOR.message_types_by_name

    def same(mine: Any, other: Any) -> None:
        for field in mine.fields:
            found = other.fields_by_name[field.name]
            assert (field.number, field.type, field.is_repeated) == (found.number, found.type, found.is_repeated), (
                field.full_name
            )
        for nested in mine.nested_types:
            same(nested, other.nested_types_by_name[nested.name])

    for name, message in ours.DESCRIPTOR.message_types_by_name.items():
        same(message, known[name])


# -- what is asked before the first prediction --


def test_health_and_metadata_say_what_http_says(client: Any, spoken: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(spoken.name)
    assert client.is_model_ready(spoken.name, "1")
    server = client.get_server_metadata(as_json=True)
    assert (server["name"], server["extensions"]) == ("perennial", ["model_repository"])
    for version, path in (("", ""), ("1", "/versions/1")):
        over_http = spoken.http.get(f"/v2/models/{spoken.name}{path}").json()
        found = client.get_model_metadata(spoken.name, version, as_json=True)
        for tensor in found["inputs"] + found["outputs"]:
            tensor["shape"] = [int(size) for size in tensor["shape"]]
        assert found == over_http
    index = client.get_model_repository_index(as_json=True)
    assert index == {"models": [{"name": spoken.name, "version": "1", "state": "READY"}]}


def test_what_is_not_served_is_not_found(client: Any, spoken: Any, row: Any) -> None:
    near = spoken.name + "x"
    for ask in (
        lambda: client.is_model_ready(near),
        lambda: client.get_model_metadata(near),
        lambda: client.infer(near, arrays([row])),
    ):
        assert f"did you mean '{spoken.name}'?" in refused("NOT_FOUND", ask)
    assert "version '9'" in refused("NOT_FOUND", lambda: client.is_model_ready(spoken.name, "9"))
    assert "version '9'" in refused("NOT_FOUND", lambda: client.infer(spoken.name, arrays([row]), model_version="9"))


# -- predictions --


def test_raw_inputs_are_answered_raw_with_scores_versions_and_ids(
    client: Any, spoken: Any, row: Any, truth: Any
) -> None:
    rows = [row, {**row, "flight_id": "F2", "carrier": "Ö-Air", "distance": 90.5}]
    answer = client.infer(spoken.name, arrays(rows), request_id="abc")
    assert answer.as_numpy("score").tolist() == truth(rows)
    assert answer.as_numpy("version").tolist() == [b"1", b"1"]
    assert len({value for value in answer.as_numpy("prediction_id").tolist() if len(value) == 36}) == 2
    said = answer.get_response()
    assert (said.model_name, said.model_version, said.id) == (spoken.name, "1", "abc")
    assert len(said.raw_output_contents) == 3


def test_typed_contents_are_answered_in_typed_contents(call: Any, spoken: Any, row: Any, truth: Any) -> None:
    rows = [row, {**row, "distance": 90.5}]
    answer, _ = call("ModelInfer", contents(rows, spoken.name), theirs.ModelInferResponse)
    score, version, ids = answer.outputs
    assert list(score.contents.fp64_contents) == truth(rows)
    assert list(version.contents.bytes_contents) == [b"1", b"1"]
    assert len(ids.contents.bytes_contents) == 2
    assert not answer.raw_output_contents


def test_only_the_outputs_asked_for_come_and_in_that_order(client: Any, spoken: Any, row: Any, truth: Any) -> None:
    wanted = [triton.InferRequestedOutput("version"), triton.InferRequestedOutput("score")]
    answer = client.infer(spoken.name, arrays([row]), model_version="1", outputs=wanted)
    assert [output.name for output in answer.get_response().outputs] == ["version", "score"]
    assert answer.as_numpy("score").tolist() == truth([row])


def test_nan_is_missing_and_an_empty_text_where_the_request_says_so(
    client: Any, spoken: Any, row: Any, truth: Any
) -> None:
    sent = arrays([{**row, "distance": float("nan"), "carrier": ""}])
    answer = client.infer(spoken.name, sent, parameters={"empty_is_missing": True})
    assert answer.as_numpy("score").tolist() == truth([{**row, "distance": None, "carrier": None}])
    answer = client.infer(spoken.name, sent)
    assert answer.as_numpy("score").tolist() == truth([{**row, "distance": None, "carrier": ""}])


def test_other_datatypes_are_converted_where_nothing_is_lost(client: Any, spoken: Any, row: Any, truth: Any) -> None:
    for datatype, dtype in (("FP16", np.float16), ("FP32", np.float32), ("INT16", np.int16), ("UINT64", np.uint64)):
        sent = [tensor for tensor in arrays([row]) if tensor.name() not in {"distance", "stops"}]
        for name in ("distance", "stops"):
            tensor = triton.InferInput(name, [1, 1], datatype)
            sent.append(tensor.set_data_from_numpy(np.array([[row[name]]], dtype=dtype)))
        assert client.infer(spoken.name, sent).as_numpy("score").tolist() == truth([row])


def test_the_trailers_name_the_version_and_the_prediction(call: Any, spoken: Any, row: Any) -> None:
    answer, trailers = call("ModelInfer", contents([row], spoken.name), theirs.ModelInferResponse)
    assert trailers["x-perennial-version"] == "1"
    assert trailers["x-perennial-prediction-id"].encode() == answer.outputs[2].contents.bytes_contents[0]
    _, trailers = call("ModelInfer", contents([row, row], spoken.name), theirs.ModelInferResponse)
    assert "x-perennial-prediction-id" not in trailers


def test_many_calls_at_once_each_get_their_own_answer(client: Any, spoken: Any, row: Any, truth: Any) -> None:
    rows = [{**row, "distance": 50.0 * place} for place in range(60)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda each: client.infer(spoken.name, arrays([each])).as_numpy("score")[0], rows))
    assert answers == truth(rows)


# -- requests that cannot be answered --


def change(**fields: Any) -> Callable[[Any], None]:
    """Change the tensor `distance`, which comes third."""

    def apply(message: Any) -> None:
        tensor = message.inputs[2]
        for name, value in fields.items():
            if name == "shape":
                tensor.ClearField("shape")
                tensor.shape.extend(value)
            elif name.endswith("contents"):
                tensor.ClearField("contents")
                getattr(tensor.contents, name).extend(value)
            else:
                setattr(tensor, name, value)

    return apply


def misspelt(message: Any) -> None:
    message.inputs[3].name = "stop"


def shared_memory(message: Any) -> None:
    message.inputs[2].parameters["shared_memory_region"].string_param = "x"


def classification(message: Any) -> None:
    message.outputs.add(name="score").parameters["classification"].int64_param = 3


def wrong_flag(message: Any) -> None:
    message.parameters["empty_is_missing"].string_param = "true"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda message: message.ClearField("inputs"), ["no columns"]),
        (change(name=""), ["inputs[2].name", "the column's name"]),
        (misspelt, ["'stops' is missing", "did you mean it by 'stop'?"]),
        (change(name="stops"), ["'stops'", "given twice"]),
        (change(datatype="FP7"), ["'distance'", "datatype", "FP64"]),
        (change(datatype="INT64"), ["'distance'", "has fp64_contents", "expected int64_contents (INT64)"]),
        (change(datatype="FP16"), ["'distance'", "FP16", "raw_input_contents"]),
        (change(shape=[2]), ["'distance'", "has 1 values", "expected 2"]),
        (change(shape=[-1]), ["'distance'", "one column"]),
        (change(shape=[]), ["'distance'", "one column"]),
        (change(shape=[1, 2]), ["'distance'", "one column", "'departure' is timestamp"]),
        (change(shape=[0], fp64_contents=[]), ["'distance'", "has 0 values, and 'flight_id' has 1"]),
        (change(shape=[10**12]), ["at most 100"]),
        (change(fp64_contents=[float("inf")]), ["'distance'", "row 0", "a number"]),
        (change(datatype="BYTES", bytes_contents=[b"\xff"]), ["'distance', row 0", "not UTF-8"]),
        (change(datatype="BYTES", bytes_contents=[b"far"]), ["'distance'", "row 0", "a number"]),
        (change(datatype="INT8", int_contents=[300]), ["'distance', row 0", "-128 to 127 (INT8)"]),
        (lambda message: message.outputs.add(name="scor"), ["outputs[0].name", "score"]),
        (
            lambda message: message.raw_input_contents.append(b""),
            ["raw_input_contents", "has 1 tensors", "inputs has 6"],
        ),
        (
            lambda message: message.raw_input_contents.extend([b""] * 6),
            ["'flight_id'", "raw_input_contents is there too"],
        ),
        (shared_memory, ["'distance'", "shared memory"]),
        (classification, ["outputs[0]", "classes"]),
        (wrong_flag, ["parameters.empty_is_missing", "got string_param", "bool_param"]),
    ],
)
def test_a_call_is_refused_with_the_tensors_name(
    call: Any, spoken: Any, row: Any, spoil: Any, words: list[str]
) -> None:
    message = contents([row], spoken.name)
    spoil(message)
    code = "RESOURCE_EXHAUSTED" if "at most 100" in words else "INVALID_ARGUMENT"
    details = refused(code, lambda: call("ModelInfer", message))
    for word in words:
        assert word in details


def test_raw_contents_that_do_not_add_up_are_refused(call: Any, client: Any, spoken: Any, row: Any) -> None:
    sent = arrays([row])
    sent[2]._raw_content = b"\0" * 7
    assert "'distance': has 7 bytes; expected 8" in refused("INVALID_ARGUMENT", lambda: client.infer(spoken.name, sent))
    sent = arrays([row])
    sent[5]._raw_content = b"\xff\0\0\0UA"
    details = refused("INVALID_ARGUMENT", lambda: client.infer(spoken.name, sent))
    assert "'carrier', row 0: got a value of 255 bytes, and 2 are left" in details


def test_bytes_that_are_no_message_are_the_clients_fault(call: Any) -> None:
    assert "cannot be read" in refused("INVALID_ARGUMENT", lambda: call("ModelInfer", b"\xff\xff\xff"))
    assert "cannot be read" in refused("INVALID_ARGUMENT", lambda: call("ModelReady", b"\xff\xff\xff"))
    refused("UNIMPLEMENTED", lambda: call("ModelStreamInfer", b""))


def test_a_message_over_the_limit_is_refused_compressed_or_not(call: Any, spoken: Any, row: Any) -> None:
    message = contents([{**row, "carrier": "x" * 200_000}], spoken.name)
    refused("RESOURCE_EXHAUSTED", lambda: call("ModelInfer", message))
    assert len(gzip.compress(message.SerializeToString())) < 10_000
    refused("RESOURCE_EXHAUSTED", lambda: call("ModelInfer", message, compression=grpc.Compression.Gzip))


def test_too_many_rows_are_refused(client: Any, spoken: Any, row: Any) -> None:
    details = refused("RESOURCE_EXHAUSTED", lambda: client.infer(spoken.name, arrays([row] * 101)))
    assert "101 rows; expected at most 100" in details

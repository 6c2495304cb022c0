"""The protocol over HTTP, spoken to a real server by tritonclient, unmodified: JSON and binary tensors give the same answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from perennial_features.bundle import Bundle

TYPES = {str: "BYTES", float: "FP64", bool: "BOOL", int: "INT64"}


@pytest.fixture(scope="module")
def client(one: Any) -> Iterator[Any]:
    with triton.InferenceServerClient(one.url.removeprefix("http://")) as made:
        yield made


@pytest.fixture(scope="module")
def truth(bundles: dict[str, Path]) -> Any:
    bundle = Bundle.load(bundles["one"])
    return lambda rows: bundle.predict(bundle.columns(rows)).tolist()


def tensors(rows: list[dict[str, Any]], binary: bool, shape: tuple[int, ...] = (-1,)) -> list[Any]:
    inputs = []
    for name, first in rows[0].items():
        values = np.array([row[name] for row in rows], dtype=object if isinstance(first, str) else None).reshape(shape)
        tensor = triton.InferInput(name, list(values.shape), TYPES[type(first)])
        inputs.append(tensor.set_data_from_numpy(values, binary_data=binary))
    return inputs


def wanted(binary: bool, *names: str) -> list[Any]:
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in names]


def refused(client: Any, status: str, *given: Any, **options: Any) -> str:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(*given, **options)
    assert caught.value.status() == status
    message: str = caught.value.message()
    return message


def test_health_and_metadata_are_understood(client: Any, one: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(one.name)
    assert client.is_model_ready(one.name, "1")
    assert not client.is_model_ready(one.name, "9")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata(one.name)["platform"] == "perennial_xgboost"
    assert client.get_model_metadata(one.name, "1")["versions"] == ["1"]
    assert client.get_model_repository_index()[0]["state"] == "READY"


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("got", [True, False])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_binary_and_json_tensors_give_the_same_answers(
    client: Any, one: Any, row: Any, truth: Any, sent: bool, got: bool, shape: Any
) -> None:
    rows = [row, {**row, "flight_id": "F2", "carrier": "Ö-Air", "distance": 90.5}]
    answer = client.infer(
        one.name,
        tensors(rows, sent, shape),
        request_id="abc",
        outputs=wanted(got, "score", "version", "prediction_id"),
    )
    assert answer.as_numpy("score").tolist() == truth(rows)
    assert answer.as_numpy("version").tolist() == ([b"1", b"1"] if got else ["1", "1"])
    assert len(set(answer.as_numpy("prediction_id").tolist())) == 2
    value = answer.get_response()
    assert (value["model_name"], value["model_version"], value["id"]) == (one.name, "1", "abc")
    assert ("data" in value["outputs"][0]) is not got


def test_without_a_list_of_outputs_all_come_as_the_client_wants_them(
    client: Any, one: Any, row: Any, truth: Any
) -> None:
    answer = client.infer(one.name, tensors([row], True))
    assert [output["name"] for output in answer.get_response()["outputs"]] == ["score", "version", "prediction_id"]
    assert all(output["parameters"]["binary_data_size"] > 0 for output in answer.get_response()["outputs"])
    assert answer.as_numpy("score").tolist() == truth([row])


def test_outputs_may_be_binary_one_by_one(client: Any, one: Any, row: Any, truth: Any) -> None:
    outputs = wanted(False, "version") + wanted(True, "score")
    answer = client.infer(one.name, tensors([row], False), outputs=outputs)
    assert answer.as_numpy("version").tolist() == ["1"]
    assert answer.as_numpy("score").tolist() == truth([row])


def test_nan_is_a_missing_value_in_binary(client: Any, one: Any, row: Any, truth: Any) -> None:
    answer = client.infer(one.name, tensors([{**row, "distance": float("nan")}], True))
    assert answer.as_numpy("score").tolist() == truth([{**row, "distance": None}])


def test_an_empty_text_is_missing_where_the_request_says_so(client: Any, one: Any, row: Any, truth: Any) -> None:
    for sent in (True, False):
        inputs = tensors([{**row, "carrier": ""}], sent)
        kept = client.infer(one.name, inputs, outputs=wanted(False, "score"))
        gone = client.infer(one.name, inputs, parameters={"empty_is_missing": True})
        assert kept.as_numpy("score").tolist() == truth([{**row, "carrier": ""}])
        assert gone.as_numpy("score").tolist() == truth([{**row, "carrier": None}])


@pytest.mark.parametrize(("datatype", "dtype"), [("FP16", np.float16), ("FP32", np.float32), ("INT16", np.int16)])
def test_other_datatypes_are_converted_where_nothing_is_lost(
    client: Any, one: Any, row: Any, truth: Any, datatype: str, dtype: Any
) -> None:
    for sent in (True, False):
        inputs = [tensor for tensor in tensors([row], sent) if tensor.name() not in {"distance", "stops"}]
        for name in ("distance", "stops"):
            values = np.array([row[name]], dtype=dtype)
            inputs.append(triton.InferInput(name, [1], datatype).set_data_from_numpy(values, binary_data=sent))
        assert client.infer(one.name, inputs).as_numpy("score").tolist() == truth([row])


def test_bf16_is_read(client: Any, one: Any, row: Any, truth: Any) -> None:
    import ml_dtypes

    inputs = [tensor for tensor in tensors([row, row], True) if tensor.name() != "distance"]
    values = np.array([750.0, np.nan], dtype=ml_dtypes.bfloat16)
    inputs.append(triton.InferInput("distance", [2], "BF16").set_data_from_numpy(values))
    exact = float(values[0])
    answer = client.infer(one.name, inputs)
    assert answer.as_numpy("score").tolist() == truth([{**row, "distance": exact}, {**row, "distance": None}])


def test_a_matrix_of_all_inputs_is_taken_by_a_model_of_numbers(pipeline: Any, bundles: Any, serve: Any) -> None:
    pipeline.route({pipeline.register(bundles["numbers"]): 1.0})
    server = serve(pipeline)
    names = [tensor["name"] for tensor in server.http.get(f"/v2/models/{pipeline.name}").json()["inputs"]]
    assert names == ["distance", "stops", "direct", "wind"]
    matrix = np.array([[750.0, 1, 0, 9.5], [np.nan, 2, 1, 11.0], [90.5, 0, 1, 3.25]])
    bundle = Bundle.load(bundles["numbers"])
    truth = bundle.predict(bundle.columns(dict(zip(names, matrix.T.tolist(), strict=True)))).tolist()
    keys = triton.InferInput("flight_id", [3], "INT64").set_data_from_numpy(np.array([1, 2, 3]))
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        given = triton.InferInput("input-0", [3, 4], "FP64").set_data_from_numpy(matrix)
        answer = client.infer(pipeline.name, [given, keys])
        assert answer.as_numpy("score").tolist() == truth
        rows = [[750.0, 1, 0, 9.5], [None, 2, 1, 11.0], [90.5, 0, 1, 3.25]]
        for data in (rows, [value for row in rows for value in row]):
            body = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [3, 4], "data": data}]}
            got = server.http.post(f"/v2/models/{pipeline.name}/infer", json=body)
            assert got.json()["outputs"][0]["data"] == truth
        narrow = triton.InferInput("input-0", [3, 3], "FP64").set_data_from_numpy(matrix[:, :3].copy())
        message = refused(client, "400", pipeline.name, [narrow])
    assert "'input-0': has 3 columns" in message
    assert "all 4 inputs of the model: 'distance', 'stops', 'direct', 'wind'" in message


def test_wrong_names_types_and_outputs_are_named_in_the_clients_exception(client: Any, one: Any, row: Any) -> None:
    inputs = {tensor.name(): tensor for tensor in tensors([row], True)}

    def without(name: str, *others: Any) -> list[Any]:
        return [tensor for key, tensor in inputs.items() if key != name] + list(others)

    stop = triton.InferInput("stop", [1], "INT64").set_data_from_numpy(np.array([1]))
    message = refused(client, "400", one.name, without("stops", stop))
    assert "'stops' is missing" in message
    assert "did you mean it by 'stop'?" in message
    carrier = triton.InferInput("carrier", [1], "FP32").set_data_from_numpy(np.array([1.5], dtype=np.float32))
    assert "'carrier'" in refused(client, "400", one.name, without("carrier", carrier))
    stops = triton.InferInput("stops", [1], "FP64").set_data_from_numpy(np.array([1.5]))
    assert "'stops': got 1.5" in refused(client, "400", one.name, without("stops", stops))
    far = triton.InferInput("distance", [1], "FP64").set_data_from_numpy(np.array([np.inf]))
    assert "'distance': got inf" in refused(client, "400", one.name, without("distance", far))
    message = refused(client, "400", one.name, list(inputs.values()), outputs=wanted(True, "label"))
    assert "outputs[0].name: is no output of this model" in message
    message = refused(
        client, "400", one.name, list(inputs.values()), outputs=[triton.InferRequestedOutput("score", class_count=3)]
    )
    assert "asks for classes" in message
    shared = triton.InferInput("distance", [1], "FP64")
    shared.set_shared_memory("region", 8)
    assert "'distance': is in shared memory" in refused(client, "400", one.name, without("distance", shared))
    assert "did you mean" in refused(client, "404", one.name + "x", list(inputs.values()))
    assert "version '9'" in refused(client, "404", one.name, list(inputs.values()), model_version="9")


def test_rows_of_two_versions_are_told_apart_in_binary(pipeline: Any, bundles: Any, serve: Any, row: Any) -> None:
    pipeline.route({pipeline.register(bundles["one"]): 0.5, pipeline.register(bundles["two"]): 0.5})
    server = serve(pipeline)
    rows = [{**row, "flight_id": f"F{place}", "distance": 40.0 * place} for place in range(40)]
    truths = [bundle.predict(bundle.columns(rows)) for bundle in map(Bundle.load, (bundles["one"], bundles["two"]))]
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        answer = client.infer(pipeline.name, tensors(rows, True))
    versions = [int(version) for version in answer.as_numpy("version")]
    assert set(versions) == {1, 2}
    assert answer.as_numpy("score").tolist() == [truths[version - 1][place] for place, version in enumerate(versions)]


@pytest.mark.parametrize(
    ("length", "words"),
    [
        ("ten", "Inference-Header-Content-Length: is no size"),
        ("1000", "Inference-Header-Content-Length: is 1,000; expected at most 14"),
        ("13", "the body is not JSON"),
        ("14", "the request has no columns"),
    ],
)
def test_a_wrong_length_of_the_json_is_an_error_of_the_protocol(one: Any, length: str, words: str) -> None:
    headers = {"inference-header-content-length": length, "content-type": "application/octet-stream"}
    answer = one.http.post(f"/v2/models/{one.name}/infer", content=b'{"inputs": []}', headers=headers)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]

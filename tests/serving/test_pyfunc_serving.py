"""Models that MLflow has logged, of several flavours, answered beside bundles over all protocols."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from deltalake import DeltaTable
from tritonclient.utils import InferenceServerException

from perennial_spec import logs

RULES_ROW = {"amount": 100.0, "visits": 3, "vip": True, "plan": "a", "since": "2015-05-01T00:00:00Z"}
RULES_SCORE = [0.2 + 0.03 + 1706 / 36500, 0.1]


def test_a_scikit_learn_classifier_answers_with_the_text_that_it_predicts(flavours: Any) -> None:
    import pandas as pd

    rows = [{"age": 20.0 + n, "plan": plan} for n in range(0, 60, 7) for plan in ("a", "b", "new")]
    answer = flavours.server.invoke(rows, "texts")
    assert answer.status_code == 200
    expected = flavours.models["texts"].predict(pd.DataFrame(rows)).tolist()
    assert answer.json()["predictions"] == expected
    assert set(expected) == {"no", "yes"}
    assert answer.json()["version"] == ["1"] * len(rows)


def test_a_lightgbm_regressor_answers_as_it_does_in_python(flavours: Any) -> None:
    import pandas as pd

    rng = np.random.default_rng(5)
    rows = [{"x": float(x), "y": float(y) if y > -1 else None} for x, y in rng.normal(size=(50, 2))]
    answer = flavours.server.invoke(rows, "boosted").json()["predictions"]
    assert answer == flavours.models["boosted"].predict(pd.DataFrame(rows).astype(float)).tolist()


def test_a_model_of_rules_takes_several_kinds_of_columns_and_gives_several_scores(flavours: Any) -> None:
    rows = [RULES_ROW, {"visits": 4, "vip": False, "amount": None, "plan": None, "since": None}]
    answer = flavours.server.invoke(rows, "rules").json()["predictions"]
    np.testing.assert_allclose(answer, [RULES_SCORE, [0.04, 1.0]], rtol=1e-12)


def test_a_model_of_a_matrix_takes_lists_of_rows_and_one_tensor(flavours: Any) -> None:
    matrix = [[1.0, 2.0, 3.0], [0.0, -1.0, 0.5]]
    expected = [[321.0, -321.0], [40.0, -40.0]]
    for form in ("inputs", "instances"):
        answer = flavours.server.http.post("/pipelines/matrix/invocations", json={form: matrix})
        np.testing.assert_allclose(answer.json()["predictions"], expected)
    split = {"dataframe_split": {"columns": ["0", "1", "2"], "data": matrix}}
    answer = flavours.server.http.post("/pipelines/matrix/invocations", json=split)
    np.testing.assert_allclose(answer.json()["predictions"], expected)
    with triton_http.InferenceServerClient(flavours.server.url.removeprefix("http://")) as client:
        tensor = triton_http.InferInput("x", [2, 3], "FP64")
        tensor.set_data_from_numpy(np.array(matrix))
        np.testing.assert_allclose(client.infer("matrix", [tensor]).as_numpy("score"), expected)
    answer = flavours.server.http.post("/pipelines/matrix/invocations", json={"inputs": [*matrix, [1.0]]})
    assert answer.status_code == 400
    assert "inputs[2]: got 1 values; expected a list of 3 values" in answer.json()["message"]
    answer = flavours.server.http.post("/pipelines/rules/invocations", json={"inputs": matrix})
    assert "inputs[0]: got a list; expected an object with one value per column" in answer.json()["message"]


def test_the_open_inference_protocol_over_http_and_grpc_gives_the_same(flavours: Any) -> None:
    columns = {
        "amount": ("FP64", np.array([100.0])),
        "visits": ("INT64", np.array([3])),
        "vip": ("BOOL", np.array([True])),
        "plan": ("BYTES", np.array([b"a"], dtype=object)),
        "since": ("BYTES", np.array([b"2015-05-01T00:00:00Z"], dtype=object)),
    }
    host = flavours.server.url.removeprefix("http://")
    for module, address in ((triton_http, host), (triton_grpc, f"127.0.0.1:{flavours.grpc_port}")):
        with module.InferenceServerClient(address) as client:
            found = client.infer("rules", _inputs(module, columns)).as_numpy("score")
            np.testing.assert_allclose(found, [RULES_SCORE], rtol=1e-12)
            texts = {"age": ("FP64", np.array([70.0])), "plan": ("BYTES", np.array([b"b"], dtype=object))}
            assert client.infer("texts", _inputs(module, texts)).as_numpy("score").tolist() == [b"yes"]


def _inputs(module: Any, columns: dict[str, tuple[str, Any]]) -> list[Any]:
    found = []
    for name, (datatype, values) in columns.items():
        tensor = module.InferInput(name, [len(values)], datatype)
        tensor.set_data_from_numpy(values)
        found.append(tensor)
    return found


def test_the_metadata_say_what_goes_in_and_what_comes_out(flavours: Any) -> None:
    rules = flavours.server.http.get("/v2/models/rules").json()
    assert rules["platform"] == "mlflow_pyfunc"
    assert [(each["name"], each["datatype"]) for each in rules["inputs"]] == [
        ("amount", "FP64"),
        ("visits", "INT64"),
        ("vip", "BOOL"),
        ("plan", "BYTES"),
        ("since", "BYTES"),
    ]
    assert rules["outputs"][0] == {"name": "score", "datatype": "FP64", "shape": [-1, 2]}
    texts = flavours.server.http.get("/v2/models/texts").json()
    assert texts["outputs"][0] == {"name": "score", "datatype": "BYTES", "shape": [-1]}
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{flavours.grpc_port}") as client:
        assert list(client.get_model_metadata("rules").outputs[0].shape) == [-1, 2]
    paths = flavours.server.http.get("/openapi.json").json()["paths"]
    assert "/pipelines/rules/invocations" in paths and "/pipelines/fast/explain" in paths
    assert "/pipelines/rules/explain" not in paths
    assert flavours.server.http.get("/docs").status_code == 200


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**RULES_ROW, "visits": "many"}, "column 'visits': got 'many'; expected an integer"),
        ({**RULES_ROW, "visits": None}, "column 'visits': the value is missing; expected a value in every row"),
        ({**RULES_ROW, "vip": 3}, "column 'vip': got 3; expected true or false"),
        ({**RULES_ROW, "since": "yesterday"}, "column 'since': got 'yesterday'; expected an ISO 8601 timestamp"),
        ({k: v for k, v in RULES_ROW.items() if k != "visits"}, "column 'visits' is missing"),
    ],
)
def test_a_wrong_value_is_answered_400_in_the_form_of_the_protocol(flavours: Any, row: Any, message: str) -> None:
    answer = flavours.server.invoke([row], "rules")
    assert (answer.status_code, answer.json()["error_code"]) == (400, "BAD_REQUEST")
    assert message in answer.json()["message"]
    inputs = [
        {"name": name, "shape": [1], "datatype": _datatype(value), "data": [value]} for name, value in row.items()
    ]
    answer = flavours.server.http.post("/v2/models/rules/infer", json={"inputs": inputs})
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_grpc_names_the_column_of_a_wrong_value_too(flavours: Any) -> None:
    texts = {"age": ("BYTES", np.array([b"old"], dtype=object)), "plan": ("BYTES", np.array([b"b"], dtype=object))}
    with (
        triton_grpc.InferenceServerClient(f"127.0.0.1:{flavours.grpc_port}") as client,
        pytest.raises(InferenceServerException, match="column 'age': got 'old'") as refused,
    ):
        client.infer("texts", _inputs(triton_grpc, texts))
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"


def _datatype(value: Any) -> str:
    return {str: "BYTES", int: "INT64", float: "FP64", bool: "BOOL", type(None): "INT64"}[type(value)]


def test_what_the_model_raises_is_answered_500_with_its_kind_and_place_alone(flavours: Any, caplog: Any) -> None:
    answer = flavours.server.invoke([{**RULES_ROW, "amount": 666.0, "plan": "SECRET"}], "rules")
    assert answer.status_code == 500
    assert answer.json()["message"] == "version 1 of rules failed: ValueError at rules.py:13"
    assert "SECRET" not in caplog.text


def test_explanations_are_for_bundles(flavours: Any) -> None:
    answer = flavours.server.http.post("/pipelines/rules/explain", json={"dataframe_records": [RULES_ROW]})
    assert answer.status_code == 400
    assert "version 1 of rules is a model of another flavour" in answer.json()["message"]


def test_predictions_are_counted_and_logged_with_the_entity_that_a_tag_names(flavours: Any, wait: Any) -> None:
    rows = [{**RULES_ROW, "customer": f"C{n}"} for n in range(3)]
    answer = flavours.server.invoke(rows, "rules").json()
    store = Path(flavours.server.platform.store)
    flavours.server.flushed()
    table = DeltaTable(str(store / "rules" / logs.PREDICTIONS)).to_pyarrow_table().to_pylist()
    mine = {each["prediction_id"]: each for each in table}
    for n, id_ in enumerate(answer["prediction_id"]):
        assert (mine[id_]["entity"], mine[id_]["version"]) == (f"C{n}", "1")
        assert mine[id_]["score"] == pytest.approx(RULES_SCORE[0])
        assert '"plan":"a"' in mine[id_]["inputs"]
    (text,) = flavours.server.invoke([{"age": 70.0, "plan": "b"}], "texts").json()["prediction_id"]
    flavours.server.flushed()
    table = DeltaTable(str(store / "texts" / logs.PREDICTIONS)).to_pyarrow_table().to_pylist()
    (row,) = [each for each in table if each["prediction_id"] == text]
    assert (row["score"], row["scores"], row["entity"]) == (None, '["yes"]', None)
    samples = flavours.server.metrics()
    assert samples['perennial_predictions_total{pipeline="rules",version="1"}'] >= 3
    asked = 'perennial_requests_total{pipeline="rules",version="1",protocol="mlflow",code="200"}'
    assert samples[asked] >= 1


def test_the_fast_one_is_answered_while_the_slow_one_sleeps(flavours: Any, row: Any) -> None:
    server, times = flavours.server, []
    server.invoke([{"seconds": 0.0, "more": 0.5}], "slow")
    asleep = threading.Thread(target=server.invoke, args=([{"seconds": 2.0, "more": 0.5}], "slow"))
    asleep.start()
    time.sleep(0.2)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        start = time.perf_counter()
        assert server.invoke([row], "fast").status_code == 200
        times.append(time.perf_counter() - start)
    assert asleep.is_alive()
    asleep.join()
    assert len(times) > 100
    assert float(np.median(times)) < 0.02

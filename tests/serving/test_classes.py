"""A model of several classes answers with a probability for each, in every protocol, as XGBoost itself does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from deltalake import DeltaTable
from grpc_speaking import arrays, free_port

from perennial_features.bundle import Bundle
from perennial_serving.log_frames import SCORES
from perennial_serving.settings import Settings
from perennial_spec import logs, names
from perennial_spec.platform import Platform


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    chance = np.random.default_rng(0)
    return [
        {
            "flight_id": f"F{n}",
            "departure": "2013-06-01T05:15:00Z",
            "distance": float(distance),
            "stops": int(n % 3),
            "direct": bool(n % 2),
            "carrier": ["UA", "B6", "AA"][n % 3],
        }
        for n, distance in enumerate(chance.gamma(4.0, 250.0, 40))
    ]


@pytest.fixture(scope="module")
def expected(bundles: Any, rows: Any) -> Any:
    """float64[rows, 3] of XGBoost."""
    bundle = Bundle.load(bundles["classes"])
    found: Any = bundle.predict(bundle.columns({name: [row[name] for row in rows] for name in rows[0]}))
    assert found.shape == (40, 3)
    assert len(set(found.argmax(axis=1).tolist())) == 3
    return found


@pytest.fixture(scope="module")
def classes(one: Any, mlflow: Any, bundles: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from perennial_spec.route import Route

    root, name = tmp_path_factory.mktemp("classes"), "flights-classes"
    mlflow.create(name)
    mlflow.route(name, Route(revision=1, weights={mlflow.register(name, bundles["classes"]): 1.0}))
    settings = Settings(
        port=0,
        grpc_port=free_port(),
        cache_dir=str(root / "cache"),
        pipelines=(name,),
        poll_seconds=0.1,
        log_flush_seconds=0.1,
    )
    server = type(one)(Platform(mlflow_url=mlflow.url, store=str(root / "store")), settings)
    server.until_ready()
    yield server
    server.stop()


def test_mlflow_scoring_answers_a_list_per_row(classes: Any, rows: Any, expected: Any) -> None:
    before = classes.counters(classes.name, "1").rows
    for some in (rows, rows[:1], rows[7:9]):
        answer = classes.invoke(some, classes.name).json()
        start = rows.index(some[0])
        assert answer["predictions"] == pytest.approx(expected[start : start + len(some)], rel=1e-6)
        assert len(answer["prediction_id"]) == len(answer["version"]) == len(some)
    assert classes.counters(classes.name, "1").rows == before + 43


def test_trees_answer_for_xgboost(classes: Any) -> None:
    folder = classes.parts.fleet.served[classes.name].models["1"].folder
    assert json.loads((folder / "trees" / "done.json").read_text()) == {"reason": ""}


def test_the_open_inference_protocol_has_a_score_of_two_dimensions(classes: Any, rows: Any, expected: Any) -> None:
    assert classes.http.get(f"/v2/models/{classes.name}").json()["outputs"][0]["shape"] == [-1, 3]
    inputs = [
        {"name": name, "datatype": kind, "shape": [40], "data": [row[name] for row in rows]}
        for name, kind in (
            ("departure", "BYTES"),
            ("distance", "FP64"),
            ("stops", "INT64"),
            ("direct", "BOOL"),
            ("carrier", "BYTES"),
        )
    ]
    found = classes.http.post(f"/v2/models/{classes.name}/infer", json={"inputs": inputs}).json()["outputs"][0]
    assert (found["name"], found["shape"]) == ("score", [40, 3])
    assert np.reshape(found["data"], (40, 3)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("count", [1, 40])
def test_tritonclient_reads_the_scores_over_http_and_grpc(classes: Any, rows: Any, expected: Any, count: int) -> None:
    with grpc_client.InferenceServerClient(f"127.0.0.1:{classes.settings.grpc_port}") as client:
        assert client.infer(classes.name, arrays(rows[:count])).as_numpy("score") == pytest.approx(
            expected[:count], rel=1e-6
        )
        metadata = client.get_model_metadata(classes.name)
        assert list(metadata.outputs[0].shape) == [-1, 3]
    tensors = []
    for name, kind in (
        ("departure", "BYTES"),
        ("distance", "FP64"),
        ("stops", "INT64"),
        ("direct", "BOOL"),
        ("carrier", "BYTES"),
    ):
        tensor = http_client.InferInput(name, [count], kind)
        values = [row[name] for row in rows[:count]]
        tensor.set_data_from_numpy(np.array(values, dtype=object if kind == "BYTES" else None))
        tensors.append(tensor)
    with http_client.InferenceServerClient(classes.url.removeprefix("http://")) as client:
        for binary in (True, False):
            wanted = [http_client.InferRequestedOutput("score", binary_data=binary)]
            found = client.infer(classes.name, tensors, outputs=wanted).as_numpy("score")
            assert found == pytest.approx(expected[:count], rel=1e-6)


def test_all_probabilities_are_logged_and_the_first_is_binned(classes: Any, rows: Any, expected: Any) -> None:
    (id_,) = classes.invoke(rows[3:4], classes.name).json()["prediction_id"]
    classes.flushed()
    table = DeltaTable(classes.platform.table(classes.name, logs.PREDICTIONS)).to_pyarrow_table().to_pylist()
    (logged,) = [row for row in table if row[logs.PREDICTION_ID] == id_]
    assert logged[logs.SCORE] == pytest.approx(expected[3, 0], rel=1e-6)
    assert json.loads(logged[SCORES]) == pytest.approx(expected[3].tolist(), rel=1e-6)
    of = f'pipeline="{classes.name}",version="1"'
    samples = classes.metrics()
    binned = [
        value
        for sample, value in samples.items()
        if sample.startswith(names.OBSERVATIONS) and of in sample and 'feature="prediction"' in sample
    ]
    assert sum(binned) == samples[f"{names.PREDICTIONS}{{{of}}}"]


def test_an_explanation_is_refused_with_the_reason(classes: Any, rows: Any) -> None:
    answer = classes.http.post("/explain", json={"dataframe_records": rows[:1]})
    assert answer.status_code == 400
    assert "3 values per row" in answer.json()["message"]


def test_a_shadow_of_several_classes_is_logged_with_all_of_them(
    pipeline: Any, bundles: Any, serve: Any, rows: Any, expected: Any, wait: Any
) -> None:
    live, shadow = pipeline.register(bundles["one"]), pipeline.register(bundles["classes"])
    pipeline.route({live: 1.0}, shadow=(shadow,))
    server = serve(pipeline)
    wait(lambda: shadow in server.parts.fleet.served[pipeline.name].models, 60)
    server.invoke(rows, pipeline.name)
    wait(lambda: server.counters(pipeline.name, shadow).rows == 40, 30)
    server.flushed()
    table = DeltaTable(server.platform.table(pipeline.name, logs.PREDICTIONS)).to_pyarrow_table().to_pylist()
    found = {row[logs.ENTITY]: json.loads(row[SCORES]) for row in table if row[logs.SHADOW]}
    assert [found[row["flight_id"]] for row in rows] == [pytest.approx(each.tolist(), rel=1e-6) for each in expected]

"""The protocols, spoken to a real server: every form gives the answer that the bundle itself gives."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from perennial_features.bundle import Bundle


@pytest.fixture(scope="session")
def truth(bundles: dict[str, Path]) -> Any:
    bundle = Bundle.load(bundles["one"])
    return lambda rows: bundle.predict(bundle.columns(rows)).tolist()


def tensors(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    types = {str: "BYTES", float: "FP64", bool: "BOOL", int: "INT64"}
    return [
        {"name": name, "datatype": types[type(value)], "shape": [len(rows)], "data": [r[name] for r in rows]}
        for name, value in rows[0].items()
    ]


def test_oip_inference_answers_scores_versions_and_prediction_ids(one: Any, row: Any, truth: Any) -> None:
    rows = [row, {**row, "flight_id": "F2", "carrier": "B6", "distance": 90.5}]
    answer = one.http.post(f"/v2/models/{one.name}/infer", json={"id": "abc", "inputs": tensors(rows)})
    assert answer.status_code == 200, answer.text
    value = answer.json()
    assert (value["model_name"], value["model_version"], value["id"]) == (one.name, "1", "abc")
    score, version, ids = value["outputs"]
    assert score == {"name": "score", "datatype": "FP64", "shape": [2], "data": truth(rows)}
    assert version["data"] == ["1", "1"]
    assert len({uuid.UUID(found) for found in ids["data"]}) == 2
    assert answer.headers["X-Perennial-Version"] == "1"
    assert "X-Perennial-Prediction-Id" not in answer.headers


def test_oip_takes_columns_of_shape_n_by_1_and_only_the_outputs_asked_for(one: Any, row: Any, truth: Any) -> None:
    inputs = [{**t, "shape": [1, 1], "data": [t["data"]]} for t in tensors([row])]
    body = {"inputs": inputs, "outputs": [{"name": "score"}]}
    answer = one.http.post(f"/v2/models/{one.name}/versions/1/infer", json=body)
    assert answer.json()["outputs"] == [{"name": "score", "datatype": "FP64", "shape": [1], "data": truth([row])}]


def test_every_mlflow_form_gives_the_same_scores(one: Any, row: Any, truth: Any) -> None:
    rows = [row, {**row, "carrier": None, "distance": None}]
    named = {name: [r[name] for r in rows] for name in row}
    bodies = [
        {"dataframe_records": rows},
        {"dataframe_split": {"columns": list(row), "data": [list(r.values()) for r in rows]}},
        {"dataframe_split": {"index": [0, 1], "columns": list(row), "data": [list(r.values()) for r in rows]}},
        {"instances": rows},
        {"inputs": named},
        {"inputs": rows},
    ]
    for body in bodies:
        answer = one.http.post("/invocations", json=body)
        assert answer.status_code == 200, answer.text
        value = answer.json()
        assert value["predictions"] == truth(rows)
        assert value["version"] == ["1", "1"]
        assert len(set(value["prediction_id"])) == 2


def test_csv_gives_the_same_scores_and_an_empty_cell_is_missing(one: Any, row: Any, truth: Any) -> None:
    text = "flight_id,departure,distance,stops,direct,carrier\nF1,2013-06-01T05:15:00Z,750,1,false,UA\nF2,2013-06-01T06:15:00Z,,2,true,\n"
    answer = one.http.post("/invocations", content=text, headers={"content-type": "text/csv; charset=utf-8"})
    rows = [
        row,
        {**row, "departure": "2013-06-01T06:15:00Z", "distance": None, "stops": 2, "direct": True, "carrier": None},
    ]
    assert answer.json()["predictions"] == truth(rows)


def test_one_row_has_its_prediction_id_in_the_header(one: Any, row: Any) -> None:
    answer = one.http.post("/invocations", json={"inputs": row})
    assert answer.headers["X-Perennial-Prediction-Id"] == answer.json()["prediction_id"][0]


def test_requests_larger_than_the_inline_limit_get_the_same_answers(
    pipeline: Any, bundles: Any, serve: Any, row: Any, truth: Any
) -> None:
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    server = serve(pipeline, inline_rows=2)
    rows = [{**row, "distance": float(n)} for n in range(50)]
    assert server.invoke(rows, pipeline.name).json()["predictions"] == truth(rows)


def test_health_metadata_and_index_say_what_is_served(one: Any) -> None:
    get = one.http.get
    name = one.name
    assert get("/v2").json()["name"] == "perennial"
    assert get("/v2/health/live").json() == {"live": True}
    assert get("/v2/health/ready").json() == {"ready": True}
    for path in ("/ping", "/health"):
        assert get(path).status_code == 200
    assert get("/version").json()["version"]
    metadata = get(f"/v2/models/{name}").json()
    assert metadata["versions"] == ["1"]
    assert {"name": "distance", "datatype": "FP64", "shape": [-1]} in metadata["inputs"]
    assert {"name": "departure", "datatype": "BYTES", "shape": [-1]} in metadata["inputs"]
    assert [output["name"] for output in metadata["outputs"]] == ["score", "version", "prediction_id"]
    assert get(f"/v2/models/{name}/versions/1").json()["versions"] == ["1"]
    assert get(f"/v2/models/{name}/ready").status_code == 200
    assert get(f"/v2/models/{name}/versions/1/ready").status_code == 200
    assert one.http.post("/v2/repository/index").json() == [
        {"name": name, "version": "1", "state": "READY", "reason": ""}
    ]
    (described,) = get("/").json()["pipelines"]
    assert (described["name"], described["weights"], described["revision"]) == (name, {"1": 1.0}, 1)


def test_several_pipelines_are_told_apart_by_path_or_header(
    mlflow: Any, bundles: Any, serve: Any, row: Any, pipeline: Any
) -> None:
    other = type(pipeline)(f"{pipeline.name}-b", mlflow)
    mlflow.create(other.name)
    for each, bundle in ((pipeline, "one"), (other, "two")):
        each.route({each.register(bundles[bundle]): 1.0})
    server = serve(pipeline, other)
    body = {"inputs": row}
    refused = server.http.post("/invocations", json=body)
    assert refused.status_code == 400
    assert f"/pipelines/{pipeline.name}, /pipelines/{other.name}" in refused.json()["message"]
    by_header = server.http.post("/invocations", json=body, headers={"X-Perennial-Pipeline": other.name}).json()
    by_path = server.http.post(f"/pipelines/{other.name}/invocations", json=body).json()
    not_it = server.http.post(f"/pipelines/{pipeline.name}/invocations", json=body).json()
    assert by_header["predictions"] == by_path["predictions"] != not_it["predictions"]
    assert server.http.post("/feedback", json={"labels": [{"entity": "F1", "label": 1}]}).status_code == 400

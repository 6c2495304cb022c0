"""/explain: contributions that add up to the prediction, by the version that is asked for, in the forms of MLflow scoring."""

from __future__ import annotations

import math
from typing import Any

import pytest


def margin(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_contributions_add_up_to_the_prediction(one: Any, row: Any) -> None:
    rows = [row, {**row, "distance": None, "carrier": "new"}]
    answer = one.http.post("/explain", json={"dataframe_records": rows})
    assert answer.status_code == 200
    found = answer.json()
    assert found["space"] == "log-odds"
    assert answer.headers["x-perennial-version"] == found["model_version"] == "1"
    predicted = one.http.post("/invocations", json={"dataframe_records": rows}).json()["predictions"]
    assert found["predictions"] == predicted
    for base, contributions, prediction in zip(found["base"], found["contributions"], predicted, strict=True):
        assert set(contributions) == {"distance", "far", "hour", "carrier", "stops", "direct"}
        assert base + sum(contributions.values()) == pytest.approx(margin(prediction), abs=1e-5)


def test_nothing_is_counted_or_logged_as_a_prediction(one: Any, row: Any) -> None:
    before = one.counters("flights", "1").rows
    assert one.http.post("/pipelines/flights/explain", json={"dataframe_records": [row]}).status_code == 200
    assert one.counters("flights", "1").rows == before


def test_a_tester_names_the_version(one: Any, row: Any) -> None:
    body = {"dataframe_records": [row]}
    assert one.http.post("/explain", json=body, headers={"X-Perennial-Version": "1"}).status_code == 200
    answer = one.http.post("/explain", json=body, headers={"X-Perennial-Version": "9"})
    assert answer.status_code == 404 and "not loaded" in answer.json()["message"]


def test_wrong_requests_are_explained_as_for_predictions(one: Any, row: Any) -> None:
    assert one.http.post("/explain", json={"dataframe_records": [{**row, "stops": "many"}]}).status_code == 400
    answer = one.http.post("/explain", json={"dataframe_records": [row] * 1001})
    assert answer.status_code == 413 and "at most 1,000" in answer.json()["message"]

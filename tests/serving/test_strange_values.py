"""Values that nobody planned for: each is counted once, somewhere that can be seen, or refused by name; nothing grows, nothing fails."""

from __future__ import annotations

import gc
import json
import struct
import time
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from perennial_features.reference import MAX_BINS, MAX_CATEGORIES
from perennial_serving import engine, ids
from perennial_spec import names

MOST_OF_A_NUMBER = 2 * (MAX_BINS + 1) + 1
MOST_OF_A_CATEGORY = 2 * (MAX_CATEGORIES + 2)
MOST_BESIDE = 2 * (MAX_BINS + 1) + 110
"""Of the predictions, and what has no feature: as docs/drift.md says."""
LARGEST = float(np.finfo(np.float32).max)


@pytest.fixture
def served(pipeline: Any, bundles: Any, serve: Any) -> Any:
    """A server of its own, with one version that has answered nothing yet."""
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    return serve(pipeline, health_query_seconds=0.0)


def counted(server: Any, name: str = names.OBSERVATIONS) -> dict[tuple[str, str], float]:
    """By feature and bin, what is not 0."""
    found = {}
    for family in text_string_to_metric_families(server.http.get("/metrics").text):
        for sample in family.samples:
            if sample.name == name and sample.value:
                found[sample.labels["feature"], sample.labels.get("bin", "")] = sample.value
    return found


def check_sums(server: Any, rows: int) -> None:
    """Every value of every row is in one bin."""
    sums: dict[str, float] = {}
    for (feature, _), value in counted(server).items():
        sums[feature] = sums.get(feature, 0) + value
    assert sums == dict.fromkeys(("distance", "far", "hour", "carrier", "stops", "direct", "prediction"), rows)


def invoke(server: Any, rows: list[dict[str, Any]]) -> httpx.Response:
    found: httpx.Response = server.invoke(rows, server.name)
    return found


@pytest.mark.parametrize(
    ("value", "bin_", "outside"),
    [
        (1e308, "missing", 0),  # infinite as a float32, which is what the model sees
        (-1e308, "missing", 0),
        (LARGEST, "inf", 1),
        (-LARGEST, "-inf", 1),
        (5e-324, "-inf", 1),
        (1e-40, "-inf", 1),
        (None, "missing", 0),
    ],
)
def test_the_largest_and_the_smallest_numbers_have_a_bin_and_are_out_of_range(
    served: Any, row: Any, value: float | None, bin_: str, outside: int
) -> None:
    assert invoke(served, [{**row, "distance": value}]).status_code == 200  # the plain way
    assert invoke(served, [{**row, "distance": value if value is None else str(value)}]).status_code == 200
    check_sums(served, 2)
    [of_distance] = [name for feature, name in counted(served) if feature == "distance"]
    assert bin_ in of_distance
    assert counted(served, names.OUT_OF_RANGE).get(("distance", ""), 0) == 2 * outside


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", '"nan"', '"inf"', '"-Infinity"'])
def test_what_is_no_number_is_refused_or_missing_and_never_a_failure(served: Any, row: Any, text: str) -> None:
    body = json.dumps({"dataframe_records": [{**row, "distance": "HERE"}]}).replace('"HERE"', text)
    answer = served.http.post(
        f"/pipelines/{served.name}/invocations", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 200:
        check_sums(served, 1)
        assert counted(served)["distance", "missing"] == 1
    else:
        assert counted(served) == {}


@pytest.mark.parametrize("infinite", [np.inf, -np.inf])
def test_numbers_in_binary_may_be_nan_which_is_missing_and_infinite_ones_are_refused(
    served: Any, infinite: float
) -> None:
    refused = _binary(served, np.array([infinite, *[1.0] * 5]))
    assert (refused.status_code, "column 'distance'" in refused.text) == (400, True)
    assert counted(served) == {}
    answer = _binary(served, np.array([np.nan, 1e308, -1e308, 5e-324, 750.0, 750.0]))
    assert answer.status_code == 200, answer.text
    check_sums(served, 6)
    assert counted(served)["distance", "missing"] == 3
    assert counted(served, names.OUT_OF_RANGE)["distance", ""] == 1


def _binary(served: Any, values: Any) -> httpx.Response:
    """Six rows with these distances, as binary tensors."""
    texts = ("2013-06-01T05:15:00Z", "UA")
    tensors = {
        "distance": ("FP64", values.tobytes()),
        "stops": ("INT64", np.ones(6, dtype="<i8").tobytes()),
        "direct": ("BOOL", bytes(6)),
        "departure": ("BYTES", (struct.pack("<I", len(texts[0])) + texts[0].encode()) * 6),
        "carrier": ("BYTES", (struct.pack("<I", len(texts[1])) + texts[1].encode()) * 6),
    }
    inputs = [
        {"name": name, "datatype": datatype, "shape": [6], "parameters": {"binary_data_size": len(raw)}}
        for name, (datatype, raw) in tensors.items()
    ]
    head = json.dumps({"inputs": inputs}).encode()
    answer: httpx.Response = served.http.post(
        f"/v2/models/{served.name}/infer",
        content=head + b"".join(raw for _, raw in tensors.values()),
        headers={"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"},
    )
    return answer


def test_a_feature_that_disappears_or_never_came_is_missing_in_every_row(served: Any, row: Any) -> None:
    gone = {name: value for name, value in row.items() if name != "carrier"}
    for size in (1, 200):  # the plain way, and in a thread
        assert invoke(served, [{**gone, "distance": None}] * size).status_code == 200
    found = counted(served)
    assert (found["distance", "missing"], found["far", "missing"], found["carrier", "missing"]) == (201, 201, 201)
    assert ("distance", "") not in counted(served, names.OUT_OF_RANGE)


def test_ten_thousand_new_categories_share_one_bin_and_take_no_memory(served: Any, row: Any) -> None:
    series = sorted(served.metrics())

    def ask(prefix: str) -> None:
        for part in range(100):
            rows = [{**row, "flight_id": f"F{n}", "carrier": f"{prefix}-{part}-{n}"} for n in range(100)]
            assert invoke(served, rows).status_code == 200
        served.flushed()
        gc.collect()

    ask("warm")
    before = served.metrics()["process_resident_memory_bytes"]
    ask("new")
    assert served.metrics()["process_resident_memory_bytes"] - before < 8e6
    assert counted(served)["carrier", "other"] == 20_000
    assert sorted(served.metrics()) == series


@pytest.mark.parametrize("when", ["0001-01-01T00:00:00Z", "1900-02-28T23:59:59+14:00", "9998-12-31T00:00:00Z"])
def test_a_client_whose_clock_is_wrong_is_counted_like_others(served: Any, row: Any, when: str) -> None:
    answer = invoke(served, [{**row, "departure": when}])
    assert answer.status_code == 200, answer.text
    check_sums(served, 1)


def test_a_clock_of_the_server_that_jumps_back_costs_no_answer_and_no_count(
    served: Any, row: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = invoke(served, [row]).json()["prediction_id"]
    for jump in (3600, 50 * 365 * 86_400):
        back = SimpleNamespace(time_ns=lambda jump=jump: time.time_ns() - jump * 10**9)
        monkeypatch.setattr(ids, "time", back)
        monkeypatch.setattr(engine, "time", back)
        answer = invoke(served, [row])
        assert answer.status_code == 200
        assert answer.json()["prediction_id"] != first
    check_sums(served, 3)
    found = served.metrics()
    of = f'{{pipeline="{served.name}",version="1"}}'
    assert (found[names.PREDICTIONS + of], found[f"{names.REQUEST_SECONDS}_count{of}"]) == (3, 3)


def test_samples_have_no_time_of_their_own_so_that_only_prometheus_clock_counts(served: Any) -> None:
    families = text_string_to_metric_families(served.http.get("/metrics").text)
    assert {sample.timestamp for family in families for sample in family.samples} == {None}


def test_the_series_of_a_version_are_bounded_with_500_features_too(
    pipeline: Any, bundles: Any, serve: Any, row: Any
) -> None:
    version = pipeline.register(bundles["widest"])
    pipeline.route({version: 1.0})
    server = serve(pipeline, health_query_seconds=0.05)
    for n in range(20):
        assert invoke(server, [{**row, "stops": n, "flight_id": f"F{n}"}]).status_code == 200
    series = [sample for sample in server.metrics() if f'version="{version}"' in sample]
    kinds = [feature.kind for feature in server.parts.fleet.served[pipeline.name].models[version].schema.features]
    assert len(kinds) == 500
    numbers, categories = kinds.count("numeric"), kinds.count("categorical")
    assert len(series) <= MOST_OF_A_NUMBER * numbers + MOST_OF_A_CATEGORY * categories + MOST_BESIDE
    assert len([sample for sample in series if "feature=" not in sample]) <= 110

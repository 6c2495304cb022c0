"""Metrics: what the server exports is what the bundle's own reference counts, and every request is counted once per version."""

from __future__ import annotations

from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from perennial_features.bundle import Bundle
from perennial_spec import names


def scraped(server: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = server.http.get("/metrics").text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Any, name: str, **labels: str) -> float | None:
    found: float | None = samples.get((name, tuple(sorted(labels.items()))))
    return found


def test_every_series_begins_at_0_before_the_first_request(pipeline: Any, bundles: Any, serve: Any) -> None:
    version = pipeline.register(bundles["one"])
    pipeline.route({version: 1.0})
    samples = scraped(serve(pipeline))
    reference = Bundle.load(bundles["one"]).reference
    of = {"pipeline": pipeline.name, "version": version}
    for (feature, name), share in zip(reference.series, reference.shares, strict=True):
        assert value(samples, names.OBSERVATIONS, **of, feature=feature, bin=name) == 0
        assert value(samples, names.REFERENCE_SHARE, **of, feature=feature, bin=name) == share
    assert value(samples, names.REFERENCE_ROWS, **of) == reference.rows
    for protocol in ("oip", "mlflow"):
        for code in ("200", "500"):
            assert value(samples, names.REQUESTS, **of, protocol=protocol, code=code) == 0
    assert value(samples, names.PREDICTIONS, **of) == 0
    assert value(samples, f"{names.REQUEST_SECONDS}_count", **of) == 0
    assert value(samples, names.ROUTE_WEIGHT, **of) == 1
    assert value(samples, names.ROUTE_REVISION, pipeline=pipeline.name) == 1
    assert value(samples, names.MODEL_LOADED, **of) == 1
    assert value(samples, names.REGISTRY_UP) == 1
    for name in (names.PREDICTION_LOG_WRITTEN, names.PREDICTION_LOG_DROPPED, names.FEEDBACK):
        assert value(samples, name, pipeline=pipeline.name) == 0


def test_the_bins_equal_what_the_reference_counts_in_the_same_rows(
    pipeline: Any, bundles: Any, serve: Any, row: Any
) -> None:
    versions = {pipeline.register(bundles[name]): Bundle.load(bundles[name]) for name in ("one", "two")}
    pipeline.route(dict.fromkeys(versions, 0.5))
    server = serve(pipeline)
    rng = np.random.default_rng(0)
    rows = [
        {
            **row,
            "flight_id": f"F{n}",
            "distance": None if n % 17 == 0 else float(rng.gamma(4, 300)),
            "carrier": ["UA", "B6", None, "ZZ"][n % 4],
            "stops": int(rng.integers(0, 4)),
        }
        for n in range(300)
    ]
    asked: dict[str, list[Any]] = {version: [] for version in versions}
    for part in (rows[:1], rows[1:20], rows[20:300]):
        answer = server.invoke(part, pipeline.name).json()
        for each, version in zip(part, answer["version"], strict=True):
            asked[version].append(each)
    samples = scraped(server)
    for version, bundle in versions.items():
        expected = bundle.score(bundle.columns(asked[version])).increments
        of = {"pipeline": pipeline.name, "version": version}
        found = [value(samples, names.OBSERVATIONS, **of, feature=f, bin=b) for f, b in bundle.reference.series]
        assert found == expected.tolist()
        assert value(samples, names.PREDICTIONS, **of) == len(asked[version])


def test_a_request_that_spans_two_versions_counts_for_each(pipeline: Any, bundles: Any, serve: Any, row: Any) -> None:
    old, new = pipeline.register(bundles["one"]), pipeline.register(bundles["two"])
    pipeline.route({old: 0.5, new: 0.5})
    server = serve(pipeline)
    server.invoke([{**row, "flight_id": f"F{n}"} for n in range(50)], pipeline.name)
    samples = scraped(server)
    for version in (old, new):
        of = {"pipeline": pipeline.name, "version": version}
        assert value(samples, names.REQUESTS, **of, protocol="mlflow", code="200") == 1
        assert value(samples, f"{names.REQUEST_SECONDS}_count", **of) == 1
        assert value(samples, f"{names.REQUEST_SECONDS}_bucket", **of, le="+Inf") == 1
        assert 0 < (value(samples, f"{names.REQUEST_SECONDS}_sum", **of) or 0) < 30


def test_a_failure_of_feature_code_is_500_counted_for_its_version_and_says_nothing_of_the_request(
    pipeline: Any, bundles: Any, serve: Any, row: Any, caplog: Any
) -> None:
    good, bad = pipeline.register(bundles["one"]), pipeline.register(bundles["fragile"])
    route = pipeline.route({good: 0.5, bad: 0.5})
    server = serve(pipeline)
    entity = next(f"F{n}" for n in range(99) if route.version_at(_point(f"F{n}")) == bad)
    rows = [{**row, "flight_id": f"F{n}"} for n in range(20)] + [
        {**row, "flight_id": entity, "distance": 666.0, "carrier": "SECRET"}
    ]
    answer = server.invoke(rows, pipeline.name)
    assert answer.status_code == 500
    assert answer.headers["X-Perennial-Version"] == bad
    message = answer.json()["message"]
    assert f"version {bad} of {pipeline.name} failed: ValueError at features.py:" in message
    assert "SECRET" not in message + caplog.text
    assert "failed: ValueError" in caplog.text
    samples = scraped(server)
    of = {"pipeline": pipeline.name, "protocol": "mlflow"}
    assert value(samples, names.REQUESTS, **of, version=bad, code="500") == 1
    assert value(samples, names.REQUESTS, **of, version=good, code="500") == 0
    # A request happens or it does not: nothing of it was counted for the good version either.
    assert value(samples, names.PREDICTIONS, pipeline=pipeline.name, version=good) == 0


def test_refused_requests_are_counted_without_letting_clients_make_series(
    pipeline: Any, bundles: Any, serve: Any, row: Any
) -> None:
    version = pipeline.register(bundles["one"])
    pipeline.route({version: 1.0})
    server = serve(pipeline)
    for n in range(20):
        server.http.post(f"/v2/models/made-up-{n}/infer", json={})
    server.http.post(f"/v2/models/{pipeline.name}/infer", json={})
    server.invoke([{**row, "stops": "many"}], pipeline.name)
    samples = scraped(server)
    assert value(samples, names.REQUESTS, pipeline="", version="", protocol="oip", code="404") == 20
    assert value(samples, names.REQUESTS, pipeline=pipeline.name, version="", protocol="oip", code="400") == 1
    assert value(samples, names.REQUESTS, pipeline=pipeline.name, version=version, protocol="mlflow", code="400") == 1
    assert not [key for key in samples if "made-up" in str(key)]


def test_a_column_that_only_the_challenger_needs_is_a_400_counted_for_the_challenger(
    pipeline: Any, bundles: Any, serve: Any, row: Any
) -> None:
    wider = pipeline.register(bundles["wider"])
    pipeline.route({wider: 1.0})
    server = serve(pipeline)
    answer = server.invoke([row], pipeline.name)
    assert (answer.status_code, "'wind' is missing" in answer.json()["message"]) == (400, True)
    assert server.invoke([{**row, "wind": 3.0}], pipeline.name).status_code == 200


def _point(entity: str) -> float:
    from perennial_spec.route import point_of

    return point_of(entity)


def test_feature_code_that_cannot_do_without_a_value_makes_its_absence_a_400(
    pipeline: Any, bundles: Any, serve: Any, row: Any
) -> None:
    pipeline.route({pipeline.register(bundles["fragile"]): 1.0})
    server = serve(pipeline)
    answer = server.invoke([row, {**row, "stops": None}], pipeline.name)
    assert answer.status_code == 400
    assert "the value is missing in 'stops'" in answer.json()["message"]

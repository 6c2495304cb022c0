"""The interface as it is described: a description that tools can read, a page that people can, and a server that keeps to both."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

CHECKS = [not_a_server_error, response_schema_conformance, status_code_conformance]


def test_what_is_described_is_what_is_answered(one: Any) -> None:
    schema = schemathesis.openapi.from_url(f"{one.url}/openapi.json")
    operations: list[Any] = [found.ok() for found in schema.get_all_operations()]  # type: ignore[union-attr]
    assert len(operations) > 10
    for operation in operations:

        @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def conforms(case: Any) -> None:
            case.call_and_validate(checks=CHECKS, timeout=30)

        conforms()


def test_the_description_has_the_inputs_of_the_model(one: Any) -> None:
    found = one.http.get("/openapi.json").json()
    body = found["paths"]["/pipelines/flights/invocations"]["post"]["requestBody"]["content"]["application/json"]
    record = body["schema"]["properties"]["dataframe_records"]["items"]
    assert set(record["properties"]) == {"flight_id", "departure", "distance", "stops", "direct", "carrier"}
    assert "distance" not in record["required"]
    assert "security" not in found


@pytest.mark.parametrize(
    "path", ["/v2/models/flights/infer", "/pipelines/flights/invocations", "/pipelines/flights/explain"]
)
def test_the_examples_are_answered(one: Any, path: str) -> None:
    operation = one.http.get("/openapi.json").json()["paths"][path]["post"]
    example = operation["requestBody"]["content"]["application/json"]["example"]
    assert one.http.post(path, json=example).status_code == 200


def test_the_page_shows_every_path_and_runs_nothing(one: Any) -> None:
    answer = one.http.get("/docs")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    for path in one.http.get("/openapi.json").json()["paths"]:
        assert path in answer.text
    assert "<script" not in answer.text

"""The interface as it is described: a description that tools can read, and a controller that keeps to it."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from controller_neighbours import served
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from perennial_controller.app import make_app
from perennial_controller.controller import Controller

CHECKS = [not_a_server_error, response_schema_conformance, status_code_conformance]
HEADERS = {"Authorization": "Bearer correct-horse"}


@pytest.fixture
def url(world: Any, waiting: Any) -> Any:
    """A controller behind a real server, in a thread of its own."""
    import httpx

    world.pipeline("name")
    world.airflow.dags |= {"name", "name.data"}
    with served(make_app(Controller.of(world.settings())), lifespan="on") as found:
        waiting(lambda: httpx.get(f"{found}/readyz").status_code == 200, "the controller")
        yield found


def test_what_is_described_is_what_is_answered(url: str) -> None:
    schema = schemathesis.openapi.from_url(f"{url}/api/openapi.json", headers=HEADERS)
    schema.config.update(base_url=url, headers=HEADERS)
    operations: list[Any] = [found.ok() for found in schema.get_all_operations()]  # type: ignore[union-attr]
    assert len(operations) > 10
    for operation in operations:

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def conforms(case: Any) -> None:
            case.call_and_validate(checks=CHECKS, headers=HEADERS, timeout=30)

        conforms()


def test_every_route_of_the_interface_is_described(url: str) -> None:
    import httpx

    found = httpx.get(f"{url}/api/openapi.json", headers=HEADERS).json()["paths"]
    assert {"/api/v1/alerts", "/api/v1/pipelines/{name}/timeline", "/api/v1/pipelines/{name}/runs"} <= set(found)
    assert httpx.get(f"{url}/api/openapi.json").status_code == 401

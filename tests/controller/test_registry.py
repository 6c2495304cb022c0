"""The registry client against a real MLflow server, and the fake one of the other tests against the same expectations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse, PlainTextResponse

from perennial_controller.registry import ModelVersion, Registry
from perennial_spec.errors import PlatformError, RegistryError


@dataclass
class RealRegistry:
    """A real MLflow server, written to as a training would."""

    url: str

    def post(self, path: str, body: dict[str, Any], unless: str = "nothing") -> dict[str, Any]:
        response = httpx.post(f"{self.url}/api/2.0/mlflow{path}", json=body, timeout=60)
        assert response.is_success or unless in response.text, response.text
        return dict(response.json())

    def register(
        self,
        name: str,
        data_version: int | None,
        run_key: str = "run",
        champion: bool = False,
        verdict: str | None = None,
    ) -> str:
        self.post("/registered-models/create", {"name": name}, unless="RESOURCE_ALREADY_EXISTS")
        tags = [{"key": "perennial.run_key", "value": run_key}]
        tags += [{"key": "perennial.data_version", "value": str(data_version)}] if data_version is not None else []
        tags += [{"key": "perennial.verdict", "value": verdict}] if verdict else []
        run = self.post("/runs/create", {"experiment_id": "0"})["run"]["info"]
        source = {"name": name, "run_id": run["run_id"], "source": f"{run['artifact_uri']}/model", "tags": tags}
        made = self.post("/model-versions/create", source)
        version = str(made["model_version"]["version"])
        if champion:
            self.post("/registered-models/alias", {"name": name, "alias": "champion", "version": version})
        return version


@pytest.fixture(params=["real", "fake"])
def either(request: pytest.FixtureRequest) -> Any:
    return (
        RealRegistry(request.getfixturevalue("mlflow_url"))
        if request.param == "real"
        else request.getfixturevalue("registry")
    )


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        yield client


async def test_the_champion_and_the_model_of_a_run_are_found(either: Any, http: httpx.AsyncClient) -> None:
    client = Registry(either.url, http)
    assert await client.by_alias("planes", "champion") is None
    assert await client.of_run("planes", "alert__1") is None
    first = either.register("planes", 4, run_key="alert__1", verdict="rejected")
    assert await client.by_alias("planes", "champion") is None, "a model without the alias has no champion"
    second = either.register("planes", 6, run_key="alert__2", champion=True)
    third = either.register("planes", 7, run_key="alert__2")
    assert await client.by_alias("planes", "champion") == ModelVersion(second, 6)
    assert await client.of_run("planes", "alert__1") == ModelVersion(first, 4, "rejected")
    assert await client.of_run("planes", "alert__2") == ModelVersion(third, 7), "the newest"
    assert await client.of_run("planes", "alert__3") is None


async def test_the_aliases_of_all_models_are_one_question(either: Any, http: httpx.AsyncClient) -> None:
    first = either.register("ships", 1)
    second = either.register("ships", 2, champion=True)
    either.register("kites", 1)
    found = await Registry(either.url, http).aliases()
    assert (found["ships"], found["kites"]) == ({"champion": second}, {})
    assert first != second


async def test_a_champion_that_no_run_of_ours_made_has_no_data_version(either: Any, http: httpx.AsyncClient) -> None:
    version = either.register("boats", None, champion=True)
    assert await Registry(either.url, http).by_alias("boats", "champion") == ModelVersion(version, None)


async def test_a_registry_that_is_away_is_an_error_that_says_so(closed_port: int, http: httpx.AsyncClient) -> None:
    with pytest.raises(
        RegistryError, match=r"127.0.0.1:\d+/api/2.0/mlflow: the registry does not answer \(ConnectError\)"
    ):
        await Registry(f"http://127.0.0.1:{closed_port}", http).by_alias("planes", "champion")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda: JSONResponse({"error_code": "INTERNAL_ERROR"}, 500), "answered 500 INTERNAL_ERROR"),
        (lambda: JSONResponse({"error_code": "PERMISSION_DENIED"}, 403), "answered 403 PERMISSION_DENIED"),
        (lambda: PlainTextResponse("<html>"), "not JSON"),
        (lambda: JSONResponse({"model_version": {"version": "1", "tags": [{"key": "x"}]}}), "cannot be read"),
        (lambda: JSONResponse({}), "cannot be read"),
    ],
)
async def test_nonsense_from_the_registry_is_an_error_that_says_so(
    registry: Any, http: httpx.AsyncClient, answer: Any, says: str
) -> None:
    registry.misbehave = answer
    with pytest.raises(RegistryError, match=says):
        await Registry(registry.url, http).by_alias("planes", "champion")


async def test_a_registry_without_a_server_is_refused_at_the_start(http: httpx.AsyncClient) -> None:
    with pytest.raises(PlatformError, match="'sqlite' is not a way to reach the registry"):
        Registry("sqlite:///mlflow.db", http)

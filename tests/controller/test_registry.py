"""The registry client against a real MLflow server, and the fake one of the other tests against the same expectations."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
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


@pytest.fixture(scope="module")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory, waiting: Any, port: int) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder)]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        waiting(lambda: _healthy(url), "MLflow", 240)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # a session of its own, and nothing to keep
        server.wait(30)


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


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
    assert await client.champion("planes") is None
    assert await client.of_run("planes", "alert__1") is None
    first = either.register("planes", 4, run_key="alert__1", verdict="rejected")
    assert await client.champion("planes") is None, "a model without the alias has no champion"
    second = either.register("planes", 6, run_key="alert__2", champion=True)
    third = either.register("planes", 7, run_key="alert__2")
    assert await client.champion("planes") == ModelVersion(second, 6)
    assert await client.of_run("planes", "alert__1") == ModelVersion(first, 4, "rejected")
    assert await client.of_run("planes", "alert__2") == ModelVersion(third, 7), "the newest"
    assert await client.of_run("planes", "alert__3") is None


async def test_a_champion_that_no_run_of_ours_made_has_no_data_version(either: Any, http: httpx.AsyncClient) -> None:
    version = either.register("boats", None, champion=True)
    assert await Registry(either.url, http).champion("boats") == ModelVersion(version, None)


async def test_a_registry_that_is_away_is_an_error_that_says_so(closed_port: int, http: httpx.AsyncClient) -> None:
    with pytest.raises(
        RegistryError, match=r"127.0.0.1:\d+/api/2.0/mlflow: the registry does not answer \(ConnectError\)"
    ):
        await Registry(f"http://127.0.0.1:{closed_port}", http).champion("planes")


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
        await Registry(registry.url, http).champion("planes")


async def test_a_registry_without_a_server_is_refused_at_the_start(http: httpx.AsyncClient) -> None:
    with pytest.raises(PlatformError, match="'sqlite' is not a way to reach the registry"):
        Registry("sqlite:///mlflow.db", http)

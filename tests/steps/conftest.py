"""What the tests of the steps share: a room with pipelines and a platform, and a real MLflow server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from perennial_registry.registry import Registry
from perennial_spec import names
from perennial_spec.load import Pipeline, load_pipeline
from perennial_spec.platform import Platform
from perennial_spec.step import Reason, StepName, StepRequest, StepResult, parse_result

SPEC = """\
apiVersion: perennial/v1
name: {name}
owner: {{team: ops, contact: ops@example.com}}
data:
  sources: {{trips: "trips/*.parquet"}}
  timestamp: at
  entity: trip_id
  label: {{column: late, arrives_after: 6h}}
model:
  kind: xgboost.classifier
evaluation:
  metric: roc_auc
  gates:
    - {{metric: roc_auc, min: 0.7}}
"""
FEATURES = "def features(columns):\n    return {'x': columns['x']}\n"


@dataclass(frozen=True)
class Room:
    """A folder with pipelines, and the platform that a step finds in its environment."""

    root: Path
    platform: Platform

    def pipeline(
        self, name: str = "demo", *, text: str | None = None, features: str = FEATURES, more: str = ""
    ) -> Pipeline:
        """Write a pipeline's folder; `more` is YAML after the minimal spec."""
        folder = self.root / "pipelines" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pipeline.yaml").write_text((SPEC.format(name=name) if text is None else text) + more)
        (folder / "features.py").write_text(features)
        return load_pipeline(folder)

    def request(self, step: StepName, pipeline: str = "demo", **fields: Any) -> StepRequest:
        fields = {"run_key": "run-1", "reason": Reason(kind="person", summary="by hand"), **fields}
        return StepRequest(pipeline=pipeline, step=step, **fields)

    def start(self, request: StepRequest, **environment: str) -> subprocess.Popen[str]:
        """The step as a process; its result goes to `<root>/result.json`."""
        (self.root / "request.json").write_text(request.model_dump_json())
        (self.root / "result.json").unlink(missing_ok=True)
        own = {
            names.ENV_REQUEST_FILE: str(self.root / "request.json"),
            names.ENV_RESULT_FILE: str(self.root / "result.json"),
        }
        return subprocess.Popen(
            [sys.executable, "-m", "perennial_steps"],
            env={**os.environ, **self.platform.to_environment(), **own, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def process(self, request: StepRequest, **environment: str) -> tuple[int, StepResult, str]:
        """Exit code, result and log of the step run as a process."""
        process = self.start(request, **environment)
        try:
            _, log = process.communicate(timeout=120)
        finally:
            process.kill()
        return process.returncode, parse_result((self.root / "result.json").read_text()), log

    def with_platform(self, **fields: str) -> Room:
        """The same room, whose platform has more parts: `mlflow_url=...`."""
        return replace(self, platform=replace(self.platform, **fields))


@pytest.fixture
def room(tmp_path: Path) -> Room:
    platform = Platform(pipelines_dir=str(tmp_path / "pipelines"), store=str(tmp_path / "store"))
    return Room(tmp_path, platform)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 240) -> None:
    """Until `url` answers 200; fails at once, with the log, when the process has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            pytest.fail(f"{process.args!r} ended with {process.returncode}:\n{log.read_text()[-4000:]}")
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail(f"{url} did not answer within {seconds} s:\n{log.read_text()[-4000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an MLflow server on SQLite that serves artifacts; tests use model names of their own."""
    folder = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = folder / "server.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    try:
        wait_until_up(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)


@dataclass
class Trained:
    """Makes model versions in the registry as train and evaluate leave them, under a name of the test's own."""

    url: str
    name: str
    registry: Registry

    def run(self) -> tuple[str, str]:
        """A run of MLflow: its id, and the URI of its artifacts."""
        made = self.registry.rest.post("runs/create", experiment_id="0")["run"]["info"]
        return made["run_id"], made["artifact_uri"]

    def version(self, verdict: str = "passed", *, run_key: str | None = None, **tags: str) -> str:
        """The number of a new version that evaluate came to `verdict` on."""
        run_id, uri = self.run()
        version = self.registry.register(
            self.name,
            run_id=run_id,
            source=f"{uri}/bundle",
            run_key=run_key or f"run-of-{run_id}",
            tags={names.TAG_VERDICT: verdict, **tags},
        )
        return version.version

    def champion(self) -> str:
        """The number of a new version that serves all of the traffic."""
        version = self.version("promoted")
        self.registry.set_alias(self.name, names.ALIAS_CHAMPION, version)
        self.registry.write_route(self.name, self.registry.route(self.name).moved_to({version: 1.0}, "the test"))
        return version


@pytest.fixture
def trained(mlflow_server: str) -> Iterator[Trained]:
    with Registry(mlflow_server) as registry:
        yield Trained(mlflow_server, f"model-{uuid.uuid4().hex[:12]}", registry)

"""What our server needs to be started as users start it: a real MLflow server, a registered bundle, and a route to it."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from bench.serving.data import PIPELINE
from bench.serving.front import Front
from bench.serving.process import LOAD_CORE, Process, free_port

from perennial_spec import names
from perennial_spec.route import Route


class Registry:
    """MLflow in a process, on the core of the load, with a `Front` before it: it is another machine's work in reality.

    `url` is what servers follow, `mlflow_url` MLflow itself.
    """

    def __init__(self, folder: Path, workers: int = 1, core: int | str = LOAD_CORE) -> None:
        folder.mkdir(parents=True)
        port = free_port()
        self.mlflow_url = f"http://127.0.0.1:{port}"
        self._http = httpx.Client(base_url=f"{self.mlflow_url}/api/2.0/", timeout=30)
        self._front = Front(self.mlflow_url)
        self.url = self._front.url
        self._revision = 0
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--workers",
            str(workers),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        command += [
            "--backend-store-uri",
            f"sqlite:///{folder}/mlflow.db",
            "--artifacts-destination",
            f"{folder}/artifacts",
        ]
        environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self._process = Process(command, folder / "mlflow.log", core, environment)
        try:
            self._process.until(self._answers, "the registry")
        except BaseException:
            self.stop()
            raise
        self._post("registered-models/create", name=PIPELINE)

    def register(self, bundle: Path) -> str:
        """Upload the bundle, and register a version for it."""
        run = self._post("runs/create", experiment_id="0", start_time=1)["run"]["info"]["run_id"]
        root = f"0/{run}/artifacts/bundle"
        for file in sorted(path for path in bundle.iterdir() if path.is_file()):
            self._http.put(
                f"mlflow-artifacts/artifacts/{root}/{file.name}", content=file.read_bytes()
            ).raise_for_status()
        uri = f"mlflow-artifacts:/{root}"
        tags = [{"key": names.TAG_BUNDLE_URI, "value": uri}]
        made = self._post("model-versions/create", name=PIPELINE, run_id=run, source=uri, tags=tags)
        return str(made["model_version"]["version"])

    def route(self, weights: dict[str, float]) -> int:
        """Put a route in force; its revision."""
        self._revision += 1
        route = Route(revision=self._revision, weights=weights)
        self._post("registered-models/set-tag", name=PIPELINE, key=names.TAG_ROUTE, value=route.model_dump_json())
        self._front.forget()
        return self._revision

    def cpu_seconds(self) -> float:
        """CPU time that MLflow has used."""
        return self._process.cpu_seconds()

    def stop(self) -> None:
        self._front.stop()
        self._http.close()
        self._process.stop()

    def _answers(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.mlflow_url}/health", timeout=5).status_code == 200
        return False

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        answer = self._http.post(f"mlflow/{path}", json=body)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

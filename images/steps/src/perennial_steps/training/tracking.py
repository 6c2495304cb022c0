"""A run in MLflow, over its REST API: parameters, metrics, tags and files. See `mlflow_rest` for why not `MlflowClient`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from perennial_registry.bundle_download import artifact_path
from perennial_registry.mlflow_rest import ALREADY_EXISTS, ARTIFACTS, NOT_FOUND, ApiError, MlflowRest, refused
from perennial_spec import names
from perennial_spec.errors import RegistryError

MAX_PARAM = 6000
"""Characters of a parameter's value that MLflow keeps."""
_BATCH = 100
"""Parameters of one call."""
_UPLOADS = 4
"""Files at a time."""


@dataclass(frozen=True)
class Run:
    """A run of MLflow."""

    id: str
    artifact_uri: str
    experiment_id: str

    def page(self, mlflow_url: str, artifact: str) -> str:
        """Where a person reads one of the run's artifacts."""
        return f"{mlflow_url.rstrip('/')}/#/experiments/{self.experiment_id}/runs/{self.id}/artifacts/{artifact}"


class TrackingRest(MlflowRest):
    """MLflow's REST API with uploads."""

    def write_artifact(self, path: str, content: bytes) -> None:
        """Write one artifact, whole or not at all.

        Raises:
            ApiError: the store refused.
            RegistryError: MLflow is away.
        """
        answer = self._send("PUT", f"{ARTIFACTS}/{quote(path)}", content=content)
        if not answer.is_success:
            raise refused(answer)


class Tracking:
    """Runs of one pipeline; the experiment has the pipeline's name. All methods raise `RegistryError`."""

    def __init__(self, rest: TrackingRest, experiment: str) -> None:
        self.rest = rest
        self.experiment = experiment

    def start(self, name: str, tags: Mapping[str, str]) -> Run:
        """A new run, and the end of those that an earlier, killed attempt of the same run key left open."""
        with self._refusals("start a run"):
            experiment = self._experiment_id()
            self._close_abandoned(experiment, tags)
            made = self.rest.post(
                "runs/create",
                experiment_id=experiment,
                run_name=name,
                start_time=_now(),
                tags=[{"key": key, "value": value} for key, value in tags.items()],
            )
            return _run(made["run"])
        raise AssertionError  # _refusals never swallows

    def get(self, run_id: str) -> Run:
        """The run of that id."""
        with self._refusals(f"find the run {run_id}"):
            return _run(self.rest.get("runs/get", run_id=run_id)["run"])
        raise AssertionError

    def log(
        self, run: Run, params: Mapping[str, Any] | None = None, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Parameters and metrics; metrics that are no finite numbers are left out, MLflow cannot sort them."""
        moment = _now()
        wanted = [{"key": key, "value": str(value)[:MAX_PARAM]} for key, value in (params or {}).items()]
        figures = [
            {"key": key, "value": value, "timestamp": moment, "step": 0}
            for key, value in (metrics or {}).items()
            if math.isfinite(value)
        ]
        with self._refusals("log parameters and metrics"):
            for start in range(0, max(len(wanted), 1), _BATCH):
                self.rest.post(
                    "runs/log-batch",
                    run_id=run.id,
                    params=wanted[start : start + _BATCH],
                    metrics=figures if start == 0 else [],
                )

    def tag(self, run: Run, key: str, value: str) -> None:
        with self._refusals(f"tag the run with {key}"):
            self.rest.post("runs/set-tag", run_id=run.id, key=key, value=value)

    def upload(self, run: Run, folder: Path) -> None:
        """Every file below `folder` as an artifact of the run, under its path there."""
        root = artifact_path(run.artifact_uri)
        files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        with self._refusals("take the artifacts"), ThreadPoolExecutor(_UPLOADS) as pool:
            for _ in pool.map(
                lambda f: self.rest.write_artifact(f"{root}/{f.relative_to(folder)}", f.read_bytes()), files
            ):
                pass  # exhausting the iterator raises what an upload raised

    def finish(self, run: Run, status: str = "FINISHED") -> None:
        with self._refusals("end the run"):
            self.rest.post("runs/update", run_id=run.id, status=status, end_time=_now())

    def _experiment_id(self) -> str:
        try:
            found = self.rest.get("experiments/get-by-name", experiment_name=self.experiment)
        except ApiError as error:
            if error.code != NOT_FOUND:
                raise
        else:
            return str(found["experiment"]["experiment_id"])
        try:
            return str(self.rest.post("experiments/create", name=self.experiment)["experiment_id"])
        except ApiError as error:
            if error.code != ALREADY_EXISTS:  # another process was faster
                raise
            return str(
                self.rest.get("experiments/get-by-name", experiment_name=self.experiment)["experiment"]["experiment_id"]
            )

    def _close_abandoned(self, experiment: str, tags: Mapping[str, str]) -> None:
        same = " and ".join(f"tags.`{key}` = '{tags[key]}'" for key in (names.TAG_RUN_KEY, names.TAG_STEP))
        query = f"attributes.status = 'RUNNING' and {same}"
        found = self.rest.post("runs/search", experiment_ids=[experiment], filter=query, max_results=50)
        for raw in found.get("runs", []):
            self.finish(_run(raw), "KILLED")

    @contextmanager
    def _refusals(self, doing: str) -> Iterator[None]:
        try:
            yield
        except ApiError as error:
            raise RegistryError(
                f"MLflow refused to {doing}: {error.message}",
                where=f"{self.rest.url} ({error.code})",
                next="see that the server runs with --serve-artifacts and knows this host; then run the step again",
            ) from error


@contextmanager
def recorded(tracking: Tracking, name: str, tags: Mapping[str, str]) -> Iterator[Run]:
    """A run that ends FINISHED, or FAILED when the block raises."""
    run = tracking.start(name, tags)
    try:
        yield run
    except Exception:
        tracking.finish(run, "FAILED")
        raise
    tracking.finish(run)


def _run(raw: Mapping[str, Any]) -> Run:
    info = raw["info"]
    return Run(str(info["run_id"]), str(info["artifact_uri"]), str(info["experiment_id"]))


def _now() -> int:
    return int(time.time() * 1000)

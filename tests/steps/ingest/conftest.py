"""Pipelines with sources of their own: a lake of files, a store, and steps run on them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from perennial_spec.load import Pipeline, load_pipeline
from perennial_spec.platform import Platform
from perennial_spec.step import Reason, StepName, StepRequest, StepResult
from perennial_steps.runner import run_step

FEATURES = """
def features(columns):
    return {"x": columns["x"], "place": columns["place"]}
"""

SPEC: dict[str, Any] = {
    "apiVersion": "perennial/v1",
    "name": "demo",
    "owner": {"team": "tests", "contact": "tests@example.com"},
    "data": {
        "sources": {"events": "${LAKE}/events/*.csv"},
        "timestamp": "at",
        "entity": "id",
        "label": {"column": "late"},
        "window": "120d",
    },
    "model": {"kind": "xgboost.classifier"},
    "evaluation": {"metric": "roc_auc", "gates": [{"metric": "roc_auc", "min": 0.5}]},
}


@dataclass(frozen=True)
class DataRoom:
    """A folder with a pipeline, a lake and a store."""

    root: Path

    @property
    def events(self) -> Path:
        return self.root / "lake" / "events"

    @property
    def platform(self) -> Platform:
        return Platform(pipelines_dir=str(self.root / "pipelines"), store=str(self.root / "store"))

    @property
    def table(self) -> str:
        return self.platform.table("demo", "data")

    def pipeline(
        self, *, query: str | None = None, features: str = FEATURES, data: Mapping[str, Any] | None = None, **parts: Any
    ) -> Pipeline:
        """Write the pipeline `demo`: `SPEC` with the keys of `data` and the given parts replaced."""
        folder = self.root / "pipelines" / "demo"
        folder.mkdir(parents=True, exist_ok=True)
        spec = SPEC | {"data": SPEC["data"] | dict(data or {})} | parts
        if query is not None:
            spec["data"]["query"] = "features.sql"
            (folder / "features.sql").write_text(query)
        (folder / "features.py").write_text(features)
        (folder / "pipeline.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
        return load_pipeline(folder)

    def write(
        self, month: str = "2024-01", rows: Sequence[str] | int = 30, *, header: str = "id,at,x,place,late"
    ) -> Path:
        """One csv of events: given rows, or as many, an hour apart, every third late."""
        if isinstance(rows, int):
            start = datetime.fromisoformat(f"{month}-01")
            rows = [
                f"{month}-{n},{start + timedelta(hours=n)},{n * 0.5},{'abc'[n % 3]},{int(n % 3 == 0)}"
                for n in range(rows)
            ]
        file = self.events / f"{month}.csv"
        file.write_text("\n".join([header, *rows]) + "\n")
        return file

    def request(self, step: StepName, **more: Any) -> StepRequest:
        given = {
            "pipeline": "demo",
            "step": step,
            "run_key": "run-1",
            "reason": Reason(kind="person", summary="a test"),
        }
        return StepRequest.model_validate(given | more)

    def ingest(self) -> StepResult:
        return run_step(self.request("ingest"), self.platform)

    def validate(self, version: int) -> StepResult:
        return run_step(self.request("validate", inputs={"ingest": {"data_version": version}}), self.platform)

    def start(self, request: StepRequest, **environment: str) -> subprocess.Popen[str]:
        """`python -m perennial_steps` with this request; the result goes to `result.json`."""
        own = {
            "PERENNIAL_STEP_REQUEST": request.model_dump_json(),
            "PERENNIAL_STEP_RESULT_FILE": str(self.root / "result.json"),
        }
        return subprocess.Popen(
            [sys.executable, "-m", "perennial_steps"],
            env={**os.environ, **self.platform.to_environment(), **own, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def data_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataRoom:
    room = DataRoom(tmp_path)
    room.events.mkdir(parents=True)
    (tmp_path / "store").mkdir()
    monkeypatch.setenv("LAKE", str(tmp_path / "lake"))
    return room

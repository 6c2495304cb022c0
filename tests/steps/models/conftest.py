"""Training and evaluation on real Delta tables and a real MLflow server, with data whose truth is known."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from perennial_registry.registry import Registry
from perennial_spec.load import Pipeline, load_pipeline
from perennial_spec.step import Reason, StepName, StepRequest
from perennial_steps.context import StepContext

SPEC = """\
apiVersion: perennial/v1
name: {name}
owner: {{team: ops, contact: ops@example.com}}
data:
  sources: {{trips: "trips/*.parquet"}}
  timestamp: at
  entity: trip_id
  label: {{column: late}}
  window: 90d
  exclude: [arrived_at]
  sensitive: [group]
model:
  kind: {kind}
  rounds: 60
  params: {params}
{model}
evaluation:
  metric: {metric}
  gates:
{gates}
"""
FEATURES = """\
def features(columns):
    return {"rain": columns["rain"], "load": columns["load"], "city": columns["city"]}
"""
PARAMS = "{max_depth: 3, learning_rate: 0.3}"
GATES = (
    "{metric: roc_auc, min: 0.6}",
    "{against: champion, min_gain: 0.0}",
    "{slice: group, metric: roc_auc, min: 0.5}",
)


def make_table(rows: int = 3000, seed: int = 0, *, days: int = 100, slope: float = 2.0) -> pa.Table:
    """Trips, evenly over `days`; late by a logistic law in rain and city. `slope` is what a drift of the law changes."""
    generator = np.random.default_rng(seed)
    rain, load = generator.normal(size=rows), generator.integers(0, 100, rows)
    city = generator.choice(["Oslo", "Rome", "Lima"], rows, p=[0.6, 0.3, 0.1])
    logit = slope * rain - 0.5 + 1.0 * (city == "Oslo")
    late = generator.random(rows) < 1 / (1 + np.exp(-logit))
    start = np.datetime64("2013-01-01", "us")
    at = start + (np.arange(rows) * (days * 86400 / rows)).astype("timedelta64[s]")
    return pa.table(
        {
            "trip_id": [f"t{seed}-{row}" for row in range(rows)],
            "at": pa.array(at, pa.timestamp("us", "UTC")),
            "rain": pa.array(rain, mask=generator.random(rows) < 0.05),
            "load": pa.array(load, pa.int32()),
            "city": pa.array(city.tolist()),
            "group": generator.choice(["x", "y"], rows).tolist(),
            "arrived_at": pa.array(at, pa.timestamp("us", "UTC")),
            "late": late,
        }
    )


@dataclass(frozen=True)
class Lab:
    """A pipeline of its own, its table, and its steps."""

    room: Any
    name: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        return str(self.room.platform.table(self.name, "data"))

    @property
    def registry(self) -> Registry:
        return Registry(self.room.platform.mlflow_url)

    def pipeline(self, features: str = FEATURES, **settings: Any) -> Pipeline:
        """`gates`, `kind`, `metric`, `params`, and `model`: YAML lines of the model's part."""
        known = {"kind": "xgboost.classifier", "metric": "roc_auc", "gates": GATES, "params": PARAMS, "model": ""}
        known |= settings
        gates = "\n".join(f"    - {gate}" for gate in known.pop("gates"))
        folder = self.room.root / "pipelines" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pipeline.yaml").write_text(SPEC.format(name=self.name, gates=gates, **known))
        (folder / "features.py").write_text(features)
        return load_pipeline(folder)

    def land(self, table: pa.Table, mode: str = "overwrite") -> int:
        """Write a version of the Delta table; its number."""
        write_deltalake(self.uri, table, mode=mode, schema_mode="overwrite" if mode == "overwrite" else None)
        return DeltaTable(self.uri).version()

    def request(self, step: StepName, run_key: str, version: int, **train: Any) -> StepRequest:
        inputs: dict[str, Any] = {"ingest": {"data_uri": self.uri, "data_version": version}}
        if train:
            inputs["train"] = train
        reason = Reason(kind="alert", summary="feature drift: rain PSI 2.10 > 0.20", alert="PerennialFeatureDrift")
        return StepRequest(pipeline=self.name, step=step, run_key=run_key, reason=reason, inputs=inputs)

    def context(self, step: StepName, run_key: str, version: int, pipeline: Pipeline, **train: Any) -> StepContext:
        return StepContext(self.request(step, run_key, version, **train), pipeline, self.room.platform)


@pytest.fixture
def lab(room: Any, mlflow_server: str) -> Lab:
    return Lab(room.with_platform(mlflow_url=mlflow_server), f"m-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def offline_lab(room: Any) -> Lab:
    """Where MLflow is not needed."""
    return Lab(room, "trips")


@pytest.fixture
def trips() -> pa.Table:
    return make_table()


@pytest.fixture
def trips_of() -> Any:
    return make_table

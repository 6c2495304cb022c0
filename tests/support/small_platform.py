"""A real platform for tests: every part a real process, on free ports, with small pipelines of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from perennial_cli.clients.airflow import Airflow
from perennial_cli.clients.controller import Controller, Decision
from perennial_cli.clients.prometheus import Prometheus
from perennial_cli.clients.server import ModelServer
from perennial_cli.embedded import connection, supervisor
from perennial_cli.embedded.home import Home
from perennial_cli.embedded.up import Options, start
from perennial_cli.follow import Followed, follow
from perennial_spec.platform import Platform

T = TypeVar("T")

RUN_SECONDS = 240.0

SPEC = """\
apiVersion: perennial/v1
name: {name}
owner: {{team: testers, contact: testers@example.com}}
data:
  sources: {{trips: "${{PERENNIAL_LAKE}}/{name}/*.parquet"}}
  timestamp: at
  entity: trip_id
  label: {{column: late, arrives_after: 1h}}
  window: 60d
expectations:
  - expect_column_values_to_be_between: {{column: distance, min_value: 0}}
  - expect_column_values_to_not_be_null: {{column: late}}
model:
  kind: xgboost.classifier
  params: {{max_depth: 3, learning_rate: 0.3}}
  rounds: 30
  split: {{holdout: 7d, validation: 5d}}
evaluation:
  metric: roc_auc
  gates:
    - {{metric: roc_auc, min: 0.6}}
    - {{against: champion, min_gain: 0.01, confidence: 0.9}}
deployment:
  steps: [50%, 100%]
  bake: 3s
  min_requests: 5
  max_bake: 60s
  abort_on: [{{error_rate: 1%}}]
monitoring:
  drift: {{psi: 0.5, window: 5m, min_rows: 300}}
  quality: {{metric: roc_auc, min: 0.5, min_labels: 50}}
retraining: {{on: [drift], cooldown: 10s, budget: {{runs: 20, per: 1d}}}}
resources:
  {{ingest: {{timeout: 2m, retries: 0}}, validate: {{timeout: 2m, retries: 0}}, train: {{timeout: 2m, retries: 0}}}}
"""

FEATURES = '''\
def features(columns):
    """As they are."""
    return {"distance": columns["distance"], "speed": columns["speed"], "city": columns["city"]}
'''


@dataclass(frozen=True)
class Season:
    """What trips are like for a while: how long, and what makes them late."""

    distance: float
    sign: float


WINTER = Season(distance=10.0, sign=1.0)
SUMMER = Season(distance=30.0, sign=-1.0)


def trips(season: Season, first: str, days: int, per_day: int = 60, seed: int = 0) -> pa.Table:
    """Trips of a season, evenly over the days. Late when distance and speed say so, with noise."""
    rng = np.random.default_rng(seed)
    rows = days * per_day
    at = np.datetime64(first, "us") + (np.arange(rows) * (86_400_000_000 // per_day)).astype("timedelta64[us]")
    distance = np.abs(rng.normal(season.distance, 3, rows))
    speed = rng.normal(50, 10, rows)
    score = season.sign * ((distance - season.distance) / 3 + (speed - 50) / 10) + rng.normal(0, 0.7, rows)
    return pa.table(
        {
            "trip_id": [f"{first}-{seed}-{i}" for i in range(rows)],
            "at": pa.array(at),
            "distance": distance,
            "speed": speed,
            "city": rng.choice(["Oslo", "Rome", "Lima"], rows),
            "late": score > 0,
        }
    )


def eventually(what: str, look: Callable[[], T | None], seconds: float = 60) -> T:
    """The first answer of `look` that is not empty."""
    began = time.monotonic()
    while not (found := look()):
        assert time.monotonic() - began < seconds, f"waited {seconds:g} s for {what}"
        time.sleep(0.25)
    return found


@dataclass
class Loop:
    """The running platform, and everyone who asks it."""

    project: Path
    home: Home
    platform: Platform

    @property
    def controller(self) -> Controller:
        return Controller(self.platform)

    @property
    def airflow(self) -> Airflow:
        return Airflow(self.platform)

    @property
    def prometheus(self) -> Prometheus:
        return Prometheus(self.platform)

    @property
    def server(self) -> ModelServer:
        return ModelServer(self.platform)

    def add_pipeline(self, name: str, text: str | None = None) -> Path:
        folder = self.project / "dags" / "pipelines" / name
        folder.mkdir(parents=True)
        (folder / "features.py").write_text(FEATURES)
        (folder / "pipeline.yaml").write_text(SPEC.format(name=name) if text is None else text)
        return folder

    def deliver(self, pipeline: str, file: str, table: pa.Table) -> None:
        folder = self.home.lake / pipeline
        folder.mkdir(exist_ok=True)
        pq.write_table(table, folder / f"{file}.partial")
        (folder / f"{file}.partial").rename(folder / f"{file}.parquet")

    def followed(self, decision: Decision) -> Followed:
        assert decision.dag_id and decision.run_id, f"no run: {decision}"
        return follow(self.airflow, decision.dag_id, decision.run_id, lambda _: None, timeout_seconds=RUN_SECONDS)

    def kill(self) -> None:
        """Everything at once, as when the machine loses its power."""
        state = supervisor.status(self.home)
        assert state is not None
        everyone = [psutil.Process(state.supervisor.pid)]
        everyone += everyone[0].children(recursive=True)
        for process in everyone:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(everyone, timeout=20)

    def up(self) -> None:
        start(Options(self.project, self.home.path))
        self.platform = connection.load(self.home.path)

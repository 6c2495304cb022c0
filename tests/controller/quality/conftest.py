"""Two logs as model servers write them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from perennial_controller.quality.exporter import Exporter
from perennial_controller.specs import Specs
from perennial_spec import logs

SPEC = """\
apiVersion: perennial/v1
name: flights
owner: {team: ops, contact: ops@example.com}
data: {sources: {f: f.parquet}, timestamp: at, entity: id, label: {column: late, arrives_after: AFTER}}
model: {kind: KIND}
evaluation: {metric: METRIC, gates: [{metric: METRIC, min: 0.1}]}
monitoring: {quality: {metric: METRIC, min: 0.1, window: 1h, slices: [SLICES]}}
"""
_TYPES = {
    "string": pa.string(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "timestamp[us, UTC]": pa.timestamp("us", "UTC"),
}


@dataclass(frozen=True)
class Prediction:
    entity: str | None
    version: str
    score: float | None
    at: datetime
    id: str | None = field(default_factory=lambda: str(uuid4()))
    inputs: str | None = "{}"


@dataclass(frozen=True)
class Label:
    entity: str | None
    value: float | None
    at: datetime
    prediction: str | None = None
    """Id of the one that it is of; then without an entity."""


@dataclass
class Logs:
    """A store with one pipeline, and everything that was ever written to its logs."""

    folder: Path
    now: datetime
    predictions: list[Prediction] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)

    @property
    def store(self) -> str:
        return str(self.folder / "store")

    def uri(self, table: str) -> str:
        return f"{self.store}/flights/{table}"

    def spec(
        self, kind: str = "xgboost.classifier", metric: str = "roc_auc", slices: str = "", after: str = "0s"
    ) -> None:
        folder = self.folder / "pipelines" / "flights"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "features.py").write_text("def features(columns):\n    return dict(columns)\n")
        text = SPEC.replace("KIND", kind).replace("METRIC", metric).replace("SLICES", slices).replace("AFTER", after)
        (folder / "pipeline.yaml").write_text(text)

    def exported(self, exporter: Exporter) -> dict[str, dict[tuple[str, ...], float]]:
        """Sample's name to the values by the labels' values without the pipeline, as a scrape would find them."""
        exporter.refresh()
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for family in exporter.collect():
            for sample in family.samples:
                found.setdefault(sample.name, {})[tuple(sample.labels.values())[1:]] = sample.value
        return found

    def exporter(self) -> Exporter:
        """A new one, as after a restart."""
        return Exporter(self.store, Specs(self.folder / "pipelines"), lambda: int(self.now.timestamp() * 1e6))

    def predict(self, rows: Iterable[Prediction]) -> None:
        rows = list(rows)
        self.predictions += rows
        columns: dict[str, list[Any]] = {
            logs.PREDICTION_ID: [row.id for row in rows],
            logs.ENTITY: [row.entity for row in rows],
            logs.VERSION: [row.version for row in rows],
            logs.SCORE: [row.score for row in rows],
            logs.SHADOW: [False for _ in rows],
            logs.AT: [row.at for row in rows],
            logs.INPUTS: [row.inputs for row in rows],
        }
        self._append(logs.PREDICTIONS, columns, logs.PREDICTION_COLUMNS)

    def label(self, rows: Iterable[Label]) -> None:
        rows = list(rows)
        self.labels += rows
        columns: dict[str, list[Any]] = {
            logs.ENTITY: [row.entity for row in rows],
            logs.LABEL: [row.value for row in rows],
            logs.AT: [row.at for row in rows],
            logs.PREDICTION_ID: [row.prediction for row in rows],
        }
        self._append(logs.LABELS, columns, logs.LABEL_COLUMNS)

    def label_as_before(self, rows: Iterable[Label]) -> None:
        """As a model server wrote labels that did not know labels of predictions."""
        rows = list(rows)
        self.labels += rows
        columns: dict[str, list[Any]] = {
            logs.ENTITY: [r.entity for r in rows],
            logs.LABEL: [r.value for r in rows],
            logs.AT: [r.at for r in rows],
        }
        self._append(logs.LABELS, columns, {name: logs.LABEL_COLUMNS[name] for name in columns})

    def _append(self, table: str, columns: dict[str, list[Any]], types: dict[str, str]) -> None:
        schema = pa.schema([(name, _TYPES[kind]) for name, kind in types.items()])
        write_deltalake(self.uri(table), pa.table(columns, schema=schema), mode="append", schema_mode="merge")

    def compact(self) -> None:
        """As a model server does now and then."""
        for name in (logs.PREDICTIONS, logs.LABELS):
            table = DeltaTable(self.uri(name))
            table.optimize.compact()
            table.vacuum(0, dry_run=False, enforce_retention_duration=False)
            table.create_checkpoint()

    def ago(self, minutes: float) -> datetime:
        return self.now - timedelta(minutes=minutes)


@pytest.fixture
def flights(tmp_path: Path) -> Logs:
    made = Logs(tmp_path, datetime.now(UTC))
    made.spec()
    return made


@pytest.fixture
def prediction() -> type[Prediction]:
    return Prediction


@pytest.fixture
def label() -> type[Label]:
    return Label


@pytest.fixture
def make_logs() -> type[Logs]:
    return Logs

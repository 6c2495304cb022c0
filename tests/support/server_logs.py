"""Logs of model servers: real Delta tables, with rows that a test makes up."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from perennial_spec import logs
from perennial_spec.platform import Platform

_TYPES = {
    "string": pa.string(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "timestamp[us, UTC]": pa.timestamp("us", "UTC"),
}
_COLUMNS: dict[str, Mapping[str, str]] = {logs.PREDICTIONS: logs.PREDICTION_COLUMNS, **logs.ROW_COLUMNS}


@dataclass
class Log:
    """Collects rows, and appends them to the tables of one pipeline."""

    platform: Platform
    pipeline: str
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def answer(
        self, entity: str | None, version: str, at: datetime, *, score: float | None = 0.5, shadow: bool = False
    ) -> str:
        """The id of a prediction that `version` made."""
        made = uuid.UUID(int=((int(at.timestamp() * 1000) << 80) | (7 << 76) | (uuid.uuid4().int & (2**76 - 1))))
        row = {"prediction_id": str(made), "entity": entity, "version": version, "score": score, "shadow": shadow}
        self.rows.setdefault(logs.PREDICTIONS, []).append({**row, "at": at, "inputs": "{}"})
        return str(made)

    def reward(self, prediction_id: str, reward: float, at: datetime, version: str | None = None) -> None:
        row = {"prediction_id": prediction_id, "version": version, "reward": reward, "at": at}
        self.rows.setdefault(logs.REWARDS, []).append(row)

    def label(self, label: float, at: datetime, *, entity: str | None = None, prediction_id: str | None = None) -> None:
        row = {"entity": entity, "label": label, "at": at, "prediction_id": prediction_id}
        self.rows.setdefault(logs.LABELS, []).append(row)

    def write(self, *, without: str | None = None) -> None:
        """Append what was collected, one file per table; `without` leaves out a column, as an older server does."""
        for table, rows in self.rows.items():
            columns = {name: _TYPES[kind] for name, kind in _COLUMNS[table].items() if name != without}
            data = pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in columns.items()})
            write_deltalake(self.platform.table(self.pipeline, table), data, mode="append")
        self.rows.clear()

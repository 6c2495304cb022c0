"""The two logs, as model servers write them, in micro-batches and at any time."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from perennial_spec import logs as spec_logs

_TYPES = {
    "string": pa.string(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "timestamp[us, UTC]": pa.timestamp("us", "UTC"),
}
_COMPACT_COMMITS = 300
"""As the model server does."""


class Logs:
    """Appends to a pipeline's tables. With `written`, files say that they were written then: a hundred days pass in minutes."""

    def __init__(self, store: Path, pipeline: str) -> None:
        self._folder = store / pipeline
        self._tables: dict[str, DeltaTable] = {}
        self._ids = 0

    def predict(
        self,
        entities: Sequence[str],
        scores: Any,
        at: Any,
        inputs: Sequence[Mapping[str, Any]],
        written: int | None = None,
    ) -> None:
        """Args: at: int64[n], microseconds since 1970; written: likewise."""
        count, self._ids = len(entities), self._ids + len(entities)
        columns = {
            spec_logs.PREDICTION_ID: [f"p{number}" for number in range(self._ids - count, self._ids)],
            spec_logs.ENTITY: list(entities),
            spec_logs.VERSION: ["1"] * count,
            spec_logs.SCORE: scores,
            spec_logs.SHADOW: [False] * count,
            spec_logs.AT: pa.array(at, pa.int64()).cast(pa.timestamp("us", "UTC")),
            spec_logs.INPUTS: [json.dumps(row) for row in inputs],
        }
        self._append(spec_logs.PREDICTIONS, columns, spec_logs.PREDICTION_COLUMNS, written)

    def label(self, entities: Sequence[str], labels: Any, at: int, written: int | None = None) -> None:
        columns = {
            spec_logs.ENTITY: list(entities),
            spec_logs.LABEL: labels,
            spec_logs.AT: pa.array(np.full(len(entities), at), pa.int64()).cast(pa.timestamp("us", "UTC")),
            spec_logs.PREDICTION_ID: [None] * len(entities),
        }
        self._append(spec_logs.LABELS, columns, spec_logs.LABEL_COLUMNS, written)

    def _append(self, name: str, columns: dict[str, Any], types: Mapping[str, str], written: int | None) -> None:
        uri = str(self._folder / name)
        rows = pa.table(columns, schema=pa.schema([(column, _TYPES[kind]) for column, kind in types.items()]))
        if written is not None:
            self._compact(name, uri, written)
        table = self._tables.get(name)
        write_deltalake(table or uri, rows, mode="append")
        table = self._tables[name] = table or DeltaTable(uri)
        self._say_written(table, written)

    def _compact(self, name: str, uri: str, written: int) -> None:
        if name not in self._tables or self._tables[name].version() % _COMPACT_COMMITS != _COMPACT_COMMITS - 1:
            return
        table = DeltaTable(uri)  # which knows what the commits say by now
        table.optimize.compact()
        self._say_written(table, written)
        table = self._tables[name] = DeltaTable(uri)
        table.vacuum(0, dry_run=False, enforce_retention_duration=False)
        table.create_checkpoint()

    def _say_written(self, table: DeltaTable, written: int | None) -> None:
        if written is None:
            return
        commit = Path(table.table_uri.removeprefix("file://")) / "_delta_log" / f"{table.version():020d}.json"
        text = commit.read_text()
        commit.write_text(re.sub(r'("modificationTime":)\d+', rf"\g<1>{written // 1000}", text))

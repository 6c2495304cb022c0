"""When the newest row of each pipeline's data is from: read from the statistics in the Delta log, never from the data."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from perennial_spec import names
from perennial_spec.load import Pipeline

log = logging.getLogger(__name__)


@dataclass
class _Watched:
    table: Any
    version: int = -1
    newest: float | None = None


class DataClock:
    """A Prometheus collector. `refresh` belongs into a thread; it costs one look into a log per table."""

    def __init__(self, store: str) -> None:
        self._store = store.rstrip("/")
        self._tables: dict[str, _Watched] = {}
        self._newest: dict[str, float] = {}
        self._lock = threading.Lock()

    def refresh(self, pipelines: Iterable[Pipeline]) -> None:
        """Look which tables have a new version. A table that cannot be read keeps its last figure."""
        found = {}
        for pipeline in pipelines:
            newest = self._look(pipeline)
            if newest is not None:
                found[pipeline.name] = newest
        with self._lock:
            self._newest = found

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            newest = dict(self._newest)
        family = GaugeMetricFamily(
            names.DATA_LAST_TIMESTAMP,
            "data.timestamp of the newest row that has landed, in Unix seconds",
            labels=("pipeline",),
        )
        for pipeline, seconds in newest.items():
            family.add_metric((pipeline,), seconds)
        yield family

    def _look(self, pipeline: Pipeline) -> float | None:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        uri = f"{self._store}/{pipeline.name}/data"
        watched = self._tables.get(pipeline.name)
        try:
            if watched is None:
                if not DeltaTable.is_deltatable(uri):
                    return None
                watched = self._tables[pipeline.name] = _Watched(DeltaTable(uri))
            else:
                watched.table.update_incremental()
            if watched.table.version() != watched.version:
                watched.newest = _newest(watched.table, pipeline.spec.data.timestamp)
                watched.version = watched.table.version()
        except (DeltaError, OSError) as error:
            log.warning("the data of %s cannot be read: %s", pipeline.name, error)
            self._tables.pop(pipeline.name, None)
        return watched.newest if watched else None


def _newest(table: Any, column: str) -> float | None:
    import pyarrow as pa

    actions = pa.table(table.get_add_actions(flatten=True))
    name = f"max.{column}"
    if name not in actions.column_names:
        return None
    seconds = [_seconds(value) for value in actions.column(name).to_pylist() if value is not None]
    return max((second for second in seconds if second is not None), default=None)


def _seconds(value: Any) -> float | None:
    if not isinstance(value, datetime):
        return None
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()

"""Appending to the Delta tables of the log, and keeping them from becoming thousands of small files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from perennial_spec import logs
from perennial_spec.platform import Platform

log = logging.getLogger(__name__)
_COLUMNS = {logs.PREDICTIONS: logs.PREDICTION_COLUMNS, logs.LABELS: logs.LABEL_COLUMNS}
_KEEP_HOURS = 24
"""Merged files stay readable this long for readers of an older version of the table."""


class Tables:
    """The tables below the platform's store.

    Args:
        compact_commits: merge small files after this many appends to a table; 0 never.
    """

    def __init__(self, platform: Platform, compact_commits: int) -> None:
        platform.need("store")
        self._platform = platform
        self._compact_commits = compact_commits
        self._commits: dict[str, int] = {}

    def append(self, pipeline: str, table: str, columns: dict[str, list[Any]]) -> None:
        """One commit with these rows; the table is made when there is none."""
        import pyarrow as pa
        from deltalake import write_deltalake

        uri = self._platform.table(pipeline, table)
        if "://" not in uri:
            Path(uri).mkdir(parents=True, exist_ok=True)
        types = {
            "string": pa.string(),
            "double": pa.float64(),
            "bool": pa.bool_(),
            "timestamp[us, UTC]": pa.timestamp("us", "UTC"),
        }
        schema = pa.schema([(name, types[kind]) for name, kind in _COLUMNS[table].items()])
        write_deltalake(uri, pa.table(columns, schema=schema), mode="append")
        self._commits[uri] = self._commits.get(uri, 0) + 1
        if self._compact_commits and self._commits[uri] % self._compact_commits == 0:
            self._compact(uri)

    def _compact(self, uri: str) -> None:
        from deltalake import DeltaTable

        try:
            table = DeltaTable(uri)
            table.optimize.compact()
            table.vacuum(_KEEP_HOURS, dry_run=False, enforce_retention_duration=False)
            table.create_checkpoint()
        except Exception as error:  # the rows are safe; another replica may have merged first
            log.warning("the small files of %s are not merged this time: %s", uri, type(error).__name__)


def warm() -> None:
    """Import what the first append needs, before there is traffic."""
    import deltalake  # noqa: F401
    import pyarrow  # noqa: F401

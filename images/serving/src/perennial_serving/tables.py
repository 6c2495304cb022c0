"""Appending to the Delta tables of the log, and keeping them from becoming thousands of small files."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perennial_serving.log_frames import SCORES, Columns, Segment
from perennial_spec import logs
from perennial_spec.platform import Platform

if TYPE_CHECKING:
    from arro3.core import DataType, RecordBatch, Schema

log = logging.getLogger(__name__)
_COLUMNS = {
    logs.PREDICTIONS: {**logs.PREDICTION_COLUMNS, SCORES: "string"},
    **logs.ROW_COLUMNS,
}
_KEEP_HOURS = 24
"""Merged files stay readable this long for readers of an older version of the table."""
_CONFIGURATION = {"delta.setTransactionRetentionDuration": "interval 7 days"}
"""A server that is gone sends nothing again: its name need not stay in the table for ever."""


class Tables:
    """The tables below the platform's store. Appends from one thread; may be pickled before the first.

    Args:
        compact_commits: merge small files after this many appends to a table; 0 never.
    """

    def __init__(self, platform: Platform, compact_commits: int) -> None:
        self._platform = Platform(store=platform.need("store"))  # the store alone: this object goes to another process
        self._compact_commits = compact_commits
        self._commits: dict[str, int] = {}
        self._open: dict[str, Any] = {}
        """`DeltaTable` by place, as of our last append: opening one reads its whole log."""

    def append(self, pipeline: str, table: str, log_id: str, segments: Sequence[Segment]) -> int:
        """One commit with the segments that the table does not have yet; the table, and columns that it lacks, are made.

        The commit names `log_id` and its last sequence, so that segments that were committed by a writer who did not live to
        say so are not committed again.

        Returns:
            Rows that no table can hold, and that were left out.

        Raises:
            Exception: the store's own, of many kinds. The commit may have happened all the same: try again with the same segments.
        """
        uri = self._platform.table(pipeline, table)
        found = self._open.pop(
            uri, None
        )  # put back when all went well: after a failure, what happened is read from the table
        if found is None or not _exists(uri):
            found = _opened(uri)
            known = None if found is None else found.transaction_version(log_id)
            segments = [segment for segment in segments if known is None or segment.sequence > known]
        batches, lost = _batches(table, segments)
        if batches:
            found = _commit(uri, found, batches, log_id, segments[-1].sequence)
            self._committed(uri, found)
        if found is not None:
            self._open[uri] = found
        return lost

    def _committed(self, uri: str, table: Any) -> None:
        self._commits[uri] = self._commits.get(uri, 0) + 1
        if self._compact_commits and self._commits[uri] % self._compact_commits == 0:
            _compact(uri, table)


def warm() -> None:
    """Import what the first append needs."""
    import arro3.core  # noqa: F401
    import deltalake  # noqa: F401


def _batches(table: str, segments: Iterable[Segment]) -> tuple[list[RecordBatch], int]:
    """Segments in Arrow, and the rows of those that cannot be: they must not hold up the others for ever."""
    batches, lost = [], 0
    for segment in segments:
        try:
            batches.append(record_batch(table, segment.columns()))
        except Exception as error:
            what = type(error).__name__  # and no more: the message may hold what was sent
            log.warning("%d rows of %s/%s cannot be stored: %s", segment.rows, segment.pipeline, table, what)
            lost += segment.rows
    return batches, lost


def record_batch(table: str, columns: Columns) -> RecordBatch:
    """Rows in Arrow, with the types of the contract. Columns that the rows do not have are left out."""
    from arro3.core import RecordBatch

    schema = _schema(table, columns)
    arrays = [_array(columns[name], schema.field(name).type) for name in schema.names]
    return RecordBatch.from_arrays(arrays, schema=schema)


def _schema(table: str, columns: Iterable[str]) -> Schema:
    from arro3.core import DataType, Field, Schema

    types = {
        "string": DataType.utf8(),
        "double": DataType.float64(),
        "bool": DataType.bool(),
        "timestamp[us, UTC]": DataType.timestamp("us", tz="UTC"),
    }
    held = set(columns)
    return Schema([Field(name, types[kind]) for name, kind in _COLUMNS[table].items() if name in held])


def _array(values: list[Any], kind: DataType) -> Any:
    from arro3.core import Array, DataType

    if kind == DataType.timestamp("us", tz="UTC"):
        return Array(values, DataType.int64()).cast(kind)
    try:
        return Array(values, kind)
    except UnicodeEncodeError:  # half a surrogate pair: JSON can say it, and no table can hold it
        return Array([value and value.encode(errors="replace").decode() for value in values], kind)


def _exists(uri: str) -> bool:
    """Whether a table that was open is still there. Only folders can be asked at no cost; elsewhere the commit finds out."""
    return "://" in uri or Path(uri, "_delta_log").is_dir()


def _opened(uri: str) -> Any:
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    if "://" not in uri:
        Path(uri).mkdir(parents=True, exist_ok=True)
    try:
        return DeltaTable(uri)
    except TableNotFoundError:
        return None


def _commit(uri: str, table: Any, batches: list[RecordBatch], log_id: str, sequence: int) -> Any:
    """Append, and return the table as it is now."""
    from arro3.core import RecordBatchReader
    from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

    now = time.time_ns() // 1_000_000
    widest = max(batches, key=lambda batch: batch.num_columns)
    if any(batch.num_columns < widest.num_columns for batch in batches):
        batches = [_widened(batch, widest.schema) for batch in batches]
    write_deltalake(
        uri if table is None else table,
        RecordBatchReader.from_batches(widest.schema, batches),
        mode="append",
        schema_mode="merge",
        configuration=_CONFIGURATION if table is None else None,
        commit_properties=CommitProperties(app_transactions=[Transaction(log_id, sequence, now)]),
    )
    return DeltaTable(uri) if table is None else table


def _widened(batch: RecordBatch, schema: Schema) -> RecordBatch:
    """With the columns that it lacks, empty."""
    from arro3.core import Array, RecordBatch

    held = set(batch.schema.names)
    arrays = [
        batch.column(name) if name in held else Array([None] * batch.num_rows, schema.field(name).type)
        for name in schema.names
    ]
    return RecordBatch.from_arrays(arrays, schema=schema)


def _compact(uri: str, table: Any) -> None:
    try:
        table.optimize.compact()
        table.vacuum(_KEEP_HOURS, dry_run=False, enforce_retention_duration=False)
        table.create_checkpoint()
    except Exception as error:  # the rows are safe; another replica may have merged first
        log.warning("the small files of %s are not merged this time: %s", uri, type(error).__name__)

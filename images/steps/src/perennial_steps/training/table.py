"""Reading one version of a pipeline's Delta table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perennial_spec.data import Data
from perennial_spec.errors import BatchError
from perennial_steps.table import PARTITION, store_errors
from perennial_steps.training.dataset import need_columns
from perennial_steps.training.lists import whole

if TYPE_CHECKING:
    import pyarrow as pa


def read_window(uri: str, version: int, data: Data, group: str | None = None) -> pa.Table:
    """The newest `data.window` of the labelled rows of a table, by timestamp, as it was at `version`.

    The window ends at the newest row that has a label: rows that still wait for theirs must not push others out. Of
    a ranker's lists (`group` names the column) only those that lie within the window as a whole are read.

    Raises:
        BatchError: there is no such table or version; it has no rows or labels, or lacks a column.
        PlatformError: the store does not answer.
    """
    with store_errors(uri):
        return _read(_open(uri, version), uri, version, data, group)


def _read(table: Any, uri: str, version: int, data: Data, group: str | None) -> pa.Table:
    import pyarrow.compute as pc

    need_columns(table.schema.names, [data.timestamp, data.label.column, *data.sensitive, *([group] if group else [])])
    labelled = pc.field(data.label.column).is_valid()
    columns = [name for name in table.schema.names if name != PARTITION]
    when = table.to_table(columns=[data.timestamp], filter=labelled).column(data.timestamp)
    last = pc.max(when)
    if not last.is_valid:
        rows = table.count_rows()
        raise BatchError(
            f"none of the {rows:,} rows has a label and a timestamp" if rows else "the data has no rows",
            where=f"{uri} version {version}, columns {data.label.column!r} and {data.timestamp!r}",
            expected="labelled rows to train on",
            next="land a batch, or wait for the labels (data.label.arrives_after)",
        )
    if not _is_time(when.type):
        return table.to_table(columns=columns, filter=labelled)  # assemble() says what is wrong with it
    start = pc.subtract(last, _scalar(data.window, when.type))
    inside = pc.field(data.timestamp) > start
    window = table.to_table(columns=columns, filter=labelled & inside)
    if group is None:
        return window
    return whole(window, table.to_table(columns=[group], filter=labelled & ~inside).column(group), group)


def _open(uri: str, version: int) -> Any:
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    try:
        return DeltaTable(uri, version=version).to_pyarrow_dataset()
    except (TableNotFoundError, DeltaError) as error:
        if not isinstance(error, TableNotFoundError) and "version" not in str(error).lower():
            raise
        raise BatchError(
            f"there is no version {version} of the data", where=uri, next="land it first: perennial step ingest"
        ) from error


def _is_time(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _scalar(length: Any, kind: Any) -> Any:
    import pyarrow as pa

    return pa.scalar(length, type=pa.duration(kind.unit if pa.types.is_timestamp(kind) else "s"))

"""The tables that model servers write, as tables of a DuckDB connection: streamed, and only the files and columns that a query needs."""

# ruff: noqa: S608 (what is put into SQL are names of our own)

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from perennial_spec import logs
from perennial_spec.errors import PlatformError
from perennial_spec.load import Pipeline
from perennial_spec.platform import Platform
from perennial_steps.ingest_query import open_duckdb
from perennial_steps.table import store_errors

if TYPE_CHECKING:
    import duckdb

_COLUMNS: dict[str, Mapping[str, str]] = {logs.PREDICTIONS: logs.PREDICTION_COLUMNS, **logs.ROW_COLUMNS}
_TYPES = {"string": "VARCHAR", "double": "DOUBLE", "bool": "BOOLEAN", "timestamp[us, UTC]": "TIMESTAMPTZ"}


@contextmanager
def opened(pipeline: Pipeline, platform: Platform, step: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that sees `predictions`, `labels` and `rewards`, with every column of the contract, within the memory of `step`.

    Raises:
        PlatformError: the store does not answer, or memory and temporary disk do not hold what a query needs.
    """
    import duckdb

    where = platform.table(pipeline.name, "")
    with store_errors(where), open_duckdb(pipeline.spec.step_resources(step)) as connection:
        try:
            for table in _COLUMNS:
                _attach(connection, table, platform.table(pipeline.name, table))
            yield connection
        except duckdb.OutOfMemoryException as error:
            raise PlatformError(
                f"the log does not fit into memory and temporary disk: {_first_line(error)}",
                where=where,
                next=f"give the step more with resources.{step}.memory, or free the temporary disk",
            ) from None
        except duckdb.Error as error:
            raise PlatformError(
                f"the log cannot be read: {_first_line(error)}", where=where, next="run the step again: it only reads"
            ) from None


def _attach(connection: duckdb.DuckDBPyConnection, name: str, uri: str) -> None:
    """The table, or none of its rows as long as nobody has written one; columns that an older table lacks are null."""
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    try:
        data = DeltaTable(uri).to_pyarrow_dataset()
    except TableNotFoundError:
        held, source = set[str](), "(SELECT 1) WHERE false"
    else:
        held, source = set(data.schema.names), f"_{name}"
        connection.register(source, data)
    columns = (
        f'"{column}"' if column in held else f'NULL::{_TYPES[kind]} AS "{column}"'
        for column, kind in _COLUMNS[name].items()
    )
    connection.execute(f"CREATE TEMP VIEW {name} AS SELECT {', '.join(columns)} FROM {source}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]

"""Delta tables as sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perennial_spec.errors import SourceError
from perennial_steps.sources.location import Location

if TYPE_CHECKING:
    import duckdb


def state_of(location: Location) -> str:
    """The table's identity and version."""
    table = _table(location)
    return f"{table.metadata().id}@{table.version()}"


def attach(connection: duckdb.DuckDBPyConnection, location: Location) -> None:
    """See the newest version as a view; DuckDB reads only the columns and files that the query needs."""
    from deltalake.exceptions import DeltaError

    try:
        connection.register(location.name, _table(location).to_pyarrow_dataset())
    except DeltaError as error:
        raise _error(location, error) from None


def _table(location: Location) -> Any:
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        return DeltaTable(location.text)
    except (DeltaError, OSError, ValueError) as error:
        raise _error(location, error) from None


def _error(location: Location, error: Exception) -> SourceError:
    return SourceError(
        f"source {location.name!r} cannot be read: {location.hide(str(error))}",
        where=location.where,
        expected=f"a Delta table at {location.written}",
        next="check the path, and the credentials when it is in an object store",
    )

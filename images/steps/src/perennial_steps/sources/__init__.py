"""The sources of a pipeline: where they are, whether they have changed, and how DuckDB sees them as views.

location.py  from the spec's text to a place, with `${NAME}` taken from the environment and never shown again
files.py     csv, json and parquet, here or in an object store
delta.py     Delta tables
postgres.py  tables of PostgreSQL
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perennial_steps.sources.location import Location, locate, locate_one

if TYPE_CHECKING:
    import duckdb

__all__ = ["Location", "attach", "culprit", "locate", "locate_one", "state_of"]


def state_of(location: Location) -> str | None:
    """A text that changes when the data at `location` changes; None when only reading it can tell.

    Raises:
        SourceError: it does not answer, or no file matches.
    """
    from perennial_steps.sources import delta, files

    if location.kind == "postgresql":
        return None
    return delta.state_of(location) if location.kind == "delta" else files.state_of(location)


def attach(connection: duckdb.DuckDBPyConnection, location: Location, *, peek: bool = False) -> None:
    """Make the source visible to queries under its name.

    Args:
        peek: only see whether it answers and what its columns are; some rows may be missing.

    Raises:
        SourceError: it does not answer, or is not what the spec says it is.
    """
    from perennial_steps.sources import delta, files, postgres

    if location.kind == "postgresql":
        postgres.attach(connection, location, peek=peek)
    elif location.kind == "delta":
        delta.attach(connection, location)
    else:
        files.attach(connection, location, peek=peek)


def culprit(connection: duckdb.DuckDBPyConnection, locations: tuple[Location, ...]) -> Exception | None:
    """The error of the first file that cannot be read to its end: asked for when a query over the sources has failed."""
    from perennial_steps.sources import files

    return next((error for at in locations if (error := files.unreadable(connection, at))), None)

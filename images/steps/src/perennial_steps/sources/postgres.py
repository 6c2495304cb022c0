"""Tables of PostgreSQL, streamed through ADBC into DuckDB, which spills to disk what does not fit its memory."""

# ruff: noqa: S608 (what is put into SQL are identifiers and paths, quoted; DuckDB takes no parameters there)

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from perennial_spec.errors import SourceError, nearest
from perennial_steps.sources.location import Location

if TYPE_CHECKING:
    import duckdb

CONNECT_SECONDS = 10
STATEMENT_SECONDS = 3600
PEEK_ROWS = 1000

_CASTS = {"numeric": "double precision", "money": "numeric::double precision"}
_AS_THEY_ARE = {
    "smallint",
    "integer",
    "bigint",
    "real",
    "double precision",
    "boolean",
    "text",
    "character varying",
    "character",
    "date",
    "timestamp without time zone",
    "timestamp with time zone",
    "time without time zone",
}
_COLUMNS = """
SELECT column_name, data_type FROM information_schema.columns
WHERE table_schema = $1 AND table_name = $2 ORDER BY ordinal_position
"""
_TABLES = """
SELECT CASE table_schema WHEN 'public' THEN table_name ELSE table_schema || '.' || table_name END
FROM information_schema.tables WHERE table_schema NOT IN ('pg_catalog', 'information_schema') LIMIT 1000
"""


def attach(connection: duckdb.DuckDBPyConnection, location: Location, *, peek: bool) -> None:
    """Copy the table into DuckDB under the source's name.

    Raises:
        SourceError: the server does not answer, or has no such table.
    """
    import adbc_driver_manager
    from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]

    try:
        with dbapi.connect(_address(location)) as database, database.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = '{STATEMENT_SECONDS}s'")
            cursor.execute(_select(cursor, location) + (f" LIMIT {PEEK_ROWS}" if peek else ""))
            connection.register("_perennial_stream", cursor.fetch_record_batch())
            connection.execute(f'CREATE TEMP TABLE "{location.name}" AS SELECT * FROM _perennial_stream')
            connection.unregister("_perennial_stream")
    except adbc_driver_manager.Error as error:
        raise SourceError(
            f"source {location.name!r} does not answer: {location.hide(str(error)).strip()}",
            where=location.where,
            expected=f"PostgreSQL at {location.written}",
            next="check the address, the credentials in the environment, and that the server is up",
        ) from None


def _select(cursor: Any, location: Location) -> str:
    schema, table = _table(location)
    cursor.execute(_COLUMNS, (schema, table))
    columns = cursor.fetchall()
    if not columns:
        cursor.execute(_TABLES)
        tables = [name for (name,) in cursor.fetchall()]
        guess = nearest(table if schema == "public" else f"{schema}.{table}", tables)
        raise SourceError(
            f"source {location.name!r}: there is no table {schema}.{table}, or it may not be read",
            where=location.where,
            expected="postgresql://host/database#schema.table",
            next=f"did you mean {guess!r}?" if guess else "mend the part after # in data.sources",
        )
    wanted = ", ".join(_column(name, kind) for name, kind in columns)
    return f"SELECT {wanted} FROM {_quoted(schema)}.{_quoted(table)}"


def _column(name: str, kind: str) -> str:
    if kind in _AS_THEY_ARE:
        return _quoted(name)
    return f"{_quoted(name)}::{_CASTS.get(kind, 'text')} AS {_quoted(name)}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _table(location: Location) -> tuple[str, str]:
    schema, dot, table = urlsplit(location.text).fragment.rpartition(".")
    return (schema, table) if dot else ("public", table)


def _address(location: Location) -> str:
    """The URL for libpq: without the table, and with an end to waiting."""
    parts = urlsplit(location.text)
    options = dict(parse_qsl(parts.query))
    options.setdefault("connect_timeout", str(CONNECT_SECONDS))
    return urlunsplit(parts._replace(query=urlencode(options, quote_via=quote), fragment=""))

"""DuckDB for one ingest: bounded memory, and the pipeline's query as a view with errors that point into its file."""

# ruff: noqa: S608 (what is put into SQL are identifiers, quoted, and the pipeline's own query)

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from perennial_spec.errors import BatchError, PlatformError, SpecError
from perennial_spec.load import Pipeline
from perennial_spec.retraining import StepResources
from perennial_steps.sources import Location, culprit

if TYPE_CHECKING:
    import duckdb

QUERY = "_perennial_query"
_MEMORY_SHARE = 0.6
"""Of the step's memory that DuckDB may hold; the rest is for Arrow, Delta and Python."""
_LINE = re.compile(r"\n+LINE (\d+): ")
_FILE = re.compile(r"^\s*file = (.+)$", re.MULTILINE)
_VALUE = re.compile(r"""(?:string|value) (["']).*\1""")


@contextmanager
def open_duckdb(resources: StepResources) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database in memory, that spills to a private temporary folder what does not fit."""
    import duckdb

    with tempfile.TemporaryDirectory(prefix="perennial-ingest-") as spill:
        connection = duckdb.connect(
            config={
                "memory_limit": f"{int(resources.memory * _MEMORY_SHARE) // 2**20}MiB",
                "threads": max(1, ceil(resources.cpu)),
                "temp_directory": spill,
                "autoinstall_known_extensions": False,  # a step never downloads code
                "autoload_known_extensions": False,
                "python_enable_replacements": False,  # a query sees the sources, not this process's variables
            }
        )
        try:
            connection.execute("SET TimeZone = 'UTC'")  # an extension's: unknown before the connection is there
            yield connection
        finally:
            connection.close()


def define_query(connection: duckdb.DuckDBPyConnection, pipeline: Pipeline) -> None:
    """Make the pipeline's query, or its only source, the view `QUERY`. Reads nothing but what types need.

    Raises:
        SpecError: not one SELECT, or wrong SQL (with file and line).
    """
    import duckdb

    if pipeline.query_file is None:
        (source,) = pipeline.spec.data.sources
        connection.execute(f'CREATE TEMP VIEW {QUERY} AS SELECT * FROM "{source}"')
        return
    select, line = parse_query(pipeline.query_file)
    try:
        connection.execute(f"CREATE TEMP VIEW {QUERY} AS {select}")
    except duckdb.Error as error:
        raise _sql_error(error, str(pipeline.query_file), line, pipeline) from None


def parse_query(file: Path) -> tuple[str, int]:
    """The query without its semicolon, and the line it starts on, from 0.

    Raises:
        SpecError: not exactly one SELECT, or not SQL.
    """
    return _one_select(file.read_text(encoding="utf-8"), str(file))


def columns_of(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """DuckDB types of a table's or view's columns, by name, in order."""
    rows = connection.execute(f'DESCRIBE "{table}"').fetchall()
    return {str(row[0]): str(row[1]) for row in rows}


@contextmanager
def query_errors(
    connection: duckdb.DuckDBPyConnection, pipeline: Pipeline, locations: tuple[Location, ...]
) -> Iterator[None]:
    """Errors of running the query, as errors for its author.

    Raises:
        SourceError: a file cannot be read to its end.
        BatchError: the data does not fit the query, for example a cast that fails.
        PlatformError: not enough memory or disk.
    """
    import duckdb

    where = str(pipeline.query_file or pipeline.folder)
    memory = pipeline.spec.step_resources("ingest").memory
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise PlatformError(
            f"the query does not fit into memory and temporary disk: {_first_line(error)}",
            where=where,
            expected=f"at most {memory // 2**20} MiB for the step",
            next="give it more with resources.ingest.memory, free the temporary disk, or select fewer columns",
        ) from None
    except duckdb.Error as error:
        if unreadable := culprit(connection, locations):
            raise unreadable from None
        raise BatchError(
            f"the query fails on this data: {hidden(_reason(error, pipeline), locations)}",
            where=where,
            next="mend the data, or the query (TRY_CAST makes what does not fit null)",
        ) from None


def hidden(text: str, locations: tuple[Location, ...]) -> str:
    """`text` without what the environment gave to the locations."""
    for location in locations:
        text = location.hide(text)
    return text


def _one_select(text: str, where: str) -> tuple[str, int]:
    import duckdb

    expected = "exactly one SELECT"
    try:
        statements = duckdb.extract_statements(text)
    except duckdb.Error as error:
        raise _sql_error(error, where, 0, None) from None
    if len(statements) != 1:
        raise SpecError(
            f"the query has {len(statements)} statements" if statements else "the query is empty",
            where=where,
            expected=expected,
        )
    if statements[0].type != duckdb.StatementType.SELECT:
        raise SpecError(f"the query is no SELECT but {statements[0].type.name}", where=where, expected=expected)
    select = str(statements[0].query)
    start = text.find(select[:20])
    return select.rstrip().rstrip(";"), text[: max(start, 0)].count("\n")


def _sql_error(error: Exception, where: str, line: int, pipeline: Pipeline | None) -> SpecError:
    text = str(error)
    at = _LINE.search(text)
    number = line + int(at[1]) if at else None
    sources = f"sources: {', '.join(sorted(pipeline.spec.data.sources))}" if pipeline else ""
    return SpecError(
        text[: at.start()].strip() if at else text.strip(),
        where=f"{where}:{number}" if number else where,
        expected=f"one DuckDB SELECT over the {sources}" if sources else "one DuckDB SELECT",
        next="mend the query, then run: perennial check",
    )


def _reason(error: Exception, pipeline: Pipeline) -> str:
    """What DuckDB says, without its advice, and without values where the spec redacts some: messages are stored too."""
    text = str(error)
    lines = [line for line in text.split("\n\n", maxsplit=1)[0].splitlines() if not line.startswith("Original Line")]
    file = _FILE.search(text)
    reason = " ".join(lines) + (f" (in {file[1]})" if file else "")
    return _VALUE.sub("a value", reason) if pipeline.spec.data.redact else reason


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0].strip()

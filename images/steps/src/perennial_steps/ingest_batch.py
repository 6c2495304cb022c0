"""The batch: the query's rows in DuckDB, cleaned, checked, and known by what each partition holds."""

# ruff: noqa: S608 (what is put into SQL are identifiers, quoted, and digests of the spec)

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from perennial_spec.errors import BatchError
from perennial_spec.load import Pipeline
from perennial_spec.model import MAX_GRADE
from perennial_spec.units import format_duration
from perennial_steps.ingest_columns import KEY_TABLE, Layout, quoted
from perennial_steps.ingest_query import QUERY, columns_of
from perennial_steps.sources.location import line_of
from perennial_steps.table import PARTITION, Partition

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger(__name__)

BATCH = "_perennial_batch"
_MAX_DUPLICATES = 0.5
"""Above this share of repeated rows, `entity` is no key but a mistake in the spec."""
_MIN_UNLABELLED = 20
"""A partition with fewer rows may lack labels by chance."""
_ROWS_PER_BATCH = 100_000


@dataclass(frozen=True)
class Cleaned:
    """What cleaning took away."""

    duplicates: int = 0
    """Rows of an entity that has a newer one."""


@dataclass(frozen=True)
class Batch:
    """All rows of the query, in the table `BATCH` of a DuckDB connection."""

    connection: duckdb.DuckDBPyConnection = field(repr=False)
    pipeline: Pipeline
    cleaned: Cleaned

    @property
    def types(self) -> dict[str, str]:
        """DuckDB types by column, without the partition's."""
        kinds = columns_of(self.connection, BATCH)
        return {name: _short(kind) for name, kind in kinds.items() if name != PARTITION}

    def all_null(self, column: str) -> bool:
        return _value(self.connection, f"SELECT count({quoted(column)}) = 0 FROM {BATCH}") is True

    def cast(self, column: str, kind: str) -> None:
        """Change the type of a column; every value must fit."""
        self.connection.execute(f"ALTER TABLE {BATCH} ALTER {quoted(column)} TYPE {kind}")

    def partitions(self) -> dict[str, Partition]:
        """What each partition holds, by name, oldest first."""
        return digests(self.connection, BATCH, self.types, self.pipeline.spec.data.timestamp)

    def rows(self, partition: str | None) -> Any:
        """The rows of one partition, or of all, as a stream of Arrow record batches in the order of time."""
        data = self.pipeline.spec.data
        condition, parameters = ("true", []) if partition is None else (f"{PARTITION} = ?", [partition])
        order = f"{PARTITION}, {quoted(data.timestamp)}, {quoted(data.entity)}"
        select = f"SELECT * FROM {BATCH} WHERE {condition} ORDER BY {order}"
        return self.connection.sql(select, params=parameters).to_arrow_reader(_ROWS_PER_BATCH)


def read_batch(
    connection: duckdb.DuckDBPyConnection, pipeline: Pipeline, layout: Layout, pads: tuple[bytes, bytes] | None
) -> Batch:
    """Run the query and clean its rows: redacted before they are kept, one row per entity, each with a timestamp.

    Raises:
        BatchError: no rows, no labels, labels that are none, or an entity that is no key.
    """
    if pads:
        # As parameters: SQL text shows up in error messages.
        connection.execute(f"CREATE TEMP TABLE {KEY_TABLE} AS SELECT ?::BLOB AS inner_pad, ?::BLOB AS outer_pad", pads)
    connection.execute(f"CREATE TEMP TABLE {BATCH} AS {layout.select(QUERY, pads is not None)}")
    if pads:
        connection.execute(f"DROP TABLE {KEY_TABLE}")
    seen = _look(connection, pipeline)
    _need_rows(pipeline, seen)
    cleaned = Cleaned(seen["rows"] - seen["entities"])
    _clean(connection, pipeline, cleaned)
    _need_labels(connection, pipeline)
    label = pipeline.spec.data.label.column
    if layout.types[label] == "DOUBLE" and pipeline.spec.model.kind == "xgboost.classifier":
        connection.execute(f"ALTER TABLE {BATCH} ALTER {quoted(label)} TYPE BIGINT")
    return Batch(connection, pipeline, cleaned)


def digests(
    connection: duckdb.DuckDBPyConnection, table: str, columns: Mapping[str, str], timestamp: str
) -> dict[str, Partition]:
    """What each partition of a table or view in DuckDB holds. The sum of the rows' hashes does not depend on their order.

    Args:
        columns: what the digest covers, in any order.
    """
    listed = ", ".join(f"{quoted(name)}::{columns[name]}" for name in sorted(columns))
    moment = quoted(timestamp)
    rows = connection.execute(
        f"""SELECT {PARTITION}, count(*), sum(hash({listed})::HUGEINT)::VARCHAR,
        epoch_us(min({moment})), epoch_us(max({moment})) FROM {table} GROUP BY 1 ORDER BY 1"""
    ).fetchall()
    return {name: Partition(count, digest, _iso(first), _iso(last)) for name, count, digest, first, last in rows}


def _look(connection: duckdb.DuckDBPyConnection, pipeline: Pipeline) -> dict[str, int]:
    data = pipeline.spec.data
    entity, moment, label = quoted(data.entity), quoted(data.timestamp), quoted(data.label.column)
    names = ("rows", "dated", "keyed", "entities", "labelled")
    row = connection.execute(
        f"""SELECT count(*), count({moment}), count({entity}), count(DISTINCT {entity}), count({label}) FROM {BATCH}"""
    ).fetchone()
    return dict(zip(names, row or (0,) * len(names), strict=True))


def _need_rows(pipeline: Pipeline, seen: Mapping[str, int]) -> None:
    data, where = pipeline.spec.data, str(pipeline.query_file or pipeline.folder)
    if seen["rows"] == 0:
        raise BatchError(
            "the batch is empty: the sources answer, and the query gives no rows",
            where=where,
            next="check the sources' data and the query's conditions",
        )
    if seen["dated"] < seen["rows"]:
        raise BatchError(
            f"data.timestamp: {data.timestamp!r} is null in {seen['rows'] - seen['dated']:,} of {seen['rows']:,} rows",
            where=line_of(pipeline, "data", "timestamp"),
            expected="when each row was known: without it a row belongs to no partition and no window",
            next="mend the source or the cast in the query, or leave such rows out in the query",
        )
    if seen["keyed"] < seen["rows"]:
        raise BatchError(
            f"data.entity: {data.entity!r} is null in {seen['rows'] - seen['keyed']:,} of {seen['rows']:,} rows",
            where=line_of(pipeline, "data", "entity"),
            expected="a key in every row: predictions and late labels are joined on it",
            next="leave such rows out in the query, or choose another key",
        )
    if seen["rows"] - seen["entities"] > _MAX_DUPLICATES * seen["rows"]:
        raise BatchError(
            f"data.entity: {data.entity!r} has {seen['entities']:,} values in {seen['rows']:,} rows: it is no key",
            where=line_of(pipeline, "data", "entity"),
            expected="one row per entity (a few repeated ones are cleaned: the newest stays)",
            next="name the column that tells rows apart, or make one in the query, as in: concat_ws('-', carrier, flight, day)",
        )
    if seen["labelled"] == 0:
        raise BatchError(
            f"data.label: {data.label.column!r} is null in all {seen['rows']:,} rows",
            where=line_of(pipeline, "data", "label", "column"),
            expected="labels for rows older than data.label.arrives_after",
            next="mend the source, or the query that makes the label",
        )


def _clean(connection: duckdb.DuckDBPyConnection, pipeline: Pipeline, cleaned: Cleaned) -> None:
    entity, moment = quoted(pipeline.spec.data.entity), quoted(pipeline.spec.data.timestamp)
    if cleaned.duplicates:
        # Rows of one entity and one time differ in something else: any choice will do, as long as it is always the same.
        connection.execute(
            f"""CREATE TEMP TABLE _perennial_clean AS SELECT * FROM {BATCH} b
            QUALIFY row_number() OVER (PARTITION BY {entity} ORDER BY {moment} DESC, hash(b)) = 1"""
        )
        connection.execute(f"DROP TABLE {BATCH}")
        connection.execute(f"ALTER TABLE _perennial_clean RENAME TO {BATCH}")
        log.warning("%d rows repeat an entity; the newest of each is kept", cleaned.duplicates)


def _need_labels(connection: duckdb.DuckDBPyConnection, pipeline: Pipeline) -> None:
    data = pipeline.spec.data
    label, moment = quoted(data.label.column), quoted(data.timestamp)
    if pipeline.spec.model.kind == "xgboost.classifier":
        bad = connection.execute(
            f"SELECT count(*), min({label}) FROM {BATCH} WHERE {label} IS NOT NULL AND {label} NOT IN (0, 1)"
        ).fetchone()
        if bad and bad[0]:
            raise BatchError(
                f"data.label: {data.label.column!r} is neither 0 nor 1 in {bad[0]:,} rows, for example {bad[1]:g}",
                where=line_of(pipeline, "data", "label", "column"),
                expected=f"a boolean, or 0 and 1, for a {pipeline.spec.model.kind}",
                next="make it so in the query, as in: (delay > 15) AS late; or choose xgboost.regressor",
            )
    if pipeline.spec.model.kind == "xgboost.ranker":
        _need_grades(connection, pipeline)
    late = (datetime.now(UTC) - data.label.arrives_after).isoformat()
    row = connection.execute(
        f"""SELECT {PARTITION}, count(*) FROM {BATCH} GROUP BY 1
        HAVING count({label}) = 0 AND count(*) >= {_MIN_UNLABELLED} AND max({moment}) < ?::TIMESTAMPTZ ORDER BY 1 LIMIT 1""",
        [late],
    ).fetchone()
    if row:
        raise BatchError(
            f"data.label: {data.label.column!r} is null in all {row[1]:,} rows of {row[0]}",
            where=line_of(pipeline, "data", "label", "column"),
            expected=f"labels at most {format_duration(data.label.arrives_after)} after the timestamp (data.label.arrives_after)",
            next="land the labels, or state how late they really are",
        )


def _need_grades(connection: duckdb.DuckDBPyConnection, pipeline: Pipeline) -> None:
    data, label = pipeline.spec.data, quoted(pipeline.spec.data.label.column)
    bad = connection.execute(
        f"SELECT count(*), min({label}) FROM {BATCH} WHERE NOT ({label} BETWEEN 0 AND {MAX_GRADE} AND {label} = floor({label}))"
    ).fetchone()
    if bad and bad[0]:
        raise BatchError(
            f"data.label: {data.label.column!r} is no grade of relevance in {bad[0]:,} rows, for example {bad[1]:g}",
            where=line_of(pipeline, "data", "label", "column"),
            expected=f"whole numbers from 0 to {MAX_GRADE}, or a boolean, for a {pipeline.spec.model.kind}",
            next="make grades of it in the query, as in: CASE WHEN bought THEN 2 WHEN clicked THEN 1 ELSE 0 END",
        )


def _value(connection: duckdb.DuckDBPyConnection, select: str) -> Any:
    row = connection.execute(select).fetchone()
    return row[0] if row else None


def _short(kind: str) -> str:
    return "TIMESTAMPTZ" if kind == "TIMESTAMP WITH TIME ZONE" else kind


def _iso(microseconds: int) -> str:
    moment = datetime.fromtimestamp(microseconds / 1e6, UTC)
    return moment.isoformat(timespec="seconds")

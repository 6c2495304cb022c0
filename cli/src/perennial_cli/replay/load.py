"""The rows of a replay: the pipeline's own query over data that the platform has not seen yet."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from perennial_cli.replay.plan import Event, Plan
from perennial_spec.errors import SourceError
from perennial_spec.load import Pipeline
from perennial_steps.ingest_query import QUERY, define_query, open_duckdb, query_errors
from perennial_steps.sources import attach, locate


def load_plan(
    pipeline: Pipeline, lake: Path, *, start: datetime, end: datetime, per_second: timedelta, batch: int = 10
) -> Plan:
    """What is to be sent, and when. Errors as `load_events`."""
    events = load_events(pipeline, lake, start=start, end=end)
    delay = pipeline.spec.data.label.arrives_after
    return Plan(tuple(events), start, end, per_second, delay, batch)


def load_events(pipeline: Pipeline, lake: Path, *, start: datetime, end: datetime) -> list[Event]:
    """The rows whose timestamp is in [start, end), in its order, with `${PERENNIAL_LAKE}` taken to be `lake`.

    Raises:
        SourceError: a source does not answer, or there is no such row.
        SpecError: the query is wrong.
    """
    data = pipeline.spec.data
    environment = os.environ | {"PERENNIAL_LAKE": str(lake)}
    resources = pipeline.spec.step_resources("ingest")
    locations = locate(pipeline, environment)
    with open_duckdb(resources) as connection, query_errors(connection, pipeline, locations):
        for location in locations:
            attach(connection, location)
        define_query(connection, pipeline)
        relation = connection.execute(
            f'SELECT * FROM {QUERY} WHERE "{data.timestamp}" >= ? AND "{data.timestamp}" < ? ORDER BY "{data.timestamp}"',  # noqa: S608
            [start.replace(tzinfo=None), end.replace(tzinfo=None)],
        )
        names = [column[0] for column in relation.description or ()]
        rows = relation.fetchall()
    if not rows:
        raise SourceError(
            f"no rows from {start:%Y-%m-%d} to {end:%Y-%m-%d}",
            where=str(lake),
            expected="later data than the model was trained on",
            next="look at --from, --to and --lake",
        )
    hidden = {data.label.column, *data.exclude, *data.sensitive, *data.redact}
    return [_event(dict(zip(names, row, strict=True)), pipeline, hidden) for row in rows]


def _event(row: dict[str, Any], pipeline: Pipeline, hidden: set[str]) -> Event:
    data = pipeline.spec.data
    label = row[data.label.column]
    return Event(
        at=row[data.timestamp].replace(tzinfo=UTC),
        entity=str(row[data.entity]),
        inputs={name: _json(value) for name, value in row.items() if name not in hidden},
        label=None if label is None else float(label),
    )


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC).isoformat()
    return value.isoformat() if isinstance(value, date) else value

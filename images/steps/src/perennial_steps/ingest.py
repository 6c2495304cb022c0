"""The step `ingest`: sources -> query -> cleaned partitions -> new versions of the pipeline's Delta table.

Each partition that is new or has changed lands as one version. Nothing new lands nothing and gives the same version. The commit is the
last thing that happens: ended before it, at whatever point, the table is as it was.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from perennial_spec.load import Pipeline
from perennial_spec.platform import Platform
from perennial_steps import sources, table
from perennial_steps.context import Outcome, StepContext
from perennial_steps.ingest_columns import REDACT_KEY, hmac_pads, lay_out, redacts
from perennial_steps.progress import phase
from perennial_steps.sources.location import Location

if TYPE_CHECKING:
    import duckdb

    from perennial_steps.ingest_batch import Cleaned
    from perennial_steps.ingest_landing import Facts, Landed

log = logging.getLogger(__name__)

_FORMAT = 1
"""Of what is stored: raised when the same query and spec give other rows than before."""
_NAMED = 40
"""So many landed partitions are named in the result, which has 4,096 bytes; the others are counted."""


def run(context: StepContext) -> Outcome:
    """Land what is new.

    Raises:
        SourceError: a source does not answer, has no files, or has one that cannot be read.
        SpecError: the query is wrong, or a secret is missing.
        BatchError: rows that must not be used.
        PlatformError: the store is full or away.
    """
    from perennial_steps.ingest_landing import Facts, Landed

    pipeline = context.pipeline
    uri = context.platform.table(pipeline.name, "data")
    environment = environment_of(context.platform)
    locations = sources.locate(pipeline, environment)
    pads = hmac_pads(environment.get(REDACT_KEY, "")) if redacts(pipeline.spec.data) else None
    definition = _definition(pipeline, pads)
    facts = Facts(definition, _layout(pipeline), _sources_state(definition, locations))
    state = table.read_state(uri)
    if _is_landed(state, facts) and state.ledger:
        log.info("no source has changed since version %d", state.version)
        return _outcome(uri, Landed(state.version, state.ledger.partitions), None)
    landed, cleaned = _land(pipeline, locations, pads, uri, facts)
    return _outcome(uri, landed, cleaned)


def environment_of(platform: Platform) -> Mapping[str, str]:
    """What `${NAME}` in a source may name: this process's environment and the platform's own variables."""
    return {**os.environ, **platform.to_environment()}


def known_columns(connection: duckdb.DuckDBPyConnection, locations: tuple[Location, ...]) -> list[str]:
    """Every column of every source."""
    from perennial_steps.ingest_query import columns_of

    return [name for location in locations for name in columns_of(connection, location.name)]


def _land(
    pipeline: Pipeline, locations: tuple[Location, ...], pads: tuple[bytes, bytes] | None, uri: str, facts: Facts
) -> tuple[Landed, Cleaned]:
    from perennial_steps import ingest_batch, ingest_landing, ingest_query

    resources = pipeline.spec.step_resources("ingest")
    with ingest_query.open_duckdb(resources) as connection:
        for location in locations:
            with phase(log, f"source {location.name}: {location.written}"):
                sources.attach(connection, location)
        ingest_query.define_query(connection, pipeline)
        columns = ingest_query.columns_of(connection, ingest_query.QUERY)
        layout = lay_out(pipeline, columns, known_columns(connection, locations))
        with ingest_query.query_errors(connection, pipeline, locations), phase(log, "query, redaction and cleaning"):
            batch = ingest_batch.read_batch(connection, pipeline, layout, pads)
        return ingest_landing.land(batch, uri, facts), batch.cleaned


def _outcome(uri: str, result: Landed, cleaned: Cleaned | None) -> Outcome:
    rows, first, last = table.totals(result.partitions)
    landed = result.landed
    what = (
        f"landed {_listed(landed)} as version {result.version}"
        if landed
        else f"nothing new since version {result.version}"
    )
    metrics = {"rows": float(rows), "landed_rows": float(sum(result.partitions[name].rows for name in landed))}
    if cleaned:
        metrics["duplicate_rows"] = float(cleaned.duplicates)
    return Outcome(
        summary=f"{what}; the table has {rows:,} rows from {first[:10]} to {last[:10]}",
        outputs={
            "data_uri": uri,
            "data_version": result.version,
            "rows": rows,
            "landed": landed if len(landed) <= _NAMED else [*landed[:_NAMED], f"and {len(landed) - _NAMED} more"],
            "first": first,
            "last": last,
        },
        metrics=metrics,
    )


def _listed(partitions: list[str]) -> str:
    return (
        ", ".join(partitions)
        if len(partitions) <= 6
        else f"{len(partitions)} partitions from {partitions[0]} to {partitions[-1]}"
    )


def _is_landed(state: table.State, facts: Facts) -> bool:
    ledger = state.ledger
    if ledger is None or not state.is_current or ledger.sources is None:
        return False
    return (ledger.sources, ledger.layout) == (facts.sources, facts.layout)


def _definition(pipeline: Pipeline, pads: tuple[bytes, bytes] | None) -> str:
    data = pipeline.spec.data
    parts = {
        "format": _FORMAT,
        "query": pipeline.query_file.read_text(encoding="utf-8") if pipeline.query_file else None,
        "data": data.model_dump(
            mode="json", include={"timestamp", "entity", "label", "exclude", "redact", "partition_by"}
        ),
        "kind": pipeline.spec.model.kind,
        # Another key gives other hashes: known by a digest that does not give it away.
        "key": hashlib.sha256(b"perennial redact key" + pads[0]).hexdigest()[:16] if pads else None,
    }
    return _digest(parts)


def _layout(pipeline: Pipeline) -> str:
    data = pipeline.spec.data
    return f"{data.partition_by[0]} of {data.timestamp}, by {data.entity}"


def _sources_state(definition: str, locations: tuple[Location, ...]) -> str | None:
    states = [sources.state_of(location) for location in locations]
    if None in states:
        return None
    return _digest([definition, [[location.name, state] for location, state in zip(locations, states, strict=True)]])


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

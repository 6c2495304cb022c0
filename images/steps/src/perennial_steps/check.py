"""What stands against a run of a pipeline, found before one is started: `perennial check`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from perennial_spec.errors import PerennialError, nearest
from perennial_spec.load import SPEC_FILE, Pipeline
from perennial_spec.model import SliceGate
from perennial_spec.platform import Platform
from perennial_steps.sources.location import line_of

if TYPE_CHECKING:
    import duckdb

    from perennial_features.code import FeatureCode
    from perennial_steps.ingest_columns import Layout
    from perennial_steps.sources import Location

SAMPLE_ROWS = 500
"""The feature code is tried on so many real rows."""
ALONE_ROWS = 32
"""And on so many of them one by one, as the server asks."""


@dataclass(frozen=True)
class Finding:
    """Something that a person should know before the pipeline runs."""

    level: Literal["error", "warning"]
    """`error`: a run would end with it."""
    where: str
    """`file:line`."""
    what: str
    expected: str = ""
    next: str = ""

    @classmethod
    def of(cls, error: PerennialError) -> Finding:
        return cls("error", error.where, error.what, error.expected, error.next)

    def __str__(self) -> str:
        return str(PerennialError(self.what, where=self.where, expected=self.expected, next=self.next))


def check_pipeline(pipeline: Pipeline, platform: Platform, *, sources: bool) -> list[Finding]:
    """Everything that can be known without training: expectations, query, feature code and, when asked for, the sources.

    Args:
        sources: ask the sources too; then columns are known, and the feature code is tried on real rows.
    """
    found = _canvas(pipeline)
    code, wrong = _code(pipeline)
    found += wrong + _params(pipeline)
    layout, wrong = _with_sources(pipeline, platform, code) if sources else (None, _query(pipeline))
    found += wrong
    columns = layout.types if layout else None
    return found + _expectations(pipeline, columns) + _slices(pipeline, columns)


def _canvas(pipeline: Pipeline) -> list[Finding]:
    if pipeline.spec.canvas is not None:
        return []
    return [
        Finding(
            "warning",
            str(pipeline.folder / SPEC_FILE),
            "there is no canvas: nobody can read what this model is for",
            expected="canvas with background, value_proposition, objectives and the other fields",
            next="write it; flight-delays has an example",
        )
    ]


def _code(pipeline: Pipeline) -> tuple[FeatureCode | None, list[Finding]]:
    from perennial_features.code import load_features

    try:
        return load_features(pipeline.features_file, pipeline.features_function), []
    except PerennialError as error:
        return None, [Finding.of(error)]


def _params(pipeline: Pipeline) -> list[Finding]:
    from perennial_steps.training.fit import check_names

    try:
        check_names(pipeline.spec.model)
    except PerennialError as error:
        return [Finding.of(error)]
    return []


def _query(pipeline: Pipeline) -> list[Finding]:
    from perennial_steps.ingest_query import parse_query

    try:
        if pipeline.query_file:
            parse_query(pipeline.query_file)
    except PerennialError as error:
        return [Finding.of(error)]
    return []


def _expectations(pipeline: Pipeline, columns: Mapping[str, str] | None) -> list[Finding]:
    if not pipeline.spec.expectations:
        return []
    from perennial_steps.validation_gx import problems

    return [Finding.of(error) for error in problems(pipeline, columns)]


def _slices(pipeline: Pipeline, columns: Mapping[str, str] | None) -> list[Finding]:
    found = []
    for number, gate in enumerate(pipeline.spec.evaluation.gates):
        if isinstance(gate, SliceGate) and columns is not None and gate.slice not in columns:
            loc = ("evaluation", "gates", number, "slice")
            found.append(_unknown(pipeline, loc, "a gate names the column", gate.slice, columns))
    return found


def _with_sources(
    pipeline: Pipeline, platform: Platform, code: FeatureCode | None
) -> tuple[Layout | None, list[Finding]]:
    from perennial_steps.ingest_query import open_duckdb

    with open_duckdb(pipeline.spec.step_resources("ingest")) as connection:
        locations, found = _attach(connection, pipeline, platform)
        if found:
            return None, found + _query(pipeline)
        try:
            return _ask(connection, pipeline, locations, code)
        except PerennialError as error:
            return None, [Finding.of(error)]


def _attach(
    connection: duckdb.DuckDBPyConnection, pipeline: Pipeline, platform: Platform
) -> tuple[tuple[Location, ...], list[Finding]]:
    """Every source that answers, and what is wrong with the others."""
    from perennial_steps.sources import attach, locate_one

    environment = {**os.environ, **platform.to_environment()}
    locations, found = [], []
    for name in sorted(pipeline.spec.data.sources):
        try:
            location = locate_one(pipeline, name, environment)
            attach(connection, location, peek=True)
        except PerennialError as error:
            found.append(Finding.of(error))
        else:
            locations.append(location)
    return tuple(locations), found


def _ask(
    connection: duckdb.DuckDBPyConnection, pipeline: Pipeline, locations: tuple[Location, ...], code: FeatureCode | None
) -> tuple[Layout, list[Finding]]:
    from perennial_steps import ingest_query
    from perennial_steps.ingest_columns import KEY_TABLE, REDACT_KEY, hmac_pads, lay_out, redacts

    ingest_query.define_query(connection, pipeline)
    elsewhere = [name for location in locations for name in ingest_query.columns_of(connection, location.name)]
    layout = lay_out(pipeline, ingest_query.columns_of(connection, ingest_query.QUERY), elsewhere)
    found = []
    with_key = redacts(pipeline.spec.data)
    if with_key:
        try:
            hmac_pads(os.environ.get(REDACT_KEY, ""))
        except PerennialError as error:
            found.append(Finding.of(error))
        # Any key will do: nothing of the sample is kept.
        connection.execute(
            f"CREATE TEMP TABLE {KEY_TABLE} AS SELECT ?::BLOB AS inner_pad, ?::BLOB AS outer_pad", [b"i", b"o"]
        )
    with ingest_query.query_errors(connection, pipeline, locations):
        select = f"{layout.select(ingest_query.QUERY, with_key)} LIMIT {SAMPLE_ROWS}"
        sample = connection.sql(select).to_arrow_table()
    if code:
        found += _try(pipeline, code, sample)
    return layout, found


def _try(pipeline: Pipeline, code: FeatureCode, sample: object) -> list[Finding]:
    """Run the feature code on a sample of rows."""
    import pyarrow as pa

    from perennial_features.holdout import spread
    from perennial_features.rowwise import check_row_wise, one_by_one
    from perennial_steps.table import PARTITION
    from perennial_steps.training.dataset import typed

    assert isinstance(sample, pa.Table)
    data = pipeline.spec.data
    if sample.num_rows == 0:
        where = str(pipeline.query_file or line_of(pipeline, "data", "sources"))
        return [Finding("warning", where, "the query gives no rows yet, so the feature code was not tried")]
    hidden = {data.label.column, *data.exclude, *data.sensitive, pipeline.spec.model.group, PARTITION}
    try:
        inputs = {name: typed(sample.column(name), name) for name in sample.column_names if name not in hidden}
        features = code.apply(inputs)
        check_row_wise(code, features, one_by_one(inputs, spread(sample.num_rows, ALONE_ROWS)))
    except PerennialError as error:
        return [Finding.of(error)]
    found = []
    for number, name in enumerate(pipeline.spec.monitoring.drift.ignore):
        if name not in features:
            loc = ("monitoring", "drift", "ignore", number)
            found.append(_unknown(pipeline, loc, "monitoring.drift.ignore names the feature", name, features))
    return found


def _unknown(
    pipeline: Pipeline, loc: tuple[int | str, ...], what: str, name: str, known: Mapping[str, object]
) -> Finding:
    guess = nearest(name, known)
    return Finding(
        "error",
        line_of(pipeline, *loc),
        f"{what} {name!r}, which there is not" + (f"; did you mean {guess!r}?" if guess else ""),
        expected=f"one of {', '.join(known)}",
        next="mend the name",
    )

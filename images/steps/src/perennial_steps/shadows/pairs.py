"""Rows that champion and shadow have both answered, out of the prediction log; within the memory of the step, however many they are."""

# ruff: noqa: S608 (what is put into SQL are names of our own, and numbers)

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perennial_steps.analysis import Histogram
from perennial_steps.context import StepContext
from perennial_steps.experiments.logs import opened
from perennial_steps.shadows.agreement import Agreement

if TYPE_CHECKING:
    import duckdb

TENTHS = 10
_PAIRS = """
    CREATE TEMP VIEW pairs AS
    SELECT prediction_id, theirs.entity, theirs.at, theirs.score AS champion, ours.score AS challenger, theirs.inputs
    FROM predictions AS theirs JOIN predictions AS ours USING (prediction_id)
    WHERE NOT theirs.shadow AND ours.shadow AND theirs.version = getvariable('champion') AND ours.version = getvariable('challenger')
      AND theirs.at >= getvariable('since') AND ours.at >= getvariable('since')
      AND theirs.score IS NOT NULL AND ours.score IS NOT NULL
"""


def compare_pairs(context: StepContext, champion: str, challenger: str, since: datetime) -> Agreement:
    """How far apart the two are on what both have answered since a moment.

    Raises:
        PlatformError: the store does not answer.
    """
    same = _same(context)
    with opened(context.pipeline, context.platform, "compare") as connection:
        _define(connection, champion, challenger, since)
        rows, agreeing, difference = _one(
            connection,
            f"SELECT count(*), count(*) FILTER (WHERE {same}), avg(abs(challenger - champion)) "
            "FROM pairs, (SELECT stddev_pop(champion) AS spread FROM pairs)",
        )
        if not rows:
            return Agreement()
        return Agreement(int(rows), int(agreeing), float(difference), _histogram(connection))


def write_disagreements(context: StepContext, champion: str, challenger: str, since: datetime, file: Path) -> None:
    """The rows on which the two are furthest apart, the worst first, as CSV: with their inputs, as far as the log may hold them.

    Raises:
        PlatformError: the store does not answer.
    """
    count = context.pipeline.spec.deployment.shadow.disagreements
    file.parent.mkdir(parents=True, exist_ok=True)
    with opened(context.pipeline, context.platform, "compare") as connection:
        _define(connection, champion, challenger, since)
        connection.sql(
            'SELECT prediction_id, entity, "at", champion, challenger, abs(challenger - champion) AS difference, inputs '
            f"FROM pairs ORDER BY difference DESC, prediction_id LIMIT {count:d}"
        ).write_csv(str(file))


def _define(connection: duckdb.DuckDBPyConnection, champion: str, challenger: str, since: datetime) -> None:
    for name, value in (("champion", champion), ("challenger", challenger), ("since", since)):
        connection.execute(f"SET VARIABLE {name} = ?", [value])
    connection.execute(_PAIRS)


def _same(context: StepContext) -> str:
    if context.pipeline.spec.model.kind == "xgboost.classifier":
        return "(challenger >= 0.5) = (champion >= 0.5)"
    return "abs(challenger - champion) < 0.1 * spread"


def _histogram(connection: duckdb.DuckDBPyConnection) -> Histogram:
    """The challenger's answers by the champion's tenths; tenths that fall on one value are one bin."""
    places = ", ".join(f"{place / TENTHS:g}" for place in range(1, TENTHS))
    (cuts,) = _one(connection, f"SELECT list_sort(list_distinct(quantile_cont(champion, [{places}]))) FROM pairs")
    counts = {}
    for column in ("champion", "challenger"):
        bin_ = " + ".join(f"({column} > {float(cut)!r})::INTEGER" for cut in cuts)
        found = connection.execute(f"SELECT {bin_} AS bin, count(*) FROM pairs GROUP BY bin").fetchall()
        counts[column] = {str(number): float(count) for number, count in found}
    total = sum(counts["champion"].values())
    reference = {name: count / total for name, count in counts["champion"].items()}
    return Histogram(counts["challenger"], reference, total)


def _one(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    found: tuple[Any, ...] | None = connection.execute(query).fetchone()
    assert found is not None  # an aggregate has a row
    return found

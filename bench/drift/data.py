"""Windows of flights: as they are, shuffled; moved by a known amount; and of other months than the reference.

The reference is 50,000 flights, and windows are drawn from the flights that are not in it, so that a quiet window is as like the reference
as chance allows. The seasonal windows have a reference of their own: January and February.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perennial_cli.demo.world import World
from perennial_features.code import load_features
from perennial_spec.load import load_pipeline

ROOT = Path(__file__).parents[2]
REFERENCE_ROWS = 50_000
Columns = dict[str, np.ndarray[Any, Any]]
Change = Callable[[Columns, np.random.Generator], Columns]


@dataclass(frozen=True)
class Case:
    """Windows of one kind and size."""

    kind: str
    """What has moved; `quiet` if nothing."""
    grade: str
    rows: int
    """Of each window."""
    windows: tuple[Columns, ...]
    seasonal: bool = False
    """Against January and February, not against flights of the whole year."""

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.grade}-{self.rows}".replace("%", "")


@dataclass(frozen=True)
class Flights:
    """The features of a year of flights, and the month of each."""

    columns: Columns
    months: np.ndarray[Any, Any]


def flights() -> Flights:
    """What the pipeline `flight-delays` makes of the real data: its query, its feature code."""
    import duckdb

    pipeline = load_pipeline(ROOT / "dags" / "pipelines" / "flight-delays")
    assert pipeline.query_file is not None
    with tempfile.TemporaryDirectory(prefix="perennial-bench-") as folder, duckdb.connect() as connection:
        world = World(Path(folder) / "year", Path(folder) / "lake")
        world.prepare()
        world.deliver(range(1, 13))
        for source, files in (("flights", "flights/*"), ("weather", "weather/*"), ("planes", "planes")):
            connection.execute(f"CREATE TABLE {source} AS FROM '{world.lake}/{files}.parquet'")
        query = pipeline.query_file.read_text()
        table = connection.sql(f"SELECT * FROM ({query}) ORDER BY flight_id").df()
    inputs: Columns = {name: _plain(values.to_numpy()) for name, values in table.items()}
    code = load_features(pipeline.features_file, pipeline.features_function)
    months = inputs["scheduled_departure"].astype("datetime64[M]").astype(int) % 12 + 1
    return Flights({name: np.asarray(values) for name, values in code.apply(inputs).items()}, months)


def _plain(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if values.dtype.kind == "M":
        return values.astype("datetime64[us]")
    if values.dtype.kind != "O":
        return values
    return np.array([value if isinstance(value, str) else None for value in values], dtype=object)


def cases(year: Flights, quiet: int, moved: int) -> tuple[Columns, Columns, Iterator[Case]]:
    """The reference, the winter's reference, and all cases.

    Args:
        quiet: windows of each size in which nothing has moved.
        moved: windows of each size and grade in which something has.
    """
    rng = np.random.default_rng(2013)
    order = rng.permutation(len(year.months))
    reference, rest = order[:REFERENCE_ROWS], order[REFERENCE_ROWS:]
    winter = rng.permutation(np.flatnonzero(year.months <= 2))[:REFERENCE_ROWS]
    return _take(year.columns, reference), _take(year.columns, winter), _cases(year, rest, quiet, moved, rng)


SIZES = (200, 500, 1_000, 2_000, 5_000, 10_000)
QUIET_SIZES = (200, 1_000, 10_000)


def _cases(
    year: Flights, rest: np.ndarray[Any, Any], quiet: int, moved: int, rng: np.random.Generator
) -> Iterator[Case]:
    for rows in SIZES:
        count = quiet if rows in QUIET_SIZES else quiet // 10
        yield Case("quiet", "-", rows, tuple(_draw(year, rest, rows, rng) for _ in range(count)))
        for kind, grade, change in _changes(_take(year.columns, rest)):
            windows = tuple(change(_draw(year, rest, rows, rng), rng) for _ in range(moved))
            yield Case(kind, grade, rows, windows)
    for month in range(3, 13):
        places = np.flatnonzero(year.months == month)
        yield Case(
            "month", f"{month:02}", 1_000, tuple(_draw(year, places, 1_000, rng) for _ in range(moved)), seasonal=True
        )


def _changes(population: Columns) -> Iterator[tuple[str, str, Change]]:
    spread = float(np.nanstd(population["temperature_f"]))
    for grade in (0.1, 0.25, 0.5, 1.0):
        yield "shift", f"{grade} sd", _shifted("temperature_f", grade * spread)
    for share in (0.05, 0.1, 0.2, 0.4):
        yield "category", f"{share:.0%}", _replaced("carrier", "UA", share)
    for share in (0.01, 0.02, 0.05, 0.1):
        yield "missing", f"{share:.0%}", _replaced("planned_minutes", np.nan, share)
    for share in (0.01, 0.02, 0.05, 0.1):
        yield "unseen", f"{share:.0%}", _replaced("carrier", "ZZ", share)


def _shifted(feature: str, by: float) -> Change:
    return lambda columns, _: {**columns, feature: columns[feature] + by}


def _replaced(feature: str, value: object, share: float) -> Change:
    def change(columns: Columns, rng: np.random.Generator) -> Columns:
        values = columns[feature]
        values = values.copy() if values.dtype == object else values.astype(np.float64)
        values[rng.random(len(values)) < share] = value
        return {**columns, feature: values}

    return change


def _draw(year: Flights, places: np.ndarray[Any, Any], rows: int, rng: np.random.Generator) -> Columns:
    return _take(year.columns, rng.choice(places, rows, replace=False))


def _take(columns: Columns, places: np.ndarray[Any, Any]) -> Columns:
    return {name: values[places] for name, values in columns.items()}

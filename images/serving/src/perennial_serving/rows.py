"""What every protocol is parsed into: named columns of plain values, all of one length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from perennial_features.code import Array
from perennial_serving.refusals import NotParsed, TooLarge
from perennial_spec.errors import RequestError


@dataclass(frozen=True)
class Rows:
    """A request's rows, by column. Values are as JSON has them, or arrays of numbers: nothing is typed yet."""

    columns: Mapping[str, Any]
    """Lists, or arrays of one dimension."""
    count: int

    def column(self, name: str) -> Sequence[Any] | None:
        """Plain values, whatever the column came as."""
        values = self.columns.get(name)
        return values.tolist() if isinstance(values, np.ndarray) else values

    def take(self, places: Sequence[int]) -> Rows:
        """The rows at `places`."""
        return Rows({name: _taken(values, places) for name, values in self.columns.items()}, len(places))


def _taken(values: Sequence[Any] | Array, places: Sequence[int]) -> Sequence[Any] | Array:
    return values[places] if isinstance(values, np.ndarray) else [values[i] for i in places]


def rows_of(columns: Mapping[str, Any], max_rows: int) -> Rows:
    """Rows from a mapping of lists or arrays.

    Raises:
        RequestError: the lists differ in length, or are empty; names a column.
        TooLarge: more than `max_rows`.
    """
    if not columns:
        raise RequestError("the request has no columns", expected="one or more named columns")
    first, count = next(iter(columns)), len(next(iter(columns.values())))
    for name, values in columns.items():
        if len(values) != count:
            raise RequestError(
                f"has {len(values)} values, and {show(first)} has {count}",
                where=f"column {show(name)}",
                expected="one value per row in every column",
            )
    if not count:
        raise RequestError("the request has no rows", expected="one or more rows")
    check_count(count, max_rows)
    return Rows(columns, count)


def rows_of_records(records: Sequence[Any], max_rows: int, where: str) -> Rows:
    """Rows from a list of objects; a key that one of them lacks is null in it.

    Raises:
        RequestError: not a list of objects.
        TooLarge: more than `max_rows`.
    """
    check_count(len(records), max_rows)
    for row, record in enumerate(records):
        if not isinstance(record, dict):
            raise RequestError(
                f"got {kind_of(record)}", where=f"{where}[{row}]", expected="an object with one value per column"
            )
    names = dict.fromkeys(name for record in records for name in record)
    return rows_of({name: [record.get(name) for record in records] for name in names}, max_rows)


def check_count(count: int, max_rows: int) -> None:
    """Refuse more than `max_rows` before work is done on them."""
    if count > max_rows:
        raise TooLarge(f"the request has {count:,} rows", expected=f"at most {max_rows:,}", next="send it in parts")


def json_object(body: bytes | memoryview) -> dict[str, Any]:
    """The JSON object in `body`.

    Raises:
        NotParsed: it is not JSON, or not an object.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NotParsed(f"the body is not JSON: {error}", expected="a JSON object in UTF-8") from None
    if not isinstance(value, dict):
        raise NotParsed(f"the body is {kind_of(value)}", expected="a JSON object")
    return value


def need_list(value: Any, where: str, expected: str) -> list[Any]:
    """`value` if it is a list.

    Raises:
        RequestError: it is not; says what it is.
    """
    if not isinstance(value, list):
        raise RequestError(f"got {kind_of(value)}", where=where, expected=expected)
    return value


def kind_of(value: Any) -> str:
    """What a JSON value is, without its content."""
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")


def show(name: str) -> str:
    """A column's name for a message, bounded."""
    return repr(name if len(name) <= 60 else name[:57] + "...")

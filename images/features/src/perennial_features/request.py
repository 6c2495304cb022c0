"""Untrusted request data to typed columns, as training had them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from perennial_features.code import Array
from perennial_features.schema import FeatureSchema, InputColumn
from perennial_spec.errors import RequestError, nearest

MAX_ROWS = 100_000

Records = Sequence[Mapping[str, Any]]
Lists = Mapping[str, Sequence[Any]] | Mapping[str, Array]

_EXPECTED = {
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "text": "text",
    "timestamp": "an ISO 8601 timestamp such as 2013-06-01T05:15:00Z",
}


def columns_from_rows(data: Records | Lists, schema: FeatureSchema, max_rows: int = MAX_ROWS) -> dict[str, Array]:
    """Typed columns from a list of records or a mapping of lists (or numpy arrays).

    Values that are plainly meant are converted (`"12"` is 12.0, ISO text is a timestamp in UTC). `null` and NaN are missing values, and
    turn integers and booleans into float64, as in training. A column may be left out when training saw missing values in it. Columns
    that the model does not know are ignored.

    Raises:
        RequestError: names the column and the row, what was found and what was expected.
    """
    rows = _count(data)
    if rows > max_rows:
        raise RequestError(f"the request has {rows:,} rows", expected=f"at most {max_rows:,}", next="send it in parts")
    take = _from_records if isinstance(data, Sequence) else _from_lists
    return {column.name: _convert(column, take(data, column, rows), rows) for column in schema.inputs}


def _count(data: Any) -> int:
    if isinstance(data, Mapping):
        lengths = {name: _length(name, values) for name, values in data.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name}: {length}" for name, length in list(lengths.items())[:10])
            raise RequestError(f"the columns differ in length ({told})", expected="one value per row in every column")
        rows = next(iter(lengths.values()), 0)
    elif isinstance(data, Sequence) and not isinstance(data, str | bytes):
        for row, record in enumerate(data):
            if not isinstance(record, Mapping):
                raise RequestError(
                    f"got {_show(record)}", where=f"row {row}", expected="an object with one value per column"
                )
        rows = len(data)
    else:
        raise RequestError(f"got {_show(data)}", expected="a list of records, or an object of lists")
    if not rows:
        raise RequestError("the request has no rows", expected="one or more rows")
    return rows


def _length(name: str, values: Any) -> int:
    if isinstance(values, np.ndarray) and values.ndim == 1:
        return len(values)
    if isinstance(values, str | bytes | Mapping | np.ndarray) or not isinstance(values, Sequence):
        raise RequestError(f"got {_show(values)}", where=f"column {name!r}", expected="a list with one value per row")
    return len(values)


_ABSENT = object()


def _from_records(data: Any, column: InputColumn, rows: int) -> list[Any]:
    values = [record.get(column.name, _ABSENT) for record in data]
    if not column.nullable and _ABSENT in values:
        raise _absent(column, data[values.index(_ABSENT)], f"row {values.index(_ABSENT)}")
    return [None if value is _ABSENT else value for value in values]


def _from_lists(data: Any, column: InputColumn, rows: int) -> Any:
    if column.name in data:
        return data[column.name]
    if not column.nullable:
        raise _absent(column, data, "")
    return [None] * rows


def _absent(column: InputColumn, given: Mapping[str, Any], where: str) -> RequestError:
    guess = nearest(column.name, given)
    return RequestError(
        f"column {column.name!r} is missing",
        where=where,
        expected=_EXPECTED[column.kind],
        next=f"did you mean it by {guess!r}?" if guess else "",
    )


def _convert(column: InputColumn, values: Any, rows: int) -> Array:
    fast = _fast(column, values)
    if fast is not None:
        return fast
    if isinstance(values, np.ndarray):
        values = values.tolist() if values.dtype.kind != "M" else values.astype("datetime64[us]").tolist()
    values = [None if isinstance(value, float) and math.isnan(value) else value for value in values]
    holed = column.kind in ("integer", "boolean") and None in values
    found = np.empty(rows, dtype=np.float64 if holed else column.dtype)
    converter = _CONVERTERS[column.kind]
    for row, value in enumerate(values):
        try:
            found[row] = math.nan if holed and value is None else converter(value)
        except (ValueError, TypeError, OverflowError):
            raise RequestError(
                f"column {column.name!r}: got {_show(value)}", where=f"row {row}", expected=_EXPECTED[column.kind]
            ) from None
    return found


def _fast(column: InputColumn, values: Any) -> Array | None:
    """Without a Python loop, where nothing can be wrong; None where each value must be looked at."""
    if isinstance(values, np.ndarray):
        return _fast_array(column, values)
    types = set(map(type, values))
    try:
        return _fast_list(column, values, types)
    except (OverflowError, ValueError):
        return None


def _fast_list(column: InputColumn, values: Sequence[Any], types: set[type]) -> Array | None:
    found: Array | None = None
    if column.kind == "number" and types <= {float, int, type(None)}:
        found = _finite(np.array(values, dtype=np.float64))  # None becomes NaN
    elif column.kind == "integer" and types == {int}:
        found = np.array(values, dtype=np.int64)
    elif column.kind == "timestamp" and types <= {str, type(None)}:
        moments = [None if value is None else _utc(datetime.fromisoformat(value)) for value in values]
        found = np.array(moments, dtype="datetime64[us]")
    elif column.kind == "text" and types <= {str, type(None)}:
        found = np.empty(len(values), dtype=object)
        found[:] = values
    return found


def _fast_array(column: InputColumn, values: Array) -> Array | None:
    kind = values.dtype.kind
    if column.kind == "number" and kind in "fiu":
        return _finite(values.astype(np.float64))
    if kind == column.dtype.kind and column.kind != "text":
        return values.astype(column.dtype)
    if column.kind == "text" and kind == "O" and set(map(type, values.tolist())) <= {str, type(None)}:
        return values
    return None


def _finite(values: Array) -> Array | None:
    return None if np.isinf(values).any() else values


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    if not isinstance(value, int | float | str):
        raise TypeError
    number = float(_plain(value))
    if math.isinf(number):
        raise ValueError
    return number


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    number = int(_plain(value))
    if not isinstance(value, str) and number != value:
        raise ValueError
    return number


def _plain(value: float | str) -> float | str:
    if isinstance(value, str) and "_" in value:  # Python would read "1_000", and no other client means it
        raise ValueError
    return value


_BOOLEANS: dict[Any, bool] = {True: True, False: False, "true": True, "false": False, "True": True, "False": False}


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool | int | float | str) or value not in _BOOLEANS:
        raise ValueError
    return _BOOLEANS[value]  # 0 and 1 equal False and True


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise TypeError


def _timestamp(value: Any) -> np.datetime64:
    if value is None:
        return np.datetime64("NaT", "us")
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(moment, datetime):
        raise TypeError
    return np.datetime64(_utc(moment), "us")


def _utc(moment: datetime) -> datetime:
    """Without a zone; one that has none is in UTC already."""
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "text": _text,
    "timestamp": _timestamp,
}


def _show(value: Any) -> str:
    """A value for an error message, bounded: a request may hold anything."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

"""Feature code is row-wise: a row has the same features alone as in the company of others.

Training computes a million rows at once, and the server rows of different requests together: a mean over the rows would differ in every
one of them, and one client's rows would change another's answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from perennial_features.code import Array, Columns, FeatureCode
from perennial_features.schema import missing
from perennial_spec.errors import FeatureError

RTOL = 1e-6
"""Vectorised arithmetic may treat the last rows of a block otherwise, in the last bits. The model sees float32."""


def check_row_wise(code: FeatureCode, together: Columns, rows: Iterable[tuple[int, Columns]]) -> None:
    """Ask the feature code for a few rows alone.

    Args:
        code: the pipeline's feature code.
        together: the features that it made of all rows at once.
        rows: places in `together`, and the input columns of that row alone, each of length 1.

    Raises:
        FeatureError: a feature has moved, or the code fails on one row; says which feature, and what it was.
    """
    total = len(next(iter(together.values())))
    for row, columns in rows:
        alone = _apply(code, columns, total)
        for name in dict.fromkeys((*together, *alone)):
            if name not in together or name not in alone:
                given = "alone only" if name in alone else f"among {total:,} rows only"
                raise _moved(code, f"feature {name!r} of row {row} is there {given}")
            one, many = alone[name], together[name][row : row + 1]
            if not _same(one, many, together[name]):
                raise _moved(
                    code,
                    f"feature {name!r} of row {row} is {_show(one)} alone and {_show(many)} among {total:,} rows",
                )


def one_by_one(columns: Columns, places: Iterable[int]) -> Iterable[tuple[int, Columns]]:
    """Rows of `columns` at these places, each by itself, as `check_row_wise` takes them."""
    for place in places:
        yield int(place), {name: values[place : place + 1] for name, values in columns.items()}


def _apply(code: FeatureCode, columns: Columns, total: int) -> dict[str, Array]:
    try:
        return code.apply(columns)
    except FeatureError as error:
        raise FeatureError(
            f"the feature code fails on one row alone, and not on {total:,}: {error.what}",
            where=error.where,
            expected=error.expected or "features for any number of rows, 1 among them",
            next=error.next or "the server asks for single rows: do not count on a second one",
        ) from error


def _span(values: Array) -> float:
    """The largest magnitude of a numeric feature: rounding is in proportion to what was added up."""
    if values.dtype.kind not in "fiu" or not len(values):
        return 0.0
    sizes = np.abs(values.astype(np.float64))
    return float(np.max(sizes, where=np.isfinite(sizes), initial=0.0))


def _same(one: Array, many: Array, column: Array) -> bool:
    gone = bool(missing(one)[0]), bool(missing(many)[0])
    if any(gone):
        return all(gone)
    if "O" in (one.dtype.kind, many.dtype.kind):
        return bool(one[0] == many[0])
    value, other = float(one[0]), float(many[0])
    return value == other or bool(np.isclose(value, other, rtol=RTOL, atol=RTOL / 10 * _span(column)))


def _show(values: Array) -> str:
    value: Any = values[0].item() if isinstance(values[0], np.generic) else values[0]
    return f"{value:.6g}" if isinstance(value, float) else repr(value)[:60]


def _moved(code: FeatureCode, what: str) -> FeatureError:
    return FeatureError(
        f"the features of a row depend on the rows around it, or on chance or time: {what}",
        where=code.where,
        expected="the same features for a row alone as among a million: the server answers rows of different requests together",
        next="move means, ranks, counts and differences over rows into the query, where they are columns",
    )

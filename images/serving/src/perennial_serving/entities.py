"""Entities as keys: what rows are assigned to versions by, and what predictions and late labels are joined on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from perennial_serving.rows import Rows, kind_of, show
from perennial_spec.errors import RequestError

MAX_LENGTH = 512


def entity_key(value: Any, where: str) -> str | None:
    """An entity as text, the same whether it came as 7, 7.0 or "7"; None when there is none.

    Raises:
        RequestError: neither text nor a number, or too long; says where.
    """
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RequestError(f"got {kind_of(value)}", where=where, expected="the entity as text or a number")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RequestError(
                "got a number that is not finite", where=where, expected="the entity as text or a number"
            )
        return str(int(value)) if value.is_integer() else repr(value)
    text = str(value)
    if len(text) > MAX_LENGTH:
        raise RequestError(f"has {len(text)} characters", where=where, expected=f"at most {MAX_LENGTH}")
    return text


def entity_keys(rows: Rows, column: str) -> Sequence[str | None]:
    """The entity of each row; none for a model without such a column, which is "".

    Raises:
        RequestError: one of them cannot be a key; names the row.
    """
    values = rows.column(column) if column else None
    if values is None:
        return [None] * rows.count
    plain = values.tolist() if hasattr(values, "tolist") else values
    return [
        value if type(value) is str and 0 < len(value) <= MAX_LENGTH else _key_of_row(value, column, row)
        for row, value in enumerate(plain)
    ]


def _key_of_row(value: Any, column: str, row: int) -> str | None:
    return entity_key(value, f"column {show(column)}, row {row}")

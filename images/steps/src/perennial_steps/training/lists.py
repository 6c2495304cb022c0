"""The lists that a ranker puts in order: rows of one query. They stay whole, however time is cut. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from perennial_spec.errors import BatchError

if TYPE_CHECKING:
    import pyarrow as pa

Integers = np.ndarray[Any, np.dtype[np.int64]]
Moments = np.ndarray[Any, np.dtype[np.datetime64]]


@dataclass(frozen=True)
class Lists:
    """How to put rows so that each list lies together, the lists in the order of their newest row."""

    order: Integers
    """int64[rows]: places in the table."""
    group: Integers
    """int64[rows], in the new order: the number of the list, rising from 0."""
    when: Moments
    """datetime64[us][rows], in the new order: the newest row of the list; rising."""


def lists_of(column: pa.ChunkedArray, when: Moments, name: str) -> Lists:
    """The lists of a table.

    A list belongs to the time of its newest row: what was known only then must not be trained on before.

    Args:
        column: the column that names the list.
        when: datetime64[us][rows], the time of each row.
        name: of the column, for errors.

    Raises:
        BatchError: a row belongs to no list.
    """
    import pyarrow as pa

    values = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    if values.null_count:
        raise BatchError(
            f"model.group is null in {values.null_count:,} of {len(values):,} rows",
            where=f"column {name!r}",
            expected="the list that each row belongs to",
            next="leave such rows out in the query, or give each a list of its own",
        )
    codes: Integers = values.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    newest = np.full(int(codes.max()) + 1, np.iinfo(np.int64).min)
    np.maximum.at(newest, codes, when.astype(np.int64))
    ended = newest[codes]
    order = np.lexsort((when, codes, ended))
    moved = np.diff(codes[order]) != 0
    return Lists(order, np.concatenate([[0], np.cumsum(moved)]), ended[order].astype("datetime64[us]"))


def whole(window: pa.Table, older: pa.ChunkedArray, name: str) -> pa.Table:
    """The rows of `window` whose list does not begin before it.

    Args:
        window: the rows in `data.window`.
        older: the lists of the rows before.

    Raises:
        BatchError: no list lies within the window.
    """
    import pyarrow.compute as pc

    kept = window.filter(pc.invert(pc.is_in(window.column(name), value_set=older.unique().drop_null())))
    if window.num_rows and not kept.num_rows:
        raise BatchError(
            f"every list in the window of {window.num_rows:,} rows begins before it",
            where=f"model.group of pipeline.yaml: {name!r}",
            expected="lists that are short against data.window: the rows of one query",
            next="name the column that tells one query from the next, or lengthen data.window",
        )
    return kept


def need_order(name: str, label: Integers | Any, group: Integers) -> None:
    """Raises:
    BatchError: no list of a part has rows of different grades: nothing can be learned or measured on it.
    """
    if not ((np.diff(group) == 0) & (np.diff(label) != 0)).any():
        raise BatchError(
            f"the {name} part has no list with labels that differ: {len(np.unique(group)):,} lists, {len(label):,} rows",
            where=f"model.split of pipeline.yaml: {name}",
            expected="lists of several rows, some more relevant than others",
            next="look at model.group and at the query that makes the label, or make the part longer",
        )

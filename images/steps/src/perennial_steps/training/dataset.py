"""From a table to what is learned from: which rows, which columns, and how they are divided by time. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from perennial_features.code import Array
from perennial_spec.data import Data
from perennial_spec.errors import BatchError, nearest
from perennial_spec.model import MAX_GRADE, ModelKind, Split
from perennial_spec.units import format_duration
from perennial_steps.training.lists import lists_of, need_order

if TYPE_CHECKING:
    import pyarrow as pa

PARTS = ("train", "validation", "holdout")


@dataclass(frozen=True)
class Part:
    """Rows of a dataset, next to each other in time."""

    name: str
    rows: slice
    first: str
    """ISO timestamp of the first row."""
    last: str

    @property
    def count(self) -> int:
        return int(self.rows.stop - self.rows.start)


@dataclass(frozen=True)
class Parts:
    """A dataset, divided by time: trained on, stopped and tuned by, judged on."""

    train: Part
    validation: Part
    holdout: Part

    @property
    def window(self) -> slice:
        """All rows of all parts."""
        return slice(self.train.rows.start, self.holdout.rows.stop)


@dataclass(frozen=True)
class Dataset:
    """Labelled rows in the order of time."""

    table: pa.Table
    """All columns, for the audit by slices."""
    inputs: dict[str, Array]
    """What a model may see: typed columns without label, excluded and sensitive ones."""
    label: np.ndarray[tuple[int], np.dtype[np.float64]]
    timestamp: np.ndarray[tuple[int], np.dtype[np.datetime64]]
    """datetime64[us] in UTC, rising; of a ranker, when the list of the row ended."""
    group: np.ndarray[tuple[int], np.dtype[np.int64]] | None = None
    """Of a ranker: the number of the list that the row belongs to, rising."""

    def __len__(self) -> int:
        return len(self.label)

    def column(self, name: str) -> Array:
        """One column of the table, typed; of a sensitive one too.

        Raises:
            BatchError: there is none of that name.
        """
        need_columns(self.table.column_names, [name])
        return typed(self.table.column(name), name)

    def group_of(self, rows: slice) -> np.ndarray[Any, np.dtype[np.int64]] | None:
        """The lists of some rows; None unless the model is a ranker."""
        return None if self.group is None else self.group[rows]

    @cached_property
    def span(self) -> str:
        return f"{iso(self.timestamp[0])} to {iso(self.timestamp[-1])}"


def assemble(table: pa.Table, data: Data, kind: ModelKind, group: str | None = None) -> Dataset:
    """The dataset in a table: labelled rows in the order of time, and the columns that a model may see.

    Args:
        table: with the timestamp, label and input columns; rows outside the window are the caller's to leave out.
        group: of a ranker, the column that names the list of a row; lists stay together, each at the time of its newest row.

    Raises:
        BatchError: a column is missing or of a type that no model can use; no rows; no labels, or labels that are none.
    """
    import pyarrow.compute as pc

    need_columns(table.column_names, [data.timestamp, data.label.column, *([group] if group else [])])
    if table.num_rows == 0:
        raise BatchError("the data has no rows", expected="rows within data.window", next="land a batch: perennial run")
    labelled = table.filter(pc.is_valid(table.column(data.label.column)))
    if labelled.num_rows == 0:
        raise BatchError(
            f"none of the {table.num_rows:,} rows has a label",
            where=f"column {data.label.column!r}",
            next=f"labels arrive after {format_duration(data.label.arrives_after)}: wait for them, or look at the query",
        )
    when = typed(labelled.column(data.timestamp), data.timestamp)
    if when.dtype.kind != "M" or np.isnat(when).any():
        raise BatchError(
            f"the timestamp has type {labelled.schema.field(data.timestamp).type}"
            + (" with missing values" * (when.dtype.kind == "M")),
            where=f"column {data.timestamp!r}",
            expected="a timestamp or date in every row",
            next="cast it in the query: CAST(... AS TIMESTAMP)",
        )
    lists = lists_of(labelled.column(group), when, group) if group else None
    order = lists.order if lists else np.argsort(when, kind="stable")
    if not np.array_equal(order, np.arange(len(order))):
        labelled, when = labelled.take(order), when[order]
    hidden = {data.label.column, *data.exclude, *data.sensitive, group}
    inputs = {name: typed(labelled.column(name), name) for name in labelled.column_names if name not in hidden}
    label = _label(typed(labelled.column(data.label.column), data.label.column), data, kind)
    if lists:
        return Dataset(labelled, inputs, label, lists.when, lists.group)
    return Dataset(labelled, inputs, label, when)


def divide(dataset: Dataset, split: Split, kind: ModelKind) -> Parts:
    """Train, validation and holdout, by time: the newest `split.holdout`, the `split.validation` before it, and the rest.

    Raises:
        BatchError: a part has no rows, or only one class, or no list in any order (then nothing can be learned or measured on it).
    """
    end = dataset.timestamp[-1]
    cuts = [end - _micro(split.holdout + split.validation), end - _micro(split.holdout)]
    # A row exactly `holdout` before the newest belongs to the part before: the holdout is (end - holdout, end].
    bounds = [0, *(int(place) for place in np.searchsorted(dataset.timestamp, cuts, side="right")), len(dataset)]
    parts = []
    for name, start, stop in zip(PARTS, bounds[:-1], bounds[1:], strict=True):
        if start == stop:
            raise _empty(name, dataset, split)
        _need_classes(name, dataset.label[start:stop], kind)
        if dataset.group is not None:
            need_order(name, dataset.label[start:stop], dataset.group[start:stop])
        first, last = (iso(dataset.timestamp[place]) for place in (start, stop - 1))
        parts.append(Part(name, slice(start, stop), first, last))
    return Parts(*parts)


def typed(column: Any, name: str) -> Array:
    """An Arrow column as numpy: float64 (NaN is missing), int64, bool, object (str or None) or datetime64[us] in UTC.

    Integers and booleans with missing values become float64. Infinite numbers become missing: no request can hold them either.

    Raises:
        BatchError: a type that no model can use.
    """
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        return _text(column.cast(kind.value_type), name)
    if pa.types.is_boolean(kind):
        return _numbers(column.cast(pa.int8())) if column.null_count else column.to_numpy()
    if pa.types.is_integer(kind):
        wide = column.null_count or kind == pa.uint64()
        return _numbers(column) if wide else column.cast(pa.int64()).to_numpy()
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return _numbers(column)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        # Arrow keeps zoned timestamps in UTC; a cast only changes the label.
        micro: Array = column.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False).to_numpy()
        return micro.astype("datetime64[us]")
    return _text(column, name)


def need_columns(have: Iterable[str], wanted: Iterable[str]) -> None:
    """Raises:
    BatchError: a wanted column is not there; names the nearest.
    """
    have = list(have)
    for name in wanted:
        if name not in have:
            guess = nearest(name, have)
            raise BatchError(
                f"the data has no column {name!r}" + (f"; did you mean {guess!r}?" if guess else ""),
                expected=f"one of {', '.join(have)}",
                next="correct data in pipeline.yaml, or the query",
            )


def _text(column: Any, name: str) -> Array:
    import pyarrow as pa

    kind = column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise BatchError(
            f"column {name!r} has type {kind}",
            expected="numbers, booleans, text, timestamps or dates",
            next="cast it in the query, or add it to data.exclude",
        )
    # By way of a dictionary, so that each distinct text is one Python object however many rows have it.
    encoded = column.cast(pa.large_string()).combine_chunks().dictionary_encode()
    words = np.array([*encoded.dictionary.to_pylist(), None], dtype=object)
    codes = encoded.indices.fill_null(len(words) - 1).to_numpy()
    found: Array = words[codes]
    return found


def _numbers(column: Any) -> Array:
    import pyarrow as pa

    numbers: Array = column.cast(pa.float64(), safe=False).to_numpy()
    infinite = np.isinf(numbers)
    return np.where(infinite, np.nan, numbers) if infinite.any() else numbers


def _label(values: Array, data: Data, kind: ModelKind) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    where, what = f"column {data.label.column!r}", f"the label has type {values.dtype}"
    if values.dtype.kind not in "fib":
        if values.dtype.kind == "O":
            what = "the label is text, such as " + ", ".join(map(repr, sorted(set(values.tolist()))[:3]))
        raise BatchError(what, where=where, expected=_expected(kind), next="turn it into numbers in the query")
    label = values.astype(np.float64)
    wrong = ~_learnable(label, kind)
    if wrong.any():
        raise BatchError(
            f"the label is {label[wrong][0]:g} in {int(wrong.sum()):,} of {len(label):,} rows",
            where=where,
            expected=_expected(kind),
            next="correct the query, or choose another model.kind",
        )
    return label


def _learnable(label: Array, kind: ModelKind) -> Array:
    if kind == "xgboost.regressor":
        found: Array = np.isfinite(label)
    elif kind == "xgboost.ranker":
        found = (label >= 0) & (label <= MAX_GRADE) & (label == np.floor(label))
    else:
        found = np.isin(label, (0.0, 1.0))
    return found


def _expected(kind: ModelKind) -> str:
    return {
        "xgboost.regressor": "finite numbers",
        "xgboost.ranker": f"grades of relevance: whole numbers from 0 to {MAX_GRADE}, or false and true",
        "xgboost.classifier": "0 and 1, or false and true",
    }[kind]


def _need_classes(name: str, label: Array, kind: ModelKind) -> None:
    if kind == "xgboost.classifier" and label.min() == label.max():
        raise BatchError(
            f"the {name} part has only one class: all {len(label):,} labels are {label[0]:g}",
            where=f"model.split of pipeline.yaml: {name}",
            expected="both classes in train, validation and holdout",
            next="look at the query that makes the label, or make the part longer",
        )


def _empty(name: str, dataset: Dataset, split: Split) -> BatchError:
    lengths = f"validation {format_duration(split.validation)}, holdout {format_duration(split.holdout)}"
    return BatchError(
        f"the {name} part has no rows: the labelled data is from {dataset.span} ({len(dataset):,} rows)",
        where=f"model.split of pipeline.yaml: {lengths}",
        expected="rows in train, validation and holdout",
        next="land more data, or shorten model.split",
    )


def _micro(length: timedelta) -> np.timedelta64:
    return np.timedelta64(length, "us")


def iso(moment: np.datetime64) -> str:
    """UTC to the second, as the outputs of steps have it."""
    return f"{np.datetime_as_string(moment, unit='s')}Z"

"""Named tensors to rows: each is one column, or one is a matrix of all the model's inputs."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np

from perennial_features.code import Array
from perennial_features.schema import FeatureSchema, InputKind
from perennial_serving.rows import Rows, check_count, rows_of, show
from perennial_spec.errors import RequestError

Values = Array | list[Any]
_NUMERIC = frozenset({"number", "integer", "boolean"})
_EXACT = 2.0**53
"""Below it a float64 holds every whole number."""
_NAMED = 10
"""Inputs that a message names at most."""


class Tensors:
    """Collects the tensors of one request.

    Args:
        schema: of the model that will answer, or of the one that stands for the pipeline; None: unknown, so that a matrix is refused.
        max_rows: that a request may have.
        empty_is_missing: an empty text is a missing value. In JSON null says so; a binary tensor has no other word for it.
    """

    def __init__(self, schema: FeatureSchema | None, max_rows: int, empty_is_missing: bool = False) -> None:
        self.columns: dict[str, Values] = {}
        self._schema = schema
        self._max_rows = max_rows
        self._empty_is_missing = empty_is_missing
        self._two_dimensional = False

    def size(self, shape: Any, where: str) -> tuple[int, int]:
        """Rows and columns of a tensor, before its values are looked at.

        Raises:
            RequestError: neither a column nor a matrix that the model can take.
            TooLarge: too many rows.
        """
        good = isinstance(shape, list) and len(shape) in {1, 2} and all(type(n) is int and n >= 0 for n in shape)
        rows, width = (shape[0], math.prod(shape[1:])) if good else (0, 0)
        if width != 1:
            self._check_matrix(good, width, where)
        self._two_dimensional = good and len(shape) == 2
        check_count(rows, self._max_rows)
        return rows, width

    def add(self, name: str, where: str, width: int, values: Values) -> None:
        """Take a tensor.

        Args:
            name: its column's.
            where: the tensor, for messages.
            width: its columns, as `size` said.
            values: flat, row-major.

        Raises:
            RequestError: a column is there already.
        """
        if width == 1:
            self._put(name, where, values)
            return
        assert self._schema is not None
        for place, column in enumerate(self._schema.inputs):
            part = values[place::width]
            self._put(column.name, f"{where}: its column {place}", part)

    def add_plain(self, name: str, values: list[Any]) -> None:
        """Take a column of JSON that was looked at already, and whose name is new."""
        self.columns[name] = self._holed(values) if self._empty_is_missing else values

    def rows(self) -> Rows:
        """All of it.

        Raises:
            RequestError: the columns differ in length, or there are none.
        """
        inputs = self._schema.inputs if self._schema is not None else ()
        if len(inputs) == 1 and len(self.columns) == 1 and self._two_dimensional and inputs[0].kind in _NUMERIC:
            # A matrix of one column may have any name, as a wider one may.
            self.columns = {inputs[0].name: next(iter(self.columns.values()))}
        return rows_of(self.columns, self._max_rows)

    @cached_property
    def _kinds(self) -> dict[str, InputKind]:
        return {column.name: column.kind for column in self._schema.inputs} if self._schema is not None else {}

    def _put(self, name: str, where: str, values: Values) -> None:
        if name in self.columns:
            raise RequestError("is given twice", where=where, expected=f"each name once, {show(name)} too")
        if isinstance(values, np.ndarray):
            kind = self._kinds.get(name)
            # What is no input of the model is an entity, or nothing: plain values serve for that.
            values = fitted(values, kind) if kind is not None else values.tolist()
        elif self._empty_is_missing:
            values = self._holed(values)
        self.columns[name] = values

    @staticmethod
    def _holed(values: list[Any]) -> list[Any]:
        return [None if value == "" else value for value in values]

    def _check_matrix(self, good: bool, width: int, where: str) -> None:
        inputs = self._schema.inputs if self._schema is not None else ()
        other = next((column for column in inputs if column.kind not in _NUMERIC), None)
        if not good or not inputs or other is not None:
            why = (
                f"; a matrix needs a model that takes only numbers, and {show(other.name)} is {other.kind}"
                if other
                else ""
            )
            raise RequestError("is not one column", where=where, expected=f"shape [rows] or [rows, 1]{why}")
        if width != len(inputs):
            names = ", ".join(show(column.name) for column in inputs[:_NAMED])
            more = ", ..." if len(inputs) > _NAMED else ""
            raise RequestError(
                f"has {width:,} columns",
                where=where,
                expected=f"1, or all {len(inputs)} inputs of the model: {names}{more}",
            )


def fitted(values: Array, kind: InputKind) -> Array:
    """`values` in the type that the model's input has, where nothing is lost: floats that are whole are integers, 0 and 1 are booleans.

    What does not fit is left as it is, for the typed columns to refuse by row or to take as missing.
    """
    if kind == "integer" and values.dtype.kind in "fu":
        wide = values.astype(np.float64)
        if bool(np.all(np.abs(wide) < _EXACT)) and bool(np.all(np.trunc(wide) == wide)):
            return wide.astype(np.int64)
    if kind == "boolean" and values.dtype.kind in "fiu" and bool(np.all((values == 0) | (values == 1))):
        return values.astype(np.bool_)
    return values

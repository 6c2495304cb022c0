"""An MLflow model's signature as the server's schema: what columns a request has, and in which types the model takes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from perennial_features.code import Array
from perennial_features.schema import FeatureSchema, InputColumn, InputKind, missing
from perennial_serving.rows import show
from perennial_spec.errors import ModelError, RequestError

Form = Literal["frame", "array", "tensors"]
MAX_COLUMNS = 10_000

_LOG_ONE = "log the model with signature=mlflow.models.infer_signature(inputs, outputs), or an input_example"
_KINDS: dict[str, tuple[InputKind, str]] = {
    "boolean": ("boolean", "bool"),
    "integer": ("integer", "int32"),
    "long": ("integer", "int64"),
    "float": ("number", "float32"),
    "double": ("number", "float64"),
    "string": ("text", "object"),
    "datetime": ("timestamp", "datetime64[us]"),
}
"""By the word of the signature: what a request may hold, and the dtype that the model gets."""
_TENSORS: dict[str, tuple[InputKind, str]] = {
    "bool": ("boolean", "bool"),
    "int32": ("integer", "int32"),
    "int64": ("integer", "int64"),
    "float32": ("number", "float32"),
    "float64": ("number", "float64"),
    "object": ("text", "object"),
    "str": ("text", "object"),
}
_LIMITS: dict[str, tuple[float, str]] = {
    "int32": (2.0**31 - 1, "a whole number of 32 bits"),
    "float32": (float(np.finfo(np.float32).max), "a number that fits into 32 bits"),
}


@dataclass(frozen=True)
class Signature:
    """How the model takes its rows."""

    form: Form
    """`frame`: named columns. `array`: one matrix, whose columns are named 0, 1, ... `tensors`: a mapping of arrays."""
    inputs: tuple[InputColumn, ...]
    dtypes: tuple[str, ...]
    """NumPy's, by input."""
    named: bool = True
    """False: the columns have no names for the model; requests name them 0, 1, ..."""
    outputs: int | None = None
    """Values per row; None where the signature does not say."""
    text: bool = False
    """The answer is text, as far as the signature says."""

    @cached_property
    def schema(self) -> FeatureSchema:
        return FeatureSchema(inputs=self.inputs, features=())

    def to_json(self) -> dict[str, Any]:
        """As it travels to the model's process."""
        inputs = [column.model_dump() for column in self.inputs]
        return {"form": self.form, "inputs": inputs, "dtypes": self.dtypes, "named": self.named}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Signature:
        """As it came from the server."""
        inputs = tuple(InputColumn.model_validate(each) for each in value["inputs"])
        return cls(value["form"], inputs, tuple(value["dtypes"]), value["named"])

    def typed(self, columns: Mapping[str, Array]) -> dict[str, Array]:
        """A request's columns in the types that the model takes. An optional column without any value is left out where its type has no
        missing value.

        Args:
            columns: what `columns_from_rows` made of a request.

        Raises:
            RequestError: a value is missing where the type has no missing value, or is too large for the type; names the column.
        """
        found: dict[str, Array] = {}
        for column, dtype in zip(self.inputs, self.dtypes, strict=True):
            values = columns[column.name]
            if column.kind in ("integer", "boolean") and values.dtype.kind == "f":
                if column.nullable and self.named and missing(values).all():
                    continue
                raise self._hole(column, dtype)
            if dtype in _LIMITS:
                limit, expected = _LIMITS[dtype]
                with np.errstate(invalid="ignore"):
                    outside = np.abs(values.astype(np.float64)) > limit
                if outside.any():
                    row = int(outside.argmax())
                    raise RequestError("the value is too large", where=_where(column, row), expected=expected)
            found[column.name] = values.astype(dtype, copy=False)
        return found

    def refusal(self, columns: Mapping[str, Array]) -> RequestError | None:
        """Why a model that failed on these columns is not to blame: a value is missing where the signature requires one."""
        empty = [c.name for c in self.inputs if not c.nullable and c.name in columns and missing(columns[c.name]).any()]
        if not empty:
            return None
        return RequestError(
            f"the value is missing in {', '.join(map(show, empty[:10]))}",
            expected="a value in every row: the model's signature requires one, and the model cannot do without",
        )

    def _hole(self, column: InputColumn, dtype: str) -> RequestError:
        return RequestError(
            "the value is missing",
            where=f"column {show(column.name)}",
            expected=f"a value in every row: the model's signature says {dtype}, which has no missing value",
        )


def read_signature(text: object, where: str) -> Signature:
    """The signature in an MLmodel file.

    Args:
        text: the file's word `signature`.
        where: for messages.

    Raises:
        ModelError: there is none, or the model takes what cannot be sent row by row.
    """
    if not isinstance(text, Mapping) or not text.get("inputs"):
        raise ModelError(
            "the model has no signature", where=where, expected="the names and types of its inputs", next=_LOG_ONE
        )
    try:
        inputs = json.loads(text["inputs"])
        outputs = json.loads(text.get("outputs") or "[]")
        return replace(_signature(inputs, where), outputs=_width(outputs), text=_is_text(outputs))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise ModelError(
            f"the model's signature cannot be read: {type(error).__name__}", where=where, next=_LOG_ONE
        ) from None


def _signature(inputs: list[dict[str, Any]], where: str) -> Signature:
    if any(each["type"] == "tensor" for each in inputs):
        return _tensor_signature(inputs, where)
    named = "name" in inputs[0]
    columns, dtypes = [], []
    for place, each in enumerate(inputs):
        if each["type"] not in _KINDS:
            raise _unsupported(f"an input of type {each['type']}", where)
        kind, dtype = _KINDS[each["type"]]
        nullable = not each.get("required", True)
        columns.append(InputColumn(name=each["name"] if named else str(place), kind=kind, nullable=nullable))
        dtypes.append(dtype)
    return _checked(Signature("frame", tuple(columns), tuple(dtypes), named), where)


def _tensor_signature(inputs: list[dict[str, Any]], where: str) -> Signature:
    if "name" not in inputs[0]:
        kind, dtype = _tensor_kind(inputs[0], where)
        shape = inputs[0]["tensor-spec"]["shape"]
        if len(shape) != 2 or shape[0] != -1 or not 0 < shape[1] <= MAX_COLUMNS:
            raise _unsupported(f"a tensor of shape {shape}", where)
        columns = tuple(InputColumn(name=str(place), kind=kind) for place in range(shape[1]))
        return Signature("array", columns, (dtype,) * shape[1], named=False)
    named, dtypes = [], []
    for each in inputs:
        kind, dtype = _tensor_kind(each, where)
        if each["tensor-spec"]["shape"] not in ([-1], [-1, 1]):
            raise _unsupported(f"a tensor of shape {each['tensor-spec']['shape']}", where)
        named.append(InputColumn(name=each["name"], kind=kind))
        dtypes.append(dtype)
    return _checked(Signature("tensors", tuple(named), tuple(dtypes)), where)


def _tensor_kind(each: dict[str, Any], where: str) -> tuple[InputKind, str]:
    dtype = each["tensor-spec"]["dtype"]
    if dtype not in _TENSORS:
        raise _unsupported(f"a tensor of {dtype}", where)
    return _TENSORS[dtype]


def _checked(signature: Signature, where: str) -> Signature:
    names = [column.name for column in signature.inputs]
    if len(set(names)) < len(names) or len(names) > MAX_COLUMNS:
        raise _unsupported("inputs that share a name, or too many of them", where)
    return signature


def _unsupported(what: str, where: str) -> ModelError:
    return ModelError(
        f"the model takes {what}, which cannot be sent row by row",
        where=where,
        expected="columns of boolean, integer, long, float, double, string or datetime, or a tensor of shape [-1, columns]",
        next="wrap the model in a python_function that takes such columns",
    )


def _width(outputs: list[dict[str, Any]]) -> int | None:
    """Values per row: as many as there are columns, or as the one tensor is wide."""
    if len(outputs) == 1 and outputs[0].get("type") == "tensor":
        shape = outputs[0]["tensor-spec"]["shape"]
        return 1 if len(shape) == 1 else int(shape[1]) if len(shape) == 2 and shape[1] > 0 else None
    return len(outputs) or None


def _is_text(outputs: list[dict[str, Any]]) -> bool:
    """One column of text."""
    if len(outputs) != 1:
        return False
    kind = outputs[0].get("type")
    return kind == "string" or (kind == "tensor" and outputs[0]["tensor-spec"]["dtype"] in ("object", "str"))


def _where(column: InputColumn, row: int) -> str:
    return f"column {show(column.name)}, row {row}"

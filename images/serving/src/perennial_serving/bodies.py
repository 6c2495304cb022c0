"""The bodies that nearly all clients send, parsed for the fast path; None for any other, and for whatever is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import orjson

from perennial_features.schema import InputKind
from perennial_serving.intake import Intake

Form = Literal["split", "records", "columns"]
_DATA = b'"data":'
_MAX_HEAD = 65536
_MAX_LAYOUTS = 256
_MAX_PLANS = 16
"""Of the versions of a pipeline that are loaded, and some that have gone."""
_SPLIT = "dataframe_split"
_DATATYPES: dict[str, frozenset[InputKind]] = {
    **dict.fromkeys(("FP32", "FP64"), frozenset[InputKind]({"number"})),
    **dict.fromkeys(("INT32", "INT64"), frozenset[InputKind]({"integer"})),
    "BOOL": frozenset({"boolean"}),
    "BYTES": frozenset({"text", "timestamp"}),
}


class Layout:
    """The columns of a `dataframe_split`, in the order of the request."""

    __slots__ = ("_plans", "columns")

    def __init__(self, columns: list[str]) -> None:
        self.columns = columns
        self._plans: dict[int, tuple[bytes, bytes, tuple[bytes | None, ...]]] = {}

    def plan(self, intake: Intake) -> tuple[bytes, bytes, tuple[bytes | None, ...]]:
        """How these columns meet those of `intake`; see `Intake.plan` and `Intake.labels`."""
        found = self._plans.get(intake.serial)
        if found is None:
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            found = self._plans[intake.serial] = (*intake.plan(self.columns), intake.labels(self.columns))
        return found

    def place(self, column: str) -> int:
        """Where a row has `column`; -1 for nowhere."""
        return self.columns.index(column) if column in self.columns else -1


@dataclass(slots=True)
class Body:
    """The rows of a request."""

    form: Form
    rows: Any
    """split, records: a list of rows; columns: an object of lists."""
    count: int
    layout: Layout | None = None
    request_id: str | None = None


class Bodies:
    """Parses bodies, and remembers how those of `dataframe_split` began.

    A client repeats the names of its columns in each request. The text before the rows is compared as bytes with those seen before; if it
    is one of them, only the rows are parsed.
    """

    def __init__(self) -> None:
        self._layouts: dict[bytes, Layout | None] = {}

    def layout(self, data: bytes, start: int) -> tuple[Layout, int] | None:
        """The columns of the `dataframe_split` that begins at data[start], and where its rows begin; None for another form."""
        at = data.find(_DATA, start, start + _MAX_HEAD)
        if at < 0:
            return None
        at += len(_DATA)
        head = data[start:at]
        layout = self._layouts.get(head) or self._learn(head)
        return (layout, at) if layout is not None else None

    def _learn(self, head: bytes) -> Layout | None:
        """The columns that such a head names; None when something other than rows can follow it."""
        if head in self._layouts:
            return None
        found = None
        try:
            value = orjson.loads(head + b"[]}}")
        except orjson.JSONDecodeError:
            value = None
        if isinstance(value, dict) and list(value) == [_SPLIT] and isinstance(value[_SPLIT], dict):
            columns = value[_SPLIT].get("columns")
            if _names(columns) and value[_SPLIT].get("data") == []:
                found = Layout(columns)
        if len(self._layouts) >= _MAX_LAYOUTS:
            self._layouts.clear()
        self._layouts[head] = found
        return found


def tensors(body: bytes, kinds: dict[str, InputKind]) -> Body | None:
    """A body of `/v2/models/{model}/infer`: one tensor per column, nothing asked for beside the answer.

    Args:
        kinds: of the model's inputs, by name.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if type(value) is not dict or not value.keys() <= {"inputs", "id"}:
        return None
    inputs, request_id = value.get("inputs"), value.get("id")
    if type(inputs) is not list or not inputs or not (request_id is None or type(request_id) is str):
        return None
    columns: dict[str, list[Any]] = {}
    for tensor in inputs:
        if not _plain_tensor(tensor, kinds) or tensor["name"] in columns:
            return None
        columns[tensor["name"]] = tensor["data"]
    count = len(next(iter(columns.values())))
    return Body("columns", columns, count, None, request_id) if count else None


def _plain_tensor(tensor: Any, kinds: dict[str, InputKind]) -> bool:
    if type(tensor) is not dict or tensor.keys() != {"name", "datatype", "shape", "data"}:
        return False
    name, datatype, data = tensor["name"], tensor["datatype"], tensor["data"]
    if type(name) is not str or type(datatype) is not str or type(data) is not list:
        return False
    kind = kinds.get(name)
    plain = kind is None or kind in _DATATYPES.get(datatype, ())
    return plain and tensor["shape"] in ([len(data)], [len(data), 1])


def scoring(body: bytes) -> Body | None:
    """A body of `/invocations`, in one of the forms that have rows."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if type(value) is not dict or len(value) != 1:
        return None
    form, rows = next(iter(value.items()))
    if form == _SPLIT:
        columns = rows.get("columns") if type(rows) is dict else None
        data = rows.get("data") if type(rows) is dict else None
        if columns is None or not _names(columns) or type(data) is not list or not data:
            return None
        return Body("split", data, len(data), Layout(columns))
    if form in {"dataframe_records", "instances", "inputs"} and type(rows) is list and rows:
        return Body("records", rows, len(rows))
    return None


def _names(columns: Any) -> bool:
    if type(columns) is not list or not columns or not all(type(name) is str for name in columns):
        return False
    return len(set(columns)) == len(columns)

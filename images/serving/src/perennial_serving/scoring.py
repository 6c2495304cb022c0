"""MLflow's scoring protocol: `dataframe_split`, `dataframe_records`, `instances`, `inputs` and CSV to rows, scores to a response."""

from __future__ import annotations

import csv
import io
from typing import Any

import orjson

from perennial_serving.answers import Answer
from perennial_serving.refusals import NotParsed, WrongMediaType
from perennial_serving.rows import Rows, check_count, json_object, kind_of, need_list, rows_of, rows_of_records, show
from perennial_spec.errors import RequestError

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


def parse(body: bytes, content_type: str, max_rows: int, nameless: bool = False) -> Rows:
    """A scoring request.

    Args:
        body: as it came.
        content_type: as the request says.
        max_rows: that it may have.
        nameless: the model's columns are named 0, 1, ...: `instances` and `inputs` may be a matrix, as a list of rows.

    Raises:
        WrongMediaType: neither JSON nor CSV.
        NotParsed: the body is not what its type says.
        RequestError: not one of the four forms; names the field.
        TooLarge: more than `max_rows`.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json":
        return _from_json(json_object(body), max_rows, nameless)
    if kind == "text/csv":
        return _from_csv(body, max_rows)
    raise WrongMediaType(f"content type {kind[:60]!r} is not read here", expected="application/json or text/csv")


def respond(answer: Answer) -> tuple[bytes, dict[str, str]]:
    """The answer, and its headers: MLflow's `predictions`, and beside it who made them."""
    value = {"predictions": answer.scores, "version": answer.versions, "prediction_id": answer.ids}
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), {}


def _from_json(value: dict[str, Any], max_rows: int, nameless: bool) -> Rows:
    given = [form for form in FORMS if form in value]
    if len(given) != 1:
        what = f"got {' and '.join(given)}" if given else "none of them is there"
        raise RequestError(what, expected=f"exactly one of {', '.join(FORMS)}")
    form = given[0]
    data = value[form]
    if form == "dataframe_split":
        return _from_split(data, max_rows)
    if form == "inputs" and isinstance(data, dict):
        return _from_named_lists(data, max_rows)
    records = need_list(data, form, "a list of objects, one per row")
    if nameless and records and isinstance(records[0], list):
        return _from_matrix(records, max_rows, form)
    return rows_of_records(records, max_rows, form)


def _from_matrix(values: list[Any], max_rows: int, where: str) -> Rows:
    check_count(len(values), max_rows)
    width = len(values[0])
    for row, record in enumerate(values):
        if not isinstance(record, list) or len(record) != width:
            got = f"{len(record)} values" if isinstance(record, list) else kind_of(record)
            raise RequestError(
                f"got {got}", where=f"{where}[{row}]", expected=f"a list of {width} values, as the first"
            )
    return rows_of({str(place): [record[place] for record in values] for place in range(width)}, max_rows)


def _from_split(data: Any, max_rows: int) -> Rows:
    if not isinstance(data, dict):
        raise RequestError(f"got {kind_of(data)}", where="dataframe_split", expected="an object: columns and data")
    columns = need_list(data.get("columns"), "dataframe_split.columns", "a list of column names")
    if not columns or not all(isinstance(name, str) for name in columns) or len(set(columns)) < len(columns):
        raise RequestError(
            "is not a list of names", where="dataframe_split.columns", expected="each column's name once"
        )
    values = need_list(data.get("data"), "dataframe_split.data", "a list of rows, each a list of values")
    check_count(len(values), max_rows)
    for row, record in enumerate(values):
        if not isinstance(record, list) or len(record) != len(columns):
            got = f"{len(record)} values" if isinstance(record, list) else kind_of(record)
            raise RequestError(
                f"got {got}", where=f"dataframe_split.data[{row}]", expected=f"a list of {len(columns)} values"
            )
    return rows_of({name: [record[i] for record in values] for i, name in enumerate(columns)}, max_rows)


def _from_named_lists(data: dict[str, Any], max_rows: int) -> Rows:
    if data and not any(isinstance(values, list) for values in data.values()):
        return rows_of_records([data], max_rows, "inputs")
    for name, values in data.items():
        need_list(values, f"inputs: column {show(name)}", "a list with one value per row")
    return rows_of(data, max_rows)


def _from_csv(body: bytes, max_rows: int) -> Rows:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotParsed(f"the body is not UTF-8: byte {error.start}", expected="CSV in UTF-8") from None
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] = []
    values: list[list[str | None]] = []
    try:
        columns = next(lines, [])
        for line in lines:
            if not line:
                continue
            if len(line) != len(columns):
                raise RequestError(
                    f"has {len(line)} values", where=f"line {lines.line_num}", expected=f"{len(columns)}, as the header"
                )
            values.append([cell or None for cell in line])
            check_count(len(values), max_rows)
    except csv.Error as error:
        raise NotParsed(
            f"line {lines.line_num} is not CSV: {error}", expected="a header line, then one line per row"
        ) from None
    if len(set(columns)) < len(columns) or not all(columns):
        raise RequestError("has a name twice, or an empty one", where="line 1", expected="each column's name once")
    return rows_of({name: [line[i] for line in values] for i, name in enumerate(columns)}, max_rows)

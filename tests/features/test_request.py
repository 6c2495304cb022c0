"""Untrusted rows become typed columns, or an error that names the column, the row and what was expected."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perennial_features.request import columns_from_rows
from perennial_features.schema import FeatureSchema, InputColumn
from perennial_spec.errors import PerennialError, RequestError

SCHEMA = FeatureSchema(
    inputs=(
        InputColumn(name="n", kind="number"),
        InputColumn(name="i", kind="integer"),
        InputColumn(name="b", kind="boolean"),
        InputColumn(name="t", kind="text"),
        InputColumn(name="at", kind="timestamp"),
        InputColumn(name="gust", kind="number", nullable=True),
    ),
    features=(),
)
ROW: dict[str, Any] = {"n": 1.5, "i": 3, "b": True, "t": "a", "at": "2013-06-01T05:15:00Z", "gust": None}


def one(**changes: Any) -> dict[str, np.ndarray]:
    row = {name: value for name, value in {**ROW, **changes}.items() if value is not ...}
    return columns_from_rows([row], SCHEMA)


def test_records_and_lists_give_the_same_columns() -> None:
    records = [ROW, {**ROW, "n": 2, "t": None}]
    lists = {name: [row[name] for row in records] for name in ROW}
    from_records, from_lists = columns_from_rows(records, SCHEMA), columns_from_rows(lists, SCHEMA)
    assert list(from_records) == [column.name for column in SCHEMA.inputs]
    for column in SCHEMA.inputs:
        assert from_records[column.name].dtype == column.dtype
        np.testing.assert_array_equal(from_records[column.name], from_lists[column.name])


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("n", "12", 12.0),
        ("n", 3, 3.0),
        ("n", True, 1.0),
        ("n", " 1e3 ", 1000.0),
        ("n", 2**53 + 1, float(2**53)),
        ("i", "12", 12),
        ("i", 4.0, 4),
        ("b", "true", True),
        ("b", 0, False),
        ("t", 7, "7"),
        ("at", "2013-06-01T07:15:00+02:00", np.datetime64("2013-06-01T05:15:00", "us")),
        ("i", -(2**63), -(2**63)),
        ("b", 1.0, True),
        ("b", "False", False),
        ("t", "", ""),
        ("at", "2013-06-01T07:15:00.250+02:00", np.datetime64("2013-06-01T05:15:00.250", "us")),
        ("at", "2013-06-01T00:15:00-05:30", np.datetime64("2013-06-01T05:45:00", "us")),
        ("at", "2013-06-01 05:15", np.datetime64("2013-06-01T05:15", "us")),
        ("at", "1969-12-31T23:59:59.999999Z", np.datetime64(-1, "us")),
        ("at", "2013-06-01", np.datetime64("2013-06-01", "us")),
        ("at", datetime(2013, 6, 1, tzinfo=UTC), np.datetime64("2013-06-01", "us")),
    ],
)
def test_what_is_plainly_meant_is_converted(column: str, value: Any, expected: Any) -> None:
    assert one(**{column: value})[column][0] == expected


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("n", "warm", "a number"),
        ("n", math.inf, "a number"),
        ("n", "inf", "a number"),
        ("n", [1], "a number"),
        ("n", {}, "a number"),
        ("n", 10**400, "a number"),
        ("n", "", "a number"),
        ("n", "1_000", "a number"),
        ("i", 1.5, "an integer"),
        ("i", "1_000", "an integer"),
        ("i", math.inf, "an integer"),
        ("i", True, "an integer"),
        ("i", 2**70, "an integer"),
        ("i", "1.5", "an integer"),
        ("b", 2, "true or false"),
        ("b", "yes", "true or false"),
        ("b", "1", "true or false"),
        ("t", 1.5, "text"),
        ("t", True, "text"),
        ("t", ["a"], "text"),
        ("at", "yesterday", "ISO 8601"),
        ("at", 1370063700, "ISO 8601"),
        ("at", "1370063700.5", "ISO 8601"),
        ("at", "0001-01-01T00:00:00+12:00", "ISO 8601"),
        ("at", True, "ISO 8601"),
    ],
)
def test_what_is_not_is_refused_with_column_row_and_expectation(column: str, value: Any, expected: str) -> None:
    with pytest.raises(RequestError, match=f"column '{column}': got") as caught:
        columns_from_rows([ROW, {**ROW, column: value}], SCHEMA)
    assert caught.value.where == "row 1"
    assert expected in caught.value.expected


@pytest.mark.parametrize("value", [None, math.nan])
def test_a_missing_value_is_missing_whatever_the_column(value: Any) -> None:
    found = columns_from_rows([dict.fromkeys(ROW, value), ROW], SCHEMA)
    assert np.isnan(found["n"][0])
    assert found["t"][0] is None
    assert np.isnat(found["at"][0])
    for name in ("i", "b"):  # as in training: integers and booleans with missing values are float64
        assert found[name].dtype == np.float64
        assert np.isnan(found[name][0])
        assert found[name][1] == ROW[name]


def test_a_column_may_be_left_out_only_where_training_saw_missing_values() -> None:
    assert np.isnan(one(gust=...)["gust"][0])
    with pytest.raises(RequestError, match="column 'n' is missing") as caught:
        columns_from_rows([ROW, {name: value for name, value in ROW.items() if name != "n"}], SCHEMA)
    assert caught.value.where == "row 1"
    with pytest.raises(RequestError, match="column 'at' is missing") as nearest:
        columns_from_rows({**{name: [value] for name, value in ROW.items() if name != "at"}, "att": [1]}, SCHEMA)
    assert "'att'" in nearest.value.next


def test_a_column_that_may_be_left_out_may_be_left_out_of_some_rows() -> None:
    found = columns_from_rows([{**ROW, "gust": 3}, {name: ROW[name] for name in ROW if name != "gust"}], SCHEMA)
    assert found["gust"][0] == 3.0
    assert np.isnan(found["gust"][1])
    lists = columns_from_rows({name: [value, value] for name, value in ROW.items() if name != "gust"}, SCHEMA)
    assert np.isnan(lists["gust"]).all()


@pytest.mark.parametrize(
    ("column", "odd", "plain"),
    [("n", "2.5", 2.5), ("i", "7", 7), ("b", 1, True), ("t", 7, "7"), ("at", "2013-06-01", "2013-06-01T00:00:00Z")],
)
def test_one_odd_value_changes_nothing_about_the_others(column: str, odd: Any, plain: Any) -> None:
    rows = [ROW, {**ROW, column: odd}, ROW]
    found = columns_from_rows(rows, SCHEMA)[column]
    expected = columns_from_rows([ROW, {**ROW, column: plain}, ROW], SCHEMA)[column]
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


PAGE = Path(__file__).parents[2] / "docs" / "pipeline.md"
KINDS = {"number": "n", "integer": "i", "boolean": "b", "text": "t", "timestamp": "at"}
TABLE = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text().partition("## What a request may send")[2].splitlines()
    if line.startswith(tuple(f"| {kind}" for kind in KINDS))
]


def test_the_page_has_every_kind_of_column() -> None:
    assert [row[0] for row in TABLE] == list(KINDS)


@pytest.mark.parametrize(("kind", "taken", "refused"), TABLE, ids=[row[0] for row in TABLE])
def test_what_a_request_may_send_is_what_the_page_says(kind: str, taken: str, refused: str) -> None:
    column = KINDS[kind]
    for text in re.findall("`([^`]+)`", taken):
        assert one(**{column: json.loads(text)}), text
    for text in re.findall("`([^`]+)`", refused):
        with pytest.raises(RequestError, match=f"column '{column}'"):
            one(**{column: json.loads(text)})


def test_unknown_columns_are_ignored() -> None:
    assert "flight_id" not in one(flight_id="x")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ([], "no rows"),
        ({}, "no rows"),
        ({"n": []}, "no rows"),
        ("abc", "got 'abc'"),
        (5, "got 5"),
        ([1], "got 1"),
        ([[1, 2]], "got a list"),
        ({"n": 1}, "got 1"),
        ({"n": "12"}, "got '12'"),
        ({"n": [1, 2], "i": [1]}, "the columns differ in length"),
    ],
)
def test_data_of_another_shape_is_refused(data: Any, what: str) -> None:
    with pytest.raises(RequestError, match=what):
        columns_from_rows(data, SCHEMA)


def test_a_request_is_bounded() -> None:
    with pytest.raises(RequestError, match="the request has 3 rows") as caught:
        columns_from_rows([ROW] * 3, SCHEMA, max_rows=2)
    assert caught.value.expected == "at most 2"


def test_arrays_of_other_types_are_taken_where_nothing_is_lost() -> None:
    arrays = {
        "n": np.array([1, 2], dtype=np.int32),
        "i": np.array([1.0, np.nan]),
        "b": np.array([True, False]),
        "t": np.array(["a", None], dtype=object),
        "at": np.array(["2013-01-01", "2013-01-02"], dtype="datetime64[ns]"),
    }
    found = columns_from_rows(arrays, SCHEMA)
    assert found["n"].dtype == np.float64
    np.testing.assert_array_equal(found["i"], [1.0, np.nan])
    assert found["at"].dtype == np.dtype("datetime64[us]")
    with pytest.raises(RequestError, match="column 'n': got inf"):
        columns_from_rows({**arrays, "n": np.array([1.0, np.inf])}, SCHEMA)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ROW, "z"]), inner, max_size=6),
    max_leaves=12,
)


@given(JSON)
def test_whatever_comes_is_typed_columns_or_a_request_error(data: Any) -> None:
    try:
        found = columns_from_rows(data, SCHEMA)
    except PerennialError as error:
        assert isinstance(error, RequestError)
        assert len(str(error)) < 2000
    else:
        assert len({len(values) for values in found.values()}) == 1


@given(JSON, st.sampled_from(list(ROW)))
def test_whatever_a_value_is_the_column_keeps_its_type(value: Any, name: str) -> None:
    try:
        found = columns_from_rows([{**ROW, name: value}], SCHEMA)[name]
    except RequestError as error:
        assert name in str(error)
    else:
        column = SCHEMA.input(name)
        assert column is not None
        assert found.dtype == column.dtype or found.dtype == np.float64

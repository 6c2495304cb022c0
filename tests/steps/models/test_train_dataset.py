"""Which rows and columns are learned from, and every way in which a table cannot be."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from perennial_spec.data import Data
from perennial_spec.errors import BatchError, PlatformError
from perennial_spec.model import ModelKind, Split
from perennial_steps.training.dataset import assemble, divide, typed
from perennial_steps.training.table import read_window

KIND: ModelKind = "xgboost.classifier"


def data_of(**changes: Any) -> Data:
    spec = {
        "sources": {"trips": "x"},
        "timestamp": "at",
        "entity": "trip_id",
        "label": {"column": "late"},
        "window": "90d",
        "exclude": ["arrived_at"],
        "sensitive": ["group"],
    }
    return Data.model_validate({**spec, **changes})


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def test_the_label_and_hidden_columns_are_no_inputs_and_sensitive_ones_stay_for_the_audit(trips: pa.Table) -> None:
    dataset = assemble(trips, data_of(), KIND)
    assert set(dataset.inputs) == {"trip_id", "at", "rain", "load", "city"}
    assert set(dataset.column("group")) == {"x", "y"}
    assert set(dataset.label) == {0.0, 1.0}


def test_rows_without_label_are_left_out_and_rows_are_in_the_order_of_time(trips: pa.Table) -> None:
    late = trips.column("late").to_pylist()
    late[5] = None
    shuffled = with_column(trips, "late", late).take(np.random.default_rng(0).permutation(len(trips)))
    dataset = assemble(shuffled, data_of(), KIND)
    assert len(dataset) == len(trips) - 1
    assert (np.diff(dataset.timestamp) >= np.timedelta64(0)).all()
    assert "t0-5" not in dataset.inputs["trip_id"]
    assert dataset.inputs["trip_id"][:6].tolist() == ["t0-0", "t0-1", "t0-2", "t0-3", "t0-4", "t0-6"]


@pytest.mark.parametrize(
    ("column", "dtype", "values"),
    [
        (pa.array([1, None], pa.int32()), "float64", [1.0, np.nan]),
        (pa.array([1, 2], pa.int16()), "int64", [1, 2]),
        (pa.array([2**63, 1], pa.uint64()), "float64", [2.0**63, 1.0]),
        (pa.array([True, None]), "float64", [1.0, np.nan]),
        (pa.array([True, False]), "bool", [True, False]),
        (pa.array([1.5, float("inf")]), "float64", [1.5, np.nan]),
        (pa.array([None, None], pa.null()), "float64", [np.nan, np.nan]),
        (pa.array(["a", None]), "object", ["a", None]),
        (pa.array(["a", None, "a"]).dictionary_encode(), "object", ["a", None, "a"]),
        (pa.array([19000, None], pa.date32()), "datetime64[us]", ["2022-01-08", "NaT"]),
        (
            pa.array([0, 10**9], pa.timestamp("ns", "Europe/Oslo")),
            "datetime64[us]",
            ["1970-01-01", "1970-01-01T00:00:01"],
        ),
    ],
)
def test_arrow_types_become_the_types_of_the_feature_contract(column: pa.Array, dtype: str, values: list[Any]) -> None:
    found = typed(pa.chunked_array([column]), "x")
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, np.array(values, dtype=dtype))


def test_decimals_are_numbers() -> None:
    import decimal

    assert typed(pa.chunked_array([pa.array([decimal.Decimal("1.25")])]), "x").tolist() == [1.25]


@pytest.mark.parametrize("column", [pa.array([[1]]), pa.array([b"x"]), pa.array([timedelta(1)])])
def test_a_type_that_no_model_can_use_is_named(column: pa.Array) -> None:
    with pytest.raises(BatchError, match="column 'x' has type") as caught:
        typed(pa.chunked_array([column]), "x")
    assert "data.exclude" in caught.value.next


@pytest.mark.parametrize("tz", [None, "UTC"])
def test_the_window_ends_at_the_newest_labelled_row(offline_lab: Any, trips: pa.Table, tz: str | None) -> None:
    late = trips.column("late").to_pylist()
    late[-600:] = [None] * 600  # 20 of 100 days still wait for their labels
    trips = trips.set_column(1, "at", trips.column("at").cast(pa.timestamp("us", tz)))
    version = offline_lab.land(with_column(trips, "late", late))
    found = read_window(offline_lab.uri, version, data_of(window="30d"))
    assert found.num_rows == pytest.approx(30 * 30, abs=1)
    assert pc.max(found.column("at")) == trips.column("at")[-601]


def test_the_version_is_the_one_that_was_asked_for(offline_lab: Any, trips: pa.Table, trips_of: Any) -> None:
    first = offline_lab.land(trips)
    offline_lab.land(trips_of(500, seed=1), mode="append")
    assert read_window(offline_lab.uri, first, data_of(window="365d")).num_rows == len(trips)
    assert read_window(offline_lab.uri, first + 1, data_of(window="365d")).num_rows == len(trips) + 500


def test_a_table_or_version_that_is_not_there_is_told(offline_lab: Any, trips: pa.Table) -> None:
    with pytest.raises(BatchError, match="there is no version 0 of the data") as caught:
        read_window(offline_lab.uri, 0, data_of())
    assert caught.value.where == offline_lab.uri
    offline_lab.land(trips)
    with pytest.raises(BatchError, match="there is no version 9 of the data"):
        read_window(offline_lab.uri, 9, data_of())


def test_a_file_that_has_gone_missing_is_the_stores_fault(offline_lab: Any, trips: pa.Table) -> None:
    version = offline_lab.land(trips)
    for file in Path(offline_lab.uri).glob("*.parquet"):
        file.unlink()
    with pytest.raises(PlatformError, match="the store does not take or give data"):
        read_window(offline_lab.uri, version, data_of())


def test_the_column_that_ingest_partitions_by_is_no_input(offline_lab: Any, trips: pa.Table) -> None:
    version = offline_lab.land(trips.append_column("_partition", pa.array(["2013"] * len(trips))))
    assert read_window(offline_lab.uri, version, data_of()).column_names == trips.column_names


def test_a_missing_column_is_named_with_the_nearest(offline_lab: Any, trips: pa.Table) -> None:
    version = offline_lab.land(trips)
    for wrong, what in (
        ({"label": {"column": "lat"}}, "no column 'lat'; did you mean 'late'"),
        ({"timestamp": "when"}, "no column 'when'"),
        ({"sensitive": ["grup"]}, "no column 'grup'; did you mean 'group'"),
    ):
        with pytest.raises(BatchError, match=what):
            read_window(offline_lab.uri, version, data_of(**wrong))


def test_no_rows_and_no_labels_are_told_apart(offline_lab: Any, trips: pa.Table) -> None:
    version = offline_lab.land(trips.slice(0, 0))
    with pytest.raises(BatchError, match="the data has no rows"):
        read_window(offline_lab.uri, version, data_of())
    version = offline_lab.land(with_column(trips, "late", pa.nulls(len(trips), pa.bool_())))
    with pytest.raises(BatchError, match="none of the 3,000 rows has a label") as caught:
        read_window(offline_lab.uri, version, data_of())
    assert "arrives_after" in caught.value.next
    with pytest.raises(BatchError, match="no rows"):
        assemble(trips.slice(0, 0), data_of(), KIND)
    with pytest.raises(BatchError, match="none of the 3,000 rows has a label"):
        assemble(with_column(trips, "late", pa.nulls(len(trips), pa.bool_())), data_of(), KIND)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (["yes", "no"], "the label is text, such as 'no', 'yes'"),
        ([0, 2], "the label is 2 in 1,500 of 3,000 rows"),
        ([0.5, 1.0], "the label is 0.5 in 1,500 of 3,000 rows"),
    ],
)
def test_a_label_that_is_none_of_two_classes_is_refused(trips: pa.Table, values: list[Any], what: str) -> None:
    with pytest.raises(BatchError, match=what) as caught:
        assemble(with_column(trips, "late", values * 1500), data_of(), KIND)
    assert caught.value.where == "column 'late'"
    assert caught.value.expected == "0 and 1, or false and true"


def test_a_regressors_label_is_any_finite_number(trips: pa.Table) -> None:
    numbers = np.linspace(-5, 5, len(trips))
    assert assemble(with_column(trips, "late", numbers), data_of(), "xgboost.regressor").label[0] == -5
    numbers[3] = np.inf
    with pytest.raises(BatchError, match="in 1 of 3,000 rows") as caught:
        assemble(with_column(trips, "late", numbers), data_of(), "xgboost.regressor")
    assert caught.value.expected == "finite numbers"


def test_a_timestamp_that_is_none_is_refused(offline_lab: Any, trips: pa.Table) -> None:
    texts = with_column(trips, "at", trips.column("at").cast(pa.string()))
    with pytest.raises(BatchError, match="the timestamp has type string"):
        assemble(read_window(offline_lab.uri, offline_lab.land(texts), data_of()), data_of(), KIND)
    holes = trips.column("at").to_pylist()
    holes[7] = None
    with pytest.raises(BatchError, match="with missing values"):
        assemble(with_column(trips, "at", holes), data_of(), KIND)


def test_parts_follow_each_other_in_time_and_share_no_row(trips: pa.Table) -> None:
    dataset = assemble(trips, data_of(), KIND)
    parts = divide(dataset, Split(holdout=timedelta(days=14), validation=timedelta(days=7)), KIND)
    assert parts.train.rows.start == 0
    assert parts.train.rows.stop == parts.validation.rows.start
    assert parts.validation.rows.stop == parts.holdout.rows.start
    assert parts.holdout.rows.stop == len(dataset)
    assert (parts.holdout.count, parts.validation.count) == (14 * 30, 7 * 30)
    assert parts.train.last < parts.validation.first < parts.holdout.first < parts.holdout.last


def test_rows_of_one_moment_are_never_on_both_sides_of_a_cut(trips: pa.Table) -> None:
    daily = trips.set_column(1, "at", pc.floor_temporal(trips.column("at"), unit="day"))
    dataset = assemble(daily, data_of(), KIND)
    parts = divide(dataset, Split(), KIND)
    days = [set(dataset.timestamp[part.rows]) for part in (parts.train, parts.validation, parts.holdout)]
    assert not days[0] & days[1]
    assert not days[1] & days[2]
    assert len(days[2]) == 14


def test_an_empty_part_is_named_with_what_there_is(trips: pa.Table) -> None:
    short = assemble(trips.slice(0, 300), data_of(), KIND)  # ten days
    with pytest.raises(
        BatchError, match=r"the train part has no rows: .* from 2013-01-01T00:00:00Z to 2013-01-10"
    ) as caught:
        divide(short, Split(), KIND)
    assert caught.value.where.endswith("validation 1w, holdout 2w")
    gap = pa.concat_tables([trips.slice(0, 2000), trips.slice(2900)])
    with pytest.raises(BatchError, match="the validation part has no rows"):
        divide(assemble(gap, data_of(), KIND), Split(), KIND)


@pytest.mark.parametrize(
    ("part", "start", "stop"), [("train", 0, 2370), ("validation", 2370, 2580), ("holdout", 2580, 3000)]
)
def test_a_part_with_one_class_is_named(trips: pa.Table, part: str, start: int, stop: int) -> None:
    late = np.array(trips.column("late").to_pylist())
    late[start:stop] = True
    dataset = assemble(with_column(trips, "late", late), data_of(), KIND)
    with pytest.raises(BatchError, match=f"the {part} part has only one class: all {stop - start:,} labels are 1"):
        divide(dataset, Split(), KIND)

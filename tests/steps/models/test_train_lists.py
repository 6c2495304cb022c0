"""The lists of a ranker stay whole: in the order of rows, at every cut of the split, and at the beginning of the window."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from perennial_spec.data import Data
from perennial_spec.errors import BatchError
from perennial_spec.model import ModelKind, Split
from perennial_steps.training.dataset import Dataset, assemble, divide
from perennial_steps.training.table import read_window

KIND: ModelKind = "xgboost.ranker"
DATA = Data.model_validate(
    {"sources": {"s": "x"}, "timestamp": "at", "entity": "id", "label": {"column": "grade"}, "window": "90d"}
)
SPLIT = Split(holdout=timedelta(days=14), validation=timedelta(days=7))


@pytest.fixture
def shown() -> pa.Table:
    """100 days of lists of 2 to 6 rows whose rows lie up to five days apart, shuffled."""
    generator = np.random.default_rng(0)
    sizes = generator.integers(2, 7, 800)
    query = np.repeat(np.arange(800), sizes)
    began = np.datetime64("2013-01-05", "us") + (np.arange(800) * 10_260).astype("timedelta64[s]")
    at = began[query] + generator.integers(-5 * 86400, 1, len(query)).astype("timedelta64[s]")
    order = generator.permutation(len(query))
    return pa.table(
        {
            "id": [f"r{row}" for row in range(len(query))],
            "at": pa.array(at[order], pa.timestamp("us", "UTC")),
            "query": [f"q{number}" for number in query[order]],
            "x": generator.normal(size=len(query)),
            "grade": generator.integers(0, 4, len(query)),
        }
    )


def assembled(table: pa.Table) -> Dataset:
    return assemble(table, DATA, KIND, "query")


def changed(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def test_rows_of_a_list_lie_together_and_lists_follow_each_other_by_their_newest_row(shown: pa.Table) -> None:
    dataset = assembled(shown)
    assert dataset.group is not None
    assert set(np.diff(dataset.group)) == {0, 1}
    names = dataset.table.column("query").to_pylist()
    assert len(set(zip(names, dataset.group.tolist(), strict=True))) == len(set(names)) == 800
    assert (np.diff(dataset.timestamp) >= np.timedelta64(0)).all()
    when = dataset.column("at")
    for number in range(0, 800, 50):
        inside = dataset.group == number
        assert (dataset.timestamp[inside] == when[inside].max()).all()
        assert (np.diff(when[inside]) >= np.timedelta64(0)).all()


def test_the_list_is_no_input(shown: pa.Table) -> None:
    assert set(assembled(shown).inputs) == {"id", "at", "x"}


def test_no_list_is_cut_by_the_split_and_nothing_of_the_holdouts_time_is_trained_on(shown: pa.Table) -> None:
    dataset = assembled(shown)
    parts = divide(dataset, SPLIT, KIND)
    assert dataset.group is not None
    found = [set(dataset.group[part.rows].tolist()) for part in (parts.train, parts.validation, parts.holdout)]
    assert not (found[0] & found[1] or found[1] & found[2] or found[0] & found[2])
    assert sum(map(len, found)) == 800
    when, cut = dataset.column("at"), dataset.timestamp[-1] - np.timedelta64(14, "D")
    assert when[: parts.holdout.rows.start].max() <= cut
    assert when[parts.holdout.rows].min() < cut  # a list that began before the cut is in the holdout as a whole


def test_the_same_rows_in_another_order_make_the_same_lists(shown: pa.Table) -> None:
    once, again = assembled(shown), assembled(shown.take(np.random.default_rng(1).permutation(len(shown))))
    assert once.table.column("id").to_pylist() == again.table.column("id").to_pylist()
    np.testing.assert_array_equal(once.group, again.group)


@pytest.mark.parametrize("kind", ["int", "dictionary"])
def test_a_list_may_be_named_by_numbers_or_categories(shown: pa.Table, kind: str) -> None:
    names = shown.column("query").to_pylist()
    values = pa.array([int(name[1:]) for name in names]) if kind == "int" else pa.array(names).dictionary_encode()
    found = assembled(shown.set_column(2, "query", values))
    np.testing.assert_array_equal(found.group, assembled(shown).group)


def test_a_list_that_began_before_the_window_is_left_out(offline_lab: Any, shown: pa.Table) -> None:
    version = offline_lab.land(shown)
    data = DATA.model_copy(update={"window": timedelta(days=30)})
    rows = read_window(offline_lab.uri, version, data)
    lists = read_window(offline_lab.uri, version, data, "query")
    kept, sizes = lists.column("query").to_pylist(), shown.column("query").to_pylist()
    assert 0 < len(kept) < rows.num_rows
    assert all(kept.count(name) == sizes.count(name) for name in set(kept))


def test_lists_longer_than_the_window_are_told(offline_lab: Any, shown: pa.Table) -> None:
    version = offline_lab.land(changed(shown, "query", ["all"] * len(shown)))
    with pytest.raises(BatchError, match=r"every list in the window of .* rows begins before it") as caught:
        read_window(offline_lab.uri, version, DATA, "query")
    assert caught.value.where == "model.group of pipeline.yaml: 'query'"


def test_a_column_that_is_not_there_is_named(offline_lab: Any, shown: pa.Table) -> None:
    version = offline_lab.land(shown)
    with pytest.raises(BatchError, match="no column 'qury'; did you mean 'query'"):
        read_window(offline_lab.uri, version, DATA, "qury")


def test_a_row_without_a_list_is_told(shown: pa.Table) -> None:
    names = shown.column("query").to_pylist()
    with pytest.raises(BatchError, match=r"model\.group is null in 2 of") as caught:
        assembled(changed(shown, "query", [None, None, *names[2:]]))
    assert caught.value.where == "column 'query'"


@pytest.mark.parametrize(("grade", "what"), [(-1, "is -1 in 1 of"), (32, "is 32 in 1 of"), (0.5, "is 0.5 in 1 of")])
def test_a_label_that_is_no_grade_is_told(shown: pa.Table, grade: float, what: str) -> None:
    grades = [float(value) for value in shown.column("grade").to_pylist()]
    with pytest.raises(BatchError, match=what) as caught:
        assembled(changed(shown, "grade", [grade, *grades[1:]]))
    assert caught.value.expected == "grades of relevance: whole numbers from 0 to 31, or false and true"


def test_clicks_are_grades(shown: pa.Table) -> None:
    clicks = [value > 1 for value in shown.column("grade").to_pylist()]
    assert set(assembled(changed(shown, "grade", clicks)).label) == {0.0, 1.0}


def test_a_part_without_a_list_in_any_order_is_told(shown: pa.Table) -> None:
    with pytest.raises(BatchError, match=r"the train part has no list with labels that differ: .* lists") as caught:
        divide(assembled(changed(shown, "query", [f"q{row}" for row in range(len(shown))])), SPLIT, KIND)
    assert "model.group" in caught.value.next

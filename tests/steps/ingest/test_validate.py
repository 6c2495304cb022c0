"""A version of the data is validated once; what fails is told with its figures and kept out of training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from deltalake import DeltaTable

from perennial_spec.step import StepResult, Verdict, parse_result
from perennial_spec.validation import latest_passed, read_record
from perennial_steps.table import read_state

BETWEEN = "expect_column_values_to_be_between"


def expecting(*expectations: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: arguments} for name, arguments in expectations]


def page(result: StepResult) -> str:
    return Path(unquote(urlsplit(result.outputs["docs_uri"]).path)).read_text()


def labelled(room: Any, version: int) -> int:
    """Rows of a version that have a label, counted."""
    rows = DeltaTable(f"{room.root}/store/demo/data", version=version).to_pyarrow_table(columns=["late"])
    return int(rows.num_rows - rows["late"].null_count)


@pytest.fixture
def landed(data_room):
    """Two months of 200 rows; x from 0 to 99.5."""
    data_room.pipeline()
    data_room.write("2024-01", 200)
    data_room.write("2024-02", 200)
    assert data_room.ingest().outputs["data_version"] == 1
    return data_room


def test_expectations_that_hold_pass_and_are_documented(landed) -> None:
    landed.pipeline(
        expectations=expecting(
            (BETWEEN, {"column": "x", "min_value": 0, "max_value": 100}),
            (BETWEEN, {"column": "at", "min_value": "2024-01-01", "max_value": "2024-03-01 00:00:00"}),
            ("expect_column_values_to_be_in_set", {"column": "place", "value_set": ["a", "b", "c"]}),
            ("expect_column_to_exist", {"column": "late"}),
        )
    )
    result = landed.validate(1)
    assert result.verdict is Verdict.PASS, result.failure
    assert result.outputs["data_version"] == 1
    assert result.outputs["warnings"] == []
    assert "x" in page(result)
    record = latest_passed(str(landed.root / "store"), "demo")
    assert record is not None
    assert (record.data_version, record.rows, record.passed) == (1, 400, True)
    assert record.labelled == labelled(landed, 1) > 0
    earlier = landed.validate(0)
    assert earlier.verdict is Verdict.PASS
    first = read_record(str(landed.root / "store"), "demo", 0)
    assert first is not None
    assert first.labelled == labelled(landed, 0) < record.labelled
    assert record.last is not None
    assert record.last.isoformat() == "2024-02-09T07:00:00+00:00"
    assert record.checks == result.outputs["checks"]


def test_one_that_stops_fails_with_expectation_column_figures_and_docs(landed) -> None:
    landed.pipeline(expectations=expecting((BETWEEN, {"column": "x", "min_value": 1, "max_value": 90})))
    result = landed.validate(1)
    assert result.verdict is Verdict.FAIL
    assert result.failure is not None
    for word in (
        BETWEEN,
        "on x",
        "min_value=1, max_value=90",
        "42 of 400 values (10.5 %)",
        "for example 0.0, 0.5, 90.5",
    ):
        assert word in result.failure.message
    assert f"docs: {result.outputs['docs_uri']}" in result.failure.message
    assert "Failed" in page(result)
    store = str(landed.root / "store")
    assert latest_passed(store, "demo") is None
    record = read_record(store, "demo", 1)
    assert record is not None
    assert [(one.name, one.column) for one in record.failed] == [(BETWEEN, "x")]


def test_one_that_warns_is_told_and_lets_the_data_pass(landed) -> None:
    expectations = expecting(("expect_column_mean_to_be_between", {"column": "x", "max_value": 1, "severity": "warn"}))
    landed.pipeline(expectations=expectations)
    result = landed.validate(1)
    assert result.verdict is Verdict.PASS
    (warning,) = result.outputs["warnings"]
    assert "expect_column_mean_to_be_between on x: expected max_value=1; observed 49.75" in warning
    assert "1 with a warning" in result.summary


def test_a_version_is_evaluated_once_and_again_only_for_other_expectations(
    landed, monkeypatch: pytest.MonkeyPatch
) -> None:
    landed.pipeline(expectations=expecting((BETWEEN, {"column": "x", "min_value": 1})))
    first = landed.validate(1)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "great_expectations", None)  # importing it would fail
        patch.setitem(sys.modules, "pyarrow", None)
        again = landed.validate(1)
    assert (again.verdict, again.outputs, again.failure) == (first.verdict, first.outputs, first.failure)
    landed.pipeline(expectations=expecting((BETWEEN, {"column": "x", "min_value": 0})))
    assert landed.validate(1).verdict is Verdict.PASS


def test_the_docs_of_earlier_versions_stay_listed(landed) -> None:
    landed.pipeline(expectations=expecting((BETWEEN, {"column": "x", "min_value": 0})))
    pages = [page(landed.validate(version)) for version in (0, 1)]
    index = (landed.root / "store/demo/data_docs/index.html").read_text()
    assert len(pages) == 2
    assert "data-version-0" in index
    assert "data-version-1" in index


def test_only_the_window_is_looked_at(landed) -> None:
    landed.pipeline(
        data={"window": "10d"},
        model={"kind": "xgboost.classifier", "split": {"holdout": "2d", "validation": "1d"}},
        expectations=expecting(("expect_table_row_count_to_be_between", {"max_value": 200})),
    )
    result = landed.validate(1)
    assert result.verdict is Verdict.PASS, result.failure
    assert result.metrics["rows"] == 200


def test_without_expectations_the_platforms_own_checks_are_made_without_great_expectations(landed) -> None:
    landed.pipeline()
    process = landed.start(
        landed.request("validate", inputs={"ingest": {"data_version": 1}}), PYTHONPROFILEIMPORTTIME="1"
    )
    _, log = process.communicate(timeout=120)
    result = parse_result((landed.root / "result.json").read_text())
    assert (result.verdict, result.outputs["docs_uri"]) == (Verdict.PASS, None)
    assert "great_expectations" not in log


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELECT *, NULL::DOUBLE AS empty FROM events", ["on empty", "null in all 400 rows of the window"]),
        (
            'SELECT *, CASE WHEN month("at") = 1 THEN 1.5 END AS gone FROM events',
            ["on gone", "null in all 168 rows of the newest 7 days; before, 86% had a value"],
        ),
        ("SELECT * REPLACE (1 AS late) FROM events", ["on late", "all 400 labels of the window are 1", "both classes"]),
    ],
)
def test_what_no_model_can_be_trained_on_is_stopped_without_an_expectation(
    landed, query: str, words: list[str]
) -> None:
    landed.pipeline(query=query)
    version = landed.ingest().outputs["data_version"]
    result = landed.validate(version)
    assert result.verdict is Verdict.FAIL
    assert result.failure is not None
    for word in ["perennial_", *words]:
        assert word in result.failure.message


def test_a_column_that_is_seldom_filled_may_be_empty_for_some_days(landed) -> None:
    landed.pipeline(query='SELECT *, CASE WHEN x IN (1, 2) AND month("at") = 1 THEN 1.5 END AS seldom FROM events')
    version = landed.ingest().outputs["data_version"]
    assert landed.validate(version).verdict is Verdict.PASS


def test_a_window_without_labels_is_stopped(data_room) -> None:
    data_room.pipeline(
        query='SELECT * REPLACE (CASE WHEN month("at") = 1 THEN late END AS late) FROM events',
        data={"window": "5d", "label": {"column": "late", "arrives_after": "40000d"}},
        model={"kind": "xgboost.regressor", "split": {"holdout": "2d", "validation": "1d"}},
        evaluation={"metric": "rmse", "gates": [{"metric": "rmse", "max": 1}]},
    )
    data_room.write("2024-01", 30)
    data_room.write("2024-02", 200)
    assert data_room.ingest().verdict is Verdict.PASS
    result = data_room.validate(1)
    assert result.failure is not None
    assert "the label is null in all" in result.failure.message


@pytest.mark.parametrize(
    ("expectation", "at", "words"),
    [
        (
            ("expect_column_value_to_be_between", {"column": "x"}),
            "- expect_column_value_to",
            [f"did you mean '{BETWEEN}'?", "no expectation named"],
        ),
        (
            (BETWEEN, {"column": "x", "min_valeu": 1}),
            "min_valeu:",
            ["argument 'min_valeu'", "did you mean 'min_value'?", "max_value"],
        ),
        ((BETWEEN, {"column": "xx", "min_value": 1}), "column:", ["the column 'xx'", "one of id, at, x, place, late"]),
        ((BETWEEN, {"column": "x"}), BETWEEN, ["min_value and max_value cannot both be None"]),
        (
            (BETWEEN, {"column": "place", "min_value": 1}),
            BETWEEN,
            ["cannot be evaluated on place", "fits the type of its column"],
        ),
    ],
    ids=["name", "argument", "column", "bounds", "type"],
)
def test_an_expectation_that_is_wrong_is_the_specs_fault(landed, expectation, at: str, words: list[str]) -> None:
    pipeline = landed.pipeline(expectations=expecting(expectation))
    result = landed.validate(1)
    assert result.verdict is Verdict.FAIL
    assert result.failure is not None
    assert result.failure.type == "SpecError"
    line = int(result.failure.message.split("pipeline.yaml:")[1].split(":")[0])
    assert at in (pipeline.folder / "pipeline.yaml").read_text().splitlines()[line - 1]
    for word in words:
        assert word in result.failure.message
    assert read_record(str(landed.root / "store"), "demo", 1) is None


def test_values_of_sensitive_columns_are_not_told(landed) -> None:
    landed.pipeline(
        data={"sensitive": ["place"]},
        expectations=expecting(("expect_column_values_to_be_in_set", {"column": "place", "value_set": ["zz"]})),
    )
    result = landed.validate(1)
    assert result.failure is not None
    assert "400 of 400 values (100 %) are not so" in result.failure.message
    assert "for example" not in result.failure.message


def test_a_version_that_is_not_there(landed) -> None:
    result = landed.validate(7)
    assert result.verdict is Verdict.FAIL
    assert result.failure is not None
    assert "there is no version 7 of the data" in result.failure.message
    assert read_state(landed.table).version == 1


def test_a_version_before_any_ingest(data_room) -> None:
    data_room.pipeline()
    result = data_room.validate(0)
    assert result.failure is not None
    assert "there is no version 0 of the data" in result.failure.message
    assert "perennial step ingest" in result.failure.message

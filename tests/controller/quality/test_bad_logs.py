"""What should not be in the logs is left out, counted, and never a reason to retrain."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from deltalake import DeltaTable

from perennial_spec import logs as log_names

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def seen(found: dict[str, dict[tuple[str, ...], float]], what: str) -> dict[str, float]:
    """Outcomes that were counted."""
    return {key[0]: value for key, value in found[f"perennial_quality_{what}_total"].items() if value}


@pytest.fixture
def two(flights: Any, prediction: Any, label: Any) -> Any:
    """Two predictions with labels: everything right."""
    flights.predict([prediction("e1", "1", 0.9, flights.ago(1)), prediction("e2", "1", 0.1, flights.ago(1))])
    flights.label([label("e1", 1.0, flights.now), label("e2", 0.0, flights.now)])
    return flights


NO_NUMBER = [float("nan"), float("inf"), float("-inf"), None]


def test_what_is_no_probability_or_no_outcome_is_invalid(two: Any, prediction: Any, label: Any) -> None:
    exporter = two.exporter()
    before = two.exported(exporter)["perennial_quality"]
    wrong = [*NO_NUMBER, 1.5, -0.1]
    two.predict([prediction(f"x{n}", "1", score, two.ago(1)) for n, score in enumerate(wrong)])
    two.predict([prediction("y", "1", 0.5, two.ago(1))])
    two.label([label("y", value, two.now) for value in [*NO_NUMBER, 7.0, 0.5]])
    two.label([label(None, 1.0, two.now)])
    found = two.exported(exporter)
    assert found["perennial_quality"] == before
    assert seen(found, "predictions") == {"kept": 3, "invalid": 6}
    assert seen(found, "labels") == {"joined": 2, "invalid": 7}


def test_a_regressor_may_have_any_finite_score(flights: Any, prediction: Any, label: Any) -> None:
    flights.spec("xgboost.regressor", "mae")
    flights.predict([prediction("e", "1", -700.0, flights.ago(1)), prediction("x", "1", float("inf"), flights.ago(1))])
    flights.label([label("e", 300.0, flights.now)])
    found = flights.exported(flights.exporter())
    assert found["perennial_quality"]["1", "mae"] == 1000
    assert seen(found, "predictions") == {"kept": 1, "invalid": 1}
    assert "perennial_prediction_confidence" not in found
    assert "perennial_quality_estimated" not in found


def test_a_model_that_answers_with_text_is_not_measured(flights: Any, prediction: Any, label: Any) -> None:
    flights.predict([prediction(f"e{n}", "1", None, flights.ago(1)) for n in range(5)])
    flights.label([label(f"e{n}", 1.0, flights.now) for n in range(5)])
    found = flights.exported(flights.exporter())
    assert "perennial_quality_labels" not in found
    assert seen(found, "predictions") == {"invalid": 5}
    assert seen(found, "labels") == {"unknown": 5}


def test_labels_are_counted_by_what_became_of_them(two: Any, prediction: Any, label: Any) -> None:
    exporter = two.exporter()
    two.exported(exporter)
    two.label([label("e1", 1.0, two.now), label("e2", 1.0, two.now + timedelta(seconds=1))])
    two.label([label("e3", 1.0, two.now), label("e3", 1.0, two.now), label("e3", 0.0, two.now)])
    found = two.exported(exporter)
    assert seen(found, "labels") == {"joined": 2, "repeated": 2, "contradicting": 2, "unknown": 1}
    assert found["perennial_quality"]["1", "brier"] == pytest.approx((0.01 + 0.81) / 2), "the newest counts"
    two.predict([prediction("e3", "1", 0.6, two.ago(1))])
    found = two.exported(exporter)
    assert seen(found, "labels") == {"joined": 3, "repeated": 2, "contradicting": 2, "unknown": 1}
    assert found["perennial_quality"]["1", "brier"] == pytest.approx((0.01 + 0.81 + 0.36) / 3)


def test_a_restart_counts_no_row_again(two: Any, label: Any) -> None:
    two.now += timedelta(minutes=10)
    exporter = two.exporter()
    found = two.exported(exporter)
    assert found["perennial_quality_labels"] == {("1",): 2}
    assert seen(found, "labels") == seen(found, "predictions") == {}


def test_clocks_that_are_wrong_do_not_matter(two: Any, prediction: Any, label: Any) -> None:
    exporter = two.exporter()
    before = two.exported(exporter)
    far = two.now + timedelta(days=36_500)
    two.predict([prediction("e1", "1", 0.2, at) for at in (far, EPOCH, EPOCH - timedelta(days=9000))])
    two.label([label("e1", 0.0, at) for at in (far, EPOCH - timedelta(days=9000))])
    found = two.exported(exporter)
    assert found["perennial_quality"] == before["perennial_quality"]
    assert seen(found, "predictions") == {"kept": 2, "future": 1, "past": 2}
    assert seen(found, "labels") == {"joined": 2, "future": 1, "contradicting": 1}
    assert found["perennial_quality_label_lag_seconds"][()] < 120


def test_ten_thousand_values_of_a_slice_are_twenty_and_the_rest(flights: Any, prediction: Any, label: Any) -> None:
    flights.spec(slices="origin")
    values = [f"often {n % 20}" for n in range(100)] + [f"value {n} " + "x" * n for n in range(12_000)]
    flights.predict(
        prediction(f"e{n}", "1", 0.5, flights.ago(1), inputs=f'{{"origin": "{value}"}}')
        for n, value in enumerate(values)
    )
    flights.label(label(f"e{n}", float(n % 2), flights.now) for n in range(len(values)))
    labels = flights.exported(flights.exporter())["perennial_quality_slice_labels"]
    assert labels == {**{("1", "origin", f"often {n}"): 5 for n in range(20)}, ("1", "origin", "other"): 12_000}


def test_inputs_that_cannot_be_read_are_missing(flights: Any, prediction: Any, label: Any) -> None:
    flights.spec(slices="origin")
    texts = [None, "", "{", "[1]", "{}", '{"origin": null}', '{"origin": ""}', '{"origin": [1]}', '{"origin": 4.0}']
    texts += ['{"origin": true}', '{"origin": 4}']
    flights.predict(prediction(f"e{n}", "1", 0.5, flights.ago(1), inputs=text) for n, text in enumerate(texts))
    flights.label(label(f"e{n}", 1.0, flights.now) for n in range(len(texts)))
    labels = flights.exported(flights.exporter())["perennial_quality_slice_labels"]
    assert {key[2]: value for key, value in labels.items()} == {"missing": 7, "other": 1, "4": 2, "true": 1}


def test_rows_that_are_deleted_no_longer_count(two: Any) -> None:
    exporter = two.exporter()
    assert two.exported(exporter)["perennial_quality_labels"] == {("1",): 2}
    DeltaTable(two.uri(log_names.LABELS)).delete("entity = 'e1'")
    assert two.exported(exporter)["perennial_quality_labels"] == {("1",): 1}


def test_a_table_that_vanishes_and_comes_back_is_read_anew(two: Any, prediction: Any, label: Any) -> None:
    exporter = two.exporter()
    for _ in range(3):
        two.exported(exporter)
    for name in (log_names.PREDICTIONS, log_names.LABELS):
        shutil.rmtree(two.uri(name))
    assert "perennial_quality" not in two.exported(exporter)
    for number in range(4):  # another table, with more commits than the one before
        two.predict([prediction(f"n{number}", "2", 0.8, two.ago(1))])
    two.label([label("n0", 1.0, two.now)])
    found = two.exported(exporter)
    assert found["perennial_quality_labels"] == {("2",): 1}
    assert found["perennial_quality_labelled_share"] == {("2",): 0.25}


def test_a_table_that_is_replaced_between_two_looks_is_read_anew(two: Any, prediction: Any) -> None:
    exporter = two.exporter()
    two.exported(exporter)
    shutil.rmtree(two.uri(log_names.PREDICTIONS))
    for number in range(3):
        two.predict([prediction(f"n{number}", "2", 0.8, two.ago(1))])
    assert two.exported(exporter)["perennial_quality_labels"] == {("2",): 0}


def test_a_file_that_cannot_be_read_counts_the_others_once(two: Any, prediction: Any) -> None:
    exporter = two.exporter()
    folder = two.folder / "store" / "flights" / log_names.PREDICTIONS
    two.predict([prediction("e3", "1", 0.5, two.ago(1))])
    newest = max(folder.glob("*.parquet"), key=lambda file: file.stat().st_mtime_ns)
    text = newest.read_bytes()
    newest.write_bytes(b"no Parquet")
    for _ in range(3):
        assert two.exported(exporter)["perennial_quality_logs_up"] == {(): 0}
    newest.write_bytes(text)
    assert seen(two.exported(exporter), "predictions") == {"kept": 3}


def test_a_log_that_is_no_table_is_told_and_harms_no_other(two: Any) -> None:
    commit = two.folder / "store" / "flights" / log_names.LABELS / "_delta_log" / f"{1:020d}.json"
    commit.write_text("{")
    exporter = two.exporter()
    found = two.exported(exporter)
    assert found["perennial_quality_logs_up"] == {(): 0}
    commit.unlink()
    found = two.exported(exporter)
    assert found["perennial_quality_logs_up"] == {(): 1}
    assert found["perennial_quality_labels"] == {("1",): 2}

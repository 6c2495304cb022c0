"""How far the window reaches, how late labels are, and that it holds no more than it must."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from perennial_controller.quality.followed import Measured
from perennial_controller.quality.labels import LabelRows
from perennial_controller.quality.predictions import PredictionRows
from perennial_controller.quality.slices import Slices
from perennial_controller.quality.window import Length, Window
from perennial_spec.pipeline import PipelineSpec

HOUR = 3600 * 10**6


def test_it_reaches_back_by_the_time_that_labels_take(flights: Any, prediction: Any, label: Any) -> None:
    flights.spec(after="3h")
    flights.predict([prediction("e1", "1", 0.9, flights.ago(200)), prediction("e2", "1", 0.9, flights.ago(250))])
    flights.label([label("e1", 1.0, flights.now), label("e2", 1.0, flights.now)])
    assert flights.exported(flights.exporter())["perennial_quality_labels"] == {("1",): 1}


def test_the_lag_is_the_median_from_prediction_to_label(flights: Any, prediction: Any, label: Any) -> None:
    flights.predict([prediction(f"e{n}", "1", 0.5, flights.ago(30 + n)) for n in range(3)])
    flights.label([label("e0", 1.0, flights.ago(29)), label("e1", 1.0, flights.ago(11))])
    flights.label([label("e2", 0.0, flights.ago(27))])
    found = flights.exported(flights.exporter())
    assert found["perennial_quality_label_lag_seconds"][()] == pytest.approx(5 * 60)
    assert found["perennial_quality_last_label_timestamp_seconds"][()] == pytest.approx(flights.now.timestamp(), abs=60)


def test_what_has_fallen_due_of_late_should_have_a_label(flights: Any, prediction: Any, label: Any) -> None:
    flights.spec(after="30m")  # of an hour, a seventh is lately: 30 to 38.6 minutes ago
    flights.predict(prediction(f"e{ago}", "1", 0.5, flights.ago(ago)) for ago in (10, 29, 31, 34, 36, 38, 40, 80))
    exporter = flights.exporter()
    found = flights.exported(exporter)
    assert found["perennial_quality_due_predictions"] == {(): 4}
    assert found["perennial_quality_due_labelled_share"] == {(): 0}
    flights.label(label(f"e{ago}", 1.0, flights.now) for ago in (10, 34, 36, 38, 40))
    assert flights.exported(exporter)["perennial_quality_due_labelled_share"] == {(): 0.75}
    flights.now += timedelta(minutes=3)
    assert flights.exported(exporter)["perennial_quality_due_predictions"] == {(): 3}, "29 for 36 and 38"
    flights.now += timedelta(hours=1)
    found = flights.exported(exporter)
    assert found["perennial_quality_due_predictions"] == {(): 0}
    assert "perennial_quality_due_labelled_share" not in found


def test_estimates_are_of_those_that_wait(flights: Any, prediction: Any, label: Any) -> None:
    flights.predict(prediction(f"e{n}", "1", n / 10, flights.ago(1)) for n in range(10))
    flights.label(label(f"e{n}", float(n > 4), flights.now) for n in range(8))
    found = flights.exported(flights.exporter())
    assert found["perennial_quality_waiting_predictions"] == {("1",): 2}
    assert found["perennial_quality_estimated"]["1", "brier"] == pytest.approx((0.8 * 0.2 + 0.9 * 0.1) / 2)
    assert found["perennial_prediction_confidence"]["1",] == pytest.approx(sum(max(n, 10 - n) for n in range(10)) / 100)


def test_memory_is_that_of_one_window_however_long_it_runs() -> None:
    window = Window(Length(HOUR), Slices(["day"]))
    counts: Counter[str] = Counter()
    held = []
    for turn in range(400):  # 40 windows
        now = turn * HOUR // 10
        names = np.arange(turn * 100, turn * 100 + 100)
        codes = np.fromiter((window.slices.all[0].code(f"day {turn}") for _ in names), np.uint16, 100)
        at = np.full(100, now)
        rows = PredictionRows(names, names, np.ones(100, bool), np.full(100, 0.5), at, {"day": codes})
        window.add_predictions("1", rows, counts)
        news = np.ones(100, bool)
        window.add_entity_labels(LabelRows(names, np.ones(100), at, at, news), counts)
        window.add_own_labels(LabelRows(names + 10**6, np.ones(100), at, at, news), counts)  # of nobody
        [joined] = window.join(now).values()
        assert len(joined.labels) == min(turn + 1, 10) * 100
        held.append(sum(sizes(window)))
    assert max(held[200:]) <= max(held[:50])
    assert counts == {"joined": 40_000, "unknown": 40_000, "repeated": 0, "contradicting": 0}


def sizes(window: Window) -> list[int]:
    """Rows and keys that are held anywhere."""
    truth, found = window._truth, [len(each._codes) for each in window.slices.all]
    keys = [truth.own._keys, truth.entity._keys]
    for version in window._versions.values():
        keys += [version._ids, version._entities]
        found += [len(version), len(version._labelled._rows), len(version._waiting._rows)]
    found += [len(run.keys) for each in keys for run in (each._old, each._young)]
    return [*found, len(truth.own.columns), len(truth.entity.columns)]


def test_slices_of_gates_are_measured_as_far_as_they_are_logged() -> None:
    gates = [{"slice": name, "metric": "roc_auc", "min": 0.5} for name in ("origin", "carrier", "mail")]
    spec = PipelineSpec.model_validate(
        {
            "apiVersion": "perennial/v1",
            "name": "flights",
            "owner": {"team": "ops", "contact": "ops@example.com"},
            "data": {
                "sources": {"f": "f.parquet"},
                "timestamp": "at",
                "entity": "id",
                "label": {"column": "late", "arrives_after": "6h"},
                "sensitive": ["carrier"],
                "redact": {"mail": "hash"},
            },
            "model": {"kind": "xgboost.classifier"},
            "evaluation": {"metric": "roc_auc", "gates": gates},
            "monitoring": {"quality": {"metric": "roc_auc", "min": 0.6, "slices": ["gate", "origin"]}},
        }
    )
    wanted = Measured.of(spec)
    assert wanted.slices == ("gate", "origin")
    assert wanted.length.whole == (7 * 24 + 6) * HOUR

"""The alerts of quality: measured, estimated, by slices; and of labels that do not come."""

from __future__ import annotations

from typing import Any

import pytest

from perennial_spec import names

BASE = "https://github.com/perennial-ml/perennial/blob/main/monitoring/runbooks"
MEASURED = {"pipeline": "demo", "version": "1", "job": "quality", "instance": "q:1"}
SLICE = {"slice": "origin", "metric": "roc_auc"}
LATE = 70
"""A step after a quarter of an hour."""


@pytest.fixture
def judged(world):
    """A champion whose roc_auc must be 0.68 on at least 500 labels."""
    world.steps = 101
    world.server().pipeline().champion()
    world.set(names.QUALITY_MIN, 0.68, pipeline="demo", metric="roc_auc", job="controller")
    return world.set(names.QUALITY_MIN_LABELS, 500, pipeline="demo", job="controller")


def measured(
    world: Any,
    value: float,
    labels: int = 800,
    *,
    half: float | None = 0.02,
    version: str = "1",
    metric: str = "roc_auc",
) -> Any:
    """Quality with an interval of `half` to each side, or without one."""
    by = {**MEASURED, "version": version}
    if half is not None:
        world.set(names.QUALITY_LOWER, value - half, **by, metric=metric)
        world.set(names.QUALITY_UPPER, value + half, **by, metric=metric)
    return world.set(names.QUALITY, value, **by, metric=metric).set(names.QUALITY_LABELS, labels, **by)


# -- measured --


def test_low_quality_fires_with_its_figures(judged) -> None:
    measured(judged, 0.61)
    judged.check_alert(
        names.ALERT_QUALITY,
        40,
        {"pipeline": "demo", "version": "1", "metric": "roc_auc", "severity": "warning", "action": "retrain"},
        {
            "summary": "demo: live roc_auc 0.610 is beyond its limit 0.680",
            "description": "Version 1 of demo has roc_auc 0.610 on 800 labels; action: retrain. "
            "Too few rows within the last day to say whether inputs have drifted.",
            "runbook_url": f"{BASE}/PerennialQualityLow.md",
        },
    )


@pytest.mark.parametrize(
    ("value", "labels", "half", "version"),
    [(0.69, 800, 0.02, "1"), (0.61, 499, 0.02, "1"), (0.61, 800, 0.08, "1"), (0.61, 800, 0.02, "2")],
    ids=["good", "few labels", "chance", "not champion"],
)
def test_quality_is_silent(judged, value: float, labels: int, half: float, version: str) -> None:
    measured(judged, value, labels, half=half, version=version)
    assert judged.alertnames(40) == []


def test_a_metric_without_an_interval_is_judged_by_its_figure(judged) -> None:
    measured(judged, 0.67, half=None)
    assert judged.alertnames(40) == [names.ALERT_QUALITY]


@pytest.mark.parametrize(("half", "firing"), [(0.05, ["log_loss"]), (0.2, [])])
def test_a_metric_that_must_stay_low_fires_when_its_lower_end_is_high(judged, half: float, firing: list[str]) -> None:
    judged.set(names.QUALITY_MAX, 0.5, pipeline="demo", metric="log_loss", job="controller")
    measured(measured(judged, 0.7), 0.6, half=half, metric="log_loss")
    assert [labels["metric"] for labels in judged.firing(40)] == firing


def test_quality_asks_for_a_retraining_only_when_the_spec_allows_it(world) -> None:
    world.server().pipeline(on=["drift"]).champion()
    world.set(names.QUALITY_MIN, 0.68, pipeline="demo", metric="roc_auc")
    measured(world.set(names.QUALITY_MIN_LABELS, 500, pipeline="demo"), 0.5)
    assert [labels["action"] for labels in world.firing(40)] == ["none"]


def test_it_resolves_when_a_better_champion_serves(world) -> None:
    world.server().pipeline().champion("1", end=40).champion("2", start=40)
    world.set(names.QUALITY_MIN, 0.68, pipeline="demo", metric="roc_auc")
    measured(world.set(names.QUALITY_MIN_LABELS, 500, pipeline="demo"), 0.5)
    assert world.alertnames(39) == [names.ALERT_QUALITY]
    assert world.alertnames(70) == []


@pytest.mark.parametrize("instance", ["q:1", "s:1"], ids=["exporter", "server"])
def test_a_restart_does_not_end_it(judged, instance: str) -> None:
    measured(judged, 0.5).unscraped(instance, 40, 48)
    for step in (39, 44, 47, 60):
        assert names.ALERT_QUALITY in judged.alertnames(step)


def test_it_comes_back_after_a_time_without_prometheus(judged) -> None:
    measured(judged, 0.5)
    for values in judged.series.values():
        values[20:60] = [None] * 40  # nothing was scraped
    assert names.ALERT_QUALITY in judged.alertnames(62)


def test_without_an_exporter_it_is_silent(judged) -> None:
    measured(judged, 0.5).unscraped("q:1", 10, 81)
    assert names.ALERT_QUALITY not in judged.alertnames(60)


# -- estimated --


def estimated(world: Any, value: float, waiting: int = 2000, labels: int = 800) -> Any:
    measured(world, 0.75, labels)
    world.set(names.QUALITY_ESTIMATED, value, **MEASURED, metric="roc_auc")
    return world.set(names.QUALITY_WAITING, waiting, **MEASURED)


def test_a_low_estimate_fires_and_never_retrains(judged) -> None:
    estimated(judged, 0.6)
    assert judged.alertnames(50) == []
    judged.check_alert(
        names.ALERT_QUALITY_ESTIMATED,
        LATE,
        {"pipeline": "demo", "version": "1", "metric": "roc_auc", "severity": "warning", "action": "none"},
        {
            "summary": "demo: roc_auc of predictions without labels is estimated at 0.600, beyond its limit 0.680",
            "description": "2000 predictions of version 1 of demo have no label yet. By their probabilities, calibrated on the labels that "
            "have come, their roc_auc should be 0.600.",
            "runbook_url": f"{BASE}/PerennialQualityEstimatedLow.md",
        },
    )


@pytest.mark.parametrize(
    ("value", "waiting", "labels"),
    [(0.7, 2000, 800), (0.6, 499, 800), (0.6, 2000, 499)],
    ids=["good", "few predictions", "too few labels to calibrate by"],
)
def test_an_estimate_is_silent(judged, value: float, waiting: int, labels: int) -> None:
    estimated(judged, value, waiting, labels)
    assert judged.alertnames(LATE) == []


def test_an_estimate_resolves_some_minutes_after_its_series(judged) -> None:
    estimated(judged, 0.6).set(names.QUALITY_ESTIMATED, 0.6, end=66, **MEASURED, metric="roc_auc")
    fired = [judged.alertnames(step) == [names.ALERT_QUALITY_ESTIMATED] for step in (65, 75, 95)]
    assert fired == [True, True, False]


# -- slices --


@pytest.fixture
def gated(judged):
    """A gate: roc_auc at least 0.6 in every origin with 200 rows."""
    judged.set(names.QUALITY_SLICE_MIN, 0.6, pipeline="demo", job="controller", **SLICE)
    return judged.set(names.QUALITY_SLICE_MIN_LABELS, 200, pipeline="demo", job="controller", **SLICE)


def sliced(world: Any, value: float, labels: int = 300, half: float = 0.02) -> Any:
    """Two origins, one of which is good."""
    measured(world, 0.75)
    for origin, at in (("EWR", value), ("JFK", 0.8)):
        by = {**MEASURED, **SLICE, "value": origin}
        world.set(names.QUALITY_SLICE, at, **by)
        world.set(names.QUALITY_SLICE_LOWER, at - half, **by).set(names.QUALITY_SLICE_UPPER, at + half, **by)
        world.set(names.QUALITY_SLICE_LABELS, labels, **MEASURED, slice="origin", value=origin)
    return world


def test_a_bad_value_of_a_slice_fires_by_its_name(gated) -> None:
    sliced(gated, 0.55)
    by = {"pipeline": "demo", "version": "1", "metric": "roc_auc", "slice": "origin", "value": "EWR"}
    assert gated.alertnames(50) == []
    gated.check_alert(
        names.ALERT_QUALITY_SLICE,
        LATE,
        {**by, "severity": "warning", "action": "none"},
        {
            "summary": "demo: live roc_auc 0.550 where origin is EWR is beyond its gate",
            "description": "Where origin is EWR, version 1 of demo has roc_auc 0.550 on 300 labels, beyond what the gate on the slice "
            "origin let it serve with.",
            "runbook_url": f"{BASE}/PerennialQualitySliceLow.md",
        },
    )


@pytest.mark.parametrize(
    ("value", "labels", "half"),
    [(0.61, 300, 0.02), (0.55, 199, 0.02), (0.55, 300, 0.06)],
    ids=["good", "few", "chance"],
)
def test_a_slice_is_silent(gated, value: float, labels: int, half: float) -> None:
    sliced(gated, value, labels, half)
    assert gated.alertnames(LATE) == []


def test_a_slice_without_a_gate_is_silent(judged) -> None:
    sliced(judged, 0.3)
    assert judged.alertnames(LATE) == []


def test_a_slices_error_has_an_upper_limit(judged) -> None:
    by = {"slice": "origin", "metric": "log_loss"}
    judged.set(names.QUALITY_SLICE_MAX, 0.5, pipeline="demo", job="controller", **by)
    judged.set(names.QUALITY_SLICE_MIN_LABELS, 200, pipeline="demo", job="controller", **by)
    judged.set(names.QUALITY_SLICE, 0.6, **MEASURED, **by, value="EWR")
    judged.set(names.QUALITY_SLICE_LOWER, 0.55, **MEASURED, **by, value="EWR")
    judged.set(names.QUALITY_SLICE_LABELS, 300, **MEASURED, slice="origin", value="EWR")
    assert judged.alertnames(LATE) == [names.ALERT_QUALITY_SLICE]


# -- labels --


def due(world: Any, share: Any, predictions: int = 400) -> Any:
    by = {"pipeline": "demo", "job": "quality", "instance": "q:1"}
    world.set(names.QUALITY_MIN_LABELLED, 0.5, pipeline="demo", job="controller")
    world.set(names.LABEL_ARRIVES_AFTER, 21600, pipeline="demo", job="controller")
    return world.set(names.QUALITY_DUE_LABELLED_SHARE, share, **by).set(names.QUALITY_DUE, predictions, **by)


def test_labels_that_do_not_come_fire(judged) -> None:
    due(judged, 0.25)
    assert judged.alertnames(50) == []
    judged.check_alert(
        names.ALERT_LABELS_LATE,
        LATE,
        {"pipeline": "demo", "severity": "warning", "action": "none"},
        {
            "summary": "demo: only 25% of the predictions that are due have a label",
            "description": "Labels of demo should arrive within 6h 0m 0s (data.label.arrives_after). Of 400 predictions that fell due of "
            "late, 25% have one. Until labels come, live quality is of older predictions.",
            "runbook_url": f"{BASE}/PerennialLabelsLate.md",
        },
    )


@pytest.mark.parametrize(("share", "predictions"), [(0.6, 400), (0.1, 49)], ids=["enough", "few predictions"])
def test_labels_are_in_time(judged, share: float, predictions: int) -> None:
    due(judged, share, predictions)
    assert judged.alertnames(LATE) == []


def test_labels_that_come_after_all_resolve_it(judged) -> None:
    due(judged, [0.2] * 66 + [0.9] * 35)
    assert [judged.alertnames(step) == [names.ALERT_LABELS_LATE] for step in (65, 75, 95)] == [True, True, False]


def test_labels_of_a_pipeline_that_asks_for_no_quality_may_be_late(judged) -> None:
    due(judged, 0.1)
    del judged.series[next(key for key in judged.series if key.startswith(names.QUALITY_MIN_LABELLED))]
    assert judged.alertnames(LATE) == []


def unread(world: Any, up: Any) -> Any:
    return world.set(names.QUALITY_LOGS_UP, up, pipeline="demo", job="quality", instance="q:1")


def test_logs_that_cannot_be_read_fire_after_a_quarter_of_an_hour(judged) -> None:
    unread(judged, 0)
    assert judged.alertnames(50) == []
    judged.check_alert(
        names.ALERT_QUALITY_UNREAD,
        LATE,
        {"pipeline": "demo", "severity": "warning", "action": "none"},
        {
            "summary": "demo: its logs have not been readable for 15 minutes, quality is not measured",
            "description": "The exporter of quality cannot read the predictions or labels of demo. The figures of the last time hold, so "
            "that neither PerennialQualityLow nor a retraining for quality can be relied on.",
            "runbook_url": f"{BASE}/PerennialQualityUnread.md",
        },
    )


@pytest.mark.parametrize("up", [[1] * 101, [0, 0, 0, 1] * 25 + [1]], ids=["readable", "now and then not"])
def test_logs_that_are_read_are_silent(judged, up: list[int]) -> None:
    unread(judged, up)
    assert [judged.alertnames(step) for step in (LATE, 95)] == [[], []]


def test_logs_that_can_be_read_again_resolve_it(judged) -> None:
    unread(judged, [0] * 66 + [1] * 35)
    assert [judged.alertnames(step) == [names.ALERT_QUALITY_UNREAD] for step in (65, 75, 95)] == [True, True, False]


def test_a_restart_of_the_exporter_begins_the_quarter_of_an_hour_anew_and_no_exporter_is_silent(judged) -> None:
    unread(judged, [0] * 40 + [None] * 61)
    assert [judged.alertnames(step) for step in (39, LATE)] == [[], []]

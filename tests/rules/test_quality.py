"""Quality that labels show: when it is told, and when it is not."""

from __future__ import annotations

import pytest

from perennial_spec import names

BASE = "https://github.com/perennial-ml/perennial/blob/main/monitoring/runbooks"


@pytest.fixture
def judged(world):
    """A champion whose roc_auc must be 0.68 on at least 500 labels."""
    world.server().pipeline().champion()
    world.set(names.QUALITY_MIN, 0.68, pipeline="demo", metric="roc_auc", job="controller")
    return world.set(names.QUALITY_MIN_LABELS, 500, pipeline="demo", job="controller")


def measured(world, value: float, labels: int = 800, *, version: str = "1", metric: str = "roc_auc"):
    by = {"pipeline": "demo", "version": version, "job": "quality", "instance": "q:1"}
    return world.set(names.QUALITY, value, **by, metric=metric).set(names.QUALITY_LABELS, labels, **by)


def test_low_quality_fires_with_its_figures(judged) -> None:
    measured(judged, 0.61)
    judged.check_alert(
        "PerennialQualityLow",
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
    ("value", "labels", "version"),
    [(0.69, 800, "1"), (0.61, 499, "1"), (0.61, 800, "2")],
    ids=["good", "few labels", "not champion"],
)
def test_quality_is_silent(judged, value: float, labels: int, version: str) -> None:
    measured(judged, value, labels, version=version)
    assert judged.alertnames(40) == []


def test_a_metric_that_must_stay_low_fires_when_it_is_high(judged) -> None:
    judged.set(names.QUALITY_MAX, 0.5, pipeline="demo", metric="log_loss", job="controller")
    measured(judged, 0.7).set(
        names.QUALITY, 0.6, pipeline="demo", version="1", metric="log_loss", job="quality", instance="q:1"
    )
    assert [labels["metric"] for labels in judged.firing(40)] == ["log_loss"]


def test_quality_asks_for_a_retraining_only_when_the_spec_allows_it(world) -> None:
    world.server().pipeline(on=["drift"]).champion()
    world.set(names.QUALITY_MIN, 0.68, pipeline="demo", metric="roc_auc")
    measured(world.set(names.QUALITY_MIN_LABELS, 500, pipeline="demo"), 0.5)
    assert [labels["action"] for labels in world.firing(40)] == ["none"]

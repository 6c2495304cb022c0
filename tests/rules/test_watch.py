"""A new champion that turns out to be worse: the order to roll it back, and the news that it was."""

from __future__ import annotations

from typing import Any

import pytest

from perennial_spec import names

BASE = "https://github.com/perennial-ml/perennial/blob/main/monitoring/runbooks"
AT = {"pipeline": "demo", "version": "1"}
SERVER = {**AT, "job": "perennial-server", "instance": "s:1"}
LATE = 70


@pytest.fixture
def watched(world: Any) -> Any:
    """A champion that is watched for long; its quality must be 0.68, at most 1% of its requests may fail."""
    world.steps = 101
    world.server().pipeline().champion()
    world.set(names.WATCH_UNTIL, 1e9, **AT, job="controller", instance="c:1")
    world.set(names.QUALITY_MIN, 0.68, pipeline="demo", metric="roc_auc", job="controller")
    world.set(names.QUALITY_MIN_LABELS, 500, pipeline="demo", job="controller")
    world.set(names.ERROR_RATE_LIMIT, 0.01, pipeline="demo", job="controller")
    return world.set(names.SERVICE_MIN_REQUESTS, 100, pipeline="demo", job="controller")


def quality(world: Any, value: float) -> Any:
    by = {**AT, "job": "quality", "instance": "q:1"}
    world.set(names.QUALITY_LOWER, value - 0.02, **by, metric="roc_auc")
    world.set(names.QUALITY_UPPER, value + 0.02, **by, metric="roc_auc")
    return world.set(names.QUALITY, value, **by, metric="roc_auc").set(names.QUALITY_LABELS, 800, **by)


def requests(world: Any, failed: float, version: str = "1", since: int = 0) -> Any:
    """100 requests in each step, of which this share fails from a step on."""
    bad = [100 * failed * max(step - since, 0) for step in range(world.steps)]
    all_ = [100.0 * step for step in range(world.steps)]
    by = {**SERVER, "version": version, "protocol": "oip"}
    world.set(names.REQUESTS, [whole - part for whole, part in zip(all_, bad, strict=True)], **by, code="200")
    return world.set(names.REQUESTS, bad, **by, code="500")


def test_low_quality_of_a_watched_champion_orders_a_rollback_and_no_retraining(watched) -> None:
    quality(watched, 0.61)
    assert watched.alertnames(LATE) == [names.ALERT_REGRESSION]
    watched.check_alert(
        names.ALERT_REGRESSION,
        LATE,
        {**AT, "what": "quality", "severity": "critical", "action": "rollback"},
        {
            "summary": "demo: new champion 1 is worse than it promised: quality 0.61",
            "description": "Version 1 of demo was promoted a short while ago (deployment.watch), and its quality on labels is beyond the "
            "limit while its inputs have not moved. The controller takes the traffic back to the version before it.",
            "runbook_url": f"{BASE}/PerennialRegression.md",
        },
    )


def test_low_quality_by_chance_orders_nothing(watched) -> None:
    assert quality(watched, 0.67).alertnames(LATE) == []


def test_after_the_watch_low_quality_retrains_as_ever(watched) -> None:
    watched.set(names.WATCH_UNTIL, 900, **AT, job="controller", instance="c:1")
    quality(watched, 0.61)
    assert watched.alertnames(50) == [names.ALERT_REGRESSION]
    assert watched.alertnames(80) == [names.ALERT_QUALITY]


def test_on_inputs_that_have_moved_low_quality_retrains(watched, moved) -> None:
    quality(watched.traffic(moved, rows=100), 0.61)
    firing = watched.alertnames(LATE)
    assert names.ALERT_QUALITY in firing
    assert names.ALERT_REGRESSION not in firing


def test_failing_requests_of_a_watched_champion_order_a_rollback(watched) -> None:
    requests(watched, 0.05, since=20)
    steps = (19, LATE)
    assert watched.history(names.ALERT_REGRESSION, steps) == [False, True]
    [labels] = watched.firing(LATE, names.ALERT_REGRESSION)
    assert (labels["version"], labels["what"]) == ("1", "errors")


def test_failing_requests_of_a_challenger_are_the_rollouts_own_affair(watched) -> None:
    requests(watched, 0.0)
    requests(watched, 0.5, version="2")
    assert names.ALERT_REGRESSION not in watched.alertnames(LATE)


def test_few_requests_order_nothing(watched) -> None:
    watched.set(names.SERVICE_MIN_REQUESTS, 1e6, pipeline="demo", job="controller")
    assert names.ALERT_REGRESSION not in requests(watched, 0.5).alertnames(LATE)


def test_a_known_answer_that_is_wrong_on_every_server_orders_a_rollback(watched) -> None:
    up = [1.0] * 30 + [0.0] * 71
    watched.server("s:1", "s:2")
    for instance in ("s:1", "s:2"):
        watched.set(names.HEALTH_QUERY_UP, up, **{**SERVER, "instance": instance})
    assert watched.history(names.ALERT_REGRESSION, (29, 60)) == [False, True]


def test_a_known_answer_that_is_wrong_on_one_server_is_that_servers_fault(watched) -> None:
    watched.server("s:1", "s:2")
    watched.set(names.HEALTH_QUERY_UP, 0, **SERVER).set(names.HEALTH_QUERY_UP, 1, **{**SERVER, "instance": "s:2"})
    assert names.ALERT_REGRESSION not in watched.alertnames(LATE)


@pytest.mark.parametrize("what", ["a restart of the server", "a restart of Prometheus", "no controller"])
def test_nothing_is_ordered_by(watched, what: str) -> None:
    requests(watched, 0.0)
    quality(watched, 0.75)
    if what == "a restart of the server":
        for key in [key for key in watched.series if names.REQUESTS in key]:
            watched.series[key][60:] = [0.0] * 41
    elif what == "a restart of Prometheus":
        for values in watched.series.values():
            values[:55] = [None] * 55
    else:
        watched.series = {key: values for key, values in watched.series.items() if "c:1" not in key}
    assert names.ALERT_REGRESSION not in watched.alertnames(LATE)


def test_it_ends_when_another_version_is_champion(watched) -> None:
    quality(watched, 0.61)
    watched.champion("1", end=60).champion("2", start=60)
    assert watched.history(names.ALERT_REGRESSION, (50, 90)) == [True, False]


def test_a_rollback_by_the_platform_is_told_for_an_hour_and_then_silent(world) -> None:
    world.steps = 401
    world.server().pipeline()
    done = [0.0] * 40 + [1.0] * 361
    world.set(names.ROLLBACKS, done, pipeline="demo", result="done", job="controller", instance="c:1")
    world.set(names.ROLLBACKS, 3, pipeline="demo", result="away", job="controller", instance="c:1")
    assert world.history(names.ALERT_ROLLED_BACK, (39, 60, 250, 390)) == [False, True, True, False]
    world.check_alert(
        names.ALERT_ROLLED_BACK,
        60,
        {"pipeline": "demo", "severity": "warning", "action": "none"},
        {
            "summary": "demo: the platform has taken the traffic back from a new champion",
            "description": "A champion of demo turned out to be worse within its watch (deployment.watch), and the version before it "
            "serves again. The version keeps the verdict rolled_back and the reason.",
            "runbook_url": f"{BASE}/PerennialRolledBack.md",
        },
    )

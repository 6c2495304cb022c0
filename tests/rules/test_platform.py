"""The watchers themselves, and the data that the platform is given."""

from __future__ import annotations

import pytest

from perennial_spec import names

BASE = "https://github.com/perennial-ml/perennial/blob/main/monitoring/runbooks"


# -- data --


@pytest.mark.parametrize(("on", "action"), [(["freshness"], "retrain"), (["drift"], "none")])
def test_stale_data_fires_and_retrains_when_the_spec_allows_it(world, on: list[str], action: str) -> None:
    world.server().pipeline(on=on)
    world.set(names.DATA_FRESHNESS_LIMIT, 600, pipeline="demo", job="controller")
    world.set(names.DATA_LAST_TIMESTAMP, 0, pipeline="demo", job="controller")
    assert world.alertnames(39) == []
    world.check_alert(
        "PerennialDataStale",
        60,
        {"pipeline": "demo", "severity": "warning", "action": action},
        {
            "summary": "demo: the newest data is 15m 0s old",
            "description": f"The newest row of demo is 15m 0s old, data.freshness allows 10m 0s; action: {action}.",
            "runbook_url": f"{BASE}/PerennialDataStale.md",
        },
    )


def test_data_without_a_limit_is_never_stale(world) -> None:
    world.server().pipeline().set(names.DATA_LAST_TIMESTAMP, -(10**9), pipeline="demo", job="controller")
    assert world.alertnames() == []


# -- the watchers themselves --


@pytest.fixture
def watched(world):
    """A world in which the controller and the quality exporter are down from step 20 on, or not, as a test says."""

    def make(controller: list[int], quality: list[int]):
        world.server().pipeline().set("up", controller, job="perennial-controller", instance="c:1")
        return world.set("up", quality, job="perennial-quality", instance="q:1")

    return make


UP, LOST, AWAY = [1] * 81, [1] * 20 + [0] * 61, [1] * 20 + [0] * 20 + [1] * 41


@pytest.mark.parametrize(("part", "instance"), [("controller", "c:1"), ("quality", "q:1")])
def test_a_watcher_that_is_down_is_named_after_a_minute(watched, part: str, instance: str) -> None:
    world = watched(*((LOST, UP) if part == "controller" else (UP, LOST)))
    if part == "controller":  # its thresholds go with it: still one alert, which names it
        world.unscraped("c:1", 20, 81)
    assert world.alertnames(23) == []
    world.check_alert(
        "PerennialMonitoringDown",
        24,
        {"instance": instance, "job": f"perennial-{part}", "severity": "critical", "action": "none"},
        {
            "summary": f"perennial-{part} is down: drift, quality or stale data may go unnoticed",
            "description": f"Prometheus cannot scrape {instance} of job perennial-{part}. Without the controller no alert on drift, "
            "quality or data can fire, and none starts a retraining; without the quality exporter PerennialQualityLow cannot fire.",
            "runbook_url": f"{BASE}/PerennialMonitoringDown.md",
        },
    )


def test_a_controller_that_nobody_scrapes_is_told(world) -> None:
    world.server()
    world.check_alert(
        "PerennialMonitoringDown",
        60,
        {"severity": "critical", "action": "none"},
        {
            "summary": "drift, quality or stale data may go unnoticed",
            "description": "Prometheus scrapes no controller, which exports all thresholds. Without the controller no alert on "
            "drift, quality or data can fire, and none starts a retraining; without the quality exporter PerennialQualityLow "
            "cannot fire.",
            "runbook_url": f"{BASE}/PerennialMonitoringDown.md",
        },
    )


def test_a_platform_without_any_pipeline_wakes_nobody(world) -> None:
    world.server().controller()
    world.set("up", 1, job="perennial-controller", instance="c:1").set("up", 1, job="perennial-quality", instance="q:1")
    found = world.values({str(step): ("ALERTS", step) for step in (0, 4, 12, 20, 80)})
    assert not any(found.values())


def test_a_platform_that_starts_wakes_nobody(world) -> None:
    # Prometheus is there first; the others come within two minutes.
    world.set("up", 1, 8, job="perennial-controller", instance="c:1").server(up=[0] * 8 + [1] * 73)
    world.set(names.LEDGER_UP, 1, 8, job="perennial-controller", instance="c:1")
    found = world.values({str(step): ('ALERTS{alertstate="firing"}', step) for step in range(0, 24)})
    assert not any(found.values())


def test_a_controller_that_vanishes_is_told_soon_also_when_it_is_no_target_any_more(world) -> None:
    world.server().set(names.LEDGER_UP, 1, 0, 5, job="perennial-controller", instance="c:1")
    assert world.history("PerennialMonitoringDown", [4, 8, 10]) == [False, False, True]


def test_watchers_that_are_up_are_silent(watched) -> None:
    assert watched(UP, UP).alertnames() == []


def test_a_watcher_that_restarts_within_a_minute_is_silent(watched) -> None:
    world = watched([1] * 20 + [0] * 3 + [1] * 58, UP).unscraped("c:1", 20, 23)
    found = world.values({str(step): ('ALERTS{alertstate="firing"}', step) for step in range(19, 35)})
    assert not any(found.values())


@pytest.mark.parametrize("part", ["controller", "quality"])
def test_the_alert_resolves_when_the_watcher_is_back(watched, part: str) -> None:
    world = watched(*((AWAY, UP) if part == "controller" else (UP, AWAY)))
    found = world.values({str(step): ('ALERTS{alertstate="firing"}', step) for step in (39, 40)})
    assert [labels["job"] for labels, _ in found["39"]] == [f"perennial-{part}"]
    assert found["40"] == []


def test_an_empty_world_has_the_alerts_of_what_is_missing_and_no_error(world) -> None:
    world.set("something_else", 1)
    assert world.alertnames() == ["PerennialModelServerDown", "PerennialMonitoringDown"]

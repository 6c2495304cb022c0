"""The loop itself: alerts that arrive, decisions that are taken, runs that start and lead to something."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from perennial_spec import names

BASE = "https://github.com/perennial-ml/perennial/blob/main/monitoring/runbooks"
BAD = range(20, 60)
STEPS = 121
STEP = 15
Values = dict[tuple[str, str], Sequence[float | None] | float]
"""Metric and labels beside the pipeline's to values."""


def when(bad: Sequence[int], then: float | None, else_: float | None) -> list[float | None]:
    return [then if step in bad else else_ for step in range(STEPS)]


def since(bad: Sequence[int], seconds: float) -> list[float | None]:
    """A moment that was `seconds` before the first bad step, and is gone when all is well."""
    return when(bad, bad[0] * STEP - seconds if bad else 0, None)


LIMITS: Values = {
    (names.RUN_LIMIT, ""): 3600,
    (names.RUN_FAILURES_LIMIT, ""): 2,
    (names.RETRAININGS_LIMIT, ""): 5,
    (names.RUN_LAST_SUCCESS, ""): -1000,
}
OF_A_PIPELINE: dict[str, tuple[str, Callable[[Sequence[int]], Values]]] = {
    "overdue": ("PerennialNoGoodRun", lambda bad: {(names.RUN_DUE, ""): when(bad, 0, 10**6)}),
    "failing": ("PerennialRunFailing", lambda bad: {(names.RUN_FAILURES_IN_A_ROW, ""): when(bad, 2, 1)}),
    "long": ("PerennialRunTooLong", lambda bad: {(names.RUN_ACTIVE_SINCE, ""): since(bad, 3600)}),
    "storm": ("PerennialRetrainingStorm", lambda bad: {(names.RETRAININGS_SINCE_PROMOTION, ""): when(bad, 5, 4)}),
    "paused": ("PerennialPausedLong", lambda bad: {(names.PAUSED_SINCE, ""): since(bad, 86_400)}),
    "budget": (
        "PerennialBudgetSpent",
        lambda bad: {(names.HELD_EVENTS, "over_budget"): when(bad, 3, 0), (names.BUDGET_LEFT, ""): 0},
    ),
    "undelivered": ("PerennialDeliveryFailing", lambda bad: {(names.RUN_UNDELIVERED_SINCE, ""): since(bad, 0)}),
    "broken": ("PerennialPipelineBroken", lambda bad: {(names.PIPELINE_BROKEN, ""): when(bad, 1, None)}),
}
"""What can be wrong with a pipeline: the alert, and the series that say so at bad steps."""
OF_THE_CONTROLLER: dict[str, tuple[str, Callable[[Sequence[int]], Values]]] = {
    "watchdog": (
        "PerennialAlertsNotReceived",
        lambda bad: {
            (names.WATCHDOG_RECEIVED, ""): [
                bad[0] * STEP - 60.0 if step in bad else step * STEP - 20.0 for step in range(STEPS)
            ]
        },
    ),
    "ledger": ("PerennialLedgerDown", lambda bad: {(names.LEDGER_UP, ""): when(bad, 0, 1)}),
    "backlog": (
        "PerennialControllerBacklog",
        lambda bad: {(names.OLDEST_UNDELIVERED, ""): when(bad, 400, 1), (names.BACKLOG, ""): 7},
    ),
    "airflow": ("PerennialDeliveryFailing", lambda bad: {(names.AIRFLOW_UP, ""): when(bad, 0, 1)}),
}


def put(world: Any, values: Values, **labels: str) -> Any:
    world.steps = STEPS
    for (name, decision), value in values.items():
        more = {"decision": decision} if decision else {}
        world.set(name, value, job="perennial-controller", instance="c:1", **labels, **more)
    return world


@pytest.fixture
def well(world):
    """A platform of which nothing is known to be wrong."""
    world.steps = STEPS
    put(world.server().controller(), {(names.LEDGER_UP, ""): 1})
    del world.series[next(key for key in world.series if key.startswith(names.LEDGER_UP) and 'job="controller"' in key)]
    return put(world, LIMITS, pipeline="demo")


EXPECTED: dict[str, tuple[dict[str, str], str, str]] = {
    "overdue": (
        {"pipeline": "demo", "severity": "warning"},
        "demo: a scheduled run is overdue by 12m 30s",
        "By retraining.schedule a run of demo that judges a model should have ended 12m 30s ago. The last one ended 29m 10s ago.",
    ),
    "failing": (
        {"pipeline": "demo", "severity": "warning"},
        "demo: 2 runs in a row have failed",
        "The last 2 training runs of demo ended without a verdict on a model, allowed are fewer than 2. The champion serves as "
        "before, and is not replaced.",
    ),
    "long": (
        {"pipeline": "demo", "severity": "warning"},
        "demo: a run is active for 1h 7m 30s",
        "A training run of demo is active for 1h 7m 30s, its limit is 1h 0m 0s. Alerts are merged into it, and start no other run "
        "while it lasts.",
    ),
    "storm": (
        {"pipeline": "demo", "severity": "warning"},
        "demo: 5 retrainings in vain",
        "Alerts have started 5 training runs of demo since one has led to a new champion: training again does not mend what they "
        "are about. The breaker is open: no alert starts another until somebody has looked and resumes the pipeline.",
    ),
    "paused": (
        {"pipeline": "demo", "severity": "warning"},
        "demo: retraining has been paused for 1d 0h 7m 30s",
        "Retraining of demo was paused 1d 0h 7m 30s ago. Alerts are written down, and none starts a run.",
    ),
    "budget": (
        {"pipeline": "demo", "severity": "warning"},
        "demo: the budget for retrainings is spent, and 3 alerts wait",
        "3 alerts of demo ask for a retraining and are held back, because retraining.budget is spent. They are decided again when "
        "it allows a run.",
    ),
    "undelivered": (
        {"pipeline": "demo", "severity": "warning"},
        "demo: Airflow does not take a run",
        "A run of demo was accepted 7m 30s ago, and Airflow does not have it yet. It is tried again and again; no run is lost.",
    ),
    "broken": (
        {"pipeline": "demo", "severity": "warning"},
        "demo: its files cannot be read",
        "The files of pipeline demo are broken. Its last good thresholds hold while the controller runs; Airflow has no DAG for "
        "it, and its alerts wait undecided if it was broken from the start.",
    ),
    "watchdog": (
        {"severity": "critical"},
        "alerts do not reach the controller: the last came 8m 30s ago",
        "PerennialWatchdog fires always, and the controller got it 8m 30s ago for the last time. No alert starts a retraining "
        "meanwhile.",
    ),
    "ledger": (
        {"severity": "critical", "job": "perennial-controller", "instance": "c:1"},
        "the controller's ledger does not answer",
        "The controller c:1 cannot reach its ledger in PostgreSQL: it takes no alert and no request, decides nothing and starts "
        "no run. Alertmanager sends again what still fires.",
    ),
    "backlog": (
        {"severity": "warning"},
        "an event waits for the controller for 6m 40s",
        "7 events are not decided, or their runs not with Airflow; the oldest came 6m 40s ago.",
    ),
    "airflow": (
        {"severity": "warning", "job": "perennial-controller", "instance": "c:1"},
        "Airflow does not answer the controller",
        "The controller c:1 gets no answer from Airflow, or Airflow does not take its credentials. It is tried again and again; "
        "no run is lost.",
    ),
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_what_is_wrong_is_told_with_figures_and_resolves(well, kind: str) -> None:
    at_once = {"failing", "storm", "paused"}
    (alert, values), of = (OF_A_PIPELINE.get(kind) or OF_THE_CONTROLLER[kind]), {"pipeline": "demo"}
    put(well, values(BAD), **(of if kind in OF_A_PIPELINE else {}))
    labels, summary, description = EXPECTED[kind]
    annotations = {"summary": summary, "description": description, "runbook_url": f"{BASE}/{alert}.md"}
    well.check_alert(alert, 50, {"action": "none", **labels}, annotations)
    found = well.values({str(step): ('ALERTS{alertstate="firing"}', step) for step in (19, 21, 50, 120)})
    told = {int(step): {labels["alertname"] for labels, _ in samples} for step, samples in found.items()}
    assert told == {19: set(), 21: {alert} if kind in at_once else set(), 50: {alert}, 120: set()}


def test_nothing_is_told_without_one_of_the_series_that_it_rests_on(well) -> None:
    needs = {
        "overdue": {names.RUN_DUE},
        "failing": {names.RUN_FAILURES_IN_A_ROW, names.RUN_FAILURES_LIMIT},
        "long": {names.RUN_ACTIVE_SINCE, names.RUN_LIMIT},
        "storm": {names.RETRAININGS_SINCE_PROMOTION, names.RETRAININGS_LIMIT},
        "paused": {names.PAUSED_SINCE},
        "budget": {names.HELD_EVENTS, names.BUDGET_LEFT},
        "undelivered": {names.RUN_UNDELIVERED_SINCE},
        "broken": {names.PIPELINE_BROKEN},
    }
    metrics = sorted(set().union(*needs.values()))
    for place, metric in enumerate(metrics):
        values = LIMITS | {key: value for _, make in OF_A_PIPELINE.values() for key, value in make(BAD).items()}
        put(well, {key: value for key, value in values.items() if key[0] != metric}, pipeline=f"without-{place}")
    found = well.firing(55)
    for place, metric in enumerate(metrics):
        told = {labels["alertname"] for labels in found if labels.get("pipeline") == f"without-{place}"}
        assert told == {alert for kind, (alert, _) in OF_A_PIPELINE.items() if metric not in needs[kind]}, metric


def test_a_restart_of_the_controller_or_of_prometheus_ends_no_trouble_and_makes_none(well) -> None:
    # The controller restarts at step 40, Prometheus is away from 70 to 100; one pipeline is in trouble all the time.
    always = range(STEPS)
    values = {key: value for _, make in OF_A_PIPELINE.values() for key, value in make(always).items()}
    put(well, LIMITS | values, pipeline="bad")
    put(well, OF_THE_CONTROLLER["watchdog"][1](range(-1, 0)))
    well.unscraped("c:1", 40, 42)
    for series in well.series.values():
        series[70:100] = [None] * 30
    alerts = {alert for alert, _ in OF_A_PIPELINE.values()} - {
        "PerennialRunTooLong"
    }  # which is not old enough at first
    found = well.values({str(step): ('ALERTS{alertstate="firing"}', step) for step in (39, 50, 69, 101, 120)})
    for step, samples in found.items():
        pipelines = {labels.get("pipeline") for labels, _ in samples}
        told = {labels["alertname"] for labels, _ in samples} - {"PerennialRunTooLong"}
        # Prometheus begins to count `for` anew when it was away for long (promtool knows no state that outlives a restart).
        assert told == alerts or (step == "101" and told <= alerts), step
        assert pipelines <= {"bad"}


def test_two_controllers_tell_of_one_trouble_once(well) -> None:
    put(well, OF_A_PIPELINE["failing"][1](BAD), pipeline="demo")
    copies = {key.replace('"c:1"', '"c:2"'): values for key, values in well.series.items() if '"c:1"' in key}
    well.series.update(copies)
    assert well.alertnames(50) == ["PerennialRunFailing"]


def test_a_budget_that_is_spent_and_that_no_alert_waits_for_is_silent(well) -> None:
    put(well, {(names.HELD_EVENTS, "over_budget"): 0, (names.HELD_EVENTS, "cooling_down"): 2}, pipeline="demo")
    put(well, {(names.BUDGET_LEFT, ""): 0}, pipeline="demo")
    assert well.alertnames(50) == []


# -- the dead man's switch --


def test_the_watchdog_fires_from_the_first_moment_and_always(world) -> None:
    world.set("something_else", 1)
    assert world.history("PerennialWatchdog", [0, 1, 40, 80]) == [True] * 4
    [labels] = world.firing(40, "PerennialWatchdog")
    assert labels == {"alertname": "PerennialWatchdog", "severity": "none", "action": "none"}


def test_a_watchdog_that_never_came_is_told_in_words(well) -> None:
    # The world of promtool begins in 1970, where `never` is no long time ago: the description must not do sums with it.
    put(well, {(names.WATCHDOG_RECEIVED, ""): -2e9})
    well.check_alert(
        "PerennialAlertsNotReceived",
        50,
        {"severity": "critical", "action": "none"},
        {
            "summary": "alerts do not reach the controller",
            "description": "PerennialWatchdog fires always, and the controller has never got it. No alert starts a retraining meanwhile.",
            "runbook_url": f"{BASE}/PerennialAlertsNotReceived.md",
        },
    )


def test_a_watchdog_of_yesterday_has_two_minutes_to_come_when_the_platform_starts(well) -> None:
    put(well, {(names.WATCHDOG_RECEIVED, ""): [-86400.0] * 4 + [step * STEP - 20.0 for step in range(4, STEPS)]})
    assert not any(well.history("PerennialAlertsNotReceived", range(0, 40, 3)))

"""The model servers, and what they are asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from perennial_spec import names

BASE = "https://github.com/perennial-ml/perennial/blob/main/monitoring/runbooks"


# -- servers --


def test_one_replica_that_is_down_is_named(world) -> None:
    world.pipeline().server("s:1").server("s:2", up=[1] * 20 + [0] * 61)
    assert world.alertnames(21) == []
    [found] = world.firing(80)
    assert found == {
        "alertname": "PerennialModelServerDown",
        "instance": "s:2",
        "job": "perennial-server",
        "severity": "critical",
        "action": "none",
    }


def test_no_server_at_all_is_one_alert(world) -> None:
    world.pipeline().server("s:1", up=[1] * 20 + [0] * 61)
    [found] = world.firing(60)
    assert (found["alertname"], found.get("instance")) == ("PerennialModelServerDown", None)


def test_other_jobs_that_are_down_are_not_model_servers(world) -> None:
    world.pipeline().server().set("up", 0, job="somebody-elses", instance="x:1")
    assert world.alertnames() == []


def test_a_restart_of_a_few_seconds_is_silent(world) -> None:
    world.pipeline().server("s:1", up=[1] * 20 + [0] * 2 + [1] * 59)
    assert all(
        not found
        for found in world.values({str(s): ('ALERTS{alertstate="firing"}', s) for s in range(19, 30)}).values()
    )


# -- traffic --


def test_a_champion_that_nobody_asks_is_told(world, deciles) -> None:
    world.steps = 161
    world.server().pipeline().champion().traffic(deciles, rows=0)
    assert world.alertnames(59) == []
    [found] = world.firing(100)
    assert (found["alertname"], found["pipeline"], found["action"]) == ("PerennialNoPredictions", "demo", "none")


@pytest.mark.parametrize("rows", [1, 100])
def test_traffic_is_silent(world, deciles, rows: int) -> None:
    world.steps = 161
    world.server().pipeline(min_rows=10**6).champion().traffic(deciles, rows=rows)
    assert world.alertnames(160) == []


def test_a_champion_of_the_last_minutes_is_not_missed_yet(world, deciles) -> None:
    world.steps = 161
    world.server().pipeline().champion(start=110).traffic(deciles, rows=0, start=110)
    assert world.alertnames(160) == []


def test_a_pipeline_whose_champion_has_just_changed_has_traffic(world, deciles) -> None:
    world.steps = 161
    world.server().pipeline(min_rows=10**6).champion("1", end=150).champion("2", start=150)
    world.traffic(deciles, end=150).traffic(deciles, version="2", start=150)
    assert world.alertnames(155) == []


def test_a_server_that_is_down_is_no_lack_of_traffic(world, deciles) -> None:
    world.steps = 161
    world.server(up=[1] * 100 + [0] * 61).champion(end=100).traffic(deciles, rows=0, end=100)
    assert "PerennialNoPredictions" not in world.alertnames(160)


# -- what is asked of the servers --

BAD = range(20, 70)
"""Steps at which something is wrong, in worlds of 140."""
STEPS = 140
LIMITS: dict[str, float] = {
    names.ERROR_RATE_LIMIT: 0.01,
    names.LATENCY_LIMIT: 0.5,
    names.SERVICE_MIN_REQUESTS: 100,
    names.MODEL_REVIEW_AFTER: 3600,
    names.MODEL_RETIRE_AFTER: 7200,
}


def total(per_step: Sequence[float], before: float = 0, restart: int | None = None) -> list[float]:
    """A counter that grows by so much in each step, from `before`, and again from 0 at a restart."""
    found, value = [], before
    for step, more in enumerate(per_step):
        value = more if step == restart else value + more
        found.append(value)
    return found


def when(bad: Sequence[int], then: float, else_: float) -> list[float]:
    return [then if step in bad else else_ for step in range(STEPS)]


def service(
    world: Any,
    pipeline: str = "demo",
    *,
    wrong: Sequence[str] = (),
    at: Sequence[int] = BAD,
    without: Sequence[str] = (),
    rows: float = 150,
    instance: str = "s:1",
    before: float = 0,
    restart: int | None = None,
) -> Any:
    """What a server and the controller export of a pipeline that is asked, with what is `wrong` at some steps, `without` some metrics.

    The server starts at `before` of every counter, and again at 0 at the step `restart`.
    """
    world.steps = STEPS
    server = {"job": "perennial-server", "instance": instance, "pipeline": pipeline}
    of = {**server, "version": "1"}
    bad = {name: at if name in wrong else () for name in KINDS}
    wanted: dict[str, list[tuple[dict[str, str], Sequence[float] | float]]] = {
        **{name: [({"job": "controller", "pipeline": pipeline}, limit)] for name, limit in LIMITS.items()},
        names.REQUESTS: [
            ({**of, "protocol": "oip", "code": "200"}, total([rows] * STEPS, before, restart)),
            ({**of, "protocol": "oip", "code": "503"}, total(when(bad["errors"], rows / 20, 0), before, restart)),
        ],
        f"{names.REQUEST_SECONDS}_bucket": [
            ({**of, "le": "0.2"}, total(when(bad["slow"], 0.9 * rows, rows), before, restart)),
            ({**of, "le": "1.0"}, total([rows] * STEPS, before, restart)),
            ({**of, "le": "+Inf"}, total([rows] * STEPS, before, restart)),
        ],
        names.REQUESTS_SHED: [(server, total(when(bad["shed"], 3, 0), before, restart))],
        names.PREDICTION_LOG_DROPPED: [(server, total(when(bad["log"], 5, 0), before, restart))],
        names.PREDICTIONS: [(of, total([rows] * STEPS, before, restart))],
        names.MODEL_TRAINED: [(of, when(bad["old"], -3600, 0))],
        names.CHAMPION: [(of, 1)],
        names.ROUTE_WEIGHT: [(of, 1)],
        names.ROUTE_REVISION: [(server, when(bad["route"], 6, 7))],
        names.MODEL_LOADED: [({**of, "version": "2"}, when(bad["refused"], 0, 1))],
        names.HEALTH_QUERY_UP: [(of, when(bad["health"], 0, 1))],
    }
    for name, series in wanted.items():
        for labels, value in series:
            if name not in without:
                world.set(name, value, **labels)
    return world


KINDS = {
    "errors": "PerennialErrorsHigh",
    "slow": "PerennialLatencyHigh",
    "shed": "PerennialServerSaturated",
    "log": "PerennialPredictionLogDropping",
    "old": "PerennialModelOld",
    "route": "PerennialRouteNotFollowed",
    "refused": "PerennialModelRefused",
    "health": "PerennialHealthQueryFailing",
}
"""What can be wrong, and the alert of it."""
NEEDS = {
    "errors": {names.REQUESTS, names.ERROR_RATE_LIMIT, names.SERVICE_MIN_REQUESTS},
    "slow": {names.REQUESTS, f"{names.REQUEST_SECONDS}_bucket", names.LATENCY_LIMIT, names.SERVICE_MIN_REQUESTS},
    "shed": {names.REQUESTS_SHED},
    "log": {names.PREDICTION_LOG_DROPPED},
    "old": {names.MODEL_TRAINED, names.CHAMPION, names.MODEL_REVIEW_AFTER},
    "route": {names.ROUTE_REVISION},
    "refused": {names.MODEL_LOADED},
    "health": {names.HEALTH_QUERY_UP},
}
"""Without any one of these there is nothing to judge."""


@pytest.fixture
def two(world):
    """Two servers; the second is always well."""
    service(world.server("s:1", "s:2").controller(), instance="s:2", without=[names.MODEL_TRAINED])
    world.steps = STEPS
    return world.server("s:1", "s:2").controller()


EXPECTED: dict[str, tuple[dict[str, str], str, str]] = {
    "errors": (
        {"severity": "critical"},
        "demo: 2.439% of the requests fail",
        "2.439% of the requests to demo failed on the server's side (5xx) within 5 minutes, allowed are 1%. "
        "By version and code: version 1 503 0.50/s;",
    ),
    "slow": (
        {"severity": "warning"},
        "demo: one answer in a hundred takes longer than 840ms",
        "The 99th percentile of the latency of demo is 840ms over 5 minutes, allowed are 500ms.",
    ),
    "shed": (
        {"severity": "warning"},
        "demo: requests are turned away",
        "The model servers turn away 0.20 requests to demo per second, because too much is being predicted.",
    ),
    "log": (
        {"severity": "warning"},
        "demo: predictions are missing from the log",
        "205 rows of demo found no room in the prediction log within 15 minutes and are lost to it. They were answered and "
        "counted; quality is measured without them.",
    ),
    "old": (
        {"severity": "warning", "version": "1"},
        "demo: the champion is 1h 15m 0s old",
        "Version 1 of demo was trained 1h 15m 0s ago. It is to be reviewed after 1h 0m 0s and to retire after 2h 0m 0s (lifetime).",
    ),
    "route": (
        {"severity": "warning", "instance": "s:1", "job": "perennial-server"},
        "demo: not all model servers follow the route",
        "Model server s:1 is at revision 6 of the route of demo, 7 is in force elsewhere.",
    ),
    "refused": (
        {"severity": "warning", "version": "2"},
        "demo: version 2 is refused by the model servers",
        "1 model servers cannot load version 2 of demo, which the route names. They go on with the versions that they have; "
        "the server's log says what is wrong.",
    ),
    "health": (
        {"severity": "critical", "version": "1"},
        "demo: version 1 does not answer as it did when it was trained",
        "On 1 model servers the question with a known answer, which the server asks itself, fails for version 1 of demo: "
        "there is no answer, or another score than at its training.",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wrong_is_told_with_figures_and_resolves(two, kind: str) -> None:
    service(two, wrong=[kind])
    labels, summary, description = EXPECTED[kind]
    alert = KINDS[kind]
    annotations = {"summary": summary, "description": description, "runbook_url": f"{BASE}/{alert}.md"}
    two.check_alert(alert, 60, {"pipeline": "demo", "action": "none", **labels}, annotations)
    found = two.values({str(step): ('ALERTS{alertstate="firing"}', step) for step in (19, 21, 60, 139)})
    names_of = {int(step): {sample[0]["alertname"] for sample in samples} for step, samples in found.items()}
    assert names_of[19] == set()
    assert names_of[21] == ({alert} if kind == "log" else set()), "one bad scrape wakes nobody"
    assert names_of[60] == {alert}, "and nothing else"
    assert names_of[139] == set(), "it resolves"


def test_nothing_is_told_without_one_of_the_series_that_it_rests_on(world) -> None:
    metrics = sorted(set().union(*NEEDS.values()))
    world.server("s:1", "s:2").controller()
    for place, metric in enumerate(metrics):
        service(world, f"without-{place}", wrong=list(KINDS), without=[metric])
        service(world, f"without-{place}", without=[metric, names.MODEL_TRAINED], instance="s:2")
    world.server("s:1", "s:2").controller()
    found = world.firing(60)
    for place, metric in enumerate(metrics):
        told = {labels["alertname"] for labels in found if labels.get("pipeline") == f"without-{place}"}
        assert told == {alert for kind, alert in KINDS.items() if metric not in NEEDS[kind]}, metric


def test_restarts_of_the_server_and_of_prometheus_cause_no_alert(world) -> None:
    # The server restarts at step 30, Prometheus is away from 60 to 90, and meets both servers with a long past that it has not seen.
    for instance, restart in (("s:1", 30), ("s:2", None)):
        service(world, instance=instance, before=1_000_000, restart=restart)
    world.server("s:1", "s:2").controller().unscraped("s:1", 28, 30)
    for values in world.series.values():
        values[60:90] = [None] * 30
    asked = {str(step): ('ALERTS{alertstate="firing"}', step) for step in [*range(0, 60), *range(90, STEPS)]}
    assert not any(world.values(asked).values())


@pytest.mark.parametrize("kind", ["errors", "slow", "shed", "log"])
def test_trouble_is_told_again_after_a_restart_amid_it(two, kind: str) -> None:
    service(two, wrong=[kind], before=10_000, restart=45)
    assert two.history(KINDS[kind], [44, 50, 55, 68]) == [True] * 4


@pytest.mark.parametrize("kind", ["errors", "slow"])
def test_a_few_requests_are_not_judged(two, kind: str) -> None:
    two.series.clear()
    service(two, wrong=[kind], rows=4)  # 80 in 5 minutes
    two.server().controller()
    assert two.alertnames(60) == []


def test_a_short_burst_of_requests_that_are_turned_away_is_silent(two) -> None:
    service(two, wrong=["shed"], at=[40])
    assert not any(two.history(KINDS["shed"], range(40, 80, 2)))


def test_errors_of_clients_are_not_the_servers(two) -> None:
    service(two)
    two.set(
        names.REQUESTS,
        total([500] * STEPS),
        **{"job": "perennial-server", "instance": "s:1", "pipeline": "demo"},
        code="404",
    )
    assert two.alertnames(60) == []


def test_a_server_near_its_limit_is_named(two) -> None:
    service(two)
    for instance, busy in (("s:1", 95), ("s:2", 80)):
        by = {"job": "perennial-server", "instance": instance}
        two.set(names.IN_FLIGHT, busy, **by).set(names.REQUESTS_LIMIT, 100, **by)
    by = {"job": "perennial-server", "instance": "s:3"}
    two.set(names.IN_FLIGHT, 5, **by).set(names.REQUESTS_LIMIT, 0, **by)  # no limit is no division by zero
    two.check_alert(
        "PerennialServerSaturated",
        60,
        {"instance": "s:1", "job": "perennial-server", "severity": "warning", "action": "none"},
        {
            "summary": "model server s:1 is near its limit",
            "description": "95% of the requests that s:1 takes at a time are in flight; beyond that it turns requests away.",
            "runbook_url": f"{BASE}/PerennialServerSaturated.md",
        },
    )


def test_a_challenger_is_not_too_old(two) -> None:
    service(two)
    by = {"job": "perennial-server", "instance": "s:1", "pipeline": "demo"}
    two.set(names.MODEL_TRAINED, -(10**6), **by, version="2")
    assert two.alertnames(60) == []


def test_a_server_that_does_not_know_a_pipeline_is_told(two) -> None:
    two.server("s:1", "s:2", "s:3")
    [found] = [labels for labels in two.firing(60) if labels["alertname"] == "PerennialRouteNotFollowed"]
    assert (found["pipeline"], found["job"], found.get("instance")) == ("demo", "perennial-server", None)


def test_a_route_that_servers_follow_one_after_the_other_is_silent(two) -> None:
    service(two, wrong=["route"], at=range(20, 35))
    assert not any(two.history("PerennialRouteNotFollowed", range(18, 60, 3)))


@pytest.mark.parametrize(("away", "told"), [(range(20, 80), True), (range(20, 25), False)])
def test_a_registry_that_servers_do_not_reach_is_told_after_a_while(two, away: range, told: bool) -> None:
    service(two)
    two.set(names.REGISTRY_UP, when(away, 0, 1), job="perennial-server", instance="s:1")
    assert two.history("PerennialRegistryUnreachable", [19, 30, 60, 100]) == [False, told, told, False]


def test_a_platform_that_starts_has_no_server_for_a_while_and_nobody_is_woken(world) -> None:
    by = {"job": "perennial-server", "instance": "s:1"}
    world.set("up", [0] * 8 + [1] * 73, **by).set(names.REGISTRY_UP, 1, 8, **by).controller()
    assert not any(world.history("PerennialModelServerDown", range(0, 40)))


def test_a_server_that_never_comes_is_told(world) -> None:
    world.set("up", 0, job="perennial-server", instance="s:1").controller()
    assert world.history("PerennialModelServerDown", [10, 14, 20]) == [False, False, True]

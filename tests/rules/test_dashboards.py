"""The dashboards' queries: none is ambiguous over two replicas of everything, and those that are not plain say what they should."""

from __future__ import annotations

import pytest
from dashboard_queries import every_query, filled

from perennial_dashboards import expressions as of
from perennial_dashboards import pipeline_drift
from perennial_spec import names

TWO = ("s:1", "s:2")


def test_no_query_is_ambiguous_over_two_replicas_of_everything(world, deciles, moved) -> None:
    world.server(*TWO)
    for name in ("demo", "other"):
        world.pipeline(name)
        for place, instance in enumerate(TWO):
            by = {"pipeline": name, "instance": instance}
            world.champion(pipeline=name, instance=instance).set(names.MODEL_LOADED, 1, version="1", **by)
            world.traffic(moved, pipeline=name, instance=instance)
            world.traffic(deciles, feature="prediction", pipeline=name, instance=instance)
            world.set(names.ROUTE_REVISION, 3 + place, **by)
            for code in ("200", "500"):
                labels = {"version": "1", "protocol": "oip", "code": code}
                world.set(names.REQUESTS, [float(step) for step in range(world.steps)], **labels, **by)
        for instance in ("q:1", "q:2"):
            by = {"pipeline": name, "job": "quality", "instance": instance}
            world.set(names.QUALITY, 0.7, version="1", metric="roc_auc", **by)
            for metric in (names.QUALITY_LABELS, names.QUALITY_LABELLED_SHARE):
                world.set(metric, 900, version="1", **by)
            world.set(names.QUALITY_MIN, 0.6, metric="roc_auc", **by)
            world.set(names.QUALITY_MIN_LABELS, 500, **by)
            for metric in (names.DATA_FRESHNESS_LIMIT, names.DATA_LAST_TIMESTAMP, names.PIPELINE_BROKEN):
                world.set(metric, 1, **by)
            world.set(names.DECISIONS, 7, decision="accepted", **by)
    world.series.update(
        {key.replace('"c:1"', '"c:2"'): values for key, values in world.series.items() if '"c:1"' in key}
    )
    last = world.steps - 1
    for one in ("demo", ".*"):
        chosen = [each for each in every_query() if any(v.many for v in each.board.variables) == (one == ".*")]
        variables = {"pipeline": one, "feature": "temp"}
        found = world.values({str(each): (filled(each.query.drawn, variables), last) for each in chosen})
        assert len([each for each in found.values() if each]) > len(found) / 3


# -- what the expressions that are not plain come to --


def figures(world, expression: str, step: int = 60) -> dict[str, float]:
    """By their only label."""
    found = world.value(expression.replace("$pipeline", ".*").replace("$feature", "temp"), step)
    return {" ".join(labels.values()): value for labels, value in found}


def test_drift_is_a_share_of_the_threshold_0_when_quiet_and_nothing_without_rows(world, deciles, moved) -> None:
    world.server()
    for name, live, rows in (("moved", moved, 100), ("quiet", deciles, 100), ("small", moved, 1)):
        world.pipeline(name, psi=0.5).champion(pipeline=name).traffic(live, pipeline=name, rows=rows)
    found = figures(world, of.drift(of.CHOSEN))
    [(_, psi)] = world.value('perennial:feature_psi:5m{pipeline="moved"}', 60)
    assert found == {"moved": pytest.approx(psi / 0.5), "quiet": 0}


def test_the_bins_of_a_feature_add_up_to_its_psi(world, moved) -> None:
    world.server().pipeline().champion().traffic(moved)
    found = figures(world, pipeline_drift.bin_moves().replace('pipeline="$pipeline"', of.CHOSEN))
    [(_, psi)] = world.value("perennial:feature_psi:5m", 60)
    assert len(found) == len(moved)
    assert sum(found.values()) == pytest.approx(psi)


def test_failed_requests_are_a_share_and_0_before_the_first(world) -> None:
    ticks = [float(step) for step in range(world.steps)]
    for name, code, values in (("good", "200", ticks), ("bad", "200", ticks), ("bad", "500", ticks)):
        world.set(names.REQUESTS, values, pipeline=name, protocol="oip", code=code)
    share = of.failed_share(of.CHOSEN, by="pipeline").replace("$__rate_interval", "1m")
    assert figures(world, share) == {"good": 0, "bad": pytest.approx(0.5)}


def test_a_run_is_marked_when_it_is_accepted(world) -> None:
    by = {"pipeline": "demo", "decision": "accepted"}
    world.pipeline().set(names.DECISIONS, [0.0] * 30 + [1.0] * 20 + [2.0] * 31, **by)
    steps = (29, 30, 32, 34, 49, 50, 52, 54)
    found = world.values({str(step): (of.accepted(of.CHOSEN).replace("$pipeline", ".*"), step) for step in steps})
    assert [bool(found[str(step)]) for step in steps] == [False, True, True, False, False, True, True, False]


def test_runs_of_before_are_not_marked_when_prometheus_was_away(world) -> None:
    by = {"pipeline": "demo", "decision": "accepted", "instance": "c:1"}
    world.pipeline().set(names.DECISIONS, 5, **by).unscraped("c:1", 30, 40)
    found = world.values({str(s): (of.accepted(of.CHOSEN).replace("$pipeline", ".*"), s) for s in range(38, 50)})
    assert not any(found.values())


def test_a_champion_is_marked_when_it_succeeds_another(world) -> None:
    world.champion("1", start=10, end=40).champion("2", start=40)
    steps = (10, 11, 39, 40, 43, 44)
    found = world.values({str(step): (of.succeeded(of.CHOSEN).replace("$pipeline", ".*"), step) for step in steps})
    assert {step: [labels["version"] for labels, _ in found[step]] for step in found if found[step]} == {
        "40": ["2"],
        "43": ["2"],
    }

"""The exposition: what every Prometheus client would say, valid to the letter, and made in less than a moment."""

from __future__ import annotations

import os
import subprocess
from types import SimpleNamespace
from typing import Any

import numpy as np
import prometheus_client
import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from perennial_serving import usage
from perennial_serving.counting import ServerCounters, VersionCounters
from perennial_serving.fleet import Fleet, Served
from perennial_serving.metrics import Exposition, Limits, OwnTally
from perennial_spec import names
from perennial_spec.route import Route

HOSTILE = 'a "quoted" \\ 100%s\nname'


def fleet(features: int = 24, bins: int = 12, name: str = "distance") -> Fleet:
    """One pipeline with three versions, whose counters have counted."""
    series = [(f"{name}-{f}", f"({b},{b + 1}]") for f in range(features) for b in range(bins)]
    reference: Any = SimpleNamespace(
        series=series, shares=np.full(len(series), 1 / bins), rows=1000, ranged=(), attribution=None
    )
    models: Any = {}
    for version in ("1", "2", "3"):
        counters = VersionCounters(reference)
        counters.bins += np.arange(len(series)) * 1000
        counters.predicted(7)
        counters.requests("mlflow", 200, [0.0004, 0.004, 9.0])
        counters.request("grpc", 418, 0.1)
        models[version] = SimpleNamespace(
            pipeline="flights", version=version, reference=reference, counters=counters, trained=1e9
        )
    route = Route(revision=3, weights={"1": 0.5, "2": 0.3, "3": 0.2})
    return Fleet(
        {"flights": Served("flights", route, models, "1")}, refused={("flights", "4"): "why"}, registry_up=True
    )


def exposed(fleet: Fleet, counters: ServerCounters | None = None) -> str:
    counters = counters or ServerCounters()
    return Exposition(fleet, OwnTally(fleet, counters), True, Limits(1024, 200_000)).text().decode()


def parsed(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def counted() -> ServerCounters:
    counters = ServerCounters()
    counters.refused["", "oip", 404] += 2
    counters.labels["flights"] += 3
    counters.rewards["flights", "1"] += 2
    counters.reward_sums["flights", "1"] += -0.25
    counters.shed["flights"] += 1
    counters.shadow_dropped["flights", "2"] += 5
    counters.log_written["flights"] += 11
    return counters


def test_promtool_finds_nothing_wrong_but_the_name_of_the_sum_of_rewards() -> None:
    for text in (exposed(fleet()), exposed(Fleet())):
        found = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        assert (found.returncode, found.stdout + found.stderr) == (0, "")
    text = exposed(fleet(), counted())
    found = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert [line.split()[0] for line in (found.stdout + found.stderr).splitlines()] == [names.REWARD_SUM]


def test_what_is_counted_is_read_back() -> None:
    found = parsed(exposed(fleet(), counted()))
    of = (("pipeline", "flights"), ("version", "2"))
    assert found[names.PREDICTIONS, of] == 7
    assert found[f"{names.REQUEST_SECONDS}_count", of] == 4
    assert found[f"{names.REQUEST_SECONDS}_sum", of] == pytest.approx(9.1044)
    assert found[f"{names.REQUEST_SECONDS}_bucket", (("le", "0.005"), *of)] == 2
    assert found[f"{names.REQUEST_SECONDS}_bucket", (("le", "+Inf"), *of)] == 4
    bin_ = (("bin", "(11,12]"), ("feature", "distance-23"), *of)
    assert (found[names.OBSERVATIONS, bin_], found[names.REFERENCE_SHARE, bin_]) == ((24 * 12 - 1) * 1000, 1 / 12)
    request = lambda code, protocol, pipeline, version: (  # noqa: E731
        names.REQUESTS,
        (("code", code), ("pipeline", pipeline), ("protocol", protocol), ("version", version)),
    )
    assert found[request("200", "mlflow", "flights", "1")] == 3
    assert found[request("other", "grpc", "flights", "1")] == 1
    assert found[request("404", "oip", "", "")] == 2
    only = (("pipeline", "flights"),)
    expected = {
        names.FEEDBACK: 3,
        names.REQUESTS_SHED: 1,
        names.PREDICTION_LOG_WRITTEN: 11,
        names.PREDICTION_LOG_DROPPED: 0,
        names.ROUTE_REVISION: 3,
    }
    assert {name: found[name, only] for name in expected} == expected
    assert found[names.SHADOW_DROPPED, of] == 5
    assert found[names.REWARD_SUM, (("pipeline", "flights"), ("version", "1"))] == -0.25
    assert found[names.MODEL_LOADED, (("pipeline", "flights"), ("version", "4"))] == 0
    assert (found[names.REGISTRY_UP, ()], found[names.WORKERS, ()]) == (1, 1)


def test_names_that_try_to_break_out_stay_names() -> None:
    found = parsed(exposed(fleet(2, 2, HOSTILE)))
    features = {dict(labels).get("feature") for name, labels in found if name == names.OBSERVATIONS}
    assert features == {f"{HOSTILE}-0", f"{HOSTILE}-1"}


def test_a_process_says_of_itself_what_the_official_client_says() -> None:
    found = parsed(usage.text(os.getpid()))
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.ProcessCollector(registry=registry)
    official = parsed(generate_latest(registry).decode())
    assert found.keys() == official.keys()
    for key, value in official.items():
        assert found[key] == pytest.approx(value, rel=0.05, abs=3), key

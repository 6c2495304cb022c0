"""The health query: a version that answers as at its training is up, one that does not is down, and nobody else notices either."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perennial_features.bundle import Bundle, Smoke
from perennial_serving.health import HealthQueries
from perennial_serving.question import Question
from perennial_serving.refusals import Overloaded
from perennial_spec import names

EVERY = {"health_query_seconds": 0.05}


def of(name: str, pipeline: Any, version: str) -> str:
    return f'{name}{{pipeline="{pipeline.name}",version="{version}"}}'


def up(server: Any, pipeline: Any, version: str) -> float | None:
    return server.metrics().get(of(names.HEALTH_QUERY_UP, pipeline, version))


def test_a_version_is_asked_without_a_client_and_nothing_else_counts_it(
    pipeline: Any, bundles: Any, serve: Any, wait: Any
) -> None:
    before = time.time()
    live, shadow = pipeline.register(bundles["one"]), pipeline.register(bundles["classes"])
    pipeline.route({live: 1.0}, shadow=(shadow,))
    server = serve(pipeline, **EVERY)
    for version in (live, shadow):
        wait(lambda version=version: up(server, pipeline, version) == 1, 10)
    time.sleep(0.3)  # and again
    found = server.metrics()
    assert 0 < found[of(names.HEALTH_QUERY_SECONDS, pipeline, live)] < 5
    assert before - 60 < found[of(names.MODEL_TRAINED, pipeline, live)] < time.time() + 60
    untouched = (
        names.PREDICTIONS,
        names.OBSERVATIONS,
        names.REQUESTS,
        names.OUT_OF_RANGE,
        names.PREDICTION_LOG_WRITTEN,
    )
    assert {value for sample, value in found.items() if sample.startswith(untouched)} == {0}
    assert not Path(str(server.platform.store), "predictions").exists()


def test_a_version_that_answers_otherwise_than_in_training_is_down_until_it_no_longer_does(
    pipeline: Any, bundles: Any, serve: Any, wait: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    caplog.set_level(logging.INFO, "perennial_serving.health")
    version = pipeline.register(bundles["moody"])
    pipeline.route({version: 1.0})
    server = serve(pipeline, **EVERY)
    wait(lambda: up(server, pipeline, version) == 1, 10)
    for mood, said in (
        ("0.001", "answers its own training rows differently"),
        ("broken", "fails its health query: ValueError at features.py"),
    ):
        monkeypatch.setenv("MOOD", mood)
        wait(lambda: up(server, pipeline, version) == 0, 10)
        time.sleep(0.3)
        monkeypatch.delenv("MOOD")
        wait(lambda: up(server, pipeline, version) == 1, 10)
        lines = [record for record in caplog.records if record.name == "perennial_serving.health"]
        caplog.clear()
        assert [record.levelname for record in lines] == ["WARNING", "INFO"], lines
        assert said in lines[0].getMessage()
        assert "not today" not in lines[0].getMessage()


def test_a_version_that_leaves_the_route_is_asked_no_more(pipeline: Any, bundles: Any, serve: Any, wait: Any) -> None:
    old, new = pipeline.register(bundles["one"]), pipeline.register(bundles["two"])
    pipeline.route({old: 1.0})
    server = serve(pipeline, **EVERY)
    wait(lambda: up(server, pipeline, old) == 1, 10)
    pipeline.route({new: 1.0})
    server.until_revision(pipeline)
    wait(lambda: up(server, pipeline, new) == 1 and up(server, pipeline, old) is None, 10)
    assert server.metrics()[of(names.MODEL_LOADED, pipeline, old)] == 1  # for as long as its grace lasts


def test_without_a_period_nothing_is_asked(pipeline: Any, bundles: Any, serve: Any) -> None:
    version = pipeline.register(bundles["one"])
    pipeline.route({version: 1.0})
    server = serve(pipeline, health_query_seconds=0.0)
    time.sleep(0.3)
    assert up(server, pipeline, version) is None


def test_the_time_of_registration_is_known_after_a_restart_without_the_registry(
    pipeline: Any, bundles: Any, serve: Any, cable: Any
) -> None:
    version = pipeline.register(bundles["one"])
    pipeline.route({version: 1.0})
    first = serve(pipeline, url=cable.url)
    expected = first.metrics()[of(names.MODEL_TRAINED, pipeline, version)]
    first.stop()
    cable.cut()
    again = serve(pipeline, url=cable.url)
    assert again.metrics()[names.REGISTRY_UP] == 0
    assert again.metrics()[of(names.MODEL_TRAINED, pipeline, version)] == expected


async def test_a_model_whose_queue_is_full_of_clients_is_not_called_down(one: Any) -> None:
    class Busy:
        async def ask(self, columns: Any) -> Any:
            raise Overloaded("64 requests wait")

    fleet = one.parts.fleet
    model: Any = next(iter(fleet.served["flights"].models.values()))
    queries = HealthQueries(fleet, 1000.0)
    before = dict(fleet.health)
    await queries.ask({("flights", "99"): replace(model, process=Busy())})
    assert fleet.health == before


def test_a_bundle_without_smoke_rows_has_no_question(bundles: Any) -> None:
    bundle = Bundle.load(bundles["one"])
    assert Question.of(replace(bundle, smoke=Smoke({}, []))) is None
    question = Question.of(bundle)
    assert question is not None
    assert question.answer.tolist() == bundle.smoke.predictions


def test_what_is_in_progress_stands_beside_its_limit(one: Any, wait: Any) -> None:
    wait(lambda: one.metrics()[names.IN_FLIGHT] >= 1, 10)  # the connection that asks
    found = one.metrics()
    assert found[names.IN_FLIGHT] <= found[names.REQUESTS_LIMIT] == one.settings.max_connections
    assert (found[names.ROWS_IN_FLIGHT], found[names.ROWS_LIMIT]) == (0, one.settings.max_inflight_rows)

"""What is read out of Prometheus, against a real one: exact counts over replicas and over resets."""

from __future__ import annotations

import pytest

from perennial_spec import names
from perennial_steps import figures


@pytest.fixture
def name(trained) -> str:
    return trained.name


def test_counts_are_exact_over_replicas_and_since_the_start(watch, name: str) -> None:
    first, second = watch.replicas
    first.answer(name, "1", 100)
    watch.until(f'{names.REQUESTS}{{pipeline="{name}", code="200"}} == 100')
    since = watch.client.now()
    first.answer(name, "1", 7)
    second.answer(name, "1", 13)
    second.answer(name, "1", 3, code=500, seconds=0.5)
    first.answer(name, "1", 2, code=422)
    watch.until(f'sum({names.REQUESTS}{{pipeline="{name}"}}) == 125')
    now = watch.client.now()
    found = figures.of_version(watch.client, name, "1", since, now)
    assert (found.requests, found.errors) == (25, 3)
    assert found.error_rate == 3 / 25
    assert found.latency_p99 is not None
    assert 0.1 < found.latency_p99 <= 1.0
    assert figures.of_version(watch.client, name, "2", since, now) == figures.Figures()


def test_a_first_error_is_counted_though_its_series_did_not_exist(watch, name: str) -> None:
    watch.replicas[0].answer(name, "1", 50)
    watch.until(f'{names.REQUESTS}{{pipeline="{name}"}} == 50')
    since = watch.client.now()
    watch.replicas[0].answer(name, "1", 1, code=500)
    watch.until(f'{names.REQUESTS}{{pipeline="{name}", code="500"}} == 1')
    assert figures.of_version(watch.client, name, "1", since, watch.client.now()).errors == 1


def test_a_restarted_server_counts_from_its_restart(watch, name: str) -> None:
    counter = watch.replicas[0].counter(names.REQUESTS, pipeline=name, version="1", protocol="oip", code="200")
    counter.inc(1000)
    watch.until(f'{names.REQUESTS}{{pipeline="{name}"}} == 1000')
    since = watch.client.now()
    counter.reset()
    counter.inc(8)
    watch.until(f'{names.REQUESTS}{{pipeline="{name}"}} == 8')
    assert figures.of_version(watch.client, name, "1", since, watch.client.now()).requests == 8


def test_predictions_are_compared_with_the_versions_own_reference(watch, name: str) -> None:
    since = watch.client.now()
    reference = {"(-inf,0.5]": 0.5, "(0.5,inf)": 0.5}
    watch.replicas[0].predict(name, "1", {"(-inf,0.5]": 200}, reference)
    watch.replicas[1].predict(name, "1", {"(-inf,0.5]": 100, "(0.5,inf)": 700}, reference)
    watch.until(f'sum({names.OBSERVATIONS}{{pipeline="{name}"}}) == 1000')
    found = figures.of_version(watch.client, name, "1", since, watch.client.now())
    assert found.predictions.live == {"(-inf,0.5]": 300, "(0.5,inf)": 700}
    assert found.predictions.reference == reference
    assert found.predictions.reference_rows == 100_000
    assert found.prediction_psi == pytest.approx(0.16910, abs=1e-4)


def test_no_traffic_and_no_scrape_do_not_look_alike(watch, name: str) -> None:
    assert not figures.is_watched(watch.client, name, "1")
    watch.replicas[0].follow(name, "1", 1)
    watch.until(f'{names.MODEL_LOADED}{{pipeline="{name}"}}')
    assert figures.is_watched(watch.client, name, "1")

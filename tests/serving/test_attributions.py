"""Attributions of a real server: what /explain says of the same rows, counted while nobody waits for it."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np
import pytest

from perennial_features.bundle import Bundle
from perennial_spec import names

OFTEN = {"attribution_seconds": 0.2}


@pytest.fixture
def rows(row: Any) -> list[dict[str, Any]]:
    """Missing values, and a category that training did not see."""
    carriers = ["UA", "B6", None, "never seen"]
    return [
        {
            **row,
            "flight_id": f"F{n}",
            "distance": 40.0 * n if n % 5 else None,
            "carrier": carriers[n % 4],
            "stops": n % 3,
        }
        for n in range(60)
    ]


@pytest.fixture
def served(pipeline: Any, bundles: Any, serve: Any) -> Any:
    version = pipeline.register(bundles["one"])
    pipeline.route({version: 1.0})
    return serve(pipeline, **OFTEN)


def of(server: Any, name: str, **labels: str) -> str:
    inside = {"pipeline": server.name, "version": "1", **labels}
    return name + "{" + ",".join(f'{key}="{value}"' for key, value in inside.items()) + "}"


def totals(server: Any) -> dict[str, float]:
    start = of(server, names.ATTRIBUTION_ABS)[:-1] + ',feature="'
    return {key[len(start) : -2]: value for key, value in server.metrics().items() if key.startswith(start)}


def counted(server: Any) -> tuple[float, float]:
    """Rows explained, and rows given up."""
    found = server.metrics()
    return found[of(server, names.ATTRIBUTION_ROWS)], found[of(server, names.ATTRIBUTION_DROPPED)]


def explained(server: Any, rows: list[dict[str, Any]]) -> dict[str, float]:
    answer = server.http.post(f"/pipelines/{server.name}/explain", json={"dataframe_records": rows})
    assert answer.status_code == 200
    each = answer.json()["contributions"]
    return {feature: sum(abs(one[feature]) for one in each) for feature in each[0]}


def test_they_are_what_explain_says_of_the_same_rows(served: Any, rows: Any, wait: Any) -> None:
    for start in (0, 1, 2):  # one by one, a few, and many: both ways through the server
        part = rows[start::3]
        for each in [part[:1], part[1:5], part[5:]]:
            assert served.invoke(each, served.name).status_code == 200
    wait(lambda: counted(served)[0] == len(rows), 60)
    assert counted(served) == (len(rows), 0)
    assert totals(served) == pytest.approx(explained(served, rows), rel=1e-4)


def test_explanations_that_were_asked_for_are_not_counted(served: Any, rows: Any, wait: Any) -> None:
    explained(served, rows)
    served.invoke(rows[:2], served.name)
    wait(lambda: counted(served)[0] > 0, 60)
    assert counted(served) == (2, 0)


def test_the_reference_is_exported(served: Any, bundles: Any) -> None:
    reference = Bundle.load(bundles["one"]).reference.attribution
    assert reference is not None
    found = served.metrics()
    shares = [found[of(served, names.ATTRIBUTION_REFERENCE, feature=feature)] for feature in reference.features]
    assert shares == list(reference.shares)
    assert sum(shares) == pytest.approx(1)
    assert found[of(served, names.ATTRIBUTION_REFERENCE_ROWS)] == reference.rows
    assert found[of(served, names.ATTRIBUTION_NOISE)] == reference.noise


def test_an_infinite_value_costs_its_own_row_and_no_other(served: Any, wait: Any) -> None:
    model = served.parts.fleet.served[served.name].models["1"]
    width = len(model.schema.features)
    matrix = np.zeros((5, width), dtype=np.float32)
    matrix[1, 0], matrix[2, 1], matrix[3] = np.inf, np.nan, np.nan
    model.scorer.sample.offer(matrix)
    wait(lambda: sum(counted(served)) == 5, 60)
    assert counted(served) == (4, 1)
    model.scorer.sample.offer(np.full((2, width), -np.inf, dtype=np.float32))
    wait(lambda: sum(counted(served)) == 7, 60)
    assert counted(served) == (4, 3)


def test_what_is_not_finite_is_never_counted(served: Any, rows: Any, wait: Any, monkeypatch: Any) -> None:
    from perennial_serving.child import Child

    real = Child.call

    async def broken(*args: Any) -> Any:
        head, found = await real(*args)
        wrong = found["contributions"].copy()
        wrong[1, 0], wrong[2, 1] = np.nan, np.inf
        return head, {**found, "contributions": wrong}

    monkeypatch.setattr(Child, "call", broken)
    assert served.invoke(rows[:10], served.name).status_code == 200
    wait(lambda: sum(counted(served)) == 10, 60)
    assert counted(served) == (8, 2)
    assert 0 < sum(totals(served).values()) < 1000


def test_a_process_that_is_killed_costs_a_round_and_no_answer(
    served: Any, rows: Any, wait: Any, monkeypatch: Any
) -> None:
    from perennial_serving import attributions

    real = attributions._idle_child
    started = []

    async def doomed() -> Any:
        child = await real()
        assert os.sched_getscheduler(child.pid) == os.SCHED_IDLE
        os.kill(child.pid, signal.SIGKILL)
        started.append(child.pid)
        monkeypatch.setattr(attributions, "_idle_child", real)
        return child

    monkeypatch.setattr(attributions, "_idle_child", doomed)
    assert served.invoke(rows, served.name).status_code == 200
    wait(lambda: counted(served)[1] == len(rows), 60)
    assert served.invoke(rows[:3], served.name).status_code == 200
    wait(lambda: counted(served)[0] == 3, 60)
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_where_no_process_can_be_started_rows_are_counted_and_answers_go_on(
    served: Any, rows: Any, wait: Any, monkeypatch: Any
) -> None:
    from perennial_serving import attributions

    async def failing() -> Any:
        raise OSError("no room")

    monkeypatch.setattr(attributions, "_idle_child", failing)
    assert served.invoke(rows, served.name).status_code == 200
    wait(lambda: counted(served)[1] == len(rows), 60)
    monkeypatch.undo()
    assert served.invoke(rows[:3], served.name).status_code == 200
    wait(lambda: counted(served)[0] == 3, 60)


def test_a_process_that_hangs_holds_no_answer_and_no_end(served: Any, rows: Any, wait: Any, monkeypatch: Any) -> None:
    from perennial_serving import attributions

    real = attributions._idle_child
    stopped: list[int] = []

    async def hanging() -> Any:
        child = await real()
        os.kill(child.pid, signal.SIGSTOP)
        stopped.append(child.pid)
        return child

    monkeypatch.setattr(attributions, "_idle_child", hanging)
    served.invoke(rows, served.name)
    wait(lambda: stopped, 60)
    for _ in range(20):
        assert served.invoke(rows, served.name).status_code == 200
    sample = served.parts.fleet.served[served.name].models["1"].scorer.sample
    assert len(sample.take()) == served.settings.attribution_rows, "more than 300 rows came: what waits is bounded"
    start = time.monotonic()
    served.stop()
    assert time.monotonic() - start < 10
    with pytest.raises(ProcessLookupError):
        os.kill(stopped[0], 0)


def test_a_model_without_a_reference_has_no_series(pipeline: Any, bundles: Any, serve: Any, rows: Any) -> None:
    version = pipeline.register(bundles["classes"])  # several values per row: nothing to compare with
    pipeline.route({version: 1.0})
    server = serve(pipeline, **OFTEN)
    assert server.invoke(rows, server.name).status_code == 200
    assert not [key for key in server.metrics() if key.startswith("perennial_attribution")]


def test_it_can_be_turned_off(pipeline: Any, bundles: Any, serve: Any, rows: Any) -> None:
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    server = serve(pipeline, **OFTEN, attribution_rows=0)
    assert server.invoke(rows, server.name).status_code == 200
    assert server.parts.fleet.served[server.name].models["1"].scorer.sample is None
    assert counted(server) == (0, 0)

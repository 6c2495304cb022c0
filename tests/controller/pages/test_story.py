"""The pages and the same as JSON, over a real ledger: what people are told of each decision, run and step, and of a part that is away."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.responses import JSONResponse

TOKEN = "correct-horse"
ASKED = {"reason": "the quarter's data is in", "actor": "ada"}
GATES = [{"gate": "roc_auc", "value": 0.71, "bound": ">= 0.6", "passed": True}]


def basic(password: str = TOKEN) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"ann:{password}".encode()).decode()}


def task(name: str, state: str = "success", minute: int = 0, operator: str = "LocalStepOperator") -> dict[str, Any]:
    start = datetime(2026, 6, 1, 12, minute, tzinfo=UTC)
    ended = (start + timedelta(seconds=30)).isoformat() if state != "running" else None
    return {"task_id": name, "operator": operator, "state": state, "start_date": start.isoformat(), "end_date": ended}


def in_airflow(world: Any, run_id: str) -> None:
    """A run that has judged a challenger, and is deploying it."""
    world.airflow.tasks[run_id] = [
        task("deploy_10", "running", 3),
        task("begun", "success", 2, "EmptyOperator"),
        task("rollback", "skipped", 4),
        task("evaluate", minute=1),
        {**task("promote"), "start_date": None, "end_date": None},
    ]
    outputs = {"model_version": "2", "gain": 0.02, "gates": GATES}
    world.airflow.tasks[run_id].append(task("analyse_10", "failed", 4))
    world.airflow.results[run_id, "analyse_10"] = {"verdict": "fail", "summary": "errors"}
    world.airflow.results[run_id, "evaluate"] = {"verdict": "pass", "summary": "1 of 1 gates hold", "outputs": outputs}


async def told(client: Any, **params: Any) -> dict[str, Any]:
    answer = await client.http.get("/api/v1/pipelines/flights/timeline", params=params)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def started(client: Any, world: Any) -> str:
    """The id of a run that a person has asked for, and that Airflow has."""
    run_id = (await client.http.post("/api/v1/pipelines/flights/runs", json=ASKED)).json()["run_id"]

    async def delivered() -> bool:
        return (await told(client))["moments"][0]["run"]["state"] == "running"

    await client.until(delivered)
    return str(run_id)


async def test_an_active_run_is_told_step_by_step(world: Any) -> None:
    async with world.controller() as client:
        run_id = await started(client, world)
        in_airflow(world, run_id)
        (moment,) = (await told(client))["moments"]
    assert (moment["kind"], moment["actor"], moment["decision"]) == ("person", "ada", "accepted")
    run = moment["run"]
    assert (run["run_id"], run["state"]) == (run_id, "running")
    assert [(step["task"], step["state"], step["verdict"]) for step in run["steps"]] == [
        ("evaluate", "success", "pass"),
        ("deploy_10", "running", None),
        ("analyse_10", "failed", "fail"),
    ]
    assert run["steps"][0]["gates"] == GATES
    assert run["steps"][0]["figures"] == {"model_version": "2", "gain": 0.02}


async def test_when_a_run_has_ended_its_steps_are_told_from_the_ledger(world: Any) -> None:
    async with world.controller() as client:
        run_id = await started(client, world)
        in_airflow(world, run_id)
        world.registry.register("flights", 3, run_id, champion=True, verdict="promoted")
        world.airflow.finish(run_id)

        async def ended() -> dict[str, Any] | None:
            run = (await told(client))["moments"][0]["run"]
            return run if run["state"] == "success" else None

        before = await client.until(ended)
        metrics = await client.metrics()
        assert metrics['perennial_rollout_verdicts_total{pipeline="flights",verdict="fail"}'] == 1
        assert metrics['perennial_rollout_verdicts_total{pipeline="flights",verdict="pass"}'] == 0
        assert metrics['perennial_breaker_open{pipeline="flights"}'] == 0
        world.airflow.runs.clear()
        world.airflow.tasks.clear()
        after = (await told(client))["moments"][0]["run"]
    assert before == after
    assert [step["task"] for step in after["steps"]] == ["evaluate", "deploy_10", "analyse_10"]
    assert (after["verdict"], after["model_version"]) == ("promoted", "1")


async def test_airflow_that_is_away_is_named_and_the_rest_is_told(world: Any) -> None:
    async with world.controller(watch_every=3600) as client:
        run_id = await started(client, world)
        world.airflow.tasks[run_id] = [{"task_id": "train", "start_date": "no time"}]
        found = await told(client)
        assert found["away"] == ["Airflow does not answer: steps of the runs that are active are not shown"]
        assert found["moments"][0]["run"]["steps"] == []
        page = (await client.http.get("/pipelines/flights", headers=basic())).text
    assert "Airflow does not answer: steps of the runs that are active are not shown." in page


async def test_what_is_old_is_told_page_by_page(world: Any) -> None:
    async with world.controller() as client:
        for number in range(5):
            await client.http.post("/api/v1/pipelines/flights/pause", json={"reason": f"{number}", "actor": "ann"})
        first = await told(client, limit=2)
        second = await told(client, limit=2, before=first["older"])
        third = await told(client, limit=2, before=second["older"])
        page = (await client.http.get("/pipelines/flights?limit=2", headers=basic())).text
        last = (await client.http.get(f"/pipelines/flights?before={second['older']}", headers=basic())).text
    summaries = [moment["summary"] for found in (first, second, third) for moment in found["moments"]]
    assert summaries == ["4", "3", "2", "1", "0"]
    assert third["older"] is None
    assert f"/pipelines/flights?before={first['older']}" in page
    assert ">Older<" not in last
    assert ">Newest<" in last


async def test_all_pipelines_are_told_at_a_glance(world: Any, make_alert: Any) -> None:
    world.pipeline("trains")
    world.pipeline("boats")
    (world.pipelines / "boats" / "pipeline.yaml").write_text("name: boats\nsurprise: 1\n")
    world.registry.register("flights", 3, champion=True)
    async with world.controller(champions_every=0.1) as client:
        await client.alert(make_alert())
        await client.http.post("/api/v1/pipelines/trains/pause", json={"reason": "an upgrade", "actor": "bob"})

        async def settled() -> dict[str, Any] | None:
            found = (await client.http.get("/api/v1/pipelines")).json()
            states = {each["pipeline"]: each for each in found["pipelines"]}
            done = states["flights"]["state"] == "waiting" and states["trains"]["state"] == "paused"
            return states if done else None

        found = await client.until(settled)
        page = (await client.http.get("/", headers=basic())).text
    assert list(found) == ["boats", "flights", "trains"]
    assert found["boats"]["state"] == "broken"
    assert "its files cannot be read: " in found["boats"]["says"]
    assert found["flights"]["firing"] == ["PerennialFeatureDrift"]
    assert found["flights"]["champion"] == "1"
    assert "waiting for data" in found["flights"]["says"]
    assert found["trains"]["says"] == "bob has paused retraining: an upgrade"
    assert "1 alert fires: PerennialFeatureDrift" in page
    for name in found:
        assert f'href="/pipelines/{name}"' in page


async def test_a_registry_that_is_away_is_named_and_the_rest_is_told(world: Any) -> None:
    world.registry.misbehave = lambda: JSONResponse({}, 500)
    async with world.controller() as client:
        found = (await client.http.get("/api/v1/pipelines")).json()
    assert [each["pipeline"] for each in found["pipelines"]] == ["flights"]
    assert found["away"] == ["the registry does not answer: which version takes which traffic is not shown"]


async def test_pages_are_for_who_knows_the_token_and_change_nothing(world: Any) -> None:
    async with world.controller() as client:
        for headers in (
            {"Authorization": ""},
            basic("wrong"),
            {"Authorization": "Basic %%%"},
            {"Authorization": "Basic Og=="},
        ):
            for path in ("/", "/pipelines/flights"):
                answer = await client.http.get(path, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"].startswith('Basic realm="Perennial"')
        assert (await client.http.get("/", headers=basic())).status_code == 200
        # What a browser sends by itself must not be able to start, pause or move anything.
        assert (await client.http.post("/api/v1/pause", json=ASKED, headers=basic())).status_code == 401
        assert (await client.http.get("/api/v1/pipelines", headers=basic())).status_code == 401


async def test_a_page_says_what_is_wrong_as_a_page(world: Any) -> None:
    async with world.controller() as client:
        missing = await client.http.get("/pipelines/flihgts", headers=basic())
        wrong = await client.http.get("/pipelines/flights?before=soon", headers=basic())
        with world.database.away():
            away = await client.http.get("/", headers=basic())
    assert (missing.status_code, wrong.status_code, away.status_code) == (404, 400, 503)
    assert "flights" in missing.text
    assert "before is &#39;soon&#39;" in wrong.text
    assert "the ledger does not answer" in away.text
    assert {answer.headers["content-type"] for answer in (missing, wrong, away)} == {"text/html; charset=utf-8"}


@pytest.mark.parametrize(("path", "field"), [("limit=0", "limit"), ("limit=101", "limit"), ("before=x", "before")])
async def test_a_timeline_that_is_asked_for_wrongly_says_how(world: Any, path: str, field: str) -> None:
    async with world.controller() as client:
        answer = await client.http.get(f"/api/v1/pipelines/flights/timeline?{path}")
        assert answer.status_code == 400
        assert answer.json()["error"].startswith(f"{field} is ")
        assert (await client.http.get("/api/v1/pipelines/nobodys/timeline")).status_code == 404

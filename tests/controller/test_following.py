"""Alerts that are held back are decided anew, and runs are followed to their end."""

from __future__ import annotations

import asyncio
from typing import Any

ASKED = {"reason": "r", "actor": "ada"}


async def _ended(client: Any, id: int) -> dict[str, Any]:
    async def outcome() -> dict[str, Any] | None:
        row = await client.decision(id)
        return row if row["outcome"] else None

    return dict(await client.until(outcome))


async def test_an_alert_that_waits_for_data_starts_a_run_when_the_data_has_passed(world: Any, make_alert: Any) -> None:
    world.registry.register("flights", 3, champion=True)
    world.validated("flights", 3)
    async with world.controller() as client:
        (id,) = (await client.alert(make_alert())).json()["decisions"]
        waiting = await client.decided(id, "waiting_for_data")
        assert "the champion (version 1) was trained on 3" in waiting["reason"]
        world.validated("flights", 4, passed=False)
        await asyncio.sleep(0.4)
        assert (await client.decision(id))["decision"] == "waiting_for_data"
        world.validated("flights", 5)
        row = await client.decided(id, "accepted")
        await client.until(lambda: world.airflow.of("flights"))
    assert [step["decision"] for step in row["trail"]] == ["waiting_for_data", "accepted"]
    assert "data version 5 passed validation, newer than 3" in row["reason"]


async def test_an_alert_merged_into_a_run_that_does_not_help_waits_for_newer_data(world: Any, make_alert: Any) -> None:
    world.registry.register("flights", 3, champion=True)
    world.validated("flights", 5)
    async with world.controller() as client:
        (first,) = (await client.alert(make_alert())).json()["decisions"]
        run_id = (await client.decided(first, "accepted"))["run_id"]
        (second,) = (await client.alert(make_alert(fingerprint="f2"))).json()["decisions"]
        merged = await client.decided(second, "merged")
        assert merged["run_id"] == run_id
        await client.until(lambda: world.airflow.of("flights"))
        lost = world.registry.register("flights", 5, run_key=run_id)  # a challenger that fails its gates
        world.airflow.finish(run_id, "failed")
        ended = await _ended(client, first)
        assert (ended["outcome"], ended["model_version"], ended["data_version"]) == ("failed", lost, 5)
        row = await client.decided(second, "waiting_for_data")
        assert "a model was already trained on 5" in row["reason"]
        world.validated("flights", 6)
        row = await client.decided(second, "accepted")
    assert [step["decision"] for step in row["trail"]] == ["merged", "waiting_for_data", "accepted"]


async def test_the_cooldown_holds_an_alert_and_then_lets_it_go(world: Any, make_alert: Any) -> None:
    world.pipeline("flights", "{on: [drift], cooldown: 2s}")
    world.validated("flights", 3)
    async with world.controller() as client:
        first = (await client.http.post("/api/v1/pipelines/flights/runs", json=ASKED)).json()
        await client.until(lambda: world.airflow.of("flights"))
        world.airflow.finish(first["run_id"])
        await _ended(client, first["id"])
        (id,) = (await client.alert(make_alert())).json()["decisions"]
        row = await client.decided(id, "accepted")
    assert [step["decision"] for step in row["trail"]][-1] == "accepted"


async def test_a_run_that_airflow_has_lost_does_not_hold_its_pipeline(world: Any) -> None:
    async with world.controller() as client:
        first = (await client.http.post("/api/v1/pipelines/flights/runs", json=ASKED)).json()
        await client.until(lambda: world.airflow.of("flights"))

        async def delivered() -> bool:
            return bool((await client.decision(first["id"]))["delivery"] == "delivered")

        await client.until(delivered)
        world.airflow.runs.clear()
        assert (await _ended(client, first["id"]))["outcome"] == "lost"
        assert (await client.http.post("/api/v1/pipelines/flights/runs", json=ASKED)).status_code == 202


async def test_runs_started_in_airflow_itself_are_noted_and_hold_alerts(world: Any, make_alert: Any) -> None:
    world.validated("flights", 3)
    world.airflow.add("flights", "scheduled__2026-01-01T00:00:00+00:00", run_type="scheduled")
    world.airflow.add("strangers", "manual__x")
    async with world.controller() as client:
        (row,) = await client.until(client.decisions)
        (id,) = (await client.alert(make_alert())).json()["decisions"]
        merged = await client.decided(id, "merged")
        assert merged["run_id"] == row["run_id"] == "scheduled__2026-01-01T00:00:00+00:00"
        world.airflow.finish(row["run_id"])
        ended = await _ended(client, row["id"])
    assert (row["kind"], row["summary"], row["decision"]) == ("schedule", "scheduled run of Airflow", "accepted")
    assert ended["outcome"] == "success"
    assert world.airflow.posts == []


async def test_looking_and_repeating_use_up_no_numbers(world: Any, make_alert: Any) -> None:
    async with world.controller() as client:
        first = (await client.http.post("/api/v1/pipelines/flights/runs", json=ASKED)).json()
        await client.until(lambda: world.airflow.of("flights"))
        for _ in range(5):
            (second,) = (await client.alert(make_alert())).json()["decisions"]
            await asyncio.sleep(0.1)  # Airflow is asked for what it runs meanwhile
        (third,) = (await client.alert(make_alert(fingerprint="f2"))).json()["decisions"]
    assert [first["id"], second, third] == [1, 2, 3]


async def test_a_run_that_a_person_started_in_airflow_is_theirs(world: Any) -> None:
    world.airflow.add("flights", "manual__1", triggering_user_name="grace")
    async with world.controller() as client:
        (row,) = await client.until(client.decisions)
    assert (row["kind"], row["actor"], row["summary"]) == ("person", "grace", "started in Airflow by grace")


async def test_a_run_is_not_written_as_ended_before_the_registry_has_told_its_model(world: Any) -> None:
    from starlette.responses import JSONResponse

    async with world.controller() as client:
        first = (await client.http.post("/api/v1/pipelines/flights/runs", json=ASKED)).json()
        await client.until(lambda: world.airflow.of("flights"))
        world.registry.misbehave = lambda: JSONResponse({}, 503)
        world.registry.register("flights", 7, run_key=first["run_id"])
        world.airflow.finish(first["run_id"])
        await asyncio.sleep(0.5)
        assert (await client.decision(first["id"]))["outcome"] is None
        world.registry.misbehave = lambda: None
        ended = await _ended(client, first["id"])
    assert (ended["outcome"], ended["model_version"], ended["data_version"]) == ("success", "1", 7)


async def test_one_run_that_cannot_be_asked_after_holds_no_other(world: Any) -> None:
    from starlette.responses import JSONResponse

    world.pipeline("trains")
    async with world.controller() as client:
        first = (await client.http.post("/api/v1/pipelines/flights/runs", json=ASKED)).json()
        second = (await client.http.post("/api/v1/pipelines/trains/runs", json=ASKED)).json()
        await client.until(lambda: world.airflow.of("flights") and world.airflow.of("trains"))
        world.registry.misbehave_for["flights"] = lambda: JSONResponse({}, 503)
        world.airflow.finish(first["run_id"])
        world.airflow.finish(second["run_id"])
        world.airflow.add("trains", "scheduled__1", run_type="scheduled")
        assert (await _ended(client, second["id"]))["outcome"] == "success"

        async def noted() -> bool:
            return "scheduled__1" in {row["run_id"] for row in await client.decisions("trains")}

        await client.until(noted)
        assert (await client.decision(first["id"]))["outcome"] is None
        world.registry.misbehave_for.clear()
        assert (await _ended(client, first["id"]))["outcome"] == "success"


async def test_a_broken_pipeline_holds_its_alerts_until_it_is_mended(world: Any, make_alert: Any) -> None:
    world.validated("trains", 3)
    file = world.pipeline("trains") / "pipeline.yaml"
    good = file.read_text()
    file.write_text(good.replace("cooldown", "cooldwon"))
    async with world.controller() as client:
        (id,) = (await client.alert(make_alert(pipeline="trains"))).json()["decisions"]

        async def says_why() -> bool:
            return "pipeline trains is broken" in (await client.decision(id))["reason"]

        await client.until(says_why)
        file.write_text(good)
        await client.decided(id, "accepted")


async def test_an_alert_of_which_no_copy_comes_is_taken_as_ended(world: Any, make_alert: Any) -> None:
    from datetime import timedelta

    async with world.controller(alert_expiry=timedelta(seconds=1)) as client:
        (id,) = (await client.alert(make_alert())).json()["decisions"]
        await client.decided(id, "waiting_for_data")
        row = await client.decided(id, "resolved")
    assert "no copy of the alert came since" in row["reason"]
    assert row["resolved_at"]

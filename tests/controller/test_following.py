"""Alerts that are held back are decided anew, and runs are followed to their end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

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


async def _successor(client: Any, id: int) -> int:
    async def found() -> int:
        return int((await client.decision(id))["successor_id"] or 0)

    return int(await client.until(found))


async def test_an_alert_whose_run_failed_asks_again_and_gets_a_run_on_newer_data_only(
    world: Any, make_alert: Any
) -> None:
    world.validated("flights", 3)
    async with world.controller() as client:
        (first,) = (await client.alert(make_alert())).json()["decisions"]
        run_id = (await client.decided(first, "accepted"))["run_id"]
        await client.until(lambda: world.airflow.of("flights"))
        world.airflow.finish(run_id, "failed")  # it had not come as far as a model
        second = await _successor(client, first)
        waiting = await client.decided(second, "waiting_for_data")
        assert "the run that this alert had on 3 did not succeed" in waiting["reason"]
        assert (await client.alert(make_alert())).json() == {"decisions": [second], "new": 0}
        await asyncio.sleep(0.4)
        assert len(world.airflow.posts) == 1
        world.validated("flights", 4)
        again = await client.decided(second, "accepted")
        await client.until(lambda: len(world.airflow.of("flights")) == 2)
        world.airflow.finish(again["run_id"], "failed")
        third = await _successor(client, second)
        await client.decided(third, "waiting_for_data")
        await client.alert(make_alert(status="resolved"))
        await client.decided(third, "resolved")
        rows = await client.decisions()
    assert [row["dedupe_key"].partition("+00:00")[2] for row in rows] == ["#3", "#2", ""]
    assert [(row["outcome"], row["duplicates"]) for row in rows] == [(None, 0), ("failed", 1), ("failed", 0)]
    assert rows[-1]["run_id"] == run_id != again["run_id"]
    assert len(world.airflow.posts) == 2


async def test_an_alert_asks_again_within_its_cooldown(world: Any, make_alert: Any) -> None:
    world.pipeline("flights", "{on: [drift], cooldown: 1h}")
    world.validated("flights", 3)
    async with world.controller() as client:
        (first,) = (await client.alert(make_alert())).json()["decisions"]
        run_id = (await client.decided(first, "accepted"))["run_id"]
        await client.until(lambda: world.airflow.of("flights"))
        world.validated("flights", 4)
        world.airflow.finish(run_id, "failed")
        await client.decided(await _successor(client, first), "cooling_down")


@pytest.mark.parametrize("state", ["success", "failed"])
async def test_an_alert_that_is_answered_or_over_does_not_ask_again(world: Any, make_alert: Any, state: str) -> None:
    world.validated("flights", 3)
    async with world.controller() as client:
        (id,) = (await client.alert(make_alert())).json()["decisions"]
        run_id = (await client.decided(id, "accepted"))["run_id"]
        await client.until(lambda: world.airflow.of("flights"))
        if state == "failed":
            await client.alert(make_alert(status="resolved"))
        world.airflow.finish(run_id, state)
        await _ended(client, id)
        world.validated("flights", 4)
        await client.alert(make_alert())
        await asyncio.sleep(0.4)
        (row,) = await client.decisions()
    assert (row["outcome"], row["duplicates"]) == (state, 1)
    assert len(world.airflow.posts) == 1


async def test_an_alert_that_comes_back_after_its_run_failed_asks_again(world: Any, make_alert: Any) -> None:
    world.validated("flights", 3)
    async with world.controller() as client:
        (first,) = (await client.alert(make_alert())).json()["decisions"]
        run_id = (await client.decided(first, "accepted"))["run_id"]
        await client.until(lambda: world.airflow.of("flights"))
        await client.alert(make_alert(status="resolved"))
        world.airflow.finish(run_id, "failed")
        await _ended(client, first)
        world.database.run("UPDATE perennial_decisions SET resolved_at = resolved_at - interval '2 minutes'")
        await client.alert(make_alert())
        await client.decided(await _successor(client, first), "waiting_for_data")


async def test_two_controllers_write_one_successor(world: Any, make_alert: Any) -> None:
    world.validated("flights", 3)
    async with world.controller() as one, world.controller():
        (first,) = (await one.alert(make_alert())).json()["decisions"]
        run_id = (await one.decided(first, "accepted"))["run_id"]
        await one.until(lambda: world.airflow.of("flights"))
        world.airflow.finish(run_id, "failed")
        await one.decided(await _successor(one, first), "waiting_for_data")
        await asyncio.sleep(0.4)
        assert len(await one.decisions()) == 2


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

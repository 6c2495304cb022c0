"""A person pauses retraining, and resumes it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

PAUSE = "/api/v1/pipelines/flights/pause"
RESUME = "/api/v1/pipelines/flights/resume"
BY_ANN = {"reason": "the source is broken", "actor": "ann"}


async def test_an_alert_during_a_pause_waits_and_starts_its_run_when_somebody_resumes(
    world: Any, make_alert: Any
) -> None:
    world.validated("flights", 1)
    async with world.controller() as client:
        (paused,) = (await client.http.post(PAUSE, json=BY_ANN)).json()["pauses"]
        assert (paused["pipeline"], paused["actor"], paused["until"]) == ("flights", "ann", None)
        (id,) = (await client.alert(make_alert())).json()["decisions"]
        row = await client.decided(id, "paused")
        assert "ann has paused this pipeline" in row["reason"]
        assert "the source is broken" in row["reason"]
        assert not world.airflow.of("flights")
        assert (await client.http.post(RESUME, json={"actor": "bob"})).json() == {"pauses": []}
        await client.decided(id, "accepted")
        await client.until(lambda: world.airflow.of("flights"))


async def test_a_pause_holds_across_a_restart_and_ends_by_itself(world: Any, make_alert: Any) -> None:
    world.validated("flights", 1)
    async with world.controller() as client:
        await client.http.post("/api/v1/pause", json={**BY_ANN, "for": "3s"})
    async with world.controller() as client:
        (id,) = (await client.alert(make_alert())).json()["decisions"]
        row = await client.decided(id, "paused")
        assert "ann has paused all pipelines" in row["reason"]
        await client.decided(id, "accepted")
        assert (await client.http.get("/api/v1/pauses")).json() == {"pauses": []}


async def test_to_resume_a_pipeline_does_not_resume_all(world: Any, make_alert: Any) -> None:
    world.pipeline("trains")
    world.validated("flights", 1)
    world.validated("trains", 1)
    async with world.controller() as client:
        await client.http.post("/api/v1/pause", json=BY_ANN)
        left = (await client.http.post(RESUME, json={"actor": "bob"})).json()["pauses"]
        assert [pause["pipeline"] for pause in left] == ["*"]
        alerts = make_alert(), make_alert("trains", fingerprint="f2")
        ids = (await client.alert(*alerts)).json()["decisions"]
        for id in ids:
            await client.decided(id, "paused")
        await client.http.post("/api/v1/resume", json={"actor": "bob"})
        for id in ids:
            await client.decided(id, "accepted")


async def test_a_pause_of_one_pipeline_leaves_the_others_alone(world: Any, make_alert: Any) -> None:
    world.pipeline("trains")
    world.validated("trains", 1)
    async with world.controller() as client:
        await client.http.post(PAUSE, json=BY_ANN)
        (id,) = (await client.alert(make_alert("trains"))).json()["decisions"]
        await client.decided(id, "accepted")


async def test_a_person_may_run_a_pipeline_that_is_paused(world: Any) -> None:
    async with world.controller() as client:
        await client.http.post(PAUSE, json=BY_ANN)
        answer = await client.http.post("/api/v1/pipelines/flights/runs", json={"reason": "a repair", "actor": "ann"})
        assert answer.status_code == 202


async def test_who_paused_and_who_resumed_stays_in_the_ledger(world: Any) -> None:
    async with world.controller() as client:
        before = datetime.now(UTC)
        (paused,) = (await client.http.post(PAUSE, json={**BY_ANN, "for": "2h"})).json()["pauses"]
        lasts = datetime.fromisoformat(paused["until"]) - datetime.fromisoformat(paused["since"])
        assert abs(lasts - timedelta(hours=2)) < timedelta(seconds=10)
        assert datetime.fromisoformat(paused["since"]) >= before - timedelta(seconds=1)
        await client.http.post(RESUME, json={"actor": "bob", "reason": "repaired"})

        async def noted() -> list[dict[str, Any]]:
            rows = await client.decisions()
            return rows if all(row["decision"] == "noted" for row in rows) else []

        resumed, paused_row = await client.until(noted)
    assert (resumed["kind"], resumed["actor"], resumed["summary"]) == ("resume", "bob", "repaired")
    assert (paused_row["kind"], paused_row["actor"], paused_row["summary"]) == ("pause", "ann", "the source is broken")
    assert not resumed["started"] and resumed["run_id"] is None


async def test_an_order_repeated_with_its_key_is_one_order(world: Any) -> None:
    async with world.controller() as client:
        for _ in range(3):
            await client.http.post(PAUSE, json=BY_ANN, headers={"Idempotency-Key": "once"})
        assert len(await client.decisions()) == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"reason": "why"}, "actor"),
        ({"actor": "ann"}, "reason"),
        ({**BY_ANN, "for": "2 hours"}, "expected a number with a unit"),
        ({**BY_ANN, "for": "0s"}, "for: Value error, expected more than 0 and at most 366d"),
        ({**BY_ANN, "for": "100w"}, "for: Value error, expected more than 0 and at most 366d"),
        ({**BY_ANN, "forever": True}, "forever"),
    ],
)
async def test_a_wrong_order_is_refused_with_the_field(world: Any, body: dict[str, Any], says: str) -> None:
    async with world.controller() as client:
        answer = await client.http.post(PAUSE, json=body)
        assert answer.status_code == 400
        assert says in answer.text
        assert (await client.http.get("/api/v1/pauses")).json() == {"pauses": []}


async def test_an_unknown_pipeline_cannot_be_paused(world: Any) -> None:
    async with world.controller() as client:
        answer = await client.http.post("/api/v1/pipelines/flihgts/pause", json=BY_ANN)
        assert answer.status_code == 404
        assert "flights" in answer.text


async def test_a_broken_pipeline_can_be_paused(world: Any) -> None:
    (world.pipeline("trains") / "pipeline.yaml").write_text("apiVersion: perennial/v1\nname: trains\n")
    async with world.controller() as client:
        paused = (await client.http.post("/api/v1/pipelines/trains/pause", json=BY_ANN)).json()["pauses"]
        assert [pause["pipeline"] for pause in paused] == ["trains"]


async def test_after_retrainings_in_vain_alerts_wait_until_somebody_resumes(world: Any, make_alert: Any) -> None:
    since = 'perennial_retrainings_since_promotion{pipeline="flights"}'
    async with world.controller() as client:
        for number in range(5):
            world.validated("flights", number)
            (id,) = (await client.alert(make_alert(fingerprint=f"f{number}"))).json()["decisions"]
            row = await client.decided(id, "accepted")
            await client.alert({**make_alert(fingerprint=f"f{number}"), "status": "resolved"})
            await client.until(lambda key=row["run_id"]: any(run[1] == key for run in world.airflow.runs))
            world.airflow.finish(row["run_id"], "failed")

            async def ended(id: int = id) -> bool:
                return bool((await client.decision(id))["outcome"])

            await client.until(ended)
        world.validated("flights", 9)
        (id,) = (await client.alert(make_alert(fingerprint="one more"))).json()["decisions"]
        row = await client.decided(id, "breaker_open")
        assert "perennial resume flights" in row["reason"]
        assert (await client.metrics())[since] == 5
        assert (await client.http.post("/api/v1/pipelines/flights/runs", json=BY_ANN)).status_code == 202
    async with world.controller() as client:  # it stays open across a restart
        world.airflow.finish((await client.decisions())[0]["run_id"], "failed")
        await client.http.post(RESUME, json={"actor": "bob"})
        await client.decided(id, "accepted")
        assert (await client.metrics())[since] == 0


async def test_what_the_controller_itself_uses_is_a_metric(world: Any) -> None:
    async with world.controller() as client:
        assert (await client.metrics())["process_resident_memory_bytes"] > 1e7


async def test_since_when_retraining_is_paused_is_a_metric(world: Any) -> None:
    paused = 'perennial_paused_since_timestamp_seconds{pipeline="flights"}'
    async with world.controller() as client:
        assert paused not in await client.metrics()
        (lasting,) = (await client.http.post("/api/v1/pause", json=BY_ANN)).json()["pauses"]

        async def told() -> float | None:
            return (await client.metrics()).get(paused)

        assert await client.until(told) == datetime.fromisoformat(lasting["since"]).timestamp()
        await client.http.post("/api/v1/resume", json=BY_ANN)

        async def gone() -> bool:
            return await told() is None

        await client.until(gone)

"""Of several events that are open: which starts the run, which it answers, and which a newer one replaces."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

RUNS = "/api/v1/pipelines/flights/runs"
ASKED = {"reason": "the quarter's data is in", "actor": "ada"}
BOTH = "{on: [drift, quality], cooldown: 0s}"
QUALITY = {"name": "PerennialQualityLow", "fingerprint": "q1"}


async def test_low_quality_starts_the_run_and_drift_of_the_same_time_is_merged_into_it(
    world: Any, make_alert: Any
) -> None:
    world.pipeline("flights", BOTH)
    async with world.controller() as client:
        ids = (await client.alert(make_alert(), make_alert(**QUALITY))).json()["decisions"]
        for id in ids:
            await client.decided(id, "waiting_for_data")
        world.validated("flights", 1)
        (run,) = await client.until(lambda: world.airflow.of("flights"))
        rows = {row["alert"]: row for row in await client.decisions()}
    assert rows["PerennialQualityLow"]["decision"] == "accepted"
    assert rows["PerennialFeatureDrift"]["decision"] == "merged"
    assert {row["run_id"] for row in rows.values()} == {run["dag_run_id"]}
    drift, quality = rows["PerennialFeatureDrift"]["summary"], rows["PerennialQualityLow"]["summary"]
    assert run["conf"]["reason"]["summary"] == f"{quality}; and {drift}"


async def test_a_newer_alert_of_the_same_labels_supersedes_the_older_while_it_fires(
    world: Any, make_alert: Any
) -> None:
    async with world.controller() as client:
        (old,) = (await client.alert(make_alert(starts_at="2026-01-01T00:00:00Z"))).json()["decisions"]
        await client.decided(old, "waiting_for_data")
        (new,) = (await client.alert(make_alert(starts_at="2026-01-02T00:00:00Z"))).json()["decisions"]
        superseded = await client.decided(old, "superseded")
        assert superseded["reason"] == f"decision {new} is about the same, and newer"
        # The newer one ends, and of the older a copy comes: it was no left-over.
        await client.alert(make_alert(starts_at="2026-01-02T00:00:00Z", status="resolved"))
        await client.alert(make_alert(starts_at="2026-01-01T00:00:00Z"))
        await client.decided(old, "waiting_for_data")
        world.validated("flights", 1)
        await client.decided(old, "accepted")


async def test_quiet_hours_hold_an_alert_until_they_end(world: Any, make_alert: Any) -> None:
    world.validated("flights", 1)
    now = datetime.now(UTC)
    hours = f"start: '{now - timedelta(hours=2):%H:%M}', end: '{now + timedelta(hours=2):%H:%M}'"
    world.pipeline("flights", f"{{on: [drift], cooldown: 0s, quiet_hours: {{{hours}}}}}")
    async with world.controller() as client:
        (id,) = (await client.alert(make_alert())).json()["decisions"]
        row = await client.decided(id, "quiet_hours")
        assert row["reason"].startswith("retraining.quiet_hours last until ")
        world.pipeline("flights")  # they are over
        await client.decided(id, "accepted")
        assert [step["decision"] for step in (await client.decision(id))["trail"]] == ["quiet_hours", "accepted"]


async def test_an_alert_waits_for_enough_new_labels(world: Any, make_alert: Any) -> None:
    world.pipeline("flights", "{on: [drift], cooldown: 0s, min_new_labels: 100}")
    world.validated("flights", 1, labelled=99)
    async with world.controller() as client:
        (id,) = (await client.alert(make_alert())).json()["decisions"]
        row = await client.decided(id, "waiting_for_data")
        assert row["reason"] == "99 rows with a label have landed so far; retraining.min_new_labels is 100"
        world.validated("flights", 2, labelled=130)
        await client.decided(id, "accepted")


async def test_a_rehearsal_says_what_would_be_decided_and_writes_nothing(world: Any, make_alert: Any) -> None:
    world.pipeline("flights", "{on: [drift], cooldown: 6h}")
    async with world.controller() as client:
        (id,) = (await client.alert(make_alert())).json()["decisions"]
        before = await client.decided(id, "waiting_for_data")
        answer = await client.http.post(f"{RUNS}?dry_run=true", json=ASKED)
        assert answer.status_code == 200
        assert answer.json() == {
            "decision": "accepted",
            "reason": "a person asked, and no run is active",
            "others": [
                {
                    "id": id,
                    "kind": "alert",
                    "summary": before["summary"],
                    "now": "waiting_for_data",
                    "decision": "merged",
                    "reason": answer.json()["others"][0]["reason"],
                }
            ],
        }
        assert "run that this would start, accepted " in answer.json()["others"][0]["reason"]
        assert await client.decisions() == [before]
        await client.http.post(RUNS, json=ASKED)
        assert (await client.http.post(f"{RUNS}?dry_run=true", json=ASKED)).json()["decision"] == "merged"
    assert len(world.airflow.posts) <= 1


async def test_a_rehearsal_of_something_else_is_told_what_it_may_say(world: Any) -> None:
    async with world.controller() as client:
        answer = await client.http.post(f"{RUNS}?dry_run=perhaps", json=ASKED)
        assert answer.status_code == 400
        assert answer.json() == {"error": "dry_run is 'perhaps'", "where": RUNS, "expected": "true or false"}
        missing = await client.http.post("/api/v1/pipelines/nobodys/runs?dry_run=true", json=ASKED)
        assert missing.status_code == 404
